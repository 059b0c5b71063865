"""Figures of the chapter on Azulay & Weiss: jaggedness, protocols, sizes, typicality, remedies, the table.

Every function takes the results table of the study and returns a captioned figure. Single pictures are in ``sweeps``,
what looks inside the networks in ``shiftability``, the photographer's bias in ``photographers_bias``.
"""

import numpy as np
import pandas as pd

from ..plots import COLOURS, MARKERS, Captioned, across, describe, grid, interval, show
from ..records import home

__all__ = ["BACKBONES", "jaggedness", "networks", "protocols", "remedies", "sizes", "table", "typicality"]

PROTOCOLS = ("crop", "black", "inpainting", "scale")
BACKBONES = {"vgg": "VGG", "resnet": "residual network"}
HATCHES = {"vgg": "", "resnet": "//"}


def networks(results: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Name, colour and runs of the networks on the study's own data: backbone, layer, augmentation."""
    found = []
    for (backbone, layer, augmented), rows in results[results["main"]].groupby(
        ["backbone", "layer", "augmented"], sort=False
    ):
        name = f"{BACKBONES[backbone]}, {layer}{', augmented' if augmented else ''}"
        found.append((name, COLOURS[layer], rows))
    return found


def jaggedness(results: pd.DataFrame) -> Captioned:
    """The bars of Figure 4 of v1, in the two normalisations that can be compared between data sets."""
    rows = results[results["main"] & results["jaggedness_pairs_circular"].notna()]
    figure, axes = grid(1, 2, width=9, height=3.2)
    for axis, column, label in zip(
        axes, ("images", "pairs"), ("pictures with a crossing", "neighbours with a crossing"), strict=True
    ):
        for offset, border in ((-0.2, "inpainting"), (0.2, "circular")):
            for place, (_, colour, own) in enumerate(networks(rows)):
                mean, low, high = across([[value] for value in own[f"jaggedness_{column}_{border}"]])
                axis.bar(
                    place + offset, mean, 0.38, color=colour, hatch="//" if border == "circular" else "",
                    edgecolor="white", yerr=[mean - low, high - mean], capsize=3, ecolor="#d55e00",
                )  # fmt: skip
        axis.set_xticks(range(len(networks(rows))), [name.replace(", ", "\n") for name, _, _ in networks(rows)])
        axis.set_ylabel(f"share of {label}")
        axis.set_ylim(0, 1.4 * max(bar.get_height() for bar in axis.patches) + 0.01)
    axes[0].set_title("plain bars: inpainted sweep, hatched: circular", fontsize=10, loc="left")
    return show(
        figure,
        f"How often the right class enters or leaves the top {rows['jaggedness_top'].iloc[0]:.0f} as a picture moves "
        f"down by one pixel a step. The paper's own normalisation is not known. Whiskers: 95 % intervals over seeds. "
        f"{describe(rows)}.",
        "Two bar charts of jaggedness per network, for the inpainted and the circular sweep.",
    )


def protocols(results: pd.DataFrame) -> Captioned:
    """The journal's bar chart: four one-pixel protocols by networks, P(top-1 change) and mean absolute change."""
    rows = results[results["main"] & ~results["augmented"]]
    found = networks(rows)
    figure, axes = grid(2, 1, width=9, height=2.8, sharex=True)
    width = 0.8 / len(found)
    for axis, column, label in zip(
        axes, ("top1_change", "mean_absolute_change"), ("P(top-1 change)", "mean absolute change"), strict=True
    ):
        for index, (name, colour, own) in enumerate(found):
            mean, low, high = across(own[[f"{column}_{p}" for p in (*PROTOCOLS, "circular")]].to_numpy().tolist())
            places = np.arange(len(mean)) + (index - len(found) / 2 + 0.5) * width
            axis.bar(
                places, mean, width, color=colour, hatch=HATCHES[own["backbone"].iloc[0]], edgecolor="white",
                yerr=[mean - low, high - mean], ecolor="#d55e00", capsize=2, label=name,
            )  # fmt: skip
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.4 * max(bar.get_height() for bar in axis.patches) + 0.01)
    axes[1].set_xticks(range(5), [*PROTOCOLS, "circular (ours)"])
    axes[0].legend(fontsize=8, ncols=2)
    return show(
        figure,
        f"What one pixel does: share of changed decisions and mean change of the leading class's probability, under "
        f"the paper's four protocols and a circular shift. Whiskers: 95 % intervals over seeds, cut at the "
        f"frame. {describe(rows)}.",
        "Grouped bars for five protocols; the networks with longer blur change less.",
    )


