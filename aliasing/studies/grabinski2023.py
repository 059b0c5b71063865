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
from ..runner import Job
from .bases import BASES, EASY, FINE, POINT, SAME, Base, between, finished, trained
from .evidence import Column, Derived, Fact, entry, level, minus, survived
from .rules import Regime, Test, claim
from .study import Study

__all__ = ["POOLS", "STUDY"]

# The paper's layers, and two controls: nothing at all, and a plain low-pass of the same gain for small perturbations.
POOLS = ("subsample", "flc", "asap", "tri-3")
RADIUS = 8  # of adversarial training, in 1/255
# Groups of networks: naturally trained; halved in the stem only; adversarially trained; the twin of those, without
# adversary. Where both recipes are the same in all else, the natural network is the twin.
NATIVE, INPUT, ADVERSARIAL, TWIN = "native", "input", "adversarial", "twin"


class Sizes(NamedTuple):
    """What differs between profiles, of the adversarially trained networks and of the measurements.

    Attributes:
        recipe: epochs, of which the first two fifths are clean, and so on.
        data: beside the profile's own options.
        network: likewise.
        groups: beside the naturally trained networks.
        hardened: layers.
        base: what is measured on more images than by the other studies.
    """

    recipe: dict[str, Any] = SAME
    data: dict[str, Any] = SAME
    network: dict[str, Any] = SAME
    groups: tuple[str, ...] = (INPUT, ADVERSARIAL, TWIN)
    hardened: tuple[str, ...] = ("subsample", "flc", "asap")
    base: dict[str, Any] = SAME


