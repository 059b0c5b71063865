"""Azulay & Weiss 2018/2019, "Why do deep convolutional networks generalize so poorly to small image transformations?".

They examine published ImageNet networks; we train small ones, so that blur, augmentation and the photographer's bias
are the only things that differ. The runs are those of the other chapters, but for the networks trained at other biases.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from .. import models
from ..measurements import Measurement
from ..metrics import predict
from ..records import Run
from ..runner import Job
from .bases import BASES, PROTOCOLS, Base, trained
from .evidence import Derived, Drawn, Fact, entry, level, minus
from .rules import Finding, Regime, Test
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
        base.ask("one_pixel", count=base.count, protocols=(*PROTOCOLS, "circular")),
    ]
    bias = "3" if base.dataset["name"] == "shapes" else "given"
    if layer == plain or (backbone == "vgg" and layer == blurred and not augmented):
        wanted += _closely(base.count, augmented, pictured=seed == 0)
        if bias == "3" and backbone == "vgg":
            wanted.append(Measurement("photographers_bias", {"count": SCENES[profile]}))
    longest = backbone == "vgg" and layer == blurred
    labels = {"layer": layer, "backbone": backbone, "augmented": augmented, "bias": bias, "main": True}
    return Job(run, tuple(wanted), labels | {"longest": longest})


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
        labels["longest"] = layer != "subsample"
        jobs.append(Job(run, (Measurement("photographers_bias", {"count": SCENES[profile]}),), labels))
    return jobs


VGG: dict[str, Any] = {"main": True, "backbone": "vgg", "augmented": False}
PLAIN: dict[str, Any] = {"layer": "subsample"}
PLAIN_VGG, PLAIN_RESNET = VGG | PLAIN, VGG | PLAIN | {"backbone": "resnet"}
AUGMENTED, LONGEST = VGG | PLAIN | {"augmented": True}, VGG | {"longest": True}
PLAIN_ONES = ((PLAIN_VGG, "plain VGG"), (PLAIN_RESNET, "plain residual network"))
LEARNED = (trained("the plain VGG", **PLAIN_VGG),)
BOTH_LEARNED = (*LEARNED, trained("the plain residual network", **PLAIN_RESNET))
SUMMARY = "a machine-written summary of the journal version"
FINE, COARSE = 0.005, 0.01

_FOUR = Derived(tuple(f"one_pixel.top1_change_{name}" for name in PROTOCOLS), lambda *changes: sum(changes) / 4)


@cache
def _exact_shifts(size: int = 32) -> float:
    """Share of all circular shifts that keep the logits of an untrained VGG, times its squared subsampling factor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.create("vgg-small", num_classes=10, width=4, padding_mode="circular").eval()
        image = torch.rand(1, 3, size, size)
    before, same = predict(network, image), 0
    for down in range(size):
        rolled = torch.cat([image.roll((down, right), (2, 3)) for right in range(size)])
        same += int(((predict(network, rolled) - before).abs().amax(1) <= 1e-5 * before.abs().max()).sum())
    return same / size**2 * 16**2  # four pools


def _bias(label: str, column: str | Derived, side: Any, margin: float) -> Test:
    """Trained on centred objects minus trained on objects anywhere, plain VGG."""
    plain = {"layer": "subsample", "backbone": "vgg", "augmented": False, "main": False}
    return Test(label, minus(column, {"bias": "0"}, {"bias": "uniform"}, **plain), side, margin=margin)


