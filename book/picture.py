"""Draws the moving picture of the landing page and the README: ``python book/picture.py``."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from aliasing import layers

FOLDER = Path(__file__).parent / "_static"
SIZE, SIDE, STROKE = 64, 32, 1.6  # pixels
SHIFTS = np.arange(0, 12, 0.25)  # three times the four pixels after which every second grid repeats: the film joins up
LAYERS = {"subsample": ("every second pixel, twice", "#d55e00"), "bin-5": ("blurred before each halving", "#0072b2")}


def window(dx: float) -> torch.Tensor:
    """A window frame of thin bars, ``dx`` pixels right of its start: an (H, W) image in [0, 1], exact at any ``dx``."""
    y, x = torch.meshgrid(torch.arange(SIZE) - SIZE / 2, torch.arange(SIZE) - SIZE / 2 + 6 - dx, indexing="ij")

    def bars(across: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
        distance = torch.stack([(across - centre).abs() for centre in (-SIDE / 2, 0, SIDE / 2)]).amin(0)
        return torch.sigmoid(4 * (STROKE / 2 - distance)) * torch.sigmoid(4 * ((SIDE + STROKE) / 2 - along.abs()))

    return 0.15 + 0.85 * torch.maximum(bars(x, y), bars(y, x))


def quarter(image: torch.Tensor, name: str) -> torch.Tensor:
    """Halved twice with the layer ``name``."""
    layer = layers.create(name, channels=1)
    return layer(layer(image[None, None]))[0, 0]


def response(image: torch.Tensor) -> float:
    """The mean of a rectified Sobel filter, which answers to upright bars."""
    edges = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]]) / 4
    return float(F.relu(F.conv2d(image[None, None], edges)).mean())


def frame(index: int, curves: dict[str, np.ndarray]) -> Image.Image:
    """One frame: three pictures, and below them the curves up to now."""
    figure = plt.figure(figsize=(7.2, 4.0), dpi=100, layout="constrained", facecolor="white")
    places = figure.subplot_mosaic([["input", *LAYERS], ["curves"] * 3], height_ratios=[1.7, 1])
    image = window(SHIFTS[index])
    pictures = {"input": image} | {name: quarter(image, name) for name in LAYERS}
    titles = {"input": f"moved by {SHIFTS[index]:5.2f} pixels"} | {name: title for name, (title, _) in LAYERS.items()}
    for name, picture in pictures.items():
        places[name].imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        places[name].set_title(titles[name], fontsize=10, color=LAYERS[name][1] if name in LAYERS else "0.1")
        places[name].axis("off")
    ax = places["curves"]
    for name, (_, colour) in LAYERS.items():
        ax.plot(SHIFTS, curves[name], color=colour, alpha=0.3)
        ax.plot(SHIFTS[: index + 1], curves[name][: index + 1], color=colour)
        ax.plot(SHIFTS[index], curves[name][index], "o", color=colour)
    ax.set(xlabel="shift (pixels)", ylabel="edge response", xlim=(0, SHIFTS[-1]), ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    plt.close(figure)
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def main() -> None:
    """Draw all frames; the still one is that in which the response without a blur is weakest."""
    curves = {name: np.array([response(quarter(window(dx), name)) for dx in SHIFTS]) for name in LAYERS}
    frames = [frame(index, curves) for index in range(len(SHIFTS))]
    frames[int(np.argmin(curves["subsample"]))].quantize(64).save(FOLDER / "one-pixel.png", optimize=True)
    samples = [np.asarray(picture) for picture in frames[::4]]
    palette = Image.fromarray(np.concatenate(samples)).quantize(64)
    film = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in frames]
    film[0].save(FOLDER / "one-pixel.gif", save_all=True, append_images=film[1:], duration=120, loop=0, optimize=True)


if __name__ == "__main__":
    main()
