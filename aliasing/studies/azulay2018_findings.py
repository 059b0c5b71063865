"""What Azulay & Weiss claim, and the statistics and rules that decide; fixed before the runs."""

from typing import Any

import pandas as pd

from ..metrics import Estimate
from .findings import Finding, Part, across_seeds, paired

__all__ = ["FINDINGS", "PROTOCOLS"]

PROTOCOLS = ("crop", "black", "inpainting", "scale")  # the paper's four one-pixel protocols


def _main(table: pd.DataFrame, column: str, layer: str = "subsample", **where: Any) -> pd.Series:
    """A column by seed, of the VGG without augmentation on the profile's own data unless ``where`` says otherwise."""
    return across_seeds(table, column, **({"backbone": "vgg", "augmented": False, "main": True} | where), layer=layer)


def _longest(table: pd.DataFrame) -> str:
    """The longest blur of the VGGs without augmentation."""
    layers = table[table["main"] & (table["backbone"] == "vgg") & ~table["augmented"]]["layer"]
    return "" if layers.empty else layers.iloc[-1]


def _alone(values: pd.Series) -> Estimate | None:
    return paired(values, 0 * values)


def _pick(table: pd.DataFrame, column: str, first: int, second: int | None = None) -> pd.DataFrame:
    """Add ``picked``: one entry of a column of curves, or the difference of two (first minus second)."""

    def value(curve: Any) -> float:
        if not isinstance(curve, list):
            return float("nan")
        return curve[first] - (curve[second] if second is not None else 0)

    return table.assign(picked=table.reindex(columns=[column])[column].map(value))


def _protocols(table: pd.DataFrame) -> pd.DataFrame:
    """P(top-1 change) under the four protocols; not a number where it was not measured."""
    return table.reindex(columns=[f"top1_change_{name}" for name in PROTOCOLS]).astype(float)


