"""What every registered layer promises: sizes, dtypes, memory formats, tracing, copies, checkpoints, and its facts."""

import copy
import warnings
from itertools import product

import pytest
import torch
from torch import nn

from aliasing.layers import CATALOGUE, NAMES, create

MODES = ("reflect", "circular", "zeros", "replicate")
SHAPES = [(1, 1), (1, 4), (2, 1), (2, 3), (3, 3), (5, 8), (7, 2), (9, 9), (12, 11), (16, 6)]
LOW_PASS = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7", "flc", "asap")


def random_map(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer_of(name, **options):
    """A layer in evaluation mode, where none draws random numbers; initial parameters are seeded."""
    torch.manual_seed(0)
    return create(name, 3, **options).eval()


def stored_like(y, x):
    """Whether ``y`` has the memory format of ``x``."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("name", NAMES)
def test_size_is_the_ceiling_of_n_over_stride(name):
    for number, (shape, stride) in enumerate(product(SHAPES, CATALOGUE[name].strides)):
        x = random_map(2, 3, *shape, seed=number)
        y = layer_of(name, stride=stride, padding_mode=MODES[number % 4])(x)
        assert y.shape == (2, 3, -(-shape[0] // stride), -(-shape[1] // stride)), (shape, stride)
        assert torch.isfinite(y).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes_and_memory_formats_are_kept_down_to_the_empty_batch(name, mode):
    layer = layer_of(name, padding_mode=mode)
    for images, shape, dtype in product((0, 1, 3), ((9, 12), (6, 5)), (torch.float64, torch.float32, torch.bfloat16)):
        layer = layer.to(dtype)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = random_map(images, 3, *shape, dtype=dtype).contiguous(memory_format=memory_format)
            y = layer(x)
            assert y.dtype == dtype
            assert y.shape == (images, 3, -(-shape[0] // 2), -(-shape[1] // 2))
            assert images == 0 or stored_like(y, x), (shape, dtype, memory_format)


@pytest.mark.parametrize("name", NAMES)
def test_memory_format_does_not_change_the_values(name):
    layer = layer_of(name).double()
    for shape in ((4, 6), (13, 9), (40, 36)):
        x = random_map(2, 3, *shape, dtype=torch.float64)
        sliced = torch.zeros(2, 3, 2 * shape[0], shape[1] + 1, dtype=torch.float64)[:, :, ::2, 1:].copy_(x)
        for other in (x.contiguous(memory_format=torch.channels_last), sliced):
            torch.testing.assert_close(layer(other), layer(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_neither_fails_nor_loses_more_than_its_own_precision(name):
    layer, x = layer_of(name), random_map(2, 3, 12, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for y in (layer(x), layer(x.bfloat16())):
            if name not in ("aps", "lps"):  # rounding may make them choose another phase
                torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.05)
    inputs = random_map(2, 3, 12, 10).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = layer(inputs).square().mean()
    loss.backward()
    assert torch.isfinite(inputs.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_compiles_to_one_graph_and_exports(name):
    layer, x = layer_of(name), random_map(2, 3, 9, 12)
    expected = layer(x)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the framework about itself
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)
        torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), expected)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")  # constants are meant
@pytest.mark.parametrize("name", NAMES)
def test_torchscript_traces_small_and_large_maps(name):
    layer = layer_of(name)
    for shape in ((2, 3, 9, 12), (2, 3, 420, 420)):  # the second is beyond every limit of the small forms
        x = random_map(*shape)
        torch.testing.assert_close(torch.jit.trace(layer, x)(x), layer(x))


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_checkpoints(name):
    layer, x = layer_of(name), random_map(2, 3, 9, 12)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert bool(layer.state_dict()) == CATALOGUE[name].parameters
    assert bool(list(layer.parameters())) == CATALOGUE[name].parameters
    plain = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3))
    twin = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), layer)
    missing, unexpected = twin.load_state_dict(plain.state_dict(), strict=not CATALOGUE[name].parameters)
    assert not unexpected
    assert all(key.startswith("2.") for key in missing)


@pytest.mark.parametrize("name", NAMES)
def test_linear_layers_are_linear_and_the_others_are_not(name):
    layer = layer_of(name).double()
    x, z = (random_map(2, 3, 10, 8, dtype=torch.float64, seed=seed) for seed in (1, 2))
    gap = (layer(2 * x - 3 * z) - 2 * layer(x) + 3 * layer(z)).abs().max()
    assert CATALOGUE[name].linear == bool(gap < 1e-12)


@pytest.mark.parametrize("name", LOW_PASS)
def test_constants_stay_constant(name):
    for shape, stride, mode in product(SHAPES, CATALOGUE[name].strides, ("reflect", "circular", "replicate")):
        y = layer_of(name, stride=stride, padding_mode=mode)(torch.full((1, 3, *shape), 0.7))
        torch.testing.assert_close(y, torch.full_like(y, 0.7))


@pytest.mark.parametrize("name", NAMES)
def test_periodic_layers_follow_rolls_by_their_stride(name):
    for stride in CATALOGUE[name].strides:
        layer = layer_of(name, stride=stride, padding_mode="circular").double()
        x = random_map(2, 3, 6 * stride, 4 * stride, dtype=torch.float64)
        gap = (layer(x.roll((stride, -stride), (2, 3))) - layer(x).roll((1, -1), (2, 3))).abs().max()
        assert not layer.periodic or gap < 1e-10, stride


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_float64_and_in_every_parameter(name):
    layer = layer_of(name).double()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = random_map(1, 3, 6, 5, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
        assert torch.autograd.gradcheck(layer, x)
    x = random_map(2, 3, 12, 12, dtype=torch.float64).requires_grad_()
    layer.train()(x).square().sum().backward()
    assert (x.grad != 0).any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
