"""Linear maps along the axes of a map, as matrices read off a definition, and what decides about fast forms."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial, reduce
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from .base import PaddingMode

LARGE = 2**20  # values of a map, from which the lists of a sparse matrix pay
TINY = 64  # pixels of a map, up to which one dense matrix serves all axes
WIDE = 16  # values that a sparse matrix adds up side by side, from which reading its lists is cheap
LONG = 1024  # pixels of an axis, up to which its matrix is built

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def pad_index(
    length: int, before: int, after: int, padding_mode: PaddingMode, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which pixel each padded position reads, and whether it reads one at all; both of shape (before+length+after,).

    Any amount of padding works on any length: mirrors are mirrored again, circles go round again.
    """
    position = torch.arange(-before, length + after, device=device)
    inside = torch.ones_like(position, dtype=torch.bool)
    if padding_mode == "circular":
        return position % length, inside
    if padding_mode == "reflect":
        period = 2 * length - 2 + (length == 1)  # no maximum: traces keep the formula, not the choice
        folded = position % period
        return torch.where(folded < length, folded, period - folded), inside
    if padding_mode == "zeros":
        inside = (position >= 0) & (position < length)
    return position.clamp(0, length - 1), inside


_defined: ContextVar[bool] = ContextVar("layers compute their definitions", default=False)


@contextmanager
def definitions() -> Iterator[None]:
    """Let all layers compute their definitions meanwhile instead of their fast forms: to compare values or times."""
    token = _defined.set(True)
    try:
        yield
    finally:
        _defined.reset(token)


def asked() -> bool:
    """Whether layers run within ``definitions``."""
    return not torch.compiler.is_compiling() and _defined.get()


def plain(x: Tensor) -> bool:
    """Whether ``x`` is a tensor of numbers on a device we know, and nothing but its gradient can be asked for.

    Otherwise layers compute their definition: while a compiler or an exporter traces, under the transforms of
    ``torch.func`` (``vmap``, ``jvp``, ...) and forward-mode differentiation, for subclasses of tensors, on ``meta``,
    and within ``definitions``.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in (Tensor, nn.Parameter):
        return False
    usual = x.device.type in ("cpu", "cuda") and not asked()
    return usual and not _transformed() and forward_ad._current_level < 0


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active()


def differentiated(grad: Tensor) -> bool:
    """Whether a backward written by hand, which writes in place, must give way: for a graph, or batches of ``grad``."""
    return torch.is_grad_enabled() or _transformed() or torch._C._functorch.is_legacy_batchedtensor(grad)


@contextmanager
def _constants() -> Iterator[None]:
    """What is made within may be kept: a tensor of numbers on the CPU, whatever the modes of the caller.

    An inference tensor no later training step could use, and what is made but once would confuse who compares or
    counts operations, such as a selective checkpoint.
    """
    with _disable_current_modes(), torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        yield


def kept(build: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """Keep what ``build(*key, device)`` returned for each key, in the dtype and on the device of the map ``x``.

    The result is a function of ``(x, *key)``. While ``x`` is traced nothing is kept: the few operations that build
    the matrices become part of the graph, where their sizes may be symbols.
    """

    @lru_cache(maxsize=128)
    @_constants()
    def remember(device: torch.device, dtype: torch.dtype, *key: object) -> tuple[Tensor, ...]:
        return tuple(t.to(device, dtype).contiguous() for t in build(*key, torch.device("cpu")))

    def get(x: Tensor, *key: object) -> tuple[Tensor, ...]:
        if plain(x):
            return remember(x.device, x.dtype, *key)
        device = torch.device("cpu") if x.device.type == "mps" else x.device  # mps has no float64
        return tuple(t.to(x.device, x.dtype) for t in build(*key, device))

    return get


@kept
def outer(*lines: Any) -> tuple[Tensor]:
    """The kernel whose axes have the taps of each of the lines; made in every pass, a GPU would wait for it."""
    *taps, device = lines
    each = (torch.tensor(line, dtype=torch.float64, device=device) for line in taps)
    return (reduce(lambda kernel, line: kernel[..., None] * line, each),)


def full_precision(function: Callable[[Tensor], Tensor], x: Tensor, least: torch.dtype | None = None) -> Tensor:
    """``function(x)`` without autocast, in the wider dtype of ``x`` and ``least``; its result in the dtype of ``x``."""
    wide = x if least is None else x.to(torch.promote_types(x.dtype, least))
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return function(wide).to(x.dtype)
    with torch.autocast(device, enabled=False):
        return function(wide).to(x.dtype)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is stored channels_last and not, as maps of one channel or one pixel may be, both ways."""
    if x.dim() not in _LAST or not (torch.compiler.is_compiling() or not _transformed()):
        return False
    return x.is_contiguous(memory_format=_LAST[x.dim()]) and (x.numel() == 0 or not x.is_contiguous())


