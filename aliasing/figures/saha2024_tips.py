"""Figures of the chapter on Saha and Gokhale that look inside TIPS: its equivariance, its weights, its undo loss."""

import numpy as np
import pandas as pd

from ..plots import Captioned, across, describe, grid, show
from ..studies.saha2024 import ALPHA
from ..studies.saha2024_statistics import mean
from .saha2024_look import classes, look
from .saha2024_theory import random_depth

__all__ = ["depth", "phases", "undo", "undo_split", "variants", "weights"]

PER_CENT = {"accuracy": "accuracy (%)", "standard_consistency": "standard\nconsistency (%)"}


def depth(results: pd.DataFrame) -> Captioned:
    """Error after realignment through the network, untrained and trained."""
    chosen = classes(results, "depth_error")
    untrained, data = random_depth()
    trained = {
        str(method): [[*row.depth_error, row.pooled_change] for row in rows.itertuples()]
        for method, rows in chosen.groupby("method", sort=False)
        if method in untrained
    }
    figure, axes = grid(1, 2, width=9, height=3.6, sharey=True)
    panels = {
        "random weights, double precision": {name: [[*e.maps, e.pooled]] for name, e in untrained.items()},
        "trained, single precision": trained,
    }
    for axis, (title, errors) in zip(axes, panels.items(), strict=True):
        for method, runs in errors.items():
            values = np.maximum(np.mean(runs, axis=0), 1e-17)  # exact zeros have no logarithm
            axis.plot(range(1, len(values) + 1), values, label=method, **look(method))
        axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("halving; last: pooled features")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("relative error, one-pixel roll")
    axes[1].legend(fontsize=8)
    return show(
        figure,
        "Relative error of the map behind each halving after its best realignment, worst of three one-pixel circular "
        f"rolls, mean over pictures; zeros are drawn at 1e-17. Left: {data}, one random network of width 8 per layer. "
        f"Right: mean over seeds. {describe(chosen)}.",
        "Two panels on a logarithmic axis: APS and LPS lie at rounding error, all other layers many orders above.",
    )


