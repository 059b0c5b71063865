"""Figures of the chapter on Saha and Gokhale that are drawn from records."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from ..metrics import Estimate
from ..plots import Captioned, across, describe, grid, interval, show
from ..records import home
from ..studies.saha2024_statistics import ring
from .saha2024_look import classes, look

__all__ = [
    "bias_by_depth",
    "biases",
    "gains",
    "overhead",
    "robustness",
    "segmentation",
    "segmentation_table",
    "surfaces",
    "table",
]

TIPS = ("tips", "tips + losses", "tips as published")


def _mean(values: Iterable[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % interval (0 for one seed)."""
    estimate = Estimate.mean(torch.tensor(list(values), dtype=torch.float64))
    return estimate.value, (estimate.high - estimate.value if estimate.n > 1 else 0.0)


def biases(results: pd.DataFrame) -> Captioned:
    """Maximum-sampling bias of every method by every definition."""
    chosen = classes(results, "msb_nearest")
    methods = list(chosen["method"].unique())
    titles = {
        "msb_exact": "output is the maximum",
        "msb_nearest": "nearest sample is the maximum",
        "msb_weight": "heaviest sample is the maximum",
    }
    figure, axes = grid(1, 3, width=9, height=3.6, sharex=True, sharey=True)
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for row, method in enumerate(methods):
            values = chosen.loc[chosen["method"] == method, column].dropna()
            if len(values):
                value, half = _mean(values)
                axis.errorbar(value, row, xerr=half, capsize=3, **look(method))
            else:
                axis.text(0.02, row, "not defined", va="center", fontsize=8)
        axis.axvline(0.25, color="#222222", linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=9)
        axis.set_xlim(-0.05, 1.05)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].invert_yaxis()
    figure.supxlabel("maximum-sampling bias (share of windows that are not constant)")
    constant = chosen["msb_constant"].mean()
    return show(
        figure,
        "Maximum-sampling bias by three definitions, mean over the four halvings of trained networks; dotted: chance. "
        "subsample behind a dense max and max are the same function, cut at another place. Left out: constant windows, "
        f"{100 * constant:.0f} per cent on average. Bars: 95 % intervals over seeds. {describe(chosen)}.",
        "Three panels of points per method; max lies at 1 where it is defined.",
    )


