"""Figures of the chapter on Vasconcelos et al. 2020, drawn from the study's results table.

Most show differences to the plain network, paired by seed, because seeds differ more than configurations do.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..plots import COLOURS, Captioned, across, describe, grid, interval, show
from ..records import home
from ..studies.findings import across_seeds, paired
from ..studies.vasconcelos2020 import STEMS
from ..studies.vasconcelos2020_findings import START, role

__all__ = ["bands", "compute", "controls", "corruptions", "filtering", "kernels", "location", "table", "transfer"]

PANELS = {"accuracy": "accuracy", "corruption_error": "corruption error"}
# Colour, marker and line of the four networks of the factorial with RandAugment, and of GELU.
LOOKS = {
    "none": (COLOURS["subsample"], "o", "-"),
    "all": (COLOURS["tri-3"], "s", "--"),
    "GELU + blur": ("#029e73", "D", (0, (5, 1))),
    "RandAugment": ("#de8f05", "^", "-."),
    "RandAugment + blur": ("#08306b", "v", ":"),
}


def _tried(table: pd.DataFrame, *cases: str) -> list[str]:
    """Those of the cases that the profile has."""
    return [case for case in cases if case in set(table["case"])]


def _forest(axis: Axes, table: pd.DataFrame, column: str, cases: list[str]) -> None:
    """Difference of each case to the plain network, in points, with its 95 % interval."""
    for place, case in enumerate(reversed(cases)):
        found = paired(across_seeds(table, column, case=case), across_seeds(table, column, case="none"))
        if found is None:
            continue
        if found.n > 1:
            axis.plot([100 * found.low, 100 * found.high], [place] * 2, color="#777777", lw=1.5)
        axis.plot(100 * found.value, place, "o", color=COLOURS["tri-3"], mec="#222222")
    axis.axvline(0, color="#222222", lw=0.8)
    axis.set_yticks(range(len(cases)), cases[::-1])
    axis.set_ylim(-0.6, len(cases) - 0.4)


def _differences(table: pd.DataFrame, cases: list[str], panels: dict[str, str], caption: str, alt: str) -> Captioned:
    figure, axes = grid(1, len(panels), width=9, height=0.9 + 0.32 * len(cases), sharey=True, squeeze=False)
    for axis, (column, label) in zip(axes[0], panels.items(), strict=True):
        _forest(axis, table, column, cases)
        axis.set_title(label, fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    figure.supxlabel("minus plain network (points)")
    bars = "Bars: 95 % intervals over seeds, paired. " if table["seed"].nunique() > 1 else ""
    chosen = table[table["case"].isin([*cases, "none"])]
    return show(figure, f"{caption} {bars}{describe(chosen)}.", f"{alt} Dots with bars beside a vertical line at zero.")


def location(table: pd.DataFrame) -> Captioned:
    """Every subset of the three places."""
    plain = table[table["case"] == "none"]
    return _differences(
        table,
        ["conv", "skip", "pool", "conv + skip", "conv + pool", "skip + pool", "all"],
        PANELS,
        f"What the filter does at each subset of the three places, compared with the plain network (accuracy "
        f"{interval(plain['accuracy'])}, corruption error {interval(plain['corruption_error'])} per cent). To the "
        "right is better on the left, to the left is better on the right.",
        "Two panels of seven subsets, accuracy and corruption error.",
    )


def controls(table: pd.DataFrame) -> Captioned:
    """Which part of the filter's work matters."""
    order = ("all", "forward only", "backward only", "too late", "random signs", "trainable", "after activation")
    return _differences(
        table,
        _tried(table, *order),
        PANELS,
        "Controls. 'Forward only' filters values but not gradients, 'backward only' the reverse; 'too late' filters "
        "after the subsampling, which widens the receptive field and removes no alias; 'random signs' reaches as far "
        "as the filter and removes no alias on average; 'trainable' starts from the same filter; 'after activation' is "
        "Zhang's place.",
        "Two panels of seven controls, accuracy and corruption error.",
    )


def filtering(table: pd.DataFrame) -> Captioned:
    """Filter length, and filters after every convolution."""
    return _differences(
        table,
        _tried(table, "all", "critical 5", "critical 7", "everywhere 3", "everywhere 5", "everywhere 7"),
        PANELS,
        "Too much of a good thing: three taps at the three places ('all'), longer filters there ('critical'), and the "
        "filter after every convolution ('everywhere').",
        "Two panels of filter lengths, accuracy and corruption error.",
    )


def transfer(table: pd.DataFrame) -> Captioned:
    """Few-shot accuracy inside and outside the training domain."""
    columns = [name for name in table if name.startswith("few_shot_") and name.endswith("_5")]
    panels = {name: f"few-shot, {name.split('_')[2]}" for name in columns}
    plain = table[table["case"] == "none"]
    levels = ", ".join(f"{panels[name][10:]} {interval(plain[name])}" for name in columns)
    order = ("all", "GELU", "GELU + blur", "RandAugment", "RandAugment + blur")
    return _differences(
        table,
        _tried(table, *order, "other stem", "other stem + blur", "wide stem"),
        panels,
        "Five-way five-shot accuracy of nearest centroids on frozen features, the same episodes for every network. "
        f"Plain network: {levels} per cent; chance is 20. 'Known' pictures are new ones of the kind trained on.",
        "One panel per domain, few-shot accuracy of the networks.",
    )


