"""Segmentation: mean intersection over union, and what masks do when the image is shifted.

A network takes images (N, 3, H, W) and answers logits (N, classes, H, W). Three shift protocols:

- "circular": the image is rolled; every pixel stays comparable.
- "standard": the image is moved and the uncovered part filled with zeros; compared where both show the same scene.
- "crop": two windows are cut from the image, ``max_shift`` pixels smaller on each axis, one ``shift`` pixels from the
  other; compared where they overlap.

``border`` pixels along the edges of what is compared are left out as well: there the answer may rightly depend on
what lies beyond the edge.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from ..errors import UsageError, unknown
from ..inference import answers, batches, check_images, evaluating
from .estimate import Estimate, student

__all__ = [
    "SHIFTS",
    "class_distance",
    "class_iou",
    "iou_estimate",
    "mask_consistency",
    "mask_equivariance_error",
    "mask_overlaps",
    "mask_scores",
    "mean_iou",
    "overlaps",
    "same_class",
]

Shift = Literal["circular", "standard", "crop"]
SHIFTS = get_args(Shift)


def mean_iou(
    model: nn.Module, images: Tensor, masks: Tensor, ignore_index: int = 255, batch_size: int = 64
) -> Estimate:
    """Mean over classes of intersection over union, both summed over all images first (as PASCAL VOC does).

    ``masks`` (N, H, W) hold class indices; pixels of ``ignore_index`` count nowhere, nor does a class that neither the
    masks nor the answers contain. The interval is over images, by the jackknife.
    """
    return iou_estimate(mask_overlaps(model, images, masks, ignore_index, batch_size))


def mask_overlaps(
    model: nn.Module, images: Tensor, masks: Tensor, ignore_index: int = 255, batch_size: int = 64
) -> Tensor:
    """``overlaps`` (N, 2, classes) of the network's answers with the ``masks`` (N, H, W)."""
    if masks.shape != (len(check_images(images)), *images.shape[2:]):
        raise UsageError(f"masks must be {(len(images), *images.shape[2:])} like the images, got {tuple(masks.shape)}")
    parts = []
    with evaluating(model), torch.no_grad():
        for x, truth in zip(batches(model, images, batch_size), masks.split(batch_size), strict=True):
            logits = answers(model, x)
            parts.append(overlaps(logits.argmax(1), truth.to(x.device), logits.shape[1], ignore_index).cpu())
    return torch.cat(parts)


def iou_estimate(counts: Tensor) -> Estimate:
    """Mean intersection over union, with its interval, from the ``overlaps`` (N, 2, classes) of all images."""
    counts = counts.double()
    total = counts.sum(0)
    value = class_iou(total).nanmean().item()
    n = len(counts)
    if n == 1:
        return Estimate(value, float("-inf"), float("inf"), 1)
    without = class_iou(total - counts).nanmean(1)
    error = ((n - 1) / n * (without - without.mean()).square().sum()).sqrt().item()
    half = student(n - 1) * error
    return Estimate(value, value - half, value + half, n)


