"""Stitched logits against plain forward passes, and the metrics made from them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aliasing import metrics, models
from aliasing.layers import create
from aliasing.layers.base import Downsample
from aliasing.metrics.rolls import roll_logits
from tests.toys import Answer, Custom, noise


def network(name="vgg-small", downsample="subsample", padding_mode="circular", dtype=torch.float64, width=4):
    torch.manual_seed(3)
    model = models.create(name, 5, downsample, padding_mode=padding_mode, width=width)
    for part in model.modules():  # untrained statistics would make every map almost constant
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.05, 0.2)
    return model.to(dtype)


def loop(model, images):
    """The slow way: roll and evaluate, image by image, a row of rolls at a time."""
    rows, columns = map(range, images.shape[-2:])
    rolled = [[torch.stack([x.roll((a, b), (1, 2)) for b in columns]) for a in rows] for x in images]
    with torch.no_grad():
        return torch.stack([torch.stack([model.eval()(row) for row in own]) for own in rolled])


def gather(parts):
    parts = list(parts)
    return torch.cat([part.logits for part in parts]), {part.method for part in parts}


@pytest.mark.parametrize("downsample", ["subsample", "max", "bin-4", "bin-5", "flc", "aps", "lps", "tips"])
@pytest.mark.parametrize("name", ["vgg-small", "resnet-small"])
def test_stitched_equals_a_loop(name, downsample):
    model = network(name, downsample)
    images = noise(1, 3, 16, 16 if downsample in ("lps", "tips") else 32)  # the loop over these is slow
    logits, methods = gather(roll_logits(model, images))
    expected = loop(model, images)
    assert methods == {"stitched"}
    assert expected.std(2).max() > 1e-6 or downsample in ("aps", "lps")
    torch.testing.assert_close(logits, expected, atol=1e-9, rtol=0)


class Cell(Downsample):
    """Subsampling by any stride, with or without a choice."""

    def __init__(self, stride, adaptive):
        super().__init__()
        self.stride, self.adaptive = stride, adaptive

    def choose(self, x):
        parts = [x[:, :, a :: self.stride].square().mean((1, 2, 3)) for a in range(self.stride)]
        return torch.stack(parts, 1).argmax(1) if self.adaptive else None

    def sample(self, x, choice=None):
        choice = self.choose(x) if choice is None else choice
        if choice is None:
            return x[:, :, :: self.stride, :: self.stride]
        rows = torch.arange(0, x.shape[2], self.stride)[None] + choice[:, None]
        return x[torch.arange(len(x))[:, None], :, rows][..., :: self.stride].permute(0, 2, 1, 3)


def branches(block, x):
    """A residual block whose branches share one choice."""
    h = block.conv(x).relu()
    choice = block.main.choose(h)
    return block.main.sample(h, choice) + block.side.sample(x, choice)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("strides", "size"), [((3, 2), (12, 18)), ((2, 4), (16, 8)), ((1, 3), (9, 9))])
def test_stitches_any_strides_and_shared_choices(strides, size, adaptive):
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular") for _ in strides]
    cells = [{name: Cell(stride, adaptive) for name in ("main", "side")} for stride in strides]
    blocks = [Custom(branches, conv=conv, **own) for conv, own in zip(convs, cells, strict=True)]
    model = nn.Sequential(*blocks, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).double()
    images = noise(2, 3, *size)
    logits, methods = gather(roll_logits(model, images))
    assert methods == {"stitched"}
    expected = loop(model, images)
    assert expected.std((1, 2)).max() > 1e-4
    torch.testing.assert_close(logits, expected, atol=1e-12, rtol=0)


def flat_head():
    """Circular throughout, but no global pool: rolls by the total stride are seen."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), Cell(2, False), nn.Flatten())
    return model.append(nn.Linear(4 * 16, 3)).double()


def strided():
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular")
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


