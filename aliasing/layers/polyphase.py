"""Polyphase sampling: keep one of the stride x stride grids of samples, chosen by what is in the picture.

Phase ``p = stride * i + j`` of a map is ``x[..., i::stride, j::stride]``. A rule that looks only at the content of
the phases, never at their order, chooses the same samples after any circular shift, so the output merely moves by
whole pixels. A network built of such layers, circular convolutions and a global average pool does not change at all,
provided that one phase serves all channels and both branches of a residual block, and that H and W stay divisible by
the stride (baselines: Chaman and Dokmanic 2021; Rojas-Gomez et al. 2022).
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError, unknown
from ._matrices import is_channels_last
from ._phases import by_chunks, pad, phase_reduce, spread, take
from .base import Downsample, PaddingMode, check_padding_mode, check_stride
from .blur import Blur

__all__ = ["APS", "LPS", "Polyphase", "PolyphaseUpsample"]

_TAPS = {"rect-2": 2, "tri-3": 3, "bin-4": 4, "bin-5": 5, "bin-6": 6, "bin-7": 7}


class Polyphase(Downsample):
    """What ``APS`` and ``LPS`` share: odd maps, the optional blur, and the use of a choice; they add ``pick``.

    Args:
        channels: C.
        stride: 1 to 4.
        padding_mode: completes maps that the stride does not divide, at the bottom and right, and pads the blur.
        blur: name of a filter applied at stride 1 before sampling, for example ``"tri-3"``.
        choose_from: ``"blurred"``, the map that is sampled, or ``"input"``, the map before the blur.

    Raises:
        UsageError: unknown blur, padding mode or ``choose_from``, or a stride outside 1 to 4.
    """

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: PaddingMode = "circular",
        *,
        blur: str | None = None,
        choose_from: Literal["blurred", "input"] = "blurred",
    ) -> None:
        super().__init__()
        self.stride = check_stride(type(self).__name__.lower(), stride)
        self.padding_mode = check_padding_mode(padding_mode)
        if blur is not None and blur not in _TAPS:
            raise unknown("blur", blur, _TAPS)
        if choose_from not in ("blurred", "input"):
            raise unknown("choose_from", choose_from, ("blurred", "input"))
        self.choose_from = choose_from
        self.blur: nn.Module | None = (
            None if blur is None else Blur(channels, stride=1, padding_mode=padding_mode, taps=_TAPS[blur])
        )

    def pick(self, x: Tensor) -> Tensor:
        """Choose among the phases of ``x``, whose sides the stride divides: (N,) or weights (N, stride^2)."""
        raise NotImplementedError

    def choose(self, x: Tensor) -> Tensor:
        """Choose for (N, C, H, W): an index (N,), or weights (N, stride^2) that sum to one."""
        return self.pick(self._complete(self._blurred(x) if self.choose_from == "blurred" else x))

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Take the chosen phase, or with weights their mixture; a choice of another branch can be handed in."""
        blurred = self._complete(self._blurred(x))
        if choice is None:
            choice = self.pick(blurred if self.choose_from == "blurred" else self._complete(x))
        return take(blurred, choice, self.stride)

    def forward(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """``sample``; by the layer's own choice, if none is handed in, blurring only once."""
        return self.sample(x, choice)

    def filtered(self, x: Tensor) -> Tensor:
        """The map whose phases are sampled: ``x`` itself, or blurred."""
        return self._blurred(x)

    def _blurred(self, x: Tensor) -> Tensor:
        return x if self.blur is None else self.blur(x)

    def _complete(self, x: Tensor) -> Tensor:
        return pad(x, 0, -x.shape[2] % self.stride, 0, -x.shape[3] % self.stride, self.padding_mode)  # type: ignore[arg-type]


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
        channels: C; not used, any number of channels works.
        stride: 1 to 4.
        padding_mode: completes maps that the stride does not divide, at the bottom and right, and pads the blur.
        norm: order p > 0 of the norm, ``inf`` for the largest magnitude, or ``"max"`` for the largest signed value.
        smallest: take the phase of smallest norm, an ablation of the paper.
        blur: as in ``Polyphase``.
        choose_from: as in ``Polyphase``; the authors' CIFAR code uses ``"input"``, their ImageNet code ``"blurred"``.
    """

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: PaddingMode = "circular",
        *,
        norm: float | str = 2,
        smallest: bool = False,
        blur: str | None = None,
        choose_from: Literal["blurred", "input"] = "blurred",
    ) -> None:
        super().__init__(channels, stride, padding_mode, blur=blur, choose_from=choose_from)
        try:
            # None stands for the largest signed value, which is no norm.
            self.order = None if norm == "max" else float(norm)
        except ValueError:
            self.order = 0.0
        if self.order is not None and not self.order > 0:
            raise UsageError(f"aps: norm must be a number above 0, inf or 'max', got {norm!r}")
        self.smallest = smallest

    def pick(self, x: Tensor) -> Tensor:
        """Index of the phase of largest (smallest) norm, (N,)."""
        x = x.detach()
        norms = by_chunks(self._norms, x)
        return norms.argmin(1) if self.smallest else norms.argmax(1)

    def _norms(self, x: Tensor) -> Tensor:
        """An increasing function of the norm of each phase, (N, stride^2)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.order is None or self.order == float("inf"):
            return phase_reduce(x if self.order is None else x.abs(), self.stride, largest=True).amax(1)
        power = x.square() if self.order == 2 else x.abs().pow(self.order)
        if is_channels_last(power):
            return phase_reduce(power, self.stride).sum(1)
        # Channels first: they add up in the same pass as the rows.
        return phase_reduce(power.reshape(x.shape[0], 1, x.shape[1] * x.shape[2], x.shape[3]), self.stride).sum(1)


class LPS(Polyphase):
    """Learnable polyphase sampling: a small network scores each phase, one choice per image.

    In evaluation mode the phase of the highest score is taken, exactly equivariant to circular shifts. In training
    mode the output is a mixture of the phases under Gumbel-softmax weights, and **not** equivariant. The noise comes
    from the default generator of the device, so ``torch.manual_seed`` reproduces it. A lower ``temperature`` brings the
    mixtures closer to choices; ``on_epoch`` lets it fall geometrically from 1 to ``final_temperature``.

    The scoring network is a 3 x 3 convolution, ReLU, a 3 x 3 convolution, and the mean over channels and space; its
    padding is circular whatever ``padding_mode`` says, since any other breaks the layer. It is evaluated for all
    phases at once, as a convolution dilated by the stride; the second convolution is only ever seen through its mean,
    which under circular padding is the mean of its input times the sum of its taps. Scores are in float32 or better.

    Source: Rojas-Gomez et al. 2022, "Learnable Polyphase Sampling for Shift Invariant and Equivariant Convolutional
    Networks"; the authors exempt the scoring network from weight decay. Departures: strides 1, 3 and 4; odd maps are
    completed under ``padding_mode``, where the authors use zeros.

    Args:
        channels: C.
        stride: 1 to 4.
        padding_mode: completes maps that the stride does not divide, at the bottom and right, and pads the blur.
        hidden: channels inside the scoring network; C by default.
        temperature: of the Gumbel-softmax, above 0.
        blur: as in ``Polyphase``.
        choose_from: as in ``Polyphase``.

    Attributes:
        final_temperature: the temperature of the last epoch of a training.
    """

    final_temperature: float = 0.5

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: PaddingMode = "circular",
        *,
        hidden: int | None = None,
        temperature: float = 1.0,
        blur: str | None = None,
        choose_from: Literal["blurred", "input"] = "blurred",
    ) -> None:
        super().__init__(channels, stride, padding_mode, blur=blur, choose_from=choose_from)
        if not temperature > 0:
            raise UsageError(f"lps: temperature must be above 0, got {temperature!r}")
        self.temperature = temperature
        hidden = channels if hidden is None else hidden
        if hidden < 1:
            raise UsageError(f"lps: hidden must be 1 or more, got {hidden}")
        # They hold the parameters and their initialisation; ``logits`` evaluates them together.
        self.first = nn.Conv2d(channels, hidden, 3)
        self.second = nn.Conv2d(hidden, hidden, 3)

    def no_weight_decay(self) -> Iterable[nn.Parameter]:
        """The scoring network, which the authors exempt from weight decay."""
        return [*self.first.parameters(), *self.second.parameters()]

    def on_epoch(self, progress: float) -> None:
        """Set the temperature for an epoch, ``progress`` being 0 in the first and 1 in the last."""
        self.temperature = self.final_temperature**progress

    def logits(self, x: Tensor) -> Tensor:
        """Score of each phase, (N, stride^2), of maps whose sides the stride divides."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        weight, bias, second, shift = (
            parameter.to(x.dtype) for module in (self.first, self.second) for parameter in module.parameters()
        )
        s, phase_area = self.stride, x.shape[2] * x.shape[3] // self.stride**2
        with torch.autocast(x.device.type, enabled=False):
            hidden = F.conv2d(pad(x, s, s, s, s, "circular"), weight, bias, dilation=s).relu()
            mean = phase_reduce(hidden, s) / phase_area
            return torch.einsum("nhp,h->np", mean, second.sum((2, 3)).mean(0)) + shift.mean()

    def pick(self, x: Tensor) -> Tensor:
        """Index of the highest score (N,) in evaluation mode, weights (N, stride^2) in training mode."""
        logits = self.logits(x)
        if not self.training:
            return logits.argmax(1)
        noise = -torch.empty_like(logits).exponential_().clamp_min(torch.finfo(logits.dtype).tiny).log()
        return ((logits + noise) / self.temperature).softmax(1)


class PolyphaseUpsample(nn.Module):
    """Undo a polyphase downsampling: every sample goes back to the place it was taken from, zeros elsewhere.

    With the choice of the matching ``APS`` or ``LPS``, down- and upsampling together are exactly equivariant to
    circular shifts, which is what an equivariant decoder needs. With weights (``LPS`` in training) the samples are
    spread over the phases.

    Source: Rojas-Gomez et al. 2022 (LPU); Chaman and Dokmanic 2021, "Truly shift-equivariant convolutional neural
    networks with adaptive polyphase upsampling" (APS-U).

    Args:
        channels: C.
        stride: 1 to 4.
        padding_mode: of the blur.
        blur: name of a low-pass filter applied afterwards with gain stride^2, which fills the zeros.
    """

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: PaddingMode = "circular", *, blur: str | None = None
    ) -> None:
        super().__init__()
        self.stride = check_stride("upsample", stride)
        if blur is not None and blur not in _TAPS:
            raise unknown("blur", blur, _TAPS)
        self.blur: nn.Module | None = (
            None if blur is None else Blur(channels, stride=1, padding_mode=padding_mode, taps=_TAPS[blur])
        )

    def forward(self, x: Tensor, choice: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, *size), by default ``stride`` times as large; see ``spread``."""
        y = spread(x, choice, self.stride, size)
        return y if self.blur is None else self.blur(y) * self.stride**2
