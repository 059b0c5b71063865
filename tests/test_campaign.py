"""A campaign: what it checks, what a failed check takes out, and what is left when it is killed."""

import json
import multiprocessing
import random
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch

from aliasing import campaign, device_checks, durations, studies
from aliasing.cli import main
from aliasing.errors import DataError, StorageError, UsageError
from aliasing.jobs import Job, merged
from aliasing.measurements import Measurement
from aliasing.records import Record, Store, read_lines
from aliasing.runner import execute
from aliasing.studies import get
from aliasing.training import Recipe

FORK = multiprocessing.get_context("fork")
JOBS = [replace(job, measurements=job.measurements[:3]) for job in merged(get("zhang2019").jobs("smoke", 1))[-3:]]


def reduced(patch):
    """A campaign of three runs that checks nothing."""
    for module in (campaign, durations):
        patch.setattr(module, "campaign", lambda profile: JOBS)
    patch.setattr(campaign, "checks", lambda *a: {})
    patch.setattr(durations, "PROBE", 0.0)
    patch.setattr(campaign, "_speed", lambda *a: {"layers": {"rows": [{"ratio": 1.0}]}})


@pytest.fixture
def small(monkeypatch, forked):
    reduced(monkeypatch)
    return forked


def command(folder):
    """In a process of its own, whose workers are its forks."""
    with pytest.MonkeyPatch.context() as patch:
        reduced(patch)
        patch.setattr(multiprocessing, "get_context", lambda kind: FORK)
        found = campaign.run("cpu", "smoke", 3000, folder)
    assert found["done"] == found["planned"]


def measured(folder) -> list[tuple[str, str]]:
    """Ids and measurements, also of what is there twice."""
    records = read_lines(folder / "records.jsonl")
    return sorted((record.run.id, json.dumps(record.measurements, sort_keys=True)) for record in records)


def test_killed_at_random_it_continues_and_nothing_is_lost_or_doubled(tmp_path, small):
    assert campaign.run("cpu", "smoke", 3000, tmp_path / "whole")["done"] == len(JOBS)
    drawn, whole, cut = random.Random(0), tmp_path / "whole", tmp_path / "cut"

    def written() -> int:
        return sum(path.stat().st_size for path in cut.glob("runs/*/record.json"))

    for _ in range(2):
        before, process = written(), small.Process(target=command, args=(cut,))
        process.start()
        while process.is_alive() and written() == before:  # a cut that comes earlier could lose nothing
            time.sleep(0.02)
        process.join(drawn.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL and written() > before and not list(cut.rglob("failed.txt"))
    time.sleep(1)  # workers see that their parent is gone
    assert campaign.run("cpu", "smoke", 3000, cut)["done"] == len(JOBS)
    assert measured(cut) == measured(whole)
    assert campaign.run("cpu", "smoke", 3000, cut)["planned"] == len(JOBS)  # and nothing is done again


def test_a_budget_is_positive_and_is_kept(tmp_path, small):
    with pytest.raises(UsageError, match="above 0, got -1"):
        campaign.run("cpu", "smoke", -1, tmp_path)
    started = time.monotonic()
    campaign.run("cpu", "smoke", 2, tmp_path)
    assert time.monotonic() - started < 60
    assert "runs done" in (tmp_path / "log.txt").read_text()


def test_a_campaign_whose_runs_fail_ends_with_1_and_what_a_hurried_one_timed_is_timed_again(
    tmp_path, small, monkeypatch, typed
):
    monkeypatch.setattr("aliasing.clone.published", lambda kind: [tmp_path / "none"])
    monkeypatch.setattr(campaign, "execute", lambda jobs, *a, **k: {jobs[0].run.id: "failed: boom"})
    given = []
    monkeypatch.setattr(campaign, "_speed", lambda device, seconds: given.append(seconds) or {})
    for budget in ("1e-9", "3000", "2"):  # of which the first is over before anything is timed
        command = ["campaign", "--device", "cpu", "--profile", "smoke", "--budget", budget, "--out", str(tmp_path)]
        assert "failed: boom" in typed(*command, status=1).out
    assert given[0] < 0 and given[1:] == [campaign.SPEED]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, small):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*log\.txt \(File exists\); make room or choose"):
        campaign.run("cpu", "smoke", 3000, tmp_path / "file")


def test_a_folder_that_cannot_take_records_ends_the_campaign_before_it_begins(tmp_path, small):
    (tmp_path / "records.jsonl").write_text("{")
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(DataError, match="line 1 is damaged"):
        campaign.run("cpu", "smoke", 3000, tmp_path)
    assert not list((tmp_path / "runs").glob("*/record.json"))


def test_checks_are_kept_at_once_for_this_device_and_code(tmp_path, monkeypatch):
    """A check that was carried out is not repeated; on another device, and if its file is damaged, everything is."""
    carried_out = []
    tasks = {"a": lambda: carried_out.append("a"), "b": lambda: 1 / 0}
    monkeypatch.setattr(device_checks, "_checks", lambda *a: iter(tasks.items()))
    path = tmp_path / "device.json"

    def check(seconds=1000.0, device=device_checks.CPU):
        carried_out.clear()
        return [*device_checks.checks(device, [], seconds, device_checks.Notes(path, device)).values()]

    assert check(0.0) == [device_checks.NO_TIME] * 2
    assert check() == ["passed", "ZeroDivisionError: division by zero"] and carried_out == ["a"]
    assert check(0.0) == ["passed", "ZeroDivisionError: division by zero"] and carried_out == []
    assert check(device=torch.device("meta"))[0] == "passed" and carried_out == ["a"]
    path.write_text(path.read_text()[:40])
    assert check()[0] == "passed" and carried_out == ["a"]


