"""Every layer beside its published formulation, and beside the packages that offer the same layer.

The published formulations are written here from the definitions in the papers. Ours and theirs take turns on the same
input, so that a busy machine slows both; ratios are above 1 where ours is faster.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aliasing.layers import DDAC, LPS, create
from aliasing.layers.blur import binomial

from . import reporting

__all__ = ["FORMATS", "LEAST", "SIZES", "TARGETS", "bench", "report", "run", "table", "verdicts"]

SIZES = ((128, 64, 32, 32), (128, 128, 16, 16), (32, 64, 56, 56), (16, 256, 56, 56))
QUICK = ((4, 8, 16, 16), (2, 8, 28, 28))
#: The median ratio to the published formulation over the sizes, forward and backward on a CPU, that we aim at.
TARGETS = {"tri-3": 2.5, "bin-5": 2.5, "bin-7": 2.5, "flc": 10, "asap": 10, "aps": 5, "tips": 2, "lps": 1.8}
#: The ratio to any peer at any size that we do not want to fall below.
LEAST = 0.95
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
    """Zhang 2019: reflect, then a strided depthwise convolution."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        line = torch.tensor(binomial(taps))
        self.weight = nn.Parameter((line[:, None] * line).repeat(channels, 1, 1, 1), requires_grad=False)
        self.pad = nn.ReflectionPad2d(((taps - 1) // 2, taps // 2) * 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        return F.conv2d(self.pad(x), self.weight, stride=2, groups=x.shape[1])


def _published_blur(taps: int) -> Callable[[int, Any], nn.Module]:
    return lambda channels, ours: PublishedBlur(channels, taps)


def published_fourier(x: Tensor, pad: int = 0, window: bool = False) -> Tensor:
    """Grabinski et al. 2022 and 2023: transform, shift, window, crop, shift back, transform back, real part."""
    x = F.pad(x, (0, pad, 0, pad))
    spectrum = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"))
    height, width = x.shape[2:]
    if window:
        rows, columns = (torch.hamming_window(n, periodic=False, device=x.device) for n in (height, width))
        spectrum = spectrum * (rows[:, None] * columns).sqrt()
    spectrum = spectrum[:, :, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum), norm="forward").real


def _phases(x: Tensor) -> list[Tensor]:
    return [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def published_aps(x: Tensor) -> Tensor:
    """Chaman and Dokmanic 2021: stack the phases, compare their norms, copy the chosen one image by image."""
    phases = torch.stack(_phases(x), 1)
    chosen = phases.flatten(2).norm(dim=2).argmax(1)
    out = torch.zeros_like(phases[:, 0])
    for image, phase in enumerate(chosen.tolist()):
        out[image] = phases[image, phase]
    return out


def published_lps(layer: LPS, x: Tensor) -> Tensor:
    """Rojas-Gomez et al. 2022: score the phases one after the other, then mix (training) or take one (evaluation)."""

    def convolve(x: Tensor, convolution: nn.Conv2d) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), convolution.weight, convolution.bias)

    phases = _phases(x)
    hidden = [convolve(convolve(phase, layer.first).relu(), layer.second) for phase in phases]
    logits = torch.stack([h.mean((1, 2, 3)) for h in hidden], 1)
    if layer.training:
        weights = F.gumbel_softmax(logits)
    else:
        weights = F.one_hot(logits.argmax(1), 4).to(x.dtype)
    return torch.stack(
        [w[:, None, None, None] * phase for w, phase in zip(weights.unbind(1), phases, strict=True)]
    ).sum(0)


