"""Grabinski, Keuper & Keuper 2023, "Fix your downsampling ASAP!": cut the spectrum, and smooth the cut.

The layers are those of the authors' code. Their result tables could not be read, and neither could their recipes: data,
radii of the attacks and schedules are our choice, and none was chosen on the pictures that are measured.
"""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from .. import layers
from ..measurements import Measurement
from ..metrics import leakage, step_overshoot
from ..records import Run
from ..runner import Job
from ..training import Recipe
from .bases import BASES, EASY, Base, between, finished, trained
from .evidence import Column, Derived, Fact, entry, level, minus, survived
from .rules import Finding, Regime, Test
from .study import Study

__all__ = ["POOLS", "STUDY"]

# The paper's layers, and two controls: nothing at all, and a plain low-pass of the same gain for small perturbations.
POOLS = ("subsample", "flc", "asap", "tri-3")
BEFORE = "pool-then-conv"  # the paper's placement: the layer comes before the convolution that had the stride
RADIUS = 8  # of adversarial training, in 1/255
# Groups of networks: naturally trained; halved in the stem only; adversarially trained; the twin of those, without
# adversary. Where both recipes are the same in all else, the natural network is the twin.
NATIVE, INPUT, ADVERSARIAL, TWIN = "native", "input", "adversarial", "twin"


class Sizes(NamedTuple):
    """What differs between profiles.

    Attributes:
        attacked: test images under attack; PGD takes most of the time.
        steps: of PGD and of APGD.
        corrupted: test images under the fifteen corruptions.
        severities: of the corruptions.
        width: of the adversarially trained network; ``None`` for the published one.
        data: of adversarial training, beside the profile's own options.
        recipe: of adversarial training: epochs, of which the first two fifths are clean, and so on.
        groups: beside the naturally trained networks.
        hardened: layers of the adversarially trained networks.
    """

    attacked: int
    steps: int
    corrupted: int
    severities: tuple[int, ...]
    width: int | None
    data: dict[str, Any]
    recipe: dict[str, Any]
    groups: tuple[str, ...] = (INPUT, ADVERSARIAL, TWIN)
    hardened: tuple[str, ...] = ("subsample", "flc", "asap")


ALL = (1, 2, 3, 4, 5)
SIZES = {
    "smoke": Sizes(16, 2, 16, (3,), 4, {"count": 128}, {"epochs": 2}),
    "laptop": Sizes(48, 10, 48, (1, 3, 5), 8, EASY | {"count": 2000}, {"epochs": 6, "batch_size": 64}),
    "desktop": Sizes(500, 10, 2000, (1, 3, 5), None, {}, {}, (ADVERSARIAL,), ("subsample", "flc")),
    "gpu": Sizes(1000, 20, 2000, ALL, None, {}, {}, (ADVERSARIAL,), ("subsample", "flc")),
    "cluster": Sizes(5000, 50, 50_000, ALL, None, {}, {"epochs": 30}),
}


