"""Pictures for the chapter on Grabinski et al. 2023 that need no training: what each layer does to waves and edges."""

import math

import numpy as np
import torch
from torch import Tensor

from .. import datasets, layers
from ..metrics import frequency_response, leakage, step_overshoot
from ..plots import COLOURS, MARKERS, Captioned, grid, show

__all__ = ["SHOWN", "defect", "edges", "gallery", "leaks", "pipeline", "responses", "zone_plate"]

# Names in the pictures, with the layer and its options.
SHOWN: dict[str, tuple[str, dict]] = {
    "subsample": ("subsample", {}),
    "tri-3": ("tri-3", {"padding_mode": "circular"}),
    "flc": ("flc", {}),
    "asap": ("asap", {"faithful": True}),
    "asap, kept band": ("asap", {"variant": "kept-band"}),
}


def _create(shown: str) -> layers.Downsample:
    name, options = SHOWN[shown]
    return layers.create(name, channels=1, **options)


def _look(shown: str) -> dict:
    name = SHOWN[shown][0]
    return {"color": COLOURS[name], "marker": MARKERS[name], "ls": "--" if shown != name else "-", "label": shown}


def zone_plate(size: int = 128) -> Tensor:
    """Rings that get finer outwards, up to the highest frequency of the grid at the edges: (1, 1, size, size)."""
    position = torch.arange(size) - size / 2
    squares = position.square()
    return 0.5 + 0.5 * torch.cos(math.pi * (squares[:, None] + squares) / size)[None, None]


