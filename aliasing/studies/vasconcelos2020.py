"""Vasconcelos et al. 2020, "An Effective Anti-Aliasing Approach for Residual Networks", and the follow-up of 2021.

The papers' code is not public and their text was read in abstracts and secondary summaries only. Which filter, which
activations and which recipe they used is not known: those here are our choice. The networks have the paper's three
places, max-pool, strided convolution and strided shortcut; on small pictures the stem keeps every pixel, because a
further halving would leave nothing to see. Those of ``desktop`` have no max-pool: with one the plain network stays
below the regime of 85 % on photographs, however it was trained (83.2 to 84.9 % of 5,000 validation pictures in eight
trials of length, shifts, decay and width). They are the comparison's, and claims on pool or stem are not run there.
"""

import re
from collections.abc import Collection, Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..jobs import Job
from ..measurements import Measurement
from .bases import BASES, EASY, SAME, Base, between, finished, trained
from .evidence import Derived, Result, Setting, Statistic, contrast, kind_means, line_correlation, minus
from .rules import FINE, Regime, Test, above, below, claims, kept
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
}
USUAL = tuple(CASES)
CASES |= {
    "critical 5": _blur(downsample="bin-5"),
    "everywhere 3": _blur(filter_everywhere=True),
    "everywhere 5": _blur(downsample="bin-5", filter_everywhere=True),
    "GELU low": {"activation": "gelu", "smooth": "low"},
    "GELU low + blur": _blur(activation="gelu", smooth="low"),
    "SiLU": {"activation": "silu"},
    "SiLU + blur": _blur(activation="silu"),
}
DECIDING = tuple(name for name in USUAL if name != "GELU")  # which is only drawn
# Where time is short and no pool is there: what decides the claims on blur with the fewest networks.
FEWEST = ("none", "all", "after activation", "GELU + blur", "RandAugment + blur", "RandAugment", "skip", "conv")
PAPERS = (*FEWEST, "pool", "other stem + blur", "other stem", "too late", "random signs", "forward only",
          "backward only", "conv + skip", "conv + pool", "skip + pool")  # fmt: skip


# What is measured only on networks that a finding or a figure needs.
STEMS = ("none", "all", "other stem", "other stem + blur", "wide stem")
FEW_SHOT = (*STEMS, "GELU", "GELU + blur", "RandAugment", "RandAugment + blur")
BANDS = ("none", "all", "RandAugment", "RandAugment + blur")
KERNELS = ("none", "other stem", "trainable")


