"""Error under common corruptions: unnormalised, against a baseline network, and the mCE of ImageNet-C.

Protocol. Every image is corrupted in each kind and severity asked for, so each cell of the table is measured on the
same images and intervals are over images. The random numbers of a cell depend on the generator and the cell only, not
on which other cells are measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from ..datasets.corruptions import NAMES, SEVERITIES, corrupt
from ..errors import UsageError
from .estimate import Estimate
from .inference import batches, check_images, evaluating

__all__ = [
    "ALEXNET",
    "CorruptionErrors",
    "cells",
    "corrupted",
    "corruption_error",
    "mean_corruption_error",
    "relative_corruption_error",
]

# Mean top-1 error of AlexNet over the five severities of ImageNet-C: google-research/augmix, imagenet.py; all but JPEG
# checked against the values per severity in issue 10 of hendrycks/robustness.
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


@dataclass(frozen=True, eq=False)
class CorruptionErrors:
    """Which answers were wrong, (N, corruptions, severities) bool, and what can be said about them."""

    wrong: Tensor
    names: tuple[str, ...]
    severities: tuple[int, ...]

    @property
    def table(self) -> Tensor:
        """Error of each cell (corruptions, severities), a fraction."""
        return self.wrong.double().mean(0)

    @property
    def mean(self) -> Estimate:
        """Unnormalised mean error over all cells, "uCE"."""
        return Estimate.mean(self.wrong.double().mean((1, 2)))

    @property
    def by_name(self) -> dict[str, Estimate]:
        """Mean error over the severities of each corruption."""
        return {name: Estimate.mean(self.wrong[:, i].double().mean(1)) for i, name in enumerate(self.names)}


Source = Callable[[str, int, slice], Tensor]


Stream = Callable[[str, int], Generator]


def cells(generator: Generator | None = None) -> Stream:
    """A new stream of random numbers for any cell; those of one cell are equal. Seed 0 without a generator."""
    seed = int(torch.randint(2**31, (), generator=generator or torch.Generator().manual_seed(0)))

    def stream(name: str, severity: int) -> Generator:
        cell = NAMES.index(name) * len(SEVERITIES) + severity if name in NAMES else 0
        return torch.Generator().manual_seed(seed + cell)

    return stream


def corrupted(images: Tensor, generator: Generator | None = None, going_on: dict | None = None) -> Source:
    """The source that corrupts ``images`` (N, 3, H, W) uint8 as it is asked, slice after slice of each cell.

    Where ``images`` are a part of a set, ``going_on`` keeps the streams from one part to the next.
    """
    streams = {} if going_on is None else going_on
    fresh = streams.setdefault("fresh", cells(generator))

    def source(name: str, severity: int, part: slice) -> Tensor:
        cell = name, severity
        if cell not in streams or (going_on is None and not part.start):
            streams[cell] = fresh(name, severity)
        return corrupt(images[part], name, severity, streams[cell])

    return source


def corruption_error(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    names: Sequence[str] = NAMES,
    severities: Sequence[int] = SEVERITIES,
    generator: Generator | None = None,
    batch_size: int = 256,
    source: Source | None = None,
) -> CorruptionErrors:
    """Errors of ``model`` on corrupted ``images`` (N, 3, H, W) uint8.

    ``source(name, severity, part)`` returns corrupted images for the slice ``part`` of the set, uint8, for instance
    from ``aliasing.datasets.corruptions.read_corrupted`` or a cache; without it they are generated.
    """
    if len(labels) != len(check_images(images)):
        raise UsageError(f"one label per image is needed, got {len(labels)} labels for {len(images)} images")
    if not names or not severities:
        raise UsageError("corruption_error needs at least one corruption and one severity")
    source = source or corrupted(images, generator)
    wrong = torch.zeros(len(images), len(names), len(severities), dtype=torch.bool)
    for i, name in enumerate(names):
        for j, severity in enumerate(severities):
            for part in (slice(start, start + batch_size) for start in range(0, len(images), batch_size)):
                (x,) = batches(model, source(name, severity, part), batch_size)
                with evaluating(model), torch.no_grad():
                    wrong[part, i, j] = (model(x).argmax(1) != labels[part].to(x.device)).cpu()
    return CorruptionErrors(wrong, tuple(names), tuple(severities))


def mean_corruption_error(errors: CorruptionErrors) -> Estimate:
    """mCE of ImageNet-C (Hendrycks and Dietterich 2019), a fraction: mean over corruptions of error over AlexNet's.

    Only for ImageNet and for all fifteen corruptions and five severities; other data have no such normaliser.
    """
    if sorted(errors.names) != sorted(NAMES) or sorted(errors.severities) != sorted(SEVERITIES):
        raise UsageError("mCE is defined over all 15 corruptions and 5 severities; use the mean error for a subset")
    alexnet = torch.tensor([ALEXNET[name] for name in errors.names], dtype=torch.float64)
    return Estimate.mean((errors.wrong.double().mean(2) / alexnet).mean(1))


def relative_corruption_error(errors: CorruptionErrors, baseline: CorruptionErrors) -> Estimate:
    """Mean over corruptions of the error over that of a ``baseline`` network on the same images, "rCE".

    The interval is over images, which are paired; the ratios are linearised around their values (delta method).
    """
    same = errors.names == baseline.names and errors.severities == baseline.severities
    if not same or len(errors.wrong) != len(baseline.wrong):
        raise UsageError("both networks must be measured on the same images, corruptions and severities")
    own, other = errors.wrong.double().mean(2), baseline.wrong.double().mean(2)  # (N, corruptions)
    if (other.mean(0) == 0).any():
        raise UsageError("the baseline makes no error on some corruption, so the ratio is undefined")
    ratio = own.mean(0) / other.mean(0)
    return Estimate.mean((ratio + (own - ratio * other) / other.mean(0)).mean(1))
