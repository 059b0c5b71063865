"""Every layer beside its published formulation, and beside the packages that offer the same layer.

The published formulations are the definitions of ``aliasing.layers``. Ours and theirs take turns on the same
input, so that a busy machine slows both; ratios are above 1 where ours is faster.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from aliasing import layers
from aliasing.layers import create
from aliasing.layers.blur import binomial, filter_depthwise

from . import reporting

__all__ = ["FORMATS", "LEAST", "SIZES", "TARGETS", "bench", "report", "run", "table", "verdicts"]

SIZES = ((128, 64, 32, 32), (128, 128, 16, 16), (32, 64, 56, 56), (16, 256, 56, 56))
QUICK = ((4, 8, 16, 16), (2, 8, 28, 28))
#: The median ratio to the published formulation over the sizes, forward and backward on a CPU, that we aim at.
TARGETS = {"tri-3": 2.5, "bin-5": 2.5, "bin-7": 2.5, "flc": 10, "asap": 10, "aps": 5, "tips": 2, "lps": 1.8}
#: The ratio to any peer at any size that we do not want to fall below.
LEAST = 0.95
ZEROS = {"padding_mode": "zeros"}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Peer:
    """Somebody's formulation of one of our layers: ``make(channels, ours)`` builds it beside the layer ``ours``.

    ``options`` make ours the same function, so that outputs can be compared.
    """

    layer: str
    name: str
    make: Callable[[int, Any], Callable[[Tensor], Tensor]]
    options: Mapping[str, object]


class PublishedBlur(nn.Module):
    """Zhang 2019: reflect, then a strided depthwise convolution with kernels that are there already."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        line = torch.tensor(binomial(taps))
        self.weight = nn.Buffer((line[:, None] * line).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        return filter_depthwise(x, self.weight, 2, "reflect")


def _blur(taps: int) -> Callable[[int, Any], nn.Module]:
    return lambda channels, ours: PublishedBlur(channels, taps)


def _lps(ours: layers.LPS) -> Callable[[Tensor], Tensor]:
    return lambda x: layers.lps_definition(x, ours.first, ours.second, 2, 1.0 if ours.training else None)


def _tips(ours: layers.TIPS) -> Callable[[Tensor], Tensor]:
    filters, scale = ours.parameters()
    return lambda x: layers.tips_definition(x, filters, scale.flatten(), 2, faithful=True)


def _ddac(ours: layers.DDAC) -> Callable[[Tensor], Tensor]:
    return lambda x: layers.ddac_definition(x, ours.predict.weight, ours.norm, groups=ours.groups, faithful=True)


def _package_blur(build: Callable[[int, int, int], nn.Module], taps: int, channels: int, ours: Any) -> nn.Module:
    return build(channels, taps, 2)


def peers() -> tuple[list[Peer], dict[str, str]]:
    """The peers that can run here, and for the others the reason why not."""
    found = [
        Peer("flc", "published", lambda c, ours: layers.flc_definition, {}),
        Peer("asap", "published", lambda c, ours: partial(layers.asap_definition, faithful=True), ZEROS),
        Peer("aps", "published", lambda c, ours: lambda x: layers.aps_definition(x)[0], {}),
        Peer("tips", "published", lambda c, ours: _tips(ours), {"faithful": True}),
        Peer("lps", "published", lambda c, ours: _lps(ours), {}),
        Peer("rect-2", "torch", lambda c, ours: nn.AvgPool2d(2), {}),
        Peer("ddac", "published", lambda c, ours: _ddac(ours), {"faithful": True}),
    ]
    skipped = {}
    taps = {"tri-3": 3, "bin-5": 5, "bin-7": 7}
    found += [Peer(name, "published", _blur(count), {}) for name, count in taps.items()]
    for package, *place in reporting.BLURS:
        build = reporting.blur_of(*place)
        if build is None:
            skipped[package] = "not installed"
            continue
        for name, count in taps.items():
            make = partial(_package_blur, build, count)
            found.append(Peer(name, package, make, ZEROS if package == "kornia" else {}))
    return found, skipped


def bench(
    functions: dict[str, Callable[[Tensor], Tensor]], x: Tensor, repeats: int = 5
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each function on ``x``, forward (recording gradients) and forward with backward, in turns."""
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "forward+backward": []} for name in functions}
    gradient = torch.randn_like(next(iter(functions.values()))(x).detach())
    wait = partial(reporting.wait, x.device.type)
    for turn in range(repeats + 1):
        for name, function in functions.items():
            wait()
            start = time.perf_counter()
            y = function(x)
            wait()
            middle = time.perf_counter()
            y.backward(gradient)
            wait()
            end = time.perf_counter()
            x.grad = None
            del y
            if turn > 0:  # the first one warms up
                times[name]["forward"].append(1e3 * (middle - start))
                times[name]["forward+backward"].append(1e3 * (end - start))
    return times


def run(device: str = "cpu", repeats: int = 5, quick: bool = False, seconds: float = math.inf) -> pd.DataFrame:
    """Time every layer beside its peers.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        repeats: timed turns per case.
        quick: two small sizes, to see that it works; its ratios mean nothing.
        seconds: no case is begun after them.

    Returns:
        One row per layer, peer, size, memory format and pass: median milliseconds of both and their spread (largest
        minus smallest), the median, smallest and largest ratio of a turn, and the largest difference of the outputs.
        ``attrs`` holds device, threads, versions, and which peers were skipped and why.
    """
    rows: list[dict[str, object]] = []
    end, (found, skipped) = time.monotonic() + seconds, peers()
    for size, form, peer in product(QUICK if quick else SIZES, FORMATS, found):
        if not rows or time.monotonic() < end:
            rows += _rows(peer, size, form, device, repeats)
    frame = pd.DataFrame(rows)
    frame.attrs = reporting.surroundings(device, repeats) | {"skipped": skipped}
    return frame


def _rows(peer: Peer, size: tuple[int, int, int, int], form: str, device: str, repeats: int) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator).to(device).contiguous(memory_format=FORMATS[form]).requires_grad_()
    ours = create(peer.layer, size[1], **peer.options).to(device)  # type: ignore[arg-type]
    theirs = peer.make(size[1], ours)
    if isinstance(theirs, nn.Module):
        theirs.to(device)
    with torch.no_grad():
        ours.eval()
        difference = (ours(x) - theirs(x)).abs().max().item()
    ours.train()
    times = bench({"ours": ours, "peer": theirs}, x, repeats)
    return [
        {
            "layer": peer.layer,
            "peer": peer.name,
            "size": "x".join(map(str, size)),
            "format": form,
            "pass": step,
            "ours_ms": statistics.median(mine),
            "peer_ms": statistics.median(other),
            "ours_spread_ms": max(mine) - min(mine),
            "peer_spread_ms": max(other) - min(other),
            **reporting.ratios(mine, other),
            "difference": difference,
        }
        for step, mine, other in ((step, mine, times["peer"][step]) for step, mine in times["ours"].items())
    ]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Per layer and peer, the median ratio over the sizes and, in brackets, the smallest and largest."""
    groups = frame.groupby(["layer", "peer", "format", "pass"], sort=False)["ratio"]
    text = groups.agg(lambda r: f"{r.median():.2f} ({r.min():.2f} to {r.max():.2f})")
    return text.unstack(["format", "pass"])


def verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Per layer and memory format, what forward and backward together reached of ``TARGETS`` and ``LEAST``.

    One row each: the median ratio to the published formulation over the sizes, the target (NaN where none was set) and
    whether it is reached; the smallest ratio to any peer, where that was, and whether it is at least ``LEAST``.
    """
    rows = []
    both = frame[frame["pass"] == "forward+backward"]
    for (layer, memory_format), cases in both.groupby(["layer", "format"], sort=False):
        median = cases.loc[cases["peer"] == "published", "ratio"].median()
        worst = cases.loc[cases["ratio"].idxmin()]
        target = float(TARGETS.get(str(layer), "nan"))
        rows.append(
            {
                "layer": layer,
                "format": memory_format,
                "median": median,
                "target": target,
                "reached": "" if target != target else "yes" if median >= target else "no",
                "worst": worst["ratio"],
                "where": f"{worst['peer']}, {worst['size']}",
                "never slower": "yes" if worst["ratio"] >= LEAST else "no",
            }
        )
    return pd.DataFrame(rows)


def report(frame: pd.DataFrame) -> dict[str, object]:
    """The whole measurement as plain values for JSON, with the verdicts."""
    judged = verdicts(frame).astype(object)
    judged = judged.where(judged.notna(), None)  # JSON has no NaN
    return reporting.report(frame) | {"verdicts": judged.to_dict("records")}
