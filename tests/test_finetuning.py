"""Fine-tuning towards a network's own answers: it mends, it can be stopped, it overwrites nothing."""

import copy
import json
import math
from dataclasses import replace
from functools import partial
from itertools import count
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
import torchvision
from filelock import FileLock
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

import aliasing
from aliasing import finetuning
from aliasing.datasets import ImageSet
from aliasing.diagnosis import networks
from aliasing.diagnosis.measuring import _conversion
from aliasing.errors import DataError, StorageError, UsageError
from aliasing.layers import outermost
from tests.toys import Answer, Custom, write

SIZE = 24


def net():
    """Random convolutions under a head that tells noise from noise."""
    torch.manual_seed(0)
    first, second = (nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 8), (8, 16)))
    body = nn.Sequential(
        first, nn.BatchNorm2d(8, momentum=1), nn.ReLU(), second, nn.BatchNorm2d(16, momentum=1), nn.ReLU()
    )
    body.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    features = body.train()(noise(64, 1, SIZE).float() / 255)  # also the statistics
    head = nn.Linear(16, 5)
    with torch.no_grad():
        head.weight.mul_(8)
        head.bias.copy_(-(features @ head.weight.T).mean(0))
    return nn.Sequential(*body, head).eval()


def noise(count, seed=0, side=SIZE + 6):
    """Pictures with fine and coarse structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    fine = torch.rand(count, 3, side, side, generator=generator)
    images = nn.functional.interpolate(coarse, (side, side)) + 0.5 * fine
    return (255 * images.clamp(0, 1)).to(torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    for kind in range(5):
        write(place / str(kind), noise(60)[kind::5])
    return place


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module that makes the network, and one that returns maps."""
    lines = (
        "from tests.test_finetuning import Answer, net as make, nn, torch",
        "def frozen(): return nn.Sequential(make(), Answer(torch.detach))",
        "def maps(): return nn.Conv2d(3, 5, 1)",
        "class Packed(nn.Identity): get_extra_state = set_extra_state = lambda *a: {}",
        "def packed(): return make().append(Packed())  # as quantised modules are",
        "halves = Answer(lambda x: nn.functional.max_pool2d(x, 2))",
        "def rigid(): return nn.Sequential(halves, nn.Flatten(), nn.Linear(432, 5))",
    )
    (tmp_path / "tuned_nets.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_converted_network_comes_back_to_its_answers():
    network = net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    tuned, table = aliasing.finetune(network, "tri-3", noise(300), size=SIZE, epochs=6, lr=0.001, device="cpu")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert tuple(table.columns) == finetuning.COLUMNS
    agreement = {name: cell.value for name, cell in table.loc["agreement with the original"].items()}
    assert agreement["original"] == 1
    assert agreement["converted, fine-tuned"] > agreement["converted"]
    gain = table.loc["agreement with the original, minus original", "converted, fine-tuned"]
    assert gain.value == pytest.approx(agreement["converted, fine-tuned"] - 1) and gain.low < gain.value < gain.high
    assert tuned(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 5)


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_what_learned_takes_and_returns_what_the_given_network_does():
    """Grey images and a probability: it came back with what was put around it, of colours and two logits.

    Weights that are computed and scripted parts are not copied as others are: with these it stopped.
    """
    first, last = nn.utils.weight_norm(nn.Conv2d(1, 4, 3, 2)), torch.jit.script(nn.Linear(4, 1))
    counts = []  # of windows that are in memory at once
    counted = Answer(lambda x: counts.append(len(x)) or x)
    grey = nn.Sequential(counted, first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last, nn.Sigmoid())
    tuned, _ = aliasing.finetune(grey, "tri-3", noise(60), size=SIZE, device="cpu", batch_size=8)
    assert max(counts) == 16  # without gradients, which take the more memory
    images = torch.rand(8, 1, SIZE, SIZE)
    torch.testing.assert_close(tuned(images), grey(images), atol=0.1, rtol=0)


def test_what_standardises_its_input_in_place_is_none_the_worse_for_it():
    def agreements(moved):
        network = nn.Sequential(Answer(moved), net())
        _, table = aliasing.finetune(network, "tri-3", noise(60), size=SIZE, device="cpu", lr=1e-9)
        return [cell.value for cell in table.loc["agreement with the original"]]

    in_place = agreements(lambda x: x.sub_(0.4))
    assert in_place == agreements(lambda x: x - 0.4) and in_place[1] == 1


class Named(nn.Module):
    """A network one of whose layers has two names."""

    def __init__(self):
        super().__init__()
        self.body = net()
        self.stem = self.body[0]

    def forward(self, x):
        return self.body(x)


def test_layers_that_learn_begin_with_the_seed_and_shared_weights_are_kept(tmp_path):
    tables = []
    for state in (1, 2):
        network = Named()  # whose own start is always the same
        torch.manual_seed(state)
        out = tmp_path / f"{state}.safetensors"
        tables.append(aliasing.finetune(network, "lps", noise(60), out=out, size=SIZE, device="cpu")[1])
    assert tables[0].equals(tables[1])


def test_a_network_that_takes_one_size_alone_is_converted_at_that(own):
    tuned, _ = aliasing.finetune("tuned_nets:rigid", "tri-3", noise(60), size=SIZE, device="cpu", out="new.safetensors")
    asked = networks.load("new.safetensors"), networks.load("tuned_nets:rigid+tri-3", size=SIZE)
    for network in (tuned, *(found.module for found in asked)):
        assert len(outermost(network)) == 1
    assert len(_conversion(networks.load("tuned_nets:rigid", size=SIZE)).replaced) == 1


class Conditional(nn.BatchNorm2d):
    def forward(self, x, gain):
        return gain * super().forward(x)


class Whitening(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.eye(4))

    def forward(self, x):
        return (x - self.running_mean) @ self.running_var


def test_statistics_move_by_what_the_layer_changes_and_not_by_the_pictures():
    network, windows = net(), noise(64, 2, SIZE).float() / 255
    same, blurred = net(), aliasing.antialias(net(), "bin-5")
    finetuning.lesson.recalibrate(same, network, windows)
    torch.testing.assert_close(same.state_dict(), network.state_dict())
    finetuning.lesson.recalibrate(blurred, network, windows)
    # In front of the first there is no layer, only a map with four times as many samples.
    torch.testing.assert_close(blurred[1].running_mean, network[1].running_mean, atol=0.1, rtol=0)
    assert (blurred[4].running_var < network[4].running_var).all()
    parts = {"conv": nn.Conv2d(3, 4, 3, 2), "norm": nn.BatchNorm2d(4), "last": nn.BatchNorm2d(4)}
    nn.init.uniform_(parts["conv"].weight)
    network = Custom(lambda n, x: n.last(input=n.norm(F.relu(n.conv(x)))), **parts).eval()
    blurred, maps = aliasing.antialias(network, "bin-7"), []  # whose layer stands in front of the norm
    finetuning.lesson.recalibrate(blurred, network, windows)
    for norm in (network.norm, blurred.norm.inner):
        norm.register_forward_pre_hook(lambda norm, args: maps.append(args[0]))
    network(windows), blurred(windows)
    before, after = (one.var((0, 2, 3)) for one in maps)
    torch.testing.assert_close(blurred.norm.running_var, after / before)
    assert (blurred.last.running_var != 1).all()
    conditional = Custom(lambda n, x: n.norm(n.conv(x), 2.0), conv=parts["conv"], norm=Conditional(4)).eval()
    finetuning.lesson.recalibrate(blurred := aliasing.antialias(conditional, "bin-7"), conditional, windows)
    assert (blurred.norm.running_var != 1).all()
    twice = Custom(lambda n, x: n.norm(F.relu(n.norm(n.conv(x)))), **parts).eval()  # which are of other statistics
    for changed in (same := copy.deepcopy(twice), aliasing.antialias(twice, "bin-7")):
        finetuning.lesson.recalibrate(changed, twice, windows)
    torch.testing.assert_close(same.state_dict(), twice.state_dict())
    inner = Custom(lambda n, x: n.norm(n.conv(x)), conv=parts["conv"], norm=nn.BatchNorm2d(4))  # of its author
    network = Custom(lambda n, x: n.norm(F.relu(n.inner(x))), inner=inner, norm=nn.BatchNorm2d(4)).eval()
    finetuning.lesson.recalibrate(blurred := aliasing.antialias(network, "bin-7"), network, windows)
    assert (blurred.inner.norm.running_var != 1).all() and (blurred.norm.running_var != 1).all()
    network = timm.create_model("mobilenetv2_035", num_classes=5).eval()  # of whose norms some own layers
    finetuning.lesson.recalibrate(blurred := aliasing.antialias(network, "bin-5"), network, windows)
    after = blurred.state_dict()
    kept = [key for key, mean in network.state_dict().items() if "mean" in key and torch.equal(mean, after[key])]
    assert not kept
    for kind in (nn.SyncBatchNorm, torchvision.ops.FrozenBatchNorm2d):  # and behind a pool, of features
        network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(2), kind(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network = network.append(nn.BatchNorm1d(4)).eval()
        network = network.append(Whitening().eval())  # keeps statistics of another kind, which are left
        finetuning.lesson.recalibrate(
            blurred := aliasing.antialias(network, "bin-5"), network, torch.rand(64, 3, 32, 32)
        )
        assert torch.equal(blurred[6].running_var, torch.eye(4))
        for norm in (blurred[2], blurred[5]):
            assert norm.running_mean.all() and (norm.running_var != 1).all()


def test_the_conclusion_says_what_is_sure_and_which_way_it_goes():
    half = torch.arange(100) % 2 == 0

    def said(control, tuned):
        original, converted = (half | True,) * 2, (half & False,) * 2  # which it does not speak of
        measured = [{finetuning.CHANGES: changes.double(), finetuning.AGREES: agrees.double()}
                    for changes, agrees in (original, control, converted, tuned)]  # fmt: skip
        return finetuning.conclusion(finetuning.benefit.tabled(measured))

    words = said((half, half), (half & False, half | True))
    assert "changes fewer of its answers (-50.0 points, -59.1 to -38.9)" in words and "and more of them are" in words
    words = said((half, half), (half | True, half))
    assert "changes more of its answers (+50.0 points, " in words
    assert "perhaps as many of them are the original's (+0.0 points, -2.7 to +2.7: 100 pictures cannot tell)" in words


def test_a_stopped_command_continues_and_its_file_is_diagnosed(own, folder, monkeypatch, typed):
    command = ["finetune", "tuned_nets:make+tri-3", "--images", str(folder), "--size", str(SIZE), "--epochs", "4"]
    command += ["--device", "cpu"]
    table = json.loads(typed(*command, "--out", "whole.safetensors", "--json").out)
    assert set(table["consistency, crop shifts"]) == set(finetuning.COLUMNS)
    assert "accuracy" not in table  # nobody knows what its classes are called

    steps, step = [], finetuning.Lesson._step

    def stopping(lesson, student, optimizer, number):
        steps.append((len(list(student.modules())), number))
        if len(steps) == 11:  # while the second one learns
            raise KeyboardInterrupt
        step(lesson, student, optimizer, number)

    monkeypatch.setattr(finetuning.lesson, "KEEP", -1)  # a checkpoint after every step
    monkeypatch.setattr(finetuning.Lesson, "_step", stopping)
    typed(*command, "--out", "once again.safetensors", status=130)
    assert (own / "once again.safetensors.partial").exists() and not (own / "once again.safetensors").exists()
    said = " ".join(typed(*command, "--out", "once again.safetensors").out.split())
    assert len(steps) == len(set(steps)) + 1  # the one that was stopped, and no other, was repeated
    with safe_open("whole.safetensors", "pt") as one, safe_open("once again.safetensors", "pt") as other:
        assert all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in one.keys())  # noqa: SIM118
    assert not (own / "once again.safetensors.partial").exists()
    assert "aliasing diagnose 'once again.safetensors' --images" in said and "Beside the same fine-tuning" in said
    options = ["--images", str(folder), "--device", "cpu", "--json"]
    found = json.loads(typed("diagnose", "once again.safetensors", *options).out)["networks"][0]
    assert (found["network"], found["size"], found["layers"]) == ("once again.safetensors", SIZE, {"tri-3": 2})
    assert found["weights"] == "fine-tuned tuned_nets:make+tri-3"
    weights = ["--weights", "once again.safetensors"]
    refused = typed("diagnose", "tuned_nets:make+bin-5", *weights, *options, status=2).err
    assert "holds tuned_nets:make+tri-3" in refused
    refused = typed(*command, *weights, "--out", "again.safetensors", status=2).err
    assert "begins with weights of the original" in refused


MADE = "tuned_nets:make+tri-3"


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("tuned_nets:make", [], "expected NETWORK+LAYER, such as tuned_nets:make+tri-3"),
        (MADE, ["--out", "taken.safetensors"], "exists and is not overwritten"),
        (MADE, ["--size", "48"], "too small for windows of 48: name --size 27"),
        (MADE, ["--images", "tiny"], "short sides of 9 pixels, too small for windows of 24: they need 10 at least"),
        ("tuned_nets:maps+tri-3", [], "must return logits"),
        ("tuned_nets:packed+tri-3", [], "9._extra_state is no tensor; fine-tune first, then"),
        ("tuned_nets:frozen+tri-3", [], "tuned_nets:frozen cannot learn: its forward takes no gradient"),
        (MADE, ["--minutes", "inf"], "minutes must be a positive number"),
        (MADE, ["--lr", "1e30"], "name a smaller --lr than 1e+30"),
        (MADE, ["--out", "new.pth"], "must end in .safetensors"),
    ],
)
def test_bad_input_is_one_line_and_loses_nothing(network, options, message, own, folder, typed):
    (own / "taken.safetensors").write_text("mine")
    (own / "tiny").mkdir()
    Image.new("RGB", (9, 9)).save(own / "tiny/0.png")
    given = ["--images", str(folder), "--out", "new.safetensors", "--size", str(SIZE), *options]
    said, bar = typed("finetune", network, *given, status=2).err, ("reading ", "answers ", "fine-tuning ", " ")
    message_line = [line for line in said.splitlines() if line and not line.startswith(bar)]
    assert len(message_line) == 1 and message in message_line[0]
    assert (own / "taken.safetensors").read_text() == "mine"
    assert not (own / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("layer", {"0": "tri-3"}), ("epochs", None), ("lr", "0.1"), ("minutes", "1"), ("seed", 2**43)],
)
def test_values_of_another_kind_are_refused_before_any_work(option, value):
    given = {"network": None, "layer": "tri-3", "images": None, option: value}
    with pytest.raises(UsageError, match=f"^{option} must be"):
        aliasing.finetune(**given)


