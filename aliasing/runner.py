"""Carries out runs: trains what is not trained, measures what is not measured, loses nothing when stopped.

A run is leased by a lock on its folder for as long as a process works on it, so that two processes started on
one store share the work. The operating system drops the lock of a killed process.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn
from tqdm import tqdm

from . import layers, models
from .datasets import data_folder, pictures
from .distributed import cores
from .errors import DamagedError, DataError, StorageError, UsageError, at_least, reason
from .files import leased, set_aside, write_atomically
from .inference import placed
from .measurements import MEASUREMENTS, Measurement, Subject, loaded
from .memory import keep_freed
from .metrics import count_parameters
from .records import Record, Run, Store, encode, provenance, same_training
from .training import load_weights, pick_device, train

Notify = Callable[[int], None]
KILLED = "failed: its worker process was killed, perhaps for memory; run the command again to continue"


@dataclass(frozen=True)
class Job:
    """A run and what a study wants measured on its network."""

    run: Run
    measurements: tuple[Measurement, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)  # the run's place in the study: columns of the results table


def missing(job: Job, record: Record) -> list[Measurement]:
    """The measurements that the record still lacks; see ``complete`` for the training."""
    return [m for m in job.measurements if m.key not in record.measurements]


def complete(job: Job, record: Record) -> bool:
    """Whether nothing is left to do: the network is trained, and everything is measured."""
    return "training" in record.measurements and not missing(job, record)


def merged(jobs: Iterable[Job]) -> list[Job]:
    """One job per run, in the order of first appearance: what several studies ask of a run is measured together."""
    merged: dict[str, Job] = {}
    for job in jobs:
        first = merged.setdefault(job.run.id, job)
        wanted = {m.key: m for m in first.measurements + job.measurements}
        merged[job.run.id] = replace(first, measurements=tuple(wanted.values()))
    return list(merged.values())


def check_pictures(run: Run, record: Record) -> None:
    """Refuse a record of other pictures than those that are there: a run on ``folder`` has its id from none.

    Raises:
        DataError: says how to go on.
    """
    known = record.measurements.get("training", {}).get("pictures")
    if known is not None and known != pictures(run.dataset).get("pictures", known):
        raise DataError(
            f"run {run.id} is on record with other pictures than those in {data_folder(run.dataset.get('root'))}; let "
            "ALIASING_DATA name those again, or ALIASING_RUNS another store"
        )


def unfinished(jobs: list[Job], store: Store) -> list[Job]:
    """Those of ``jobs`` of which something is left to do; raises ``DataError`` as ``check_pictures`` does."""
    found = [(job, store.load(job.run)) for job in jobs]
    for job, record in found:
        check_pictures(job.run, record)
    return [job for job, record in found if not complete(job, record)]


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
    except OSError:  # no process works in a store that cannot be written
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


def resumed(store: Store, run: Run) -> tuple[nn.Module, list[dict], bool]:
    """The run's network as far as it was trained, its history, and whether they are those that were published.

    A damaged file is put aside.

    Raises:
        DataError: the checkpoint is of another network, or of other pictures than those that are there.
    """
    network, path = build(run), store.folder(run) / "checkpoint.safetensors"
    known = store.load(run).measurements.get("training", {})
    published = bool(known) and not path.exists() and store.weights(run).exists()
    path = store.weights(run) if published else path
    try:
        history = load_weights(path, network, run=pictures(run.dataset)) if path.exists() else []
        if published and not same_training(known, curves_of(history)):  # one's own record is of another network
            return build(run), [], False
        return network, history, published
    except DamagedError as error:
        warnings.warn(f"{error}; kept as {set_aside(path)}, and trained again", stacklevel=2)
        return build(run), [], False


def curves_of(history: list[dict]) -> dict[str, list]:
    """What a training reports of each epoch, as a record keeps it."""
    left_out = ("epoch", "seconds", "processes")
    names = [name for name in (history or [{}])[-1] if name not in left_out]
    return {name: encode([entry[name] for entry in history]) for name in names}


def carry_out(job: Job, store: Store, device: torch.device, notify: Notify = lambda steps: None) -> str:
    """Train and measure what ``job`` lacks; returns "done", "busy" (another process has it) or "failed: reason".

    Raises:
        StorageError: the store cannot be written, which no other run would survive either.
    """
    folder = store.folder(job.run)
    failed = folder / "failed.txt"
    try:
        with leased(folder) as mine:
            if not mine:
                return "busy"
            for leftover in folder.glob("*.tmp"):  # of a killed process: the holder of the lease is the only writer
                leftover.unlink(missing_ok=True)
            try:
                _train_and_measure(job, store, device, notify)
            except StorageError:
                raise
            except Exception as error:  # one bad run must not end a campaign of hundreds; its traceback is kept
                why = reason(error)
                if isinstance(error, torch.OutOfMemoryError):
                    # Smaller batches would change batch normalisation: another run under the same name.
                    why = (
                        f"{device} has too little memory for it (batches of {job.run.recipe.batch_size} images in "
                        "training); use fewer --workers, end what else runs there, or take another --device: the "
                        "batch size belongs to the run"
                    )
                write_atomically(failed, f"{traceback.format_exc()}\n{why}\n")
                return f"failed: {why}"
            failed.unlink(missing_ok=True)
            return "done"
    except OSError as error:
        raise StorageError.of(folder, error) from error


def _train_and_measure(job: Job, store: Store, device: torch.device, notify: Notify) -> None:
    run, record = job.run, store.load(job.run)
    check_pictures(run, record)
    if complete(job, record):
        return
    network, history, published = resumed(store, run)
    notify(len(history))
    if len(history) < run.recipe.epochs:
        data, checkpoint = loaded(run.dataset, "train"), store.folder(run) / "checkpoint.safetensors"
        own = pictures(run.dataset)
        history = train(network, data, run.recipe, run.seed, device, checkpoint, lambda entry: notify(1), own)
    curves, known = curves_of(history), record.measurements.get("training")
    anew = known is not None and not same_training(known, curves)
    if anew:
        made = record.provenance["training"].get("processor", "another processor")
        warnings.warn(
            f"run {run.id} is on record as trained on {made}, and its training comes out otherwise here: all that is "
            "asked of it is measured on the network of here, whose record then stands in place of that one",
            stacklevel=2,
        )
        record, known = Record(run), None

    def save() -> None:
        if not anew or complete(job, record):  # else what is on record stays in sight until all is measured
            store.save(record)

    if known is None:
        values: dict[str, Any] = {"data": "nothing: weights as they were drawn", "images": 0}
        if run.network.get("pretrained"):
            values["data"] = "ImageNet, by its makers"
        if history:
            data = loaded(run.dataset, "train")
            values = {"data": data.name, "images": len(data)}
        values |= pictures(run.dataset)
        origin = provenance(device, sum(entry["seconds"] for entry in history))
        if (processes := max((entry.get("processes", 1) for entry in history), default=1)) > 1:
            origin["processes"] = processes
        record.add("training", curves | values | {"parameters": count_parameters(network)}, origin)
        save()
    placed(network, device).eval()
    subject, absent = Subject(run, network, device), None
    for wanted in missing(job, record):
        started = time.perf_counter()
        try:
            measured = wanted.measure(subject)
        except DataError as error:  # an archive is not there, say; what does without it is measured all the same
            absent = error
            continue
        origin = provenance(device, time.perf_counter() - started)
        record.add(wanted.key, measured, origin | ({"weights": "published, in half precision"} if published else {}))
        save()
        notify(1)
    if absent:
        raise absent


def execute(
    jobs: list[Job],
    store: Store,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    limit_minutes: float | None = None,
    cut: bool = False,
) -> dict[str, str]:
    """Carry out ``jobs`` in their order and return what became of each, by run id.

    That is "done", "busy" (another command has it), "stopped" or "failed: reason".

    Args:
        jobs: most informative first.
        store: where records and checkpoints go.
        device: as for ``pick_device``.
        workers: processes; by default one per core on a CPU, one on a GPU. What a run computes on a CPU it computes in
            one thread, because sums depend on their number: records are equal whatever the number of workers. It is
            this process alone where the jobs need what a notebook's cell defines, which no other knows.
        progress: draw a progress bar on standard error.
        limit_minutes: start no further run after this time.
        cut: end those that run then, too; they lose what no checkpoint has yet and are continued by the next call.

    Raises:
        StorageError: the store cannot be written.
        DataError: a record is of other pictures than those in the folder of a run on ``folder``.
        UsageError: ``cut``, which takes another process, for jobs that only this process knows.
    """
    chosen = pick_device(device)
    at_least("workers", workers, 1)
    end = deadline(limit_minutes)
    todo = unfinished(jobs, store)
    if workers is None:
        workers = cores() if chosen.type == "cpu" else 1
    workers, modules = min(workers, len(todo)), _modules(todo)
    if "__main__" in modules and getattr(sys.modules["__main__"], "__file__", None) is None:
        workers = min(workers, 1)
        if cut:
            raise UsageError("runs that need what a cell defines cannot be cut; define it in a module")
    failures, dead = {job.run.id: _last_failure(store, job.run) for job in jobs}, 0
    work = partial(_work, todo, failures, chosen, end)
    with progress_bar(jobs, todo, progress) as bar:
        if workers > 1 or (cut and todo):
            dead = _in_processes(work, modules, store, workers, end if cut else math.inf, bar)
        else:
            work(store, bar.update)
    return {job.run.id: _outcome(job, store, failures, dead) for job in jobs}


def _modules(jobs: list[Job]) -> set[str]:
    """Names of the modules that define the measurements, layers and networks of ``jobs``; readers add their own."""
    made: list[Any] = [MEASUREMENTS[wanted.name] for job in jobs for wanted in job.measurements]
    for network in (job.run.network for job in jobs):
        if network["name"] in models.CATALOGUE:
            made.append(models.CATALOGUE[network["name"]].build)
        if layer := network.get("downsample"):
            made.append(layers.CATALOGUE[layer["name"]].layer)
    return {one.__module__ for one in made}


def deadline(limit_minutes: float | None) -> float:
    """When so many minutes are over, by a clock that nobody sets."""
    if limit_minutes is None:
        return math.inf
    if not limit_minutes >= 0:  # also true of NaN
        raise UsageError(f"limit_minutes must be 0 or more, got {limit_minutes}")
    return time.monotonic() + 60 * limit_minutes


def progress_bar(jobs: list[Job], todo: list[Job], shown: bool) -> tqdm:
    """Counts epochs and measurements on standard error; in a file or a pipe with a line every half minute."""
    pause = 0.1 if sys.stderr.isatty() else 30
    total = sum(job.run.recipe.epochs + len(job.measurements) for job in todo)
    about = f"{len(todo)} of {len(jobs)} runs to do"
    hidden = not (shown and todo)
    return tqdm(
        desc=about, total=total, unit="step", disable=hidden, file=sys.stderr, dynamic_ncols=True, mininterval=pause
    )


def _outcome(job: Job, store: Store, failures: dict[str, int], dead: int) -> str:
    """What became of ``job``, from what the store holds after the processes, ``dead`` of which were killed."""
    if complete(job, store.load(job.run)):
        return "done"
    if _has_failed(store, job.run, failures):
        return f"failed: {(store.folder(job.run) / 'failed.txt').read_text().strip().splitlines()[-1]}"
    if is_leased(store, job.run):
        return "busy"
    if dead:
        return KILLED
    return "stopped"


def _last_failure(store: Store, run: Run) -> int:
    """When ``run`` failed last, in the clock of the store; 0 if it has not."""
    try:
        return (store.folder(run) / "failed.txt").stat().st_mtime_ns
    except OSError:
        return 0


def _has_failed(store: Store, run: Run, failures: dict[str, int]) -> bool:
    """Whether ``run`` failed since its last one of ``failures``. Clocks may have been set: any new time counts."""
    return _last_failure(store, run) not in (0, failures[run.id])


def _work(
    jobs: list[Job], failures: dict[str, int], device: torch.device, end: float, store: Store, notify: Notify
) -> None:
    """What every worker does: go through the jobs, carry out what no other has; leases keep workers apart."""

    def is_busy(job: Job) -> bool:
        if time.monotonic() >= end or _has_failed(store, job.run, failures):
            return False
        return carry_out(job, store, device, notify) == "busy"

    waiting, before = jobs, None
    with threads(1):
        while waiting and waiting != before:  # what was busy is looked at again, until that changes nothing
            before, waiting = waiting, [job for job in waiting if is_busy(job)]


def _in_processes(
    work: Callable[[Store, Notify], None], modules: set[str], store: Store, workers: int, end: float, bar: tqdm
) -> int:
    """Start ``workers`` processes, end them at the time ``end``, and return how many were killed by others."""
    context = multiprocessing.get_context("spawn")
    steps, refused = context.Value("i", 0), context.SimpleQueue()
    share = (work, modules, store, steps, refused)
    processes = [context.Process(target=_serve, args=share) for _ in range(workers)]  # which may start some that decode
    try:
        with _uninterruptible():
            for process in processes:
                process.start()
        while any(process.is_alive() for process in processes) and time.monotonic() < end:
            time.sleep(0.2)
            bar.update(steps.value - bar.n)
    finally:  # also for KeyboardInterrupt: a checkpoint is at most one epoch old
        ended = [process.exitcode for process in processes]
        begun = [process for process in processes if process.pid is not None]
        for process in begun:
            process.terminate()
        for process in begun:
            process.join()
        bar.update(steps.value - bar.n)
    if not refused.empty():
        raise StorageError(refused.get())
    return sum(code not in (0, None) for code in ended)


@contextmanager
def _uninterruptible() -> Iterator[None]:
    """Processes started meanwhile do not hear the keyboard's interrupt: their parent does, and ends them."""
    main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """Let this process end with its parent, so that a killed command leaves none behind."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _serve(work: Callable[[Store, Notify], None], modules: set[str], store: Store, steps: Any, refused: Any) -> None:
    """The life of a worker."""

    def notify(count: int) -> None:
        with steps.get_lock():
            steps.value += count

    end_with_parent()
    keep_freed()
    for name in modules - {"__main__"}:  # a reader's own, which add what they define; the main one is here by now
        try:
            import_module(name)
        except Exception as error:  # of anybody's module; jobs that need it fail, and the others do not
            warnings.warn(f"a worker cannot import {name}: {reason(error)}", stacklevel=1)
    try:
        work(store, notify)
    except StorageError as error:  # the parent says it, once
        refused.put(str(error))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute in ``count`` threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
