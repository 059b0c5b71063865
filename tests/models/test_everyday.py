"""antialias() on what people have and do: tools that change modules afterwards, functions, wrappers, odd classes."""

import copy
import importlib
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial, partialmethod, reduce
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.layers.pool2d_same import MaxPool2dSame
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import deform_conv2d

from aliasing import models
from aliasing.errors import UsageError
from aliasing.layers import create
from aliasing.layers.base import Downsample
from aliasing.models import antialias
from aliasing.models.calls import call_of
from aliasing.models.convert import _subsampling
from aliasing.models.watch import tensors
from tests.models.shared import called, images, residual, strided
from tests.toys import Answer, Custom, SamePadding

LOST = "lost its place"
X = images(2, 3, 64, 64)


@cache
def once(name: str, downsample: str, library: object) -> nn.Module:
    torch.manual_seed(0)
    small = {"layers": (1, 1, 1, 1), "channels": (8, 16, 32, 64)} if name == "resnet18" else {}
    network = library.create_model(name, **small) if library is timm else getattr(torchvision.models, name)()
    return antialias(network.eval(), downsample, example=X)


def converted(name: str = "resnet18", downsample: str = "bin-5", library: object = timm):
    return copy.deepcopy(once(name, downsample, library))


# What people do to a network afterwards


def test_norms_and_activations_may_be_replaced_by_type() -> None:
    network = converted("efficientnet_b0")
    expected = network.forward_features(X)
    changed = convert_sync_batchnorm(network)  # has no forward without a GPU: only its structure can be looked at
    assert type(changed.bn1.inner).__name__ == "SyncBatchNormAct" and changed.bn1.down is not None
    torch.testing.assert_close(freeze_batch_norm_2d(changed).forward_features(X), expected)
    network = converted()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.ReLU:
                setattr(parent, name, nn.GELU())
    assert type(network.act1.inner) is nn.GELU and network.forward_features(X).shape == (2, 64, 2, 2)


CHANGES = {
    "an activation of a block": lambda n: setattr(n.layer2[0], "act1", nn.GELU()),
    "the convolution of the stem": lambda n: setattr(n, "conv1", nn.Conv2d(3, 64, 7, 2, 3)),
    "a pool": lambda n: setattr(n, "maxpool", nn.MaxPool2d(2)),
    "a forward": lambda n: setattr(n.act1, "forward", F.gelu),
    "a stride that comes back": lambda n: setattr(n.layer2[0].downsample[0].inner, "stride", (2, 2)),
    "a block": lambda n: n.layer3.__setitem__(0, nn.Conv2d(16, 32, 1, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_layers_that_were_lost_are_noticed(change: str) -> None:
    network = converted()
    CHANGES[change](network)
    torch.compiler.reset()
    runs = [network, copy.deepcopy(network), torch.compile(network, backend="eager")]
    if change != "a pool":  # one of the root that was replaced as a whole: without the root nobody is left to look
        runs.append(network.forward_features)
    for run in runs:
        with pytest.raises((UsageError, torch._dynamo.exc.TorchRuntimeError, RuntimeError), match=LOST):
            run(X)


def test_what_a_layer_has_taken_from_a_pool_is_not_changed_in_vain() -> None:
    network = antialias(nn.Sequential(strided(), nn.MaxPool2d(3, 2), nn.AvgPool2d(2)), example=X)
    for index, name in ((0, "stride"), (1, "ceil_mode"), (2, "stride"), (2, "kernel_size")):
        with pytest.raises(UsageError, match=f"{name} of {index} belongs to its downsampling layer"):
            setattr(network[index], name, 1)


def test_reparameterisation_is_noticed() -> None:
    with pytest.raises(UsageError, match="re-parameterise first"):
        reparameterize_model(converted("repvgg_a0")).forward_features(X)
    first = reparameterize_model(timm.create_model("repvgg_a0").eval())
    assert antialias(first, example=X).forward_features(X).shape == first.forward_features(X).shape


ADD = {
    "append": lambda head, module: head.append(module),
    "add_module": lambda head, module: head.add_module("2", module),
    "attribute": lambda head, module: setattr(head, "2", module),
}


@pytest.mark.parametrize("add", ADD)
def test_what_was_cut_away_on_purpose_is_not_missed_and_what_was_added_runs(add: str) -> None:
    network = converted()
    network.layer4, network.fc = nn.Identity(), nn.Identity()
    assert network(X).shape == (2, 32)
    vgg = antialias(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)))
    assert vgg[:2](X).shape == (2, 4, 31, 31)
    assert nn.Sequential(*list(network.children())[:-3])(X).shape == (2, 32, 4, 4)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    network = antialias(Custom(lambda n, x: n.head(F.relu(n.conv(x))), conv=strided(), head=head), example=X)
    del network.head[-1]
    assert len(network.head) == 2 and network.head and network(X).shape == (2, 4)
    ADD[add](network.head, nn.Linear(4, 5))
    assert network(X).shape == (2, 5)


def fuse_one(network: nn.Module) -> nn.Module:
    network.conv1, network.bn1 = nn.utils.fusion.fuse_conv_bn_eval(network.conv1, network.bn1), nn.Identity()
    return network


def prepared(network: nn.Module, kind: str) -> nn.Module:
    """For quantisation: by its modules or by its graph, after training or in it."""
    module = quantization if "fx" not in kind else importlib.import_module("torch.ao.quantization.quantize_fx")
    network.qconfig = quantization.get_default_qconfig("x86")
    graph = (quantization.get_default_qconfig_mapping("x86"), (X,)) if "fx" in kind else ()
    return getattr(module, kind)(network.train("qat" in kind), *graph).eval()


TOOLS = {
    "fuse": lambda n: quantization.fuse_modules(n, [["conv1", "bn1"], ["layer2.0.conv1", "layer2.0.bn1"]]),
    "fuse one": fuse_one,
    "fx fuse": lambda n: importlib.import_module("torch.fx.experimental.optimization").fuse(n),  # warns when imported
    "fx trace": torch.fx.symbolic_trace,
    **{kind: partial(prepared, kind=kind) for kind in ("prepare", "prepare_qat", "prepare_fx", "prepare_qat_fx")},
    "count": lambda n: n.apply(
        lambda m: m.register_buffer("total", X) or m.register_parameter("scale", nn.Parameter(X))
    ),
    "extract": lambda n: create_feature_extractor(n, ["fc"]),
    "pickle": lambda n: pickle.loads(pickle.dumps(n)),
}


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("tool", TOOLS)
def test_tools_keep_the_function(tool: str) -> None:
    network = converted(library=torchvision.models)
    changed = TOOLS[tool](copy.deepcopy(network))
    y = changed(X)
    torch.testing.assert_close(y["fc"] if tool == "extract" else y, network(X), rtol=1e-4, atol=1e-4)
    assert tool != "fx trace" or "relu.down" in [str(node.target) for node in changed.graph.nodes]


def test_weights_of_the_original_load_both_ways_and_parts_are_reached() -> None:
    network, original = converted(library=torchvision.models), torchvision.models.resnet18()
    network.load_state_dict(original.state_dict())
    original.load_state_dict(network.state_dict())
    assert network.layer2[0].downsample[0].weight.shape == (128, 64, 1, 1)
    network.layer2[0].downsample[0].weight = nn.Parameter(torch.zeros(128, 64, 1, 1))
    assert not network.state_dict()["layer2.0.downsample.0.weight"].any()
    with pytest.raises(UsageError, match=r"functional_call takes the names of named_parameters\(\)"):
        torch.func.functional_call(network, network.state_dict(), X)
    del network.layer2[0].downsample[0].bias
    assert not hasattr(network.layer2[0].downsample[0].inner, "bias")
    named = {name: torch.ones_like(weight) for name, weight in network.named_parameters()}
    assert not network.load_state_dict(named, strict=False).unexpected_keys
    assert all((weight == 1).all() for weight in network.parameters())


@pytest.mark.parametrize("downsample", ["aps", "lps"])
def test_threads_that_share_a_network_choose_for_themselves(downsample: str) -> None:
    network = antialias(residual().eval(), downsample, example=X)
    noise = torch.rand((4, 1, 3, 40, 40), generator=torch.Generator().manual_seed(1))
    inputs = [*noise, images(2, 3, 33, 40)]
    with torch.no_grad():
        expected = [network(x) for x in inputs]

    def work(first: int) -> None:
        with torch.no_grad():
            for turn in range(first, first + 20 * len(inputs)):
                i = turn % len(inputs)
                torch.testing.assert_close(network(inputs[i]), expected[i])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))  # raises what was raised


