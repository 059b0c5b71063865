"""Every study: its plans in all profiles, its findings, its table; and the order in which a campaign spends time."""

from dataclasses import replace

import computed
import numpy as np
import pandas as pd
import pytest
import torch

from aliasing import studies
from aliasing.cli import main
from aliasing.errors import UsageError
from aliasing.jobs import build
from aliasing.measurements import MEASUREMENTS, Measurement, drawn, packed
from aliasing.metrics import Estimate
from aliasing.profiles import PROFILES
from aliasing.records import Record, Store
from aliasing.studies import STUDIES, VALUE, campaign, worth
from aliasing.studies.finetuned import LAYERS, _minus
from aliasing.studies.rules import _lines, above
from aliasing.studies.study import results
from tests.runs import JOB


def test_every_measurement_is_planned_and_nothing_else_is_listed():
    """What lies beside them, such as a helper, is none: it would stand in the list of metrics."""
    planned = {one.name for study in STUDIES.values() for job in study.jobs("smoke") for one in job.measurements}
    assert planned == set(MEASUREMENTS)


@pytest.mark.parametrize("profile", PROFILES)
def test_plans_are_sound(profile):
    """Names exist, each run is planned once, seed by seed; and columns that are compared are of the same images."""
    for name, study in STUDIES.items():
        jobs, asked = study.jobs(profile), {}
        assert len({job.run.id for job in jobs}) == len(jobs)
        assert jobs or name in ("realnetworks", "finetuned")  # which need photographs
        assert [job.run.seed for job in jobs] == sorted(job.run.seed for job in jobs)
        for job in jobs:  # that datasets, networks and layers exist was asked when the runs were made
            assert {one.name for one in job.measurements} <= set(MEASUREMENTS)
            # Of one task, a measurement has the same options for all networks; ASAP alone is asked for fewer rolls.
            group = tuple(job.labels.get(key) for key in ("task", "group", "pictures", "bias", "apart"))
            for one in job.measurements:
                free = {k: v for k, v in one.options.items() if k not in ("pictured", "domain", "dataset")}
                case = (group, one.name, one.options.get("domain"), one.options.get("attack"))
                if one.name != "circular_rolls" or "asap" not in repr(job.run.network):
                    asked.setdefault(case, set()).add(repr(free))
        assert all(len(found) == 1 for found in asked.values()), (name, asked)


@pytest.mark.parametrize("study", STUDIES)
def test_the_networks_of_a_plan_can_be_built(study):
    runs = {repr(job.run.network): job.run for job in studies.get(study).jobs("laptop", seeds=1)}
    for run in runs.values():
        assert sum(p.numel() for p in build(run).parameters()) > 0


@pytest.mark.parametrize("profile", ["desktop", "gpu"])
def test_verdicts_on_networks_trained_on_photographs_rest_on_five_seeds_and_of_fine_tuned_ones_on_three(profile):
    for study in STUDIES.values():
        seeds = [job.run.seed for job in study.jobs(profile)]
        if study.name == "finetuned":  # what is not tuned, once: nothing is drawn for it
            tuned = [job.run.seed for job in study.jobs(profile) if job.labels["tuned"]]
            assert tuned == sorted([*range(3)] * len(LAYERS)) and len(seeds) - len(tuned) == len(LAYERS)
        elif study.name != "realnetworks":  # whose intervals are over pictures
            assert {seeds.count(seed) for seed in range(5)} == {len(seeds) / 5}


def test_seeds_behind_a_difference_are_those_of_fine_tuned_networks():
    rows = [("tri-3", True), ("tri-3", True), ("tri-3", True), ("tri-3", False), ("none", True)]
    table = pd.DataFrame(rows, columns=["layer", "tuned"])
    table["fine_tuned.accuracy_by_image"] = [packed(torch.tensor([True, tuned, False])) for _, tuned in rows]
    seeds = [_minus("accuracy", "tri-3", *other).of(table).seeds for other in (("tri-3", False), ("none", True))]
    assert seeds == [3, 1]


