"""What a procedural image shows, drawn from one seed: the numbers that ``shapes.render`` turns into pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import UsageError
from .imageset import SPLITS, check_split

SHAPES = ("disc", "square", "triangle", "plus", "ring")
TEXTURES = ("upright", "level")  # the axis that the stripes are nearer to
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)

WAVES, STROKES = 8, 5
DRAWS = 128  # uniform numbers reserved for every image


@dataclass(frozen=True, eq=False)
class Scenes:
    """Everything N images are rendered from; positions are (y, x) in pixels, angles in radians, colours in [0, 1]."""

    size: int
    labels: Tensor  # (N,) shape * 2 + texture
    centre: Tensor  # (N, 2)
    radius: Tensor  # (N,)
    rotation: Tensor  # (N,)
    stretch: Tensor  # (N,) log of the ratio between width and radius
    colour: Tensor  # (N, 3) of the object
    grating: Tensor  # (N, 2) angular frequency of the texture, radians per pixel
    phase: Tensor  # (N,) of the texture at the object's centre
    contrast: Tensor  # (N,) amplitude of the texture
    ground: Tensor  # (N, 3) mean colour of the background
    waves: Tensor  # (N, WAVES, 2) angular frequencies of the background
    wave_phase: Tensor  # (N, WAVES)
    wave_colour: Tensor  # (N, WAVES, 3) amplitudes
    stroke_ends: Tensor  # (N, STROKES, 2, 2) both ends of each stroke
    stroke_width: Tensor  # (N, STROKES) half widths
    stroke_colour: Tensor  # (N, STROKES, 3)
    stroke_front: Tensor  # (N, STROKES) 1 before the object, 0 behind it
    noise_seed: Tensor  # (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> Scenes:
        chosen = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "size"}
        return replace(self, **chosen)


def sample(
    count: int, seed: int = 0, split: str = "train", position_sigma: float | str = 3.0, size: int = 32
) -> Scenes:
    """Draw `count` scenes; scene i depends on (seed, split, i) and has class i modulo 10.

    `position_sigma` is the photographer's bias: the standard deviation of the object's centre around the middle of the
    image, per axis, in pixels (0: always in the middle; "uniform": anywhere). It moves the object, nothing else.
    Objects and strokes grow with `size`; the texture and the noise keep their scale in pixels.
    """
    check_split(split)
    if count < 0 or seed < 0 or size < 16:
        raise UsageError(f"count and seed must be >= 0 and size >= 16, got {count}, {seed} and {size}")
    sigma = _sigma(position_sigma)
    generator = torch.Generator().manual_seed(len(SPLITS) * seed + SPLITS.index(split))
    # One row of uniform numbers per image, so that no image depends on how many are drawn.
    table = torch.rand(count, DRAWS, generator=generator, dtype=torch.float64)
    taken = 0

    def unit(*shape: int) -> Tensor:
        nonlocal taken
        start, taken = taken, taken + math.prod(shape)
        return table[:, start:taken].reshape(count, *shape)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * unit(*shape)).float()

    scale = size / 32
    labels = torch.arange(count) % len(CLASSES)
    noise_seed = (unit() * 2**53).long()
    centre = _centre(unit(2), sigma, size).float()
    # Stripes run nearer to one axis or to the other: folding one component of the frequency can swap the two.
    angle = math.pi / 8 + labels % 2 * (math.pi / 4) + uniform(-0.3, 0.3)
    grating = torch.stack((angle.sin(), angle.cos()), -1) * (2 * math.pi / uniform(2.3, 3.8))[:, None]

    ground = uniform(0.35, 0.65)[:, None] + uniform(-0.1, 0.1, 3)
    side = torch.where(unit() < 0.5, -1.0, 1.0).float()
    chroma = uniform(-1, 1, 3)
    chroma = chroma / chroma.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    colour = ground + (side * uniform(0.3, 0.6))[:, None] * (0.75 + 0.25 * chroma)

    period = 3 * (30 / 3) ** unit(WAVES).float()
    direction = uniform(0, 2 * math.pi, WAVES)
    amplitude = 0.14 * period / period.norm(dim=-1, keepdim=True)  # low frequencies dominate, as in photographs
    middle = uniform(-0.1, 1.1, STROKES, 2) * size
    bearing = uniform(0, math.pi, STROKES)
    half = (torch.stack((bearing.sin(), bearing.cos()), -1) * uniform(2, 8, STROKES)[..., None]) * scale

    return Scenes(
        size=size,
        labels=labels,
        centre=centre,
        radius=uniform(6.5, 10.5) * scale,
        rotation=uniform(-0.5, 0.5),
        stretch=uniform(-0.05, 0.05),
        colour=colour,
        grating=grating,
        phase=uniform(0, 2 * math.pi),
        contrast=uniform(0.1, 0.3),
        ground=ground,
        waves=torch.stack((direction.sin(), direction.cos()), -1) * (2 * math.pi / period)[..., None],
        wave_phase=uniform(0, 2 * math.pi, WAVES),
        wave_colour=amplitude[..., None] * uniform(0.6, 1.0, WAVES, 3),
        stroke_ends=torch.stack((middle - half, middle + half), -2),
        stroke_width=uniform(0.6, 1.4, STROKES) * scale,
        stroke_colour=uniform(0.1, 0.9, STROKES)[..., None] + uniform(-0.1, 0.1, STROKES, 3),
        stroke_front=(unit(STROKES) < 0.5).float(),
        noise_seed=noise_seed,
    )


def _sigma(position_sigma: float | str) -> float:
    if position_sigma == "uniform":
        return math.inf
    if isinstance(position_sigma, str) or not 0 <= position_sigma < math.inf:
        raise UsageError(f"position_sigma must be a number of pixels >= 0 or 'uniform', got {position_sigma!r}")
    return float(position_sigma)


def _centre(u: Tensor, sigma: float, size: int) -> Tensor:
    """Positions (N, 2) from uniform numbers: normal around the middle, kept 3/16 of the size away from the border."""
    low, high = size * 3 / 16, size * 13 / 16
    if math.isinf(sigma):
        return low + (high - low) * u
    return (size / 2 + sigma * torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))).clamp(low, high)
