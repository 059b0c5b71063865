"""antialias(): sizes, weights, places, reports, on hand-made networks and on those of torchvision and timm."""

import copy
from functools import partial
from itertools import product

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from aliasing import models
from aliasing.errors import UsageError
from aliasing.layers import create
from aliasing.models import antialias
from tests.models.shared import called, images, residual, strided
from tests.toys import Custom

# One network of every kind of wiring: two of a family only where their code differs.
TORCHVISION = (
    *("alexnet", "resnet18", "densenet121", "googlenet", "inception_v3", "mobilenet_v3_small", "shufflenet_v2_x0_5"),
    *("squeezenet1_1", "regnet_y_400mf"),
)
TIMM = (
    *("resnet26d", "tf_efficientnet_b0", "convnext_atto", "rexnet_100", "ghostnet_100", "repvgg_a0", "resnetv2_50"),
    *("ese_vovnet19b_dw", "lcnet_050", "skresnet18", "hrnet_w18_small"),
)
FAST = ("torchvision.resnet18", "torchvision.mobilenet_v3_small", "torchvision.squeezenet1_1", "timm.lcnet_050")
ALL = [f"torchvision.{name}" for name in TORCHVISION] + [f"timm.{name}" for name in TIMM]


def build(name: str) -> nn.Module:
    library, _, name = name.partition(".")
    torch.manual_seed(0)
    if library == "timm":
        return timm.create_model(name, pretrained=False, num_classes=10)
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=10, **options)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in ALL])
def test_weights_sizes_gradients_and_the_function_of_converted_networks(name: str) -> None:
    """With the layer that asks most of the wiring, since branches share its grid, and with the one that is known."""
    size = 96 if "inception" in name else 66 if "squeezenet" in name else 64  # whose pools reach beyond a map of 66
    network = build(name)
    converted, report = antialias(network, "aps", example=images(1, 3, size, size), return_report=True)
    assert report.replaced
    torch.testing.assert_close(converted.state_dict(), network.state_dict(), rtol=0, atol=0)
    y = converted.train()(images(2, 3, size, size))
    assert y.shape == (2, 10)
    assert y.isfinite().all()
    y.logsumexp(1).sum().backward()
    assert not [key for key, parameter in converted.named_parameters() if parameter.grad is None]
    if not any(isinstance(m, nn.AvgPool2d) and m.stride not in (1, (1, 1)) for m in network.modules()):  # are replaced
        x = images(2, 3, size, size - 1)
        plain = antialias(network, "subsample", example=images(1, 3, size, size)).eval()
        with torch.no_grad():
            ours, theirs = plain(x), network.eval()(x)
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def modules_with_stride() -> list[nn.Module]:
    convolutions = [
        nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups)
        for kernel, padding, dilation, groups in (
            *((1, 0, 1, 1), (1, 1, 1, 1), (2, 0, 1, 1), (2, 1, 1, 2), (3, 0, 1, 1), (3, 1, 1, 2), (3, 2, 2, 1)),
            *((5, 2, 1, 1), (5, 0, 1, 1), (7, 3, 1, 2), (4, 1, 1, 1), ((3, 5), (1, 2), 1, 1)),
        )
        for stride in (2, 3)
    ]
    pools: list[nn.Module] = [
        kind(kernel, stride, padding, ceil_mode=ceil_mode)
        for kernel, padding in ((2, 0), (2, 1), (3, 0), (3, 1), (4, 1), (5, 2))
        for stride, ceil_mode, kind in product((2, 3, 4), (False, True), (nn.MaxPool2d, nn.AvgPool2d))
    ]
    return [*convolutions, *pools, nn.MaxPool2d(2, 2, 0, 2), nn.MaxPool2d((3, 2), 2, (1, 0))]


@pytest.mark.parametrize("placement", ["conv-then-pool", "pool-then-conv"])  # without an activation there are two
def test_sizes_are_the_originals(placement: str) -> None:
    for module in modules_with_stride():
        network, example = nn.Sequential(module), images(1, 2, 9, 8)
        converted = antialias(network, "bin-5", placement, example=example)
        plain = antialias(network, "subsample", placement, example=example)
        for height in range(1, 14):
            x = images(1, 2, height, 17 - height)
            try:
                y = network(x)
            except RuntimeError:  # smaller than the kernel
                continue
            assert converted(x).shape == y.shape, (module, x.shape)
            if not isinstance(module, nn.AvgPool2d) and placement != "pool-then-conv":
                torch.testing.assert_close(plain(x), y, msg=str(module))


