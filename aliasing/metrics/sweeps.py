"""Moving a picture pixel by pixel: probability curves, jaggedness and non-shiftability (Azulay and Weiss 2018, v1)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError, check_whole, one_of, whole
from ..inference import as_float, check_images, check_labels, predict, scores
from ..streams import drawing
from .canvases import BORDERS, PAPER_SIDE, embed, shrink
from .downsampling import check_names, outputs, some_sites
from .estimate import Estimate


class Jaggedness(NamedTuple):
    """How often the true class enters or leaves the top k between neighbouring positions.

    The published normalisation cannot be recovered; these are the three candidates.

    Attributes:
        crossings: events summed over all images and positions.
        images: share of images with at least one event.
        pairs: share of neighbouring positions with an event; interval over images.
    """

    crossings: int
    images: Estimate
    pairs: Estimate


def vertical_sweep(images: Tensor, positions: int | None = None, border: str = "inpainting") -> Tensor:
    """Frames (P, N, 3, H, W) of the pictures moving down a canvas, one pixel per frame, centred half-way.

    With a ``border`` of ``BORDERS`` the picture is shrunk to a shorter side of 100/224 of the canvas, the size of the
    later protocols (our choice), and moves at most as far as it fits: the paper's 101 positions of 224. With
    "circular" the whole picture is rolled (ours, a control), by default once around.
    """
    images = as_float(check_images(images, unit=True))
    height, width = images.shape[-2:]
    if border == "circular":
        return torch.stack([images.roll(down, 2) for down in range(height if positions is None else positions)])
    one_of("border", border, (*BORDERS, "circular"))
    small = shrink(images)
    room = height - small.shape[2] + 1
    count = min(room, round(101 * height / PAPER_SIDE)) if positions is None else positions
    if not 2 <= count <= room:
        raise UsageError(f"a picture of {small.shape[2]} rows has 2 to {room} positions on {height} rows, got {count}")
    top, left = (room - count) // 2, (width - small.shape[3]) // 2
    corners = [torch.tensor([[top + k, left]]).expand(len(images), 2) for k in range(count)]
    return torch.stack([embed(small, corner, (height, width), border) for corner in corners])


def probability_curves(
    model: nn.Module, frames: Tensor, labels: Tensor, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Probability of the label, and its rank from 0, along frames (P, N, 3, H, W): two tensors (N, P)."""
    return of_labels(_logits(model, frames, batch_size), labels)


def _logits(model: nn.Module, frames: Tensor, batch_size: int) -> Tensor:
    """Logits (N, P, classes) along frames (P, N, 3, H, W)."""
    return torch.stack([predict(model, frame, batch_size).cpu() for frame in frames], 1)


def of_labels(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of the label, and its rank from 0, from logits (N, P, classes): two tensors (N, P)."""
    if logits.ndim != 3:
        raise UsageError(f"logits of P positions must be (N, P, classes), got {tuple(logits.shape)}")
    own = check_labels(labels, logits, logits.shape[2]).cpu()[:, None, None].expand(-1, logits.shape[1], 1)
    return logits.softmax(2).gather(2, own)[..., 0], (logits > logits.gather(2, own)).sum(2)


def swept(
    model: nn.Module, frames: Tensor, layers: Sequence[str], draws: Tensor, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Logits (N, P, classes) along frames (P, N, 3, H, W), and the sum (N, P, L) over one map of each of L layers.

    ``draws`` (N, L), from 0 up to 1, decide which map of a layer it is for each image.
    """
    logits, sums, batch_size = [], [], check_whole("batch_size", batch_size, 1)
    for frame in frames:
        batches = outputs(model, frame, ["", *layers], batch_size)
        for seen, own in zip(batches, draws.split(batch_size), strict=True):
            rows = torch.arange(len(own))
            maps = [seen[name][rows, (d * seen[name].shape[1]).long()] for name, d in zip(layers, own.T, strict=True)]
            logits.append(scores(seen[""]).cpu())
            sums.append(torch.stack([one.double().sum((1, 2)).cpu() for one in maps], 1))
    return tuple(torch.cat(p).unflatten(0, (len(frames), len(draws))).transpose(0, 1) for p in (logits, sums))


def deviation(curves: Tensor) -> Tensor:
    """Share (N, L) of the positions at which curves (N, P, L) are off their mean by a fifth of it or more."""
    mean = curves.mean(1, keepdim=True)
    return (((curves - mean).abs() >= 0.2 * mean.abs()) & (curves != mean)).double().mean(1)


def crossings(inside: Tensor) -> Jaggedness:
    """Jaggedness of booleans (N, P): whether the true class is in the top k at each position."""
    events = inside[:, 1:] != inside[:, :-1]
    return Jaggedness(int(events.sum()), Estimate.share(events.any(1)), Estimate.mean(events.double().mean(1)))


def jaggedness(
    model: nn.Module, images: Tensor, labels: Tensor, top: int = 5, border: str = "inpainting", batch_size: int = 256
) -> Jaggedness:
    """Jaggedness along a vertical sweep of the images; ``top`` 5 as published, 1 for data sets of few classes."""
    logits = _logits(model, vertical_sweep(images, border=border), batch_size)
    if not 1 <= (whole(top) or 0) < logits.shape[2]:  # every class is among the top of all
        raise UsageError(f"top must be at least 1 and less than the {logits.shape[2]} classes, got {top}")
    return crossings(of_labels(logits, labels)[1] < top)


def non_shiftability(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str] | None = None,
    border: str = "inpainting",
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> dict[str, Estimate]:
    """Share of positions where the sum of a feature map is off its mean over positions by 20 % or more, by layer.

    Azulay and Weiss 2018 (v1): one random feature map per layer and image, a fraction here where they
    count positions; 0 is perfectly shiftable. A map that is zero throughout the sweep counts as shiftable.

    Args:
        images: the paper takes 10.
        layers: names of modules; by default the downsampling sites.
        border: as in ``vertical_sweep``.
    """
    layers = list(some_sites(model)) if layers is None else layers
    check_names(layers)
    draws = torch.rand(len(images), len(layers), generator=drawing(generator), dtype=torch.float64)
    curves = swept(model, vertical_sweep(images, border=border), layers, draws, batch_size)[1]
    return {name: Estimate.mean(off) for name, off in zip(layers, deviation(curves).T, strict=True)}
