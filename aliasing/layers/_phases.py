"""The polyphase components of a map: reduce them, take one, mix them, put them back.

Phase ``p = stride * i + j`` of ``x`` is ``x[..., i::stride, j::stride]``. All functions but ``pad`` expect sides that
the stride divides.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import UsageError
from ._matrices import full_precision, is_channels_last, memory_format, pad_index
from .base import PaddingMode

__all__ = [
    "add_to_phases",
    "by_chunks",
    "cell_means",
    "chunks",
    "is_whole",
    "mix",
    "pad",
    "phase_products",
    "phase_reduce",
    "select",
    "spread",
    "take",
    "weighted_slices",
]


CHUNK = 2**20  # values that a CPU works on at a time, so that intermediate maps stay in its cache


def pad(x: Tensor, top: int, bottom: int, left: int, right: int, padding_mode: PaddingMode) -> Tensor:
    """Pad (N, C, H, W) by any amount, however small the map; the memory format is kept.

    Where a mirror has nothing to reflect (one row or column), it repeats that row or column.
    """
    if not (top or bottom or left or right):
        return x
    channels_last = is_channels_last(x)
    height, width = x.shape[2:]
    reach = {"reflect": 1, "circular": 0}.get(padding_mode)
    if reach is not None and (max(top, bottom) + reach > height or max(left, right) + reach > width):
        rows, _ = pad_index(height, top, bottom, padding_mode)
        columns, _ = pad_index(width, left, right, padding_mode)
        x = x.index_select(2, rows.to(x.device)).index_select(3, columns.to(x.device))
    elif padding_mode == "circular":
        return _Wrap.apply(x, top, bottom, left, right)
    else:
        mode = "constant" if padding_mode == "zeros" else padding_mode
        x = full_precision(lambda x: F.pad(x, (left, right, top, bottom), mode=mode), x)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


class _Wrap(torch.autograd.Function):
    """Circular padding. Written out because the built-in one forgets the memory format and has a slow gradient."""

    @staticmethod
    def forward(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
        n, c, h, w = x.shape
        if not is_channels_last(x):
            return F.pad(x, (left, right, top, bottom), "circular")
        flat = x.permute(0, 2, 3, 1).reshape(1, n, h, w * c)
        flat = F.pad(flat, (left * c, right * c, top, bottom), "circular")
        return flat.view(n, top + h + bottom, left + w + right, c).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.top, ctx.bottom, ctx.left, ctx.right = inputs
        ctx.size = x.shape[2:]

    @staticmethod
    def backward(ctx, grad):
        (h, w), top, bottom, left, right = ctx.size, ctx.top, ctx.bottom, ctx.left, ctx.right
        grad = grad.clone()
        if top:
            grad[:, :, h : h + top].add_(grad[:, :, :top])
        if bottom:
            grad[:, :, top : top + bottom].add_(grad[:, :, top + h :])
        grad = grad[:, :, top : top + h]
        if left:
            grad[..., w : w + left].add_(grad[..., :left])
        if right:
            grad[..., left : left + right].add_(grad[..., left + w :])
        return grad[..., left : left + w], None, None, None, None


def select(x: Tensor, index: Tensor, stride: int) -> Tensor:
    """Phase ``index[n]`` of every map ``x[n]``: (N, C, H, W), (N,) -> (N, C, H/stride, W/stride)."""
    n, c, h, w = x.shape
    row, column, each = index // stride, index % stride, torch.arange(n, device=x.device)
    if is_channels_last(x):
        grid = x.permute(0, 2, 3, 1).view(n, h // stride, stride, w // stride, stride, c)
        chosen = grid[each, :, row, :, column].permute(0, 3, 1, 2)
        return chosen.contiguous(memory_format=torch.channels_last)
    return x.unflatten(3, (w // stride, stride)).unflatten(2, (h // stride, stride))[each, :, :, row, :, column]


class _WeightedSlices(torch.autograd.Function):
    """Written out because automatic gradients of strided slices fill a whole map for every slice."""

    @staticmethod
    def forward(x: Tensor, weights: Tensor, size: int, stride: int) -> Tensor:
        return _weighted_slices(x, weights, size, stride)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weights, ctx.size, ctx.stride = inputs
        ctx.save_for_backward(x, weights)

    @staticmethod
    def backward(ctx, grad):
        x, weights = ctx.saved_tensors
        grad_x, grad_weights = torch.zeros_like(x), []
        for k, (view, target) in enumerate(
            zip(_slices(x, ctx.size, ctx.stride), _slices(grad_x, ctx.size, ctx.stride), strict=True)
        ):
            weight = weights[..., k, :, :]
            target.addcmul_(grad, weight)
            grad_weights.append((grad * view).sum_to_size(weight.shape))
        return grad_x, torch.stack(grad_weights, -3), None, None


def _weighted_slices(x: Tensor, weights: Tensor, size: int, stride: int) -> Tensor:
    first, *others = _slices(x, size, stride)
    y = first * weights[..., 0, :, :]
    for k, view in enumerate(others, 1):
        y.addcmul_(view, weights[..., k, :, :])
    return y


def _slices(x: Tensor, size: int, stride: int) -> list[Tensor]:
    h, w = ((side - size) // stride * stride + 1 for side in x.shape[-2:])
    return [x[..., i : i + h : stride, j : j + w : stride] for i in range(size) for j in range(size)]


def weighted_slices(x: Tensor, weights: Tensor, size: int, stride: int) -> Tensor:
    """Weighted sum over size x size windows.

    ``y[m, n] = sum_ij weights[size * i + j, m, n] * x[stride * m + i, stride * n + j]``

    Args:
        x: (..., H, W).
        weights: (..., size^2, H', W') with H' = (H - size)//stride + 1, or 1 where the weights are the same everywhere;
            the leading dimensions broadcast to those of ``x``.
        size: side of the window, in pixels.
        stride: distance of the windows, in pixels.
    """
    # A compiler fuses the automatic gradients itself (and torch 2.11 gets the written ones wrong).
    function = _weighted_slices if torch.compiler.is_compiling() else _WeightedSlices.apply
    return function(x, weights.to(x.dtype), size, stride)


def mix(x: Tensor, weights: Tensor, stride: int) -> Tensor:
    """Weighted sum of the phases: (N, C, H, W), (N, C or 1, stride^2) -> (N, C, H/stride, W/stride)."""
    n, c, h, w = x.shape
    weights = weights.to(x.dtype)
    if x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() and x.numel() > 0:
        # On this layout one grouped convolution with a filter per map is the fastest form; other dtypes lack a kernel.
        kernel = weights.expand(n, c, stride**2).reshape(n * c, 1, stride, stride)
        with torch.autocast("cpu", enabled=False):
            y = F.conv2d(x.view(1, n * c, h, w), kernel, stride=stride, groups=n * c)
        return y.view(n, c, h // stride, w // stride)
    weights = weights.movedim(2, 0).contiguous().movedim(0, 2)  # channels side by side, as in channels_last maps
    return weighted_slices(x, weights[..., None, None], stride, stride)


def phase_products(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    """Gradient of ``mix`` with respect to its weights: (N, C, H/stride, W/stride), (N, C, H, W) -> (N, C, stride^2)."""
    return torch.stack([(grad * view).sum((2, 3)) for view in _slices(x, stride, stride)], 2)


def add_to_phases(x: Tensor, grad: Tensor, weights: Tensor, stride: int) -> Tensor:
    """``x`` after the gradient of ``mix`` with respect to its map was added to it, in place."""
    side_by_side = weights.to(x.dtype).movedim(2, 0).contiguous()
    for view, weight in zip(_slices(x, stride, stride), side_by_side, strict=True):
        view.addcmul_(grad, weight[..., None, None])
    return x


def take(x: Tensor, choice: Tensor, stride: int) -> Tensor:
    """``select`` by an index (N,), ``mix`` by weights (N, stride^2)."""
    if choice.shape not in ((x.shape[0],), (x.shape[0], stride**2)):
        raise UsageError(
            f"choice must be an index ({x.shape[0]},) or weights ({x.shape[0]}, {stride**2}), got {tuple(choice.shape)}"
        )
    return select(x, choice, stride) if choice.dim() == 1 else mix(x, choice[:, None], stride)


def phase_reduce(x: Tensor, stride: int, largest: bool = False) -> Tensor:
    """Sum (or maximum) over space of each phase: (N, C, H, W) -> (N, C, stride^2)."""
    n, c, h, w = x.shape
    reduce = torch.amax if largest else torch.sum
    if is_channels_last(x):
        rows = reduce(x.permute(0, 2, 3, 1).reshape(n, h // stride, stride * w * c), 1)
        return reduce(rows.view(n, stride, w // stride, stride, c), 2).flatten(1, 2).transpose(1, 2)
    rows = reduce(x.reshape(n, c, h // stride, stride * w), 2)
    return reduce(rows.view(n, c, stride, w // stride, stride), 3).flatten(2)


def cell_means(x: Tensor, stride: int) -> Tensor:
    """Mean over each cell of a stride x stride partition: (N, C, H, W) -> (N, C, stride^2), row by row.

    Adaptive pooling, whose gradient in channels_last is slow.
    """
    rows = x.permute(0, 2, 3, 1).unflatten(1, (stride, -1)).mean(2)
    return rows.unflatten(2, (stride, -1)).mean(3).flatten(1, 2).transpose(1, 2)


def spread(x: Tensor, choice: Tensor, stride: int, size: tuple[int, int] | None = None) -> Tensor:
    """Put ``x`` on the chosen phase of a finer map and zeros elsewhere: the transpose of ``take``.

    Args:
        x: (N, C, H, W).
        choice: what ``choose`` of the matching downsampling layer returned: (N,), or weights (N, stride^2).
        stride: upsampling factor.
        size: rows and columns to keep, at most ``stride * H`` and ``stride * W``; ``None`` keeps all. The matching
            downsampling layer completes odd maps at the bottom and right, so that is where they are cut.
    """
    n, c, h, w = x.shape
    weights = F.one_hot(choice, stride**2) if choice.dim() == 1 else choice
    y = x[:, :, :, None, :, None] * weights.to(x.dtype).view(n, 1, 1, stride, 1, stride)
    y = y.reshape(n, c, h * stride, w * stride)
    if size is not None:
        y = y[:, :, : size[0], : size[1]]
    return y.contiguous(memory_format=memory_format(x))


def is_whole(x: Tensor) -> bool:
    """Whether all images of ``x`` are worked on together: off the CPU, while traced, or because they are small."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return traced or x.device.type != "cpu" or x.shape[0] <= _images(x)