def corruptions(table: pd.DataFrame) -> Captioned:
    """Error under each of the fifteen corruptions."""
    names = list(table["corruption_error_by_name"].iloc[0])
    figure, axis = grid(width=9, height=3.8)
    for number, (case, (colour, marker, _)) in enumerate(LOOKS.items()):
        rows = table[table["case"] == case]["corruption_error_by_name"]
        mean, low, high = across([row[name] for name in names] for row in rows)
        x = np.arange(len(names)) + 0.16 * (number - 2)
        axis.vlines(x, 100 * low, 100 * high, color=colour, alpha=0.5)
        axis.plot(x, 100 * mean, marker, color=colour, ms=5, label="blur" if case == "all" else case)
    axis.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=40, ha="right")
    axis.set_ylabel("error (per cent)")
    axis.set_ylim(0, 100)
    axis.legend(ncol=5, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return show(
        figure,
        "Error under each common corruption, mean over severities (unnormalised; small pictures have no AlexNet to "
        f"divide by). Lines: 95 % intervals over seeds. {describe(table[table['case'].isin(LOOKS)])}.",
        "Fifteen groups of five markers, one group per corruption.",
    )


def bands(table: pd.DataFrame) -> Captioned:
    """Accuracy on pictures from which one band of frequencies is missing."""
    figure, axis = grid(width=7, height=3.6)
    shown = [case for case in LOOKS if case != "GELU + blur"]
    for case in shown:
        colour, marker, line = LOOKS[case]
        mean, low, high = across(table[table["case"] == case]["accuracy_without_band"])
        x = (np.arange(len(mean)) + 0.5) * np.sqrt(0.5) / len(mean)
        axis.plot(x, 100 * mean, color=colour, marker=marker, ls=line, label="blur" if case == "all" else case)
        axis.fill_between(x, 100 * low, 100 * high, color=colour, alpha=0.12)
    axis.axvline(0.5, color="#777777", lw=0.8)
    axis.set_xlabel("centre of the missing band (cycles per pixel; beyond 0.5 only diagonals)")
    axis.set_ylabel("accuracy (per cent)")
    axis.legend()
    return show(
        figure,
        "Accuracy when one annulus of the test pictures' spectrum is removed. Bands: 95 % intervals over seeds. "
        f"{describe(table[table['case'].isin(shown)])}.",
        "Four curves of accuracy against the missing frequency.",
    )


def kernels(table: pd.DataFrame) -> Captioned:
    """What learned kernels and learned blurs let pass."""
    figure, axes = grid(1, 2, width=9, height=3.4, sharey=True)
    plain = table[table["case"].isin(["none", "other stem"]) & (table["stem"] == 2)]
    for place, (kind, label) in enumerate({"stem": "stem 7x7", "strided conv": "conv 3x3", "skip": "skip 1x1"}.items()):
        values = [v for row in plain["stop_band"] for name, v in row.items() if role(name) == kind]
        axes[0].plot(np.full(len(values), place) + np.linspace(-0.15, 0.15, len(values)), values, "o", color="#222222")
        axes[0].text(place, 0.02, label, ha="center")
    axes[0].axhline(0.75, color="#777777", ls="--")
    axes[0].set(
        xticks=[], ylim=(0, 1), ylabel="share of power in the stop band", title="strided kernels, plain network"
    )
    learned = table[table["case"] == "trainable"]["stop_band"]
    for place, name in enumerate(name for name in learned.iloc[0] if role(name) == "blur"):
        axes[1].plot([place] * len(learned), [row[name] for row in learned], "s", color=COLOURS["tri-3"], mfc="none")
    axes[1].axhline(START, color="#222222", ls=":")
    axes[1].axhline(0.75, color="#777777", ls="--")
    axes[1].set(xlabel="trainable blur, from the input on", title="blurs that may learn")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    return show(
        figure,
        "Share of a kernel's power that aliases when every second pixel is kept; dashed: white kernels and single "
        "taps, "
        "dotted: the filter that trainable blurs start from. One point per kernel and seed, left with a stem of "
        f"stride 2. {describe(plain)}.",
        "Left: points of the stem, of strided convolutions and of shortcuts, the last all at 0.75. Right: squares of "
        "the learned blurs above or below a dotted line.",
    )


def compute(results: pd.DataFrame) -> pd.DataFrame:
    """What the first halving saves and what it costs: multiply-accumulates (millions), then per cent over seeds."""
    chosen = results[results["case"].isin(STEMS)]
    scores = ["accuracy", "few_shot_known_5", "few_shot_glyphs_5"]
    rows = chosen.groupby(["stem", "case"])
    table = rows[scores].agg(interval)
    table.insert(0, "macs (M)", (rows["macs"].max() / 1e6).round(2))
    return table


def table(results: pd.DataFrame) -> pd.DataFrame:
    """The papers' numbers beside ours (per cent, mean over seeds with 95 % interval); see the status of each."""
    paper = pd.read_csv(home() / "data/published/vasconcelos2020.csv")
    rows = []
    for entry in paper[paper["case"].notna()].itertuples():
        ours = results[results["case"] == entry.case]
        column = {"clean error": "accuracy", "top-1": "accuracy", "mCE": "corruption_error"}[entry.metric]
        values = 1 - ours[column] if entry.metric == "clean error" else ours[column]
        shown = interval(values) if len(ours) else ""
        rows.append([entry.paper, entry.model, entry.metric, entry.value, entry.status, entry.case, shown])
    columns = ["paper", "model", "metric", "published", "status", "our case", "ours"]
    return pd.DataFrame(rows, columns=columns).set_index(["paper", "model", "metric"])
