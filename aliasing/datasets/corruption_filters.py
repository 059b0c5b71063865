"""Filters, zooms, clouds and random numbers that several corruptions share; images are (n, C, H, W) floats."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..errors import extra
from ..inference import full_float32
from ..layers._phases import pad_axes

Streams = list[Generator]


def draw(sampler: Callable[..., Tensor], streams: Streams, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Draw one tensor of ``shape`` from each stream, (n, *shape), with the dtype and device of ``like``."""
    return torch.stack([sampler(shape, generator=stream) for stream in streams]).to(like)


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate each channel with ``kernel`` (k, k), k odd, mirroring on the border pixels; large ones by FFT."""
    reach = kernel.shape[0] // 2
    padded = pad_axes(x, [(reach, reach)] * 2, "reflect")
    if reach <= 2:
        weight = kernel.to(x)[None, None]
        with full_float32():  # whoever calls
            return F.conv2d(padded.flatten(0, 1)[:, None], weight).view_as(x)
    with extra():
        from scipy.fft import next_fast_len

    size = [next_fast_len(n, real=True) for n in padded.shape[2:]]  # a prime factor of 41 costs five times as much
    spectrum = torch.fft.rfft2(kernel.to(x), s=size)
    full = torch.fft.irfft2(torch.fft.rfft2(padded, s=size) * spectrum.conj(), s=size)
    return full[:, :, : x.shape[2], : x.shape[3]]


@cache
def _gaussian_matrix(n: int, sigma: float, mode: str, truncate: float) -> Tensor:
    with extra():
        from scipy import ndimage

    return torch.from_numpy(ndimage.gaussian_filter1d(np.eye(n), sigma, axis=0, mode=mode, truncate=truncate))


def gaussian(x: Tensor, sigma: float, mode: str, truncate: float) -> Tensor:
    """Gaussian blur of the last two axes with SciPy's border modes; one matrix per axis, or few taps on many pixels."""
    reach = int(truncate * sigma + 0.5)
    if mode == "nearest" and 16 * (2 * reach + 1) <= min(x.shape[-2:]):
        taps = _gaussian_matrix(2 * reach + 1, sigma, "constant", truncate)[reach].tolist()
        padded = F.pad(x, (reach,) * 4, mode="replicate")
        return _weighted(_weighted(padded, taps, 2), taps, 3)
    down, across = (_gaussian_matrix(n, sigma, mode, truncate).to(x) for n in x.shape[-2:])
    return down @ x @ across.T


def _weighted(x: Tensor, taps: list[float], axis: int) -> Tensor:
    """Sum over windows along ``axis``, without padding."""
    size = x.shape[axis] - len(taps) + 1
    y = x.narrow(axis, 0, size) * taps[0]
    for i, tap in enumerate(taps[1:], 1):
        y.add_(x.narrow(axis, i, size), alpha=tap)
    return y


def zoom(x: Tensor, factor: float) -> Tensor:
    """Enlarge the centre by ``factor`` to the size of the image, linearly, corner pixels onto corner pixels."""
    height, width = x.shape[2:]
    h, w = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - h) // 2, (width - w) // 2
    size = round(h * factor), round(w * factor)
    large = F.interpolate(x[:, :, top : top + h, left : left + w], size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[:, :, top : top + height, left : left + width]


def line_blur(x: Tensor, streams: Streams, radius: int, sigma: float, lowest: float) -> Tensor:
    """One-sided Gaussian along a line, angle drawn from ``lowest`` to ``lowest`` + 90 degrees, edge pixels repeated."""
    weights = torch.exp(-(torch.arange(2 * radius + 1).double() ** 2) / (2 * sigma**2))
    weights = weights[weights > 1e-4 * weights.sum()]  # the rest would not change a byte
    taps = (weights / weights.sum()).tolist()
    reach, (height, width) = len(taps) - 1, x.shape[2:]
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    blurred = torch.zeros_like(x)
    for image, source, stream in zip(blurred, padded, streams, strict=True):
        angle = math.radians(lowest + 90 * torch.rand((), generator=stream).item())
        for i, tap in enumerate(taps):
            top, left = reach + round(i * math.sin(angle)), reach + round(i * math.cos(angle))
            image.add_(source[:, top : top + height, left : left + width], alpha=tap)
    return blurred


def plasma(streams: Streams, height: int, width: int, decay: float, like: Tensor) -> Tensor:
    """Diamond-square clouds in [0, 1], (n, 1, height, width), cut from a map that wraps around.

    The randomness added falls by ``decay`` squared per halving of the grid: the published code multiplies its wibble
    in twice.
    """
    size = 1 << max(1, (max(height, width) - 1).bit_length())
    noise = 2 * draw(torch.rand, streams, (size * size,), like) - 1
    cloud = torch.zeros(len(streams), 1, 1).to(like)
    amplitude, used = 1.0, 0
    while (m := cloud.shape[1]) < size:
        square, right, below = (
            amplitude * noise[:, used + k * m * m : used + (k + 1) * m * m].view(-1, m, m) for k in range(3)
        )
        used += 3 * m * m
        down, across = cloud.roll(-1, 1), cloud.roll(-1, 2)
        centre = (cloud + down + across + down.roll(-1, 2)) / 4 + square
        right = (cloud + across + centre + centre.roll(1, 1)) / 4 + right
        below = (cloud + down + centre + centre.roll(1, 2)) / 4 + below
        rows = torch.stack([cloud, right], 3).flatten(2), torch.stack([below, centre], 3).flatten(2)
        cloud = torch.stack(rows, 2).flatten(1, 2)
        amplitude /= decay**2
    cloud = cloud - cloud.amin((1, 2), keepdim=True)
    return (cloud / cloud.amax((1, 2), keepdim=True))[:, None, :height, :width]


def sample(x: Tensor, positions: Tensor, mirror_on_pixels: bool) -> Tensor:
    """Linear interpolation at ``positions`` (n, H * W, 2) as (x, y) in pixels; mirrored on border pixels or edges."""
    height, width = x.shape[2:]
    size = x.new_tensor([width, height])
    scaled = 2 * positions / (size - 1).clamp_min(1) - 1 if mirror_on_pixels else (2 * positions + 1) / size - 1
    grid = scaled.view(len(x), height, width, 2)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=mirror_on_pixels)
