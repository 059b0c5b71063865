"""APS and LPS against loops in NumPy, and what they promise under every circular shift."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aliasing.errors import UsageError
from aliasing.layers import _phases
from aliasing.layers.polyphase import APS, LPS

MODES = ("reflect", "circular", "zeros", "replicate")
NUMPY_MODES = {"reflect": "reflect", "circular": "wrap", "zeros": "constant", "replicate": "edge"}
SHAPES = [(1, 1), (1, 6), (5, 1), (2, 3), (4, 4), (7, 4), (6, 9), (8, 8)]


def completed(x, stride, mode):
    """NumPy's own padding at the bottom and right, up to sides that the stride divides."""
    amounts = [(0, 0), (0, 0), (0, -x.shape[2] % stride), (0, -x.shape[3] % stride)]
    return np.pad(x, amounts, mode=NUMPY_MODES[mode])


def phases(x, stride):
    return [x[..., i::stride, j::stride] for i in range(stride) for j in range(stride)]


def score(phase, norm):
    return {
        1: lambda: np.abs(phase).sum(),
        2: lambda: (phase**2).sum(),
        3: lambda: (np.abs(phase) ** 3).sum(),
        "inf": lambda: np.abs(phase).max(),
        "max": lambda: phase.max(),
    }[norm]()


def oracle_index(image, stride, norm=2, smallest=False):
    scores = [score(phase, norm) for phase in phases(image, stride)]
    return int(np.argmin(scores) if smallest else np.argmax(scores))


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def each_shift(stride):
    return [(a, b) for a, b in product(range(-stride, stride + 1), repeat=2) if (a, b) != (0, 0)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_aps_is_the_oracle(shape, mode, stride):
    x = noise(3, 2, *shape, seed=sum(shape))
    layer = APS(2, stride, mode)
    padded = completed(x.numpy(), stride, mode)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=memory_format)
        index = layer.choose(given).tolist()
        for image, k in zip(padded, index, strict=True):
            scores = [score(phase, 2) for phase in phases(image, stride)]
            assert scores[k] == pytest.approx(max(scores), rel=1e-12)  # padding by reflection can tie
        expected = np.stack([phases(image, stride)[k] for image, k in zip(padded, index, strict=True)])
        y = layer(given)
        np.testing.assert_array_equal(y.numpy(), expected)
        assert y.shape[2:] == (-(-shape[0] // stride), -(-shape[1] // stride))
        assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("norm", [1, 2, 3, "inf", "max"])
def test_aps_norms(norm, smallest, monkeypatch):
    monkeypatch.setattr(_phases, "CHUNK", 500)  # two images at a time
    x = noise(7, 3, 8, 10, seed=3)
    expected = [oracle_index(image, 2, norm, smallest) for image in x.numpy()]
    assert len(set(expected)) > 1
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=memory_format)
        assert APS(3, norm=norm, smallest=smallest).choose(given).tolist() == expected


def test_aps_known_answer():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    layer = APS(1)
    assert layer.choose(x).tolist() == [3]
    assert layer(x).tolist() == [[[[5, 7], [13, 15]]]]


def test_aps_resolves_equal_phases_in_favour_of_the_first():
    assert APS(1).choose(torch.ones(2, 1, 4, 4)).tolist() == [0, 0]
    half = noise(1, 1, 4, 4)
    mirrored = torch.cat([half, half.flip(3)], 3)
    norms = APS(1)._norms(mirrored)[0]
    torch.testing.assert_close(norms[0::2], norms[1::2])  # the tie the docstring warns of


def test_aps_norm_is_not_taken_in_bfloat16():
    # Both phases have norm 256 in bfloat16, whose next number is 258.
    x = torch.zeros(1, 257, 1, 2, dtype=torch.bfloat16)
    x[:, :256, 0, 0] = 1
    x[:, :, 0, 1] = 1
    assert APS(257).choose(x).tolist() == [1]


@pytest.mark.parametrize(("blur", "taps"), [("rect-2", [1, 1]), ("tri-3", [1, 2, 1]), ("bin-5", [1, 4, 6, 4, 1])])
@pytest.mark.parametrize("choose_from", ["blurred", "input"])
def test_aps_blurred(blur, taps, choose_from):
    x = noise(20, 2, 6, 8, seed=4)
    blurred = np.zeros(x.shape)
    taps = np.array(taps) / sum(taps)
    start = (len(taps) - 1) // 2
    for i, j in product(range(len(taps)), repeat=2):
        blurred += taps[i] * taps[j] * np.roll(x.numpy(), (start - i, start - j), (2, 3))
    source = blurred if choose_from == "blurred" else x.numpy()
    index = [oracle_index(image, 2) for image in source]
    layer = APS(2, blur=blur, choose_from=choose_from)
    assert layer.choose(x).tolist() == index
    expected = np.stack([phases(image, 2)[k] for image, k in zip(blurred, index, strict=True)])
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-12)
    assert torch.equal(layer(x), layer.sample(x, layer.choose(x)))


