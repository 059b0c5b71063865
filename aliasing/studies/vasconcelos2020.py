"""Vasconcelos et al. 2020, "An Effective Anti-Aliasing Approach for Residual Networks", and the follow-up of 2021.

The papers' code is not public and their text was read in abstracts and secondary summaries only. Which filter, which
activations and which recipe they used is not known: those here are our choice. The networks have the paper's three
places, max-pool, strided convolution and strided shortcut; on small pictures the stem keeps every pixel, because a
further halving would leave nothing to see. Those of ``desktop`` have no max-pool: with one the plain network stays
below the regime of 85 % on photographs, however it was trained (83.2 to 84.9 % of 5,000 validation pictures in eight
trials of length, shifts, decay and width). They are the comparison's. Claims on the pool, on the stem and
on why a filter helps are those of ``ablations``.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..jobs import Job
from ..measurements import Measurement
from .bases import BASES, EASY, SAME, Base, between, finished
from .evidence import Derived, Result, Setting, Statistic, contrast, kind_means, line_correlation, minus
from .rules import FINE, Test, above, below, claims
from .study import Study

# Three taps: on maps of 16, 8 and 4 pixels a longer filter leaves little. Length is an ablation of its own.
FILTER = "tri-3"
PLACES = ("conv", "skip", "pool")


def _blur(*places: str, **options: Any) -> dict[str, Any]:
    """The paper's placement ("BlurAfterConv"), at some of the places or at all."""
    blurred = {"downsample": FILTER, "placement": "conv-then-pool"} | options
    return blurred | {"positions": list(places)} if places else blurred


def _control(control: str) -> dict[str, Any]:
    return _blur(downsample={"name": FILTER, "control": control})


# Configurations, as options of ``models.create`` beside those of the profile.
SUBSETS: dict[str, dict[str, Any]] = {
    "none": {},
    "all": _blur(),
    **{" + ".join(places): _blur(*places) for count in (1, 2) for places in combinations(PLACES, count)},
}
CASES = SUBSETS | {
    "GELU": {"activation": "gelu"},
    "GELU + blur": _blur(activation="gelu"),
    "RandAugment": {},
    "RandAugment + blur": _blur(),
    "forward only": _control("forward"),
    "backward only": _control("backward"),
    "too late": _control("late"),
    "random signs": _control("signs"),
    "critical 7": _blur(downsample="bin-7"),
    "everywhere 7": _blur(downsample="bin-7", filter_everywhere=True),
    "trainable": _blur(downsample={"name": FILTER, "trainable": True}),
    "after activation": _blur(placement="act-then-pool"),
    "other stem": {},  # the first convolution has the other stride than in the profile's network
    "other stem + blur": _blur(),
    "wide stem": {},  # it halves and the network is wider instead, for the compute of one that does not halve
    "critical 5": _blur(downsample="bin-5"),
    "everywhere 3": _blur(filter_everywhere=True),
    "everywhere 5": _blur(downsample="bin-5", filter_everywhere=True),
    "GELU low": {"activation": "gelu", "smooth": "low"},
    "GELU low + blur": _blur(activation="gelu", smooth="low"),
    "SiLU": {"activation": "silu"},
    "SiLU + blur": _blur(activation="silu"),
}
SMOOTH = ("GELU", "GELU low", "GELU low + blur", "SiLU", "SiLU + blur")
# What decides the claims of this study with the fewest networks.
FEWEST = ("none", "all", "after activation", "GELU + blur", "RandAugment + blur", "RandAugment", "skip", "conv")


# What is measured only on networks that a finding or a figure needs.
STEMS = ("none", "all", "other stem", "other stem + blur", "wide stem")
FEW_SHOT = (*STEMS, "GELU", "GELU + blur", "RandAugment", "RandAugment + blur")
BANDS = ("none", "all", "RandAugment", "RandAugment + blur")
KERNELS = ("none", "other stem", "trainable")


class Sizes(NamedTuple):
    """What differs between profiles.

    Attributes:
        cases: what is trained, names of ``CASES``.
        domains: data sets of the few-shot episodes; "known" is of the kind that the network was trained on.
        episodes: of few-shot classification.
        matched: width of the network whose stem halves and that computes as much as one of the profile's width whose
            stem does not, within a twentieth; 0 where no such network is trained.
        stem: stride of the first convolution.
        pool: whether the stem is ImageNet's, with its max-pool; else networks are those of the comparison.
        changes: how the common ground of the profile is ``changed``.
    """

    cases: tuple[str, ...]
    domains: dict[str, dict[str, Any]]
    episodes: int = 600
    matched: int = 0
    stem: int = 1
    pool: bool = True
    changes: dict[str, Any] = SAME


