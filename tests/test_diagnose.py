"""Diagnosing: any folder, any network, clear messages, known answers, a report that stands alone."""

import json
import math
import os
import re
import shlex
import struct
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn
from torchvision import models as torchvision_models

import aliasing
from aliasing import metrics
from aliasing.diagnosis import load, measuring, pictures
from aliasing.diagnosis.networks import NOTE, Adapted, _library, adapted, of_module
from aliasing.diagnosis.report import percent
from aliasing.errors import DataError, UsageError
from aliasing.layers import CATALOGUE, Blur
from aliasing.layers.base import per_axis
from aliasing.metrics import Estimate
from aliasing.metrics.downsampling import Sample
from aliasing.metrics.spectra import ideal
from tests.toys import Answer, Custom, write

SIZE, MARGIN = 28, 2


def tiny(channels=3, classes=3):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, classes),
    )  # fmt: skip


def sensitive():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))


# What the names behind "own_nets:" stand for.
OWN = {
    "tiny": tiny,
    "rigid": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)),
    "maps": lambda: nn.Conv2d(3, 5, 1),
    "grey": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3)),
    "unfinished": lambda: nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten()),
    "empty": lambda: tiny().to("meta"),
    "raises": lambda: {}["no checkpoint"],
    "leaves": lambda: sys.exit(3),
    "pair": lambda: nn.Sequential(tiny(), Answer(lambda y: (y, y))),
    "indices": lambda: nn.Sequential(tiny(), Answer(lambda y: y.argmax(1))),
    "rows": lambda: nn.Sequential(tiny(), Answer(lambda y: y.squeeze().log_softmax(1))),
    "random": lambda: nn.Sequential(tiny(classes=30), Answer(nn.functional.dropout)),  # which never falls alike
    "free": lambda: nn.Sequential(sensitive(), Answer(lambda y: y[:, :, 2, 2])),
    "stiff": lambda: nn.Sequential(sensitive(), nn.Flatten(), nn.Linear(3 * 8 * 8, 3)),
    "number": 7,
    "half": lambda: tiny().bfloat16(),
    "fresh": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "shared": tiny(),
    "batch": lambda: nn.Sequential(tiny()[0], nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()),
    "talks": lambda: nn.Sequential(Answer(lambda x: print("I was asked") or x), tiny()),
}

# Reads one pixel: whether the top left one is bright.
CORNER = Answer(lambda x: torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1))


# The colour of the whole window; a uniform picture gets one answer under every crop shift.
MEAN = Answer(lambda x: 10 * x.mean((2, 3)))


