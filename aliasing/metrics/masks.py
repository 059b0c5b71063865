"""Segmentation: mean intersection over union, and what masks do when the image is shifted.

A network takes images (N, 3, H, W) and answers logits (N, classes, H, W). After a circular shift every pixel stays
comparable; after a standard (zero-fill) shift those that show the same scene. ``border`` pixels along the edges of what
is compared are left out as well: there the answer may rightly depend on what lies beyond the edge.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..errors import UsageError, check_whole, one_of
from ..inference import answers, batches, check_images, evaluating
from ..shifts import shift_images
from ..streams import drawing
from .estimate import Estimate

MASK_SHIFTS = ("circular", "standard")


def mean_iou(
    model: nn.Module, images: Tensor, masks: Tensor, ignore_index: int = 255, batch_size: int = 64
) -> Estimate:
    """Mean over classes of intersection over union, both summed over all images first (as PASCAL VOC does).

    ``masks`` (N, H, W) hold class indices; pixels of ``ignore_index`` count nowhere, nor does a class that neither the
    masks nor the answers contain. The interval is over images, by the jackknife.
    """
    if masks.shape != (len(check_images(images)), *images.shape[2:]) or masks.is_floating_point():
        raise UsageError(
            f"masks must be whole numbers {(len(images), *images.shape[2:])} like the images, got {masks.dtype} "
            f"{tuple(masks.shape)}"
        )
    parts, batch_size = [], check_whole("batch_size", batch_size, 1)
    with evaluating(model), torch.no_grad():
        for x, truth in zip(batches(model, images, batch_size), masks.split(batch_size), strict=True):
            logits = answers(model, x)
            parts.append(overlaps(logits.argmax(1), truth.to(x.device), logits.shape[1], ignore_index).cpu())
    counts = torch.cat(parts).double()
    n, total = len(counts), counts.sum(0)

    def mean(counts: Tensor) -> Tensor:  # over classes; one that is in no mask is 0 / 0
        return (counts[..., 0, :] / counts[..., 1, :]).nanmean(-1)

    value, without = mean(total).item(), mean(total - counts)
    spread = Estimate.mean((n - 1) * (without - without.mean()))  # of the pseudo-values around their mean
    return Estimate(value, value + spread.low, value + spread.high, n)


def overlaps(predicted: Tensor, masks: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels in the intersection and in the union of each class: (N, 2, classes) from class maps (N, H, W)."""
    if predicted.shape != masks.shape:
        raise UsageError(f"class maps must have the masks' size {tuple(masks.shape)}, got {tuple(predicted.shape)}")
    truth, answer = masks.long(), predicted.long()
    valid = truth != ignore_index  # a byte is never -1; compared as bytes, 255 is
    outside = valid & ((truth < 0) | (truth >= classes))
    if outside.any():
        raise UsageError(
            f"masks hold class {int(truth[outside][0])}, but the network answers {classes} classes and the pixels to "
            f"leave out are of ignore_index={ignore_index}"
        )
    image = torch.arange(len(masks), device=masks.device)[:, None, None].expand_as(masks)

    def count(label: Tensor, where: Tensor) -> Tensor:
        index = image[where] * classes + label[where]
        return torch.bincount(index, minlength=len(masks) * classes).view(len(masks), classes)

    both = count(truth, valid & (truth == answer))
    return torch.stack([both, count(truth, valid) + count(answer, valid) - both], 1)


def mask_consistency(model: nn.Module, images: Tensor, **protocol: Any) -> Estimate:
    """Share of comparable pixels that keep their class when the image is shifted; mean over images.

    One shift per image, uniform over -max_shift..max_shift on each axis but for no shift at all; the protocol is that
    of ``comparable``.
    """
    same = [(a.argmax(1) == b.argmax(1)).float().mean().cpu() for a, b in comparable(model, images, **protocol)]
    return Estimate.mean(torch.stack(same))


def mask_equivariance_error(model: nn.Module, images: Tensor, **protocol: Any) -> Estimate:
    """How far shifting and segmenting are from commuting: total variation between the class probabilities of a pixel.

    Mean over comparable pixels, then over images; 0 for an equivariant network, at most 1. Shifts as in
    ``mask_consistency``.
    """
    pairs = comparable(model, images, **protocol)
    return Estimate.mean(torch.stack([(a.softmax(1) - b.softmax(1)).abs().sum(1).mean().cpu() for a, b in pairs]) / 2)


def comparable(
    model: nn.Module,
    images: Tensor,
    shift: str = "circular",
    max_shift: int = 8,
    border: int = 0,
    generator: Generator | None = None,
    batch_size: int = 64,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each image the logits (1, classes, h, w) before and after one shift, where they show the same scene.

    ``shift`` is one of ``MASK_SHIFTS``, of at most ``max_shift`` pixels per axis.
    """
    one_of("shift", shift, MASK_SHIFTS)
    shorter = min(check_images(images).shape[2:])
    max_shift, border = check_whole("max_shift", max_shift, 1), check_whole("border", border, 0)
    if max_shift >= shorter or 2 * border >= shorter - (max_shift if shift == "standard" else 0):
        raise UsageError(
            f"max_shift must be less than the side, and leave pixels to compare; got {max_shift} and "
            f"border={border} on images of {images.shape[2]} x {images.shape[3]}"
        )
    shifts, batch_size = _draw_shifts(len(images), max_shift, generator), check_whole("batch_size", batch_size, 1)
    for x, moves in zip(batches(model, images, batch_size), shifts.split(batch_size), strict=True):
        with evaluating(model), torch.no_grad():
            x = x.contiguous()
            before, after = (answers(model, each.contiguous()) for each in (x, shift_images(x, moves, shift)))
        if before.shape[2:] != x.shape[2:]:
            raise UsageError(
                f"logits (N, classes, {x.shape[2]}, {x.shape[3]}) of the size of the images are needed, got "
                f"{tuple(before.shape)}; let the network resize them"
            )
        for a, b, (dy, dx) in zip(before, after, moves.tolist(), strict=True):
            if shift == "circular":
                b = b.roll((-dy, -dx), (1, 2))
            else:
                (ya, yb), (xa, xb) = _shared(a.shape[1], dy), _shared(a.shape[2], dx)
                a, b = a[:, ya, xa], b[:, yb, xb]
            inside = slice(border, a.shape[1] - border), slice(border, a.shape[2] - border)
            yield a[None, :, *inside], b[None, :, *inside]


def _draw_shifts(n: int, max_shift: int, generator: Generator | None) -> Tensor:
    """Shifts (n, 2) down and right, uniform over the square without its centre."""
    side = 2 * max_shift + 1
    cell = torch.randint(side * side - 1, (n,), generator=drawing(generator))
    cell = cell + (cell >= side * side // 2)  # the centre is skipped
    return torch.stack([cell // side, cell % side], 1) - max_shift


def _shared(n: int, d: int) -> tuple[slice, slice]:
    """Where a row of n pixels and the same row moved by d show the same scene, in each of them."""
    return slice(max(-d, 0), n - max(d, 0)), slice(max(d, 0), n - max(-d, 0))
