"""Equivariance maps, realignment, sweeps, readouts and typicality: against loops and for networks known by hand."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from aliasing import layers, metrics, models
from aliasing.errors import UsageError
from aliasing.metrics.canvases import shrink
from aliasing.metrics.downsampling import outputs
from aliasing.metrics.motion import ONE_PIXEL_ROLLS, _enlarged, realigned, realigned_errors
from aliasing.metrics.sweeps import crossings
from tests.toys import Answer, Custom, noise


def circular_network():
    torch.manual_seed(0)
    return models.create("vgg-small", 3, padding_mode="circular", width=4).double()


def chain(channels=4):
    """Convolution, then two subsamplings."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, channels, 3, padding=1, padding_mode="circular")
    down = [layers.create("subsample", channels) for _ in range(2)]
    return nn.Sequential(conv, nn.ReLU(inplace=True), *down, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


# --- equivariance ----------------------------------------------------------------------------------------------------


def test_equivariance_equals_a_loop():
    model, images = chain().double(), noise(3, 3, 16, 16)
    maps = metrics.equivariance_maps(model, images, ["3"], max_shift=1)
    front = model[:4]

    def features(x):
        with torch.no_grad():
            return front(x).repeat_interleave(4, 2).repeat_interleave(4, 3)

    for i, down in enumerate((-1, 0, 1)):
        for j, right in enumerate((-1, 0, 1)):
            distances = []
            for image in images.split(1):
                a = features(image).roll((down, right), (2, 3)).flatten()
                b = features(image.roll((down, right), (2, 3))).flatten()
                distances.append(1 - (a @ b / a.norm() / b.norm()).item())
            assert maps["3"][i, j].item() == pytest.approx(sum(distances) / 3, abs=1e-12)


def test_maps_of_zeros_and_of_any_stride_are_equivariant():
    """A cosine of zeros is none; by a scale of 1 / 41 in float32 pixel 41 was the first of the map, not the second."""
    images = noise(2, 3, 82, 82)
    model = nn.Sequential(nn.AvgPool2d(41), nn.Threshold(2, 0))
    maps = metrics.equivariance_maps(model, images, ["0", "1"], 0)
    assert maps["1"].item() == 0
    (features,) = _enlarged(model, images, ["0"], 2).values()
    assert features.equal(nn.functional.avg_pool2d(images, 41).repeat_interleave(41, 2).repeat_interleave(41, 3))


def test_features_are_those_before_activations_that_work_in_place():
    model, images = chain().double(), noise(3, 3, 16, 16)
    (seen,) = outputs(model, images, ["0", "1"])
    torch.testing.assert_close(seen["0"], model[0](images).detach())
    torch.testing.assert_close(seen["1"], seen["0"].relu())


def test_a_moved_map_has_no_error_up_to_the_reach_and_a_lost_one_has_all():
    maps = noise(3, 2, 6, 4)
    assert realigned(maps, maps.roll((1, -1), (2, 3))).max() == 0
    assert realigned(maps, maps.roll(2, 2)).min() > 0.1
    assert realigned(maps, torch.zeros_like(maps)) == pytest.approx(1)


def test_against_a_slow_version():
    network = circular_network().eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    worst = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for down, right in ONE_PIXEL_ROLLS:
            for index, image in enumerate(images):
                plain, moved = (network.stages[0](x) for x in (image[None], image.roll((down, right), (1, 2))[None]))
                candidates = [plain.roll((i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
                error = min((moved - candidate).norm() for candidate in candidates) / plain.norm()
                worst[index] = max(worst[index], error)
        means = [network.stages(images.roll(by, (2, 3))).mean((2, 3)) for by in ((0, 0), *ONE_PIXEL_ROLLS)]
    changes = [(means[0] - moved).norm(dim=1) / means[0].norm(dim=1) for moved in means[1:]]
    found = realigned_errors(network, images)
    assert found.maps[0] == pytest.approx(worst.mean().item())
    assert found.pooled == pytest.approx(torch.stack(changes).amax(0).mean().item())


# --- sweeps ----------------------------------------------------------------------------------------------------------


def test_crossings_by_hand():
    inside = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    result = crossings(inside)
    assert result.crossings == 4
    assert result.images.value == 2 / 4
    assert result.pairs.value == 4 / 16


@pytest.mark.parametrize("border", ["black", "inpainting"])
def test_the_picture_moves_down_one_row_per_frame(border):
    images = noise(2, 3, 32, 32)
    frames = metrics.vertical_sweep(images, border=border)
    assert frames.shape == (14, 2, 3, 32, 32)  # 101 of 224 positions
    if border != "inpainting":
        for earlier, later in pairwise(frames):
            assert torch.equal(later[:, :, 1:], earlier[:, :, :-1])
    small = shrink(images, 14)
    torch.testing.assert_close(frames[0, :, :, 2:16, 9:23], small)
    torch.testing.assert_close(frames[13, :, :, 15:29, 9:23], small)


def test_jaggedness_by_hand():
    """Class 0 while the brightest row is even, class 1 while it is odd."""
    by_row = Answer(lambda x: nn.functional.one_hot(x.mean((1, 3)).argmax(1) % 2, 2).double())
    images = torch.zeros(2, 3, 8, 8)
    images[:, :, 2] = 1
    result = metrics.jaggedness(by_row, images, torch.tensor([0, 1]), top=1, border="circular")
    assert result == (14, metrics.Estimate.proportion(2, 2), metrics.Estimate(1, 1, 1, 2))
    frames = metrics.vertical_sweep(images, 3, "circular")
    probability, rank = metrics.probability_curves(by_row, frames, torch.tensor([0, 1]))
    likely = torch.e / (torch.e + 1)
    expected = torch.tensor([[likely, 1 - likely, likely], [1 - likely, likely, 1 - likely]]).double()
    torch.testing.assert_close(probability, expected)
    assert rank.tolist() == [[0, 1, 0], [1, 0, 1]]


def test_non_shiftability_equals_a_loop():
    model, images, names = chain().double(), noise(5, 3, 16, 16), ["2", "3"]
    ours = metrics.non_shiftability(model, images, names, border="black", generator=torch.Generator().manual_seed(8))
    draws = torch.rand(5, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64).tolist()
    frames = metrics.vertical_sweep(images, border="black")
    for index, name in enumerate(names):
        shares = []
        for n in range(5):
            channel = int(4 * draws[n][index])
            with torch.no_grad():
                sums = [model[: int(name) + 1](frame[n : n + 1])[0, channel].sum().item() for frame in frames]
            mean = sum(sums) / len(sums)
            shares.append(sum(abs(value - mean) >= 0.2 * abs(mean) and value != mean for value in sums) / len(sums))
        assert 0 < sum(shares) < 5
        assert ours[name].value == pytest.approx(sum(shares) / 5)


# --- readouts and typicality -----------------------------------------------------------------------------------------


def test_readouts_separate_what_the_layer_separates():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(200, 3, 8, 8, generator=generator) * 0.5
    labels = (torch.rand(200, generator=generator) < 0.5).long()
    images[:, 1] += 0.2 * labels[:, None, None]  # green tells the class
    blind = nn.Conv2d(3, 1, 1, bias=False)
    blind.weight.data = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    readouts = metrics.fit_readouts(nn.Sequential(nn.Identity(), blind), images, labels, ["0", "1"], batch_size=64)

    def accuracy(name):
        return (metrics.predict(readouts[name], images, 50).argmax(1) == labels).double().mean().item()

    assert accuracy("0") == 1
    assert accuracy("1") < 0.65
    assert metrics.consistency(readouts["0"], images).value == 1
    # At the optimum the gradient vanishes: recompute the penalised loss by hand.
    readout = readouts["0"]
    inputs = images.mean((2, 3))
    inputs = (inputs - inputs.mean(0)) / inputs.std(0, correction=0)
    weight = readout.classifier.weight.clone().requires_grad_()
    logits = inputs @ weight.T + readout.classifier.bias
    loss = nn.functional.cross_entropy(logits, labels) + 1e-3 / 2 * weight.square().sum()
    assert torch.autograd.grad(loss, weight)[0].abs().max() < 1e-3


def test_a_readout_is_measured_like_a_network_and_of_one_layer_whatever_others_are_asked_for():
    network, x = circular_network(), torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    layer, pool = "stages.0.1.max", "stages.0.1.down"
    alone, both = (next(outputs(network, x, names, 20)) for names in ([layer], [layer, pool]))
    assert torch.equal(alone[layer], both[layer])
    readouts = metrics.fit_readouts(network, x, torch.arange(20) % 2, ["stages.0", pool])
    assert 0 < metrics.consistency(readouts["stages.0"], x[:2], exhaustive=True).value <= 1
    with pytest.raises(UsageError, match="no downsampling site of Readout is seen at work"):
        metrics.alias_energy(readouts[pool], x)


@pytest.mark.parametrize("case", ["twice", "in place", "half", "defined first", "by name"])
def test_features_belong_to_their_images(case):
    def run(net, x):
        features = x.mean((2, 3))
        if case == "defined first":
            x = x * net.gate(1 - features).sigmoid()[..., None, None]
        if case == "twice":
            net.head(1 - features)
        logits = net.head(input=features) if case == "by name" else net.head(features)
        features.zero_()
        return logits

    images = noise(5, 3, 16, 16)
    model = Custom(run, head=nn.Linear(3, 2), gate=nn.Linear(3, 1)).to(torch.half if case == "half" else torch.double)
    expected = nn.functional.normalize(images.mean((2, 3)), dim=1)
    found = metrics.embedding(model, images, batch_size=2)
    torch.testing.assert_close(found.double(), expected, atol=1e-3 if case == "half" else 1e-9, rtol=0)


def test_typicality_equals_a_loop():
    model = circular_network()
    known, queries = noise(30, 3, 16, 16), noise(34, 3, 16, 16)[30:]
    ours = metrics.typicality(model, queries, known, neighbours=3, batch_size=7)
    features = []
    last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: features.append(nn.functional.normalize(inputs[0].flatten(1))))
    for images in (known, queries):
        metrics.predict(model, images)
    for value, query in zip(ours, features[1], strict=True):
        nearest = sorted((query - one).norm().item() for one in features[0])[:3]
        assert value.item() == pytest.approx(sum(nearest) / 3)
    assert metrics.typicality(model, known[:4], known, neighbours=1).max() < 1e-7
