"""The command line: exit statuses, tables, messages that name the valid choices."""

import json
import math
import subprocess
import sys

import pandas as pd
import pytest

from aliasing.cli import _print
from aliasing.profiles import PROFILES
from aliasing.runner import KILLED
from aliasing.studies import STUDIES

pytestmark = pytest.mark.usefixtures("empty_store")


def test_list_names_what_exists(typed):
    names = ("bin-5", "vgg13-bn", "cifar10", "zhang2019", "circular_rolls", "laptop")
    for what, name in zip(("layers", "models", "datasets", "studies", "metrics", "profiles"), names, strict=True):
        rows = json.loads(typed("list", what, "--json").out)
        assert all(all(row.values()) for row in rows) and name in {next(iter(row.values())) for row in rows}
    out = typed("list").out
    assert all(name in out for name in names)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "zhang2019", "--shard", "0"]])
def test_help_and_typing_errors_do_not_load_pytorch(arguments):
    code = (
        "import sys\nfrom aliasing.cli import main\n"
        f"try: main({arguments})\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'pandas', 'scipy', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("module", ["aliasing.cli", "torch"])
def test_the_keyboard_ends_the_imports_with_one_line(module):
    """As if the signal came when ``module`` is about to be loaded."""
    code = (
        "import sys\nfrom aliasing.__main__ import main\n"
        "class Keyboard:\n"
        "    def find_spec(name, *rest):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Keyboard)\nsys.argv[1:] = ['data', 'shapes']\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (130, "")
    assert line.startswith("aliasing") and "stopped" in line


def test_run_status_publish_findings(tmp_path, typed, empty_store, monkeypatch):
    only = ["--only", "layer=subsample", "--only", "augmented=True"]
    run = ["run", "zhang2019", "--profile", "smoke", "--device", "cpu", "--workers", "1", "--quiet", *only]
    assert "1 done" in typed(*run, "--shard", "1/2").out
    (row,) = json.loads(typed("status", "zhang2019", "--profile", "smoke", "--json").out)
    assert (row["planned"], row["done"], row["failed"]) == (8, 1, 0)
    out = tmp_path / "one.jsonl"
    for _ in range(2):
        typed("publish", "zhang2019", "--profile", "smoke", "--out", str(out))
    assert len(out.read_text().splitlines()) == 1
    for status, said, wrong in (
        (2, "in a file, such as records.jsonl, got the folder '.'", ["--profile", "smoke", "--out", ""]),
        (1, "zhang2019 has no records of profile gpu; aliasing run makes them", ["--profile", "gpu"]),
    ):
        assert said in typed("publish", "zhang2019", *wrong, status=status).err
    kept = []
    monkeypatch.setattr("aliasing.training.keep_weights", lambda *paths: kept.append(paths))
    weights = ["publish", "zhang2019", "--weights", "9", "--out", str(tmp_path / "all.jsonl")]
    typed(*weights)  # of every profile but smoke
    assert not kept
    with monkeypatch.context() as patch:  # the record of another network
        patch.setattr("aliasing.records.same_training", lambda *curves: False)
        typed(*weights, "--profile", "smoke")
    assert not kept
    typed(*weights, "--profile", "smoke")
    (record,) = empty_store.glob("*/record.json")
    record.unlink()
    typed(*weights, "--profile", "smoke", status=1)
    assert len(kept) == 1  # and not of a training that may not be over
    rows = json.loads(typed("findings", "--study", "zhang2019", "--profile", "smoke", "--json").out)
    assert {row["verdict"] for row in rows} == {"not run"}


def test_a_failure_without_a_file_of_its_details_names_none(typed, empty_store, monkeypatch):
    """A process that was killed could not write one; what is there is of an older failure."""
    outcomes = {"here": "failed: a", "gone": "failed: b", "dead": KILLED}
    monkeypatch.setattr("aliasing.runner.execute", lambda *a: outcomes)
    path, older = (empty_store / run / "failed.txt" for run in ("here", "dead"))
    for one in (path, older):
        one.parent.mkdir(parents=True)
        one.touch()
    said = typed("run", "zhang2019", "--profile", "smoke", status=1).err.splitlines()
    assert said == [f"here failed: a (details in {path})", "gone failed: b", f"dead {KILLED}"]


def test_json_keeps_every_digit_and_nothing_that_json_lacks(capsys):
    _print(pd.DataFrame({"p": [1.25e-12, 0.1 + 0.2, math.nan, math.inf], "fact": [True, False, None, "no"]}), True)
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [row["p"] for row in rows] == [1.25e-12, 0.1 + 0.2, None, None]
    assert [row["fact"] for row in rows] == [True, False, None, "no"]


def test_status_lists_every_study_and_profile(typed):
    rows = json.loads(typed("status", "--json").out)
    assert {(row["study"], row["profile"]) for row in rows} == {(s, p) for s in STUDIES for p in PROFILES}