def overlaps(predicted: Tensor, masks: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels in the intersection and in the union of each class: (N, 2, classes) from class maps (N, H, W)."""
    if predicted.shape != masks.shape:
        raise UsageError(
            f"class maps must have the size of the masks {tuple(masks.shape)}, got {tuple(predicted.shape)}"
        )
    valid = masks != ignore_index
    truth, answer = masks.long(), predicted.long()
    if valid.any() and int(truth[valid].max()) >= classes:
        raise UsageError(f"masks hold class {int(truth[valid].max())}, but the network answers {classes} classes")
    image = torch.arange(len(masks), device=masks.device)[:, None, None].expand_as(masks)

    def count(label: Tensor, where: Tensor) -> Tensor:
        index = image[where] * classes + label[where]
        return torch.bincount(index, minlength=len(masks) * classes).view(len(masks), classes)

    both = count(truth, valid & (truth == answer))
    return torch.stack([both, count(truth, valid) + count(answer, valid) - both], 1)


def class_iou(counts: Tensor) -> Tensor:
    """Intersection over union (..., classes) from counts (..., 2, classes); nan for a class that nobody names."""
    return counts[..., 0, :] / counts[..., 1, :]


def mask_consistency(
    model: nn.Module,
    images: Tensor,
    shift: Shift = "circular",
    max_shift: int = 8,
    border: int = 0,
    generator: Generator | None = None,
    batch_size: int = 64,
) -> Estimate:
    """Share of comparable pixels that keep their class when the image is shifted; mean over images.

    One shift per image, uniform over -max_shift..max_shift on each axis but for no shift at all (for "crop", of the
    windows: 0..max_shift, either way).
    """
    return Estimate.mean(mask_scores(model, images, same_class, shift, max_shift, border, generator, batch_size))


def mask_equivariance_error(
    model: nn.Module,
    images: Tensor,
    shift: Shift = "circular",
    max_shift: int = 8,
    border: int = 0,
    generator: Generator | None = None,
    batch_size: int = 64,
) -> Estimate:
    """How far shifting and segmenting are from commuting: total variation between the class probabilities of a pixel.

    Mean over comparable pixels, then over images; 0 for an equivariant network, at most 1. Shifts as in
    ``mask_consistency``.
    """
    return Estimate.mean(mask_scores(model, images, class_distance, shift, max_shift, border, generator, batch_size))


def same_class(a: Tensor, b: Tensor) -> Tensor:
    """Whether logits (n, classes, H, W) name the same class, by pixel."""
    return (a.argmax(1) == b.argmax(1)).float()


def class_distance(a: Tensor, b: Tensor) -> Tensor:
    """Total variation between the class probabilities of logits (n, classes, H, W), by pixel."""
    return (a.softmax(1) - b.softmax(1)).abs().sum(1) / 2


def mask_scores(
    model: nn.Module,
    images: Tensor,
    score: Callable[[Tensor, Tensor], Tensor],
    shift: str = "circular",
    max_shift: int = 8,
    border: int = 0,
    generator: Generator | None = None,
    batch_size: int = 64,
) -> Tensor:
    """``score`` of an image's answers before and after a shift, mean over comparable pixels, (N,)."""
    if shift not in SHIFTS:
        raise unknown("shift", shift, SHIFTS)
    size = min(check_images(images).shape[2:])
    smallest = size if shift == "circular" else size - max_shift * (2 if shift == "crop" else 1)
    if max_shift < 1 or border < 0 or smallest <= 2 * border:
        raise UsageError(
            f"max_shift must be at least 1 and leave pixels to compare; got max_shift={max_shift}, border={border} "
            f"on images of {images.shape[2]} x {images.shape[3]}"
        )
    shifts = _draw_shifts(len(images), max_shift, generator)
    values = []
    with evaluating(model), torch.no_grad():
        for x, moves in zip(batches(model, images, batch_size), shifts.split(batch_size), strict=True):
            pairs = [_pair(image, shift, dy, dx, max_shift) for image, (dy, dx) in zip(x, moves.tolist(), strict=True)]
            first, second = (answers(model, torch.stack(side)) for side in zip(*pairs, strict=True))
            for a, b, (dy, dx) in zip(first, second, moves.tolist(), strict=True):
                a, b = _align(a, b, shift, dy, dx, border)
                values.append(score(a[None], b[None]).mean().cpu())
    return torch.stack(values)


def _draw_shifts(n: int, max_shift: int, generator: Generator | None) -> Tensor:
    """Shifts (n, 2) down and right, uniform over the square without its centre."""
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    side = 2 * max_shift + 1
    cell = torch.randint(side * side - 1, (n,), generator=generator)
    cell = cell + (cell >= side * side // 2)  # the centre is skipped
    return torch.stack([cell // side, cell % side], 1) - max_shift


def _pair(image: Tensor, shift: str, dy: int, dx: int, max_shift: int) -> tuple[Tensor, Tensor]:
    """The two views of ``image`` (C, H, W); the scene of the second lies (dy, dx) pixels further down and right."""
    if shift == "circular":
        return image, image.roll((dy, dx), (1, 2))
    if shift == "standard":
        moved = torch.zeros_like(image)
        here, there = _shared(image.shape[1], dy), _shared(image.shape[2], dx)
        moved[:, here[1], there[1]] = image[:, here[0], there[0]]
        return image, moved
    height, width = image.shape[1] - max_shift, image.shape[2] - max_shift
    top, left = max(dy, 0), max(dx, 0)
    first = image[:, top : top + height, left : left + width]
    second = image[:, top - dy : top - dy + height, left - dx : left - dx + width]
    return first, second


def _shared(n: int, d: int) -> tuple[slice, slice]:
    """Where a row of n pixels and the same row moved by d show the same scene, in each of them."""
    return slice(max(-d, 0), n - max(d, 0)), slice(max(d, 0), n - max(-d, 0))


def _align(a: Tensor, b: Tensor, shift: str, dy: int, dx: int, border: int) -> tuple[Tensor, Tensor]:
    """Cut answers (classes, H, W) to the pixels that show the same scene, less the ``border``."""
    if shift == "circular":
        b = b.roll((-dy, -dx), (1, 2))
    else:
        (ya, yb), (xa, xb) = _shared(a.shape[1], dy), _shared(a.shape[2], dx)
        a, b = a[:, ya, xa], b[:, yb, xb]
    inside = slice(border, a.shape[1] - border), slice(border, a.shape[2] - border)
    return a[:, *inside], b[:, *inside]