@pytest.fixture
def factories(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "own_nets", SimpleNamespace(**OWN))
    (tmp_path / "broken_nets.py").write_text("import math; math.no")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise of all kinds of files, in nested folders, one of them broken and one cut short."""
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)

    def noise(height=60, width=45):
        pixels = torch.randint(256, (height // 5, width // 5, 3), dtype=torch.uint8, generator=generator)
        return Image.fromarray(pixels.numpy()).resize((width, height))

    (folder / "a/b").mkdir(parents=True)
    noise().save(folder / "plain.jpg")
    noise().convert("L").save(folder / "a/grey.png")
    noise().convert("CMYK").save(folder / "a/b/cmyk.jpg")
    noise().convert("RGBA").save(folder / "a/b/alpha.png")
    noise(16, 20).convert("P").save(folder / "small.gif")
    (folder / "broken.jpg").write_bytes(b"no picture")
    noise().save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("not asked for")
    return folder


def colours(folder, count=4):
    for index in range(count):
        colour = tuple(200 if axis == index % 3 else 40 for axis in range(3))
        Image.new("RGB", (32, 32), colour).save(folder / f"{index}.png")
    return folder


def test_every_kind_of_file_is_read_and_broken_ones_are_listed(photos):
    found = pictures.read(photos, SIZE)
    assert found.images.shape == (5, 3, SIZE + 2 * MARGIN, SIZE + 2 * MARGIN)
    assert found.margin == MARGIN
    assert set(found.skipped) == {"broken.jpg", "cut.png"}
    assert all(found.skipped.values())
    for count in (2, 5):  # broken ones are replaced by the next
        assert len(pictures.read(photos, SIZE, count=count).names) == count
    grey = found.images[found.names.index("a/grey.png")]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])


def test_deep_pictures_keep_their_greys_unknown_whites_are_listed_and_orientation_is_obeyed(tmp_path):
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint16), (64, 1))
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(ramp * 257).save(tmp_path / "16.png")
    for name, dtype in {"integer": np.int32, "float": np.float32}.items():  # from 0 to 255: nearly black of 65,535
        Image.fromarray(ramp.astype(dtype)).save(tmp_path / f"{name}.tif")
    Image.fromarray(ramp * 257).save(tmp_path / "deep.tif")
    Image.fromarray(ramp * 257).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    sixteen, twelve = (struct.pack("<HHIHH", 258, 3, 1, bits, 0) for bits in (16, 12))
    (tmp_path / "twelve.tif").write_bytes((tmp_path / "deep.tif").read_bytes().replace(sixteen, twelve))
    half = Image.new("RGB", (40, 40))
    half.paste((255, 255, 255), (0, 0, 40, 20))  # stored: upper half white
    exif = half.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise: right half white
    half.save(tmp_path / "turned.png", exif=exif)
    odd = struct.pack("<2sHIHHHIHHHHIII", b"II", 42, 8, 2, 0x0112, 3, 1, 6, 0, 262, 4, 1, 70000, 0)  # odd is the last
    half.save(tmp_path / "odd.png", exif=odd)
    found = pictures.read(tmp_path, SIZE)
    plain, deep, turned = (found.images[found.names.index(f"{name}.png")] for name in ("8", "16", "turned"))
    assert plain.float().std() > 50 and deep.equal(plain) and deep.equal(found.images[found.names.index("deep.tif")])
    assert turned[..., -8:].float().mean() > 250 and turned[..., :8].float().mean() < 5
    assert turned.equal(found.images[found.names.index("odd.png")])
    why = "which of its numbers is white is not known; save it with 8 or 16 bits"
    assert found.skipped == dict.fromkeys(("integer.tif", "float.tif", "inverted.tif", "twelve.tif"), why)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_is_named_like_a_picture_is_listed_and_not_waited_for(tmp_path):
    os.mkfifo(colours(tmp_path) / "pipe.png")
    found = pictures.read(tmp_path, SIZE)
    assert len(found.names) == 4
    assert found.skipped == {"pipe.png": "pipe.png is a pipe, a device or the like, and no file"}
    assert pictures.usual(pictures.find(tmp_path)) == 32


def test_a_folder_is_walked_once(tmp_path, monkeypatch):
    walks, walk = [], pictures._walk
    monkeypatch.setattr(pictures, "_walk", lambda folder: walks.append(folder) or walk(folder))
    aliasing.diagnose({"one": MEAN}, colours(tmp_path), size=SIZE, device="cpu")
    assert len(walks) == 1
    (tmp_path / "broken.png").write_text("no picture")
    wrong = pytest.raises(UsageError, match="at least 50 pictures that can be read, got 4")
    with wrong, pytest.warns(UserWarning, match="broken.png is left out"):
        aliasing.finetune(tiny(), "tri-3", tmp_path, size=SIZE, device="cpu")
    assert len(walks) == 2


def test_links_to_folders_are_followed_once_and_hidden_folders_are_not(tmp_path):
    for place in ("pictures/own", "pictures/.thumbnails", "store"):
        (tmp_path / place).mkdir(parents=True)
        colours(tmp_path / place, 2)
    for link, target in {"again": "own", "around": "..", "linked": "../store"}.items():
        (tmp_path / "pictures" / link).symlink_to(target, target_is_directory=True)
    names = [str(path.relative_to(tmp_path / "pictures")) for path in pictures.find(tmp_path / "pictures")]
    assert sorted(names) == ["around/store/0.png", "around/store/1.png", "own/0.png", "own/1.png"]


@pytest.mark.filterwarnings("ignore")  # PyTorch's, about scripts
def test_networks_in_half_precision_or_scripted_are_measured(photos):
    networks = {str(dtype): tiny().to(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    portraits = aliasing.diagnose(networks, photos, size=SIZE, device="cpu").portraits
    full, *halves = ([site.alias_energy.value for site in portrait.sites] for portrait in portraits)
    assert len(full) == len(halves) == 2 and all(half == pytest.approx(full, abs=0.02) for half in halves)
    found = aliasing.diagnose(torch.jit.script(tiny()), photos, size=SIZE, device="cpu")
    assert found.portraits[0].top1_change == portraits[0].top1_change
    said = "; nothing in scripted modules can be seen"
    assert found.table().loc["downsampling sites"].item() == f"0{said}"
    assert found.html().count(f"o place was seen where samples are dropped{said}") == 2


def test_names_are_escaped_in_the_report_and_printed_whatever_their_encoding(tmp_path):
    (colours(tmp_path, 1) / "0.png").rename(Path(os.fsdecode(bytes(tmp_path) + b"/<b>&caf\xe9.png")))
    found = aliasing.diagnose({"<i>": MEAN}, tmp_path, size=SIZE, device="cpu", report=tmp_path / "report.html")
    assert [curve.name for curve in found.portraits[0].curves] == ["<b>&caf\ufffd.png"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;caf\ufffd.png" in page and "<b>&" not in page and "<i>" not in page


def test_what_a_network_prints_and_how_a_folder_is_called_harm_no_answer(tmp_path, factories, typed):
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    words = ["diagnose", "own_nets:tiny", "--images", str(colours(folder)), "--size", str(SIZE), "--device", "cpu"]
    words += ["--compare", "own_nets:talks", "--compare", "own_nets:tiny+bin-5", "--report", "report.html"]
    said = typed(*words, "--json")
    names = ["own_nets:tiny", "own_nets:talks", "own_nets:tiny+bin-5"]
    assert [own["network"] for own in json.loads(said.out)["networks"]] == names and "I was asked" in said.err
    assert "caf?" in Path("report.html").read_text(encoding="utf-8")


def test_a_factory_gives_the_same_weights_whenever_it_is_asked_and_nothing_that_is_shared(factories, tmp_path):
    first, second = (load(name).module.state_dict() for name in ("own_nets:fresh", "own_nets:fresh+bin-5"))
    assert torch.equal(first["0.weight"], second["0.weight"])
    plain = load("own_nets:shared").module
    torch.save({key: value + 1 for key, value in plain.state_dict().items()}, "other.pt")
    before = plain[0].weight.clone()
    load("own_nets:shared", "other.pt")
    assert torch.equal(plain[0].weight, before)


def test_a_factory_may_import_its_neighbours_when_it_runs_and_move_elsewhere(factories, tmp_path):
    """The working directory could be imported from until the module was, which failed where that changed it."""
    (tmp_path / "moving_nets.py").write_text(
        "import os; os.chdir('/')\ndef build(): import near_nets; return near_nets.tiny()"
    )
    (tmp_path / "near_nets.py").write_text("from tests.test_diagnose import tiny")
    before = [*sys.path]
    assert load("moving_nets:build").name == "moving_nets:build"
    assert sys.path == before


def test_an_empty_folder_and_nothing_readable(tmp_path):
    with pytest.raises(DataError, match="no picture in"):
        aliasing.diagnose(CORNER, tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of the 1 pictures .* broken\.jpg"):
        aliasing.diagnose(CORNER, tmp_path)


def test_an_invariant_network_never_changes(tmp_path):
    network = nn.Sequential(nn.Dropout(), MEAN).train()
    found = aliasing.diagnose(network, colours(tmp_path), size=SIZE, device="cpu").portraits[0]
    assert found.top1_change.value == 0 and network.training and network[0].training
    assert found.mean_absolute_change.value < 1e-5  # of rounding
    assert found.crop.value == found.standard.value == 1
    assert [curve.changes for curve in found.curves] == [0] * 4
    assert found.top1_change.high > 0  # four pictures prove little


def test_a_network_that_reads_one_pixel_changes_at_every_stripe(tmp_path):
    stripes = torch.zeros(32, 32, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255  # the file has the size that is asked for, so nothing is resized
    Image.fromarray(stripes.numpy()).save(tmp_path / "stripes.png")
    diagnosis = aliasing.diagnose(CORNER, tmp_path, size=SIZE, device="cpu")
    (curve,) = diagnosis.portraits[0].curves
    assert curve.positions == [-2, -1, 0, 1, 2]
    assert curve.answers in ([0, 1, 0, 1, 0], [1, 0, 1, 0, 1])
    assert curve.changes == 4
    moved = diagnosis.table().loc["one pixel moves its probability by"].iloc[0]
    assert "(? to ?)" in moved  # of one picture nobody knows
    # The window at position p shows column 2 - p in its corner: even columns are bright.
    assert curve.answers[2] == 0
    assert torch.equal(curve.before[:, :, :-1], curve.after[:, :, 1:])


def test_windows_lie_in_the_middle_reach_the_margin_and_the_most_fragile_pictures_are_shown(tmp_path):
    images = torch.randint(2, (9, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte() * 255
    write(tmp_path, images)
    (found,) = aliasing.diagnose(CORNER, tmp_path, size=SIZE, device="cpu").portraits
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    images, changes = images[order], dict(zip(order.tolist(), found.changes.tolist(), strict=True))
    centre = images[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert torch.equal(found.changes, metrics.one_pixel(CORNER, centre, "crop", pairs=2).images)
    assert found.standard == metrics.consistency(CORNER, centre, "standard")
    assert found.crop == metrics.consistency(CORNER, images, "crop", MARGIN)
    assert sorted(changes[int(curve.name[0])] for curve in found.curves) == sorted(changes.values())[-6:]
    assert all(curve.answers.count(curve.classes[0]) > 2 for curve in found.curves)


def test_two_networks_side_by_side_json_and_report(photos, factories, typed):
    arguments = ["diagnose", "own_nets:tiny", "--compare", "own_nets:tiny+bin-5", "--images", str(photos)]
    out, err = typed(*arguments, "--size", str(SIZE), "--device", "cpu", "--json", "--report", "out/report.html")
    found = json.loads(out)
    first, second = found["networks"]
    assert (first["network"], second["network"]) == ("own_nets:tiny", "own_nets:tiny+bin-5")
    assert first["pictures"] == 5
    assert [site["name"] for site in first["sites"]] == ["0", "2"]
    assert len(first["conversion"]["replaced"]) == 2
    assert set(found["skipped"]) == {"broken.jpg", "cut.png"}
    assert "skipped broken.jpg" in err
    for network in (first, second):
        for measure in ("top1_change", "mean_absolute_change", "crop", "standard"):
            assert network[measure]["low"] <= network[measure]["value"] <= network[measure]["high"]
    # The page asks for nothing outside itself, and says what its pictures show to those who do not see them.
    text = Path("out/report.html").read_text(encoding="utf-8")
    references = re.findall(r'\b(?:src|href|srcset|data|action)="([^"]*)"', text)
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert not re.search(r"<(script|link|iframe|object)|url\(|@import|https?://", text)
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', text)) == text.count("<img") == 2 * 2 * 5
    assert len(re.findall(r'<svg [^>]*aria-label="[^"]+"', text)) == text.count("<svg") == 2 * 5
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text and "broken.jpg" in text


def test_the_report_answers_three_questions_first(photos, factories):
    diagnosis = aliasing.diagnose("own_nets:tiny", photos, size=SIZE, device="cpu")
    found = diagnosis.portraits[0]
    assert "on 50 pictures or more. It" in found.remedy and not found.command("photos")  # it has five
    found = replace(found, available=50, answers=2, top1_change=Estimate(0.4, 0.1, 0.7, 5))
    page = replace(diagnosis, portraits=[found]).html()
    glance = page[: page.index("All numbers")]
    assert f'<div class="big">{100 * found.top1_change.value:.1f} %</div>' in glance
    worst = max(found.sites, key=lambda site: site.alias_energy.value)
    assert glance.index(f"<code>{worst.name}</code>") == glance.index("<li><code>") + 4
    assert "tri-3 low-pass filters at 2 places" in glance
    command = f"aliasing finetune own_nets:tiny+tri-3 --images {photos} --out own_nets-tiny+tri-3.safetensors"
    assert f"{command} --size {found.window}" in glance
    assert "random weights" not in glance
    torch.save(load("own_nets:tiny+tips").module.state_dict(), "tips.pt")  # which fine-tuning would refuse
    learned = load("own_nets:tiny+tips", "tips.pt")
    assert not replace(found, network=learned.name, weights=learned.weights, layers={"tips": 2}).command("photos")
    for value, said in ((0.5, "</ol>of 1 place where"), (float("nan"), "a place that is not known: the")):
        site = found.sites[0]._replace(alias_energy=Estimate(value, value, value, 5))
        assert said in replace(diagnosis, portraits=[replace(found, sites=[site])]).html()
    page = aliasing.diagnose({"mean": MEAN}, photos, size=SIZE, device="cpu").html()
    assert "none of those tried" in page
    assert "no place was seen where samples are dropped" in page


def test_what_drops_samples_by_a_function_is_found(photos):
    def halve(x):
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))  # in which nobody knows the map
        return nn.functional.avg_pool2d(nn.functional.max_pool2d(x, 2)[:, :, ::2, ::2], 2).mean((2, 3))

    halved = Answer(halve)
    networks = {"plain": halved, "compiled": torch.compile(halved, backend="eager")}
    for found in aliasing.diagnose(networks, photos, size=SIZE, device="cpu").portraits:
        assert [site.module.partition(",")[0] for site in found.sites] == ["mean", "max_pool2d", "slice", "avg_pool2d"]
        assert [site.stride for site in found.sites] == [2, 2, 2, 2]
        assert [math.isnan(site.alias_energy.value) for site in found.sites] == [True, False, False, False]


BOX = torch.full((3, 1, 3, 3), 1 / 9)


def called(n, x):
    """What the modules below do, in functions; and rows alone."""
    x = nn.functional.conv2d(x, n.conv.weight, n.conv.bias, 2)
    return nn.functional.max_pool2d(nn.functional.max_pool2d(x, 3, 2), 3, 2)[..., ::2, :].mean((-2, -1))


def test_functions_are_measured_as_modules_are_and_each_of_them(photos):
    """Two pools in a forward were one place, of other values than modules have, and a convolution was none."""
    conv = nn.Conv2d(3, 4, 3, 2)
    modules = nn.Sequential(conv, nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2), nn.AvgPool2d((1, 1), (2, 1)), MEAN)
    networks = {"functions": Custom(called, conv=conv), "modules": modules}
    networks["image by image"] = Custom(lambda n, x: torch.stack([called(n, image) for image in x]), conv=conv)
    networks["filter"] = Answer(lambda x: nn.functional.conv2d(x[..., :6, :6], BOX, stride=2, groups=3).mean((2, 3)))
    found = aliasing.diagnose(networks, photos, size=62, device="cpu").portraits
    functions, expected, each, (filtered,) = (portrait.sites for portrait in found)
    assert filtered.stride == 2 and filtered.alias_energy.value < filtered.at_risk.value  # of 6 pixels 2 are left
    assert [site.module for site in functions] == [
        f"{name}, a function" for name in ("conv2d", "max_pool2d 1", "max_pool2d 2", "slice")
    ]
    assert [site.module for site in each] == [site.module for site in functions[:3]]  # a slice may be of any axes
    for own, same in zip([*functions, *each], [*expected, *expected[:3]], strict=True):
        assert own.stride == same.stride == 2
        for value in ("alias_energy", "at_risk", "alias_error"):
            assert getattr(own, value).value == pytest.approx(getattr(same, value).value, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "run",
    [
        lambda n, x: n.pool(input=n.conv(input=x)).mean((2, 3)),
        lambda n, x: n.indices(n.conv(x))[0].mean((2, 3)),
        lambda n, x: torch.stack([n.pool(n.conv(image)).mean((1, 2)) for image in x]),
        lambda n, x: n.frames(n.pool(n.conv(x))[:, :, None]).mean((2, 3, 4)),
        lambda n, x: n.pool(n.conv(x)).view(len(x), -1).unflatten(1, (4, -1)).mean(2),
        lambda n, x: n.pool(n.conv(torch.cat([x, x]))).mean((2, 3))[: len(x)],
    ],
    ids=["by name", "indices", "image by image", "a kernel of five axes", "seen as rows", "beside others"],
)
def test_a_module_is_looked_at_however_it_is_called(photos, run):
    """These stopped the whole diagnosis, or counted as more pictures."""
    parts = {"conv": nn.Conv2d(3, 4, 3, 2), "pool": nn.MaxPool2d(2), "indices": nn.MaxPool2d(2, return_indices=True)}
    networks = {"plain": nn.Sequential(parts["conv"], parts["pool"], MEAN)}
    networks["own"] = Custom(run, **parts, frames=nn.Conv3d(4, 4, 1))
    plain, own = (p.sites for p in aliasing.diagnose(networks, photos, size=SIZE, device="cpu").portraits)
    assert torch.tensor([s.alias_energy for s in own]).tolist() == [
        pytest.approx(list(s.alias_energy), rel=1e-3) for s in plain
    ]


def test_what_does_alias_is_what_the_filter_leaves(photos):
    """Everything where nothing is filtered, less behind a blur, nothing behind an ideal filter."""
    layers = {name: aliasing.layers.create(name, 3) for name in ("max", "tri-3", "flc")}  # the first filters nothing
    layers["one axis"] = aliasing.layers.create("tri-3", 3, stride=(2, 1))
    networks = {name: nn.Sequential(layer, MEAN) for name, layer in layers.items()}
    found = aliasing.diagnose(networks, photos, size=SIZE, device="cpu")
    (none,), (blur,), (ideal,), (axis,) = (portrait.sites for portrait in found.portraits)
    assert none.at_risk == blur.at_risk == ideal.at_risk
    assert none.alias_energy.value == pytest.approx(none.at_risk.value, abs=0.1)
    assert 0 < blur.alias_energy.value < none.alias_energy.value / 2
    assert ideal.alias_energy.value < 1e-6
    assert axis.stride == 2
    assert [portrait.layers for portrait in found.portraits] == [{}, {"tri-3": 1}, {"flc": 1}, {"tri-3": 1}]
    assert "It has tri-3 at 1 place. If it was not trained with them" in found.html()


def test_layers_are_called_by_what_they_do():
    """Three taps that keep the middle one, or filter too late, were tri-3 as well."""
    for name in CATALOGUE:
        assert measuring._label(aliasing.layers.create(name, 3)) == name
    for expected, *others in (
        ("subsample", {"taps": [0, 1, 0]}, *({"control": kind} for kind in ("backward", "late", "signs"))),
        ("Blur", {"taps": [0.1, 0.8, 0.1]}, {"control": "forward"}),
        ("tri-3", {"taps": [0.25, 0.5, 0.25]}, {"trainable": True}),
    ):
        assert [measuring._label(Blur(3, **{"taps": 3, **own})) for own in others] == [expected] * len(others)


def test_weights_of_a_module_are_its_own(photos):
    for ask in (partial(aliasing.diagnose, {"mine": tiny()}), partial(aliasing.finetune, tiny(), "tri-3")):
        with pytest.raises(UsageError, match=r"is a module, which has its weights: load w\.safetensors into it"):
            ask(images=photos, weights="w.safetensors")


def test_what_does_alias_is_a_share_also_where_everything_does():
    """A checkerboard folds onto the mean; beside it a slow wave is what the output keeps."""
    rows, columns = torch.arange(16.0)[:, None], torch.arange(16.0)
    board, wave = torch.cos(torch.pi * (rows + columns)), 0.1 * torch.cos(torch.pi * rows / 8).expand(16, 16)
    for x, share in ((board, 1), (board + wave, 1 / 1.005), (wave, 0), (wave * 0 + 1, 0)):
        sample = Sample("", (2, 2), x[None, None], x[None, None, ::2, ::2], lambda z: z[:, :, ::2, ::2])
        assert measuring._values(sample)[0, 0] == pytest.approx(share, abs=1e-6)
    fine = torch.cos(0.75 * torch.pi * columns).expand(1, 1, 16, 16)  # held by a grid that keeps all columns
    torch.testing.assert_close(measuring._low_pass(fine, (2, 1)), fine)


def test_as_many_samples_as_come_out_hold_what_is_no_alias():
    """Of the 2n - 1 maxima behind a pool of 2n pixels come n out, and an ideal filter was said to be all alias."""
    best, x = partial(ideal, strides=(2, 2)), torch.rand(1, 1, 7, 7)
    for side, layer, known in ((7, best, True), (3, best, False), (1, best, False), (3, nn.AvgPool2d(2), True)):
        part = x[..., :side, :side]
        does, could, _ = measuring._values(Sample("", (2, 2), part, layer(part), layer))[0].tolist()
        assert (could > 0.1, math.isnan(does)) == (known, not known)
        assert layer is not best or not does > 1e-9
    halved = Custom(lambda n, x: n.pool(n.pool(x)).mean((2, 3)), pool=nn.MaxPool2d(2))
    for side, known in ((8, True), (4, False)):  # which is used again on half of it
        (site,) = measuring._sites(of_module("own", halved, 8), torch.rand(2, 3, side, side), lambda done: None)
        assert (site.alias_energy.value > 0) == known


class Framed(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


def test_a_max_pool_is_a_maximum_at_every_pixel_however_its_windows_reach_beyond_the_map():
    """In ceil_mode it was none, though it may return the same; one that pads by its stride stopped the diagnosis."""
    x = torch.rand(1, 2, 16, 13)

    def dense(pool):
        return measuring._dense(pool, Sample("", per_axis(pool.stride), x, pool(x), pool))

    for options in ((3, 2, 1), (3, (3, 2), 0, 2)):
        floor, ceil = (dense(nn.MaxPool2d(*options, ceil_mode=ceil)).x for ceil in (False, True))
        assert ceil[..., : floor.shape[2], : floor.shape[3]].equal(floor)
        # All of it, as of any other layer: the last row and column may be those that are not kept.
        assert floor.equal(nn.functional.max_pool2d(x, 3, 1, *options[2:]))
    for pool in (nn.MaxPool2d(2, ceil_mode=True), MaxPool2dSame(3, 2)):
        found = dense(pool)
        assert found.operator(found.x).equal(pool(x)) and found.x.shape[2:] == (15, 13)
    assert dense(Framed(3, 2)).x is x  # in its own way, which nobody knows


class Halving(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.avg_pool2d(x, 2))


def test_what_a_convolution_calls_is_no_place_of_its_parent(photos):
    network = nn.Sequential(Halving(3, 4, 3, 2), MEAN)
    (found,) = aliasing.diagnose(network, photos, size=SIZE, device="cpu", count=1).portraits
    assert [(site.name, site.module) for site in found.sites] == [("0", "Halving")]


def test_rows_are_no_pictures(photos):
    def run(n, x):
        rows = n.conv(x).flatten(2)
        halved = nn.functional.conv1d(nn.functional.max_pool1d(rows, 2), n.filters, stride=2)
        return nn.functional.adaptive_avg_pool1d(halved, 1).flatten(1)

    network = Custom(run, conv=nn.Conv2d(3, 4, 3, 2), filters=nn.Parameter(torch.rand(4, 4, 3)))
    (portrait,) = aliasing.diagnose([network], photos, size=SIZE, device="cpu", count=2, weights="none").portraits
    assert [site.name for site in portrait.sites] == ["conv"]


def test_places_of_a_forward_behind_a_wrapper_have_its_name(photos):
    lenet = Custom(lambda n, x: nn.functional.max_pool2d(n.conv(x), 2).mean((2, 3)), conv=nn.Conv2d(3, 4, 3, 2))
    wrapped = aliasing.models.normalized(lenet, [0.5] * 3, [0.5] * 3)
    found = aliasing.diagnose({"plain": lenet, "wrapped": wrapped}, photos, size=SIZE, device="cpu", count=2)
    assert [site.name for portrait in found.portraits for site in portrait.sites] == ["conv", ""] * 2


def test_grey_networks_and_single_logits_are_diagnosed(photos):
    found = aliasing.diagnose(tiny(channels=1, classes=1), photos, size=SIZE, device="cpu").portraits[0]
    assert [site.name for site in found.sites] == ["0", "2"]
    assert set(found.class_names) == {"no", "yes"}
    assert len(found.conversion.replaced) == 2


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 1), (3, 3)])
def test_logits_of_a_single_image_need_no_row(channels, classes):
    """Which ``squeeze`` takes: they failed at the last batch, or where single images are looked at."""
    networks = tiny(channels, classes), nn.Sequential(tiny(channels, classes), Answer(torch.squeeze))
    rows, none = (adapted(of_module("own", network, SIZE), torch.device("cpu")).module for network in networks)
    for count in (1, 2):
        images = torch.rand(count, 3, SIZE, SIZE)
        torch.testing.assert_close(none(images), rows(images))


@pytest.mark.parametrize(("classes", "share"), [(3, nn.Softmax(1)), (1, nn.Sigmoid())])
@pytest.mark.filterwarnings("ignore")  # PyTorch's, about scripts
def test_probabilities_count_as_they_are(photos, classes, share):
    """Not put through a second softmax, which would hide most of every change; and the share of a single class is no
    logit, as which it would be above 0 whatever the picture, and no shift would change the answer.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes))
    middle = network(pictures.read(photos, SIZE).images / 255).mean(0).detach()
    network.append(Answer(lambda logits: 50 * (logits - middle)))  # of the pictures some are on either side
    gate = Answer(lambda logits: logits * (logits + 1e6).sigmoid())  # which is open
    networks = {"logits": nn.Sequential(network, gate), "shares": nn.Sequential(network, share)}
    if classes == 1:
        networks["column"] = nn.Sequential(network, torch.jit.script(share), nn.Flatten(0))
    logits, *shares = aliasing.diagnose(networks, photos, size=SIZE, device="cpu").portraits
    assert logits.answers > 1 and logits.mean_absolute_change.value > 0.001
    for own in shares:
        assert own.answers == logits.answers
        assert own.mean_absolute_change.value == pytest.approx(logits.mean_absolute_change.value, rel=1e-4)
        assert [site.name for site in own.sites] == ["0.0", "0.1"]