# Everything that drops samples is found


WEIGHT, KERNEL = images(4, 4, 3, 3), nn.Parameter(images(4, 4, 5, 5))


class Averaged(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


own_forward = Custom(None)
own_forward.forward = partial(F.max_pool2d, kernel_size=2)

LEFT = {
    "forward of its own": (own_forward, "a forward of its own"),
    "convolution": (lambda x: F.conv2d(x, WEIGHT, stride=2), "no layer is defined"),
    "pixel unshuffle": (lambda x: nn.PixelUnshuffle(2)(x)[:, :4], "no layer is defined"),
    "interpolation": (lambda x: F.interpolate(x, scale_factor=0.5), "no layer is defined"),
    "adaptive": (nn.AdaptiveAvgPool2d(8), "no layer is defined"),
    "interpolation by little": (lambda x: F.interpolate(x, scale_factor=0.75), "no layer is defined"),
    "adaptive by little": (nn.AdaptiveMaxPool2d(12), "no layer is defined"),
    "a module that runs all its children": (Averaged(nn.Conv2d(4, 4, 1)), "does not run without"),
    "reshape and mean": (lambda x: x.reshape(len(x), 4, 8, 2, 8, 2).mean((3, 5)), "no layer is defined"),
    "selection": (lambda x: x.index_select(2, torch.arange(0, 16, 2)), "no layer is defined"),
    "list of rows": (lambda x: x[:, :, torch.arange(0, 16, 2)], "no layer is defined"),
    "aten": (lambda x: torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])[0], "no layer is defined"),
    "windows": (lambda x: F.unfold(x, 3, 1, 1, 2).reshape(len(x), 36, 8, 8)[:, :4], "no layer is defined"),
    "one of each pair": (lambda x: x.reshape(len(x), 4, 8, 2, 8, 2)[:, :, :, 0, :, 0], "no layer is defined"),
    "the first of each pair": (lambda x: x.unflatten(2, (8, 2)).unbind(3)[0], "no layer is defined"),
    "deformable": (
        lambda x: deform_conv2d(x, images(1, 18, 8, 8), WEIGHT, None, 2, 1, mask=images(1, 9, 8, 8)),
        "no layer is defined",
    ),
    "mask": (lambda x: (x > 0.5)[:, :, ::2, ::2].float(), "does not hold real numbers"),
    "the rest of a module": (
        antialias(Custom(lambda n, x: F.max_pool2d(F.avg_pool2d(x, 2), 2)), skip="max_pool2d", example=X),
        "converted already",
    ),
    "rows in a stack": (lambda x: torch.stack(x.unbind(2)[::2], 2), "no layer is defined"),
    "odd columns": (lambda x: torch.cat(x.flatten(2).unflatten(2, (16, 16)).chunk(16, 3)[1::2], 3), "no layer is"),
    "windows side by side": (lambda x: torch.cat([x[:, 2:, 4:8, 4:8], x[:, :2, 4:8, 4:8]], 1), None),
    "phases in two modules": (
        Custom(lambda n, x: n.one(x) + n.two(x), one=Answer(lambda x: x[..., ::2]), two=Answer(lambda x: x[..., 1::2])),
        "by other slices",
    ),
    "part of a kernel": (lambda x: F.conv2d(x, KERNEL[..., ::2, ::2]), None),
    "a new map": (lambda x: x[:, :, :8, :8] + x.new_zeros(len(x), 4, 8, 8), None),
    "phases": (lambda x: x[..., ::2, ::2] + x[..., 1::2, ::2], "by other slices"),
    "one map": (lambda x: x[0][:, ::2, ::2][None], "no layer is defined"),
    "one image": (lambda x: x[:1, :, ::2, ::2], "and of nothing else"),
    "rows": (lambda x: x[:, :, ::2], "strides differ"),
    "a window": (lambda x: x[:, :, 2:9, 3:8], None),
    "every other channel": (lambda x: x[:, ::2].repeat(1, 2, 1, 1), None),
    "half": (lambda x: x.chunk(2, 3)[0], None),
    "a mean over everything": (lambda x: x * x.mean((2, 3), keepdim=True), None),
    "a product": (lambda x: x.transpose(2, 3) @ x[..., :4], None),
    "global": (nn.AvgPool2d(4), "covers the whole map"),
    "global call": (lambda x: F.avg_pool2d(x, 4), "covers the whole map"),
    "global maximum": (lambda x: F.max_pool2d(x, x.shape[2:]), "covers the whole map"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_has_no_layer_is_reported(case: str) -> None:
    function, words = LEFT[case]
    network = nn.Sequential(called(function), nn.Conv2d(5, 2, 3, 2, 1))
    side = 4 if "global" in case else 16
    _, report = antialias(network, example=images(1, 3, side, side), return_report=True)
    assert [change.name for change in report.replaced] == ["1"]
    assert words in report.left[0].note if words else not report.left


@pytest.mark.parametrize("n", [1, 3])
def test_networks_of_other_dimensions_are_left_with_all_their_places(n: int) -> None:
    conv, pool = [(nn.Conv1d, nn.MaxPool1d), (), (nn.Conv3d, nn.MaxPool3d)][n - 1]
    network = Custom(lambda n, x: n.pool(n.conv(x)[:, :, ::2]), conv=conv(3, 4, 3, 2, 1), pool=pool(2))
    with pytest.raises(UsageError, match="nothing to anti-alias") as error:
        antialias(network, example=images(1, 3, *[32] * n))
    assert all(f"- {name}: " in str(error.value) for name in (f"conv:conv{n}d", f"pool:max_pool{n}d", "slice"))


def nested(n: Custom, x: Tensor) -> Tensor:
    """A module that pools around another one that pools, with calls that are alike; run twice."""
    x = F.max_pool2d(x, 2)
    x = x if n.inner is None else n.inner(n.inner(x))
    return F.max_pool2d(n.pool(x), 2)


@pytest.mark.parametrize("skip", [(), ("pool",), ("inner.pool", "max_pool2d 1"), ("inner:*",)])
def test_calls_inside_calls_are_told_apart(skip: tuple[str, ...]) -> None:
    inside = Custom(nested, inner=None, pool=nn.MaxPool2d(2))
    network, x = Custom(nested, inner=inside, pool=nn.MaxPool2d(2)).eval(), images(1, 2, 600, 520)
    names = {"max_pool2d 1", "max_pool2d 2", "inner:max_pool2d 1", "inner:max_pool2d 2", "pool", "inner.pool"}
    result, report = antialias(network, example=x, skip=skip, return_report=True)
    left = {name for name in names if any(name == s or (s == "inner:*" and ":" in name) for s in skip)}
    assert {change.name for change in report.replaced} == names - left

    def pool(name: str, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if name in left else create("bin-5", 2)(F.max_pool2d(x, 2, 1))

    def inner(x: Tensor) -> Tensor:
        return pool("inner:max_pool2d 2", pool("inner.pool", pool("inner:max_pool2d 1", x)))

    expected = pool("max_pool2d 2", pool("pool", inner(inner(pool("max_pool2d 1", x)))))
    torch.testing.assert_close(result(x), expected)


class Encoder(nn.Module):
    """Whose maps are asked for without its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.times = nn.Conv2d(3, 4, 3), 2

    def pooled(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(x), 2)

    def encode(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.pooled(x), 2)

    def predict(self, x: Tensor) -> Tensor:
        return self(x) * self.times

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x).mean((2, 3))


def test_methods_that_are_called_without_the_forward_are_converted_too() -> None:
    network = antialias(Encoder().eval(), "bin-5", example=X)
    compiled = torch.compile(network.encode, backend="eager", fullgraph=True)
    for encode in (network.encode, copy.deepcopy(network).encode, compiled):
        torch.testing.assert_close(encode(X).mean((2, 3)), network(X))
        assert torch.equal(network.predict(X), 2 * network(X))
    with pytest.raises(UsageError, match="its pooled does something else"):  # it makes one of two calls that are alike
        network.pooled(X)


class Overridden(Encoder):
    """Whose methods are not all its own, and call functions that its forward does not call."""

    predict = ("cat", "dog")  # type: ignore[assignment]

    @staticmethod
    def pooled(x: Tensor) -> Tensor:  # type: ignore[override]
        return x / 255

    def encode(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(self.pooled(x)), 2)

    def small(self, x: Tensor) -> Tensor:
        return self(F.max_pool2d(x, 2))

    @torch.no_grad()
    def twice(self, x: Tensor) -> Tensor:
        return self.encode(x) + self.encode(x.flip(-1)).flip(-1)


def test_methods_that_the_forward_does_not_call_stay_as_they_are() -> None:
    network = antialias(Overridden().eval(), "bin-5", example=X)
    assert network.predict == ("cat", "dog") and torch.equal(network.pooled(X), X / 255)
    torch.testing.assert_close(network.small(X), network(F.max_pool2d(X, 2)))
    torch.testing.assert_close(network.twice(X), network.encode(X) + network.encode(X.flip(-1)).flip(-1))
    outer = Custom(lambda n, x: n.inner(x) + n.inner.encode(x.flip(-1)).mean((2, 3)), inner=Overridden())
    assert len(antialias(outer.eval(), "bin-5", example=X, return_report=True)[1].replaced) == 2


def decorated(method: Any) -> Any:
    return lambda self, x: method(self, x)


class Indirect(Encoder):
    """Whose forward reaches the method of its calls in other ways than by its name."""

    features, steps = Encoder.encode, ("encode", "mean")
    partly = partialmethod(Encoder.encode)
    itself = property(lambda self: self.encode)

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.way, self.kept = way, self.encode

    @decorated
    def small(self, x: Tensor) -> Tensor:
        return self(F.max_pool2d(x, 2))

    def mean(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def parts(self):
        yield self.conv

    @decorated
    def forward(self, x: Tensor) -> Tensor:
        next(self.parts()).requires_grad_(True)
        return self.way(self, x)


WAYS = {
    "property": lambda n, x: n.mean(n.itself(x)),
    "names in a loop": lambda n, x: reduce(lambda x, step: getattr(n, step)(x), n.steps, x),
    "name that is made": lambda n, x: n.mean(getattr(n, f"en{'code'}")(x)),
    "attribute": lambda n, x: n.mean(n.kept(x)),
    "another name": lambda n, x: n.mean(n.features(x)),
    "partial method": lambda n, x: n.mean(n.partly(x)),
}


@pytest.mark.parametrize("way", WAYS)
def test_methods_that_a_forward_reaches_in_other_ways_are_converted_too(way: str) -> None:
    network = antialias(Indirect(WAYS[way]).eval(), "bin-5", example=X)
    for of in (network, copy.deepcopy(network)):
        torch.testing.assert_close(of.encode(X).mean((2, 3)), of(X))
    torch.testing.assert_close(network.small(X), network(F.max_pool2d(X, 2)))  # not of the forward
    assert [*network.parts()] == [network.conv]  # it makes no calls


def test_a_network_that_another_one_calls_keeps_its_layers() -> None:
    teacher = antialias(Encoder().eval(), "bin-5", example=X)
    for of in (teacher, copy.deepcopy(teacher)):
        run = Custom(
            lambda n, x, of=of: F.max_pool2d(n.conv(x), 2).mean() + of.encode(x).mean(), conv=nn.Conv2d(3, 4, 1)
        )
        student = antialias(run.eval(), "bin-5", example=X, skip=())
        own = (student(X) - of.encode(X).mean()).item()
        blurred = antialias(Custom(lambda n, x: F.max_pool2d(n.conv(x), 2).mean(), conv=run.conv).eval(), example=X)
        assert own == pytest.approx(blurred(X).item(), abs=1e-6)


def test_a_strided_average_hides_no_place_behind_it() -> None:
    parts = {"a": nn.Conv2d(3, 3, 3, 1, 1), "b": nn.Conv2d(3, 4, 3, 2, 1)}
    network = Custom(lambda n, x: n.b(F.avg_pool2d(n.a(x), 2)), **parts).eval()
    report = antialias(network, "bin-5", example=images(1, 3, 48, 48), return_report=True)[1]
    assert report.replaced[0].name == "b" and not report.left

    def late(n: Custom, x: Tensor) -> Tensor:
        h = n.one(x)
        y = n.relu(h)  # in place: what reads h later reads another map
        return n.two(y).mean((2, 3)) + (h + y).mean((2, 3))

    own = {"one": nn.Conv2d(3, 4, 3, 2, 1), "relu": nn.ReLU(inplace=True), "two": nn.Conv2d(4, 4, 3, 2, 1)}
    report = antialias(Custom(late, **own).eval(), "bin-5", example=X, return_report=True)[1]
    assert len(report.replaced) == 2 and not report.left


def test_exactly_invariant_is_said_of_all_that_is_returned() -> None:
    def run(n: Custom, x: Tensor) -> tuple[Tensor, Tensor]:
        h = n.a(x).relu()
        return h.mean((2, 3)), n.b(h)[:, :, :2].relu().mean((2, 3))

    circular = {"padding_mode": "circular"}
    network = Custom(run, a=nn.Conv2d(3, 4, 3, 2, 1, **circular), b=nn.Conv2d(4, 4, 3, 1, 1, **circular)).eval()
    assert "Not exactly" in str(antialias(network, "aps", example=X, return_report=True)[1])


def test_nothing_is_left_of_a_forward_that_failed() -> None:
    def fails(n: Custom, x: Tensor) -> Tensor:
        y = n.a(x)
        if n.broken:
            raise MemoryError
        return F.relu(n.act(y)) + n.b(x)

    parts = {"a": nn.Conv2d(3, 4, 3, 2, 1), "act": nn.ReLU(), "b": nn.Conv2d(3, 4, 1, 2), "broken": False}
    network = antialias(Custom(fails, **parts).eval(), "aps", example=X)
    network.broken = True
    with pytest.raises(MemoryError):
        network(X)
    with pytest.raises(UsageError, match="has not run"):
        network.b(X)
    network.broken = False
    assert network(X).shape == (2, 4, 32, 32)


def test_a_method_of_a_part_is_converted_whatever_runs_around_it() -> None:
    def outer(n: Custom, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        return n.part.encode(x).mean((2, 3)) if n.maps else n.part(x)

    network = antialias(Custom(outer, part=Encoder(), maps=False).eval(), "tri-3", example=X)
    expected, network.maps = network(X), True
    torch.testing.assert_close(network(X), expected)
    assert not any(module.training for module in network.modules())


FORWARDS = {
    "with an argument": partialmethod(lambda self, x, size: F.max_pool2d(x, size), size=2),
    "without the module": staticmethod(lambda x: F.max_pool2d(x, 2)),
}


@pytest.mark.parametrize("forward", FORWARDS)
def test_a_forward_need_not_be_a_plain_function(forward: str) -> None:
    network = antialias(type("Pool", (nn.Module,), {"forward": FORWARDS[forward]})().eval(), "bin-5", example=X)
    torch.testing.assert_close(network(X), create("bin-5", 3)(F.max_pool2d(X, 2, 1)))


def test_a_new_network_of_the_class_of_a_converted_one_is_not_taken_for_it() -> None:
    network = antialias(Encoder().eval(), "bin-5", example=X)
    other = type(network)()
    other.load_state_dict(network.state_dict())
    for run in (other, other.encode):
        with pytest.raises(UsageError, match=r"this Encoder is not converted.*copy\.deepcopy\(\) that one"):
            run(X)


class Yields(nn.Module):
    def maps(self, x: Tensor):
        yield F.max_pool2d(x, 2)

    def forward(self, x: Tensor) -> Tensor:
        return next(self.maps(x))


def test_a_method_that_yields_its_maps_is_not_run_without_the_forward() -> None:
    with pytest.raises(UsageError, match=r"Yields\.maps yields maps one by one"):
        antialias(Yields().eval(), "bin-5", example=X).maps(X)


def checkpointed(n: Custom, x: Tensor) -> Tensor:
    """Run again when gradients are computed, outside of the forward."""
    return checkpoint(lambda x: F.max_pool2d(n.conv(x), 2), x, use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_checkpoints_have_the_right_gradient_or_none() -> None:
    block, x, gradients = Custom(checkpointed, conv=nn.Conv2d(3, 4, 3)), X.clone().requires_grad_(), []
    with pytest.raises(UsageError, match="in a checkpoint"):
        antialias(block, example=X)(x)
    block.run = lambda n, x: F.max_pool2d(n.conv(x), 2)
    inner = antialias(block, example=X)
    parts = antialias(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 1)), example=X)
    lps = antialias(
        Custom(lambda n, x: checkpoint(n.a, x, use_reentrant=True) + n.b(x), a=strided(), b=strided()), "lps"
    )
    with pytest.raises(UsageError, match=r"share a learned choice, one runs in a checkpoint.*the whole block$"):
        lps(x)
    lps.run = lambda n, x: n.a(x) + checkpoint(n.b, x, use_reentrant=False)
    with pytest.raises(UsageError, match="the checkpoint must hold the branch that chooses"):
        lps(x).sum().backward()
    for run in (
        *(inner, lambda x: checkpoint(inner, x, use_reentrant=True)),
        *(parts, lambda x: checkpoint_sequential(parts, 3, x, use_reentrant=False)),
    ):
        x.grad = None
        run(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients[:2]) and torch.equal(*gradients[2:])


def twice(n: Custom, x: Tensor) -> Tensor:
    """At one size what the convolution returns is used before the activation, too."""
    y = n.conv(x)
    return n.relu(y).mean((2, 3)) if x.shape[-1] > 8 else n.relu(n.conv(x)).mean((2, 3)) + y.mean((2, 3))


OTHER_WAYS = {
    "another input": lambda n, x: n.relu(n.conv(x) if x.shape[-1] > 8 else x),
    "no activation": lambda n, x: n.relu(n.conv(x)) if x.shape[-1] > 8 else n.conv(x),
    "twice": twice,
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_a_forward_that_goes_other_ways_is_noticed(way: str) -> None:
    network = antialias(Custom(OTHER_WAYS[way], conv=nn.Conv2d(3, 3, 3, 2, 1), relu=nn.ReLU()), example=X)
    network(X)
    assert torch.equal(network.conv(X), network.conv(X))  # a part alone
    network(X)
    with pytest.raises(UsageError, match="conv and its downsampling layer did not run together"):
        network(X[..., :8])


def headed(n: Custom, x: Tensor) -> Tensor:
    y = n.a(x).relu()
    return n.b(y).mean() + y.mean() if n.training else n.b(y).mean()


def lending(n: Custom, x: Tensor) -> Tensor:
    return n.b(F.conv2d(x, n.a.weight, None, n.a.stride) if n.training else n.a(x)).mean()


def pooling(n: Custom, x: Tensor) -> Tensor:
    return n.b(n.a(x)).mean() + (F.max_pool2d(x, 2).mean() if n.training else 0)


class Remembers(nn.Conv2d):
    """In training, the stride that it had."""

    had = 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, self.had) if self.training else super().forward(x)


def again(n: Custom, x: Tensor) -> Tensor:
    return n.b(n.a(F.max_pool2d(x, 2))).mean() + (F.max_pool2d(x, 2).mean() if n.training else 0)


IN_TRAINING = {
    "in training something else reads": headed,
    "does not run in training": lending,
    "in training max_pool2d drops samples as well": pooling,
    "a stride of its own": lambda n, x: n.b(n.a(x)).mean(),
}


def test_a_call_that_runs_once_more_in_training_is_not_said_to_run() -> None:
    network = Custom(again, a=nn.Conv2d(3, 4, 3, 2, 1), b=nn.Conv2d(4, 4, 3, 2, 1))
    result, report = antialias(network, "bin-5", example=X, return_report=True)
    assert "in training max_pool2d drops samples as well: once the call like it is converted" in str(report)
    with pytest.raises(UsageError, match="among 2 calls like them, 1 when"):
        result.train()(X)


@pytest.mark.parametrize("words", IN_TRAINING)
def test_a_forward_that_goes_another_way_in_training_keeps_its_function(words: str) -> None:
    kind = Remembers if "its own" in words else nn.Conv2d
    network = Custom(IN_TRAINING[words], a=kind(3, 4, 3, 2, 1), b=nn.Conv2d(4, 4, 3, 2, 1)).train()
    result, report = antialias(network, "bin-5", example=X, return_report=True)
    assert words in str(report)
    with _subsampling(m for m in result.modules() if isinstance(m, Downsample)):
        torch.testing.assert_close(result(X), network(X))


def test_what_is_written_back_is_not_dropped() -> None:
    def add(n: Custom, x: Tensor) -> Tensor:
        y = n.conv(x)
        y[:, :, ::2, ::2] += 1
        return y

    network = Custom(add, conv=nn.Conv2d(3, 4, 3, 2, 1))
    result, report = antialias(network, "tri-3", example=X, return_report=True)
    assert [change.name for change in report.replaced] == ["conv"] and not report.left
    expected = result.conv(X)
    expected[:, :, ::2, ::2] += 1
    torch.testing.assert_close(result(X), expected)


def test_a_place_that_moves_is_noticed_also_in_parts_that_are_not_called() -> None:
    """A list of modules, and one that is used by a method alone, run no hooks."""

    def short(n: Custom, x: Tensor) -> Tensor:
        y = n.parts[0](x)
        return n.parts[1](y) if x.shape[-1] > 8 else y

    network = Custom(short, parts=nn.ModuleList([nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU()])).eval()
    with pytest.raises(UsageError):
        antialias(network, example=X)(X[..., :8])

    def either(n: Custom, x: Tensor) -> Tensor:
        return sum(branch(x) for branch, runs in zip(n.branches, n.runs, strict=True) if runs)

    branches = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()) for _ in range(2))
    network = antialias(Custom(either, branches=branches, runs=(True, True)).eval(), "aps", example=X)
    network.runs = (True, False)
    network(X)
    network.runs = (False, True)
    with pytest.raises(UsageError, match="has not run"):
        network(X.flip(3))


class Features(nn.Module):
    """Returns what lies in front of its activation on demand, and what lies behind it in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.next = strided(), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x: Tensor, features: bool = False) -> tuple[Tensor, ...]:
        h = self.conv(x)
        y = self.act(h)
        return self.next(y).mean((2, 3)), *([h] if features else []), *([y] if self.training else [])


class Shown(Features):
    """The same by default."""

    def forward(self, x: Tensor, features: bool = True) -> tuple[Tensor, ...]:
        return super().forward(x, features)


@pytest.mark.parametrize("training", [False, True])
def test_what_a_forward_returns_keeps_its_size(training: bool) -> None:
    network = Features().train(training)
    result, report = antialias(network, example=X, return_report=True)
    assert "with features=True something else reads" in report.replaced[0].note
    maps = [run(X, features=not training) for run in (network, result)]
    assert len(maps[0]) == 2 and maps[0][1].shape == maps[1][1].shape
    for example in ({"x": X, "features": False}, (X, False)):
        _, report = antialias(Shown(), example=example, return_report=True)
        assert "with features=True something else reads" in report.replaced[0].note


POOLS = {
    "ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "average": nn.AvgPool2d(2),
    "as TensorFlow": MaxPool2dSame(3, 2),
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_behind_a_function_behind_a_stride_is_converted(pool: str) -> None:
    network = Custom(lambda n, x: n.pool(F.relu(n.conv(x))), conv=nn.Conv2d(3, 4, 3, 2, 1), pool=POOLS[pool]).eval()
    for placement in ("act-then-pool", "pool-then-conv"):
        changed, report = antialias(network, "tri-3", placement=placement, example=X, return_report=True)
        assert not report.left and changed(X).shape == network(X).shape
        assert not any(module.training for module in changed.modules())


def written(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Both branches, in a map made of one that has all pixels."""
    y = x.new_empty(len(a), 8, *a.shape[2:])
    y[:, :4].copy_(a)
    y[:, 4:] = b
    return y


def written_out(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Likewise, as the result of a function."""
    y = x.new_empty(len(a), 8, *a.shape[2:])
    torch.mul(a, 2, out=y[:, :4])
    torch.mul(b, 2, out=y[:, 4:])
    return y


def rows(x: Tensor) -> Tensor:
    """Tokens (N, L, C)."""
    return x.flatten(2).mT


def test_branches_meet_in_any_function_of_both() -> None:
    def shared(meet: Any) -> bool:
        parts = {"a": nn.Conv2d(3, 4, 3, 2, 1), "b": nn.Conv2d(3, 4, 1, 2)}
        network = Custom(lambda n, x: meet(x, n.a(x), n.b(x)), **parts).eval()
        report = str(antialias(network, "aps", example=X, return_report=True)[1])
        assert "not shared" not in report
        return "samples the grid that" in report

    for meet in (
        *(lambda x, a, b: torch.minimum(a, b), lambda x, a, b: torch.where(a > 0, a, b), written),
        *(lambda x, a, b: torch.einsum("nchw,nchw->nc", a, b), lambda x, a, b: F.cosine_similarity(a, b)),
        *(lambda x, a, b: a.flatten(2) @ b.flatten(2).mT, written_out),  # a sum over pixels
    ):
        assert shared(meet)
        assert shared(lambda x, a, b, meet=meet: meet(x, (a.flatten(2).mul_(0.5), a)[1], b))  # a view is written to
    assert shared(lambda x, a, b: torch.cat([rows(a), rows(b).repeat(1, 1, 2)], -1).mean(1))
    assert not shared(lambda x, a, b: torch.cdist(rows(a), rows(b)[:, 1:]))
    assert not shared(lambda x, a, b: b.type_as(a))


def test_what_fails_leaves_the_network_as_it_was() -> None:
    def whole(n: Custom, x: Tensor) -> Tensor:
        assert torch.equal(x, x.round())
        return x

    network = nn.Sequential(nn.MaxPool2d(2), Custom(whole), nn.Flatten()).eval()
    with pytest.raises(UsageError):
        antialias(network, "bin-5", example=X.round(), inplace=True)
    assert type(network[0]) is nn.MaxPool2d


def test_small_things() -> None:
    narrow = Custom(lambda n, x: n.conv(x).view(-1, 4 * 4 * 4), conv=nn.Conv2d(3, 4, 3, 2, 1)).eval()
    assert antialias(narrow, "aps")(images(1, 3, 8, 8)).shape == (1, 64)
    assert call_of(Tensor.__getitem__, (X, (..., slice(None, None, 2), slice(None, None, 2), None)), {}) is not None
    assert models.normalized(nn.Identity(), [0.5], [0.5]).bfloat16()((255 * X).byte()).dtype == torch.bfloat16
    changed = converted("resnet18", "aps")
    torch.nn.utils.fusion.fuse_conv_bn_eval(changed.layer2[0].downsample[0], changed.layer2[0].downsample[1])


def test_leaf_modules_run_in_their_order() -> None:
    parts = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, 2, "valid"), nn.MaxPool2d(3, 2, ceil_mode=True)
    network, report = antialias(nn.Sequential(*parts), example=X, return_report=True)
    assert report.replaced[1].note.startswith("layer, then")
    leaves = nn.Sequential(*(module for module in network.modules() if not [*module.children()]))
    torch.testing.assert_close(leaves(X), network(X))


def test_a_choice_does_not_outlive_its_forward() -> None:
    """A branch that takes no part in one run left its choice to the next one, of other images."""

    def run(n: Custom, x: Tensor) -> Tensor:
        return sum(branch(x) for branch, runs in ((n.one, n.first), (n.other, n.second)) if runs)

    one, other = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
    network = antialias(Custom(run, one=one, other=other, first=True, second=True), "aps", example=X)
    network.second = False
    network(X)
    network.first, network.second = False, True
    with pytest.raises(UsageError, match="another one chooses, which has not run"):
        network(X.flip(3))


def test_hooks_that_were_there_see_what_they_saw() -> None:
    network = nn.Sequential(
        *(strided(), nn.ReLU(), nn.Conv2d(4, 4, 1, 2), timm.layers.Conv2dSame(4, 4, 3, 2)),
        *(nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)),
    ).eval()
    seen: list[tuple] = []
    for index in (1, 2, 3, 4, 5):
        network[index].register_forward_hook(lambda m, args, y: seen.append(tuple(y.shape)))
        if index > 1:
            network[index].register_forward_pre_hook(lambda m, args: seen.append(tuple(args[0].shape)))
    network(X[..., :50])
    expected, seen[:] = seen.copy(), []
    result = antialias(network, example=X)
    seen.clear()
    result(X[..., :50])
    assert seen == expected


def see(*_: Any) -> None:
    pass


HOOKED = {
    "conv": lambda n: n.block.conv.register_forward_hook(see),
    "norm": lambda n: n.block.norm.register_forward_pre_hook(see),
    "block": lambda n: n.block.register_forward_hook(see),
    "next": lambda n: n.next.register_forward_pre_hook(see),
    "": lambda n: [n.register_forward_hook(see), n.next[0].register_forward_pre_hook(see)],
}


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_that_see_the_dense_map_are_named(name: str) -> None:
    def run(n: Custom, x: Tensor) -> Tensor:
        return n.relu(n.next(n.relu(n.block(x))))  # one activation for both: the layer is in front of what reads it

    block = Custom(lambda n, x: n.norm(n.conv(x)), conv=strided(), norm=nn.BatchNorm2d(4))
    network = Custom(run, block=block, relu=nn.ReLU(), next=nn.Sequential(nn.Conv2d(4, 4, 3)))
    HOOKED[name](network)
    _, report = antialias(network, example=X, return_report=True)
    assert ("hooks on" in report.replaced[0].note) == bool(name)
    assert not name or f"{name} see the map in front of it" in report.replaced[0].note


def test_names_of_a_module_are_not_hidden() -> None:
    hidden = Custom(lambda n, x: n.down(x.mT).mT, down=nn.Linear(4, 4))  # a child of a name that an owner would use
    network = Custom(lambda n, x: n.next(F.relu(n.conv(x))), conv=nn.Conv2d(3, 4, 3, 2, 1), next=hidden)
    result, report = antialias(network, example=images(1, 3, 8, 8), return_report=True)
    assert result.next.down.weight.shape == (4, 4) and "hide" in report.replaced[0].note
    result.load_state_dict(network.state_dict())


def follows(n: Custom, x: Tensor) -> Tensor:
    for slow, fast in zip(n.slow.parameters(), n.fast.parameters(), strict=True):
        slow.data = (slow.data + fast.data.flip(0)) / 2
    return n.slow(x) + n.fast(x)


def added(n: Custom, x: Tensor) -> Tensor:
    y = n.act(n.conv(x))
    n.last = getattr(n, "last", nn.Identity())
    return n.last(y)


def scaled(conv: nn.Conv2d) -> nn.Conv2d:
    """Its weight is computed by a hook written by hand."""
    conv.weight_orig = nn.Parameter(2 * conv.weight.detach())
    del conv.weight
    conv.register_forward_pre_hook(lambda module, inputs: setattr(module, "weight", module.weight_orig / 2))
    return conv


UNUSUAL = {
    "named arguments": lambda: Custom(
        lambda n, x: n.act(input=n.side(input=n.conv(input=x))),
        **{"conv": nn.Conv2d(3, 4, 3, 2, 1), "side": nn.Conv2d(4, 4, 1, 2), "act": nn.ReLU()},
    ),
    "scripted part": lambda: nn.Sequential(
        torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU())), block()
    ),
    "graph": lambda: torch.fx.symbolic_trace(
        nn.Sequential(called(lambda x: F.max_pool2d(x, 2)), nn.Conv2d(5, 4, 3, 2))
    ),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3, 2, 1)), nn.ReLU()),
    "weight of a hook": lambda: scaled(strided()),
    "old weight norm": lambda: nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3, 2, 1)), nn.ReLU()),
    "feature extractor": lambda: Custom(
        lambda n, x: n.act(n.part(n.conv(x))["out"]),  # whose graph depends on its mode
        **{"conv": nn.Conv2d(3, 4, 3, 2, 1), "act": nn.ReLU()},
        part=create_feature_extractor(
            nn.Sequential(nn.BatchNorm2d(4), nn.Sigmoid()),
            train_return_nodes={"0": "out"},
            eval_return_nodes={"1": "out"},
        ),
    ),
    "frozen part": lambda: nn.Sequential(block(), torch.jit.freeze(torch.jit.script(nn.Conv2d(4, 2, 1).eval()))),
    "a part that its first run adds": lambda: Custom(added, conv=strided(), act=nn.ReLU()),
    "weights that follow others": lambda: Custom(follows, slow=block(), fast=block()),
    "input changed in place": lambda: Custom(lambda n, x: n.block(x.sub_(0.5)), block=block()),
}


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_networks_are_converted(case: str) -> None:
    network, example = UNUSUAL[case]().eval(), X.clone()
    with torch.no_grad():
        same = antialias(network, "subsample", example=example)
    blurred, report = antialias(network, "tri-3", example=example, return_report=True)
    blurred = copy.deepcopy(blurred)
    assert torch.equal(example, X)
    expected, plain, smooth = (run(X.clone()) for run in (network, same, blurred))
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-5)
    assert smooth.shape == expected.shape and not torch.allclose(smooth, expected)
    plain.sum().backward()
    assert all(weight.grad is not None for weight in same.parameters())
    assert all(weight.grad is None for weight in network.parameters())
    script = ["scripted module"]
    left = {"scripted part": script, "frozen part": script, "graph": ["fx.GraphModule"]}.get(case, [])
    assert all(words in str(change) for words, change in zip(left, report.left, strict=True))


