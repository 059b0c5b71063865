"""MobileNet-v2: inverted residuals whose depthwise convolution downsamples (Sandler et al. 2018)."""

from torch import Tensor, nn

from ..errors import UsageError
from .blocks import Classifier, Style, Unit, check_width, initialise

__all__ = ["MobileNetV2", "build"]

# Expansion, channels, blocks, stride of the first block.
PLAN = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1 x 1 expansion, 3 x 3 depthwise convolution (which downsamples), linear 1 x 1; added to the input if it fits."""

    def __init__(self, style: Style, inputs: int, outputs: int, expansion: int, stage: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        units: list[nn.Module] = []
        if expansion != 1:
            units.append(Unit(style, inputs, hidden, size=1, stage=stage, act=_act(style, stage)))
        units.append(Unit(style, hidden, hidden, stage=stage, stride=stride, groups=hidden, act=_act(style, stage)))
        self.units = nn.Sequential(*units)
        self.conv, self.norm = style.convolution(hidden, outputs, 1), nn.BatchNorm2d(outputs)
        self.added = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        h = self.norm(self.conv(self.units(x)))
        return x + h if self.added else h


class MobileNetV2(Classifier):
    """MobileNet-v2: ``(N, 3, H, W) -> (N, classes)``; no dropout before the classifier, as in Zhang's code.

    Args:
        stem_stride: stride of the first convolution, 2 as published or 1 for small images. It stays strided (Zhang's
            code) except with ``pool-then-conv``.
    """

    head_name = "classifier"

    def __init__(self, style: Style, num_classes: int, width: int = 32, stem_stride: int = 2) -> None:
        super().__init__()
        if stem_stride not in (1, 2):
            raise UsageError(f"stem_stride must be 1 or 2, got {stem_stride!r}")
        scaled = [max(1, channels * width // 32) for _, channels, _, _ in PLAN]
        inputs = width
        plain = style.placement != "pool-then-conv"
        layers: list[nn.Module] = [
            Unit(style, 3, inputs, stage=0, stride=stem_stride, plain=plain, act=_act(style, 0)),
        ]
        for stage, ((expansion, _, depth, stride), channels) in enumerate(zip(PLAN, scaled, strict=True), start=1):
            for index in range(depth):
                block_stride = stride if index == 0 else 1
                layers.append(InvertedResidual(style, inputs, channels, expansion, stage, block_stride))
                inputs = channels
        last = 40 * width
        layers.append(Unit(style, inputs, last, size=1, stage=len(PLAN), act=_act(style, len(PLAN))))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(last, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        """All but the classifier."""
        return self.layers(x)


def _act(style: Style, stage: int) -> nn.Module:
    """ReLU6, this network's rectifier, where the style says ReLU."""
    act = style.act(stage)
    return nn.ReLU6(inplace=True) if isinstance(act, nn.ReLU) else act


def build(name: str, num_classes: int, style: Style, width: int | None, stem_stride: int = 2) -> MobileNetV2:
    """Build MobileNet-v2; ``width`` is that of the stem, 32."""
    return MobileNetV2(style, num_classes, check_width(width, 32), stem_stride)
