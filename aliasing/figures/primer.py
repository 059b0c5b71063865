"""Figures of the primer that the reader walks through: one filter after the other, one halving after the other."""

import numpy as np
import torch
from torch import Tensor

from .. import layers
from ..metrics import frequency_response
from ..plots import COLOURS, Captioned, Walk, grid, show

__all__ = ["FILTERS", "filters", "halvings", "split", "star"]

FILTERS = ("subsample", "rect-2", "tri-3", "bin-4", "bin-5", "bin-6", "bin-7", "flc", "asap")
HALVINGS, SPOKES = 4, 48
ALIAS = "#d55e00"


def star(size: int, spokes: int = SPOKES) -> Tensor:
    """Spokes that get finer towards the middle and fade where the grid of ``size`` pixels cannot hold them: (H, W)."""
    axis = torch.arange(size, dtype=torch.float64) - size / 2 + 0.5
    radius, angle = torch.hypot(axis[:, None], axis), torch.atan2(axis[:, None], axis.expand(size, size))
    finest = spokes / torch.pi  # at this radius a spoke and its gap take two pixels
    contrast = torch.sigmoid((radius - 1.15 * finest) / (0.05 * finest)) * torch.sigmoid(0.48 * size - radius)
    return 0.5 + 0.48 * contrast * torch.cos(spokes * angle)


def _create(name: str) -> layers.Downsample:
    return layers.create(name, channels=1, padding_mode="circular")


def split(image: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """What a linear layer makes of the frequencies that the halved grid can hold, and of the others: its aliases."""
    frequency = torch.fft.fftfreq(len(image)).abs() < 0.25
    low = torch.fft.ifft2(torch.fft.fft2(image) * (frequency[:, None] & frequency)).real
    layer = _create(name)
    held, folded = (layer(part[None, None])[0, 0] for part in (low, image - low))
    return held, folded


def _spectrum(image: Tensor, bins: int = 24) -> np.ndarray:
    """Root of the energy of an (H, W) map without its mean, in ``bins`` rings of equal width up to 0.5."""
    energy = torch.fft.fft2(image - image.mean(), norm="forward").abs().square()
    frequency = torch.fft.fftfreq(len(image), dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency)
    ring = (2 * bins * radius).long().clamp(max=bins)
    return torch.bincount(ring.flatten(), energy.flatten(), minlength=bins + 1)[:bins].sqrt().numpy()


def _filter(name: str, image: Tensor, top: float) -> Captioned:
    """One layer: its output, its response, the spectrum of its output up to the amplitude ``top``."""
    figure, (picture, response, spectrum) = grid(1, 3, width=9, height=3.0, width_ratios=[0.85, 1, 1])
    response.axvspan(0.25, 0.5, color="0.92", zorder=0)
    response.plot(np.arange(17) / 32, frequency_response(_create(name))[0, :17], color="#222222", marker="o", ms=4)
    response.text(0.375, 0.8, "folds back", ha="center", color="0.3")
    response.set(xlabel="frequency in (cycles per pixel)", ylabel="amplitude kept", xlim=(0, 0.5), ylim=(0, 1.08))
    held, folded = (_spectrum(part) for part in split(image, name))
    frequency = (np.arange(len(held)) + 0.5) / len(held) / 2
    spectrum.plot(frequency, held, color=COLOURS["bin-5"], marker="s", ms=4, label="true")
    spectrum.plot(frequency, folded, color=ALIAS, marker="^", ms=4, ls="--", label="alias")
    spectrum.set(xlabel="frequency out (cycles per pixel)", ylabel="amplitude", xlim=(0, 0.5), ylim=(0, top))
    spectrum.legend()
    picture.imshow(_create(name)(image[None, None])[0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    picture.axis("off")
    for axis, title in ((picture, "output"), (response, "response"), (spectrum, "spectrum of the output")):
        axis.set_title(f"{name}: {title}", fontsize=10)
    alt = (
        f"{name}: the spokes at half the size; amplitude kept against frequency; the spectrum of the output, split "
        "into true content and aliases."
    )
    return show(figure, "", alt, vector=False)


def filters() -> Captioned:
    """Response, spectrum and output of every linear layer, under a slider."""
    image = star(96)
    figure, axes = grid(2, 5, width=9, height=2.0)
    pictures = {"all pixels": image} | {name: _create(name)(image[None, None])[0, 0] for name in FILTERS}
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    shares = {}
    for name in ("subsample", "tri-3", "bin-7"):
        held, folded = (part.var() for part in split(image, name))
        shares[name] = f"{100 * folded / (held + folded):.1f} per cent with {name}"
    caption = (
        "Drag the slider, use the arrow keys, or press Play: nine layers halve the same spokes. Left: what comes "
        "out. Middle: what the layer keeps of a wave. Right: the spectrum of the output, split into what the small "
        f"grid can hold and the aliases of what it cannot. Aliases make up {', '.join(shares.values())} of the "
        f"variance. Computed by the layers of this package on a drawn picture of {len(image)} x {len(image)} pixels; "
        "nothing is trained."
    )
    alt = "Ten pictures of spokes: the original, and nine halved ones with false patterns or grey in the middle."
    still = show(figure, caption, alt, vector=False)
    top = 1.15 * max(_spectrum(part).max() for part in split(image, "subsample"))
    return Walk(still, {name: _filter(name, image, top) for name in FILTERS}, "layer", caption)


def _halved(names: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """The star, and what is left after each halving by each layer."""
    pictures = {}
    for name in names:
        pictures[name] = [star(256)]
        for _ in range(HALVINGS):
            pictures[name].append(_create(name)(pictures[name][-1][None, None])[0, 0])
    return pictures


def halvings() -> Captioned:
    """The same picture halved again and again, without and with a filter, under a slider."""
    names = ("subsample", "bin-5")
    pictures = _halved(names)
    whole, axes = grid(len(names), HALVINGS + 1, width=9, height=1.9)
    steps = {}
    for step in range(HALVINGS + 1):
        figure, pair = grid(1, len(names), width=7, height=3.5)
        side = len(pictures[names[0]][step])
        for name, small, large in zip(names, axes[:, step], pair, strict=True):
            for axis in (small, large):
                axis.imshow(pictures[name][step], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set_title(f"{name}, {side} x {side}", fontsize=9)
                axis.axis("off")
        alt = f"The spokes after {step} halvings, {side} pixels wide, without a filter and with one."
        steps[f"{step} halvings: {side} x {side} pixels"] = show(figure, "", alt, vector=False)
    caption = (
        "Drag the slider, use the arrow keys, or press Play: spokes, halved up to four times and drawn at one size. "
        "Left every second pixel is kept, and spokes and rings appear that were never there. Right the filter bin-5 "
        "goes before each halving: what the grid cannot hold turns grey. Nothing is trained."
    )
    alt = (
        "Two rows of five pictures, from fine to coarse. Above, false patterns grow from the middle until none of the "
        "spokes is left; below, a grey disc grows in the middle and the spokes around it stay true."
    )
    return Walk(show(whole, caption, alt, vector=False), steps, "halvings", caption)
