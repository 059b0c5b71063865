"""Fixed low-pass filters before subsampling (Zhang 2019; Vasconcelos et al. 2020), and the two baselines."""

from collections.abc import Sequence
from math import comb
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError, unknown
from ._matrices import full_precision, is_channels_last, kept, kronecker, memory_format, pad_index, plain, separable
from ._sparse import Entries, sparse_product
from .base import Downsample, PaddingMode, check_padding_mode, check_stride

__all__ = ["Blur", "Control", "Max", "binomial", "blur", "filter_depthwise"]

Control = Literal["none", "forward", "backward", "late", "signs"]

LARGE = 2**20  # values of a map
TINY = 8  # pixels of the longer side, up to which one dense matrix serves both axes
WIDE = 512  # pixels, up to which a dense matrix for the second axis is small enough


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

    On the CPU the filter, its padding and its stride are two matrices, sparse for large maps and dense for small ones;
    on other devices, and while the function is traced, it is the depthwise convolution of the paper. All compute in the
    dtype of ``x``.
    """
    check_padding_mode(padding_mode)
    if len(taps) == 1:
        kept_pixels = x[:, :, ::stride, ::stride] * taps[0]
        return kept_pixels.contiguous(memory_format=memory_format(x))
    return full_precision(lambda x: _filter(x, taps, stride, padding_mode), x)


def _filter(x: Tensor, taps: tuple[float, ...], stride: int, padding_mode: PaddingMode) -> Tensor:
    n, c, height, width = x.shape
    h, w, key = -(-height // stride), -(-width // stride), (taps, stride, padding_mode)
    form = _fastest_form(x, taps, stride)
    if form == "convolution":
        (weight,) = _weight(x, taps)
        return filter_depthwise(x, weight.expand(c, 1, -1, -1), stride, padding_mode)
    if form == "sparse" and is_channels_last(x):
        pixels = x.permute(0, 2, 3, 1).reshape(n, height * width, c)
        y = sparse_product(pixels, _both_entries, height, width, *key)
        return y.view(n, h, w, c).permute(0, 3, 1, 2)
    if form == "dense" and max(height, width) <= TINY:
        (both,) = _both(x, height, width, *key)
        return kronecker(x, both, h, w)
    (columns,) = _axis(x, width, *key)
    if form == "sparse":
        lines = sparse_product(x.reshape(n * c, height, width), _axis_entries, height, *key)
        return (lines.view(n * c * h, width) @ columns.t()).view(n, c, h, w)
    (rows,) = _axis(x, height, *key)
    return separable(x, rows, columns)


def _fastest_form(x: Tensor, taps: tuple[float, ...], stride: int) -> Literal["sparse", "dense", "convolution"]:
    """The measured rule.

    Sparse matrices run at nearly the speed of memory, where a convolution needs a padded copy, and its gradient
    another; small maps do not repay their lists. In channels_last every pixel is listed m^2/stride^2 times, and reading
    the lists is cheap only against as many channels. Otherwise dense matrices, whose cost per pixel grows with the map,
    up to where the convolution overtakes them: early in channels_last, which it is good at, except in float64, for
    which it has no fast kernel.

    Forward and backward, reflection, stride 2, 3 to 7 taps, the sizes of `aliasing bench layers`, one thread of an AMD
    EPYC (Zen 4): contiguous, dense matrices took 1.7 times as long as sparse ones (median; 1.0 to 2.8), the padded
    convolution 6.4 times (2.1 to 8.9); in channels_last 2.0 (0.8 to 3.7) and 2.9 (2.1 to 3.6) times.
    """
    if not plain(x) or x.device.type != "cpu":
        return "convolution"
    channels_last, longest = is_channels_last(x), max(x.shape[2:])
    pays = len(taps) ** 2 <= stride**2 * x.shape[1] if channels_last else TINY < longest <= WIDE
    if x.dtype == torch.float32 and LARGE <= x.numel() < 2**31 and pays:
        return "sparse"
    return "dense" if longest <= (32 if channels_last and x.dtype != torch.float64 else 128) else "convolution"


def _axis_entries(
    length: int,
    taps: tuple[float, ...],
    stride: int,
    padding_mode: PaddingMode,
    device: torch.device | None = None,
) -> Entries:
    before = (len(taps) - 1) // 2
    index, inside = pad_index(length, before, len(taps) - 1 - before, padding_mode, device)
    out = -(-length // stride)
    row = torch.arange(out, device=device)[:, None].expand(-1, len(taps))
    position = stride * row + torch.arange(len(taps), device=device)
    value = torch.tensor(taps, dtype=torch.float64, device=device) * inside[position]
    return Entries(row.flatten(), index[position].flatten(), value.flatten(), (out, length))


def _both_entries(height: int, width: int, *key: object) -> Entries:
    return _axis_entries(height, *key).kron(_axis_entries(width, *key))  # type: ignore[arg-type]


def _axis_matrix(*key: object) -> tuple[Tensor]:
    return (_axis_entries(*key).dense(),)  # type: ignore[arg-type]


def _both_matrix(height: int, width: int, *key: object) -> tuple[Tensor]:
    rows, columns = (_axis_matrix(n, *key)[0] for n in (height, width))
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

    def filtered(self, x: Tensor) -> Tensor | None:
        """``x`` after the filter; ``None`` for the control that subsamples first."""
        return None if self.control == "late" else x if self.control == "backward" else self._blur(x, 1)

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

    def filtered(self, x: Tensor) -> Tensor:
        """The maximum of the window that begins at each pixel."""
        reach = self.stride - 1
        return F.max_pool2d(F.pad(x, (0, reach, 0, reach), value=float("-inf")), self.stride, 1)

    def extra_repr(self) -> str:
        """Show the window."""
        return f"stride={self.stride}"
