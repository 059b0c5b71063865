"""Zhang 2019, "Making Convolutional Networks Shift-Invariant Again": blur between the dense max and the subsampling.

The networks are VGGs with circular padding, so that a circular shift is the only thing that changes. The paper's
optimiser, schedule and augmentation window for CIFAR-10 are not known; the recipes here are our choice.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ..measurements import Measurement
from ..records import Run
from ..runner import Job
from .bases import BASES, Base, finished, trained
from .evidence import Derived, entry, level, minus
from .rules import Finding, Regime, Test
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
                longest = layer == max(LAYERS[profile][0], key=FILTERS.index)
                jobs.append(Job(run, wanted, {"layer": layer, "augmented": augmented, "longest": longest}))
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


NONE, LONGEST = {"layer": "subsample"}, {"longest": True}
# The network that is not blurred has learned its task, and its decisions do depend on the shift.
_PLAIN: dict[str, Any] = {"layer": "subsample", "augmented": False}
_SHAKY = Regime("its circular consistency", level("circular_rolls.circular_consistency", **_PLAIN), most=0.98)
TESTABLE = (trained("the network without blur", **_PLAIN), _SHAKY)
COMPARABLE = (finished("the network without blur", **_PLAIN), _SHAKY)
FINE, POINT = 0.005, 0.01  # half a point of consistency or accuracy matters in practice; a point is "kept"
SUPPLEMENT = "seed summary of the supplement"
_WORST = entry("circular_rolls.adversary", -1)
_SHIFT_LOSS = Derived(
    ("circular_rolls.accuracy_by_shift", "circular_rolls.circular_accuracy"), lambda curve, mean: curve[0] - mean
)

FINDINGS = (
    Finding(
        "zhang-1",
        "Networks with blurred downsampling learn smoother filters: their normalised total variation is lower.",
        "supplement 2.1 and Figure 1, read in secondary copies",
        "curves only, no number found",
        (
            Test(
                "mean normalised total variation, longest blur minus none",
                minus(Derived(("filter_variation.filter_variation",), np.mean), LONGEST, NONE, augmented=False),
                "below",
                margin=0.01,
            ),
        ),
        TESTABLE,
    ),
    Finding(
        "zhang-2",
        "With stronger blur, accuracy degrades less as the picture is shifted.",
        SUPPLEMENT,
        "curves only, no number found",
        (
            Test(
                "accuracy unshifted minus mean over all shifts, longest blur minus none",
                minus(_SHIFT_LOSS, LONGEST, NONE, augmented=False),
                "below",
                margin=FINE,
            ),
        ),
        TESTABLE,
    ),
    Finding(
        "zhang-3",
        "The predicted probability varies less over shifts as the blur gets longer.",
        SUPPLEMENT,
        "no number found",
        (
            Test(
                "standard deviation of the class probability over shifts, longest blur minus none",
                minus("circular_rolls.probability_variation", LONGEST, NONE, augmented=False),
                "below",
                margin=FINE,
            ),
        ),
        TESTABLE,
    ),
    Finding(
        "zhang-4",
        "Stronger blur withstands an adversary who picks the worst shift, in some cases better than augmentation.",
        f"{SUPPLEMENT}; the adversary's definition is ours",
        "no number found",
        (
            Test(
                "accuracy under the worst circular shift, longest blur minus none",
                minus(_WORST, LONGEST, NONE, augmented=False),
                margin=FINE,
            ),
            Test(
                "the same, longest blur minus augmentation alone",
                minus(_WORST, LONGEST | {"augmented": False}, NONE | {"augmented": True}),
                margin=FINE,
            ),
        ),
        TESTABLE,
    ),
    Finding(
        "zhang-5",
        "Blur keeps or raises accuracy while it raises consistency.",
        "Table 5, from one secondary source; abstract",
        "VGG13-bn: accuracy 91.6 to 93.0, consistency 88.1 to 98.1 (none to Bin-7, no augmentation)",
        (
            Test(
                "circular consistency, longest blur minus none",
                minus("circular_rolls.circular_consistency", LONGEST, NONE, augmented=False),
                margin=FINE,
            ),
            Test(
                "accuracy, longest blur minus none; kept if not lower by a point",
                minus("accuracy.accuracy", LONGEST, NONE, augmented=False),
                threshold=-POINT,
            ),
        ),
        COMPARABLE,
    ),
    Finding(
        "zhang-6",
        "Without shift augmentation, blur makes the network more accurate.",
        "Table 5, from one secondary source; abstract: increased accuracy",
        "VGG13-bn: 91.6 without, 93.1 with Tri-3, 93.0 with Bin-7",
        (
            Test(
                "accuracy, tri-3 minus none",
                minus("accuracy.accuracy", {"layer": "tri-3"}, NONE, augmented=False),
                margin=FINE,
            ),
            Test(
                "accuracy, longest blur minus none",
                minus("accuracy.accuracy", LONGEST, NONE, augmented=False),
                margin=FINE,
            ),
        ),
        COMPARABLE,
    ),
    Finding(
        "zhang-7",
        "With shift augmentation, blur raises consistency further and costs at most about half a point of accuracy.",
        "Table 5, from one secondary source",
        "VGG13-bn: consistency 96.6 to 98.8, accuracy 93.8 to 93.2 (none to Bin-7, augmented)",
        (
            Test(
                "circular consistency, longest blur minus none, both augmented",
                minus("circular_rolls.circular_consistency", LONGEST, NONE, augmented=True),
                margin=FINE,
            ),
            Test(
                "accuracy, the same; about kept if not lower by a point",
                minus("accuracy.accuracy", LONGEST, NONE, augmented=True),
                threshold=-POINT,
            ),
        ),
        COMPARABLE,
    ),
)

STUDY = Study(
    "zhang2019",
    "Blur before you subsample",
    "Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019",
    plan,
    FINDINGS,
)
