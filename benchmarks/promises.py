"""What every downsampling layer promises, found out by calling it; ours and those of other packages."""

import copy
import json
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from math import ceil
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from aliasing.errors import UsageError
from aliasing.layers import CATALOGUE, create

from . import BLURS, blur_of

__all__ = ["CHECKS", "examine", "ours", "peers", "peers_table", "table", "write_peers"]

Make = Callable[[int, int], nn.Module]  # (channels, stride) -> layer

_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 16)
_CHANNELS = 3


def _noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _strides(make: Make) -> str:
    """Strides at which every pair of sizes gives ``ceil(n / stride)`` and finite values; elsewhere the share."""
    good, bad = [], []
    for stride in (1, 2, 3, 4):
        try:
            layer = make(_CHANNELS, stride).eval()
        except UsageError:  # not defined for this stride, and says so
            continue
        right = sum(_fits(layer, stride, height, width) for height in _SIZES for width in _SIZES)
        if right == len(_SIZES) ** 2:
            good.append(str(stride))
        else:
            bad.append(f"{stride}: {100 * right / len(_SIZES) ** 2:.0f} %")
    return "; ".join([*([", ".join(good)] if good else []), *bad])


def _fits(layer: nn.Module, stride: int, height: int, width: int) -> bool:
    try:
        y = layer(_noise(1, _CHANNELS, height, width))
    except (RuntimeError, ValueError, IndexError):
        return False
    return y.shape[2:] == (ceil(height / stride), ceil(width / stride)) and bool(y.isfinite().all())


def _empty(layer: nn.Module) -> bool:
    return layer(torch.zeros(0, _CHANNELS, 8, 6)).shape == (0, _CHANNELS, 4, 3)


def _dtypes(layer: nn.Module) -> bool:
    types = (torch.float64, torch.float32, torch.bfloat16)
    return all(layer.to(dtype)(_noise(1, _CHANNELS, 8, 6, dtype=dtype)).dtype == dtype for dtype in types)


def _autocast(layer: nn.Module) -> bool:
    with torch.autocast("cpu", torch.bfloat16):
        return all(
            bool(layer(_noise(1, _CHANNELS, 8, 6, dtype=d)).isfinite().all()) for d in (torch.float32, torch.bfloat16)
        )


def _channels_last(layer: nn.Module) -> bool:
    x = _noise(2, _CHANNELS, 8, 6).contiguous(memory_format=torch.channels_last)
    return layer(x).is_contiguous(memory_format=torch.channels_last)


def _constants(layer: nn.Module) -> bool:
    y = layer(torch.ones(1, _CHANNELS, 10, 13))
    return bool((y - 1).abs().max() < 1e-5)


def _gradient(layer: nn.Module) -> bool:
    x = _noise(1, _CHANNELS, 9, 6).requires_grad_()
    layer(x).square().sum().backward()
    return x.grad is not None and bool(x.grad.isfinite().all()) and bool(x.grad.abs().sum() > 0)


def _compiles(layer: nn.Module) -> bool:
    """Full graph; traced, not translated, so that no compiler is needed."""
    x = _noise(2, _CHANNELS, 8, 6)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the framework about itself
        return torch.allclose(torch.compile(layer, fullgraph=True, backend="eager")(x), layer(x), atol=1e-6)


def _checkpoints(layer: nn.Module) -> bool:
    """Nothing in the ``state_dict`` but parameters: checkpoints of the plain network load."""
    return set(layer.state_dict()) == {name for name, _ in layer.named_parameters()}


#: Name of the promise -> whether a layer of stride 2 in evaluation mode keeps it.
CHECKS: dict[str, Callable[[nn.Module], bool]] = {
    "N = 0": _empty,
    "64, 32, 16 bits": _dtypes,
    "autocast": _autocast,
    "channels_last kept": _channels_last,
    "constants stay": _constants,
    "gradient": _gradient,
    "full graph": _compiles,
    "no buffers stored": _checkpoints,
}


def examine(make: Make) -> dict[str, str]:
    """Each promise, "yes" or "no"; first the strides at which sizes are right."""
    found = {"right sizes at stride": _strides(make)}
    torch.manual_seed(0)
    layer = make(_CHANNELS, 2).eval()
    for name, check in CHECKS.items():
        try:
            kept = check(copy.deepcopy(layer))
        except Exception:  # other people's layers may raise anything; not to work is an answer
            kept = False
        found[name] = "yes" if kept else "no"
    return found


def ours() -> dict[str, Make]:
    """Our layers by name."""
    return {name: partial(create, name) for name in CATALOGUE}


def peers() -> dict[str, Make]:
    """Layers of other packages, of those that are installed; torch always is."""
    found: dict[str, Make] = {
        "torch.nn.MaxPool2d(2)": lambda channels, stride: nn.MaxPool2d(stride, stride),
        "torch.nn.AvgPool2d(2)": lambda channels, stride: nn.AvgPool2d(stride, stride),
    }
    for package, place in BLURS.items():
        if build := blur_of(package):
            for taps in (3, 5):
                make = partial(lambda build, taps, channels, stride: build(channels, taps, stride), build, taps)
                found[f"{'.'.join(place)}, {taps} taps"] = make
    return found


def table(makes: dict[str, Make]) -> pd.DataFrame:
    """One row per layer, one column per promise."""
    return pd.DataFrame.from_dict({name: examine(make) for name, make in makes.items()}, orient="index")


def write_peers(path: Path) -> None:
    """Measure the peers that are installed and keep the answers, with versions and date, for machines without them."""
    rows = table({name: make for name, make in peers().items() if not name.startswith("torch.")})
    versions = {package: version(package) for package in BLURS if blur_of(package)}
    kept = {"measured": datetime.now(UTC).date().isoformat(), "versions": versions, "rows": rows.to_dict("index")}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def peers_table(path: Path) -> pd.DataFrame:
    """The promises of the peers: measured now where they are installed, else as kept in ``path``.

    The names of the rows say which version was measured, and of kept rows when.
    """
    kept, frame = json.loads(path.read_text(encoding="utf-8")), table(peers())
    packages = {place[0]: package for package, place in BLURS.items()}
    names: dict[str, str] = {}
    for name in [*frame.index, *kept["rows"]]:
        package = next((package for module, package in packages.items() if name.startswith(module)), "")
        if name in frame.index:
            names.setdefault(name, f"{name} ({package} {version(package)})" if package else name)
        else:
            frame.loc[name] = kept["rows"][name]
            names[name] = f"{name} ({package} {kept['versions'][package]}, measured {kept['measured']})"
    return frame.rename(index=names)


if __name__ == "__main__":
    write_peers(Path(sys.argv[1]))