def weights(results: pd.DataFrame) -> Captioned:
    """Where the mixing weights end up."""
    chosen = classes(results, "tau_norm")
    figure, axes = grid(1, 2, width=9, height=3.2)
    for axis, column, floor, label in (
        (axes[0], "tau_norm", 0.5, "l2 norm of the four weights"),
        (axes[1], "tau_largest", 0.25, "largest of the four weights"),
    ):
        for method, rows in chosen.groupby("method", sort=False):
            mean, low, high = across(rows[column])
            axis.plot(range(1, len(mean) + 1), mean, label=method, **look(method))
            axis.fill_between(range(1, len(mean) + 1), low, high, color=look(method)["color"], alpha=0.15)
        axis.axhline(floor, color="#222222", linewidth=0.8, linestyle=":")
        axis.set_xlabel("halving, from the input on")
        axis.set_ylabel(label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    return show(
        figure,
        "Mixing weights of trained TIPS layers, mean over images and channels; dotted: uniform weights, that is, "
        f"average pooling; one phase would be 1. Bands: 95 % intervals over seeds. {describe(chosen)}.",
        "Two panels of lines against depth, one per variant of TIPS.",
    )


def phases(results: pd.DataFrame) -> Captioned:
    """Which phases the weights prefer."""
    chosen = classes(results, "tau_mean_phase")
    levels = len(chosen["tau_mean_phase"].iloc[0])
    figure, axes = grid(1, levels, width=9.5, height=2.6, sharey=True, squeeze=False)
    for method, rows in chosen.groupby("method", sort=False):
        consistency = 100 * rows["circular_consistency_drawn"].mean()
        density = np.mean(rows["tau_mean_phase"].tolist(), axis=0)
        for level, (axis, values) in enumerate(zip(axes[0], density, strict=True), start=1):
            places = 3 * (np.arange(len(values)) + 0.5) / len(values)
            label = f"{method}: circular consistency {consistency:.1f} %"
            axis.plot(places, np.maximum(values, 1e-4), label=label, markevery=4, **look(str(method)))
            axis.set_title(f"halving {level}", fontsize=9)
            axis.set_yscale("log")
    axes[0, 0].set_ylabel("density")
    figure.supxlabel("mean phase of the weights (1.5: no preference)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", fontsize=8, ncols=3)
    return show(
        figure,
        "Distribution of the mean phase that a channel's four weights give, phases counted 0 to 3 row by row, over "
        "channels and test images and averaged over seeds; densities below 0.0001 are drawn there. The repository "
        "shows such histograms for four 'handpicked' regularisers, whose form is not published. "
        f"{describe(chosen)}.",
        "One panel of three curves per halving.",
    )


def variants(results: pd.DataFrame) -> Captioned:
    """What the weight of the losses, the wake-up and the form of the loss change."""
    chosen = results[results["task"] == "variants"]
    chosen = chosen.assign(
        norm=[mean(norms) for norms in chosen["tau_norm"]], **{name: 100 * chosen[name] for name in PER_CENT}
    )
    usual = {"alpha": ALPHA, "wake": 0.4, "form": "code"}
    columns = {
        "alpha": "weight of the losses (0: neither)",
        "wake": "epochs before the undo loss (share)",
        "form": "form of the loss on the weights",
    }
    columns = {name: label for name, label in columns.items() if chosen[name].nunique() > 1}
    figure, axes = grid(
        3, len(columns), width=1.5 + 2.5 * len(columns), height=1.9, sharex="col", sharey="row", squeeze=False
    )
    for column, (name, label) in enumerate(columns.items()):
        others = [chosen[other] == value for other, value in usual.items() if other != name]
        groups = list(chosen[np.logical_and(*others)].groupby(name))
        for axis, reading in zip(axes[:, column], (*PER_CENT, "norm"), strict=True):
            values, low, high = np.array([across([[v] for v in rows[reading]]) for _, rows in groups])[:, :, 0].T
            places = range(len(groups))
            axis.errorbar(places, values, yerr=(values - low, high - values), capsize=3, **look("tips + losses"))
            axis.set_xticks(places, [str(value) for value, _ in groups])
        axes[2, column].set_xlabel(label)
    axes[2, 0].ticklabel_format(axis="y", useOffset=False)
    for axis, label in zip(axes[:, 0], (*PER_CENT.values(), "norm of\nthe weights"), strict=True):
        axis.set_ylabel(label)
    return show(
        figure,
        f"One thing changed at a time: {', '.join(columns.values())}. The usual setting "
        f"({', '.join(map(str, usual.values()))}) is in every column. Norm: mean over halvings, 0.5 for "
        f"uniform weights. Bars: 95 % intervals over seeds. {describe(chosen)}.",
        f"Columns of points with bars: {len(columns)} of accuracy, consistency and norm of the weights.",
    )


def undo(results: pd.DataFrame) -> Captioned:
    """What the undo loss asks for and what psi gives."""
    shown = classes(results[results["seed"] == 0], "undo_pictures")
    shown = shown[shown["method"] == "tips + losses"].iloc[0]
    rows = np.array(shown["undo_pictures"])
    figure, axes = grid(len(rows), 4, width=8, height=1.8, squeeze=False)
    titles = ("input X", "target: X moved", "psi(X)", "mean of all targets")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    for axis, values in zip(axes.flat, rows.reshape(-1, *rows.shape[2:]), strict=True):
        axis.imshow(values, cmap="gray", vmin=0, vmax=rows[:, :2].max())
        axis.set_axis_off()
    return show(
        figure,
        "The first TIPS layer of a network trained with the undo loss, three channels of one test picture, one grey "
        "scale. psi sees X and is asked for X moved by a shift that it is not told (here 5 down, 3 right); the best "
        f"it can do is the mean of all targets. {describe(results[results['id'] == shown['id']])}.",
        "Three rows of four grey maps: input, moved input, psi, and a blurred mean.",
        vector=False,
    )


def undo_split(results: pd.DataFrame) -> Captioned:
    """The undo loss of each TIPS layer: the part that no psi can lower, and the rest."""
    chosen = classes(results, "undo_floor")
    figure, axes = grid(1, len(chosen["method"].unique()), width=9, height=3.0, sharey=True)
    for axis, (method, rows) in zip(axes, chosen.groupby("method", sort=False), strict=True):
        floor, excess = (np.mean(rows[column].tolist(), axis=0) for column in ("undo_floor", "undo_excess"))
        level = np.arange(1, len(floor) + 1)
        axis.bar(level, floor, color="#bbbbbb", edgecolor="#222222", label="floor: shift unknown")
        axis.bar(level, excess, bottom=floor, color=look(method)["color"], hatch="//", label="psi against the mean")
        axis.axhline(1, color="#222222", linewidth=0.8, linestyle=":")
        axis.set_title(method, fontsize=9)
        axis.set_xlabel("halving")
    axes[0].set_ylabel("undo loss / energy of X")
    axes[0].legend(fontsize=8)
    return show(
        figure,
        "The undo loss over all circular shifts of up to a quarter of the map, split exactly: the variance of the "
        "target given X, which nothing that sees X alone can lower, and the distance of psi from the mean target. "
        f"Dotted: what psi = 0 would cost. Mean over seeds. {describe(chosen)}.",
        "Three panels of stacked bars, one per variant of TIPS and one bar per halving.",
    )
