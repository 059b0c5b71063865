"""A padded separable filter without the padded copy: the convolution that pads with zeros, corrected at the borders.

With ``A`` the matrix of one axis under the wanted padding, ``Z`` under zeros and ``E = A - Z``, which has a few entries
at both ends, ``A_h X A_w^T = Z_h X Z_w^T + E_h X A_w^T + Z_h X E_w^T``. The first term is a depthwise convolution, the
others touch a few rows and columns.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Axis", "filter_bordered"]


class Axis(NamedTuple):
    """One axis of the filter: matrices (out, in) under the wanted padding and zeros, and where they differ."""

    padded: Tensor
    zeros: Tensor
    edges: tuple[tuple[int, int, float], ...]  # (row, column, difference)

    def transposed(self) -> "Axis":
        """The axis of the gradient."""
        return Axis(self.padded.t(), self.zeros.t(), tuple((column, row, tap) for row, column, tap in self.edges))


class _Bordered(torch.autograd.Function):
    """Written out because automatic gradients of slices fill a whole map for every slice.

    The filter is linear: its gradient is its transpose, whose gradient is the filter.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, rows: Axis, columns: Axis, transpose: bool) -> Tensor:
        return _apply(x, weight, stride, rows, columns, transpose)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, weight, stride, rows, columns, ctx.transpose = inputs
        ctx.filter = (weight, stride, rows, columns)

    @staticmethod
    def backward(ctx, grad):
        return _Bordered.apply(grad, *ctx.filter, not ctx.transpose), None, None, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        weight, stride, rows, columns = ctx.filter
        return _apply(tangent, weight, stride, rows, columns, ctx.transpose)


def _apply(x: Tensor, weight: Tensor, stride: int, rows: Axis, columns: Axis, transpose: bool) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    padding, channels = weight.shape[-1] // 2, len(weight)
    if transpose:
        # What the last window leaves over of each axis.
        over = [axis.zeros.shape[1] - (axis.zeros.shape[0] - 1) * stride - 1 for axis in (rows, columns)]
        y = F.conv_transpose2d(x, weight, None, stride, padding, over, channels)
        rows, columns = rows.transposed(), columns.transposed()
    else:
        y = F.conv2d(x, weight, None, stride, padding, 1, channels)
    to, of = y.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)
    _correct(to, of, 1, rows.edges, columns.padded)
    _correct(to, of, 2, columns.edges, rows.zeros)
    return y


def _correct(y: Tensor, x: Tensor, axis: int, edges: tuple[tuple[int, int, float], ...], along: Tensor) -> None:
    """Add to lines of ``y`` across ``axis`` what lines of ``x``, filtered by ``along``, have to do with them."""
    lines = {
        line: torch.bmm(along.expand(len(x), -1, -1), x.select(axis, line))
        for line in sorted({line for _, line, _ in edges})
    }
    for target, line, tap in edges:
        y.select(axis, target).add_(lines[line], alpha=tap)


def filter_bordered(x: Tensor, weight: Tensor, stride: int, rows: Axis, columns: Axis) -> Tensor:
    """Filter both axes of (N, C, H, W) in channels_last with ``weight`` (C, 1, m, m), m odd, and subsample."""
    return _Bordered.apply(x, weight, stride, rows, columns, False)
