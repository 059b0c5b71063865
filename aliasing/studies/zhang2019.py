"""Zhang 2019, "Making Convolutional Networks Shift-Invariant Again": blur between the dense max and the subsampling.

The networks are VGGs with circular padding, so that a circular shift is the only thing that changes. The paper's
optimiser, schedule and augmentation window for CIFAR-10 are not known; the recipes here are our choice.
"""

from typing import Any

import numpy as np

from ..measurements import Measurement
from ..runner import Job
from .bases import BASES, FINE, POINT, Base, finished, trained
from .evidence import Column, Derived, entry, level, minus
from .rules import Regime, Test, claim
from .study import Study

__all__ = ["FILTERS", "STUDY"]

FILTERS = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7")


# Layers trained without and with shift augmentation.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (("subsample", "bin-5"), ("subsample",)),
    "laptop": (("subsample", "rect-2", "tri-3", "bin-5", "bin-7"), ("subsample", "bin-7")),
    "desktop": (("subsample", "bin-7", "tri-3"), ("subsample", "bin-7")),
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
            for layer in filters:
                run = base.run("vgg", layer, seed, recipe={"shift": SHIFT if augmented else 0})
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
_WORST = entry("circular_rolls.adversary", -1)
_SHIFT_LOSS = Derived(
    ("circular_rolls.accuracy_by_shift", "circular_rolls.circular_accuracy"), lambda curve, mean: curve[0] - mean
)
_VARIATION = Derived(("filter_variation.filter_variation",), np.mean)
ACCURACY, CONSISTENCY = "accuracy.accuracy", "circular_rolls.circular_consistency"


def _test(
    label: str,
    column: Column,
    side: Any = "above",
    margin: float = FINE,
    threshold: float = 0,
    blur: Any = LONGEST,
    augmented: bool = False,
) -> Test:
    """Blur minus none."""
    return Test(label, minus(column, blur, NONE, augmented=augmented), side, threshold, margin)


FINDINGS = (
    claim(
        "zhang-1",
        TESTABLE,
        _test("mean normalised total variation, longest blur minus none", _VARIATION, "below", 0.01),
    ),
    claim(
        "zhang-2",
        TESTABLE,
        _test("accuracy unshifted minus mean over all shifts, longest blur minus none", _SHIFT_LOSS, "below"),
    ),
    claim(
        "zhang-3",
        TESTABLE,
        _test(
            "standard deviation of the class probability over shifts, longest blur minus none",
            "circular_rolls.probability_variation",
            "below",
        ),
    ),
    claim(
        "zhang-4",
        TESTABLE,
        _test("accuracy under the worst circular shift, longest blur minus none", _WORST),
        Test(
            "the same, longest blur minus augmentation alone",
            minus(_WORST, LONGEST | {"augmented": False}, NONE | {"augmented": True}),
            margin=FINE,
        ),
    ),
    claim(
        "zhang-5",
        COMPARABLE,
        _test("circular consistency, longest blur minus none", CONSISTENCY),
        _test("accuracy, longest blur minus none; kept if not lower by a point", ACCURACY, "above", 0, -POINT),
    ),
    claim(
        "zhang-6",
        COMPARABLE,
        _test("accuracy, tri-3 minus none", ACCURACY, blur={"layer": "tri-3"}),
        _test("accuracy, longest blur minus none", ACCURACY),
    ),
    claim(
        "zhang-7",
        COMPARABLE,
        _test("circular consistency, longest blur minus none, both augmented", CONSISTENCY, augmented=True),
        _test("accuracy, the same; about kept if not lower by a point", ACCURACY, "above", 0, -POINT, augmented=True),
    ),
)

STUDY = Study(
    "zhang2019",
    "Blur before you subsample",
    "Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019",
    plan,
    FINDINGS,
)
