"""Blur and max pooling against loops over pixels in float64, and answers known by hand."""

from itertools import product
from math import comb

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aliasing.errors import UsageError
from aliasing.layers import _matrices, create
from aliasing.layers.blur import Blur, Max, binomial, blur, blur_definition

MODES = ("reflect", "circular", "zeros", "replicate")
SHAPES = [(1, 1), (1, 5), (2, 1), (2, 2), (2, 3), (3, 7), (5, 4), (8, 8), (9, 2), (6, 17), (13, 10), (31, 3), (64, 5)]


def look_up(line, position, mode):
    """The pixel at ``position`` of a list, mirrored, wrapped, repeated or 0 beyond it; one step at a time."""
    n = len(line)
    if mode == "zeros" and not 0 <= position < n:
        return 0.0
    while not 0 <= position < n:
        if mode == "circular":
            position += n if position < 0 else -n
        elif mode == "replicate":
            position += 1 if position < 0 else -1
        elif n == 1:
            position = 0
        else:
            position = -position if position < 0 else 2 * (n - 1) - position
    return line[position]


def filter_line(line, taps, stride, mode):
    before = (len(taps) - 1) // 2
    return [
        sum(tap * look_up(line, i - before + p, mode) for p, tap in enumerate(taps))
        for i in range(0, len(line), stride)
    ]


def oracle(x, taps, stride, mode):
    """Filter the rows, then the columns, of one map."""
    rows = np.array([filter_line(list(row), taps, stride, mode) for row in x])
    return np.array([filter_line(list(column), taps, stride, mode) for column in rows.T]).T


