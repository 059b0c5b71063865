"""FLC and ASAP against discrete Fourier transforms in float64, and against the numbers of their papers."""

from itertools import product

import numpy as np
import pytest
import torch

from aliasing.layers import create
from tests.layers.cases import NUMPY_MODES, check, noise

VARIANTS = ("none", "pad-one", "pad-large", "kept-band")
SIZES = [(1, 1), (1, 6), (2, 3), (4, 4), (5, 9), (6, 7), (10, 14), (9, 16), (14, 28), (32, 12), (33, 57), (64, 2)]


def published(x, name, variant="none"):
    """The authors' definition: pad with zeros, transform, shift, window, crop, shift back, transform back."""
    h, w = x.shape
    if name == "asap" and variant == "pad-one":
        x = np.pad(x, ((0, 1), (0, 1)))
    if name == "asap" and variant == "pad-large":
        x = np.pad(x, [(n // 2 - 1, n // 2) for n in (h, w)])
    spectrum = np.fft.fftshift(np.fft.fft2(x, norm="forward"))
    if name == "asap":
        spectrum = spectrum * np.sqrt(np.abs(np.outer(*(np.hamming(n) for n in x.shape))))
    spectrum = spectrum[tuple(slice(n // 4, 3 * n // 4) for n in x.shape)]
    y = np.fft.ifft2(np.fft.ifftshift(spectrum), norm="forward").real
    if name == "asap" and variant == "pad-large":
        y = y[tuple(slice(n // 4, 3 * n // 4) for n in y.shape)]
    return y


def corrected_axis(x, stride, variant, mode):
    """The corrected operator along axis 0 of a complex array, one frequency at a time, and its samples' positions."""
    n = len(x)
    before = (n - 1) // 2 if variant == "pad-large" else 0
    after = {"pad-one": (n + 1) % 2, "pad-large": n - 1 - before}.get(variant, 0)
    x = np.pad(x, [(before, after), (0, 0)], mode=NUMPY_MODES[mode])
    length = len(x)
    spectrum = np.fft.fft(x, axis=0) / length
    rows = -(-n // stride)
    bins = -(-length // stride) if variant == "pad-large" else rows
    y = np.zeros((bins, x.shape[1]), complex)
    for k in range(-(bins // 2), -(-bins // 2)):
        omega = 2 * np.pi * k / (length - length % 2 or 1)
        weight = 1.0 if variant == "flc" else np.sqrt(0.54 + 0.46 * np.cos(omega))
        if variant == "kept-band":
            weight = 0.54 + 0.46 * np.cos(2 * np.pi * k / (bins - bins % 2 or 1))
        y += weight * spectrum[k] * np.exp(2j * np.pi * k * np.arange(bins)[:, None] / bins)
    if variant != "pad-large":
        return y
    centre = np.array([abs((first + (rows - 1) / 2) * length / bins - before - (n - 1) / 2) for first in range(bins)])
    first = int(np.flatnonzero(centre <= centre.min() + 1e-9)[-1])
    return y[first : first + rows]


def corrected(x, stride, variant, mode="reflect"):
    return corrected_axis(corrected_axis(x, stride, variant, mode).T, stride, variant, mode).T.real


@pytest.mark.parametrize(("name", "variant"), [("flc", None), *(("asap", v) for v in VARIANTS[:3])])
def test_faithful_is_the_published_operator_at_every_size(name, variant):
    layer = create(name, 3, faithful=True, **({"variant": variant} if variant else {}))
    lengths = [*range(4, 20), 28, 31, 32, 33, 56]
    for number, n in enumerate(lengths):
        for other in (n, 8, lengths[number - 3]):
            x = noise(2, 3, n, other, seed=n)
            check(layer, x, published(x[1, 2].numpy(), name, variant), (1, 2), 1e-11)


@pytest.mark.parametrize("variant", ["flc", *VARIANTS])
def test_default_is_a_crop_of_the_transform_at_every_size(variant):
    options = {} if variant == "flc" else {"variant": variant}
    modes = ("reflect",) if variant == "flc" else NUMPY_MODES
    for (h, w), stride, mode in product(SIZES, (1, 2, 3, 4) if variant == "flc" else (2, 3, 4), modes):
        layer = create(variant if variant == "flc" else "asap", 3, stride=stride, padding_mode=mode, **options)
        x = noise(2, 3, h, w, seed=h)
        check(layer, x, corrected(x[1, 2].numpy(), stride, variant, mode), (1, 2), 1e-11)


def test_known_answers():
    y = create("flc", 1, faithful=True)(torch.ones(1, 1, 14, 14, dtype=torch.float64))[0, 0]  # a constant
    n = np.arange(7)
    np.testing.assert_allclose(y, np.cos(2 * np.pi * (n[:, None] + n) / 7), atol=1e-12)
    gains = create("asap", 1, faithful=True, dims=1)(torch.ones(1, 1, 8, dtype=torch.float64))[0, 0]  # zeros around
    np.testing.assert_allclose(gains, [0.716361, 1.035938, 1.033060, 0.770196], atol=1e-6)
    impulse = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    impulse[0, 0, 2, 3] = 1
    y = create("flc", 1)(impulse)[0, 0]
    np.testing.assert_allclose(y[1], [-0.025888, 0.150888, 0.150888, -0.025888], atol=1e-6)
    assert y[[0, 2, 3]].abs().max() < 1e-15


def test_half_precision_keeps_its_precision():
    x = noise(2, 3, 12, 20)
    for name, (dtype, least) in product(("flc", "asap"), {torch.bfloat16: 2**-7, torch.half: 2**-11}.items()):
        layer, given = create(name, 3), x.to(dtype)
        exact = layer(given.double())
        assert (layer(given).double() - exact).abs().max() < least * exact.abs().max()
