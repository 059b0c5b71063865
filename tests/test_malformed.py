"""Malformed input of every kind: a clear error or a named skip, no traceback from deep inside, nothing overwritten."""

import json
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from aliasing import datasets, layers, models
from aliasing.cli import main
from aliasing.datasets.decoding import decode, plain
from aliasing.errors import DamagedError, DataError, UsageError
from aliasing.files import read_tensors
from aliasing.measurements import Measurement, Subject
from aliasing.records import Record, Run
from aliasing.training import Recipe, load_weights, recipe_from, train
from tests.test_training import toy_data, toy_network

NAN = float("nan")
RUN = Run({"name": "shapes", "count": 8}, {"name": "vgg-small", "num_classes": 10}, Recipe(epochs=2), 0)
RECORD = Record(RUN, {"training": {"loss": [1.5, 0.25]}}, {"training": {"date": "2026", "seconds": 1.0}})
LINE = RECORD.to_line()
LIKE = RUN.describe()

# A kind of wrong value each, and where it stands.
USAGE = {
    "recipe: negative": lambda: recipe_from({"epochs": -1}),
    "recipe: zero": lambda: recipe_from({"batch_size": 0}),
    "recipe: text": lambda: recipe_from({"lr": "3"}),
    "recipe: a fraction for a whole number": lambda: recipe_from({"epochs": 1.5}),
    "recipe: a truth value for a number": lambda: recipe_from({"lr": True}),
    "recipe: not a number": lambda: recipe_from({"weight_decay": NAN}),
    "recipe: more than all": lambda: recipe_from({"momentum": 1.5}),
    "recipe: unknown field": lambda: recipe_from({"Epochs": 1}),
    "run: nothing": lambda: Run.from_description(None),
    "run: a part is missing": lambda: Run.from_description({k: v for k, v in LIKE.items() if k != "seed"}),
    "run: a part too many": lambda: Run.from_description(LIKE | {"sed": 0}),
    "run: a part of another type": lambda: Run.from_description(LIKE | {"network": "vgg-small"}),
    "run: a name that is none": lambda: Run.from_description(LIKE | {"network": {"name": 3}}),
    "run: a negative seed": lambda: Run.from_description(LIKE | {"seed": -1}),
    "data: unknown name": lambda: datasets.load("shape", "test"),
    "data: no name": lambda: datasets.load(None, "test"),
    "data: unknown split": lambda: datasets.load("shapes", "tests"),
    "data: negative": lambda: datasets.load("shapes", "test", count=-1),
    "data: a seed beyond 64 bits": lambda: datasets.load("shapes", "test", seed=2**70),
    "data: unknown option": lambda: datasets.load("shapes", "test", counts=3),
    "data: option of another set": lambda: datasets.load("cifar10", "test", size=32),
    "data: unknown word": lambda: datasets.load("shapes", "test", position_sigma="even"),
    "layer: unknown name": lambda: layers.create("bin-9", 3),
    "layer: no channels": lambda: layers.create("bin-5", 0),
    "layer: fraction of a stride": lambda: layers.create("bin-5", 3, stride=1.5),
    "layer: a stride it does not define": lambda: layers.create("asap", 3, stride=1),
    "layer: unknown padding": lambda: layers.create("bin-5", 3, padding_mode="wrap"),
    "layer: unknown option": lambda: layers.create("bin-5", 3, taps=3),
    "network: unknown name": lambda: models.create("resnet", 10),
    "network: no classes": lambda: models.create("vgg-small", 0),
    "network: text for a number": lambda: models.create("vgg-small", 10, width="8"),
    "network: unknown layer": lambda: models.create("vgg-small", 10, downsample={"name": "x"}),
    "network: unknown option of its layer": lambda: models.create("vgg-small", 10, downsample={"name": "lps", "x": 1}),
    "network: unknown activation": lambda: models.create("vgg-small", 10, activation=None),
    "network: unknown option": lambda: models.create("vgg-small", 10, option=1),
    "measurement: unknown name": lambda: Measurement("x").measure(Subject(RUN, nn.Identity(), torch.device("cpu"))),
}  # fmt: skip


