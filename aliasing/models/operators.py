"""Convolution and dense max that keep the size of the map, whatever the padding and however small the map."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers._matrices import plain
from ..layers._phases import pad

__all__ = ["Convolution", "DenseMax"]


class Convolution(nn.Conv2d):
    """Convolution that keeps the size: ``(N, C, H, W) -> (N, K, H, W)``, odd kernel, any H, W >= 1.

    Called with a ``stride`` it returns ``conv(x)[..., ::stride, ::stride]`` without computing what would be dropped.
    Parameters and their names are those of ``torch.nn.Conv2d``. A low-pass ``filter`` may follow it.
    """

    filter: nn.Module | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filter = None

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        """Convolve, and keep every stride-th pixel."""
        if self.filter is not None:
            return self.filter(self._convolve(x, 1))[..., ::stride, ::stride]
        return self._convolve(x, stride)

    def _convolve(self, x: Tensor, stride: int) -> Tensor:
        reach = self.dilation[0] * (self.kernel_size[0] - 1) // 2
        if self.padding_mode == "zeros":
            return F.conv2d(x, self.weight, self.bias, stride, reach, self.dilation, self.groups)
        x = pad(x, reach, reach, reach, reach, self.padding_mode)
        return F.conv2d(x, self.weight, self.bias, stride, 0, self.dilation, self.groups)


class _PairMax(torch.autograd.Function):
    """Maximum of each pixel and the next one along ``axis``.

    On CPUs two of these are several times faster, forward and backward, than max-pooling with stride 1, which
    stores and scatters an index per pixel. Of equal pixels the first takes the gradient, as there.
    """

    @staticmethod
    def forward(ctx, x, axis, circular):
        ctx.axis, last = axis, x.shape[axis] - 1
        inner = x.narrow(axis, 0, last), x.narrow(axis, 1, last)
        outer = x.narrow(axis, last, 1), x.narrow(axis, 0 if circular else last, 1)
        if plain(x):
            y = torch.empty_like(x)
            torch.maximum(*inner, out=y.narrow(axis, 0, last))
            torch.maximum(*outer, out=y.narrow(axis, last, 1))
        else:  # compilers refuse to write into a part of a map, and need not be told to
            y = torch.cat([torch.maximum(*inner), torch.maximum(*outer)], axis)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(y > x)
        return y

    @staticmethod
    def backward(ctx, grad):
        (won,) = ctx.saved_tensors
        moved = grad * won
        kept, last = grad - moved, grad.shape[ctx.axis] - 1
        kept.narrow(ctx.axis, 1, last).add_(moved.narrow(ctx.axis, 0, last))  # rather than a rolled copy
        kept.narrow(ctx.axis, 0, 1).add_(moved.narrow(ctx.axis, last, 1))
        return kept, None, None


class DenseMax(nn.Module):
    """Max over ``size`` x ``size`` windows at every pixel: ``(N, C, H, W) -> (N, C, H, W)``.

    Odd windows are centred, even ones reach right and down. Circular padding wraps; otherwise the window is cut at the
    border, as in max-pooling. Called with a ``stride`` it returns every stride-th pixel of that: ordinary max-pooling.
    """

    def __init__(self, size: int, padding_mode: str = "zeros") -> None:
        super().__init__()
        self.size, self.padding_mode = size, padding_mode

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        """Take the maxima, and keep every stride-th pixel."""
        if self.size == 2 and stride == 1:
            for axis in (3, 2):
                x = _PairMax.apply(x, axis, self.padding_mode == "circular")
            return x
        before = (self.size - 1) // 2
        # As far as the last window that is kept reaches beyond the border; where sides are even often not at all.
        below, right = (max(0, (n - 1) // stride * stride + self.size - before - n) for n in x.shape[2:])
        # Repeating the border pixels adds nothing new to a window, so it is the same as cutting the window.
        x = pad(x, before, below, before, right, "circular" if self.padding_mode == "circular" else "replicate")
        return F.max_pool2d(x, self.size, stride)

    def extra_repr(self) -> str:
        """Window and padding."""
        return f"{self.size}, padding_mode={self.padding_mode!r}"
