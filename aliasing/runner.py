"""Carries out many jobs, in processes that share the work by its leases."""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from tqdm import tqdm

from .distributed import cores
from .errors import StorageError, UsageError, at_least, reason
from .jobs import Job, Notify, carry_out, complete, is_leased, makers, unfinished
from .memory import keep_freed
from .records import Run, Store
from .training import pick_device

KILLED = "failed: its worker process was killed, perhaps for memory; run the command again to continue"


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
    """Names of the modules that define what ``jobs`` need, such as a reader's own data set."""
    made = [one for job in jobs for own in makers(job).values() for one in own]
    return {getattr(one, "func", one).__module__ for one in made}  # that of a partial is where it was defined


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
    if dead and store.folder(job.run).exists():  # else none had begun it
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
