"""A run of a second, for the tests of what may happen to runs."""

from dataclasses import replace

import torch

from aliasing.measurements import Measurement
from aliasing.records import Run, Store
from aliasing.runner import Job
from aliasing.training import Recipe

CPU = torch.device("cpu")
NETWORK = {"name": "vgg-small", "num_classes": 10, "width": 2, "padding_mode": "circular", "downsample": "tri-3"}
RUN = Run({"name": "shapes", "count": 32}, NETWORK, Recipe(epochs=3, batch_size=16), 0)
JOB = Job(RUN, (Measurement("circular_rolls", {"count": 2}),), {"layer": "tri-3"})
JOBS = [replace(JOB, run=replace(RUN, seed=seed)) for seed in range(3)]


def store(folder) -> Store:
    return Store(folder, folder / "published")


def numbers(where: Store) -> dict:
    return {job.run.id: where.load(job.run).measurements for job in JOBS}