def test_findings_have_unique_names_and_say_where_they_come_from():
    found = [finding for study in STUDIES.values() for finding in study.findings]
    names = {finding.id for finding in found}
    assert len(names) == len(found) and _lines().keys() <= names  # every line of the table is tested
    assert all(finding.source and finding.published and finding.tests for finding in found)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("two measurements of run", {"measurements": [Measurement("accuracy", {"count": count}) for count in (1, 2)]}),
        ("a label of run .* is called like a column that there is: network", {"labels": {"network": "mine"}}),
    ],
)
def test_two_columns_of_one_name_are_an_error(message, change, where):
    job = replace(studies.get("zhang2019").jobs("smoke")[0], **{"measurements": ()} | change)
    record = Record(job.run)
    for key in ("training", *(m.key for m in job.measurements)):
        record.add(key, {"accuracy": 0.5, "data": "shapes"}, {"seconds": 1, "device": "cpu"})
    where.save(record)
    with pytest.raises(UsageError, match=message):
        results([job], where)


def test_what_a_study_costs_is_what_it_asked_for_on_the_networks_that_are_done(monkeypatch, where):
    """Of two networks one is done, on which another study measured for an hour."""
    other, mine = replace(JOB, run=replace(JOB.run, seed=1)), studies.get("zhang2019")
    monkeypatch.setattr(studies, "STUDIES", {"mine": mine._replace(name="mine", plan=lambda profile: [JOB, other])})
    monkeypatch.setattr(studies, "open_store", lambda: where)
    for one, keys in ((JOB, ("training", JOB.measurements[0].key, "masks")), (other, ("training",))):
        made = {key: {"images": 500_000} for key in keys}, {key: {"seconds": 3600, "device": "cpu"} for key in keys}
        where.save(Record(one.run, *made))
    assert studies.status_of(profile="laptop")["hours left"].tolist() == [2.0]
    row = "| mine | `laptop` | 1 of 2 | 1.00 | 1.00 | cpu | 1.5 |"
    assert computed.records(None)[2:] == [row.replace("laptop", profile) for profile in PROFILES]


def test_estimates_become_three_columns_and_older_records_are_completed(where):
    names = {"sampling_bias": {}, "band_removal": {}, "accuracy": {"per_image": True}}
    measurements = tuple(Measurement(name, {"count": 5} | more) for name, more in names.items())
    job = replace(JOB, run=replace(JOB.run, dataset={"name": "cifar10"}), measurements=measurements)
    record, estimate = Record(job.run), {"data": "shapes", "accuracy": Estimate(0.5, 0.4, 0.7, 9)}
    every = torch.arange(10_000) % 3 == 0
    bias = {"msb_exact": None, "msb_exact_by_site": [0.1, 0.3, None], "msb_constant_by_site": [0.2, 0.0, 1.0]}
    made = bias, {"accuracy_without_band": [0.5]}, {"accuracy_by_image": packed(every)}
    for key, values in (("training", estimate), *zip((one.key for one in job.measurements), made, strict=True)):
        record.add(key, values, {"seconds": 1, "device": "cpu"})
    elsewhere = replace(job, run=JOB.run)  # on data whose test split may be larger than what was measured
    where.save(record), where.save(replace(record, run=elsewhere.run))
    row, other = results([job, elsewhere], where).to_dict("records")
    assert [row[f"training.accuracy{end}"] for end in ("", ".low", ".high")] == [0.5, 0.4, 0.7]
    assert row["sampling_bias.msb_exact"] == 0.2  # of sites with windows
    assert row["band_removal.accuracy_with_all_bands"] == every[drawn(10_000, 5)].double().mean().item()
    assert np.isnan(other["band_removal.accuracy_with_all_bands"])


