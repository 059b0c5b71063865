"""Opening a chapter and executing notebooks."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import builder
import computed
import pandas as pd
import papermill
import pytest

from aliasing import chapters, clone, datasets, jobs, layers, models, plots, records, studies
from aliasing.errors import DataError, UsageError
from aliasing.measurements import MEASUREMENTS, Measurement
from aliasing.metrics import count_flops
from aliasing.records import Run, Store
from aliasing.studies.evidence import survived
from aliasing.training import Recipe
from tests.runs import CPU, JOB

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("empty_store")


compute = studies.findings
known = cache(lambda names, profile, published: compute(names, profile, Store(Path(os.devnull), published)))


@pytest.fixture
def once(monkeypatch):
    """What follows from published records alone is computed once: it takes seconds."""
    monkeypatch.setattr(studies, "findings", lambda n=(), p=None, *, store: known((*n,), p, store.published))


def test_right_parameters_pass():
    chapters.check(profile="smoke", device="cpu", seeds=1, layers=["bin-5"], width=8, radii=[0.5], shifts=[0, 3])


def test_execute_refuses_a_parameter_the_notebook_does_not_have(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'profile'"):
        builder.execute(ROOT / "notebooks/zhang2019.ipynb", tmp_path / "out.ipynb", {"profle": "smoke"})


@pytest.mark.slow
def test_plain_papermill_stops_too_and_names_the_choices(tmp_path):
    """Papermill itself only warns of a parameter it does not know and injects it."""
    notebook, options = str(ROOT / "notebooks/zhang2019.ipynb"), {"kernel_name": "python3", "progress_bar": False}
    with pytest.raises(papermill.PapermillExecutionError, match="'profle'; choose from"):
        papermill.execute_notebook(notebook, str(tmp_path / "out.ipynb"), {"profle": "smoke"}, cwd=ROOT, **options)


def test_a_wrong_profile_of_the_book_ends_with_2(capsys):
    assert builder.main(["--profile", "lapto"]) == 2
    assert "Did you mean 'laptop'" in capsys.readouterr().err


def test_an_execution_is_stale_once_what_it_shows_has_changed(tmp_path):
    names = ("notebooks/a.ipynb", "aliasing/x.py", "data/records/r.jsonl", "data/published/p.csv", "book/a.ipynb")
    *sources, output = [tmp_path / name for name in names]
    for path in (*sources, output):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    assert builder.stale(output, tmp_path)  # nothing is known of it
    known = {"profile": "laptop", "stamp": builder.stamp(sources[0], "laptop", tmp_path)}
    output.with_suffix(".json").write_text(json.dumps(known))
    for path in sources:
        assert not builder.stale(output, tmp_path)
        path.write_text("2")
        assert builder.stale(output, tmp_path), path
        path.write_text("1")
    assert known["stamp"] != builder.stamp(sources[0], "smoke", tmp_path)
    sources[0].unlink()
    assert builder.stale(output, tmp_path)


def test_chapters_are_executed_again_once_something_was_measured_here(tmp_path, empty_store, monkeypatch):
    """What the chapters' own studies lack is measured before, and shown; what ends meanwhile stops no build."""
    (notebook := tmp_path / "notebooks/zhang2019.ipynb").parent.mkdir()
    notebook.write_text("1")
    done, output = [], tmp_path / "book"
    output.mkdir()

    def measure(jobs=(), store=None, name="of the chapter"):
        (empty_store / name).mkdir(parents=True, exist_ok=True)
        (empty_store / name / "record.json").write_text("1")

    def refresh(notebook, output, profile, root, about):
        done.append(notebook.stem)
        output.write_text("1")
        output.with_suffix(".json").write_text(json.dumps(about))

    monkeypatch.setattr(builder, "run_jobs", measure)
    monkeypatch.setattr(builder, "_refresh", refresh)
    monkeypatch.setattr(builder, "ProcessPoolExecutor", ThreadPoolExecutor)
    for name, times in (("a", 1), ("a", 1), ("b", 2)):
        measure(name=name)
        builder._refresh_all([notebook], output, "smoke", tmp_path)
        assert len(done) == times and not builder.stale(output / notebook.name, tmp_path)