def network(base: Base, layer: str) -> dict[str, Any]:
    """The residual network with ``layer``: the paper's pools where the paper puts them, the controls as elsewhere."""
    options = {"downsample": base.layer(layer)} | ({"placement": BEFORE} if layer in ("flc", "asap") else {})
    return base.resnet | options


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``, a whole seed before the next; natural training first."""
    base, sizes = BASES[profile], SIZES[profile]
    jobs = []
    for seed in range(base.seeds):
        for layer in POOLS:
            run = Run(base.dataset, network(base, layer), base.residual, seed)
            twin = layer == "subsample" and TWIN not in sizes.groups
            labels = {"layer": layer, "group": NATIVE, "twin": twin}
            jobs.append(Job(run, _native(layer, base, sizes), labels))
        if INPUT in sizes.groups:
            jobs += [_input_control(profile, layer, seed) for layer in ("subsample", "flc")]
        jobs += [_adversarial(profile, layer, seed) for layer in sizes.hardened]
        if TWIN in sizes.groups:
            jobs.append(_adversarial(profile, "subsample", seed, clean=True))
    return jobs


def _native(layer: str, base: Base, sizes: Sizes) -> tuple[Measurement, ...]:
    """Accuracy and consistency; attacks; corruptions; what attacks and noise do inside."""
    wanted = [
        Measurement("circular_fidelity", {"count": base.tested}),
        base.ask("attacks", count=sizes.attacked, steps=sizes.steps),
        Measurement("attacks", {"count": sizes.attacked, "steps": 1, "attack": "fgsm"}),
        Measurement("attacks", {"count": sizes.attacked // 2, "steps": sizes.steps, "attack": "apgd-ce"}),
        base.ask("corruptions", count=sizes.corrupted, severities=sizes.severities),
        Measurement("aliasing", {"count": sizes.attacked}),
        Measurement("stability", {"count": 2 * sizes.attacked, "eps": 1}),
        Measurement("map_spectra", {"count": sizes.attacked}),
    ]
    if base.by_image:
        wanted.append(base.ask("accuracy", count=base.tested))
    if layer == "subsample":
        wanted.append(Measurement("aliasing_and_attack", {"count": 4 * sizes.attacked, "eps": 1, "steps": sizes.steps}))
    return tuple(wanted)


def _input_control(profile: str, layer: str, seed: int) -> Job:
    """Halving in the stem: by its convolution's stride, or by FLC of the picture itself; everything else is strided.

    In the paper's ImageNet networks the picture is pooled before anything is learned. This is that step alone.
    """
    base, sizes = BASES[profile], SIZES[profile]
    options: dict[str, Any] = {"downsample": layer, "stem_stride": 2}
    if layer != "subsample":
        options |= {"placement": BEFORE, "positions": ["stem"]}
    wanted = (
        Measurement("circular_fidelity", {"count": base.tested}),
        Measurement("attacks", {"count": sizes.attacked, "steps": sizes.steps}),
    )
    return Job(
        Run(base.dataset, base.resnet | options, base.residual, seed),
        wanted,
        {"layer": layer, "group": INPUT, "twin": False},
    )


def _adversarial(profile: str, layer: str, seed: int, clean: bool = False) -> Job:
    """Single-step adversarial training (or the same without adversary), probed by PGD after every epoch."""
    base, sizes = BASES[profile], SIZES[profile]
    recipe: Recipe = replace(base.residual, **sizes.recipe)
    if not clean:
        recipe = replace(recipe, adversary=RADIUS / 255, adversary_wake=0.4, probe=sizes.attacked)
    chosen = network(base, layer) | ({} if sizes.width is None else {"width": sizes.width})
    wanted = (
        base.ask("attacks", count=2 * sizes.attacked, steps=sizes.steps),
        Measurement("attacks", {"count": 2 * sizes.attacked, "steps": 1, "attack": "fgsm"}),
        Measurement("aliasing", {"count": sizes.attacked}),
    )
    labels = {"layer": layer, "group": TWIN if clean else ADVERSARIAL, "twin": clean}
    return Job(Run(base.dataset | sizes.data, chosen, recipe, seed), wanted, labels)


EPS, TRAINED = 2, 5  # indices of 1/255, and of the radius of training, among those of the measurement "attacks"
FLOOR = 1e-3  # -30 dB: less than a thousandth of the energy is as good as nothing
FINE, POINT = 0.005, 0.01
PGD, FGSM, ROBUST = survived(EPS), entry("attacks.fgsm_accuracy", EPS), survived(TRAINED)
# PGD accuracy on training pictures in the best epoch minus that in the last.
COLLAPSE = Derived(("training.pgd",), lambda curve: max(curve) - curve[-1])
ERROR, ACCURACY = "corruptions.corruption_error", "circular_fidelity.accuracy"

LEARNED, FINISHED = (
    regime("the strided network", ACCURACY, layer="subsample", group=NATIVE) for regime in (trained, finished)
)
ATTACK = between("its accuracy under PGD of 1/255", PGD, layer="subsample", group=NATIVE)
CORRUPTION = between("its error under corruption", ERROR, layer="subsample", group=NATIVE)
ATTACKED = (LEARNED, ATTACK)
CORRUPTED = (FINISHED, CORRUPTION)
HARDENED = (
    FINISHED,
    Regime(
        "after adversarial training, accuracy of FLC under PGD of 8/255",
        level(ROBUST, layer="flc", group=ADVERSARIAL),
        0.1,
    ),
)


@cache
def _stopped(name: str, half_bin: bool) -> float:
    """Mean energy that the published layer passes of the frequencies it should stop."""
    found = leakage(layers.create(name, channels=1, faithful=True), half_bin=half_bin)
    return float(found.energy[found.stopped].mean())


@cache
def _ringing(name: str) -> float:
    """Mean overshoot at a step over map sizes, in the middle row, away from the border that ASAP darkens."""
    layer = layers.create(name, channels=1, faithful=True)
    sizes = range(16, 65, 4)
    return sum(float(step_overshoot(layer, size, border=False)[0]) for size in sizes) / len(sizes)


def _test(
    label: str, column: Column, layer: str, side: Any = "above", margin: float = FINE, group: str = NATIVE, **rule: Any
) -> Test:
    """``layer`` minus stride."""
    return Test(
        f"{label}, {layer} minus stride",
        minus(column, {"layer": layer}, {"layer": "subsample"}, group=group),
        side,
        margin=margin,
        **rule,
    )


def _against_blur(label: str, column: Column, layer: str, side: Any, **rule: Any) -> Test:
    return Test(label, minus(column, {"layer": layer}, {"layer": "tri-3"}, group=NATIVE), side, **rule)


ABSTRACT, SECOND = "abstract of arXiv:2307.09804v1", "abstract of arXiv:2307.09804v2"
NO_NUMBER = "no number could be read; the papers' tables are not public where we looked"
OURS = "of this project; the paper compares with strides only, as far as we could read it"

FINDINGS = (
    Finding(
        "grabinski-1",
        "The aliasing of strided downsampling is tied to the lack of robustness.",
        f"{ABSTRACT}, citing earlier work; the two statistics are ours",
        NO_NUMBER,
        (
            Test(
                "strided network, mean alias error of pictures that PGD at 1/255 breaks minus those it does not",
                level("aliasing_and_attack.alias_error_of_broken_minus_kept", layer="subsample", group=NATIVE),
                margin=FINE,
            ),
            Test(
                "strided network, mean alias error after a gradient step of 1/255 minus before",
                level("aliasing_and_attack.alias_error_rise", layer="subsample", group=NATIVE),
                margin=FINE,
            ),
        ),
        ATTACKED,
    ),
    Finding(
        "grabinski-2",
        "FLC pooling is free of aliasing in theory.",
        f"{ABSTRACT}; a fact about the layer, decided exactly",
        NO_NUMBER,
        (
            Test(
                "energy that FLC passes of stopped waves on the bins, mean",
                Fact(lambda: _stopped("flc", False)),
                "below",
                FLOOR,
            ),
        ),
    ),
    Finding(
        "grabinski-3",
        "Pooling that cuts the spectrum still leaks: waves between the bins come through, and edges ring.",
        f"{ABSTRACT} (leakage) and v2 (sinc artefacts); facts about the layer, decided exactly",
        NO_NUMBER,
        (
            Test(
                "energy that FLC passes of stopped waves between the bins, mean",
                Fact(lambda: _stopped("flc", True)),
                "above",
                FLOOR,
            ),
            Test("overshoot at a step, FLC, share of the step", Fact(lambda: _ringing("flc")), "above", 0.01),
        ),
    ),
    Finding(
        "grabinski-4",
        "ASAP fixes leakage and ringing with a few changes; we call them fixed if at least half is gone.",
        f"{ABSTRACT}; facts about the published layers, decided exactly",
        NO_NUMBER,
        tuple(
            Test(f"{label}, ASAP relative to FLC", Fact(ratio), "below", bound, ours=bound < 1)
            for label, ratio in (
                ("energy passed between the bins", lambda: _stopped("asap", True) / _stopped("flc", True)),
                ("overshoot at a step", lambda: _ringing("asap") / _ringing("flc")),
            )
            for bound in (1.0, 0.5)
        ),
    ),
    Finding(
        "grabinski-5",
        "Naturally trained networks with ASAP withstand common corruptions better.",
        ABSTRACT,
        NO_NUMBER,
        (_test("mean error under corruption", ERROR, "asap", "below"),),
        CORRUPTED,
    ),
    Finding(
        "grabinski-6",
        "Naturally trained networks with ASAP withstand adversarial attacks better.",
        f"{ABSTRACT}; the radius is ours, for at 8/255 no natural network is left",
        NO_NUMBER,
        (
            _test("accuracy under PGD of 1/255", PGD, "asap", margin=POINT),
            _test("accuracy under FGSM of 1/255", FGSM, "asap", margin=POINT),
        ),
        (FINISHED, ATTACK),
    ),
    Finding(
        "grabinski-7",
        "Clean accuracy with ASAP is similar to the baseline's or better.",
        f"{ABSTRACT} and v2",
        NO_NUMBER,
        (_test("accuracy; similar if not lower by a point", ACCURACY, "asap", margin=0, threshold=-POINT),),
        (FINISHED,),
    ),
    Finding(
        "grabinski-8",
        "Features are more stable under attack and corruption with FLC and with ASAP.",
        f"{SECOND}; the cosine of pooled features is our measure",
        NO_NUMBER,
        tuple(
            _test(f"cosine of features before and after {cause}", f"stability.stability_{column}", layer, margin=0.002)
            for layer in ("flc", "asap")
            for column, cause in (("attack", "a gradient step of 1/255"), ("noise", "Gaussian noise"))
        ),
        ATTACKED,
    ),
    Finding(
        "grabinski-9",
        "With FLC, single-step adversarial training does not overfit catastrophically; with strides it does.",
        "abstract of arXiv:2204.00491",
        NO_NUMBER,
        (
            _test(
                "fall of PGD accuracy on training pictures from the best epoch to the last",
                COLLAPSE,
                "flc",
                "below",
                0.02,
                ADVERSARIAL,
            ),
        ),
        (
            LEARNED,
            Regime(
                "its fall of PGD accuracy on training pictures",
                level(COLLAPSE, layer="subsample", group=ADVERSARIAL),
                0.1,
            ),
        ),
        "another",
    ),
    Finding(
        "grabinski-10",
        "Robust networks alias less.",
        "abstract of Grabinski et al., Machine Learning 2022",
        NO_NUMBER,
        (
            Test(
                "mean alias error of the strided network, adversarially trained minus naturally trained",
                minus(
                    "aliasing.mean_alias_error",
                    {"group": ADVERSARIAL, "layer": "subsample"},
                    {"twin": True, "layer": "subsample"},
                ),
                "below",
                margin=FINE,
            ),
        ),
        (LEARNED,),
        "another",
    ),
    Finding(
        "grabinski-11",
        "Naturally trained networks with FLC do not withstand common corruptions better.",
        f"{ABSTRACT}, on earlier work",
        NO_NUMBER,
        (
            _test(
                "mean error under corruption; no gain if not lower by half a point",
                ERROR,
                "flc",
                margin=0,
                threshold=-FINE,
            ),
        ),
        CORRUPTED,
    ),
    Finding(
        "grabinski-12",
        "FLC pooling makes adversarial training simpler: a single step leaves a more robust network.",
        f"{ABSTRACT}, on earlier work",
        NO_NUMBER,
        (
            _test(
                "after single-step adversarial training: PGD accuracy, 8/255",
                ROBUST,
                "flc",
                "above",
                POINT,
                ADVERSARIAL,
            ),
        ),
        HARDENED,
        "another",
    ),
    Finding(
        "grabinski-13",
        "A plain low-pass of three taps is not behind ASAP in native robustness.",
        OURS,
        "none",
        (
            _against_blur(
                "accuracy under PGD of 1/255, ASAP minus tri-3; not behind if less than a point",
                PGD,
                "asap",
                "below",
                threshold=POINT,
            ),
            _against_blur(
                "corruption error, ASAP minus tri-3; not behind if less than a point",
                ERROR,
                "asap",
                "above",
                threshold=-POINT,
            ),
        ),
        (FINISHED, ATTACK, CORRUPTION),
        "ours",
    ),
    Finding(
        "control-2",
        "FLC gains more native robustness than a plain low-pass of three taps.",
        OURS,
        "none",
        (
            _against_blur("accuracy under PGD of 1/255, FLC minus tri-3", PGD, "flc", "above", margin=POINT),
            _against_blur("corruption error, FLC minus tri-3", ERROR, "flc", "below", margin=FINE),
        ),
        (FINISHED, ATTACK, CORRUPTION),
        "ours",
    ),
    Finding(
        "control-3",
        "Halving the picture by a low-pass, with strides everywhere inside the network, already gains robustness.",
        "of this project: in the paper's ImageNet networks the picture is pooled before anything is learned",
        "none",
        (_test("accuracy under PGD of 1/255, halving the picture", PGD, "flc", margin=POINT, group=INPUT),),
        (
            finished("the network that halves by stride", ACCURACY, layer="subsample", group=INPUT),
            between("its accuracy under PGD of 1/255", PGD, layer="subsample", group=INPUT),
        ),
        "ours",
    ),
)

STUDY = Study(
    "grabinski2023",
    "Cut the spectrum, and smooth the cut",
    "Grabinski, Keuper & Keuper, Fix your downsampling ASAP!, 2023; FLC pooling: Grabinski et al., ECCV 2022",
    plan,
    FINDINGS,
)
