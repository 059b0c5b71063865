"""What every downsampling layer is: one class, three methods, one promise."""

from typing import Literal, get_args

from torch import Tensor, nn

from ..errors import UsageError, unknown

__all__ = ["Downsample", "PaddingMode", "check_padding_mode", "check_stride"]

PaddingMode = Literal["reflect", "circular", "zeros", "replicate"]


class Downsample(nn.Module):
    """A downsampling layer: ``(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))``.

    Every H, W >= 1 and N >= 0 is accepted, H and W are independent, dtype, device and memory format are kept.

    A layer whose sampling grid depends on the input splits the work in two, so that the branches of a residual
    block can share one grid: ``choose`` looks at the input and returns the choice, ``sample`` applies it.
    For the other layers ``choose`` returns ``None``, and blocks need not tell them apart::

        choice = main.choose(h)
        h, shortcut = main.sample(h, choice), side.sample(x, choice)

    Attributes:
        stride: the subsampling factor of both axes.
        periodic: with circular padding and H, W divisible by the stride, rolling the input by the stride rolls
            the output by one pixel. Exact evaluation over all circular shifts builds on it.
    """

    stride: int
    periodic: bool = True

    @property
    def observed(self) -> bool:
        """Whether somebody listens here for the map that is sampled: by a hook, or by standing in for ``sample``."""
        return bool(self._forward_hooks or self._forward_pre_hooks) or "sample" in vars(self)

    def choose(self, x: Tensor) -> Tensor | None:
        """Choose the sampling grid for ``x``; ``None`` where the layer has nothing a second branch could share."""
        return None

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Downsample ``x`` on the grid ``choice``, or on the layer's own if it is ``None``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Downsample ``x`` on the grid it chooses itself."""
        return self.sample(x, self.choose(x))


def check_stride(layer: str, stride: int, valid: tuple[int, ...] = (1, 2, 3, 4)) -> int:
    """Return ``stride`` if ``layer`` is defined for it, else raise ``UsageError``."""
    if stride not in valid:
        expected = " or ".join(map(str, valid)) if len(valid) < 3 else f"{valid[0]} to {valid[-1]}"
        raise UsageError(f"{layer}: stride must be {expected}, got {stride!r}")
    return stride


def check_padding_mode(padding_mode: str) -> str:
    """Return ``padding_mode`` if it is one of ``PaddingMode``, else raise ``UsageError``."""
    if padding_mode not in get_args(PaddingMode):
        raise unknown("padding mode", padding_mode, get_args(PaddingMode))
    return padding_mode