def blur(x: torch.Tensor) -> torch.Tensor:
    return create("bin-5", x.shape[1])(x)


def dense(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, conv.weight, conv.bias, 1, conv.padding)


def branches(block: Custom, x: torch.Tensor, placement: str) -> torch.Tensor:
    side = dense(block.side, blur(x))
    if placement == "act-then-pool":
        h = blur(block.bn1(dense(block.conv1, x)).relu())
    elif placement == "conv-then-pool":
        h = block.bn1(blur(dense(block.conv1, x))).relu()
    else:
        h = block.bn1(dense(block.conv1, blur(x))).relu()
    return (block.conv2(h) + side).relu()


def picky(n: Custom, x: torch.Tensor) -> torch.Tensor:
    """Runs on no example but the one that is given."""
    if x.shape[-1] != 8:
        raise ValueError("other sizes are not taken")
    return n.norm(n.conv(x)).relu()


# What is converted, how it is by hand, and options of antialias.
BY_HAND: dict[str, tuple] = {
    "convolution": (strided, lambda n, x: blur(dense(n, x))),
    "convolution, its values looked at": (
        lambda: Custom(lambda n, x: n.relu(n.conv(x)) if x.sum() > 0 else x, conv=strided(), relu=nn.ReLU()),
        lambda n, x: blur(dense(n.conv, x).relu()),
    ),
    "convolution, read by the name of an input": (
        lambda: Custom(lambda n, x: n.last(input=F.relu(n.conv(input=x))), conv=strided(), last=nn.Conv2d(4, 5, 1)),
        lambda n, x: n.last(blur(dense(n.conv, x).relu())),
    ),
    "convolution, nothing checked": (
        lambda: Custom(picky, conv=strided(), norm=nn.GroupNorm(2, 4)),
        lambda n, x: n.norm(blur(dense(n.conv, x))).relu(),
        {"example": None},
    ),
    "convolution, its side named": (
        lambda: Custom(picky, conv=strided(), norm=nn.GroupNorm(2, 4)),
        lambda n, x: n.norm(blur(dense(n.conv, x))).relu(),
        {"example": 8},
    ),
    "convolution, of more channels than the image": (
        lambda: Custom(lambda n, x: n.relu(n.conv(torch.cat([x, x], 1))), conv=nn.Conv2d(6, 4, 3, 2), relu=nn.ReLU()),
        lambda n, x: blur(dense(n.conv, torch.cat([x, x], 1)).relu()),
        {"example": None},
    ),
    "max of three": (lambda: nn.MaxPool2d(3, 2, 1), lambda n, x: blur(F.max_pool2d(x, 3, 1, 1))),
    "max, the layer alone": (lambda: nn.MaxPool2d(3, 2, 1), lambda n, x: blur(x), {"placement": "pool-then-conv"}),
    "max under two names": (
        lambda: Custom(lambda n, x: n.other(n.one(x)), **dict.fromkeys(("one", "other"), nn.MaxPool2d(3, 2, 1))),
        lambda n, x: blur(blur(x)),
        {"placement": "pool-then-conv"},
    ),
    "a trunk that runs twice": (
        lambda: Custom(lambda n, x: n.trunk(x) - n.trunk(x.flip(3)), trunk=nn.Sequential(strided(), nn.ReLU())),
        lambda n, x: blur(dense(n.trunk[0], x).relu()) - blur(dense(n.trunk[0], x.flip(3)).relu()),
    ),
    "average": (lambda: nn.AvgPool2d(2), lambda n, x: blur(x[:, :, :8])),
    "average of three": (lambda: nn.AvgPool2d(3, 2, 1), lambda n, x: blur(x)),
    # A window of 3 that starts at the first pixel is centred on the second.
    "average of three inside": (lambda: nn.AvgPool2d(3, 2), lambda n, x: blur(x[:, :, 1:9, 1:7])),
    "average, its divisor": (lambda: nn.AvgPool2d(2, divisor_override=1), lambda n, x: 4 * blur(x[:, :, :8])),
}
for _placement in models.PLACEMENTS:
    BY_HAND[_placement] = residual, partial(branches, placement=_placement), {"placement": _placement}