def test_shares_near_0_and_1_tell_pictures_apart_in_half_precision():
    """And have a gradient there: they were cut off at half precision's step, or rounded to 1."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid())
    images = torch.stack([torch.full((3, 8, 8), value) for value in (0.0, 1.0)])
    nn.init.constant_(network[0].weight, 1 / 3)
    nn.init.constant_(network[0].bias, -8)
    half = adapted(of_module("half", network.bfloat16(), 8), torch.device("cpu")).module
    shares = half(images.bfloat16()).softmax(1)[:, 1]
    torch.testing.assert_close(shares, torch.tensor([-8.0, -7.0]).sigmoid(), rtol=0.01, atol=0)
    nn.init.constant_(network[0].bias, 7)
    full = adapted(of_module("full", network.float(), 8), torch.device("cpu")).module
    with torch.autocast("cpu", torch.bfloat16):
        logits = full(images)
    (gradient,) = torch.autograd.grad(logits.sum(), full.network[0].bias)
    assert gradient.item() == pytest.approx(2, rel=1e-3)  # each logit moves with the bias
    rounded = Answer(lambda x: torch.tensor([[0.56, 0.07, 0.37]]).bfloat16().expand(len(x), 3))  # whose sum is 0.996
    assert isinstance(adapted(of_module("rounded", rounded, 8), torch.device("cpu")).module, Adapted)


def test_shares_of_their_own_are_probabilities_as_well(photos):
    """As logits, sigmoids are so close to each other that a softmax hid what one pixel does to them."""
    shares = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    networks = {"shares": shares.append(Answer(torch.sigmoid)), "logits": nn.Sequential(shares, Answer(torch.log))}
    own, logits = aliasing.diagnose(networks, photos, size=SIZE, device="cpu").portraits
    assert own.mean_absolute_change.value == pytest.approx(logits.mean_absolute_change.value, rel=1e-4)


def test_tables_keep_to_the_width_of_the_terminal(photos, monkeypatch):
    networks = {f"network-number-{i}": MEAN for i in range(4)}
    found = aliasing.diagnose(networks, photos, size=SIZE, device="cpu")
    assert found.table().loc["pictures, input"].iloc[0] == "5, 28 x 28, 1 of them enlarged"
    assert percent(aliasing.metrics.Estimate(-1e-5, -1e-4, 1e-5, 3), "+") == "+0.0 % (+0.0 to +0.0)"
    first, *others = found.table().loc["changes minus those of the first"]
    assert first == "" and all("% (" in other for other in others)
    larger = replace(found, portraits=[found.portraits[0], replace(found.portraits[1], size=2 * SIZE)])
    assert list(larger.table().loc["changes minus those of the first"]) == ["", "other input, use --size"]
    for width in (50, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        text = str(found)
        assert max(map(len, text.splitlines())) <= width
        assert all(name in text for name in networks)


def test_batch_size_and_company_do_not_change_the_values_and_progress_ends(photos, factories, capsys):
    options = {"size": SIZE, "batch_size": 3, "device": "cpu", "progress": True}
    alone = aliasing.diagnose("own_nets:tiny", photos, **options).portraits[0]
    bars = capsys.readouterr().err
    assert re.search(r"reading .* 0/7 ", bars) and re.search(r"own_nets:tiny: 100%.* (\d+)/\1 ", bars)
    both = aliasing.diagnose([CORNER, "own_nets:tiny"], photos, size=SIZE, device="cpu").portraits[1]
    assert torch.equal(alone.changes, both.changes)
    assert alone.crop == both.crop
    assert alone.mean_absolute_change.value == pytest.approx(both.mean_absolute_change.value, abs=1e-6)
    assert [curve.name for curve in alone.curves] == [curve.name for curve in both.curves]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet1888", [], "did you mean resnet18 or resnet18d"),
        ("vit_small_patch16_224.dino", ["--weights", "none"], "has no classifier"),
        ("nowhere_at_all:build", [], "cannot import 'nowhere_at_all'"),
        ("own_nets:missing", [], "has no 'missing'; it defines "),
        ("./nets/own_nets.py:tiny", [], "such as nets.own_nets:tiny, the module as for import"),
        ("own_nets:number", [], "must give a torch.nn.Module"),
        ("own_nets:tiny", ["--size", "28", "--compare", "own_nets:rigid"], "Name its input size with --size"),
        ("own_nets:maps", ["--size", "28"], "must return logits (2, classes)"),
        ("own_nets:maps", ["--size", "100000"], "does not take images (2, 3, 100000, 100000)"),
        ("own_nets:rows", ["--size", "28"], "images (2, 3, 28, 28) in [0, 1], or one alone: IndexError"),
        ("own_nets:grey", ["--size", "28"], "cannot be multiplied"),
        ("own_nets:unfinished", [], "has no weights yet"),
        ("own_nets:empty", [], "run it once, or load them"),
        ("own_nets:pair", ["--size", "28"], "got tuple; wrap it"),
        ("own_nets:indices", ["--size", "28"], "one float per class, got torch.int64"),
        ("own_nets:random", ["--size", "28"], "when the same image is given again"),
        ("own_nets:batch", ["--size", "28"], "so its answers depend on the batch"),
        ("own_nets:tiny+", ["--size", "28"], "expected NETWORK+LAYER"),
        ("a+b.safetensors+tri-3", [], "name the file alone, or NETWORK+tri-3"),
        ("own_nets:raises", ["--size", "28"], "own_nets:raises raised KeyError: 'no checkpoint'"),
        ("own_nets:leaves", ["--size", "28"], "own_nets:leaves raised SystemExit: 3"),
        ("broken_nets:build", [], "fails when it is imported: AttributeError"),
        ("own_nets:tiny", ["--report", "report.pdf"], "such as report.html; got report.pdf"),
        ("own_nets:tiny", ["--weights", "."], "no file '.'"),
        ("own_nets:tiny", ["--report", "broken_nets.py/report.html"], "cannot be written"),
        ("own_nets:tiny", ["--count", "0"], "count must be"),
        ("own_nets:tiny+bin-9", [], "Did you mean 'bin-"),
        ("own_nets:tiny", ["--compare", "own_nets:tiny"], "different names"),
        ("own_nets:tiny", ["--weights", "none", "--weights", "none"], "once per network"),
    ],
)
def test_bad_usage_ends_with_2_and_says_what_is_valid(model, options, message, photos, factories, typed):
    """Before any work: no report is begun."""
    given = ["--images", str(photos), "--device", "cpu", "--report", "report.html", *options]
    assert message in typed("diagnose", model, *given, status=2).err and not Path("report.html").exists()


class Fails(nn.Module):
    """Works on the images it is tried with three times, and never again: as when memory runs out."""

    def __init__(self, error=None):
        super().__init__()
        self.calls, self.error = 0, error or RuntimeError("out of memory")

    def forward(self, x):
        self.calls += 1
        if self.calls > 3:
            raise self.error
        return x.mean((2, 3))


def test_a_network_that_fails_or_is_stopped_later_loses_nothing_of_the_others(photos, tmp_path):
    networks = {"good": MEAN, "before": Fails(), "silent": Fails(KeyError()), "fine": CORNER}
    options = {"size": SIZE, "device": "cpu", "report": tmp_path / "report.html"}
    found = aliasing.diagnose(networks, photos, **options)
    assert [portrait.network for portrait in found.portraits] == ["good", "fine"]
    assert found.failed == found.plain()["failed"] == {"before": "RuntimeError: out of memory", "silent": "KeyError"}
    assert "out of memory" in (tmp_path / "report.html").read_text()
    with pytest.raises(DataError, match="out of memory"):
        aliasing.diagnose(Fails(), photos, **options)
    with pytest.raises(KeyboardInterrupt):
        aliasing.diagnose({"good": MEAN, "stopped": Fails(KeyboardInterrupt())}, photos, **options)
    page = (tmp_path / "report.html").read_text()
    assert page.rstrip().endswith("</html>") and "good" in page and "stopped" not in page
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


def test_pretrained_weights_that_cannot_be_fetched_are_no_silent_random_ones(monkeypatch, tmp_path):
    """Nor does anybody wait: whether the server answers is asked once."""
    asked = []

    def refuse(address, *options, **more):
        asked.append(address)
        raise OSError("no route to host")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **more: refuse(address))
    monkeypatch.setattr("aliasing.diagnosis.networks.getproxies", dict)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for name in ("squeezenet1_1", "timm:test_vit"):
        with pytest.raises(DataError, match="--weights none"):
            load(name)
    assert len(asked) == 2
    assert constants.HF_HUB_OFFLINE is False


def test_torchvision_and_timm_say_size_standardisation_and_options():
    ours = load("squeezenet1_1", weights="none")
    assert (ours.size, ours.weights) == (224, "random weights")
    assert not ours.classes  # names mean nothing for random weights
    torch.testing.assert_close(ours.module.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    theirs = load("timm:test_vit", weights="none")
    assert (theirs.size, theirs.module.mean.flatten().tolist()) == (160, [0.5, 0.5, 0.5])
    # The network that pretrained weights are in scales its input anew, and has no second head.
    network = load("googlenet", weights="none").module.network
    assert network.transform_input and network.aux1 is None and network.aux2 is None


def test_a_fine_tuned_file_brings_its_own_number_of_classes(tmp_path):
    tuned = torchvision_models.squeezenet1_1(num_classes=7)
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    found = load("squeezenet1_1+tri-3", weights=str(tmp_path / "tuned.safetensors"), size=64)
    assert found.module(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert "tuned.safetensors" in found.weights
    torch.testing.assert_close(found.module.state_dict()["classifier.1.weight"], tuned.classifier[1].weight.detach())
    learned = {**tuned.state_dict(), "layer.weight": torch.ones(1)}  # as of a layer that learns
    torch.save({f"model.{name}": value for name, value in learned.items()}, tmp_path / "learned.pt")
    assert _library("squeezenet1_1", str(tmp_path / "learned.pt"), 64).module.network.classifier[1].out_channels == 7
    about = json.dumps({"network": "squeezenet1_1+tri-3", "weights": "pretrained weights", "size": 64})
    save_file(torchvision_models.squeezenet1_1().state_dict(), tmp_path / "ours.safetensors", {NOTE: about})
    ours = load(str(tmp_path / "ours.safetensors"))  # its classes are still those of the pretrained network
    assert (ours.name, ours.size, len(ours.classes)) == (str(tmp_path / "ours.safetensors"), 64, 1000)
    assert ours.weights == "fine-tuned squeezenet1_1+tri-3"


def test_weights_are_read_as_trainings_save_them(tmp_path, factories):
    """In checkpoints, and with the words that wrappers put before names."""
    state = load("own_nets:tiny").module.state_dict()
    state = {key: torch.randn(value.shape) for key, value in state.items()}
    path = str(tmp_path / "weights")
    for front in ("", "module.", "net._orig_mod."):
        named = {front + key: value for key, value in state.items()}
        for save in (
            save_file,
            torch.save,
            lambda s, p: torch.save({"epoch": 3, "optimizer": {"lr": 1}, "model": s}, p),
        ):
            save(named, path)
            torch.testing.assert_close(load("own_nets:tiny", path).module.state_dict(), state)
    tuned = {key: torch.randn(value.shape) for key, value in load("own_nets:half+tri-3").module.state_dict().items()}
    about = {"network": "own_nets:half+tri-3", "weights": "weights of the factory", "size": 28}
    save_file(tuned, tmp_path / "tuned.safetensors", {NOTE: json.dumps(about)})
    torch.testing.assert_close(load(str(tmp_path / "tuned.safetensors")).module.state_dict(), tuned, rtol=0, atol=0)
    key, whole = "5.weight", torch.nn.Linear(2, 2)
    for message, held in {
        "must hold one state_dict, and holds model, ema; save": {"model": state, "ema": state},
        "and holds none": {"epoch": 3},
        r"is no readable safetensors.*save\(network.state_dict": whole,
        "the file lacks 5.weight": {name: state[name] for name in state if name != key},
        "the network lacks a, b, c and 1 more": state | dict.fromkeys("abcd", state[key]),
        r"the file has 5.weight \(3, 5\), not \(3, 4\)": state | {key: torch.zeros(3, 5)},
    }.items():
        torch.save(held, path)
        with pytest.raises((UsageError, DataError), match=message):
            load("own_nets:tiny", path)


def test_numbers_that_say_nothing_come_with_a_warning(photos, factories):
    deaf = nn.Sequential(nn.AvgPool2d(2), Answer(lambda x: x.mean((2, 3)) * 0 + torch.tensor([1.0, 0, 0])))
    networks = {"deaf": deaf, "corner": CORNER, "calm": MEAN}
    found = aliasing.diagnose(networks, photos, size=SIZE, device="cpu")
    deaf, corner, calm = (portrait.remedy for portrait in found.portraits)
    assert deaf.startswith("Every picture got the same answer")
    assert "Every picture" not in replace(found.portraits[0], pictures=1).remedy
    assert "Nothing to anti-alias in Answer: no convolution or pool of it drops samples." in corner
    assert calm.startswith("One pixel changes no answer, or too few to tell on 5 pictures")
    random = aliasing.diagnose("squeezenet1_1", photos, size=64, weights="none", device="cpu")
    said = " ".join(str(random).split())  # at whatever width
    assert said.endswith("on 50 pictures or more of 66 pixels or more. It forgets part of what they do not show.")
    assert "Its weights are random" in random.html()


def test_the_command_that_is_recommended_runs_as_it_is_printed(tmp_path, factories, typed):
    torch.save(load("own_nets:free").module.state_dict(), "random crops.pt")
    for name, side, count in (("16", 16, 60), ("12", 12, 60), ("9", 9, 60), ("few", 18, 49)):
        draw = torch.Generator().manual_seed(1)
        write(tmp_path / name, torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=draw))

    def command(name, folder, *more):
        arguments = ["diagnose", name, "--images", folder, "--size", "16", "--count", "30", "--device", "cpu", *more]
        lines = [line for line in typed(*arguments).out.splitlines() if line.startswith("  aliasing")]
        return shlex.split(lines[0])[1:] if lines else []

    file = ["--weights", "random crops.pt"]  # whose name says nothing of what it holds
    printed = command("own_nets:free", "16", *file)
    assert printed[-4:] == ["--size", "14", *file]
    typed(*printed, "--device", "cpu")
    tuned = printed[printed.index("--out") + 1]
    assert not command(tuned, "16")
    both = ["diagnose", tuned, "--compare", "own_nets:free+tri-3", "--images", "16", "--device", "cpu", "--json"]
    first, second = json.loads(typed(*both, "--size", "14").out)["networks"]
    assert (first["network"], second["network"]) == (tuned, "own_nets:free+tri-3")
    assert command("own_nets:free+bin-5", "12")[1:2] == ["own_nets:free+bin-5"]
    assert command("own_nets:stiff", "12") == []  # it takes 16 pixels and nothing else
    assert command("own_nets:free", "9") == [] and command("own_nets:free", "few") == []


def test_a_module_is_left_as_it_was_and_no_size_is_no_default(photos, factories):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    stride = network[0].weight.stride()
    aliasing.diagnose(network, photos, size=SIZE, device="cpu")
    assert network[0].weight.stride() == stride  # channels_last is of the copy
    for model in (network, "own_nets:tiny", "no.safetensors"):
        with pytest.raises(UsageError, match=r"size must be .*at least 8, got 0"):
            aliasing.diagnose(model, photos, size=0)
