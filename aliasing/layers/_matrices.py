"""Linear maps along one axis as small dense matrices: built once per length, applied as matrix products."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor, nn

from .base import PaddingMode

__all__ = [
    "definitions",
    "full_precision",
    "is_channels_last",
    "kept",
    "kronecker",
    "memory_format",
    "pad_index",
    "plain",
    "separable",
]


def pad_index(
    length: int, before: int, after: int, padding_mode: PaddingMode, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Which pixel each padded position reads, and whether it reads one at all; both of shape (before+length+after,).

    Any amount of padding works on any length: mirrors are mirrored again, circles go round again.
    """
    position = torch.arange(-before, length + after, device=device)
    inside = torch.ones_like(position, dtype=torch.bool)
    if padding_mode == "circular":
        return position % length, inside
    if padding_mode == "reflect":
        period = max(2 * length - 2, 1)
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


def plain(x: Tensor) -> bool:
    """Whether ``x`` is a tensor of numbers, not a stand-in a compiler or an exporter traces with."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not (traced or _defined.get()) and type(x) in (Tensor, nn.Parameter)


def kept(build: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """Keep what ``build(*key, device)`` returned for each key, in the dtype and on the device of the map ``x``.

    The result is a function of ``(x, *key)``. While ``x`` is traced nothing is kept: the few operations that build
    the matrices become part of the graph, where their sizes may be symbols.
    """

    @lru_cache(maxsize=256)
    def remember(device: torch.device, dtype: torch.dtype, *key: object) -> tuple[Tensor, ...]:
        # Never inference tensors, which a later training step could not use.
        with torch.inference_mode(False), torch.no_grad():
            return tuple(t.to(device, dtype).contiguous() for t in build(*key, torch.device("cpu")))

    def get(x: Tensor, *key: object) -> tuple[Tensor, ...]:
        if plain(x):
            return remember(x.device, x.dtype, *key)
        device = torch.device("cpu") if x.device.type == "mps" else x.device  # mps has no float64
        return tuple(t.to(x.device, x.dtype) for t in build(*key, device))

    return get


def full_precision(function: Callable[[Tensor], Tensor], x: Tensor, least: torch.dtype | None = None) -> Tensor:
    """``function(x)`` without autocast, in the wider dtype of ``x`` and ``least``; its result in the dtype of ``x``."""
    wide = x if least is None else x.to(torch.promote_types(x.dtype, least))
    if not torch.is_autocast_enabled(x.device.type):
        return function(wide).to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return function(wide).to(x.dtype)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is stored channels_last and not, as maps of one channel or one pixel may be, both ways."""
    return x.is_contiguous(memory_format=torch.channels_last) and (x.numel() == 0 or not x.is_contiguous())


def memory_format(x: Tensor) -> torch.memory_format:
    """The memory format of ``x``, for what is made from it."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ x @ columns.T`` for every map: (N, C, H, W), (h, H), (w, W) -> (N, C, h, w), memory format kept."""
    n, c, height, width = x.shape
    h, w = rows.shape[0], columns.shape[0]
    if is_channels_last(x):
        flat = torch.bmm(rows.expand(n, -1, -1), x.permute(0, 2, 3, 1).reshape(n, height, width * c))
        flat = torch.bmm(columns.expand(n * h, -1, -1), flat.view(n * h, width, c))
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
    flat = torch.bmm(rows.expand(n * c, -1, -1), x.reshape(n * c, height, width))
    return (flat.view(n * c * h, width) @ columns.t()).view(n, c, h, w)


def kronecker(x: Tensor, both: Tensor, h: int, w: int) -> Tensor:
    """``both @ x.flatten()`` for every map: (N, C, H, W), (h*w, H*W) -> (N, C, h, w), memory format kept."""
    n, c, height, width = x.shape
    if is_channels_last(x):
        flat = x.permute(0, 2, 3, 1).reshape(n, height * width, c)
        return torch.bmm(both.expand(n, -1, -1), flat).view(n, h, w, c).permute(0, 3, 1, 2)
    return (x.reshape(n * c, height * width) @ both.t()).view(n, c, h, w)