def memory_format(x: Tensor) -> torch.memory_format:
    """The memory format of ``x``, for what is made from it."""
    return _LAST[x.dim()] if is_channels_last(x) else torch.contiguous_format


Product = Callable[[Tensor], Tensor]
Step = tuple[int, int, list[int], Product]  # from this spatial axis up to that one, their new sizes, and how


def apply_steps(x: Tensor, steps: Iterable[Step]) -> Tensor:
    """Apply linear maps to axes of (N, C, ...), one after the other; the memory format is kept.

    The axes of a step are seen as one of ``n`` pixels: its product maps (outer, n, inner) to (outer, m, inner), where
    m is the product of the new sizes.
    """
    sizes, last = list(x.shape[2:]), is_channels_last(x)
    flat = x.movedim(1, -1) if last else x
    lead, channels = (x.shape[:1], x.shape[1]) if last else (x.shape[:2], 1)
    for first, end, new, product in steps:
        outer, n, inner = prod(sizes[:first]), prod(sizes[first:end]), prod(sizes[end:])
        flat = product(flat.reshape(prod(lead) * outer, n, inner * channels))
        sizes[first:end] = new
    if last:
        return flat.reshape(*lead, *sizes, channels).movedim(-1, 1)
    return flat.reshape(*lead, *sizes)


def dense(matrix: Tensor) -> Product:
    """The product with a dense ``matrix`` (m, n)."""

    def product(x: Tensor) -> Tensor:
        if x.shape[2] == 1:
            return x.squeeze(2) @ matrix.t()
        return torch.bmm(matrix.expand(x.shape[0], -1, -1), x)

    return product


Definition = Callable[..., Tensor]  # of (N, 1, n) maps and a key
Key = tuple[Hashable, ...]


@lru_cache(maxsize=128)
@_constants()
def axis_matrix(definition: Definition, n: int, key: Key) -> Tensor:
    """The matrix (m, n) of ``definition(x, *key)`` on lines of n pixels: its answers to unit impulses, in float64."""
    matrix = definition(torch.eye(n, dtype=torch.float64)[:, None], *key).squeeze(1).t()
    return matrix.clone(memory_format=torch.contiguous_format)  # also of one column, whose odd strides kron refuses


@lru_cache(maxsize=128)
@_constants()
def _joint_matrix(definition: Definition, sides: tuple[int, ...], keys: tuple[Key, ...], dtype: torch.dtype) -> Tensor:
    return reduce(torch.kron, (axis_matrix(definition, n, key) for n, key in zip(sides, keys, strict=True))).to(dtype)


