"""Several networks side by side: the call, the table, the plain values."""

import math
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from ..errors import DataError, UsageError, reason
from ..files import write_atomically
from ..inference import form_of, placed
from ..memory import keep_freed
from ..metrics import Estimate
from ..records import encode
from ..training import pick_device
from ..version import __version__
from . import networks, pictures, report
from .measuring import Portrait, passes, portray
from .networks import Network
from .report import percent


@dataclass
class Diagnosis:
    """What was found."""

    portraits: list[Portrait]  # one per network, in the order asked for
    folder: str  # where the pictures are
    skipped: dict[str, str]  # pictures that could not be read, and why
    device: str  # what the networks ran on
    failed: dict[str, str] = field(default_factory=dict)  # networks that could not be measured, and why
    versions: dict[str, str] = field(default_factory=lambda: {"aliasing": __version__, "torch": torch.__version__})

    def table(self) -> pd.DataFrame:
        """One row per measure, one column per network; per cent, with 95 % intervals over pictures."""
        columns = {}
        for portrait in self.portraits:
            first = self.portraits[0]
            cells = {
                "one pixel changes the answer": percent(portrait.top1_change),
                "one pixel moves its probability by": percent(portrait.mean_absolute_change),
                "consistency, crop shifts": percent(portrait.crop),
                "consistency, standard shifts": percent(portrait.standard),
                "downsampling sites": f"{len(portrait.sites)}{portrait.unseen}",
                "alias energy, mean over sites": _mean([site.alias_energy.value for site in portrait.sites]),
                "the same in front of filters": _mean([site.at_risk.value for site in portrait.sites]),
                "anti-aliasing layers it has": ", ".join(f"{n} x {c}" for n, c in portrait.layers.items()) or "none",
                "antialias would replace": "nothing"
                if isinstance(portrait.conversion, str)
                else f"{len(portrait.conversion.replaced)}, leave {len(portrait.conversion.left)}",
                "pictures, input": f"{portrait.pictures}, {portrait.size} x {portrait.size}"
                + (f", {portrait.enlarged} of them enlarged" if portrait.enlarged else ""),
                "weights": portrait.weights,
            }
            if portrait is first:
                minus = ""
            elif portrait.size != first.size:  # one pixel is less of a larger picture
                minus = "other input, use --size"
            else:
                minus = percent(Estimate.paired(portrait.changes, first.changes), sign="+")
            if len(self.portraits) > 1:
                cells["changes minus those of the first"] = minus
            columns[portrait.network] = cells
        return pd.DataFrame(columns)

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures as plain values, for JSON: fractions, not per cent; NaN becomes null."""
        found = [vars(own) | {"class_names": len(own.class_names)} for own in self.portraits]
        for own in found:
            own["curves"] = [{k: v for k, v in vars(c).items() if k not in ("before", "after")} for c in own["curves"]]
        return encode({k: v for k, v in vars(self).items() if k != "portraits"} | {"networks": found}, digits=None)

    def html(self) -> str:
        """The report: one page that asks for nothing outside itself."""
        return report.page(found=self, rows=self.table().T.to_dict("list"))

    def __str__(self) -> str:
        lines = [aligned(self.table())]
        for portrait in self.portraits:
            lines.append(wrapped(f"{portrait.network}: {portrait.remedy}"))
            if command := portrait.command(self.folder):
                lines.append(f"  {command}")  # in one piece, to be copied
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.table().to_html()


def diagnose(
    models: str | nn.Module | Sequence[str | nn.Module] | Mapping[str, nn.Module],
    images: str | Path,
    *,
    count: int = 200,
    size: int | None = None,
    weights: str | Sequence[str] = "pretrained",
    device: str = "auto",
    batch_size: int = 32,
    report: str | Path | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Measure how fragile networks are under shifts of a folder of pictures, and where they alias.

    Args:
        models: names as for ``aliasing.diagnosis.load``, modules that take images (N, 3, size, size) in [0, 1], or a
            mapping from names to such modules, which are copied.
        images: folder of pictures, nested as it may be; no labels are needed.
        count: how many of them, a fixed random choice.
        size: side of the input in pixels; by default each network's own, 224 for modules.
        weights: "pretrained", "none" or a safetensors file, for all networks, or one for each; modules have their own.
        device: auto, cpu, cuda, cuda:N or mps.
        batch_size: images per forward pass, which does not change the values.
        report: file for the HTML report, rewritten after each network, so that stopping loses one at most.
        progress: draw progress bars on standard error.

    Raises:
        UsageError: an unknown network, one that does not take images of its size, or bad arguments. Every network is
            tried before the first one is measured.
        DataError: no picture can be read, or pretrained weights cannot be fetched.
    """
    keep_freed()
    place = pick_device(device)
    files = pictures.find(images)  # an empty folder is noticed before any work
    if report is not None:
        _writable(Path(report))
    subjects = [networks.adapted(subject, place) for subject in _load(models, weights, size)]
    usual = pictures.usual(files)
    read: dict[int, pictures.Pictures] = {}
    found = Diagnosis([], str(images), {}, str(place))
    for subject in subjects:
        if subject.size not in read:
            read[subject.size] = pictures.read(images, subject.size, count, progress=progress, paths=files)
            found.skipped |= read[subject.size].skipped
        own, total = read[subject.size], passes(read[subject.size])
        try:
            with tqdm(total=total, desc=subject.name, unit="", disable=not progress, file=sys.stderr) as bar:
                available, window = len(files) - len(own.skipped), _window(subject, usual, place)
                measured = portray(subject, own, available, window, batch_size, bar.update)
        except Exception as error:  # such as memory that runs out: keep what is there
            found.failed[subject.name] = reason(error)
        else:
            found.portraits.append(measured)
        if report is not None and found.portraits:
            write_atomically(Path(report), found.html())
    if not found.portraits:
        raise DataError("; ".join(f"{name}: {reason}" for name, reason in found.failed.items()))
    return found


