"""Sparse matrices times maps: every row of the result is a weighted sum of a few rows of the map, read where they lie.

A row is a line of pixels, or in channels_last the channels of one pixel. The sums are those of an embedding bag, whose
kernel takes the numbers of the rows: what lies beyond a border is only another number, so nothing is padded.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Entries", "sparse_product"]


class Entries(NamedTuple):
    """A sparse matrix: where its entries are, what they are (entries at the same place add up), and its size."""

    row: Tensor
    column: Tensor
    value: Tensor
    size: tuple[int, int]

    def kron(self, other: "Entries") -> "Entries":
        """The Kronecker product: this matrix along the first axis of a map, ``other`` along the second."""
        (h, height), (w, width) = self.size, other.size
        row = self.row[:, None] * w + other.row
        column = self.column[:, None] * width + other.column
        value = self.value[:, None] * other.value
        return Entries(row.flatten(), column.flatten(), value.flatten(), (h * w, height * width))

    def dense(self) -> Tensor:
        """The matrix with its zeros."""
        matrix = torch.zeros(self.size, dtype=self.value.dtype, device=self.value.device)
        return matrix.index_put((self.row, self.column), self.value, accumulate=True)

    def transposed(self) -> "Entries":
        """The matrix of the gradient."""
        return Entries(self.column, self.row, self.value, self.size[::-1])


Build = Callable[..., Entries]


@lru_cache(maxsize=16)  # few: a list may be twice as large as its maps
def _bags(
    dtype: torch.dtype, maps: int, build: Build, key: tuple[object, ...], transpose: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows to read for so many maps, one sum after the other, where the sums begin, and the weights."""
    # Never inference tensors, which a later training step could not use.
    with torch.inference_mode(False), torch.no_grad():
        entries = build(*key)
        row, column, value, (out, rows) = entries.transposed() if transpose else entries
        row, order = row.sort(stable=True)
        read = torch.arange(maps)[:, None] * rows + column[order]
        ends = torch.bincount(row, minlength=out).repeat(maps).cumsum(0)
        return read.flatten().int(), F.pad(ends, (1, 0)).int(), value[order].to(dtype).repeat(maps)


class _SparseProduct(torch.autograd.Function):
    """Linear: its gradient is the product with the transpose, whose gradient is the product."""

    @staticmethod
    def forward(x: Tensor, build: Build, key: tuple[object, ...], transpose: bool) -> Tensor:
        maps, rows, width = x.shape
        read, begins, weights = _bags(x.dtype, maps, build, key, transpose)
        table = x.reshape(maps * rows, width)
        y = F.embedding_bag(read, table, begins, mode="sum", per_sample_weights=weights, include_last_offset=True)
        return y.view(maps, -1, width)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, *ctx.matrix, ctx.transpose = inputs

    @staticmethod
    def backward(ctx, grad):
        return _SparseProduct.apply(grad, *ctx.matrix, not ctx.transpose), None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _SparseProduct.apply(tangent, *ctx.matrix, ctx.transpose)

    @staticmethod
    def vmap(info, in_dims, x, *matrix):
        x = x.movedim(in_dims[0], 0)
        return _SparseProduct.apply(x.flatten(0, 1), *matrix).unflatten(0, x.shape[:2]), 0


def sparse_product(x: Tensor, build: Build, *key: object) -> Tensor:
    """``build(*key) @ map`` for every map: (maps, rows, width) -> (maps, rows of the matrix, width), on the CPU.

    The lists of what is read are kept for the last few matrices and numbers of maps.
    """
    return _SparseProduct.apply(x, build, key, False)