def test_where_the_index_comes_from_matters():
    x = noise(20, 2, 6, 8, seed=4)
    blurred, plain = (APS(2, blur="bin-5", choose_from=source).choose(x) for source in ("blurred", "input"))
    assert not torch.equal(blurred, plain)


def oracle_logits(layer, x, stride):
    def convolve(x, conv):
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        y = np.zeros((len(weight), *x.shape[1:])) + bias[:, None, None]
        for o, c, i, j in np.ndindex(*weight.shape):
            y[o] += weight[o, c, i, j] * np.roll(x[c], (1 - i, 1 - j), (0, 1))
        return y

    return np.array(
        [
            [
                convolve(np.maximum(convolve(phase, layer.first), 0), layer.second).mean()
                for phase in phases(image, stride)
            ]
            for image in x
        ]
    )


@pytest.mark.parametrize(
    ("shape", "stride"), [((4, 6), 2), ((5, 4), 2), ((6, 3), 3), ((2, 2), 2), ((1, 5), 4), ((4, 4), 1)]
)
def test_lps_logits_are_the_oracle(shape, stride):
    torch.manual_seed(0)
    layer = LPS(2, stride, hidden=3).double().eval()
    x = noise(4, 2, *shape, seed=5)
    padded = completed(x.numpy(), stride, "circular")
    expected = oracle_logits(layer, padded, stride)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = torch.from_numpy(padded).contiguous(memory_format=memory_format)
        np.testing.assert_allclose(layer.logits(given).detach().numpy(), expected, atol=1e-12)
    index = expected.argmax(1)
    assert layer.choose(x).tolist() == index.tolist()
    chosen = np.stack([phases(image, stride)[k] for image, k in zip(padded, index, strict=True)])
    np.testing.assert_array_equal(layer(x).detach().numpy(), chosen)


def test_lps_training_mixes_by_gumbel_softmax():
    torch.manual_seed(0)
    layer = LPS(2, temperature=0.7).double()
    x = noise(3, 2, 4, 6)
    torch.manual_seed(1)
    weights = layer.choose(x)
    torch.manual_seed(1)
    expected = F.gumbel_softmax(layer.logits(x), tau=0.7)  # the framework's, with the same draws
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    mixed = sum(weights[:, p, None, None, None] * phase for p, phase in enumerate(phases(x, 2)))
    torch.testing.assert_close(layer.sample(x, weights), mixed)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (layer.first.weight, layer.second.weight))


def test_lps_weights_become_choices_as_the_temperature_falls():
    torch.manual_seed(0)
    layer = LPS(2)
    x = noise(50, 2, 4, 4, dtype=torch.float32)
    sharpness = []
    for layer.temperature in (10.0, 1.0, 0.01):
        sharpness.append(layer.choose(x).amax(1).mean().item())
    assert sharpness[0] < 0.35 < sharpness[1] < 0.95 < sharpness[2]


