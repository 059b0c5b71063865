"""Densely connected networks; average pools between the blocks are downsampling layers (Huang et al. 2017)."""

import torch
from torch import Tensor, nn

from .blocks import Classifier, Pool, Style, Unit, check_width, initialise

__all__ = ["PLANS", "DenseNet", "build"]

# Layers per block, growth rate, whether layers have 1 x 1 bottlenecks and transitions halve the channels, stem.
PLANS: dict[str, tuple[tuple[int, ...], int, bool, str]] = {
    "densenet-40-12": ((12, 12, 12), 12, False, "cifar"),
    "densenet121": ((6, 12, 24, 16), 32, True, "imagenet"),
}


class DenseLayer(nn.Module):
    """Norm, activation, convolution; the ``growth`` new channels are appended to the input."""

    def __init__(self, style: Style, inputs: int, growth: int, bottleneck: bool, stage: int) -> None:
        super().__init__()
        self.norm1, self.act = nn.BatchNorm2d(inputs), style.act(stage)
        self.reduce = Unit(style, inputs, 4 * growth, size=1, stage=stage) if bottleneck else None
        self.conv = style.convolution(4 * growth if bottleneck else inputs, growth)

    def forward(self, x: Tensor) -> Tensor:
        """The input with ``growth`` more channels."""
        h = self.act(self.norm1(x))
        if self.reduce is not None:
            h = self.reduce(h)
        return torch.cat([x, self.conv(h)], 1)


class Transition(nn.Module):
    """Norm, activation, 1 x 1 convolution, downsampling; ``pool-then-conv`` downsamples before the convolution.

    Published with an average pool of 2 x 2, which is the layer ``rect-2``.
    """

    def __init__(self, style: Style, inputs: int, outputs: int, stage: int) -> None:
        super().__init__()
        self.norm, self.act = nn.BatchNorm2d(inputs), style.act(stage)
        self.conv = style.convolution(inputs, outputs, 1, site=True)
        self.first = style.placement == "pool-then-conv"
        self.down = style.layer(inputs if self.first else outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Half the size."""
        h = self.act(self.norm(x))
        return self.conv(self.down(h)) if self.first else self.down(self.conv(h))


class DenseNet(Classifier):
    """Dense blocks and transitions: ``(N, 3, H, W) -> (N, classes)``.

    The published networks average-pool between blocks, which is ``downsample="rect-2"``; ``subsample`` drops pixels.
    In the ``imagenet`` stem the 7 x 7 convolution stays strided, as in Zhang's code, except with ``pool-then-conv``.
    """

    head_name = "classifier"

    def __init__(
        self,
        style: Style,
        num_classes: int,
        depths: tuple[int, ...],
        growth: int,
        compress: bool,
        stem: str,
    ) -> None:
        super().__init__()
        inputs = 2 * growth if compress else 16
        self.stem: nn.Module
        if stem == "imagenet":
            first = style.placement == "pool-then-conv"
            unit = Unit(style, 3, inputs, 7, stage=0, stride=2, plain=not first)
            window = 0 if style.downsample == "max" or (first and style.downsample != "subsample") else 3
            self.stem = nn.Sequential(unit, Pool(style.layer(inputs), window, style.padding_mode))
        else:
            self.stem = style.convolution(3, inputs)
        blocks: list[nn.Module] = []
        for stage, depth in enumerate(depths, start=1):
            for _ in range(depth):
                blocks.append(DenseLayer(style, inputs, growth, compress, stage))
                inputs += growth
            if stage < len(depths):
                outputs = inputs // 2 if compress else inputs
                blocks.append(Transition(style, inputs, outputs, stage))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.act = nn.BatchNorm2d(inputs), style.act(len(depths))
        self.classifier = nn.Linear(inputs, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        """Stem, blocks, norm and activation."""
        return self.act(self.norm(self.blocks(self.stem(x))))


def build(name: str, num_classes: int, style: Style, width: int | None) -> DenseNet:
    """Build one of ``PLANS``; ``width`` is the growth rate."""
    depths, growth, compress, stem = PLANS[name]
    return DenseNet(style, num_classes, depths, check_width(width, growth), compress, stem)
