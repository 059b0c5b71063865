"""Our training loop beside the plain loop of the field, on the same network, images and schedule.

The plain loop is what tutorials show: a ``DataLoader`` over a data set whose transforms work on one image at a time,
single precision, channels first.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from aliasing import models
from aliasing.datasets import ImageSet
from aliasing.training import Recipe, _learning_rate, train

from . import ratios, turns

__all__ = ["PEERS", "cases", "measure", "plain_loop", "table"]

PEERS = ()


class Case(NamedTuple):
    """What is trained: network, its width, number of images and their side in pixels, batch size."""

    network: str
    width: int
    images: int
    side: int
    batch_size: int


def cases(device: str, quick: bool) -> Iterable[Case]:
    """The small networks, of the width of the profile ``laptop`` and twice that; on CUDA the one of ``gpu``."""
    if quick:
        return [Case("vgg-small", 4, 64, 16, 16)]
    if device.startswith("cuda"):
        return [Case("vgg13-bn", 64, 5000, 32, 500)]
    sizes = {"vgg-small": 4096, "resnet-small": 2048}
    return [Case(name, width, count, 32, 4 * width) for width in (8, 16) for name, count in sizes.items()]


class OneByOne(Dataset):
    """Images transformed one at a time, as they are asked for; ``flip`` and ``shift`` are those of a ``Recipe``."""

    def __init__(self, data: ImageSet, flip: bool, shift: int) -> None:
        self.data = data
        steps = [v2.RandomCrop(data.images.shape[-1], padding=shift)] if shift else []
        steps += [v2.RandomHorizontalFlip()] if flip else []
        self.transform = v2.Compose([v2.ToPILImage(), *steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.data.images[index]), int(self.data.labels[index])


def plain_loop(network: nn.Module, data: ImageSet, recipe: Recipe, order: list[int], device: str) -> None:
    """Train ``network`` in place for one epoch, the images in ``order``."""
    loader = _loader(data, recipe, order)
    network.to(device).train()
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.momentum > 0
    )
    for step, (images, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, (step + 1) / (len(loader) + 1), recipe.lr)
        loss = F.cross_entropy(network(images.to(device)), labels.to(device), label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _loader(data: ImageSet, recipe: Recipe, order: list[int]) -> DataLoader:
    return DataLoader(OneByOne(data, recipe.flip, recipe.shift), recipe.batch_size, sampler=order)


def measure(case: Case, device: str, repeats: int) -> list[dict[str, object]]:
    """One epoch of both loops; on CUDA ours uses bfloat16 autocast, which is part of the comparison.

    Median images per second of both; ratios; the share of the plain loop's time that a walk through its ``DataLoader``
    takes alone (``loading``: a loop that loads for nothing and computes the same gains 1 / (1 - loading) at most); the
    model FLOPs utilisation of ours (``mfu``: operations that the network needs, over those that a large matrix product
    reaches in the same run); and the largest difference of the weights after an epoch without augmentation and weight
    decay.
    """
    name, width, count, side, batch_size = case
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    data = ImageSet(images, labels, tuple("0123456789"), "noise")
    recipe = Recipe(epochs=1, batch_size=batch_size, lr=0.05, flip=True, shift=side // 8, shift_mode="standard")
    if _halves(device):
        recipe = replace(recipe, precision="bfloat16")
    order = torch.randperm(count, generator=generator).tolist()
    network = models.create(name, 10, width=width)
    work: dict[str, Callable[[], object]] = {
        "ours": lambda: train(deepcopy(network), data, recipe, 0, device),
        "plain": lambda: plain_loop(deepcopy(network), data, recipe, order, device),
        "loading": lambda: [None for _ in _loader(data, recipe, order)],
    }
    times, _ = turns(work, device, repeats)
    ours, theirs, loading = (median(seconds) for seconds in times.values())
    row = {
        "network": name,
        "width": width,
        "images": count,
        "size": side,
        "batch": batch_size,
        "ours_images_per_s": count / ours,
        "plain_images_per_s": count / theirs,
        **ratios(times["ours"], times["plain"]),
        "loading": loading / theirs,
        "mfu": count
        / ours
        * step_flops(network, side, device)
        / peak_flops(device, 256 if count < 1000 else 8192 if device.startswith("cuda") else 2048),
        "difference": difference(network, data[: 3 * batch_size], batch_size, device),
    }
    return [row]


def difference(network: nn.Module, data: ImageSet, batch_size: int, device: str) -> float:
    """Largest difference of the weights that the two loops end with, where they should compute the same."""
    recipe = Recipe(epochs=1, batch_size=batch_size, lr=0.05, weight_decay=0.0)
    # The order of our loop: seed 0, epoch 0.
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    first, second = deepcopy(network), deepcopy(network)
    train(first, data, recipe, 0, device)
    plain_loop(second, data, recipe, order, device)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def step_flops(network: nn.Module, side: int, device: str) -> float:
    """Floating point operations per image of a training step, forward and backward, counted operator by operator."""
    network, counter = deepcopy(network).to(device).train(), FlopCounterMode(display=False)
    with counter:
        network(torch.rand(2, 3, side, side, device=device)).sum().backward()
    return counter.get_total_flops() / 2


def _halves(device: str) -> bool:
    return device.startswith("cuda") and torch.cuda.is_bf16_supported()


def peak_flops(device: str, size: int, repeats: int = 5) -> float:
    """Floating point operations per second of the fastest of a few products of ``size`` x ``size`` matrices.

    In the precision that our loop trains in: bfloat16 on CUDA where it has that, single precision elsewhere.
    """
    matrix = torch.randn(size, size).to(device, torch.bfloat16 if _halves(device) else torch.float32)
    seconds, _ = turns({"product": lambda: matrix @ matrix}, device, repeats)
    return 2 * size**3 / min(seconds["product"])


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows by network, numbers rounded for reading."""
    rounded = [column for column in frame.columns if column.startswith(("ratio", "mfu", "loading"))]
    return frame.set_index("network").round(dict.fromkeys(rounded, 2))
