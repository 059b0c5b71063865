"""Figures on the photographer's bias: where objects lie in the data, and what networks trained on it make of others."""

from typing import Any

import numpy as np
import pandas as pd

from ..datasets import shapes
from ..plots import COLOURS, MARKERS, Captioned, across, describe, grid, show

__all__ = ["learned", "positions", "where"]

BIASES = {"0": "always in the middle", "3": "around the middle (3 px)", "uniform": "anywhere"}
LINES = {"0": ":", "3": "--", "uniform": "-"}


def positions(count: int = 2000) -> Captioned:
    """Where the objects of the procedural pictures lie, for the three settings of the bias; after Figure 9 of v1."""
    figure, axes = grid(1, 3, width=9.5, height=3.2, sharex=True, sharey=True)
    bins = np.linspace(-11, 11, 23)
    for axis, (bias, label) in zip(axes, BIASES.items(), strict=True):
        sigma: Any = bias if bias == "uniform" else float(bias)
        centre = shapes.sample(count, 1, "train", sigma).centre.numpy() - 16
        image = axis.hist2d(centre[:, 1], centre[:, 0], bins=[bins, bins], cmap="viridis", vmin=0, vmax=25)[3]
        axis.grid(False)
        axis.invert_yaxis()
        axis.set_aspect("equal")
        axis.set_title(label, fontsize=10)
        axis.set_xlabel("right of the middle (pixels)")
    axes[0].set_ylabel("below the middle (pixels)")
    figure.colorbar(image, ax=axes, label=f"pictures of {count}", shrink=0.8)
    return show(
        figure,
        f"Positions of the objects in {count} training pictures of 32 x 32 pixels, at the three settings of the bias. "
        f"The middle one is what the other chapters train on. Apart from its place an object is the same in all three.",
        "Three maps of object positions: a single point in the middle, a round cloud, and an even square.",
        vector=False,
    )


def _trained(results: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Label, bias and runs of every network whose bias is known."""
    rows = results[results["bias_accuracy"].notna()]
    if rows["bias"].isin(["3"]).any() and not rows["main"].any():
        rows = rows[~rows["main"]]
    found = []
    for (bias, layer, augmented), own in rows.groupby(["bias", "layer", "augmented"], sort=True):
        name = f"{BIASES[bias]}{'' if layer == 'subsample' else f', {layer}'}{', augmented' if augmented else ''}"
        found.append((name, bias, own))
    return found


def learned(results: pd.DataFrame) -> Captioned:
    """Accuracy, one-pixel change and agreement with the centred scene against the distance from the middle."""
    figure, axes = grid(1, 3, width=10, height=3.6)
    titles = {
        "bias_accuracy": "accuracy",
        "bias_change": "P(top-1 change), one pixel",
        "bias_agreement": "agreement with the centred scene",
    }
    found = _trained(results)
    for name, bias, own in found:
        edges = np.array(own["bias_edges"].iloc[0])
        middles = (edges[1:] + edges[:-1]) / 2
        layer, augmented = own["layer"].iloc[0], own["augmented"].iloc[0]
        for axis, column in zip(axes, titles, strict=True):
            curves = [[np.nan if value is None else value for value in curve] for curve in own[column]]
            mean, low, high = across(curves)
            axis.plot(
                middles, mean, LINES[bias], color="#d55e00" if augmented else COLOURS[layer], marker=MARKERS[layer],
                mfc="none" if augmented else None, label=name,
            )  # fmt: skip
            axis.fill_between(middles, low.clip(0, 1), high.clip(0, 1), color=COLOURS[layer], alpha=0.08)
    for axis, title in zip(axes, titles.values(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_ylim(0, None if axis is axes[1] else 1)
        axis.set_xlabel("distance from the middle (pixels)")
    axes[0].legend(fontsize=7, title="objects in training", title_fontsize=8)
    rows = pd.concat([own for _, _, own in found])
    return show(
        figure,
        f"Test objects anywhere in the picture, whatever the bias of the training set. One pixel: the scene moves down "
        f"and right by one, new content entering. Bands: 95 % intervals over seeds. {describe(rows)}.",
        "Three panels against distance from the middle: networks trained on centred objects lose accuracy and "
        "stability away from the middle, those trained on objects anywhere do not.",
    )


def where(results: pd.DataFrame) -> Captioned:
    """Accuracy by the place of the test object, one map per bias of the training set."""
    found = [
        (BIASES[bias], own)
        for _, bias, own in _trained(results)
        if own["layer"].iloc[0] == "subsample" and not own["augmented"].iloc[0]
    ]
    figure, axes = grid(1, len(found), width=3.2 * len(found), height=3.2, sharey=True, squeeze=False)
    for axis, (label, own) in zip(axes[0], found, strict=True):
        stacked = np.array(own["bias_accuracy_map"].tolist(), dtype=float)
        image = axis.imshow(stacked.mean(0), cmap="viridis", vmin=0, vmax=1, extent=(-10, 10, 10, -10))
        axis.grid(False)
        axis.set_title(f"trained on objects\n{label}", fontsize=10)
        axis.set_xlabel("right of the middle (pixels)")
    axes[0, 0].set_ylabel("below the middle (pixels)")
    figure.colorbar(image, ax=axes, label="accuracy", shrink=0.8)
    rows = pd.concat([own for _, own in found])
    return show(
        figure,
        f"Accuracy by the place of the test object, mean over seeds. {describe(rows)}.",
        "Maps of accuracy over the position of the object, one per bias of the training set.",
        vector=False,
    )