class Stack(nn.Module):
    """Convolution, ReLU, downsampling, twice; ``zeros`` as padding of the convolutions breaks exactness."""

    def __init__(self, layer, padding_mode="circular"):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.Sequential(
            *[
                part
                for channels in (2, 6)
                for part in (nn.Conv2d(channels, 6, 3, padding=1, padding_mode=padding_mode), nn.ReLU(), layer(6))
            ]
        )

    def forward(self, x):
        return self.parts(x)


class Residual(nn.Module):
    """Two residual blocks whose branches share one choice, or do not."""

    def __init__(self, layer, shared=True):
        super().__init__()
        torch.manual_seed(0)
        self.shared = shared
        self.layers = nn.ModuleList(layer(4) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular") for _ in range(2))

    def forward(self, x):
        for k, conv in enumerate(self.convs):
            main, side = self.layers[2 * k], self.layers[2 * k + 1]
            h = conv(x).relu()
            choice = main.choose(h)
            x = main.sample(h, choice) + side.sample(x, choice if self.shared else None)
        return x


def worst_error(network, x):
    """Largest difference, after the best re-alignment, of the maps of every circular shift; relative to the maps."""
    network = network.double().eval() if not getattr(network, "keep_mode", False) else network.double()
    with torch.no_grad():
        reference = network(x)
        h, w = reference.shape[2:]
        rolls = torch.stack([reference.roll((a, b), (2, 3)) for a, b in product(range(h), range(w))])
        worst = 0.0
        for shift in product(range(x.shape[2]), range(x.shape[3])):
            if hasattr(network, "keep_mode"):
                torch.manual_seed(0)  # the same noise every time
            moved = network(x.roll(shift, (2, 3)))
            error = (rolls - moved).abs().amax((2, 3, 4)).amin(0).max()
            worst = max(worst, float(error / reference.abs().max()))
    return worst


EXACT = {
    "aps": lambda c: APS(c),
    "aps l1": lambda c: APS(c, norm=1),
    "aps smallest": lambda c: APS(c, smallest=True),
    "aps blurred": lambda c: APS(c, blur="tri-3"),
    "aps blurred, index from the input": lambda c: APS(c, blur="bin-4", choose_from="input"),
    "lps": lambda c: LPS(c, hidden=3),
    "lps blurred": lambda c: LPS(c, hidden=3, blur="rect-2"),
}


@pytest.mark.parametrize("name", EXACT)
def test_maps_of_two_layers_move_by_whole_pixels_under_every_circular_shift(name):
    assert worst_error(Stack(EXACT[name]), noise(3, 2, 8, 12)) < 1e-12


def test_stride_three_is_exact_too():
    assert worst_error(Stack(lambda c: APS(c, 3)), noise(2, 2, 9, 18)) < 1e-12


@pytest.mark.parametrize("name", ["aps", "aps blurred", "lps"])
def test_residual_blocks_need_one_choice_for_both_branches(name):
    x = noise(3, 4, 8, 12)
    assert worst_error(Residual(EXACT[name]), x) < 1e-12
    assert worst_error(Residual(EXACT[name], shared=False), x) > 0.1


class PerChannel(nn.Module):
    """The index of every channel on its own: what APS must not do."""

    def __init__(self, channels):
        super().__init__()
        self.layer = APS(1)

    def forward(self, x):
        return self.layer(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2])[:, :, 0]


def zero_padded_scores(channels):
    layer = LPS(channels, hidden=3)
    first, second = layer.first, layer.second
    for conv in (first, second):
        conv.padding = (1, 1)
    layer.pick = lambda x: torch.stack([second(first(p).relu()).mean((1, 2, 3)) for p in phases(x, 2)], 1).argmax(1)
    return layer


