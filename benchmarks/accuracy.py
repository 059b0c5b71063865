"""How long a network of the photographs takes to its accuracy, by our recipe and by the plain loop of the field.

python -m benchmarks.accuracy data/benchmarks/accuracy.json

The plain loop is that of ``benchmarks.training``: single precision, channels first, SGD with one cycle. All trainings
have the same network, pictures and augmentation, and end. Their speed is that of part of an epoch, in turns and in one
thread each, as our trainings have it.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from aliasing import studies
from aliasing.files import write_atomically
from aliasing.inference import correct
from aliasing.jobs import build
from aliasing.measurements import loaded
from aliasing.records import Run
from aliasing.runner import threads
from aliasing.studies.bases import DECISIVE
from aliasing.training import Recipe, train

from . import about, turns
from .training import plain_loop

# Not tuned; the rate for each picture is that of fast recipes for CIFAR-10 (0.4 for batches of 512).
PLAIN = Recipe(epochs=12, batch_size=256, lr=0.2, flip=True)
RECIPES = {"plain": PLAIN, "ours": DECISIVE, "ours, shorter": replace(DECISIVE, epochs=7)}


def measure(
    run: Run, recipes: Mapping[str, Recipe] = RECIPES, timed: int = 5000, repeats: int = 5
) -> list[dict[str, Any]]:
    """Train the network of ``run`` by each of ``recipes``: pictures per second, seconds in all, accuracy at the end.

    Those of the plain loop have names that begin with "plain". ``timed`` are the pictures of a turn.
    """
    data, test = (loaded(run.dataset, split)[:] for split in ("train", "test"))

    def trained(name: str, recipe: Recipe, pictures: int) -> torch.nn.Module:
        network = build(run)
        if name.startswith("plain"):
            draws = [torch.Generator().manual_seed(epoch) for epoch in range(recipe.epochs)]
            order = torch.cat([torch.randperm(pictures, generator=draw) for draw in draws])
            plain_loop(network, data, recipe, order.tolist(), "cpu")
        else:
            train(network, data[:pictures], recipe, run.seed)
        return network

    with threads(1):
        parts = {name: partial(trained, name, replace(recipe, epochs=1), timed) for name, recipe in recipes.items()}
        seconds, _ = turns(parts, "cpu", repeats)
        rows = []
        for name, recipe in recipes.items():
            network, rate = trained(name, recipe, len(data)), timed / median(seconds[name])
            row = {"loop": name, "precision": recipe.precision, "epochs": recipe.epochs, "images_per_s": rate}
            row |= {"seconds": recipe.epochs * len(data) / rate}
            rows.append(row | {"accuracy": correct(network, test.images, test.labels).double().mean().item()})
        return rows


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    table = parser.parse_args().table  # before the work, which takes an hour
    run = studies.get("zhang2019").jobs("desktop", 1, ["layer=subsample", "augmented=False"])[0].run
    found = about("cpu") | {"network": run.network["name"], "rows": measure(run)}
    write_atomically(table, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
