"""The comparison: every downsampling layer in the same networks, under one recipe, by every metric and cost.

None of the papers has this experiment. Its hypotheses are ours where they are not marked as another paper's; they were
suggested by a pilot with other seeds, another code and other networks.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from ..measurements import Measurement
from ..records import Run
from ..runner import Job
from .bases import ALPHA, BASES, PROTOCOLS, Base, between, finished, trained
from .evidence import Best, Column, Concordance, OverKinds, level, minus, survived
from .rules import Finding, Test
from .study import Study

__all__ = ["LEARNED", "METRICS", "STUDY", "Metric", "network", "prepared"]

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


class Sizes(NamedTuple):
    """Protocols of the measurements, as in the chapters that share them.

    Attributes:
        shifted: test images under standard and sub-pixel shifts, and under one-pixel protocols.
        attacked: test images under attack.
        corrupted: test images under corruption.
        rolled: test images under every circular shift, for ASAP: it adds a pixel and samples in steps of (n + 1)/h, so
            that no two shifts share any work.
        steps: of PGD.
        severities: of the corruptions.
        sampled: test images at the downsampling sites.
        protocols: of the one-pixel changes; where pictures are photographs, those of the chapter on Azulay & Weiss.
    """

    shifted: int
    attacked: int
    corrupted: int
    rolled: int
    steps: int
    severities: tuple[int, ...]
    sampled: int
    protocols: tuple[str, ...] = ("crop", "circular")


SIZES = {
    "smoke": Sizes(32, 8, 8, 8, 2, (3,), 16),
    "laptop": Sizes(500, 48, 48, 16, 10, (1, 3, 5), 256),
    "desktop": Sizes(2000, 500, 2000, 64, 10, (1, 3, 5), 500, (*PROTOCOLS, "circular")),
    "gpu": Sizes(10_000, 1000, 2000, 500, 20, (1, 2, 3, 4, 5), 1000, (*PROTOCOLS, "circular")),
    "cluster": Sizes(10_000, 1000, 1000, 8, 40, (1, 2, 3, 4, 5), 1000),
}


def network(base: Base, backbone: str, layer: str) -> dict[str, Any]:
    """The ``backbone`` ("vgg" or "resnet") with ``layer``.

    The layer follows the dense max of every pool, or convolution and activation. Exceptions: "average" is the two-tap
    filter without the max before it; the Fourier layers in residual networks come before the convolution, where their
    paper puts them.
    """
    if layer == "average":
        return base.vgg | {"downsample": "rect-2", "pool": "none"}
    options: dict[str, Any] = {"downsample": base.layer(layer.removesuffix(" + losses"))}
    if backbone == "resnet" and layer in ("flc", "asap"):
        options["placement"] = "pool-then-conv"
    return (base.vgg if backbone == "vgg" else base.resnet) | options


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``, seed by seed."""
    base = BASES[profile]
    jobs = []
    for seed in range(base.seeds):
        for backbone, recipe, chosen in zip(
            ("vgg", "resnet"), (base.recipe, base.residual), LAYERS[profile], strict=True
        ):
            for layer in chosen:
                own = replace(recipe, auxiliary=ALPHA) if layer.endswith("losses") else recipe
                run = Run(base.dataset, network(base, backbone, layer), own, seed)
                wanted = _measurements(profile, backbone, layer, seed)
                jobs.append(Job(run, wanted, {"backbone": backbone, "layer": layer, "learned": layer in LEARNED}))
    return jobs


def _measurements(profile: str, backbone: str, layer: str, seed: int) -> tuple[Measurement, ...]:
    """Accuracy and shifts for all; robustness and sampling sites for the VGGs; cost, which no seed changes, once."""
    base, sizes = BASES[profile], SIZES[profile]
    wanted = [
        base.ask("circular_rolls", count=sizes.rolled if layer == "asap" else base.exact),
        base.ask("accuracy", count=base.tested),  # after the rolls, whose accuracy may be of fewer images
        base.ask("shift_consistency", count=sizes.shifted, max_shift=8),
        base.ask("one_pixel", count=sizes.shifted, protocols=sizes.protocols),
    ]
    if backbone == "vgg" or base.by_image:
        wanted += [
            base.ask("attacks", count=sizes.attacked, steps=sizes.steps),
            base.ask("corruptions", count=sizes.corrupted, severities=sizes.severities),
            Measurement("sampling_bias", {"count": sizes.sampled}),
            Measurement("aliasing", {"count": sizes.sampled}),
        ]
    if seed == 0:
        wanted.append(Measurement("cost", {"size": base.dataset.get("size", 32)}))
    return tuple(wanted)


@dataclass(frozen=True)
class Metric:
    """A column of the comparison.

    Attributes:
        column: of the prepared results table.
        title: for axes and table heads.
        higher: whether more is better.
    """

    column: str
    title: str
    higher: bool = True

    @property
    def arrow(self) -> str:
        """The title with the direction that is better."""
        return f"{self.title} {'↑' if self.higher else '↓'}"


