"""Azulay & Weiss on ImageNet networks that others have trained: only measured, on pictures seen and unseen.

There are no seeds: intervals are over pictures, differences are paired by picture. The three networks see the same
pictures, at the input size of the smallest.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..jobs import Job
from ..measurements import Measurement
from ..metrics import Estimate
from ..records import Run
from ..training import Recipe
from .bases import PROTOCOLS
from .evidence import Result, Statistic, near, select
from .rules import POINT, above, below, claims
from .study import Study

NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")  # by depth and accuracy
SIZES = (60, 90, 112, 150, 180, 210)  # pixels of 224, of the first version (screenshot f10)

# Data sets by the kind of their pictures. "unseen" and "seen" are of one kind: Imagenette's, of 160 pixels.
_PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "validation": {"name": "imagenet-val-500"},
    "unseen": {"name": "imagenette", "size": 160, "origin": "val"},
    "seen": {"name": "imagenette", "size": 160, "origin": "train"},
    "sample": {"name": "imagenet-sample-1000", "size": 224},
}
# Drawn pictures, on which these networks know nothing: they show that the code works, and nothing else.
_DRAWN = {kind: {"name": "shapes", "seed": 2 + i, "size": 48, "count": 40} for i, kind in enumerate(_PHOTOGRAPHS)}


# Pictures of most measurements, of those by size, and of sweeps; positions of a sweep; training pictures; pairs. There
# is nothing to draw for these networks, so ``laptop`` has none; nor has ``cluster``, where nothing of this grows.
_COUNTS = {
    "smoke": (12, 4, 2, 3, 16, 1),
    "desktop": (500, 100, 40, 33, 1000, 1),
    "gpu": (12_000, 500, 200, 101, 12_000, 8),
}


def plan(profile: str) -> Iterator[Job]:
    """Every network on every kind of pictures."""
    if profile not in _COUNTS:
        return
    kinds = _DRAWN if profile == "smoke" else _PHOTOGRAPHS
    pictures, few, swept, positions, training, pairs = _COUNTS[profile]
    for kind, dataset in kinds.items():
        for network in NETWORKS:
            count = 2 * pictures if kind == "sample" else pictures
            about = {"count": count, "margin": 8}  # of 224 pixels and of 160 alike
            wanted = [Measurement("one_pixel_windows", about)]
            if kind == "validation":
                wanted += [
                    Measurement("one_pixel_protocols", {"count": pictures, "protocols": PROTOCOLS, "pairs": pairs}),
                    Measurement("inpainted_sweep", {"count": swept, "positions": positions}),
                    Measurement("moving_maps", {}),
                    Measurement("embedded_sizes", {"count": few, "sizes": SIZES}),
                ]
            if kind == "unseen":
                known = {"against": kinds["seen"], "training": training}
                wanted.append(Measurement("distance_to_training", about | known))
            run = Run(dataset, {"name": network, "pretrained": True}, Recipe(epochs=0), 0)
            yield Job(run, tuple(wanted), {"pictures": kind})


def _over(estimate: Callable[..., Estimate], *needs: tuple[str, str]) -> Statistic:
    """An estimate over pictures, of networks that are not trained here; ``None`` unless each of them was measured so.

    For each kind of pictures and column that it ``needs``, ``estimate`` gets what the networks gave, in their order:
    lists by picture as tensors, and other values as they are.
    """

    def of(table: pd.DataFrame) -> Result | None:
        given = []
        for kind, column in needs:
            rows = select(table, {"pictures": kind}).set_index("network")
            measured = [name for name in table if name.startswith(column.partition(".")[0] + ".")]
            if not set(NETWORKS) <= set(rows.index[rows[measured].notna().any(axis=1)]):
                return None
            given.append([_numbers(rows[column][network]) for network in NETWORKS])
        return Result.over(estimate(*given))

    return Statistic(tuple({"pictures": kind} for kind, _ in needs), of)


def _numbers(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value


def _mean(networks: list[Tensor], pairs: int = 1) -> Estimate:
    """Mean over the networks of a value by picture, per pair, with the interval over pictures."""
    return Estimate.mean(torch.stack([own / pairs for own in networks]).mean(0))


def _shiftable(factors: list[Tensor], off: list[Tensor]) -> Estimate:
    """Largest minus smallest accumulated subsampling factor."""
    return _mean([own[:, by.argmax()] - own[:, by.argmin()] for by, own in zip(factors, off, strict=True)])


def _typical(distances: list[Tensor], changes: list[Tensor], correct: list[Tensor] | None = None) -> Estimate:
    """Change rate of the least typical fifth of the pictures minus that of the most typical fifth.

    Each network has fifths of its own, so the three are separate samples; the interval is of their mean. With
    ``correct`` only pictures that are classified correctly count.
    """
    found = []
    for index, (distance, change) in enumerate(zip(distances, changes, strict=True)):
        parts = distance.argsort().tensor_split(5)
        if correct:
            parts = tuple(part[correct[index][part] > 0] for part in parts)
        near, far = change[parts[0]] / 4, change[parts[-1]] / 4
        if min(len(near), len(far)) < 2:  # hardly a picture is classified correctly
            return Estimate(math.nan, math.nan, math.nan, len(change))
        found.append(_apart(far, near))
    # The networks see the same pictures: taken as fully dependent, which makes the interval too long, never too short.
    value, low, high = torch.tensor([one[:3] for one in found], dtype=torch.float64).mean(0).tolist()
    return Estimate(value, low, high, min(one.n for one in found))


def _unseen_minus_seen(*kinds: list[Tensor]) -> Estimate:
    return _apart(*(torch.stack([own / 4 for own in networks]).mean(0) for networks in kinds))


def _apart(first: Tensor, second: Tensor) -> Estimate:
    """Mean of the ``first`` pictures minus that of the ``second``, which are others."""
    value = (first.mean() - second.mean()).item()
    half = 1.96 * (first.var() / len(first) + second.var() / len(second)).sqrt().item()
    return Estimate(value, value - half, value + half, len(first) + len(second))


def _deepest_minus_shallowest(*values: list[Tensor]) -> Estimate:
    """Of the means over several values by picture."""
    means = [torch.stack(own).mean(0) for own in zip(*values, strict=True)]
    return Estimate.difference(means[-1], means[0])


def _half(*ratio: list[Any]) -> Estimate:
    """The middle network: the ratio is an estimate over pictures already, ``None`` where nothing is right."""
    return Estimate._make(math.nan if own[1] is None else own[1] for own in ratio)


CROP, *_ = CHANGES = [("validation", f"one_pixel_protocols.changes_{protocol}") for protocol in PROTOCOLS]
WINDOWS, SEEN, UNSEEN = ((kind, "one_pixel_windows.changes") for kind in ("validation", "seen", "unseen"))
TYPICAL = (("unseen", "distance_to_training.distance"), UNSEEN)
FACTORS, OFF, CROSSED, STEPS = (
    ("validation", f"inpainted_sweep.{column}")
    for column in ("factors", "non_shiftability_by_picture", "crossings_by_picture", "steps")
)
HALF = [
    ("validation", f"embedded_sizes.{column}")
    for column in ("half_over_whole", "half_over_whole.low", "half_over_whole.high", "size_pictures")
]
TESTS = {
    "real-1: P(top-1 change), crop, mean of three networks, validation pictures": above(
        _over(_mean, CROP), threshold=0.02, margin=POINT
    ),
    "real-1: the same, worst of the four protocols": above(
        _over(lambda *rates: max(map(_mean, rates)), *CHANGES), threshold=0.1, margin=0.02
    ),
    "real-1: the same without resizing or frame: the middle window against its diagonal neighbours": above(
        _over(partial(_mean, pairs=4), WINDOWS), threshold=0.02, margin=POINT
    ),
    "real-2: non-shiftability (share of positions), largest minus smallest factor, mean of three networks": above(
        _over(_shiftable, FACTORS, OFF), margin=0.02
    ),
    "real-3: P(top-1 change), windows, least minus most typical fifth of unseen pictures": above(
        _over(_typical, *TYPICAL), margin=0.02
    ),
    "real-3: the same among the pictures that are classified correctly": above(
        _over(_typical, *TYPICAL, ("unseen", "one_pixel_windows.correct")), margin=0.02
    ),
    "real-3: P(top-1 change), windows, unseen minus seen pictures of one kind": above(
        _over(_unseen_minus_seen, UNSEEN, SEEN), margin=0.02
    ),
    "real-4: P(top-1 change), mean of the four protocols, Lite2 minus Lite0, paired by picture": above(
        _over(_deepest_minus_shallowest, *CHANGES), margin=POINT
    ),
    "real-4: share of neighbouring positions at which the right class enters or leaves the top five, likewise": above(
        _over(lambda crossed, steps: _deepest_minus_shallowest([c / steps[0] for c in crossed]), CROSSED, STEPS),
        margin=POINT,
    ),
    "real-5: top-5 accuracy at half the width over that at 210 of 224 pixels, Lite1: distance from a half": below(
        near(_over(_half, *HALF), 0.5), threshold=1 / 6
    ),
}

STUDY = Study(
    "realnetworks",
    "Real ImageNet networks",
    "Azulay & Weiss 2019, on the EfficientNet-Lite networks of Tan & Le 2019, which others have trained",
    plan,
    claims({"real-1 real-2 real-3 real-4 real-5": ()}, TESTS),
    shown_in="azulay2018",
)
