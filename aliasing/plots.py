"""How figures look everywhere: one colour and one marker per downsampling layer, captions and alt text attached."""

import base64
import html
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .metrics import Estimate

__all__ = [
    "COLOURS",
    "MARKERS",
    "Captioned",
    "across",
    "describe",
    "encoded",
    "grid",
    "interval",
    "legend",
    "show",
    "style",
]

_CYCLE = sns.color_palette("colorblind", 10).as_hex()
# Baselines are dark, blurs run from light to dark blue with their length, every other layer has its own hue. None is so
# light that it fades on white, or, turned for the dark page, on black.
COLOURS = {
    "subsample": "#222222",
    "max": "#777777",
    "rect-2": "#6fb0d6",
    "tri-3": "#3d8fc6",
    "bin-4": "#2b78b8",
    "bin-5": "#1764ab",
    "bin-6": "#0e4b8a",
    "bin-7": "#08306b",
    "flc": _CYCLE[1],
    "asap": _CYCLE[3],
    "aps": _CYCLE[2],
    "lps": "#a89a00",
    "tips": _CYCLE[4],
    "ddac": _CYCLE[5],
    "average": "#a6611a",  # rect-2 without the maximum before it, as the comparison calls it
}
MARKERS = dict(zip(COLOURS, "osv^<>Dd*XPHph8", strict=True))


@contextmanager
def style() -> Iterator[None]:
    """The style of every figure of the book."""
    parameters: Any = {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.dpi": 100,
        "font.size": 10,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "aliasing",
    }
    with mpl.rc_context(parameters):
        yield


def grid(
    rows: int = 1, columns: int = 1, width: float = 7.5, height: float = 3.0, **options: Any
) -> tuple[Figure, Any]:
    """A figure of ``width`` x ``height * rows`` inches in the book's style; returns figure and axes like pyplot."""
    with style():
        return plt.subplots(rows, columns, figsize=(width, height * rows), layout="constrained", **options)


class Captioned:
    """A drawn figure with caption and alternative text, shown as HTML in notebooks and in the book.

    ``kind`` is "chart" (a transparent drawing, whose black the book turns to white in the dark) or "picture".
    """

    def __init__(self, image: str, caption: str, alt: str, kind: str = "picture") -> None:
        self.image, self.caption, self.alt, self.kind = image, caption, alt, kind

    def _repr_html_(self) -> str:
        return self.framed(drawing(self.image, self.alt))

    def framed(self, content: str) -> str:
        """The HTML ``content`` with the caption below it."""
        return (
            f'<figure class="drawn {self.kind}">{content}<figcaption>{html.escape(self.caption)}</figcaption></figure>'
        )

    def __repr__(self) -> str:
        return f"Figure: {self.caption}"


def drawing(image: str, alt: str, name: str = "") -> str:
    """The HTML of a data URI in a frame in which it may scroll; ``name`` is the frame's id."""
    named = f' id="{name}"' if name else ""
    return f'<div class="drawing"{named}><img src="{image}" alt="{html.escape(alt, quote=True)}"></div>'


def show(figure: Figure, caption: str, alt: str, vector: bool = True) -> Captioned:
    """Close ``figure`` and return it with its caption and alternative text; pixel pictures take ``vector=False``."""
    kind = "picture" if any(axis.images for axis in figure.axes) else "chart"
    return Captioned(encoded(figure, vector, transparent=kind == "chart"), caption, alt, kind)


def encoded(figure: Figure, vector: bool, transparent: bool = False) -> str:
    """Close ``figure`` and return it as a data URI."""
    stream = io.BytesIO()
    with style():
        figure.savefig(
            stream,
            format="svg" if vector else "png",
            dpi=110,
            transparent=transparent,
            metadata={"Date": None} if vector else None,
        )
    plt.close(figure)
    mime = "image/svg+xml" if vector else "image/png"
    return f"data:{mime};base64,{base64.b64encode(stream.getvalue()).decode()}"


def across(curves: Iterable[Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and 95 % interval, point by point, of curves that belong to different seeds."""
    stacked = torch.tensor([list(curve) for curve in curves], dtype=torch.float64)
    estimates = [Estimate.mean(column) for column in stacked.T]
    mean = np.array([estimate.value for estimate in estimates])
    if len(stacked) == 1:  # no band rather than an infinite one
        return mean, mean, mean
    return mean, np.array([e.low for e in estimates]), np.array([e.high for e in estimates])


def legend(
    where: Axes | Figure, layers: Iterable[str], extra: Mapping[str, dict] | None = None, **options: Any
) -> None:
    """A legend of downsampling layers, plus entries of black circles in other styles; ``options`` go to matplotlib."""
    handles = [Line2D([], [], color=COLOURS[name], marker=MARKERS[name], ls="", label=name) for name in layers]
    for label, look in (extra or {}).items():
        handles.append(Line2D([], [], color="#222222", marker="o", ls="", label=label, **look))
    where.legend(handles=handles, **options)


def describe(table: pd.DataFrame) -> str:
    """Data, network and seeds of the runs in ``table``, the end of every caption."""
    data, networks = " and ".join(table["data"].unique()), " and ".join(table["network"].unique())
    seeds = table["seed"].nunique()
    return f"Data: {data}; networks: {networks}; {seeds} seed{'s' if seeds > 1 else ''}"


def interval(values: pd.Series) -> str:
    """Fractions of several seeds in per cent: mean, and the half width of the 95 % interval."""
    estimate = Estimate.mean(torch.tensor(values.to_numpy(dtype=float)))
    if estimate.n == 1:
        return f"{100 * estimate.value:.1f}"
    return f"{100 * estimate.value:.1f} ±\N{NO-BREAK SPACE}{50 * (estimate.high - estimate.low):.1f}"