def published_tips(layer: nn.Module, x: Tensor) -> Tensor:
    """Saha and Gokhale 2025: weights from a depthwise convolution, then the weighted sum of the phases."""
    taps, scale = layer.parameters()
    psi = F.conv2d(x, taps, padding=1, groups=x.shape[1]).relu()
    tau = F.conv2d(F.adaptive_avg_pool2d(psi, 2), scale, groups=x.shape[1]).flatten(2).softmax(2)
    columns_first = [x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return torch.stack([tau[:, :, p, None, None] * phase for p, phase in enumerate(columns_first)]).sum(0)


def published_ddac(layer: DDAC, x: Tensor) -> Tensor:
    """Zou et al. 2020: weights for every pixel, the weighted sum of its unfolded window, then subsampling."""
    (n, c, h, w), taps = x.shape, layer.size**2
    padded = F.pad(x, (layer.size // 2,) * 4, mode="reflect")
    weights = layer.norm(F.conv2d(padded, layer.predict.weight)).softmax(1).view(n, layer.groups, 1, taps, h * w)
    windows = F.unfold(padded, layer.size).view(n, layer.groups, c // layer.groups, taps, h * w)
    return (windows * weights).sum(3).view(n, c, h, w)[:, :, ::2, ::2]


def _package_blur(build: Callable[..., nn.Module], package: str, taps: int) -> Callable[[int, Any], nn.Module]:
    if package == "kornia":
        return lambda channels, ours: build(taps, stride=2)
    return lambda channels, ours: build(channels, filt_size=taps, stride=2)


def peers() -> tuple[list[Peer], dict[str, str]]:
    """The peers that can run here, and for the others the reason why not."""
    found = [
        Peer("flc", "published", lambda c, ours: published_fourier, {}),
        Peer("asap", "published", lambda c, ours: lambda x: published_fourier(x, 1, True), {"padding_mode": "zeros"}),
        Peer("aps", "published", lambda c, ours: published_aps, {}),
        Peer("tips", "published", lambda c, ours: lambda x: published_tips(ours, x), {"faithful": True}),
        Peer("lps", "published", lambda c, ours: lambda x: published_lps(ours, x), {}),
        Peer("ddac", "published", lambda c, ours: lambda x: published_ddac(ours, x), {"faithful": True}),
    ]
    skipped = {}
    for name, taps in {"tri-3": 3, "bin-5": 5, "bin-7": 7}.items():
        found.append(Peer(name, "published", _published_blur(taps), {}))
    for package, module, layer, options in [
        ("antialiased-cnns", "antialiased_cnns", "BlurPool", {}),
        ("timm", "timm.layers", "BlurPool2d", {}),
        ("kornia", "kornia.filters", "BlurPool2D", {"padding_mode": "zeros"}),
    ]:
        try:
            build = getattr(importlib.import_module(module), layer)
        except ImportError as error:
            skipped[package] = str(error)
            continue
        for name, taps in {"tri-3": 3, "bin-5": 5, "bin-7": 7}.items():
            found.append(Peer(name, package, _package_blur(build, package, taps), options))
    return found, skipped


def bench(
    functions: dict[str, Callable[[Tensor], Tensor]], x: Tensor, repeats: int = 5
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each function on ``x``, forward (recording gradients) and forward with backward, in turns."""
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "forward+backward": []} for name in functions}
    gradient = torch.randn_like(next(iter(functions.values()))(x).detach())
    wait = torch.cuda.synchronize if x.device.type == "cuda" else lambda: None
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


def run(
    device: str = "cpu", repeats: int = 5, quick: bool = False, layers: tuple[str, ...] | None = None
) -> pd.DataFrame:
    """Time every layer beside its peers.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        repeats: timed turns per case.
        quick: two small sizes, to see that it works; its ratios mean nothing.
        layers: only these layers.

    Returns:
        One row per layer, peer, size, memory format and pass: median milliseconds of both and their spread (largest
        minus smallest), the median, smallest and largest ratio of a turn, and the largest difference of the outputs.
        ``attrs`` holds device, threads, versions, and which peers were skipped and why.
    """
    rows = []
    found, skipped = peers()
    for size in QUICK if quick else SIZES:
        for format_name, memory_format in FORMATS.items():
            for layer in dict.fromkeys(peer.layer for peer in found if layers is None or peer.layer in layers):
                rows += _rows(
                    [peer for peer in found if peer.layer == layer], size, memory_format, device, repeats, format_name
                )
    frame = pd.DataFrame(rows)
    frame.attrs = reporting.surroundings(device, repeats) | {"skipped": skipped}
    return frame


def _rows(
    found: list[Peer],
    size: tuple[int, int, int, int],
    memory_format: torch.memory_format,
    device: str,
    repeats: int,
    format_name: str,
) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator).to(device).contiguous(memory_format=memory_format).requires_grad_()
    rows = []
    for peer in found:
        ours = create(peer.layer, size[1], **peer.options).to(device)  # type: ignore[arg-type]
        theirs = peer.make(size[1], ours)
        if isinstance(theirs, nn.Module):
            theirs.to(device)
        with torch.no_grad():
            ours.eval()
            difference = (ours(x) - theirs(x)).abs().max().item()
        ours.train()
        times = bench({"ours": ours, "peer": theirs}, x, repeats)
        for step, mine in times["ours"].items():
            other = times["peer"][step]
            ratios = [b / a for a, b in zip(mine, other, strict=True)]
            rows.append(
                {
                    "layer": peer.layer,
                    "peer": peer.name,
                    "size": "x".join(map(str, size)),
                    "format": format_name,
                    "pass": step,
                    "ours_ms": statistics.median(mine),
                    "peer_ms": statistics.median(other),
                    "ours_spread_ms": max(mine) - min(mine),
                    "peer_spread_ms": max(other) - min(other),
                    "ratio": statistics.median(other) / statistics.median(mine),
                    "ratio_low": min(ratios),
                    "ratio_high": max(ratios),
                    "difference": difference,
                }
            )
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
