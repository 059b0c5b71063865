"""Every layer where its fast form cannot serve: second derivatives, ``torch.func``, ``meta``, exporters, other axes."""

from contextlib import suppress
from copy import deepcopy
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from aliasing.errors import UsageError
from aliasing.layers import CATALOGUE, DenseMax, Upsample, _matrices, _phases, create, definitions
from aliasing.layers.upsample import interpolator
from tests.layers.cases import CASES, FORMATS, LAYERS, LINEAR, layer_of, noise

SHAPES = [(1, 1), (1, 6), (5, 1), (4, 4), (7, 4), (9, 13), (6, 18)]


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Maps worked on as small ones are, and with thresholds of large ones: by sparse matrices, an image at a time."""
    if request.param == "large":
        for name in ("LARGE", "TINY", "WIDE"):
            monkeypatch.setattr(_matrices, name, 0)
        monkeypatch.setattr(_phases, "CHUNK", 100)
    return request.param


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_the_fast_form_is_the_definition(case, memory_format, size):
    published = case in ("flc faithful", "asap faithful")
    for number, shape in enumerate(SHAPES[3 * published :]):  # without the sizes it has no output for
        stride, mode = [(2, "circular"), (CATALOGUE[CASES[case][0]].strides[-1], "zeros"), (2, "reflect")][number % 3]
        if mode == "reflect" and shape != (4, 4):
            mode = "replicate"  # mirrors make phases of equal norm
        layer = layer_of(case, 4, stride=2 if published else stride, padding_mode=mode)
        x = noise(3, 4, *shape, seed=number).contiguous(memory_format=memory_format).requires_grad_()
        results = []
        for context in (definitions(), torch.enable_grad()):
            with context:
                y = layer(x)
                inputs = [x] if "lps" in case else [x, *layer.parameters()]  # the choice of lps has no gradient
                results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
        for expected, found in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10, msg=f"{shape} {stride} {mode}")


PRECISION = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}  # of the largest value


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_have_the_precision_of_the_dtype(case, dtype, size):
    """Beside the definition in float64 of the same numbers; sums over the second map pass the largest of float16."""
    layer = layer_of(case, 4, padding_mode="circular").to(dtype)
    exact = deepcopy(layer).double()
    maps = noise(2, 4, 12, 20), 60 + noise(1, 4, 8, 2000)  # the second is longer than matrices are made for, too
    kept = maps[:1] if case == "aps blurred" else maps  # behind a blur the phases of the second are alike
    for (number, x), memory_format in product(enumerate(kept), FORMATS):
        x = x.to(dtype).contiguous(memory_format=memory_format).requires_grad_()
        wide = x.detach().double().requires_grad_()
        with definitions():
            expected = exact(wide)
        pairs = [(layer(x), expected)]
        if number == 0:
            signals = zip(pairs[0], (x, wide), strict=True)
            pairs.append(tuple(torch.autograd.grad(y.square().sum(), given)[0] for y, given in signals))
        for found, right in pairs:
            assert (found.double() - right).abs().max() <= PRECISION[dtype] * right.abs().max()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of the framework about itself
@pytest.mark.parametrize("case", CASES)
def test_derivatives(case, size):
    """The first in both formats are those of the definition, see above, which serves all others."""
    layer = layer_of(case, 2)
    x = noise(2, 2, 6, 9).contiguous(memory_format=FORMATS[size == "large"]).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True) if list(layer.parameters()) else ((), ())

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(function, (x, *values), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, *values), fast_mode=True)
    # Both checks look at gradients with a graph only, or only at those without: the two are one.
    y = layer(x)
    signals = noise(2, *y.shape)
    alone = [torch.autograd.grad(y, x, signal, retain_graph=True)[0] for signal in signals]
    torch.testing.assert_close(torch.autograd.grad(y, x, signals[0], create_graph=True)[0], alone[0])
    torch.testing.assert_close(torch.autograd.grad(y, x, signals, is_grads_batched=True)[0], torch.stack(alone))
    x, direction, step = x.detach(), noise(2, 2, 6, 9, seed=1), 1e-6
    slope = (layer(x + step * direction) - layer(x - step * direction)) / (2 * step)
    value, tangent = torch.func.jvp(layer, (x,), (direction,))
    torch.testing.assert_close(value, layer(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(tangent, slope, atol=1e-6, rtol=1e-6)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, direction)))
    torch.testing.assert_close(dual.tangent, tangent)
    together = torch.func.vmap(layer)(torch.stack([x, direction]))
    torch.testing.assert_close(together, torch.stack([layer(x), layer(direction)]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_on_meta(name):
    layer = create(name, 4).to("meta").train()
    x = torch.empty(3, 4, 9, 12, device="meta", requires_grad=True)
    layer(x).sum().backward()
    assert layer(x).shape == (3, 4, 5, 6)
    assert x.grad.shape == x.shape
    assert layer(torch.empty(2, 4, 2000, 600, device="meta")).shape == (2, 4, 1000, 300)


@pytest.mark.parametrize("name", LAYERS)
def test_a_stride_per_axis(name):
    layer = layer_of(name, stride=(2, 4), padding_mode="circular")
    assert layer.stride == (2, 4)
    x = noise(2, 3, 8, 12)
    y = layer(x)
    assert layer(x[:, :, :7, :9]).shape == (2, 3, 4, 3)
    with definitions():
        torch.testing.assert_close(layer(x), y, atol=1e-12, rtol=0)
    if name in LINEAR:  # each axis is that of the layer with its stride
        line = noise(1, 3, 8, 1)
        for axis, stride in ((2, 2), (3, 4)):
            one = layer_of(name, stride=stride, padding_mode="circular")
            wide = (line if axis == 2 else line.movedim(2, 3)).expand(1, 3, 8, 8)
            torch.testing.assert_close(layer(wide).mean(5 - axis), one(wide).mean(5 - axis), atol=1e-12, rtol=0)
    elif layer.periodic:
        moved = layer(x.roll((2, -4), (2, 3)))
        torch.testing.assert_close(moved, y.roll((1, -1), (2, 3)), atol=1e-12, rtol=0)
    assert create(name, np.int64(3), np.int64(2)).stride == create(name, 3, (2, 2)).stride == 2


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_one_and_three_axes(name, dims):
    if dims not in CATALOGUE[name].dims:
        with pytest.raises(UsageError, match=f"{name}: dims must be 2, got {dims}"):
            create(name, 3, dims=dims)
        return
    layer = layer_of(name, dims=dims, padding_mode="circular")
    with pytest.raises(UsageError, match="takes maps"):
        layer(noise(2, 3, 8, 8))
    for side in (1, 5, 8):
        x = noise(2, 3, *[side] * dims, seed=side)
        y = layer(x)
        assert y.shape == (2, 3, *[-(-side // 2)] * dims)
        with definitions():
            torch.testing.assert_close(layer(x), y, atol=1e-12, rtol=0)
        if dims == 3:
            stored = x.contiguous(memory_format=torch.channels_last_3d)
            torch.testing.assert_close(layer(stored), y, atol=1e-12, rtol=0)
    # A map that does not change along the other axes is seen by the layer of two axes as by this one.
    line, flat = noise(2, 3, 8), layer_of(name, padding_mode="circular")
    if name == "lps":  # its network has other weights
        moved = layer(x.roll(2, 2))
        torch.testing.assert_close(moved, layer(x).roll(1, 2))
        return
    wide = line.view(2, 3, 8, *[1] * (dims - 1)).expand(2, 3, *[8] * dims)
    expected = flat(line[..., None].expand(2, 3, 8, 8))[..., 0]
    found = layer(wide).flatten(3)[..., 0] if dims > 1 else layer(wide)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("case", [*CASES, "dense maximum", "upsampling"])
def test_a_trace_serves_other_sizes_or_fails(case):
    others = {"dense maximum": lambda: partial(DenseMax(3), stride=2), "upsampling": lambda: Upsample(3, 3, 5)}
    layer = others[case]() if case in others else layer_of(case).float().requires_grad_(False)  # constants
    sizes = [(12, 16), (2, 4), (9, 11), (1, 1)][: 3 if "faithful" in case else 4]
    maps = [noise(2, 3, *size, dtype=torch.float32) for size in sizes]
    served = 0
    for given in maps:
        with suppress(RuntimeError):
            traced = torch.jit.trace(lambda x: layer(x), given, check_trace=False)
            for other in maps:
                with suppress(RuntimeError):
                    torch.testing.assert_close(traced(other), layer(other), atol=1e-5, rtol=1e-5)
                    served += 1
    assert served >= len(maps)


def test_maps_of_few_channels_need_no_matrix_of_all_pixels(monkeypatch):
    monkeypatch.setattr(_matrices, "LARGE", 0)
    made, build = [], _matrices._joint_matrix
    monkeypatch.setattr(_matrices, "_joint_matrix", lambda *part: made.append(part[1]) or build(*part))
    for layer in create("tri-3", 3), Upsample(3):
        layer(noise(1, 3, 20, 20).contiguous(memory_format=torch.channels_last))
    assert made == [(20,), (20,)]


def test_a_long_signal_needs_no_matrix():
    x = torch.zeros(1, 1, 50_001)
    x[..., 20_000] = 1
    for name, dtype in product(("flc", "asap"), (torch.float32, torch.bfloat16)):
        y = create(name, 1, dims=1)(x.to(dtype))
        assert y.shape == (1, 1, 25_001)
        assert y.argmax() == 10_000
        assert y.sum().item() == pytest.approx(0.5, abs=0.01)


# Upsampling


def oracle_upsample(line, factor, taps):
    """Zeros between the pixels of a ring, then the filter, pixel by pixel: its middle, or that of ``factor`` pixels."""
    weights = interpolator(factor, taps)
    spread = np.zeros(len(line) * factor)
    spread[::factor] = line
    start = (len(weights) - 1) // 2 if taps % 2 else (len(weights) - factor) // 2
    return sum(weight * np.roll(spread, k - start) for k, weight in enumerate(weights))


@pytest.mark.parametrize(("factor", "taps"), list(product((1, 2, 3, 4), (2, 3, 4, 5))))
def test_upsampling_inserts_zeros_and_filters(factor, taps, size):
    line = noise(1, 1, 6)
    layer = Upsample(1, factor, taps, "circular", dims=1)
    np.testing.assert_allclose(layer(line)[0, 0].numpy(), oracle_upsample(line[0, 0].numpy(), factor, taps), atol=1e-12)
    x = noise(2, 3, 5, 4)
    for mode, memory_format in product(("reflect", "circular", "replicate"), FORMATS):
        up, given = Upsample(3, (factor, 2), taps, mode), x.contiguous(memory_format=memory_format)
        y = up(given)
        assert y.shape == (2, 3, 5 * factor, 8)
        assert y.is_contiguous(memory_format=memory_format)
        with definitions():
            torch.testing.assert_close(up(given), y, atol=1e-12, rtol=0)
    constant = up(torch.full_like(x, 0.7))
    torch.testing.assert_close(constant, torch.full_like(constant, 0.7))
    for thin in (noise(1, 3, 7, 1), noise(1, 3, 1, 3)):
        up = Upsample(3, factor, taps)
        with definitions():
            expected = up(thin)
        torch.testing.assert_close(up(thin), expected)


def test_upsampling_known_answers():
    x = torch.tensor([[[1.0, 2, 4, 8]]])
    for factor in range(1, 9):
        torch.testing.assert_close(Upsample(1, factor, 2, dims=1)(x), x.repeat_interleave(factor, 2))
    assert Upsample(1, 2, 3, "replicate", dims=1)(x).tolist() == [[[1, 1.5, 2, 3, 4, 6, 8, 8]]]
    assert interpolator(2, 5) == (0.125, 0.5, 0.75, 0.5, 0.125)


def test_upsampling_is_the_transpose_of_blur_and_has_every_derivative():
    for taps, mode in product((2, 3, 5), ("circular", "zeros")):
        down = create({2: "rect-2", 3: "tri-3", 5: "bin-5"}[taps], 2, padding_mode=mode)
        x, y = noise(1, 2, 8, 6), noise(1, 2, 4, 3, seed=1)
        torch.testing.assert_close((down(x) * y).sum() * 4, (x * Upsample(2, 2, taps, mode)(y)).sum())
    layer, y = Upsample(2), noise(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(layer, y)
    torch.testing.assert_close(torch.func.vmap(layer)(y[None]), layer(y)[None])
    assert layer(torch.empty(1, 2, 3, 4, device="meta")).shape == (1, 2, 6, 8)
