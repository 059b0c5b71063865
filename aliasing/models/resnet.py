"""Residual networks whose two branches downsample with the same layer, on the same grid."""

from collections.abc import Collection
from typing import Literal

from torch import Tensor, nn

from ..errors import UsageError, one_of
from .blocks import Classifier, Pool, Style, downsampled, initialise, is_plain

POSITIONS = ("stem", "pool", "conv", "skip")


class Block(nn.Module):
    """A residual block: ``main`` downsamples its branch, ``side`` the shortcut; the shortcut follows main's choice.

    Two 3 x 3 convolutions, of which the first downsamples (He et al. 2016); with ``bottleneck`` 1 x 1, 3 x 3 and 1 x 1,
    of which the middle one does, and four times the width at the end (the "v1.5" of torchvision).

    On the shortcut the layer comes before the 1 x 1 convolution. For linear layers the order makes no difference
    (both are stride-1 filters on different axes), and this one is four times cheaper.
    """

    def __init__(
        self,
        style: Style,
        inputs: int,
        width: int,
        stage: int,
        stride: int,
        bottleneck: bool = False,
        positions: Collection[str] = POSITIONS,
    ) -> None:
        super().__init__()
        self.placement, self.shared = style.placement, style.shared
        sizes, outputs = ((1, 3, 1), 4 * width) if bottleneck else ((3, 3), width)
        self.depth, self.strided = len(sizes), len(sizes) - 1  # the last convolution, and the one that downsamples
        channels = [inputs, *[width] * (len(sizes) - 1), outputs]
        for i, size in enumerate(sizes, start=1):
            site = stride > 1 and i == self.strided
            self.add_module(f"conv{i}", style.convolution(channels[i - 1], channels[i], size, site=site))
            self.add_module(f"bn{i}", nn.BatchNorm2d(channels[i]))
        self.relu = style.act(stage)
        self.main = self.side = self.downsample = None
        if stride > 1:
            seen = channels[self.strided - (style.placement == "pool-then-conv")]
            self.main = style.layer(seen, stride, plain="conv" not in positions)
            self.side = style.follower(self.main, inputs, plain="skip" not in positions)
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                style.convolution(inputs, outputs, 1, site=stride > 1), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Both branches, added and activated."""
        h, choice = x, None
        for i in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            if i == self.strided:
                h, choice = downsampled(h, conv, norm, self.relu, self.main, self.placement)
            else:
                h = norm(conv(h)) if i == self.depth else self.relu(norm(conv(h)))
        if self.side is not None:  # on the grid of the main branch, where it is shared
            follows = choice is not None and self.shared and not is_plain(self.side)
            x = self.side.sample(x, choice) if follows else self.side(x)
        return self.relu(h + (x if self.downsample is None else self.downsample(x)))


# Bottlenecks, blocks per stage, strides of the stages, stem, width of the first stage; it doubles from stage to stage.
PLANS: dict[str, tuple[bool, tuple[int, ...], tuple[int, ...], str, int]] = {
    "resnet18": (False, (2, 2, 2, 2), (1, 2, 2, 2), "imagenet", 64),
    "resnet50": (True, (3, 4, 6, 3), (1, 2, 2, 2), "imagenet", 64),
    "resnet-small": (False, (1, 1, 1), (2, 2, 2), "cifar", 16),
}


class ResNet(Classifier):
    """One of ``PLANS``: ``(N, 3, H, W) -> (N, classes)``, any H, W >= 1. Keys are those of torchvision's ResNet.

    With polyphase layers (``aps``, ``lps``), circular padding, ``positions`` that include every strided place, and H, W
    divisible by the total stride, the logits are exactly invariant to circular shifts.

    Args:
        width: channels of the first stage.
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
        name: str,
        num_classes: int,
        style: Style,
        width: int | None,
        stem: Literal["imagenet", "cifar"] | None = None,
        stem_stride: int | None = None,
        positions: Collection[str] | None = None,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        bottleneck, depths, strides, own_stem, own_width = PLANS[name]
        inputs = width = width or own_width
        large = (stem or own_stem) == "imagenet"
        stride = stem_stride if stem_stride is not None else 2 if large else 1
        if stride not in (1, 2):
            raise UsageError(f"stem_stride must be 1 or 2, got {stem_stride!r}")
        first = style.placement == "pool-then-conv"
        if positions is None:
            positions = POSITIONS if first or not large else POSITIONS[1:]
        for position in positions:
            one_of("position", position, POSITIONS)
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
        self.depth = len(depths)
        for stage, (depth, stride) in enumerate(zip(depths, strides, strict=True), start=1):
            blocks = []
            for index in range(depth):
                step = stride if index == 0 else 1
                blocks.append(Block(style, inputs, width, stage, step, bottleneck, positions))
                inputs = 4 * width if bottleneck else width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            width *= 2
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, Block):
                    nn.init.zeros_(getattr(module, f"bn{module.depth}").weight)

    def maps(self, x: Tensor) -> Tensor:
        """Stem and stages."""
        x, _ = downsampled(x, self.conv1, self.bn1, self.relu, self.down, self.placement)
        x = self.maxpool(x)
        for stage in range(1, self.depth + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x
