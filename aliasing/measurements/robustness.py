"""Attacks and common corruptions."""

from typing import Any

from ..datasets.corruptions import NAMES
from ..evaluation import Subject, measurement
from ..metrics import attack_curve, corruption_error


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
    errors = corruption_error(subject.network, test.images, test.labels, NAMES, severities)
    return {
        "corruption_error": errors.mean,
        "corruption_error_by_name": {name: estimate.value for name, estimate in errors.by_name.items()},
        "corruption_error_by_severity": errors.table.mean(0),
    }
