"""APS and LPS against loops in NumPy, and what they promise under every circular shift."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate
from torch import nn

from aliasing.layers import _phases, definitions
from aliasing.layers.polyphase import APS, LPS
from tests.layers.cases import FORMATS, MODES, NUMPY_MODES, check, filtered, noise

SHAPES = [(1, 1), (1, 6), (5, 1), (2, 3), (4, 4), (7, 4), (6, 9), (8, 8)]


def completed(x, stride, mode):
    """NumPy's own padding at the bottom and right, up to sides that the stride divides."""
    amounts = [(0, 0), (0, 0), (0, -x.shape[2] % stride), (0, -x.shape[3] % stride)]
    return np.pad(x, amounts, mode=NUMPY_MODES[mode])


def phases(x, stride):
    return [x[..., i::stride, j::stride] for i in range(stride) for j in range(stride)]


def score(phase, norm):
    return phase.max() if norm == "max" else np.linalg.norm(phase.ravel(), float(norm))


def oracle_index(image, stride, norm=2, smallest=False):
    scores = [score(phase, norm) for phase in phases(image, stride)]
    return int(np.argmin(scores) if smallest else np.argmax(scores))


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_aps_is_the_oracle(stride):
    for shape, mode in product(SHAPES, MODES):
        x = noise(3, 2, *shape, seed=sum(shape))
        layer, padded = APS(2, stride, mode), completed(x.numpy(), stride, mode)
        index = layer.choose(x).tolist()
        for image, k in zip(padded, index, strict=True):
            scores = [score(phase, 2) for phase in phases(image, stride)]
            assert scores[k] == pytest.approx(max(scores), rel=1e-12)  # padding by reflection can tie
        expected = np.stack([phases(image, stride)[k] for image, k in zip(padded, index, strict=True)])
        np.testing.assert_array_equal(layer(x).numpy(), expected)


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("norm", [1, 2, 3, "inf", "max"])
def test_aps_norms(norm, smallest, monkeypatch):
    monkeypatch.setattr(_phases, "CHUNK", 500)  # two images at a time
    x = noise(7, 3, 8, 10, seed=3)
    expected = [oracle_index(image, 2, norm, smallest) for image in x.numpy()]
    assert len(set(expected)) > 1
    for memory_format in FORMATS:
        given = x.contiguous(memory_format=memory_format)
        assert APS(3, norm=norm, smallest=smallest).choose(given).tolist() == expected


def test_aps_norm_is_not_taken_in_bfloat16():
    # Both phases have norm 256 in bfloat16, whose next number is 258.
    x = torch.zeros(1, 257, 1, 2, dtype=torch.bfloat16)
    x[:, :256, 0, 0] = 1
    x[:, :, 0, 1] = 1
    assert APS(257).choose(x).tolist() == [1]


@pytest.mark.parametrize("norm", [1, 2, 3, 50])
def test_aps_chooses_alike_at_every_magnitude(norm):
    x = noise(20, 2, 6, 8, dtype=torch.float32)
    layer = APS(2, norm=norm)
    expected = APS(2, norm=norm).choose(x.double()).tolist()
    assert len(set(expected)) > 1
    for scale in (1e-30, 1e-20, 1, 1e20, 1e30):
        assert layer.choose(scale * x).tolist() == expected
    for equal in (torch.zeros_like(x), torch.ones_like(x)):  # the first of equal phases
        assert layer.choose(equal).tolist() == [0] * 20
    assert layer.choose(x[:0]).tolist() == []
    for odd in (torch.nan, torch.inf):  # is larger than all numbers
        x[:, 0, 1, 1] = odd
        assert layer.choose(x).tolist() == layer.choose(1e30 * x).tolist() == [3] * 20
    expected = [oracle_index(image, 2, norm, smallest=True) for image in x.numpy()]
    assert APS(2, norm=norm, smallest=True).choose(x).tolist() == expected


def test_aps_chooses_for_each_image_alone_and_says_by_which_norm():
    images = noise(200, 4, 16, 16)
    images = images + images.flip(3)  # phases that tie but for rounding
    beside = APS(4).choose(torch.cat([images, images[:1] * 0]))  # what is black is rescaled
    assert torch.equal(beside[:200], APS(4).choose(images))
    assert "norm" not in repr(APS(4)) and "norm=1" in repr(APS(4, norm=1)) and "norm='max'" in repr(APS(4, norm="max"))


@pytest.mark.parametrize(("blur", "taps"), [("rect-2", [1, 1]), ("tri-3", [1, 2, 1]), ("bin-5", [1, 4, 6, 4, 1])])
@pytest.mark.parametrize("choose_from", ["blurred", "input"])
def test_aps_blurred(blur, taps, choose_from):
    x = noise(20, 2, 6, 8, seed=4)
    taps = np.array(taps) / sum(taps)
    blurred = np.array([[filtered(x, taps, 1, "circular") for x in image] for image in x.numpy()])
    source = blurred if choose_from == "blurred" else x.numpy()
    index = [oracle_index(image, 2) for image in source]
    layer = APS(2, blur=blur, choose_from=choose_from)
    assert layer.choose(x).tolist() == index
    expected = np.stack([phases(image, 2)[k] for image, k in zip(blurred, index, strict=True)])
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-12)
    assert torch.equal(layer(x), layer.sample(x, layer.choose(x)))


