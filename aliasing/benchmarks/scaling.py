"""What the plan of the ``cluster`` profile is computed from: one process and two, decoding, operations per image.

The processes are started by ``torchrun``, also the single one, and take turns, so that a busy machine slows both.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image, ImageFilter

from .. import models
from ..datasets import ImageSet
from ..datasets.files import ImageFiles
from ..distributed import device_of_process, joined
from ..metrics import count_flops, count_parameters
from ..records import Run
from ..studies import STUDIES
from ..training import Recipe, train
from .reporting import report, surroundings
from .training import wait

__all__ = ["network_key", "planned", "report", "run", "table"]

# Network, number of images, side in pixels, batch size.
CASES = (("vgg-small", 2048, 32, 128), ("resnet-small", 1024, 32, 128))
QUICK = (("vgg-small", 32, 16, 16),)
PHOTOGRAPH = (500, 375)  # pixels, the commonest size in ImageNet
QUALITY = 95


def planned() -> dict[str, Run]:
    """The trainings of the ``cluster`` profile by id; those that studies share count once."""
    return {job.run.id: job.run for study in STUDIES.values() for job in study.jobs("cluster")}


def network_key(run: Run) -> str:
    """Network and size of input of a run, as text."""
    size = [240, 180] if run.dataset["name"] == "camvid" else [run.dataset["size"]] * 2
    return json.dumps([run.network, size], sort_keys=True)


def run(device: str = "cpu", repeats: int = 5, quick: bool = False) -> pd.DataFrame:
    """Time one epoch of training in one process and in two on this machine, each with one thread or one GPU.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        repeats: turns per network.
        quick: one small case and no operations counted, to see that it works; its numbers mean nothing.

    Returns:
        One row per network: images per second in one and in two processes (medians of the turns), the efficiency (their
        ratio over two; median, smallest and largest of a turn). In ``attrs``: images per second that one core decodes,
        the bytes of those files, the load of the machine, and operations and parameters of every planned network.
    """
    rows = []
    for name, count, side, batch_size in QUICK if quick else CASES:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(repeats):
            for processes, found in rates.items():
                found.append(_rate(processes, [name, count, side, batch_size, device]))
        ratios = [two / (2 * one) for one, two in zip(rates[1], rates[2], strict=True)]
        rows.append(
            {
                "network": name,
                "size": side,
                "batch": batch_size,
                "one_images_per_s": statistics.median(rates[1]),
                "two_images_per_s": statistics.median(rates[2]),
                "efficiency": statistics.median(ratios),
                "efficiency_low": min(ratios),
                "efficiency_high": max(ratios),
            }
        )
    frame = pd.DataFrame(rows)
    frame.attrs = surroundings(device, repeats) | {"load": os.getloadavg()[0], "cores": os.cpu_count()}
    frame.attrs |= decoding(8 if quick else 200) | {"networks": {} if quick else _networks()}
    return frame


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows by network, numbers rounded for reading."""
    return frame.set_index("network").round({column: 2 for column in frame.columns if column.startswith("eff")})


def _rate(processes: int, case: list) -> float:
    """Images per second of an epoch in ``processes`` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", __name__, *map(str, case)], env=surroundings, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def decoding(count: int) -> dict[str, float]:
    """Images per second that one core decodes and resizes to 224 pixels, from smoothed noise in JPEG files."""
    generator = torch.Generator().manual_seed(0)
    width, height = PHOTOGRAPH
    noise = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1)).save(buffer, "jpeg", quality=QUALITY)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "class").mkdir()
        for i in range(count):
            (Path(place) / "class" / f"{i}.jpg").write_bytes(buffer.getvalue())
        files = ImageFiles.under(Path(place), "noise", 224)
        started = time.perf_counter()
        for _ in files.batches(torch.arange(count).split(8), workers=0):
            pass
        seconds = time.perf_counter() - started
    return {"decoded_images_per_s": count / seconds, "file_bytes": len(buffer.getvalue())}


def _networks() -> dict[str, dict[str, int]]:
    """Operations of a forward pass and parameters of every planned network."""
    found = {}
    for planned_run in planned().values():
        key = network_key(planned_run)
        if key not in found:
            options, size = json.loads(key)
            network = models.create(options.pop("name"), **options)
            found[key] = {"flops": count_flops(network, tuple(size)), "parameters": count_parameters(network)}
    return found


def _epoch(name: str, count: int, side: int, batch_size: int, device: str) -> None:
    """Train two epochs in this process and its fellows; the first prints images per second of the second epoch."""
    chosen = device_of_process(torch.device(device))
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    data = ImageSet(images, torch.randint(10, (count,), generator=generator), tuple("0123456789"), "noise")
    recipe = Recipe(epochs=2, batch_size=batch_size, lr=0.05, flip=True)
    ended: list[float] = []

    def on_epoch(entry: dict[str, Any]) -> None:
        wait(str(chosen))
        ended.append(time.perf_counter())

    with joined(chosen) as world:
        train(models.create(name, 10), data, recipe, 0, chosen, on_epoch=on_epoch)
        world.all(None)
    if world.rank == 0:
        print(count / (ended[1] - ended[0]))


if __name__ == "__main__":
    case = sys.argv[1:]
    _epoch(case[0], int(case[1]), int(case[2]), int(case[3]), case[4])
