"""Convolution that keeps the size of the map, whatever the padding and however small the map."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers._phases import pad

__all__ = ["Convolution"]


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
        if self.padding_mode == "zeros":
            return F.conv2d(x, self.weight, self.bias, stride, reach, self.dilation, self.groups)
        x = pad(x, reach, reach, reach, reach, self.padding_mode)
        return F.conv2d(x, self.weight, self.bias, stride, 0, self.dilation, self.groups)
