"""Metrics over batches as they come, such as those of a ``DataLoader``: update, update, ..., compute.

Only what the metric needs of each image is kept, never the images. The value is that of the function of the same name
on all images at once, however they are split: random numbers belong to an image's place in the sequence.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..errors import UsageError, unknown
from .ascent import Norm
from .attacks import survivors
from .consistency import agreements, fidelity_of, shifted
from .corruption import NAMES, SEVERITIES, CorruptionErrors, corrupted, corruption_error
from .estimate import Estimate
from .exhaustive import accuracy_against_shift, adversary_accuracy, probability_variation
from .few_shot import few_shot_accuracy
from .one_pixel import Changes, one_pixel_changes, one_pixel_of
from .readouts import embedding
from .rolls import RollPredictions, roll_predictions
from .sampling import bias_of, window_counts
from .segmentation import class_distance, iou_estimate, mask_overlaps, mask_scores, same_class
from .spectra import energies, errors
from .sweeps import crossings, probability_curves, vertical_sweep

__all__ = ["STREAMED", "Streamed"]

Score = Callable[..., Any]  # of a network and a batch: something for each image
Reduce = Callable[[Any], Any]  # of that for all images: the result
Plan = Callable[..., tuple[Score, Reduce]]  # of the options


class Streamed:
    """One metric of one network, over batches.

    Args:
        metric: one of ``STREAMED``.
        model: the network; it runs in evaluation mode where its parameters are.
        generator: on the CPU; without one a private generator with seed 0.
        options: of the function of that name, but for what comes with the batches.

    Raises:
        UsageError: an unknown metric or option, or circular shifts drawn from the whole grid, whose draws depend on the
            number of images: say ``max_shift`` or ``exhaustive``.
    """

    def __init__(self, metric: str, model: nn.Module, generator: Generator | None = None, **options: Any) -> None:
        if metric not in STREAMED:
            raise unknown("streamed metric", metric, STREAMED)
        known = [name for name in inspect.signature(STREAMED[metric]).parameters if name != "generator"]
        if strange := [name for name in options if name not in known]:
            raise unknown(f"option of {metric}", strange[0], known)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.model = model
        self._score, self._reduce = STREAMED[metric](generator=generator, **options)
        self._parts: list[Any] = []

    def update(self, images: Tensor, *truth: Tensor) -> None:
        """Take in a batch: images (n, 3, H, W), then labels (n,) or masks (n, H, W) where the metric uses them."""
        self._parts.append(self._score(self.model, images, *truth))

    def compute(self) -> Any:
        """The value so far, as the function returns it; more batches may follow."""
        if not self._parts:
            raise UsageError("a streamed metric has no value before its first batch; call update(images, ...)")
        return self._reduce(_joined(self._parts))


def _joined(parts: list[Any]) -> Any:
    """What was found for each image, one part after the other, whatever holds it."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        members = [_joined(list(column)) for column in zip(*parts, strict=True)]
        return type(first)(*members) if hasattr(first, "_fields") else tuple(members)
    return first  # the same for all images


class _Rolled(NamedTuple):
    """What belongs to the images in ``RollPredictions``."""

    classes: Tensor
    probability: Tensor | None
    labels: Tensor | None


def _splittable(shift: str, max_shift: int | None, exhaustive: bool = False) -> None:
    if shift == "circular" and max_shift is None and not exhaustive:
        raise UsageError(
            "circular shifts of the whole grid are drawn for all images together; over batches give max_shift=M"
            " or, for consistency, exhaustive=True"
        )


