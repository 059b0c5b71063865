"""What filters do to waves: learned kernels and their smoothness, bands that a network needs, and a layer by itself.

What a downsampling layer does to waves and edges is measured on the layer itself, which takes one channel, after
Grabinski et al. 2023.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError, check_whole
from ..inference import as_float, check_images, correct, evaluating
from ..layers import Blur
from .estimate import Estimate

GRID = 64  # frequencies per axis at which kernels are evaluated


def remove_band(images: Tensor, band: int, bands: int) -> Tensor:
    """Floats (N, C, H, W) without the frequencies of one of ``bands`` annuli of equal width, 0 the lowest.

    Radii run from 0 to sqrt(0.5) cycles per pixel, the corner of the spectrum; the mean of an image stays. Values are
    not clipped. The paper's geometry is not known; equal widths are our choice.
    """
    height, width = images.shape[2:]
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    position = (rows.square() + columns.square()).sqrt() * bands / math.sqrt(0.5)
    kept = (position.floor().clamp_max(bands - 1) != band) | (position == 0)
    return torch.fft.irfft2(torch.fft.rfft2(images) * kept.to(images.device), s=(height, width))


def band_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, bands: int = 16, batch_size: int = 256
) -> list[Estimate]:
    """Accuracy on images (N, 3, H, W) from which one band is removed, band by band (Vasconcelos et al. 2021)."""
    check_whole("bands", bands, 1)
    pixels = as_float(check_images(images))
    removed = (remove_band(pixels, band, bands) for band in range(bands))
    return [Estimate.share(correct(model, part, labels, batch_size)) for part in removed]


def stop_band(weight: Tensor, dilation: tuple[int, int] = (1, 1)) -> float:
    """Share of a kernel's power (out, in, K, K) beyond pi/2 on either axis: what aliases when every second is kept.

    The kernels' squared magnitude responses are added up first. 0.75 for a single tap and for white kernels. With a
    ``dilation`` the taps lie so many pixels apart, and the responses are those of so many times the frequency.
    """
    taps = weight.detach().cpu().double().flatten(0, 1).flatten(1)  # (kernels, K * K)
    waves = torch.fft.fft2(torch.eye(taps.shape[1]).double().unflatten(1, weight.shape[2:]), s=(GRID, GRID))
    rows, columns = (torch.arange(GRID) * apart % GRID for apart in dilation)
    waves = waves[:, rows[:, None], columns].flatten(1)
    # The sum over the kernels of their squared responses; those themselves would take gigabytes for a wide layer.
    response = ((taps.T @ taps).to(waves.dtype) @ waves * waves.conj()).sum(0).real.view(GRID, GRID)
    inside = torch.fft.fftfreq(GRID).abs() < 0.25
    # The band edge itself belongs half to either side, so that a flat response has exactly 3/4.
    share = inside.double() + 0.5 * (torch.fft.fftfreq(GRID).abs() == 0.25)
    return 1 - ((share[:, None] * share * response).sum() / response.sum()).item()


def stop_bands(model: nn.Module) -> dict[str, float]:
    """``stop_band`` of every convolution and trainable blur, by name."""
    found = {name: part for name, part in model.named_modules() if isinstance(part, (nn.Conv2d, Blur))}
    return {
        name: stop_band(part.weight, getattr(part, "dilation", (1, 1)))
        for name, part in found.items()
        if isinstance(part.weight, Tensor)
    }


def low_pass(taps: int) -> tuple[Tensor, float]:
    """The symmetric kernel (taps,) nearest to the ideal low-pass below pi/2, and its mean squared error over 0..pi.

    By least squares over all frequencies: the response is c0 + 2 sum_k c_k cos(k w), one cosine for every two taps
    (Vasconcelos et al. 2021 make the argument), and cosines are orthogonal, so the taps are those of the sinc.
    """
    if taps < 1 or taps % 2 == 0:
        raise UsageError(f"taps must be odd and at least 1, got {taps}")
    place = torch.arange(taps, dtype=torch.float64) - taps // 2
    kernel = 0.5 * torch.sinc(place / 2)
    return kernel, 0.5 - kernel.square().sum().item()


def total_variation(model: nn.Module) -> dict[str, float]:
    """Normalised total variation of every convolution with more than one tap, by name, input side first.

    How smooth the learned filters are (Ruderman et al. 2018, used by Zhang 2019).
    """
    kernels = {name: part.weight for name, part in model.named_modules() if isinstance(part, nn.Conv2d)}
    found = {name: normalised_variation(weight) for name, weight in kernels.items() if weight[0, 0].numel() > 1}
    if not found:
        raise UsageError(f"{type(model).__name__} has no convolution with more than one tap")
    return found


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


def leakage(layer: nn.Module, size: int = 64, half_bin: bool = False, phases: int = 4) -> Leakage:
    """Energy that a layer passes of horizontal cosines, on the bins of the Fourier transform or half-way between.

    On the bins the cosine is periodic in the map; between them it is not, and what a "perfect" cut of the periodic
    spectrum lets through is spectral leakage. Each frequency is averaged over ``phases`` offsets within half a cycle.
    """
    bins = torch.arange(1, size // 2, dtype=torch.float64) + (0.5 if half_bin else 0.0)
    position = torch.arange(size, dtype=torch.float64)
    offsets = 2 * torch.pi * torch.arange(phases, dtype=torch.float64) / (2 * phases)
    waves = torch.cos(2 * torch.pi * bins[:, None, None] * position / size + offsets[:, None])
    maps = waves.flatten(0, 1)[:, None, None, :].expand(-1, -1, size, -1)
    response = _apply(layer, maps)
    energy = response.square().mean((1, 2, 3)) / maps.square().mean((1, 2, 3))
    _, right = _strides(maps, response)
    return Leakage(bins / size, energy.reshape(-1, phases).mean(1), bins / size > 1 / (2 * right))


def frequency_response(layer: nn.Module, size: int = 32) -> Tensor:
    """Amplitude gain (size, size) of a layer for every on-bin complex plane wave, frequencies as in ``fftfreq``.

    Root mean square of the output for a wave of unit amplitude, the real and the imaginary part passed separately:
    for a filter followed by subsampling that is the magnitude of its transfer function.
    """
    position = torch.arange(size, dtype=torch.float64) / size
    gains = []
    for row in range(size):
        angle = 2 * torch.pi * (row * position[None, :, None] + torch.arange(size)[:, None, None] * position)
        real, imaginary = (_apply(layer, part[:, None]) for part in (angle.cos(), angle.sin()))
        if odd := [step for step in _strides(angle, real) if size % step]:
            raise UsageError(f"size must be a multiple of the stride {odd[0]}, got {size}")
        gains.append((real.square() + imaginary.square()).mean((1, 2, 3)).sqrt())
    return torch.stack(gains)


def step_overshoot(layer: nn.Module, size: int = 64, border: bool = True) -> tuple[float, float]:
    """By how much the response to a step edge from 0 to 1 exceeds 1 and falls below 0, as fractions of the step.

    The edges are vertical, half of the width is 1, and the largest value over four positions of the edges counts, so
    that every phase of a stride up to 4 is met. Without ``border`` only the middle row of the output counts: padding
    with zeros changes the rows at the border, which is no ringing.
    """
    column = torch.arange(size)
    edges = torch.stack([((column >= size // 4 + k) & (column < 3 * size // 4 + k)).double() for k in range(4)])
    response = _apply(layer, edges[:, None, None, :].expand(-1, -1, size, -1))
    if not border:
        response = response[:, :, response.shape[2] // 2]
    return max(0.0, response.max().item() - 1), max(0.0, -response.min().item())


def _strides(maps: Tensor, response: Tensor) -> tuple[int, int]:
    """How many rows and columns of the maps there are for one of the response: the strides, whatever the layer is."""
    down, right = (round(maps.shape[axis] / response.shape[axis]) for axis in (-2, -1))
    return down, right


def _apply(layer: nn.Module, maps: Tensor) -> Tensor:
    """The layer's answer in float64 if it can, whatever precision its parameters have."""
    weights = next((p for p in layer.parameters()), None)
    with evaluating(layer), torch.no_grad():
        if weights is not None:
            maps = maps.to(weights.device, weights.dtype)
        return layer(maps.contiguous()).double().cpu()