FINDINGS = (
    Finding(
        "azulay-1",
        "A shift by one pixel changes the top-1 decision of a trained network with a probability of several per cent.",
        f"Table 1, verified; {SUMMARY}. Pictures embedded in a frame are not asked: in 32 pixels too little is left",
        "crop 0.05 to 0.14, black 0.11 to 0.29; up to about 0.30 is said of all protocols",
        tuple(
            Test(f"P(top-1 change), crop, {name}", level("one_pixel.top1_change_crop", **one), "above", 0.02, COARSE)
            for one, name in PLAIN_ONES
        ),
        BOTH_LEARNED,
    ),
    Finding(
        "azulay-2",
        "Neither convolution nor augmentation guarantees invariance.",
        f"abstract, verified; {SUMMARY}",
        "no number found",
        (
            Test(
                "P(top-1 change), circular, plain VGG",
                level("one_pixel.top1_change_circular", **PLAIN_VGG),
                threshold=0.01,
                margin=FINE,
            ),
            Test(
                "the same, trained with every circular shift",
                level("one_pixel.top1_change_circular", **AUGMENTED),
                threshold=0.01,
                margin=FINE,
            ),
        ),
        LEARNED,
    ),
    Finding(
        "azulay-3",
        "The global sum of a feature map stops being invariant as the accumulated subsampling factor grows.",
        "v1, Figure 8, digitised",
        "VGG16: 0.2 positions at factor 1, 25.3 at factor 16; ResNet50: 0.8 at 4, 27.4 at 32",
        tuple(
            Test(
                f"non-shiftability (share of positions), {border}, last stage minus first activation, {name}",
                level(entry(f"shiftability.non_shiftability_{border}", -1, 0), **one),
                margin=0.02,
            )
            for border, (one, name) in (
                *(("inpainting", one) for one in PLAIN_ONES),
                ("circular", PLAIN_ONES[0]),
            )
        ),
        BOTH_LEARNED,
    ),
    Finding(
        "azulay-4",
        "The less typical of the training set a picture is, the more sensitive is the prediction.",
        f"{SUMMARY}; the measure of typicality is ours",
        "no number found",
        tuple(
            Test(
                f"P(top-1 change), circular, least minus most typical fifth, {name}",
                level("typicality.typicality_gap", **one),
                margin=FINE,
            )
            for one, name in PLAIN_ONES
        ),
        BOTH_LEARNED,
    ),
    Finding(
        "azulay-5",
        "Blur before subsampling helps only partly.",
        f"abstract, verified: a partial solution at best; {SUMMARY}",
        "an anti-aliased network still changed 15 per cent of its decisions (weak secondary source)",
        (
            Test(
                "it helps: P(top-1 change), mean of the four protocols, longest blur minus none",
                minus(_FOUR, {"longest": True}, PLAIN, **VGG),
                "below",
                margin=FINE,
            ),
            Test(
                "only partly: P(top-1 change), mean of the four protocols, longest blur",
                level(_FOUR, **LONGEST),
                threshold=0.02,
                margin=COARSE,
            ),
        ),
        LEARNED,
    ),
    Finding(
        "azulay-6",
        "Stronger augmentation helps to a degree but is no full solution.",
        f"abstract, verified; {SUMMARY}",
        "no number found",
        (
            Test(
                "it helps on its own shifts: P(top-1 change), circular, with minus without",
                minus("one_pixel.top1_change_circular", AUGMENTED, PLAIN_VGG),
                "below",
                margin=FINE,
            ),
            Test(
                "it helps elsewhere: P(top-1 change), mean of the four protocols, with minus without",
                minus(_FOUR, AUGMENTED, PLAIN_VGG),
                "below",
                margin=FINE,
            ),
            Test(
                "no full solution: P(top-1 change), mean of the four protocols, with augmentation",
                level(_FOUR, **AUGMENTED),
                threshold=0.02,
                margin=COARSE,
            ),
        ),
        LEARNED,
    ),
    Finding(
        "azulay-7",
        "The deeper network is the less stable one.",
        "v1, Figure 4, digitised; Table 1, verified",
        "jaggedness 346 for VGG16, 834 for ResNet50; P(top-1 change), black 0.18 and 0.20",
        (
            Test(
                "P(top-1 change), mean of the four protocols, residual network minus VGG",
                minus(_FOUR, PLAIN_RESNET, PLAIN_VGG),
                margin=FINE,
            ),
            Test(
                "share of neighbouring positions with a crossing, inpainted sweep, likewise",
                minus("jagged.jaggedness_pairs_inpainting", PLAIN_RESNET, PLAIN_VGG),
                margin=FINE,
            ),
        ),
        BOTH_LEARNED,
    ),
    Finding(
        "azulay-8",
        "With an accumulated subsampling factor s only one in s squared shifts is harmless by construction.",
        "notes on v1, secondary; an identity, decided on an untrained network: no weights change it",
        "factor 45: 1 in 2025",
        (
            Test("circular shifts with unchanged logits, times s squared", Fact(_exact_shifts), "above", 0.999),
            Test("the same, from the other side", Fact(_exact_shifts), "below", 1.001),
        ),
    ),
    Finding(
        "azulay-9",
        "The photographer's bias of the training set decides which invariance is learned.",
        f"abstract, verified; {SUMMARY}; trained at a bias that is set, which the paper could not do",
        "no number found",
        (
            _bias(
                "accuracy near minus far from the middle, trained on centred objects minus trained on objects anywhere",
                Derived(
                    ("photographers_bias.bias_accuracy_near", "photographers_bias.bias_accuracy_far"),
                    lambda near, far: near - far,
                ),
                "above",
                COARSE,
            ),
            _bias(
                "P(top-1 change) by one pixel far from the middle, likewise",
                "photographers_bias.bias_change_far",
                "above",
                FINE,
            ),
            _bias(
                "agreement with the centred scene far from the middle, likewise",
                "photographers_bias.bias_agreement_far",
                "below",
                COARSE,
            ),
        ),
        (Regime("share of networks trained on drawn pictures, whose bias can be chosen,", Drawn(), 1), *LEARNED),
    ),
    Finding(
        "azulay-10",
        "A picture at half its size within the frame costs about half of the accuracy.",
        "v1, Figure 10, digitised; top-5 accuracy there",
        "VGG16: .38 at 100 px, .81 at 210 px",
        (
            Test(
                "accuracy at size 1.9 (half the width, on black) over accuracy of the whole picture, plain VGG",
                level(Derived(("one_pixel_by_size.size_accuracy",), lambda curve: curve[-1] / curve[3]), **PLAIN_VGG),
                "below",
                threshold=0.7,
                margin=0.1,
            ),
        ),
        LEARNED,
    ),
    Finding(
        "azulay-11",
        "Stability falls with depth, read out layer by layer.",
        f"{SUMMARY}; how they read out was not found, the readout is ours. Before the first subsampling nothing can "
        "change: the comparison begins behind it",
        "no number found",
        tuple(
            Test(
                f"P(top-1 change) of the readout, circular, last stage minus first, {name}",
                level(entry("stage_readouts.readout_change_circular", -1, 1), **one),
                margin=FINE,
            )
            for one, name in PLAIN_ONES
        ),
        BOTH_LEARNED,
    ),
)

STUDY = Study(
    "azulay2018",
    "One pixel is enough",
    "Azulay & Weiss, Why do deep convolutional networks generalize so poorly to small image transformations?, 2019",
    plan,
    FINDINGS,
)