def _consistency(
    generator: Generator,
    shift: str = "circular",
    max_shift: int | None = None,
    exhaustive: bool = False,
    correct_only: bool = False,
    batch_size: int = 256,
) -> tuple[Score, Reduce]:
    _splittable(shift, max_shift, exhaustive)

    def score(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> Tensor:
        own = labels if correct_only else None
        return agreements(model, images, shift, max_shift, exhaustive, own, generator, batch_size)

    return score, Estimate.mean if exhaustive else Estimate.share


def _fidelity(
    generator: Generator, shift: str = "circular", max_shift: int | None = None, batch_size: int = 256
) -> tuple[Score, Reduce]:
    _splittable(shift, max_shift)
    score = partial(shifted, shift=shift, max_shift=max_shift, generator=generator, batch_size=batch_size)
    return score, fidelity_of


def _of_rolls(reduce: Callable[[RollPredictions], Any]) -> Plan:
    def plan(
        generator: Generator, max_shift: int | None = None, batch_size: int = 64, method: str | None = None
    ) -> tuple[Score, Reduce]:
        seen: list[RollPredictions] = []  # of the last batch, for what is the same for all

        def score(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> _Rolled:
            found = roll_predictions(model, images, labels, max_shift, batch_size, method)
            seen[:] = [found]
            return _Rolled(found.classes, found.probability, found.labels)

        return score, lambda rolled: reduce(seen[0]._replace(**rolled._asdict()))

    return plan


def _one_pixel(
    generator: Generator, protocol: str = "crop", correct_only: bool = False, pairs: int = 1, batch_size: int = 256
) -> tuple[Score, Reduce]:
    def score(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> Changes:
        return one_pixel_changes(model, images, protocol, labels, correct_only, pairs, generator, batch_size)

    return score, one_pixel_of


def _jaggedness(
    generator: Generator, top: int = 5, positions: int | None = None, border: str = "inpainting", batch_size: int = 256
) -> tuple[Score, Reduce]:
    def score(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return probability_curves(model, vertical_sweep(images, positions, border), labels, batch_size)[1] < top

    return score, crossings


def _per_site(measure: Score, reduce: Reduce) -> Plan:
    def plan(generator: Generator, batch_size: int = 256) -> tuple[Score, Reduce]:
        return partial(measure, batch_size=batch_size), lambda found: {name: reduce(own) for name, own in found.items()}

    return plan


def _attack_accuracy(
    generator: Generator,
    attack: str = "pgd",
    eps: float = 8 / 255,
    norm: Norm = "linf",
    steps: int | None = None,
    restarts: int = 1,
    step_size: float | None = None,
    batch_size: int = 256,
) -> tuple[Score, Reduce]:
    def score(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        found = survivors(
            model, images, labels, (eps,), attack, norm, steps, restarts, step_size, generator, batch_size
        )
        return found[eps]

    return score, Estimate.share


def _corruption_error(
    generator: Generator,
    names: tuple[str, ...] = NAMES,
    severities: tuple[int, ...] = SEVERITIES,
    batch_size: int = 256,
) -> tuple[Score, Reduce]:
    streams: dict = {}

    def score(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        source = corrupted(images, generator, streams)
        found = corruption_error(model, images, labels, names, severities, batch_size=batch_size, source=source)
        return found.wrong

    return score, lambda wrong: CorruptionErrors(wrong, tuple(names), tuple(severities))


def _few_shot_accuracy(
    generator: Generator,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    batch_size: int = 256,
) -> tuple[Score, Reduce]:
    state = generator.get_state()

    def score(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return embedding(model, images, batch_size=batch_size), labels.cpu()

    def reduce(found: tuple[Tensor, Tensor]) -> Estimate:
        generator.set_state(state)  # the same episodes whenever it is computed
        return few_shot_accuracy(found[0], None, found[1], ways, shots, queries, episodes, generator)

    return score, reduce


def _mean_iou(generator: Generator, ignore_index: int = 255, batch_size: int = 64) -> tuple[Score, Reduce]:
    score = partial(mask_overlaps, ignore_index=ignore_index, batch_size=batch_size)
    return score, iou_estimate


def _of_masks(compare: Callable[[Tensor, Tensor], Tensor]) -> Plan:
    def plan(
        generator: Generator, shift: str = "circular", max_shift: int = 8, border: int = 0, batch_size: int = 64
    ) -> tuple[Score, Reduce]:
        def score(model: nn.Module, images: Tensor) -> Tensor:
            return mask_scores(model, images, compare, shift, max_shift, border, generator, batch_size)

        return score, Estimate.mean

    return plan


#: Name of the metric -> what is kept of each image and what is made of it, given the options.
STREAMED: dict[str, Plan] = {
    "accuracy_against_shift": _of_rolls(accuracy_against_shift),
    "adversary_accuracy": _of_rolls(adversary_accuracy),
    "alias_energy": _per_site(energies, Estimate.mean),
    "alias_error": _per_site(errors, Estimate.mean),
    "attack_accuracy": _attack_accuracy,
    "consistency": _consistency,
    "corruption_error": _corruption_error,
    "few_shot_accuracy": _few_shot_accuracy,
    "fidelity": _fidelity,
    "jaggedness": _jaggedness,
    "mask_consistency": _of_masks(same_class),
    "mask_equivariance_error": _of_masks(class_distance),
    "max_sampling_bias": _per_site(window_counts, bias_of),
    "mean_iou": _mean_iou,
    "one_pixel": _one_pixel,
    "probability_variation": _of_rolls(probability_variation),
}
