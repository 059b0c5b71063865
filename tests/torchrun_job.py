"""What several processes train for ``test_torchrun.py``, and the trainings that it compares.

``python tests/torchrun_job.py FOLDER`` trains in three, one and two processes, and leaves what came out in the folder.
"""

import contextlib
import multiprocessing
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

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


def begin(place: Path) -> None:
    """Epochs 1 to 3; then every recipe."""
    with joined(CPU) as world:
        with contextlib.suppress(Stop):
            trained("plain", epochs=5, checkpoint=place / CHECKPOINT, on_epoch=until(3))
        keep(place / "first.pt", {"equal": {name: trained(name) for name in RECIPES}}, world)


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


def together(processes: int, function, *arguments) -> None:
    """Carry out ``function`` in processes that find each other as those of ``torchrun`` do.

    They are forked, so that PyTorch is imported once; from here, not from PyTorch's agent, which runs threads.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=_member, args=(i, processes, port, function, arguments)) for i in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * processes


def _member(rank: int, size: int, port: int, function, arguments: tuple) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": "0"}
    function(*arguments)


if __name__ == "__main__":
    torch.optim.SGD([torch.zeros(1)])  # the first optimiser of a process imports half of PyTorch
    here = Path(sys.argv[1])
    together(3, begin, here)
    together(1, go_on, here)
    together(2, end, here)
