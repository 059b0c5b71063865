"""Small operations on modules of others: a layer before or after them, padding made explicit, pools replaced."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.base import Downsample

__all__ = ["Instead", "Link", "complete", "fix_same", "keeps_size", "pair", "place_after", "place_before", "stride_of"]


class Instead(nn.Module):
    """The layer in place of a pool: sampled around the centres of its windows, with the pool's output size."""

    def __init__(self, pool: nn.Module, layer: Downsample) -> None:
        super().__init__()
        self.down = layer
        self.kernel, self.padding = pair(pool.kernel_size), pair(pool.padding)
        self.dilation, self.ceil_mode = pair(getattr(pool, "dilation", 1)), bool(pool.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        """Filter and subsample."""
        stride = self.down.stride
        for axis in (0, 1):
            kernel = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            n, padding = x.shape[2 + axis], self.padding[axis]
            out = pooled_length(n, kernel, stride, padding, self.ceil_mode)
            start = max(0, (kernel - 1) // 2 - padding)
            # The layer returns ceil(length / stride); lengths that give `out` are (out - 1) stride + 1 to out stride.
            length = min(max(n - start, (out - 1) * stride + 1), out * stride)
            index = torch.arange(start, start + length, device=x.device).clamp(max=n - 1)
            if length != n:
                x = x.index_select(2 + axis, index)
        return self.down(x)


class Link:
    """Hands the choice of a polyphase layer on to layers of other branches, once to each in a forward pass."""

    def __init__(self, leader: Downsample, followers: Sequence[Downsample]) -> None:
        self.readers = len(followers)
        self.waiting = 0
        self.choice: Tensor | None = None
        leader.register_forward_pre_hook(self._choose)
        for follower in followers:
            follower.register_forward_pre_hook(self._follow)

    def _choose(self, leader: Downsample, inputs: tuple) -> tuple:
        self.choice, self.waiting = leader.choose(inputs[0]), self.readers
        return inputs[0], self.choice

    def _follow(self, follower: Downsample, inputs: tuple) -> tuple:
        choice = self.choice
        if choice is None:
            raise UsageError("a branch samples the grid another one chooses, which has not run: call the whole network")
        self.waiting -= 1
        if not self.waiting:  # what the choice was computed from may go
            self.choice = None
        return inputs[0], choice


def place_after(target: nn.Module, layer: Downsample) -> None:
    """Apply ``layer`` to the output of ``target``."""
    target.down = layer
    target.register_forward_hook(_apply_after)


def place_before(target: nn.Module, layer: Downsample) -> None:
    """Apply ``layer`` to the input of ``target``."""
    target.down_before = layer
    target.register_forward_pre_hook(_apply_before, prepend=True)  # before what pads for the target itself


def _apply_after(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return module.down(output)  # type: ignore[operator]


def _apply_before(module: nn.Module, inputs: tuple) -> tuple:
    return (module.down_before(inputs[0]), *inputs[1:])  # type: ignore[operator]


def fix_same(part: nn.Module, value: float) -> None:
    """Pad as for the stride the module had: left to itself it would pad for stride 1, and move the sampling grid."""
    part.register_forward_pre_hook(partial(_pad_same, stride=stride_of(part)[0], value=value))
    part.__class__ = nn.Conv2d if isinstance(part, nn.Conv2d) else nn.MaxPool2d
    part.padding = (0, 0)  # type: ignore[assignment]


def _pad_same(part: nn.Module, inputs: tuple, stride: int, value: float) -> tuple:
    """Pad as TensorFlow does: ceil(n / stride) windows, the odd pixel at the right and bottom."""
    (x,) = inputs
    amounts = []
    for axis in (1, 0):
        kernel = pair(part.dilation)[axis] * (pair(part.kernel_size)[axis] - 1) + 1
        n = x.shape[2 + axis]
        total = max(0, (-(-n // stride) - 1) * stride + kernel - n)
        amounts += [total // 2, total - total // 2]
    return (F.pad(x, amounts, value=value),)


def complete(pool: nn.MaxPool2d, inputs: tuple, stride: int) -> tuple:
    """Extend the map at the right and bottom as far as a ``ceil_mode`` pool would reach."""
    (x,) = inputs
    extra = []
    for axis in (1, 0):
        kernel = pair(pool.dilation)[axis] * (pair(pool.kernel_size)[axis] - 1) + 1
        n, padding = x.shape[2 + axis], pair(pool.padding)[axis]
        dense = n + 2 * padding - kernel + 1
        extra += [0, max(0, (pooled_length(n, kernel, stride, padding, True) - 1) * stride + 1 - dense)]
    return (F.pad(x, extra, value=float("-inf")) if any(extra) else x,)


def pooled_length(n: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Output length of a pool; in ``ceil_mode`` no window may start beyond the map."""
    free = n + 2 * padding - kernel
    if not ceil_mode:
        return free // stride + 1
    out = -(-free // stride) + 1
    return out - 1 if (out - 1) * stride >= n + padding else out


def pair(value: Any) -> tuple[int, int]:
    """A value per axis."""
    return (value, value) if isinstance(value, int) else tuple(value)


def stride_of(part: nn.Module) -> tuple[int, int]:
    """The stride of a convolution or pool, (1, 1) of anything else."""
    if isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return pair(part.stride)
    return (1, 1)


def keeps_size(conv: nn.Conv2d) -> bool:
    """Whether at stride 1 the output is as large as the input."""
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return [2 * p for p in conv.padding] == reach