def test_full_scale_counts_the_networks_that_are_planned_and_not_their_namesakes(monkeypatch):
    networks = [{"name": "vgg-small", "num_classes": classes, "width": width} for classes, width in ((10, 4), (7, 16))]
    runs = [Run({"name": "shapes", "count": 10**10}, own, Recipe(epochs=2), 0) for own in networks]
    plan = SimpleNamespace(jobs=lambda profile: [jobs.Job(run) for run in runs])
    monkeypatch.setattr(studies, "STUDIES", {"mine": plan})
    small, large = (count_flops(models.create(**own), (224, 224)) / 1e9 for own in networks)
    row = f"| `vgg-small` | 2 | {small:.1f} to {large:.1f} GFLOP | {60 * (small + large):,.1f} EFLOP"
    assert computed.full_scale(None)[-1].startswith(row)


@pytest.mark.parametrize(("ratios", "told"), [([], "none"), ([2], "2.0"), ([1, 2, 4], "2.0 (1.0 to 4.0)")])
def test_times_faster_are_told_with_their_spread(ratios, told):
    assert computed.spread(pd.Series(ratios, dtype=float)) == told


def test_each_claim_is_told_on_its_best_evidence():
    """By hand: one with two parts, one that only the smaller networks decide, one that the larger ones cannot test."""
    rows = [("zhang-1", "laptop", "partly", 3)] * 2
    rows += [("zhang-1", "desktop", "reproduced", seeds) for seeds in (2, 0, 3)]  # 0: a test that was not run
    rows += [("zhang-2", "laptop", "partly", 3), ("zhang-2", "desktop", "not run", 0)]
    rows += [("zhang-3", "laptop", "not run", 0), ("zhang-3", "desktop", "not testable here", 2)]
    rows += [("saha-1", "laptop", "not run", 0), ("saha-2", "laptop", "reproduced", 0)]
    decided = pd.DataFrame(rows, columns=["finding", "profile", "verdict", "seeds"])
    decided["decided"] = ~decided["verdict"].isin(["not run", "not testable here"])
    decided["fact"] = decided["finding"] == "saha-2"
    study = decided["finding"].map(lambda name: {"zhang": "zhang2019", "saha": "saha2024"}[name[:-2]])
    said = builder.verdicts(decided.assign(study=study))
    assert said == {
        "zhang2019": (
            "1 of 3 reproduced, 1 partly, 1 not testable here",
            "1 on desktop (2 to 3 seeds), 1 on laptop (3 seeds)",
        ),
        "saha2024": ("1 of 2 reproduced, 1 not run", "1 computed"),
    }


def test_readme_has_the_verdicts_of_the_published_records(once):
    text = (ROOT / "README.md").read_text()
    old = re.sub(r"( on laptop| Lite0 \|) [(]?\d+", r"\1 99", text)
    assert old != text
    assert builder.update_readme(old) == text, "the records have changed: make readme"


def test_a_profile_without_records_is_named_with_the_command_that_makes_them():
    with pytest.raises(DataError, match="no records of profile gpu; aliasing run zhang2019 --profile gpu"):
        chapters.on_record("zhang2019", "gpu")


