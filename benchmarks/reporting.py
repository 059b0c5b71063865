"""What all benchmarks share: timing in turns, the ratio of two times, and the machine that they were measured on."""

import importlib
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import nn

from aliasing.records import code_version, processor

__all__ = ["BLURS", "blur_of", "ratios", "report", "surroundings", "turns", "wait"]

T = TypeVar("T")


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def turns(
    work: Mapping[str, Callable[[], T]], device: str, repeats: int
) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Seconds of everything in ``work``, one after the other in each turn, and what it returned last.

    So a busy machine slows all alike. There is one turn more, which comes first and warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    done = {}
    for turn in range(repeats + 1):
        for name, function in work.items():
            wait(device)
            start = time.perf_counter()
            done[name] = function()
            wait(device)
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds, done


def ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """The ratio of the medians, above 1 where ours is faster; the smallest and the largest of a turn."""
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"ratio": median(theirs) / median(ours), "ratio_low": min(each), "ratio_high": max(each)}


# Packages that offer the blur: name of the package, module, class.
BLURS = (
    ("timm", "timm.layers", "BlurPool2d"),
    ("antialiased-cnns", "antialiased_cnns", "BlurPool"),
    ("kornia", "kornia.filters", "BlurPool2D"),
)


def blur_of(module: str, name: str) -> Callable[[int, int, int], nn.Module] | None:
    """The blur of a package, from channels, taps and stride; ``None`` where it is not installed."""
    try:
        build = getattr(importlib.import_module(module), name)
    except ImportError:
        return None
    if module.startswith("kornia"):
        return lambda channels, taps, stride: build(taps, stride=stride)
    return lambda channels, taps, stride: build(channels, filt_size=taps, stride=stride)


def surroundings(device: str, repeats: int) -> dict[str, Any]:
    """What a measured time depends on besides the code."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "code": code_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "repeats": repeats,
    }


def report(frame: pd.DataFrame) -> dict[str, object]:
    """The whole measurement as plain values for JSON."""
    return {**frame.attrs, "rows": frame.to_dict("records")}
