"""Logits for every circular shift: stitched in one expanded pass beside one shift at a time.

Both take turns on the same images, so that a busy machine slows both.
"""

import math
import time
from functools import partial
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from aliasing import models
from aliasing.metrics import roll_logits

from .reporting import ratios, report, surroundings, turns

__all__ = ["one_at_a_time", "report", "run", "table"]

# Network, downsampling layer, number of images, side in pixels.
CASES = (("vgg-small", "subsample", 16, 32), ("vgg-small", "tri-3", 16, 32), ("vgg-small", "aps", 16, 32))
QUICK = (("vgg-small", "tri-3", 2, 16),)


@torch.no_grad()
def one_at_a_time(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, H, W, classes) under all circular shifts of (N, 3, H, W) images, one shift after the other."""
    height, width = images.shape[-2:]
    rows = [
        torch.stack([model(images.roll((down, right), (2, 3))) for right in range(width)], 1) for down in range(height)
    ]
    return torch.stack(rows, 1)


def _stitched(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([part.logits for part in roll_logits(model, images)])


def run(device: str = "cpu", repeats: int = 5, quick: bool = False, seconds: float = math.inf) -> pd.DataFrame:
    """Time both ways on random images and random weights; no case is begun after ``seconds``.

    Returns:
        One row per network and layer: median images per second of both, the median, smallest and largest ratio of a
        turn, and the largest difference of the logits.
    """
    rows: list[dict[str, object]] = []
    end = time.monotonic() + seconds
    for name, layer, count, side in QUICK if quick else CASES:
        if rows and time.monotonic() > end:
            break
        torch.manual_seed(0)
        model = models.create(name, 10, downsample=layer, padding_mode="circular").to(device).eval()
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
        both: dict[str, Any] = {
            "ours": partial(_stitched, model, images),
            "plain": partial(one_at_a_time, model, images),
        }
        times, logits = turns(both, device, repeats)
        rows.append(
            {
                "network": name,
                "layer": layer,
                "images": count,
                "size": side,
                "method": next(roll_logits(model, images)).method,
                "ours_images_per_s": count / median(times["ours"]),
                "plain_images_per_s": count / median(times["plain"]),
                **ratios(times["ours"], times["plain"]),
                "difference": (logits["ours"] - logits["plain"]).abs().max().item(),
            }
        )
    frame = pd.DataFrame(rows)
    frame.attrs = surroundings(device, repeats)
    return frame


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows by network and layer, numbers rounded for reading."""
    return frame.set_index(["network", "layer"]).round({"ratio": 1, "ratio_low": 1, "ratio_high": 1})
