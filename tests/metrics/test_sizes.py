"""Pairs of pictures at a chosen size: one pixel apart, cut out or embedded."""

import pytest
import torch

from aliasing.errors import UsageError
from aliasing.metrics.pixel_pairs import SIZES, size_pairs


def pictures(n=6, height=32, width=32):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) + 0.1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (24, 16)])
def test_pairs_are_one_diagonal_pixel_apart(size, shape):
    first, second = size_pairs(pictures(4, *shape), size)
    assert first.shape == second.shape == (4, 3, *shape)
    if size > 1:
        assert torch.equal(first[:, :, :-1, :-1], second[:, :, 1:, 1:])
    else:
        assert torch.equal(first[:, :, 1:, 1:], second[:, :, :-1, :-1])


def test_an_embedded_picture_has_the_size_it_should_and_lies_near_the_middle():
    first, _ = size_pairs(pictures(), 1.6)
    for image in first:
        rows, columns = ((image > 0).any(0).any(axis).nonzero().flatten() for axis in (1, 0))
        for inside in (rows, columns):
            assert inside.max() - inside.min() + 1 == 20  # 32 / 1.6
            assert abs((inside.min() + inside.max()) / 2 - 15.5) <= 2


def test_the_whole_picture_is_one_pixel_larger_than_the_window():
    images = torch.arange(32.0)[None, None, None, :].expand(2, 3, 32, 32) / 32
    first, second = size_pairs(images, 1.0)
    step = (second - first)[:, :, :, 8:24]
    assert torch.allclose(step, torch.full_like(step, 1 / 33), atol=1e-3)  # 32 pixels stretched over 33


def test_positions_come_from_the_generator():
    images = pictures(16)
    same, again = (size_pairs(images, 0.4, torch.Generator().manual_seed(3))[0] for _ in range(2))
    other = size_pairs(images, 0.4, torch.Generator().manual_seed(4))[0]
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


@pytest.mark.parametrize("size", [0, -1.0, 100.0])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UsageError, match="size must be"):
        size_pairs(pictures(), size)
