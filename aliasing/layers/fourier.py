"""Downsampling by cropping the spectrum: FLC pooling (Grabinski et al. 2022) and ASAP (Grabinski et al. 2023).

The definitions transform, window, crop and transform back. Both are linear and act on the axes one after the other, so
the layers compute no transform. Along an axis the operator is a complex matrix ``T = A + iI``, and of two axes the
real part of ``T_h X T_w^T`` is ``A_h X A_w^T - I_h X I_w^T``. Only frequencies without their conjugate partner enter I:
none for an odd number of kept frequencies, one (the Nyquist frequency of the output, rank one) for an even number, more
only in some published forms. These products serve exporters, ``vmap``, second derivatives and ``meta``, too: exporters
know no transforms of complex maps.
"""

from collections.abc import Sequence
from itertools import combinations
from math import pi, prod
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..errors import UsageError, one_of
from ._matrices import TINY, Step, apply_steps, asked, dense, full_precision, kept, memory_format, pad_index, plain
from ._phases import pad_axes
from .base import Downsample, PaddingMode, Stride, check_stride, per_axis

LONG = 4096  # pixels of an axis, up to which its matrix is built

Variant = Literal["none", "pad-one", "pad-large", "kept-band"]


def flc_definition(x: Tensor, stride: Stride = 2, *, faithful: bool = False) -> Tensor:
    """Grabinski et al. 2022: transform, keep the lowest 1/stride of each axis's frequencies, transform back."""
    return _definition(x, per_axis(stride, x.dim() - 2), "flc", "circular", faithful)


def asap_definition(
    x: Tensor,
    stride: Stride = 2,
    *,
    variant: Variant = "pad-one",
    padding_mode: PaddingMode = "reflect",
    faithful: bool = False,
) -> Tensor:
    """Grabinski et al. 2023: FLC pooling of a padded map under a Hamming window of the spectrum; see ``ASAP``."""
    return _definition(x, per_axis(stride, x.dim() - 2), variant, padding_mode, faithful)