OTHER_SHAPES: dict[str, Any] = {"name": "shapes", "seed": 2}
PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "known": {"name": "cifar10"},
    "glyphs": {"name": "glyphs"},
    "photographs": {"name": "tiny-imagenet-100"},
    "omniglot": {"name": "omniglot", "size": 32},
}
LARGE: dict[str, dict[str, Any]] = {
    "known": {"name": "folder", "size": 224},
    "glyphs": {"name": "glyphs", "size": 84},
    "omniglot": {"name": "omniglot", "size": 84},
}
SIZES = {
    "smoke": Sizes(
        (*FEWEST, "GELU"),
        {"known": OTHER_SHAPES | {"count": 200}, "glyphs": {"name": "glyphs", "classes": 6}},
        episodes=10,
        matched=14,
        changes={"network": {"width": 4}, "recipe": {"epochs": 1}, "tested": 64},
    ),
    "laptop": Sizes(
        FEWEST,
        {"known": OTHER_SHAPES | EASY | {"count": 1000}, "glyphs": {"name": "glyphs"}},
        episodes=300,
        matched=25,
        changes={"data": EASY | {"count": 1200}, "network": {"width": 8}, "recipe": {"epochs": 5, "batch_size": 64}}
        | {"tested": 1000, "corrupted": 80, "severities": (1, 5)},
    ),
    "desktop": Sizes(FEWEST, PHOTOGRAPHS, pool=False),
    "gpu": Sizes(FEWEST, PHOTOGRAPHS),
    "cluster": Sizes((*FEWEST, *SMOOTH), LARGE, matched=128, stem=2, changes={"corrupted": 50_000}),
}


def plan(profile: str) -> Iterator[Job]:
    """All runs of ``profile``."""
    return networks(BASES[profile], SIZES[profile])


def networks(base: Base, sizes: Sizes) -> Iterator[Job]:
    """The runs of all cases: a whole seed before the next, so that every stop leaves balanced results."""
    base = base.changed(**sizes.changes)
    # The comparison's networks leave the placement unsaid where it is this one.
    cases = CASES if sizes.pool else CASES | {"after activation": {"downsample": FILTER}}
    for seed in range(base.seeds):
        for name in sizes.cases:
            wide, other = name == "wide stem", name.startswith("other stem")
            stem = 2 if wide else 3 - sizes.stem if other else sizes.stem
            network = cases[name] | ({"stem": "imagenet", "stem_stride": stem} if sizes.pool else {})
            network |= {"width": sizes.matched} if wide else {}
            recipe = {"randaugment": int(name.startswith("RandAugment"))}
            run = base.changed(recipe=recipe).run("resnet", "subsample", seed, network)
            kind = {"none": "plain", "other stem": "plain", "all": "blurred", "other stem + blur": "blurred"}
            labels = {"case": name, "stem": stem, "kind": kind.get(name, name)}
            yield Job(run, _measurements(name, base, sizes, seed), labels)


