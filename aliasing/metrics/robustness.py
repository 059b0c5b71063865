"""Accuracy under attack, and error under common corruptions.

The attacks themselves are in ``aliasing.adversary``, the corruptions in ``aliasing.datasets.corruptions``. Every image
is corrupted in each kind and severity asked for, so each cell of the table is measured on the same images and intervals
are over images. The random numbers of a cell depend on the generator and the cell only, not on which others are
measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..adversary import Attack, survivors
from ..datasets.corruptions import NAMES, SEVERITIES, corrupt
from ..errors import UsageError
from ..inference import answers, batches, check_images, check_labels, evaluating
from .estimate import Estimate


def attack_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str = "pgd",
    eps: float = 8 / 255,
    generator: Generator | None = None,
    batch_size: int = 256,
    **settings: Any,
) -> Estimate:
    """Share of ``images`` (N, 3, H, W) that are classified correctly and stay so everywhere the attack looks.

    Args:
        model: images in [0, 1] in, logits (N, classes) out.
        images: uint8, or float in [0, 1].
        labels: (N,).
        attack: one of ``aliasing.adversary.ATTACKS``.
        eps: radius of the l-infinity ball, in units of the image range [0, 1].
        generator: draws the random starts, on the CPU; without one a private generator with seed 0.
        batch_size: images per forward pass; does not change the value.
        settings: of ``aliasing.adversary.Attack``: ``steps``, ``step_size``, ``restarts``.
    """
    return attack_curve(model, images, labels, (eps,), attack, generator, batch_size, **settings)[eps]


def attack_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    attack: str = "pgd",
    generator: Generator | None = None,
    batch_size: int = 256,
    **settings: Any,
) -> dict[float, Estimate]:
    """Accuracy under attack for each radius of ``eps``, in increasing order; arguments as in ``attack_accuracy``.

    The curve never rises, and a point of it can lie below ``attack_accuracy`` at that radius alone: see ``survivors``.
    """
    alive = survivors(model, images, labels, eps, Attack(attack, **settings), generator, batch_size)
    return {radius: Estimate.share(hits) for radius, hits in alive.items()}


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


Source = Callable[[str, int, slice], Tensor]  # of a corruption, a severity and a part of the set: corrupted bytes


def corrupted(images: Tensor, generator: Generator | None = None) -> Source:
    """The source that corrupts ``images`` (N, 3, H, W) uint8 as it is asked, slice after slice of each cell."""
    seed = int(torch.randint(2**31, (), generator=generator or torch.Generator().manual_seed(0)))
    streams: dict[tuple[str, int], Generator] = {}

    def source(name: str, severity: int, part: slice) -> Tensor:
        if not part.start:  # the first slice of a cell
            cell = NAMES.index(name) * len(SEVERITIES) + severity if name in NAMES else 0
            streams[name, severity] = torch.Generator().manual_seed(seed + cell)
        return corrupt(images[part], name, severity, streams[name, severity])

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
    from a cache; without it they are generated.
    """
    check_labels(labels, check_images(images, unit=True))
    if not names or not severities:
        raise UsageError("corruption_error needs at least one corruption and one severity")
    source = source or corrupted(images, generator)
    wrong = torch.zeros(len(images), len(names), len(severities), dtype=torch.bool)
    for i, name in enumerate(names):
        for j, severity in enumerate(severities):
            for part in (slice(start, start + batch_size) for start in range(0, len(images), batch_size)):
                (x,) = batches(model, source(name, severity, part), batch_size)
                with evaluating(model), torch.no_grad():
                    wrong[part, i, j] = (answers(model, x).argmax(1) != labels[part].to(x.device)).cpu()
    return CorruptionErrors(wrong, tuple(names), tuple(severities))
