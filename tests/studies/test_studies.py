"""Every study: its plans in all profiles, its findings, its table."""

import pytest

from aliasing import datasets, layers, models, studies
from aliasing.errors import UsageError
from aliasing.measurements import MEASUREMENTS
from aliasing.profiles import PROFILES
from aliasing.records import Store
from aliasing.runner import build, execute
from aliasing.studies.study import table

CASES = [(study, profile) for study in studies.STUDIES for profile in PROFILES]


@pytest.mark.parametrize(("study", "profile"), CASES)
def test_a_plan_is_sound(study, profile):
    jobs = studies.get(study).jobs(profile)
    assert len({job.run.id for job in jobs}) == len(jobs)
    assert jobs or study == "realnetworks"  # which has nothing to look at in some
    for job in jobs:
        assert job.run.dataset["name"] in datasets.NAMES
        assert {m.name for m in job.measurements} <= set(MEASUREMENTS)
        if job.run.network.get("pretrained"):
            assert job.run.network["name"] in models.PRETRAINED
            continue
        assert job.run.network["name"] in models.NAMES
        layer = job.run.network["downsample"]
        assert (layer if isinstance(layer, str) else layer["name"]) in layers.NAMES
    assert [job.run.seed for job in jobs] == sorted(job.run.seed for job in jobs)


ACCURACY = ("accuracy", "circular_fidelity", "circular_rolls")  # measurements with a column of that name


@pytest.mark.parametrize(("study", "profile"), CASES)
def test_accuracies_that_are_compared_are_of_the_same_images(study, profile):
    # The table keeps the last of several columns of one name.
    counts = {}
    for job in studies.get(study).jobs(profile):
        group = (repr(job.run.dataset), job.labels.get("task"), job.labels.get("group"))
        counts.setdefault(group, set()).update(
            [m.options["count"] for m in job.measurements if m.name in ACCURACY][-1:]
        )
    assert all(len(found) <= 1 for found in counts.values()), counts


@pytest.mark.parametrize("study", studies.STUDIES)
def test_the_networks_of_a_plan_can_be_built(study):
    seen = set()
    for job in studies.get(study).jobs("laptop", seeds=1):
        network = repr(job.run.network)
        if network not in seen:
            seen.add(network)
            assert sum(p.numel() for p in build(job.run).parameters()) > 0


@pytest.mark.parametrize(("study", "least"), [("zhang2019", {"laptop": 3, "desktop": 3, "gpu": 3})])
def test_there_are_enough_seeds(study, least):
    for profile, count in least.items():
        assert len({job.run.seed for job in studies.get(study).jobs(profile)}) >= count


def test_findings_have_unique_names_and_say_where_they_come_from():
    found = [finding for study in studies.STUDIES.values() for finding in study.findings]
    assert len({finding.id for finding in found}) == len(found)
    assert all(finding.source and finding.published and finding.parts for finding in found)


@pytest.mark.parametrize("study", studies.STUDIES)
def test_every_finding_is_decided_on_the_smoke_runs(study, tmp_path):
    chosen = studies.get(study)
    store = Store(tmp_path, tmp_path / "published")
    jobs = chosen.jobs("smoke")
    outcomes = execute(jobs, store, "cpu", workers=1, progress=False)
    assert set(outcomes.values()) == {"done"}
    results = table(jobs, store)
    assert len(results) == len(jobs)
    decided = studies.ledger(chosen, results, "smoke")
    assert set(decided["finding"]) == {finding.id for finding in chosen.findings}
    assert "not run" not in set(decided["verdict"])
    for count in range(len(results)):  # a campaign that was stopped there
        some = results.head(count).dropna(axis=1, how="all")
        assert set(studies.ledger(chosen, some, "smoke")["finding"]) == set(decided["finding"])


def test_without_records_nothing_is_decided(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path))
    decided = studies.findings(profile="smoke")
    assert set(decided["verdict"]) == {"not run"}


def test_only_and_seeds_select_runs():
    study = studies.get("zhang2019")
    jobs = study.jobs("laptop", seeds=2, only=["layer=tri-3", "augmented=False"])
    assert [job.run.seed for job in jobs] == [0, 1]
    with pytest.raises(UsageError, match="selects nothing in zhang2019"):
        study.jobs("laptop", only=["layer"])


def test_fresh_runs_ignore_the_published_records(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path))
    monkeypatch.setenv("ALIASING_FRESH", "1")
    stores = []
    monkeypatch.setattr("aliasing.studies.study.execute", lambda jobs, store, **options: stores.append(store) or {})
    assert len(studies.run("zhang2019", "desktop", progress=False)) == 0
    assert not list(stores[0].published.glob("*"))
