"""What holds for every registered layer at any size, stride and padding: hypothesis looks for a counterexample."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aliasing.layers import CATALOGUE, NAMES, create

MODES = ("reflect", "circular", "zeros", "replicate")
RINGING = ("flc", "asap")  # their kernels have negative lobes
CASES = st.tuples(
    st.integers(1, 3),  # channels
    st.integers(1, 11),
    st.integers(1, 11),
    st.integers(0, 3),  # index of the stride
    st.sampled_from(MODES),
    st.integers(0, 2**16),  # seed
)
FEW = settings(max_examples=25, deadline=None)


def drawn(name, case):
    """A layer in evaluation mode with its own random parameters, and two maps."""
    channels, height, width, stride, mode, seed = case
    strides = CATALOGUE[name].strides
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = create(name, channels, stride=strides[stride % len(strides)], padding_mode=mode)
        x, z = torch.randn(2, 2, channels, height, width, dtype=torch.float64)
    return layer.double().eval(), x, z


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(case=CASES, value=st.floats(-5, 5))
def test_constants_are_kept_unless_zeros_surround_them(name, case, value):
    layer, x, _ = drawn(name, case)
    if case[4] != "zeros":
        y = layer(torch.full_like(x, value))
        torch.testing.assert_close(y, torch.full_like(y, value), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(case=CASES, factor=st.floats(-5, 5))
def test_size_range_and_linearity(name, case, factor):
    layer, x, z = drawn(name, case)
    y = layer(x)
    assert y.shape == (*x.shape[:2], *(-(-side // layer.stride) for side in x.shape[2:]))
    if CATALOGUE[name].linear:
        torch.testing.assert_close(layer(x + factor * z), y + factor * layer(z), atol=1e-9, rtol=0)
    if name not in RINGING:  # means and selections of pixels lie between them, and of the zeros around
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        if case[4] == "zeros":
            low, high = low.clamp(max=0), high.clamp(min=0)
        assert ((low - 1e-9 <= y) & (y <= high + 1e-9)).all()


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(case=CASES, exponent=st.integers(-25, 25))
def test_finite_maps_of_any_magnitude_stay_finite(name, case, exponent):
    layer, x, _ = drawn(name, case)
    assert torch.isfinite(layer.float()(x.float() * 10.0**exponent)).all()


@pytest.mark.parametrize("shape", [(4, 6), (5, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_input_and_parameters(name, shape):
    layer, x, _ = drawn(name, (2, *shape, 1, "reflect", 3))
    x = x[:1].requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    names, values = zip(*layer.named_parameters(), strict=True) if CATALOGUE[name].parameters else ((), ())

    def of_everything(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(of_everything, (x, *values), fast_mode=True)
