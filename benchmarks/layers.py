"""Every layer beside its published formulation, and beside the packages that offer the same layer.

The published formulations are the definitions of ``aliasing.layers``. Both get the same input.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from aliasing import layers
from aliasing.layers.blur import binomial, filter_depthwise

from . import BLURS, blur_of, ratios, turns

__all__ = ["FORMATS", "LEAST", "PEERS", "SIZES", "TARGETS", "cases", "measure", "table", "verdicts"]

PEERS = tuple(BLURS)
SIZES = ((128, 64, 32, 32), (128, 128, 16, 16), (32, 64, 56, 56), (16, 256, 56, 56))
QUICK = ((4, 8, 16, 16), (2, 8, 28, 28))
#: The median ratio to the published formulation over the sizes, forward and backward on a CPU, that we aim at.
TARGETS = {"tri-3": 2.5, "bin-5": 2.5, "bin-7": 2.5, "flc": 10, "asap": 10, "aps": 5, "tips": 2, "lps": 1.8}
#: The ratio to any peer at any size that we do not want to fall below.
LEAST = 0.95
ZEROS = {"padding_mode": "zeros"}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


Size = tuple[int, int, int, int]


class Peer(NamedTuple):
    """Somebody's formulation of one of our layers: ``make(x, ours)`` builds it for maps like ``x`` beside our layer.

    ``options`` make ours the same function, so that outputs can be compared.
    """

    layer: str
    name: str
    make: Callable[[Tensor, Any], Callable[[Tensor], Tensor]]
    options: Mapping[str, Any]


def _blur(taps: int, x: Tensor, ours: nn.Module) -> Callable[[Tensor], Tensor]:
    """Zhang 2019: reflect, then a strided depthwise convolution with kernels that are there already."""
    line = torch.tensor(binomial(taps), device=x.device)
    kernels = (line[:, None] * line).repeat(x.shape[1], 1, 1, 1)
    return lambda x: filter_depthwise(x, kernels, 2, "reflect")


def _lps(x: Tensor, ours: layers.LPS) -> Callable[[Tensor], Tensor]:
    return lambda x: layers.lps_definition(x, ours.first, ours.second, 2, 1.0 if ours.training else None)


def _tips(x: Tensor, ours: layers.TIPS) -> Callable[[Tensor], Tensor]:
    filters, scale = ours.parameters()
    return lambda x: layers.tips_definition(x, filters, scale.flatten(), 2, faithful=True)


def _ddac(x: Tensor, ours: layers.DDAC) -> Callable[[Tensor], Tensor]:
    return lambda x: layers.ddac_definition(x, ours.predict.weight, ours.norm, groups=ours.groups, faithful=True)


def peers() -> Iterable[Peer]:
    """Those that can run here."""
    yield Peer("flc", "published", lambda x, ours: layers.flc_definition, {})
    yield Peer("asap", "published", lambda x, ours: partial(layers.asap_definition, faithful=True), ZEROS)
    yield Peer("aps", "published", lambda x, ours: lambda x: layers.aps_definition(x)[0], {})
    yield Peer("tips", "published", _tips, {"faithful": True})
    yield Peer("lps", "published", _lps, {})
    yield Peer("rect-2", "torch", lambda x, ours: nn.AvgPool2d(2), {})
    yield Peer("ddac", "published", _ddac, {"faithful": True})
    taps = {"tri-3": 3, "bin-5": 5, "bin-7": 7}
    for name, count in taps.items():
        yield Peer(name, "published", partial(_blur, count), {})
    for (name, count), package in product(taps.items(), BLURS):
        if build := blur_of(package):
            make = partial(lambda build, count, x, ours: build(x.shape[1], count, 2).to(x.device), build, count)
            yield Peer(name, package, make, ZEROS if package == "kornia" else {})


def cases(device: str, quick: bool) -> Iterable[tuple[Size, str, Peer]]:
    """Every size, memory format and peer."""
    return product(QUICK if quick else SIZES, FORMATS, peers())


def measure(case: tuple[Size, str, Peer], device: str, repeats: int) -> list[dict[str, object]]:
    """A row for the forward pass, recording gradients, and one for forward and backward.

    Median milliseconds of both and their spread (largest minus smallest), ratios, the largest difference of the
    outputs.
    """
    size, form, peer = case
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator).to(device).contiguous(memory_format=FORMATS[form]).requires_grad_()
    ours = layers.create(peer.layer, size[1], **peer.options).to(device)
    theirs = peer.make(x, ours)
    with torch.no_grad():
        ours.eval()
        outputs = ours(x), theirs(x)
    ours.train()
    gradient = torch.randn_like(outputs[0])

    def both_ways(function: Callable[[Tensor], Tensor]) -> None:
        x.grad = None
        function(x).backward(gradient)

    rows = []
    for step, act in (("forward", lambda function: function(x)), ("forward+backward", both_ways)):
        times, _ = turns({"ours": partial(act, ours), "peer": partial(act, theirs)}, device, repeats)
        row: dict[str, object] = {"layer": peer.layer, "peer": peer.name, "size": "x".join(map(str, size))}
        row |= {"format": form, "pass": step}
        row |= {f"{who}_ms": 1e3 * median(seconds) for who, seconds in times.items()}
        row |= {f"{who}_spread_ms": 1e3 * (max(seconds) - min(seconds)) for who, seconds in times.items()}
        difference = (outputs[0] - outputs[1]).abs().max().item()
        rows.append(row | ratios(times["ours"], times["peer"]) | {"difference": difference})
    return rows


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
        middle = cases.loc[cases["peer"] == "published", "ratio"].median()
        worst = cases.loc[cases["ratio"].idxmin()]
        target = float(TARGETS.get(str(layer), "nan"))
        rows.append(
            {
                "layer": layer,
                "format": memory_format,
                "median": middle,
                "target": target,
                "reached": "" if target != target else "yes" if middle >= target else "no",
                "worst": worst["ratio"],
                "where": f"{worst['peer']}, {worst['size']}",
                "never slower": "yes" if worst["ratio"] >= LEAST else "no",
            }
        )
    return pd.DataFrame(rows)
