"""Fixed low-pass filters before subsampling (Zhang 2019; Vasconcelos et al. 2020), and the two baselines."""

from collections.abc import Sequence
from functools import lru_cache
from math import comb
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError, unknown
from ._borders import Axis, filter_bordered
from ._matrices import full_precision, is_channels_last, kept, kronecker, memory_format, pad_index, plain, separable
from .base import Downsample, PaddingMode, check_padding_mode, check_stride

__all__ = ["Blur", "Control", "Max", "binomial", "blur", "filter_depthwise"]

Control = Literal["none", "forward", "backward", "late", "signs"]

LARGE = 2**21  # values above which a padded copy of a map is slower than corrections at its borders


def binomial(taps: int) -> tuple[float, ...]:
    """The binomial filter of ``taps`` taps, row ``taps - 1`` of Pascal's triangle divided by its sum.

    Its frequency response is ``|cos(w/2)|**(taps - 1)`` (Zhang 2019, section 3).
    """
    if not isinstance(taps, int) or taps < 1:
        raise UsageError(f"taps must be a whole number of at least 1 or the taps themselves, got {taps!r}")
    return tuple(comb(taps - 1, i) / 2 ** (taps - 1) for i in range(taps))


def blur(x: Tensor, taps: tuple[float, ...], stride: int = 2, padding_mode: PaddingMode = "reflect") -> Tensor:
    """Filter both axes with ``taps`` and keep every ``stride``-th pixel.

    ``(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))``. With m taps, floor((m-1)/2) pixels are padded before
    and ceil((m-1)/2) after each axis, so output i sits at input position ``stride * i`` for odd m and half a pixel
    further for even m. Maps smaller than the filter are padded by mirroring, or going round, as often as needed.

    On the CPU the filter, its padding and its stride are two dense matrices, or one for small maps; on other devices
    and for large maps it is the depthwise convolution of the paper, for large maps in channels_last without the padded
    copy. All compute in the dtype of ``x``.
    """
    check_padding_mode(padding_mode)
    if len(taps) == 1:
        kept_pixels = x[:, :, ::stride, ::stride] * taps[0]
        return kept_pixels.contiguous(memory_format=memory_format(x))
    return full_precision(lambda x: _filter(x, taps, stride, padding_mode), x)


