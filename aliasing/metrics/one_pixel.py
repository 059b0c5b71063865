"""What one pixel changes: the protocols of Azulay and Weiss (2019), for images of any size.

They work with 224 pixels. For other sizes S their lengths are scaled by S / 224 and rounded (our adaptation): the crop
is taken from a picture of 234/224 S, an embedded picture has a shorter side of 100/224 S. The shift itself stays one
pixel of the network's input.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError, unknown
from ..inference import as_float, check_images, predict
from .estimate import Estimate
from .inpainting import PAPER_SIDE, embed
from .shifts import circular, standard

__all__ = [
    "ONE_PIXEL",
    "Changes",
    "OnePixel",
    "mean_absolute_change",
    "one_pixel",
    "one_pixel_changes",
    "one_pixel_of",
    "one_pixel_pairs",
    "shrink",
    "top1_change",
]


class OnePixel(NamedTuple):
    """What a perturbation of one pixel does.

    Attributes:
        top1_change: probability that the most probable class changes.
        mean_absolute_change: mean of |p_c(x) - p_c(x')|, c the most probable class of the first image x.
        accuracy: of the first images; ``None`` without labels.
        images: (N,) mean change rate of each image, to find the fragile ones.
    """

    top1_change: Estimate
    mean_absolute_change: Estimate
    accuracy: Estimate | None
    images: Tensor


class Changes(NamedTuple):
    """What ``one_pixel`` counts, each (N, pairs); ``correct`` is ``None`` without labels.

    Attributes:
        changed: whether the most probable class changed.
        moved: change of its probability.
        correct: whether the first image is classified correctly.
        counts: whether the pair counts.
    """

    changed: Tensor
    moved: Tensor
    correct: Tensor | None
    counts: Tensor


def one_pixel(
    model: nn.Module,
    images: Tensor,
    protocol: str = "crop",
    labels: Tensor | None = None,
    correct_only: bool = False,
    pairs: int = 1,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> OnePixel:
    """P(top-1 change) and mean absolute change between images that differ by one pixel of shift or of size.

    Intervals are bootstrapped over images, since the pairs of one image are not independent; rates of one pair per
    image, or of 0 or 1, where a bootstrap has no width, get Wilson's.

    Args:
        model: images in, logits (N, classes) out.
        images: (N, 3, H, W), uint8 or float in [0, 1]; H and W are also the size of the network's input.
        protocol: one of ``ONE_PIXEL``. "crop": a random crop (8 to 100 % of the area, aspect 3/4 to 4/3) is resized
            to 234/224 of the input, and the window moves over it. "black", "grey", "inpainting": the image, shrunk,
            is moved on a canvas. "scale": it keeps its corner on a black canvas and grows by one pixel. "circular",
            "standard": the image is rolled, or shifted with zero-fill (ours, controls).
        labels: (N,), for the accuracy.
        correct_only: with labels: only pairs whose first image is classified correctly count. A network that is
            never sure changes its mind by little.
        pairs: pairs per image. In the crop protocol they lie along one diagonal, as in the released script, which
            has 8; in the others each pair has a position of its own.
        generator: on the CPU; without one a private generator with seed 0.
        batch_size: images per forward pass; does not change the value.
    """
    return one_pixel_of(one_pixel_changes(model, images, protocol, labels, correct_only, pairs, generator, batch_size))


def one_pixel_changes(
    model: nn.Module,
    images: Tensor,
    protocol: str = "crop",
    labels: Tensor | None = None,
    correct_only: bool = False,
    pairs: int = 1,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Changes:
    """What one pixel changes, pair by pair; arguments as in ``one_pixel``."""
    _check(images, protocol, pairs)
    if correct_only and labels is None:
        raise UsageError("correct_only needs labels")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    changed, moved, correct = [], [], []
    for first, second, owners in one_pixel_pairs(images, protocol, pairs, generator, batch_size):
        before, after = (predict(model, part, batch_size).softmax(1).cpu() for part in (first, second))
        top = before.argmax(1)
        rows = torch.arange(len(top))
        changed.append((after.argmax(1) != top).double())
        moved.append((before[rows, top] - after[rows, top]).abs().double())
        if labels is not None:
            correct.append(top == labels.cpu()[owners])
    change, move = (torch.cat(parts).reshape(-1, pairs) for parts in (changed, moved))
    right = torch.cat(correct).reshape(-1, pairs) if correct else None
    everything = torch.ones_like(change, dtype=torch.bool)
    return Changes(change, move, right, right if correct_only and right is not None else everything)


def one_pixel_of(changes: Changes) -> OnePixel:
    """The rates, over the pairs of all images."""
    groups = torch.arange(len(changes.changed))[:, None].expand(changes.changed.shape)
    keep = changes.counts
    return OnePixel(
        _rate(changes.changed[keep], groups[keep]),
        Estimate.bootstrap(changes.moved[keep], groups[keep]),
        None if changes.correct is None else _rate(changes.correct.flatten(), groups.flatten()),
        changes.changed.mean(1),
    )


def _rate(hits: Tensor, groups: Tensor) -> Estimate:
    """Share of the hits (m,), with an interval over the groups (m,)."""
    images = len(groups.unique())
    if images and (images == len(hits) or hits.double().mean() in (0, 1)):
        return Estimate.proportion(hits.double().mean().item() * images, images)
    return Estimate.bootstrap(hits, groups)


def top1_change(model: nn.Module, images: Tensor, protocol: str = "crop", **options) -> Estimate:
    """Probability that one pixel changes the most probable class; arguments as in ``one_pixel``."""
    return one_pixel(model, images, protocol, **options).top1_change


def mean_absolute_change(model: nn.Module, images: Tensor, protocol: str = "crop", **options) -> Estimate:
    """Mean change of the probability of the most probable class by one pixel; arguments as in ``one_pixel``."""
    return one_pixel(model, images, protocol, **options).mean_absolute_change


def one_pixel_pairs(
    images: Tensor, protocol: str, pairs: int = 1, generator: torch.Generator | None = None, batch_size: int = 256
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of first images, second images, both float (n * pairs, 3, H, W), and the index of their image."""
    _check(images, protocol, pairs)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    draws = torch.rand(len(images), pairs, 4, generator=generator, dtype=torch.float64)
    make = ONE_PIXEL[protocol]
    start = 0
    for part in check_images(images).split(max(1, batch_size // pairs)):
        own = draws[start : start + len(part)]
        first, second = make(as_float(part), own)
        yield first, second, torch.arange(start, start + len(part)).repeat_interleave(pairs)
        start += len(part)


def shrink(images: Tensor, side: int) -> Tensor:
    """Resize so that the shorter side has ``side`` pixels, aspect kept: bilinear with anti-aliasing (our choice)."""
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    return _resize(images, (max(1, round(height * scale)), max(1, round(width * scale))))


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def _check(images: Tensor, protocol: str, pairs: int) -> None:
    if protocol not in ONE_PIXEL:
        raise unknown("one-pixel protocol", protocol, ONE_PIXEL)
    if pairs < 1:
        raise UsageError(f"pairs must be at least 1, got {pairs}")
    if min(check_images(images).shape[-2:]) < 8:
        raise UsageError(f"one-pixel protocols need images of at least 8 x 8 pixels, got {tuple(images.shape[-2:])}")


def _crop(images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Windows c and c + 1 along the diagonal of one resized random crop; both come from the same resized picture."""
    height, width = images.shape[-2:]
    pairs = draws.shape[1]
    margin = max(pairs, round(min(height, width) * 10 / PAPER_SIDE))
    boxes = _random_boxes(height, width, draws[:, 0])
    crops = [
        _resize(image[None, :, top : top + h, left : left + w], (height + margin, width + margin))
        for image, (top, left, h, w) in zip(images, boxes.tolist(), strict=True)
    ]
    canvas = torch.cat(crops)
    windows = [canvas[:, :, c : c + height, c : c + width] for c in range(pairs + 1)]
    return torch.stack(windows[:-1], 1).flatten(0, 1), torch.stack(windows[1:], 1).flatten(0, 1)


def _random_boxes(height: int, width: int, draws: Tensor) -> Tensor:
    """Boxes (N, 4): top, left, height, width. Area 8 to 100 %, log-uniform aspect 3/4 to 4/3, cut to the image.

    The usual crop draws again when a box does not fit; cutting it costs no extra draws (our simplification).
    """
    area = (0.08 + 0.92 * draws[:, 0]) * height * width
    aspect = (4 / 3) ** (2 * draws[:, 1] - 1)
    h = (area / aspect).sqrt().round().clamp(1, height)
    w = (area * aspect).sqrt().round().clamp(1, width)
    return torch.stack([_position(draws[:, 2], height - h), _position(draws[:, 3], width - w), h, w], 1).long()


def _position(draw: Tensor, last: Tensor | int) -> Tensor:
    """Whole number uniform on 0..last from ``draw`` uniform on [0, 1)."""
    return (draw * (last + 1)).floor()


def _small_side(images: Tensor) -> int:
    return max(2, round(min(images.shape[-2:]) * 100 / PAPER_SIDE))


def _embedding(border: str) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def pair(images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        size = images.shape[-2], images.shape[-1]
        small = shrink(images, _small_side(images))
        corners = _corners(small, size, draws)
        small = small.repeat_interleave(draws.shape[1], 0)
        return embed(small, corners, size, border), embed(small, corners + 1, size, border)

    return pair


def _scale(images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Both sizes are resized from the original by the same filter."""
    size = images.shape[-2], images.shape[-1]
    small = shrink(images, _small_side(images))
    larger = _resize(images, (small.shape[-2] + 1, small.shape[-1] + 1))
    corners = _corners(small, size, draws)
    first, second = (picture.repeat_interleave(draws.shape[1], 0) for picture in (small, larger))
    return embed(first, corners, size), embed(second, corners, size)


def _corners(small: Tensor, size: tuple[int, int], draws: Tensor) -> Tensor:
    """Top left corners (N * pairs, 2), uniform where a picture one pixel further still fits."""
    last = [side - part - 1 for side, part in zip(size, small.shape[-2:], strict=True)]
    flat = draws.flatten(0, 1)
    return torch.stack([_position(flat[:, axis], last[axis]) for axis in (0, 1)], 1).long()


def _moved(move: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def pair(images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        # One direction of the four diagonals per pair.
        directions = (2 * (draws[..., :2] < 0.5).long() - 1).flatten(0, 1)
        first = images.repeat_interleave(draws.shape[1], 0)
        return first, move(first, directions)

    return pair


#: name of the protocol -> function of images (n, 3, H, W) and draws (n, pairs, 4) in [0, 1) that makes the pairs.
ONE_PIXEL: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "crop": _crop,
    "black": _embedding("black"),
    "grey": _embedding("grey"),
    "inpainting": _embedding("inpainting"),
    "scale": _scale,
    "circular": _moved(circular),
    "standard": _moved(standard),
}
