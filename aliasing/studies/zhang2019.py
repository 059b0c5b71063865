"""Zhang 2019, "Making Convolutional Networks Shift-Invariant Again": blur between the dense max and the subsampling.

The networks are VGGs with circular padding, so that a circular shift is the only thing that changes. The paper's
optimiser, schedule and augmentation window for CIFAR-10 are not known; the recipes here are our choice.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..jobs import Job
from ..measurements import Measurement
from .bases import BASES, finished, trained
from .evidence import Derived, entry, level
from .rules import POINT, Regime, above, below, claims, kept
from .study import Study

FILTERS = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7")


# Layers trained without and with shift augmentation.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (("subsample", "tri-3", "bin-5"), ("subsample",)),
    "laptop": (("subsample", "rect-2", "tri-3", "bin-5", "bin-7"), ("subsample", "bin-7")),
    "desktop": (("subsample", "bin-7", "tri-3", "bin-5"), ("subsample", "bin-7")),
    "gpu": (("subsample", "bin-7", "tri-3", "bin-5", "rect-2"), ("subsample", "bin-7", "tri-3", "bin-5")),
    "cluster": (("subsample", "rect-2", "tri-3", "bin-4", "bin-5"), ()),
}
SHIFT = 16  # pixels per axis: with circular shifts of 32 x 32 pictures, every position


def plan(profile: str) -> Iterator[Job]:
    """All runs of ``profile``: a whole seed before the next, so that every stop leaves balanced results."""
    base = BASES[profile]
    for seed in range(base.seeds):
        for augmented, filters in zip((False, True), LAYERS[profile], strict=True):
            for layer in filters:
                run = base.changed(recipe={"shift": SHIFT if augmented else 0}).run("vgg", layer, seed)
                wanted = [*base.rolls(), Measurement("filter_variation")]
                if seed == 0 and not augmented:  # what only the pictures show
                    wanted.append(Measurement("shift_curves", {"count": 48}))
                    reach = 2 if profile == "smoke" else 8  # a forward pass per shift
                    wanted.append(Measurement("equivariance", {"count": 8, "max_shift": reach}))
                longest = layer == max(LAYERS[profile][0], key=FILTERS.index)
                yield Job(run, tuple(wanted), {"layer": layer, "augmented": augmented, "longest": longest})


NONE: dict[str, Any] = {"layer": "subsample"}
LONGEST: dict[str, Any] = {"longest": True}
# The network that is not blurred has learned its task, and its decisions do depend on the shift.
_PLAIN, _MOVED = NONE | {"augmented": False}, NONE | {"augmented": True}
_SHAKY, _STILL_SHAKY = (
    Regime("its circular consistency", level("circular_rolls.circular_consistency", **one), most=0.98)
    for one in (_PLAIN, _MOVED)
)
_WORST = entry("circular_rolls.adversary", -1)
_SHIFT_LOSS = Derived(
    ("circular_rolls.accuracy_by_shift", "circular_rolls.circular_accuracy"), lambda curve, mean: curve[0] - mean
)
_VARIATION = Derived(("filter_variation.filter_variation",), np.mean)
ACCURACY, CONSISTENCY = "accuracy.accuracy", "circular_rolls.circular_consistency"
# Of the longest blur minus none, where nothing else is said.
_more, _less, _kept = (partial(side, one=LONGEST, other=NONE, augmented=False) for side in (above, below, kept))

_BLURRED = trained("the network with the longest blur", **LONGEST, augmented=False)
REGIMES = {
    "zhang-1 zhang-2 zhang-3": (trained("the network without blur", **_PLAIN), _SHAKY, _BLURRED),
    "zhang-4": (
        *(finished("the network without blur", **_PLAIN), _SHAKY, _BLURRED),
        finished("the network without blur, trained with shifts", **_MOVED),
    ),
    "zhang-5 zhang-6": (finished("the network without blur", **_PLAIN), _SHAKY),
    "zhang-7": (finished("the network without blur, trained with shifts", **_MOVED), _STILL_SHAKY),
}
TESTS = {
    "zhang-1: mean normalised total variation, longest blur minus none": _less(_VARIATION, margin=POINT),
    "zhang-2: accuracy unshifted minus mean over all shifts, longest blur minus none": _less(_SHIFT_LOSS),
    "zhang-2: the same, longest blur minus tri-3": _less(_SHIFT_LOSS, other={"layer": "tri-3"}),
    "zhang-3: standard deviation of the class probability over shifts, longest blur minus none": _less(
        "circular_rolls.probability_variation"
    ),
    "zhang-3: the same, longest blur minus tri-3": _less(
        "circular_rolls.probability_variation", other={"layer": "tri-3"}
    ),
    "zhang-4: accuracy under the worst circular shift, longest blur minus none": _more(_WORST),
    "zhang-4: the same, longest blur minus augmentation alone": above(
        _WORST, LONGEST | {"augmented": False}, NONE | {"augmented": True}
    ),
    "zhang-5: circular consistency, longest blur minus none": _more(CONSISTENCY),
    "zhang-5: accuracy, longest blur minus none; kept if not lower by a point": _kept(ACCURACY),
    "zhang-6: accuracy, tri-3 minus none": _more(ACCURACY, one={"layer": "tri-3"}),
    "zhang-6: accuracy, longest blur minus none": _more(ACCURACY),
    "zhang-7: circular consistency, longest blur minus none, both augmented": _more(CONSISTENCY, augmented=True),
    "zhang-7: accuracy, the same; about half a point is less than three quarters": _kept(
        ACCURACY, augmented=True, threshold=-0.0075
    ),
}

STUDY = Study(
    "zhang2019",
    "Blur before you subsample",
    "Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019",
    plan,
    claims(REGIMES, TESTS),
)
