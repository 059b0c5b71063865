"""The words in which the chapters draw: bands, points, bars, maps, a look for every layer, and what each figure shows.

A figure is a matplotlib figure, drawn in the cell that shows it; ``show`` gives it a caption, an alternative text and a
line that says on which evidence it stands.
"""

import base64
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from itertools import count, cycle
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from jinja2 import Environment
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .errors import UsageError
from .metrics import Estimate

# Colours far from each other, of two lightnesses in turn, as hues of one look alike in a crowd: dark enough for a white
# page, and, inverted, for a dark one.
_HUES = (
    sns.husl_palette(1, h=(0.93 + 0.618034 * step) % 1, s=0.85, l=(0.5, 0.38)[step % 2]).as_hex()[0] for step in count()
)
_CYCLE = sns.color_palette("colorblind", 10).as_hex()
# Baselines are dark, blurs run from light to dark blue with their length, every other layer has its own hue. None is so
# light that it fades on white, or, turned for the dark page, on black.
# A name that has none gets the next spare look, the same for the rest of the session.
COLOURS: defaultdict[str, str] = defaultdict(
    partial(next, _HUES),
    {
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
    },
)
MARKERS = defaultdict(partial(next, cycle("oDs^vP*X<>h8pdH")), zip(COLOURS, "osv^<>Dd*XPHph8", strict=True))
LINES = ("-", "--", "-.", ":")
# What tells apart points and bars, which have no line.
FILLS = dict(zip(LINES, ("full", "left", "bottom", "right"), strict=True))
HATCHES = dict(zip(LINES, ("", "//", "..", "xx"), strict=True))
DPI = 110  # of pictures; an SVG has points
FEW = 3  # Of fewer seeds each is shown by itself: Student's interval over two is 13 times as wide as they are apart.
# What a figure shows of the spread, by the id of what draws it: ``show`` adds it to the caption.
SPREAD = {
    "seeds": "Bands and whiskers: 95 % intervals over seeds.",
    "pictures": "Whiskers: 95 % intervals over test pictures.",
    "cut": "Those that leave the frame are cut.",
    "each": "Faint: single networks.",
    "few": "Faint: single networks; fewer than three seeds have no interval.",
}
TOLD = "means over seeds ± half of the 95 % interval; of fewer than three seeds, each"  # what ``interval`` writes