@pytest.mark.parametrize("downsample", ["bin-5", "aps", "lps"])
def test_a_map_without_a_batch(downsample: str) -> None:
    parts = strided(), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2)
    network = antialias(nn.Sequential(*parts), downsample, example=X[0]).eval()
    torch.testing.assert_close(network(X[0]), network(X[:1])[0])


def block() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
@pytest.mark.parametrize("build", [block, strided, lambda: nn.utils.weight_norm(strided())])
def test_wrappers_are_looked_through(wrap, build) -> None:
    inside = build()
    expected = antialias(inside)(X)
    torch.testing.assert_close(antialias(wrap(inside))(X), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detector", "transformers"])
def test_detectors_and_networks_of_transformers_get_the_better_placement(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "detector":
        options = {"weights": None, "weights_backbone": None, "num_classes": 3, "min_size": 64, "max_size": 96}
        network = torchvision.models.get_model("fasterrcnn_mobilenet_v3_large_320_fpn", **options).eval()
        x: object = [X[0]]
    else:
        transformers = pytest.importorskip("transformers")
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        network, x = transformers.ResNetForImageClassification(config).eval(), X
    _, report = antialias(network, example=x, return_report=True)
    assert sum("after the activation" in change.note for change in report.replaced) >= 2
    same = antialias(network, "subsample", example=x)
    for one, two in zip(tensors(network(x)), tensors(same(x)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


# The function is kept


class Asserts(nn.Conv2d):
    """Runs with the stride it has, or not at all."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.stride == (2, 2)
        return super().forward(x)


def listed() -> Custom:
    """The forward does not look for its parts where modules are."""
    parts = strided(), nn.ReLU()
    return Custom(lambda n, x: n.parts[1](n.parts[0](x)), conv=parts[0], act=parts[1], parts=parts)


KEPT = {
    "standardised, same": lambda: timm.layers.StdConv2dSame(3, 4, 3, 2),
    "same in the forward": lambda: SamePadding(3, 4, 3, 2),
    "stride read by the parent": lambda: Custom(
        lambda n, x: n.conv(F.pad(x, (n.conv.stride[0], 1, 1, 1))), conv=nn.Conv2d(3, 4, 3, 2)
    ),
    "parts in a tuple": listed,
    "asserts its stride": lambda: Asserts(3, 4, 3, 2),
    "layer norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.LayerNorm([4, 11, 9]), nn.ReLU()),
    "group norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.GroupNorm(2, 4), nn.ReLU()),
}


@pytest.mark.parametrize("case", KEPT)
def test_subsampling_is_the_network(case: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(KEPT[case](), nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = images(2, 3, 22, 17)
    for placement in models.PLACEMENTS:
        plain = antialias(network, "subsample", placement, example=x)
        torch.testing.assert_close(plain(x), network(x), rtol=1e-4, atol=1e-5)
        if "same" in case:  # where all sides are odd, it pads at stride 1 as at stride 2
            odd = antialias(network, "subsample", placement, example=images(2, 3, 19, 17))
            torch.testing.assert_close(odd(x), network(x), rtol=1e-4, atol=1e-5)
        blurred, report = antialias(network, "bin-5", placement, example=x, return_report=True)
        assert blurred(x).shape == network(x).shape
        raises = case in ("asserts its stride", "layer norm")
        if "norm" not in case:
            assert ("does not run without" if raises else "something else") in report.left[0].note
        elif placement == "act-then-pool":
            assert ("does not run without" if raises else "looks at the whole map") in report.replaced[0].note


@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.ReLU])
def test_only_parts_of_the_class_that_a_forward_asks_for_keep_their_place(kind: type) -> None:
    def run(n: Custom, x: Tensor) -> list[Tensor]:
        kept = []
        for part in n.parts:
            x = part(x)
            kept += [x] if isinstance(part, kind) else []
        return [*kept, x]

    parts = nn.Sequential(residual(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
    network, report = antialias(Custom(run, parts=parts).eval(), "aps", example=X, return_report=True)
    assert len(network(X)) == 2 and len(report.replaced) + len(report.left) == 4
    (asked,) = [change.name for change in report.replaced + report.left if "asks for its class" in change.note]
    assert asked == ("parts.1" if kind is nn.MaxPool2d else "parts.2")


class PadsByPart(nn.Module):
    """Pads by the stride of its part, whose class is torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        least = [max((-(-n // s) - 1) * s + 3 - n, 0) for n, s in zip(x.shape[:1:-1], self.conv.stride, strict=True)]
        return self.conv(F.pad(x, [amount for total in least for amount in (total // 2, total - total // 2)]))


@pytest.mark.parametrize("side", [33, 35])
@pytest.mark.parametrize("build", [partial(SamePadding, 3, 3, 3, 2), PadsByPart])
def test_subsampling_is_the_network_at_every_depth(build, side: int) -> None:
    """Where a side is odd, what pads by its stride pads alike: of 33 all are, of 35 most, and of 34 most still."""
    torch.manual_seed(0)
    network = nn.Sequential(*(build() for _ in range(5))).eval()
    with pytest.raises(UsageError, match="0 replaced"):
        antialias(network, "subsample", example=images(1, 3, side, side))


BLANK = {
    "zeros": lambda x: torch.zeros_like(x),
    "colour": lambda x: ([torch.tensor([-2.0, 0.0, 1.0])[:, None, None].expand_as(x)],),
    "named": lambda x: {"x": torch.ones_like(x)},
}


@pytest.mark.parametrize("case", BLANK)
def test_on_a_blank_example_everything_would_be_alike(case: str) -> None:
    """Zeros, which padding does not change, hid that the first convolution pads by its stride, and any shift."""
    network = Custom(
        lambda n, x: n.parts(x if isinstance(x, torch.Tensor) else x[0]),
        parts=nn.Sequential(
            *(SamePadding(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        ),
    ).eval()
    x = images(2, 3, 24, 20)
    example = BLANK[case](x)
    torch.testing.assert_close(antialias(network, "subsample", example=example)(x), network(x))
    _, report = antialias(network, "aps", padding_mode="circular", example=example, return_report=True)
    assert [change.name for change in report.replaced] == ["parts.2"]
    assert not isinstance(example, torch.Tensor) or report.notes[0].startswith("Not exactly invariant")


@pytest.mark.parametrize(
    ("first", "example"),
    [
        (SamePadding(3, 4, 3, 2), [X[:, :, :33, :33], X[:, :1, :33, :33]]),  # odd, and only together even
        (SamePadding(3, 4, 3, 2), [0 * X, 0 * X[:, :1]]),
        (nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (4, 1, 1))), [X[:, :, 0, 0], 0 * X[:, :1]]),
    ],
)
def test_no_image_among_several_inputs_hides_what_pads_by_its_stride(first: nn.Module, example: list[Tensor]) -> None:
    parts = {"second": SamePadding(1, 4, 3, 2), "last": nn.Conv2d(4, 4, 3, 2, 1)}
    network = Custom(lambda n, x: n.last(F.relu(n.first(x[0]) + n.second(x[1]))), first=first, **parts).eval()
    _, report = antialias(network, example=example, return_report=True)
    assert [change.name for change in report.replaced] == ["last"]


@dataclass(slots=True)
class Levels:
    maps: Any


PACKS = {
    "map": lambda n, x, given: x,
    "list": lambda n, x, given: [x],
    "dictionary": lambda n, x, given: {"maps": (x,)},
    "values": lambda n, x, given: {"maps": x}.values(),
    "slots": lambda n, x, given: Levels([Levels(x)]),
    "kept by a module": lambda n, x, given: n.relu.maps.update(one=x),
    "put in a list": lambda n, x, given: given.append(x),
}


@pytest.mark.parametrize("pack", PACKS)
def test_maps_that_an_output_holds_or_a_module_keeps_keep_their_size(pack: str) -> None:
    def run(n: Custom, inputs: tuple[Tensor, list]) -> SimpleNamespace:
        y = n.conv(inputs[0])
        return SimpleNamespace(logits=n.relu(y).mean((2, 3)), before=PACKS[pack](n, y, inputs[1]))

    network = Custom(run, conv=strided(), relu=nn.ReLU())
    network.relu.maps = {}
    runs = [(some, (X, [])) for some in (network, antialias(network, example=((X, []),)))]
    shapes = [[y.shape for y in tensors([some(x).__dict__, some.relu.maps, x[1]])] for some, x in runs]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 2


def test_a_module_that_only_lends_its_weights_keeps_its_stride() -> None:
    def lend(n: nn.Module, x: Tensor) -> Tensor:
        return n.more(F.conv2d(x, n.conv.weight, n.conv.bias, n.conv.stride, n.conv.padding).relu())

    network = Custom(lend, conv=nn.Conv2d(3, 4, 3, 2, 1), more=nn.Conv2d(4, 4, 3, 2, 1)).eval()
    result, report = antialias(network, "bin-5", return_report=True)
    assert [change.name for change in report.replaced] == ["more"] and result.conv.stride == (2, 2)
    torch.testing.assert_close(antialias(network, "subsample")(X), network(X))


def pools(n: nn.Module, x: Tensor) -> Tensor:
    for _ in range(n.times):
        x = F.max_pool2d(x, 2)
    return x


def test_calls_of_functions_are_counted_and_their_module_is_missed() -> None:
    block = Custom(pools, times=1)
    network = antialias(Custom(lambda n, x: n.block(x), block=block), "tri-3", example=X)
    assert network(X).shape == block(X).shape
    assert torch.equal(network(nn.Parameter(X)), network(X))  # an image that is learned is no kernel
    for times, words in ((0, "0 of 1"), (2, "1 of 1 anti-aliased calls of functions ran, among 2 calls like them, 1")):
        network.block.times = times
        with pytest.raises(UsageError, match=words):
            network(X)
    for change in (lambda: setattr(network.block, "forward", block.forward), lambda: setattr(network, "block", block)):
        change()
        with pytest.raises(UsageError, match=LOST):
            network(X)


def test_a_network_on_the_meta_device_and_one_in_half_precision_are_converted() -> None:
    with torch.device("meta"):
        network = antialias(nn.Sequential(residual(), nn.MaxPool2d(2)), "aps")
    assert next(network.parameters()).is_meta
    half = antialias(nn.Sequential(strided(), nn.ReLU()).bfloat16(), "ddac")
    assert half(X.bfloat16()).dtype == torch.bfloat16


def test_another_default_device_is_none_of_its_business() -> None:
    network = nn.Sequential(strided(), nn.ReLU(), nn.MaxPool2d(2)).eval()
    expected = antialias(network, example=X)(X)
    with torch.device("meta"):
        for example in (None, 0 * X):
            assert torch.equal(antialias(network, example=example)(X), expected)


def test_a_pool_of_a_small_map_is_seen() -> None:
    network = Custom(lambda n, x: F.max_pool2d(n.conv(x), 2, 2, 1), conv=nn.Conv2d(3, 4, 1)).eval()
    _, report = antialias(network, "tri-3", example=images(1, 3, 4, 4), return_report=True)
    assert len(report.replaced) == 1


def count(n: Custom, x: Tensor) -> Tensor:
    n.seen += 1
    n.kept = n.kept + 1
    n.place = x[:1] if n.place is None else n.place
    n.scale.data = n.scale.data / 2
    n.begun = n.begun or n.training
    return n.block(x)


def test_modes_buffers_and_random_state_are_left_alone() -> None:
    buffers = {name: nn.Buffer(torch.zeros(())) for name in ("seen", "kept")}
    buffers |= {"place": nn.Buffer(torch.ones(1)), "repeats": nn.Buffer(torch.ones(1).expand(3))}
    counting = Custom(count, block=block(), scale=nn.Parameter(torch.ones(())), begun=False, **buffers)
    counting.place = None
    for of in (counting, antialias(counting, example=X)):
        assert not any((of.seen, of.kept, of.begun)) and of.place is None and of.scale == 1
    with torch.inference_mode():
        fixed = block()
    with torch.no_grad():
        assert antialias(fixed, example=X)(X).shape == fixed(X).shape
    network = nn.Sequential(block(), block().train(), nn.Dropout()).train()
    network[0].eval()
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    antialias(network[:1])
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def classifier(padding_mode: str = "circular", weights: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    conv, last = nn.Conv2d(3, 4, 3, 2, 1, padding_mode=padding_mode), nn.Linear(4, 3)
    nn.init.normal_(last.weight, std=weights)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


@pytest.mark.parametrize(
    ("network", "downsample", "note"),
    [
        (classifier(), "aps", "Exactly invariant"),
        (classifier("zeros"), "lps", "Not exactly invariant.*padding that is not circular in 1"),
        (classifier(weights=0.0), "aps", "Not measured"),  # it ignores its image
        (classifier("zeros", weights=1e-8), "aps", "Not measured.*padding"),  # it nearly does
        (classifier("zeros"), "bin-5", None),
        (Custom(lambda n, x: n.net(x.sub_(0.5)), net=classifier()), "aps", "Exactly invariant"),
        (Custom(lambda n, x: torch.where(x.mean() < 2, -torch.inf, n.net(x)), net=classifier()), "aps", "Not measured"),
    ],
)
def test_the_report_says_whether_it_is_exactly_invariant(network: nn.Module, downsample: str, note: str | None) -> None:
    _, report = antialias(network, downsample, padding_mode="circular", example=X, return_report=True)
    assert re.match(note, report.notes[0]) if note else not report.notes
