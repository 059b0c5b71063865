"""RandAugment on whole batches, without the operations that resemble the common corruptions.

Operations: those of RandAugment (Cubuk et al. 2020, in the public TPU implementation) less Color, Contrast, Brightness
and Sharpness, which AugMix marks as overlapping with ImageNet-C. Vasconcelos et al. 2020 say that they leave out what
overlaps; which list they used is not known, so this split is our choice, and so are strength and fill. Lengths in
pixels grow with the picture.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..streams import sent

# Of 1, RandAugment's magnitude 3 of 10: rotations of up to 9 degrees. Much larger ones would change the labels of the
# procedural shapes, half of which are told apart by the direction of their stripes.
STRENGTH = 0.3
GREY = 128

# An operation takes floats (n, 3, H, W) in 0..255, strengths (n, 1, 1, 1) with random signs, and two uniform numbers
# (n, 2).
Operation = Callable[[Tensor, Tensor, Tensor], Tensor]


def _autocontrast(x: Tensor, strength: Tensor, place: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) * 255 / (high - low).clamp_min(1), x)


def _equalize(x: Tensor, strength: Tensor, place: Tensor) -> Tensor:
    """Each channel's values replaced by the share of pixels that are darker, scaled to 0..255."""
    flat = x.round().long().flatten(2)
    counts = torch.zeros(*flat.shape[:2], 256, device=x.device).scatter_add_(2, flat, torch.ones_like(flat).to(x))
    darker = counts.cumsum(2) - counts
    brightest = darker.gather(2, flat).amax(2, keepdim=True)
    return (darker.gather(2, flat) * 255 / brightest.clamp_min(1)).view_as(x).where(brightest[..., None] > 0, x)


def _posterize(x: Tensor, strength: Tensor, place: Tensor) -> Tensor:
    step = 2 ** (4 * strength.abs()).round()
    return (x / step).floor() * step


def _cutout(x: Tensor, strength: Tensor, place: Tensor) -> Tensor:
    height, width = x.shape[2:]
    half = strength[:, 0, 0].abs() * 40 / 224  # of the side
    down, right = (
        (torch.arange(side, device=x.device) + 0.5 - centre * side).abs() < half * side
        for side, centre in zip((height, width), place.split(1, 1), strict=True)
    )
    return torch.where((down[:, :, None] & right[:, None, :])[:, None], torch.full_like(x, GREY), x)


def _moved(entries: Callable[[Tensor], dict[tuple[int, int], Tensor]]) -> Operation:
    """An affine operation from the entries of its (2, 3) matrix that are not those of the identity.

    Turns and shears are of pixels; positions run from -1 to 1 along either side, however long it is.
    """

    def operation(x: Tensor, strength: Tensor, place: Tensor) -> Tensor:
        matrix = torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1)
        sides = x.shape[3], x.shape[2]
        for (row, column), value in entries(strength.flatten()).items():
            matrix[:, row, column] = value * (sides[column] / sides[row] if column < 2 else 1)
        grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
        return F.grid_sample(x - GREY, grid, align_corners=False) + GREY

    return operation


def _turn(strength: Tensor) -> dict[tuple[int, int], Tensor]:
    angle = strength * math.radians(30)
    return {(0, 0): angle.cos(), (0, 1): -angle.sin(), (1, 0): angle.sin(), (1, 1): angle.cos()}


OPERATIONS: dict[str, Operation] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": lambda x, strength, place: 255 - x,
    "posterize": _posterize,
    "solarize": lambda x, strength, place: torch.where(x >= 256 * (1 - strength.abs()), 255 - x, x),
    "solarize-add": lambda x, strength, place: torch.where(x < GREY, (x + 110 * strength.abs()).clamp_max(255), x),
    "cutout": _cutout,
    "rotate": _moved(_turn),
    "shear-x": _moved(lambda strength: {(0, 1): 0.3 * strength}),
    "shear-y": _moved(lambda strength: {(1, 0): 0.3 * strength}),
    "shift-x": _moved(lambda strength: {(0, 2): 2 * strength * 100 / 224}),
    "shift-y": _moved(lambda strength: {(1, 2): 2 * strength * 100 / 224}),
}


def randaugment(images: Tensor, operations: int, generator: Generator) -> Tensor:
    """Apply ``operations`` random operations to each of the images, bytes (N, 3, H, W); returns bytes.

    The operation is uniform over ``OPERATIONS``, signs are random, the strength is common to all. Draws come from the
    CPU ``generator``, and are the same for any device.
    """
    count = len(images)
    chosen = torch.randint(len(OPERATIONS), (operations, count), generator=generator)
    signs = 2 * torch.randint(2, (operations, count), generator=generator) - 1
    places = torch.rand(operations, count, 2, generator=generator)
    x = images.float()
    for which, sign, place in zip(chosen, signs, places, strict=True):
        for index, operation in enumerate(OPERATIONS.values()):
            concerned = (which == index).nonzero()[:, 0]
            if len(concerned):
                drawn = concerned, STRENGTH * sign[concerned, None, None, None], place[concerned]
                there, *arguments = (sent(part, x.device) for part in drawn)
                x[there] = operation(x[there], *arguments).round().clamp(0, 255)
    return x.to(torch.uint8)
