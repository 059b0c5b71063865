"""Azulay & Weiss 2018/2019, "Why do deep convolutional networks generalize so poorly to small image transformations?".

They examine published ImageNet networks; we train small ones, so that blur, augmentation and the photographer's bias
are the only things that differ. The runs are those of the other chapters, but for the networks trained at other biases.
"""

from dataclasses import replace
from typing import Any

from ..measurements import Measurement
from ..records import Run
from ..runner import Job
from .azulay2018_findings import FINDINGS, PROTOCOLS
from .bases import BASES, Base
from .study import Study

__all__ = ["STUDY"]

SHIFT = 16  # pixels per axis of the augmentation, as in the chapter on Zhang 2019

# Layers of VGGs trained without and with shift augmentation, and of residual networks; shortest blur first.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (("subsample", "bin-5"), ("subsample",), ("subsample",)),
    "laptop": (("subsample", "tri-3", "bin-7"), ("subsample", "bin-7"), ("subsample", "bin-5")),
    "desktop": (("subsample", "tri-3", "bin-7"), ("subsample", "bin-7"), ("subsample", "bin-5")),
    "gpu": (("subsample", "tri-3", "bin-7"), ("subsample", "bin-7"), ("subsample", "bin-5")),
    "cluster": (("subsample", "tri-3", "bin-5"), (), ("subsample", "bin-5")),
}
# The bias can only be chosen where pictures are drawn; a profile of photographs says nothing about it.
SCENES = {"smoke": 256, "laptop": 2000}


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``: a whole seed before the next, the plain network first."""
    base, jobs = BASES[profile], []
    for seed in range(base.seeds):
        for backbone, augmented, layers in zip(
            ("vgg", "vgg", "resnet"), (False, True, False), LAYERS[profile], strict=True
        ):
            for layer in layers:
                jobs.append(_job(profile, base, seed, backbone, layer, augmented))
        if profile in SCENES:
            jobs += _biased(profile, base, seed)
    return jobs


def _job(profile: str, base: Base, seed: int, backbone: str, layer: str, augmented: bool) -> Job:
    """A network on the profile's own data."""
    recipe = base.recipe if backbone == "vgg" else base.residual
    recipe = replace(recipe, shift=SHIFT) if augmented else recipe
    run = Run(base.dataset, getattr(base, backbone) | {"downsample": layer}, recipe, seed)
    plain, blurred = LAYERS[profile][0][0], LAYERS[profile][0][-1]
    wanted = [
        *base.rolls(),
        Measurement("one_pixel", {"count": base.count, "protocols": (*PROTOCOLS, "circular")}),
    ]
    bias = "3" if base.dataset["name"] == "shapes" else "given"
    if layer == plain or (backbone == "vgg" and layer == blurred and not augmented):
        wanted += _closely(base.count, augmented, pictured=seed == 0)
        if bias == "3" and backbone == "vgg":
            wanted.append(Measurement("photographers_bias", {"count": SCENES[profile]}))
    labels = {"layer": layer, "backbone": backbone, "augmented": augmented, "bias": bias, "main": True}
    return Job(run, tuple(wanted), labels)


def _closely(count: int, augmented: bool, pictured: bool) -> list[Measurement]:
    """What is asked only of the plain networks, of the longest blur and, of these, of augmentation alone."""
    wanted = [Measurement("one_pixel_by_size", {"count": count // 2})]
    if not augmented:
        wanted += [
            Measurement("typicality", {"count": count, "training": 4 * count}),
            Measurement("shiftability", {"count": min(50, count // 4)}),
            Measurement("stage_readouts", {"count": count // 2, "training": 2 * count}),
            Measurement("exact_shifts", {"count": min(4, count // 16)}),
            Measurement("jagged", {"count": min(200, count // 4)}),
        ]
        if pictured:
            wanted.append(Measurement("sweep", {"count": min(48, count // 2), "pictures": 12}))
            wanted.append(Measurement("feature_maps", {}))
    return wanted


def _biased(profile: str, base: Base, seed: int) -> list[Job]:
    """Networks trained on objects always in the middle, or anywhere.

    The longest blur is trained on centred objects too: does it stand in for the positions that were never seen?
    """
    chosen: list[tuple[Any, str]] = [(0, "subsample"), ("uniform", "subsample"), (0, LAYERS[profile][0][-1])]
    jobs = []
    for bias, layer in chosen:
        run = Run(base.dataset | {"position_sigma": bias}, base.vgg | {"downsample": layer}, base.recipe, seed)
        labels = {"layer": layer, "backbone": "vgg", "augmented": False, "bias": str(bias), "main": False}
        jobs.append(Job(run, (Measurement("photographers_bias", {"count": SCENES[profile]}),), labels))
    return jobs


STUDY = Study(
    "azulay2018",
    "One pixel is enough",
    "Azulay & Weiss, Why do deep convolutional networks generalize so poorly to small image transformations?, 2019",
    plan,
    FINDINGS,
)
