"""Figures of single pictures on the move, for the chapter on Azulay & Weiss; one of them under a slider."""

import numpy as np
import pandas as pd

from ..plots import COLOURS, Captioned, describe, grid, show
from .azulay2018 import BACKBONES
from .slider import Slider

__all__ = ["curves", "heat_maps", "mover"]


def _seen(results: pd.DataFrame) -> pd.DataFrame:
    """The runs whose sweeps were kept."""
    return results[results["sweep_probability"].notna()]


def _plain_and_blurred(results: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The swept VGGs without and with the longest blur."""
    rows = _seen(results)
    rows = rows[rows["backbone"] == "vgg"]
    return rows.iloc[0], rows.iloc[-1]


def curves(results: pd.DataFrame) -> Captioned:
    """Figure 3 of v1: the probability of the right class of single pictures, one pixel a step."""
    plain, blurred = _plain_and_blurred(results)
    values = {row["layer"]: np.array(row["sweep_probability"]) for row in (plain, blurred)}
    most = np.argsort(-np.ptp(values[plain["layer"]], axis=1))[:6]
    figure, axes = grid(2, 3, width=9, height=2.2, sharex=True, sharey=True)
    for index, (picture, axis) in enumerate(zip(most, axes.flat, strict=False)):
        for (layer, curve), line in zip(values.items(), ("-", "--"), strict=True):
            axis.plot(curve[picture], line, color=COLOURS[layer], label=layer)
        axis.set_ylim(-0.05, 1.05)
        axis.set_title(f"picture {index + 1}")
    axes[0, 0].legend()
    figure.supxlabel("circular shift down (pixels)")
    figure.supylabel("probability of the right class")
    jumps = {layer: np.abs(np.diff(curve[most], axis=1)).max(1).mean() for layer, curve in values.items()}
    return show(
        figure,
        f"Probability of the right class while a picture rolls down by one pixel a step. The largest jump between "
        f"neighbours is {jumps[plain['layer']]:.2f} on average without a filter and {jumps[blurred['layer']]:.2f} "
        f"with {blurred['layer']}. Of {len(values[plain['layer']])} test pictures the six whose probability varies "
        f"most in the plain network. After {plain['exact_shift_factor']:.0f} pixels each curve repeats. "
        f"{describe(results[results['id'] == plain['id']])}.",
        "Six panels of probability against shift: the plain network's curves are jagged, those with blur smoother; "
        "all repeat with a fixed period.",
    )


def mover(results: pd.DataFrame) -> Captioned:
    """The jagged curve of one picture under a slider."""
    plain, blurred = _plain_and_blurred(results)
    count = len(plain["sweep_pictures"])
    right = np.array(plain["sweep_answers"])[:count] == np.array(plain["sweep_labels"])[:count, None]
    moves = (right[:, 1:] != right[:, :-1]).sum(1)
    chosen = int((moves + np.ptp(np.array(plain["sweep_probability"])[:count], axis=1)).argmax())
    values = {row["layer"]: row["sweep_probability"][chosen] for row in (plain, blurred)}
    classes = plain["sweep_classes"]
    answers = {row["layer"]: [classes[k] for k in row["sweep_answers"][chosen]] for row in (plain, blurred)}
    figure, axis = grid(width=6, height=2.6)
    for (layer, curve), line in zip(values.items(), ("-", "--"), strict=True):
        axis.plot(curve, line, color=COLOURS[layer], label=layer)
    axis.set(xlabel="circular shift down (pixels)", ylabel="P(right class)", ylim=(-0.05, 1.05))
    axis.legend()
    name = classes[plain["sweep_labels"][chosen]]
    caption = (
        f'Drag the slider, or give it the focus and use the arrow keys: the picture, whose right class is "{name}", '
        f"rolls down pixel by pixel, and each network says what it sees. Of the first {count} pictures the one that "
        f"the plain network moves in and out of the right class most often. "
        f"{describe(results[results['id'] == plain['id']])}."
    )
    alt = f"Probability of the class {name} against shift, jagged without blur, smoother with it."
    return Slider(show(figure, caption, alt), plain["sweep_pictures"][chosen], values, answers, caption)


def heat_maps(results: pd.DataFrame) -> Captioned:
    """Figure 4 of v1: picture by shift, colour the probability of the right class."""
    rows = [
        row for _, row in _seen(results).groupby(["backbone", "layer"], sort=False).first().reset_index().iterrows()
    ]
    rows = [row for row in rows if row["layer"] in ("subsample", rows[-1]["layer"]) or row["backbone"] == "vgg"][:4]
    figure, axes = grid(1, len(rows), width=3 * len(rows), height=4, sharey=True, squeeze=False)
    for axis, row in zip(axes[0], rows, strict=True):
        values = np.array(row["sweep_probability"])
        image = axis.imshow(values[np.argsort(-values.mean(1))], cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axis.grid(False)
        axis.set_title(f"{BACKBONES[row['backbone']]}, {row['layer']}", fontsize=10)
        axis.set_xlabel("shift down (pixels)")
    axes[0, 0].set_ylabel("test picture, sorted")
    figure.colorbar(image, ax=axes, label="probability of the right class", shrink=0.8)
    return show(
        figure,
        f"One row per test picture, one column per shift. An invariant network would draw plain horizontal bars. Rows "
        f"are sorted by their mean in each panel. {describe(_seen(results))}.",
        "Heat-maps of pictures by shifts, speckled for plain networks and streaked horizontally with blur.",
        vector=False,
    )