def _measurements(case: str, base: Base, sizes: Sizes, seed: int) -> tuple[Measurement, ...]:
    """What a network is asked; compute does not depend on the seed."""
    wanted = [
        base.ask("accuracy", count=base.tested),
        base.corruptions(),
        Measurement("clean_error", {"count": base.corrupted}),
    ]
    if case in FEW_SHOT:
        shots = {"shots": 5, "episodes": sizes.episodes}
        wanted += [
            Measurement("few_shot", {"dataset": data, "domain": name} | shots) for name, data in sizes.domains.items()
        ]
    if case in BANDS:
        wanted.append(Measurement("band_removal", {"count": min(base.tested // 8, 500)}))
    if case in KERNELS:
        wanted.append(Measurement("kernels"))
    if seed == 0 and case in STEMS:
        wanted.append(Measurement("macs"))
    return tuple(wanted)


NONE, ALL, AUGMENTED = {"case": "none"}, {"case": "all"}, {"case": "RandAugment"}
GELU_BLUR, AUGMENTED_BLUR = {"case": "GELU + blur"}, {"case": "RandAugment + blur"}
AFTER = {"case": "after activation"}
ERROR, ACCURACY = "corruptions.corruption_error", "accuracy.accuracy"
# Real pictures of classes that were not trained where they are on record, else drawn ones.
KIND = "few_shot.few_shot_photographs_5", "few_shot.few_shot_known_5"
CHARACTERS = "few_shot.few_shot_omniglot_5", "few_shot.few_shot_glyphs_5"


# Accuracy lost when a band is removed, mean over bands.
LOST = Derived(
    ("band_removal.accuracy_with_all_bands", "band_removal.accuracy_without_band"),
    lambda whole, without: whole - np.mean(without),
)


def _interaction(column: str) -> Statistic:
    """What blur adds to RandAugment minus what it adds without."""
    return contrast(column, [(AUGMENTED_BLUR, 1.0), (AUGMENTED, -1.0), (ALL, -1.0), (NONE, 1.0)])


def along_a_line(table: pd.DataFrame) -> Result | None:
    """Correlation of corruption error and clean error over cases, each the mean of its seeds."""
    columns = ("clean_error.clean_error", ERROR)
    if not set(columns) <= set(table):
        return None
    both = table.dropna(subset=list(columns))  # the same networks in either mean
    means = [kind_means(both, "case", column) for column in columns]
    found = line_correlation(*pd.concat(means, axis=1).dropna().to_numpy().T)
    return found and found._replace(seeds=both["seed"].nunique())


def few_shot(name: str, label: str, first: Setting, second: Setting) -> dict[str, Test]:
    """The few-shot accuracy of ``first`` is above that of ``second``: on real pictures, else on drawn ones."""

    def test(columns: tuple[str, str]) -> Test:
        real, drawn = (minus(column, first, second) for column in columns)
        return above(Statistic(real.settings, lambda table: real.of(table) or drawn.of(table)), margin=FINE)

    domains = {"pictures of its kind": KIND, "characters": CHARACTERS}
    return {f"{name}: few-shot accuracy, {domain}, {label}": test(columns) for domain, columns in domains.items()}


_ADDED = Derived((ERROR, "clean_error.clean_error"), lambda error, clean: error - clean)

FINISHED = (finished("the network without blur", case="none"),)
HURT = between("its error under corruption", ERROR, case="none")
CORRUPTED = (*FINISHED, HURT)
REGIMES = {
    "vasconcelos-2 vasconcelos-4 vasconcelos-13": FINISHED,
    "vasconcelos-1 vasconcelos-12 vasconcelos-14 vasconcelos-16": CORRUPTED,
    "control-5": (HURT,),
}
TESTS = {
    "vasconcelos-1: corruption error, blur minus none": below(ERROR, ALL, NONE),
    "vasconcelos-1: corruption error, GELU + blur minus none": below(ERROR, GELU_BLUR, NONE),
    **few_shot("vasconcelos-2", "GELU + blur minus none", GELU_BLUR, NONE),
    "vasconcelos-4: accuracy, shortcut alone minus none": above(ACCURACY, {"case": "skip"}, NONE),
    "vasconcelos-4: accuracy, all places that the network has minus none": above(ACCURACY, ALL, NONE),
    "vasconcelos-12: accuracy, gain by blur with RandAugment minus without": above(_interaction(ACCURACY), margin=FINE),
    "vasconcelos-12: corruption error, the same difference of differences": below(_interaction(ERROR), margin=FINE),
    "vasconcelos-13: accuracy lost per missing band, RandAugment minus none": above(LOST, AUGMENTED, NONE),
    "vasconcelos-13: accuracy lost per missing band, blur minus none": below(LOST, ALL, NONE),
    "vasconcelos-14: accuracy, after convolution minus after activation": above(ACCURACY, ALL, AFTER),
    "vasconcelos-14: corruption error, the same": below(ERROR, ALL, AFTER),
    "vasconcelos-16: corruption error, RandAugment + blur minus none": below(ERROR, AUGMENTED_BLUR, NONE),
    "vasconcelos-16: accuracy, RandAugment + blur minus none": above(ACCURACY, AUGMENTED_BLUR, NONE),
    "control-5: correlation of corruption error and clean error over cases; nine tenths of the variance": above(
        Statistic((NONE, ALL), along_a_line), threshold=0.949
    ),
    "control-5: error added by corruption, blur at all places minus none": above(
        _ADDED, ALL, NONE, threshold=-FINE, margin=0
    ),
}

STUDY = Study(
    "vasconcelos2020",
    "Blur where a residual network cannot learn to",
    "Vasconcelos et al., An Effective Anti-Aliasing Approach for Residual Networks, 2020",
    plan,
    claims(REGIMES, TESTS),
)
