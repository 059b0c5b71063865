"""Grabinski, Keuper & Keuper 2023, "Fix your downsampling ASAP!": cut the spectrum, and smooth the cut.

The layers are those of the authors' code. Their result tables could not be read, and neither could their recipes: data,
radii of the attacks and schedules are our choice, and none was chosen on the pictures that are measured.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from .. import layers
from ..jobs import Job
from ..measurements import Measurement
from ..metrics import leakage, step_overshoot
from .bases import BASES, EASY, FIRST, SAME, Base, between, finished, trained
from .evidence import Derived, entry, fact, level, survived
from .rules import FINE, POINT, Regime, Tests, above, below, claims, kept
from .study import Study

# The paper's layers, and controls: nothing at all, and a plain low-pass of the same gain for small perturbations, where
# Zhang puts it and where these layers stand.
POOLS = ("subsample", "flc", "asap", "tri-3", f"tri-3 {FIRST}")
RADIUS = 8  # of adversarial training, in 1/255
# Groups of networks: naturally trained; halved in the stem only; adversarially trained; the twin of those, without
# adversary. Where both recipes are the same in all else, the natural network is the twin.
NATIVE, INPUT, ADVERSARIAL, TWIN = "native", "input", "adversarial", "twin"


class Sizes(NamedTuple):
    """What differs between profiles.

    Attributes:
        training: how the common ground is ``changed`` for adversarial training, whose first two fifths are clean.
        groups: beside the naturally trained networks.
        hardened: layers of the adversarially trained networks.
        measured: on more images than by the other studies.
    """

    training: dict[str, Any] = SAME
    groups: tuple[str, ...] = (INPUT, ADVERSARIAL, TWIN)
    hardened: tuple[str, ...] = ("subsample", "flc", "asap")
    measured: dict[str, Any] = SAME


FEWER = Sizes(groups=(ADVERSARIAL,), hardened=("subsample", "flc"))
# An adversary makes a step cost three: at a quarter of the width, with a twin of the same.
NARROW = FEWER._replace(groups=(ADVERSARIAL, TWIN), training={"network": {"width": 16}, "recipe": {"epochs": 9}})
SIZES = {
    "smoke": Sizes(
        {"data": {"count": 96}, "network": {"width": 4}, "recipe": {"epochs": 2}},
        measured={"attacked": 16, "corrupted": 16},
    ),
    "laptop": Sizes(
        {"data": EASY | {"count": 2000}, "network": {"width": 8}, "recipe": {"epochs": 6, "batch_size": 64}}
    ),
    "desktop": NARROW,
    "gpu": FEWER,
    "cluster": Sizes({"recipe": {"epochs": 30}}, measured={"attacked": 5000, "steps": 50, "corrupted": 50_000}),
}


def plan(profile: str) -> Iterator[Job]:
    """All runs of ``profile``, a whole seed before the next; natural training first."""
    sizes = SIZES[profile]
    base = BASES[profile].changed(**sizes.measured)
    trained = base.changed(**sizes.training)
    for seed in range(base.seeds):
        for layer in POOLS:
            twin = layer == "subsample" and TWIN not in sizes.groups
            labels = {"layer": layer, "group": NATIVE, "twin": twin}
            yield Job(base.run("resnet", layer, seed), _native(layer, base), labels)
        if INPUT in sizes.groups:
            yield from (_input_control(base, layer, seed) for layer in ("subsample", "flc"))
        yield from (_adversarial(trained, layer, seed) for layer in sizes.hardened)
        if TWIN in sizes.groups:
            yield _adversarial(trained, "subsample", seed, clean=True)


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
    labels = {"layer": layer, "group": INPUT, "twin": False}
    return Job(base.run("resnet", layer, seed, options), wanted, labels)


def _adversarial(base: Base, layer: str, seed: int, clean: bool = False) -> Job:
    """Single-step adversarial training (or the same without adversary), probed by PGD after every epoch."""
    adversary = {} if clean else {"adversary": RADIUS / 255, "adversary_wake": 0.4, "probe": base.attacked}
    wanted = (
        base.attacks(2 * base.attacked),
        Measurement("attacks", {"count": 2 * base.attacked, "steps": 1, "attack": "fgsm"}),
        Measurement("aliasing", {"count": base.attacked}),
        *([Measurement("circular_fidelity", {"count": base.tested})] if clean else []),
    )
    labels = {"layer": layer, "group": TWIN if clean else ADVERSARIAL, "twin": clean}
    return Job(base.changed(recipe=adversary).run("resnet", layer, seed), wanted, labels)


EPS, TRAINED = 2, 5  # indices of 1/255, and of the radius of training, among those of the measurement "attacks"
FLOOR = 1e-3  # -30 dB: less than a thousandth of the energy is as good as nothing
PGD, FGSM, ROBUST = survived(EPS), entry("attacks.fgsm_accuracy", EPS), survived(TRAINED)
# PGD accuracy on training pictures in the best epoch minus that in the last.
COLLAPSE = Derived(("training.pgd",), lambda curve: max(curve) - curve[-1])
ERROR, ACCURACY = "corruptions.corruption_error", "circular_fidelity.accuracy"


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


STRIDE, FLC, ASAP, _, BLUR = ({"layer": layer} for layer in POOLS)
NATURAL: dict[str, Any] = {"group": NATIVE}
HARDENED: dict[str, Any] = {"group": ADVERSARIAL}

LEARNED, FINISHED = (regime("the strided network", ACCURACY, **NATURAL | STRIDE) for regime in (trained, finished))
TWIN_LEARNED, TWIN_FINISHED = (
    regime("the strided network trained as the robust ones are, without adversary", ACCURACY, twin=True, **STRIDE)
    for regime in (trained, finished)
)
ATTACK = between("its accuracy under PGD of 1/255", PGD, **NATURAL | STRIDE)
CORRUPTION = between("its error under corruption", ERROR, **NATURAL | STRIDE)
FALLEN = Regime("its fall of PGD accuracy on training pictures", level(COLLAPSE, **HARDENED | STRIDE), 0.1)
ROBUST_FLC = Regime(
    "after adversarial training, accuracy of FLC under PGD of 8/255", level(ROBUST, **HARDENED | FLC), 0.1
)
ROBUST_STRIDE = Regime(
    "after adversarial training, its accuracy under PGD of 8/255", level(ROBUST, **HARDENED | STRIDE), 0.1
)
HALVED = (
    finished("the network that halves by stride", ACCURACY, group=INPUT, **STRIDE),
    between("its accuracy under PGD of 1/255", PGD, group=INPUT, **STRIDE),
)
REGIMES = {
    "grabinski-2 grabinski-3 grabinski-4": (),
    "grabinski-1 grabinski-8": (LEARNED, ATTACK),
    "grabinski-5 grabinski-11": (FINISHED, CORRUPTION),
    "grabinski-6": (FINISHED, ATTACK),
    "grabinski-7": (FINISHED,),
    "grabinski-9": (TWIN_LEARNED, FALLEN),
    "grabinski-10": (TWIN_LEARNED, ROBUST_STRIDE),
    "grabinski-12": (TWIN_FINISHED, ROBUST_FLC),
    "grabinski-13 control-2": (FINISHED, ATTACK, CORRUPTION),
    "control-3": HALVED,
}
TESTS: Tests = {
    "grabinski-1: strided network, mean alias error of pictures that PGD at 1/255 breaks minus those it does not": (
        above("aliasing_and_attack.alias_error_of_broken_minus_kept", NATURAL | STRIDE, margin=FINE)
    ),
    "grabinski-1: strided network, mean alias error after a gradient step of 1/255 minus before": above(
        "aliasing_and_attack.alias_error_rise", NATURAL | STRIDE, margin=FINE
    ),
    "grabinski-2: energy that FLC passes of stopped waves on the bins, mean": below(
        fact(lambda: _stopped("flc", False)), threshold=FLOOR
    ),
    "grabinski-3: energy that FLC passes of stopped waves between the bins, mean": above(
        fact(lambda: _stopped("flc", True)), threshold=FLOOR
    ),
    "grabinski-3: overshoot at a step, FLC, share of the step": above(fact(lambda: _ringing("flc")), threshold=0.01),
    **{
        f"grabinski-4: {label}, ASAP relative to FLC": [below(ratio, threshold=end, ours=end < 1) for end in (1, 0.5)]
        for label, ratio in (
            ("energy passed between the bins", fact(lambda: _stopped("asap", True) / _stopped("flc", True))),
            ("overshoot at a step", fact(lambda: _ringing("asap") / _ringing("flc"))),
        )
    },
    "grabinski-5: mean error under corruption, asap minus stride": below(ERROR, ASAP, STRIDE, **NATURAL),
    "grabinski-6: accuracy under PGD of 1/255, asap minus stride": above(PGD, ASAP, STRIDE, margin=POINT, **NATURAL),
    "grabinski-6: accuracy under FGSM of 1/255, asap minus stride": above(FGSM, ASAP, STRIDE, margin=POINT, **NATURAL),
    "grabinski-7: accuracy; similar if not lower by a point, asap minus stride": kept(
        ACCURACY, ASAP, STRIDE, **NATURAL
    ),
    **{
        f"grabinski-8: cosine of features before and after {cause}, {layer['layer']} minus stride": above(
            f"stability.stability_{column}", layer, STRIDE, margin=0.002, **NATURAL
        )
        for layer in (FLC, ASAP)
        for column, cause in (("attack", "a gradient step of 1/255"), ("noise", "Gaussian noise"))
    },
    "grabinski-9: fall of PGD accuracy on training pictures from the best epoch to the last, flc": below(
        COLLAPSE, HARDENED | FLC, threshold=0.1
    ),
    "grabinski-9: fall of PGD accuracy on training pictures from the best epoch to the last, flc minus stride": below(
        COLLAPSE, FLC, STRIDE, margin=0.02, **HARDENED
    ),
    "grabinski-10: mean alias error of the strided network, adversarially trained minus naturally trained": below(
        "aliasing.mean_alias_error",
        HARDENED,
        {"twin": True},
        layer="subsample",  # of FLC it is 0: no spread to pool
    ),
    "grabinski-11: mean error under corruption; no gain if not lower by half a point, flc minus stride": above(
        ERROR, FLC, STRIDE, threshold=-FINE, margin=0, **NATURAL
    ),
    "grabinski-12: after single-step adversarial training: PGD accuracy, 8/255, flc minus stride": above(
        ROBUST, FLC, STRIDE, margin=POINT, **HARDENED
    ),
    "grabinski-13: accuracy under PGD of 1/255, ASAP minus tri-3 in its place; not behind if less than a point": below(
        PGD, ASAP, BLUR, threshold=POINT, margin=0, **NATURAL
    ),
    "grabinski-13: corruption error, ASAP minus tri-3 in its place; not behind if less than a point": above(
        ERROR, ASAP, BLUR, threshold=-POINT, margin=0, **NATURAL
    ),
    "control-2: accuracy under PGD of 1/255, FLC minus tri-3 in its place": above(
        PGD, FLC, BLUR, margin=POINT, **NATURAL
    ),
    "control-2: corruption error, FLC minus tri-3 in its place": below(ERROR, FLC, BLUR, **NATURAL),
    "control-3: accuracy under PGD of 1/255, halving the picture, flc minus stride": above(
        PGD, FLC, STRIDE, margin=POINT, group=INPUT
    ),
}

STUDY = Study(
    "grabinski2023",
    "Cut the spectrum, and smooth the cut",
    "Grabinski, Keuper & Keuper, Fix your downsampling ASAP!, 2023; FLC pooling: Grabinski et al., ECCV 2022",
    plan,
    claims(REGIMES, TESTS),
)
