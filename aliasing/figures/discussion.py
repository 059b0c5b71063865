"""Figures of the page that asks what replicated: the controls, and the verdicts of all profiles side by side."""

import pandas as pd
from IPython.display import HTML
from matplotlib.ticker import MaxNLocator

from .. import studies
from ..chapters import Ledger
from ..plots import COLOURS, MARKERS, Captioned, across, describe, grid, legend, show
from ..studies.evidence import across_seeds
from ._ranking import paired
from .comparison import BACKBONES

__all__ = ["by_profile", "decided_controls", "learned", "low_pass", "right_ones"]


def decided_controls(profile: str) -> Ledger:
    """Every control with its rule and what the records of ``profile`` say."""
    decided = studies.findings(profile=profile)
    return Ledger(decided[decided["finding"].str.startswith("control")])


def by_profile() -> HTML:
    """A table with the verdict of every finding in every profile that has records."""
    decided = studies.findings().drop_duplicates(["finding", "profile"])
    wide = decided.pivot(index="finding", columns="profile", values="verdict")
    known = [name for name in decided["profile"].unique() if (wide[name] != "not run").any()]
    claims = decided.drop_duplicates("finding")[["finding", "claim"]]
    shown = claims.join(wide[known], on="finding")
    with pd.option_context("display.max_colwidth", None):
        return HTML(shown.to_html(index=False, border=0, classes="ledger"))


def right_ones(results: pd.DataFrame) -> Captioned:
    """Circular consistency over all pictures, and over those that are classified correctly where they are."""
    backbones = list(results["backbone"].unique())
    figure, axes = grid(1, len(backbones), width=9, height=3.6, squeeze=False, sharex=True)
    for axis, backbone in zip(axes[0], backbones, strict=True):
        rows = results[results["backbone"] == backbone]
        layers = list(rows["layer"].unique())
        for row, layer in enumerate(layers):
            own = rows[rows["layer"] == layer]
            style = {"color": COLOURS[layer], "marker": MARKERS[layer], "linestyle": "none"}
            for column, face, place in (
                ("circular_consistency", "none", row - 0.15),
                ("circular_consistency_if_correct", style["color"], row + 0.15),
            ):
                (value,), (low,), (high,) = across([[one] for one in own[column].dropna()])
                axis.errorbar(value, place, xerr=[[value - low], [high - value]], mfc=face, capsize=2, **style)
        axis.set_yticks(range(len(layers)), layers)
        axis.invert_yaxis()
        axis.set_title(BACKBONES[backbone])
    figure.supxlabel("circular consistency")
    return show(
        figure,
        "Consistency over all pairs of circular shifts: of all test pictures (hollow), and of those alone that the "
        f"network classifies correctly where they are (filled). Bars: 95 % intervals over seeds. {describe(results)}.",
        "A pair of points per layer, in a panel for each network; the filled ones lie further to the right.",
    )


def low_pass(results: pd.DataFrame) -> Captioned:
    """What each low-pass adds to the strided network: under attack against the radius, and under corruption."""
    native = results[results["group"] == "native"]
    figure, axes = grid(1, 2, width=9, height=3.6, width_ratios=(2, 1))
    layers = [layer for layer in native["layer"].unique() if layer != "subsample"]
    plain = native[native["layer"] == "subsample"].set_index("seed")
    for row, layer in enumerate(layers):
        own = native[native["layer"] == layer].set_index("seed")
        seeds = own.index.intersection(plain.index)
        gains = [
            [a - b for a, b in zip(own.at[s, "pgd_accuracy"], plain.at[s, "pgd_accuracy"], strict=True)] for s in seeds
        ]
        mean, low, high = across(gains)
        style = {"color": COLOURS[layer], "marker": MARKERS[layer]}
        axes[0].plot(own["pgd_eps"].iloc[0], mean, label=layer, **style)
        axes[0].fill_between(own["pgd_eps"].iloc[0], low, high, color=style["color"], alpha=0.12)
        added = paired(*(across_seeds(native, "corruption_error", layer=name) for name in (layer, "subsample")))
        if added:
            half = added.high - added.value if added.n > 1 else 0.0
            axes[1].errorbar(added.value, row, xerr=half, capsize=3, **style)
    axes[0].set_xscale("log", base=2)
    axes[0].set_xlabel("radius of PGD (1/255, l_inf)")
    axes[0].set_ylabel("accuracy gained over strides")
    axes[1].set_yticks(range(len(layers)), layers)
    axes[1].invert_yaxis()
    axes[1].set_xlabel("corruption error added")
    axes[1].xaxis.set_major_locator(MaxNLocator(4))
    nothing = {"color": "#222222", "linewidth": 0.8, "linestyle": ":"}
    axes[0].axhline(0, **nothing)
    axes[1].axvline(0, **nothing)
    legend(axes[0], layers)
    return show(
        figure,
        "The paper's layers beside a plain low-pass of three taps, all minus the strided network of one seed. Left: "
        f"higher is better; right: lower is better. Bands and bars: 95 % intervals over seeds. {describe(native)}.",
        "Left: gain in accuracy against the radius of the attack, a line per layer; right: change of corruption error.",
    )


def learned(results: pd.DataFrame) -> Captioned:
    """Corruption error against clean error, a point per case of the ablations."""
    means = results.groupby("case", sort=False)[["clean_error", "corruption_error"]].mean()
    figure, axis = grid(width=7, height=4.6)
    labelled: list[pd.Series] = []
    for case, point in means.iterrows():
        plain = case in ("none", "RandAugment", "other stem", "wide stem", "GELU")
        face = "none" if plain else COLOURS["tri-3"]
        axis.plot(point["clean_error"], point["corruption_error"], "o", color=COLOURS["tri-3"], mfc=face)
        if all(abs(point - other).max() > 0.03 for other in labelled):  # in a crowd only the first has its name
            axis.annotate(str(case), point, xytext=(5, -9), textcoords="offset points", fontsize=8)
            labelled.append(point)
    ends = [0, max(means["clean_error"])]
    axis.plot(ends, ends, color="#222222", linewidth=0.8, linestyle=":")
    axis.set_xlabel("error on the same pictures, clean")
    axis.set_ylabel("mean error under corruption")
    return show(
        figure,
        "Every case of the chapter on Vasconcelos et al.; hollow: without any filter. Dotted: no error added by "
        f"corruption. Means over seeds. {describe(results)}.",
        "A cloud of labelled points that lies along a rising line.",
    )
