"""Bands of images and kernels, against cases known by hand."""

import math

import pytest
import torch
from torch import nn

from aliasing.errors import UsageError
from aliasing.layers import Blur
from aliasing.metrics.kernels import band_accuracy, low_pass, remove_band, stop_band, stop_bands


def wave(period: int, size: int = 32) -> torch.Tensor:
    return 0.5 + 0.4 * torch.cos(2 * math.pi * torch.arange(size) / period).expand(1, 3, size, size)


def test_a_wave_is_removed_with_its_own_band_and_no_other():
    image = wave(4)  # 0.25 cycles per pixel, band 5 of 16
    for band in range(16):
        expected = torch.full_like(image, 0.5) if band == int(0.25 * 16 / math.sqrt(0.5)) else image
        torch.testing.assert_close(remove_band(image, band, 16), expected)
    with pytest.raises(UsageError, match="band"):
        remove_band(image, 16, 16)


def test_accuracy_falls_where_the_network_looks():
    class FindsStripes(nn.Module):
        def forward(self, x):
            strength = x.std((1, 2, 3))
            return torch.stack([0.1 - strength, strength - 0.1], 1)

    images, labels = torch.cat([wave(4)] * 5), torch.ones(5, dtype=torch.long)
    found = [estimate.value for estimate in band_accuracy(FindsStripes(), images, labels)]
    assert found == [float(band != 5) for band in range(16)]


def test_stop_band_of_a_tap_a_binomial_and_its_complement():
    tap = torch.zeros(4, 2, 3, 3)
    tap[:, :, 1, 1] = 1
    assert stop_band(tap) == pytest.approx(0.75)
    assert stop_band(torch.ones(3, 5, 1, 1)) == pytest.approx(0.75)
    line = torch.tensor([1.0, 2, 1])
    # One axis keeps 1 - 0.0756 of white power below pi/2 (share of alias of [1 2 1] by hand), two axes its square.
    inside = (3 * math.pi + 8) / (6 * math.pi)  # integral of cos(w/2)^4 over 0..pi/2 over that over 0..pi
    assert stop_band((line[:, None] * line)[None, None]) == pytest.approx(1 - inside**2, abs=1e-3)


def test_stop_bands_see_convolutions_and_trained_blurs_only():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Blur(4, taps=3), Blur(4, taps=3, trainable=True), nn.BatchNorm2d(4))
    assert list(stop_bands(model)) == ["0", "2"]
    assert stop_bands(model)["0"] == pytest.approx(0.75)


def test_least_squares_low_pass_agrees_with_a_solver():
    omega = (torch.arange(4000, dtype=torch.float64) + 0.5) * math.pi / 4000
    ideal = (omega < math.pi / 2).double()
    for taps in (1, 3, 5, 7):
        basis = torch.cos(omega[:, None] * torch.arange(taps // 2 + 1))
        solution = torch.linalg.lstsq(basis, ideal[:, None]).solution[:, 0]
        kernel, error = low_pass(taps)
        torch.testing.assert_close(kernel[taps // 2 :][1:], solution[1:] / 2, atol=1e-6, rtol=0)
        assert kernel[taps // 2] == pytest.approx(solution[0].item(), abs=1e-6)
        assert error == pytest.approx((basis @ solution - ideal).square().mean().item(), abs=1e-6)
    with pytest.raises(UsageError, match="odd"):
        low_pass(4)
