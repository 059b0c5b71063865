"""Every name of the registry creates a layer, and every mistake is answered with the way out."""

import pytest

from aliasing import layers
from aliasing.errors import UsageError
from aliasing.layers import CATALOGUE, NAMES, create
from aliasing.layers.base import Downsample

LINEAR = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7", "flc", "asap")
CONTRACT = {*LINEAR, "max", "aps", "lps", "tips", "ddac"}


def test_the_promised_names_exist():
    assert set(NAMES) == set(CATALOGUE) == CONTRACT
    assert {name for name in NAMES if CATALOGUE[name].linear} == set(LINEAR)


@pytest.mark.parametrize("name", NAMES)
def test_create_returns_a_layer_with_the_stride_it_was_asked_for(name):
    entry = CATALOGUE[name]
    assert entry.description
    assert entry.source
    for stride in entry.strides:
        layer = create(name, 4, stride=stride)
        assert isinstance(layer, Downsample)
        assert layer.stride == stride


@pytest.mark.parametrize("name", NAMES)
def test_options_are_those_of_the_layer_except_what_the_name_fixes(name):
    entry = CATALOGUE[name]
    for stride in (0, 5, 2.5, *({1, 2, 3, 4} - set(entry.strides))):
        with pytest.raises(UsageError, match="stride must be"):
            create(name, 4, stride=stride)
    with pytest.raises(UsageError, match="no options, got 'sigma'" if not entry.options else "unknown option"):
        create(name, 4, sigma=1)
    assert not {"channels", "stride", "padding_mode", *entry.preset} & set(entry.options)


def test_options_reach_the_layer():
    assert create("bin-5", 4, trainable=True).weight.shape == (4, 1, 5, 5)
    assert create("asap", 4, variant="none").variant == "none"
    assert create("tri-3", 4, padding_mode="circular").padding_mode == "circular"


def test_mistakes_name_the_choices():
    with pytest.raises(UsageError, match=r"unknown downsampling layer 'bin5'; choose from .*Did you mean 'bin-5'"):
        create("bin5", 4)
    with pytest.raises(UsageError, match=r"unknown padding mode 'refelct'; .*Did you mean 'reflect'"):
        create("max", 4, padding_mode="refelct")
    with pytest.raises(UsageError, match=r"unknown option of asap 'varient'; .*variant, faithful.*Did you mean"):
        create("asap", 4, varient="none")
    with pytest.raises(UsageError, match="unknown option of bin-5 'taps'; choose from trainable"):
        create("bin-5", 4, taps=3)
    for channels in (0, -1, 2.0, "many"):
        with pytest.raises(UsageError, match="channels must be a whole number"):
            create("flc", channels)


def test_public_names_exist():
    assert all(hasattr(layers, name) for name in layers.__all__)
