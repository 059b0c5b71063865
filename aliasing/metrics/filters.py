"""How smooth the learned convolutions are: normalised total variation (Ruderman et al. 2018, used by Zhang 2019)."""

import torch
from torch import Tensor, nn

from ..errors import UsageError

__all__ = ["normalised_variation", "total_variation"]


def total_variation(model: nn.Module) -> dict[str, float]:
    """Normalised total variation of every convolution with more than one tap, by name, input side first."""
    convolutions = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d) and part.weight.shape[2] * part.weight.shape[3] > 1
    }
    if not convolutions:
        raise UsageError(f"{type(model).__name__} has no convolution with more than one tap")
    return {name: normalised_variation(part.weight) for name, part in convolutions.items()}


def normalised_variation(weight: Tensor) -> float:
    """l1 norm of the differences between neighbouring taps of a kernel (out, in, K, K) over its own l1 norm.

    Scale-free; a constant kernel has 0, a single tap in the centre of 3 x 3 has 4. Zhang (2019)
    reports it; the formula is not verified against the paper [unverified].
    """
    weight = weight.detach().double()
    norm = weight.abs().sum().item()
    if norm == 0:
        return 0.0
    down, right = (weight.diff(dim=axis).abs().sum() for axis in (2, 3))
    return torch.add(down, right).item() / norm