STYLE: Any = {
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


def grid(
    rows: int = 1, columns: int = 1, width: float = 7.5, height: float = 3.0, **options: Any
) -> tuple[Figure, Any]:
    """A figure of ``width`` x ``height * rows`` inches; returns figure and axes like pyplot.

    The book's style stays on, for what is added to the figure.
    """
    mpl.rcParams.update(STYLE)
    rows, columns = max(1, rows), max(1, columns)
    return plt.subplots(rows, columns, figsize=(width, height * rows), layout="constrained", **options)


# ---- What is drawn -------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """The runs that share a curve, a bar or a point: their ``label``, their ``look`` for matplotlib, their ``rows``."""

    label: str
    look: dict[str, Any]
    rows: pd.DataFrame


def groups(rows: pd.DataFrame, by: str | Sequence[str] = "layer", *columns: str) -> list[Group]:
    """The runs of a results table on which ``columns`` were measured, by the values of one column or of several.

    The first column of ``by`` decides colour and marker. Of the others, one of truth values decides whether markers are
    hollow, and one of words which line is drawn, hollow or not: the same one whatever was measured.

    Raises:
        UsageError: a run has no value in one of these columns, and would be in no group.
    """
    by, every, rows = [by] if isinstance(by, str) else list(by), rows, measured(rows, *columns)
    if rows.empty:
        return []
    if absent := [name for name in by if rows[name].isna().any()]:
        raise UsageError(f"{rows[absent[0]].isna().sum()} of {len(rows)} runs have no {absent[0]}; draw those that do")
    words = {name: list(every[name].dropna().unique()) for name in by[1:] if rows[name].dtype != bool}
    found = []
    for values, own in rows.groupby(by, sort=False):
        labels = dict(zip(by, values, strict=True))
        look: dict[str, Any] = {"color": COLOURS[str(values[0])], "marker": MARKERS[str(values[0])]}
        line, hollow = 0, {}
        for name in by[1:]:
            if name in words:
                line = words[name].index(labels[name]) % len(LINES)
            elif labels[name]:
                hollow = {"markerfacecolor": "none"}
        look |= {"linestyle": LINES[-1 - line if hollow else line]} | hollow  # from the other end: bars have no markers
        said = [name if value is True else str(value) for name, value in labels.items() if value is not False]
        found.append(Group(", ".join(said), look, own))
    return found


def seeded(group: Group, *columns: str) -> pd.DataFrame:
    """The runs of a group on which ``columns`` were measured, which differ in the seed alone: so their spread is its.

    Raises:
        UsageError: there are several networks of one seed, of which none is the one to draw.
    """
    own = measured(group.rows, *columns)
    if "seed" in own and (twice := own["seed"][own["seed"].duplicated()].tolist()):
        raise UsageError(f"{group.label!r} has several networks of seed {twice[0]}; draw one kind of them")
    return own


def measured(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The runs on which all ``columns`` were measured; none where a column is absent."""
    known = [column for column in columns if column in rows]
    return rows.dropna(subset=known) if len(known) == len(columns) else rows.iloc[:0]


def across(curves: Iterable[Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and 95 % interval, point by point, of curves that belong to different seeds; of fewer than ``FEW``, none.

    Not a number where a curve has a gap, ``None``. ``UsageError`` where curves are not equally long, or empty.
    """
    listed = [list(curve) for curve in curves]
    lengths = {len(curve) for curve in listed}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(f"curves must have equally many points, at least one, got {sorted(lengths)}; draw one kind")
    stacked = torch.tensor(np.array(listed, dtype=float))
    mean, low, high = np.array([Estimate.mean(column)[:3] for column in stacked.T]).T
    return (mean, low, high) if len(stacked) >= FEW else (mean, mean, mean)


def _whiskers(values: pd.Series) -> tuple[float, list[list[float]], str | None]:
    """Mean, how far its interval reaches below and above, as matplotlib asks for it, and the kind of the interval."""
    (mean,), (low,), (high,) = across([[float(value)] for value in values])
    return mean, [[mean - low], [high - mean]], "seeds" if len(values) >= FEW else None


def _each(axis: Axes, x: Any, y: Any, look: Mapping[str, Any]) -> None:
    """A faint marker per run."""
    kind = "each" if len(x) >= FEW else "few"
    axis.plot(x, y, **dict(look) | {"linestyle": "none", "alpha": 0.4, "markersize": 4, "gid": kind})


def bands(
    axis: Axes, rows: pd.DataFrame, column: str, by: str | Sequence[str] = "layer", x: Any = None, scale: float = 1
) -> None:
    """A curve per group: the mean over seeds of the curves in ``column``, in a band of its 95 % interval.

    Of fewer than ``FEW`` seeds each has a faint curve instead of the band.

    The frame leaves room around the curves; wider bands are cut. One call an axis: another frames its own curves alone.

    Args:
        axis: where to draw.
        rows: the results table.
        column: holds a curve per run; runs that lack it are left out.
        by: see ``groups``.
        x: the places of the points, or the column that holds them; 0, 1, 2, ... by default.
        scale: factor of the values, 100 for per cent.

    Raises:
        UsageError: the curves of a group are not over the same points, or its runs are not ``seeded``.
    """
    middle = []
    for group in groups(rows, by, column):
        (label, look, _), own = group, seeded(group)
        if isinstance(x, str) and own[x].astype(str).nunique() > 1:
            raise UsageError(f"{label!r} has curves over different {x}; draw one kind of them")
        mean, low, high = (scale * values for values in across(own[column]))
        middle += [value for value in mean if np.isfinite(value)]
        places = own[x].iloc[0] if isinstance(x, str) else np.arange(len(mean)) if x is None else x
        axis.plot(places, mean, label=label, markevery=max(1, len(mean) // 8), **look)
        if len(own) >= FEW:
            axis.fill_between(places, low, high, color=look["color"], alpha=0.13, linewidth=0, gid="seeds")
        for curve in own[column] if 1 < len(own) < FEW else ():
            values = scale * np.array(curve, dtype=float)
            middle += [value for value in values if np.isfinite(value)]
            axis.plot(places, values, **look | {"marker": None, "linewidth": 0.8, "alpha": 0.5, "gid": "few"})
    if axis.get_yscale() == "linear":
        _limit(axis, "y", middle)


def _is_cut(axis: Axes) -> bool:
    """Whether something leaves the frame."""
    pairs = (axis.dataLim.intervalx, axis.get_xlim()), (axis.dataLim.intervaly, axis.get_ylim())
    return axis.has_data() and any(min(drawn) < min(frame) or max(drawn) > max(frame) for drawn, frame in pairs)


def _limit(axis: Axes, name: str, values: Iterable[float]) -> None:
    """Frame ``values`` along x or y with room around them, but none below zero where there are none.

    What panels that share this axis have drawn is not cut.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.2 * (high - low) or 0.1 * abs(high) or 0.1
    low, high = max(0.0, low - room) if low >= 0 else low - room, high + room
    if any(one is not axis and one.has_data() for one in getattr(axis, f"get_shared_{name}_axes")().get_siblings(axis)):
        known = getattr(axis, f"get_{name}lim")()
        low, high = min(low, *known), max(high, *known)
    getattr(axis, f"set_{name}lim")(low, high)


def panels(
    rows: pd.DataFrame,
    columns: Mapping[str, str],
    by: str | Sequence[str] = "layer",
    x: Any = None,
    xlabel: str = "",
    scale: float = 1,
) -> Figure:
    """A figure with ``bands`` side by side, one panel for each title and column in ``columns``."""
    figure, axes = grid(1, len(columns), width=3.4 * len(columns), height=3.2, squeeze=False)
    for axis, (title, column) in zip(axes[0], columns.items(), strict=True):
        bands(axis, rows, column, by, x, scale)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(xlabel)
    named: dict[str, Any] = {}  # a panel may lack a group that another has
    for axis in axes[0]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    # Inside of a panel it would hide curves.
    figure.legend([*named.values()], [*named], loc="outside lower center", ncols=4, fontsize=8)
    return figure


def points(axis: Axes, rows: pd.DataFrame, x: str, y: str, by: str | Sequence[str] = "layer", scale: float = 1) -> None:
    """A point per group with the 95 % intervals of both coordinates, and a faint one per run.

    The frame leaves room around the runs; wider intervals are cut. One call an axis, as for ``bands``.
    """
    for group in groups(rows, by, x, y):
        own, hollow = seeded(group), "markerfacecolor" in group.look
        fill = (FILLS | {":": "full"} if hollow else FILLS)[group.look["linestyle"]]
        other = group.look["color"] if hollow else "none"  # the half that the first colour does not fill
        look = group.look | {"linestyle": "none", "fillstyle": fill, "markerfacecoloralt": other}
        _each(axis, scale * own[x], scale * own[y], look)
        (right, across_x, kind), (up, across_y, _) = (_whiskers(scale * own[column]) for column in (x, y))
        axis.errorbar(right, up, across_y, across_x, label=group.label, capsize=2, markersize=8, gid=kind, **look)
    rows = measured(rows, x, y)
    _limit(axis, "x", scale * rows[x])
    _limit(axis, "y", scale * rows[y])


def bars(
    axis: Axes, rows: pd.DataFrame, columns: Mapping[str, str], by: str | Sequence[str] = "layer", scale: float = 1
) -> None:
    """A cluster of bars for each entry of ``columns`` (label to column), one bar per group.

    Whiskers are 95 % intervals over seeds; of a single run over its test pictures, where they were measured. Of fewer
    than ``FEW`` seeds each has a mark.
    """
    found = groups(rows, by)
    width, bottom, top = 0.8 / max(1, len(found)), 0.0, 0.0
    for index, group in enumerate(found):
        label, look, _ = group
        for place, column in enumerate(columns.values()):
            known = seeded(group, column)
            if known.empty:
                continue
            mean, reach, kind = _whiskers(scale * known[column])
            if len(known) == 1 and not measured(known, *(ends := [f"{column}.low", f"{column}.high"])).empty:
                low, high = scale * known[ends].iloc[0].astype(float)
                reach, kind = [[mean - low], [high - mean]], "pictures"
            middle = place + (index - len(found) / 2 + 0.5) * width
            few = scale * known[column] if 1 < len(known) < FEW else []
            bottom, top = min(bottom, mean, *few), max(top, mean, *few)
            axis.bar(
                middle, mean, width, yerr=reach, capsize=2, ecolor="#d55e00", gid=kind,
                color=look["color"], edgecolor="white", hatch=HATCHES[look["linestyle"]],
                label=label,
            )  # fmt: skip
            label = ""  # in the legend once
            if len(few):
                _each(axis, [middle] * len(few), few, {"color": "#d55e00", "marker": "o"})
    axis.set_xticks(range(len(columns)), list(columns))
    axis.set_ylim(1.35 * bottom, 1.35 * top + 1e-9)


def forest(
    axis: Axes, rows: pd.DataFrame, column: str, by: str = "layer", minus: str | None = None, scale: float = 1
) -> None:
    """A line per group with its mean and 95 % interval; with ``minus``, of the difference to that group, by seed.

    Of fewer than ``FEW`` seeds each has a faint marker instead of the interval.
    """
    found = groups(rows, by, column)
    by_seed = {group.label: seeded(group).set_index("seed")[column] for group in found}
    base = by_seed.pop(minus, pd.Series(dtype=float)) if minus else None
    found = [group for group in found if group.label in by_seed]
    for place, (label, look, _) in enumerate(found):
        values = by_seed[label]
        values = (values if base is None else (values - base).dropna()) * scale
        if len(values):
            mean, reach, kind = _whiskers(values)
            axis.errorbar(mean, place, xerr=reach, capsize=3, gid=kind, **look | {"linestyle": "none"})
        if 1 < len(values) < FEW:
            _each(axis, values, [place] * len(values), look)
    axis.set_yticks(range(len(found)), [group.label for group in found])
    axis.set_ylim(len(found) - 0.4, -0.6)
    if minus:
        axis.axvline(0, color="#222222", linewidth=0.8)


def maps(
    images: Mapping[str, Any],
    label: str,
    columns: int = 0,
    size: float = 2.4,
    reach: float = 0,
    ticks: bool | None = None,
    **options: Any,
) -> Figure:
    """A figure of ``images`` (title to values) under one scale of colours with ``label``.

    With ``reach`` the axes count from the middle, up to so many pixels. Without label and reach these are pictures,
    without ``ticks`` unless asked for; ``options`` go to ``imshow``.
    """
    columns = columns or max(1, len(images))
    size = min(size, 9.5 / columns)  # inches: in a wider figure the labels would be too small to read
    rows, alike = -(-len(images) // columns), len({np.shape(values) for values in images.values()}) == 1
    figure, axes = grid(rows, columns, size * columns, size, sharex=alike, sharey=alike, squeeze=False)
    tops = [float(np.nanmax(values)) for values in images.values()]
    options = {"cmap": "viridis", "vmin": 0, "vmax": max(tops, default=1)} | options
    if reach:
        options["extent"] = (-reach, reach, reach, -reach)
    for axis, (title, values) in zip(axes.flat, images.items(), strict=False):
        drawn = axis.imshow(values, **options)
        axis.set_title(title, fontsize=9)
        axis.grid(False)
        if not (ticks or label or reach):
            axis.set_axis_off()
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    if images and label:
        figure.colorbar(drawn, ax=axes, label=label, shrink=0.8)
    return figure


def legend(where: Axes | Figure, layers: Iterable[str], **options: Any) -> None:
    """A legend of downsampling layers; ``options`` go to matplotlib."""
    handles = [Line2D([], [], color=COLOURS[name], marker=MARKERS[name], ls="", label=name) for name in layers]
    where.legend(handles=handles, **options)


# ---- What is shown -------------------------------------------------------------------------------------------------


class Captioned:
    """A figure or table with caption, shown as HTML in notebooks and in the book; ``image`` of a table is its HTML.

    ``kind`` is "chart" (a transparent drawing, whose black the book turns to white in the dark), "picture" or
    "tabular" (a class "table" would have the look that the book's theme gives tables).
    """

    steps: Mapping[str, "Captioned"] = {}

    def __init__(self, image: str, caption: str, alt: str, kind: str = "picture", evidence: str = "") -> None:
        self.image, self.caption, self.alt, self.kind, self.evidence = image, caption, alt, kind, evidence

    def _repr_html_(self) -> str:
        steps = [{"name": name, "image": step.image, "alt": step.alt} for name, step in self.steps.items()]
        name = f"walk-{hashlib.sha1(json.dumps(steps).encode()).hexdigest()[:10]}"
        template = files(__package__).joinpath("figure.html.jinja").read_text(encoding="utf-8")
        return Environment(autoescape=True).from_string(template).render(figure=self, steps=steps, name=name)

    def __repr__(self) -> str:
        return f"Figure: {self.caption}"


class Walk(Captioned):
    """A still figure that turns into a walk through ``steps``, by slider, arrow keys or a button that plays them.

    Args:
        still: what is shown where no script runs; its kind is that of all steps.
        steps: what is said at each step, to the figure shown there.
        label: of the slider.
        caption: of the whole.
    """

    def __init__(self, still: Captioned, steps: Mapping[str, Captioned], label: str, caption: str) -> None:
        super().__init__(still.image, caption, still.alt, still.kind, still.evidence)
        self.steps, self.label = steps, label


def show(
    figure: Figure, caption: str, alt: str, rows: pd.DataFrame | None = None, vector: bool | None = None
) -> Captioned:
    """Close ``figure`` and return it with its caption, its alternative text and its badge.

    Args:
        figure: what was drawn.
        caption: what is to be seen; results in it are computed, not typed. What bands and whiskers mean is added.
        alt: the figure in words, for readers who do not see it.
        rows: the runs it was drawn from, for the badge. Without any, a line that says so takes the figure's place.
        vector: drawn as SVG (the default for charts) or as pixels (for pictures).
    """
    if rows is not None and rows.empty:
        plt.close(figure)
        return _missing(caption)
    kind = "picture" if any(axis.images for axis in figure.axes) else "chart"
    drawn = {artist.get_gid() for artist in figure.findobj()}
    drawn -= {"each"} if "few" in drawn else set()  # whose words begin alike
    if not drawn.isdisjoint(("seeds", "pictures")) and any(map(_is_cut, figure.axes)):
        drawn.add("cut")
    caption = " ".join([caption, *(words for spread, words in SPREAD.items() if spread in drawn)])
    form = "svg" if (kind == "chart" if vector is None else vector) else "png"
    mpl.rcParams.update(STYLE)
    stream = io.BytesIO()
    metadata: Any = {"Date": None} if form == "svg" else None
    figure.savefig(stream, format=form, dpi=DPI, transparent=kind == "chart", metadata=metadata)
    plt.close(figure)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[form]
    drawing = stream.getvalue()
    if form == "svg":  # ids hash positions to the last bit, in which two layouts of one figure may differ
        ids: dict[bytes, bytes] = {}
        known = rb'(?<=["#])[a-z][0-9a-f]{10}(?=[")])'
        drawing = re.sub(known, lambda one: ids.setdefault(one[0], b"i%d" % len(ids)), drawing)
    image = f"data:{mime};base64,{base64.b64encode(drawing).decode()}"
    return Captioned(image, caption, alt, kind, "" if rows is None else badge(rows))


def table(frame: pd.DataFrame, caption: str, rows: pd.DataFrame | None = None, index: bool = True) -> Captioned:
    """``frame`` as a table with a caption and the badge of the runs it was computed from."""
    if rows is not None and rows.empty:
        return _missing(caption)
    if index and frame.columns.nlevels == 1:  # the name of the rows in the row of the headings
        frame = frame.rename_axis(index=[None] * frame.index.nlevels, columns=frame.index.names[-1])
    with pd.option_context("display.max_colwidth", None):
        long = frame.map(lambda cell: isinstance(cell, str) and len(cell) > 40).any(axis=None)
        look = "ledger" if long else "dataframe"  # lines of text are wrapped, numbers are not
        content = frame.to_html(border=0, index=index, na_rep="", float_format="{:.4g}".format, classes=look)
    evidence = "" if rows is None else badge(rows)
    return Captioned(f'<div class="drawing">{content}</div>', caption, "", "tabular", evidence)


def _missing(caption: str) -> Captioned:
    return Captioned("<p><em>Not on record in this profile yet.</em></p>", caption, "", "tabular")


def badge(rows: pd.DataFrame) -> str:
    """On which evidence a figure stands: data, networks, the plain network's accuracy, seeds, device and profile."""
    told = rows[["data", "network", "plain", "device"]].drop_duplicates(["data", "network", "plain"])
    parts = [f"{row.network} on {row.data} ({row.plain})" for row in told.itertuples()]
    counts = rows.groupby("setting")["seed"].nunique()
    if counts.max() > 1 or "training.images" not in rows or rows["training.images"].any():  # else not trained here
        parts[-1] += f" · {seeds(counts)}"
    devices, profiles = ", ".join(rows["device"].unique()), ", ".join(rows["profile"].unique())
    return f"{'; '.join(parts)} · {devices} · profile {profiles}"


def seeds(counts: pd.Series) -> str:
    """Numbers of seeds, one or more, in words: "1 seed", "3 seeds", "2 to 3 seeds" where they differ."""
    least, most = int(counts.min()), int(counts.max())
    return f"{most if least == most else f'{least} to {most}'} seed{'s' * (most > 1)}"


def interval(values: pd.Series | Estimate, sign: str = "") -> str:
    """A fraction in per cent: an estimate and the ends of its interval, "70.4 (66.3 to 74.2)"; or what seeds gave.

    Of seeds that is "86.2 ± 0.4", the mean and half of its 95 % interval; of fewer than ``FEW`` each of them,
    "86.1, 86.4"; of none nothing. ``sign`` "+" also marks what is positive.
    """
    if isinstance(values, Estimate):
        middle, low, high = (f"{100 * value:{sign}.1f}" for value in values[:3])
        return f"{middle} ({low} to {high})" if np.isfinite(values.low) else middle
    values = values.dropna()
    if len(values) < FEW:
        return ",\N{NO-BREAK SPACE}".join(f"{100 * value:{sign}.1f}" for value in values)
    mean, ((below,), _), _ = _whiskers(values)
    return f"{100 * mean:{sign}.1f} ±\N{NO-BREAK SPACE}{100 * below:.1f}"


def losses(histories: Mapping[str, Sequence[Mapping[str, float]]], pictures: int) -> Captioned:
    """The training loss by epoch of networks that a page trains: layer to what ``training.train`` returned."""
    figure, axis = grid(width=6, height=2.4)
    for layer, history in histories.items():
        epochs, loss = range(1, len(history) + 1), [entry["loss"] for entry in history]
        axis.plot(epochs, loss, color=COLOURS[layer], marker=MARKERS[layer], label=layer)
    axis.set(xlabel="epoch", ylabel="training loss")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    caption = (
        f"Networks of this page: {pictures} drawn pictures, {len(epochs)} epoch{'s' * (len(epochs) > 1)}, one seed."
    )
    return show(figure, caption, f"A curve of loss against epoch for {' and '.join(histories)}.")
