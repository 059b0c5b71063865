"""Polyphase sampling: keep one of the stride x stride grids of samples, chosen by what is in the picture.

Phase ``p = stride * i + j`` of a map is ``x[..., i::stride, j::stride]``. A rule that looks only at the content of
the phases, never at their order, chooses the same samples after any circular shift, so the output merely moves by
whole pixels. A network built of such layers, circular convolutions and a global average pool does not change at all,
provided that one phase serves all channels and both branches of a residual block, and that H and W stay divisible by
the stride (baselines: Chaman and Dokmanic 2021; Rojas-Gomez et al. 2022).
"""

from collections.abc import Iterable
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError, at_least, one_of
from ._matrices import full_precision, is_channels_last, plain
from ._phases import chunks, complete, pad_axes, phase_reduce, phases, take, take_definition
from .base import Downsample, PaddingMode, Stride, per_axis, renewed
from .blur import TAPS, Blur

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def aps_definition(x: Tensor, stride: Stride = 2, norm: float = 2) -> tuple[Tensor, Tensor]:
    """Chaman and Dokmanic 2021: stack the phases, compare their norms, keep the largest; also its number, (N,).

    In float32 or better, of (N, C, ...) whose sides the stride divides.
    """
    strides = per_axis(stride, x.dim() - 2)
    parts = phases(x.detach().to(torch.promote_types(x.dtype, torch.float32)), strides)
    chosen = torch.linalg.vector_norm(parts.flatten(2), norm, dim=2).argmax(1)
    return take_definition(x, chosen, strides), chosen


def lps_definition(
    x: Tensor, first: Convolution, second: Convolution, stride: Stride = 2, temperature: float | None = None
) -> Tensor:
    """Rojas-Gomez et al. 2022: the phase of the highest score; in training, with a ``temperature``, a mixture.

    The weights of the mixture are those of a Gumbel-softmax of the scores.
    """
    strides = per_axis(stride, x.dim() - 2)
    scores = lps_scores(x, first, second, strides)
    choice = scores.argmax(1) if temperature is None else F.gumbel_softmax(scores, temperature)
    return take_definition(x, choice, strides)


def lps_scores(x: Tensor, first: Convolution, second: Convolution, strides: tuple[int, ...]) -> Tensor:
    """Score of each phase, (N, phases): convolution, ReLU, convolution, all padded circularly, and the mean."""
    parts = phases(x, strides)
    h = parts.flatten(0, 1)
    for layer in (first, second):
        convolve = (F.conv1d, F.conv2d, F.conv3d)[h.dim() - 3]
        h = pad_axes(h.relu() if layer is second else h, [(1, 1)] * len(strides), "circular")
        h = convolve(h, *_weights(layer, x.dtype))
    return h.flatten(1).mean(1).view(parts.shape[:2])


