"""VGG networks with batch norm, a global average and one linear layer; every max-pool is dense max, then the layer."""

from typing import Literal

from torch import Tensor, nn

from .blocks import Classifier, Pool, Style, Unit, initialise

# Convolutions per stage and channels of each stage.
PLANS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "vgg13-bn": ((2, 2, 2, 2, 2), (64, 128, 256, 512, 512)),
    "vgg16-bn": ((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)),
    "vgg-small": ((1, 1, 1, 1), (16, 32, 48, 64)),
}


class VGG(Classifier):
    """One of ``PLANS``: stages of convolutions, each followed by a halving (Simonyan & Zisserman 2015; Zhang 2019).

    ``(N, 3, H, W) -> (N, classes)``, any H, W >= 1. Padded circularly, the maps after stage k move with the image for
    rolls by multiples of 2^k, where H and W are multiples of 2^k.

    Departs from Zhang's ImageNet code, where the dense max shrinks the map by one pixel: here it keeps the size.

    Args:
        width: channels of the first stage, the others in proportion.
        pool: what comes before the downsampling layer, ``max`` (dense max of 2 x 2) or ``none``. Unless given: none for
            ``pool-then-conv``, which keeps no max, and for the layer ``max``, which brings its own.
        strided: strided convolutions instead of pools: the last convolution of a stage downsamples, no max.
    """

    head_name = "classifier"

    def __init__(
        self,
        name: str,
        num_classes: int,
        style: Style,
        width: int | None,
        pool: Literal["max", "none"] | None = None,
        strided: bool = False,
    ) -> None:
        super().__init__()
        depths, widths = PLANS[name]
        widths = tuple(channels * (width or widths[0]) // widths[0] for channels in widths)
        pool = pool or style.pool
        stages = []
        inputs = 3
        for stage, (depth, channels) in enumerate(zip(depths, widths, strict=True), start=1):
            units: list[nn.Module] = []
            for index in range(depth):
                stride = 2 if strided and index == depth - 1 else 1
                units.append(Unit(style, inputs, channels, stage=stage, stride=stride))
                inputs = channels
            if not strided:
                units.append(Pool(style.layer(channels), 2 if pool == "max" else 0, style.padding_mode))
            stages.append(nn.Sequential(*units))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(inputs, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        """The stages."""
        return self.stages(x)