def _filter(x: Tensor, taps: tuple[float, ...], stride: int, padding_mode: PaddingMode) -> Tensor:
    height, width = x.shape[2:]
    if _dense_is_faster(x, taps):
        if max(height, width) <= 8:
            (both,) = _both(x, height, width, taps, stride, padding_mode)
            return kronecker(x, both, -(-height // stride), -(-width // stride))
        (rows,), (columns,) = (_axis(x, n, taps, stride, padding_mode) for n in (height, width))
        return separable(x, rows, columns)
    if padding_mode != "zeros" and _padding_is_slow(x):
        return _bordered(x, taps, stride, padding_mode)
    (weight,) = _weight(x, taps)
    return filter_depthwise(x, weight.expand(x.shape[1], 1, -1, -1), stride, padding_mode)


def _dense_is_faster(x: Tensor, taps: tuple[float, ...]) -> bool:
    """The measured rule (`aliasing bench layers`): matrices on the CPU up to a size that depends on the memory format.

    Products cost more per pixel as maps grow, convolutions as filters grow. The convolution is good at channels_last,
    and without a fast kernel in float64.
    """
    if not plain(x) or x.device.type != "cpu":
        return False
    longest = max(x.shape[2:])
    if not is_channels_last(x) or x.dtype == torch.float64:
        return longest <= 128
    return longest <= (5 * len(taps) if x.numel() >= LARGE else 32)


def _padding_is_slow(x: Tensor) -> bool:
    """Whether a padded copy costs more than a few small operations at the borders: the other measured rule."""
    on_cpu = plain(x) and x.device.type == "cpu" and x.dtype == torch.float32
    return on_cpu and is_channels_last(x) and x.numel() >= LARGE


def _bordered(x: Tensor, taps: tuple[float, ...], stride: int, padding_mode: PaddingMode) -> Tensor:
    odd = taps if len(taps) % 2 else (0.0, *taps)
    (weight,) = _weight(x, odd)
    rows, columns = (_bordered_axis(x, n, taps, stride, padding_mode) for n in x.shape[2:])
    return filter_bordered(x, weight.expand(x.shape[1], 1, -1, -1), stride, rows, columns)


def _bordered_axis(x: Tensor, length: int, taps: tuple[float, ...], stride: int, padding_mode: PaddingMode) -> Axis:
    (padded,), (zeros,) = (_axis(x, length, taps, stride, mode) for mode in (padding_mode, "zeros"))
    return Axis(padded, zeros, _edges(length, taps, stride, padding_mode))


@lru_cache(maxsize=256)
def _edges(
    length: int, taps: tuple[float, ...], stride: int, padding_mode: PaddingMode
) -> tuple[tuple[int, int, float], ...]:
    cpu = torch.device("cpu")
    modes: tuple[PaddingMode, PaddingMode] = (padding_mode, "zeros")
    (padded,), (zeros,) = (_axis_matrix(length, taps, stride, mode, cpu) for mode in modes)
    difference = padded - zeros
    return tuple((i, j, difference[i, j].item()) for i, j in difference.nonzero().tolist())


def _axis_matrix(
    length: int, taps: tuple[float, ...], stride: int, padding_mode: PaddingMode, device: torch.device
) -> tuple[Tensor]:
    before = (len(taps) - 1) // 2
    index, inside = pad_index(length, before, len(taps) - 1 - before, padding_mode, device)
    matrix = torch.zeros(-(-length // stride), length, dtype=torch.float64, device=device)
    row = torch.arange(matrix.shape[0], device=device)
    for p, tap in enumerate(taps):
        matrix[row, index[stride * row + p]] += tap * inside[stride * row + p]
    return (matrix,)


def _both_matrix(height: int, width: int, *key: object) -> tuple[Tensor]:
    rows, columns = (_axis_matrix(n, *key)[0] for n in (height, width))  # type: ignore[arg-type]
    return (torch.kron(rows, columns),)


def _weight_matrix(taps: tuple[float, ...], device: torch.device) -> tuple[Tensor]:
    line = torch.tensor(taps, dtype=torch.float64, device=device)
    return (line[:, None] * line,)


def _random_signs(taps: tuple[float, ...], channels: int) -> Tensor:
    """Kernels (C, 1, m, m) of unit energy: the filter's own with each tap's sign drawn anew; the same at every call."""
    (weight,) = _weight_matrix(taps, torch.device("cpu"))
    drawn = torch.randint(2, (channels, 1, *weight.shape), generator=torch.Generator().manual_seed(0))
    return ((2 * drawn - 1) * weight / weight.norm()).to(torch.get_default_dtype())


_axis = kept(_axis_matrix)
_both = kept(_both_matrix)
_weight = kept(_weight_matrix)


def filter_depthwise(x: Tensor, weight: Tensor, stride: int, padding_mode: PaddingMode) -> Tensor:
    """The published form: pad, then a strided depthwise convolution with ``weight`` (C, 1, m, m)."""
    before, after = (weight.shape[-1] - 1) // 2, weight.shape[-1] // 2
    if padding_mode == "zeros" and before == after:  # the convolution pads by itself
        y = F.conv2d(x, weight, stride=stride, padding=after, groups=x.shape[1])
        return y.contiguous(memory_format=memory_format(x))
    padded = _pad(x, before, after, padding_mode)
    return F.conv2d(padded, weight, stride=stride, groups=x.shape[1]).contiguous(memory_format=memory_format(x))


def _pad(x: Tensor, before: int, after: int, padding_mode: PaddingMode) -> Tensor:
    height, width = x.shape[2:]
    amounts = (before, after, before, after)
    if padding_mode == "zeros":
        return F.pad(x, amounts)
    # The framework's mirror reaches once across a map, its circle goes round once.
    reach = {"replicate": after, "circular": min(height, width), "reflect": min(height, width) - 1}[padding_mode]
    if after <= reach:
        return F.pad(x, amounts, mode=padding_mode)
    rows, columns = (pad_index(n, before, after, padding_mode, x.device)[0] for n in (height, width))
    return x[:, :, rows][:, :, :, columns]


class Blur(Downsample):
    """Low-pass filter, then subsampling: BlurPool (Zhang 2019, section 3), the post-filter of Vasconcelos et al. 2020.

    Put it after the activation (Zhang) or between convolution and normalisation (Vasconcelos). Use odd filters where
    a second branch keeps the pixels 0, 2, 4, ...: even ones sit half a pixel further. Constants stay constant, except
    at the border under ``padding_mode="zeros"``. Without ``trainable`` it has neither parameters nor buffers, but for
    the kernels of ``signs``.

    Args:
        channels: C, read only by ``trainable`` and ``signs``.
        stride: 1 to 4; 1 filters and keeps every pixel.
        padding_mode: what lies beyond the border.
        taps: the number of binomial taps, or the taps of any other separable filter.
        trainable: learn one m x m filter per channel, starting from the fixed one (the ablation of Vasconcelos
            et al. 2020: training gives no incentive to stay a low-pass).
        control: one of four control experiments (after Vasconcelos et al. 2020, whose own are not known; ours).
            ``forward``: filters values and subsamples gradients; ``backward``: the reverse; ``late``: filters after
            the subsampling, which widens the receptive field at least as much and removes no alias; ``signs``: the
            same taps with random signs, drawn once per channel, and unit energy, which reaches as far as the filter
            and on average removes no alias.

    Raises:
        UsageError: for a stride, padding mode, number of taps or control outside these, or ``trainable`` signs.
    """

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: PaddingMode = "reflect",
        *,
        taps: int | Sequence[float] = 5,
        trainable: bool = False,
        control: Control = "none",
    ) -> None:
        super().__init__()
        given = isinstance(taps, Sequence) and not isinstance(taps, str) and len(taps) > 0
        self.taps = tuple(float(tap) for tap in taps) if given else binomial(taps)  # type: ignore[union-attr, arg-type]
        self.stride = check_stride("blur", stride)
        self.padding_mode = padding_mode
        check_padding_mode(padding_mode)
        if control not in get_args(Control):
            raise unknown("control of blur", control, get_args(Control))
        if trainable and control == "signs":
            raise UsageError("blur: trainable=True starts from the filter and control='signs' replaces it; choose one")
        self.control = control
        self.weight: nn.Parameter | None = None
        if trainable:
            (weight,) = _weight_matrix(self.taps, torch.device("cpu"))
            self.weight = nn.Parameter(weight.to(torch.get_default_dtype()).repeat(channels, 1, 1, 1))
        self.signs: Tensor | None
        self.register_buffer("signs", _random_signs(self.taps, channels) if control == "signs" else None)

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

    def _blur(self, x: Tensor, stride: int) -> Tensor:
        learned_or_drawn = self.signs if self.weight is None else self.weight
        if learned_or_drawn is None:
            return blur(x, self.taps, stride, self.padding_mode)
        weight = learned_or_drawn.to(x.dtype)
        return full_precision(lambda x: filter_depthwise(x, weight, stride, self.padding_mode), x)

    def extra_repr(self) -> str:
        """Show what distinguishes two filters."""
        extras = ("" if self.weight is None else ", trainable") + (
            f", {self.control}" if self.control != "none" else ""
        )
        return f"{len(self.taps)} taps, stride={self.stride}, padding_mode={self.padding_mode!r}{extras}"


class Max(Downsample):
    """The largest value of each stride x stride window: ordinary max pooling, the baseline of the papers.

    ``(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))``; windows that cross the right or lower border are
    clipped there, so nothing is padded and ``channels`` and ``padding_mode`` are not read. Not linear.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "reflect") -> None:
        super().__init__()
        self.stride = check_stride("max", stride)

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Take the maximum of each window of ``x``."""
        return F.max_pool2d(x, self.stride, self.stride, ceil_mode=True)

    def extra_repr(self) -> str:
        """Show the window."""
        return f"stride={self.stride}"