@pytest.mark.parametrize("kind", USAGE)
def test_a_wrong_argument(kind):
    with pytest.raises(UsageError, match=r"[a-z]{3}"):
        USAGE[kind]()


@pytest.mark.parametrize("name", layers.NAMES)
def test_a_wrong_option_of_every_layer(name):
    for option in layers.CATALOGUE[name].options:
        for value in ({}, NAN, object()):
            with pytest.raises(UsageError, match=option):
                layers.create(name, 4, **{option: value})


# Records.


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
    with suppress(ValueError):
        record = Record.from_line(json.dumps(json.loads(LINE) | {key: value}))
        assert record.to_line() == LINE  # only what changes nothing passes, such as no check sum


# Checkpoints.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.safetensors"
    train(toy_network(), toy_data(), Recipe(epochs=1, batch_size=8, lr=0.05), seed=0, checkpoint=path)
    return path.read_bytes()


def saved(change, history="[]"):
    """A checkpoint of the toy network, its tensors changed."""
    tensors = {f"network.{key}": value for key, value in toy_network().state_dict().items()}
    return save(change(tensors), {"history": history})


CHECKPOINTS = {
    "cut in its head": (DamagedError, lambda whole: whole[:7]),
    "cut in its header": (DamagedError, lambda whole: whole[: int.from_bytes(whole[:8], "little") // 2]),
    "cut in its numbers": (DamagedError, lambda whole: whole[:-1]),
    "more behind it": (DamagedError, lambda whole: whole + b"\0"),
    "another kind of file": (DamagedError, lambda whole: b"PK\3\4" * 9),
    "a bit of its header": (DamagedError, lambda whole: whole[:30] + bytes([whole[30] ^ 4]) + whole[31:]),
    "a bit of its numbers": (DamagedError, lambda whole: whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]),
    "a history of nothing": (DamagedError, lambda whole: saved(dict, "null")),
    "a history without its fields": (DamagedError, lambda whole: saved(dict, '[{"epoch": 1}]')),
    "no history": (DamagedError, lambda whole: save(dict(toy_network().state_dict()), {"History": "[]"})),
    "a wrong sum": (DamagedError, lambda whole: save({"a": torch.zeros(1)}, {"history": "[]", "sha256": "0"})),
    "a tensor more": (DataError, lambda whole: saved(lambda t: t | {"network.9.weight": torch.zeros(1)})),
    "a tensor less": (DataError, lambda whole: saved(lambda t: {k: t[k] for k in list(t)[1:]})),
    "a tensor of another shape": (DataError, lambda whole: saved(lambda t: t | {"network.0.weight": torch.zeros(4)})),
    "an optimizer's of no weight": (DataError, lambda whole: saved(lambda t: t | {"optimizer.99.x": torch.zeros(1)})),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_wrong_checkpoint_is_refused_and_left_alone(kind, checkpoint, tmp_path):
    error, damage = CHECKPOINTS[kind]
    path, content = tmp_path / "c.safetensors", damage(checkpoint)
    path.write_bytes(content)
    with pytest.raises(error, match=str(path)):
        train(toy_network(), toy_data(), Recipe(epochs=2, batch_size=8, lr=0.05), seed=0, checkpoint=path)
    assert path.read_bytes() == content


def test_weights_of_another_network(checkpoint, tmp_path):
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


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM" + b"\0" * 60])
def test_a_file_that_is_no_image(content):
    with pytest.raises(DataError, match=r"1\.png is not a readable image"):
        decode([("class", "1.png", content)], plain)


# The command line.


@pytest.mark.parametrize("command", [
    "", "nothing", "run", "run zang", "run zhang2019 --profile x", "run zhang2019 --seeds x", "run zhang2019 --seeds 0",
    "run zhang2019 --workers -2", "run zhang2019 --limit-minutes nan", "run zhang2019 --device cuda:x",
    "run zhang2019 --only layer=", "run zhang2019 --shard 2/1", "run zhang2019 --shard \u00b2/3", "run --nothing",
    "status x", "publish x", "findings --study=", "list layer", "data cifar", "bench x", "bench layers --repeats 0",
    "diagnose resnet18", "diagnose resnet18 --images /dev/null",
])  # fmt: skip
def test_a_wrong_command(command, capsys, tmp_path, monkeypatch):
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
