"""What a trainer and a measurement may ask of a layer: hooks of training, and a record of what passed it."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from aliasing.errors import UsageError
from aliasing.layers import LPS, TIPS, create, intercepted, outermost, recorded, regularisers
from tests.layers import cases
from tests.toys import Custom

noise = partial(cases.noise, dtype=torch.float32)


def block(main, side):
    """Two branches on one grid, as in a residual block: nobody calls ``forward`` of the layers."""

    def run(net, x):
        choice = net.main.choose(x)
        return net.main.sample(x, choice) + net.side.sample(2 * x, choice)

    return Custom(run, main=main, side=side)


def test_the_scoring_network_is_not_decayed_and_its_temperature_falls_geometrically():
    layer = LPS(3, blur="tri-3")
    assert {id(p) for p in layer.no_weight_decay()} == {id(p) for p in layer.parameters()}
    found = []
    for epoch in range(3):
        layer.on_epoch(epoch / 2)
        found.append(layer.temperature)
    assert found == pytest.approx([1, 0.5**0.5, 0.5])
    layer.final_temperature = 0.1
    layer.on_epoch(1.0)
    assert layer.temperature == 0.1


@pytest.mark.parametrize("form", ["code", "linear", "two_sided"])
def test_the_auxiliary_losses_are_those_of_the_input_of_the_last_training_pass(form):
    torch.manual_seed(0)
    network = nn.Sequential(block(TIPS(3), TIPS(3, faithful=True)), nn.ReLU(), TIPS(3))
    layers = [part for part in network.modules() if isinstance(part, TIPS)]
    network(noise(2, 3, 9, 8))
    assert all(layer.auxiliary_losses() is None for layer in layers)  # nobody asked for records
    for layer in layers:
        layer.record_input = True
    network(noise(2, 3, 9, 8))
    x = noise(2, 3, 8, 12, seed=1)
    y = network(x)
    given = (x, 2 * x, network[0](x).relu())
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    found = [layer.auxiliary_losses(form, draws[0]) for layer in layers]
    for layer, own, losses in zip(layers, given, found, strict=True):
        torch.testing.assert_close(losses, regularisers(layer, own, draws[1], form=form))
    (y.mean() + sum(fm + undo for fm, undo in found)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()(x)
    assert all(layer.auxiliary_losses() is None for layer in layers)
    layer = create("tips", 3).train()
    layer.record_input = True
    layer(noise(1, 3, 8, 8).requires_grad_() * 2)  # as where a training ends before its loss
    assert copy.deepcopy(layer).auxiliary_losses() is None
    layer.compile(backend="eager")  # in place, which no file can hold
    assert pickle.loads(pickle.dumps(layer)).auxiliary_losses() is None
    layer = create("tips", 3).train()
    layer.record_input = True
    with torch.no_grad():  # as in the first pass of a checkpoint, of which the losses would learn nothing
        layer(noise(1, 3, 8, 8))
    assert layer.auxiliary_losses() is None
    layer(noise(1, 3, 8, 8))
    layer.record_input = False
    assert layer.auxiliary_losses() is None


@pytest.mark.parametrize("name", cases.LAYERS)
def test_records_hold_the_map_the_choice_and_the_output(name):
    torch.manual_seed(0)
    network = nn.Sequential(create(name, 3, padding_mode="circular"), nn.ReLU(inplace=True)).eval()
    x = noise(2, 3, 8, 12)
    plain = network[0](x)
    with torch.no_grad(), recorded(network) as calls:
        network(x)
    (call,) = calls
    assert call.name == "0"
    assert torch.equal(call.x, x)
    assert torch.equal(call.y, plain)  # and not what the activation wrote over it
    assert (call.choice is not None) == (name in ("aps", "lps"))
    assert not network[0].observed
    with recorded(network) as calls:
        network(x)
        assert torch.equal(calls[0].again(x), plain) and network[0].observed
    assert len(calls) == 1


def test_both_branches_are_recorded_with_the_choice_they_share():
    network = block(create("aps", 2, blur="tri-3"), create("aps", 2))
    with recorded(network) as calls:
        y = network(x := noise(3, 2, 6, 4))
    assert [call.name for call in calls] == ["main", "side"]
    assert list(outermost(network)) == ["main", "side"]  # without the blur inside
    assert torch.equal(calls[0].choice, calls[1].choice)
    assert torch.equal(calls[0].y + calls[1].y, y)
    assert torch.equal(network(x), y)
    assert len(calls) == 2


def test_an_interception_stands_between_the_caller_and_the_layer():
    network = block(create("aps", 2), create("bin-5", 2))
    x = noise(3, 2, 6, 4)

    def around(layer, name, method, x, choice=None):
        if name == "choose":
            return 3 - method(x)
        return -method(x, choice)

    expected = network.main.sample(x, 3 - network.main.choose(x)) + network.side(2 * x)
    with intercepted(network, around):
        assert network.main.observed
        assert torch.equal(network(x), -expected)
        with pytest.raises(UsageError):
            network(x[0])
    assert not network.main.observed


@pytest.mark.parametrize("name", cases.LAYERS)
def test_what_is_no_map_of_floats_is_refused(name):
    layer = create(name, 3)
    for wrong, says in (
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "got torch.uint8; for bytes"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.complex64), "got torch.complex64"),
        (torch.zeros(3, 4, 4), r"got 3 dimensions, \(3, 4, 4\); x\[None\]"),
        (torch.zeros(1, 1, 3, 4, 4), "got 5 dimensions"),
        ([1.0], "takes a tensor .* got list"),
    ):
        with pytest.raises(UsageError, match=says):
            layer(wrong)
