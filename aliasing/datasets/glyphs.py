"""Procedural handwriting: characters of a few curved strokes, far from textured shapes, for few-shot transfer.

Each class is a character, drawn from one seed; each image writes it anew, with the strokes' points displaced and the
whole character turned, scaled and moved a little. White on black, as Omniglot. Design and numbers are our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError
from .imageset import SPLITS, ImageSet, check_split

__all__ = ["load"]

STROKES, POINTS = 3, 9  # strokes of a character, points a stroke is drawn with


def load(split: str, classes: int = 60, each: int = 20, seed: int = 0, size: int = 32) -> ImageSet:
    """`classes` characters, each written `each` times at `size` pixels; every split and seed has its own characters."""
    check_split(split)
    if min(classes, each) < 1 or seed < 0 or size < 8:
        raise UsageError(f"glyphs: classes and each >= 1, seed >= 0, size >= 8, got {(classes, each, seed, size)}")
    generator = torch.Generator().manual_seed(len(SPLITS) * seed + SPLITS.index(split))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    count = classes * each
    # Three control points (y, x) of each stroke in -1..1, then the same with a writer's hand.
    points = (2 * torch.rand(classes, STROKES, 3, 2, generator=generator) - 1).repeat_interleave(each, 0)
    points = points + 0.08 * normal(count, STROKES, 3, 2)
    angle, scale = 0.12 * normal(count), 0.33 * size * (0.1 * normal(count)).exp()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(count, 1, 2, 2)
    points = scale[:, None, None, None] * (points @ turn.mT) + size / 2 + 0.04 * size * normal(count, 1, 1, 2)
    images = torch.cat([_draw(part, size) for part in points.split(100)])
    names = tuple(f"character {number}" for number in range(classes))
    return ImageSet(images, torch.arange(classes).repeat_interleave(each), names, "glyphs")


def _draw(points: Tensor, size: int) -> Tensor:
    """Bytes (N, 3, size, size) of quadratic curves with control points (N, STROKES, 3, 2) in pixels."""
    t = torch.linspace(0, 1, POINTS)[:, None]
    weights = torch.cat([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)
    nodes = weights @ points  # (N, STROKES, POINTS, 2)
    start, along = nodes[:, :, :-1].flatten(1, 2), nodes.diff(dim=2).flatten(1, 2)  # (N, segments, 2)
    centres = torch.stack(torch.meshgrid(*[torch.arange(size) + 0.5] * 2, indexing="ij"), -1).view(1, 1, -1, 2)
    offset = centres - start[:, :, None]
    share = ((offset * along[:, :, None]).sum(-1) / along.square().sum(-1)[..., None].clamp_min(1e-6)).clamp(0, 1)
    distance = (offset - share[..., None] * along[:, :, None]).norm(dim=-1).amin(1)
    ink = (size / 32 + 0.5 - distance).clamp(0, 1)  # about two pixels wide at 32 pixels, with a soft edge
    return (255 * ink).round().to(torch.uint8).view(-1, 1, size, size).repeat(1, 3, 1, 1)
