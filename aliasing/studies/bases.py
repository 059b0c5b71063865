"""What the studies share in each profile: data, two networks, recipe, seeds; so that they share runs as well."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..measurements import Measurement
from ..profiles import PROFILES
from ..records import Run
from ..training import Recipe
from .evidence import Column, level
from .rules import Regime

SAME: dict[str, Any] = {}  # for what a study does not change


@dataclass(frozen=True)
class Base:
    """The common ground of a profile.

    Attributes:
        dataset: for ``datasets.load``.
        vgg: a network with max-pools, for ``models.create``; padded circularly where the data are small.
        resnet: a residual network, likewise.
        recipe: of the networks with max-pools, one for every layer.
        residual: of the residual networks, likewise, and the start of every recipe that a study changes.
        seeds: number of seeds.
        tested: test images of the accuracy.
        count: test images of most measurements.
        attacked: test images under attack; PGD takes most of the time.
        steps: of PGD and of APGD.
        corrupted: test images under the fifteen corruptions.
        severities: of the corruptions.
        sampled: test images at the downsampling sites.
        exact: test images under every circular shift. Where the network is not padded circularly, every shift is a
            forward pass of its own.
        asap: the layer of that name. The published operator leaks least, and the paper speaks of it; the circular
            variant, to which circular shifts are exact, loses most of that.
        by_image: whether records hold the outcome of every test image, so that intervals count images as a sample.
    """

    dataset: dict[str, Any]
    vgg: dict[str, Any]
    resnet: dict[str, Any]
    recipe: Recipe
    residual: Recipe
    seeds: int
    tested: int
    count: int
    exact: int
    attacked: int
    steps: int
    corrupted: int
    sampled: int
    severities: tuple[int, ...]
    asap: str | dict[str, Any]
    by_image: bool

    def network(self, backbone: str, method: str) -> dict[str, Any]:
        """The ``backbone`` ("vgg" or "resnet") with a layer, for ``models.create``.

        The layer follows the dense max of every pool, or convolution and activation. Exceptions: "average" is the
        two-tap filter without the max before it; the Fourier layers in residual networks come before the convolution,
        where their paper puts them. A method is a layer, perhaps "+ losses", which it is trained with; "as published",
        with the losses, or "as published alone", without; or, in the place of the Fourier layers, "pool-then-conv".
        """
        layer, _, variant = method.partition(" ")
        options: dict[str, Any] = {"downsample": self.asap if layer == "asap" else layer}
        if layer == "average":
            options = {"downsample": "rect-2", "pool": "none"}
        elif variant.startswith("as published"):
            options = {"downsample": {"name": layer, "faithful": True}}
        elif variant == FIRST or (backbone == "resnet" and layer in ("flc", "asap")):
            options["placement"] = FIRST
        return (self.vgg if backbone == "vgg" else self.resnet) | options

    def run(self, backbone: str, method: str, seed: int, network: dict[str, Any] = SAME) -> Run:
        """A network on the profile's data by its recipe; ``network`` has options that count more than the layer's."""
        own = self.recipe if backbone == "vgg" else self.residual
        if method.endswith((" + losses", " as published")):
            own = replace(own, auxiliary=ALPHA)
        return Run(self.dataset, self.network(backbone, method) | network, own, seed)

    def changed(
        self, data: dict[str, Any] = SAME, network: dict[str, Any] = SAME, recipe: dict[str, Any] = SAME, **own: Any
    ) -> "Base":
        """The same ground but for options of the data, of both networks and of both recipes, and attributes."""
        return replace(
            self,
            dataset=self.dataset | data,
            vgg=self.vgg | network,
            resnet=self.resnet | network,
            recipe=replace(self.recipe, **recipe),
            residual=replace(self.residual, **recipe),
            **own,
        )

    def rolls(self) -> list[Measurement]:
        """Every circular shift, and the accuracy."""
        return [self.ask("circular_rolls", count=self.exact), self.ask("accuracy", count=self.tested)]

    def attacks(self, count: int | None = None) -> Measurement:
        """PGD on ``count`` images, by default on those of the profile."""
        return self.ask("attacks", count=count or self.attacked, steps=self.steps)

    def corruptions(self) -> Measurement:
        """The fifteen corruptions."""
        return self.ask("corruptions", count=self.corrupted, severities=self.severities)

    def ask(self, name: str, **options: Any) -> Measurement:
        """One of the measurements that can keep outcomes by image, which it does where the profile wants them."""
        return Measurement(name, options | ({"per_image": True} if self.by_image else {}))


PROTOCOLS = ("crop", "black", "inpainting", "scale")  # the four one-pixel protocols of Azulay & Weiss
FIRST = "pool-then-conv"  # the placement of Grabinski et al.
ALPHA = 0.35  # weight of TIPS's undo loss in its authors' code

# Options of shapes: objects in the middle and no sensor noise, which a small network learns in a few hundred steps.
EASY: dict[str, Any] = {"position_sigma": 0.0, "noise": 0.0}
# The generator of shapes was designed on the pictures of seed 0; the studies use others.
_SHAPES = {"name": "shapes", "seed": 1}
_TEN = {"num_classes": 10, "padding_mode": "circular"}
_VGG = {"name": "vgg-small"} | _TEN
_RESNET = {"name": "resnet-small"} | _TEN
_VGG16, _RESNET50 = ({"name": name, "num_classes": 1000} for name in ("vgg16-bn", "resnet50"))

# The two recipes of photographs, for VGGs and for residual networks. Chosen on validation pictures with the plain
# VGG13-bn of a quarter of the width, five epochs: of 250 images a step at rates of .1 and .05 (momentum .7 and .9) and
# 500 at .2, the first; without random shifts, which augmented networks have. A ResNet-18 of a quarter of the width ends
# at 84.7 % of them after 13 epochs; half of the width was not tried there, its six epochs are what time there is.
DECISIVE = Recipe(
    epochs=13,
    batch_size=250,
    precision="bfloat16",
    optimizer="muon",
    lr=0.1,
    rest_lr=0.1,
    momentum=0.7,
    warmup=0.1,
    flip=True,
)
OTHER = replace(DECISIVE, epochs=6)
_TOY, _SMALL = Recipe(epochs=2, batch_size=64), Recipe(epochs=4, batch_size=32)
_LONG = replace(DECISIVE, epochs=16, batch_size=500, lr=0.2)  # never run yet: no GPU was there
_LARGE = Recipe(epochs=90, batch_size=256, lr=0.1, weight_decay=1e-4, schedule="steps", warmup=0.0, flip=True)
_PUBLISHED = {"name": "asap", "faithful": True}
_CIFAR: dict[str, Any] = {"name": "cifar10"}
_FOLDER: dict[str, Any] = {"name": "folder", "size": 224, "crop": "random-resized"}
_VGG13: dict[str, Any] = {"name": "vgg13-bn"} | _TEN
_RESNET18: dict[str, Any] = {"name": "resnet18", "stem": "cifar"} | _TEN
_THREE, _FIVE = (1, 3, 5), (1, 2, 3, 4, 5)
_TABLE: dict[str, tuple] = {  # smoke, laptop, desktop (half of the published widths), gpu, cluster
    "dataset": (_SHAPES | {"count": 128}, _SHAPES | {"count": 4000}, _CIFAR, _CIFAR, _FOLDER),
    "vgg": (_VGG | {"width": 4}, _VGG | {"width": 8}, _VGG13 | {"width": 32}, _VGG13, _VGG16),
    "resnet": (_RESNET | {"width": 4}, _RESNET | {"width": 8}, _RESNET18 | {"width": 32}, _RESNET18, _RESNET50),
    "recipe": (_TOY, _SMALL, DECISIVE, _LONG, _LARGE),
    "residual": (_TOY, _SMALL, OTHER, replace(_LONG, epochs=10), _LARGE),  # a step takes three times as long
    "seeds": (2, 3, 5, 5, 1),
    "tested": (32, 500, 10_000, 10_000, 50_000),
    "count": (32, 500, 2000, 10_000, 50_000),
    "exact": (32, 250, 1000, 2000, 50),
    "attacked": (8, 48, 500, 1000, 1000),
    "steps": (2, 10, 10, 20, 40),
    "corrupted": (8, 48, 1000, 2000, 1000),
    "severities": ((3,), _THREE, _THREE, _FIVE, _FIVE),
    "sampled": (16, 256, 500, 1000, 1000),
    "asap": ("asap", "asap", _PUBLISHED, _PUBLISHED, _PUBLISHED),
    "by_image": (False, False, True, True, False),
}
BASES = {
    profile: Base(**dict(zip(_TABLE, own, strict=True)))
    for profile, own in zip(PROFILES, zip(*_TABLE.values(), strict=True), strict=True)
}

# Networks that learn drawn pictures to the end, two minutes of a core each: on ``desktop`` for claims that need more
# training, or more networks, than there is time for on photographs.
DRAWN = BASES | {
    "desktop": BASES["laptop"].changed(
        data=EASY | {"count": 8000},
        network={"width": 8},
        recipe={"epochs": 12, "batch_size": 64},
        seeds=BASES["desktop"].seeds,
        tested=4000,
        count=2000,
        attacked=500,
        corrupted=1000,
        sampled=500,
        by_image=True,
    )
}


# Accuracy of the plain network from which on claims about trained networks are tested at all; and from which on
# accuracies, errors and robustness are compared: before the end of training they tell which layer learns faster. Drawn
# pictures can be learned almost without an error, but ``laptop`` has no time for it. ``smoke`` trains next to nothing.
TRAINED = {"smoke": 0.0, "laptop": 0.75, "desktop": 0.85, "gpu": 0.9, "cluster": 0.65}
FINISHED = TRAINED | {"laptop": 0.95}
# Of the networks of ``DRAWN``, as much is asked on ``desktop`` as on ``laptop``.
DRAWN_TRAINED, DRAWN_FINISHED = (least | {"desktop": least["laptop"]} for least in (TRAINED, FINISHED))


def trained(name: str, column: Column = "accuracy.accuracy", least: Any = TRAINED, **control: Any) -> Regime:
    """The control network, called ``name``, has learned its task."""
    return Regime(f"accuracy of {name}", level(column, **control), least)


# The control network is at the end of its training as far as accuracy goes.
finished = partial(trained, least=FINISHED)


def between(label: str, column: Column, **control: Any) -> Regime:
    """The control is troubled but not destroyed: between a tenth and nine tenths."""
    return Regime(label, level(column, **control), 0.1, 0.9)
