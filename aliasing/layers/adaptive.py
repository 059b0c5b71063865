"""Filters that follow the picture: mixtures of polyphase components (TIPS), a filter for every place (DDAC)."""

from collections.abc import Callable
from copy import copy
from functools import partial
from math import gcd, prod, sqrt
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..errors import UsageError, one_of
from ..shifts import circular
from ..streams import sent
from ._matrices import differentiated, full_precision, memory_format, plain
from ._phases import (
    chunks,
    complete,
    first_order,
    is_whole,
    mix,
    pad_axes,
    phase_reduce,
    phases,
    slices,
    weighted_slices,
)
from .base import Downsample, PaddingMode, Stride, per_axis, renewed

Form = Literal["code", "linear", "two_sided"]  # of the first auxiliary loss of TIPS, see ``regularisers``


def tips_definition(
    x: Tensor,
    filters: Tensor,
    scale: Tensor,
    stride: Stride = 2,
    padding_mode: PaddingMode = "reflect",
    faithful: bool = False,
) -> Tensor:
    """Saha and Gokhale 2025: the phases of (N, C, H, W) mixed, per image and channel, by weights from a convolution.

    ``filters`` (C, 1, 3, 3), ``scale`` (C,); sides that the stride divides. What is read as published and what not is
    at ``TIPS``.
    """
    (rows, columns), (n, c, h, w) = per_axis(stride, 2), x.shape
    padded = pad_axes(x, [(1, 1), (1, 1)], "zeros" if faithful else padding_mode)
    psi = F.conv2d(padded, filters, groups=c).relu()
    if faithful:  # a mean for each cell of a partition of the map, read row by row, but phases column by column
        means = psi.view(n, c, rows, h // rows, columns, w // columns).mean((3, 5)).flatten(2)
        tau = (means * scale[:, None]).softmax(2).unflatten(2, (columns, rows)).transpose(2, 3).flatten(2)
    else:
        means = phases(psi, (rows, columns)).mean((3, 4)).transpose(1, 2)
        tau = (means * scale[:, None]).softmax(2)
    return (phases(x, (rows, columns)) * tau.transpose(1, 2)[..., None, None]).sum(1)


def ddac_definition(
    x: Tensor,
    kernel: Tensor,
    normalise: Callable[[Tensor], Tensor],
    stride: Stride = 2,
    padding_mode: PaddingMode = "reflect",
    groups: int = 8,
    faithful: bool = False,
) -> Tensor:
    """Zou et al. 2020: the window around each kept place of (N, C, H, W), averaged with weights of its own.

    The weights of a group of channels are the softmax of ``normalise`` (a batch normalisation) of a convolution with
    ``kernel`` (groups * size^2, C, size, size); see ``DDAC`` for ``faithful``.
    """
    (rows, columns), size, border = per_axis(stride, 2), kernel.shape[-1], kernel.shape[-1] // 2
    padded = pad_axes(x, [(border, border)] * 2, padding_mode)
    if faithful:
        weights = normalise(F.conv2d(padded, kernel))[:, :, ::rows, ::columns].softmax(1)
    else:
        weights = normalise(F.conv2d(padded, kernel, stride=(rows, columns))).unflatten(1, (groups, -1)).softmax(2)
    weights = weights.view(x.shape[0], groups, 1, size, size, *weights.shape[-2:])
    windows = padded.unfold(2, size, rows).unfold(3, size, columns).unflatten(1, (groups, -1))
    return (windows * weights.movedim((3, 4), (5, 6))).sum((5, 6)).flatten(1, 2)


class TIPS(Downsample):
    """Translation invariant polyphase sampling: a learned mixture of the phases, per image and channel.

    ``Y[c] = sum_p tau_p[c] * phase_p(X[c])`` with ``tau[c] = softmax_p(w_c * mean_p(psi[c]))`` and
    ``psi = ReLU(depthwise 3 x 3 convolution of X)``. At the usual initialisations tau starts almost uniform, and the
    layer as average pooling. Ten parameters per channel.

    By default ``mean_p`` is the mean over phase p, so that a circular shift permutes tau with the phases and leaves
    the *spatial mean* of the output unchanged (circular padding, sides the stride divides). With ``faithful=True`` it
    is the mean over cell p of a stride x stride partition of the map, as published: it has nothing to do with phase
    p, and even shifts by the stride change tau. Neither form is equivariant, because the terms of a mixture move by
    different amounts.

    Source: Saha and Gokhale 2025, "Improving Shift Invariance in Convolutional Neural Networks with Translation
    Invariant Polyphase Sampling", from the authors' code. Departures of the default: phases instead of cells, the
    padding of the convolution, odd maps completed at the bottom and right; in both forms: strides 1, 3 and 4.

    Args:
        padding_mode: of the convolution, and completes maps that the stride does not divide. Not read if ``faithful``.
        faithful: zero padding of the convolution, cells read row by row but phases column by column, maps completed
            at the top and left by reflection (one row or column is repeated, where the published layer fails).

    Attributes:
        record_input: whether a forward pass in training mode keeps its input for ``auxiliary_losses``.
    """

    _records = False
    _input: Tensor | None = None

    @property
    def record_input(self) -> bool:
        """See above; an input that nobody has asked for goes when this ends."""
        return self._records

    @record_input.setter
    def record_input(self, value: bool) -> None:
        self._records, self._input = value, None

    def __getstate__(self) -> dict[str, Any]:
        """Without the input, which neither a copy nor a file is to have."""
        return {**super().__getstate__(), "_input": None}

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
        self.faithful = faithful
        self.tau = _Tau(channels)

    @property
    def periodic(self) -> bool:  # type: ignore[override]
        """See ``Downsample``; attributes may change later."""
        return not self.faithful

    def complete(self, x: Tensor) -> Tensor:
        """Pad (N, C, H, W) to sides that the stride divides."""
        if not self.faithful:
            return complete(x, self.strides, self.padding_mode)
        return pad_axes(x, [(-n % s, 0) for n, s in zip(x.shape[2:], self.strides, strict=True)], "reflect")

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Mix the phases of ``x``; the weights are per channel, so a choice of another branch is not used."""
        x = self.complete(x)
        if self.record_input and self.training:
            self._input = x if torch.is_grad_enabled() else None  # it would have no gradient, as in a checkpoint
        parameters = self.tau.weights()
        if not plain(x):
            return full_precision(lambda x: self._definition(x, *parameters), x, torch.float32)
        if is_whole(x):
            return mix(x, self.mixing_weights(x, *parameters), self.strides)
        return _Mixture.apply(self, x, *parameters)

    def mixing_weights(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """tau (N, C, phases), row by row, of completed maps; by default from the layer's own parameters."""
        filters, scale = parameters or self.tau.weights()
        return self._mixing_weights(self.psi(x, filters), scale)

    def psi(self, x: Tensor, filters: Tensor | None = None) -> Tensor:
        """``ReLU(depthwise 3 x 3 convolution of x)``, of completed maps; by default with the layer's own filters."""
        weight = renewed(self.tau.filter).weight if filters is None else filters
        padding = 1 if self.faithful or self.padding_mode == "zeros" else 0

        def convolved(x: Tensor) -> Tensor:
            x = _fast(x) if padding else pad_axes(_fast(x), [(1, 1), (1, 1)], self.padding_mode)
            return F.conv2d(x, weight.to(x.dtype), padding=padding, groups=len(weight)).relu()

        return full_precision(convolved, x)

    def _mixing_weights(self, psi: Tensor, scale: Tensor) -> Tensor:
        rows, columns = self.strides
        if self.faithful:
            # Means over cells: adaptive pooling, but fast in channels_last.
            lines = psi.permute(0, 2, 3, 1).unflatten(1, (rows, -1)).mean(2)
            means = lines.unflatten(2, (columns, -1)).mean(3).flatten(1, 2).transpose(1, 2)
        else:
            means = phase_reduce(psi, self.strides) / (psi.shape[2] * psi.shape[3] // (rows * columns))
        means = means.to(torch.promote_types(means.dtype, torch.float32))
        tau = (means * scale.to(means.dtype).flatten()[:, None]).softmax(2)
        # Cells are read row by row, phases column by column.
        return tau.unflatten(2, (columns, rows)).transpose(2, 3).flatten(2) if self.faithful else tau

    def _definition(self, x: Tensor, filters: Tensor, scale: Tensor) -> Tensor:
        filters, scale = filters.to(x.dtype), scale.to(x.dtype).flatten()
        y = tips_definition(x, filters, scale, self.strides, self.padding_mode, self.faithful)
        return y.contiguous(memory_format=memory_format(x))

    def auxiliary_losses(self, form: Form = "code", generator: Generator | None = None) -> tuple[Tensor, Tensor] | None:
        """``fm`` and ``undo``, see ``regularisers``, of the input of the last forward pass, which is then forgotten.

        ``None`` if no input was kept, which takes ``record_input``, training mode and gradients.
        """
        x, self._input = self._input, None
        return None if x is None else regularisers(self, x, generator, form=form)


class _Tau(nn.Module):
    """The parameters of the mixing weights, with the names and the initialisation of the published layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.scale = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)

    def weights(self) -> tuple[Tensor, Tensor]:
        return renewed(self.filter).weight, renewed(self.scale).weight


def _fast(x: Tensor) -> Tensor:
    """``x`` in the layout that is fastest for depthwise filters."""
    return x.contiguous(memory_format=torch.channels_last) if plain(x) and x.device.type == "cpu" else x


class _Mixture(torch.autograd.Function):
    """The phases of ``x`` mixed by tau of ``x``, a few images at a time from the weights to both gradients.

    Written out so that the maps stay in the cache and the two gradients of ``x`` meet there; psi is computed again
    for the gradient, which is cheaper than keeping it.
    """

    @staticmethod
    def forward(ctx: Any, layer: TIPS, x: Tensor, filters: Tensor, scale: Tensor) -> Tensor:
        ctx.layer = copy(layer)  # as it is now
        ctx.save_for_backward(x, filters, scale)
        (n, c, h, w), (rows, columns) = x.shape, layer.strides
        size = (n, c, h // rows, w // columns)
        y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
        for part, target in chunks(x, y):
            part = _fast(part)
            target.copy_(mix(part, layer.mixing_weights(part, filters, scale), layer.strides))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        if differentiated(grad):
            return None, *first_order(ctx.layer._definition, grad, x, *parameters)
        tau_of, strides = ctx.layer.mixing_weights, ctx.layer.strides
        grad_x, grad_parameters = torch.empty_like(x), [torch.zeros_like(parameter) for parameter in parameters]
        for part, grad_y, target in chunks(x, grad, grad_x):
            part, grad_y = _fast(part), _fast(grad_y)
            inputs = [tensor.detach().requires_grad_() for tensor in (part, *parameters)]
            with torch.enable_grad():
                tau = tau_of(*inputs)
            # Sums of float16 would pass 65504.
            total = partial(torch.sum, dim=(2, 3), dtype=torch.float32 if x.dtype == torch.float16 else x.dtype)
            products = torch.stack([total(grad_y * view) for view in slices(part, strides, strides)], 2)
            of_part, *of_parameters = torch.autograd.grad(tau, inputs, products.to(tau.dtype))
            side_by_side = tau.detach().to(x.dtype).movedim(2, 0).contiguous()
            for view, weight in zip(slices(of_part, strides, strides), side_by_side, strict=True):
                view.addcmul_(grad_y, weight[..., None, None])
            target.copy_(of_part)
            for sum_, addend in zip(grad_parameters, of_parameters, strict=True):
                sum_ += addend
        return None, grad_x, *grad_parameters


def regularisers(
    layer: TIPS, x: Tensor, generator: Generator | None = None, form: Form = "code"
) -> tuple[Tensor, Tensor]:
    """The two auxiliary losses of a TIPS layer on its input (N, C, H, W): scalars ``(fm, undo)``.

    ``fm`` judges the mixing weights by their l2 norm, which runs from 1/stride (uniform) to 1 (one phase). It is the
    mean over images and channels of ``1 - norm`` (``"code"``, as in the authors' code), ``(1 - stride^2) * norm``
    (``"linear"``, as a third party reads the paper) or ``(norm - (1 + 1/stride)/2)^2`` (``"two_sided"``, our choice:
    the other two only ever push towards one phase, although the paper is said to discourage both extremes).

    ``undo`` is the mean squared difference of psi(x) and x rolled by random whole pixels, detached (the authors mean
    to, but their target keeps its gradient). Shifts are uniform up to a quarter of the map (in the authors' script of
    the *network's* input) in every direction, drawn per image from ``generator``, a CPU generator; one draw for the
    whole batch if the layer is faithful.

    The authors train on ``0.65 * task + fm + 0.35 * undo``, the last term from 0.4 of the epochs on, each averaged
    over the layers.

    Raises:
        UsageError: unknown ``form``.
    """
    one_of("form", form, get_args(Form))
    x = layer.complete(x)
    filters, scale = layer.tau.weights()
    psi = layer.psi(x, filters)
    norm = torch.linalg.vector_norm(layer._mixing_weights(psi, scale), dim=2)
    if form == "code":
        fm = (1 - norm).mean()
    elif form == "linear":
        fm = (1 - prod(layer.strides)) * norm.mean()
    else:
        fm = (norm - (1 + 1 / sqrt(prod(layer.strides))) / 2).square().mean()

    n, (h, w) = x.shape[0], x.shape[2:]
    limit = torch.tensor((h // 4, w // 4))
    drawn = torch.rand(1 if layer.faithful else n, 2, generator=generator)
    shifts = sent((drawn * (2 * limit + 1)).long() - limit, x.device).expand(n, 2)
    return fm, F.mse_loss(psi, circular(x.detach(), shifts).to(psi.dtype))


class DDAC(Downsample):
    """Content-adaptive low-pass filter: softmax weights for every place and group of channels, then subsampling.

    The weights come from a dense convolution and a batch normalisation; they are positive, so every output is an
    average, but one pixel can take it all. The grid is fixed: not exact under shifts.

    By default the weights of each group sum to one, so constants are preserved, and everything is computed at the
    kept positions only. With ``faithful=True``, as in the authors' code, *all* groups together sum to one, a gain of
    about 1/groups, and the batch statistics are those of the full resolution.

    Source: Zou et al. 2020, "Delving Deeper into Anti-aliasing in ConvNets", from the authors' code. Departures:
    those of the default; a batch with a single value per channel is normalised by the running statistics; 8 groups
    as in their networks (the layer's own default is 2), fewer if ``channels`` asks for it.

    Args:
        padding_mode: beyond the border, for the filter and for the convolution that predicts it.
        size: side of the filter, odd, in pixels.
        groups: number of groups of consecutive channels with the same filter, a divisor of ``channels``; by default the
            greatest common divisor of ``channels`` and 8.
        faithful: joint softmax and batch statistics of the full resolution.

    Raises:
        UsageError: an even filter, groups that do not divide the channels, a stride outside 1 to 4.
    """

    def __init__(
        self,
        channels: int,
        stride: Stride = 2,
        padding_mode: PaddingMode = "reflect",
        *,
        size: int = 3,
        groups: int | None = None,
        faithful: bool = False,
        dims: int = 2,
    ) -> None:
        super().__init__(channels, stride, padding_mode, dims)
        groups = gcd(channels, 8) if groups is None else groups
        if size < 1 or size % 2 == 0:
            raise UsageError(f"ddac: size must be odd, got {size!r}")
        if groups < 1 or channels % groups:
            raise UsageError(f"ddac: groups must divide the {channels} channels, got {groups!r}")
        self.size, self.groups, self.faithful = size, groups, faithful
        self.predict = nn.Conv2d(channels, groups * size**2, size, bias=False)
        nn.init.kaiming_normal_(self.predict.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(groups * size**2)

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Filter and subsample ``x``; there is no choice to share."""
        strides = self.strides
        kernel = renewed(self.predict).weight
        if not plain(x):
            form = strides, self.padding_mode, self.groups
            y = ddac_definition(x, kernel, self._normalised, *form, faithful=self.faithful)
            return y.to(x.dtype).contiguous(memory_format=memory_format(x))
        padded = pad_axes(x, [(self.size // 2,) * 2] * 2, self.padding_mode)
        # Subsampling before the normalisation is exact where that has running statistics, and keeps to them.
        steady = not self.norm.training and getattr(self.norm, "running_mean", None) is not None
        everywhere = self.faithful and not steady
        scores = self._normalised(F.conv2d(padded, kernel, stride=1 if everywhere else strides))
        if everywhere:
            scores = scores[:, :, :: strides[0], :: strides[1]]
        grouped = (self.groups, 1, self.size**2)
        weights = scores.softmax(1).unflatten(1, grouped) if self.faithful else scores.unflatten(1, grouped).softmax(3)
        window = (self.size, self.size)
        y = weighted_slices(padded.unflatten(1, (self.groups, -1)), weights, window, strides).flatten(1, 2)
        return y.contiguous(memory_format=memory_format(x))

    def _normalised(self, scores: Tensor) -> Tensor:
        norm = self.norm
        alone = type(norm) is nn.BatchNorm2d  # others count the images of all processes
        if alone and norm.training and scores.shape[0] * scores.shape[2] * scores.shape[3] < 2:
            return F.batch_norm(scores, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return norm(scores)
