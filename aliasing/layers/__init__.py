"""The downsampling layers of the five papers, by name: ``create("bin-5", channels=64)``.

What ``channels``, ``stride``, ``padding_mode`` and ``dims`` mean for all of them stands at ``Downsample``.

Every file begins with the published definition of its layers in plain tensor operations, ``blur_definition`` and so on:
what tests compare with, what benchmarks time, and what a layer computes where its fast form cannot serve, such as under
a compiler, an exporter or ``vmap``, for second derivatives, and on devices that were not measured.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch

from ..errors import UsageError, check_whole, one_of
from ..inference import evaluating
from ..options import arguments, check_options, defaults, filled
from ._matrices import definitions
from .adaptive import DDAC, TIPS, ddac_definition, regularisers, tips_definition
from .base import Call, Downsample, PaddingMode, Stride, intercepted, outermost, recorded
from .blur import TAPS, Blur, Max, blur_definition
from .fourier import ASAP, FLC, asap_definition, flc_definition
from .maximum import DenseMax
from .polyphase import APS, LPS, aps_definition, lps_definition
from .upsample import Upsample, upsample_definition

__all__ = ["APS", "ASAP", "CATALOGUE", "DDAC", "FLC", "LPS", "TIPS", "Blur", "Call", "DenseMax", "Downsample",
           "Entry", "Max", "PaddingMode", "Upsample", "aps_definition", "asap_definition", "blur_definition",
           "create", "ddac_definition", "definitions", "flc_definition", "intercepted", "lps_definition", "outermost",
           "recorded", "regularisers", "resolved", "tips_definition", "upsample_definition"]  # fmt: skip


class Entry(NamedTuple):
    """What the registry knows about a name."""

    layer: type[Downsample]  # its constructor takes ``channels, stride, padding_mode``, then options by keyword
    description: str  # one line, for lists and tables
    source: str  # the paper or the convention the layer comes from
    parameters: bool = False  # whether it learns anything by default
    preset: Mapping[str, object] = MappingProxyType({})  # options that the name fixes

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides the layer is defined for, each axis having its own."""
        return self.layer.valid_strides

    @property
    def dims(self) -> tuple[int, ...]:
        """The numbers of spatial axes it is defined for."""
        return self.layer.valid_dims

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options ``create`` accepts for this layer."""
        fixed = {"channels", "stride", "padding_mode", "dims", *self.preset}
        return tuple(name for name in arguments(self.layer) if name not in fixed)


_KINDS = {"rect": "box", "tri": "triangle", "bin": "binomial"}

CATALOGUE: dict[str, Entry] = {
    "subsample": Entry(
        Blur, "every stride-th pixel, nothing removed: the strided baseline", "baseline", preset={"taps": 1}
    ),
    "max": Entry(Max, "maximum of each stride x stride window: ordinary max pooling", "baseline"),
    **{
        name: Entry(
            Blur,
            f"{_KINDS[name[:-2]]} filter of {taps} taps, then subsampling",
            "Zhang 2019",
            preset={"taps": taps},
        )
        for name, taps in TAPS.items()
    },
    "flc": Entry(FLC, "keeps the central 1/stride of the spectrum", "Grabinski et al. 2022, FLC pooling"),
    "asap": Entry(ASAP, "FLC pooling under a Hamming window of the spectrum", "Grabinski et al. 2023, ASAP"),
    "aps": Entry(APS, "keeps the polyphase component of largest norm", "Chaman and Dokmanic 2021, APS"),
    "lps": Entry(
        LPS,
        "keeps the polyphase component that a small network scores highest",
        "Rojas-Gomez et al. 2022, LPS",
        parameters=True,
    ),
    "tips": Entry(
        TIPS,
        "mixes the polyphase components with learned weights per channel",
        "Saha and Gokhale 2025, TIPS",
        parameters=True,
    ),
    "ddac": Entry(
        DDAC,
        "filters every place with weights predicted from the map",
        "Zou et al. 2020, content-adaptive filters",
        parameters=True,
    ),
}


def _entry(name: str) -> Entry:
    return CATALOGUE[one_of("downsampling layer", name, CATALOGUE)]


def resolved(name: str, **options: object) -> dict[str, object]:
    """``name`` and all options that ``create`` takes for it, those not given at their defaults."""
    entry = _entry(name)
    given = defaults(entry.layer)
    return {"name": name} | filled({option: given[option] for option in entry.options if option in given}, options)


def create(
    name: str,
    channels: int,
    stride: Stride = 2,
    padding_mode: PaddingMode = "reflect",
    *,
    dims: int = 2,
    **options: object,
) -> Downsample:
    """Create the downsampling layer ``name`` for maps of ``channels`` channels.

    Args:
        name: of ``CATALOGUE``, which takes an ``Entry`` more for a layer of your own.
        channels: C of the maps it will see.
        stride: subsampling factor, of all axes or one per axis; ``CATALOGUE[name].strides`` lists what is defined.
        padding_mode: what lies beyond the border: ``"reflect"`` (the edge pixel is not repeated), ``"circular"``,
            ``"zeros"`` or ``"replicate"``. Layers without a border, such as ``"flc"``, do not read it.
        dims: number of spatial axes; ``CATALOGUE[name].dims`` lists what is defined.
        options: options of the layer, ``CATALOGUE[name].options``.

    Raises:
        UsageError: unknown name, padding mode or option, or a stride or number of axes the layer does not define; or a
            layer of your own that does not subsample.
    """
    entry = _entry(name)
    channels = check_whole(f"{name}: channels", channels, 1)
    check_options(name, entry.layer, entry.options, options)
    axes = {} if dims == 2 else {"dims": dims}  # a layer of your own need not take it
    kind: Callable[..., Downsample] = entry.layer
    layer = kind(channels, stride=stride, padding_mode=padding_mode, **axes, **entry.preset, **options)
    if not entry.layer.__module__.startswith(f"{__name__}."):  # tests do this for those of this package
        _try(name, layer, channels)
    return layer


def _try(name: str, layer: Downsample, channels: int) -> None:
    """Refuse a layer of your own that does not subsample: a network that ends in an average would not notice."""
    sides = [8 * stride for stride in layer.strides]
    with evaluating(layer), torch.no_grad():
        found = tuple(layer(torch.zeros(1, channels, *sides)).shape)
    given, expected = (1, channels, *sides), (1, channels, *[8] * layer.dims)
    if found != expected:
        raise UsageError(f"{name}: {given} must become {expected} at stride {layer.stride}, got {found}")
