"""Logits for every circular shift: stitched in one expanded pass beside one shift at a time, on the same images."""

from collections.abc import Iterable
from statistics import median

import pandas as pd
import torch
from torch import Tensor, nn

from aliasing import models
from aliasing.metrics import roll_logits

from . import ratios, turns

__all__ = ["PEERS", "cases", "measure", "one_at_a_time", "table"]

PEERS = ()
Case = tuple[str, str, int, int]  # network, downsampling layer, number of images, side in pixels


def cases(device: str, quick: bool) -> Iterable[Case]:
    """What is compared."""
    return (
        [("vgg-small", "tri-3", 2, 16)] if quick else [("vgg-small", n, 16, 32) for n in ("subsample", "tri-3", "aps")]
    )


@torch.no_grad()
def one_at_a_time(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, H, W, classes) under all circular shifts of (N, 3, H, W) images, one shift after the other."""
    height, width = images.shape[-2:]
    rows = [
        torch.stack([model(images.roll((down, right), (2, 3))) for right in range(width)], 1) for down in range(height)
    ]
    return torch.stack(rows, 1)


def measure(case: Case, device: str, repeats: int) -> list[dict[str, object]]:
    """Median images per second of both, ratios, the largest difference of the logits; weights and images are random."""
    name, layer, count, side = case
    torch.manual_seed(0)
    model = models.create(name, 10, downsample=layer, padding_mode="circular").to(device).eval()
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    both = {
        "ours": lambda: torch.cat([part.logits for part in roll_logits(model, images)]),
        "plain": lambda: one_at_a_time(model, images),
    }
    times, logits = turns(both, device, repeats)
    row: dict[str, object] = {
        "network": name,
        "layer": layer,
        "images": count,
        "size": side,
        "method": next(roll_logits(model, images)).method,
        **{f"{way}_images_per_s": count / median(seconds) for way, seconds in times.items()},
        **ratios(times["ours"], times["plain"]),
        "difference": (logits["ours"] - logits["plain"]).abs().max().item(),
    }
    return [row]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows by network and layer, numbers rounded for reading."""
    return frame.set_index(["network", "layer"]).round({"ratio": 1, "ratio_low": 1, "ratio_high": 1})