for _case, _reduce, _by_hand in (
    ("max", lambda x: F.max_pool2d(x, 2), lambda x: blur(F.max_pool2d(x, 2, 1))),
    ("max, torch", lambda x: torch.max_pool2d(x, [3], [2], [1]), lambda x: blur(F.max_pool2d(x, 3, 1, 1))),
    ("max, aten", lambda x: torch.ops.aten.max_pool2d(x, [2, 2], [2, 2]), lambda x: blur(F.max_pool2d(x, 2, 1))),
    ("max, one map", lambda x: F.max_pool2d(x[0], 2)[None], lambda x: blur(F.max_pool2d(x[:1], 2, 1))),
    ("average", lambda x: F.avg_pool2d(x, (2, 2)), lambda x: blur(x[:, :, :8])),
    (
        "average, divisor",
        lambda x: F.avg_pool2d(input=x, kernel_size=2, divisor_override=2),
        lambda x: 2 * blur(x[:, :, :8]),
    ),
    ("slices", lambda x: x[:, :, ::2, ::2], blur),
    ("slices with ends", lambda x: x[:, :, 0 : x.shape[2] : 2, 0 : x.shape[3] : 2], blur),
    (
        "slices beside a pool",
        lambda x: x[..., ::2, ::2] + F.max_pool2d(x, 3, 2, 1),
        lambda x: blur(x) + blur(F.max_pool2d(x, 3, 1, 1)),
    ),
    ("slices, odd", lambda x: x[..., 1::2, 1::2], lambda x: blur(x[:, :, 1:, 1:])),
):
    BY_HAND[f"call of {_case}"] = (
        partial(called, _reduce),
        lambda n, x, by_hand=_by_hand: n.last(by_hand(n.conv(x).relu())),
    )


@pytest.mark.parametrize("case", BY_HAND)
def test_layers_are_where_they_are_by_hand(case: str) -> None:
    build, by_hand, *options = BY_HAND[case]
    network, x = build().eval(), images(2, 3, 9, 8)
    result, report = antialias(network, return_report=True, **{"example": x, **dict(*options)})
    assert report.replaced and not report.left
    assert list(result.state_dict()) == list(network.state_dict())
    assert ("nothing checked" in str(report)) == (case == "convolution, nothing checked")
    runs = [result, copy.deepcopy(result)]
    if case.startswith("call"):
        torch.compiler.reset()
        runs.append(torch.compile(result, backend="eager", fullgraph=True))
    for run in runs:
        torch.testing.assert_close(run(x), by_hand(network, x))
    if "average" not in case:
        torch.testing.assert_close(antialias(network, "subsample")(x), network(x))


