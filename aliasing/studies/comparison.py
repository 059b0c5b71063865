"""The comparison: every downsampling layer in the same networks, under one recipe, by every metric and cost.

None of the papers has this experiment. Its hypotheses are ours where they are not marked as another paper's; they were
suggested by a pilot with other seeds, another code and other networks.
"""

from typing import Any

from ..measurements import Measurement
from ..runner import Job
from .bases import BASES, FINE, POINT, PROTOCOLS, RHO, between, finished, trained
from .evidence import Best, Column, Concordance, OverKinds, level, minus, survived
from .rules import Test, claim
from .study import Study

__all__ = ["LEARNED", "STUDY"]

LEARNED = ("lps", "tips", "tips + losses", "ddac")  # layers with something to train

ALL = ("subsample", "average", "rect-2", "tri-3", "bin-5", "bin-7", "flc", "asap", "aps", "lps", "tips", "ddac")
RESIDUAL = ("subsample", "tri-3", "bin-5", "flc", "asap", "aps")

# Layers in the network with max-pools, and in the residual one; most informative first where time is short.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (
        ("subsample", "average", "rect-2", "tri-3", "bin-5", "flc", "asap", "aps", "tips"),
        ("subsample", "tri-3", "bin-5", "flc", "aps"),
    ),
    "laptop": (ALL, RESIDUAL),
    "desktop": (("subsample", "bin-7", "tri-3", "bin-5", "aps", "tips + losses", "lps"), RESIDUAL),
    "gpu": (
        ("subsample", "bin-7", "tri-3", "bin-5", "aps", "tips + losses", "lps", "flc", "asap", "ddac", "rect-2"),
        RESIDUAL,
    ),
    "cluster": (ALL, RESIDUAL + LEARNED),
}


