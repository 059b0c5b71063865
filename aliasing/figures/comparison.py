"""Figures of the comparison of all layers.

Every function takes the results table of the study and returns a captioned figure, unless it says otherwise.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .. import layers
from ..metrics import Estimate
from ..plots import COLOURS, MARKERS, Captioned, across, describe, grid, legend, show
from ..studies.comparison import METRICS, Metric, prepared
from ..studies.evidence import across_seeds
from ._ranking import paired

__all__ = [
    "BACKBONES",
    "BARS",
    "BESIDE",
    "BY_COLUMN",
    "cost",
    "differences",
    "efficient",
    "fronts",
    "gallery",
    "named",
    "points",
    "robustness",
    "summary",
    "two_shifts",
]

BACKBONES = {"vgg": "VGG", "resnet": "Residual network"}
BY_COLUMN = {metric.column: metric for metric in METRICS}
BARS = "Bars: 95 % intervals over seeds"
# The place of a legend of many layers, whose names at the markers would cover each other.
BESIDE: dict[str, Any] = {"loc": "outside right center", "fontsize": 9}


def summary(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over seeds and half width of its 95 % interval (0 for one seed), one row per layer."""
    rows = {}
    for layer, values in table.groupby("layer", sort=False)[column]:
        estimate = Estimate.mean(torch.tensor(values.dropna().to_numpy(dtype=float)))
        rows[layer] = (estimate.value, (estimate.high - estimate.low) / 2 if estimate.n > 1 else 0.0)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "half"])


def efficient(points: pd.DataFrame, first: Metric, second: Metric) -> list[str]:
    """The rows of ``points`` (a column per metric) than which no other is better in one and not worse in the other."""
    signs = [1 if metric.higher else -1 for metric in (first, second)]
    values = points[[first.column, second.column]].to_numpy() * signs
    kept = [not ((values >= row).all(1) & (values > row).any(1)).any() for row in values]
    return points.index[kept].tolist()


def points(axis: Axes, x: pd.DataFrame, y: pd.DataFrame) -> None:
    """One marker per layer with its error bars; a legend names them."""
    for layer in x.index:
        look: dict[str, Any] = {"color": COLOURS[layer], "marker": MARKERS[layer]}
        axis.errorbar(x["mean"][layer], y["mean"][layer], y["half"][layer], x["half"][layer], lw=0.8, ms=6, **look)