def circular(network: nn.Module) -> nn.Module:
    """``network`` with everything that pads padding circularly."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
        if isinstance(module, nn.MaxPool2d):
            network.set_submodule(name, nn.Sequential(nn.CircularPad2d(1), nn.MaxPool2d(3, 2)))
    return network


@pytest.mark.parametrize(
    ("name", "downsample"),
    [
        ("torchvision.resnet18", "aps"),
        ("torchvision.resnet18", {"name": "lps", "hidden": 3}),
        ("timm.resnetv2_50", "aps"),
    ],
)
def test_residual_networks_become_exactly_invariant_to_circular_shifts(name: str, downsample) -> None:
    network = circular(build(name))
    x = images(1, 3, 64, 96)
    converted, report = antialias(network, downsample, padding_mode="circular", example=x, return_report=True)
    assert "samples the grid" in str(report)
    assert "not shared" not in str(report)
    converted, x = converted.double().eval(), x.double()
    with torch.no_grad():
        logits, other = converted(x), converted(x.square())
        moved = [converted(x.roll(shift, (2, 3))) for shift in ((1, 3), (18, 5), (31, 62))]
    assert all((found - logits).norm() <= 1e-9 * (other - logits).norm() for found in moved)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the framework about itself
@pytest.mark.parametrize("downsample", ["aps", "lps"])
def test_shared_choices_survive_copies_training_and_the_compiler(downsample: str) -> None:
    converted = copy.deepcopy(antialias(residual(), downsample, example=images(1, 3, 8, 8)))
    assert converted.side.down_before is not converted.conv1
    converted(images(2, 3, 10, 7)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in converted.parameters())
    converted.eval()
    x = images(2, 3, 9, 8)
    expected = converted(x)
    with pytest.raises(UsageError, match="another one chooses, which has not run: call the whole network"):
        converted.side(x)
    torch.compiler.reset()
    compiled = torch.compile(converted, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), expected)


def crossing(n: Custom, x: torch.Tensor) -> torch.Tensor:
    """The branch that is called first has its activation, and so its layer, behind the other branch."""
    h = n.first(x).relu()
    side = n.second(x)
    return n.last(h) + side


def test_the_branch_whose_layer_runs_first_chooses() -> None:
    first, second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
    network = Custom(crossing, first=first, second=second, last=nn.Conv2d(4, 4, 1))
    converted, report = antialias(network, "aps", return_report=True)
    notes = {change.name: change.note for change in report.replaced}
    assert "samples the grid that second chooses" in notes["first"]
    x = images(3, 3, 8, 10)
    maps = [dense(conv, x) for conv in (network.first, network.second)]
    layer = create("aps", 4, padding_mode="reflect")
    choice = layer.choose(maps[1])
    expected = network.last(layer.sample(maps[0].relu(), choice)) + layer.sample(maps[1], choice)
    torch.testing.assert_close(converted(x), expected)


def uneven(n: Custom, x: torch.Tensor) -> torch.Tensor:
    """Branches that meet after two steps of two and one of four, and one that pools by a function call."""
    h = n.two(n.one(x)) + n.four(x)
    return n.side(h) + F.max_pool2d(h, 2)


def test_choices_that_cannot_be_shared_are_reported() -> None:
    one, two, side = (nn.Conv2d(channels, 4, 3, 2, 1) for channels in (3, 4, 4))
    network = Custom(uneven, one=one, two=two, four=nn.Conv2d(3, 4, 1, 4), side=side)
    _, report = antialias(network, "aps", return_report=True)
    notes = {change.name: "not shared" in change.note for change in report.replaced}
    assert notes == {"one": False, "two": True, "four": True, "side": True, "max_pool2d": False}
    _, report = antialias(residual(), "aps", skip=("side",), return_report=True)
    assert "not shared" in report.replaced[0].note
    _, report = antialias(residual(), "bin-5", return_report=True)
    assert "grid" not in str(report)


def test_report_says_what_was_left_and_why() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        nn.Conv2d(8, 8, 3, (2, 1), 1),
        nn.Conv2d(8, 8, 3, 5, 1),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 3, 3, 2, 1),
        Custom(lambda n, x: F.max_pool2d(F.avg_pool2d(n.conv(x), 3, 1, 1), 2), conv=nn.Conv2d(3, 4, 3, 2, 1)),
    )
    _, report = antialias(network, skip=("4",), example=images(1, 3, 400, 400), return_report=True)
    assert [change.name for change in report.replaced] == ["3", "5.conv", "5:max_pool2d"]
    assert [change.name for change in report.left] == ["0", "1", "2", "4"]
    text = str(report)
    for words in ("patch embedding", "differ between", "up to 4", "named in skip", "function call", "dense max"):
        assert words in text


def test_the_stem_is_the_convolution_that_runs_first_not_the_one_that_is_defined_first() -> None:
    network = Custom(lambda n, x: n.late(n.early(x)), late=nn.Conv2d(3, 4, 3, 2), early=nn.Conv2d(3, 3, 3, 2))
    _, report = antialias(network, keep_stem=True, return_report=True)
    assert [change.name for change in report.left] == ["early"]


def test_layers_that_learn_count_the_channels_of_pools() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.MaxPool2d(2), nn.Conv2d(6, 10, 3, 2, 1), nn.GLU(1))
    converted = antialias(network, "tips", example=images(1, 3, 16, 16))
    converted(images(2, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in converted.parameters())
    assert network.training


def test_what_the_layer_refuses_is_left() -> None:
    pool = nn.MaxPool2d(2)  # of maps of 4 channels, and of 6
    network = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1), pool, nn.Conv2d(4, 6, 1), pool)
    _, report = antialias(network, {"name": "ddac", "groups": 2}, return_report=True)
    assert [change.name for change in report.left] == ["0", "2"]
    assert "ddac" in report.left[0].note and "its maps have 4 and 6" in report.left[1].note


def test_a_convolution_whose_forward_is_its_own_by_a_hundredth_is_left() -> None:
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * (1.01 if self.stride == (2, 2) else 1)

    network = nn.Sequential(Own(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    _, report = antialias(network, example=images(1, 3, 16, 16), return_report=True)
    assert [change.name for change in report.left] == ["0"]


def test_the_model_is_copied_unless_inplace() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1))
    x = images(1, 3, 8, 8)
    before = network(x)
    converted = antialias(network)
    assert torch.equal(network(x), before)
    assert not torch.allclose(converted(x), before)
    with pytest.raises(UsageError, match="in skip"):
        antialias(network, inplace=True, skip="1")
    assert torch.equal(network(x), before)
    assert antialias(network, inplace=True) is network
    assert torch.equal(network(x), converted(x))
