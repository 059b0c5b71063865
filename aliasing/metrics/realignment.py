"""How much of a feature map's change under a one-pixel roll is more than a move (our choice of error)."""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import check_images
from .sites import outputs, sites

__all__ = ["ONE_PIXEL_ROLLS", "Realigned", "realigned", "realigned_errors"]

ONE_PIXEL_ROLLS = ((1, 0), (0, 1), (1, 1))


class Realigned(NamedTuple):
    """Relative l2 changes, worst of the rolls, mean over images; 0 is equivariance.

    Attributes:
        maps: error of each site's output after the best realignment, input side first.
        pooled: change of the spatial mean of the last output.
    """

    maps: list[float]
    pooled: float


def realigned(plain: Tensor, moved: Tensor, reach: int = 1) -> Tensor:
    """Relative l2 distance (N,) of maps (N, C, h, w) after the roll of -reach..reach per axis that suits each best."""
    if plain.shape != moved.shape or plain.ndim != 4:
        raise UsageError(f"two maps (N, C, h, w) of one shape are needed, got {plain.shape} and {moved.shape}")
    offsets = product(range(-reach, reach + 1), repeat=2)
    errors = [(plain.roll(offset, (2, 3)) - moved).flatten(1).norm(dim=1) for offset in offsets]
    return torch.stack(errors).amin(0) / plain.flatten(1).norm(dim=1).clamp_min(torch.finfo(plain.dtype).tiny)


def realigned_errors(model: nn.Module, images: Tensor, batch_size: int = 256) -> Realigned:
    """Error of every downsampling site of ``model`` under one-pixel circular rolls of (N, 3, H, W) images.

    A site is right if its output moves by a whole number of output pixels; which number, is its own affair. The
    spatial mean of a single layer is a false friend: it does not move under any circular blur. Hence the maps.
    """
    names = list(sites(model))
    plain = list(outputs(model, check_images(images), names, batch_size))
    maps = torch.zeros(len(names), len(images), dtype=torch.float64)
    pooled = torch.zeros(len(images), dtype=torch.float64)
    for roll in ONE_PIXEL_ROLLS:
        done = 0
        moved = outputs(model, images.roll(roll, (2, 3)), names, batch_size)
        for before, after in zip(plain, moved, strict=True):
            part = slice(done, done := done + len(before[names[0]]))
            for row, name in enumerate(names):
                own = realigned(before[name], after[name]).double().cpu()
                maps[row, part] = torch.maximum(maps[row, part], own)
            first, second = (seen[names[-1]].mean((2, 3)) for seen in (before, after))
            change = (first - second).norm(dim=1) / first.norm(dim=1).clamp_min(torch.finfo(first.dtype).tiny)
            pooled[part] = torch.maximum(pooled[part], change.double().cpu())
    return Realigned(maps.mean(1).tolist(), pooled.mean().item())