def _definition(x: Tensor, strides: tuple[int, ...], variant: str, padding_mode: PaddingMode, faithful: bool) -> Tensor:
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        raise UsageError("flc and asap: the older ONNX exporter changes Fourier transforms; export with dynamo=True")
    one_of("variant of asap", variant, ("flc", *get_args(Variant)))
    if faithful and (set(strides) != {2} or variant == "kept-band"):
        raise UsageError(f"faithful flc and asap: strides of 2 and a published variant, got {strides} and {variant!r}")
    plans = _plans(x.shape[2:], strides, variant, faithful)
    amounts = [(plan.before, plan.length - plan.before - n) for n, plan in zip(x.shape[2:], plans, strict=True)]
    z = pad_axes(x, amounts, "zeros" if faithful else padding_mode)
    z = z.contiguous()  # PyTorch 2.11 writes beyond its memory in fftn of one long channels_last map
    axes = tuple(range(2, x.dim()))
    spectrum = torch.fft.fftshift(torch.fft.fftn(z, dim=axes, norm="forward"), axes)
    for axis, plan in zip(axes, plans, strict=True):
        k = torch.arange(plan.bins, device=x.device, dtype=x.dtype) + plan.lowest  # cycles per length
        window = _window(k, plan, variant, faithful).view(-1, *[1] * (axes[-1] - axis))
        spectrum = spectrum.narrow(axis, plan.lowest + plan.length // 2, plan.bins) * window
    y = torch.fft.ifftn(torch.fft.ifftshift(spectrum, axes), dim=axes, norm="forward").real
    for axis, plan in zip(axes, plans, strict=True):
        y = y.narrow(axis, plan.first, plan.rows)
    return y.contiguous(memory_format=memory_format(x))


class _Plan(NamedTuple):
    """One axis of n pixels: extended by ``before`` to ``length`` samples, frequencies ``lowest``, ``lowest + 1``, ...

    ``bins`` of them, are kept, put ``shift`` bins higher and transformed back; ``rows`` samples from ``first`` on stay.
    """

    before: int
    length: int
    lowest: int
    bins: int
    shift: int
    first: int
    rows: int


def _plans(sides: Sequence[int], strides: tuple[int, ...], variant: str, faithful: bool) -> list[_Plan]:
    both = zip(sides, strides, strict=True)
    return [_published(n, variant) if faithful else _corrected(n, stride, variant) for n, stride in both]


def _published(n: int, variant: str) -> _Plan:
    before, length = {"pad-one": (0, n + 1), "pad-large": (n // 2 - 1, 2 * (n // 2) - 1 + n)}.get(variant, (0, n))
    start, stop = length // 4, 3 * length // 4
    bins, below = stop - start, length // 2 - start
    first, last = (bins // 4, 3 * bins // 4) if variant == "pad-large" else (0, bins)
    if before < 0 or last <= first:
        raise UsageError(f"the published {variant} layer has no output for maps {n} pixels wide; use faithful=False")
    return _Plan(before, length, -below, bins, below - bins // 2, first, last - first)


def _corrected(n: int, stride: int, variant: str) -> _Plan:
    rows = (n + stride - 1) // stride  # not -(-n // stride): exporters divide towards zero
    if variant != "pad-large":
        # An odd length has a window centred on frequency 0: that is what the one pixel is for.
        length = n + 1 - n % 2 if variant == "pad-one" else n
        return _Plan(0, length, -(rows // 2), rows, 0, 0, rows)
    before, length = (n - 1) // 2, 2 * n - 1
    bins = (length + stride - 1) // stride
    # The rows whose centre is nearest to the centre of the map; the published choice where n is even.
    first = ((n - 1 + 2 * before) * bins + (2 - rows) * length) // (2 * length)
    return _Plan(before, length, -(bins // 2), bins, 0, first, rows)


@kept
def _axis(
    n: int, stride: int, variant: str, padding_mode: PaddingMode, faithful: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """``[A; V]`` (rows + r, n) and ``u`` (rows,): A, and I as ``u V``, where r is 0, 1 or, for full rank, rows."""
    plan = _published(n, variant) if faithful else _corrected(n, stride, variant)
    k = torch.arange(plan.bins, device=device) + plan.lowest
    i, j = (torch.arange(size, device=device) for size in (plan.rows, plan.length))
    there = 2 * pi / plan.length * (k[:, None] * j % plan.length).double()
    back = 2 * pi / plan.bins * ((i[:, None] + plan.first) * (k + plan.shift) % plan.bins).double()
    weight = _window(k.double(), plan, variant, faithful)[:, None] / plan.length
    cosine, sine = weight * there.cos(), -weight * there.sin()
    matrix = back.cos() @ cosine - back.sin() @ sine

    u = 1.0 - 2.0 * ((i + plan.first) % 2).double()
    paired = isinstance(n, int) and plan.shift == 0 and (not faithful or variant == "flc" or plan.length % 2 == 1)
    if not paired:
        matrix, u = torch.cat([matrix, back.sin() @ cosine + back.cos() @ sine]), torch.ones_like(u)
    elif not isinstance(plan.bins, int) or plan.bins % 2 == 0:  # the lowest frequency is without a partner
        matrix = torch.cat([matrix, sine[:1] * ((plan.bins + 1) % 2)])

    # Padding: every padded column is a copy of a pixel, or nothing.
    after = plan.length - plan.before - n
    index, inside = pad_index(n, plan.before, after, "zeros" if faithful else padding_mode, device)
    reads = (index[:, None] == torch.arange(n, device=device)) & inside[:, None]
    return matrix @ reads.double(), u


def _window(k: Tensor, plan: _Plan, variant: str, faithful: bool) -> Tensor:
    """The weight of each kept frequency ``k``."""
    if variant == "flc":
        return torch.ones_like(k)
    if faithful:
        # A symmetric Hamming window of the spectrum with frequency 0 at length // 2, off its centre for even lengths.
        place = k + plan.length // 2
        return (0.54 - 0.46 * torch.cos(2 * pi * place / (plan.length - 1))).sqrt()
    size = plan.bins if variant == "kept-band" else plan.length
    window = 0.54 + 0.46 * torch.cos(pi * k / (size // 2 + (size == 1)))
    return window if variant == "kept-band" else window.sqrt()


@kept
def _joint(sides: tuple[int, ...], strides: tuple[int, ...], *key: object) -> tuple[Tensor]:
    """The whole operator on flattened maps: the answers of the definition to unit impulses."""
    impulses = torch.eye(prod(sides), dtype=torch.float64).view(-1, 1, *sides)
    return (_definition(impulses, strides, *key[:-1]).flatten(1).t(),)  # type: ignore[arg-type]


def _crop(x: Tensor, strides: tuple[int, ...], variant: str, padding_mode: PaddingMode, faithful: bool) -> Tensor:
    """``_definition`` by matrices."""
    sides, key = tuple(x.shape[2:]), (variant, padding_mode, faithful)
    if asked() or (plain(x) and max(sides) > LONG):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return _definition(x, strides, *key)
    if plain(x) and prod(sides) <= TINY:
        plans = _plans(sides, strides, variant, faithful)
        (matrix,) = _joint(x, sides, strides, *key)
        return apply_steps(x, [(0, len(sides), [plan.rows for plan in plans], dense(matrix))])
    matrices = [_axis(x, n, s, *key) for n, s in zip(sides, strides, strict=True)]
    steps: list[Step] = [(axis, axis + 1, [m.shape[0]], dense(m)) for axis, (m, _) in enumerate(matrices)]
    y = apply_steps(x, steps)
    rows = [u.shape[0] for _, u in matrices]
    real = [slice(None, n) for n in rows]
    out = y[(..., *real)]  # type: ignore[index]
    for a, b in combinations([axis for axis, (m, u) in enumerate(matrices) if m.shape[0] > u.shape[0]], 2):
        block = list(real)
        block[a], block[b] = slice(rows[a], None), slice(rows[b], None)
        u, v = (matrices[axis][1].view(-1, *[1] * (len(rows) - axis - 1)) for axis in (a, b))
        out = out - y[(..., *block)] * (u * v)  # type: ignore[index]  # i * i = -1
    return out.contiguous(memory_format=memory_format(x))


class FLC(Downsample):
    """FLC pooling: keep the central 1/stride of the spectrum of each axis (Grabinski et al. 2022).

    The map counts as periodic, so there is nothing to pad, and ``padding_mode`` is not read. Frequencies -floor(h/2) to
    ceil(h/2)-1 stay, h the length of the output; constants stay constant, output i sits at input position ``i * H/h``.
    Cost: two matrix products, about ``H + W/stride`` multiplications per input pixel and stride.

    ``faithful`` is the published crop [floor(n/4), floor(3n/4)) with stride 2: the same for n divisible by 4, else its
    length is 2m for n = 4m+1, 2m+1 for 4m+2 and 2m+2 for 4m+3, and for n = 4m+2 every frequency lands one bin too
    high, so that a constant comes out as a cosine. Then it is not ``periodic``: rolls and the defect do not commute.

    Raises:
        UsageError: for a stride outside 1 to 4, or other than 2 with ``faithful``.
    """

    valid_dims = (1, 2, 3)
    variant: Variant | Literal["flc"] = "flc"

    def __init__(
        self,
        channels: int,
        stride: Stride = 2,
        padding_mode: PaddingMode = "reflect",
        *,
        faithful: bool = False,
        dims: int = 2,
    ) -> None:
        super().__init__(channels, stride, padding_mode, dims)
        if faithful:
            check_stride(f"faithful {type(self).__name__.lower()}", stride, (2,), dims)
        self.faithful = faithful

    @property
    def periodic(self) -> bool:  # type: ignore[override]
        """See ``Downsample``; attributes may change later."""
        return not self.faithful and self.variant in ("flc", "none", "kept-band")

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Window and crop the spectrum of ``x``."""
        # CPUs multiply bfloat16 fast and add in float32.
        least = None if plain(x) and x.dtype == torch.bfloat16 else torch.float32
        mode = "circular" if self.variant == "flc" else self.padding_mode
        return full_precision(lambda x: _crop(x, self.strides, self.variant, mode, self.faithful), x, least)


class ASAP(FLC):
    """ASAP: FLC pooling under a Hamming window of the spectrum (Grabinski et al. 2023).

    Frequency w keeps the weight ``sqrt(0.54 + 0.46 cos w)`` and the central 1/stride stays. Both branches of a block
    must use the same variant: they sample at different positions.

    Args:
        stride: 2 to 4; the paper defines 2, the others keep the same window and crop more (our extension).
        padding_mode: the value of the pixels that ``"pad-one"`` and ``"pad-large"`` add.
        variant: ``"none"`` adds nothing. ``"pad-one"`` (what the authors' networks use) adds one pixel after an axis
            of even length and so samples in steps of (n+1)/h. ``"pad-large"`` doubles the map to 2n-1 and crops
            the result. ``"kept-band"`` puts the whole Hamming window on the kept band, which removes the ringing that
            the paper's window, still 0.73 at the cut-off, leaves (our variant).
        faithful: the published operator: window off its centre for even lengths, zeros added whatever ``padding_mode``
            says, so that borders darken (gains .72, 1.04, 1.03, .77 for 8 pixels), pad-one also for odd lengths,
            sizes of the published crop (14 -> 8), the one-bin defect at padded lengths 4m+2.

    The default centres the window on frequency 0 for every length, adds pixels of the map instead of zeros, and returns
    ceil(n/stride) samples without the defect; for n divisible by 4 ``"pad-one"`` with ``padding_mode="zeros"`` is the
    published operator, and ``"pad-large"`` is for every even n. So constants stay constant in all variants and
    padding modes but zeros. Sampling in steps other than the stride belongs to the paper's layer and remains, which is
    why only ``"none"`` and ``"kept-band"`` are ``periodic``.

    Raises:
        UsageError: for an unknown variant, a stride outside these, or ``faithful`` with stride 3, 4 or ``"kept-band"``.
    """

    valid_strides = (2, 3, 4)

    def __init__(
        self,
        channels: int,
        stride: Stride = 2,
        padding_mode: PaddingMode = "reflect",
        *,
        variant: Variant = "pad-one",
        faithful: bool = False,
        dims: int = 2,
    ) -> None:
        super().__init__(channels, stride, padding_mode, faithful=faithful, dims=dims)
        if faithful and variant == "kept-band":
            raise UsageError("faithful asap: variant 'kept-band' is not published; choose none, pad-one or pad-large")
        self.variant = one_of("variant of asap", variant, get_args(Variant))