def separable(x: Tensor, definition: Definition, keys: Sequence[Key]) -> Tensor:
    """``definition`` with its own key along each axis of ``x``, without autocast, as matrices where they are fast.

    Sparse matrices run at nearly the speed of memory, but listing their entries costs more than it saves on small maps.
    In channels_last with channels enough the entries are those of all axes together, each for a pixel with all its
    channels; else those of one axis, each for a line of pixels. Where maps are so small that a product along one axis
    is no work, one dense matrix serves all axes. Long axes and exotic dtypes are left to the definition.
    """
    return full_precision(lambda x: _separable(x, definition, keys), x)


def _separable(x: Tensor, definition: Definition, keys: Sequence[Key]) -> Tensor:
    sides = tuple(x.shape[2:])
    known = plain(x) and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64, torch.bfloat16)
    if not known or max(sides) > LONG:
        # An argument that is the same for all axes is given once, others as a tuple.
        together = [v[0] if all(value == v[0] for value in v) else v for v in zip(*keys, strict=True)]
        return definition(x, *together)
    last, large = is_channels_last(x), LARGE <= x.numel() < 2**31
    matrices = [axis_matrix(definition, n, key) for n, key in zip(sides, keys, strict=True)]
    joint = prod(sides) <= TINY or (last and large and len(sides) == 2 and x.shape[1] >= WIDE)
    groups = [(0, len(sides))] if joint else [(axis, axis + 1) for axis in range(len(sides))]
    steps: list[Step] = []
    for first, end in groups:
        part = (definition, sides[first:end], tuple(keys[first:end]))
        inner = prod(sides[end:]) * (x.shape[1] if last else 1)
        if large and inner >= WIDE:
            product: Product = partial(_SparseProduct.apply, part, False)
        else:
            product = dense(_joint_matrix(*part, x.dtype))
        steps.append((first, end, [len(matrix) for matrix in matrices[first:end]], product))
    return apply_steps(x, steps)


Part = tuple[Definition, tuple[int, ...], tuple[Key, ...]]


@lru_cache(maxsize=16)  # few: a list may be twice as large as its maps
@_constants()
def _lists(dtype: torch.dtype, maps: int, part: Part, transpose: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The rows to read for so many maps, one sum after the other, where the sums begin, and the weights."""
    definition, sides, keys = part
    row = column = torch.zeros(1, dtype=torch.long)
    value, rows, columns = torch.ones(1, dtype=torch.float64), 1, 1
    for n, key in zip(sides, keys, strict=True):  # the Kronecker product of the axes, without its zeros
        matrix = axis_matrix(definition, n, key)
        i, j = matrix.nonzero(as_tuple=True)
        row, column = ((row[:, None] * len(matrix) + i).flatten(), (column[:, None] * n + j).flatten())
        value, rows, columns = (value[:, None] * matrix[i, j]).flatten(), rows * len(matrix), columns * n
    if transpose:
        row, column, rows, columns = column, row, columns, rows
    row, order = row.sort(stable=True)
    read = torch.arange(maps)[:, None] * columns + column[order]
    ends = torch.bincount(row, minlength=rows).repeat(maps).cumsum(0)
    return read.flatten().int(), F.pad(ends, (1, 0)).int(), value[order].to(dtype).repeat(maps)


class _SparseProduct(torch.autograd.Function):
    """A sparse matrix times maps (maps, n, inner): every line of the result is a weighted sum of a few lines.

    The sums are those of an embedding bag, whose kernel takes the numbers of the lines: what lies beyond a border is
    only another number, so nothing is padded. Linear: its gradient is the product with the transpose, and so on.
    """

    @staticmethod
    def forward(ctx: Any, part: Part, transpose: bool, x: Tensor) -> Tensor:
        ctx.part, ctx.transpose = part, transpose
        maps, n, inner = x.shape
        read, begins, weights = _lists(x.dtype, maps, part, transpose)
        lines = x.reshape(maps * n, inner)
        y = F.embedding_bag(read, lines, begins, mode="sum", per_sample_weights=weights, include_last_offset=True)
        return y.view(maps, -1, inner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _SparseProduct.apply(ctx.part, not ctx.transpose, grad)
