"""What every layer promises: sizes, values, dtypes, memory formats, tracing, copies; and the registry."""

import copy
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from aliasing import layers
from aliasing.errors import UsageError
from aliasing.layers import CATALOGUE, _phases, create, definitions
from tests.layers.cases import CASES, FORMATS, LAYERS, LINEAR, MODES, layer_of, noise

# Not every case keeps constants: published layers have defects, and random signs are no average.
FAIR = [case for case in CASES if "faithful" not in case and "signs" not in case]


@pytest.mark.parametrize("case", FAIR)
@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 3),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    stride=st.integers(0, 3),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 99),
    value=st.floats(-5, 5),
    exponent=st.integers(-25, 25),
)
def test_maps_of_any_size_and_magnitude(case, channels, height, width, stride, mode, seed, value, exponent):
    strides = CATALOGUE[CASES[case][0]].strides
    layer = layer_of(case, channels, stride=strides[stride % len(strides)], padding_mode=mode)
    x = noise(2, channels, height, width, seed=seed)
    y = layer(x)
    assert y.shape == (2, channels, -(-height // layer.stride), -(-width // layer.stride))
    if mode != "zeros":
        constant = layer(torch.full_like(x, value))
        torch.testing.assert_close(constant, torch.full_like(y, value), atol=1e-9, rtol=0)
    if not case.startswith(("flc", "asap")):  # whose kernels have negative lobes; the others average or select pixels
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        if mode == "zeros":
            low, high = low.clamp(max=0), high.clamp(min=0)
        assert ((low - 1e-9 <= y) & (y <= high + 1e-9)).all()
    assert torch.isfinite(layer.float()(x.float() * 10.0**exponent)).all()


@pytest.mark.parametrize("case", CASES)
def test_linearity_and_periods(case):
    x, z = noise(2, 3, 14, 10, seed=1), noise(2, 3, 14, 10, seed=2)
    layer = layer_of(case, padding_mode="circular")
    gap = (layer(2 * x - 3 * z) - 2 * layer(x) + 3 * layer(z)).abs().max()
    assert (CASES[case][0] in LINEAR) == bool(gap < 1e-12)
    gap = (layer(x.roll((2, -2), (2, 3))) - layer(x).roll((1, -1), (2, 3))).abs().max()
    assert layer.periodic == bool(gap < 1e-10)
    for stride in CATALOGUE[CASES[case][0]].strides if layer.periodic else ():
        layer, x = layer_of(case, stride=stride, padding_mode="circular"), noise(2, 3, 6 * stride, 5 * stride)
        torch.testing.assert_close(layer(x.roll(3 * stride, 2)), layer(x).roll(3, 2), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_dtypes_and_memory_formats_are_kept_down_to_the_empty_batch(name):
    for mode, images, shape, dtype in product(
        MODES, (0, 1, 3), ((9, 12), (6, 5)), (torch.float64, torch.float32, torch.bfloat16)
    ):
        layer = layer_of(name, padding_mode=mode).to(dtype)
        for memory_format in FORMATS:
            y = layer(noise(images, 3, *shape, dtype=dtype).contiguous(memory_format=memory_format))
            assert y.dtype == dtype
            assert y.shape == (images, 3, -(-shape[0] // 2), -(-shape[1] // 2))
            assert images == 0 or y.is_contiguous(memory_format=memory_format), (shape, dtype, memory_format)


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_neither_fails_nor_loses_more_than_its_own_precision(name):
    layer, x = layer_of(name).float(), noise(2, 3, 12, 10, dtype=torch.float32).requires_grad_()
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given, gap in (x, 1e-6 if name in LINEAR else 0.05), (x.bfloat16(), 0.05):
            if name not in ("aps", "lps"):  # rounding may make them choose another phase
                torch.testing.assert_close(layer(given), expected.to(given.dtype), atol=gap, rtol=gap)
        loss = layer(x).square().mean()
    loss.backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")  # constants are meant
@pytest.mark.parametrize("name", LAYERS)
def test_compiles_to_one_graph_and_large_maps_are_traced(name):
    layer, x = layer_of(name).float(), noise(2, 3, 9, 12, dtype=torch.float32)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    torch.compiler.reset()
    maps = noise(1, 3, 420, 420, dtype=torch.float32)  # beyond every limit of the small forms
    traced, more = torch.jit.trace(layer, maps), noise(2, 3, 420, 420, dtype=torch.float32)
    for batch in (maps, torch.cat([maps, more])):  # of more images than were traced
        torch.testing.assert_close(traced(batch), layer(batch))


class Noted(TorchDispatchMode):
    """Which operations run."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.__dict__.setdefault("operations", []).append(function)
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("name", LAYERS)
def test_neither_the_default_device_nor_modes_see_what_is_kept(name, monkeypatch):
    monkeypatch.setattr(_phases, "CHUNK", 60)  # so that a batch is worked on in parts
    for shape in ((7, 5), (2, 3)):  # of sizes whose matrices no other test has made
        layer, x = layer_of(name, padding_mode="replicate"), noise(2, 3, *shape)
        with torch.device("meta"), Noted() as first:
            y = layer(x)
        with Noted() as again:
            layer(x)
        assert first.operations == again.operations
        torch.testing.assert_close(y, layer_of(name, padding_mode="replicate")(x + 0))
        with definitions():
            torch.testing.assert_close(y, layer(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_views_and_training(name):
    layer, x, learns = layer_of(name), noise(2, 3, 12, 12).requires_grad_(), CATALOGUE[name].parameters
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    for shape in ((4, 6), (13, 9), (40, 36)):
        view = noise(2, 3, 2 * shape[0], shape[1] + 1)[:, :, ::2, 1:]
        torch.testing.assert_close(layer(view), layer(view.clone()), atol=1e-12, rtol=0)
    assert bool(layer.state_dict()) == bool(list(layer.parameters())) == learns
    layer.train()(x).square().sum().backward()
    assert (x.grad != 0).any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("case", ["asap", "aps", "tips", "tips faithful", "ddac"])
def test_what_is_changed_later_is_followed_by_the_parts_and_not_by_a_gradient_under_way(case, monkeypatch):
    monkeypatch.setattr(_phases, "CHUNK", 60)  # so that the gradient is worked on in parts
    options, x = {"blur": "tri-3"} if case == "aps" else {}, noise(2, 3, 8, 8).requires_grad_()
    layer = layer_of(case.split()[0], stride=(2, 4), **options, padding_mode="reflect")
    layer.stride, layer.padding_mode = (4, 2), "circular"
    if "faithful" in case:
        layer.faithful = True
    anew = layer_of(case, stride=(4, 2), **options, padding_mode="circular")
    found, expected = layer(x), anew(x)
    torch.testing.assert_close(found, expected)
    assert layer.periodic == anew.periodic
    layer.padding_mode = "zeros"
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x) for y in (found, expected)))
    with pytest.raises(UsageError, match="unknown padding mode 'same'"):
        layer.padding_mode = "same"


@pytest.mark.parametrize("name", ["tips", "ddac", "lps"])
def test_weights_that_a_hook_computes_anew(name):
    """Of convolutions that the layers only read; other hooks are not theirs to call."""
    twins, x = [layer_of(name).train() for _ in range(2)], noise(2, 3, 8, 8)
    for seed, layer in enumerate(twins):
        torch.manual_seed(seed)
        for part in [part for part in layer.modules() if isinstance(part, nn.Conv2d)]:
            part.register_forward_pre_hook(lambda _, given: given[0])
            prune.random_unstructured(part, "weight", 0.5)
        for _ in range(2):  # a graph of its own each time
            layer(x).square().sum().backward()
    twins[1].load_state_dict(twins[0].state_dict())
    assert torch.equal(*(layer.eval()(x) for layer in twins))


# The registry


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_name_fixes_strides_and_options(name):
    entry = CATALOGUE[name]
    assert [create(name, 4, stride=stride).stride for stride in entry.strides] == list(entry.strides)
    wrong = (0, 5, 2.5, 2.0, "2", True, None, (2, 5), (2,), (2, 2, 2), (2.0, 2))
    for stride in (*wrong, *({1, 2, 3, 4} - set(entry.strides))):
        with pytest.raises(UsageError, match="stride must be"):
            create(name, 4, stride=stride)
    with pytest.raises(UsageError, match="no options, got 'sigma'" if not entry.options else "unknown option"):
        create(name, 4, sigma=1)
    assert not {"channels", "stride", "padding_mode", "dims", *entry.preset} & set(entry.options)


def test_options_are_shown():
    assert repr(create("asap", 4, variant="none")) == "ASAP(stride=2, variant='none')"
    assert repr(create("max", 4, (2, 4), "zeros")) == "Max(stride=(2, 4), padding_mode='zeros')"


class Mine(layers.Downsample):
    """Hands on what it does not name, and has an option without a default."""

    def __init__(self, channels, *, weight, sharp=1.0, **options):
        super().__init__(channels, **options)

    def sample(self, x, choice=None):
        return torch.nn.functional.avg_pool2d(x, self.stride)


def test_options_of_a_layer_of_ones_own_need_no_default(monkeypatch):
    monkeypatch.setitem(CATALOGUE, "mine", layers.Entry(Mine, "mean", "a test"))
    assert layers.resolved("mine") == {"name": "mine", "sharp": 1.0}
    assert layers.create("mine", 4, stride=3, weight=2)(torch.zeros(1, 4, 9, 6)).shape == (1, 4, 3, 2)
    with pytest.raises(TypeError, match="weight"):
        layers.create("mine", 4)
    monkeypatch.setitem(CATALOGUE, "mine", layers.Entry(partial(Mine, weight=2), "mean", "a test"))
    assert layers.create(**layers.resolved("mine", sharp=3), channels=4)(torch.zeros(1, 4, 6, 6)).shape == (1, 4, 3, 3)
