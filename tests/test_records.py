"""Records and stores: identity, merging, damage, verification."""

import json
import math
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aliasing import datasets, records, verify
from aliasing.cli import main
from aliasing.errors import DataError
from aliasing.files import write_atomically
from aliasing.metrics import Estimate
from aliasing.records import Record, Run, Store, encode, merge, provenance, publish, read_lines
from aliasing.runner import execute
from aliasing.studies import get
from aliasing.training import Recipe

RUN = Run({"name": "shapes", "count": 8}, {"name": "vgg-small", "num_classes": 10}, Recipe(epochs=2), 0)


def record(keys: dict[str, tuple[str, float]], run: Run = RUN) -> Record:
    return Record(run, {key: {"x": x} for key, (_, x) in keys.items()}, {k: {"date": d} for k, (d, _) in keys.items()})


def test_the_id_depends_on_every_part_and_on_nothing_else():
    assert RUN.id == Run(dict(reversed(RUN.dataset.items())), RUN.network, Recipe(epochs=2), 0).id
    others = [
        replace(RUN, seed=1),
        replace(RUN, recipe=Recipe(epochs=3)),
        replace(RUN, dataset={"name": "shapes", "count": 9}),
        replace(RUN, network=RUN.network | {"width": 4}),
    ]
    assert len({RUN.id, *(other.id for other in others)}) == 5
    assert replace(RUN, recipe=Recipe(lr=1)).id == replace(RUN, recipe=Recipe(lr=1.0)).id  # which are equal
    assert (
        replace(RUN, dataset={"name": "shapes", "position_sigma": 3}).id == replace(RUN, dataset={"name": "shapes"}).id
    )
    roots = [replace(RUN, dataset={"name": "folder", "root": root}).id for root in (Path("here"), "here")]
    assert roots[0] == roots[1]
    assert RUN.describe()["recipe"]["lr"] == Recipe().lr  # what was not said, too: a default that changes counts


def test_an_option_that_came_later_leaves_older_ids_alone(monkeypatch):
    before, line = RUN.id, Record(RUN).to_line()
    later = replace(RUN, dataset=RUN.dataset | {"mood": "calm"})
    monkeypatch.setattr(records, "_SINCE", [("dataset", "mood", "calm")])
    assert later.id == before and Record.from_line(line).run.dataset["mood"] == "calm"
    assert replace(RUN, dataset=RUN.dataset | {"mood": "wild"}).id != before


def test_photographs_are_known_by_their_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_DATA", str(tmp_path))
    network = {"name": "vgg-small", "num_classes": 10}
    copy = Run({"name": "cifar10"}, network, Recipe(epochs=2), 0)
    (tmp_path / "cifar-10-python.tar.gz").touch()  # the lossless archive: other pixels, other numbers
    official = Run({"name": "cifar10"}, network, Recipe(epochs=2), 0)
    assert copy.id != official.id
    with pytest.raises(DataError, match="must not be mixed"):
        datasets.load(split="train", **copy.dataset)


def test_values_are_plain_json_and_a_line_reads_back():
    assert encode(Estimate(0.5, 0.4, float("inf"), 3)) == {"value": 0.5, "low": 0.4, "high": None, "n": 3}
    assert encode({"a": torch.tensor([[1 / 3]]), "b": torch.tensor(2)}) == {"a": [[0.33333]], "b": 2}
    assert encode([1, float("nan")]) == [1, None]
    assert str(encode(torch.tensor([[250, 1]], dtype=torch.uint8))) == "[[250, 1]]"  # pictures take less room so
    assert encode({"a": np.float32(0.5), "b": np.arange(2), "c": np.bool_(True)}) == {"a": 0.5, "b": [0, 1], "c": True}
    assert encode([torch.tensor(1 / 3, dtype=torch.float64), 1 / 3]) == [1 / 3, 0.33333]  # as those on record
    written = Record(RUN)
    written.add("accuracy()", {"accuracy": Estimate(0.5, 0.4, 0.6, 9)}, provenance(torch.device("cpu"), 1.0))
    read = Record.from_line(written.to_line())
    assert read.to_line() == written.to_line()
    assert {"code", "date", "device", "processor", "python", "torch", "seconds"} == set(read.provenance["accuracy()"])


