"""A small U-Net whose downsampling is an argument, and whose upsampling undoes it (Ronneberger et al. 2015)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_whole
from ..layers import DenseMax
from ..layers._phases import pad_axes, spread
from .blocks import Style, Unit, initialise


class UNet(nn.Module):
    """Encoder, decoder, and connections between levels of one size: ``(N, 3, H, W) -> (N, classes, H, W)``.

    Each downsampling is a dense max and the layer. The decoder puts the samples of a polyphase layer back where they
    came from, with zeros between (Rojas-Gomez et al. 2022); other maps are enlarged bilinearly. Circularly padded and
    with a polyphase layer the network is exactly equivariant: the masks move with the image, pixel by pixel, where
    H and W are multiples of ``2 ** levels``.

    Args:
        width: channels of the first level, 16 unless given; they double from level to level.
        levels: number of downsamplings.
        pool: what comes before the layer, as in the VGG networks.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        style: Style,
        width: int | None,
        levels: int = 3,
        pool: Literal["max", "none"] | None = None,
    ) -> None:
        super().__init__()
        check_whole(f"{name}: levels", levels, 1)
        width = width or 16
        pool = pool or style.pool
        self.circular = style.padding_mode == "circular"
        widths = [width * 2**level for level in range(levels + 1)]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.max, self.down, self.reduce = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = 3
        for level, channels in enumerate(widths):
            self.encoder.append(_two(style, inputs, channels, level + 1))
            inputs = channels
            if level < levels:
                self.max.append(DenseMax(2, style.padding_mode) if pool == "max" else nn.Identity())
                self.down.append(style.layer(channels))
                self.reduce.append(style.convolution(2 * channels, channels))
                self.decoder.append(_two(style, 2 * channels, channels, level + 1))
        self.classifier = style.convolution(width, num_classes, 1, bias=True, site=True)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        passed = []
        for encode, dense_max, down in zip(self.encoder[:-1], self.max, self.down, strict=True):
            x = encode(x)
            h = dense_max(x)
            choice = down.choose(h)  # type: ignore[operator]
            passed.append((x, choice))
            x = down.sample(h, choice)  # type: ignore[operator]
        x = self.encoder[-1](x)
        for level in reversed(range(len(self.down))):
            skip, choice = passed[level]
            x = self.decoder[level](torch.cat([self.reduce[level](self._enlarge(x, skip, choice)), skip], 1))
        return self.classifier(x)

    def _enlarge(self, x: Tensor, like: Tensor, choice: Tensor | None) -> Tensor:
        """Twice the size, cut to that of ``like``."""
        height, width = like.shape[2:]
        if choice is not None:
            return spread(x, choice, 2, (height, width))
        x = pad_axes(x, [(1, 1)] * 2, "circular" if self.circular else "replicate")
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x[:, :, 2 : 2 + height, 2 : 2 + width]


def _two(style: Style, inputs: int, outputs: int, stage: int) -> nn.Sequential:
    return nn.Sequential(Unit(style, inputs, outputs, stage=stage), Unit(style, outputs, outputs, stage=stage))