def test_an_installed_package_has_the_numbers_of_the_papers(tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(ROOT / "data")  # as a wheel has it, read in a folder that has none
    monkeypatch.setattr(clone, "__file__", str(tmp_path / "clone.py"))
    monkeypatch.setattr(clone, "home", lambda: tmp_path / "elsewhere")
    assert "value" in chapters.papers("zhang2019")
    with pytest.raises(UsageError, match=r"unknown paper 'zhang'.*Did you mean 'zhang2019'"):
        chapters.papers("zhang")


def test_where_a_profile_plans_nothing_the_best_evidence_stands_in():
    assert set(chapters.on_record("realnetworks", "laptop")["profile"]) == {"desktop"}


@pytest.mark.parametrize(
    ("decided", "best"),
    [
        ({}, "laptop"),
        ({"laptop": 2, "desktop": 1}, "laptop"),
        ({"laptop": 2, "desktop": 2}, "desktop"),
        ({"laptop": 5, "desktop": 3}, "desktop"),  # half of all
        ({"laptop": 2, "gpu": 2, "desktop": 4}, "gpu"),
    ],
)
def test_the_best_profile_is_the_largest_that_decides_most_claims(decided, best, monkeypatch):
    """Of six claims with two statistics each."""

    def verdicts(results, profile):
        return pd.DataFrame(
            {"finding": number, "decided": number < decided.get(profile, 0)} for number in [*range(6)] * 2
        )

    plan = SimpleNamespace(jobs=lambda profile: [profile] * (profile in decided), verdicts=verdicts, findings=range(6))
    monkeypatch.setattr(studies, "get", {"x": plan}.get)
    monkeypatch.setattr(studies, "results", lambda jobs, store: jobs)
    assert chapters.best("x") == best


def test_a_group_of_networks_is_shown_on_the_largest_profile_that_has_it():
    results = chapters.on_record("zhang2019", "laptop")
    for layer, profile in {"bin-5": "desktop", "rect-2": "laptop"}.items():  # no network with rect-2 is planned there
        options = f"layer == '{layer}'", "accuracy.accuracy"
        for own in (results, results.drop(columns="accuracy.accuracy"), results.assign(**{"accuracy.accuracy": None})):
            rows = chapters.part("zhang2019", own, "best", *options)
            assert rows["layer"].unique() == [layer] and rows["profile"].unique() == [profile]
            assert set(chapters.part("zhang2019", own, "best", *options, seeds=1)["seed"]) == {0}
            named = chapters.part("zhang2019", own, "laptop", *options)  # who names a profile sees its own
            assert named.empty is (own is not results) and set(named["profile"]) <= {"laptop"}
    assert (chapters.small("smoke"), chapters.small("best"), chapters.small("gpu")) == ("smoke", "laptop", "laptop")


def test_results_say_on_which_evidence_they_stand_and_what_their_columns_hold():
    results = chapters.on_record("zhang2019", "laptop", seeds=2)
    plain = results[(results["layer"] == "subsample") & ~results["augmented"]]
    accuracy = plain["accuracy.accuracy"].mean()
    assert set(results["plain"]) == {f"plain network {100 * accuracy:.1f} % accurate"}
    said = plots.badge(results)
    assert said.startswith("vgg-small on shapes (plain network") and "2 seeds" in said
    assert said.endswith("profile laptop")
    # What was trained in another way has a plain network of its own.
    robust = chapters.on_record("grabinski2023", "laptop").set_index("group")["plain"].groupby(level=0).unique()
    assert all(len(own) == 1 for own in robust) and len({own[0] for own in robust[["native", "twin"]]}) == 2
    assert "trained on attacks" in robust["adversarial"][0] and robust["adversarial"][0].endswith("weakest attack")
    documented = chapters.columns(results)
    assert documented.loc["filter_variation", "columns"] == "filter_variation"
    assert all(documented["what was measured"].str.len() > 20)


def test_of_one_network_a_share_is_over_pictures():
    results = chapters.on_record("grabinski2023", "desktop", seeds=1).query("group == 'native' and layer == 'flc'")
    found = chapters.share(results, survived(2))
    assert found.n == 500 and found.low < found.value < found.high
    assert found.value == pytest.approx(results["attacks.pgd_accuracy"].iloc[0][2])


def test_in_short_a_chapter_gives_its_numbers_and_networks_and_leaves_out_what_is_not_on_record():
    accuracy, plain = "accuracy.accuracy", {"layer": "subsample", "augmented": False}
    sentences = ("right on {}.", [(accuracy, plain)]), ("and on {}.", [(accuracy, plain), (accuracy, {"layer": "aps"})])
    said = chapters.brief("zhang2019", "laptop", 2, *sentences).data.splitlines()
    assert re.fullmatch(r"\* right on \d\d\.\d % \(\d.* to \d.*\)\.", said[2]) and len(said) == 4
    assert said[3] == (
        "* Behind it: 14 networks, 2 seeds of each (vgg-small, width 8: 4 epochs of shapes); profile `laptop`."
    )
    assert "3 networks as their makers trained them (tf_eff" in chapters.brief("realnetworks", "best", None).data
    assert "not on record" in chapters.brief("zhang2019", "laptop", 2, sentences[1]).data
    assert "Nothing is on record" in chapters.brief("zhang2019", "gpu", None, *sentences).data


def test_a_run_of_ones_own_joins_the_sweep_and_is_not_kept(tmp_path):
    first = studies.get("zhang2019").jobs("smoke", seeds=1)[0]
    first = replace(first, measurements=first.measurements[:2])
    network = first.run.network | {"downsample": "tri-3"}
    mine = replace(first, run=replace(first.run, network=network), labels=first.labels | {"layer": "tri-3"})
    rows = chapters.sweep([first, mine], device="cpu")
    assert [*rows["layer"]] == ["subsample", "tri-3"]
    assert not (tmp_path / "my runs").exists()


GLYPHS = Measurement("few_shot", {"dataset": {"name": "glyphs", "size": 8}, "domain": "glyphs", "episodes": 2})


@pytest.mark.parametrize(
    ("table", "name", "part"),
    [
        (datasets.CATALOGUE, "shapes", "function"),
        (datasets.CATALOGUE, "glyphs", "function"),
        (models.CATALOGUE, "vgg-small", "build"),
        (layers.CATALOGUE, "tri-3", "layer"),
        (MEASUREMENTS, "circular_rolls", None),
    ],
)
def test_what_a_cell_calls_like_something_on_record_is_made_anew(table, name, part, monkeypatch):
    job = replace(JOB, measurements=(*JOB.measurements, GLYPHS))
    assert jobs.carry_out(job, studies.open_store(), CPU) == "done"
    monkeypatch.setattr(jobs, "train", lambda *rest: [{"epoch": 0, "loss": 7.0, "seconds": 0.0}])
    assert chapters.sweep([job], "cpu")["training.loss"][0] != [7]
    own = table[name]._replace(**{part: partial(getattr(table[name], part))}) if part else partial(table[name])
    monkeypatch.setitem(table, name, own)
    assert chapters.sweep([job], "cpu")["training.loss"][0] == [7]


CLAIM = {"claim": "a < b", "published": "12 %", "source": "v1, secondary", "rule": "above 0", "seeds": 3, "fact": False}
CLAIM |= {"profile": "laptop"}
HELD = {"verdict": "partly", "statistic": "gain", "outcome": "holds", "value": 0.25, "low": 0.125, "high": 0.375}
HELD |= {"told": "0.250 [0.125, 0.375]"}
NOT_RUN = {"verdict": "not run", "statistic": "gain", "outcome": "not run", "value": None, "low": None, "high": None}
DECIDED = pd.DataFrame(
    [
        CLAIM | {"finding": "x-1"} | HELD,
        CLAIM | {"finding": "x-1"} | HELD | {"statistic": "loss"},
        CLAIM | {"finding": "x-2"} | NOT_RUN,
    ]
)


def test_the_ledger_has_a_row_per_claim_a_line_per_statistic_and_no_number_for_what_was_not_run():
    html = chapters.Ledger(DECIDED, DECIDED.assign(profile="gpu"))._repr_html_()
    first, second = html.split("<tbody>")[1].split("</tr>")[:2]
    assert (first.count("<li>"), second.count("<li>")) == (2, 1)
    assert "<strong>partly</strong><br><small>x-1, laptop<br>gpu: partly</small>" in first
    assert "gain: <strong>0.250 [0.125, 0.375], 3 seeds, as claimed</strong>" in first
    assert "a &lt; b" in first and "Published: 12 %. Source: v1, secondary." in first
    assert "gain: <strong>not run</strong> <small>" in second and "gpu" not in second
    assert "nan" not in second.lower() and "None" not in second
    assert repr(chapters.Ledger(DECIDED, DECIDED)) == "x-1: partly\nx-2: not run"


def test_a_book_trained_anew_says_how_many_verdicts_are_as_published(tmp_path, once):
    """A plain network that answers at random makes its chapter's claims untestable."""
    file = "zhang2019.desktop.jsonl"
    made = records.read_lines(ROOT / "data/records" / file)
    for record in made:
        for key, measured in record.measurements.items():
            if key.startswith("accuracy"):
                measured["accuracy"]["value"] = 0.1
    records.publish(made, tmp_path / file)
    published, fresh = Store(tmp_path / "none"), Store(tmp_path / "none", tmp_path)
    first, *table = builder.agreement(fresh, published)
    was = studies.findings(["zhang2019"], "desktop", store=published).drop_duplicates("finding").set_index("finding")
    changed = was["verdict"][~was["verdict"].isin(["not testable here", "not run"])]
    own = [f"| {one} | `desktop` | {verdict} | not testable here |" for one, verdict in changed.items()]
    assert own and [line for line in table if line.startswith("| zhang-")] == own  # other chapters share its networks
    total, same = map(int, re.findall(r"\d+", first))
    assert total - same == len(table) - 3
