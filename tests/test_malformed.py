"""Malformed input of every kind: a clear error or a named skip, no traceback from deep inside, nothing overwritten."""

import hashlib
import io
import json
import tarfile
import warnings
import zipfile
from contextlib import suppress
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from aliasing import chapters, datasets, layers, models
from aliasing.cli import main
from aliasing.datasets.archives import Archive, members, verify
from aliasing.datasets.decoding import decode, plain
from aliasing.errors import DamagedError, DataError, UsageError
from aliasing.evaluation import Measurement, Subject
from aliasing.files import read_tensors, write_atomically
from aliasing.records import Record, Run, Store, publish, read_lines
from aliasing.training import Recipe, load_weights, recipe_from, train
from tests.test_training import toy_data, toy_network

NAN, INF = float("nan"), float("inf")
RUN = Run({"name": "shapes", "count": 8}, {"name": "vgg-small", "num_classes": 10}, Recipe(epochs=2), 0)
RECORD = Record(RUN, {"training": {"loss": [1.5, 0.25]}}, {"training": {"date": "2026", "seconds": 1.0}})
LINE = RECORD.to_line()


def table(**columns):
    """One case per name and value."""
    return [pytest.param(name, value, id=f"{name}={value!r}"[:40]) for name, v in columns.items() for value in v]


# Recipes: every field takes every kind of nonsense.

NONSENSE = {int: (-1, "3", None, [], 1.5, True, NAN, 10.0), float: (-0.1, "3", None, [], True, NAN, INF)}
NONSENSE |= {bool: (1, "yes", None), str: ("", "x", None, 3, [])}
RECIPES = {field.name: NONSENSE[type(field.default)] for field in fields(Recipe)}
SHARES = dict.fromkeys(("momentum", "warmup", "label_smoothing", "adversary_wake", "tips_wake"), (1.5,))


@pytest.mark.parametrize(
    ("name", "value"), table(**RECIPES) + table(**SHARES) + table(epochs=[0], batch_size=[0, 1], lr_=[0.1], Epochs=[1])
)
def test_recipe(name, value):
    with pytest.raises(UsageError, match=name):
        recipe_from({name: value})


# Descriptions of runs.

DESCRIPTIONS = [
    *[{**RUN.describe(), key: value} for key in RUN.describe() for value in (None, [], "x", 1.5, True, {})
      if not (key == "recipe" and value == {})],
    *[{k: v for k, v in RUN.describe().items() if k != key} for key in RUN.describe()],
    {**RUN.describe(), "seed": -1}, {**RUN.describe(), "sed": 0}, {**RUN.describe(), "network": {"name": 3}},
    {**RUN.describe(), "recipe": {"epochs": "2"}}, {**RUN.describe(), "recipe": {"epoch": 2}},
    None, [], "x", 3,
]  # fmt: skip


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda d: json.dumps(d)[-40:])
def test_description_of_a_run(description):
    with pytest.raises(UsageError):
        Run.from_description(description)


# Lines of records.


def edited(**changes) -> str:
    return json.dumps(json.loads(LINE) | changes)


LINES = [
    *[LINE[:cut] for cut in range(0, len(LINE), 23)],
    *["null", "[]", "3", '"x"', "{}", "NaN", "[" * 5000, "\0", "\ufeff" + LINE, LINE + LINE, LINE + ","],
    LINE[1:], "{" + LINE,
    LINE.replace("0.25", "NaN"), LINE.replace("0.25", "Infinity"), LINE.replace("0.25", "0.26"),
    LINE.replace("1.5", "1,5"),
    LINE.replace("2026", "2025"), LINE.replace(RUN.id, "0" * 12), LINE.replace('"seed":0', '"seed":1'),
    LINE.replace('"seed":0', '"seed":1e999'), LINE.replace("training", "Training", 1),
    edited(id=None), edited(id=3), edited(check="00000000"), edited(check=7), edited(run=None), edited(run=[]),
    edited(run={}), edited(measurements=None), edited(measurements=[]), edited(measurements={}),
    edited(measurements={"training": None}), edited(measurements={"training": 3}), edited(provenance=None),
    edited(provenance={"training": []}), edited(provenance={"training": {"date": 3}}), edited(provenance={"x": {}}),
]  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[-30:])
def test_line_of_a_published_file(line, tmp_path):
    """The line is named and left out, the other one read, and publishing refuses to write over it."""
    other = Record(Run(RUN.dataset, RUN.network, RUN.recipe, 7), {"a": {"x": 1}}, {"a": {"date": "2026"}})
    path = tmp_path / "study.jsonl"
    path.write_text(f"{line}\n{other.to_line()}\n")
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="line 1 is damaged"):
        assert [record.run.id for record in read_lines(path)] == [other.run.id]
    with pytest.raises(DataError, match="line 1 is damaged"):
        publish([RECORD], path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"\x80", LINE.encode()[:40], LINE.encode("utf-16"), b"PK\3\4", b""])