@pytest.mark.parametrize("place", ["without git", "in the repository of another project"])
def test_a_copy_that_is_no_checkout_is_known_by_its_files(place, tmp_path, monkeypatch):
    if place == "without git":
        monkeypatch.setenv("PATH", "")
    else:
        commit = ("-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "theirs")
        for command in (("init", "-q"), commit):
            subprocess.run(["git", *command], cwd=tmp_path, check=True)
        installed = tmp_path / "site-packages" / "records.py"
        installed.parent.mkdir()
        installed.touch()
        monkeypatch.setattr(records, "__file__", str(installed))
    records.code_version.cache_clear()
    assert re.fullmatch(r".+ \(sha256 [0-9a-f]{10}\)", records.code_version())
    records.code_version.cache_clear()


@pytest.mark.parametrize("variable", ["ALIASING_FRESH", "ALIASING_RUNS", "ALIASING_DATA"])
def test_nonsense_in_the_environment_is_named(variable, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(variable, str(tmp_path / ("long" * 99)))
    assert main(["status", "zhang2019", "--profile", "desktop"]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert variable in line and ("File name too long" in line or "must be 0 or 1" in line)


ENTRIES = st.tuples(st.sampled_from(["2026-01", "2026-02"]), st.floats(0, 1))
KEYS = st.dictionaries(st.sampled_from("abc"), ENTRIES)


def trained(measured, curve):
    """A record of the network whose training, at a date, gave this loss."""
    made = record(measured)
    made.add("training", {"loss": [curve[1]]}, {"date": curve[0]})
    return made


@given(KEYS, KEYS, KEYS)
def test_merging_is_commutative_associative_and_idempotent(a, b, c):
    first, second, third = record(a), record(b), record(c)
    assert merge(first, second).to_line() == merge(second, first).to_line()
    assert merge(merge(first, second), third).to_line() == merge(first, merge(second, third)).to_line()
    assert merge(first, first).to_line() == first.to_line()


CURVES = st.tuples(st.sampled_from(["2026-01", "2026-02"]), st.sampled_from([0.25, 0.5]))  # often equal


@given(KEYS, KEYS, CURVES, CURVES)
def test_of_two_networks_one_stays_whole(a, b, c, d):
    first, second = trained(a, c), trained(b, d)
    merged = merge(first, second)
    assert merged.to_line() == merge(second, first).to_line()
    if c[1] == d[1]:
        assert merged.measurements.keys() == {"training", *a, *b}
    else:
        assert merged.to_line() in {
            one.to_line() for one, (date, _) in ((first, c), (second, d)) if date == max(c[0], d[0])
        }


def test_what_was_measured_first_stays_and_a_record_can_be_cut():
    merged = merge(record({"a": ("2026-02", 2.0)}), record({"a": ("2026-01", 1.0), "b": ("2026-03", 3.0)}))
    assert merged.measurements == {"a": {"x": 1.0}, "b": {"x": 3.0}}
    part = merged.only(["b", "c"])
    assert part.measurements == {"b": {"x": 3.0}} and part.provenance == {"b": {"date": "2026-03"}}
    assert merge(part, merged.only(["a"])).to_line() == merged.to_line()


RECORDS = st.lists(st.tuples(st.integers(0, 3), KEYS.filter(bool)), max_size=5)


@settings(max_examples=25, deadline=None)
@given(RECORDS, st.data())
def test_publishing_any_parts_in_any_order_gives_the_same_file(tmp_path_factory, parts, data):
    """Duplicates and conflicts included; and publishing the result once more changes nothing."""
    records = [record(keys, replace(RUN, seed=seed)) for seed, keys in parts]
    folder = tmp_path_factory.mktemp("publish")
    at_once, in_parts = folder / "at_once.jsonl", folder / "in_parts.jsonl"
    publish(records, at_once)
    order = data.draw(st.permutations(records + records[:2]))
    cut = data.draw(st.integers(0, len(order)))
    for part in (order[:cut], order[cut:]):
        publish(part, in_parts)
    assert in_parts.read_bytes() == at_once.read_bytes()
    publish(read_lines(in_parts), in_parts)
    assert in_parts.read_bytes() == at_once.read_bytes()


def test_the_store_is_the_union_of_both_stores(tmp_path):
    publish([record({"a": ("2026", 1.0)})], tmp_path / "published/x.jsonl")
    store = Store(tmp_path / "working", tmp_path / "published")
    store.save(record({"b": ("2026", 2.0)}))
    assert store.load(RUN).measurements == {"a": {"x": 1.0}, "b": {"x": 2.0}}
    assert store.load(replace(RUN, seed=7)).measurements == {}


def _damage(line: str) -> list[str]:
    """What is no record: parts of one, other JSON, and wrong contents with their true check sum."""
    content = json.loads(line)
    del content["check"]
    wrong_run = content | {"run": content["run"] | {"seed": 5}}
    wrong_recipe = content | {"run": content["run"] | {"recipe": {"epoch": 1}}}
    missing = {key: value for key, value in content.items() if key != "provenance"}
    unpaired = content | {"provenance": {}}
    signed = [
        json.dumps(wrong | {"check": records._digest(records._canonical(wrong))})
        for wrong in (wrong_run, wrong_recipe, missing, unpaired)
    ]
    return [line[:-20], "", "[]", "null", "{}", json.dumps(content), *signed]


def test_damaged_lines_are_named_and_the_others_kept(tmp_path):
    good = record({"a": ("2026", 1.0)}).to_line()
    other = record({"a": ("2026", 2.0)}, replace(RUN, seed=1)).to_line()
    for number, bad in enumerate(_damage(good)):
        path = tmp_path / f"{number}/study.jsonl"
        write_atomically(path, f"{bad}\n{other}\n")
        with pytest.warns(UserWarning, match="line 1 is damaged"):
            store = Store(tmp_path / "working", path.parent)
        assert store.load(replace(RUN, seed=1)).measurements == {"a": {"x": 2.0}}
        before = path.read_bytes()
        with pytest.raises(DataError, match="line 1 is damaged"):
            publish([record({"a": ("2026", 1.0)})], path)
        assert path.read_bytes() == before


def test_a_link_and_a_pipe_stay_what_they_are(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", "new")
    assert (tmp_path / "pipe").is_fifo() and os.read(reader, 9) == b"new"
    os.close(reader)
    reader, writer = os.pipe()
    write_atomically(Path(f"/dev/fd/{writer}"), "new")  # as /dev/stdout, which leads to no path
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    os.close(writer)


def test_a_damaged_working_record_is_named_and_measured_again(where):
    where.save(record({"a": ("2026", 1.0)}))
    path = where.folder(RUN) / "record.json"
    damaged = path.read_text()[:30]
    path.write_text(damaged)
    with pytest.warns(UserWarning, match="is damaged"):
        assert where.load(RUN).measurements == {}
    with pytest.warns(UserWarning, match="kept as"):
        where.save(record({"b": ("2026", 1.0)}))
    assert where.load(RUN).measurements == {"b": {"x": 1.0}}
    assert path.with_name("record.json.damaged").read_text() == damaged


def test_a_record_repeats_to_the_bit_and_a_changed_one_is_named(tmp_path, monkeypatch, typed):
    """The record of a run of the smoke profile, published in a project of its own."""
    monkeypatch.chdir(tmp_path)
    job = get("zhang2019").jobs("smoke", 1)[0]
    job = replace(job, measurements=job.measurements[:2])
    path, store = tmp_path / "data/records/zhang2019.smoke.jsonl", Store(tmp_path / "runs")
    execute([job], store, "cpu", 1, progress=False)
    record = store.load(job.run)
    publish([record], path)
    assert "True" in typed("verify", job.run.id[:8]).out
    key = next(key for key in record.measurements if key != "training")
    name, value = next((n, v) for n, v in record.measurements[key].items() if isinstance(v, dict))
    record.measurements[key][name] = value | {"value": value["value"] / 2 + 0.1}
    path.unlink()
    publish([record], path)
    assert f"{name}.value" in typed("verify", job.run.id, status=1).out
    assert "begins none of those in the plans" in typed("verify", "0000000", status=2).err


@pytest.mark.filterwarnings("ignore:.* is damaged")
@pytest.mark.parametrize("torn", [False, True])
def test_what_a_reader_adds_to_a_record_stays_his(tmp_path, torn):
    """What was parsed is shared by all stores of a process, whether the working record is absent or damaged."""
    publish([record({"a": ("2026", 1.0)})], tmp_path / "published/x.jsonl")
    if torn:
        write_atomically(tmp_path / RUN.id / "record.json", "torn")
    Store(tmp_path, tmp_path / "published").load(RUN).add("his own", {"x": 2.0}, {"date": "2027"})
    assert set(Store(tmp_path, tmp_path / "published").load(RUN).measurements) == {"a"}


def test_a_value_that_is_missing_differs_but_for_times_that_are_measured_no_longer():
    old = {"macs": 3, "milliseconds": 0.2, "milliseconds_quartiles": [0.1, 0.3]}
    assert list(verify._differences("", old, {"macs": 3})) == []
    assert list(verify._differences("", {"macs": 3, "parameters": 5}, {"macs": 3})) == [("", math.inf)]
