"""Our speed beside that of others, measured in one run: ``aliasing bench``, in a clone of the repository.

A benchmark is a module with ``cases(device, quick)``, each of which is ours and somebody else's way to the same result;
``measure(case, device, repeats)``, the rows of one; ``table(frame)`` of all rows, for reading; and ``PEERS``, the
packages it wants. These are the extra ``peers``; one that is not installed is left out, and the report says so.
"""

import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import nn

from aliasing.errors import UsageError
from aliasing.files import write_atomically
from aliasing.records import code_version, processor
from aliasing.training import pick_device

__all__ = ["BLURS", "NAMES", "about", "blur_of", "compare", "peer", "ratios", "report", "run", "speed", "turns", "wait"]

NAMES = ("layers", "training", "evaluation", "robustness")
# Packages that offer the blur, with module and class.
BLURS = {
    "timm": ("timm.layers", "BlurPool2d"),
    "antialiased-cnns": ("antialiased_cnns", "BlurPool"),
    "kornia": ("kornia.filters", "BlurPool2D"),
}
T = TypeVar("T")


def compare(
    names: Sequence[str], device: str, repeats: int, quick: bool, as_json: bool = False, out: Path | None = None
) -> None:
    """Run the benchmarks ``names`` one after the other and print them; ``out`` gets everything as JSON."""
    if repeats < 1:
        raise UsageError(f"repeats must be 1 or more, got {repeats}")
    reports = {}
    for name in names:
        bench, frame = import_module(f"{__name__}.{name}"), run(name, str(pick_device(device)), repeats, quick)
        reports[name] = report(name, frame)
        if not as_json:
            print(f"\n{name}: times of the peer over ours, above 1 where ours is faster")
            print(bench.table(frame).to_string() if len(frame) else "nothing to compare with")
            print("not installed:", ", ".join(frame.attrs["skipped"]) or "nothing")
            if hasattr(bench, "verdicts"):
                print("\nforward+backward against the targets")
                print(bench.verdicts(frame).to_string(index=False, float_format="{:.2f}".format, na_rep=""))
    text = json.dumps(reports, indent=1)
    if as_json:
        print(text)
    if out:
        write_atomically(out, text + "\n")


def speed(device: str, seconds: float) -> dict[str, dict[str, Any]]:
    """Layers, training and exact rolls as ``compare`` writes them, in ``seconds``; what fails has its reason there.

    On a CPU sizes are small, and mean nothing.
    """
    reports = {}
    for name, share in {"layers": 0.6, "training": 0.2, "evaluation": 0.2}.items():
        try:
            reports[name] = report(name, run(name, device, 3, device == "cpu", share * seconds))
        except Exception as error:  # whatever it is, it must not end what else is done on the device
            reports[name] = {"failed": f"{type(error).__name__}: {str(error).strip()[:500]}"}
    return reports


def run(
    name: str, device: str = "cpu", repeats: int = 5, quick: bool = False, seconds: float = math.inf
) -> pd.DataFrame:
    """Time the cases of one benchmark.

    Args:
        name: one of ``NAMES``.
        device: ``"cpu"`` or ``"cuda"``.
        repeats: timed turns per case, after one that warms up.
        quick: few small cases, to see that it works; their ratios mean nothing.
        seconds: no case but the first is begun after them.

    Returns:
        The rows that ``measure`` of the benchmark documents. ``attrs`` has what a time depends on besides the code.
    """
    bench, end = import_module(f"{__name__}.{name}"), time.monotonic() + seconds
    rows: list[dict[str, object]] = []
    for case in bench.cases(device, quick):
        if not rows or time.monotonic() < end:
            rows += bench.measure(case, device, repeats)
    frame = pd.DataFrame(rows)
    skipped = {name: "not installed" for name in bench.PEERS if peer(BLURS.get(name, [name])[0]) is None}
    frame.attrs = about(device) | {"repeats": repeats, "skipped": skipped}
    return frame


def about(device: str) -> dict[str, Any]:
    """What a time depends on besides what is timed."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "code": code_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def report(name: str, frame: pd.DataFrame) -> dict[str, Any]:
    """The whole measurement as plain values for JSON, with the verdicts of the benchmarks that have targets."""
    bench = import_module(f"{__name__}.{name}")
    frames = {"rows": frame} | ({"verdicts": bench.verdicts(frame)} if hasattr(bench, "verdicts") else {})
    plain = {key: one.astype(object).where(one.notna(), None) for key, one in frames.items()}  # JSON has no NaN
    return frame.attrs | {key: one.to_dict("records") for key, one in plain.items()}


def peer(module: str) -> Any:
    """A module of another package; ``None`` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other packages about themselves
            return import_module(module)
    except ImportError:
        return None


def blur_of(package: str) -> Callable[[int, int, int], nn.Module] | None:
    """The blur of a package in ``BLURS``, from channels, taps and stride; ``None`` where it is not installed."""
    module, name = BLURS[package]
    build: Any = getattr(peer(module), name, None)
    if package == "kornia" and build:
        return lambda channels, taps, stride: build(taps, stride=stride)
    return build and (lambda channels, taps, stride: build(channels, filt_size=taps, stride=stride))


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device.startswith("mps"):
        torch.mps.synchronize()


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
