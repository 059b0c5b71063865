"""Zhang 2019, "Making Convolutional Networks Shift-Invariant Again": blur between the dense max and the subsampling.

The networks are VGGs with circular padding, so that a circular shift is the only thing that changes. The paper's
optimiser, schedule and augmentation window for CIFAR-10 are not known; the recipes here are our choice.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..evaluation import Measurement
from ..metrics import Estimate
from ..records import Run
from ..runner import Job
from ..training import Recipe
from .findings import Finding, Part, across_seeds, paired
from .study import Study

__all__ = ["FILTERS", "STUDY"]

FILTERS = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7")


@dataclass(frozen=True)
class Size:
    """How large a profile executes the study.

    Attributes:
        dataset: for ``datasets.load``.
        network: for ``models.create``.
        recipe: of every run; those with augmentation add random circular shifts of up to ``shift`` pixels.
        filters: downsampling layers trained without shift augmentation.
        augmented: downsampling layers trained with it.
        seeds: number of seeds.
        count: test images measured under every circular shift.
    """

    dataset: dict[str, Any]
    network: dict[str, Any]
    recipe: Recipe
    filters: tuple[str, ...]
    augmented: tuple[str, ...]
    seeds: int
    count: int
    shift: int = 16


# The generator was designed on the pictures of seed 0; the studies use others.
_SHAPES = {"name": "shapes", "seed": 1}
_SMALL = {"name": "vgg-small", "num_classes": 10, "padding_mode": "circular"}
_VGG13 = {"name": "vgg13-bn", "num_classes": 10, "padding_mode": "circular"}
_MAIN = ("subsample", "tri-3", "bin-5", "bin-7")

SIZES = {
    "smoke": Size(
        dataset=_SHAPES | {"count": 256},
        network=_SMALL | {"width": 4},
        recipe=Recipe(epochs=2, batch_size=64),
        filters=("subsample", "bin-5"),
        augmented=("subsample",),
        seeds=2,
        count=32,
    ),
    "laptop": Size(
        dataset=_SHAPES | {"count": 8000},
        network=_SMALL,
        recipe=Recipe(epochs=4),
        filters=("subsample", "rect-2", "tri-3", "bin-5", "bin-7"),
        augmented=("subsample", "tri-3", "bin-7"),
        seeds=3,
        count=1000,
    ),
    "desktop": Size(
        dataset={"name": "cifar10"},
        network=_SMALL,
        recipe=Recipe(epochs=8, flip=True),
        filters=_MAIN,
        augmented=_MAIN,
        seeds=3,
        count=2000,
    ),
    "gpu": Size(
        dataset={"name": "cifar10"},
        network=_VGG13,
        recipe=Recipe(epochs=40, batch_size=256, lr=0.1, flip=True),
        filters=FILTERS,
        augmented=FILTERS,
        seeds=3,
        count=10_000,
    ),
    "cluster": Size(
        dataset={"name": "folder", "size": 224},
        network={"name": "resnet50", "num_classes": 1000},
        recipe=Recipe(epochs=90, batch_size=256, lr=0.1, weight_decay=1e-4, schedule="steps", warmup=0.0, flip=True),
        filters=("subsample", "rect-2", "tri-3", "bin-4", "bin-5"),
        augmented=(),
        seeds=1,
        count=50_000,
    ),
}


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``: a whole seed before the next, so that every stop leaves balanced results."""
    size = SIZES[profile]
    jobs = []
    for seed in range(size.seeds):
        for augmented, filters in ((False, size.filters), (True, size.augmented)):
            recipe = replace(size.recipe, shift=size.shift) if augmented else size.recipe
            for layer in filters:
                run = Run(size.dataset, size.network | {"downsample": layer}, recipe, seed)
                jobs.append(Job(run, _measurements(size, seed, augmented), {"layer": layer, "augmented": augmented}))
    return jobs


def _measurements(size: Size, seed: int, augmented: bool) -> tuple[Measurement, ...]:
    """What every network is asked, and what only those that the pictures show are asked."""
    wanted = [
        Measurement("circular_rolls", {"count": size.count}),
        Measurement("filter_variation"),
    ]
    if seed == 0 and not augmented:
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
    """Accuracy at the picture's own place minus mean accuracy over all shifts."""
    return table.assign(picked=table["accuracy"] - table["circular_accuracy"])


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
