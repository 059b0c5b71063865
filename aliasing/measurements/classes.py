"""What the network answers: to clean, attacked, corrupted and filtered images, and to classes it never saw."""

from functools import cache
from typing import Any

import torch

from ..adversary import survivors
from ..datasets.corruptions import NAMES, SEVERITIES
from ..metrics import Estimate, band_accuracy, corruption_error, few_shot_accuracy
from ..metrics.robustness import corrupted
from .subject import Subject, by_image, identity, loaded

KEPT = 2**29  # bytes of corrupted images that are kept for the next network; making them takes longest


def accuracy(subject: Subject, count: int, per_image: bool = False) -> dict[str, Any]:
    """Accuracy on ``count`` test images."""
    right = subject.correct(count)
    return {"accuracy": Estimate.share(right)} | by_image(per_image, accuracy=right)


def clean_error(subject: Subject, count: int) -> dict[str, Any]:
    """Error on ``count`` test images, those of ``corruptions``, as they are: what corruption adds is the difference."""
    return {"clean_error": Estimate.share(~subject.correct(count))}


def attacks(subject: Subject, count: int, steps: int, attack: str = "pgd", per_image: bool = False) -> dict[str, Any]:
    """Accuracy under an l_inf attack of eps in {0.25, 0.5, 1, 2, 4, 8} / 255, on ``count`` test images.

    By image: at how many of these radii it is still classified correctly; the smaller ones, since the balls are nested.
    """
    test = subject.split("test", count)
    eps = [0.25, 0.5, 1, 2, 4, 8]
    alive = survivors(subject.network, test.images, test.labels, [e / 255 for e in eps], attack, steps)
    name = attack.replace("-", "_")
    shares = [Estimate.share(hits).value for hits in alive.values()]
    survived = torch.stack(list(alive.values())).sum(0)
    return {f"{name}_eps": eps, f"{name}_accuracy": shares} | by_image(per_image, **{f"{name}_radii": survived})


_made: dict[str, Any] = {}  # of the data set used last: the source that makes each cell once for all networks


def corruptions(
    subject: Subject, count: int, severities: tuple[int, ...] = SEVERITIES, per_image: bool = False
) -> dict[str, Any]:
    """Unnormalised error under the 15 common corruptions, on ``count`` test images.

    By image: the number of wrong answers to its corrupted versions, one of each kind and severity.
    """
    test = subject.split("test", count)
    source = None  # where all the cells would not fit
    if test.images.nbytes * len(NAMES) * len(SEVERITIES) <= KEPT:
        key = identity(subject.run.dataset), count, test.images.device
        if _made.get("key") != key:
            _made.update(key=key, source=cache(corrupted(test.images, batch_size=len(test.images))))
        source = _made["source"]
    errors = corruption_error(subject.network, test.images, test.labels, NAMES, severities, source=source)
    return {
        "corruption_error": errors.mean,
        "corruption_error_by_name": {name: estimate.value for name, estimate in errors.by_name.items()},
        "corruption_error_by_severity": errors.table.mean(0),
    } | by_image(per_image, corruption_errors=errors.wrong.sum((1, 2)))


def band_removal(subject: Subject, count: int, bands: int = 16) -> dict[str, Any]:
    """Accuracy on ``count`` test images, and with one band of frequencies removed from them, lowest band first."""
    test = subject.split("test", count)
    found = band_accuracy(subject.network, test.images, test.labels, bands)
    whole = Estimate.share(subject.correct(count))
    return {"accuracy_with_all_bands": whole, "accuracy_without_band": [estimate.value for estimate in found]}


def few_shot(
    subject: Subject, dataset: dict[str, Any], domain: str, ways: int = 5, shots: int = 1, episodes: int = 600
) -> dict[str, Any]:
    """Few-shot transfer by nearest centroids on the pooled features: accuracy over episodes.

    They are drawn from the test split of ``dataset``; ``domain`` names it in the result.
    """
    test = loaded(dataset, "test")
    accuracy = few_shot_accuracy(subject.network, test.images, test.labels, ways, shots, episodes=episodes)
    return {f"few_shot_{domain}_{shots}": accuracy}
