"""Carrying out runs: equal records whatever the way, shared stores, failures."""

import importlib
import multiprocessing
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import wait
from types import ModuleType

import pytest
import torch

from aliasing import torchrun
from aliasing.datasets import CATALOGUE, Entry, shapes
from aliasing.distributed import World
from aliasing.errors import DataError, UsageError
from aliasing.jobs import Job, carry_out, complete, is_leased
from aliasing.measurements import MEASUREMENTS, Measurement, Subject
from aliasing.records import Store, publish, read_lines
from aliasing.runner import _serve, execute
from aliasing.training import Recipe, keep_weights
from tests.runs import CPU, JOB, JOBS, RUN, numbers, published, store
from tests.toys import Answer, write

FORK = multiprocessing.get_context("fork")


def test_a_run_is_trained_and_measured_once(where, monkeypatch):
    """Another measurement, asked for later, finds the trained network."""
    assert carry_out(JOB, where, CPU) == "done"
    record = where.load(RUN)
    assert complete(JOB, record) and len(record.measurements["training"]["loss"]) == 3
    assert set(record.measurements) == {"training", "circular_rolls(count=2)"} == set(record.provenance)
    assert {path.name for path in where.folder(RUN).iterdir()} == {"lock", "record.json", "checkpoint.safetensors"}
    monkeypatch.setitem(MEASUREMENTS, "circular_rolls", lambda *a, **k: pytest.fail("measured twice"))
    monkeypatch.setattr("aliasing.jobs.train", lambda *a, **k: pytest.fail("trained twice"))
    assert carry_out(JOB, where, CPU) == "done"
    assert carry_out(replace(JOB, measurements=(Measurement("shift_curves", {"count": 2}),)), where, CPU) == "done"
    after = where.load(RUN).measurements
    assert len(after) == 3 and after["training"] == record.measurements["training"]


def test_a_new_measurement_uses_the_published_weights(tmp_path, monkeypatch):
    where = published(tmp_path / "here")
    for place in ("jobs", "torchrun"):  # by several processes as by one
        monkeypatch.setattr(f"aliasing.{place}.train", lambda *a, **k: pytest.fail("trained twice"))
    assert torchrun._train(JOB, Store(tmp_path / "others", where.published), CPU, World(), print) == "trained"
    elsewhere = Store(tmp_path / "there", where.published)
    job = replace(JOB, measurements=(*JOB.measurements, Measurement("accuracy", {"count": 16})))
    assert carry_out(job, elsewhere, CPU) == "done"
    assert carry_out(job, where, CPU) == "done"
    (key,) = set(elsewhere.load(RUN).measurements) - {"training", "circular_rolls(count=2)"}
    assert elsewhere.load(RUN).measurements[key] == where.load(RUN).measurements[key]
    assert elsewhere.load(RUN).provenance[key]["weights"] == "published, in half precision"
    assert "weights" not in where.load(RUN).provenance[key]


def raising(error):
    def function(subject, count):
        raise error

    return function


def test_a_record_is_of_one_network(tmp_path, monkeypatch):
    """Another processor adds up otherwise: what it trains is not measured beside another network on record."""
    where = store(tmp_path / "here")
    assert carry_out(JOB, where, CPU) == "done"
    made = where.load(RUN)
    losses = [2 * loss for loss in made.measurements["training"]["loss"]]
    made.measurements["training"] |= {"loss": losses}
    made.measurements |= {"old()": {"x": 1}, "circular_rolls(count=2)": {"x": 2}}
    made.provenance |= {"old()": made.provenance["training"]}
    made.provenance["training"] |= {"processor": "an abacus", "date": "2026-01-01"}
    publish([made], tmp_path / "published/x.laptop.jsonl")
    keep_weights(where.folder(RUN) / "checkpoint.safetensors", tmp_path / "weights" / f"{RUN.id}.safetensors")
    elsewhere = Store(tmp_path / "elsewhere", tmp_path / "published")
    assert carry_out(JOB, elsewhere, CPU) == "done" and "old()" in elsewhere.load(RUN).measurements
    job = replace(JOB, measurements=(*JOB.measurements, Measurement("accuracy", {"count": 16})))
    with monkeypatch.context() as patch:
        patch.setitem(MEASUREMENTS, "accuracy", raising(DataError("no archive")))
        with pytest.warns(UserWarning, match="as trained on an abacus"):
            assert carry_out(job, elsewhere, CPU) == "failed: no archive"
    assert elsewhere.load(RUN).measurements == made.measurements  # in sight until all is measured
    with pytest.warns(UserWarning, match="its training comes out otherwise here"):
        assert carry_out(job, elsewhere, CPU) == "done"
    found = elsewhere.load(RUN)
    assert complete(job, found) and "old()" not in found.measurements
    assert found.measurements["training"] == where.load(RUN).measurements["training"]
    assert found.measurements["circular_rolls(count=2)"] != {"x": 2}
    assert "weights" not in found.provenance["circular_rolls(count=2)"]
    publish([found], tmp_path / "published/x.laptop.jsonl")
    assert read_lines(tmp_path / "published/x.laptop.jsonl")[0].measurements == found.measurements