def _worst_protocol(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(picked=_protocols(table).max(axis=1, skipna=False))


def _mean_protocol(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(picked=_protocols(table).mean(axis=1, skipna=False))


def _both(table: pd.DataFrame, column: str) -> Estimate | None:
    """Mean of the plain VGG and the plain residual network."""
    return _alone((_main(table, column) + _main(table, column, backbone="resnet")) / 2)


def _stage(table: pd.DataFrame, column: str, backbone: str) -> Estimate | None:
    """Last stage minus first activation of the plain network."""
    return _alone(_main(_pick(table, column, -1, 0), "picked", backbone=backbone))


def _remedy(table: pd.DataFrame, column: str) -> Estimate | None:
    return paired(_main(table, column, _longest(table)), _main(table, column))


def _augmentation(table: pd.DataFrame, column: str) -> Estimate | None:
    return paired(_main(table, column, augmented=True), _main(table, column))


def _trained_at(table: pd.DataFrame, column: str, bias: str) -> pd.Series:
    return across_seeds(table, column, layer="subsample", backbone="vgg", augmented=False, bias=bias)


def _bias_gap(table: pd.DataFrame, fact: str) -> Estimate | None:
    """Near minus far, of the network trained on centred objects minus that of the one trained on objects anywhere."""
    places = table.reindex(columns=[f"bias_{fact}_near", f"bias_{fact}_far"])
    gap = table.assign(gap=places.iloc[:, 0] - places.iloc[:, 1])
    return paired(_trained_at(gap, "gap", "0"), _trained_at(gap, "gap", "uniform"))


def _bias_far(table: pd.DataFrame, fact: str) -> Estimate | None:
    """Far from the middle: trained on centred objects minus trained on objects anywhere."""
    column = f"bias_{fact}_far"
    return paired(_trained_at(table, column, "0"), _trained_at(table, column, "uniform"))


def _size_loss(table: pd.DataFrame) -> Estimate | None:
    """Accuracy at half the width over accuracy of the whole picture."""
    half, whole = _pick(table, "size_accuracy", -1), _pick(table, "size_accuracy", 3)
    return _alone(_main(half, "picked") / _main(whole, "picked"))


SUMMARY = "a machine-written summary of the journal version"
FINDINGS = (
    Finding(
        "azulay-1",
        "A shift or rescaling by one pixel changes the top-1 decision with a probability of up to about 30 per cent.",
        f"Table 1, verified; {SUMMARY}",
        "crop 0.05 to 0.14, black 0.11 to 0.29",
        (
            Part(
                "P(top-1 change), crop, mean of both plain networks",
                lambda t: _both(t, "top1_change_crop"),
                threshold=0.02,
                margin=0.01,
            ),
            Part(
                "P(top-1 change), worst of the four protocols, likewise",
                lambda t: _both(_worst_protocol(t), "picked"),
                threshold=0.1,
                margin=0.02,
            ),
        ),
    ),
    Finding(
        "azulay-2",
        "Neither convolution nor augmentation guarantees invariance.",
        f"abstract, verified; {SUMMARY}",
        "no number found",
        (
            Part(
                "P(top-1 change), circular, plain VGG",
                lambda t: _alone(_main(t, "top1_change_circular")),
                threshold=0.01,
                margin=0.005,
            ),
            Part(
                "the same, trained with every circular shift",
                lambda t: _alone(_main(t, "top1_change_circular", augmented=True)),
                threshold=0.01,
                margin=0.005,
            ),
        ),
    ),
    Finding(
        "azulay-3",
        "The global sum of a feature map stops being invariant as the accumulated subsampling factor grows.",
        "v1, Figure 8, digitised",
        "VGG16: 0.2 positions at factor 1, 25.3 at factor 16; ResNet50: 0.8 at 4, 27.4 at 32",
        (
            Part(
                "non-shiftability (share of positions), last stage minus first activation, plain VGG",
                lambda t: _stage(t, "non_shiftability_inpainting", "vgg"),
                margin=0.02,
            ),
            Part(
                "the same, plain residual network",
                lambda t: _stage(t, "non_shiftability_inpainting", "resnet"),
                margin=0.02,
            ),
            Part(
                "the same, plain VGG, circular shifts",
                lambda t: _stage(t, "non_shiftability_circular", "vgg"),
                margin=0.02,
            ),
        ),
    ),
    Finding(
        "azulay-4",
        "The less typical of the training set a picture is, the more sensitive is the prediction.",
        f"{SUMMARY}; the measure of typicality is ours",
        "no number found",
        (
            Part(
                "P(top-1 change), circular, least minus most typical fifth, plain VGG",
                lambda t: _alone(_main(t, "typicality_gap")),
                margin=0.005,
            ),
            Part(
                "the same, plain residual network",
                lambda t: _alone(_main(t, "typicality_gap", backbone="resnet")),
                margin=0.005,
            ),
            Part(
                "P(top-1 change) at size 1.9 (half the width, on black) minus size 1.0 (whole picture), plain VGG",
                lambda t: _alone(_main(_pick(t, "size_change", -1, 3), "picked")),
                margin=0.01,
            ),
        ),
    ),
    Finding(
        "azulay-5",
        "Blur before subsampling helps only partly.",
        f"abstract, verified: a partial solution at best; {SUMMARY}",
        "an anti-aliased network still changed 15 per cent of its decisions (weak secondary source)",
        (
            Part(
                "it helps: P(top-1 change), mean of the four protocols, longest blur minus none",
                lambda t: _remedy(_mean_protocol(t), "picked"),
                "below",
                margin=0.005,
            ),
            Part(
                "only partly: P(top-1 change), mean of the four protocols, longest blur",
                lambda t: _alone(_main(_mean_protocol(t), "picked", _longest(t))),
                threshold=0.02,
                margin=0.01,
            ),
        ),
    ),
    Finding(
        "azulay-6",
        "Stronger augmentation helps to a degree but is no full solution.",
        f"abstract, verified; {SUMMARY}",
        "no number found",
        (
            Part(
                "it helps on its own shifts: P(top-1 change), circular, with minus without",
                lambda t: _augmentation(t, "top1_change_circular"),
                "below",
                margin=0.005,
            ),
            Part(
                "it helps elsewhere: P(top-1 change), mean of the four protocols, with minus without",
                lambda t: _augmentation(_mean_protocol(t), "picked"),
                "below",
                margin=0.005,
            ),
            Part(
                "no full solution: P(top-1 change), mean of the four protocols, with augmentation",
                lambda t: _alone(_main(_mean_protocol(t), "picked", augmented=True)),
                threshold=0.02,
                margin=0.01,
            ),
        ),
    ),
    Finding(
        "azulay-7",
        "The deeper network is the less stable one.",
        "v1, Figure 4, digitised; Table 1, verified",
        "jaggedness 346 for VGG16, 834 for ResNet50; P(top-1 change), black 0.18 and 0.20",
        (
            Part(
                "P(top-1 change), mean of the four protocols, residual network minus VGG",
                lambda t: paired(
                    _main(_mean_protocol(t), "picked", backbone="resnet"), _main(_mean_protocol(t), "picked")
                ),
                margin=0.005,
            ),
            Part(
                "share of neighbouring positions with a crossing, inpainted sweep, likewise",
                lambda t: paired(
                    _main(t, "jaggedness_pairs_inpainting", backbone="resnet"), _main(t, "jaggedness_pairs_inpainting")
                ),
                margin=0.005,
            ),
        ),
    ),
    Finding(
        "azulay-8",
        "With an accumulated subsampling factor s only one in s squared shifts is harmless by construction.",
        "notes on v1, secondary",
        "factor 45: 1 in 2025",
        (
            Part(
                "share of circular shifts with unchanged logits, times s squared, plain VGG",
                lambda t: _alone(_main(t, "exact_shift_law")),
                "above",
                threshold=0.99,
            ),
            Part(
                "the same, from the other side", lambda t: _alone(_main(t, "exact_shift_law")), "below", threshold=1.01
            ),
        ),
    ),
    Finding(
        "azulay-9",
        "The photographer's bias of the training set decides which invariance is learned.",
        f"abstract, verified; {SUMMARY}; trained at a bias that is set, which the paper could not do",
        "no number found",
        (
            Part(
                "accuracy near minus far from the middle, trained on centred objects minus trained on objects anywhere",
                lambda t: _bias_gap(t, "accuracy"),
                margin=0.01,
            ),
            Part(
                "P(top-1 change) by one pixel far from the middle, likewise",
                lambda t: _bias_far(t, "change"),
                margin=0.005,
            ),
            Part(
                "agreement with the centred scene far from the middle, likewise",
                lambda t: _bias_far(t, "agreement"),
                "below",
                margin=0.01,
            ),
        ),
    ),
    Finding(
        "azulay-10",
        "A picture at half its size within the frame costs about half of the accuracy.",
        "v1, Figure 10, digitised; top-5 accuracy there",
        "VGG16: .38 at 100 px, .81 at 210 px",
        (
            Part(
                "accuracy at size 1.9 (half the width, on black) over accuracy of the whole picture, plain VGG",
                _size_loss,
                "below",
                threshold=0.7,
                margin=0.1,
            ),
        ),
    ),
    Finding(
        "azulay-11",
        "Stability falls with depth, read out layer by layer.",
        f"{SUMMARY}; how they read out was not found, the readout is ours",
        "no number found",
        (
            Part(
                "P(top-1 change) of the readout, circular, last stage minus first activation, plain VGG",
                lambda t: _stage(t, "readout_change_circular", "vgg"),
                margin=0.005,
            ),
            Part(
                "the same, plain residual network",
                lambda t: _stage(t, "readout_change_circular", "resnet"),
                margin=0.005,
            ),
        ),
    ),
)
