"""Grabinski, Keuper & Keuper 2023, "Fix your downsampling ASAP!": cut the spectrum, and smooth the cut.

The layers are those of the authors' code. Their result tables could not be read, and neither could their recipes: data,
radii of the attacks and schedules are our choice, and none was chosen on the pictures that are measured.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from ..measurements import Measurement
from ..records import Run
from ..runner import Job
from ..training import Recipe
from .bases import BASES, EASY, Base
from .grabinski2023_findings import FINDINGS
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
            jobs.append(Job(run, _native(layer, base.tested, sizes), {"layer": layer, "group": NATIVE}))
        if INPUT in sizes.groups:
            jobs += [_input_control(profile, layer, seed) for layer in ("subsample", "flc")]
        jobs += [_adversarial(profile, layer, seed) for layer in sizes.hardened]
        if TWIN in sizes.groups:
            jobs.append(_adversarial(profile, "subsample", seed, clean=True))
    return jobs


def _native(layer: str, count: int, sizes: Sizes) -> tuple[Measurement, ...]:
    """Accuracy and consistency; attacks; corruptions; what attacks and noise do inside."""
    wanted = [
        Measurement("circular_fidelity", {"count": count}),
        Measurement("attacks", {"count": sizes.attacked, "steps": sizes.steps}),
        Measurement("attacks", {"count": sizes.attacked, "steps": 1, "attack": "fgsm"}),
        Measurement("attacks", {"count": sizes.attacked // 2, "steps": sizes.steps, "attack": "apgd-ce"}),
        Measurement("corruptions", {"count": sizes.corrupted, "severities": sizes.severities}),
        Measurement("aliasing", {"count": sizes.attacked}),
        Measurement("stability", {"count": 2 * sizes.attacked, "eps": 1}),
        Measurement("map_spectra", {"count": sizes.attacked}),
    ]
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
    return Job(Run(base.dataset, base.resnet | options, base.residual, seed), wanted, {"layer": layer, "group": INPUT})


def _adversarial(profile: str, layer: str, seed: int, clean: bool = False) -> Job:
    """Single-step adversarial training (or the same without adversary), probed by PGD after every epoch."""
    base, sizes = BASES[profile], SIZES[profile]
    recipe: Recipe = replace(base.residual, **sizes.recipe)
    if not clean:
        recipe = replace(recipe, adversary=RADIUS / 255, adversary_wake=0.4, probe=sizes.attacked)
    chosen = network(base, layer) | ({} if sizes.width is None else {"width": sizes.width})
    wanted = (
        Measurement("attacks", {"count": 2 * sizes.attacked, "steps": sizes.steps}),
        Measurement("attacks", {"count": 2 * sizes.attacked, "steps": 1, "attack": "fgsm"}),
        Measurement("aliasing", {"count": sizes.attacked}),
    )
    labels = {"layer": layer, "group": TWIN if clean else ADVERSARIAL}
    return Job(Run(base.dataset | sizes.data, chosen, recipe, seed), wanted, labels)


STUDY = Study(
    "grabinski2023",
    "Cut the spectrum, and smooth the cut",
    "Grabinski, Keuper & Keuper, Fix your downsampling ASAP!, 2023; FLC pooling: Grabinski et al., ECCV 2022",
    plan,
    FINDINGS,
)
