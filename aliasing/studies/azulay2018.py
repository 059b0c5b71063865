"""Azulay & Weiss 2018/2019, "Why do deep convolutional networks generalize so poorly to small image transformations?".

They examine published ImageNet networks; we train small ones, so that blur, augmentation and the photographer's bias
are the only things that differ. The runs are those of the other chapters, but for the networks trained at other biases.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch

from .. import models
from ..jobs import Job
from ..measurements import Measurement
from ..metrics import roll_logits
from .bases import BASES, PROTOCOLS, Base, trained
from .evidence import Derived, entry, fact, level, minus, near
from .rules import FINE, POINT, Regime, above, below, claims
from .study import Study

SHIFT = 16  # pixels per axis of the augmentation, as in the chapter on Zhang 2019

# Layers of VGGs trained without and with shift augmentation, and of residual networks; shortest blur first.
_RESIDUAL = ("subsample", "bin-5")
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (("subsample", "bin-5"), ("subsample",), ("subsample",)),
    **dict.fromkeys(("laptop", "desktop", "gpu"), (("subsample", "tri-3", "bin-7"), ("subsample", "bin-7"), _RESIDUAL)),
    "cluster": (("subsample", "tri-3", "bin-5"), (), _RESIDUAL),
}
# The bias can only be chosen where pictures are drawn; a profile of photographs says nothing about it.
SCENES = {"smoke": 256, "laptop": 2000}


def plan(profile: str) -> Iterator[Job]:
    """All runs of ``profile``: a whole seed before the next, the plain network first."""
    base = BASES[profile]
    for seed in range(base.seeds):
        for backbone, augmented, layers in zip(
            ("vgg", "vgg", "resnet"), (False, True, False), LAYERS[profile], strict=True
        ):
            for layer in layers:
                yield _job(profile, base, seed, backbone, layer, augmented)
        if profile in SCENES:
            yield from _biased(profile, base, seed)


def _job(profile: str, base: Base, seed: int, backbone: str, layer: str, augmented: bool) -> Job:
    """A network on the profile's own data."""
    run = base.changed(recipe={"shift": SHIFT if augmented else 0}).run(backbone, layer, seed)
    plain, blurred = LAYERS[profile][0][0], LAYERS[profile][0][-1]
    wanted = [*base.rolls(), base.ask("one_pixel", count=base.count, protocols=(*PROTOCOLS, "circular"))]
    bias = "3" if base.dataset["name"] == "shapes" else "given"
    if layer == plain or (backbone == "vgg" and layer == blurred and not augmented):
        count = base.count
        wanted.append(Measurement("one_pixel_by_size", {"count": count // 2}))
        if not augmented:
            wanted += [
                Measurement("typicality", {"count": count, "training": 4 * count}),
                Measurement("shiftability", {"count": min(50, count // 4)}),
                Measurement("stage_readouts", {"count": count // 2, "training": 2 * count}),
                Measurement("exact_shifts", {"count": min(4, count // 16)}),
                Measurement("jagged", {"count": min(200, count // 4)}),
            ]
            if seed == 0:  # what only the pictures show
                wanted.append(Measurement("sweep", {"count": min(48, count // 2), "pictures": 12}))
                wanted.append(Measurement("feature_maps"))
        if bias == "3" and backbone == "vgg":
            wanted.append(Measurement("photographers_bias", {"count": SCENES[profile]}))
    longest = backbone == "vgg" and layer == blurred
    labels = {"layer": layer, "backbone": backbone, "augmented": augmented, "bias": bias, "main": True}
    return Job(run, tuple(wanted), labels | {"longest": longest})


def _biased(profile: str, base: Base, seed: int) -> Iterator[Job]:
    """Networks trained on objects always in the middle, or anywhere.

    The longest blur is trained on centred objects too: does it stand in for the positions that were never seen?
    """
    chosen: list[tuple[Any, str]] = [(0, "subsample"), ("uniform", "subsample"), (0, LAYERS[profile][0][-1])]
    for bias, layer in chosen:
        run = base.changed({"position_sigma": bias}).run("vgg", layer, seed)
        labels = {"layer": layer, "backbone": "vgg", "augmented": False, "bias": str(bias), "main": False}
        labels["longest"] = layer != "subsample"
        yield Job(run, (Measurement("photographers_bias", {"count": SCENES[profile]}),), labels)


VGG: dict[str, Any] = {"main": True, "backbone": "vgg", "augmented": False}
PLAIN: dict[str, Any] = {"layer": "subsample"}
PLAIN_VGG, PLAIN_RESNET = VGG | PLAIN, VGG | PLAIN | {"backbone": "resnet"}
AUGMENTED, LONGEST = VGG | PLAIN | {"augmented": True}, VGG | {"longest": True}
PLAIN_ONES = {"plain VGG": PLAIN_VGG, "plain residual network": PLAIN_RESNET}


@cache
def _exact_shifts() -> float:
    """Share of all circular shifts that keep the logits of an untrained VGG, times its squared subsampling factor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.create("vgg-small", num_classes=10, width=4, padding_mode="circular").eval()
        image = torch.rand(1, 3, 32, 32)
    (found,) = roll_logits(network, image, method="brute force")
    before = found.logits[:, :1, :1]
    same = (found.logits - before).abs().amax(3) <= 1e-5 * before.abs().max()
    return same.double().mean().item() * 16**2  # four pools


_CIRCULAR, _CROP = "one_pixel.top1_change_circular", "one_pixel.top1_change_crop"
_DRAWN = Derived(("data",), lambda data: float(data.startswith("shapes")))


def _behind_the_first(values: list[float], factors: list[int]) -> float:
    """The value of the first stage behind a subsampling, where something can change at all."""
    return next(own for own, factor in zip(values, factors, strict=True) if factor > 1)


_HALF = Derived(("one_pixel_by_size.size_accuracy",), lambda curve: curve[-1] / curve[3])
_FALL = Derived(
    ("stage_readouts.readout_change_circular", "shiftability.stage_factors"),
    lambda change, factors: change[-1] - _behind_the_first(change, factors),
)
_EARLY = Derived(("stage_readouts.readout_accuracy", "shiftability.stage_factors"), _behind_the_first)
_NEAR_MINUS_FAR = Derived(
    ("photographers_bias.bias_accuracy_near", "photographers_bias.bias_accuracy_far"), lambda near, far: near - far
)
# Trained on centred objects minus trained on objects anywhere.
BIASED = VGG | PLAIN | {"main": False}
_more, _less = (partial(side, one={"bias": "0"}, other={"bias": "uniform"}, **BIASED) for side in (above, below))

VGG_LEARNED = (trained("the plain VGG", **PLAIN_VGG),)
BOTH_LEARNED = (*VGG_LEARNED, trained("the plain residual network", **PLAIN_RESNET))
# A readout that is often wrong changes often.
EARLY_LEARNED = tuple(
    trained(f"the first readout behind a subsampling, {name}", _EARLY, **one) for name, one in PLAIN_ONES.items()
)
AUGMENTED_LEARNED = trained("the VGG trained with shifts", **AUGMENTED)
_FACTOR = Derived(("shiftability.stage_factors",), lambda factors: factors[-1])
AS_FAR = Regime(
    "subsampling factor of the residual network minus that of the VGG", minus(_FACTOR, PLAIN_RESNET, PLAIN_VGG), 0
)
_TRAINING = entry("photographers_bias.bias_accuracy", 0)  # where its objects are at home, in the middle
BIASED_LEARNED = tuple(
    trained(f"the VGG trained on {objects}, in the middle", _TRAINING, bias=bias, **BIASED)
    for objects, bias in (("centred objects", "0"), ("objects anywhere", "uniform"))
)
DRAWN = Regime("share of networks trained on drawn pictures, whose bias can be chosen,", level(_DRAWN, **PLAIN_VGG), 1)
REGIMES = {
    "azulay-1 azulay-3 azulay-4": BOTH_LEARNED,
    "azulay-2 azulay-6": (*VGG_LEARNED, AUGMENTED_LEARNED),
    "azulay-5": (*VGG_LEARNED, trained("the VGG with the longest blur", **LONGEST)),
    "azulay-10": VGG_LEARNED,
    "azulay-7": (*BOTH_LEARNED, AS_FAR),
    "azulay-8": (),
    "azulay-9": (DRAWN, *BIASED_LEARNED),
    "azulay-11": (*BOTH_LEARNED, *EARLY_LEARNED),
}
TESTS = {
    "azulay-1: P(top-1 change), crop, plain VGG": above(_CROP, PLAIN_VGG, threshold=0.02, margin=POINT),
    "azulay-1: P(top-1 change), crop, plain residual network": above(_CROP, PLAIN_RESNET, threshold=0.02, margin=POINT),
    "azulay-2: P(top-1 change), circular, plain VGG": above(_CIRCULAR, PLAIN_VGG, threshold=0.01, margin=FINE),
    "azulay-2: the same, trained with every circular shift": above(_CIRCULAR, AUGMENTED, threshold=0.01, margin=FINE),
    **{
        f"azulay-3: non-shiftability (share of positions), {border}, last stage minus first activation, {name}": above(
            entry(f"shiftability.non_shiftability_{border}", -1, 0), PLAIN_ONES[name], margin=0.02
        )
        for border, names in (("inpainting", [*PLAIN_ONES]), ("circular", ["plain VGG"]))
        for name in names
    },
    **{
        f"azulay-4: P(top-1 change), circular, least minus most typical fifth, {name}": above(
            "typicality.typicality_gap", one, margin=FINE
        )
        for name, one in PLAIN_ONES.items()
    },
    **{  # the distance is in the network's own features: without this control it could be that of unsure pictures
        f"azulay-4: the same among the pictures that are classified correctly, {name}": above(
            entry("typicality.typicality_change_if_correct", -1, 0), one, margin=FINE, ours=True
        )
        for name, one in PLAIN_ONES.items()
    },
    # Of the four protocols the crop alone: framed in 32 pixels, little of a picture is left.
    "azulay-5: it helps: P(top-1 change), crop, longest blur minus none": below(_CROP, {"longest": True}, PLAIN, **VGG),
    "azulay-5: only partly: P(top-1 change), crop, longest blur": above(_CROP, LONGEST, threshold=0.02, margin=POINT),
    "azulay-6: it helps on its own shifts: P(top-1 change), circular, with minus without": below(
        _CIRCULAR, AUGMENTED, PLAIN_VGG
    ),
    "azulay-6: it helps elsewhere: P(top-1 change), crop, with minus without": below(_CROP, AUGMENTED, PLAIN_VGG),
    "azulay-6: no full solution: P(top-1 change), crop, with augmentation": above(
        _CROP, AUGMENTED, threshold=0.02, margin=POINT
    ),
    "azulay-7: P(top-1 change), crop, residual network minus VGG": above(_CROP, PLAIN_RESNET, PLAIN_VGG),
    "azulay-7: share of neighbouring positions with a crossing, inpainted sweep, likewise": above(
        "jagged.jaggedness_pairs_inpainting", PLAIN_RESNET, PLAIN_VGG
    ),
    "azulay-8: circular shifts with unchanged logits, times s squared": above(fact(_exact_shifts), threshold=0.999),
    "azulay-8: the same, from the other side": below(fact(_exact_shifts), threshold=1.001),
    "azulay-9: accuracy near minus far from the middle, trained on centred objects minus trained on objects anywhere": (
        _more(_NEAR_MINUS_FAR, margin=POINT)
    ),
    "azulay-9: P(top-1 change) by one pixel far from the middle, likewise": _more("photographers_bias.bias_change_far"),
    "azulay-9: agreement with the centred scene far from the middle, likewise": _less(
        "photographers_bias.bias_agreement_far", margin=POINT
    ),
    "azulay-10: accuracy at size 1.9 (half the width, on black) over that of the whole: distance from a half": below(
        near(level(_HALF, **PLAIN_VGG), 0.5), threshold=1 / 6
    ),
    **{
        f"azulay-11: P(top-1 change) of the readout, circular, last stage minus first behind a subsampling, {name}": (
            above(_FALL, one, margin=FINE)
        )
        for name, one in PLAIN_ONES.items()
    },
}

STUDY = Study(
    "azulay2018",
    "One pixel is enough",
    "Azulay & Weiss, Why do deep convolutional networks generalize so poorly to small image transformations?, 2019",
    plan,
    claims(REGIMES, TESTS),
)