def test_neither_workers_nor_random_numbers_drawn_before_change_a_number(where, undisturbed, forked):
    execute(JOBS, where, "cpu", workers=2, progress=False)
    assert numbers(where) == numbers(undisturbed)


def test_workers_train_on_images_that_processes_of_their_own_decode(where, tmp_path, forked, monkeypatch):
    """And import the module of a measurement that is not the package's."""
    code = "from aliasing.measurements import measurement\n@measurement\ndef imported(subject): return {'m': 1}\n"
    (tmp_path / "own_measurements.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_measurements")
    for label, name in enumerate("ab"):
        images = torch.full((8, 3, 16, 16), 100 * label, dtype=torch.uint8)
        write(tmp_path / "pictures/train" / name, images), write(tmp_path / "pictures/test" / name, images)
    folder = {"name": "folder", "root": str(tmp_path / "pictures"), "size": 16, "crop": "random-resized"}
    run = replace(RUN, dataset=folder, recipe=Recipe(epochs=1))
    jobs = [Job(replace(run, seed=seed), (Measurement("imported"),), {}) for seed in range(2)]
    assert set(execute(jobs, where, "cpu", workers=2, progress=False).values()) == {"done"}
    del MEASUREMENTS["imported"]


def test_a_module_that_a_worker_cannot_import_is_named_and_keeps_no_job_from_its_turn(monkeypatch):
    monkeypatch.setattr("aliasing.runner.keep_freed", lambda: None)
    served = []
    with pytest.warns(UserWarning, match="a worker cannot import nowhere: ModuleNotFoundError"):
        _serve(lambda where, notify: served.append(where), {"nowhere"}, "store", FORK.Value("i", 0), None)
    assert served == ["store"]


@pytest.mark.parametrize("drawn", [False, True])
def test_what_a_cell_defines_is_used_in_its_process(where, monkeypatch, drawn):
    """Whether it measures or draws pictures."""

    def mine(subject):
        return {"m": 1}

    def draw(split, count):
        return shapes.load(split, count)

    (draw if drawn else mine).__module__ = "__main__"
    monkeypatch.setitem(MEASUREMENTS, "mine", mine)
    monkeypatch.setitem(CATALOGUE, "drawn", Entry(draw, "this test"))
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # a notebook's, which is no file
    run = replace(RUN, recipe=Recipe(epochs=1), dataset={"name": "drawn", "count": 32})
    jobs = [Job(replace(run, seed=seed), (Measurement("mine"),)) for seed in range(2)]
    with pytest.raises(UsageError, match="define it in a module"):
        execute(jobs, where, "cpu", progress=False, cut=True)
    assert set(execute(jobs, where, "cpu", workers=2, progress=False).values()) == {"done"}


def test_no_record_and_no_picture_of_another_folder_is_served(where, tmp_path, monkeypatch):
    """A run on ``folder`` has the same id wherever ``ALIASING_DATA`` is. The network calls dark pictures wrong."""
    run = replace(RUN, dataset={"name": "folder", "size": 16}, recipe=Recipe(epochs=0))
    bright = Answer(lambda x: torch.stack([x.mean((1, 2, 3)), 0.5 - x.mean((1, 2, 3))], 1))

    def stop(epochs):
        if epochs:
            raise KeyboardInterrupt

    job, errors = Job(run, (Measurement("accuracy", {"count": 2}),)), []
    half, folders = replace(job, run=replace(RUN, dataset=run.dataset)), {"dark": 0, "bright": 255}
    for name, grey in folders.items():
        for part in ("train", "test"):
            images = torch.full((4, 3, 16, 16), grey, dtype=torch.uint8)
            write(tmp_path / name / "photos" / part / "right", images)
        folders[name] = str(tmp_path / name / "photos")
        monkeypatch.setenv("ALIASING_DATA", folders[name])
        found = Measurement("corruptions", {"count": 2, "severities": [1]}).measure(Subject(run, bright, CPU))
        errors.append(found["corruption_error"].value)
        if name == "dark":
            assert execute([job], where, "cpu", 1, progress=False) == {run.id: "done"}
            with pytest.raises(KeyboardInterrupt):
                carry_out(half, where, CPU, stop)
    assert errors[0] > 0.5 > errors[1]
    for way in (execute, torchrun.execute):
        with pytest.raises(DataError, match="on record with other pictures than"):
            way([job], where, "cpu", None, progress=False)
    assert "other pictures" in carry_out(job, where, CPU)
    assert "is of a run with {'pictures': " in carry_out(half, where, CPU)
    monkeypatch.setenv("ALIASING_DATA", folders["dark"])
    assert set(execute([job, half], where, "cpu", 1, progress=False).values()) == {"done"}


def test_a_network_that_nobody_trained_is_not_said_to_be_by_its_makers(where):
    job = replace(JOB, run=replace(RUN, recipe=Recipe(epochs=0)))
    assert carry_out(job, where, CPU) == "done"
    assert where.load(job.run).measurements["training"]["data"] == "nothing: weights as they were drawn"


