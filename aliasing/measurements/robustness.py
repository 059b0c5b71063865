"""Attacks and common corruptions."""

import json
from functools import lru_cache
from typing import Any

from torch import Tensor

from ..datasets.corruptions import NAMES, SEVERITIES
from ..evaluation import Subject, measurement
from ..metrics import Estimate, attack_curve, corruption_error, predict
from ..metrics.robustness import Source, corrupted

KEPT = 2**28  # bytes of corrupted images that are kept for the next network; making them takes longest


@measurement
def attacks(subject: Subject, count: int, steps: int, attack: str = "pgd") -> dict[str, Any]:
    """Accuracy under an l_inf attack of eps in {0.25, 0.5, 1, 2, 4, 8} / 255, on ``count`` test images."""
    test = subject.split("test", count)
    eps = [0.25, 0.5, 1, 2, 4, 8]
    curve = attack_curve(subject.network, test.images, test.labels, [e / 255 for e in eps], attack, steps=steps)
    name = attack.replace("-", "_")
    return {f"{name}_eps": eps, f"{name}_accuracy": [estimate.value for estimate in curve.values()]}


@measurement
def corruptions(subject: Subject, count: int, severities: tuple[int, ...] = (1, 2, 3, 4, 5)) -> dict[str, Any]:
    """Unnormalised error under the 15 common corruptions, on ``count`` test images."""
    test = subject.split("test", count)
    source = _kept(json.dumps(subject.run.dataset), count, test.images)
    errors = corruption_error(subject.network, test.images, test.labels, NAMES, severities, source=source)
    return {
        "corruption_error": errors.mean,
        "corruption_error_by_name": {name: estimate.value for name, estimate in errors.by_name.items()},
        "corruption_error_by_severity": errors.table.mean(0),
    }


@measurement
def clean_error(subject: Subject, count: int) -> dict[str, Any]:
    """Error on the ``count`` test images of ``corruptions`` as they are: what corruption adds is the difference."""
    test = subject.split("test", count)
    wrong = predict(subject.network, test.images).argmax(1).cpu() != test.labels
    return {"clean_error": Estimate.proportion(int(wrong.sum()), len(wrong))}


@lru_cache(maxsize=1)
def _cells(dataset: str, count: int) -> dict[tuple[str, int], Tensor]:
    return {}


def _kept(dataset: str, count: int, images: Tensor) -> Source | None:
    """The source that makes each cell once for all networks; ``None`` where all the cells would not fit."""
    if images.nbytes * len(NAMES) * len(SEVERITIES) > KEPT:
        return None
    cells, fresh = _cells(dataset, count), corrupted(images)

    def source(name: str, severity: int, part: slice) -> Tensor:
        if (name, severity) not in cells:
            cells[name, severity] = fresh(name, severity, slice(0, None))
        return cells[name, severity][part]

    return source