def bias_by_depth(results: pd.DataFrame) -> Captioned:
    """The bias at each halving."""
    chosen = classes(results, "msb_nearest_by_site")
    figure, axis = grid(width=7, height=3.8)
    for method, rows in chosen.groupby("method", sort=False):
        mean, low, high = across(rows["msb_nearest_by_site"])
        axis.plot(range(1, len(mean) + 1), mean, label=method, **look(method))
        axis.fill_between(range(1, len(mean) + 1), low, high, color=look(method)["color"], alpha=0.12)
    axis.set_xlabel("halving, from the input on")
    axis.set_ylabel("maximum-sampling bias (nearest)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8, ncols=2)
    return show(
        figure,
        f"Share of windows whose maximum is nearest to the output, halving by halving. Bands: 95 % intervals over "
        f"seeds. {describe(chosen)}.",
        "Lines of bias against depth, one per method; max is constant at 1.",
    )


def surfaces(results: pd.DataFrame) -> Captioned:
    """Agreement with the unshifted image over shifts, for both protocols."""
    chosen = classes(results, "surface_standard")
    figure, axes = grid(2, 4, width=9.5, height=2.6)
    for row, protocol in zip(axes, ("standard", "circular"), strict=True):
        maps = {
            method: np.mean(rows[f"surface_{protocol}"].tolist(), axis=0)
            for method, rows in chosen.groupby("method", sort=False)
        }
        for axis, method in zip(row, ("subsample", "lps", "tips + losses"), strict=False):
            reach = len(maps[method]) // 2 + 0.5
            picture = axis.imshow(maps[method], vmin=0.4, vmax=1, cmap="viridis", extent=(-reach, reach, reach, -reach))
            axis.grid(False)
            axis.set_title(f"{method}, {protocol}", fontsize=9)
        for method, values in maps.items():
            sizes = range(len(values) // 2 + 1)
            row[3].plot(sizes, [ring(values.tolist(), n) for n in sizes], label=method, markevery=2, **look(method))
        row[3].set_title(f"{protocol} shifts", fontsize=9)
        row[3].set_xlabel("size of the shift (pixels)")
    axes[0, 3].legend(fontsize=7)
    figure.colorbar(picture, ax=axes[:, 2], label="share of pictures that keep their class")
    figure.supylabel("shift down (pixels)")
    return show(
        figure,
        "Share of test pictures that keep the class they have unshifted. Maps: every shift, mean over seeds; curves: "
        "mean over the shifts whose larger component has that size. Top: what leaves is lost, black enters; bottom: "
        f"wrapped around. {describe(chosen)}.",
        "Two rows, standard and circular shifts: heat-maps for max pooling, LPS and TIPS, then curves for all layers; "
        "under circular shifts those of APS and LPS stay at one.",
        vector=False,
    )


def gains(results: pd.DataFrame) -> Captioned:
    """TIPS minus max pooling, the paper's means beside ours."""
    columns = {
        "accuracy": "accuracy",
        "standard_consistency": "standard_consistency",
        "standard_fidelity": "standard_fidelity_joint",
        "circular_consistency": "circular_consistency_drawn",
        "circular_fidelity": "circular_fidelity_joint",
    }
    paper = pd.read_csv(home() / "data/published/saha2024.csv").set_index("metric")["value"]
    chosen = classes(results, "accuracy").set_index("seed")
    plain = chosen[chosen["method"] == "subsample"]
    figure, axis = grid(width=7.5, height=3.4)
    place = np.arange(len(columns))
    published = [paper[f"{name}_gain"] for name in columns]
    axis.bar(place - 0.3, published, 0.18, color="#bbbbbb", edgecolor="#222222", label="paper")
    for offset, method, hatch in zip((-0.1, 0.1, 0.3), TIPS, ("", "//", ".."), strict=True):
        own = chosen[chosen["method"] == method]
        pairs = [_mean(100 * (own[column] - plain[column]).dropna()) for column in columns.values()]
        means, halves = zip(*pairs, strict=True)
        face = look(method)["color"]
        axis.bar(place + offset, means, 0.18, yerr=halves, capsize=2, color=face, hatch=hatch, alpha=0.8, label=method)
    axis.axhline(0, color="#222222", linewidth=0.8)
    axis.set_xticks(place, [name.replace("_", "\n") for name in columns])
    axis.set_ylabel("gain over max pooling (points)")
    axis.legend(fontsize=8)
    return show(
        figure,
        "What TIPS adds to max pooling. Paper: mean gains printed on its teaser, whose baseline and benchmarks are not "
        f"stated. Ours: joint fidelity; bars are 95 % intervals over seeds. {describe(chosen.reset_index())}.",
        "Grouped bars of five gains: the paper's, and ours for three variants of TIPS.",
    )


def robustness(results: pd.DataFrame) -> Captioned:
    """Accuracy under attack, and error under corruption."""
    chosen = classes(results, "pgd_accuracy")
    figure, axes = grid(1, 2, width=9, height=3.4, width_ratios=(2, 1))
    for row, (method, rows) in enumerate(chosen.groupby("method", sort=False)):
        eps = rows["pgd_eps"].iloc[0]
        mean, low, high = across(rows["pgd_accuracy"])
        axes[0].plot(eps, mean, label=method, **look(method))
        axes[0].fill_between(eps, low, high, color=look(method)["color"], alpha=0.12)
        value, half = _mean(rows["corruption_error"])
        axes[1].errorbar(value, row, xerr=half, capsize=3, **look(method))
    axes[0].set_xscale("log", base=2)
    axes[0].set_xlabel("radius of the attack (1/255, l_inf)")
    axes[0].set_ylabel("accuracy (fraction)")
    axes[0].legend(fontsize=8)
    axes[1].set_yticks(range(len(chosen["method"].unique())), chosen["method"].unique())
    axes[1].set_xlabel("corruption error (fraction)")
    return show(
        figure,
        "Left: accuracy under projected gradient descent. Right: mean error under the 15 common corruptions, not "
        f"normalised. Bands and bars: 95 % intervals over seeds. {describe(chosen)}.",
        "Left: accuracy falls with the radius for every layer. Right: one point per layer with its interval.",
    )


def segmentation(results: pd.DataFrame) -> Captioned:
    """Masks of a picture and of the moved picture, moved back."""
    shown = results[(results["task"] == "masks") & (results["seed"] == 0)].set_index("method")
    figure, axes = grid(2, 2 + len(shown), width=9.5, height=1.7)
    first = shown.iloc[0]
    top = np.max(first["true_masks"])
    for column, (title, maps) in enumerate(
        (("picture", first["pictures"]), ("truth", first["true_masks"]), *shown["masks"].items())
    ):
        moved = shown.loc[title, "masks_moved_back"] if column > 1 else maps
        for axis, values, heading in ((axes[0, column], maps, title), (axes[1, column], moved, "moved and back")):
            values = np.array(values[0])
            if title == "picture":
                axis.imshow(values.transpose(1, 2, 0).astype(np.uint8))
            else:
                axis.imshow(values, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
            axis.set_axis_off()
            if axis is axes[0, column] or column > 1:
                axis.set_title(heading, fontsize=9)
        if column > 1:
            axes[1, column].contour(np.array(maps[0]) != np.array(moved[0]), [0.5], colors="white", linewidths=1)
    return show(
        figure,
        "Classes of every pixel of a test picture (top), and of the same picture rolled by 3 and 5 pixels, rolled back "
        f"(bottom); white: pixels that changed. {describe(results[results['id'].isin(shown['id'])])}.",
        "Two rows: picture, true mask, and the masks of each network; APS's two masks are identical.",
        vector=False,
    )


def segmentation_table(results: pd.DataFrame) -> pd.DataFrame:
    """Segmentation, per cent: mean over seeds with 95 % interval."""
    columns = {
        "mean_iou": "mean IoU",
        "mask_consistency_standard": "consistency, standard",
        "mask_consistency_circular": "consistency, circular",
        "mask_equivariance_error": "equivariance error",
    }
    chosen = results[results["task"] == "masks"]
    return chosen.groupby("method", sort=False)[list(columns)].agg(interval).rename(columns=columns)


def overhead(results: pd.DataFrame) -> Captioned:
    """What each layer costs, relative to max pooling."""
    chosen = classes(results, "macs")
    chosen = chosen[chosen["seed"] == 0].set_index("method")
    relative = chosen[["parameters", "macs", "milliseconds"]] / chosen.loc[
        "subsample", ["parameters", "macs", "milliseconds"]
    ].astype(float)
    figure, axes = grid(1, 3, width=9, height=3.2, sharey=True)
    titles = ("parameters", "multiply-accumulates", "milliseconds per picture")
    for axis, column, title in zip(axes, relative, titles, strict=True):
        for row, method in enumerate(relative.index):
            axis.plot(relative[column].iloc[row], row, **look(method))
        axis.axvline(1, color="#222222", linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=9)
    axes[0].set_yticks(range(len(relative)), relative.index)
    axes[0].invert_yaxis()
    figure.supxlabel("relative to subsample")
    return show(
        figure,
        "Cost of a forward pass relative to max pooling (subsample behind a dense max), seed 0, in batches of 64; time "
        "depends on the machine and its load. Selection, pooling and Fourier transforms count no multiply-accumulates. "
        f"{describe(chosen.reset_index())}.",
        "Three panels of points per method; a dotted line marks one.",
    )


def table(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's CIFAR-10 table beside ours, per cent, and fidelity in three readings."""
    paper = pd.read_csv(home() / "data/published/saha2024.csv")
    paper = paper[(paper["dataset"] == "CIFAR-10")].pivot_table("value", "method", "metric")
    paper = paper.rename(index={"max": "subsample", "blur (filter not stated)": "bin-5"})
    columns = {
        "accuracy": "accuracy",
        "standard_consistency": "standard consistency",
        "standard_fidelity_product": "standard fidelity, product",
        "standard_fidelity_joint": "joint",
        "standard_fidelity_agreement3": "agreement of three",
        "circular_consistency_drawn": "circular consistency",
        "circular_fidelity_product": "circular fidelity, product",
        "circular_fidelity_joint": "joint (circular)",
    }
    ours = classes(results, "accuracy").groupby("method", sort=False)[list(columns)].agg(interval)
    ours = ours.rename(columns=columns)
    for place, metric, name in (
        (1, "accuracy", "accuracy (paper)"),
        (3, "standard_consistency", "standard consistency (paper)"),
        (5, "standard_stability", "standard fidelity, product (paper)"),
        (9, "circular_consistency", "circular consistency (paper)"),
    ):
        ours.insert(place, name, paper[metric].reindex(ours.index))
    return ours.fillna("")