def gallery() -> Captioned:
    """Figure 1 of the journal version, with rings instead of a zebra: one picture halved again and again."""
    rows = {"max": layers.create("max", 1)} | {name: _create(name) for name in SHOWN}
    figure, axes = grid(len(rows), 4, width=8, height=2.0)
    for line, (name, layer) in zip(axes, rows.items(), strict=True):
        picture = zone_plate()
        for halvings, axis in enumerate(line):
            axis.imshow(picture[0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if halvings == 0:
                axis.set_ylabel(name)
            axis.set_title(f"{picture.shape[-1]} x {picture.shape[-1]}", fontsize=8)
            picture = layer(picture)
    return show(
        figure,
        "A zone plate, whose rings reach the highest frequency of the grid at the edges, halved three times. Max and "
        "subsample invent rings that are not there; the triangle filter fades them; FLC cuts them off and leaves faint "
        "echoes of the cut; ASAP (the published operator) fades a little before it cuts, and darkens the border; the "
        "variant that fades the kept band, ours, leaves none. Computed by the package's layers alone.",
        "Six rows of four pictures. Max and subsample: false rings in the corners and edges; tri-3, flc and asap: "
        "only the central rings remain, on grey.",
        vector=False,
    )


def pipeline() -> Captioned:
    """Figure 3 of the journal version: transform, cut (and smooth the cut), transform back."""
    picture = datasets.load("shapes", "test", count=5, seed=1).images[4:].float().mean(1, keepdim=True) / 255
    spectrum = torch.fft.fftshift(torch.fft.fft2(picture[0, 0], norm="forward")).abs().clamp(min=1e-5).log10()
    taper = torch.hamming_window(32, periodic=True).sqrt()
    panels = (
        ("picture", picture[0, 0], "gray", 0, 1),
        ("its spectrum", spectrum, "magma", -4, -1),
        ("FLC keeps", spectrum[8:24, 8:24], "magma", -4, -1),
        ("FLC returns", _create("flc")(picture)[0, 0], "gray", 0, 1),
        ("ASAP's weights", taper.outer(taper)[8:24, 8:24], "gray", 0, 1),
        ("ASAP returns", _create("asap")(picture)[0, 0], "gray", 0, 1),
    )
    figure, axes = grid(1, 6, width=11, height=2.2)
    for axis, (title, values, colours, low, high) in zip(axes, panels, strict=True):
        axis.imshow(values, cmap=colours, vmin=low, vmax=high)
        axis.set(xticks=[], yticks=[], title=title)
        axis.grid(False)
    return show(
        figure,
        "FLC pooling: transform the map, keep the central quarter of the spectrum, transform back. ASAP first weighs "
        "the spectrum with the root of a Hamming window, of which the kept part is shown: 1 in the middle, 0.73 at the "
        "edges, 0.54 in the corners. The spectrum is the logarithm of the magnitude, frequency 0 in the middle. The "
        "transforms are only drawn; the package's layers are the equivalent matrices. Picture: shapes, test.",
        "Six panels: a striped shape, its spectrum, the central quarter of it, the halved shape with checks instead, "
        "a soft hump of weights, and the halved shape with a darker border.",
        vector=False,
    )


def responses() -> Captioned:
    """Amplitude gain of every layer for waves of all frequencies along one axis."""
    figure, axis = grid(width=7, height=3.4)
    frequency = np.arange(17) / 32
    for name in SHOWN:
        axis.plot(frequency, frequency_response(_create(name))[0, :17], markevery=2, **_look(name))
    axis.axvline(0.25, color="#999999", lw=1, ls=":")
    axis.set_xlabel("frequency (cycles per pixel)")
    axis.set_ylabel("amplitude gain")
    axis.legend()
    return show(
        figure,
        "Amplitude gain for waves of whole periods per map (32 x 32), along one axis. Right of the dotted line a wave "
        "is too fast for the halved grid, and whatever passes comes back as an alias. The paper's window still weighs "
        "0.73 at the cut; the dashed variant, ours, brings it down to 0.08. Published operators, tri-3 periodic.",
        "Gain against frequency: constant 1 for subsample, a falling cosine for tri-3, a box for flc, a falling curve "
        "that drops at the cut for asap, and one that fades before the cut for the kept-band variant.",
    )


def edges() -> Captioned:
    """Step responses: the ringing that a hard cut of the spectrum leaves at an edge."""
    figure, axes = grid(1, 5, width=11, height=2.4, sharey=True)
    edge = ((torch.arange(64) >= 16) & (torch.arange(64) < 48)).float().expand(1, 1, 64, 64)
    for axis, name in zip(axes, SHOWN, strict=True):
        row = _create(name)(edge)[0, 0, 16]
        axis.plot(2 * np.arange(len(row)), row, color=COLOURS[SHOWN[name][0]], marker=".")
        axis.axhline(1, color="#999999", lw=1, ls=":")
        axis.axhline(0, color="#999999", lw=1, ls=":")
        axis.set_title(f"{name}\novershoot {step_overshoot(_create(name), border=False)[0]:.1%}", fontsize=9)
    axes[0].set_ylabel("value")
    figure.supxlabel("position (input pixels)")
    return show(
        figure,
        "A step from 0 to 1 and back, halved; middle row of a 64 x 64 map; the overshoot is the largest "
        "over four positions of the step. A hard cut of the spectrum rings at the "
        "edge (Gibbs), and the paper's window takes little of it away; fading the kept band out removes it.",
        "Five step responses: clean for subsample and tri-3, ripples for flc and asap, almost none for the kept-band "
        "variant.",
    )


def leaks() -> Captioned:
    """Energy passed above the cut, for waves on the bins and half-way between them."""
    figure, axes = grid(1, 2, width=9.5, height=3.4, sharey=True)
    means = []
    for axis, half in zip(axes, (False, True), strict=True):
        for name in SHOWN:
            found = leakage(_create(name), half_bin=half)
            energy = found.energy[found.stopped]
            axis.semilogy(found.frequency[found.stopped], energy.clamp(min=1e-6), markevery=3, **_look(name))
            if half:
                means.append(f"{name} {energy.mean():.2%}")
        axis.set_title("half-way between the bins" if half else "on the bins of the transform")
        axis.set_xlabel("frequency (cycles per pixel)")
        axis.set_ylim(5e-7, 2)
    axes[0].set_ylabel("share of energy passed")
    axes[1].legend(fontsize=8)
    return show(
        figure,
        f"Energy that each layer passes of waves too fast for the halved grid (64 x 64 maps; values below 10^-6 are "
        f"drawn there). Between the bins, where the wave does not close up at the border, the mean is "
        f"{', '.join(means)}.",
        "Two panels of leakage against frequency. On the bins flc lies at the floor; between them it leaks like the "
        "others, most next to the cut.",
    )


def defect() -> Captioned:
    """The one-bin defect of the reference: a constant map of 14 x 14 comes out as waves."""
    constant = torch.ones(1, 1, 14, 14)
    figure, axes = grid(1, 2, width=6, height=2.6)
    spread = []
    for axis, faithful in zip(axes, (True, False), strict=True):
        out = layers.create("flc", 1, faithful=faithful)(constant)[0, 0]
        image = axis.imshow(out, cmap="gray", vmin=-1.2, vmax=1.2)
        axis.set(xticks=[], yticks=[], title="published code" if faithful else "this package")
        axis.grid(False)
        spread.append(f"{out.min():.2f} to {out.max():.2f}")
    figure.colorbar(image, ax=axes, shrink=0.8, label="value")
    return show(
        figure,
        f"FLC pooling of a constant map of 14 x 14 pixels, the last but one map of a ResNet at 224 pixels. The "
        f"published crop puts every frequency one bin too high whenever the length is twice an odd number: values "
        f"{spread[0]} instead of 1. Ours: {spread[1]}. Lengths divisible by four are not affected.",
        "Left: diagonal stripes between -0.9 and 1. Right: uniform.",
        vector=False,
    )
