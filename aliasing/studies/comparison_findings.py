"""The hypotheses of the comparison and their rules.

None of the papers has this experiment. Its hypotheses are ours; they were suggested by a pilot with other seeds,
another code and other networks, and their rules were written down before these runs.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from ..metrics import Estimate
from .comparison_metrics import LEARNED, prepared
from .findings import Finding, Part, across_seeds, paired
from .ranking import agreement, association, concordance, wide

__all__ = ["FINDINGS"]

Statistic = Callable[[pd.DataFrame], Estimate | None]


def _of(table: pd.DataFrame, backbone: str) -> pd.DataFrame:
    table = prepared(table)
    return table[table["backbone"] == backbone]


def _minus(column: str, first: str, second: str, backbone: str = "vgg") -> Statistic:
    """``first - second`` in ``column``, paired by seed."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        rows = _of(table, backbone)
        return paired(across_seeds(rows, column, layer=first), across_seeds(rows, column, layer=second))

    return statistic


def _level(column: str, layer: str, backbone: str) -> Statistic:
    def statistic(table: pd.DataFrame) -> Estimate | None:
        values = across_seeds(_of(table, backbone), column, layer=layer)
        return paired(values, values * 0)

    return statistic


def _best_learned_minus(column: str, higher: bool, layer: str = "tri-3") -> Statistic:
    """In each seed the best of the layers that learn, in favour of which the choice is made, minus ``layer``."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        values = wide(_of(table, "vgg"), column)
        learned = values[[name for name in LEARNED if name in values]]
        if layer not in values or learned.empty:
            return None
        return paired(learned.max(axis=1) if higher else learned.min(axis=1), values[layer])

    return statistic


def _stable(column: str) -> Statistic:
    return lambda table: concordance(wide(_of(table, "vgg"), column))


def _alike(column: str) -> Statistic:
    return lambda table: agreement(_of(table, "vgg"), _of(table, "resnet"), column)


def _related(first: str, second: str) -> Statistic:
    return lambda table: association(_of(table, "vgg"), first, second)


def _both(label: str, column: str, first: str, second: str, side: Any, margin: float) -> tuple[Part, ...]:
    """One part per network."""
    return tuple(
        Part(f"{label}, {first} minus {second}, {name}", _minus(column, first, second, key), side, margin=margin)
        for key, name in (("vgg", "VGG"), ("resnet", "residual network"))
    )


# What would matter in practice: half a point of accuracy or consistency, a point where fewer images are measured.
FINE, COARSE = 0.005, 0.01
OURS = "hypothesis of this chapter, written down before its runs"
NONE = "no paper compares these layers under one recipe"

FINDINGS = (
    Finding(
        "comparison-1",
        "Three taps help everywhere: tri-3 beats no filter in accuracy, under standard shifts and one-pixel crops, "
        "in both networks.",
        OURS,
        "ImageNet, ResNet50: accuracy 76.2 to 76.8, crop consistency 89.2 to 90.9 (Zhang's code repository)",
        (
            *_both("accuracy", "accuracy", "tri-3", "subsample", "above", FINE),
            *_both("standard consistency", "standard_consistency", "tri-3", "subsample", "above", FINE),
            *_both("P(top-1 change), crop", "top1_change_crop", "tri-3", "subsample", "below", FINE),
        ),
    ),
    Finding(
        "comparison-2",
        "Past three taps a blur trades accuracy for circular consistency.",
        OURS,
        "ImageNet, ResNet18: accuracy 71.7 (tri-3) to 71.4 (bin-5), crop consistency 87.5 to 88.3 (Zhang's repository)",
        (
            *_both("accuracy", "accuracy", "bin-5", "tri-3", "below", FINE),
            *_both("circular consistency", "circular_consistency", "bin-5", "tri-3", "above", FINE),
        ),
    ),
    Finding(
        "comparison-3",
        "Exact invariance to circular shifts costs accuracy: aps is exact, and less accurate than tri-3.",
        OURS,
        "CIFAR-10, ResNet-18: blur 93.3, APS 94.1 (as printed by Saha and Gokhale): the opposite order",
        (
            *(
                Part(f"circular consistency of aps, {name}", _level("circular_consistency", "aps", key), "above", 0.999)
                for key, name in (("vgg", "VGG"), ("resnet", "residual network"))
            ),
            *_both("accuracy", "accuracy", "aps", "tri-3", "below", FINE),
        ),
    ),
    Finding(
        "comparison-4",
        "Exactness under circular shifts does not carry over: under standard shifts and one-pixel crops aps is less "
        "stable than tri-3.",
        OURS,
        "CIFAR-10, ResNet-18: standard consistency blur 90.5, APS 92.7 (Saha and Gokhale): the opposite order",
        (
            *_both("standard consistency", "standard_consistency", "aps", "tri-3", "below", FINE),
            *_both("P(top-1 change), crop", "top1_change_crop", "aps", "tri-3", "above", FINE),
        ),
    ),
    Finding(
        "comparison-5",
        "The ideal low-pass is no better than three taps: flc is less accurate and changes its mind more often.",
        OURS,
        NONE,
        (
            *_both("accuracy", "accuracy", "flc", "tri-3", "below", FINE),
            *_both("P(top-1 change), crop", "top1_change_crop", "flc", "tri-3", "above", FINE),
        ),
    ),
    Finding(
        "comparison-6",
        "Learning how to sample does not beat a fixed filter: even the best of lps, tips and ddac, chosen per seed and "
        "metric, stays behind tri-3.",
        OURS,
        "CIFAR-10, ResNet-18: blur 93.3, LPS 94.5, TIPS 98.1 (Saha and Gokhale): the opposite order",
        (
            Part(
                "accuracy, best learned minus tri-3, VGG", _best_learned_minus("accuracy", True), "below", margin=FINE
            ),
            Part(
                "standard consistency, best learned minus tri-3, VGG",
                _best_learned_minus("standard_consistency", True),
                "below",
                margin=FINE,
            ),
            Part(
                "P(top-1 change), crop, best learned minus tri-3, VGG",
                _best_learned_minus("top1_change_crop", False),
                "above",
                margin=FINE,
            ),
        ),
    ),
    Finding(
        "comparison-7",
        "The dense max is not the culprit: the same two-tap filter is more accurate and more stable with it (rect-2) "
        "than without (average pooling).",
        OURS,
        NONE,
        (
            Part("accuracy, rect-2 minus average, VGG", _minus("accuracy", "rect-2", "average"), "above", margin=FINE),
            Part(
                "P(top-1 change), crop, rect-2 minus average, VGG",
                _minus("top1_change_crop", "rect-2", "average"),
                "below",
                margin=FINE,
            ),
        ),
    ),
    Finding(
        "comparison-8",
        "Native robustness comes with three taps already: tri-3 beats no filter under small attacks and corruptions, "
        "and is not behind asap.",
        OURS,
        "ImageNet, ResNet50: unnormalised corruption error 60.6 to 58.1 with bin-5 (secondary source for Zhang 2019)",
        (
            Part(
                "accuracy under small attacks, tri-3 minus subsample, VGG",
                _minus("small_attack", "tri-3", "subsample"),
                "above",
                margin=COARSE,
            ),
            Part(
                "corruption error, tri-3 minus subsample, VGG",
                _minus("corruption_error", "tri-3", "subsample"),
                "below",
                margin=COARSE,
            ),
            Part(
                "accuracy under small attacks, tri-3 minus asap, VGG; not behind if less than a point",
                _minus("small_attack", "tri-3", "asap"),
                "above",
                -COARSE,
            ),
            Part(
                "corruption error, tri-3 minus asap, VGG; not behind if less than a point",
                _minus("corruption_error", "tri-3", "asap"),
                "below",
                COARSE,
            ),
        ),
    ),
    Finding(
        "comparison-9",
        "The order of the layers is a property of the layers, not of the seed: Kendall's W is above 0.7.",
        OURS,
        NONE,
        (
            Part("Kendall's W over seeds, accuracy, VGG", _stable("accuracy"), "above", 0.7),
            Part("Kendall's W over seeds, standard consistency, VGG", _stable("standard_consistency"), "above", 0.7),
            Part("Kendall's W over seeds, P(top-1 change), crop, VGG", _stable("top1_change_crop"), "above", 0.7),
        ),
    ),
    Finding(
        "comparison-10",
        "Layers that do well in a VGG do well in a residual network.",
        OURS,
        NONE,
        (
            Part("Kendall's tau between the networks, accuracy", _alike("accuracy"), "above"),
            Part("Kendall's tau between the networks, standard consistency", _alike("standard_consistency"), "above"),
            Part("Kendall's tau between the networks, P(top-1 change), crop", _alike("top1_change_crop"), "above"),
        ),
    ),
    Finding(
        "comparison-11",
        "What happens at the sampler explains what the network does: layers with a larger alias error change their "
        "mind more often, and layers with more maximum-sampling bias are less consistent.",
        "the mechanism behind all five papers; the second half is a claim of Saha and Gokhale (abstract)",
        "no coefficient found",
        (
            Part(
                "Spearman's correlation over layers, alias error with P(top-1 change), crop, VGG",
                _related("mean_alias_error", "top1_change_crop"),
                "above",
            ),
            Part(
                "Spearman's correlation over layers, maximum-sampling bias with standard consistency, VGG",
                _related("msb_nearest", "standard_consistency"),
                "below",
            ),
        ),
    ),
)
