"""The four shifts: circular, standard, crop and sub-pixel. They are different experiments; always name the one meant.

A shift of ``(down, right)`` pixels moves the picture down and to the right.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .errors import UsageError, at_least, one_of
from .inference import as_float, check_images
from .streams import drawing

SHIFTS = ("circular", "standard", "crop", "sub-pixel")


def taken(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels ``[n, :, rows[n, i], columns[n, j]]`` of images (N, C, H, W), each image with indices of its own.

    Rows are (N, h) and columns (N, w); the result is (N, C, h, w), and contiguous: some networks ask for views.
    """
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    # Indices on axes 0, 2, 3 put the channels last; back to (N, C, h, w).
    return images[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def circular(images: Tensor, shifts: Tensor) -> Tensor:
    """Roll: what leaves on one side enters on the other."""
    (rows, _), (columns, _) = _sources(images, shifts)
    return taken(images, rows, columns)


def standard(images: Tensor, shifts: Tensor) -> Tensor:
    """Zero-fill: what leaves is lost, what enters is black."""
    (rows, row_inside), (columns, column_inside) = _sources(images, shifts)
    inside = row_inside[:, None, :, None] & column_inside[:, None, None, :]
    return taken(images, rows, columns) * inside


def sub_pixel(images: Tensor, shifts: Tensor) -> Tensor:
    """Band-limited fractional shift of the periodic image, by a phase ramp on its Fourier transform.

    Whole numbers give the roll. At the Nyquist frequency of an even size the cosine of the phase is taken, which
    keeps the result real. Values may leave [0, 1] a little and are not clipped: clipping would make new frequencies.
    """
    images = as_float(images)
    height, width = images.shape[-2:]
    spectrum = torch.fft.rfft2(images)
    down, right = shifts.to(images.device, torch.float64).unbind(1)
    rows = _ramp(torch.fft.fftfreq(height, dtype=torch.float64), down, height).to(spectrum.dtype)
    columns = _ramp(torch.fft.rfftfreq(width, dtype=torch.float64), right, width).to(spectrum.dtype)
    spectrum = spectrum * rows[:, None, :, None] * columns[:, None, None, :]
    return torch.fft.irfft2(spectrum, s=(height, width))


def reach(shift: str, images: Tensor, max_shift: int | None) -> int | None:
    """The largest shift per axis, in pixels: ``max_shift``, or the default of the protocol.

    Defaults: circular ``None``, every roll of the grid; standard and sub-pixel an eighth of the shorter side (our
    choice). The crop protocol has none, since the size of its window follows from it.
    """
    one_of("shift", shift, SHIFTS)
    # What enters in a standard shift is black, which is 0 in [0, 1] alone.
    shorter = min(check_images(images, unit=shift == "standard").shape[-2:])
    if max_shift is None:
        if shift == "crop":
            raise UsageError(
                "the crop shift needs max_shift=M: the network sees a window of (H - 2M, W - 2M) pixels that moves "
                "from -M to M; 224 of 256 pixels is max_shift=16"
            )
        return None if shift == "circular" else max(1, shorter // 8)
    if shift != "sub-pixel":
        at_least("max_shift", max_shift, 0)
    if not 0 <= max_shift < shorter or (shift == "crop" and 2 * max_shift >= shorter):
        raise UsageError(f"max_shift={max_shift} does not fit {shift} shifts of images {tuple(images.shape[-2:])}")
    return max_shift


def draw_shifts(
    shift: str, images: Tensor, copies: int, max_shift: int | None, generator: torch.Generator | None = None
) -> Tensor:
    """Independent shifts (copies, N, 2) of each image: uniform on -M..M, real numbers for the sub-pixel shift.

    Circular shifts without ``max_shift`` are uniform on all H x W rolls. Drawn on the CPU in image order; without a
    generator from a private one with seed 0.
    """
    limit = reach(shift, images, max_shift)
    generator = drawing(generator)
    size = (len(images), copies, 2)
    if limit is None:
        drawn = [torch.randint(side, size[:2], generator=generator) for side in images.shape[-2:]]
        return torch.stack(drawn, -1).transpose(0, 1)
    if shift == "sub-pixel":
        return ((2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1) * limit).transpose(0, 1)
    return torch.randint(-limit, limit + 1, size, generator=generator).transpose(0, 1)


def shift_images(images: Tensor, shifts: Tensor, shift: str, max_shift: int | None = None) -> Tensor:
    """Shift (N, C, H, W) images by ``shifts`` (N, 2) pixels, down and right; each image has its own.

    Bytes stay bytes except under the sub-pixel shift. The crop shift moves the picture under a window M = ``max_shift``
    pixels smaller on each side, and returns (N, C, H - 2M, W - 2M).
    """
    limit = reach(shift, images, max_shift)
    if shifts.shape != (len(images), 2):
        raise UsageError(f"shifts must be ({len(images)}, 2), got {tuple(shifts.shape)}")
    if shift == "sub-pixel":
        return sub_pixel(images, shifts)
    if shifts.is_floating_point():
        raise UsageError(f"{shift} shifts are whole pixels, got {shifts.dtype}; the sub-pixel shift takes fractions")
    if shift != "crop":
        return circular(images, shifts) if shift == "circular" else standard(images, shifts)
    margin, (height, width) = limit or 0, images.shape[-2:]
    if shifts.abs().max() > margin:
        raise UsageError(f"a crop window with max_shift={margin} cannot move by {int(shifts.abs().max())} pixels")
    (rows, _), (columns, _) = _sources(images, shifts)
    return taken(images, rows[:, margin : height - margin], columns[:, margin : width - margin])


def _sources(images: Tensor, shifts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For rows and for columns: the source index (N, size) of each pixel, wrapped, and whether it lay inside."""
    for axis, side in enumerate(images.shape[-2:]):
        source = torch.arange(side, device=images.device) - shifts[:, axis, None].to(images.device)
        yield source % side, (source >= 0) & (source < side)


def _ramp(frequencies: Tensor, shifts: Tensor, size: int) -> Tensor:
    """Phase factors (N, frequencies) of ``shifts`` (N,), for ``frequencies`` in cycles per pixel."""
    angle = -2 * torch.pi * frequencies.to(shifts) * shifts[:, None]
    ramp = torch.polar(torch.ones_like(angle), angle)
    if size % 2 == 0:
        nyquist = frequencies.abs() == 0.5
        ramp[:, nyquist] = ramp[:, nyquist].real.to(ramp.dtype)
    return ramp