ACCURACY, CIRCULAR, STANDARD, CROP = (
    "accuracy.accuracy",
    "circular_rolls.circular_consistency",
    "shift_consistency.standard_consistency",
    "one_pixel.top1_change_crop",
)
ERROR, BIAS, ALIAS = "corruptions.corruption_error", "sampling_bias.msb_nearest", "aliasing.mean_alias_error"
# Accuracy under attacks of eps = 1/4, 1/2 and 1 of 255, their mean.
SMALL_ATTACK = survived(slice(3))

METRICS = (
    Metric(ACCURACY, "accuracy"),
    Metric(CIRCULAR, "circular consistency"),
    Metric(STANDARD, "standard consistency"),
    Metric("shift_consistency.sub_pixel_consistency", "sub-pixel consistency"),
    Metric(CROP, "one-pixel change, crop", higher=False),
    Metric("one_pixel.mean_absolute_change_crop", "mean absolute change, crop", higher=False),
    Metric("small_attack", "accuracy, small attacks"),
    Metric(ERROR, "corruption error", higher=False),
    Metric(BIAS, "maximum-sampling bias", higher=False),
    Metric(ALIAS, "alias error", higher=False),
    Metric("work", "multiply-accumulates, relative", higher=False),
)


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """The results with three columns more: accuracy under small attacks, work and time relative to ``subsample``."""
    table = table.assign(small_attack=SMALL_ATTACK.of(table))
    for name, column in (("work", "cost.macs"), ("time", "cost.milliseconds")):
        own = table.groupby(["backbone", "layer"])[column].transform("first")
        plain = table[table["layer"] == "subsample"].groupby("backbone")[column].first()
        table[name] = own / table["backbone"].map(plain)
    return table


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
    label: str, column: Column, first: str, second: str, side: Any, margin: float, networks: Any = NETWORKS
) -> tuple[Test, ...]:
    """``first - second``, one test per network."""
    return tuple(
        Test(
            f"{label}, {first} minus {second}, {name}",
            minus(column, {"layer": first}, {"layer": second}, **where),
            side,
            margin=margin,
        )
        for where, name in networks
    )


def _best(label: str, column: str, higher: bool) -> Test:
    """In each seed the best of the layers that learn, in favour of which the choice is made, minus ``tri-3``."""
    statistic = Best(column, VGG | {"layer": "tri-3"}, VGG | {"learned": True}, higher, sign=-1)
    return Test(f"{label}, best learned minus tri-3, VGG", statistic, "below" if higher else "above", margin=FINE)


# What would matter in practice: half a point of accuracy or consistency, a point where fewer images are measured; a
# correlation of three tenths.
FINE, COARSE, RHO = 0.005, 0.01, 0.3
OURS = "hypothesis of this chapter"
NONE = "no paper compares these layers under one recipe"
THREE = ((ACCURACY, "accuracy"), (STANDARD, "standard consistency"), (CROP, "P(top-1 change), crop"))