FEWER = Sizes(groups=(ADVERSARIAL,), hardened=("subsample", "flc"))
# An adversary makes a step cost three: at a quarter of the width, with a twin of the same.
NARROW = FEWER._replace(groups=(ADVERSARIAL, TWIN), network={"width": 16}, recipe={"epochs": 9})
SIZES = {
    "smoke": Sizes({"epochs": 2}, {"count": 128}, {"width": 4}, base={"attacked": 16, "corrupted": 16}),
    "laptop": Sizes({"epochs": 6, "batch_size": 64}, EASY | {"count": 2000}, {"width": 8}),
    "desktop": NARROW,
    "gpu": FEWER,
    "cluster": Sizes({"epochs": 30}, base={"attacked": 5000, "steps": 50, "corrupted": 50_000}),
}


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``, a whole seed before the next; natural training first."""
    sizes = SIZES[profile]
    base = replace(BASES[profile], **sizes.base)
    jobs = []
    for seed in range(base.seeds):
        for layer in POOLS:
            twin = layer == "subsample" and TWIN not in sizes.groups
            labels = {"layer": layer, "group": NATIVE, "twin": twin}
            jobs.append(Job(base.run("resnet", layer, seed), _native(layer, base), labels))
        if INPUT in sizes.groups:
            jobs += [_input_control(base, layer, seed) for layer in ("subsample", "flc")]
        jobs += [_adversarial(base, sizes, layer, seed) for layer in sizes.hardened]
        if TWIN in sizes.groups:
            jobs.append(_adversarial(base, sizes, "subsample", seed, clean=True))
    return jobs


def _native(layer: str, base: Base) -> tuple[Measurement, ...]:
    """Accuracy and consistency; attacks; corruptions; what attacks and noise do inside."""
    wanted = [
        Measurement("circular_fidelity", {"count": base.tested}),
        base.attacks(),
        Measurement("attacks", {"count": base.attacked, "steps": 1, "attack": "fgsm"}),
        Measurement("attacks", {"count": base.attacked // 2, "steps": base.steps, "attack": "apgd-ce"}),
        base.corruptions(),
        Measurement("aliasing", {"count": base.attacked}),
        Measurement("stability", {"count": 2 * base.attacked, "eps": 1}),
        Measurement("map_spectra", {"count": base.attacked}),
    ]
    if base.by_image:
        wanted.append(base.ask("accuracy", count=base.tested))
    if layer == "subsample":
        wanted.append(Measurement("aliasing_and_attack", {"count": 4 * base.attacked, "eps": 1, "steps": base.steps}))
    return tuple(wanted)


def _input_control(base: Base, layer: str, seed: int) -> Job:
    """Halving in the stem: by its convolution's stride, or by FLC of the picture itself; everything else is strided.

    In the paper's ImageNet networks the picture is pooled before anything is learned. This is that step alone.
    """
    options: dict[str, Any] = {"stem_stride": 2} | ({} if layer == "subsample" else {"positions": ["stem"]})
    wanted = (
        Measurement("circular_fidelity", {"count": base.tested}),
        Measurement("attacks", {"count": base.attacked, "steps": base.steps}),
    )
    return Job(
        base.run("resnet", layer, seed, network=options), wanted, {"layer": layer, "group": INPUT, "twin": False}
    )


def _adversarial(base: Base, sizes: Sizes, layer: str, seed: int, clean: bool = False) -> Job:
    """Single-step adversarial training (or the same without adversary), probed by PGD after every epoch."""
    adversary = {} if clean else {"adversary": RADIUS / 255, "adversary_wake": 0.4, "probe": base.attacked}
    wanted = (
        base.attacks(2 * base.attacked),
        Measurement("attacks", {"count": 2 * base.attacked, "steps": 1, "attack": "fgsm"}),
        Measurement("aliasing", {"count": base.attacked}),
    )
    labels = {"layer": layer, "group": TWIN if clean else ADVERSARIAL, "twin": clean}
    run = base.run("resnet", layer, seed, sizes.data, sizes.network, sizes.recipe | adversary)
    return Job(run, wanted, labels)


EPS, TRAINED = 2, 5  # indices of 1/255, and of the radius of training, among those of the measurement "attacks"
FLOOR = 1e-3  # -30 dB: less than a thousandth of the energy is as good as nothing
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
    label: str,
    column: Column,
    layer: str,
    side: Any = "above",
    margin: float = FINE,
    threshold: float = 0,
    group: str = NATIVE,
    other: str = "subsample",
) -> Test:
    """``layer`` minus another, by default stride, of which the label then speaks."""
    said = f"{label}, {layer} minus stride" if other == "subsample" else label
    return Test(said, minus(column, {"layer": layer}, {"layer": other}, group=group), side, threshold, margin)


FINDINGS = (
    claim(
        "grabinski-1",
        ATTACKED,
        *(
            Test(
                f"strided network, mean alias error {label}",
                level(f"aliasing_and_attack.{column}", layer="subsample", group=NATIVE),
                margin=FINE,
            )
            for label, column in (
                (
                    "of pictures that PGD at 1/255 breaks minus those it does not",
                    "alias_error_of_broken_minus_kept",
                ),
                ("after a gradient step of 1/255 minus before", "alias_error_rise"),
            )
        ),
    ),
    claim(
        "grabinski-2",
        (),
        Test(
            "energy that FLC passes of stopped waves on the bins, mean",
            Fact(lambda: _stopped("flc", False)),
            "below",
            FLOOR,
        ),
    ),
    claim(
        "grabinski-3",
        (),
        Test(
            "energy that FLC passes of stopped waves between the bins, mean",
            Fact(lambda: _stopped("flc", True)),
            "above",
            FLOOR,
        ),
        Test("overshoot at a step, FLC, share of the step", Fact(lambda: _ringing("flc")), "above", 0.01),
    ),
    claim(
        "grabinski-4",
        (),
        *(
            Test(f"{label}, ASAP relative to FLC", Fact(ratio), "below", bound, ours=bound < 1)
            for label, ratio in (
                ("energy passed between the bins", lambda: _stopped("asap", True) / _stopped("flc", True)),
                ("overshoot at a step", lambda: _ringing("asap") / _ringing("flc")),
            )
            for bound in (1.0, 0.5)
        ),
    ),
    claim("grabinski-5", CORRUPTED, _test("mean error under corruption", ERROR, "asap", "below")),
    claim(
        "grabinski-6",
        (FINISHED, ATTACK),
        _test("accuracy under PGD of 1/255", PGD, "asap", margin=POINT),
        _test("accuracy under FGSM of 1/255", FGSM, "asap", margin=POINT),
    ),
    claim(
        "grabinski-7",
        (FINISHED,),
        _test("accuracy; similar if not lower by a point", ACCURACY, "asap", "above", 0, -POINT),
    ),
    claim(
        "grabinski-8",
        ATTACKED,
        *(
            _test(f"cosine of features before and after {cause}", f"stability.stability_{column}", layer, margin=0.002)
            for layer in ("flc", "asap")
            for column, cause in (("attack", "a gradient step of 1/255"), ("noise", "Gaussian noise"))
        ),
    ),
    claim(
        "grabinski-9",
        (
            LEARNED,
            Regime(
                "its fall of PGD accuracy on training pictures",
                level(COLLAPSE, layer="subsample", group=ADVERSARIAL),
                0.1,
            ),
        ),
        _test(
            "fall of PGD accuracy on training pictures from the best epoch to the last",
            COLLAPSE,
            "flc",
            "below",
            0.02,
            group=ADVERSARIAL,
        ),
    ),
    claim(
        "grabinski-10",
        (LEARNED,),
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
    claim(
        "grabinski-11",
        CORRUPTED,
        _test("mean error under corruption; no gain if not lower by half a point", ERROR, "flc", "above", 0, -FINE),
    ),
    claim(
        "grabinski-12",
        HARDENED,
        _test(
            "after single-step adversarial training: PGD accuracy, 8/255",
            ROBUST,
            "flc",
            margin=POINT,
            group=ADVERSARIAL,
        ),
    ),
    claim(
        "grabinski-13",
        (FINISHED, ATTACK, CORRUPTION),
        _test(
            "accuracy under PGD of 1/255, ASAP minus tri-3; not behind if less than a point",
            PGD,
            "asap",
            "below",
            0,
            POINT,
            other="tri-3",
        ),
        _test(
            "corruption error, ASAP minus tri-3; not behind if less than a point",
            ERROR,
            "asap",
            "above",
            0,
            -POINT,
            other="tri-3",
        ),
    ),
    claim(
        "control-2",
        (FINISHED, ATTACK, CORRUPTION),
        _test("accuracy under PGD of 1/255, FLC minus tri-3", PGD, "flc", margin=POINT, other="tri-3"),
        _test("corruption error, FLC minus tri-3", ERROR, "flc", "below", other="tri-3"),
    ),
    claim(
        "control-3",
        (
            finished("the network that halves by stride", ACCURACY, layer="subsample", group=INPUT),
            between("its accuracy under PGD of 1/255", PGD, layer="subsample", group=INPUT),
        ),
        _test("accuracy under PGD of 1/255, halving the picture", PGD, "flc", margin=POINT, group=INPUT),
    ),
)

STUDY = Study(
    "grabinski2023",
    "Cut the spectrum, and smooth the cut",
    "Grabinski, Keuper & Keuper, Fix your downsampling ASAP!, 2023; FLC pooling: Grabinski et al., ECCV 2022",
    plan,
    FINDINGS,
)
