"""What every network is built from: its style, the three placements, and the units that follow them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import layers
from ..errors import one_of
from ..layers import DenseMax
from ..layers._phases import pad_axes
from ..layers.base import Downsample, PaddingMode
from ..layers.polyphase import Polyphase

PLACEMENTS: dict[str, str] = {
    "act-then-pool": "after convolution, norm and activation; max-pools become dense max, layer (Zhang 2019)",
    "conv-then-pool": "after the convolution, before the norm (Vasconcelos et al. 2020, 'BlurAfterConv')",
    "pool-then-conv": "before the convolution, stem included; max-pools become the layer alone (Grabinski et al. 2023)",
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "softplus": nn.Softplus,
}


class Convolution(nn.Conv2d):
    """Convolution that keeps the size: ``(N, C, H, W) -> (N, K, H, W)``, odd kernel, any H, W >= 1.

    Called with a ``stride`` it returns ``conv(x)[..., ::stride, ::stride]`` without computing what would be dropped.
    Parameters and their names are those of ``torch.nn.Conv2d``. A low-pass ``filter`` may follow it.
    """

    filter: nn.Module | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filter = None

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        """Convolve, and keep every stride-th pixel."""
        if self.filter is not None:
            return self.filter(self._convolve(x, 1))[..., ::stride, ::stride]
        return self._convolve(x, stride)

    def _convolve(self, x: Tensor, stride: int) -> Tensor:
        reach = self.dilation[0] * (self.kernel_size[0] - 1) // 2
        if self.padding_mode != "zeros":
            x, reach = pad_axes(x, [(reach, reach)] * 2, self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, stride, reach, self.dilation, self.groups)


def is_plain(layer: nn.Module | None) -> bool:
    """Whether ``layer`` only drops pixels, so that it may be merged with the stride of the operation before it."""
    return isinstance(layer, layers.Blur) and layer.taps == (1.0,) and layer.weight is layer.signs is None


def _merged(layer: Downsample) -> bool:
    """Whether the pixels that ``layer`` drops need not be computed."""
    return is_plain(layer) and (layer.training or not layer.observed)


@dataclass(frozen=True)
class Style:
    """What is common to all the blocks of one network: what ``aliasing.models.create`` says of its arguments.

    ``downsample`` is the layer's name, ``layer_options`` are its further options.
    """

    downsample: str = "subsample"
    layer_options: Mapping[str, Any] = field(default_factory=dict)
    placement: str = "act-then-pool"
    activation: str = "relu"
    smooth: str = "all"
    padding_mode: PaddingMode = "zeros"
    shared: bool = True
    filter_everywhere: bool = False

    def __post_init__(self) -> None:
        for kind, value, choices in (
            ("placement", self.placement, PLACEMENTS),
            ("activation", self.activation, ACTIVATIONS),
            ("value of smooth", self.smooth, ("all", "low")),
            ("padding mode", self.padding_mode, get_args(PaddingMode)),
        ):
            one_of(kind, value, choices)

    def convolution(
        self, inputs: int, outputs: int, size: int = 3, bias: bool = False, site: bool = False
    ) -> Convolution:
        """A convolution of odd ``size`` that keeps H and W; ``site``: no filter of its own, a layer downsamples it."""
        conv = Convolution(inputs, outputs, size, padding=size // 2, bias=bias, padding_mode=self.padding_mode)
        if self.filter_everywhere and not site:
            conv.filter = self.layer(outputs, stride=1)
        return conv

    def layer(self, channels: int, stride: int = 2, plain: bool = False) -> Downsample:
        """A downsampling layer of this style; with ``plain``, subsampling.

        The global random state is left alone, so that one seed gives a network and its twin with another layer the
        same initial convolutions.
        """
        if plain:
            return layers.create("subsample", channels, stride)
        with torch.random.fork_rng(devices=[]):
            return layers.create(self.downsample, channels, stride, **self._options())

    def follower(self, main: Downsample, channels: int, plain: bool = False) -> Downsample:
        """The layer of the branch beside ``main``; where it samples main's choice, it has no means to choose."""
        if self.shared and not plain and isinstance(main, Polyphase):
            options = {key: value for key, value in self._options().items() if key in ("padding_mode", "blur")}
            return Polyphase(channels, main.stride, **options)
        return self.layer(channels, main.stride, plain)

    def _options(self) -> dict[str, Any]:
        mode = "reflect" if self.padding_mode == "zeros" else self.padding_mode
        return {"padding_mode": mode, **self.layer_options}

    @property
    def pool(self) -> Literal["max", "none"]:
        """What comes before the layer of a pool: no maximum where the placement keeps none, or the layer brings it."""
        alone = self.placement == "pool-then-conv" and self.downsample != "subsample"
        return "none" if alone or self.downsample == "max" else "max"

    def act(self, stage: int) -> nn.Module:
        """The activation of a stage; 0 is the stem."""
        smooth = self.smooth == "all" or stage <= 1
        return ACTIVATIONS[self.activation if smooth else "relu"]()


