"""Vasconcelos et al. 2020, "An Effective Anti-Aliasing Approach for Residual Networks", and the follow-up of 2021.

The papers' code is not public and their text was read in abstracts and secondary summaries only. Which filter, which
activations and which recipe they used is not known: those here are our choice. The networks have the paper's three
places, max-pool, strided convolution and strided shortcut; on small pictures the stem keeps every pixel, because a
further halving would leave nothing to see.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..measurements import Measurement
from ..records import Run
from ..runner import Job
from .bases import BASES, EASY
from .study import Study
from .vasconcelos2020_findings import FINDINGS

__all__ = ["CASES", "FILTER", "PLACES", "STEMS", "STUDY"]

# Three taps: on maps of 16, 8 and 4 pixels a longer filter leaves little. Length is an ablation of its own.
FILTER = "tri-3"
PLACES = ("conv", "skip", "pool")


@dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes:
        network: options of ``models.create`` beside those of the profile.
        randaugment: operations of RandAugment per picture.
        other_stem: whether the first convolution has the other stride than in the profile's network.
        matched: whether the stem halves and the network is wider instead, for the compute of one that does not halve.
    """

    network: dict[str, Any] = field(default_factory=dict)
    randaugment: int = 0
    other_stem: bool = False
    matched: bool = False


def _blur(*places: str, **options: Any) -> dict[str, Any]:
    """The paper's placement ("BlurAfterConv"), at some of the places or at all."""
    blurred = {"downsample": FILTER, "placement": "conv-then-pool"} | options
    return blurred | {"positions": list(places)} if places else blurred


def _control(control: str) -> dict[str, Any]:
    return _blur(downsample={"name": FILTER, "control": control})


SUBSETS = {
    "none": Case(),
    "all": Case(_blur()),
    "conv": Case(_blur("conv")),
    "skip": Case(_blur("skip")),
    "pool": Case(_blur("pool")),
    "conv + skip": Case(_blur("conv", "skip")),
    "conv + pool": Case(_blur("conv", "pool")),
    "skip + pool": Case(_blur("skip", "pool")),
}
CASES = SUBSETS | {
    "GELU": Case({"activation": "gelu"}),
    "GELU + blur": Case(_blur(activation="gelu")),
    "RandAugment": Case(randaugment=1),
    "RandAugment + blur": Case(_blur(), randaugment=1),
    "forward only": Case(_control("forward")),
    "backward only": Case(_control("backward")),
    "too late": Case(_control("late")),
    "random signs": Case(_control("signs")),
    "critical 7": Case(_blur(downsample="bin-7")),
    "everywhere 7": Case(_blur(downsample="bin-7", filter_everywhere=True)),
    "trainable": Case(_blur(downsample={"name": FILTER, "trainable": True})),
    "after activation": Case(_blur(placement="act-then-pool")),
    "other stem": Case(other_stem=True),
    "other stem + blur": Case(_blur(), other_stem=True),
    "wide stem": Case(matched=True),
}
DECIDING = {name: case for name, case in CASES.items() if name != "GELU"}  # which is only drawn
# Where time is short: what decides the claims of 2020 with the fewest networks, and two claims of 2021.
FEWEST = (
    "none",
    "all",
    "GELU + blur",
    "RandAugment + blur",
    "conv",
    "skip",
    "pool",
    "other stem + blur",
    "RandAugment",
    "after activation",
)
PAPERS = (*FEWEST, "other stem", "too late", "random signs", "forward only", "backward only")
MORE = {
    "critical 5": Case(_blur(downsample="bin-5")),
    "everywhere 3": Case(_blur(filter_everywhere=True)),
    "everywhere 5": Case(_blur(downsample="bin-5", filter_everywhere=True)),
    "GELU low": Case({"activation": "gelu", "smooth": "low"}),
    "GELU low + blur": Case(_blur(activation="gelu", smooth="low")),
    "SiLU": Case({"activation": "silu"}),
    "SiLU + blur": Case(_blur(activation="silu")),
}


# What is asked only of the networks of whom a finding or a figure speaks.
STEMS = ("none", "all", "other stem", "other stem + blur", "wide stem")
FEW_SHOT = (*STEMS, "GELU", "GELU + blur", "RandAugment", "RandAugment + blur")
BANDS = ("none", "all", "RandAugment", "RandAugment + blur")
KERNELS = ("none", "other stem", "trainable")