def test_record_in_the_working_store(content, tmp_path):
    """It is named and measured again; what was there is kept beside the new one."""
    store = Store(tmp_path, tmp_path / "none")
    path = store.folder(RUN) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"record.json is damaged .* measured again"):
        assert store.load(RUN).measurements == {}
    with pytest.warns(UserWarning, match="kept as"):
        store.save(RECORD)
    assert path.with_name("record.json.damaged").read_bytes() == content
    assert store.load(RUN).to_line() == LINE


def test_record_of_another_run(tmp_path):
    store = Store(tmp_path, tmp_path / "none")
    other = Run(RUN.dataset, RUN.network, RUN.recipe, 7)
    write_atomically(store.folder(other) / "record.json", LINE)
    with pytest.warns(UserWarning, match=f"it is of run {RUN.id}"):
        assert store.load(other).measurements == {}


def test_line_without_a_check_sum_is_read():
    """Older files have none."""
    content = json.loads(LINE)
    del content["check"]
    assert Record.from_line(json.dumps(content)).to_line() == LINE


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(LINE) - 1), st.integers(0, 6))
def test_every_flipped_bit_of_a_line_is_found(place, bit):
    content = bytearray(LINE.encode())
    content[place] ^= 1 << bit
    with pytest.raises(ValueError, match=r"."):
        Record.from_line(content.decode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["id", "run", "measurements", "provenance", "check"]), JSON)
def test_any_json_in_a_line(key, value):
    original = json.loads(LINE)
    try:
        record = Record.from_line(json.dumps(original | {key: value}))
    except ValueError:
        return
    assert record.to_line() == LINE  # only what changes nothing passes, such as no check sum


# Checkpoints.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.safetensors"
    train(toy_network(), toy_data(), Recipe(epochs=1, batch_size=8, lr=0.05), seed=0, checkpoint=path)
    return path.read_bytes()


def refuse(path, content, kind):
    """Both ways to read a checkpoint end with ``kind`` and leave the file alone."""
    path.write_bytes(content)
    with pytest.raises(kind, match=str(path)):
        train(toy_network(), toy_data(), Recipe(epochs=2, batch_size=8, lr=0.05), seed=0, checkpoint=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("where", ["header", "data"])
def test_truncated_checkpoint(where, share, checkpoint, tmp_path):
    start = 8 + int.from_bytes(checkpoint[:8], "little")
    cut = int(share * start) if where == "header" else start + int(share * (len(checkpoint) - start))
    refuse(tmp_path / "c.safetensors", checkpoint[:cut], DamagedError)


@pytest.mark.parametrize("cut", [1, 4, 7, 8, 9, 10])
def test_checkpoint_cut_at_its_head(cut, checkpoint, tmp_path):
    refuse(tmp_path / "c.safetensors", checkpoint[:cut], DamagedError)


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"\0" * 8,
        b"\xff" * 64,
        b"\x80\x02}q\0.",
        b"PK\3\4",
        b"{}",
        (2).to_bytes(8, "little") + b"{}",
        b"\0" * 4096,
    ],
)
def test_no_checkpoint_at_all(content, tmp_path):
    refuse(tmp_path / "c.safetensors", content, DamagedError)


def test_checkpoint_with_more_behind_it(checkpoint, tmp_path):
    refuse(tmp_path / "c.safetensors", checkpoint + b"\0", DamagedError)


@pytest.mark.parametrize(
    "history",
    ["", "[", "null", "{}", "3", "[3]", "[[]]", "[{}]", '[{"epoch": 2}]', '[{"epoch": 1}]',
     '[{"epoch": 1, "loss": "x"}]', '[{"epoch": 1, "loss": 1, "accuracy": 1, "seconds": null}]'],
)  # fmt: skip
def test_checkpoint_with_a_wrong_history(history, tmp_path):
    tensors = {f"network.{key}": value for key, value in toy_network().state_dict().items()}
    refuse(tmp_path / "c.safetensors", save(tensors, {"history": history}), DamagedError)


@pytest.mark.parametrize(
    "header", [None, {}, {"History": "[]"}, {"history": "[]", "more": "1"}, {"history": "[]", "sha256": "0"}]
)
def test_checkpoint_with_a_wrong_header(header, tmp_path):
    refuse(tmp_path / "c.safetensors", save(dict(toy_network().state_dict()), header), DamagedError)