@pytest.mark.parametrize(
    "network",
    [
        lambda: Stack(PerChannel),
        lambda: Stack(EXACT["aps"], padding_mode="zeros"),
        lambda: Stack(EXACT["lps"], padding_mode="zeros"),
        lambda: Stack(zero_padded_scores),
    ],
    ids=["index per channel", "aps, zero padding", "lps, zero padding", "lps, zero-padded scores"],
)
def test_each_condition_is_necessary(network):
    assert worst_error(network(), noise(3, 2, 8, 12)) > 0.05


def test_lps_in_training_mode_is_not_equivariant():
    network = Stack(EXACT["lps"])
    network.keep_mode = True
    assert worst_error(network.train(), noise(3, 2, 8, 12)) > 0.1


def test_samples_go_back_to_where_they_were_taken_from():
    x = noise(4, 3, 5, 7)
    layer = APS(3)
    choice = layer.choose(x)
    back = _phases.spread(layer.sample(x, choice), choice, 2, (5, 7))
    for image, placed, k in zip(x, back, choice.tolist(), strict=True):
        kept = torch.zeros(5, 7, dtype=torch.bool)
        kept[k // 2 :: 2, k % 2 :: 2] = True
        assert torch.equal(placed, image * kept)
    weights, y = noise(4, 4, seed=2).softmax(1), noise(4, 3, 3, 4, seed=1)
    whole = noise(4, 3, 6, 8)
    left = (layer.sample(whole, weights) * y).sum()
    torch.testing.assert_close(left, (whole * _phases.spread(y, weights, 2)).sum())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients(memory_format):
    x = noise(2, 2, 5, 4).contiguous(memory_format=memory_format).requires_grad_()
    torch.manual_seed(0)
    lps = LPS(2, hidden=2).double()
    assert torch.autograd.gradcheck(APS(2, blur="tri-3"), x)
    assert torch.autograd.gradcheck(lps.eval(), x)
    weights = noise(2, 4, seed=1).softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: lps.sample(x, w), (x, weights))
    assert torch.autograd.gradcheck(lambda x: lps.logits(x[:, :, :4]), x)


def test_mixing_in_float32_has_the_gradients_of_float64():
    x, weights = noise(2, 3, 6, 4), noise(2, 3, 4, seed=1)
    results = []
    for dtype in (torch.float64, torch.float32):
        leaves = [t.to(dtype).requires_grad_() for t in (x, weights)]
        y = _phases.mix(*leaves, (2, 2))
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for wide, narrow in zip(*results, strict=True):
        torch.testing.assert_close(narrow.double(), wide, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("amounts", [(1, 1, 1, 1), (0, 3, 2, 0), (4, 9, 5, 1)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 2), (9, 5)])
def test_padding_is_numpys(mode, amounts, shape):
    x = noise(2, 2, *shape)
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), amounts[:2], amounts[2:]], mode=NUMPY_MODES[mode])
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=memory_format)
        np.testing.assert_array_equal(_phases.pad(given, *amounts, mode).numpy(), expected)
    assert torch.autograd.gradcheck(lambda x: _phases.pad(x, *amounts, mode), x[:1, :1].clone().requires_grad_())


def test_bad_arguments():
    with pytest.raises(UsageError, match="stride must be 1 to 4, got 5"):
        APS(2, 5)
    with pytest.raises(UsageError, match="norm must be a number above 0, inf or 'max', got -1"):
        APS(2, norm=-1)
    with pytest.raises(UsageError, match="norm must be"):
        APS(2, norm="l2")
    with pytest.raises(UsageError, match="unknown blur 'tri-4'"):
        LPS(2, blur="tri-4")
    with pytest.raises(UsageError, match="unknown choose_from"):
        APS(2, choose_from="output")
    with pytest.raises(UsageError, match="temperature must be above 0"):
        LPS(2, temperature=0)
    with pytest.raises(UsageError, match=r"weights \(2, 4\), got \(3,\)"):
        APS(2).sample(noise(2, 2, 4, 4), torch.zeros(3, dtype=torch.long))
