"""Figures of the chapter on Zhang 2019.

Every function takes the results table of the study and returns a captioned figure.
"""

import numpy as np
import pandas as pd
import torch

from .. import layers
from ..plots import COLOURS, MARKERS, Captioned, across, describe, grid, interval, legend, show
from ..records import home

__all__ = [
    "accuracy_against_consistency",
    "accuracy_under_shift",
    "adversary",
    "equivariance",
    "filter_variation",
    "probability_variation",
    "shift_curves",
    "table",
    "toy",
]


def toy() -> Captioned:
    """The one-dimensional example of section 3: max pooling of a step signal on its two grids, plain and blurred."""
    signal = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1])
    figure, axes = grid(1, 3, width=9, height=2.4, sharey=True)
    axes[0].step(range(9), [*signal.tolist(), signal[0]], where="post", color="#222222")
    axes[0].set_title("signal")
    for axis, name, title in (
        (axes[1], "subsample", "max, every second value"),
        (axes[2], "tri-3", "max, blur, every second value"),
    ):
        layer = layers.create(name, channels=1, padding_mode="circular")
        for shift, marker, line in ((0, "o", "-"), (1, "s", "--")):
            row = signal.roll(-shift)
            dense = torch.maximum(row, row.roll(-1))
            pooled = layer(dense.repeat(1, 1, 2, 1))[0, 0, 0]
            axis.plot(
                pooled, marker + line, color=COLOURS[name], mfc="none" if shift else None, label=f"shifted by {shift}"
            )
        axis.set_title(title)
        axis.legend(loc="lower right")
    axes[0].set_ylabel("value")
    for axis in axes:
        axis.set_xlabel("position")
        axis.set_ylim(-0.1, 1.1)
    return show(
        figure,
        "A step signal of period four (left). Max pooling gives alternating values on one grid and a constant on the "
        "other, one pixel away (middle). With the filter [1 2 1]/4 between max and subsampling the two agree far "
        "better (right). Computed by the package's layers; the example is the paper's.",
        "Three panels: a square wave; max-pooled values that alternate 0 and 1 for the unshifted and are all 1 for the "
        "shifted signal; blurred values between 0.5 and 1 for one grid and 0.75 for the other.",
    )


def shift_curves(table: pd.DataFrame) -> Captioned:
    """Probability of the right class while single pictures move along the diagonal."""
    chosen = table[(table["seed"] == 0) & ~table["augmented"]].set_index("layer")
    plain, blurred = chosen.loc["subsample"], chosen.iloc[-1]
    curves = {row.name: np.array(row["diagonal_probability"]) for row in (plain, blurred)}
    most = np.argsort(-np.ptp(curves["subsample"], axis=1))[:6]
    curves = {name: values[most] for name, values in curves.items()}
    figure, axes = grid(2, 3, width=9, height=2.2, sharex=True, sharey=True)
    for index, axis in enumerate(axes.flat):
        for name, values in curves.items():
            line = "-" if name == "subsample" else "--"
            axis.plot(values[index], line, color=COLOURS[name], label=name)
        axis.set_ylim(-0.05, 1.05)
        axis.set_title(f"picture {index + 1}")
    figure.supxlabel("diagonal circular shift (pixels)")
    figure.supylabel("probability of the right class")
    axes[0, 0].legend()
    jumps = {name: float(np.abs(np.diff(values, axis=1)).max(1).mean()) for name, values in curves.items()}
    return show(
        figure,
        f"Probability of the right class while a picture moves along the diagonal, one pixel a step. The largest jump "
        f"between neighbours, averaged over the six pictures, is {jumps['subsample']:.2f} without and "
        f"{jumps[blurred.name]:.2f} with {blurred.name}. Of 48 test pictures the six whose probability varies most in "
        f"the plain network. {describe(table[table['seed'] == 0])}.",
        f"Six panels of probability against shift from 0 to 31 pixels, one solid curve for the plain network and a "
        f"dashed one for {blurred.name}.",
    )


def equivariance(table: pd.DataFrame) -> Captioned:
    """How far each stage is from moving with the picture, for every shift."""
    chosen = table[(table["seed"] == 0) & ~table["augmented"]].set_index("layer")
    rows = [chosen.loc["subsample"], chosen.iloc[-1]]
    stages = list(rows[0]["equivariance"])
    maps = {row.name: [np.array(row["equivariance"][stage]) for stage in stages] for row in rows}
    top = max(value.max() for values in maps.values() for value in values)
    figure, axes = grid(2, len(stages), width=9, height=2.1, sharex=True, sharey=True, squeeze=False)
    for axis_row, (name, values) in zip(axes, maps.items(), strict=True):
        for axis, stage, value in zip(axis_row, stages, values, strict=True):
            half = value.shape[0] / 2
            picture = axis.imshow(value, cmap="viridis", vmin=0, vmax=top, extent=(-half, half, half, -half))
            axis.grid(False)
            axis.set_title(f"{stage}, {name}", fontsize=9)
    figure.colorbar(picture, ax=axes, label="1 - cosine", shrink=0.8)
    figure.supxlabel("shift to the right (pixels)")
    figure.supylabel("shift down (pixels)")
    last = {name: values[-1].mean() for name, values in maps.items()}
    return show(
        figure,
        "Distance between the shifted feature map and the feature map of the shifted picture, for every circular shift "
        "(0 is equivariance). After k halvings only shifts by multiples of 2^k remain exact, hence the lattices. "
        f"Mean of the last map: {last['subsample']:.3f} for subsample, {last[rows[1].name]:.3f} for {rows[1].name}. "
        f"{describe(table[table['seed'] == 0])}.",
        "Two rows of heat-maps over shifts, one per stage: dark lattices whose period doubles from stage to stage, "
        "without blur above and with it below.",
        vector=False,
    )