class Sizes(NamedTuple):
    """What differs between profiles.

    Attributes:
        cases: what is trained, the names of ``CASES``.
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
        USUAL,
        {"known": OTHER_SHAPES | {"count": 200}, "glyphs": {"name": "glyphs", "classes": 6}},
        episodes=10,
        matched=14,
        changes={"network": {"width": 4}, "recipe": {"epochs": 1}, "tested": 64},
    ),
    "laptop": Sizes(
        DECIDING,
        {"known": OTHER_SHAPES | EASY | {"count": 1000}, "glyphs": {"name": "glyphs"}},
        episodes=300,
        matched=25,
        changes={"data": EASY | {"count": 1200}, "network": {"width": 8}, "recipe": {"epochs": 5, "batch_size": 64}}
        | {"tested": 1000, "corrupted": 80, "severities": (1, 5)},
    ),
    "desktop": Sizes(FEWEST, PHOTOGRAPHS, pool=False),
    "gpu": Sizes(PAPERS, PHOTOGRAPHS),
    "cluster": Sizes(tuple(CASES), LARGE, matched=128, stem=2, changes={"corrupted": 50_000}),
}


def plan(profile: str) -> Iterator[Job]:
    """All runs of ``profile``: a whole seed before the next, so that every stop leaves balanced results."""
    sizes = SIZES[profile]
    base = BASES[profile].changed(**sizes.changes)
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


def role(name: str, names: Collection[str]) -> str:
    """What the kernel of that name does among ``names``, those of its network: "stem", "strided conv", "skip"..."""
    if re.search(r"\b(main|side|down)$", name):
        return "blur"
    if "layer" not in name:
        return "stem"
    block, _, part = re.sub(r"downsample\.0$", "skip", name).rpartition(".")
    bottleneck = f"{block}.conv3" in names  # its second convolution strides, and its first stage does not
    if f"{block}.downsample.0" not in names or (bottleneck and block.endswith("layer1.0")):
        return "other"
    return {"skip": "skip", "conv2" if bottleneck else "conv1": "strided conv"}.get(part, "other")


def _stop_band(kind: str, minus: str | None = None) -> Derived:
    """Stop-band share, mean over the kernels of one role; or that minus the one of another."""

    def mean(shares: dict[str, float], wanted: str) -> float:
        return float(np.mean([share for name, share in shares.items() if role(name, shares) == wanted]))

    return Derived(("kernels.stop_band",), lambda shares: mean(shares, kind) - (mean(shares, minus) if minus else 0))


# Stop-band share of the untrained filter [1 2 1]/4 on both axes: by hand, 1 - ((3 pi + 8) / (6 pi))^2.
START = 0.1455
NONE, ALL, AUGMENTED = {"case": "none"}, {"case": "all"}, {"case": "RandAugment"}
GELU_BLUR, AUGMENTED_BLUR = {"case": "GELU + blur"}, {"case": "RandAugment + blur"}
FORWARD, BACKWARD, LATE, SIGNS = (
    {"case": name} for name in ("forward only", "backward only", "too late", "random signs")
)
AFTER, EVERYWHERE, CRITICAL = ({"case": name} for name in ("after activation", "everywhere 7", "critical 7"))
ERROR, ACCURACY = "corruptions.corruption_error", "accuracy.accuracy"
# Real pictures of classes that were not trained where they are on record, else drawn ones.
KIND = "few_shot.few_shot_photographs_5", "few_shot.few_shot_known_5"
CHARACTERS = "few_shot.few_shot_omniglot_5", "few_shot.few_shot_glyphs_5"


# Accuracy lost when a band is removed, mean over bands.
LOST = Derived(
    ("band_removal.accuracy_with_all_bands", "band_removal.accuracy_without_band"),
    lambda whole, without: whole - np.mean(without),
)
WHOLE: dict[str, Any] = {"kind": "plain", "stem": 1}
HALVED, HALVED_BLURRED, WIDE = WHOLE | {"stem": 2}, WHOLE | {"kind": "blurred", "stem": 2}, {"case": "wide stem"}


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


def _few_shot(columns: tuple[str, str], first: Setting, second: Setting) -> Test:
    """The few-shot accuracy of ``first`` is above that of ``second``, in the first of ``columns`` that was measured."""
    real, drawn = (minus(column, first, second) for column in columns)
    return above(Statistic(real.settings, lambda table: real.of(table) or drawn.of(table)), margin=FINE)


_ADDED = Derived((ERROR, "clean_error.clean_error"), lambda error, clean: error - clean)

FINISHED = (finished("the network without blur", case="none"),)
WHOLE_FINISHED = finished("the network whose stem keeps every pixel", **WHOLE)
HURT = between("its error under corruption", ERROR, case="none")
CORRUPTED = (*FINISHED, HURT)
# There is a gain to be explained.
GAIN = (*CORRUPTED, Regime("corruption error, all minus none,", minus(ERROR, ALL, NONE), most=-FINE))
REGIMES = {
    "vasconcelos-10": (trained("the network whose filters may learn", case="trainable"),),
    "vasconcelos-11": (trained("the network whose 7 x 7 stem halves", **HALVED),),
    "vasconcelos-2 vasconcelos-4 vasconcelos-7 vasconcelos-13": FINISHED,
    "vasconcelos-5": (WHOLE_FINISHED, finished("the network whose blurred stem halves", **HALVED_BLURRED)),
    "vasconcelos-15": (WHOLE_FINISHED, finished("the wider network", **WIDE)),
    "vasconcelos-1 vasconcelos-3 vasconcelos-6 vasconcelos-12 vasconcelos-14 vasconcelos-16": CORRUPTED,
    "vasconcelos-8 vasconcelos-9": GAIN,
    "control-5": (HURT,),
}
TESTS = {
    "vasconcelos-1: corruption error, blur minus none": below(ERROR, ALL, NONE),
    "vasconcelos-1: corruption error, GELU + blur minus none": below(ERROR, GELU_BLUR, NONE),
    **{
        f"{name}: few-shot accuracy, {domain}, {label}": _few_shot(columns, first, second)
        for name, label, first, second in (
            ("vasconcelos-2", "GELU + blur minus none", GELU_BLUR, NONE),
            ("vasconcelos-5", "stem of stride 1 minus 2 blurred", WHOLE, HALVED_BLURRED),
            ("vasconcelos-15", "stem of stride 1 minus wider with stride 2", WHOLE, WIDE),
        )
        for domain, columns in (("pictures of its kind", KIND), ("characters", CHARACTERS))
    },
    **{
        f"vasconcelos-3: corruption error, all three places minus {one} alone": below(ERROR, ALL, {"case": one})
        for one in SUBSETS
        if one not in ("none", "all")
    },
    "vasconcelos-4: accuracy, shortcut alone minus none": above(ACCURACY, {"case": "skip"}, NONE),
    "vasconcelos-4: accuracy, all places that the network has minus none": above(ACCURACY, ALL, NONE),
    "vasconcelos-6: accuracy, blur minus none; kept if not lower by a point": kept(ACCURACY, ALL, NONE),
    **{
        f"vasconcelos-6: accuracy, {one} alone minus none; likewise": kept(ACCURACY, {"case": one}, NONE)
        for one in PLACES
    },
    **{f"vasconcelos-6: corruption error, {one} alone minus none": below(ERROR, {"case": one}, NONE) for one in PLACES},
    "vasconcelos-7: accuracy, 7 taps everywhere minus at critical places": below(ACCURACY, EVERYWHERE, CRITICAL),
    "vasconcelos-8: corruption error, filter in the forward pass only minus none": below(ERROR, FORWARD, NONE),
    "vasconcelos-8: corruption error, forward only minus backward only": below(ERROR, FORWARD, BACKWARD),
    "vasconcelos-9: corruption error, filter before minus after the subsampling": below(ERROR, ALL, LATE),
    "vasconcelos-9: corruption error, filter minus the same taps with random signs": below(ERROR, ALL, SIGNS),
    "vasconcelos-10: stop-band share of the learned filters, that of the start being 0.1455": above(
        _stop_band("blur"), {"case": "trainable"}, threshold=START, margin=0.01
    ),
    "vasconcelos-11: stop-band share of the strided 7 x 7 stem; white noise has 3/4": below(
        _stop_band("stem"), HALVED, threshold=0.75, margin=0.01
    ),
    "vasconcelos-11: stop-band share, strided 3 x 3 minus stem": above(
        _stop_band("strided conv", "stem"), HALVED, margin=0.01
    ),
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
