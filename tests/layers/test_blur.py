"""Blur and max pooling against NumPy's padding and correlation in float64, and answers known by hand."""

from itertools import product
from math import comb

import pytest
import torch

from aliasing.layers.blur import Blur, Max
from tests.layers.cases import FORMATS, MODES, check, filtered, noise

SHAPES = [(1, 1), (1, 5), (2, 1), (2, 2), (2, 3), (3, 7), (5, 4), (8, 8), (9, 2), (6, 17), (13, 10), (31, 3), (64, 5)]


@pytest.mark.parametrize("taps", [1, 2, 3, 5, 6, 11, (0.5, -1, 2), (-2,)])
def test_equals_correlations_of_padded_lines(taps):
    line = taps if isinstance(taps, tuple) else [comb(taps - 1, i) / 2 ** (taps - 1) for i in range(taps)]
    for number, (shape, stride) in enumerate(product(SHAPES, (1, 2, 3, 4))):
        mode, x = MODES[number % 4], noise(2, 3, *shape, seed=number)
        expected = filtered(x[1, 2].numpy(), line, stride, mode)
        for trainable, memory_format in product((False, True), FORMATS):
            layer = Blur(3, stride, mode, taps=taps, trainable=trainable).double()
            check(layer, x.contiguous(memory_format=memory_format), expected, (1, 2))
            assert [p.shape for p in layer.parameters()] == [(3, 1, len(line), len(line))] * trainable


def test_max_is_the_maximum_of_clipped_windows():
    for shape, stride in product(SHAPES, (1, 2, 3, 4)):
        x = noise(2, 2, *shape)
        h, w = -(-shape[0] // stride), -(-shape[1] // stride)
        expected = [
            [x[1, 0, stride * i : stride * (i + 1), stride * j : stride * (j + 1)].max().item() for j in range(w)]
            for i in range(h)
        ]
        assert Max(2, stride)(x)[1, 0].tolist() == expected


@pytest.mark.parametrize(("control", "value", "slope"), [("forward", 5, 1), ("backward", 1, 5)])
def test_controls_take_the_value_of_one_layer_and_the_gradient_of_another(control, value, slope):
    x, signal = noise(2, 3, 9, 8), noise(2, 3, 5, 4, seed=1)

    def result(layer):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        y.backward(signal)
        return y, leaf.grad

    y, gradient = result(Blur(3, taps=5, control=control))
    torch.testing.assert_close(y, result(Blur(3, taps=value))[0])
    torch.testing.assert_close(gradient, result(Blur(3, taps=slope))[1])


def test_the_late_control_keeps_the_alias():
    # The highest frequency becomes a constant when every second value is kept; no later filter can tell.
    x = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert torch.equal(Blur(1, 2, "circular", taps=3)(x), torch.zeros(1, 1, 8, 8))
    assert torch.equal(Blur(1, 2, "circular", taps=3, control="late")(x), torch.ones(1, 1, 8, 8))


def test_random_signs_reach_as_far_as_the_filter_and_remove_no_alias_on_average():
    plain, layer = Blur(500, 1, "circular", taps=3), Blur(500, 1, "circular", taps=3, control="signs")
    impulse = torch.zeros(1, 500, 9, 9)
    impulse[:, :, 4, 4] = 1
    filtered, drawn = plain(impulse), layer(impulse)
    share = drawn.abs() / filtered.clamp_min(1e-9)  # the taps' sizes are those of the filter, up to one factor
    assert torch.equal(drawn != 0, filtered != 0) and share[filtered != 0].std() < 1e-5
    torch.testing.assert_close(drawn.square().sum((2, 3)), torch.ones(1, 500))
    below = torch.fft.fftfreq(64).abs()
    inside = (below < 0.25).float() + 0.5 * (below == 0.25).float()
    power = torch.fft.fft2(drawn[0], s=(64, 64)).abs().square().mean(0)
    assert ((inside[:, None] * inside) * power).sum() / power.sum() == pytest.approx(0.25, abs=0.02)  # white
    assert torch.equal(layer(impulse)[..., ::2, ::2], Blur(500, 2, "circular", taps=3, control="signs")(impulse))
