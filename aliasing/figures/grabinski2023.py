"""Figures of the chapter on Grabinski et al. 2023 that are drawn from records.

Every function takes the results table of the study. Its rows fall into groups: "native" (trained as usual), "input"
(only the stem differs), "adversarial" (single-step adversarial training) and "twin" (the same without adversary).
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from ..metrics import Estimate
from ..plots import COLOURS, MARKERS, Captioned, across, describe, grid, interval, legend, show
from ..records import home

__all__ = [
    "adversarial_training",
    "consistency",
    "corruptions",
    "differences",
    "input_control",
    "robustness",
    "spectra",
    "summary",
    "table",
]

EPS = 2  # index of 1/255 among the radii


def _group(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["group"] == name].dropna(axis=1, how="all")


def _line(axis: Axes, x: np.ndarray, curves: pd.Series, layer: str, **options: Any) -> None:
    mean, low, high = across(curves)
    axis.plot(x, mean, color=COLOURS[layer], marker=MARKERS[layer], label=layer, **options)
    axis.fill_between(x, low, high, color=COLOURS[layer], alpha=0.15)


def robustness(table: pd.DataFrame) -> Captioned:
    """Native robustness: accuracy against the radius of three attacks."""
    native = _group(table, "native")
    figure, axes = grid(1, 3, width=11, height=3.4, sharey=True)
    for axis, attack, title in zip(
        axes, ("fgsm", "pgd", "apgd_ce"), ("FGSM, one step", "PGD", "APGD, cross-entropy"), strict=True
    ):
        for layer, rows in native.groupby("layer", sort=False):
            _line(axis, np.array(rows[f"{attack}_eps"].iloc[0]), rows[f"{attack}_accuracy"], layer)
        axis.set_xscale("log", base=2)
        axis.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["1/4", "1/2", "1", "2", "4", "8"])
        axis.set_xlabel("radius (1/255, l-infinity)")
        axis.set_title(title)
    axes[0].set_ylabel("accuracy under attack (fraction)")
    axes[0].set_ylim(0, 1)
    axes[0].legend()
    return show(
        figure,
        f"Accuracy of naturally trained networks under attack. An image counts as lost as soon as a smaller radius "
        f"broke it. Bands: 95 % intervals over seeds. {describe(native)}.",
        "Three panels of accuracy falling with the radius, one line per downsampling layer; at 8/255 little is left "
        "of any network under the iterated attacks.",
    )


def corruptions(table: pd.DataFrame) -> Captioned:
    """Error under the common corruptions, by kind and on average."""
    native = _group(table, "native")
    names = sorted(native["corruption_error_by_name"].iloc[0])
    kinds = list(native["layer"].unique())
    figure, axis = grid(width=11, height=4.2)
    places = np.arange(len(names) + 1.0)
    places[-1] += 0.6
    for i, (layer, hatch) in enumerate(zip(kinds, ("", "///", "...", "xxx"), strict=False)):
        rows = native[native["layer"] == layer]
        each = [[errors[name] for name in names] for errors in rows["corruption_error_by_name"]]
        mean, low, high = across(
            [[*values, overall] for values, overall in zip(each, rows["corruption_error"], strict=True)]
        )
        place = places + (i - (len(kinds) - 1) / 2) * 0.2
        axis.bar(place, mean, 0.19, color=COLOURS[layer], label=layer, hatch=hatch, edgecolor="white", lw=0.3)
        axis.errorbar(place, mean, [mean - low, high - mean], fmt="none", color="#555555", lw=0.8)
    axis.set_xticks(places, [*(name.replace("_", " ") for name in names), "MEAN"], rotation=45, ha="right")
    axis.set_ylabel("error (fraction)")
    axis.set_ylim(0, 1)
    axis.legend(ncols=4)
    return show(
        figure,
        f"Error of naturally trained networks under the fifteen common corruptions, mean over severities, and the mean "
        f"of all. Bars: mean over seeds; whiskers: 95 % intervals over seeds. {describe(native)}.",
        "Grouped bars, four layers for each of fifteen corruptions and for their mean.",
    )


def spectra(table: pd.DataFrame) -> Captioned:
    """Where the energy of feature maps and of perturbations lies."""
    native = _group(table, "native")
    figure, axes = grid(1, 3, width=11, height=3.4)
    columns = (
        ("map", "in front of the first halving"),
        ("sampled", "behind it"),
        ("perturbation", "a gradient step of 1/255"),
    )
    for axis, (column, title) in zip(axes, columns, strict=True):
        for layer, rows in native.groupby("layer", sort=False):
            x = np.array(rows[f"{column}_frequency"].iloc[0])
            _line(axis, x, rows[f"{column}_spectrum"], layer, markevery=2)
        axis.set_title(title)
        axis.set_xlabel("frequency (cycles per pixel)")
    axes[0].axvline(0.25, color="#999999", lw=1, ls=":")
    axes[0].set_ylabel("mean log power")
    axes[2].legend()
    return show(
        figure,
        f"Radial power spectra: of the feature map in front of the first halving (right of the dotted line: what the "
        f"halved grid cannot hold), of the map behind it, and of the perturbation that one signed gradient step gives. "
        f"Bands: 95 % intervals over seeds. {describe(native)}.",
        "Three panels of log power against frequency, one line per layer.",
    )


def consistency(table: pd.DataFrame) -> Captioned:
    """Shift consistency against robust accuracy, one point per network."""
    native = _group(table, "native")
    figure, axis = grid(width=6, height=3.8)
    for layer, rows in native.groupby("layer", sort=False):
        robust = [curve[EPS] for curve in rows["pgd_accuracy"]]
        axis.scatter(rows["circular_consistency_drawn"], robust, color=COLOURS[layer], marker=MARKERS[layer], s=45)
    axis.set_xlabel("circular consistency (fraction, one drawn pair of shifts per picture)")
    axis.set_ylabel("accuracy under PGD of 1/255 (fraction)")
    legend(axis, native["layer"].unique())
    return show(
        figure,
        f"Accuracy under attack against shift consistency, one point per natural network. {describe(native)}.",
        "Scatter plot of accuracy under attack against consistency; colour and marker name the layer.",
    )


def input_control(table: pd.DataFrame) -> Captioned:
    """What pooling the picture itself does, with nothing else changed."""
    chosen = _group(table, "input")
    labels = {"subsample": "strided stem", "flc": "picture pooled by FLC, then the stem"}
    figure, axis = grid(width=6, height=3.4)
    for layer, rows in chosen.groupby("layer", sort=False):
        curves = [[clean, *curve] for clean, curve in zip(rows["accuracy"], rows["pgd_accuracy"], strict=True)]
        mean, low, high = across(curves)
        x = np.arange(len(mean))
        axis.plot(x, mean, color=COLOURS[layer], marker=MARKERS[layer], label=labels[layer])
        axis.fill_between(x, low, high, color=COLOURS[layer], alpha=0.15)
    axis.set_xticks(range(7), ["clean", "1/4", "1/2", "1", "2", "4", "8"])
    axis.set_xlabel("radius (1/255, l-infinity)")
    axis.set_ylabel("accuracy under PGD (fraction)")
    axis.set_ylim(0, 1)
    axis.legend()
    return show(
        figure,
        f"A stem that halves the picture, by its convolution's stride or by FLC before it; all later halvings are "
        f"strided. Bands: 95 % intervals over seeds. {describe(chosen)}.",
        "Two falling lines of accuracy against the radius of the attack.",
    )


def adversarial_training(table: pd.DataFrame) -> Captioned:
    """Single-step adversarial training, epoch by epoch: does PGD accuracy collapse while FGSM accuracy rises?"""
    chosen = _group(table, "adversarial")
    kinds = list(chosen["layer"].unique())
    figure, axes = grid(1, len(kinds), width=3.6 * len(kinds), height=3.2, sharey=True, squeeze=False)
    for axis, layer in zip(axes[0], kinds, strict=True):
        rows = chosen[chosen["layer"] == layer]
        for column, style in (("clean", ":"), ("fgsm", "--"), ("pgd", "-")):
            mean, low, high = across(rows[f"training.{column}"])
            x = np.arange(1, len(mean) + 1)
            axis.plot(x, mean, style, color=COLOURS[layer], marker=MARKERS[layer], ms=4, label=column)
            axis.fill_between(x, low, high, color=COLOURS[layer], alpha=0.12)
        axis.set(title=layer, xlabel="epoch")
        axis.legend()
    axes[0, 0].set_ylabel("accuracy on training pictures")
    axes[0, 0].set_ylim(0, 1)
    curves = chosen.groupby("layer", sort=False)["training.pgd"]
    falls = ", ".join(f"{np.mean([max(c) - c[-1] for c in rows]):.3f} ({layer})" for layer, rows in curves)
    return show(
        figure,
        f"Training with single-step attacks of 8/255 after a clean start, probed after every epoch: clean accuracy, "
        f"under one step (FGSM), under ten steps (PGD). Catastrophic overfitting would show as a solid line that drops "
        f"to zero while the dashed one stays; from its best epoch to the last it fell by {falls}. "
        f"Bands: 95 % intervals over seeds. {describe(chosen)}.",
        "One panel per layer: PGD accuracy is near zero in the clean epochs and rises once the attacks begin.",
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per cent, mean over seeds with 95 % interval, of everything that is one number per naturally trained network."""
    native = _group(table, "native")
    columns = {
        "accuracy": native["accuracy"],
        "PGD 1/255": native["pgd_accuracy"].map(lambda curve: curve[EPS]),
        "PGD 4/255": native["pgd_accuracy"].map(lambda curve: curve[4]),
        "corruption error": native["corruption_error"],
        "consistency": native["circular_consistency_drawn"],
        "alias error": native["mean_alias_error"],
        "feature stability, attack": native["stability_attack"],
        "feature stability, noise": native["stability_noise"],
    }
    return pd.DataFrame(columns).groupby(native["layer"], sort=False).agg(interval)


