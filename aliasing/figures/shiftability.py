"""Figures that look inside the networks of the chapter on Azulay & Weiss: maps, sums, readouts, exact shifts."""

import base64
import io

import matplotlib.image as mpimg
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .. import layers
from ..plots import COLOURS, MARKERS, Captioned, across, describe, grid, show
from .azulay2018 import BACKBONES

__all__ = ["exact_shifts", "feature_maps", "non_shiftability", "readouts", "sums"]


def sums() -> Captioned:
    """The sum of a map that was halved twice, against the shift of the input; without and with a ReLU in between."""
    figure, axes = grid(1, 2, width=9, height=3, sharey=True)
    spreads = {}
    for axis, rectified in zip(axes, (False, True), strict=True):
        for name, line in (("subsample", "-"), ("bin-7", "--"), ("flc", ":")):
            curve = _sums(name, rectified)
            spreads[name, rectified] = np.abs(curve).max()
            axis.plot(curve, line, marker=MARKERS[name], color=COLOURS[name], label=name)
        axis.set_title("convolutions and ReLU" if rectified else "convolutions only")
        axis.set_xlabel("circular shift (pixels)")
        axis.set_yscale("symlog", linthresh=0.1)
    axes[0].set_ylabel("sum minus its mean (per cent)")
    axes[1].legend()
    return show(
        figure,
        f"The global sum of a map that was convolved at random and halved twice, for the same random pattern shifted. "
        f"Without a non-linearity an ideal low-pass (flc) makes the sum exactly constant: at most "
        f"{spreads['flc', False]:.2g} per cent remain. A ReLU makes new high frequencies, and "
        f"{spreads['flc', True]:.2g} per cent come back; without a filter "
        f"it is {spreads['subsample', True]:.2g}. Relative to the sum of "
        f"magnitudes, linear up to 0.1 and logarithmic beyond; layers of this package, fixed random numbers.",
        "Two panels of curves over 16 shifts: flat lines for filtered layers without ReLU, small waves with it, and "
        "large jumps without a filter in both.",
    )


