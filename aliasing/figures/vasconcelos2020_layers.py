"""Figures of the chapter on Vasconcelos et al. 2020 that need no trained network: kernels, orders, units.

Every function computes from the package's layers and returns a captioned figure.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..layers.blur import binomial, blur
from ..metrics.bands import low_pass
from ..models.blocks import ACTIVATIONS
from ..plots import COLOURS, Captioned, grid, show

__all__ = ["harmonics", "order", "places", "representable"]

STYLES = (("#222222", "-"), ("#777777", "--"), ("#3d8fc6", "-."), ("#08306b", ":"))


def places() -> Captioned:
    """Where the filters go."""
    figure, axis = grid(width=9, height=3.4)
    axis.set(xlim=(0, 10.4), ylim=(0, 4))
    axis.axis("off")
    row = [(0.2, "conv 7x7"), (1.7, "dense max"), (3.2, "blur, /2")]
    main = [(5.0, "conv 3x3"), (6.3, "blur, /2"), (7.6, "norm, act,\nconv 3x3")]
    skip = [(5.6, "blur, /2"), (7.1, "conv 1x1")]
    arrow = {"arrowstyle": "->", "color": "#222222"}
    for height, chain in ((2, row), (3.2, main), (0.8, skip)):
        for x, text in chain:
            blurred = text.startswith("blur")
            colour = COLOURS["tri-3"] if blurred else "#eeeeee"
            box = {"boxstyle": "round,pad=0.4", "fc": colour, "ec": "#222222", "lw": 2 if blurred else 0.8}
            axis.text(x, height, text, bbox=box, ha="left", va="center", fontsize=9)
        for (x, _), (following, _) in pairwise(chain):
            axis.annotate("", (following - 0.1, height), (x + 0.95, height), arrowprops=arrow)
    for start, end in (
        ((4.1, 2), (4.9, 3.2)),
        ((4.1, 2), (5.5, 0.8)),
        ((8.8, 3.2), (9.6, 2.1)),
        ((8.1, 0.8), (9.6, 1.9)),
    ):
        axis.annotate("", end, start, arrowprops=arrow)
    axis.text(9.7, 2, "+ , act", ha="left", va="center")
    for x, y, text in ((3.55, 1.4, "pool"), (6.7, 2.55, "conv"), (6.0, 0.2, "skip")):
        axis.text(x, y, text, ha="center", style="italic")
    return show(
        figure,
        "The three places where a residual network halves its maps, and where the filter goes. Left: max-pool, as a "
        "dense "
        "maximum, then filter and subsampling. Right: a block that halves; on the main branch the filter follows the "
        "convolution, on the shortcut it comes before the 1 x 1 convolution, which makes no difference but in cost.",
        "Diagram: convolution, dense maximum and blur in a row, then two branches, convolution-blur-norm-convolution "
        "and blur-1x1-convolution, that are added.",
    )


def representable() -> Captioned:
    """The best low-pass that a kernel of width 1, 3, 5 or 7 can be."""
    omega = np.linspace(0, np.pi, 401)
    figure, axis = grid(width=7, height=3.4)
    axis.fill_between(omega / np.pi, (omega < np.pi / 2).astype(float), color="#dddddd", step="mid", label="ideal")
    errors = []
    for taps, (colour, line) in zip((1, 3, 5, 7), STYLES, strict=True):
        kernel, error = low_pass(taps)
        place = np.arange(taps) - taps // 2
        axis.plot(
            omega / np.pi, np.cos(np.outer(omega, place)) @ kernel.numpy(), line, color=colour, label=f"width {taps}"
        )
        errors.append(f"{error:.3f} for width {taps}")
    axis.set_xlabel("frequency (multiples of pi; beyond 0.5 it aliases when every second pixel is kept)")
    axis.set_ylabel("response")
    axis.legend(ncol=3)
    return show(
        figure,
        "The symmetric kernels nearest to the ideal low-pass, by least squares over all frequencies. Every two taps "
        "add one cosine to the response; a single tap has none, so its response is flat. Mean squared error: "
        f"{', '.join(errors)}. "
        "Width 5 is no better than 3: the taps at distance two are those of a sinc at its zeros.",
        "Frequency responses against an ideal step: a flat line for width 1, one cosine arch for 3 and 5, a steeper "
        "edge with ripples for 7.",
    )


def order() -> Captioned:
    """Filter in front of a convolution or behind it: their difference, place by place, and that of their gradients."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, 16, generator=generator, dtype=torch.float64)
    weight = torch.randn(8, 4, 3, 3, generator=generator, dtype=torch.float64)
    figure, axes = grid(1, 2, width=8, height=3.4)
    notes = []
    for axis, mode in zip(axes, ("zeros", "circular"), strict=True):
        before, behind = (_filtered(x, weight, mode, first) for first in (True, False))
        gap = (before[0] - behind[0]).abs().amax((0, 1))
        inner = gap[2:-2, 2:-2].max().item()
        slope = ((before[1] - behind[1]).norm() / behind[1].norm()).item()
        picture = axis.imshow(gap, cmap="viridis", vmin=0)
        axis.grid(False)
        axis.set(title=f"{mode} padding", xlabel="x (pixels)", ylabel="y (pixels)")
        figure.colorbar(picture, ax=axis, shrink=0.8, format="%.1e")
        notes.append(
            f"{mode}: inside at most {inner:.0e}, at the border {gap.max():.1e}, relative difference of the kernel's "
            f"gradient {slope:.0e}"
        )
    return show(
        figure,
        "Largest difference between filter-then-convolution and convolution-then-filter, for each place of a 16 x 16 "
        f"map (random maps of unit variance, random 3 x 3 kernels, bin-5, double precision). {'. '.join(notes)}.",
        "Two heat-maps: with zero padding a bright frame around a dark interior; with circular padding only rounding "
        "noise.",
        vector=False,
    )


