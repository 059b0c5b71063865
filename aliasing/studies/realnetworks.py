"""Azulay & Weiss on ImageNet networks that others have trained: only measured, on pictures seen and unseen.

There are no seeds: intervals are over pictures, differences are paired by picture. The three networks see the same
windows, at the input size of the smallest.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pandas as pd
import torch

from ..measurements import Measurement
from ..metrics import Estimate
from ..records import Run
from ..runner import Job
from ..training import Recipe
from .bases import PROTOCOLS
from .evidence import Result
from .rules import Test, claim
from .study import Study

__all__ = ["NETWORKS", "STUDY"]

NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")  # by depth and accuracy
SIZES = (60, 90, 112, 150, 180, 210)  # pixels of 224, of Figure 10 of the first version

# Data sets by the kind of their pictures. "unseen" and "seen" are of one kind: Imagenette's, of 160 pixels.
_PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "validation": {"name": "imagenet-val-500"},
    "unseen": {"name": "imagenette", "size": 160, "origin": "val"},
    "seen": {"name": "imagenette", "size": 160, "origin": "train"},
    "sample": {"name": "imagenet-sample-1000", "size": 224},
}
# Drawn pictures, on which these networks know nothing: they show that the code works, and nothing else.
_DRAWN = {kind: {"name": "shapes", "seed": 2 + i, "size": 48, "count": 40} for i, kind in enumerate(_PHOTOGRAPHS)}


def plan(profile: str) -> list[Job]:
    """Every network on every kind of pictures.

    There is nothing to draw for them, so ``laptop`` has none; nor has ``cluster``, where nothing of this grows.
    """
    if profile in ("laptop", "cluster"):
        return []
    if profile == "smoke":
        return _jobs(_DRAWN, _Sizes(pictures=12, few=4, swept=2, positions=3, training=16))
    if profile == "desktop":
        return _jobs(_PHOTOGRAPHS, _Sizes(pictures=500, few=100, swept=40, positions=33, training=1000))
    return _jobs(_PHOTOGRAPHS, _Sizes(12_000, few=500, swept=200, positions=101, training=12_000, pairs=8))


class _Sizes(NamedTuple):
    """Pictures of most measurements, of those by size, and of sweeps; positions of a sweep; training pictures."""

    pictures: int
    few: int
    swept: int
    positions: int
    training: int
    pairs: int = 1


def _jobs(kinds: dict[str, dict[str, Any]], sizes: _Sizes) -> list[Job]:
    jobs = []
    for kind, dataset in kinds.items():
        for network in NETWORKS:
            count = 2 * sizes.pictures if kind == "sample" else sizes.pictures
            about = {"count": count, "margin": 8}  # of 224 pixels and of 160 alike
            wanted = [Measurement("one_pixel_windows", about)]
            if kind == "validation":
                protocols = {"count": sizes.pictures, "protocols": PROTOCOLS, "pairs": sizes.pairs}
                wanted += [
                    Measurement("one_pixel_protocols", protocols),
                    Measurement("inpainted_sweep", {"count": sizes.swept, "positions": sizes.positions}),
                    Measurement("moving_maps", {}),
                    Measurement("embedded_sizes", {"count": sizes.few, "sizes": SIZES}),
                ]
            if kind == "unseen":
                training = {"against": kinds["seen"], "training": sizes.training}
                wanted.append(Measurement("distance_to_training", about | training))
            run = Run(dataset, {"name": network, "pretrained": True}, Recipe(epochs=0), 0)
            jobs.append(Job(run, tuple(wanted), {"pictures": kind}))
    return jobs


class _Over(NamedTuple):
    """A statistic over pictures, of networks that are not trained here.

    Attributes:
        estimate: of a results table in which every network has what is needed.
        needs: measurements, and the kinds of pictures that they are needed on.
    """

    estimate: Callable[[pd.DataFrame], Estimate]
    needs: tuple[tuple[str, str], ...]

    @property
    def settings(self) -> tuple[dict[str, Any], ...]:
        """The networks on these kinds of pictures."""
        return tuple({"pictures": pictures} for _, pictures in self.needs)

    def __call__(self, table: pd.DataFrame) -> Result | None:
        """``None`` unless every network was measured so."""
        for measurement, pictures in self.needs:
            columns = [column for column in table if column.startswith(f"{measurement}.")]
            rows = table[table["pictures"] == pictures] if columns else table
            known = rows.loc[rows[columns].notna().any(axis=1), "network"] if columns else []
            if not set(NETWORKS) <= set(known):
                return None
        found = self.estimate(table)
        return Result(*found[:3], 0, found.n, (found.high - found.low) / 2 / 1.96)


def _cell(table: pd.DataFrame, network: str, pictures: str, column: str) -> Any:
    """What one network gave on one kind of pictures."""
    rows = table[(table["network"] == network) & (table["pictures"] == pictures)]
    return rows[column].iloc[0]


def _by_picture(table: pd.DataFrame, network: str, pictures: str, column: str) -> torch.Tensor:
    return torch.tensor(_cell(table, network, pictures, column), dtype=torch.float64)


def _mean_of_networks(table: pd.DataFrame, value: Callable[[str], torch.Tensor]) -> Estimate:
    """Mean over the three networks of a value by picture, with the interval over pictures."""
    return Estimate.mean(torch.stack([value(network) for network in NETWORKS]).mean(0))


def _changes(table: pd.DataFrame, network: str, protocols: Iterable[str]) -> torch.Tensor:
    """Change rate of each validation picture, mean of the protocols."""
    found = [_by_picture(table, network, "validation", f"one_pixel_protocols.changes_{p}") for p in protocols]
    return torch.stack(found).mean(0)


def _worst(table: pd.DataFrame) -> Estimate:
    """The protocol with the highest mean rate."""
    rates = [_mean_of_networks(table, lambda n, p=p: _changes(table, n, [p])) for p in PROTOCOLS]  # type: ignore[misc]
    return max(rates)


def _windows(table: pd.DataFrame, network: str, pictures: str) -> torch.Tensor:
    return _by_picture(table, network, pictures, "one_pixel_windows.changes") / 4


def _shiftable(table: pd.DataFrame) -> Estimate:
    """Largest minus smallest accumulated subsampling factor."""

    def rise(network: str) -> torch.Tensor:
        factors = _cell(table, network, "validation", "inpainted_sweep.factors")
        off = _by_picture(table, network, "validation", "inpainted_sweep.non_shiftability_by_picture")
        return off[:, factors.index(max(factors))] - off[:, factors.index(min(factors))]

    return _mean_of_networks(table, rise)


def _typical(table: pd.DataFrame, correct_only: bool = False) -> Estimate:
    """Change rate of the least typical fifth of the unseen pictures minus that of the most typical fifth.

    Each network has fifths of its own, so the three are separate samples; the interval is of their mean.
    """
    gaps, variances, sizes = [], [], []
    for network in NETWORKS:
        distance = _by_picture(table, network, "unseen", "distance_to_training.distance")
        change = _windows(table, network, "unseen")
        parts = distance.argsort().tensor_split(5)
        if correct_only:
            right = _by_picture(table, network, "unseen", "one_pixel_windows.correct") > 0
            parts = tuple(part[right[part]] for part in parts)
        near, far = change[parts[0]], change[parts[-1]]
        if min(len(near), len(far)) < 2:  # hardly a picture is classified correctly
            return Estimate(math.nan, math.nan, math.nan, len(change))
        gaps.append(far.mean() - near.mean())
        variances.append(near.var() / len(near) + far.var() / len(far))
        sizes.append(len(near) + len(far))
    # The networks see the same pictures: taken as fully dependent, which makes the interval too long, never too short.
    half = 1.96 * torch.stack(variances).sqrt().mean().item()
    value = torch.stack(gaps).mean().item()
    return Estimate(value, value - half, value + half, min(sizes))


def _unseen_minus_seen(table: pd.DataFrame) -> Estimate:
    unseen, seen = (
        torch.stack([_windows(table, network, kind) for network in NETWORKS]).mean(0) for kind in ("unseen", "seen")
    )
    value = (unseen.mean() - seen.mean()).item()
    half = 1.96 * (unseen.var() / len(unseen) + seen.var() / len(seen)).sqrt().item()
    return Estimate(value, value - half, value + half, len(unseen) + len(seen))


def _deepest_minus_shallowest(table: pd.DataFrame) -> Estimate:
    return Estimate.difference(*(_changes(table, network, PROTOCOLS) for network in (NETWORKS[-1], NETWORKS[0])))


def _crossings(table: pd.DataFrame) -> Estimate:
    column = "inpainted_sweep.crossings_by_picture"
    deep, shallow = (_by_picture(table, network, "validation", column) for network in (NETWORKS[-1], NETWORKS[0]))
    steps = _cell(table, NETWORKS[0], "validation", "inpainted_sweep.steps")
    return Estimate.difference(deep / steps, shallow / steps)


def _half(table: pd.DataFrame) -> Estimate:
    """The middle network: the ratio is an estimate over pictures already."""
    column = "embedded_sizes.half_over_whole"
    ends = [_cell(table, NETWORKS[1], "validation", f"{column}{end}") for end in ("", ".low", ".high")]
    value, low, high = (math.nan if end is None else end for end in ends)  # where nothing is classified correctly
    return Estimate(value, low, high, _cell(table, NETWORKS[1], "validation", "embedded_sizes.size_pictures"))


def _on(*kinds: str) -> tuple[tuple[str, str], ...]:
    return tuple(("one_pixel_windows", kind) for kind in kinds)


CHANGES, SWEEP = (("one_pixel_protocols", "validation"),), (("inpainted_sweep", "validation"),)
TYPICAL = (*_on("unseen"), ("distance_to_training", "unseen"))
FINDINGS = (
    claim(
        "real-1",
        (),
        Test(
            "P(top-1 change), crop, mean of three networks, validation pictures",
            _Over(lambda t: _mean_of_networks(t, lambda n: _changes(t, n, ["crop"])), CHANGES),
            threshold=0.02,
            margin=0.01,
        ),
        Test("the same, worst of the four protocols", _Over(_worst, CHANGES), threshold=0.1, margin=0.02),
        Test(
            "the same without resizing or frame: the middle window against its diagonal neighbours",
            _Over(lambda t: _mean_of_networks(t, lambda n: _windows(t, n, "validation")), _on("validation")),
            threshold=0.02,
            margin=0.01,
        ),
    ),
    claim(
        "real-2",
        (),
        Test(
            "non-shiftability (share of positions), largest minus smallest factor, mean of three networks",
            _Over(_shiftable, SWEEP),
            margin=0.02,
        ),
    ),
    claim(
        "real-3",
        (),
        Test(
            "P(top-1 change), windows, least minus most typical fifth of unseen pictures",
            _Over(_typical, TYPICAL),
            margin=0.02,
        ),
        Test(
            "the same among the pictures that are classified correctly",
            _Over(lambda t: _typical(t, correct_only=True), TYPICAL),
            margin=0.02,
        ),
        Test(
            "P(top-1 change), windows, unseen minus seen pictures of one kind",
            _Over(_unseen_minus_seen, _on("unseen", "seen")),
            margin=0.02,
        ),
    ),
    claim(
        "real-4",
        (),
        Test(
            "P(top-1 change), mean of the four protocols, Lite2 minus Lite0, paired by picture",
            _Over(_deepest_minus_shallowest, CHANGES),
            margin=0.01,
        ),
        Test(
            "share of neighbouring positions at which the right class enters or leaves the top five, likewise",
            _Over(_crossings, SWEEP),
            margin=0.01,
        ),
    ),
    claim(
        "real-5",
        (),
        Test(
            "top-5 accuracy at half the width over that at 210 of 224 pixels, Lite1",
            _Over(_half, (("embedded_sizes", "validation"),)),
            "below",
            threshold=0.7,
            margin=0.1,
        ),
    ),
)

STUDY = Study(
    "realnetworks",
    "Real ImageNet networks",
    "Azulay & Weiss 2019, on the EfficientNet-Lite networks of Tan & Le 2019, which others have trained",
    plan,
    FINDINGS,
    shown_in="azulay2018",
)