WRONG = {
    "a name": lambda t: t | {"network.9.weight": torch.zeros(1)},
    "one missing": lambda t: {key: value for key, value in t.items() if key != "network.0.weight"},
    "a shape": lambda t: t | {"network.0.weight": torch.zeros(4, 3, 5, 5)},
    "a rank": lambda t: t | {"network.5.bias": torch.zeros(2, 1)},
    "none": lambda t: {},
    "no prefix": lambda t: {key.removeprefix("network."): value for key, value in t.items()},
    "optimizer index": lambda t: t | {"optimizer.99.momentum_buffer": torch.zeros(1)},
    "optimizer no index": lambda t: t | {"optimizer.x.momentum_buffer": torch.zeros(1)},
    "optimizer no name": lambda t: t | {"optimizer.0": torch.zeros(1)},
    "optimizer shape": lambda t: t | {"optimizer.0.momentum_buffer": torch.zeros(2, 2)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_checkpoint_of_another_network_or_optimizer(wrong, tmp_path):
    tensors = {f"network.{key}": value for key, value in toy_network().state_dict().items()}
    refuse(tmp_path / "c.safetensors", save(WRONG[wrong](tensors), {"history": "[]"}), DataError)


def test_weights_for_another_network(checkpoint, tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(checkpoint)
    with pytest.raises(DataError, match="of another network"):
        load_weights(path, nn.Linear(2, 2))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_as_tensors(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_tensors(path, "history")


# Archives.


def packed(kind: str) -> bytes:
    file, text = io.BytesIO(), bytes(range(256)) * 8
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train/class/1.png", text)
    else:
        with tarfile.open(fileobj=file, mode=f"w:{kind}") as archive:
            entry = tarfile.TarInfo("train/class/1.png")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return file.getvalue()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.5, 0.6])
@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", "zip"])
def test_truncated_archive(kind, share, tmp_path):
    path = tmp_path / ("a.zip" if kind == "zip" else f"a.tar.{kind}")
    content = packed(kind)
    path.write_bytes(content)
    assert len(list(members(path))) == 1
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(members(path))
    with pytest.raises(DataError, match="damaged or another version"):
        verify(Archive(path.name, "sha256:00"), tmp_path)


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", "zip"])
def test_archive_with_flipped_bits(kind, tmp_path):
    """Whatever is flipped, the sum is wrong; unpacking fails with its name or returns bytes."""
    path, content = tmp_path / ("a.zip" if kind == "zip" else f"a.tar.{kind}"), packed(kind)
    good = Archive(path.name, "sha256:" + hashlib.sha256(content).hexdigest())
    for place in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(DataError, match="damaged or another version"):
            verify(good, tmp_path)
        with suppress(DataError):
            list(members(path))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"BM" + b"\0" * 60, b"P6 9 9 255 "]
)
def test_file_that_is_no_image(content):
    with pytest.raises(DataError, match=r"1\.png is not a readable image"):
        decode([("class", "1.png", content)], plain)


# Names and options of data sets, layers, networks and measurements.

WORDS = ("", "x", None, 3, [], {})
SEEDS, SIZES = (-1, "0", 1.5, None, 2**70, True), (-1, 0, "32", 16.5, None, True)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        (name, option, value)
        for name, options in {
            "shapes": {"count": (-1, "8", 1.5, []), "seed": SEEDS, "size": SIZES, "noise": (-1, "0", None, NAN, INF),
                       "position_sigma": (-1, "even", None, NAN, INF, []), "counts": (3,)},
            "glyphs": {"classes": SIZES, "each": SIZES, "size": SIZES, "seed": SEEDS},
            "imagenette": {"size": (*SIZES, 161)}, "omniglot": {"size": (*SIZES, 106)},
            "tiny-imagenet-100": {"classes": WORDS}, "cifar10": {"size": (32,)}, "camvid": {"size": (32,)},
            "voc2012": {"size": SIZES}, "cityscapes": {"size": SIZES},
            "folder": {"size": SIZES, "per_class": (-1, 0, "1", 1.5)},
        }.items()
        for option, values in options.items()
        for value in values
    ],
)  # fmt: skip
def test_option_of_a_data_set(name, option, value, tmp_path):
    with pytest.raises(UsageError, match=rf"{option}|{name}|group of classes"):
        datasets.load(name, "test", root=tmp_path, **{option: value})


@pytest.mark.parametrize("word", WORDS)
def test_name(word):
    with pytest.raises(UsageError, match="unknown data set"):
        datasets.load(word, "test")
    with pytest.raises(UsageError, match="unknown split"):
        datasets.load("shapes", word)
    with pytest.raises(UsageError, match="unknown downsampling layer"):
        layers.create(word, 3)
    with pytest.raises(UsageError, match="unknown model"):
        models.create(word, 10)
    with pytest.raises(UsageError, match="unknown measurement"):
        Measurement(word).measure(Subject(RUN, nn.Identity(), torch.device("cpu")))


