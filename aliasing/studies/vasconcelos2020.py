"""Vasconcelos et al. 2020, "An Effective Anti-Aliasing Approach for Residual Networks", and the follow-up of 2021.

The papers' code is not public and their text was read in abstracts and secondary summaries only. Which filter, which
activations and which recipe they used is not known: those here are our choice. The networks have the paper's three
places, max-pool, strided convolution and strided shortcut; on small pictures the stem keeps every pixel, because a
further halving would leave nothing to see.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..evaluation import Measurement
from ..records import Run
from ..runner import Job
from .bases import BASES
from .study import Study
from .vasconcelos2020_findings import FINDINGS

__all__ = ["CASES", "FILTER", "PLACES", "STUDY"]

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
    """

    network: dict[str, Any] = field(default_factory=dict)
    randaugment: int = 0
    other_stem: bool = False


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
    "critical 7": Case(_blur(downsample="bin-7")),
    "everywhere 7": Case(_blur(downsample="bin-7", filter_everywhere=True)),
    "trainable": Case(_blur(downsample={"name": FILTER, "trainable": True})),
    "after activation": Case(_blur(placement="act-then-pool")),
    "other stem": Case(other_stem=True),
    "other stem + blur": Case(_blur(), other_stem=True),
}
MORE = {
    "critical 5": Case(_blur(downsample="bin-5")),
    "everywhere 3": Case(_blur(filter_everywhere=True)),
    "everywhere 5": Case(_blur(downsample="bin-5", filter_everywhere=True)),
    "GELU low": Case({"activation": "gelu", "smooth": "low"}),
    "GELU low + blur": Case(_blur(activation="gelu", smooth="low")),
    "SiLU": Case({"activation": "silu"}),
    "SiLU + blur": Case(_blur(activation="silu")),
}


class Sizes(NamedTuple):
    """What differs between profiles.

    Attributes:
        network: beside the profile's own options.
        recipe: likewise.
        stem: stride of the first convolution.
        cases: what is trained.
        tested: test pictures for accuracy and missing bands.
        corrupted: test pictures under the fifteen corruptions.
        severities: of the corruptions.
        domains: data sets of the few-shot episodes; "known" is of the kind that the network was trained on.
        episodes: of few-shot classification.
    """

    network: dict[str, Any]
    recipe: dict[str, Any]
    stem: int
    cases: dict[str, Case]
    tested: int
    corrupted: int
    severities: tuple[int, ...]
    domains: dict[str, dict[str, Any]]
    episodes: int


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
        STEM | {"width": 4},
        {"epochs": 1},
        1,
        CASES,
        64,
        8,
        (3,),
        {"known": OTHER_SHAPES | {"count": 200}, "glyphs": {"name": "glyphs", "classes": 6}},
        10,
    ),
    "laptop": Sizes(
        STEM | {"width": 8},
        {"epochs": 3},
        1,
        CASES,
        2000,
        128,
        ALL,
        {"known": OTHER_SHAPES | {"count": 1000}, "glyphs": {"name": "glyphs"}},
        600,
    ),
    "desktop": Sizes(STEM, {}, 1, CASES, 10_000, 512, ALL, PHOTOGRAPHS, 600),
    "gpu": Sizes(STEM, {}, 1, CASES | MORE, 10_000, 10_000, ALL, PHOTOGRAPHS, 600),
    "cluster": Sizes(STEM, {}, 2, CASES | MORE, 50_000, 50_000, ALL, LARGE, 600),
}


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``: a whole seed before the next, so that every stop leaves balanced results."""
    base, sizes = BASES[profile], SIZES[profile]
    plain = {"downsample": "subsample"} | base.resnet | sizes.network
    jobs = []
    for seed in range(base.seeds):
        for name, case in sizes.cases.items():
            stem = 3 - sizes.stem if case.other_stem else sizes.stem
            recipe = replace(base.recipe, **sizes.recipe, randaugment=case.randaugment)
            run = Run(base.dataset, plain | {"stem_stride": stem} | case.network, recipe, seed)
            labels = {"case": name, "stem": stem, "filter": _filter(run.network["downsample"])}
            jobs.append(Job(run, _measurements(sizes, seed), labels))
    return jobs


def _filter(layer: Any) -> str:
    return layer if isinstance(layer, str) else layer["name"]


def _measurements(sizes: Sizes, seed: int) -> tuple[Measurement, ...]:
    """What every network is asked; compute does not depend on the seed."""
    corrupted: dict[str, Any] = {"count": sizes.corrupted}
    if sizes.severities != ALL:
        corrupted["severities"] = sizes.severities
    shots = {"shots": 5, "episodes": sizes.episodes}
    wanted = [
        Measurement("accuracy", {"count": sizes.tested}),
        Measurement("corruptions", corrupted),
        *(Measurement("few_shot", {"dataset": data, "domain": name} | shots) for name, data in sizes.domains.items()),
        Measurement("band_removal", {"count": min(sizes.tested, 2000) // 4}),
        Measurement("kernels"),
    ]
    if seed == 0:
        wanted.append(Measurement("macs"))
    return tuple(wanted)


STUDY = Study(
    "vasconcelos2020",
    "Blur where a residual network cannot learn to",
    "Vasconcelos et al., An Effective Anti-Aliasing Approach for Residual Networks, 2020",
    plan,
    FINDINGS,
)
