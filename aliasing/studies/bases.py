"""What the studies share in each profile: data, two networks, recipe, seeds; so that they share runs as well."""

from dataclasses import dataclass
from typing import Any

from ..evaluation import Measurement
from ..training import Recipe

__all__ = ["BASES", "EASY", "Base"]


@dataclass(frozen=True)
class Base:
    """The common ground of a profile.

    Attributes:
        dataset: for ``datasets.load``.
        vgg: a network with max-pools, for ``models.create``; padded circularly where the data are small.
        resnet: a residual network, likewise.
        recipe: one for every layer.
        seeds: number of seeds.
        count: test images of most measurements.
        exact: test images under every circular shift. Where the network is not padded circularly, every shift is a
            forward pass of its own.
    """

    dataset: dict[str, Any]
    vgg: dict[str, Any]
    resnet: dict[str, Any]
    recipe: Recipe
    seeds: int
    count: int
    exact: int

    def rolls(self) -> list[Measurement]:
        """Every circular shift, and the accuracy on ``count`` images where that is on fewer."""
        wanted = [Measurement("circular_rolls", {"count": self.exact})]
        if self.exact < self.count:
            wanted.append(Measurement("accuracy", {"count": self.count}))
        return wanted


# Options of shapes: objects in the middle and no sensor noise, which a small network learns in a few hundred steps.
EASY: dict[str, Any] = {"position_sigma": 0.0, "noise": 0.0}
# The generator of shapes was designed on the pictures of seed 0; the studies use others.
_SHAPES = {"name": "shapes", "seed": 1}
_TEN = {"num_classes": 10, "padding_mode": "circular"}
_VGG = {"name": "vgg-small"} | _TEN
_RESNET = {"name": "resnet-small"} | _TEN
_IMAGENET = {"name": "resnet50", "num_classes": 1000}

BASES = {
    "smoke": Base(
        dataset=_SHAPES | {"count": 256},
        vgg=_VGG | {"width": 4},
        resnet=_RESNET | {"width": 4},
        recipe=Recipe(epochs=2, batch_size=64),
        seeds=2,
        count=32,
        exact=32,
    ),
    "laptop": Base(
        dataset=_SHAPES | {"count": 4000},
        vgg=_VGG | {"width": 8},
        resnet=_RESNET | {"width": 8},
        recipe=Recipe(epochs=4, batch_size=32),
        seeds=3,
        count=500,
        exact=250,
    ),
    "desktop": Base(
        dataset={"name": "cifar10"},
        vgg=_VGG,
        resnet=_RESNET,
        recipe=Recipe(epochs=3, batch_size=64, flip=True),
        seeds=3,
        count=1000,
        exact=1000,
    ),
    "gpu": Base(
        dataset={"name": "cifar10"},
        vgg={"name": "vgg13-bn"} | _TEN,
        resnet={"name": "resnet18", "stem": "cifar"} | _TEN,
        recipe=Recipe(epochs=40, batch_size=256, lr=0.1, flip=True),
        seeds=3,
        count=10_000,
        exact=10_000,
    ),
    "cluster": Base(
        dataset={"name": "folder", "size": 224, "crop": "random-resized"},
        vgg={"name": "vgg16-bn", "num_classes": 1000},
        resnet=_IMAGENET,
        recipe=Recipe(epochs=90, batch_size=256, lr=0.1, weight_decay=1e-4, schedule="steps", warmup=0.0, flip=True),
        seeds=1,
        count=50_000,
        exact=50,
    ),
}
