"""Every registered network: sizes, gradients, placements, twins, circular symmetry."""

import numpy as np
import pytest
import torch
import torchvision

from aliasing import layers, models
from aliasing.layers import DenseMax
from aliasing.layers.base import Downsample
from aliasing.models.blocks import Convolution
from tests.models.shared import images

LAYERS = ("subsample", "bin-5", "flc", "aps", "lps", "tips", {"name": "ddac", "groups": 1})
CLASSIFIERS = [name for name in models.CATALOGUE if name != "unet-small"]
EVERYWHERE = {"positions": ("stem", "pool", "conv", "skip")}


def tiny(name: str, downsample: object = "subsample", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {"width": 4, **options}
    return models.create(name, 3, downsample, **options)


def settle(network: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    """Batch-norm statistics of ``x``, so that the maps of a random network keep a sensible scale; evaluation mode."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    return network.eval()


@pytest.mark.parametrize("name", models.CATALOGUE)
@pytest.mark.parametrize("placement", models.PLACEMENTS)
def test_odd_sizes_gradients_and_features(name: str, placement: str) -> None:
    for downsample in LAYERS:
        network = tiny(name, downsample, placement=placement)
        y = network(images(2, 3, 37, 26))
        y.square().sum().backward()
        expected = (2, 3) if name in CLASSIFIERS else (2, 3, 37, 26)
        assert y.shape == expected
        assert y.isfinite().all()
        missing = [key for key, parameter in network.named_parameters() if parameter.grad is None]
        assert not missing
        y = network.eval()(x := images(1, 3, 1, 2))
        assert y.isfinite().all()
        if name in CLASSIFIERS:
            torch.testing.assert_close(getattr(network, network.head_name)(network.features(x)), y)


@pytest.mark.parametrize("name", models.CATALOGUE)
def test_twins_share_keys_parameters_and_initial_weights(name: str) -> None:
    plain, twin = tiny(name), tiny(name, "bin-5", activation="gelu")
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in twin.parameters())
    torch.testing.assert_close(twin.state_dict(), plain.state_dict(), rtol=0, atol=0)
    learned = tiny(name, "lps")
    assert all(torch.equal(value, learned.state_dict()[key]) for key, value in plain.state_dict().items())
    twin.load_state_dict(plain.state_dict(), strict=True)


@pytest.mark.parametrize(
    ("name", "downsample", "placement"),
    [
        ("resnet50", "subsample", "pool-then-conv"),
        ("resnet18", "aps", "act-then-pool"),
        ("resnet18", "bin-5", "conv-then-pool"),
        ("resnet18", "flc", "pool-then-conv"),
    ],
)
def test_a_network_of_torchvision_is_our_own_once_it_is_converted(name: str, downsample: str, placement: str) -> None:
    """With the same weights, as it is and with the layer as an argument."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=7)
    ours = models.create(name, 7, downsample, placement=placement)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = images(2, 3, 49, 64)
    if downsample != "subsample":
        keep_stem = placement != "pool-then-conv"
        theirs = models.antialias(theirs, downsample, placement, keep_stem=keep_stem, example=x)
    for mode in (False, True):
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (9, 12)])
def test_strides_keep_the_pixels_of_the_dense_map(padding_mode: str, height: int, width: int) -> None:
    x = images(2, 4, height, width, dtype=torch.float64)
    for size in (1, 3, 7):
        conv = Convolution(4, 2, size, padding=size // 2, padding_mode=padding_mode).double()
        assert conv(x).shape == (2, 2, height, width)
        torch.testing.assert_close(conv(x, 2), conv(x)[..., ::2, ::2])
    for size in (2, 3):
        dense_max = DenseMax(size, padding_mode)
        assert dense_max(x).shape == x.shape
        assert torch.equal(dense_max(x, 2), dense_max(x)[..., ::2, ::2])


@pytest.mark.parametrize("size", [2, np.int64(3)])
@pytest.mark.parametrize("circular", [True, False])
def test_dense_max_has_values_and_gradients_of_max_pooling(circular: bool, size: int) -> None:
    around = ((size - 1) // 2, size // 2)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = (images(2, 3, 5, 6) - 0.5).to(memory_format=memory_format).requires_grad_()
        y = DenseMax(size, "circular" if circular else "zeros")(x)
        assert y.is_contiguous(memory_format=memory_format)
        padded = torch.nn.functional.pad(x, 2 * around, mode="circular" if circular else "replicate")
        expected = torch.nn.functional.max_pool2d(padded, size, 1)
        weights = images(*y.shape)
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
        (ours,) = torch.autograd.grad((weights * y).sum(), x)
        (theirs,) = torch.autograd.grad((weights * expected).sum(), x)
        torch.testing.assert_close(ours, theirs)
    z = torch.randn(1, 1, 4, 4, dtype=torch.complex128).requires_grad_()  # whose conjugate only notes the sign
    y = DenseMax(2)(z.conj().imag)
    assert torch.equal(y, DenseMax(2)(-z.imag))
    torch.complex(y, y).conj().imag.sum().backward()
    assert z.grad.imag.sum() == 16
    assert torch.autograd.gradcheck(DenseMax(2, "circular"), images(1, 1, 3, 4).double().requires_grad_())


def changed(network: torch.nn.Module, x: torch.Tensor) -> float:
    """Largest relative change of the features under some circular shifts."""
    with torch.no_grad():
        f = network.features(x)
        rolls = [(1, 0), (0, 1), (3, 2), (5, 7)]
        return max(float((network.features(x.roll(r, (2, 3))) - f).norm() / f.norm()) for r in rolls)


@pytest.mark.parametrize("downsample", ["aps", "lps"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg-small", {}),
        ("resnet-small", {}),
        ("resnet18", {"stem": "cifar"}),
        ("resnet18", EVERYWHERE),
        ("resnet50", EVERYWHERE),
    ],
)
def test_polyphase_networks_are_invariant_only_with_a_shared_choice(
    downsample: str, name: str, options: dict[str, object]
) -> None:
    for placement in models.PLACEMENTS:
        errors = {}
        for shared in (True, False):
            network = tiny(name, downsample, padding_mode="circular", placement=placement, shared=shared, **options)
            network = settle(network, images(4, 3, 64, 64)).double()
            errors[shared] = changed(network, images(2, 3, 64, 64, dtype=torch.float64))
        assert errors[True] < 1e-12
        # A VGG has no branches; there both of them may look at the same map, and agree by themselves.
        if name != "vgg-small" and placement != "pool-then-conv":
            assert errors[False] > 1e-3
    zeros = settle(tiny(name, downsample, **options), images(4, 3, 64, 64)).double()
    assert changed(zeros, images(2, 3, 64, 64, dtype=torch.float64)) > 1e-3


@pytest.mark.parametrize("downsample", ["aps", "lps", "bin-5"])
def test_unet_moves_its_masks_with_the_image_exactly_where_a_polyphase_layer_is(downsample: str) -> None:
    network = settle(tiny("unet-small", downsample, padding_mode="circular"), images(4, 3, 32, 32)).double()
    x = images(2, 3, 32, 16, dtype=torch.float64)
    with torch.no_grad():
        for roll in ((1, 0), (0, 3), (5, 6), (8, -8)):
            y, expected = network(x.roll(roll, (2, 3))), network(x).roll(roll, (2, 3))
            same = torch.allclose(y, expected, rtol=1e-7 if downsample != "bin-5" or roll == (8, -8) else 1e-3)
            assert same == (downsample != "bin-5" or roll == (8, -8))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_subsampling_drops_is_computed_only_for_who_looks_at_it(name: str) -> None:
    x = images(2, 3, 32, 32)
    network = settle(tiny(name), x)
    computed: list[int] = []
    sampled: list[torch.Size] = []
    for module in network.modules():
        if isinstance(module, (Convolution, DenseMax)):
            module.register_forward_hook(lambda _, __, y: computed.append(y.numel()))

    def run() -> tuple[torch.Tensor, int]:
        computed.clear()
        with torch.no_grad():
            return network(x), sum(computed)

    alone, few = run()
    sites = [module for module in network.modules() if isinstance(module, Downsample) and module.stride > 1]
    for site in sites:
        site.register_forward_hook(lambda _, inputs, y: sampled.append(inputs[0].shape))
    watched, many = run()
    assert len(sampled) == len(sites)
    assert few < many
    torch.testing.assert_close(alone, watched)


def kinds(network: torch.nn.Module) -> dict[str, int]:
    return {
        name: len(module.taps) if isinstance(module, layers.Blur) else -1
        for name, module in network.named_modules()
        if isinstance(module, Downsample)
    }


def test_positions_say_where_the_layer_goes() -> None:
    found = kinds(tiny("resnet18", "bin-5"))
    assert found == {"down": 1, "maxpool.down": 5} | {
        f"layer{stage}.0.{branch}": 5 for stage in (2, 3, 4) for branch in ("main", "side")
    }
    found = kinds(tiny("resnet18", "bin-5", positions=("skip",)))
    assert {name for name, taps in found.items() if taps == 5} == {f"layer{stage}.0.side" for stage in (2, 3, 4)}
    assert set(kinds(tiny("resnet18", "bin-5", placement="pool-then-conv")).values()) == {5}
    assert "down" not in kinds(tiny("resnet18", "bin-5", stem_stride=1))


def test_vgg_pools() -> None:
    average = tiny("vgg-small", "rect-2", pool="none")
    assert not [m for m in average.modules() if isinstance(m, DenseMax)]
    x = images(2, 4, 8, 6)
    torch.testing.assert_close(average.stages[0][-1](x), torch.nn.functional.avg_pool2d(x, 2))
    plain = tiny("vgg-small").eval()
    torch.testing.assert_close(plain.stages[0][-1](x), torch.nn.functional.max_pool2d(x, 2))
    alone = tiny("vgg-small", "max").eval()
    torch.testing.assert_close(alone.stages[0][-1](x), torch.nn.functional.max_pool2d(x, 2))
    assert not [m for m in tiny("vgg-small", "flc", placement="pool-then-conv").modules() if isinstance(m, DenseMax)]
    strided = tiny("vgg-small", "bin-5", strided=True)
    assert list(kinds(strided).values()) == [5] * 4
    assert not [m for m in strided.modules() if isinstance(m, DenseMax)]


def test_activation_everywhere_or_low() -> None:
    def count(smooth: str, kind: type) -> int:
        network = tiny("resnet18", activation="silu", smooth=smooth)
        return sum(isinstance(module, kind) for module in network.modules())

    assert (count("all", torch.nn.SiLU), count("all", torch.nn.ReLU)) == (9, 0)
    assert (count("low", torch.nn.SiLU), count("low", torch.nn.ReLU)) == (3, 6)  # stem and the two blocks of stage 1


def test_zero_init_residual_starts_as_the_shortcut() -> None:
    network = tiny("resnet18", zero_init_residual=True).eval()
    x = images(1, 4, 8, 8)
    torch.testing.assert_close(network.layer1[0](x), x.relu())


def test_normalized_standardises_and_keeps_the_keys() -> None:
    network = tiny("vgg-small").eval()
    wrapped = models.normalized(network, (0.4, 0.5, 0.6), (0.2, 0.25, 0.5))
    x = images(2, 3, 32, 32)
    by_hand = torch.stack([(x[:, 0] - 0.4) / 0.2, (x[:, 1] - 0.5) / 0.25, (x[:, 2] - 0.6) / 0.5], 1)
    torch.testing.assert_close(wrapped(x), network(by_hand))
    torch.testing.assert_close(wrapped.features(x), network.features(by_hand))
    x = (255 * x).to(torch.uint8)
    torch.testing.assert_close(wrapped(x), wrapped(x / 255))
    assert list(wrapped.state_dict()) == list(network.state_dict())
    wrapped.load_state_dict(network.state_dict(), strict=True)


def test_filter_everywhere_filters_each_convolution_once() -> None:
    plain, filtered = tiny("resnet50"), tiny("resnet50", "bin-5", filter_everywhere=True)
    filtered.load_state_dict(plain.state_dict(), strict=True)
    filters = {name.removesuffix(".filter") for name in kinds(filtered) if name.endswith(".filter")}
    convolutions = {name for name, module in filtered.named_modules() if isinstance(module, Convolution)}
    strided = {f"layer{stage}.0.{conv}" for stage in (2, 3, 4) for conv in ("conv2", "downsample.0")}
    assert filters == convolutions - strided - {"conv1"}
    x = images(1, 4, 7, 6)
    conv = filtered.layer1[0].conv2
    expected = layers.create("bin-5", 4, stride=1)(torch.nn.functional.conv2d(x, conv.weight, padding=1))
    torch.testing.assert_close(conv(x), expected)
    torch.testing.assert_close(conv(x, 2), expected[..., ::2, ::2])


def test_a_layer_and_a_network_of_ones_own_work_under_their_names(monkeypatch) -> None:
    def build(name, num_classes, style, width):
        return layers.create(style.downsample, num_classes)

    monkeypatch.setitem(layers.CATALOGUE, "mine", layers.Entry(layers.Max, "maximum", "this test"))
    monkeypatch.setitem(models.CATALOGUE, "mine", models.Entry("one layer", "this test", build))
    assert isinstance(models.create("mine", 10, "mine"), layers.Max)
    assert models.resolved("mine", num_classes=10, downsample="mine")["downsample"] == {"name": "mine"}
    converted = models.antialias(torch.nn.Sequential(torch.nn.MaxPool2d(2)), "mine")
    assert any(isinstance(part, layers.Max) for part in converted.modules())