def chunks(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of a few images of ``x``, and of the same images of the others."""
    return zip(*(tensor.split(_images(x)) for tensor in (x, *others)), strict=True)


def _images(x: Tensor) -> int:
    return max(1, CHUNK // max(1, x.shape[1] * x.shape[2] * x.shape[3]))


def by_chunks(function: Callable[..., Tensor], x: Tensor, *weight: Tensor) -> Tensor:
    """``function(x, weight)`` of a function that treats images separately, on a CPU a few images at a time.

    The intermediate maps then stay in the cache, and are computed again for the gradient instead of being kept.
    """
    return function(x, *weight) if is_whole(x) else _ByChunks.apply(function, x, *weight)


class _ByChunks(torch.autograd.Function):
    @staticmethod
    def forward(function: Callable[..., Tensor], x: Tensor, *weight: Tensor) -> Tensor:
        return torch.cat([function(part, *weight) for (part,) in chunks(x)])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, *weight = ctx.saved_tensors
        grad_x, grad_weight = torch.empty_like(x), [torch.zeros_like(tensor) for tensor in weight]
        for part, part_grad, target in chunks(x, grad, grad_x):
            with torch.enable_grad():
                inputs = [tensor.detach().requires_grad_() for tensor in (part, *weight)]
                result = ctx.function(*inputs)
            of_part, *of_weight = torch.autograd.grad(result, inputs, part_grad)
            target.copy_(of_part)
            for total, addend in zip(grad_weight, of_weight, strict=True):
                total += addend
        return None, grad_x, *grad_weight