def accuracy_against_consistency(table: pd.DataFrame) -> Captioned:
    """One point per network, accuracy against circular consistency."""
    figure, axis = grid(width=6, height=4)
    for (layer, augmented), rows in table.groupby(["layer", "augmented"], sort=False):
        face = "none" if augmented else COLOURS[layer]
        axis.scatter(
            rows["accuracy"],
            rows["circular_consistency"],
            color=COLOURS[layer],
            facecolor=face,
            marker=MARKERS[layer],
            s=45,
        )
    axis.set_xlabel("accuracy (fraction, unshifted test pictures)")
    axis.set_ylabel("circular consistency (fraction)")
    legend(axis, table["layer"].unique(), extra={"with shift augmentation": {"mfc": "none"}})
    return show(
        figure,
        f"Accuracy against circular consistency over all shifts, one point per trained network. {describe(table)}.",
        "Scatter plot with one marker per layer; open markers are networks trained with shift augmentation.",
    )


def filter_variation(table: pd.DataFrame) -> Captioned:
    """Normalised total variation of the learned filters, layer by layer."""
    chosen = table[~table["augmented"]]
    figure, axis = grid(width=6, height=3.6)
    for layer, rows in chosen.groupby("layer", sort=False):
        mean, low, high = across(rows["filter_variation"])
        axis.plot(range(1, len(mean) + 1), mean, marker=MARKERS[layer], color=COLOURS[layer], label=layer)
        axis.fill_between(range(1, len(mean) + 1), low, high, color=COLOURS[layer], alpha=0.15)
    axis.set_xlabel("convolution, from the input on")
    axis.set_ylabel("normalised total variation")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return show(
        figure,
        f"Normalised total variation of the trained filters of each convolution (lower is smoother; independent "
        f"Gaussian 3 x 3 filters have 1.89). Bands: 95 % intervals over seeds. {describe(chosen)}.",
        "Lines of total variation against depth, one per downsampling layer.",
    )


def accuracy_under_shift(table: pd.DataFrame) -> Captioned:
    """Accuracy against the size of the shift, without and with augmentation."""
    return _against_size(
        table,
        "accuracy_by_shift",
        "accuracy (fraction)",
        "Accuracy over all circular shifts whose larger component is n pixels.",
        "One line of accuracy against the size of the shift per downsampling layer.",
    )


def adversary(table: pd.DataFrame) -> Captioned:
    """Accuracy if the worst shift of a window counts."""
    return _against_size(
        table,
        "adversary",
        "accuracy under the worst shift (fraction)",
        "Share of test pictures that stay right under every circular shift of up to n pixels per axis.",
        "One falling line of accuracy against the size of the adversary's window per downsampling layer.",
    )


def _against_size(table: pd.DataFrame, column: str, label: str, caption: str, alt: str) -> Captioned:
    figure, axes = grid(1, 2, width=9, height=3.4, sharey=True)
    for axis, augmented in zip(axes, (False, True), strict=True):
        for layer, rows in table[table["augmented"] == augmented].groupby("layer", sort=False):
            mean, low, high = across(rows[column])
            axis.plot(mean, color=COLOURS[layer], marker=MARKERS[layer], markevery=4, label=layer)
            axis.fill_between(range(len(mean)), low, high, color=COLOURS[layer], alpha=0.15)
        axis.set_title(f"trained {'with' if augmented else 'without'} shift augmentation")
        axis.set_xlabel("n (pixels)")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    axes[0].set_ylabel(label)
    return show(figure, f"{caption} Bands: 95 % intervals over seeds. {describe(table)}.", f"Two panels. {alt}")


def probability_variation(table: pd.DataFrame) -> Captioned:
    """How much the right class's probability varies over shifts, picture by picture."""
    chosen = table[~table["augmented"]]
    figure, axis = grid(width=6, height=3.6)
    for layer, rows in chosen.groupby("layer", sort=False):
        mean, low, high = across(rows["probability_variation_quantiles"])
        share = np.linspace(0, 100, len(mean))
        axis.plot(share, mean, color=COLOURS[layer], marker=MARKERS[layer], markevery=5, label=layer)
        axis.fill_between(share, low, high, color=COLOURS[layer], alpha=0.15)
    axis.set_xlabel("share of test pictures (per cent)")
    axis.set_ylabel("standard deviation over shifts, at most")
    axis.legend()
    return show(
        figure,
        f"Standard deviation of the right class's probability over all circular shifts, sorted over the test pictures. "
        f"Bands: 95 % intervals over seeds. {describe(chosen)}.",
        "Rising quantile curves, one per downsampling layer.",
    )


def table(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's CIFAR-10 table (per cent) beside ours (per cent, mean over seeds with 95 % interval)."""
    paper = pd.read_csv(home() / "data/published/zhang2019.csv")
    paper = paper[paper["network"] == "VGG13-bn"].pivot_table("value", ["augmented", "layer"], "metric")
    ours = results.groupby(["augmented", "layer"], sort=False)[["accuracy", "circular_consistency"]].agg(interval)
    both = ours.rename(columns={"circular_consistency": "consistency"}).join(paper, how="outer", rsuffix=" (paper)")
    order = sorted(both.index, key=lambda key: (key[0], list(COLOURS).index(key[1])))
    return both.loc[order].fillna("")