def sizes(results: pd.DataFrame) -> Captioned:
    """Change rate, mean absolute change and accuracy against the size of the picture, as in the released script."""
    rows = results[results["main"] & results["size_change"].notna()]
    figure, axes = grid(3, 1, width=7.5, height=2.3, sharex=True)
    for name, colour, own in networks(rows):
        line = ":" if own["augmented"].iloc[0] else "--" if own["backbone"].iloc[0] == "resnet" else "-"
        marker = MARKERS[own["layer"].iloc[0]]
        for axis, column in zip(axes, ("size_change", "size_absolute_change", "size_accuracy"), strict=True):
            mean, low, high = across(own[column])
            face = "white" if own["backbone"].iloc[0] == "resnet" else None
            axis.plot(own["size_axis"].iloc[0], mean, line, color=colour, marker=marker, mfc=face, label=name)
            axis.fill_between(own["size_axis"].iloc[0], low, high, color=colour, alpha=0.12)
    for axis, label in zip(axes, ("P(top-1 change)", "mean absolute change", "accuracy"), strict=True):
        axis.set_ylabel(label)
        axis.axvline(1.15, color="#777777", lw=0.8)
        axis.set_ylim(0, 1.3 * max(max(line.get_ydata()) for line in axis.lines[:-1]) + 0.01)
    axes[0].legend(fontsize=8)
    axes[2].set_xlabel("left: share of the area cut out and enlarged; right: shrunk by this factor on black")
    return show(
        figure,
        f"One-pixel change against the size of the picture; 1 is the whole picture. Left of the grey line crops, right "
        f"of it pictures embedded in black. Bands: 95 % intervals over seeds, cut at the frame. {describe(rows)}.",
        "Three stacked panels against size: change rates are lowest and accuracy is highest near size 1.",
    )


def typicality(results: pd.DataFrame) -> Captioned:
    """Change rate in fifths of the test set, from the most typical to the least."""
    rows = results[results["main"] & results["typicality_change"].notna()]
    figure, axes = grid(1, 3, width=9.5, height=3.2)
    columns = {
        "typicality_change": "P(top-1 change), circular",
        "typicality_change_if_correct": "the same, if classified right",
        "typicality_accuracy": "accuracy",
    }
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for name, colour, own in networks(rows):
            line = "--" if own["backbone"].iloc[0] == "resnet" else "-"
            known = own[column].dropna()
            if len(known):
                mean, low, high = across(known)
                fifths = range(1, len(mean) + 1)
                marker, face = MARKERS[own["layer"].iloc[0]], "white" if line == "--" else None
                axis.plot(fifths, mean, line, color=colour, marker=marker, mfc=face, label=name)
                axis.fill_between(fifths, low, high, color=colour, alpha=0.12)
        axis.set_xlabel("fifth of the test set")
        axis.set_title(label, fontsize=10)
        axis.set_ylim(0, 1.3 * max((max(line.get_ydata()) for line in axis.lines), default=0) + 0.01)
    axes[0].legend(fontsize=8)
    return show(
        figure,
        f"Change by one pixel in five groups of test pictures, 1 nearest to the training pictures in the network's own "
        f"features, 5 farthest. Bands: 95 % intervals over seeds. {describe(rows)}.",
        "Three panels against the fifth of typicality: change rises and accuracy falls towards atypical pictures.",
    )


def remedies(results: pd.DataFrame) -> Captioned:
    """Blur, augmentation and both, on the shifts of the augmentation and on the paper's protocols."""
    rows = results[results["main"] & (results["backbone"] == "vgg")]
    figure, axes = grid(1, 3, width=9.5, height=3.4)
    columns = ("top1_change_circular", "top1_change_crop", "top1_change_black")
    for axis, column in zip(axes, columns, strict=True):
        for layer, own in rows.groupby("layer", sort=False):
            for augmented, part in own.groupby("augmented"):
                axis.scatter(
                    part["accuracy"], part[column], color=COLOURS[layer], marker=MARKERS[layer], s=45,
                    facecolor="none" if augmented else COLOURS[layer],
                    label=f"{layer}{', augmented' if augmented else ''}",
                )  # fmt: skip
        axis.set_title(column.removeprefix("top1_change_"), fontsize=10)
        axis.set_xlabel("accuracy")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("P(top-1 change)")
    axes[0].legend(fontsize=8)
    return show(
        figure,
        f"The two remedies: one point per network, right and low is good. The augmentation shows circular shifts (left "
        f"panel), never pictures on black (right panel). {describe(rows)}.",
        "Three scatter plots of P(top-1 change) against accuracy; open markers, with augmentation, lie low on the left "
        "and less so on the right.",
    )


def table(results: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of the journal version (per cent) beside ours (per cent, mean over seeds with 95 % interval)."""
    paper = pd.read_csv(home() / "data/published/azulay2018.csv")
    paper = paper[
        paper["package"].isin(["PyTorch", "Keras"]) & paper["source"].str.startswith("Table 1 of the journal")
    ]
    paper = paper.assign(value=(100 * paper["value"]).map("{:.1f}".format))
    theirs = paper.pivot_table("value", ["network", "package"], ["protocol", "metric"], aggfunc="first")
    theirs.index = [f"paper: {network} ({package})" for network, package in theirs.index]
    columns = {
        (protocol, metric): f"{column}_{protocol}"
        for protocol in ("black", "crop")
        for metric, column in (("MAC", "mean_absolute_change"), ("P(top-1 change)", "top1_change"))
    }
    ours = pd.DataFrame(
        {
            f"ours: {name}": {key: interval(own[column]) for key, column in columns.items()}
            for name, _, own in networks(results)
        }
    ).T
    return pd.concat([theirs, ours]).fillna("")