def differences(table: pd.DataFrame, other: str = "subsample") -> pd.DataFrame:
    """The same numbers as differences from ``other``, paired by seed, in points."""
    native = _group(table, "native").assign(
        **{"PGD 1/255": lambda rows: rows["pgd_accuracy"].map(lambda curve: curve[EPS])}
    )
    shown = {"accuracy": "accuracy", "PGD 1/255": "PGD 1/255", "corruption_error": "corruption error"}
    rows = {}
    for layer in native["layer"].unique():
        if layer == other:
            continue
        row = {}
        for column, label in shown.items():
            wide = native.pivot_table(column, "seed", "layer")
            row[label] = _points(Estimate.mean(torch.tensor((wide[layer] - wide[other]).dropna().to_numpy())))
        rows[f"{layer} minus {other}"] = row
    return pd.DataFrame(rows).T


def _points(estimate: Estimate) -> str:
    if estimate.n == 1:
        return f"{100 * estimate.value:+.1f}"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def table(results: pd.DataFrame) -> pd.DataFrame:
    """Adversarial training in the literature beside ours, in per cent; the papers' own tables could not be read."""
    chosen = _group(results, "adversarial")
    robust = chosen.assign(value=[curve[5] for curve in chosen["pgd_accuracy"]])
    ours = robust.groupby("layer", sort=False)["value"].agg(interval).reset_index()
    ours = ours.assign(
        dataset=chosen["data"].iloc[0],
        network=chosen["network"].iloc[0],
        method="FGSM training 8/255, " + ours["layer"],
        metric="PGD accuracy",
        status="ours",
    ).drop(columns="layer")
    paper = pd.read_csv(home() / "data/published/grabinski2023.csv")
    both = pd.concat([ours, paper])[["dataset", "network", "method", "metric", "value", "status", "source"]]
    return both.fillna("").set_index(["dataset", "network", "method"])
