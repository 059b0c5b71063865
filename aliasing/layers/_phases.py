"""The polyphase components of a map: take one, mix them, reduce them, put them back; and padding.

Phase ``p = stride_w * i + j`` of ``x`` is ``x[..., i::stride_h, j::stride_w]``; with one or three axes likewise, the
last axis fastest. All functions but those that pad expect sides that the stride divides, one stride per axis.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ._matrices import differentiated, full_precision, is_channels_last, memory_format, pad_index, plain
from .base import PaddingMode

CHUNK = 2**20  # values that a CPU works on at a time, so that intermediate maps stay in its cache

Strides = tuple[int, ...]


def phase(x: Tensor, place: Sequence[int], strides: Strides, ends: Sequence[int | None] = (None,) * 3) -> Tensor:
    """A view of every stride-th pixel of the last axes of ``x`` from ``place`` on, up to ``ends``."""
    steps = zip(place, ends[: len(strides)], strides, strict=True)
    return x[(..., *[slice(start, end, step) for start, end, step in steps])]


def phases(x: Tensor, strides: Strides) -> Tensor:
    """All phases, in the order of their numbers: (N, C, H, W) -> (N, phases, C, H/stride, W/stride)."""
    return torch.stack([phase(x, place, strides) for place in product(*map(range, strides))], 1)


def take_definition(x: Tensor, choice: Tensor, strides: Strides) -> Tensor:
    """The phase of each image that ``choice`` (N,) names, or the mean of the phases by its weights (N, phases)."""
    parts = phases(x, strides)
    if choice.dim() == 1:
        return parts[torch.arange(choice.shape[0], device=x.device), choice]  # whose len() a trace would keep
    return (parts * choice.to(x.dtype).view(*choice.shape, *[1] * (x.dim() - 1))).sum(1)


def take(x: Tensor, choice: Tensor, strides: Strides) -> Tensor:
    """``take_definition``, without a copy of all phases."""
    n, count = x.shape[0], prod(strides)
    if choice.shape not in ((n,), (n, count)):
        raise UsageError(f"choice must be an index ({n},) or weights ({n}, {count}), got {tuple(choice.shape)}")
    if not plain(x):
        return take_definition(x, choice, strides)
    if choice.dim() == 1 and choice.device.type == "cpu" and not bool((choice < count).all()):
        raise UsageError(f"choice must be phases below {count}, got {int(choice.max())}; is it of another stride?")
    return _select(x, choice, strides) if choice.dim() == 1 else mix(x, choice[:, None], strides)


def _select(x: Tensor, index: Tensor, strides: Strides) -> Tensor:
    last, grid = is_channels_last(x), x
    for axis in reversed(range(2, x.dim())):
        grid = grid.unflatten(axis, (-1, strides[axis - 2]))
    place: list[Any] = [torch.arange(x.shape[0], device=x.device), slice(None)]
    for step in range(len(strides)):
        place += [slice(None), index // prod(strides[step + 1 :]) % strides[step]]
    if last:  # the channels last in the index, too, so that they are copied side by side
        grid, place = grid.movedim(1, -1), [place[0], *place[2:], place[1]]
    chosen = grid[tuple(place)]
    return chosen.movedim(-1, 1) if last else chosen


def mix(x: Tensor, weights: Tensor, strides: Strides) -> Tensor:
    """Weighted sum of the phases: (N, C, H, W), (N, C or 1, phases) -> (N, C, H/stride, W/stride)."""
    n, c, *sides = x.shape
    if x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() and x.numel() > 0:
        # On this layout one grouped convolution with a filter per map is the fastest form; other dtypes lack a kernel.
        kernel = weights.to(x.dtype).expand(n, c, -1).reshape(n * c, 1, *strides)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(sides) - 1]
        y = full_precision(lambda x: convolve(x.view(1, n * c, *sides), kernel, stride=strides, groups=n * c), x)
        return y.view(n, c, *(side // s for side, s in zip(sides, strides, strict=True)))
    weights = weights.movedim(2, 0).contiguous().movedim(0, 2)  # channels side by side, as in channels_last maps
    return weighted_slices(x, weights[(..., *[None] * len(sides))], strides, strides)


def phase_reduce(x: Tensor, strides: Strides, largest: bool = False) -> Tensor:
    """Sum (or maximum) over space of each phase: (N, C, H, W) -> (N, C, phases)."""
    x = x.float() if x.dtype == torch.float16 else x  # whose sums would pass 65504
    n, c, *sides = x.shape
    reduce, last, count = torch.amax if largest else torch.sum, is_channels_last(x), prod(strides)
    outer, inner, flat = (n, c, x.movedim(1, -1)) if last else (n * c, 1, x)
    for axis, (side, stride) in enumerate(zip(sides, strides, strict=True)):
        rest = prod(sides[axis + 1 :]) * inner
        flat = reduce(flat.reshape(outer * prod(strides[:axis]), side // stride, stride * rest), 1)
    return flat.view(n, count, c).transpose(1, 2) if last else flat.view(n, c, count)


def spread(x: Tensor, choice: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Put ``x`` (N, C, H, W) on the chosen phase of a map of ``size`` and zeros elsewhere: the transpose of ``take``.

    ``choice`` is what ``choose`` of the matching downsampling layer returned: (N,), or weights (N, stride^2). That
    layer completes odd maps at the bottom and right, so that is where they are cut.
    """
    n, c, h, w = x.shape
    weights = F.one_hot(choice, stride**2) if choice.dim() == 1 else choice
    y = x[:, :, :, None, :, None] * weights.to(x.dtype).view(n, 1, 1, stride, 1, stride)
    y = y.reshape(n, c, h * stride, w * stride)[:, :, : size[0], : size[1]]
    return y.contiguous(memory_format=memory_format(x))


