"""The dense maximum: what is left of max pooling once its subsampling has been taken out (Zhang 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_whole, one_of
from ._matrices import differentiated, memory_format, plain
from ._phases import chunks, first_order, pad_axes
from .base import PADDING_MODES, PaddingMode, check_map


def dense_max_definition(x: Tensor, size: int = 2, padding_mode: PaddingMode = "zeros") -> Tensor:
    """What ``DenseMax`` computes; cutting a window at the border is the same as repeating the border pixel."""
    mode: PaddingMode = "circular" if padding_mode == "circular" else "replicate"
    return F.max_pool2d(pad_axes(x, [((size - 1) // 2, size // 2)] * 2, mode), size, 1)


# Integers as wide as the floats. Floats that are not negative are ordered as the integers of the same bits, which
# processors compare several times faster than bfloat16.
_BITS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
CHUNK = 2**18  # values worked on at a time, so that the steps between them stay in a core's cache


class _PairwiseMax(torch.autograd.Function):
    """The maximum of 2 x 2 by pairs: the larger of two neighbours along one axis, then along the other.

    Pooling with stride 1 stores an index per pixel and scatters its gradient. Here the backward pass compares again
    which of two neighbours was larger. Of equal values the first takes the gradient, as in max pooling.
    """

    @staticmethod
    def forward(x: Tensor, circular: bool) -> Tensor:
        y = torch.empty_like(x)
        for part, out in chunks(x, y, values=CHUNK):
            values, larger = _comparable(part, out)
            _larger(_larger(values, 3, circular), 2, circular, larger)
        return y

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.circular = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        if differentiated(grad):
            mode: PaddingMode = "circular" if ctx.circular else "zeros"
            return *first_order(lambda x: dense_max_definition(x, 2, mode), grad, x), None
        grad = grad.resolve_neg().contiguous(memory_format=memory_format(x))
        result = torch.empty_like(x)
        for part, given, out in chunks(x, grad, result, values=CHUNK):
            (values,) = _comparable(part)
            across = _larger(values, 3, ctx.circular)
            down = _larger(across, 2, ctx.circular)
            _send_back(_send_back(given, across, down, 2), values, across, 3, out)
        return result, None


def _comparable(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """The tensors as integers where no value of ``x`` has its sign bit set, as behind a ReLU; else as they are."""
    bits = x.view(_BITS[x.dtype])
    if x.numel() == 0 or int(bits.amin()) < 0:
        return (x, *others)
    return (bits, *(other.view(bits.dtype) for other in others))


def _larger(x: Tensor, axis: int, circular: bool, out: Tensor | None = None) -> Tensor:
    """The larger of each value and the next along ``axis``; the last one's next is the first, or itself."""
    out = torch.empty_like(x) if out is None else out
    last = x.shape[axis] - 1
    end = x.narrow(axis, last, 1)
    torch.maximum(x.narrow(axis, 0, last), x.narrow(axis, 1, last), out=out.narrow(axis, 0, last))
    torch.maximum(end, x.narrow(axis, 0, 1) if circular else end, out=out.narrow(axis, last, 1))
    return out


def _send_back(grad: Tensor, x: Tensor, larger: Tensor, axis: int, out: Tensor | None = None) -> Tensor:
    """The gradient of ``x``, given that of ``larger = _larger(x)``: it goes to the next value where that one won."""
    bits = _BITS[grad.dtype]
    if x.dtype == bits:
        # The difference is negative where the next one won; shifted by all bits but the sign, it is all ones there.
        next_won = (x - larger).bitwise_right_shift_(8 * x.element_size() - 1)
    else:
        next_won = (larger > x).to(bits).neg_()
    out = torch.empty_like(grad) if out is None else out
    moved = next_won.bitwise_and_(grad.view(bits))
    torch.bitwise_xor(grad.view(bits), moved, out=out.view(bits))  # the rest of the gradient stays
    moved, last = moved.view(grad.dtype), x.shape[axis] - 1
    out.narrow(axis, 1, last).add_(moved.narrow(axis, 0, last))
    out.narrow(axis, 0, 1).add_(moved.narrow(axis, last, 1))
    return out


class DenseMax(nn.Module):
    """Maximum of the ``size`` x ``size`` window at every pixel: (N, C, H, W) -> (N, C, H, W), any H, W >= 1.

    Put a layer that filters and subsamples behind it to get anti-aliased max pooling (MaxBlurPool, Zhang 2019)::

        nn.Sequential(layers.DenseMax(2), layers.create("tri-3", channels))

    Odd windows are centred, even ones reach right and down. Circular padding wraps; otherwise the window is cut at the
    border, as in max pooling. Called with a ``stride`` it returns every stride-th pixel of that: ordinary max pooling.

    Args:
        size: side of the window in pixels.
        padding_mode: "circular", or any other for windows that are cut at the border.

    Raises:
        UsageError: a size below 1 or an unknown padding mode.
    """

    def __init__(self, size: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.size = check_whole("the window of a dense maximum", size, 1)
        self.padding_mode: PaddingMode = one_of("padding mode", padding_mode, PADDING_MODES)

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        """Take the maxima, and keep every stride-th pixel."""
        check_map("DenseMax", x)
        size, mode = self.size, self.padding_mode
        if stride == 1:
            if size != 2 or not plain(x) or x.device.type != "cpu" or x.dtype not in _BITS:
                return dense_max_definition(x, size, mode)
            return _PairwiseMax.apply(x.resolve_neg(), mode == "circular")  # whose bits tell the sign
        before = (size - 1) // 2
        # As far as the last window that is kept reaches beyond the border; where sides are even often not at all.
        needed = ((n - 1) // stride * stride + size - before - n for n in x.shape[2:])
        amounts = [(before, max(0, n) if plain(x) else size // 2) for n in needed]  # a trace is of one size
        return F.max_pool2d(pad_axes(x, amounts, "circular" if mode == "circular" else "replicate"), size, stride)

    def extra_repr(self) -> str:
        """Window and padding."""
        return f"{self.size}, padding_mode={self.padding_mode!r}"
