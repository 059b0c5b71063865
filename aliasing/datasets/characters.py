"""Handwritten characters, white on black, for few-shot learning far from photographs: Omniglot, and procedural ones."""

from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UsageError
from .archives import cached, find, members, verify
from .decoding import Decoded, decode, square, whole
from .imageset import SPLITS, ImageSet

STROKES, POINTS = 3, 9  # strokes of a character, points a stroke is drawn with


def glyphs(split: str, classes: int = 60, each: int = 20, seed: int = 0, size: int = 32) -> ImageSet:
    """Procedural handwriting, a character a class, 32x32 or other, for few-shot transfer.

    `classes` characters, each written `each` times at `size` pixels. Each class is a character, drawn from one seed;
    each image writes it anew, with the strokes' points displaced and the whole character turned, scaled and moved a
    little. Every split and seed has its own characters. Design and numbers are our choice.
    """
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


def omniglot(split: str, root: str | Path | None = None, size: int = 28) -> ImageSet:
    """Drawings of handwritten characters, 20 each, white on black.

    Black, so that padding with zeros adds background. The two "small background" sets: train and validation are
    alphabets of the first, test those of the second that the first does not have; every character belongs to one split.
    """
    if not 1 <= size <= 105:
        raise UsageError(f"omniglot: size must be 1 to 105 pixels, got {size}")
    form = find("omniglot", root)
    alphabets = {
        "train": ("Balinese", "Early_Aramaic", "Greek", "Korean"),
        "validation": ("Latin",),
        "test": ("Japanese_(katakana)", "Sanskrit", "Tagalog"),
    }[split]
    archive = form[1] if split == "test" else form[0]

    def build() -> Decoded:
        files = (
            ("/".join(PurePosixPath(name).parts[-3:-1]), name, content)
            for name, content in members(verify(archive, root))
            if name.endswith(".png") and PurePosixPath(name).parts[-3] in alphabets
        )
        return decode(files, lambda image: Image.fromarray(255 - np.asarray(square(image.convert("L"), size))))

    return whole(*cached("omniglot", [archive.checksum, alphabets, size], build), "Omniglot")