def gallery() -> Captioned:
    """One picture with every frequency, halved by every layer that has nothing to learn."""
    side = 64
    position = torch.arange(side) - side / 2 + 0.5
    picture = 0.5 + 0.5 * torch.cos(torch.pi * (position[:, None] ** 2 + position**2) / side)
    names = [
        name for name, entry in layers.CATALOGUE.items() if not entry.parameters and name not in ("bin-4", "bin-6")
    ]
    figure, axes = grid(2, 5, width=9, height=2.0)
    views = {"picture": picture}
    for name in names:
        views[name] = layers.create(name, 1, padding_mode="circular")(picture[None, None])[0, 0]
    for axis, (name, view) in zip(axes.flat, views.items(), strict=False):
        axis.imshow(view.clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    return show(
        figure,
        "Rings that get finer outwards, up to the highest frequency the grid of 64 x 64 pixels can hold at the edges, "
        "and what each layer makes of them at half the size. Rings that turn up in the corners and edges of the "
        "small pictures are aliases: the true rings there are too fine for the smaller grid, and grey is the right "
        "answer. Computed by the package's layers.",
        "Ten square pictures: concentric rings, then smaller versions; subsample, max and aps show false rings at the "
        "edges, the blurs fade to grey with growing strength, flc and asap keep sharp rings and cut the rest.",
        vector=False,
    )


def differences(table: pd.DataFrame) -> Captioned:
    """What each layer changes against plain subsampling, paired by seed."""
    table = prepared(table)
    chosen = [BY_COLUMN[name] for name in ("accuracy", "standard_consistency", "top1_change_crop")]
    order = [name for name in table["layer"].unique() if name != "subsample"]
    figure, axes = grid(1, 3, width=9, height=0.34 * len(order) + 1.2, sharey=True)
    for axis, metric in zip(axes, chosen, strict=True):
        for offset, (_, rows) in enumerate(table.groupby("backbone", sort=False)):
            plain = across_seeds(rows, metric.column, layer="subsample")
            for place, layer in enumerate(order):
                change = paired(across_seeds(rows, metric.column, layer=layer), plain)
                if change is None:
                    continue
                half = (change.high - change.low) / 2 if change.n > 1 else 0
                face = "none" if offset else COLOURS[layer]
                axis.errorbar(
                    change.value, place + 0.3 * offset, xerr=half, fmt=MARKERS[layer], color=COLOURS[layer], mfc=face
                )
        axis.axvline(0, color="#222222", lw=1)
        axis.set_title(metric.arrow, fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_yticks(range(len(order)), order)
    axes[0].invert_yaxis()
    figure.supxlabel("layer minus subsample (fraction)")
    handles = [
        Line2D([], [], color="#222222", marker="o", ls="", label=BACKBONES[name], mfc="none" if index else "#222222")
        for index, name in enumerate(table["backbone"].unique())
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return show(
        figure,
        "What each layer changes against plain subsampling (in the VGG: against max pooling), paired by seed. Filled: "
        f"VGG; open: residual network. The arrow says which side is better. {BARS}. {describe(table)}.",
        "Three forest plots with a row per layer: accuracy, standard consistency and one-pixel change minus those of "
        "subsample, each with an error bar and a line at zero.",
    )


def fronts(table: pd.DataFrame) -> Captioned:
    """Accuracy against consistency, against one-pixel change and against work, with the Pareto front of each."""
    table = prepared(table)
    against = [BY_COLUMN[name] for name in ("circular_consistency", "top1_change_crop", "work")]
    backbones = table["backbone"].unique()
    figure, axes = grid(len(backbones), 3, width=10, height=3.3, squeeze=False)
    for row, backbone in zip(axes, backbones, strict=True):
        rows = table[table["backbone"] == backbone]
        accuracy = summary(rows, "accuracy")
        for axis, metric in zip(row, against, strict=True):
            other = summary(rows, metric.column)
            points(axis, other, accuracy)
            means = pd.DataFrame({"accuracy": accuracy["mean"], metric.column: other["mean"]})
            front = means.loc[efficient(means, BY_COLUMN["accuracy"], metric)].sort_values(metric.column)
            axis.plot(front[metric.column], front["accuracy"], "--", color="#222222", lw=1, zorder=0)
            axis.set_xlabel(metric.arrow)
            axis.set_title(BACKBONES[backbone], fontsize=9)
        row[0].set_ylabel("accuracy ↑")
    legend(figure, table["layer"].unique(), **BESIDE)
    return show(
        figure,
        "Accuracy against circular consistency, against the probability that one pixel of crop shift changes the "
        "answer, and against multiply-accumulates relative to subsample. Dashed: the Pareto front of the means; a "
        f"layer off the front is beaten in one respect and not better in the other. {BARS}. {describe(table)}.",
        "Scatter plots with a marker per layer, one row per network, and a dashed line through those layers that "
        "no other layer beats in both respects.",
    )


def two_shifts(table: pd.DataFrame) -> Captioned:
    """Circular against standard consistency: does what holds on the torus hold in the world?"""
    table = prepared(table)
    backbones = table["backbone"].unique()
    figure, axes = grid(1, len(backbones), width=9, height=3.8, squeeze=False, sharey=True)
    for axis, backbone in zip(axes[0], backbones, strict=True):
        rows = table[table["backbone"] == backbone]
        x, y = summary(rows, "circular_consistency"), summary(rows, "standard_consistency")
        points(axis, x, y)
        ends = [min(x["mean"].min(), y["mean"].min()), 1]
        axis.plot(ends, ends, ":", color="#777777", lw=1)
        axis.set_title(BACKBONES[backbone])
        axis.set_xlabel("circular consistency (fraction)")
    axes[0, 0].set_ylabel("standard consistency (fraction)")
    legend(figure, table["layer"].unique(), **BESIDE)
    return show(
        figure,
        "Consistency under standard shifts (up to 8 pixels, zero fill) against consistency under circular ones "
        "(all of them, exact). On the dotted line the two are equal; a layer far to the right and not up keeps its "
        f"promise on the torus only. {BARS}. {describe(table)}.",
        "Two scatter plots, a marker per layer, and a dotted diagonal.",
    )


def robustness(table: pd.DataFrame) -> Captioned:
    """Attacks and corruptions, for which none of the layers was made."""
    rows = prepared(table)
    rows = rows[rows["backbone"] == "vgg"]
    figure, axes = grid(1, 2, width=10, height=4.2)
    for layer, group in rows.groupby("layer", sort=False):
        look: dict[str, Any] = {"color": COLOURS[layer], "marker": MARKERS[layer], "ms": 5, "lw": 1.2}
        axes[0].plot(group["pgd_eps"].iloc[0], across(group["pgd_accuracy"])[0], label=layer, **look)
    axes[0].set_xscale("log", base=2)
    axes[0].set_xlabel("radius of the attack (1/255, l-infinity)")
    axes[0].set_ylabel("accuracy under PGD (fraction)")
    error = summary(rows, "corruption_error")
    places = range(len(error))
    for place, layer in zip(places, error.index, strict=True):
        mean, half = error.loc[layer]
        axes[1].errorbar(mean, place, xerr=half, fmt=MARKERS[layer], color=COLOURS[layer])
    axes[1].set_yticks(places, error.index)
    axes[1].invert_yaxis()
    axes[1].set_xlabel("mean error under 15 corruptions (fraction)")
    axes[0].legend(fontsize=8)
    return show(
        figure,
        "Left: accuracy under projected gradient descent against its radius, means over seeds. Right: error averaged "
        f"over fifteen corruptions and their severities. {BARS}. {describe(rows)}.",
        "Left: falling curves, one per layer. Right: a dot of corruption error per layer.",
    )


def cost(table: pd.DataFrame) -> Captioned:
    """What each layer costs, relative to subsampling."""
    table = prepared(table)
    backbones = table["backbone"].unique()
    figure, axes = grid(1, len(backbones), width=9, height=3.8, squeeze=False)
    for axis, backbone in zip(axes[0], backbones, strict=True):
        rows = table[table["backbone"] == backbone].drop_duplicates("layer").set_index("layer")
        places = np.arange(len(rows))
        for offset, (column, label, hatch) in enumerate(
            (("work", "multiply-accumulates", ""), ("time", "time", "///"))
        ):
            colours = [COLOURS[layer] for layer in rows.index]
            face = colours if not hatch else "white"
            axis.barh(
                places + 0.4 * offset, rows[column], 0.38, color=face, edgecolor=colours, hatch=hatch, label=label
            )
        axis.axvline(1, color="#222222", lw=1)
        axis.set_yticks(places + 0.2, rows.index)
        axis.invert_yaxis()
        axis.set_xlabel("relative to subsample")
        axis.set_title(BACKBONES[backbone])
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return show(
        figure,
        "Multiply-accumulates as this package computes (filled; blurs and Fourier layers are matrix products here, "
        "which trades operations for time; pointwise work is not counted) and time of a forward pass in batches of 64 "
        "(hatched; one measurement on the machine that trained the network, so a rough one), both relative to "
        f"subsample. {describe(table[table['seed'] == table['seed'].min()])}.",
        "Horizontal bars, two per layer, and a line at one.",
    )


def named(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *most, last = list(names) or ["none"]
    return f"{', '.join(most)} and {last}" if most else last
