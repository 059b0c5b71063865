"""What a downsampling layer does to waves and edges, measured on the layer itself (after Grabinski et al. 2023)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import evaluating


class Leakage(NamedTuple):
    """Share of the energy of a cosine that a layer returns.

    Attributes:
        frequency: cycles per pixel (F,), 0 to 0.5.
        energy: mean square of the output over mean square of the input (F,), averaged over phases.
        stopped: (F,) whether the frequency lies above the Nyquist frequency of the output, where all is alias.
    """

    frequency: Tensor
    energy: Tensor
    stopped: Tensor


def leakage(
    layer: nn.Module, stride: int = 2, size: int = 64, half_bin: bool = False, channels: int = 1, phases: int = 4
) -> Leakage:
    """Energy that a layer passes of horizontal cosines, on the bins of the Fourier transform or half-way between.

    On the bins the cosine is periodic in the map; between them it is not, and what a "perfect" cut of the periodic
    spectrum lets through is spectral leakage. Each frequency is averaged over ``phases`` offsets of a quarter cycle.
    """
    bins = torch.arange(1, size // 2, dtype=torch.float64) + (0.5 if half_bin else 0.0)
    position = torch.arange(size, dtype=torch.float64)
    offsets = 2 * torch.pi * torch.arange(phases, dtype=torch.float64) / (2 * phases)
    waves = torch.cos(2 * torch.pi * bins[:, None, None] * position / size + offsets[:, None])
    maps = waves.flatten(0, 1)[:, None, None, :].expand(-1, channels, size, -1)
    response = _apply(layer, maps)
    energy = response.square().mean((1, 2, 3)) / maps.square().mean((1, 2, 3))
    return Leakage(bins / size, energy.reshape(-1, phases).mean(1), bins / size > 1 / (2 * stride))


def frequency_response(layer: nn.Module, stride: int = 2, size: int = 32, channels: int = 1) -> Tensor:
    """Amplitude gain (size, size) of a layer for every on-bin complex plane wave, frequencies as in ``fftfreq``.

    Root mean square of the output for a wave of unit amplitude, the real and the imaginary part passed separately:
    for a filter followed by subsampling that is the magnitude of its transfer function. All ``channels`` are alike.
    """
    if size % stride:
        raise UsageError(f"size must be a multiple of the stride {stride}, got {size}")
    position = torch.arange(size, dtype=torch.float64) / size
    gains = []
    for row in range(size):
        angle = 2 * torch.pi * (row * position[None, :, None] + torch.arange(size)[:, None, None] * position)
        real, imaginary = (
            _apply(layer, part[:, None].expand(-1, channels, -1, -1)) for part in (angle.cos(), angle.sin())
        )
        gains.append((real.square() + imaginary.square()).mean((1, 2, 3)).sqrt())
    return torch.stack(gains)


def step_overshoot(layer: nn.Module, size: int = 64, channels: int = 1, border: bool = True) -> tuple[float, float]:
    """By how much the response to a step edge from 0 to 1 exceeds 1 and falls below 0, as fractions of the step.

    The edges are vertical, half of the width is 1, and the largest value over four positions of the edges counts, so
    that every phase of a stride up to 4 is met. Without ``border`` only the middle row of the output counts: padding
    with zeros changes the rows at the border, which is no ringing.
    """
    column = torch.arange(size)
    edges = torch.stack([((column >= size // 4 + k) & (column < 3 * size // 4 + k)).double() for k in range(4)])
    response = _apply(layer, edges[:, None, None, :].expand(-1, channels, size, -1))
    if not border:
        response = response[:, :, response.shape[2] // 2]
    return max(0.0, response.max().item() - 1), max(0.0, -response.min().item())


def _apply(layer: nn.Module, maps: Tensor) -> Tensor:
    """The layer's answer in float64 if it can, whatever precision its parameters have."""
    weights = next((p for p in layer.parameters()), None)
    with evaluating(layer), torch.no_grad():
        if weights is not None:
            maps = maps.to(weights.device, weights.dtype)
        return layer(maps.contiguous()).double().cpu()
