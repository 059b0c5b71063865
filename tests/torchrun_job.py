"""What several processes train for ``test_torchrun.py``, and the trainings that it compares.

``python tests/torchrun_job.py FOLDER`` trains in three, one and two processes, and leaves what came out in the folder.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from aliasing import layers, models
from aliasing.datasets import ImageSet
from aliasing.distributed import World, joined
from aliasing.training import Recipe, train

CPU = torch.device("cpu")
CHECKPOINT = "checkpoint.safetensors"
BASE = Recipe(epochs=2, batch_size=8, lr=0.05, flip=True, shift=2)
RECIPES = {
    "plain": BASE,
    "clipped": replace(BASE, randaugment=1, clip_norm=0.5, optimizer="adamw", lr=0.01),
    "adversary": replace(BASE, adversary=0.1, probe=6),
    "tips": replace(BASE, tips=0.35, tips_wake=0.0),
    "ddac": BASE,
    "masks": replace(BASE, target="masks", ignore=2),
}


class Stop(Exception):
    """Ends a training early."""


def data() -> ImageSet:
    """34 images: the last batch has two, fewer than three processes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (34, 3, 8, 8), generator=generator, dtype=torch.uint8)
    masks = torch.randint(3, (34, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(34) % 2, ("even", "odd"), "noise", masks)


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "masks":
            return models.create("unet-small", num_classes=3, width=2)
        layer = layers.create(name if name in ("tips", "ddac") else "tri-3", 4)
        body = [nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), layer, nn.BatchNorm2d(4)]
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def trained(name: str, seed: int = 3, **options) -> dict:
    """Weights and curves after training ``name``."""
    net = network(name)
    recipe = replace(RECIPES[name], epochs=options.pop("epochs", 2))
    history = train(net, data(), recipe, seed, **options)
    curves = {key: [entry[key] for entry in history] for key in history[0] if key not in ("seconds", "processes")}
    return {"weights": net.state_dict(), "curves": curves}


def until(epoch: int):
    """A callback that stops training after ``epoch``, when its checkpoint is written."""

    def on_epoch(entry: dict) -> None:
        if entry["epoch"] == epoch:
            raise Stop

    return on_epoch


def dying(rank: int, epoch: int, then) -> None:
    """As ``then``, but the process of ``rank`` is killed after ``epoch``, unless it was started again."""

    def on_epoch(entry: dict) -> None:
        if (rank, epoch, os.environ["TORCHELASTIC_RESTART_COUNT"]) == (int(os.environ["RANK"]), entry["epoch"], "0"):
            os.kill(os.getpid(), signal.SIGKILL)
        then(entry)

    return on_epoch


def begin(place: Path) -> None:
    """Epochs 1 to 3, in the course of which a process is killed and all are started again; then every recipe."""
    with joined(CPU) as world:
        with contextlib.suppress(Stop):
            trained("plain", epochs=5, checkpoint=place / CHECKPOINT, on_epoch=dying(1, 2, until(3)))
        lives = int(os.environ["TORCHELASTIC_RESTART_COUNT"]) + 1
        keep(place / "first.pt", {"lives": lives, "equal": {name: trained(name) for name in RECIPES}}, world)


def go_on(place: Path) -> None:
    """Epoch 4."""
    with contextlib.suppress(Stop):
        trained("plain", epochs=5, checkpoint=place / CHECKPOINT, on_epoch=until(4))


def end(place: Path) -> None:
    """Epoch 5; then every recipe."""
    with joined(CPU) as world:
        resumed = trained("plain", epochs=5, checkpoint=place / CHECKPOINT)
        keep(place / "last.pt", {"resumed": resumed, "equal": {name: trained(name) for name in RECIPES}}, world)


def keep(path: Path, found: dict, world: World) -> None:
    if world.rank == 0:
        torch.save(found, path)
    world.all(None)


def torchrun(processes: int, function, *arguments, restarts: int = 0) -> None:
    """What the command of this name does, but with processes forked from this one, which has imported everything."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{os.getpid()}-{function.__name__}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, function)(*arguments)


if __name__ == "__main__":
    torch.optim.SGD([torch.zeros(1)])  # the first optimiser of a process imports half of PyTorch
    here = Path(sys.argv[1])
    torchrun(3, begin, here, restarts=1)
    alone = multiprocessing.get_context("fork").Process(target=go_on, args=(here,))
    alone.start()
    alone.join()
    torchrun(2, end, here)
