"""A run and what is wanted of it: what is left to do, and doing it, so that nothing is lost when it is stopped.

A run is leased by a lock on its folder for as long as a process works on it, so that two processes started on
one store share the work. The operating system drops the lock of a killed process.
"""

import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from . import datasets, layers, models
from .datasets import data_folder, pictures
from .errors import DamagedError, DataError, StorageError, UsageError, reason
from .files import leased, set_aside, write_atomically
from .inference import placed
from .measurements import MEASUREMENTS, Measurement, Subject, loaded
from .metrics import count_parameters
from .records import Record, Run, Store, encode, provenance, same_training
from .training import load_weights, train

Notify = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """A run and what a study wants measured on its network."""

    run: Run
    measurements: tuple[Measurement, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)  # the run's place in the study: columns of the results table


def makers(job: Job) -> dict[str, list[Any]]:
    """The functions and classes behind each entry of the job's record, by its key; readers add and replace some."""
    network, sets = job.run.network, datasets.CATALOGUE
    made: dict[str, list[Any]] = {"training": [sets[job.run.dataset["name"]].function]}
    if network["name"] in models.CATALOGUE:
        made["training"].append(models.CATALOGUE[network["name"]].build)
    if layer := network.get("downsample"):
        made["training"].append(layers.CATALOGUE[layer["name"]].layer)
    for wanted in job.measurements:
        names = [one.get("name") for one in wanted.options.values() if isinstance(one, Mapping)]
        made[wanted.key] = [MEASUREMENTS[wanted.name], *(sets[name].function for name in names if name in sets)]
    return made


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
    notify(len(history) + len(job.measurements) - len(missing(job, record)))  # what is there already
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
        notify(len(missing(job, record)) - len(job.measurements))
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
