"""Zhang 2019, "Making Convolutional Networks Shift-Invariant Again": blur between the dense max and the subsampling.

The networks are VGGs with circular padding, so that a circular shift is the only thing that changes. The paper's
optimiser, schedule and augmentation window for CIFAR-10 are not known; the recipes here are our choice.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..measurements import Measurement
from ..metrics import Estimate
from ..records import Run
from ..runner import Job
from .bases import BASES, Base
from .findings import Finding, Part, across_seeds, paired
from .study import Study

__all__ = ["FILTERS", "STUDY"]

FILTERS = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7")


# Layers trained without and with shift augmentation.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (("subsample", "bin-5"), ("subsample",)),
    "laptop": (("subsample", "rect-2", "tri-3", "bin-5", "bin-7"), ("subsample", "bin-7")),
    "desktop": (("subsample", "bin-7", "tri-3", "bin-5"), ("subsample", "bin-7")),
    "gpu": (("subsample", "bin-7", "tri-3", "bin-5", "rect-2"), ("subsample", "bin-7", "tri-3", "bin-5")),
    "cluster": (("subsample", "rect-2", "tri-3", "bin-4", "bin-5"), ()),
}
SHIFT = 16  # pixels per axis: with circular shifts of 32 x 32 pictures, every position


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``: a whole seed before the next, so that every stop leaves balanced results."""
    base = BASES[profile]
    jobs = []
    for seed in range(base.seeds):
        for augmented, filters in zip((False, True), LAYERS[profile], strict=True):
            recipe = replace(base.recipe, shift=SHIFT) if augmented else base.recipe
            for layer in filters:
                run = Run(base.dataset, base.vgg | {"downsample": layer}, recipe, seed)
                wanted = _measurements(base, pictured=seed == 0 and not augmented)
                jobs.append(Job(run, wanted, {"layer": layer, "augmented": augmented}))
    return jobs


def _measurements(base: Base, pictured: bool) -> tuple[Measurement, ...]:
    """What every network is asked, and what only those are asked that the pictures show."""
    wanted = [*base.rolls(), Measurement("filter_variation")]
    if pictured:
        wanted += [
            Measurement("shift_curves", {"count": 48}),
            Measurement("equivariance", {"count": 8, "max_shift": 8}),
        ]
    return tuple(wanted)


def _shortest_to_longest(table: pd.DataFrame, column: str, augmented: bool = False) -> Estimate | None:
    """Longest blur minus no blur, paired by seed."""
    longest = _longest(table)
    plain = across_seeds(table, column, layer="subsample", augmented=augmented)
    return paired(across_seeds(table, column, layer=longest, augmented=augmented), plain)


def _longest(table: pd.DataFrame) -> str:
    return max(table["layer"], key=FILTERS.index)


def _at(column: str, index: int) -> Any:
    """A column of curves reduced to one entry of each."""

    def pick(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(picked=[curve[index] for curve in table[column]])

    return pick


def _loss_by_shift(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy at the picture's own place minus mean accuracy over all shifts, of the same pictures."""
    return _at("accuracy_by_shift", 0)(table).assign(picked=lambda own: own["picked"] - own["circular_accuracy"])


def _middle_variation(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(picked=[float(np.mean(layers)) for layers in table["filter_variation"]])


def _smoothness(table: pd.DataFrame) -> Estimate | None:
    return _shortest_to_longest(_middle_variation(table), "picked")


def _shift_loss(table: pd.DataFrame) -> Estimate | None:
    return _shortest_to_longest(_loss_by_shift(table), "picked")


def _adversary(table: pd.DataFrame) -> Estimate | None:
    return _shortest_to_longest(_at("adversary", -1)(table), "picked")


def _adversary_against_augmentation(table: pd.DataFrame) -> Estimate | None:
    worst = _at("adversary", -1)(table)
    blurred = across_seeds(worst, "picked", layer=_longest(table), augmented=False)
    return paired(blurred, across_seeds(worst, "picked", layer="subsample", augmented=True))


FINDINGS = (
    Finding(
        "zhang-1",
        "Networks with blurred downsampling learn smoother filters: their normalised total variation is lower.",
        "supplement 2.1 and Figure 1, read in secondary copies",
        "curves only, no number found",
        (Part("mean normalised total variation, longest blur minus none", _smoothness, "below", margin=0.01),),
    ),
    Finding(
        "zhang-2",
        "With stronger blur, accuracy degrades less as the picture is shifted.",
        "seed summary of the supplement",
        "curves only, no number found",
        (
            Part(
                "accuracy unshifted minus mean over all shifts, longest blur minus none",
                _shift_loss,
                "below",
                margin=0.005,
            ),
        ),
    ),
    Finding(
        "zhang-3",
        "The predicted probability varies less over shifts as the blur gets longer.",
        "seed summary of the supplement",
        "no number found",
        (
            Part(
                "standard deviation of the class probability over shifts, longest blur minus none",
                lambda table: _shortest_to_longest(table, "probability_variation"),
                "below",
                margin=0.005,
            ),
        ),
    ),
    Finding(
        "zhang-4",
        "Stronger blur withstands an adversary who picks the worst shift, in some cases better than augmentation.",
        "seed summary of the supplement; the adversary's definition is ours",
        "no number found",
        (
            Part("accuracy under the worst circular shift, longest blur minus none", _adversary, margin=0.005),
            Part("the same, longest blur minus augmentation alone", _adversary_against_augmentation, margin=0.005),
        ),
    ),
    Finding(
        "zhang-5",
        "Blur keeps or raises accuracy while it raises consistency.",
        "Table 5, from one secondary source; abstract",
        "VGG13-bn: accuracy 91.6 to 93.0, consistency 88.1 to 98.1 (none to Bin-7, no augmentation)",
        (
            Part(
                "circular consistency, longest blur minus none",
                lambda table: _shortest_to_longest(table, "circular_consistency"),
                margin=0.005,
            ),
            Part(
                "accuracy, longest blur minus none; kept if not lower by a point",
                lambda table: _shortest_to_longest(table, "accuracy"),
                threshold=-0.01,
            ),
        ),
    ),
)

STUDY = Study(
    "zhang2019",
    "Blur before you subsample",
    "Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019",
    plan,
    FINDINGS,
)
