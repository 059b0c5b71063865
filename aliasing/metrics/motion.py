"""Whether feature maps move with the picture: over circular shifts (Zhang 2019), and by one pixel after realignment."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..errors import UsageError
from .downsampling import collected, some_sites
from .rolls import rolls_of

ONE_PIXEL_ROLLS = ((1, 0), (0, 1), (1, 1))


def equivariance_maps(
    model: nn.Module, images: Tensor, layers: Sequence[str], max_shift: int | None = None, batch_size: int = 256
) -> dict[str, Tensor]:
    """For every named layer F the map (A, B) of ``1 - cos(roll(F(x)), F(roll(x)))`` over circular shifts.

    The mean over images is returned. Features are enlarged to the size of the image by repetition (nearest), so a
    layer of accumulated stride s can be exact at multiples of s alone. Rows and columns run over rolls by 0 to H-1
    and W-1, or by -M to M with ``max_shift`` M. The cosine is our choice: sources disagree on the paper's distance.

    Costs one forward pass per roll, so give it few images.
    """
    rows, columns = (rolls.tolist() for rolls in rolls_of(images, max_shift))
    still = _enlarged(model, images, layers, batch_size)
    maps = {name: torch.zeros(len(rows), len(columns), dtype=torch.float64) for name in layers}
    for i, down in enumerate(rows):
        for j, right in enumerate(columns):
            moved = _enlarged(model, images.roll((down, right), (2, 3)), layers, batch_size)
            for name in layers:
                expected, found = still[name].roll((down, right), (2, 3)).flatten(1), moved[name].flatten(1)
                distance = 1 - torch.cosine_similarity(expected, found, dim=1)  # of two maps of zeros 1
                maps[name][i, j] = distance.where((expected != found).any(1), 0).double().mean()
    return maps


def _enlarged(model: nn.Module, images: Tensor, layers: Sequence[str], batch_size: int) -> dict[str, Tensor]:
    height, width = images.shape[-2:]
    found = collected(model, images, layers, batch_size)
    for name, maps in found.items():
        if maps.ndim != 4 or height % maps.shape[2] or width % maps.shape[3]:
            raise UsageError(
                f"{name!r} gives {tuple(maps.shape[1:])}, which does not fit an image of {height} x {width} pixels a "
                "whole number of times"
            )
    return {name: interpolate(maps, (height, width), mode="nearest-exact") for name, maps in found.items()}


class Realigned(NamedTuple):
    """Relative l2 changes, worst of the rolls, mean over images; 0 is equivariance.

    Attributes:
        maps: error of each site's output after the best realignment, input side first.
        pooled: change of the spatial mean of the last output.
    """

    maps: list[float]
    pooled: float


def realigned(still: Tensor, moved: Tensor) -> Tensor:
    """Relative l2 distance (N,) of maps (N, C, h, w) after the roll of -1..1 pixels per axis that suits each best.

    How much of a change is more than a move; the choice of error is ours.
    """
    offsets = product((-1, 0, 1), repeat=2)
    errors = [(still.roll(offset, (2, 3)) - moved).flatten(1).norm(dim=1) for offset in offsets]
    return torch.stack(errors).amin(0) / still.flatten(1).norm(dim=1).clamp_min(torch.finfo(still.dtype).tiny)


def realigned_errors(model: nn.Module, images: Tensor, batch_size: int = 256) -> Realigned:
    """Error of every downsampling site of ``model`` under one-pixel circular rolls of (N, 3, H, W) images.

    A site is right if its output moves by a whole number of output pixels; which number, is its own affair. The
    spatial mean of a single layer is a false friend: it does not move under any circular blur. Hence the maps.
    """
    names = list(some_sites(model))
    still = collected(model, images, names, batch_size)
    maps, pooled = torch.zeros(len(names), len(images)).double(), torch.zeros(len(images)).double()
    for roll in ONE_PIXEL_ROLLS:
        moved = collected(model, images.roll(roll, (2, 3)), names, batch_size)
        errors = torch.stack([realigned(still[name], moved[name]).double().cpu() for name in names])
        first, second = (seen[names[-1]].mean((2, 3)) for seen in (still, moved))
        change = (first - second).norm(dim=1) / first.norm(dim=1).clamp_min(torch.finfo(first.dtype).tiny)
        maps, pooled = torch.maximum(maps, errors), torch.maximum(pooled, change.double().cpu())
    return Realigned(maps.mean(1).tolist(), pooled.mean().item())
