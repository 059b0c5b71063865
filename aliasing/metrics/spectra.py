"""How much of a map cannot survive its downsampling: alias-able energy, alias error, radial spectra."""

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import widened
from ..layers import flc_definition
from .downsampling import Sample, per_site
from .estimate import Estimate


def alias_energy(model: nn.Module, images: Tensor, batch_size: int = 256) -> dict[str, Estimate]:
    """Alias-able energy in front of every downsampling site, as a fraction, by site.

    The share of the energy, without the mean, at frequencies that the samples cannot hold; mean over images.
    """
    shares = per_site(model, images, lambda sample: aliasable(sample.x, spacing(sample)), batch_size)
    return {site: Estimate.mean(values) for site, values in shares.items()}


def alias_error(model: nn.Module, images: Tensor, batch_size: int = 256) -> dict[str, Estimate]:
    """Relative l1 distance of each site's output from ideal downsampling of the same map, by site; mean over images.

    ``||D(X) - P(X)||_1 / ||P(X)||_1`` (our choice for Grabinski et al.'s measure), 0 where both are zero. Filters of
    even length sample half a pixel further than the ideal, which counts as error too. Where a side is no multiple of
    the stride, the ideal samples span the whole circle and so lie closer than the stride, which counts as well.
    """
    errors = per_site(model, images, distance_from_ideal, batch_size)
    return {site: Estimate.mean(values) for site, values in errors.items()}


def distance_from_ideal(sample: Sample) -> Tensor:
    """Relative l1 distance (n,) of what a site returned from ideal downsampling of the map in front of it."""
    # Without padding, what does not fill a window is dropped at the bottom and right.
    height, width = sample.y.shape[2:]
    target = ideal(sample.x, sample.strides)[:, :, :height, :width]
    # A pool with padding may return more.
    error = (sample.y[:, :, : target.shape[2], : target.shape[3]] - target).abs().sum((1, 2, 3))
    return torch.where(error == 0, 0.0, error / target.abs().sum((1, 2, 3)))


def aliasable(x: Tensor, strides: tuple[float, float]) -> Tensor:
    """Share (N,) of the energy of maps (N, C, H, W) above the Nyquist frequencies of the grid of strides (s1, s2).

    Counted is ``|k1| / H > 1 / (2 s1)`` or ``|k2| / W > 1 / (2 s2)``, without the mean on either side; a
    constant map scores 0.
    """
    x = transformable(x)
    energy = torch.fft.fft2(x).abs().square().sum(1)
    energy[:, 0, 0] = 0
    total = energy.sum((1, 2))
    # What rounding leaves of the transform of a constant is no energy.
    floor = torch.finfo(x.dtype).eps ** 2 * x.square().sum((1, 2, 3)) * x.shape[2] * x.shape[3] * 100
    share = (energy * ~holdable(x, strides)).sum((1, 2)) / total.clamp(min=torch.finfo(x.dtype).tiny)
    return torch.where(total > floor, share, 0.0)


def holdable(x: Tensor, strides: tuple[float, float]) -> Tensor:
    """Which waves (H, W) of maps (N, C, H, W) a grid of strides (s1, s2) holds: up to its Nyquist frequencies."""
    rows, columns = (torch.fft.fftfreq(side, device=x.device).abs() for side in x.shape[-2:])
    # A hair above the limit, so that rounding never counts the Nyquist frequency itself.
    return (rows[:, None] <= 0.5 / strides[0] + 1e-6) & (columns <= 0.5 / strides[1] + 1e-6)


def spacing(sample: Sample) -> tuple[float, float]:
    """Rows and columns of the map per sample: the strides, or less where a side is no multiple of its stride.

    Of 7 pixels, such as the dense maxima of 8, 4 are kept, and hold what 4 samples can, as in ``ideal``. Where windows
    leave out the end of the map, as of 7 pixels in twos, it is the stride.
    """
    parts = zip(sample.x.shape[-2:], sample.y.shape[-2:], sample.strides, strict=True)
    down, right = (side / kept if kept == -(-side // stride) else stride for side, kept, stride in parts)
    return down, right


def ideal(x: Tensor, strides: tuple[int, int]) -> Tensor:
    """Ideal downsampling of maps (N, C, H, W): keep the spectrum below the new Nyquist frequency, sample at 0, s, ...

    FLC pooling (Grabinski et al. 2022) without its one-bin defect at sizes 2 (mod 4), for any stride; constants stay
    constant. At even output sizes the Nyquist frequency is kept on its negative side alone, as published, and the
    real part taken.
    """
    return flc_definition(widened(x), strides)


def transformable(x: Tensor) -> Tensor:
    """``x`` in at least float32, with contiguous rows: half precision has no Fourier transform.

    That of PyTorch 2.11 writes beyond its memory where a long map is channels_last.
    """
    return widened(x).contiguous()


def radial_spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies (B,) in cycles per pixel and the mean of ``log |F|**2`` (B,) over annuli, images and channels.

    Annuli of equal width from 0 to 0.5, half as many as the shorter side has pixels. The mean itself, and the corners
    beyond 0.5, are left out; powers below 1e-20 count as 1e-20.
    """
    height, width = x.shape[-2:]
    bins = min(height, width) // 2
    if x.ndim != 4 or bins == 0:
        raise UsageError(f"a radial spectrum is of maps (N, C, H, W) of at least 2 x 2 pixels, got {tuple(x.shape)}")
    power = torch.fft.fft2(transformable(x.double()), norm="ortho").abs().square().clamp(min=1e-20).log().mean((0, 1))
    rows, columns = (torch.fft.fftfreq(side, device=x.device, dtype=torch.float64) for side in (height, width))
    radius = (rows[:, None].square() + columns[None, :].square()).sqrt()
    inside = (radius > 0) & (radius <= 0.5)
    index = (radius[inside] * 2 * bins - 1e-9).long()
    sums = torch.zeros(bins, dtype=torch.float64, device=x.device).index_add_(0, index, power[inside])
    centres = (torch.arange(bins, dtype=torch.float64, device=x.device) + 0.5) / (2 * bins)
    return centres, sums / torch.bincount(index, minlength=bins)