def _sums(name: str, rectified: bool, shifts: int = 16) -> np.ndarray:
    """Sum of the map in per cent of the sum of magnitudes, minus the mean over shifts; double precision."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    pattern, weights = random(1, 4, 32, 32), [random(4, 4, 3, 3) for _ in range(2)]
    x = torch.cat([pattern.roll(shift, 3) for shift in range(shifts)])
    for weight in weights:
        x = nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), weight)
        x = x.relu() if rectified else x
        x = layers.create(name, 4, padding_mode="circular").double()(x)
    total = x[:, 0].sum((1, 2))
    return (100 * (total - total.mean()) / x[:, 0].abs().sum((1, 2)).mean()).numpy()


def feature_maps(results: pd.DataFrame) -> Captioned:
    """Figure 7 of v1: one map per stage, for a picture at three places."""
    known = results[results["feature_maps"].notna() & (results["backbone"] == "vgg")]
    row = known.iloc[0]
    shifts, maps = row["feature_shifts"], dict(sorted(row["feature_maps"].items(), key=lambda item: int(item[0])))
    picture = mpimg.imread(io.BytesIO(base64.b64decode(row["feature_picture"])), format="png")
    figure, axes = grid(len(shifts), 1 + len(maps), width=1.8 * (1 + len(maps)), height=1.85)
    for line, shift in enumerate(shifts):
        axes[line, 0].imshow(np.roll(picture, shift, 0))
        axes[line, 0].set_ylabel(f"{shift} px" if shift != 1 else "1 px")
        for axis, (factor, shown) in zip(axes[line, 1:], maps.items(), strict=True):
            axis.imshow(shown[line], cmap="gray", vmin=0, vmax=255)
            first, total = row["feature_sums"][factor][0], row["feature_sums"][factor][line]
            axis.set_xlabel(f"sum {round(100 * total / first - 100):+d} %" if first else "", fontsize=9, labelpad=2)
            if line == 0:
                axis.set_title(f"factor {factor}", fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    return show(
        figure,
        f"A test picture rolled down by 0, 1 and 2 pixels (rows), and the strongest map of each stage (columns) of "
        f"the {row['layer']} network. Below each map its sum relative to the top row. Early maps move with the "
        f"picture; late maps flicker. {describe(results[results['id'] == row['id']])}.",
        "A grid of pictures and feature maps: three rows for three shifts, columns from fine to coarse maps whose "
        "patterns change from row to row in the coarse ones.",
        vector=False,
    )


def non_shiftability(results: pd.DataFrame) -> Captioned:
    """Figure 8 of v1: share of positions at which the sum of a map is off by a fifth, against the factor."""
    return _by_factor(
        results,
        {"non_shiftability_inpainting": "inpainted sweep", "non_shiftability_circular": "circular sweep"},
        "share of positions off by 20 %",
        "Share of the positions of a vertical sweep at which the global sum of a random feature map differs from its "
        "mean by a fifth or more (0 is shiftable), against the accumulated subsampling factor.",
        "Two panels: non-shiftability grows with the subsampling factor, less with blur.",
    )


def readouts(results: pd.DataFrame) -> Captioned:
    """Stability and accuracy of a linear readout of every stage."""
    return _by_factor(
        results,
        {"readout_change_circular": "P(top-1 change), circular", "readout_change_crop": "P(top-1 change), crop",
         "readout_accuracy": "accuracy"},
        "share",
        "A linear classifier trained on the global average of each stage, the network frozen: change of its decision "
        "by one pixel, and its accuracy, against the accumulated subsampling factor.",
        "Three panels of curves over the subsampling factor: change and accuracy of the readouts.",
    )  # fmt: skip


def _by_factor(results: pd.DataFrame, columns: dict[str, str], label: str, caption: str, alt: str) -> Captioned:
    rows = results[results["main"] & results["stage_factors"].notna()]
    figure, axes = grid(1, len(columns), width=9.5, height=3.3)
    tops: dict = {}
    for axis, (column, title) in zip(axes, columns.items(), strict=True):
        for (backbone, layer), own in rows.groupby(["backbone", "layer"], sort=False):
            mean, low, high = across(own[column])
            line = "--" if backbone == "resnet" else "-"
            name = f"{BACKBONES[backbone]}, {layer}"
            factors = own["stage_factors"].iloc[0]
            face = "white" if backbone == "resnet" else None
            axis.plot(factors, mean, line, color=COLOURS[layer], marker=MARKERS[layer], mfc=face, label=name)
            axis.fill_between(factors, low, high, color=COLOURS[layer], alpha=0.12)
            tops[axis] = max(tops.get(axis, 0), mean.max())
        factors = sorted({factor for own in rows["stage_factors"] for factor in own})
        axis.set_xscale("log", base=2)
        axis.set_xticks(factors, [str(factor) for factor in factors])
        axis.set_xlabel("subsampling factor")
        axis.set_title(title, fontsize=10)
        axis.set_ylim(0, 1.3 * tops[axis] + 0.01)
    axes[0].set_ylabel(label)
    axes[0].legend(fontsize=8)
    return show(figure, f"{caption} Bands: 95 % intervals over seeds. {describe(rows)}.", alt)


def exact_shifts(results: pd.DataFrame) -> Captioned:
    """Which circular shifts leave the logits untouched: a lattice."""
    rows = results[results["main"] & results["exact_shift_share"].notna() & (results["seed"] == 0)]
    rows = rows.groupby("backbone", sort=False).first().reset_index()
    figure, axes = grid(1, len(rows), width=3.4 * len(rows), height=3.2, squeeze=False)
    said = []
    for axis, (_, row) in zip(axes[0], rows.iterrows(), strict=True):
        axis.imshow(row["exact_shift_map"], cmap="gray_r", vmin=0, vmax=1)
        axis.grid(False)
        axis.set_title(f"{BACKBONES[row['backbone']]}, factor {row['exact_shift_factor']:.0f}", fontsize=10)
        axis.set_xlabel("shift right (pixels)")
        said.append(f"1 in {1 / row['exact_shift_share']:.0f} for the {BACKBONES[row['backbone']]}")
    axes[0, 0].set_ylabel("shift down (pixels)")
    return show(
        figure,
        f"Black: circular shifts that leave all logits as they are. They are {' and '.join(said)}: one in the square "
        f"of the subsampling factor, no matter what was learned. {describe(rows)}.",
        "Square grids of all shifts, white but for a sparse lattice of black points.",
        vector=False,
    )
