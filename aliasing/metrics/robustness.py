"""Accuracy under attack, and error under common corruptions.

The attacks themselves are in ``aliasing.adversary``, the corruptions in ``aliasing.datasets.corruptions``. Every image
is corrupted in each kind and severity asked for, so each cell of the table is measured on the same images and intervals
are over images. The random numbers of a cell depend on the generator and the cell only, not on which others are
measured.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..adversary import survivors
from ..datasets.corruptions import NAMES, SEVERITIES, corrupt
from ..errors import UsageError, check_whole
from ..inference import check_images, check_labels, correct
from ..streams import drawing
from .estimate import Estimate


def attack_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str = "pgd",
    eps: float = 8 / 255,
    generator: Generator | None = None,
    batch_size: int = 256,
    steps: int | None = None,
) -> Estimate:
    """Share of ``images`` (N, 3, H, W) that are classified correctly and stay so everywhere the attack looks.

    ``eps`` is the radius of the l-infinity ball, in units of the image range [0, 1]. The generator draws random starts;
    without ``steps`` there are as many as ``attack_images`` says.
    """
    alive = survivors(model, images, labels, (eps,), attack, steps, generator, batch_size)
    return Estimate.share(alive[eps])


class CorruptionErrors(NamedTuple):
    """Which answers were wrong, (N, corruptions, severities) bool, and what can be said about them."""

    wrong: Tensor
    names: tuple[str, ...]

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


def corrupted(
    images: Tensor, generator: Generator | None = None, batch_size: int = 256
) -> Callable[[str, int], Tensor]:
    """The function that corrupts ``images`` (N, 3, H, W) uint8 by a name and a severity, ``batch_size`` at a time."""
    seed = int(torch.randint(2**31, (), generator=drawing(generator)))
    batch_size = check_whole("batch_size", batch_size, 1)

    def source(name: str, severity: int) -> Tensor:
        cell = NAMES.index(name) * len(SEVERITIES) + severity if name in NAMES else 0
        stream = torch.Generator().manual_seed(int(seed + cell))
        return torch.cat([corrupt(part, name, severity, stream) for part in images.split(batch_size)])

    return source


def corruption_error(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    names: Sequence[str] = NAMES,
    severities: Sequence[int] = SEVERITIES,
    generator: Generator | None = None,
    batch_size: int = 256,
    source: Callable[[str, int], Tensor] | None = None,
) -> CorruptionErrors:
    """Errors of ``model`` on corrupted ``images`` (N, 3, H, W) uint8.

    ``source(name, severity)`` returns the corrupted images, uint8, for instance from a cache; without it they are
    generated.
    """
    check_labels(labels, check_images(images, unit=True))
    for what, given in {"names": names, "severities": severities}.items():
        if isinstance(given, (str, int)) or not given:
            raise UsageError(f"{what} of corruptions must be a list of at least one, got {given!r}")
    source = source or corrupted(images, generator, batch_size)
    wrong = torch.zeros(len(images), len(names), len(severities), dtype=torch.bool)
    for i, name in enumerate(names):
        for j, severity in enumerate(severities):
            wrong[:, i, j] = ~correct(model, source(name, severity), labels, batch_size)
    return CorruptionErrors(wrong, tuple(names))
