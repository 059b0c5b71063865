"""Learned kernels: which frequencies they let pass, which bands a network needs, and how smooth its filters are."""

import math

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import as_float, check_images, correct
from ..layers import Blur
from .estimate import Estimate

GRID = 64  # frequencies per axis at which kernels are evaluated


def remove_band(images: Tensor, band: int, bands: int) -> Tensor:
    """Floats (N, C, H, W) without the frequencies of one of ``bands`` annuli of equal width, 0 the lowest.

    Radii run from 0 to sqrt(0.5) cycles per pixel, the corner of the spectrum; the mean of an image stays. Values are
    not clipped. The paper's geometry is not known; equal widths are our choice.
    """
    if not 0 <= band < bands:
        raise UsageError(f"band must be 0 to {bands - 1}, got {band}")
    height, width = images.shape[2:]
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    position = (rows.square() + columns.square()).sqrt() * bands / math.sqrt(0.5)
    kept = (position.floor().clamp_max(bands - 1) != band) | (position == 0)
    return torch.fft.irfft2(torch.fft.rfft2(images) * kept.to(images.device), s=(height, width))


def band_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, bands: int = 16, batch_size: int = 256
) -> list[Estimate]:
    """Accuracy on images (N, 3, H, W) from which one band is removed, band by band (Vasconcelos et al. 2021)."""
    pixels = as_float(check_images(images))
    removed = (remove_band(pixels, band, bands) for band in range(bands))
    return [Estimate.share(correct(model, part, labels, batch_size)) for part in removed]


def stop_band(weight: Tensor) -> float:
    """Share of a kernel's power (out, in, K, K) beyond pi/2 on either axis: what aliases when every second is kept.

    The mean of the kernels' squared magnitude responses is taken first. 0.75 for a single tap and for white kernels.
    """
    response = torch.fft.fft2(weight.detach().double(), s=(GRID, GRID)).abs().square().mean((0, 1))
    inside = torch.fft.fftfreq(GRID).abs() < 0.25
    # The band edge itself belongs half to either side, so that a flat response has exactly 3/4.
    share = inside.double() + 0.5 * (torch.fft.fftfreq(GRID).abs() == 0.25)
    return 1 - ((share[:, None] * share * response).sum() / response.sum()).item()


def stop_bands(model: nn.Module) -> dict[str, float]:
    """``stop_band`` of every convolution and trainable blur, by name."""
    kernels = {name: part.weight for name, part in model.named_modules() if isinstance(part, (nn.Conv2d, Blur))}
    return {name: stop_band(weight) for name, weight in kernels.items() if isinstance(weight, Tensor)}


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
