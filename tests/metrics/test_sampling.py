"""Maximum-sampling bias against loops over windows, and of layers and pools whose answer is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aliasing import layers, metrics
from aliasing.errors import UsageError
from aliasing.metrics.downsampling import sampled
from aliasing.metrics.sampling import mean_bias, windows
from aliasing.metrics.spectra import ideal
from tests.layers.cases import noise
from tests.toys import Custom, SamePadding


def bias(layer, images):
    return metrics.max_sampling_bias(nn.Sequential(layer), images, batch_size=3)["0"]


@pytest.mark.parametrize("name", ["max", "bin-4", "subsample", "aps"])
def test_equals_a_loop_over_windows(name):
    layer, x = layers.create(name, 3), noise(2, 3, 8, 8).relu()
    x[0, 0, :2, :2] = 3.0  # a constant window
    with torch.no_grad():
        y = layer(x)
    counts = {"all": 0, "constant": 0, "exact": 0, "nearest": 0}
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        block = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten().tolist()
        value, top = y[n, c, i, j].item(), max(block)
        counts["all"] += 1
        if min(block) == top:
            counts["constant"] += 1
            continue
        counts["exact"] += abs(value - top) <= 1e-6 * x[n].abs().max().item()
        rest = [v for v in block if v != top]
        counts["nearest"] += abs(value - top) < min(abs(value - v) for v in rest)
    assert counts["constant"] > 0
    assert counts["nearest"] > 0
    result = bias(layer, x)
    uneven = counts["all"] - counts["constant"]
    assert result.constant.value == counts["constant"] / counts["all"]
    assert result.exact.value == counts["exact"] / uneven
    assert result.nearest.value == counts["nearest"] / uneven
    assert result.weight == (result.exact if name in ("subsample", "aps") else None)


def test_weight_follows_the_sample_that_weighs_most():
    images = noise(3, 3, 16, 16)

    class Mixture(layers.Downsample):
        stride = 2

        def sample(self, x, choice=None):
            return 0.1 * (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2]) + 0.7 * x[:, :, 1::2, 1::2]

    blocks = windows(images, (2, 2))
    expected = (blocks[..., 3] == blocks.amax(-1)).double().mean().item()
    found = bias(Mixture(), images)
    assert found.weight.value == pytest.approx(expected) and found.exact.value == 0
    # Of equal weights none leads; and of images of any size beside each other each has a tolerance of its own.
    found = bias(nn.AvgPool2d(2), torch.cat([images[:1], 1e9 * images[1:]]))
    assert (found.weight.value, found.exact.value) == (0, 0)


def test_mixing_weights_of_tips():
    layer = layers.create("tips", 3, padding_mode="circular").double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(100)
    images = noise(3, 3, 16, 16)
    tau = layer.mixing_weights(images).detach()
    blocks = windows(images, (2, 2))
    best = tau.argmax(-1)[:, :, None, None, None].expand(*blocks.shape[:-1], 1)
    expected = (blocks.gather(-1, best)[..., 0] == blocks.amax(-1)).double().mean().item()
    assert bias(layer, images).weight.value == pytest.approx(expected)


def test_strided_layers_of_anybody_are_sites():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    model = nn.Sequential(conv, nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(5, 5, 1), nn.AvgPool2d(2))
    for part in model:  # a hook of their owner is no part of them
        part.register_forward_hook(lambda part, args, y: 3 * y)
    images = torch.rand(2, 3, 15, 16)
    (samples,) = sampled(model, images)
    assert [sample.site for sample in samples] == ["0", "2", "4"]
    dense = torch.nn.functional.conv2d(images, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(samples[0].x, dense[:, :, :15, :16])
    torch.testing.assert_close(samples[0].y, dense[:, :, ::2, ::2])
    assert conv.stride == (2, 2)
    for sample in samples:
        torch.testing.assert_close(sample.operator(sample.x)[:, :, : sample.y.shape[2]], sample.y)
    result = metrics.max_sampling_bias(model, images)
    assert result["2"].exact.value == 1
    assert result["0"].weight is not None


@pytest.mark.parametrize(
    ("run", "maps"),
    [
        (lambda n, x: torch.stack([n.pool(image) for image in x]), 1),
        (lambda n, x: n.pool(torch.cat([x, x.flip(3)])), 4),
    ],
)
def test_maps_belong_to_images(run, maps):
    with pytest.raises(UsageError, match=f"'pool' sees {maps} maps for 2 images"):
        metrics.alias_energy(Custom(run, pool=nn.AvgPool2d(2)), noise(3, 3, 8, 8), batch_size=2)


def test_a_site_that_is_used_twice_has_the_mean_of_its_uses():
    x, pool = noise(2, 3, 8, 8), nn.AvgPool2d(2)
    each = [metrics.alias_energy(pool, maps)[""].value for maps in (x, pool(x))]
    both = metrics.alias_energy(Custom(lambda n, x: n.pool(n.pool(x)), pool=pool), x)["pool"].value
    assert both == pytest.approx(sum(each) / 2) != pytest.approx(each[0])


def test_a_map_smaller_than_its_stride_has_no_windows():
    assert windows(torch.rand(1, 2, 1, 6), (2, 3)).shape == (1, 2, 0, 2, 6)
    (blocks,) = windows(torch.arange(24.0).view(1, 1, 4, 6), (2, 3))
    assert blocks[0, 1, 0].tolist() == [12, 13, 14, 18, 19, 20]


def test_a_network_in_training_is_not_changed_by_the_look():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), layers.create("ddac", 8)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (metrics.max_sampling_bias(model, torch.ones(4, 3, 8, 8))["1"] for _ in range(2))
    assert first == second and model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_convolution_that_pads_for_its_stride_is_looked_at_with_the_padding_it_has():
    """At stride 2 an even map gets its one pixel at the right and bottom."""
    ((sample,),) = sampled(nn.Sequential(SamePadding(3, 5, 3, stride=2)), torch.rand(2, 3, 8, 8))
    assert sample.x.shape == (2, 5, 7, 7)
    torch.testing.assert_close(sample.operator(sample.x), sample.y)


@pytest.mark.parametrize("size", [4, 6, 8])
def test_windows_without_an_output_are_skipped(size):
    """Of 4 pixels MaxPool2d(3, 2) keeps one window, whose output was compared with all four blocks."""
    x = noise(2, 3, size, size)
    result = bias(nn.MaxPool2d(3, 2), x)
    kept = (size - 3) // 2 + 1
    y, blocks = F.max_pool2d(x, 3, 2), windows(x, (2, 2))[:, :, :kept, :kept]
    assert result.exact.value == (y == blocks.amax(-1)).double().mean().item()
    assert bias(nn.AvgPool2d(3, 2), x).weight is None
    assert bias(nn.MaxPool2d(1, 2), x).exact.value == bias(layers.create("subsample", 3), x).exact.value


def test_of_a_pool_whose_windows_lie_elsewhere_no_bias_is_known():
    """Its blocks begin a pixel before the map: it is a maximum of each of its windows, and was said to be none."""
    for size in (2, 8, 9):
        result = bias(nn.MaxPool2d(2, padding=1), noise(2, 3, size, size))
        assert all(math.isnan(share.value) for share in (result.exact, result.nearest, result.constant))
        model, x = nn.AvgPool2d(2, padding=1), noise(2, 3, size, size)
        target = ideal(x, (2, 2))
        error = (model(x)[:, :, : target.shape[2], : target.shape[3]] - target).abs().sum((1, 2, 3))
        expected = (error / target.abs().sum((1, 2, 3))).mean().item()
        assert metrics.alias_error(model, x)[""].value == pytest.approx(expected)
    assert bias(nn.MaxPool2d(3, 2, padding=1), noise(2, 3, 8, 8)).nearest.value > 0.9


def test_each_axis_has_its_own_stride():
    """Stripes at the highest frequency alias where every second of them is dropped, not along the other axis."""
    lying = (torch.arange(8.0) % 2)[:, None].expand(1, 3, 8, 8)
    for pool in (nn.MaxPool2d((1, 2)), nn.Conv2d(3, 3, 1, stride=(1, 2))):
        energy = [metrics.alias_energy(pool, images)[""].value for images in (lying, lying.mT)]
        assert energy == pytest.approx([0, 1], abs=1e-6)
        assert metrics.alias_error(pool, lying)[""].value == pytest.approx(0, abs=1e-5)
    assert metrics.max_sampling_bias(nn.MaxPool2d((1, 2)), lying.mT)[""].exact.value == 1


def test_the_mean_over_sites_leaves_out_a_site_whose_windows_are_constant():
    assert mean_bias([0.1, 0.3, None], [0.2, 0.0, 1.0]) == 0.2
    assert mean_bias([None, None], [0.2, 0.0]) is None  # the definition does not apply
    assert mean_bias([None], [1.0]) is None
