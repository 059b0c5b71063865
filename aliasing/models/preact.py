"""Residual networks with norm and activation before each convolution: PreAct-ResNet-18 and Wide ResNets."""

from torch import Tensor, nn

from ..errors import UsageError
from .blocks import Classifier, Style, beside, check_width, downsampled, initialise

__all__ = ["PreActBlock", "PreActResNet", "build_preact", "build_wide"]


class PreActBlock(nn.Module):
    """Norm, activation, 3 x 3 convolution, twice; the first convolution downsamples (He et al. 2016, second paper).

    The downsampling layer sits around the first convolution and the norm and activation after it, as placed.

    Args:
        raw: the projection shortcut takes the block's input itself, instead of its norm and activation.
        dropout: probability of dropping a value between the convolutions.
    """

    def __init__(
        self, style: Style, inputs: int, outputs: int, stage: int, stride: int, raw: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), style.convolution(inputs, outputs, site=stride > 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), style.convolution(outputs, outputs)
        self.act = style.act(stage)
        self.dropout = nn.Dropout(dropout)
        self.raw, self.placement, self.shared = raw, style.placement, style.shared
        channels = inputs if style.placement == "pool-then-conv" else outputs
        self.main = style.layer(channels, stride) if stride > 1 else None
        self.side = style.follower(self.main, inputs) if self.main is not None else None
        self.shortcut = (
            style.convolution(inputs, outputs, 1, site=stride > 1) if stride > 1 or inputs != outputs else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Both branches, added."""
        h = self.act(self.bn1(x))
        side = x if self.raw or self.shortcut is None else h
        h, choice = downsampled(h, self.conv1, self.bn2, self.act, self.main, self.placement)
        side = beside(side, self.side, choice, self.shared)
        if self.shortcut is not None:
            side = self.shortcut(side)
        return self.conv2(self.dropout(h)) + side


class PreActResNet(Classifier):
    """Convolution, stages of pre-activation blocks, norm, activation: ``(N, 3, H, W) -> (N, classes)``."""

    head_name = "linear"

    def __init__(
        self,
        style: Style,
        num_classes: int,
        stem: int,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        raw: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = style.convolution(3, stem)
        stages = []
        inputs = stem
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(PreActBlock(style, inputs, width, stage, stride, raw, dropout))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(inputs)
        self.act = style.act(len(widths))
        self.linear = nn.Linear(inputs, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        """Stem, stages, norm and activation."""
        return self.act(self.bn(self.stages(self.conv1(x))))


def build_preact(name: str, num_classes: int, style: Style, width: int | None) -> PreActResNet:
    """PreAct-ResNet-18 for 32 x 32 images, shortcuts from the raw input as in the code Grabinski et al. train."""
    width = check_width(width, 64)
    return PreActResNet(style, num_classes, width, (2, 2, 2, 2), (width, 2 * width, 4 * width, 8 * width), raw=True)


def build_wide(
    name: str,
    num_classes: int,
    style: Style,
    width: int | None,
    depth: int = 28,
    widen: int = 10,
    dropout: float = 0.0,
) -> PreActResNet:
    """Wide ResNet of ``depth`` 6 k + 4 (Zagoruyko & Komodakis 2016); ``width`` is that of the stem, 16."""
    if depth < 10 or (depth - 4) % 6 or widen < 1:
        raise UsageError(f"depth must be 10, 16, 22, 28, ... and widen at least 1, got {depth!r} and {widen!r}")
    width = check_width(width, 16)
    widths = tuple(width * widen * factor for factor in (1, 2, 4))
    if not 0 <= dropout < 1:
        raise UsageError(f"{name}: dropout must be a probability below 1, got {dropout}")
    return PreActResNet(style, num_classes, width, ((depth - 4) // 6,) * 3, widths, raw=False, dropout=dropout)
