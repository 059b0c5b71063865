"""Carries out runs: trains what is not trained, measures what is not measured, loses nothing when stopped.

A run is leased by a lock on its folder for as long as a process works on it, so that two processes started on
one store share the work. The operating system drops the lock of a killed process.
"""

import json
import math
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn
from tqdm import tqdm

from . import measurements, models  # noqa: F401 - importing measurements registers them
from .errors import DamagedError, StorageError, UsageError
from .evaluation import Measurement, Subject, loaded
from .files import set_aside, write_atomically
from .records import Record, Run, Store, provenance
from .training import load_weights, pick_device, train

__all__ = ["Job", "complete", "execute", "is_leased", "merged", "missing", "threads"]

Notify = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """A run and what a study wants measured on it.

    Attributes:
        run: the training.
        measurements: what to measure on its network.
        labels: the run's place in the study, such as layer and augmentation; columns of the results table.
    """

    run: Run
    measurements: tuple[Measurement, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Units of progress: one per epoch and measurement."""
        return self.run.recipe.epochs + len(self.measurements)


def missing(job: Job, record: Record) -> list[Measurement]:
    """What the record still lacks; a run without "training" lacks everything."""
    return [m for m in job.measurements if m.key not in record.measurements]


def complete(job: Job, record: Record) -> bool:
    """Whether nothing is left to do."""
    return "training" in record.measurements and not missing(job, record)


def merged(jobs: Iterable[Job]) -> list[Job]:
    """One job per run, in the order of first appearance: what several studies ask of a run is measured together."""
    merged: dict[str, Job] = {}
    for job in jobs:
        first = merged.setdefault(job.run.id, job)
        wanted = {m.key: m for m in first.measurements + job.measurements}
        merged[job.run.id] = replace(first, measurements=tuple(wanted.values()))
    return list(merged.values())


def is_leased(store: Store, run: Run) -> bool:
    """Whether a process is working on ``run`` right now."""
    lock = store.folder(run) / "lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # in a store that cannot be written nobody works
        return False


def build(run: Run) -> nn.Module:
    """The run's untrained network: initial weights depend on the seed alone. Or one that others have trained."""
    options = dict(run.network)
    if options.pop("pretrained", False):
        if run.recipe.epochs:
            raise UsageError(f"{options['name']} is pretrained: its recipe must have epochs=0, got {run.recipe.epochs}")
        return models.pretrained(options["name"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return models.normalized(models.create(options.pop("name"), **options), [0.5] * 3, [0.25] * 3)


def resumed(run: Run, checkpoint: Path) -> tuple[nn.Module, list[dict]]:
    """The run's network as far as it was trained, and its history; a damaged checkpoint is put aside."""
    network = build(run)
    try:
        return network, load_weights(checkpoint, network) if checkpoint.exists() else []
    except DamagedError as error:
        warnings.warn(f"{error}; kept as {set_aside(checkpoint)}, and trained again", stacklevel=2)
        return build(run), []


def carry_out(job: Job, store: Store, device: torch.device, notify: Notify = lambda steps: None) -> str:
    """Train and measure what ``job`` lacks; returns "done", "busy" (another process has it) or "failed: reason".

    Raises:
        StorageError: the store cannot be written, which no other run would survive either.
    """
    folder = store.folder(job.run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not 0: who only looks whether a run is leased holds its lock for an instant.
        with FileLock(folder / "lock", timeout=1):
            return _carry_out_leased(job, store, device, notify)
    except Timeout:
        return "busy"
    except OSError as error:
        raise StorageError.of(folder, error) from error


def _carry_out_leased(job: Job, store: Store, device: torch.device, notify: Notify) -> str:
    folder = store.folder(job.run)
    for leftover in folder.glob("*.tmp"):  # of a killed process: who holds the lease is the only writer
        leftover.unlink(missing_ok=True)
    try:
        record = store.load(job.run)
        if not complete(job, record):
            _train_and_measure(job, record, store, device, notify)
    except StorageError:
        raise
    except Exception as error:  # one bad run must not end a campaign of hundreds; its traceback is kept
        write_atomically(folder / "failed.txt", traceback.format_exc())
        return f"failed: {_remedy(job, device) if isinstance(error, torch.OutOfMemoryError) else error}"
    (folder / "failed.txt").unlink(missing_ok=True)
    return "done"


def _remedy(job: Job, device: torch.device) -> str:
    # Smaller batches would change the statistics of batch normalisation, and so be another run under the same name.
    return (
        f"{device} has too little memory for it (batches of {job.run.recipe.batch_size} images in training); "
        "use fewer --workers, end what else runs there, or take another --device: the batch size belongs to the run"
    )


def _train_and_measure(job: Job, record: Record, store: Store, device: torch.device, notify: Notify) -> None:
    checkpoint = store.folder(job.run) / "checkpoint.safetensors"
    network, history = resumed(job.run, checkpoint)
    notify(len(history))
    trained = len(history) == job.run.recipe.epochs
    if not job.run.recipe.epochs and "training" not in record.measurements:
        about: dict = {"data": "ImageNet, by its makers", "images": 0, "parameters": _parameters(network)}
        record.add("training", about, provenance(device, 0.0))
        store.save(record)
    if not trained or "training" not in record.measurements:  # a run that is only measured needs no training images
        data = loaded(json.dumps(job.run.dataset), "train")
    if not trained:
        history = train(network, data, job.run.recipe, job.run.seed, device, checkpoint, lambda entry: notify(1))
    if "training" not in record.measurements:
        left_out = ("epoch", "seconds", "processes")
        curves = {name: [entry[name] for entry in history] for name in history[-1] if name not in left_out}
        seconds = sum(entry["seconds"] for entry in history)
        origin = provenance(device, seconds)
        if (processes := max(entry.get("processes", 1) for entry in history)) > 1:
            origin["processes"] = processes
        about_data = {"data": data.name, "images": len(data)}
        record.add("training", curves | about_data | {"parameters": _parameters(network)}, origin)
        store.save(record)
    network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    subject = Subject(job.run, network, device)
    for wanted in missing(job, record):
        started = time.perf_counter()
        values = wanted.measure(subject)
        record.add(wanted.key, values, provenance(device, time.perf_counter() - started))
        store.save(record)
        notify(1)


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def execute(
    jobs: list[Job],
    store: Store,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    limit_minutes: float | None = None,
) -> dict[str, str]:
    """Carry out ``jobs`` in their order and return what became of each, by run id.

    Args:
        jobs: most informative first.
        store: where records and checkpoints go.
        device: as for ``pick_device``.
        workers: processes; by default one per core on a CPU, one on a GPU. On a CPU every run computes in one
            thread, because sums depend on the number of threads: records are equal whatever the number of workers.
        progress: draw a progress bar on standard error.
        limit_minutes: start no further run after this time.
    """
    chosen = pick_device(device)
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be 1 or more, got {workers}")
    if limit_minutes is not None and math.isnan(limit_minutes):
        raise UsageError(f"limit_minutes must be a number, got {limit_minutes}")
    todo = [job for job in jobs if not complete(job, store.load(job.run))]
    outcomes = {job.run.id: "done" for job in jobs}
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = workers if chosen.type == "cpu" else 1
    workers = max(1, min(workers, len(todo)))
    deadline = time.monotonic() + 60 * limit_minutes if limit_minutes is not None else float("inf")
    total = sum(job.steps for job in todo)
    with tqdm(total=total, unit="step", disable=not progress or not todo, file=sys.stderr, dynamic_ncols=True) as bar:
        bar.set_description(f"{len(todo)} of {len(jobs)} runs to do")
        if workers == 1:
            for job in todo:
                outcomes[job.run.id] = "stopped" if time.monotonic() > deadline else ""
                if not outcomes[job.run.id]:
                    with threads(1 if chosen.type == "cpu" else None):
                        outcomes[job.run.id] = carry_out(job, store, chosen, bar.update)
        else:
            outcomes |= _in_processes(todo, store, chosen, workers, deadline, bar)
    return outcomes


def _in_processes(
    todo: list[Job], store: Store, device: torch.device, workers: int, deadline: float, bar: tqdm
) -> dict[str, str]:
    context = multiprocessing.get_context("spawn")
    steps = context.Queue()  # first of all, since it starts a process that would undo what _uninterruptible does
    outcomes = {}
    with ProcessPoolExecutor(workers, context, _start_worker, (steps, device.type == "cpu")) as pool:
        waiting, running = list(todo), dict[Future, Job]()
        # Jobs are handed over one by one, so that the limit and the order hold.
        try:
            while waiting or running:
                while waiting and len(running) < workers and time.monotonic() <= deadline:
                    with _uninterruptible():
                        future = pool.submit(_work, waiting[0], store.working, store.published, device)
                    running[future] = waiting.pop(0)
                if not running:
                    break
                finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                _drain(steps, bar)
                for future in finished:
                    outcomes[running[future].run.id] = future.result()
                    del running[future]
        except BrokenProcessPool:
            killed = "failed: its worker process was killed, perhaps for memory; run the command again to continue"
            outcomes |= {job.run.id: killed for job in running.values()}
        except BaseException:  # also KeyboardInterrupt: a checkpoint is at most one epoch old
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        _drain(steps, bar)
    return outcomes | {job.run.id: "stopped" for job in waiting}


@contextmanager
def _uninterruptible() -> Iterator[None]:
    """Processes started meanwhile are never interrupted by the keyboard: their parent is, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _drain(steps: Any, bar: tqdm) -> None:
    while True:
        try:
            bar.update(steps.get_nowait())
        except queue.Empty:
            return


_steps: Any = None
_store = cache(Store)  # reading the published files once per worker, not once per run


def _start_worker(steps: Any, one_thread: bool) -> None:
    """Runs once in each worker: ends it when its parent is gone, so that a killed command leaves no process behind."""
    global _steps
    _steps = steps
    if one_thread:
        torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(job: Job, working: Any, published: Any, device: torch.device) -> str:
    return carry_out(job, _store(working, published), device, _steps.put)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute in ``count`` threads meanwhile; ``None`` leaves their number alone."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