class Sizes(NamedTuple):
    """What differs between profiles.

    Attributes:
        data: beside the profile's own options.
        network: likewise.
        recipe: likewise.
        stem: stride of the first convolution.
        matched: width of the network whose stem halves and that computes as much as one of the profile's width whose
            stem does not, within a twentieth; 0 where no such network is trained.
        cases: what is trained.
        tested: test pictures for accuracy and missing bands.
        corrupted: test pictures under the fifteen corruptions.
        severities: of the corruptions.
        domains: data sets of the few-shot episodes; "known" is of the kind that the network was trained on.
        episodes: of few-shot classification.
    """

    data: dict[str, Any]
    network: dict[str, Any]
    recipe: dict[str, Any]
    stem: int
    matched: int
    cases: dict[str, Case]
    tested: int
    corrupted: int
    severities: tuple[int, ...]
    domains: dict[str, dict[str, Any]]
    episodes: int


def _named(names: tuple[str, ...]) -> dict[str, Case]:
    return {name: CASES[name] for name in names}


ALL = (1, 2, 3, 4, 5)
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
STEM = {"stem": "imagenet"}
SIZES = {
    "smoke": Sizes(
        {},
        STEM | {"width": 4},
        {"epochs": 1},
        1,
        14,
        CASES,
        64,
        8,
        (3,),
        {"known": OTHER_SHAPES | {"count": 200}, "glyphs": {"name": "glyphs", "classes": 6}},
        10,
    ),
    "laptop": Sizes(
        EASY | {"count": 1200},
        STEM | {"width": 8},
        {"epochs": 5, "batch_size": 64},
        1,
        25,
        DECIDING,
        1000,
        80,
        (1, 5),
        {"known": OTHER_SHAPES | EASY | {"count": 1000}, "glyphs": {"name": "glyphs"}},
        300,
    ),
    "desktop": Sizes({}, STEM, {}, 1, 0, _named(FEWEST), 10_000, 2000, (1, 3, 5), PHOTOGRAPHS, 600),
    "gpu": Sizes({}, STEM, {}, 1, 0, _named(PAPERS), 10_000, 2000, ALL, PHOTOGRAPHS, 600),
    "cluster": Sizes({}, STEM, {}, 2, 128, CASES | MORE, 50_000, 50_000, ALL, LARGE, 600),
}


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``: a whole seed before the next, so that every stop leaves balanced results."""
    base, sizes = BASES[profile], SIZES[profile]
    plain = {"downsample": "subsample"} | base.resnet | sizes.network
    jobs = []
    for seed in range(base.seeds):
        for name, case in sizes.cases.items():
            stem = 2 if case.matched else 3 - sizes.stem if case.other_stem else sizes.stem
            recipe = replace(base.residual, **sizes.recipe, randaugment=case.randaugment)
            network = plain | {"stem_stride": stem} | case.network | ({"width": sizes.matched} if case.matched else {})
            run = Run(base.dataset | sizes.data, network, recipe, seed)
            jobs.append(Job(run, _measurements(name, sizes, seed), {"case": name, "stem": stem}))
    return jobs


def _measurements(case: str, sizes: Sizes, seed: int) -> tuple[Measurement, ...]:
    """What a network is asked; compute does not depend on the seed."""
    corrupted: dict[str, Any] = {"count": sizes.corrupted}
    if sizes.severities != ALL:
        corrupted["severities"] = sizes.severities
    wanted = [
        Measurement("accuracy", {"count": sizes.tested}),
        Measurement("corruptions", corrupted),
        Measurement("clean_error", {"count": sizes.corrupted}),
    ]
    if case in FEW_SHOT:
        shots = {"shots": 5, "episodes": sizes.episodes}
        wanted += [
            Measurement("few_shot", {"dataset": data, "domain": name} | shots) for name, data in sizes.domains.items()
        ]
    if case in BANDS:
        wanted.append(Measurement("band_removal", {"count": min(sizes.tested // 8, 500)}))
    if case in KERNELS:
        wanted.append(Measurement("kernels"))
    if seed == 0 and case in STEMS:
        wanted.append(Measurement("macs"))
    return tuple(wanted)


STUDY = Study(
    "vasconcelos2020",
    "Blur where a residual network cannot learn to",
    "Vasconcelos et al., An Effective Anti-Aliasing Approach for Residual Networks, 2020",
    plan,
    FINDINGS,
)