def _filtered(x: Tensor, weight: Tensor, mode: str, first: bool) -> tuple[Tensor, Tensor]:
    """The map and the gradient of its square sum with respect to the kernel."""
    kernel, taps = weight.clone().requires_grad_(), binomial(5)

    def convolved(z: Tensor) -> Tensor:
        padded = F.pad(z, (1, 1, 1, 1), mode="constant" if mode == "zeros" else mode)
        return F.conv2d(padded, kernel)

    y = convolved(blur(x, taps, 1, mode)) if first else blur(convolved(x), taps, 1, mode)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(y.square().sum(), kernel)
    return y.detach(), slope


def harmonics() -> Captioned:
    """New frequencies that each activation makes of one cosine, and how many of them would alias."""
    length, cycles = 1024, 8
    wave = torch.cos(2 * torch.pi * cycles * torch.arange(length, dtype=torch.float64) / length)
    figure, axis = grid(width=7, height=3.4)
    multiples = torch.tensor([1, 2, 4, 6, 8, 10, 12])  # the odd ones but the first are none
    shares = []
    for (name, build), (colour, line), marker in zip(ACTIVATIONS.items(), STYLES, "os^D", strict=True):
        power = torch.fft.rfft(build()(wave.clone()), norm="forward").abs().square()[cycles * multiples]
        visible = power / power.sum()
        axis.semilogy(multiples, visible.clamp_min(1e-12), line, color=colour, marker=marker, label=name)
        shares.append(f"{visible[1:].sum():.1%} for {name}")
    axis.set(xlabel="multiple of the input's frequency", ylabel="share of power", ylim=(1e-9, 2))
    axis.legend()
    return show(
        figure,
        "A cosine of amplitude one passes an activation and comes out with overtones: every point is the share of one "
        f"multiple of its frequency (the mean left out). Power in all overtones: {', '.join(shares)}. Smooth "
        "activations "
        "make fewer, above all far up, but none makes none. Overtones beyond the Nyquist frequency alias at once.",
        "Share of power against overtone number on a logarithmic scale: ReLU falls slowly, GELU and SiLU quickly, "
        "softplus most quickly.",
    )
