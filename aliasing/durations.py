"""The runs of a profile in order of value, and how long each takes: on record, or by an estimate for this machine."""

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch

from .datasets import ImageSet
from .errors import DataError
from .jobs import Job, build, complete, is_leased, merged
from .measurements import loaded
from .records import Run, Store
from .runner import threads
from .studies import STUDIES, asked, campaign, worth
from .training import train

PROBE = 1.0  # seconds of training for an estimate
CPU = torch.device("cpu")


def order(profile: str, store: Store, only: str | None = None) -> list[dict[str, Any]]:
    """The runs of ``profile`` in order of value: their state, the seconds each takes, the open verdicts they share.

    Those that no campaign carries out, of networks that others have trained, come last; ``only`` keeps one study's,
    which are done if they have what that one asks for. ``verdicts`` counts the claims that are not decided yet and need
    the run. Seconds are what it took, the median of recorded runs of such a network, or an ``estimate`` for a core of
    this machine: see ``durations``.
    """
    needed, planned, every = worth(profile, store), campaign(profile), list[Job]()
    owners: dict[str, list[str]] = {}
    for name, study in STUDIES.items():
        for job in study.jobs(profile):
            owners.setdefault(job.run.id, []).append(name)
            every.append(job)
    known = {job.run.id for job in planned}
    planned = [*planned, *(job for job in merged(every) if job.run.id not in known)]
    own = {job.run.id: job for job in (planned if only is None else merged(STUDIES[only].jobs(profile)))}
    jobs = [own[job.run.id] for job in planned if job.run.id in own]
    seconds, rows = durations(jobs, store), []
    for job in jobs:
        done, (taken, estimated) = complete(job, store.load(job.run)), seconds[job.run.id]
        rows.append(
            {
                "run": job.run.id,
                "seed": job.run.seed,
                "network": _kind(job),
                "layer": job.run.network.get("downsample", {"name": "its own"})["name"],
                "studies": ", ".join(owners[job.run.id]),
                "state": "done" if done else "running" if is_leased(store, job.run) else "to do",
                "verdicts": needed[job.run.id],
                "seconds": None if taken is None else round(taken),
                "estimate": "estimate" if estimated and taken is not None else "",
            }
        )
    return rows


def _kind(job: Job) -> str:
    run = job.run
    words = [run.network["name"], run.network.get("width"), "attacked" if run.recipe.adversary else ""]
    words += ["fine-tuned"] if run.network.get("tuned") else []
    return " ".join(str(word) for word in words if word)


def _alike(job: Job) -> tuple[str, ...]:
    """The same for runs that take about as long; where nothing is trained, measuring is what takes the time."""
    run = job.run
    trained = str(run.dataset), str(run.recipe.epochs)
    return _kind(job), *(trained if run.recipe.epochs else sorted(wanted.name for wanted in job.measurements))


def durations(jobs: list[Job], store: Store) -> dict[str, tuple[float | None, bool]]:
    """Seconds that each of ``jobs`` takes one after the other, by id, and whether that is only an estimate.

    Of a finished run they are its own, else the median of those that are alike. It is an estimate for networks of which
    ``store`` has no finished run: from the training of one that is not finished, else from a second of training on the
    CPU; and from the share of measuring in the small runs. Nothing is said where the training images are not there.
    """
    found: dict[str, tuple[float | None, bool]] = {}
    recorded: dict[tuple[str, ...], list[float]] = {}
    rates: dict[str, float] = {}  # images per second, by the kind of network
    for job in jobs:
        record, kind = asked(job, store), _alike(job)
        seconds = {key: origin["seconds"] for key, origin in record.provenance.items()}
        if complete(job, record):
            found[job.run.id] = (sum(seconds.values()), False)
            recorded.setdefault(kind, []).append(sum(seconds.values()))
        elif seconds.get("training"):
            images = job.run.recipe.epochs * record.measurements["training"]["images"]
            rates.setdefault(kind[0], images / seconds["training"])
    for job in jobs:
        kind, recipe = _alike(job), job.run.recipe
        if job.run.id in found:
            continue
        if kind in recorded:
            found[job.run.id] = (median(recorded[kind]), False)
            continue
        found[job.run.id] = (None, True)
        if not recipe.epochs:  # nothing is trained, and only a record tells
            continue
        with suppress(DataError):
            images = recipe.epochs * len(loaded(job.run.dataset, "train"))
            if kind[0] not in rates:
                rates[kind[0]] = recipe.batch_size * steps_per_second(job.run, CPU, PROBE)
            found[job.run.id] = (images / rates[kind[0]], True)
    if rates:
        small = [store.load(job.run).provenance for job in campaign("laptop")]
        shares = [sum(o["seconds"] for o in each.values()) / each["training"]["seconds"] for each in small if each]
        share = median(shares or [1.0])
        found = {run: (share * taken if guess and taken else taken, guess) for run, (taken, guess) in found.items()}
    return found


def steps_per_second(run: Run, device: torch.device, seconds: float) -> float:
    """Steps per second of the training of ``run`` on noise, the first one not counted."""
    steps = 1 if device.type == "cpu" else 10  # an epoch, after which a GPU is waited for
    count, classes = steps * run.recipe.batch_size, run.network["num_classes"]
    height, width = loaded(run.dataset, "train")[:1].images.shape[2:]
    draw = partial(torch.randint, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels, masks = torch.arange(count) % classes, draw(classes, (count, height, width))
    data, began = ImageSet(draw(256, (count, 3, height, width)), labels, (), "noise", masks), []

    def on_epoch(entry: dict) -> None:
        began.append(time.perf_counter())
        if began[-1] - began[0] >= seconds and len(began) > 1:
            raise InterruptedError

    # Attacked from the first step: none of so many epochs would otherwise ever wake the adversary.
    recipe = replace(run.recipe, epochs=10**9, probe=0, adversary_wake=0.0)
    with threads(1), suppress(InterruptedError):
        train(build(run), data, recipe, run.seed, device, on_epoch=on_epoch)
    return steps * (len(began) - 1) / (began[-1] - began[0])
