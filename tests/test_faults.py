"""What goes wrong around a run: a full or read-only disk, damaged files, too little memory, the keyboard."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch

from aliasing import files, jobs
from aliasing.cli import main
from aliasing.errors import StorageError
from aliasing.jobs import carry_out
from aliasing.measurements import MEASUREMENTS, Measurement
from aliasing.records import publish
from aliasing.runner import execute
from aliasing.studies import results
from tests.runs import CPU, JOB, RUN, store

SMOKE = ["run", "zhang2019", "--profile", "smoke", "--device", "cpu", "--quiet"]


@contextmanager
def small_disk(folder, options):
    """A real file system of its own on ``folder``."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield lambda more: subprocess.run(["mount", "-o", f"remount,{more}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_command_and_loses_nothing(tmp_path, undisturbed, forked):
    with small_disk(tmp_path / "disk", "size=8k") as remount:
        where = store(tmp_path / "disk")
        with pytest.raises(StorageError, match="No space left on device"):  # which a worker finds
            execute([replace(JOB, run=replace(RUN, seed=seed)) for seed in (1, 2)], where, "cpu", 2, progress=False)
        with pytest.raises(StorageError, match=r"checkpoint\.safetensors \(No space left on device\); make room"):
            execute([JOB], where, "cpu", workers=1, progress=False)
        assert {path.name for path in where.folder(RUN).iterdir()} == {"lock"}  # nothing half-written
        remount("size=2m")
        assert carry_out(JOB, where, CPU) == "done"
        assert where.load(RUN).measurements == undisturbed.load(RUN).measurements


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_wherever_the_disk_fills_up_the_run_continues(limit, tmp_path, where, undisturbed, monkeypatch):
    """Three checkpoints and two records are written; the write number ``limit`` finds no room."""
    left = [limit]
    replaced = os.replace

    def refuse(*paths):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        replaced(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", refuse)
        with pytest.raises(StorageError, match="No space left"):
            carry_out(JOB, where, CPU)
    assert not list(tmp_path.rglob("*.tmp"))
    assert carry_out(JOB, where, CPU) == "done"
    assert where.load(RUN).measurements == undisturbed.load(RUN).measurements


def test_a_store_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "file"))
    assert main([*SMOKE, "--workers", "1"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("aliasing run: cannot write") and "choose a folder that can be written" in line


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "aliasing", "list", "profiles"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "aliasing list: cannot write (No space left on device); make room\n")


def test_a_read_only_store_can_be_read(tmp_path, undisturbed, monkeypatch):
    with small_disk(tmp_path / "disk", "size=2m") as remount:
        where = store(tmp_path / "disk")
        where.folder(RUN).mkdir()
        (where.folder(RUN) / "lock").touch()
        where.save(undisturbed.load(RUN))
        remount("ro")
        assert not jobs.is_leased(where, RUN)
        assert where.load(RUN).measurements == undisturbed.load(RUN).measurements
        for job in (JOB, replace(JOB, run=replace(RUN, seed=1))):
            with pytest.raises(StorageError, match="Read-only file system"):
                carry_out(job, where, CPU)
        monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "disk"))
        assert main(["status", "zhang2019", "--profile", "smoke"]) == 0
        with pytest.raises(StorageError, match="Read-only file system"):
            publish([undisturbed.load(RUN)], tmp_path / "disk/published.jsonl")


def test_a_damaged_checkpoint_is_kept_aside_and_trained_again(where, undisturbed):
    path = where.folder(RUN) / "checkpoint.safetensors"
    for count in (1, 2):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "record.json").unlink(missing_ok=True)
        path.write_bytes(b"not a checkpoint")
        with pytest.warns(UserWarning, match=r"checkpoint.safetensors is damaged .* kept as .*, and trained again"):
            assert carry_out(JOB, where, CPU) == "done"
        assert where.load(RUN).measurements == undisturbed.load(RUN).measurements
        kept = sorted(path.parent.glob("*.damaged*"))
        assert [file.read_bytes() for file in kept] == [b"not a checkpoint"] * count


def test_a_failing_run_says_what_helps_and_the_others_go_on(where, monkeypatch):
    """One learns too fast, another needs too much memory."""
    fast = replace(JOB, run=replace(RUN, recipe=replace(RUN.recipe, lr=1e30, warmup=0.0)))
    other, train = replace(JOB, run=replace(RUN, seed=1)), jobs.train

    def greedy(network, data, recipe, seed, *rest):
        if (recipe, seed) == (RUN.recipe, 0):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return train(network, data, recipe, seed, *rest)

    monkeypatch.setattr(jobs, "train", greedy)
    outcomes = execute([fast, JOB, other], where, "cpu", workers=1, progress=False)
    assert outcomes[other.run.id] == "done"
    for failed, *said in ((fast, "smaller lr", "TrainingError"), (JOB, "fewer --workers", "Tried to allocate")):
        assert outcomes[failed.run.id].startswith("failed: ") and said[0] in outcomes[failed.run.id]
        assert said[1] in (where.folder(failed.run) / "failed.txt").read_text()


@pytest.mark.parametrize(
    ("measured", "said"),
    [(lambda subject: 0.5, "must return values by their names"), (lambda subject: {}["x"], "KeyError: 'x'")],
)
def test_a_measurement_that_cannot_be_kept_fails_with_its_reason_and_leaves_the_record_readable(
    where, monkeypatch, measured, said
):
    monkeypatch.setitem(MEASUREMENTS, "mine", measured)
    job = replace(JOB, measurements=(Measurement("mine"),))
    assert said in execute([job], where, "cpu", 1, progress=False)[RUN.id]
    assert results([job], where)["id"].tolist() == [RUN.id]


def test_what_was_left_behind_keeps_no_run_from_being_tried(where):
    """A failure of another day, by a clock that was set back since, and what a killed process has half written."""
    failed, half = (where.folder(RUN) / name for name in ("failed.txt", "record.json.123.tmp"))
    failed.parent.mkdir()
    failed.write_text("no network\n")
    half.write_text("{")
    os.utime(failed, (4e9, 4e9))
    assert execute([JOB], where, "cpu", 1, progress=False) == {RUN.id: "done"}
    assert not half.exists()


@pytest.mark.slow
def test_the_keyboard_stops_all_processes_with_one_line(tmp_path):
    """As a terminal does it, the signal goes to the command and to its workers."""
    environment = os.environ | {"ALIASING_RUNS": str(tmp_path / "runs")}
    command = [sys.executable, "-m", "aliasing", *SMOKE, "--workers", "2"]
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True, "preexec_fn": heard}
    with subprocess.Popen(command, env=environment, **options) as process:
        deadline = time.monotonic() + 250
        while not list(tmp_path.glob("runs/*/lock")) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        error = process.stderr.read()  # ends when the last worker has ended
    assert process.returncode == 130
    assert error == ("aliasing run: stopped; what is finished is kept; run the same command again to continue\n")
