"""The comparison: every downsampling layer in the same networks, under one recipe, by every metric and cost.

None of the papers has this experiment. Its hypotheses are ours where they are not marked as another paper's; they were
suggested by a pilot with other seeds, another code and other networks. Two of them need more layers than there is time
for on photographs: on ``desktop`` they are asked of the small networks of ``saha2024`` that learn drawn pictures.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from ..jobs import Job
from ..measurements import Measurement
from .bases import BASES, DRAWN_FINISHED, FIRST, PROTOCOLS, Base, between, finished, trained
from .evidence import best, concordance, over_kinds, survived
from .rules import FINE, POINT, RHO, Test, above, below, claims
from .saha2024 import GROUND
from .study import Study

LEARNED = ("lps", "tips", "tips + losses", "ddac")  # layers with something to train
MOVED = ("lps", "ddac")  # those whose weights do not stay where they start, as those of TIPS do: see its chapter

ALL = ("subsample", "average", "rect-2", "tri-3", "bin-5", "bin-7", "flc", "asap", "aps", "lps", "tips", "ddac")
IN_PLACE = f"tri-3 {FIRST}"  # where the layers of the Fourier domain stand
RESIDUAL = ("subsample", "tri-3", "bin-5", "flc", "asap", "aps", IN_PLACE)

# Layers in the network with max-pools, and in the residual one; most informative first where time is short.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (
        ("subsample", "average", "rect-2", "tri-3", "bin-5", "bin-7", "flc", "asap", "aps", "tips"),
        ("subsample", "tri-3", "bin-5", "flc", "aps", IN_PLACE),
    ),
    "laptop": (ALL, RESIDUAL),
    "desktop": (("subsample", "bin-7", "tri-3", "bin-5", "aps", "tips + losses", "lps"), RESIDUAL),
    "gpu": (
        ("subsample", "bin-7", "tri-3", "bin-5", "aps", "tips + losses", "lps", "flc", "asap", "ddac", "rect-2"),
        RESIDUAL,
    ),
    "cluster": (ALL, RESIDUAL + LEARNED),
}
# Those of which the two claims are asked, where they are others.
_MANY = ("subsample", "rect-2", "tri-3", "bin-5", "bin-7", "flc", "aps", "lps")
APART = {"desktop": ((*_MANY, "average"), _MANY)}

# Test images under every circular shift, for ASAP: it adds a pixel and samples in steps of (n + 1)/h, so that no two
# shifts share any work.
ROLLED = {"smoke": 8, "laptop": 16, "desktop": 64, "gpu": 500, "cluster": 8}


def plan(profile: str) -> Iterator[Job]:
    """All runs of ``profile``, seed by seed."""
    base = BASES[profile]
    for seed in range(base.seeds):
        for backbone, chosen in zip(("vgg", "resnet"), LAYERS[profile], strict=True):
            for layer in chosen:
                wanted = _measurements(profile, backbone, layer, seed)
                # Of ASAP few images are rolled: a spread of its own, not to be pooled with the others'.
                labels = {"backbone": backbone, "layer": layer, "learned": layer in MOVED, "rolled": layer != "asap"}
                labels |= {"family": backbone, "apart": profile not in APART}
                yield Job(base.run(backbone, layer, seed), wanted, labels)
        for backbone, chosen in zip(("vgg", "resnet"), APART.get(profile, ((), ())), strict=True):
            for layer in chosen:
                labels = {"backbone": f"drawn {backbone}", "layer": layer, "family": backbone, "apart": True}
                yield Job(GROUND[profile].run(backbone, layer, seed), _usual(GROUND[profile]), labels)


def _usual(base: Base) -> tuple[Measurement, ...]:
    """Accuracy and stability, as far as all verdicts need them."""
    return (
        base.ask("accuracy", count=base.tested),
        base.ask("shift_consistency", count=base.count, max_shift=8),
        base.ask("one_pixel", count=base.count, protocols=("crop", "circular")),
    )


def _measurements(profile: str, backbone: str, layer: str, seed: int) -> tuple[Measurement, ...]:
    """Accuracy and shifts for all; robustness and sampling sites for the VGGs; cost, which no seed changes, once."""
    base = BASES[profile]
    shifted = min(base.count, 10_000)
    wanted = [
        base.ask("circular_rolls", count=ROLLED[profile] if layer == "asap" else base.exact),
        base.ask("accuracy", count=base.tested),  # after the rolls, whose accuracy may be of fewer images
        base.ask("shift_consistency", count=shifted, max_shift=8),
        # Of photographs, the protocols of the chapter on Azulay & Weiss.
        base.ask("one_pixel", count=shifted, protocols=(*(PROTOCOLS if base.by_image else ("crop",)), "circular")),
    ]
    if backbone == "vgg" or base.by_image:
        wanted += [
            base.attacks(),
            base.corruptions(),
            Measurement("sampling_bias", {"count": base.sampled}),
            Measurement("aliasing", {"count": base.sampled}),
        ]
    if seed == 0:
        wanted.append(Measurement("cost", {"size": base.dataset.get("size", 32)}))
    return tuple(wanted)


ACCURACY, STANDARD, CROP = "accuracy", "standard consistency", "P(top-1 change), crop"
CIRCULAR, IF_CORRECT = "circular consistency", "circular consistency of correctly classified pictures"
ERROR, SMALL, THREE = "corruption error", "accuracy under small attacks", (ACCURACY, STANDARD, CROP)
COLUMNS: dict[str, Any] = {
    ACCURACY: "accuracy.accuracy",
    STANDARD: "shift_consistency.standard_consistency",
    CROP: "one_pixel.top1_change_crop",
    CIRCULAR: "circular_rolls.circular_consistency",
    IF_CORRECT: "circular_rolls.circular_consistency_if_correct",
    ERROR: "corruptions.corruption_error",
    SMALL: survived(slice(3)),  # of eps = 1/4, 1/2 and 1 of 255, their mean
}
VGG, RESNET = {"backbone": "vgg"}, {"backbone": "resnet"}
Networks = dict[str, dict[str, Any]]
NETWORKS: Networks = {"VGG": VGG, "residual network": RESNET}
VGG_APART, RESNET_APART = ({"family": family, "apart": True} for family in ("vgg", "resnet"))
NETWORKS_APART: Networks = {"VGG": VGG_APART, "residual network": RESNET_APART}


def _tests(
    side: Any, claim: str, label: str, first: str, second: str, networks: Networks = NETWORKS, margin: float = FINE
) -> dict[str, Test]:
    """``first - second`` of the column that ``label`` names, one test of the claim per network."""
    common = {"rolled": True} if label in (CIRCULAR, IF_CORRECT) else {}
    return {
        f"{claim}: {label}, {first} minus {second}, {name}": side(
            COLUMNS[label], {"layer": first}, {"layer": second}, margin=margin, **own, **common
        )
        for name, own in networks.items()
    }


_more, _less = partial(_tests, above), partial(_tests, below)
ONLY_VGG, ONLY_RESNET = {"VGG": VGG}, {"residual network": RESNET}

LEARNED_BOTH, FINISHED_BOTH = (
    tuple(regime(f"the plain {name}", layer="subsample", **own) for name, own in NETWORKS.items())
    for regime in (trained, finished)
)
FINISHED_APART = tuple(
    trained(f"the plain {name}", COLUMNS[ACCURACY], DRAWN_FINISHED, layer="subsample", **own)
    for name, own in NETWORKS_APART.items()
)
ATTACKED, CORRUPTED = (
    tuple(
        between(f"{label} of the plain {name}", COLUMNS[label], layer="subsample", **own)
        for name, own in NETWORKS.items()
    )
    for label in (SMALL, ERROR)
)
REGIMES = {
    "comparison-4 control-1": LEARNED_BOTH,
    "comparison-1 comparison-2 comparison-3": FINISHED_BOTH,
    "comparison-5": FINISHED_BOTH[1:],
    "comparison-6 comparison-9": FINISHED_BOTH[:1],
    "comparison-7": FINISHED_APART[:1],
    "comparison-10": FINISHED_APART,
    "comparison-8": (*FINISHED_BOTH, *ATTACKED, *CORRUPTED),
    "comparison-11": LEARNED_BOTH[:1],
    "comparison-12": (*FINISHED_BOTH, *CORRUPTED),
}
TESTS = {
    **_more("comparison-1", ACCURACY, "tri-3", "subsample"),
    **_more("comparison-1", STANDARD, "tri-3", "subsample"),
    **_less("comparison-1", CROP, "tri-3", "subsample"),
    **_less("comparison-2", ACCURACY, "bin-5", "tri-3"),
    **_more("comparison-2", CIRCULAR, "bin-5", "tri-3"),
    **{
        f"comparison-3: circular consistency of aps, {name}": above(
            COLUMNS[CIRCULAR], {"layer": "aps"}, threshold=0.999, **own
        )
        for name, own in NETWORKS.items()
    },
    **_less("comparison-3", ACCURACY, "aps", "tri-3"),
    **_less("comparison-4", STANDARD, "aps", "tri-3"),
    **_more("comparison-4", CROP, "aps", "tri-3"),
    **_less("comparison-5", ACCURACY, "flc", IN_PLACE, ONLY_RESNET),
    **_more("comparison-5", CROP, "flc", IN_PLACE, ONLY_RESNET),
    **{
        # In each seed the best of the layers that learn: a choice in their favour.
        f"comparison-6: {label}, best learned minus tri-3, VGG": (above if label == CROP else below)(
            best(COLUMNS[label], VGG | {"layer": "tri-3"}, VGG | {"learned": True}, label != CROP, sign=-1), margin=FINE
        )
        for label in THREE
    },
    **_more("comparison-7", ACCURACY, "rect-2", "average", {"VGG": VGG_APART}),
    **_less("comparison-7", CROP, "rect-2", "average", {"VGG": VGG_APART}),
    **_more("comparison-8", SMALL, "tri-3", "subsample", margin=POINT),
    **_less("comparison-8", ERROR, "tri-3", "subsample"),
    **{
        f"comparison-9: Kendall's W over seeds, {label}, VGG": above(
            concordance(COLUMNS[label], VGG, "layer"), threshold=0.7
        )
        for label in THREE
    },
    **{
        f"comparison-10: Spearman over layers, {label} in the VGG and in the residual network": above(
            over_kinds(COLUMNS[label], COLUMNS[label], VGG_APART, "layer", other=RESNET_APART), margin=RHO
        )
        for label in THREE
    },
    "comparison-11: Spearman over layers, alias error with P(top-1 change), crop, VGG": above(
        over_kinds("aliasing.mean_alias_error", COLUMNS[CROP], VGG, "layer"), margin=RHO
    ),
    "comparison-11: Spearman over layers, maximum-sampling bias with standard consistency, VGG": below(
        over_kinds("sampling_bias.msb_nearest", COLUMNS[STANDARD], VGG, "layer"), margin=RHO
    ),
    **_less("comparison-12", ERROR, "tri-3", "subsample"),
    **_less("comparison-12", ERROR, "bin-5", "subsample"),
    **_less("comparison-12", ERROR, "bin-7", "subsample", ONLY_VGG),
    **_more("control-1", IF_CORRECT, "tri-3", "subsample"),
    **_more("control-1", IF_CORRECT, "bin-5", "subsample"),
}

STUDY = Study(
    "comparison",
    "Every layer on equal footing",
    "this project; no paper has this comparison",
    plan,
    claims(REGIMES, TESTS),
)
