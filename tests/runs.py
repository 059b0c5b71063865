"""A run of a second, for the tests of what may happen to runs."""

from dataclasses import replace

import torch

from aliasing.jobs import Job, carry_out
from aliasing.measurements import Measurement
from aliasing.records import Run, Store, publish
from aliasing.training import Recipe, keep_weights

CPU = torch.device("cpu")
NETWORK = {"name": "vgg-small", "num_classes": 10, "width": 2, "padding_mode": "circular", "downsample": "tri-3"}
RUN = Run({"name": "shapes", "count": 32}, NETWORK, Recipe(epochs=3, batch_size=16), 0)
JOB = Job(RUN, (Measurement("circular_rolls", {"count": 2}),), {"layer": "tri-3"})
JOBS = [replace(JOB, run=replace(RUN, seed=seed)) for seed in range(3)]


def store(folder) -> Store:
    return Store(folder, folder / "published")


def numbers(where: Store) -> dict:
    return {job.run.id: where.load(job.run).measurements for job in JOBS}


def published(folder) -> Store:
    """A store in which the network of a run is trained and published."""
    where = store(folder)
    assert carry_out(JOB, where, CPU) == "done"
    publish([where.load(RUN)], where.published / "x.laptop.jsonl")
    keep_weights(where.folder(RUN) / "checkpoint.safetensors", where.weights(RUN))
    return where
