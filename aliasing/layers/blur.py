"""Fixed low-pass filters before subsampling (Zhang 2019; Vasconcelos et al. 2020), and the two baselines."""

from collections.abc import Sequence
from math import comb
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError, one_of, whole
from ._matrices import full_precision, memory_format, outer, separable
from ._phases import pad_axes, phase
from .base import Downsample, PaddingMode, Stride, per_axis

Control = Literal["none", "forward", "backward", "late", "signs"]
TAPS = {"rect-2": 2, "tri-3": 3} | {f"bin-{count}": count for count in (4, 5, 6, 7)}  # of each filter with a name


def blur_definition(
    x: Tensor, taps: tuple[float, ...], stride: Stride = 2, padding_mode: PaddingMode = "reflect"
) -> Tensor:
    """The published form: pad every axis, filter it with ``taps``, keep every ``stride``-th pixel.

    ``(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))``, and likewise with one or three axes. With m taps,
    floor((m-1)/2) pixels are padded before and ceil((m-1)/2) after each axis, so output i sits at input position
    ``stride * i`` for odd m and half a pixel further for even m. Maps smaller than the filter are padded by mirroring,
    or going round, as often as needed.
    """
    (kernel,) = outer(x, *[taps] * (x.dim() - 2))
    return filter_depthwise(x, kernel.expand(int(x.shape[1]), 1, *kernel.shape), stride, padding_mode)


def filter_depthwise(x: Tensor, weight: Tensor, stride: Stride, padding_mode: PaddingMode) -> Tensor:
    """Pad, then a strided convolution of each channel with its own kernel: ``weight`` (C, 1, m, ...)."""
    taps, dims = weight.shape[-1], x.dim() - 2
    padded = pad_axes(x, [((taps - 1) // 2, taps // 2)] * dims, padding_mode)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    return convolve(padded, weight, stride=stride, groups=len(weight)).contiguous(memory_format=memory_format(x))


def binomial(taps: int) -> tuple[float, ...]:
    """The binomial filter of ``taps`` taps, row ``taps - 1`` of Pascal's triangle divided by its sum.

    Its frequency response is ``|cos(w/2)|**(taps - 1)`` (Zhang 2019).
    """
    if (whole(taps) or 0) < 1:
        raise UsageError(f"taps must be a whole number of at least 1 or the taps themselves, got {taps!r}")
    taps = int(taps)
    return tuple(comb(taps - 1, i) / 2 ** (taps - 1) for i in range(taps))


def blur(x: Tensor, taps: tuple[float, ...], stride: Stride = 2, padding_mode: PaddingMode = "reflect") -> Tensor:
    """``blur_definition`` in its fastest form, computed in the dtype of ``x``.

    On small maps that is a product with matrices, in which one value that is not finite makes its whole channel so.
    """
    strides = per_axis(stride, x.dim() - 2)
    if len(taps) == 1:
        kept_pixels = phase(x, (0,) * len(strides), strides) * taps[0] ** len(strides)
        return kept_pixels.contiguous(memory_format=memory_format(x))
    return separable(x, blur_definition, [(taps, step, padding_mode) for step in strides])


class Blur(Downsample):
    """Low-pass filter, then subsampling: BlurPool (Zhang 2019), the post-filter of Vasconcelos et al. 2020.

    Put it after the activation (Zhang) or between convolution and normalisation (Vasconcelos). Use odd filters where
    a second branch keeps the pixels 0, 2, 4, ...: even ones sit half a pixel further. Constants stay constant, except
    at the border under ``padding_mode="zeros"``. Without ``trainable`` it has neither parameters nor buffers, but for
    the kernels of ``signs``.

    Args:
        channels: C, read only by ``trainable`` and ``signs``.
        stride: 1 to 4, or one per axis; 1 filters and keeps every pixel.
        padding_mode: what lies beyond the border.
        taps: the number of binomial taps, or the taps of any other separable filter.
        trainable: learn one m x m filter per channel, starting from the fixed one (the ablation of Vasconcelos
            et al. 2020: training gives no incentive to stay a low-pass).
        control: one of four control experiments (after Vasconcelos et al. 2020, whose own are not known; ours).
            ``forward``: filters values and subsamples gradients; ``backward``: the reverse; ``late``: filters after
            the subsampling, which widens the receptive field at least as much and removes no alias; ``signs``: the
            same taps with random signs, drawn once per channel, and unit energy, which reaches as far as the filter
            and on average removes no alias.
        dims: number of spatial axes, 1 to 3; ``trainable`` and ``signs`` are defined for 2.

    Raises:
        UsageError: for a stride, padding mode, number of taps or control outside these, or ``trainable`` signs.
    """

    valid_dims = (1, 2, 3)

    def __init__(
        self,
        channels: int,
        stride: Stride = 2,
        padding_mode: PaddingMode = "reflect",
        *,
        taps: int | Sequence[float] = 5,
        trainable: bool = False,
        control: Control = "none",
        dims: int = 2,
    ) -> None:
        super().__init__(channels, stride, padding_mode, dims)
        given = isinstance(taps, Sequence) and not isinstance(taps, str) and len(taps) > 0
        self.taps = tuple(float(tap) for tap in taps) if given else binomial(taps)  # type: ignore[union-attr, arg-type]
        one_of("control of blur", control, get_args(Control))
        if trainable and control == "signs":
            raise UsageError("blur: trainable=True starts from the filter and control='signs' replaces it; choose one")
        if dims != 2 and (trainable or control == "signs"):
            raise UsageError(f"blur with a kernel per channel: dims must be 2, got {dims!r}")
        self.control, self.trainable = control, trainable
        line = torch.tensor(self.taps, dtype=torch.float64)
        kernel = (line[:, None] * line).repeat(channels, 1, 1, 1)
        self.weight = nn.Parameter(kernel.to(torch.get_default_dtype())) if trainable else None
        self.signs: Tensor | None
        self.register_buffer("signs", None)
        if control == "signs":  # of unit energy, the same in every layer of as many channels
            drawn = 2 * torch.randint(2, kernel.shape, generator=torch.Generator().manual_seed(0)) - 1
            self.signs = (drawn * kernel / kernel[0].norm()).to(torch.get_default_dtype())

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Filter and subsample ``x``."""
        if self.control in ("none", "signs"):
            return self._blur(x, self.stride)
        kept_pixels = blur(x, (1.0,), self.stride)
        if self.control == "late":
            return self._blur(kept_pixels, 1)
        blurred = self._blur(x, self.stride)
        value, slope = (blurred, kept_pixels) if self.control == "forward" else (kept_pixels, blurred)
        return value.detach() + (slope - slope.detach())

    def _blur(self, x: Tensor, stride: Stride) -> Tensor:
        weight = self.signs if self.weight is None else self.weight
        if weight is None:
            return blur(x, self.taps, stride, self.padding_mode)
        # CPUs have no fast depthwise convolution in 16 bits.
        least = torch.float32 if x.device.type == "cpu" else None
        return full_precision(lambda x: filter_depthwise(x, weight.to(x.dtype), stride, self.padding_mode), x, least)


class Max(Downsample):
    """The largest value of each stride x stride window: ordinary max pooling, the baseline of the papers.

    ``(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))``; windows that cross the right or lower border are
    clipped there, so nothing is padded and ``channels`` and ``padding_mode`` are not read. Not linear.
    """

    valid_dims = (1, 2, 3)

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Take the maximum of each window of ``x``."""
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self.dims - 1]
        return pool(x, self.strides, self.strides, ceil_mode=True)
