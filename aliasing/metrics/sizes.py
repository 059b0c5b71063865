"""One-pixel pairs of pictures at a chosen size: cut out and enlarged, or shrunk on black (Azulay and Weiss 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..inference import as_float, check_images
from .inpainting import PAPER_SIDE, embed
from .one_pixel import shrink

__all__ = ["SIZES", "size_pairs"]

#: the sizes of the released script; its switch from cropping to embedding lies between 1 and 1.3
SIZES = (0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9)


def size_pairs(images: Tensor, size: float, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """One pair (N, 3, H, W) per image that differs by a diagonal shift of one pixel of the network's input.

    Up to 1, ``size`` is the share of the area that a crop keeps; it is enlarged to one pixel more than the input, over
    which the window moves. Above 1 the image, 1 / ``size`` as wide and high, moves near the middle of a black canvas.

    Departs from the script: crops keep the aspect of the image, black is truly black, one pair per image, not eight.

    Args:
        images: (N, 3, H, W), uint8 or float in [0, 1].
        size: greater than 0, and leaving at least one pixel.
        generator: draws the positions, on the CPU; without one a private generator with seed 0.
    """
    images = as_float(check_images(images))
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if not 0 < size <= shorter:
        raise UsageError(f"size must be greater than 0 and at most {shorter}, the pixels there are, got {size}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    draws = torch.rand(len(images), 2, generator=generator, dtype=torch.float64)
    if size > 1:
        small = shrink(images, int(shorter / size))
        room = torch.tensor([height - small.shape[2] - 1, width - small.shape[3] - 1])
        reach = max(1, round(4 * shorter / PAPER_SIDE))
        corners = (room // 2 - reach + (draws * 2 * reach).long()).clamp(min=0).minimum(room.clamp(min=0))
        return embed(small, corners, (height, width)), embed(small, corners + 1, (height, width))
    h, w = max(1, round(size**0.5 * height)), max(1, round(size**0.5 * width))
    corners = (draws * torch.tensor([height - h + 1, width - w + 1])).long()
    crops = torch.stack(
        [image[:, top : top + h, left : left + w] for image, (top, left) in zip(images, corners.tolist(), strict=True)]
    )
    canvas = F.interpolate(crops, (height + 1, width + 1), mode="bilinear", antialias=True, align_corners=False)
    return canvas[:, :, :height, :width], canvas[:, :, 1:, 1:]