def test_the_number_of_parallel_trainings_is_measured(forked):
    rates, reason = campaign.parallel(JOBS[0].run, device_checks.CPU, 0.1, (1, 2))
    assert set(rates) == {1, 2} and all(rate > 0 for rate in rates.values()) and not reason
    assert campaign.parallel(JOBS[0].run, device_checks.CPU, 0.1, ()) == ({}, "")  # one for each core
    rates, reason = campaign.parallel(replace(JOBS[0].run, seed=2**70), device_checks.CPU, 0.1, (1, 2))
    assert not rates and reason.startswith("ValueError: Overflow")


def test_seconds_are_estimated_where_nothing_is_on_record(where):
    twice = replace(JOBS[0], run=replace(JOBS[0].run, recipe=replace(JOBS[0].run.recipe, epochs=4)))
    elsewhere = replace(JOBS[0], run=replace(JOBS[0].run, dataset={"name": "folder"}))
    found = durations.durations([JOBS[0], twice, elsewhere], where)
    (once, estimated), (more, _), nothing = (found[job.run.id] for job in (JOBS[0], twice, elsewhere))
    assert estimated and once > 0 and more == pytest.approx(2 * once) and nothing == (None, True)
    execute([replace(JOBS[0], measurements=())], where, "cpu", 1, progress=False)
    training = where.load(JOBS[0].run).provenance["training"]["seconds"]
    assert durations.durations(JOBS[:1], where)[JOBS[0].run.id] == (pytest.approx(training, rel=0.01), True)
    execute(JOBS[:1], where, "cpu", 1, progress=False)
    assert not durations.durations(JOBS[:1], where)[JOBS[0].run.id][1]


def test_a_finished_run_took_what_it_took_and_others_what_those_like_it_do(where):
    """Networks that others have trained differ in what is measured, and in whether they are fine-tuned."""

    def planned(seed, name, tuned):
        network = {"name": "tf_efficientnet_lite0", "pretrained": True, "layer": "none", "tuned": tuned}
        run = replace(JOBS[0].run, network=network, recipe=Recipe(epochs=0), seed=seed)
        return Job(run, (Measurement(name, {"count": 8}),))

    kinds = [("accuracy", False), ("accuracy", False), ("accuracy", True), ("sampling_bias", False)]
    took = [50, 70, 900, 8]
    jobs = [planned(seed, *kind) for seed, kind in enumerate([*kinds, kinds[0]])]
    for job, seconds in zip(jobs, took, strict=False):
        keys = ("training", job.measurements[0].key)
        where.save(Record(job.run, {key: {} for key in keys}, {key: {"seconds": seconds / 2} for key in keys}))
    found = durations.durations(jobs, where)
    assert [found[job.run.id] for job in jobs] == [(seconds, False) for seconds in (*took, 60)]


def test_every_network_of_a_campaign_can_be_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(durations, "PROBE", 0.0)
    jobs = [job for job in studies.campaign("smoke") if job.run.seed == 0]
    found = durations.durations(jobs, Store(tmp_path, tmp_path))
    assert len(found) == len(jobs) and all(seconds > 0 for seconds, _ in found.values())


def test_a_failed_check_takes_out_what_depends_on_it(monkeypatch, tmp_path):
    """Training, layers and measurements are compared with the CPU."""
    check = device_checks._check_layer

    def broken(name, device):
        check(name, device)
        if name == "tri-3":
            raise ArithmeticError("off by one")

    monkeypatch.setattr(device_checks, "_check_layer", broken)
    rows = device_checks.checks(
        device_checks.CPU, JOBS, 1000, device_checks.Notes(tmp_path / "device.json", device_checks.CPU)
    )
    assert {"training", *(f"measurement {m.name}" for job in JOBS for m in job.measurements)} <= set(rows)
    failed = {what: outcome for what, outcome in rows.items() if outcome != "passed"}
    assert failed == {"layer tri-3": "ArithmeticError: off by one"}
    for job in get("zhang2019").jobs("smoke", 1):
        usable = campaign._without(job, failed)
        assert (usable is None) == (job.run.network["downsample"]["name"] == "tri-3")
    assert campaign._without(JOBS[0], {f"measurement {m.name}" for m in JOBS[0].measurements}).measurements == ()


def test_the_order_of_value_says_what_is_done_and_what_is_open(where, small, monkeypatch, capsys):
    execute(JOBS[:1], where, "cpu", 1, progress=False)
    monkeypatch.setattr(durations, "worth", lambda *a: Counter({job.run.id: 2 for job in JOBS}))
    every = durations.order("smoke", where)
    given = {row["studies"]: row["seconds"] for row in every[len(JOBS) :]}
    assert given["realnetworks"] is given["finetuned"] is None  # which no campaign carries out
    rows = every[: len(JOBS)]
    assert [row["state"] for row in rows] == ["done", "to do", "to do"]
    assert rows[0]["seconds"] is not None and rows[1]["seconds"] == rows[0]["seconds"]  # of the same kind
    assert all(row["verdicts"] == 2 and "zhang2019" in row["studies"] for row in rows)
    assert main(["status", "comparison", "--runs", "--profile", "smoke", "--json"]) == 0
    shared = [row["run"] for row in every if "comparison" in row["studies"]]
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == shared != [row["run"] for row in every]
    more = replace(JOBS[0], measurements=(*JOBS[0].measurements, Measurement("macs")))  # which another study wants
    monkeypatch.setattr(durations, "campaign", lambda profile: [more])
    monkeypatch.setitem(studies.STUDIES, "mine", studies.Study("mine", "", "", lambda profile: JOBS[:1], ()))
    assert durations.order("smoke", where)[0]["state"] == "to do"
    assert [row["state"] for row in durations.order("smoke", where, "mine")] == ["done"]
