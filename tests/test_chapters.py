"""Opening a chapter and executing notebooks."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

from aliasing import chapters
from aliasing.errors import DataError, UsageError
from aliasing.records import Store

ROOT = Path(__file__).parents[1]
NAMESPACE = {"profile": "smoke", "device": "cpu", "seeds": 1, "In": [], "_": 0, "module": types, "__name__": "x"}


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"profle": "laptop"},
            "unknown parameter 'profle'; choose from profile, device, seeds. Did you mean 'profile'",
        ),
        ({"profile": "lapto"}, "choose from smoke, laptop, desktop, gpu, cluster"),
        ({"device": "tpu"}, "choose from auto, cpu"),
        ({"seeds": 0}, "seeds must be a whole number from 1 on"),
        ({"seeds": "3"}, "seeds must be a whole number from 1 on"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(change, message):
    with pytest.raises(UsageError, match=message):
        chapters.begin("zhang2019", NAMESPACE | change)


def test_execute_refuses_a_parameter_the_notebook_does_not_have(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'profile'"):
        chapters.execute(ROOT / "notebooks/zhang2019.ipynb", tmp_path / "out.ipynb", {"profle": "smoke"})


@pytest.mark.slow
@pytest.mark.parametrize("parameter", [("profile", "lapto"), ("profle", "smoke")])
def test_plain_papermill_stops_too_and_names_the_choices(parameter, tmp_path):
    """Papermill itself only warns of a parameter it does not know and injects it."""
    command = [sys.executable, "-m", "papermill", "notebooks/zhang2019.ipynb", str(tmp_path / "out.ipynb")]
    options = ["-k", "python3", "-p", *parameter, "--no-progress-bar"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"'{parameter[1] if parameter[0] == 'profile' else parameter[0]}'; choose from" in done.stderr


def test_the_stamp_changes_with_notebook_package_records_and_profile(tmp_path):
    for name in ("notebooks/a.ipynb", "aliasing/x.py", "data/records/r.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    notebook = tmp_path / "notebooks/a.ipynb"
    stamps = {chapters.stamp(notebook, "smoke", tmp_path), chapters.stamp(notebook, "laptop", tmp_path)}
    for name in ("notebooks/a.ipynb", "aliasing/x.py", "data/records/r.jsonl"):
        (tmp_path / name).write_text("2")
        stamps.add(chapters.stamp(notebook, "smoke", tmp_path))
    assert len(stamps) == 5
    assert chapters.stamp(notebook, "smoke", tmp_path) in stamps
    shared = chapters.shared_by_notebooks(tmp_path)
    assert chapters.stamp(notebook, "smoke", tmp_path, shared) == chapters.stamp(notebook, "smoke", tmp_path)
    assert chapters.stamp(notebook, "smoke", tmp_path, shared + b"1") not in stamps


def test_a_wrong_profile_of_the_book_ends_with_2(capsys):
    assert chapters.main(["--profile", "lapto"]) == 2
    assert "Did you mean 'laptop'" in capsys.readouterr().err


def test_an_execution_is_stale_once_what_it_shows_has_changed(tmp_path):
    sources = ("notebooks/a.ipynb", "aliasing/x.py", "data/records/r.jsonl", "data/published/p.csv")
    for name in sources:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    output = tmp_path / "book/a.ipynb"
    output.parent.mkdir()
    assert chapters.stale(output, tmp_path)  # there is none
    known = {"profile": "laptop", "stamp": chapters.stamp(tmp_path / "notebooks/a.ipynb", "laptop", tmp_path)}
    output.write_text(json.dumps({"metadata": {"aliasing": known}}))
    assert not chapters.stale(output, tmp_path)
    for name in sources:
        (tmp_path / name).write_text("2")
        assert chapters.stale(output, tmp_path), name
        (tmp_path / name).write_text("1")
    assert not chapters.stale(output, tmp_path)
    (tmp_path / "notebooks/a.ipynb").unlink()
    assert chapters.stale(output, tmp_path)


def test_verdicts_are_counted_once_per_claim_and_profile():
    """By hand: three claims, one with two parts, and a profile in which nothing was decided."""
    rows = [("zhang-1", "laptop", "partly")] * 2 + [("zhang-2", "laptop", "reproduced"), ("saha-1", "laptop", "partly")]
    rows += [("zhang-1", "gpu", "not run"), ("zhang-2", "gpu", "not run")]
    counts = chapters.verdicts(pd.DataFrame(rows, columns=["finding", "profile", "verdict"]))
    assert [*counts.index] == [("zhang2019", "laptop"), ("saha2024", "laptop")]
    assert counts.loc[("zhang2019", "laptop")].tolist() == [1, 1, 0, 0, 0, 0]
    assert [*counts.columns[:2]] == ["reproduced", "partly"]


def test_readme_has_the_verdicts_of_the_published_records():
    text = (ROOT / "README.md").read_text()
    assert chapters.update_readme(text) == text, "the records have changed: make readme"
    old = re.sub(r"(`laptop` \|) [\d·]+", r"\1 99", text)
    assert old != text
    assert chapters.update_readme(old) == text


def test_sources_have_no_outputs():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in json.loads(path.read_text())["cells"])


def test_a_profile_without_records_is_named_with_the_command_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "Store", lambda: Store(working=tmp_path, published=tmp_path))
    with pytest.raises(DataError, match="no records of zhang2019 in profile gpu; aliasing run zhang2019 --profile gpu"):
        chapters.published("zhang2019", "gpu")