def test_what_cannot_be_continued_is_refused_before_anything_is_computed_anew(own, folder, monkeypatch):
    call = partial(aliasing.finetune, net(), "tri-3", folder, size=SIZE, device="cpu", out="new.safetensors")
    left = own / "new.safetensors.partial"
    (own / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write file/new\.safetensors\.partial \(Not a directory\)"):
        call(out="file/new.safetensors")
    left.mkdir()
    with FileLock(left / "lock"), pytest.raises(UsageError, match="another process works in new"):
        call()
    (left / "the-original.safetensors").write_text("of nobody knows which plan")
    with monkeypatch.context() as patch:
        patch.setattr(finetuning.finetuning, "averaged", None)
        with pytest.raises(DataError, match=r"answers\.safetensors.*; remove new\.safetensors\.partial to begin anew"):
            call()
    (left / "the-original.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(finetuning.Lesson, "teach", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call()
        patch.setattr(finetuning.Lesson, "teach", lambda *a: torch.empty(2**60, dtype=torch.uint8))
        with pytest.raises(UsageError, match="too little memory for batches of 32 windows of 24 pixels"):
            call()
    # Of the same description: the answers kept are those of another network, or to other pictures.
    other = net()
    other[0].weight.data[0, 0, 0, 0] += 1
    again = partial(aliasing.finetune, layer="tri-3", size=SIZE, device="cpu", out="new.safetensors")
    with pytest.raises(UsageError, match="another fine-tuning, of other contents of pictures or weights; remove it"):
        again(other, images=folder)
    with pytest.raises(UsageError, match="another fine-tuning, of other network, weights, pictures, contents of"):
        again("tuned_nets:make", images=noise(70))
    (left / "the-original.safetensors").write_text("cut")
    with pytest.raises(DataError, match=r"original\.safetensors is damaged.*; remove it to fine-tune this network"):
        call()


def test_windows_are_squares_of_colours_in_the_unit_range():
    images = torch.rand(60, 3, SIZE + 4, SIZE + 9)
    data = data_of(images)
    assert data.margins == (2, 2)
    assert any(torch.equal(data.learn[0], image[:, :, 2 : SIZE + 6]) for image in images)
    odd = data_of(noise(60, side=SIZE + 5))  # the middle of which is no pixel's edge
    cut = finetuning.data.windows(odd, torch.arange(2), torch.zeros(2).long(), torch.device("cpu"))
    assert cut.shape[2:] == (SIZE, SIZE)
    for message, wrong in {"bytes or floats": images[:, :1], "divide bytes by 255": 255 * images}.items():
        with pytest.raises(UsageError, match=message):
            aliasing.finetune(net(), "tri-3", wrong, size=SIZE, device="cpu")


def test_answers_are_of_the_windows_they_are_said_to_be_of():
    """By their first pixel; windows move by four pixels, the original looks half-way."""
    lines = torch.arange(SIZE + 8)
    held = (200 - 4 * lines).to(torch.uint8).expand(5, 3, SIZE + 8, -1)
    learn = (lines[:, None] * lines**2 // 2).clamp(max=255).to(torch.uint8).expand(3, 3, -1, -1)
    asked = Answer(lambda x: torch.stack([9 * x[:, 0, 0, 0], 0 * x[:, 0, 0, 0]], 1))
    data = finetuning.Data(learn, held, torch.zeros(5).long(), SIZE)
    found = finetuning.measure(asked, data, torch.tensor([[0.0, 1.0]]).expand(5, 2))
    assert found["accuracy"].tolist() == [1] * 5 and found[finetuning.AGREES].tolist() == [0] * 5
    here, beside = (1 / (1 + math.exp(-9 * (200 - 4 * column) / 255)) for column in (4, 3))
    assert found[finetuning.MOVES].tolist() == pytest.approx([beside - here] * 5, rel=1e-4)
    corners = [1 / (1 + math.exp(-9 * (row * column**2 // 2) / 255)) for row in (2, 6) for column in (2, 6)]
    assert finetuning.averaged(asked, data, 2)[:, 0].tolist() == pytest.approx([sum(corners) / 4] * 3, rel=5e-3)


def test_a_step_is_towards_the_answers_of_its_pictures(monkeypatch):
    """Gradients against a loop over windows, for the step in which the second epoch begins."""
    monkeypatch.setattr(finetuning.lesson, "is_fast", lambda place: False)
    images, student, rates = noise(10), net().train(), []
    answers = torch.rand(10, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    plan = finetuning.Plan("", "", "", 10, SIZE, 1, 0.1, 4, 7)
    lesson = finetuning.Lesson(plan, finetuning.Data(images, images, None, SIZE), net(), answers)
    optimizer, lesson.steps = Mock(set_rates=lambda rate: rates.append(rate(2.0))), 40
    for step in (0, 10, 20, 2):
        lesson._step(student, optimizer, step)
    assert rates == pytest.approx([0.5 * 2, 1 + 0.5**0.5, 1, 1 + math.cos(math.pi / 20)])  # two steps are warm-up
    draw = torch.Generator().manual_seed
    epochs = [torch.randperm(10, generator=draw(7 * 100_003 + epoch)).tolist() for epoch in (0, 1)]
    shifts = torch.randint(-3, 4, (4, 2), generator=draw(7 * 1_000_003 + 2)).tolist()
    expected = net()
    for row, (dy, dx) in zip(epochs[0][8:] + epochs[1][:2], shifts, strict=True):
        window = images[row][None, :, 3 - dy : 3 - dy + SIZE, 3 - dx : 3 - dx + SIZE] / 255
        (-(answers[row] * expected(window).log_softmax(1)).sum() / 4).backward()
    for own, other in zip(student.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(student.state_dict(), expected.state_dict())  # also the statistics


class There(torch.Tensor):
    """As on another device."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def to(self, *arguments, **options):
        return self.cpu().to(*arguments, **options)

    def numpy(self):
        raise TypeError("only tensors on the CPU have that")


def test_half_precision_learns_in_full_and_answers_that_are_no_numbers_are_refused(folder, tmp_path):
    tuned, _ = aliasing.finetune(net().half(), "tri-3", folder, size=SIZE, device="cpu")
    assert {p.dtype for p in tuned.parameters()} == {torch.float32}
    # Of contiguous maps alone there are views, however a head is stored; whole numbers have no gradients.
    parts = {"head": nn.Parameter(torch.rand(5, 16 * 6 * 6).T), "order": nn.Parameter(torch.arange(5), False)}
    rows = Custom(lambda n, x: (n.body(x).view(len(x), -1) @ n.head)[:, n.order], body=net()[:6], **parts)
    numbers = {"size": np.int64(SIZE), "batch_size": np.int64(32), "seed": np.int64(1), "epochs": np.float32(1)}
    with torch.inference_mode():
        images = (noise(60).double() / 255).as_subclass(There)
        tuned, _ = aliasing.finetune(rows, "tri-3", images, **numbers, device="cpu", out=tmp_path / "rows.safetensors")
    assert tuned.order.equal(torch.arange(5)) and not torch.equal(tuned.head, rows.head)
    broken, passes = net(), count()
    broken[0].register_forward_hook(lambda module, x, y: y if next(passes) < 3 else torch.full_like(y, torch.nan))
    with pytest.raises(UsageError, match="answers of the original are NaN"):
        aliasing.finetune(broken, "tri-3", folder, size=SIZE, device="cpu")


def data_of(images, held_out=None, classes=()):
    subject = replace(networks.of_module("net", net(), SIZE), classes=classes)
    return finetuning.data.gather(images, subject, held_out)


def test_labels_count_as_what_they_are_called(folder):
    """Indices of the classes of a set would be the answers to another question; folders may be called like classes."""
    images, labels = noise(60), torch.arange(60) % 5
    held, named = data_of(ImageSet(images, labels, tuple("abcde"), "own")), data_of(folder, classes=tuple("43210"))
    for own, expected in ((held, labels), (named, 4 - labels)):
        means = [nn.functional.adaptive_avg_pool2d(part.float(), 4).flatten(1) for part in (own.held, images)]
        assert own.labels.equal(expected[torch.cdist(*means).argmin(1)])  # those of a folder are resized
    for unknown in ("4321x", "433210", ""):  # which of the two that are called 3?
        assert data_of(folder, classes=tuple(unknown)).labels is None
    named = data_of(images, ImageSet(images, labels, tuple("edcba"), "other order"), tuple("abcde"))
    assert named.labels.equal(4 - labels)
    for classes, known in ((tuple("vwxyz"), tuple("abcde")), (tuple("abcdef"), ())):
        assert data_of(images, ImageSet(images, labels, classes, "others"), known).labels is None
    single = nn.Sequential(*net()[:8], nn.Linear(16, 1))  # whose classes have no names but ours
    single = networks.adapted(networks.of_module("single", single, SIZE), torch.device("cpu"))
    for classes, expected in {("cat", "dog"): labels % 2, ("yes", "no"): 1 - labels % 2, ("cat",): None}.items():
        own = finetuning.data._indices(ImageSet(images, labels % 2 * (len(classes) > 1), classes, "pets"), single)
        assert own is expected or own.equal(expected)
    with pytest.raises(UsageError, match="no room for windows"):
        data_of(images, ImageSet(noise(60, side=SIZE + 1), labels, tuple("abcde"), "small"))


def test_what_is_held_out_is_in_no_step_with_the_order_of_the_pictures():
    """Of pictures that lie by class, or take turns, it has all kinds, and so have the first to learn from."""
    for kinds in (torch.arange(90) // 30, torch.arange(90) % 3):
        images = (80 * kinds.to(torch.uint8))[:, None, None, None].repeat(1, 3, SIZE + 2, SIZE + 2)
        images[:, 1] += torch.arange(90, dtype=torch.uint8)[:, None, None]
        data = data_of(images)
        for part in (data.held, data.learn[:20]):
            assert len(part[:, 0, 0, 0].unique()) == 3
        assert len(data.held) == 30 and len(data.learn) == 60


def test_held_out_pictures_are_others_than_those_to_learn_from():
    images = noise(60)
    with pytest.warns(UserWarning, match=r"\d+ of 40 held-out pictures are left out, as others to learn from"):
        data = data_of(images.repeat(2, 1, 1, 1))
    assert len(data.held) < 40 and not any((data.learn == own).flatten(1).all(1).any() for own in data.held)
    with pytest.raises(UsageError, match="20 of 20 held-out pictures are left out"):
        data_of(images[:1].expand(60, -1, -1, -1))


def test_minutes_are_shared_by_both_networks(monkeypatch):
    """A converted network computes more: the steps of both have to fit."""
    data, now, cost = data_of(noise(60)), [0.0], {False: 1.0, True: 3.0}
    lesson = finetuning.Lesson(
        finetuning.Plan("", "", "", 40, SIZE, 100, 0.1, 4, 0), data, net(), torch.ones(40, 5) / 5
    )
    students = [net(), aliasing.antialias(net(), "tri-3")]

    def step(lesson, student, optimizer, number):
        now[0] += cost[any(isinstance(part, aliasing.layers.Downsample) for part in student.modules())]

    monkeypatch.setattr(finetuning.Lesson, "_step", step)
    monkeypatch.setattr(finetuning.lesson.time, "perf_counter", lambda: now[0])
    lesson.shorten(students, 42)
    assert lesson.steps == 10
