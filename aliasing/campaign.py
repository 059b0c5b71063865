"""One command for a machine that is there for minutes: check it, time it, then run what is worth most.

Everything it finds lies in one folder: ``device.json`` with the checks, the benchmarks each as ``aliasing bench --out``
writes it, ``log.txt``, and ``records.jsonl``, which ``aliasing publish`` merges. Called again with the same folder it
continues.
"""

import json
import math
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from .clone import benchmarks
from .device_checks import NO_TIME, Notes, checks
from .durations import steps_per_second
from .errors import DataError, StorageError, UsageError
from .files import write_atomically
from .jobs import Job, complete
from .measurements import loaded
from .records import Run, Store, provenance, publish
from .runner import end_with_parent, execute
from .studies import campaign
from .training import pick_device

CHECKS, SPEED, RESERVE = 75.0, 60.0, 15.0  # seconds at most, and those kept for writing


def run(device: str, profile: str, budget: float, out: Path) -> dict[str, Any]:
    """Spend ``budget`` seconds on ``device``; returns how many checks passed and what became of the runs.

    Raises:
        UsageError: an unknown profile or device, or a budget that is not positive.
        DataError: ``out`` cannot be written, or holds damaged records.
    """
    if not budget > 0:
        raise UsageError(f"a budget is a number of seconds above 0, got {budget}")
    started, chosen, jobs = time.monotonic(), pick_device(device), campaign(profile)

    def log(text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {time.monotonic() - started:6.1f} s  {text}"
        print(line, flush=True)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with (out / "log.txt").open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise StorageError.of(out / "log.txt", error) from error

    def left() -> float:
        return budget - (time.monotonic() - started)

    log(f"{profile} on {provenance(chosen, 0)['device']}: {len(jobs)} runs planned, {budget:g} s")
    sets = {repr(job.run.dataset): job.run.dataset for job in jobs if "archives" in job.run.dataset}
    if sets:  # decoded before all workers at once would do it
        multiprocessing.get_context("spawn").Process(target=_decode, args=([*sets.values()],), daemon=True).start()
    notes = Notes(out / "device.json", chosen)
    found = checks(chosen, jobs, min(CHECKS, left() / 4), notes)
    failed = {what for what, outcome in found.items() if outcome not in ("passed", NO_TIME)}
    passed = sum(outcome == "passed" for outcome in found.values())
    log(f"{passed} of {len(found)} checks passed; failed: {', '.join(sorted(failed)) or 'none'}")
    lasting = min(SPEED, left() / 4)
    if lasting > 2 * notes.found.get("speed", {}).get("seconds", math.inf):  # an earlier call was in a hurry
        del notes.found["speed"]
    timed = notes.once("speed", lambda: {"seconds": lasting, "reports": _speed(chosen, lasting)})
    for name, report in timed["reports"].items():
        write_atomically(out / f"{name}.json", json.dumps({name: report}, indent=1) + "\n")
        ratios = [row["ratio"] for row in report.get("rows", [])]
        told = f"{len(ratios)} cases, peers take {median(ratios):.2f} times as long (median)" if ratios else ""
        log(f"speed of {name}: {told or report['failed']}; left out: {report.get('skipped') or 'nothing'}")
    usable = [job for job in (_without(job, failed) for job in jobs) if job is not None]
    store = Store(out / "runs", out)
    known = Store()  # what is published already need not be done again
    todo = [job for job in usable if not complete(job, known.load(job.run))]
    log(f"{len(usable)} runs need nothing that failed, {len(todo)} of them are not published yet")
    outcomes: dict[str, str] = {}
    if todo and "training" not in failed:
        counts = () if chosen.type == "cpu" else (1, 2, 4)  # on a CPU every core has its own training
        rates, reason = notes.once("steps per second", lambda: parallel(todo[0].run, chosen, 2.0, counts))
        # The most of those that are nearly as fast as any: half of a run is measuring, part of that on a CPU core,
        # and meanwhile the device should have the training of another.
        workers = max((int(count) for count, rate in rates.items() if rate > 0.9 * max(rates.values())), default=None)
        together = str(workers or ("as many trainings as cores" if chosen.type == "cpu" else "one training"))
        log(f"{together} at once; measured steps per second: {rates or 'none'}{reason and f'; then {reason}'}")
        limit = max(0.0, left() - RESERVE * min(1.0, budget / 120)) / 60
        with _published_meanwhile(todo, store, out / "records.jsonl"):
            outcomes = execute(todo, store, str(chosen), workers, False, limit, cut=True)
    done = sum(outcome == "done" for outcome in outcomes.values())
    log(f"{done} of {len(todo)} runs done")
    broken = {name: outcome for name, outcome in outcomes.items() if outcome.startswith("failed")}
    for name, outcome in broken.items():
        log(f"{name} {outcome}")
    became = {"planned": len(todo), "done": done, "broken": len(broken)}
    return {"checks": len(found), "failed": sorted(failed)} | became


def parallel(run: Run, device: torch.device, seconds: float, counts: Sequence[int]) -> tuple[dict[int, float], str]:
    """Steps per second of so many processes together that train ``run``: small maps do not fill a large GPU.

    The first count that fails, such as one that does not fit into the memory, and those behind it are absent; why, is
    the second value.
    """
    context, rates = multiprocessing.get_context("spawn"), dict[int, float]()
    pool = ProcessPoolExecutor(max(counts, default=1), context, end_with_parent)

    def together(count: int, lasting: float) -> float:
        return sum(pool.map(steps_per_second, [run] * count, [device] * count, [lasting] * count))

    try:
        with pool:
            with suppress(torch.OutOfMemoryError):
                together(max(counts, default=0), 0.0)  # all have started and are warm before any is timed
            for count in counts:
                rates[count] = together(count, seconds)
    except Exception as error:  # whatever it is, it must not end the campaign
        return rates, f"{type(error).__name__}: {error}"
    return rates, ""


@contextmanager
def _published_meanwhile(jobs: list[Job], store: Store, path: Path) -> Iterator[None]:
    """Keep in ``path`` what the store has of ``jobs``, so that a command that is killed leaves its records there."""
    over = threading.Event()

    def keep() -> None:
        publish([record for record in (store.load(job.run) for job in jobs) if record.measurements], path)

    def meanwhile() -> None:
        with suppress(DataError):  # which is said at the end, when it is tried again
            while not over.wait(10):
                keep()

    keep()  # also to see that it can be done
    thread = threading.Thread(target=meanwhile)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        keep()


def _speed(device: torch.device, seconds: float) -> dict[str, dict[str, Any]]:
    try:
        return benchmarks().speed(str(device), seconds)
    except Exception as error:  # there are none, or a package is missing that they need
        return {"benchmarks": {"failed": str(error)}}


def _decode(sets: list[dict[str, Any]]) -> None:
    """Have the decoded copies of data sets on the disk; one that is not there fails where it is needed."""
    end_with_parent()
    for dataset, split in product(sets, ("train", "test")):
        with suppress(Exception):
            loaded(dataset, split)


def _without(job: Job, failed: set[str]) -> Job | None:
    """``job`` without the measurements that failed their check, ``None`` if its layer failed."""
    if f"layer {job.run.network['downsample']['name']}" in failed:
        return None
    return replace(job, measurements=tuple(m for m in job.measurements if f"measurement {m.name}" not in failed))
