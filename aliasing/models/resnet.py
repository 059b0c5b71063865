"""Residual networks whose two branches downsample with the same layer, on the same grid."""

from collections.abc import Collection

from torch import Tensor, nn

from ..errors import UsageError, unknown
from ..layers.base import Downsample
from .blocks import Classifier, Pool, Style, beside, check_choice, check_width, downsampled, initialise, is_plain

__all__ = ["PLANS", "POSITIONS", "Basic", "Bottleneck", "ResNet", "build"]

POSITIONS = ("stem", "pool", "conv", "skip")


class Block(nn.Module):
    """A residual block: ``main`` downsamples its branch, ``side`` the shortcut; the shortcut follows main's choice.

    On the shortcut the layer comes before the 1 x 1 convolution. For linear layers the order makes no difference
    (both are stride-1 filters on different axes), and this one is four times cheaper.
    """

    expansion = 1
    last_norm = "bn2"
    width: int
    placement: str
    shared: bool
    main: Downsample | None
    side: Downsample | None

    def _sample(self, style: Style, inputs: int, main: int, stride: int, positions: Collection[str]) -> None:
        """Set up the downsampling layers (``main`` channels on the main branch) and the projection shortcut."""
        self.placement, self.shared = style.placement, style.shared
        outputs = self.width * self.expansion
        self.main = style.layer(main, stride, plain="conv" not in positions) if stride > 1 else None
        self.side = style.follower(self.main, inputs, plain="skip" not in positions) if self.main is not None else None
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                style.convolution(inputs, outputs, 1, site=stride > 1), nn.BatchNorm2d(outputs)
            )

    def shortcut(self, x: Tensor, choice: Tensor | None) -> Tensor:
        """The other branch."""
        x = beside(x, self.side, choice, self.shared)
        return x if self.downsample is None else self.downsample(x)