def test_a_plan_that_lacks_a_profile_says_so():
    study = studies.get("zhang2019")._replace(plan=lambda profile: {"smoke": []}[profile])
    assert study.jobs("smoke") == []
    with pytest.raises(UsageError, match=r"the plan of zhang2019 must know every profile.* got 'cluster'"):
        study.jobs("cluster")
    with pytest.raises(KeyError, match="else"):
        study._replace(plan=lambda profile: {}["else"]).jobs("smoke")


def test_a_claim_about_networks_that_no_profile_has_does_not_read_as_not_run():
    study = studies.get("zhang2019")
    mine = study.findings[0]._replace(tests=(("level", above("accuracy.accuracy", {"layer": "tri3"})),))
    with pytest.raises(UsageError, match=r"zhang-1 needs networks with the labels {'layer': 'tri3'}, .* no profile"):
        study._replace(findings=(mine,)).verdicts(pd.DataFrame(), "laptop")


def test_a_study_may_have_no_claims_yet(monkeypatch, tmp_path, capsys):
    mine = studies.Study("mine", "Mine", "our own question", studies.get("zhang2019").plan, ())
    monkeypatch.setattr(studies, "STUDIES", {"mine": mine})
    assert main(["findings", "--study", "mine", "--profile", "laptop"]) == 0
    assert not worth("smoke", Store(tmp_path, tmp_path)).total()


def test_fresh_runs_ignore_the_published_records(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path))
    monkeypatch.setenv("ALIASING_FRESH", "1")
    stores = []
    monkeypatch.setattr("aliasing.studies.execute", lambda jobs, store, **options: stores.append(store) or {})
    assert len(studies.run("zhang2019", "desktop", progress=False)) == 0
    assert not list(stores[0].published.glob("*"))
    assert set(studies.findings(["zhang2019"])["verdict"]) == {"not run"}
    monkeypatch.setattr("aliasing.runner.execute", lambda jobs, store, *options: stores.append(store) or {})
    assert main(["run", "zhang2019", "--profile", "desktop"]) == 0
    assert not list(stores[1].published.glob("*"))


def test_a_campaign_has_every_run_of_every_study_once_with_all_that_is_measured_on_it():
    jobs = campaign("laptop")
    planned = [job for study in STUDIES.values() for job in study.jobs("laptop")]
    assert len({job.run.id for job in jobs}) == len(jobs)
    asked, found = ({(job.run.id, m.key) for job in own for m in job.measurements} for own in (planned, jobs))
    assert found == asked


def test_studies_share_the_residual_networks_of_photographs():
    """Plain, and blurred behind the activation: what two chapters call differently is trained once."""
    blurred = studies.get("vasconcelos2020").jobs("desktop", seeds=1)
    compared = studies.get("comparison").jobs("desktop", seeds=1, only="backbone=resnet")
    cases = {job.labels["case"]: job.run.id for job in blurred}
    layers = {job.labels["layer"]: job.run.id for job in compared}
    assert (cases["none"], cases["after activation"]) == (layers["subsample"], layers["tri-3"])
    assert len({cases["all"], *layers.values()}) == len(layers) + 1


def test_two_seeds_come_before_the_next_two_and_of_them_a_chapter_before_the_next():
    planned = {study.name: {job.run.id for job in study.jobs("desktop")} for study in VALUE}

    def place(run):
        chapter = next(index for index, study in enumerate(VALUE) if run.id in planned[study.name])
        return run.seed // 2, chapter, run.seed

    places = [place(job.run) for job in campaign("desktop")]
    assert places == sorted(places) and len({pair for pair, _, _ in places}) == 3


def test_a_run_is_worth_the_findings_that_need_it(tmp_path):
    needed = worth("laptop", Store(tmp_path, tmp_path / "none"))
    labels = {job.run.id: job.labels for job in STUDIES["zhang2019"].jobs("laptop", seeds=1)}
    longest = next(name for name, label in labels.items() if label["longest"] and not label["augmented"])
    middle = next(name for name, label in labels.items() if label["layer"] == "rect-2")
    assert needed[longest] >= 6 > needed[middle]
    assert needed.keys() <= {job.run.id for job in campaign("laptop")}
