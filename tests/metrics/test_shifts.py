"""The four shifts against slow versions."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from aliasing.shifts import SHIFTS, draw_shifts, shift_images
from tests.toys import noise

MOVES = torch.tensor([[0, 0], [3, -2], [-5, 1], [11, 16]])
BY_HAND = {
    "circular": lambda image, move: np.roll(image, move, (1, 2)),
    "standard": lambda image, move: ndimage.shift(image, (0, *move), order=0, mode="constant", cval=0),
    "crop": lambda image, move: image[:, 5 - move[0] : 7 - move[0], 5 - move[1] : 12 - move[1]],
}


@pytest.mark.parametrize("shift", BY_HAND)
def test_whole_pixels_by_hand(shift):
    moves = MOVES[: 3 if shift == "crop" else 4]
    images = noise(len(moves), 3, 12, 17)
    shifted = shift_images(images, moves, shift, max_shift=5)
    assert shifted.is_contiguous()  # as networks that ask for views of their maps need them
    for image, move, ours in zip(images.numpy(), moves.tolist(), shifted, strict=True):
        np.testing.assert_array_equal(ours, BY_HAND[shift](image, move))


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (16, 16)])
def test_sub_pixel_moves_waves_exactly(size):
    rows, columns = (torch.arange(side, dtype=torch.float64) / side for side in size)
    shifts = torch.tensor([[0.25, -1.5], [2.0, 0.0]], dtype=torch.float64)

    def wave(down, right):
        return torch.cos(2 * torch.pi * (2 * (rows - down / size[0])[:, None] - 3 * (columns - right / size[1]) + 0.1))

    images = wave(0, 0).expand(2, 3, *size)
    expected = torch.stack([wave(*shift) for shift in shifts.tolist()])[:, None].expand(2, 3, *size)
    torch.testing.assert_close(shift_images(images, shifts, "sub-pixel"), expected)


def test_sub_pixel_shifts_by_whole_pixels_are_rolls():
    images = noise(4, 3, 16, 15)
    expected = shift_images(images, MOVES, "circular")
    torch.testing.assert_close(shift_images(images, MOVES.double(), "sub-pixel"), expected)


@pytest.mark.parametrize("shift", SHIFTS)
def test_draws_cover_the_range_and_depend_on_the_seed_alone(shift):
    images, before = torch.zeros(3000, 3, 8, 8), torch.get_rng_state()
    # A prefix of the images gets the same shifts: draws are in image order.
    drawn, few = (draw_shifts(shift, own, 2, 2, torch.Generator().manual_seed(5)) for own in (images, images[:10]))
    assert torch.equal(before, torch.get_rng_state())
    assert drawn.shape == (2, 3000, 2) and torch.equal(drawn[:, :10], few)
    assert not torch.equal(drawn[0], drawn[1])
    values = drawn.flatten().double()
    if shift == "sub-pixel":
        assert values.abs().max() <= 2
        np.testing.assert_allclose(values.std(), 4 / 12**0.5, rtol=0.03)
    else:
        counts = torch.bincount(values.long() + 2, minlength=5)
        assert len(counts) == 5
        np.testing.assert_allclose(counts, len(values) / 5, rtol=0.1)
