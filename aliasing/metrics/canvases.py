"""Pictures shrunk onto a canvas: black, or filled in by the repeated blurring of Azulay and Weiss (2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError, one_of
from ..layers.blur import binomial

BORDERS = ("black", "inpainting")  # 0; the continuation of the picture
PAPER_SIDE = 224  # pixels; lengths for other sizes S are those of the paper times S / 224, rounded (our adaptation)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with anti-aliasing (our choice)."""
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def shrink(images: Tensor, side: int | None = None) -> Tensor:
    """Resize so that the shorter side has ``side`` pixels, by default 100 of 224 as embedded pictures; aspect kept."""
    height, width = images.shape[-2:]
    side = max(2, round(min(height, width) * 100 / PAPER_SIDE)) if side is None else side
    scale = side / min(height, width)
    return resize(images, (max(1, round(height * scale)), max(1, round(width * scale))))


def embed(pictures: Tensor, corners: Tensor, size: tuple[int, int], border: str = "black") -> Tensor:
    """Paste (N, C, h, w) pictures in [0, 1] with their top left corners (N, 2) on a canvas (N, C, *size)."""
    one_of("border", border, BORDERS)
    canvas = pictures.new_zeros(*pictures.shape[:2], *size)
    height, width = pictures.shape[-2:]
    if (corners < 0).any() or (corners + torch.tensor([height, width]) > torch.tensor(size)).any():
        raise UsageError(
            f"pictures of {height} x {width} pixels reach beyond a canvas of {size[0]} x {size[1]}: their corners are "
            f"at {corners.amin(0).tolist()} to {corners.amax(0).tolist()}"
        )
    for own, picture, (top, left) in zip(canvas, pictures, corners.tolist(), strict=True):
        own[:, top : top + height, left : left + width] = picture
    return inpaint(canvas) if border == "inpainting" else canvas


def inpaint(images: Tensor) -> Tensor:
    """Fill the zeros of (N, 3, H, W) images from their surroundings (Azulay and Weiss 2019; their InpaintingFunction).

    Each round divides the blurred picture by the blurred mask of known pixels and writes the quotient where nothing
    is known yet; known are the pixels whose channels do not sum to zero, so that truly black pixels of the picture
    are filled in too, as in the published code. An image is finished when at most 200 of 224**2 pixels are unknown.

    The filter has 12 taps at 224 pixels; its length and the 200 pixels scale with the image, the former to an even
    number of at least 4, since two taps would grow the picture to one side only (our adaptation).
    """
    height, width = images.shape[-2:]
    taps = max(4, 2 * round(12 * min(height, width) / PAPER_SIDE / 2))
    allowed = 200 * height * width / PAPER_SIDE**2
    row = images.new_tensor(binomial(taps))
    filled = images.clone()
    for _ in range(max(80, height, width)):  # 80 as published, for 224; what is known grows by a pixel a round
        known = filled.sum(1, keepdim=True) != 0
        open_ = (~known).sum((1, 2, 3)) > allowed
        if not (open_ & known.any((1, 2, 3))).any():  # what is blank stays so
            break
        mask = known[open_].to(images)
        weight = _blur(mask, row)
        fill = _blur(filled[open_] * mask, row) / torch.where(weight == 0, torch.ones_like(weight), weight)
        filled[open_] = torch.where(known[open_], filled[open_], fill)
    return filled


def _blur(x: Tensor, row: Tensor) -> Tensor:
    """Separable blur of the same size with zeros outside; the even filter sits half a pixel to the left and top."""
    before, after = len(row) // 2, (len(row) - 1) // 2
    channels = x.shape[1]
    across = row.expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(x, (before, after, 0, 0)), across, groups=channels)
    return F.conv2d(F.pad(x, (0, 0, before, after)), across.transpose(2, 3), groups=channels)