def oracle_logits(layer, x, stride):
    def convolve(x, conv):
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        pairs = [[correlate(*pair, mode="wrap") for pair in zip(x, kernels, strict=True)] for kernels in weight]
        return np.sum(pairs, 1) + bias[:, None, None]

    def logit(phase):
        return convolve(np.maximum(convolve(phase, layer.first), 0), layer.second).mean()

    return np.array([[logit(phase) for phase in phases(image, stride)] for image in x])


@pytest.mark.parametrize(
    ("shape", "stride"), [((4, 6), 2), ((5, 4), 2), ((6, 3), 3), ((2, 2), 2), ((1, 5), 4), ((4, 4), 1)]
)
def test_lps_logits_are_the_oracle(shape, stride):
    torch.manual_seed(0)
    layer = LPS(2, stride, hidden=3).double().eval()
    x = noise(4, 2, *shape, seed=5)
    padded = completed(x.numpy(), stride, "circular")
    expected = oracle_logits(layer, padded, stride)
    np.testing.assert_allclose(layer.logits(torch.from_numpy(padded)).detach().numpy(), expected, atol=1e-12)
    index = expected.argmax(1)
    assert layer.choose(x).tolist() == index.tolist()
    chosen = np.stack([phases(image, stride)[k] for image, k in zip(padded, index, strict=True)])
    check(layer, x, chosen)


def test_lps_scores_by_parametrised_weights():
    torch.manual_seed(0)
    layer, x = LPS(2).double().eval(), noise(4, 2, 4, 6)
    nn.utils.parametrizations.spectral_norm(layer.first.eval())
    scores = layer.logits(x)
    with definitions():
        torch.testing.assert_close(layer.logits(x), scores)


def test_lps_training_mixes_by_gumbel_softmax():
    torch.manual_seed(0)
    layer = LPS(2, temperature=0.7).double()
    x = noise(3, 2, 4, 6)
    torch.manual_seed(1)
    weights = layer.choose(x)
    torch.manual_seed(1)
    expected = F.gumbel_softmax(layer.logits(x), tau=0.7)  # the framework's, with the same draws
    torch.testing.assert_close(weights, expected)
    mixed = sum(weights[:, p, None, None, None] * phase for p, phase in enumerate(phases(x, 2)))
    torch.testing.assert_close(layer.sample(x, weights), mixed)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (layer.first.weight, layer.second.weight))


def stack(layer, padding_mode="circular"):
    """Convolution, ReLU, downsampling, twice; ``zeros`` as padding of the convolutions breaks exactness."""
    torch.manual_seed(0)
    parts = []
    for channels in (2, 6):
        parts += [nn.Conv2d(channels, 6, 3, padding=1, padding_mode=padding_mode), nn.ReLU(), layer(6)]
    return nn.Sequential(*parts)


def worst_error(network, x, train=False):
    """Largest difference, after the best re-alignment, of the maps of every circular shift; relative to the maps."""

    def run(x):
        torch.manual_seed(0)  # in training the same noise every time
        return network(x)

    network.double().train(train)
    with torch.no_grad():
        reference = run(x)
        h, w = reference.shape[2:]
        rolls = torch.stack([reference.roll((a, b), (2, 3)) for a, b in product(range(h), range(w))])
        moved = [run(x.roll(shift, (2, 3))) for shift in product(range(x.shape[2]), range(x.shape[3]))]
        errors = [(rolls - y).abs().amax((2, 3, 4)).amin(0).max() / reference.abs().max() for y in moved]
    return max(map(float, errors))


EXACT = {
    "aps": APS,
    "aps of stride 3": lambda c: APS(c, 3),
    "aps blurred": lambda c: APS(c, blur="tri-3"),
    "lps": lambda c: LPS(c, hidden=3),
    "lps blurred": lambda c: LPS(c, hidden=3, blur="rect-2"),
}


@pytest.mark.parametrize("name", EXACT)
def test_maps_of_two_layers_move_by_whole_pixels_under_every_circular_shift(name):
    size = (9, 18) if name == "aps of stride 3" else (8, 12)
    assert worst_error(stack(EXACT[name]), noise(2, 2, *size)) < 1e-12


@pytest.mark.parametrize(
    ("name", "padding", "train"), [("aps", "zeros", False), ("lps", "zeros", False), ("lps", "circular", True)]
)
def test_each_condition_is_necessary(name, padding, train):
    assert worst_error(stack(EXACT[name], padding), noise(3, 2, 8, 12), train) > 0.05


def test_samples_go_back_to_where_they_were_taken_from():
    """By an index and by weights: one is the transpose of the other; what completed an odd map is cut off."""
    layer, x, y = APS(3), noise(4, 3, 6, 8), noise(4, 3, 3, 4, seed=1)
    for choice in (layer.choose(x), noise(4, 4, seed=2).softmax(1)):
        back = _phases.spread(y, choice, 2, (6, 8))
        torch.testing.assert_close((layer.sample(x, choice) * y).sum(), (x * back).sum())
        assert torch.equal(_phases.spread(y, choice, 2, (5, 7)), back[..., :5, :7])


def test_gradients_of_mixtures_and_scores():
    torch.manual_seed(0)
    lps, x = LPS(2, hidden=2).double(), noise(2, 2, 6, 4).requires_grad_()
    weights = noise(2, 4, seed=1).softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lps.sample, (x, weights))
    assert torch.autograd.gradcheck(lps.logits, x)
