"""Anti-aliased upsampling: zeros between the pixels, then a low-pass that fills them."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError, check_whole, one_of, whole
from ._matrices import memory_format, outer, separable
from ._phases import pad_axes
from .base import PADDING_MODES, PaddingMode, Stride, check_map, check_stride, per_axis


def interpolator(factor: int, taps: int) -> tuple[float, ...]:
    """The low-pass of upsampling by ``factor``: ``taps - 1`` boxes of ``factor`` pixels convolved, with sum ``factor``.

    For factor 2 the binomial filter of ``taps`` taps with gain 2. It is zero at the frequencies where inserting zeros
    puts copies of a constant, so constants stay constant: 2 taps repeat pixels, 3 interpolate linearly, more are
    smoother and blur.
    """
    line = [float(factor)]
    for _ in range(taps - 1):
        line = [sum(line[max(0, i - factor + 1) : i + 1]) / factor for i in range(len(line) + factor - 1)]
    return tuple(line)


def upsample_definition(x: Tensor, factor: Stride = 2, taps: int = 3, padding_mode: PaddingMode = "reflect") -> Tensor:
    """Pad (N, C, ...), insert ``factor - 1`` zeros after every pixel of every axis, filter, and cut to n * factor."""
    dims = x.dim() - 2
    factors, sides = per_axis(factor, dims), x.shape[2:]
    lines = [interpolator(f, taps) for f in factors]
    (kernel,) = outer(x, *lines)
    reach = [-(-(len(line) - 1) // f) for line, f in zip(lines, factors, strict=True)]  # pixels a filter sees
    given, x = x, pad_axes(x, [(n, n) for n in reach], padding_mode)
    spread = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    y = spread(x, kernel.expand(x.shape[1], 1, *kernel.shape), stride=factors, groups=x.shape[1])
    for axis, (n, f, pixels) in enumerate(zip(sides, factors, reach, strict=True), start=2):
        y = y.narrow(axis, pixels * f + (taps - 1) // 2 * (f - 1), n * f)
    return y.contiguous(memory_format=memory_format(given))


class Upsample(nn.Module):
    """Upsampling without images of the spectrum: ``(N, C, H, W) -> (N, C, factor * H, factor * W)``.

    What a transposed convolution or repeated pixels lack (Zhang 2019 for downsampling; adobe/antialiased-cnns issues
    8, 21 and 28 ask for the way back): zeros are inserted and a low-pass fills them, the transpose of ``Blur`` with
    gain ``factor`` per axis. In front of a convolution it replaces a strided transposed one, alone an interpolation.
    With an odd number of taps the pixels of the input stay where they are, at 0, ``factor``, 2 ``factor``, ..., so it
    fits the grid of ``Blur`` with an odd filter; with an even number it is the centre of its ``factor`` pixels.
    Constants stay constant, except at the border under ``padding_mode="zeros"``. Linear, without parameters.

    Args:
        channels: C; not read.
        factor: 1 to 8, or one per axis.
        taps: 2 repeats pixels, 3 interpolates linearly, more are smoother; for factor 2 those of a binomial filter.
        padding_mode: what lies beyond the border of the input.
        dims: number of spatial axes, 1 to 3.

    Raises:
        UsageError: for arguments outside these.
    """

    def __init__(
        self, channels: int, factor: Stride = 2, taps: int = 3, padding_mode: PaddingMode = "reflect", *, dims: int = 2
    ) -> None:
        super().__init__()
        if whole(dims) not in (1, 2, 3):
            raise UsageError(f"upsample: dims must be 1, 2 or 3, got {dims!r}")
        self.dims = int(dims)
        self.factor = check_stride("upsample", factor, tuple(range(1, 9)), dims, "factor")
        self.taps = check_whole("upsample: taps", taps, 2)
        self.padding_mode: PaddingMode = one_of("padding mode", padding_mode, PADDING_MODES)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge ``x``."""
        check_map("Upsample", x, self.dims)
        keys = [(factor, self.taps, self.padding_mode) for factor in per_axis(self.factor, self.dims)]
        return separable(x, upsample_definition, keys)

    def extra_repr(self) -> str:
        """Show what distinguishes two layers."""
        return f"factor={self.factor}, taps={self.taps}, padding_mode={self.padding_mode!r}"