# Sums over windows, with weights of their own at every place


def weighted_slices(x: Tensor, weights: Tensor, size: Strides, strides: Strides) -> Tensor:
    """Weighted sum over windows of ``size``, ``strides`` apart, in pixels per axis, of ``x`` (..., H, W).

    ``y[m, n] = sum_ij weights[size_w * i + j, m, n] * x[stride_h * m + i, stride_w * n + j]``; the weights are
    (..., size_h * size_w, H', W') with H' = (H - size_h)//stride_h + 1, or 1 where they are the same everywhere, and
    their leading dimensions broadcast to those of ``x``.
    """
    weights = weights if x.dtype == torch.float16 else weights.to(x.dtype)  # whose sums over space would pass 65504
    return (_WeightedSlices.apply if plain(x) else _weighted_slices)(x, weights, size, strides)


def _weighted_slices(x: Tensor, weights: Tensor, size: Strides, strides: Strides, add: Any = torch.addcmul) -> Tensor:
    first, *others = slices(x, size, strides)
    one_each = weights.to(x.dtype).unbind(-len(size) - 1)
    y = first * one_each[0]
    for view, weight in zip(others, one_each[1:], strict=True):
        y = add(y, view, weight)
    return y


def slices(x: Tensor, size: Strides, strides: Strides) -> list[Tensor]:
    """For each place in a window, what lies at that place of all windows: views of ``x``."""
    reach = [(n - k) // s * s + 1 for n, k, s in zip(x.shape[-len(size) :], size, strides, strict=True)]
    places = product(*map(range, size))
    return [phase(x, place, strides, [i + n for i, n in zip(place, reach, strict=True)]) for place in places]


class _WeightedSlices(torch.autograd.Function):
    """Written out because automatic gradients of strided slices fill a whole map for every slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, size: Strides, strides: Strides) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.windows = size, strides
        return _weighted_slices(x, weights, size, strides, Tensor.addcmul_)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights = ctx.saved_tensors
        if differentiated(grad):
            again = first_order(lambda x, w: _weighted_slices(x, w, *ctx.windows), grad, x, weights)
            return (*again, None, None)
        axis = -len(ctx.windows[0]) - 1
        grad_x, grad_weights = torch.zeros_like(x), []
        views, targets = (slices(tensor, *ctx.windows) for tensor in (x, grad_x))
        for view, target, weight in zip(views, targets, weights.to(x.dtype).unbind(axis), strict=True):
            target.addcmul_(grad, weight)
            grad_weights.append((grad * view).to(weights.dtype).sum_to_size(weight.shape))
        return grad_x, torch.stack(grad_weights, axis), None, None


def first_order(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of ``function`` at ``inputs``, with a graph of their own where one is recorded.

    For a backward written by hand where it is ``differentiated``: second derivatives are made from it.
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, because one input may have been made from another, whose gradient is not to run through it.
        inputs = tuple(tensor.view_as(tensor) for tensor in inputs)
        needed = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(torch.autograd.grad(function(*inputs), needed, grad, create_graph=recording))
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)


# A few images at a time


def is_whole(x: Tensor) -> bool:
    """Whether all images of ``x`` are worked on together: off the CPU, or because they are small."""
    return not plain(x) or x.device.type != "cpu" or len(x) <= 1 or x.numel() <= CHUNK


def chunks(x: Tensor, *others: Tensor, values: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Views of a few images of ``x``, and of the same images of the others; on a CPU they stay in its cache.

    They have at most ``values`` values of ``x``, by default ``CHUNK``, unless one image has more.
    """
    if is_whole(x) and values is None:
        return iter([(x, *others)])
    images = max(1, (values or CHUNK) // max(1, prod(x.shape[1:])))
    return zip(*(tensor.split(images) for tensor in (x, *others)), strict=True)


# Padding


def complete(x: Tensor, strides: Strides, padding_mode: PaddingMode) -> Tensor:
    """Pad at the end of each axis to sides that the stride divides."""
    return pad_axes(x, [(0, -n % s) for n, s in zip(x.shape[2:], strides, strict=True)], padding_mode)


def pad_axes(x: Tensor, amounts: Sequence[tuple[int, int]], padding_mode: PaddingMode) -> Tensor:
    """Pad (N, C, ...) by any (before, after) per axis, however small the map; the memory format is kept.

    Where a mirror has nothing to reflect (one row or column), it repeats that row or column.
    """
    if not any(before or after for before, after in amounts):
        return x
    kept_format = memory_format(x)
    reach = {"reflect": 1, "circular": 0}.get(padding_mode)
    sides = x.shape[2:]
    if reach is not None and any(max(pair) + reach > n for n, pair in zip(sides, amounts, strict=True)):
        for axis, (n, pair) in enumerate(zip(sides, amounts, strict=True), start=2):
            x = x.index_select(axis, pad_index(n, *pair, padding_mode, x.device)[0])
    elif padding_mode == "circular" and x.dim() == 4 and plain(x):
        return _Wrap.apply(x, *amounts[0], *amounts[1])
    else:
        mode = "constant" if padding_mode == "zeros" else padding_mode
        flat = [amount for pair in reversed(amounts) for amount in pair]
        x = full_precision(lambda x: F.pad(x, flat, mode=mode), x)
    return x.contiguous(memory_format=kept_format)


class _Wrap(torch.autograd.Function):
    """Circular padding. Written out because the built-in one forgets the memory format and has a slow gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
        ctx.size, ctx.amounts = x.shape[2:], (top, bottom, left, right)
        n, c, h, w = x.shape
        if not is_channels_last(x):
            return F.pad(x, (left, right, top, bottom), "circular")
        flat = x.permute(0, 2, 3, 1).reshape(1, n, h, w * c)
        flat = F.pad(flat, (left * c, right * c, top, bottom), "circular")
        return flat.view(n, top + h + bottom, left + w + right, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.clone()
        for axis, (n, before, after) in enumerate(zip(ctx.size, ctx.amounts[::2], ctx.amounts[1::2], strict=True), 2):
            grad.narrow(axis, n, before).add_(grad.narrow(axis, 0, before))
            grad.narrow(axis, before, after).add_(grad.narrow(axis, before + n, after))
            grad = grad.narrow(axis, before, n)
        return grad, None, None, None, None