class Basic(Block):
    """Two 3 x 3 convolutions; the first one downsamples (He et al. 2016)."""

    def __init__(
        self, style: Style, inputs: int, width: int, stage: int, stride: int, positions: Collection[str] = POSITIONS
    ) -> None:
        super().__init__()
        self.width = width
        self.conv1, self.bn1 = style.convolution(inputs, width, site=stride > 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = style.convolution(width, width), nn.BatchNorm2d(width)
        self.relu = style.act(stage)
        self._sample(style, inputs, inputs if style.placement == "pool-then-conv" else width, stride, positions)

    def forward(self, x: Tensor) -> Tensor:
        """Both branches, added and activated."""
        h, choice = downsampled(x, self.conv1, self.bn1, self.relu, self.main, self.placement)
        return self.relu(self.bn2(self.conv2(h)) + self.shortcut(x, choice))


class Bottleneck(Block):
    """1 x 1, 3 x 3, 1 x 1 convolutions; the middle one downsamples (the "v1.5" of torchvision)."""

    expansion = 4
    last_norm = "bn3"

    def __init__(
        self, style: Style, inputs: int, width: int, stage: int, stride: int, positions: Collection[str] = POSITIONS
    ) -> None:
        super().__init__()
        self.width = width
        self.conv1, self.bn1 = style.convolution(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = style.convolution(width, width, site=stride > 1), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = style.convolution(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.relu = style.act(stage)
        self._sample(style, inputs, width, stride, positions)

    def forward(self, x: Tensor) -> Tensor:
        """Both branches, added and activated."""
        h = self.relu(self.bn1(self.conv1(x)))
        h, choice = downsampled(h, self.conv2, self.bn2, self.relu, self.main, self.placement)
        return self.relu(self.bn3(self.conv3(h)) + self.shortcut(x, choice))


# Block, blocks per stage, widths relative to the first stage, strides of the stages, stem, width of the first stage.
PLANS: dict[str, tuple[type[Block], tuple[int, ...], tuple[int, ...], tuple[int, ...], str, int]] = {
    "resnet18": (Basic, (2, 2, 2, 2), (1, 2, 4, 8), (1, 2, 2, 2), "imagenet", 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), (1, 2, 4, 8), (1, 2, 2, 2), "imagenet", 64),
    "resnet-small": (Basic, (1, 1, 1), (1, 2, 4), (2, 2, 2), "cifar", 16),
}


class ResNet(Classifier):
    """Residual network: ``(N, 3, H, W) -> (N, classes)``, any H, W >= 1. Keys are those of torchvision's ResNet.

    With polyphase layers (``aps``, ``lps``), circular padding, ``positions`` that include every strided place, and H, W
    divisible by the total stride, the logits are exactly invariant to circular shifts.

    Args:
        stem: ``imagenet``: 7 x 7 convolution of stride 2 and a 3 x 3 max-pool; ``cifar``: 3 x 3 convolution, no pool.
        stem_stride: stride of the stem's convolution, 2 for ``imagenet`` and 1 for ``cifar`` unless given.
        positions: where the downsampling layer goes, of ``stem`` (its convolution), ``pool``, ``conv`` (the strided
            convolutions of main branches), ``skip``; the others subsample. Unless given: all but the stem, whose
            large kernel Zhang and Vasconcelos et al. leave strided; all with ``pool-then-conv``, as Grabinski et al.
        zero_init_residual: start the last batch norm of each block at 0.
    """

    head_name = "fc"

    def __init__(
        self,
        style: Style,
        num_classes: int,
        block: type[Block],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        stem: str = "imagenet",
        stem_stride: int | None = None,
        positions: Collection[str] | None = None,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        large = check_choice("stem", stem, ("imagenet", "cifar")) == "imagenet"
        stride = stem_stride if stem_stride is not None else 2 if large else 1
        if stride not in (1, 2):
            raise UsageError(f"stem_stride must be 1 or 2, got {stem_stride!r}")
        first = style.placement == "pool-then-conv"
        if positions is None:
            positions = POSITIONS if first or not large else POSITIONS[1:]
        for position in positions:
            if position not in POSITIONS:
                raise unknown("position", position, POSITIONS)
        inputs = widths[0]
        self.placement = style.placement
        self.conv1 = style.convolution(3, inputs, 7 if large else 3, site=stride > 1)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = style.act(0)
        self.down = style.layer(3 if first else inputs, stride, "stem" not in positions) if stride > 1 else None
        self.maxpool: nn.Module = nn.Identity()
        if large:
            layer = style.layer(inputs, plain="pool" not in positions)
            keep = is_plain(layer) or not (first or style.downsample == "max")
            self.maxpool = Pool(layer, 3 if keep else 0, style.padding_mode)
        stages = []
        for stage, (depth, width, stride) in enumerate(zip(depths, widths, strides, strict=True), start=1):
            blocks = []
            for index in range(depth):
                blocks.append(block(style, inputs, width, stage, stride if index == 0 else 1, positions))
                inputs = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        for stage, blocks_of_stage in enumerate(stages, start=1):
            self.add_module(f"layer{stage}", blocks_of_stage)
        self.depth = len(stages)
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, Block):
                    nn.init.zeros_(getattr(module, module.last_norm).weight)

    def maps(self, x: Tensor) -> Tensor:
        """Stem and stages."""
        x, _ = downsampled(x, self.conv1, self.bn1, self.relu, self.down, self.placement)
        x = self.maxpool(x)
        for stage in range(1, self.depth + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x


def build(
    name: str,
    num_classes: int,
    style: Style,
    width: int | None,
    stem: str | None = None,
    stem_stride: int | None = None,
    positions: Collection[str] | None = None,
    zero_init_residual: bool = False,
) -> ResNet:
    """Build one of ``PLANS``; ``width`` is the number of channels of the first stage."""
    block, depths, widths, strides, own_stem, own_width = PLANS[name]
    width = check_width(width, own_width)
    return ResNet(
        style,
        num_classes,
        block,
        depths,
        tuple(width * factor for factor in widths),
        strides,
        own_stem if stem is None else stem,
        stem_stride,
        positions,
        zero_init_residual,
    )