FINDINGS = (
    Finding(
        "comparison-1",
        "Three taps help everywhere: tri-3 beats no filter in accuracy, under standard shifts and one-pixel crops, "
        "in both networks.",
        "Zhang 2019 claims both, accuracy and consistency, for several architectures",
        "ImageNet, ResNet50: accuracy 76.2 to 76.8, crop consistency 89.2 to 90.9 (Zhang's code repository)",
        (
            *_tests("accuracy", ACCURACY, "tri-3", "subsample", "above", FINE),
            *_tests("standard consistency", STANDARD, "tri-3", "subsample", "above", FINE),
            *_tests("P(top-1 change), crop", CROP, "tri-3", "subsample", "below", FINE),
        ),
        FINISHED_BOTH,
        "another",
    ),
    Finding(
        "comparison-2",
        "Past three taps a blur trades accuracy for circular consistency.",
        OURS,
        "ImageNet, ResNet18: accuracy 71.7 (tri-3) to 71.4 (bin-5), crop consistency 87.5 to 88.3 (Zhang's repository)",
        (
            *_tests("accuracy", ACCURACY, "bin-5", "tri-3", "below", FINE),
            *_tests("circular consistency", CIRCULAR, "bin-5", "tri-3", "above", FINE),
        ),
        FINISHED_BOTH,
        "ours",
    ),
    Finding(
        "comparison-3",
        "Exact invariance to circular shifts costs accuracy: aps is exact, and less accurate than tri-3.",
        OURS,
        "CIFAR-10, ResNet-18: blur 93.3, APS 94.1 (as printed by Saha and Gokhale): the opposite order",
        (
            *(
                Test(f"circular consistency of aps, {name}", level(CIRCULAR, layer="aps", **where), "above", 0.999)
                for where, name in NETWORKS
            ),
            *_tests("accuracy", ACCURACY, "aps", "tri-3", "below", FINE),
        ),
        FINISHED_BOTH,
        "ours",
    ),
    Finding(
        "comparison-4",
        "Exactness under circular shifts does not carry over: under standard shifts and one-pixel crops aps is less "
        "stable than tri-3.",
        OURS,
        "CIFAR-10, ResNet-18: standard consistency blur 90.5, APS 92.7 (Saha and Gokhale): the opposite order",
        (
            *_tests("standard consistency", STANDARD, "aps", "tri-3", "below", FINE),
            *_tests("P(top-1 change), crop", CROP, "aps", "tri-3", "above", FINE),
        ),
        LEARNED_BOTH,
        "ours",
    ),
    Finding(
        "comparison-5",
        "The ideal low-pass is no better than three taps: flc is less accurate and changes its mind more often.",
        f"{OURS}, in the network for which its paper made it",
        NONE,
        (
            *_tests("accuracy", ACCURACY, "flc", "tri-3", "below", FINE, NETWORKS[1:]),
            *_tests("P(top-1 change), crop", CROP, "flc", "tri-3", "above", FINE, NETWORKS[1:]),
        ),
        RESNET_FINISHED,
        "ours",
    ),
    Finding(
        "comparison-6",
        "Learning how to sample does not beat a fixed filter: even the best of the layers that learn, chosen per seed "
        "and metric, stays behind tri-3.",
        OURS,
        "CIFAR-10, ResNet-18: blur 93.3, LPS 94.5, TIPS 98.1 (Saha and Gokhale): the opposite order",
        tuple(_best(label, column, column != CROP) for column, label in THREE),
        VGG_FINISHED,
        "ours",
    ),
    Finding(
        "comparison-7",
        "The dense max is not the culprit: the same two-tap filter is more accurate and more stable with it (rect-2) "
        "than without (average pooling).",
        OURS,
        NONE,
        (
            *_tests("accuracy", ACCURACY, "rect-2", "average", "above", FINE, NETWORKS[:1]),
            *_tests("P(top-1 change), crop", CROP, "rect-2", "average", "below", FINE, NETWORKS[:1]),
        ),
        VGG_FINISHED,
        "ours",
    ),
    Finding(
        "comparison-8",
        "Native robustness comes with three taps already: tri-3 beats no filter under small attacks and corruptions.",
        OURS,
        NONE,
        (
            *_tests("accuracy under small attacks", SMALL_ATTACK, "tri-3", "subsample", "above", COARSE, NETWORKS[:1]),
            *_tests("corruption error", ERROR, "tri-3", "subsample", "below", FINE, NETWORKS[:1]),
        ),
        (*VGG_FINISHED, ATTACKED, CORRUPTED),
        "ours",
    ),
    Finding(
        "comparison-9",
        "The order of the layers is a property of the layers, not of the seed: Kendall's W is above 0.7.",
        OURS,
        NONE,
        tuple(
            Test(f"Kendall's W over seeds, {label}, VGG", Concordance(column, VGG, "layer"), "above", 0.7)
            for column, label in THREE
        ),
        VGG_LEARNED,
        "ours",
    ),
    Finding(
        "comparison-10",
        "Layers that do well in a VGG do well in a residual network.",
        OURS,
        NONE,
        tuple(
            Test(
                f"Spearman over layers, {label} in the VGG and in the residual network",
                OverKinds(column, column, VGG, "layer", other=RESNET),
                margin=RHO,
            )
            for column, label in THREE
        ),
        LEARNED_BOTH,
        "ours",
    ),
    Finding(
        "comparison-11",
        "What happens at the sampler explains what the network does: layers with a larger alias error change their "
        "mind more often, and layers with more maximum-sampling bias are less consistent.",
        "the mechanism behind all five papers; the second half is a claim of Saha and Gokhale (abstract)",
        "no coefficient found",
        (
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
        VGG_LEARNED,
        "another",
    ),
    Finding(
        "comparison-12",
        "Blur makes a network more robust to common corruptions.",
        "Zhang 2019, ImageNet-C and -P; numbers from a secondary source",
        "ImageNet, ResNet50: unnormalised corruption error 60.6 to 58.1 with bin-5",
        tuple(
            test
            for layer in ("tri-3", "bin-5")
            for test in _tests("corruption error", ERROR, layer, "subsample", "below", FINE, NETWORKS[:1])
        ),
        (*VGG_FINISHED, CORRUPTED),
        "another",
    ),
    Finding(
        "control-1",
        "Blur's gain in consistency remains among correctly classified pictures: it is no by-product of accuracy.",
        "of this project; no paper states consistency among correctly classified pictures",
        "none",
        tuple(
            test
            for layer in ("tri-3", "bin-5")
            for test in _tests(
                "circular consistency of correctly classified pictures",
                "circular_rolls.circular_consistency_if_correct",
                layer,
                "subsample",
                "above",
                FINE,
            )
        ),
        LEARNED_BOTH,
        "ours",
    ),
)

STUDY = Study(
    "comparison",
    "Every layer on equal footing",
    "this project; no paper has this comparison",
    plan,
    FINDINGS,
)