# Test images under every circular shift, for ASAP: it adds a pixel and samples in steps of (n + 1)/h, so that no two
# shifts share any work.
ROLLED = {"smoke": 8, "laptop": 16, "desktop": 64, "gpu": 500, "cluster": 8}


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``, seed by seed."""
    base = BASES[profile]
    jobs = []
    for seed in range(base.seeds):
        for backbone, chosen in zip(("vgg", "resnet"), LAYERS[profile], strict=True):
            for layer in chosen:
                wanted = _measurements(profile, backbone, layer, seed)
                labels = {"backbone": backbone, "layer": layer, "learned": layer in LEARNED}
                jobs.append(Job(base.run(backbone, layer, seed), wanted, labels))
    return jobs


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


ACCURACY, CIRCULAR, STANDARD, CROP = (
    "accuracy.accuracy",
    "circular_rolls.circular_consistency",
    "shift_consistency.standard_consistency",
    "one_pixel.top1_change_crop",
)
IF_CORRECT = "circular_rolls.circular_consistency_if_correct"
ERROR, BIAS, ALIAS = "corruptions.corruption_error", "sampling_bias.msb_nearest", "aliasing.mean_alias_error"
# Accuracy under attacks of eps = 1/4, 1/2 and 1 of 255, their mean.
SMALL_ATTACK = survived(slice(3))

VGG, RESNET = {"backbone": "vgg"}, {"backbone": "resnet"}
NETWORKS = ((VGG, "VGG"), (RESNET, "residual network"))
_PLAIN_ONES = (("the plain VGG", "vgg"), ("the plain residual network", "resnet"))
LEARNED_BOTH, FINISHED_BOTH = (
    tuple(regime(name, layer="subsample", backbone=backbone) for name, backbone in _PLAIN_ONES)
    for regime in (trained, finished)
)
VGG_LEARNED, VGG_FINISHED, RESNET_FINISHED = LEARNED_BOTH[:1], FINISHED_BOTH[:1], FINISHED_BOTH[1:]
ATTACKED = between("its accuracy under small attacks", SMALL_ATTACK, layer="subsample", backbone="vgg")
CORRUPTED = between("its error under corruption", ERROR, layer="subsample", backbone="vgg")


def _tests(
    label: str, column: Column, first: str, second: str, side: Any, networks: Any = NETWORKS, margin: float = FINE
) -> list[Test]:
    """``first - second``, one test per network."""
    return [
        Test(
            f"{label}, {first} minus {second}, {name}",
            minus(column, {"layer": first}, {"layer": second}, **where),
            side,
            margin=margin,
        )
        for where, name in networks
    ]


def _best(label: str, column: str, higher: bool) -> Test:
    """In each seed the best of the layers that learn, in favour of which the choice is made, minus ``tri-3``."""
    statistic = Best(column, VGG | {"layer": "tri-3"}, VGG | {"learned": True}, higher, sign=-1)
    return Test(f"{label}, best learned minus tri-3, VGG", statistic, "below" if higher else "above", margin=FINE)


THREE = ((ACCURACY, "accuracy"), (STANDARD, "standard consistency"), (CROP, "P(top-1 change), crop"))
ONLY_VGG, ONLY_RESNET = NETWORKS[:1], NETWORKS[1:]

FINDINGS = (
    claim(
        "comparison-1",
        FINISHED_BOTH,
        *_tests("accuracy", ACCURACY, "tri-3", "subsample", "above"),
        *_tests("standard consistency", STANDARD, "tri-3", "subsample", "above"),
        *_tests("P(top-1 change), crop", CROP, "tri-3", "subsample", "below"),
    ),
    claim(
        "comparison-2",
        FINISHED_BOTH,
        *_tests("accuracy", ACCURACY, "bin-5", "tri-3", "below"),
        *_tests("circular consistency", CIRCULAR, "bin-5", "tri-3", "above"),
    ),
    claim(
        "comparison-3",
        FINISHED_BOTH,
        *(
            Test(f"circular consistency of aps, {name}", level(CIRCULAR, layer="aps", **where), "above", 0.999)
            for where, name in NETWORKS
        ),
        *_tests("accuracy", ACCURACY, "aps", "tri-3", "below"),
    ),
    claim(
        "comparison-4",
        LEARNED_BOTH,
        *_tests("standard consistency", STANDARD, "aps", "tri-3", "below"),
        *_tests("P(top-1 change), crop", CROP, "aps", "tri-3", "above"),
    ),
    claim(
        "comparison-5",
        RESNET_FINISHED,
        *_tests("accuracy", ACCURACY, "flc", "tri-3", "below", ONLY_RESNET),
        *_tests("P(top-1 change), crop", CROP, "flc", "tri-3", "above", ONLY_RESNET),
    ),
    claim("comparison-6", VGG_FINISHED, *(_best(label, column, column != CROP) for column, label in THREE)),
    claim(
        "comparison-7",
        VGG_FINISHED,
        *_tests("accuracy", ACCURACY, "rect-2", "average", "above", ONLY_VGG),
        *_tests("P(top-1 change), crop", CROP, "rect-2", "average", "below", ONLY_VGG),
    ),
    claim(
        "comparison-8",
        (*VGG_FINISHED, ATTACKED, CORRUPTED),
        *_tests("accuracy under small attacks", SMALL_ATTACK, "tri-3", "subsample", "above", ONLY_VGG, POINT),
        *_tests("corruption error", ERROR, "tri-3", "subsample", "below", ONLY_VGG),
    ),
    claim(
        "comparison-9",
        VGG_LEARNED,
        *(
            Test(f"Kendall's W over seeds, {label}, VGG", Concordance(column, VGG, "layer"), "above", 0.7)
            for column, label in THREE
        ),
    ),
    claim(
        "comparison-10",
        LEARNED_BOTH,
        *(
            Test(
                f"Spearman over layers, {label} in the VGG and in the residual network",
                OverKinds(column, column, VGG, "layer", other=RESNET),
                margin=RHO,
            )
            for column, label in THREE
        ),
    ),
    claim(
        "comparison-11",
        VGG_LEARNED,
        Test(
            "Spearman over layers, alias error with P(top-1 change), crop, VGG",
            OverKinds(ALIAS, CROP, VGG, "layer"),
            margin=RHO,
        ),
        Test(
            "Spearman over layers, maximum-sampling bias with standard consistency, VGG",
            OverKinds(BIAS, STANDARD, VGG, "layer"),
            "below",
            margin=RHO,
        ),
    ),
    claim(
        "comparison-12",
        (*VGG_FINISHED, CORRUPTED),
        *_tests("corruption error", ERROR, "tri-3", "subsample", "below", ONLY_VGG),
        *_tests("corruption error", ERROR, "bin-5", "subsample", "below", ONLY_VGG),
    ),
    claim(
        "control-1",
        LEARNED_BOTH,
        *(
            test
            for layer in ("tri-3", "bin-5")
            for test in _tests(
                "circular consistency of correctly classified pictures", IF_CORRECT, layer, "subsample", "above"
            )
        ),
    ),
)

STUDY = Study(
    "comparison",
    "Every layer on equal footing",
    "this project; no paper has this comparison",
    plan,
    FINDINGS,
)