def _weights(convolution: Convolution, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # By name: a parametrisation changes which parameters there are.
    convolution = renewed(convolution)
    return convolution.weight.to(dtype), convolution.bias.to(dtype)  # type: ignore[union-attr]


class Polyphase(Downsample):
    """What ``APS`` and ``LPS`` share: odd maps, the optional blur, and the use of a choice; they add ``pick``.

    Args:
        padding_mode: completes maps that the stride does not divide, at the bottom and right, and pads the blur.
        blur: name of a filter applied at stride 1 before sampling, for example ``"tri-3"``.
        choose_from: ``"blurred"``, the map that is sampled, or ``"input"``, the map before the blur.

    Raises:
        UsageError: unknown blur, padding mode or ``choose_from``, or a stride outside 1 to 4.
    """

    valid_dims = (1, 2, 3)

    def __init__(
        self,
        channels: int,
        stride: Stride = 2,
        padding_mode: PaddingMode = "circular",
        *,
        blur: str | None = None,
        choose_from: Literal["blurred", "input"] = "blurred",
        dims: int = 2,
    ) -> None:
        super().__init__(channels, stride, padding_mode, dims)
        self.choose_from = one_of("choose_from", choose_from, ("blurred", "input"))
        taps = 1 if blur is None else TAPS[one_of("blur", blur, TAPS)]
        self.blur = None if blur is None else Blur(channels, 1, padding_mode, taps=taps, dims=dims)

    def pick(self, x: Tensor) -> Tensor:
        """Choose among the phases of ``x``, whose sides the stride divides: (N,) or weights (N, phases)."""
        raise NotImplementedError

    def choose(self, x: Tensor) -> Tensor:
        """Choose for (N, C, H, W): an index (N,), or weights (N, phases) that sum to one."""
        return self.pick(self._complete(self._blurred(x) if self.choose_from == "blurred" else x))

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Take the chosen phase, or with weights their mixture; a choice of another branch can be handed in."""
        blurred = self._complete(self._blurred(x))
        if choice is None:
            choice = self.pick(blurred if self.choose_from == "blurred" else self._complete(x))
        return take(blurred, choice, self.strides)

    def forward(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """``sample``; by the layer's own choice, if none is handed in, blurring only once."""
        return self.sample(x, choice)

    def _blurred(self, x: Tensor) -> Tensor:
        return x if self.blur is None else self.blur(x)

    def _complete(self, x: Tensor) -> Tensor:
        return complete(x, self.strides, self.padding_mode)


class APS(Polyphase):
    """Adaptive polyphase sampling: the phase of largest norm over channels and space, one per image.

    Exactly equivariant to circular shifts (module docstring). Without parameters; the gradient flows through the
    selected samples, not through the choice. Phases of equal norm are resolved in favour of the lower index, which
    is harmless where they are equal (constant maps) but breaks exactness where they are not: phases of a
    mirror-symmetric map are mirror images of each other, tie under every norm, and would still tie after any linear
    filter under the l2 norm. The norm is computed in float32 or better, because bfloat16 makes ties of its own.

    Source: Chaman and Dokmanic 2021, "Truly Shift-Invariant Convolutional Neural Networks"; with ``blur`` the
    APS-n of their ImageNet code. Departures: strides 1, 3 and 4; phases counted row by row.

    Args:
        norm: order p > 0 of the norm, ``inf`` for the largest magnitude, or ``"max"`` for the largest signed value.
        smallest: take the phase of smallest norm, an ablation of the paper.
        padding_mode, blur: as in ``Polyphase``.
        choose_from: as in ``Polyphase``; the authors' CIFAR code uses ``"input"``, their ImageNet code ``"blurred"``.
    """

    def __init__(
        self,
        channels: int,
        stride: Stride = 2,
        padding_mode: PaddingMode = "circular",
        *,
        norm: float | str = 2,
        smallest: bool = False,
        blur: str | None = None,
        choose_from: Literal["blurred", "input"] = "blurred",
        dims: int = 2,
    ) -> None:
        super().__init__(channels, stride, padding_mode, blur=blur, choose_from=choose_from, dims=dims)
        try:
            sound = norm == "max" or float(norm) > 0
        except ValueError:
            sound = False
        if not sound:
            raise UsageError(f"aps: norm must be a number above 0, inf or 'max', got {norm!r}")
        self.norm, self.smallest = norm, smallest

    @property
    def order(self) -> float | None:
        """Of the norm; ``None`` stands for the largest signed value, which is no norm."""
        return None if self.norm == "max" else float(self.norm)

    def pick(self, x: Tensor) -> Tensor:
        """Index of the phase of largest (smallest) norm, (N,)."""
        x = x.detach()
        norms = torch.cat([self._norms(part) for (part,) in chunks(x)])
        best = norms.amax(1)
        looked_at = plain(x) and x.device.type == "cpu"
        ordinary = (best > 1e-25) & (best < 1e35)
        if self.order is not None and not (looked_at and bool(ordinary.all())):
            # Powers of very large or small values are infinite or zero, which would make ties; off the CPU, where
            # looking at the norms would wait for them, images are always divided by their largest magnitude.
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            finite = x.abs().flatten(1).nan_to_num(0.0, 0.0)  # an infinity stays one, whatever it is divided by
            largest = finite.amax(1).clamp_min(torch.finfo(x.dtype).tiny)
            scaled = self._norms(x / largest.view(-1, *[1] * (x.dim() - 1)))
            norms = torch.where(ordinary[:, None], norms, scaled) if looked_at else scaled  # of each image by itself
        return norms.argmin(1) if self.smallest else norms.argmax(1)

    def _norms(self, x: Tensor) -> Tensor:
        """An increasing function of the norm of each phase, (N, phases)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.order is None or self.order == float("inf"):
            return phase_reduce(x if self.order is None else x.abs(), self.strides, largest=True).amax(1)
        power = x.square() if self.order == 2 else x.abs().pow(self.order)
        if is_channels_last(power):
            return phase_reduce(power, self.strides).sum(1)
        # Channels first: they add up in the same pass as the rows.
        n, c, rows, *others = power.shape
        return phase_reduce(power.reshape(n, 1, c * rows, *others), self.strides).sum(1)


class LPS(Polyphase):
    """Learnable polyphase sampling: a small network scores each phase, one choice per image.

    In evaluation mode the phase of the highest score is taken, exactly equivariant to circular shifts. In training
    mode the output is a mixture of the phases under Gumbel-softmax weights, and **not** equivariant. The noise comes
    from the default generator of the device, so ``torch.manual_seed`` reproduces it. A lower ``temperature`` brings the
    mixtures closer to choices; ``on_epoch`` lets it fall geometrically from 1 to ``final_temperature``.

    The scoring network is a 3 x 3 convolution, ReLU, a 3 x 3 convolution, and the mean over channels and space; its
    padding is circular whatever ``padding_mode`` says, since any other breaks the layer. It is evaluated for all
    phases at once, as a convolution dilated by the stride; the second convolution is only ever seen through its mean,
    which under circular padding is the mean of its input times the sum of its taps. Scores are in float32 or better,
    except that those of bfloat16 maps are rounded to it while training, and their first convolution is in bfloat16.

    Source: Rojas-Gomez et al. 2022, "Learnable Polyphase Sampling for Shift Invariant and Equivariant Convolutional
    Networks"; the authors exempt the scoring network from weight decay. Departures: strides 1, 3 and 4; odd maps are
    completed under ``padding_mode``, where the authors use zeros.

    Args:
        hidden: channels inside the scoring network; C by default.
        temperature: of the Gumbel-softmax, above 0.
        padding_mode, blur, choose_from: as in ``Polyphase``.

    Attributes:
        final_temperature: the temperature of the last epoch of a training.
    """

    final_temperature: float = 0.5

    def __init__(
        self,
        channels: int,
        stride: Stride = 2,
        padding_mode: PaddingMode = "circular",
        *,
        hidden: int | None = None,
        temperature: float = 1.0,
        blur: str | None = None,
        choose_from: Literal["blurred", "input"] = "blurred",
        dims: int = 2,
    ) -> None:
        super().__init__(channels, stride, padding_mode, blur=blur, choose_from=choose_from, dims=dims)
        if not temperature > 0:
            raise UsageError(f"lps: temperature must be above 0, got {temperature!r}")
        self.temperature = temperature
        hidden = channels if hidden is None else hidden
        at_least("lps: hidden", hidden, 1)
        # They hold the parameters and their initialisation; ``logits`` evaluates them together.
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.first = convolution(channels, hidden, 3)
        self.second = convolution(hidden, hidden, 3)

    def no_weight_decay(self) -> Iterable[nn.Parameter]:
        """The scoring network, which the authors exempt from weight decay."""
        return [*self.first.parameters(), *self.second.parameters()]

    def on_epoch(self, progress: float) -> None:
        """Set the temperature for an epoch, ``progress`` being 0 in the first and 1 in the last."""
        self.temperature = self.final_temperature**progress

    def logits(self, x: Tensor) -> Tensor:
        """Score of each phase, (N, phases), of maps whose sides the stride divides."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if not plain(x):
            return full_precision(lambda x: lps_scores(x, self.first, self.second, self.strides), wide)
        # A mixture under noise needs no digits: in training bfloat16 is multiplied as it comes, three times as fast.
        mixed = self.training and x.dtype == torch.bfloat16
        return full_precision(self._scores, x if mixed else wide).to(wide.dtype)  # rounded, where mixed

    def _scores(self, x: Tensor) -> Tensor:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.dims - 1]
        weight, bias = _weights(self.first, x.dtype)
        padded = pad_axes(x, [(s, s) for s in self.strides], "circular")
        hidden = convolve(padded, weight, bias, dilation=self.strides).relu()
        dtype = torch.promote_types(x.dtype, torch.float32)
        mean = phase_reduce(hidden, self.strides).to(dtype) / (prod(x.shape[2:]) // prod(self.strides))
        second, shift = _weights(self.second, dtype)
        return torch.einsum("nhp,h->np", mean, second.flatten(2).sum(2).mean(0)) + shift.mean()

    def pick(self, x: Tensor) -> Tensor:
        """Index of the highest score (N,) in evaluation mode, weights (N, phases) in training mode."""
        logits = self.logits(x)
        if not self.training:
            return logits.argmax(1)
        noise = -torch.empty_like(logits).exponential_().clamp_min(torch.finfo(logits.dtype).tiny).log()
        return ((logits + noise) / self.temperature).softmax(1)
