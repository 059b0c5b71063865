"""Every study: its plans in all profiles, its findings, its table."""

from dataclasses import replace

import pytest

from aliasing import datasets, layers, models, studies
from aliasing.errors import UsageError
from aliasing.measurements import MEASUREMENTS, Measurement
from aliasing.profiles import PROFILES
from aliasing.records import Record, Store
from aliasing.runner import build, execute
from aliasing.studies.finetuned import LAYERS
from aliasing.studies.rules import _claims
from aliasing.studies.study import results

CASES = [(study, profile) for study in studies.STUDIES for profile in PROFILES]


@pytest.mark.parametrize(("study", "profile"), CASES)
def test_a_plan_is_sound(study, profile):
    jobs = studies.get(study).jobs(profile)
    assert len({job.run.id for job in jobs}) == len(jobs)
    assert jobs or study in ("realnetworks", "finetuned")  # which need photographs
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


@pytest.mark.parametrize(("study", "profile"), CASES)
def test_columns_that_are_compared_are_of_the_same_images(study, profile):
    # Of one task, a measurement has the same options for all networks; ASAP alone is asked for fewer rolls.
    asked = {}
    for job in studies.get(study).jobs(profile):
        group = (job.labels.get("task"), job.labels.get("group"), job.labels.get("pictures"), job.labels.get("bias"))
        for one in job.measurements:
            free = {key: value for key, value in one.options.items() if key not in ("pictured", "domain", "dataset")}
            if one.name != "circular_rolls" or "asap" not in repr(job.run.network):
                asked.setdefault((group, one.name, one.options.get("domain"), one.options.get("attack")), set()).add(
                    repr(free)
                )
    assert all(len(found) == 1 for found in asked.values()), asked


@pytest.mark.parametrize("study", studies.STUDIES)
def test_the_networks_of_a_plan_can_be_built(study):
    seen = set()
    for job in studies.get(study).jobs("laptop", seeds=1):
        network = repr(job.run.network)
        if network not in seen:
            seen.add(network)
            assert sum(p.numel() for p in build(job.run).parameters()) > 0


@pytest.mark.parametrize("profile", ["desktop", "gpu"])
def test_every_verdict_on_networks_trained_on_photographs_rests_on_five_seeds(profile):
    pretrained = set()
    for study in studies.STUDIES.values():
        jobs = study.jobs(profile)
        seeds = [job.run.seed for job in jobs]
        if all(job.run.network.get("pretrained") for job in jobs):
            pretrained.add(study.name)
        else:
            assert {seeds.count(seed) for seed in range(5)} == {len(seeds) / 5}
    assert pretrained == {"realnetworks", "finetuned"}  # whose intervals are over pictures


@pytest.mark.parametrize("profile", ["desktop", "gpu"])
def test_every_fine_tuned_network_has_three_seeds_and_one_network_that_is_not(profile):
    seeds = {}
    for job in studies.get("finetuned").jobs(profile):
        seeds.setdefault((job.labels["layer"], job.labels["tuned"]), []).append(job.run.seed)
    assert seeds == {(layer, tuned): [0, 1, 2] if tuned else [0] for layer in LAYERS for tuned in (True, False)}


def test_findings_have_unique_names_and_say_where_they_come_from():
    found = [finding for study in studies.STUDIES.values() for finding in study.findings]
    names = {finding.id for finding in found}
    assert len(names) == len(found) and _claims().keys() <= names  # every line of the table is tested
    assert all(finding.source and finding.published and finding.tests for finding in found)


@pytest.mark.parametrize("study", studies.STUDIES)
def test_every_finding_is_decided_on_the_smoke_runs(study, tmp_path):
    chosen = studies.get(study)
    store = Store(tmp_path, tmp_path / "published")
    jobs = chosen.jobs("smoke")
    outcomes = execute(jobs, store, "cpu", workers=1, progress=False)
    assert set(outcomes.values()) == {"done"}
    table = results(jobs, store)
    assert len(table) == len(jobs)
    decided = chosen.verdicts(table, "smoke").set_index("finding")["verdict"]
    planned = {
        finding.id
        for finding in chosen.findings
        if all(any(job.labels.items() >= setting.items() for job in jobs) for setting in finding.settings)
    }
    absent = {name for name, verdict in decided.items() if verdict == "not run"}
    # A network that is right about nothing has no consistency among the pictures that it is right about.
    assert absent - {"control-1"} == set(decided.index) - planned - {"control-1"}
    assert len(planned) > 0.6 * len(chosen.findings)
    for count in range(len(table)):  # a campaign that was stopped there
        assert set(chosen.verdicts(table.head(count), "smoke")["finding"]) == set(decided.index)
    without = table.drop(columns=[name for name in table if name.startswith(("corruptions.", "one_pixel."))])
    less = chosen.verdicts(without, "smoke").set_index("finding")["verdict"]
    kept = less != "not run"
    assert kept.any() and (less[kept] == decided[kept]).all()  # what was not measured takes only what needs it


def test_without_records_nothing_is_decided(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path))
    decided = studies.findings(profile="smoke")
    assert set(decided["verdict"]) == {"not run"}


def test_two_columns_of_one_name_are_an_error(tmp_path):
    job = studies.get("zhang2019").jobs("smoke")[0]
    twice = replace(job, measurements=(Measurement("accuracy", {"count": 1}), Measurement("accuracy", {"count": 2})))
    record = Record(job.run)
    for key in ("training", *(m.key for m in twice.measurements)):
        record.add(key, {"accuracy": 0.5, "data": "shapes"}, {"seconds": 1, "device": "cpu"})
    store = Store(tmp_path, tmp_path / "published")
    store.save(record)
    with pytest.raises(UsageError, match="two measurements of run"):
        results([twice], store)


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
    monkeypatch.setattr("aliasing.studies.execute", lambda jobs, store, **options: stores.append(store) or {})
    assert len(studies.run("zhang2019", "desktop", progress=False)) == 0
    assert not list(stores[0].published.glob("*"))
