"""Alias energy, bands, responses and total variation: waves and kernels whose answer is known."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from aliasing import layers, metrics
from aliasing.errors import UsageError
from aliasing.layers import Blur
from aliasing.metrics.kernels import band_accuracy, low_pass, remove_band, stop_band, stop_bands
from aliasing.metrics.spectra import aliasable, ideal, radial_spectrum
from tests.toys import Answer, noise


def waves_per_map(n):
    """Of each bin of a Fourier transform, without its sign."""
    return np.minimum(np.arange(n), n - np.arange(n))


def test_aliasable_energy_is_that_of_the_power_spectrum():
    x = noise(2, 3, 12, 10)
    power = (np.abs(np.fft.fft2(x.numpy())) ** 2).sum(1)
    power[:, 0, 0] = 0
    beyond = (waves_per_map(12)[:, None] > 12 / 4) | (waves_per_map(10) > 10 / 4)
    np.testing.assert_allclose(aliasable(x, (2, 2)), power[:, beyond].sum(1) / power.sum((1, 2)))
    assert aliasable(torch.full((1, 2, 8, 8), 0.3), (2, 2)).item() == 0


@pytest.mark.parametrize(
    ("size", "strides"), [((6, 8), (2, 2)), ((9, 7), (2, 2)), ((8, 10), (3, 3)), ((5, 12), (4, 1))]
)
def test_ideal_equals_sums_over_the_kept_frequencies(size, strides):
    operators = []
    for n, stride in zip(size, strides, strict=True):
        kept = -(-n // stride)
        f = np.arange(-(kept // 2), (kept + 1) // 2)
        analysis = np.exp(-2j * np.pi * np.outer(f, np.arange(n)) / n) / n
        operators.append(np.exp(2j * np.pi * np.outer(np.arange(kept), f) / kept) @ analysis)
    x = noise(1, 1, *size)
    expected = operators[0] @ x[0, 0].numpy() @ operators[1].T
    np.testing.assert_allclose(ideal(x, strides)[0, 0], expected.real, atol=1e-12)


def test_alias_error_of_stripes_by_hand():
    """Columns of 0.75 and 0.25 in turn: subsampling returns 0.75, where one half is all that the grid can hold."""
    images = (0.5 + 0.25 * (-1.0) ** torch.arange(16)).expand(2, 3, 16, 16).double()
    for name, expected in (("subsample", 0.5), ("flc", 0), ("rect-2", 0)):
        model = nn.Sequential(layers.create(name, 3, padding_mode="circular"))
        assert metrics.alias_error(model, images)["0"].value == pytest.approx(expected, abs=1e-12)
        assert metrics.alias_energy(model, images)["0"].value == pytest.approx(1)
    assert metrics.alias_error(layers.create("max", 3), torch.zeros(2, 3, 8, 8))[""].value == 0


def test_radial_spectrum_is_a_mean_over_annuli():
    x = noise(2, 3, 12, 10)
    power = np.abs(np.fft.fft2(x.numpy(), norm="ortho")) ** 2
    radius = np.hypot((waves_per_map(12) / 12)[:, None], waves_per_map(10) / 10)
    ends = np.arange(6) / 10 + 1e-12  # the outer edge of an annulus belongs to it
    annuli = [(low < radius) & (radius <= high) for low, high in pairwise(ends)]
    frequency, mean = metrics.radial_spectrum(x)
    np.testing.assert_allclose(frequency, [0.05, 0.15, 0.25, 0.35, 0.45])
    np.testing.assert_allclose(mean, [np.log(power[:, :, annulus]).mean() for annulus in annuli])


@pytest.mark.parametrize(
    ("name", "options", "overshoot", "passed"),
    # Overshoot and mean energy above the cut of on-bin cosines at N = 64, computed beforehand from the 1-D operators.
    [
        *(("subsample", {}, 0, 1), ("tri-3", {}, 0, 5e-2), ("bin-5", {}, 0, 7e-3), ("bin-7", {}, 0, 1e-3)),
        *(("flc", {}, 0.069, 0), ("asap", {"variant": "none", "faithful": True}, 0.056, 0)),
        ("asap", {"variant": "kept-band"}, 0.001, 0),
    ],
)
def test_reference_table_of_the_layers(name, options, overshoot, passed):
    layer = layers.create(name, 1, padding_mode="circular", **options)
    assert metrics.step_overshoot(layer)[0] == pytest.approx(overshoot, abs=2e-3)
    curve = metrics.leakage(layer)
    assert curve.energy[curve.stopped].mean().item() == pytest.approx(passed, rel=0.1, abs=1e-12)
    if name == "flc":  # alias-free on the bins alone
        between = metrics.leakage(layer, half_bin=True)
        assert between.energy[between.stopped].mean() > 1e-2


def filtered(kernel):
    """A strided circular convolution with one 3 x 3 kernel."""
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1, padding_mode="circular", bias=False).double()
    conv.weight.data = torch.tensor(kernel, dtype=torch.float64)[None, None]
    return conv


KERNEL = [[0.1, -0.4, 0.2], [0.3, 0.8, -0.5], [0.0, 0.25, 0.6]]


def test_frequency_response_is_the_transform_of_the_taps():
    ours = metrics.frequency_response(filtered(KERNEL), size=8)
    np.testing.assert_allclose(ours, np.abs(np.fft.fft2(KERNEL, (8, 8))), rtol=1e-6)


@pytest.mark.parametrize("half_bin", [False, True])
def test_leakage_equals_a_loop(half_bin):
    curve = metrics.leakage(filtered(KERNEL), size=12, half_bin=half_bin, phases=3)
    row = [sum(KERNEL[a][b] for a in range(3)) for b in range(3)]  # the waves are alike in every row
    for index, energy in enumerate(curve.energy.tolist()):
        frequency, ratios = (index + 1 + 0.5 * half_bin) / 12, []
        for phase in range(3):
            wave = [np.cos(2 * np.pi * frequency * i + np.pi * phase / 3) for i in range(12)]
            kept = [sum(row[b] * wave[(i + b - 1) % 12] for b in range(3)) for i in range(0, 12, 2)]
            ratios.append((np.mean(np.square(kept)), np.mean(np.square(wave))))
        # The mean square of a wave between the bins depends on its phase: each has its own ratio.
        assert energy == pytest.approx(np.mean([top / bottom for top, bottom in ratios]))
        assert curve.frequency[index].item() == pytest.approx(frequency)
        assert curve.stopped[index].item() == (frequency > 0.25)


def test_a_layer_is_looked_at_with_the_stride_it_has():
    cases = [(layers.create("flc", 1, 4), 4), (layers.create("tri-3", 1, (1, 3)), 3)]
    cases += [(nn.Sequential(nn.AvgPool2d(3)), 3)]
    for layer, stride in cases:
        curve = metrics.leakage(layer, size=24)
        assert curve.stopped.equal(curve.frequency > 1 / (2 * stride))
        with pytest.raises(UsageError, match=f"a multiple of the stride {stride}, got 22"):
            metrics.frequency_response(layer, size=22)


def test_overshoot_of_a_sharpening_kernel_by_hand():
    """Taps -0.5, 2, -0.5: 2 - 0.5 on the bright side of an edge, -0.5 on the dark one, at one phase or the other."""
    sharpen = filtered([[0, 0, 0], [-0.5, 2, -0.5], [0, 0, 0]])
    assert metrics.step_overshoot(sharpen, size=16) == pytest.approx((0.5, 0.5))
    upright = filtered([[0, -0.5, 0], [0, 2, 0], [0, -0.5, 0]])  # sees the edge of the map alone
    upright.padding_mode = "zeros"
    assert [metrics.step_overshoot(upright, 16, border) for border in (True, False)] == [(0.5, 0), (0, 0)]


def test_total_variation_lists_convolutions_with_neighbours():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 5))
    assert list(metrics.total_variation(model)) == ["0", "2"]
    weight = model[2].weight.detach().numpy().astype(float)
    slow = sum(abs(np.diff(weight, axis=axis)).sum() for axis in (2, 3))
    assert metrics.total_variation(model)["2"] == pytest.approx(slow / abs(weight).sum())


def stripes(period, size=32):
    return 0.5 + 0.4 * torch.cos(2 * math.pi * torch.arange(size) / period).expand(1, 3, size, size)


def test_a_wave_is_removed_with_its_own_band_and_no_other():
    image = stripes(4)  # 0.25 cycles per pixel, band 5 of 16
    for band in range(16):
        expected = torch.full_like(image, 0.5) if band == int(0.25 * 16 / math.sqrt(0.5)) else image
        torch.testing.assert_close(remove_band(image, band, 16), expected)


def test_accuracy_falls_where_the_network_looks():
    finds_stripes = Answer(lambda x: (x.std((1, 2, 3))[:, None] - 0.1) * torch.tensor([-1, 1]))
    images, labels = torch.cat([stripes(4)] * 5), torch.ones(5, dtype=torch.long)
    found = [estimate.value for estimate in band_accuracy(finds_stripes, images, labels)]
    assert found == [float(band != 5) for band in range(16)]


def test_the_power_of_all_kernels_is_the_mean_of_their_own():
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    power = torch.fft.fft2(weight, s=(64, 64)).abs().square().mean((0, 1))
    rows = torch.fft.fftfreq(64).abs()
    share = (rows < 0.25) + 0.5 * (rows == 0.25)
    expected = 1 - (share[:, None] * share * power).sum() / power.sum()
    assert stop_band(weight) == pytest.approx(expected.item(), abs=1e-12)


def test_the_kernel_of_a_dilated_convolution_has_zeros_between_its_taps():
    dilated = nn.Conv2d(2, 3, 3, dilation=(2, 1))
    weight = torch.zeros(3, 2, 5, 3)
    weight[:, :, ::2] = dilated.weight.detach()
    assert stop_bands(nn.Sequential(dilated))["0"] == pytest.approx(stop_band(weight))
    assert stop_band(weight) != pytest.approx(stop_band(dilated.weight), abs=1e-3)
    dilated.dilation = (65, 1)  # at frequencies of 1/64 a pixel more is a whole turn
    assert stop_bands(nn.Sequential(dilated))["0"] == stop_band(dilated.weight)


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


@pytest.mark.parametrize("name", ["ddac", "tips"])
def test_a_new_layer_is_looked_at_in_evaluation_mode_and_left_as_it_was(name):
    layer = layers.create(name, 1)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    metrics.frequency_response(layer, size=8)
    assert layer.training and all(value.equal(before[key]) for key, value in layer.state_dict().items())


def test_long_maps_whose_channels_are_last():
    """They crashed the process: the transform of such a map wrote beyond its memory."""
    x = torch.randn(1, 4, 8, 2000)
    last = x.contiguous(memory_format=torch.channels_last)
    for function in (lambda z: aliasable(z, (2, 2)), lambda z: ideal(z, (2, 2)), lambda z: radial_spectrum(z)[1]):
        assert torch.equal(function(last), function(x))