def random_map(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


FORMS = {  # thresholds that have the filter computed in one form, whatever the map
    "definition": {"LONG": 0},
    "dense": {"TINY": 0, "LARGE": 2**40},
    "joint": {"TINY": 2**20, "LARGE": 2**40},
    "sparse": {"TINY": 0, "LARGE": 0, "WIDE": 0},
}


def use(monkeypatch, form):
    for name, value in FORMS[form].items():
        monkeypatch.setattr(_matrices, name, value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("m", [1, 2, 3, 5, 6, 11])
def test_equals_loops_over_pixels_in_every_form_and_memory_format(m, form, monkeypatch):
    use(monkeypatch, form)
    taps = [comb(m - 1, i) / 2 ** (m - 1) for i in range(m)]
    for number, (shape, stride) in enumerate(product(SHAPES, (1, 2, 3, 4))):
        mode = MODES[number % 4]
        x = random_map(2, 3, *shape, seed=number)
        expected = oracle(x[1, 2].numpy(), taps, stride, mode)
        layer = Blur(3, stride, mode, taps=m)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            y = layer(x.contiguous(memory_format=memory_format))
            assert y.shape == (2, 3, -(-shape[0] // stride), -(-shape[1] // stride))
            np.testing.assert_allclose(y[1, 2].numpy(), expected, atol=1e-12, err_msg=f"{shape} {stride} {mode}")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("m", "stride", "mode"), [(2, 2, "reflect"), (5, 1, "circular"), (3, 4, "zeros")])
def test_derivatives_of_the_sparse_form(m, stride, mode, memory_format, monkeypatch):
    use(monkeypatch, "sparse")
    layer = Blur(2, stride, mode, taps=m)
    for shape in ((5, 8), (1, 3)):
        x = random_map(1, 2, *shape).contiguous(memory_format=memory_format).requires_grad_()
        assert torch.autograd.gradcheck(layer, x, fast_mode=True)
        assert torch.autograd.gradgradcheck(layer, x, fast_mode=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_maps_are_those_of_the_definition(dtype, memory_format):
    taps = binomial(5)
    for shape in ((16, 64, 33, 40), (1, 1, 2, 2000)):  # the second is beyond the longest matrix
        x = random_map(*shape).to(dtype).contiguous(memory_format=memory_format).requires_grad_()
        y = blur(x, taps, 2, "circular")
        assert y.is_contiguous(memory_format=memory_format)
        y.square().sum().backward()
        exact = x.detach().double().requires_grad_()
        expected = blur_definition(exact, taps, 2, "circular")
        expected.square().sum().backward()
        bounds = {"atol": 2**-6, "rtol": 2**-6} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(y.double(), expected, **bounds)
        torch.testing.assert_close(x.grad.double(), exact.grad, **bounds)


@pytest.mark.parametrize("mode", MODES)
def test_every_size_from_1_to_64(mode):
    for n in range(1, 65):
        x = random_map(1, 1, n, 65 - n, seed=n)
        y = create("bin-5", 1, stride=n % 4 + 1, padding_mode=mode)(x)
        expected = oracle(x[0, 0].numpy(), [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16], n % 4 + 1, mode)
        np.testing.assert_allclose(y[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7"])
def test_equals_the_published_strided_convolution(name):
    m = int(name[-1])
    line = torch.tensor([comb(m - 1, i) for i in range(m)], dtype=torch.float64)
    weight = (line[:, None] * line / (line.sum() ** 2)).expand(4, 1, m, m)
    low, high = (m - 1) // 2, m // 2
    for shape in [(12, 12), (9, 14), (40, 33)]:
        x = random_map(2, 4, *shape)
        expected = F.conv2d(F.pad(x, (low, high, low, high), mode="reflect"), weight, stride=2, groups=4)
        torch.testing.assert_close(create(name, 4)(x), expected, atol=1e-13, rtol=0)


def test_the_two_phases_of_the_papers_toy_signal():
    # Zhang 2019, section 3: max pooling of a square wave depends on its phase, blur makes the phases alike.
    wave = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1], dtype=torch.float64)
    dense = torch.maximum(wave, wave.roll(-1)).expand(1, 1, 8, 8)
    layer = create("tri-3", 1, padding_mode="circular")
    assert layer(dense)[0, 0, 0].tolist() == [0.5, 1, 0.5, 1]
    assert layer(dense.roll(-1, 3))[0, 0, 0].tolist() == [0.75, 0.75, 0.75, 0.75]
    wide = create("bin-5", 1, padding_mode="circular")
    assert wide(dense)[0, 0, 0].tolist() == [0.625, 0.875, 0.625, 0.875]


def test_an_impulse_returns_the_filter():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    line = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    y = create("bin-5", 1, stride=1)(x)[0, 0]
    assert torch.equal(y[2:7, 2:7], line[:, None] * line)
    assert y.sum() == 1


def test_gain_of_a_cosine_is_the_cosine_of_half_its_frequency():
    for m, k in product((2, 3, 4, 5, 7), (1, 4, 7)):
        omega = 2 * np.pi * k / 32
        gain = abs(sum(tap * np.exp(1j * omega * p) for p, tap in enumerate(binomial(m))))
        assert gain == pytest.approx(np.cos(omega / 2) ** (m - 1))
        x = torch.cos(omega * torch.arange(32, dtype=torch.float64)).expand(1, 1, 32, 32)
        y = Blur(1, 1, "circular", taps=m)(x)
        assert y.square().mean().sqrt().item() == pytest.approx(gain * x.square().mean().sqrt().item())


def test_any_filter_gives_the_mean_of_a_circular_2x2_map():
    x = random_map(3, 2, 2, 2)
    for m in (2, 3, 4, 5, 6, 7):
        y = Blur(2, 2, "circular", taps=m)(x)
        torch.testing.assert_close(y, x.mean((2, 3), keepdim=True), atol=1e-14, rtol=0)


def test_rect_2_is_average_pooling_of_even_maps():
    x = random_map(2, 3, 10, 16)
    torch.testing.assert_close(create("rect-2", 3)(x), F.avg_pool2d(x, 2))


def test_same_size_as_the_strided_layers_it_stands_for():
    for n in range(1, 20):
        x = torch.zeros(1, 1, n, n)
        assert create("bin-5", 1)(x).shape == F.conv2d(x, torch.ones(1, 1, 3, 3), stride=2, padding=1).shape


def test_max_is_the_maximum_of_clipped_windows():
    for shape, stride in product(SHAPES, (1, 2, 3, 4)):
        x = random_map(2, 2, *shape)
        h, w = -(-shape[0] // stride), -(-shape[1] // stride)
        expected = [
            [x[1, 0, stride * i : stride * (i + 1), stride * j : stride * (j + 1)].max().item() for j in range(w)]
            for i in range(h)
        ]
        assert Max(2, stride)(x)[1, 0].tolist() == expected


def test_a_trainable_filter_starts_fixed_and_learns():
    x = random_map(2, 3, 9, 8).float()
    layer = Blur(3, 2, taps=5, trainable=True)
    torch.testing.assert_close(layer(x), Blur(3, 2, taps=5)(x))
    layer(x).square().sum().backward()
    assert layer.weight.shape == (3, 1, 5, 5)
    assert (layer.weight.grad != 0).all()
    assert list(Blur(3, taps=5).state_dict()) == []


def test_other_taps_than_binomial_ones():
    x = random_map(1, 1, 11, 6)
    expected = oracle(x[0, 0].numpy(), [0.5, -1.0, 2.0], 2, "reflect")
    np.testing.assert_allclose(Blur(1, taps=[0.5, -1, 2])(x)[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("control", "value", "slope"), [("forward", 5, 1), ("backward", 1, 5)])
def test_controls_take_the_value_of_one_layer_and_the_gradient_of_another(control, value, slope):
    x, signal = random_map(2, 3, 9, 8), random_map(2, 3, 5, 4, seed=1)

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
    with pytest.raises(UsageError, match="sideways"):
        Blur(1, control="sideways")


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
    with pytest.raises(UsageError, match="choose one"):
        Blur(1, control="signs", trainable=True)


@pytest.mark.parametrize("taps", [0, -3, 2.5, "five", []])
def test_refuses_what_is_no_filter(taps):
    with pytest.raises(UsageError, match="taps must"):
        Blur(1, taps=taps)


@pytest.mark.parametrize("shape", [(5, 4), (9, 12)])
@pytest.mark.parametrize("name", ["subsample", "rect-2", "bin-5"])
def test_gradients(name, shape):
    x = random_map(1, 2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(create(name, 2), x)
    assert torch.autograd.gradgradcheck(create(name, 2), x)


@settings(max_examples=60, deadline=None)
@given(
    n=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    m=st.integers(1, 9),
    stride=st.integers(1, 4),
    mode=st.sampled_from(MODES),
    value=st.floats(-5, 5),
)
def test_constants_linearity_and_range(n, m, stride, mode, value):
    x, z = random_map(1, 2, *n, seed=1), random_map(1, 2, *n, seed=2)
    apply = lambda x: blur(x, binomial(m), stride, mode)  # noqa: E731
    torch.testing.assert_close(apply(x + value * z), apply(x) + value * apply(z))
    if mode != "zeros":
        torch.testing.assert_close(apply(torch.full_like(x, value)), torch.full_like(apply(x), value))
    assert apply(x).abs().max() <= x.abs().max() + 1e-12


def test_circular_shifts_by_the_stride_roll_the_output():
    for name, stride in product(("subsample", "max", "rect-2", "bin-4", "bin-7"), (1, 2, 3)):
        layer = create(name, 2, stride=stride, padding_mode="circular")
        x = random_map(2, 2, 6 * stride, 4 * stride)
        torch.testing.assert_close(
            layer(x.roll((3 * stride, -stride), (2, 3))), layer(x).roll((3, -1), (2, 3)), atol=1e-13, rtol=0
        )


def test_functions_refuse_unknown_padding():
    with pytest.raises(UsageError, match="unknown padding mode 'constant'"):
        blur(torch.zeros(1, 1, 4, 4), binomial(3), 2, "constant")
