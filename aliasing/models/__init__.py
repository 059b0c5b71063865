"""Networks whose downsampling is an argument.

>>> from aliasing import models
>>> network = models.create("vgg13-bn", 10, downsample="tri-3", padding_mode="circular")
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from .. import layers
from ..errors import UsageError, check_whole, one_of
from ..layers.base import PaddingMode
from ..options import arguments, check_options, check_types, defaults, filled
from .blocks import ACTIVATIONS, PLACEMENTS, Style
from .convert import Report, antialias
from .imagenet import PRETRAINED, pretrained
from .resnet import ResNet
from .segmentation import UNet
from .vgg import VGG
from .wrappers import normalized

__all__ = ["ACTIVATIONS", "CATALOGUE", "PLACEMENTS", "PRETRAINED", "Entry", "Report", "antialias", "create",
           "normalized", "pretrained", "resolved"]  # fmt: skip


class Entry(NamedTuple):
    """A network: what it is, where it comes from, and the class that builds it."""

    description: str
    source: str
    build: Callable[..., nn.Module]


CATALOGUE: dict[str, Entry] = {
    "vgg13-bn": Entry("VGG, 10 convolutions, five pools", "Zhang 2019, CIFAR-10 experiments", VGG),
    "vgg16-bn": Entry("VGG, 13 convolutions, five pools", "Simonyan & Zisserman 2015, configuration D", VGG),
    "vgg-small": Entry("VGG of widths 16-32-48-64, one convolution per stage", "ours, for CPUs", VGG),
    "resnet18": Entry("residual network, 8 basic blocks", "He et al. 2016", ResNet),
    "resnet50": Entry("residual network, 16 bottlenecks, stride at the 3 x 3", "He et al. 2016, v1.5", ResNet),
    "resnet-small": Entry("residual network, 3 strided blocks of widths 16-32-64", "ours, for CPUs", ResNet),
    "unet-small": Entry(
        "U-Net of three levels for segmentation: (N, classes, H, W)", "Ronneberger et al. 2015, smaller", UNet
    ),
}


def resolved(name: str, **options: Any) -> dict[str, Any]:
    """``name`` and all options of ``create``, those not given at their defaults, down to those of the layer."""
    if options.get("pretrained") and name in PRETRAINED:
        return {"name": name, "weights": PRETRAINED[name].sha256} | options
    one_of("model", name, CATALOGUE)
    given = filled(defaults(create, CATALOGUE[name].build), options)
    layer = given["downsample"]
    given["downsample"] = layers.resolved(**({"name": layer} if isinstance(layer, str) else layer))
    return {"name": name} | given


def create(
    name: str,
    num_classes: int,
    downsample: str | Mapping[str, Any] = "subsample",
    placement: str | None = None,
    activation: str = "relu",
    padding_mode: PaddingMode = "zeros",
    width: int | None = None,
    *,
    smooth: str = "all",
    shared: bool = True,
    filter_everywhere: bool = False,
    **options: Any,
) -> nn.Module:
    """Create the network ``name``: ``(N, 3, H, W) -> (N, num_classes)``, any H, W >= 1.

    Every downsampling site is an ``aliasing.layers`` layer; those without parameters leave the keys of the
    ``state_dict`` alone, so that the weights of the plain network load into its anti-aliased twin. ``features(x)``
    gives the pooled features, ``(N, C)``.

    Args:
        name: of ``CATALOGUE``, which takes an ``Entry`` more for a network of your own.
        num_classes: length of the output.
        downsample: name of a downsampling layer, or a mapping with its ``name`` and further options of that layer.
            With ``subsample`` the network is the published one, whatever the placement.
        placement: one of ``PLACEMENTS``; ``act-then-pool`` unless given.
        activation: one of ``ACTIVATIONS``.
        padding_mode: of convolutions and layers: ``circular``, ``reflect`` or ``replicate`` everywhere, or ``zeros``:
            zero-padded convolutions and reflecting layers, as published.
        width: channels of the first stage, the others in proportion; the published number unless given.
        smooth: ``all`` or ``low``: the activation everywhere, or in stem and first stage only with ReLU elsewhere.
            Where Vasconcelos et al. put theirs is not known; the two settings are our choice.
        shared: whether both branches of a residual block sample the grid that the main one chooses.
        filter_everywhere: whether convolutions that do not downsample are followed by the layer at stride 1, the
            over-filtering ablation of Vasconcelos et al. 2020.
        options: of the network: see the classes of this package.

    Raises:
        UsageError: an unknown name or option, or a value that cannot work.
    """
    one_of("model", name, CATALOGUE)
    num_classes = check_whole("num_classes", num_classes, 1)
    width = None if width is None else check_whole("width", width, 1)
    check_types(name, create, {"shared": shared, "filter_everywhere": filter_everywhere})
    layer: Any = {"name": downsample} if isinstance(downsample, str) else downsample
    if not isinstance(layer, Mapping) or "name" not in layer:
        raise UsageError(f"downsample must be a name or a mapping with a name, got {downsample!r}")
    layer = dict(layer)
    entry = layers.CATALOGUE[kind := one_of("downsampling layer", layer.pop("name"), layers.CATALOGUE)]
    check_options(kind, entry.layer, (*entry.options, "padding_mode"), layer)
    build = CATALOGUE[name].build
    own = [key for key in arguments(build) if key not in ("name", "num_classes", "style", "width")]
    check_options(name, build, [*own, "smooth", "shared", "filter_everywhere"], options)  # the last are arguments here
    order = "act-then-pool" if placement is None else placement
    style = Style(kind, layer, order, activation, smooth, padding_mode, shared, filter_everywhere)
    return build(name, num_classes, style, width, **options)