def test_workers_see_the_records_that_an_installed_package_brings(tmp_path, undisturbed, monkeypatch):
    publish([undisturbed.load(RUN)], tmp_path / "brought" / "x.laptop.jsonl")
    monkeypatch.setattr("aliasing.clone.published", lambda kind: [tmp_path / "own", tmp_path / "brought"])
    sent = pickle.loads(pickle.dumps(Store(tmp_path / "runs")))
    assert complete(JOB, sent.load(RUN)) and (sent.working, sent.published) == (tmp_path / "runs", tmp_path / "own")


def test_a_leased_run_is_left_to_its_owner(where):
    where.folder(RUN).mkdir(parents=True)
    assert not is_leased(where, RUN)
    # Another process's lock: within one process the operating system would hand it out twice.
    lock = str(where.folder(RUN) / "lock")
    code = f"from filelock import FileLock; lock = FileLock({lock!r}); lock.acquire(); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "1\n"
        assert is_leased(where, RUN)
        assert carry_out(JOB, where, CPU) == "busy"
        other.kill()
    assert carry_out(JOB, where, CPU) == "done"


def test_what_needs_no_absent_data_is_measured_all_the_same(tmp_path, monkeypatch):
    def absent(subject):
        raise DataError("no archive")

    monkeypatch.setitem(MEASUREMENTS, "absent", absent)
    job, where = replace(JOB, measurements=(Measurement("absent"), *JOB.measurements)), store(tmp_path)
    assert carry_out(job, where, CPU) == "failed: no archive"
    assert JOB.measurements[0].key in where.load(RUN).measurements and not complete(job, where.load(RUN))


def test_no_run_is_started_after_the_limit(tmp_path):
    outcomes = execute(JOBS, store(tmp_path), "cpu", workers=1, progress=False, limit_minutes=0)
    assert set(outcomes.values()) == {"stopped"}


def longer(epochs: int) -> list[Job]:
    return [replace(job, run=replace(job.run, recipe=replace(job.run.recipe, epochs=epochs))) for job in JOBS]


ENDLESS = longer(100_000)


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_killed_worker_leaves_is_taken_over_or_named(where, count, forked):
    jobs = longer(60)

    def kill_workers():
        while sum(is_leased(where, job.run) for job in jobs) < 2:
            time.sleep(0.02)
        for worker in multiprocessing.active_children()[:count]:
            worker.kill()

    killer = threading.Thread(target=kill_workers)
    killer.start()
    outcomes = execute(jobs, where, "cpu", workers=2, progress=False)
    killer.join()
    named = [outcome for outcome in outcomes.values() if "worker process was killed" in outcome]
    assert len(named) == (0 if count == 1 else 2)  # those that were begun


def command(folder, life: float) -> None:
    """Carries out all runs, or dies, as by ``kill -9``, after some seconds of computing."""
    signal.setitimer(signal.ITIMER_PROF, life)  # whose signal nobody handles
    outcomes = execute(JOBS, store(folder), "cpu", workers=1, progress=False)
    assert not [outcome for outcome in outcomes.values() if outcome.startswith("failed")], outcomes


@pytest.mark.slow
def test_commands_that_are_killed_at_random_share_a_store_and_lose_nothing(tmp_path, undisturbed, forked):
    """Each of four dies at a random moment; one that ends makes new work."""
    where, draw, commands, killed = store(tmp_path), random.Random(4), [], 0
    while killed < 10:
        while len(commands) < 4:
            commands.append(forked.Process(target=command, args=(tmp_path, draw.uniform(0.01, 0.5))))
            commands[-1].start()
        wait([process.sentinel for process in commands])
        for process in [process for process in commands if not process.is_alive()]:
            commands.remove(process)
            killed += process.exitcode == -signal.SIGPROF
            assert process.exitcode in (0, -signal.SIGPROF)
            if process.exitcode == 0:
                for name in ("record.json", "checkpoint.safetensors"):
                    (where.folder(draw.choice(JOBS).run) / name).unlink(missing_ok=True)
    for process in commands:
        process.join()
    execute(JOBS, where, "cpu", workers=1, progress=False)
    assert numbers(where) == numbers(undisturbed) and not list(tmp_path.rglob("*.damaged*"))


def wait_for(where: Store, count: int) -> None:
    """Until so many runs are leased."""
    deadline = time.monotonic() + 130
    while sum(is_leased(where, job.run) for job in ENDLESS) != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def unending(folder) -> None:
    multiprocessing.get_context = lambda kind: FORK  # not a new interpreter, which takes seconds
    execute(ENDLESS, store(folder), "cpu", 2, progress=False)


def test_a_stopped_command_leaves_no_process_behind(tmp_path, forked):
    """Workers end when their parent is killed: otherwise every interrupted campaign would leak processes."""
    process = forked.Process(target=unending, args=(tmp_path,))
    process.start()
    try:
        wait_for(store(tmp_path), 2)
    finally:
        process.kill()
    wait_for(store(tmp_path), 0)
