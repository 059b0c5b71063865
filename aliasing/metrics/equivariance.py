"""How far each layer is from moving with the picture, over all circular shifts (Zhang 2019)."""

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import check_images
from .sites import outputs

__all__ = ["equivariance_maps"]


def equivariance_maps(
    model: nn.Module,
    images: Tensor,
    layers: list[str] | tuple[str, ...],
    max_shift: int | None = None,
    batch_size: int = 256,
) -> dict[str, Tensor]:
    """For every named layer F the map (A, B) of ``1 - cos(roll(F(x)), F(roll(x)))`` over circular shifts.

    The mean over images is returned. Features are enlarged to the size of the image by repetition (nearest), so a
    layer of accumulated stride s can be exact at multiples of s alone. Rows and columns run over rolls by 0 to H-1
    and W-1, or by -M to M with ``max_shift`` M. The cosine is our choice: sources disagree on the paper's distance.

    Costs one forward pass per roll, so give it few images.
    """
    height, width = check_images(images).shape[-2:]
    plain = _enlarged(model, images, layers, batch_size)
    rolls = [
        list(range(side)) if max_shift is None else list(range(-max_shift, max_shift + 1)) for side in (height, width)
    ]
    maps = {name: torch.zeros(len(rolls[0]), len(rolls[1]), dtype=torch.float64) for name in layers}
    for i, down in enumerate(rolls[0]):
        for j, right in enumerate(rolls[1]):
            moved = _enlarged(model, images.roll((down, right), (2, 3)), layers, batch_size)
            for name in layers:
                pair = plain[name].roll((down, right), (2, 3)).flatten(1), moved[name].flatten(1)
                maps[name][i, j] = (1 - torch.cosine_similarity(*pair, dim=1)).double().mean()
    return maps


def _enlarged(
    model: nn.Module, images: Tensor, layers: list[str] | tuple[str, ...], batch_size: int
) -> dict[str, Tensor]:
    height, width = images.shape[-2:]
    parts: dict[str, list[Tensor]] = {name: [] for name in layers}
    for batch in outputs(model, images, layers, batch_size):
        for name, features in batch.items():
            if features.ndim != 4 or height % features.shape[2] or width % features.shape[3]:
                raise UsageError(
                    f"{name!r} gives {tuple(features.shape[1:])}, which does not fit an image of {height} x {width} "
                    "pixels a whole number of times"
                )
            tall = features.repeat_interleave(height // features.shape[2], 2)
            parts[name].append(tall.repeat_interleave(width // features.shape[3], 3))
    return {name: torch.cat(part) for name, part in parts.items()}