def hidden_pool():
    """Pools by a function call in one branch only, where no hook can see it."""
    return Custom(lambda net, x: (F.max_pool2d(x, 2) + net.layer(x)).mean((2, 3)), layer=Cell(2, False))


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (lambda: network(downsample="bin-5", padding_mode="zeros"), (16, 16)),
        (lambda: network(), (12, 16)),  # sixteen does not divide twelve
        (lambda: network(downsample={"name": "tips", "faithful": True}), (16, 16)),
        (flat_head, (8, 8)),
        (strided, (8, 8)),
        (hidden_pool, (8, 8)),
        (lambda: nn.Sequential(create("bin-5", 3, (2, 4), "circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (8, 8)),
    ],
)
def test_falls_back_to_brute_force_and_says_so(model, size):
    model = model()
    images = noise(2, 3, *size)
    logits, methods = gather(roll_logits(model, images))
    assert methods == {"brute force"}
    torch.testing.assert_close(logits, loop(model, images), atol=1e-9, rtol=0)


def zeros_by_function(scale):
    """Pads with zeros by a function call, so that only the comparison can tell that it is no case for stitching."""
    torch.manual_seed(0)
    pad, head = Answer(lambda x: F.pad(x, (1, 1, 1, 1))), Answer(lambda x: x.square().mean((2, 3)) * scale)
    return nn.Sequential(pad, nn.Conv2d(3, 8, 3), nn.ReLU(), Cell(2, False), head)


@pytest.mark.parametrize(
    ("dtype", "scale", "light"),
    [(torch.bfloat16, 1, 1), (torch.half, 1, 1), (torch.float32, 1e-5, 1), (torch.float32, 1, 0)],
)
def test_what_may_be_stitched_is_told_whatever_the_precision_and_size_of_the_logits(dtype, scale, light):
    """The tolerance was wider than the logits are; and the first images may be blank."""
    images = light * noise(2, 3, 8, 8, dtype=torch.float32)
    part = next(roll_logits(zeros_by_function(scale).to(dtype), images))
    assert part.method == "brute force"
    assert part.logits.dtype == torch.float32


def test_more_classes_than_fit_into_sixteen_bits():
    model = Answer(lambda x: F.one_hot(torch.full((len(x),), 2**15), 2**15 + 2).float())
    predictions = metrics.roll_predictions(model, noise(1, 3, 2, 2), torch.tensor([2**15]))
    assert predictions.correct.all()
    assert metrics.consistency(model, noise(1, 3, 2, 2), exhaustive=True).value == 1


@pytest.mark.parametrize(("name", "width"), [("vgg-small", None), ("vgg13-bn", 4)])
def test_costs_at_most_a_tenth_of_the_forward_passes(name, width):
    model, images = network(name, width=width, dtype=torch.float32), noise(1, 3, 32, 32, dtype=torch.float32)

    def operations(call):
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    once = operations(lambda: metrics.predict(model, images))
    # The comparison with plain passes that precedes the first batch is paid once, not per image.
    twice = operations(lambda: list(roll_logits(model, images.repeat(2, 1, 1, 1), batch_size=1)))
    thrice = operations(lambda: list(roll_logits(model, images.repeat(3, 1, 1, 1), batch_size=1)))
    assert (thrice - twice) / once < 0.1 * 1024


def test_leaves_no_trace_even_on_error():
    def fragile(x):
        if len(x) > 10:
            raise MemoryError("too many maps")
        return x

    model = nn.Sequential(network(), Answer(fragile)).train()
    model[0].eval()
    before = torch.get_rng_state()
    modes = [part.training for part in model.modules()]
    with pytest.raises(MemoryError):
        list(roll_logits(model, noise(1, 3, 16, 16)))
    assert [part.training for part in model.modules()] == modes
    for layer in model.modules():
        assert not {"forward", "choose", "sample"} & set(vars(layer))
    assert torch.equal(before, torch.get_rng_state())


def test_window_of_rolls_is_cut_from_all_rolls():
    model, images = network(downsample="bin-4"), noise(2, 3, 16, 16)
    every, _ = gather(roll_logits(model, images))
    for method in (None, "brute force"):
        window = next(roll_logits(model, images, max_shift=2, method=method))
        assert window.rolls[0].tolist() == [-2, -1, 0, 1, 2]
        for i, down in enumerate(window.rolls[0]):
            for j, right in enumerate(window.rolls[1]):
                torch.testing.assert_close(window.logits[:, i, j], every[:, down, right], atol=1e-9, rtol=0)
