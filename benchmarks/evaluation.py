"""Logits for every circular shift: stitched in one expanded pass beside one shift at a time.

Both take turns on the same images, so that a busy machine slows both.
"""

import statistics
import time

import pandas as pd
import torch
from torch import Tensor, nn

from aliasing import models
from aliasing.metrics import roll_logits

from .reporting import report, surroundings
from .training import wait

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


def run(device: str = "cpu", repeats: int = 5, quick: bool = False) -> pd.DataFrame:
    """Time both ways on random images and random weights.

    Returns:
        One row per network and layer: median images per second of both, the median, smallest and largest ratio of a
        turn, and the largest difference of the logits.
    """
    rows = []
    for name, layer, count, side in QUICK if quick else CASES:
        torch.manual_seed(0)
        model = models.create(name, 10, downsample=layer, padding_mode="circular").to(device).eval()
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
        ours, theirs = [], []
        for turn in range(repeats + 1):
            start = time.perf_counter()
            parts = list(roll_logits(model, images))
            wait(device)
            middle = time.perf_counter()
            plain = one_at_a_time(model, images)
            wait(device)
            end = time.perf_counter()
            if turn > 0:  # the first one warms up
                ours.append(middle - start)
                theirs.append(end - middle)
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        rows.append(
            {
                "network": name,
                "layer": layer,
                "images": count,
                "size": side,
                "method": parts[0].method,
                "ours_images_per_s": count / statistics.median(ours),
                "plain_images_per_s": count / statistics.median(theirs),
                "ratio": statistics.median(theirs) / statistics.median(ours),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
                "difference": (torch.cat([part.logits for part in parts]) - plain).abs().max().item(),
            }
        )
    frame = pd.DataFrame(rows)
    frame.attrs = surroundings(device, repeats)
    return frame


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows by network and layer, numbers rounded for reading."""
    return frame.set_index(["network", "layer"]).round({"ratio": 1, "ratio_low": 1, "ratio_high": 1})