@pytest.mark.parametrize("name", layers.NAMES)
def test_arguments_of_a_layer(name):
    for wrong in (
        *({"channels": value} for value in (0, -1, "3", None, 1.5, True)),
        *({"stride": value} for value in (0, -1, 9, "2", None, 1.5, (2, 2))),
        *({"padding_mode": value} for value in WORDS),
        {"option": 1},
        *({option: value} for option in layers.CATALOGUE[name].options for value in ({}, NAN, object())),
    ):
        with pytest.raises(UsageError):
            layers.create(name, **({"channels": 4} | wrong))


@pytest.mark.parametrize(
    "name", ["vgg-small", "resnet-small", "densenet-40-12", "mobilenet-v2", "unet-small", "wide-resnet"]
)
@pytest.mark.parametrize(
    ("option", "value"),
    table(
        num_classes=(0, -1, "10", None, 1.5, True),
        width=(0, -1, "8", 1.5, True),
        downsample=(*WORDS, {"name": "x"}, {"name": 3}, {"name": "tri-3", "x": 1}, {"name": "lps", "hidden": 0}),
        placement=("", "x", 3, []),
        activation=WORDS,
        padding_mode=WORDS,
        smooth=WORDS,
        shared=("yes", None, 1),
        filter_everywhere=("yes", None, 1),
        option=(1,),
        levels=("3", None, 0, [], 1.5),
        depth=("3", None, 0, [], 1.5),
        dropout=("3", None, -0.1, 1.5),
    ),
)  # fmt: skip
def test_argument_of_a_network(name, option, value):
    with pytest.raises(UsageError):
        models.create(name, **({"num_classes": 3} | {option: value}))


# Parameters of notebooks and of the command line.

PARAMETERS = {"profile": "smoke", "seeds": 1, "device": "cpu"}


@pytest.mark.parametrize(
    ("name", "value"),
    table(profile=(*WORDS, "Smoke"), seeds=(0, -1, "1", 1.0, True, []), device=WORDS),
)
def test_parameter_of_a_notebook(name, value):
    with pytest.raises(UsageError):
        chapters.begin("zhang2019", **PARAMETERS | {name: value})


COMMANDS = """
|run|run zang|run zhang2019 --profile x|run zhang2019 --profile=|run zhang2019 --seeds x|run zhang2019 --seeds 0
run zhang2019 --seeds -1|run zhang2019 --workers x|run zhang2019 --workers 0|run zhang2019 --workers -2
run zhang2019 --limit-minutes x|run zhang2019 --limit-minutes nan|run zhang2019 --device x|run zhang2019 --device=
run zhang2019 --device cpu:x|run zhang2019 --device cpu:7|run zhang2019 --device cuda:x|run zhang2019 --device mps:
run zhang2019 --only x|run zhang2019 --only =|run zhang2019 --only layer=|run zhang2019 --only layer=x
run zhang2019 --shard 1|run zhang2019 --shard 0/1|run zhang2019 --shard 2/1|run zhang2019 --shard 1/2/3
run zhang2019 --shard ²/3|run zhang2019 --shard x/y|run zhang2019 --shard=-1/2|run zhang2019 --nothing
status x|status --profile x|status --json=3|publish|publish x|publish zhang2019 --profile x
findings --study x|findings --study=|findings --profile x|list x|list layer|data|data x|data cifar
bench x|bench layers --repeats 0|bench layers --repeats x|bench layers --device x|diagnose|diagnose resnet18
diagnose resnet18 --images /dev/null|diagnose x|nothing|--nothing
"""


@pytest.mark.parametrize("command", [line for part in COMMANDS.strip().split("\n") for line in part.split("|")])
def test_command_line(command, capsys, tmp_path, monkeypatch):
    """Exit status 2, with what is wrong on standard error, and no file written."""
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "runs"))
    try:
        status = main(command.split())
    except SystemExit as stopped:  # argparse
        status = stopped.code
    printed = capsys.readouterr()
    assert status == 2
    assert not printed.out and "aliasing" in printed.err and "Traceback" not in printed.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("target", ["folder", "file/below", "damaged"])
def test_publishing_where_it_cannot_be(target, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    (tmp_path / "damaged").write_text("{")
    with pytest.raises(DataError, match=target):
        publish([RECORD], tmp_path / target)
    assert (tmp_path / "damaged").read_text() == "{" and (tmp_path / "file").read_text() == "a file"


def test_nothing_here_hides_a_warning():
    """The published records that come with the package are sound."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Store()
