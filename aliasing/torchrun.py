"""Carries out runs in the processes that ``torchrun`` started: all train one network together, one run after the other,
then each measures its share of the networks.
"""

import time
from contextlib import nullcontext

import torch

from .datasets import pictures
from .distributed import World, device_of_process, joined
from .errors import UsageError
from .files import leased, write_atomically
from .jobs import Job, Notify, build, carry_out, resumed, unfinished
from .measurements import loaded
from .records import Store
from .runner import deadline, progress_bar, threads
from .training import TrainingError, pick_device, train


def execute(
    jobs: list[Job],
    store: Store,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    limit_minutes: float | None = None,
) -> dict[str, str]:
    """As ``runner.execute``, and with its arguments; every process returns the same.

    The working store must be a folder that all processes see.

    Raises:
        DataError: as there.
        UsageError: ``workers``, which is ``torchrun``'s to say, or a device that processes cannot share.
    """
    if workers is not None:
        raise UsageError(f"torchrun has started the processes already: leave --workers {workers} out")
    chosen = device_of_process(pick_device(device))
    outcomes = {job.run.id: "done" for job in jobs}
    end, left = deadline(limit_minutes), [job.run.id for job in unfinished(jobs, store)]
    with joined(chosen) as world, threads(1):
        left = world.first(left)
        todo = [job for job in jobs if job.run.id in left]
        with progress_bar(jobs, todo, progress and world.rank == 0) as bar:
            for job in todo:
                late = world.first(time.monotonic() >= end)
                outcomes[job.run.id] = "stopped" if late else _train(job, store, chosen, world, bar.update)
            trained = [job for job in todo if outcomes[job.run.id] == "trained"]
            share = trained[world.rank :: world.size]
            bar.reset(sum(job.run.recipe.epochs + len(job.measurements) for job in share))
            for job in share:
                outcomes[job.run.id] = carry_out(job, store, chosen, bar.update)
        for rank, theirs in enumerate(world.all(outcomes)):
            outcomes |= {job.run.id: theirs[job.run.id] for job in trained[rank :: world.size]}
    return outcomes


def _train(job: Job, store: Store, device: torch.device, world: World, notify: Notify) -> str:
    """Train with all processes; the first holds the lease. Returns "trained", "busy" or "failed: reason".

    Only what fails in every process alike is answered here. Anything else ends this process, upon which ``torchrun``
    ends the others and, if it was asked to, starts all of them again.
    """
    folder = store.folder(job.run)
    checkpoint = folder / "checkpoint.safetensors"
    with leased(folder) if world.rank == 0 else nullcontext(False) as mine:
        whole = mine and len(resumed(store, job.run)[1]) == job.run.recipe.epochs
        outcome = world.first("trained" if whole else "" if mine else "busy")
        try:
            if not outcome:
                run, step = job.run, lambda entry: notify(1)
                data, own = loaded(run.dataset, "train"), pictures(run.dataset)
                train(build(run), data, run.recipe, run.seed, device, checkpoint, step, own)
                outcome = world.first("trained")  # no process goes on before the last checkpoint is written
        except (TrainingError, UsageError) as error:
            outcome = f"failed: {error}"
            if world.rank == 0:
                write_atomically(folder / "failed.txt", f"{error}\n")
    return outcome