def _window(subject: Network, usual: int, place: torch.device) -> int:
    """The side of windows that it can be fine-tuned on, in pictures of such a short side; 0 where there is none."""
    window, form = pictures.window(subject.size, usual), form_of(subject.module)
    try:
        return window and networks.adapted(replace(subject, size=window), place).size
    except UsageError:  # it takes images of its size alone
        return 0
    finally:
        placed(subject.module, place, form)  # in which it takes those of its size


def _writable(report: Path) -> None:
    """Notice before the work that its report could not be kept."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the report cannot be written to {report}: {error}") from error
    if report.suffix not in (".html", ".htm") or report.is_dir() or not os.access(report.resolve().parent, os.W_OK):
        raise UsageError(f"the report must be a page that can be written, such as report.html; got {report}")


def _width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return max(40, shutil.get_terminal_size((100, 24)).columns)


def wrapped(text: str) -> str:
    """A paragraph at the terminal's width."""
    return textwrap.fill(text, _width())


def aligned(table: pd.DataFrame) -> str:
    """A table of text at the terminal's width: columns that do not fit follow below, without the rows they lack."""
    width = _width()
    label = min(max(map(len, table.index), default=0), max(12, 3 * width // 7))
    cells = [min(max(len(name), *map(len, table[name])), width - label - 2) for name in table.columns]
    lines, first = list[str](), 0
    while first < len(cells):
        fit = sum(end <= width - label for end in accumulate(own + 2 for own in cells[first:]))
        block, widths = table.iloc[:, first : first + fit], [label, *cells[first : first + fit]]
        for texts in (("", *block.columns), *block[block.any(axis=1)].itertuples()):
            wraps = (textwrap.wrap(text, own) for text, own in zip(texts, widths, strict=True))
            for line in zip_longest(*wraps, fillvalue=""):
                lines.append("  ".join(map(str.ljust, line, widths)).rstrip())
        lines.append("")
        first += fit
    return "\n".join(lines)


def _load(models: Any, weights: str | Sequence[str], size: int | None) -> list[Network]:
    if isinstance(models, Mapping):
        named = list(models.items())
    else:
        listed = list(models) if isinstance(models, (list, tuple)) else [models]
        named = [(model if isinstance(model, str) else type(model).__name__, model) for model in listed]
    names = [name for name, _ in named]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"networks must have different names, got {', '.join(names) or 'none'}; name each network once, and"
            " modules by a mapping from names to modules"
        )
    files = [weights] * len(named) if isinstance(weights, str) else list(weights)
    if len(files) == 1:
        files *= len(named)
    if len(files) != len(named):
        raise UsageError(f"weights must be given once, or once per network: got {len(files)} for {len(named)} networks")
    return [
        networks.load(model, file, size) if isinstance(model, str) else networks.of_module(name, model, size, file)
        for (name, model), file in zip(named, files, strict=True)
    ]


def _mean(values: list[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    return f"{100 * sum(finite) / len(finite):.1f} %" if finite else "-"