def downsampled(
    x: Tensor, conv: nn.Module, norm: nn.Module, act: nn.Module, layer: Downsample | None, placement: str
) -> tuple[Tensor, Tensor | None]:
    """Convolution, norm and activation with the downsampling layer in its place; also returns the layer's choice.

    Plain subsampling stands for a strided convolution, whatever the placement, and is computed as one: in training
    always, norm statistics included; in evaluation unless the layer is ``observed``: then the dense map is computed
    and then subsampled, the same function.
    """
    if layer is None:
        return act(norm(conv(x))), None
    if _merged(layer):
        return act(norm(conv(x, layer.stride))), None
    if is_plain(layer):
        return layer(act(norm(conv(x)))), None
    if placement == "pool-then-conv":
        choice = layer.choose(x)
        return act(norm(conv(layer.sample(x, choice)))), choice
    h = conv(x)
    if placement == "act-then-pool":
        h = act(norm(h))
    choice = layer.choose(h)
    h = layer.sample(h, choice)
    return (act(norm(h)) if placement == "conv-then-pool" else h), choice


class Pool(nn.Module):
    """Max-pooling taken apart: dense max (``window`` 0: none), then the downsampling layer."""

    def __init__(self, layer: Downsample, window: int, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.max = DenseMax(window, padding_mode) if window else None
        self.down = layer

    def forward(self, x: Tensor) -> Tensor:
        """Dense max, then the layer."""
        if self.max is None:
            return self.down(x)
        if _merged(self.down):
            return self.max(x, self.down.stride)  # the pixels that are kept, without the others
        return self.down(self.max(x))


class Unit(nn.Module):
    """Convolution, batch norm, activation, and a downsampling layer where there is one."""

    def __init__(self, style: Style, inputs: int, outputs: int, stage: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = style.convolution(inputs, outputs, site=stride > 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = style.act(stage)
        self.placement = style.placement
        channels = inputs if style.placement == "pool-then-conv" else outputs
        self.down = style.layer(channels, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolution, norm, activation and layer in the order of the placement."""
        return downsampled(x, self.conv, self.norm, self.act, self.down, self.placement)[0]


class Classifier(nn.Module):
    """A network that ends in a global average and a linear layer: ``(N, 3, H, W) -> (N, classes)``.

    Subclasses define ``maps`` and the attribute ``head_name``.
    """

    head_name = "head"

    def maps(self, x: Tensor) -> Tensor:
        """The last feature maps, ``(N, C, H', W')``."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """The last feature maps averaged over the image, ``(N, C)``."""
        return self.maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return getattr(self, self.head_name)(self.features(x))


def initialise(network: nn.Module) -> None:
    """Kaiming initialisation (normal, fan-out) of the convolutions; downsampling layers initialise themselves."""
    inside = {id(part) for layer in network.modules() if isinstance(layer, Downsample) for part in layer.modules()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and id(module) not in inside:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
