"""Figures on the order of the layers: between seeds, networks and metrics, and against what happens at the sampler."""

import numpy as np
import pandas as pd

from ..plots import COLOURS, MARKERS, Captioned, describe, grid, legend, show
from ..studies.comparison_metrics import METRICS, prepared
from ..studies.ranking import agreement, association, concordance, wide
from .comparison import BARS, BESIDE, BY_COLUMN, points, summary

__all__ = ["agreement_of_networks", "correlations", "ranks", "sites"]


def ranks(table: pd.DataFrame) -> Captioned:
    """Bump charts: the rank of each layer in each seed."""
    rows = prepared(table)
    rows = rows[rows["backbone"] == "vgg"]
    chosen = [BY_COLUMN[name] for name in ("accuracy", "standard_consistency", "top1_change_crop")]
    figure, axes = grid(1, 3, width=10, height=3.8, sharey=True)
    for axis, metric in zip(axes, chosen, strict=True):
        values = wide(rows, metric.column)
        order = values.rank(axis=1, ascending=not metric.higher, method="first")
        for layer in order:
            axis.plot(range(len(order)), order[layer], marker=MARKERS[layer], color=COLOURS[layer], lw=1.2)
            axis.annotate(layer, (len(order) - 1, order[layer].iloc[-1]), xytext=(7, -3), textcoords="offset points")
        axis.set_xlim(-0.3, len(order) - 0.1 + 0.35 * len(order))
        axis.set_xticks(range(len(order)), [f"seed {seed}" for seed in order.index])
        together = concordance(values)
        kendall = f"W = {together.value:.2f} [{together.low:.2f}, {together.high:.2f}]" if together else "one seed"
        axis.set_title(f"{metric.title}\n{kendall}", fontsize=9)
    axes[0].set_ylabel("rank (1 is best)")
    axes[0].invert_yaxis()
    return show(
        figure,
        "Rank of each layer in each seed, VGG. Kendall's W is 1 if all seeds agree on the whole order and near 0 if "
        "they do not agree at all; in brackets its 95 % interval by the jackknife over layers. "
        f"{describe(rows)}.",
        "Three bump charts; lines of layers cross little where W is near one.",
    )


def correlations(table: pd.DataFrame) -> Captioned:
    """Rank correlation between all metrics over the layers of the VGG."""
    rows = prepared(table)
    rows = rows[rows["backbone"] == "vgg"]
    size = len(METRICS)
    matrix = np.full((size, size), np.nan)
    for i, first in enumerate(METRICS):
        for j, second in enumerate(METRICS):
            found = association(rows, first.column, second.column)
            if found is not None:
                matrix[i, j] = found.value * (1 if first.higher == second.higher else -1)
    figure, axis = grid(width=8, height=6.4)
    picture = axis.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            axis.text(j, i, f"{value:+.1f}", ha="center", va="center", fontsize=7, color=_ink(value))
    titles = [metric.arrow for metric in METRICS]
    axis.set_xticks(range(size), titles, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(size), titles, fontsize=8)
    axis.grid(False)
    figure.colorbar(picture, label="rank correlation, good with good")
    return show(
        figure,
        "Spearman's rank correlation between metrics over the layers of the VGG, per seed, averaged over seeds. Signs "
        "are turned so that +1 means: good in the one is good in the other. "
        f"{rows['layer'].nunique()} layers; {describe(rows)}.",
        "A square matrix of correlations with a signed number in each cell, blue for positive and red for negative.",
    )


def _ink(value: float) -> str:
    return "white" if abs(value) > 0.65 else "#222222"


def agreement_of_networks(table: pd.DataFrame) -> Captioned:
    """The same layer in both networks."""
    table = prepared(table)
    plain, residual = (table[table["backbone"] == name] for name in ("vgg", "resnet"))
    shared = [layer for layer in plain["layer"].unique() if layer in set(residual["layer"])]
    chosen = [BY_COLUMN[name] for name in ("accuracy", "standard_consistency", "top1_change_crop")]
    figure, axes = grid(1, 3, width=10, height=3.3)
    for axis, metric in zip(axes, chosen, strict=True):
        x, y = summary(plain, metric.column), summary(residual, metric.column)
        points(axis, x.loc[shared], y.loc[shared])
        tau = agreement(plain, residual, metric.column)
        axis.set_title(f"{metric.arrow}\nKendall's tau {tau.value:+.2f}" if tau else metric.arrow, fontsize=9)
        axis.set_xlabel("VGG")
    axes[0].set_ylabel("residual network")
    legend(figure, shared, **BESIDE)
    return show(
        figure,
        "Each layer in both networks. Were the order of the layers the same, the points would rise from left to right; "
        f"Kendall's tau (per seed, averaged) is then 1. {BARS}. {describe(table)}.",
        "Three scatter plots of the residual network's value against the VGG's, a marker per layer.",
    )


def sites(table: pd.DataFrame) -> Captioned:
    """What happens at the downsampling sites against what the whole network does."""
    rows = prepared(table)
    rows = rows[rows["backbone"] == "vgg"]
    figure, axes = grid(1, 2, width=9, height=3.6)
    for axis, first, second in (
        (axes[0], "mean_alias_error", "top1_change_crop"),
        (axes[1], "msb_nearest", "standard_consistency"),
    ):
        points(axis, summary(rows, first), summary(rows, second))
        found = association(rows, first, second)
        axis.set_title(f"Spearman's correlation {found.value:+.2f}" if found else "", fontsize=9)
        axis.set_xlabel(BY_COLUMN[first].title)
        axis.set_ylabel(BY_COLUMN[second].title)
    legend(figure, rows["layer"].unique(), **BESIDE)
    return show(
        figure,
        "Left: relative error that aliasing makes at the downsampling sites against the network's one-pixel change. "
        "Right: share of windows in which the value nearest to the output is the maximum, against standard "
        f"consistency. Correlations per seed, averaged. {BARS}. {describe(rows)}.",
        "Two scatter plots with a marker per layer.",
    )
