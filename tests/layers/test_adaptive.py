"""TIPS, its regularisers and DDAC against loops in NumPy; what TIPS keeps under circular shifts."""

from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from aliasing.layers.adaptive import DDAC, TIPS, regularisers
from tests.layers.cases import MODES, NUMPY_MODES, check, layer_of, noise

SHAPES = [(1, 1), (1, 6), (5, 1), (2, 2), (4, 4), (7, 4), (6, 9)]


def tips(channels, stride=2, padding_mode="reflect", **options):
    return layer_of("tips", channels, stride=stride, padding_mode=padding_mode, **options)


def known(**options):
    """The published known-answer layer: unit impulse and w = 0.1."""
    layer = TIPS(1, **options).double()
    with torch.no_grad():
        layer.tau.filter.weight.zero_()[0, 0, 1, 1] = 1
        layer.tau.scale.weight.fill_(0.1)
    return layer


def oracle_tips(layer, x, mode, faithful):
    s = layer.stride
    rows, columns = -x.shape[2] % s, -x.shape[3] % s
    if faithful:
        x = np.pad(x, [(0, 0), (0, 0), (rows, 0), (columns, 0)], mode="reflect")
    else:
        x = np.pad(x, [(0, 0), (0, 0), (0, rows), (0, columns)], mode=NUMPY_MODES[mode])
    kernel = layer.tau.filter.weight.detach().numpy()[:, 0]
    scale = layer.tau.scale.weight.detach().numpy().ravel()
    n, channels, h, w = x.shape
    around = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="constant" if faithful else NUMPY_MODES[mode])
    y, tau = np.zeros((n, channels, h // s, w // s)), np.zeros((n, channels, s * s))
    for b, c in product(range(n), range(channels)):
        psi = np.zeros((h, w))
        for i, j in product(range(3), repeat=2):
            psi += kernel[c, i, j] * around[b, c, i : i + h, j : j + w]
        psi = np.maximum(psi, 0)
        cells = []
        for i, j in product(range(s), repeat=2):
            if faithful:
                cells.append(psi[i * (h // s) : (i + 1) * (h // s), j * (w // s) : (j + 1) * (w // s)].mean())
            else:
                cells.append(psi[i::s, j::s].mean())
        weights = softmax(scale[c] * np.array(cells))
        for k, weight in enumerate(weights):
            i, j = (k % s, k // s) if faithful else (k // s, k % s)  # published: columns of phases first
            y[b, c] += weight * x[b, c, i::s, j::s]
            tau[b, c, i * s + j] = weight
    return y, tau


@pytest.mark.parametrize("mode", [*MODES, "faithful"])
def test_tips_is_the_oracle(mode):
    faithful = mode == "faithful"
    for shape, stride in product(SHAPES, (1, 2, 3, 4)):
        layer = tips(2, stride, **({"faithful": True} if faithful else {"padding_mode": mode}))
        x = noise(3, 2, *shape, seed=sum(shape))
        expected, tau = oracle_tips(layer, x.numpy(), mode, faithful)
        check(layer, x, expected)
        np.testing.assert_allclose(layer.mixing_weights(layer.complete(x)).detach().numpy(), tau, atol=1e-12)


def test_faithful_tips_known_answers():
    layer = known(faithful=True)
    x = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)
    # In the paper's order of phases: (0,0), (1,0), (0,1), (1,1).
    published = torch.tensor([0.139563, 0.170463, 0.310603, 0.379371], dtype=torch.float64)
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(layer.mixing_weights(x)[0, 0][[0, 2, 1, 3]], published, **close)
    expected = torch.tensor([[2.88931, 4.88931], [10.88931, 12.88931]], dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0, 0], expected, **close)
    rolled = torch.tensor([[5.901992, 7.901992], [6.699336, 8.699336]], dtype=torch.float64)
    torch.testing.assert_close(layer(x.roll(1, 2))[0, 0], rolled, **close)
    odd = torch.tensor([[1.85062, 2.999505], [5.000495, 6.14938]], dtype=torch.float64)
    torch.testing.assert_close(layer(torch.arange(9.0, dtype=torch.float64).view(1, 1, 3, 3))[0, 0], odd, **close)


@pytest.mark.parametrize("stride", [2, 3])
def test_corrected_tips_keeps_the_spatial_mean_and_permutes_tau(stride):
    layer = tips(3, stride, "circular")
    x = noise(4, 3, 4 * stride, 6 * stride)
    reference, tau = layer(x).mean((2, 3)), layer.mixing_weights(x).unflatten(2, (stride, stride))
    for a, b in product(range(-stride, stride + 1), repeat=2):
        moved = x.roll((a, b), (2, 3))
        torch.testing.assert_close(layer(moved).mean((2, 3)), reference, atol=1e-12, rtol=0)
        torch.testing.assert_close(layer.mixing_weights(moved), tau.roll((a, b), (2, 3)).flatten(2), atol=1e-12, rtol=0)


# Regularisers


def oracle_psi(layer, x):
    """psi of a circular layer, by rolls."""
    kernel = layer.tau.filter.weight.detach()
    total = sum(kernel[:, 0, i, j, None, None] * x.roll((1 - i, 1 - j), (2, 3)) for i, j in product(range(3), repeat=2))
    return total.clamp_min(0)


def test_fm_of_known_weights():
    layer, one_phase = known(padding_mode="circular"), torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    one_phase[..., ::2, ::2] = 1e3
    for form, ends in {"code": (0.5, 0.0), "linear": (-1.5, -3.0), "two_sided": (0.0625, 0.0625)}.items():
        found = [regularisers(layer, x, form=form)[0].item() for x in (torch.ones_like(one_phase), one_phase)]
        assert found == pytest.approx(ends), form
    layer, x = tips(3, 2, "circular"), noise(4, 3, 6, 8)  # over images and channels the mean
    expected = np.mean([1 - np.sqrt((tau**2).sum()) for tau in layer.mixing_weights(x).detach().numpy().reshape(12, 4)])
    assert regularisers(layer, x)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("faithful", [False, True])
def test_undo_compares_psi_with_rolled_inputs(faithful):
    layer = tips(2, 2, "circular", faithful=faithful)
    x = nn.functional.pad(noise(6, 2, 8, 10), (1, 1, 1, 1))  # zeros around: the faithful layer has the same psi
    drawn = torch.rand(1 if faithful else 6, 2, generator=torch.Generator().manual_seed(5)).expand(6, 2).tolist()
    shifts = [(int(5 * a) - 2, int(7 * b) - 3) for a, b in drawn]  # up to a quarter of the map
    rolled = np.stack([np.roll(image, shift, (1, 2)) for image, shift in zip(x.numpy(), shifts, strict=True)])
    expected = ((oracle_psi(layer, x).numpy() - rolled) ** 2).mean()
    assert regularisers(layer, x, torch.Generator().manual_seed(5))[1].item() == pytest.approx(expected)


def test_undo_does_not_train_its_target_nor_depend_on_the_global_generator():
    layer, x = tips(1, 2, "circular"), noise(2, 1, 4, 4).requires_grad_()
    nn.init.zeros_(layer.tau.filter.weight)  # psi = 0, so any gradient of x would come through the target
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(regularisers(layer, x, torch.Generator().manual_seed(3))[1])
    assert torch.equal(*results)
    assert torch.equal(torch.autograd.grad(results[0], x)[0], torch.zeros_like(x))


# DDAC


def oracle_ddac(layer, x, mode):
    """The published definition at full resolution, then subsampling; in evaluation mode after one batch."""
    s, k, g = layer.stride, layer.size, layer.groups
    n, channels, h, w = x.shape
    around = np.pad(x, [(0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)], mode=NUMPY_MODES[mode])
    kernel = layer.predict.weight.detach().numpy()
    mean, variance = layer.norm.running_mean.numpy(), layer.norm.running_var.numpy()
    gain, shift = layer.norm.weight.detach().numpy(), layer.norm.bias.detach().numpy()
    y = np.zeros((n, channels, h, w))
    for b, m, p in np.ndindex(n, h, w):
        window = around[b, :, m : m + k, p : p + k]
        scores = (kernel * window).sum((1, 2, 3))
        scores = (scores - mean) / np.sqrt(variance + layer.norm.eps) * gain + shift
        weights = softmax(scores.reshape(g, k, k), axis=None if layer.faithful else (1, 2))
        for c in range(channels):
            y[b, c, m, p] = (weights[c * g // channels] * window[c]).sum()
    return y[:, :, ::s, ::s]


def ddac(channels, stride=2, mode="reflect", **options):
    layer = layer_of("ddac", channels, stride=stride, padding_mode=mode, **options)
    for tensor in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(layer.norm.running_var, 0.5, 2)
    return layer


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "groups": 2},
        {"stride": 2, "groups": 2, "faithful": True},
        {"stride": 3, "groups": 1, "size": 5},
        {"stride": 1, "groups": 4, "size": 1, "faithful": True},
    ],
)
def test_ddac_is_the_oracle(options):
    for shape, mode in product(SHAPES, MODES):
        layer, x = ddac(4, mode=mode, **options), noise(2, 4, *shape, seed=sum(shape))
        check(layer, x, oracle_ddac(layer, x.numpy(), mode))
    assert (DDAC(24).groups, DDAC(3).groups) == (8, 1)


@pytest.mark.parametrize("faithful", [False, True])
def test_ddac_batch_statistics(faithful):
    """The full resolution if faithful, the kept positions otherwise; whoever alone is in training, or keeps none."""
    layer = DDAC(2, groups=1, faithful=faithful).double()
    x = noise(3, 2, 6, 8)
    layer(x)
    scores = nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), layer.predict.weight)
    measured = scores if faithful else scores[:, :, ::2, ::2]
    torch.testing.assert_close(layer.norm.running_mean, 0.1 * measured.mean((0, 2, 3)).detach())
    expected = layer(x)
    layer.eval().norm.train()
    torch.testing.assert_close(layer(x), expected)
    layer.eval().norm.running_mean = layer.norm.running_var = None
    torch.testing.assert_close(layer(x), expected)
    layer = DDAC(2, groups=1, faithful=faithful).double()
    layer.norm.eval()
    torch.testing.assert_close(layer(x[:1, :, :1, :1]), layer.eval()(x[:1, :, :1, :1]))


def test_ddac_with_a_single_value_per_channel_keeps_its_statistics():
    layer = DDAC(2, groups=1).train()
    for n in (0, 1):
        before = deepcopy(layer.norm.running_var)
        y = layer(noise(n, 2, 1, 2, dtype=torch.float32))
        assert y.shape == (n, 2, 1, 1)
        assert torch.equal(layer.norm.running_var, before)


@pytest.mark.parametrize("faithful", [False, True])
def test_gradients_of_ddac_through_its_batch_statistics(faithful):
    layer = ddac(2, groups=1, faithful=faithful).train()
    names, values = zip(*layer.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(
        lambda x, *values: torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x),
        (noise(2, 2, 5, 4).requires_grad_(), *values),
    )
