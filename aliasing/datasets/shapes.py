"""Procedural images on which aliasing matters: textured shapes before clutter, at exact sub-pixel positions.

Ten classes: five shapes times two texture directions. The texture has a period of 2.3 to 3.8 pixels, so the detail that
tells half of the classes apart sits near the Nyquist frequency of a map downsampled once. Every image is a continuous
function of the position (x, y), evaluated at pixel centres: a shift by any fraction of a pixel is exact.
Design and numbers are our choice; no paper uses this set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import UsageError, one_of
from .imageset import SPLITS, ImageSet


def _triangle(v: Tensor, u: Tensor, r: Tensor) -> Tensor:
    v = v - 0.2 * r  # the middle of the image of a triangle is above its centroid
    return torch.maximum(v, math.sqrt(3) / 2 * u.abs() - 0.5 * v) - 0.6 * r


# Signed distance in pixels to the outline of each shape, negative inside, at (v, u) down and right of its centre.
OUTLINES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "disc": lambda v, u, r: torch.hypot(v, u) - 0.95 * r,
    "square": lambda v, u, r: torch.maximum(v.abs(), u.abs()) - 0.85 * r,
    "triangle": _triangle,
    "plus": lambda v, u, r: torch.maximum(
        torch.maximum(v.abs(), u.abs()) - r, torch.minimum(v.abs(), u.abs()) - 0.36 * r
    ),
    "ring": lambda v, u, r: (torch.hypot(v, u) - 0.74 * r).abs() - 0.27 * r,
}
SHAPES = tuple(OUTLINES)
TEXTURES = ("upright", "level")  # the axis that the stripes are nearer to
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)

WAVES, STROKES = 8, 5
DRAWS = 128  # uniform numbers reserved for every image
COUNTS = {"train": 8000, "validation": 1000, "test": 2000}
NOISE = 0.06  # standard deviation of the pixel noise, in units of the full range
CHUNK = 250  # images rendered at a time


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
    one_of("split", split, SPLITS)
    if count < 0 or seed < 0 or size < 16:
        raise UsageError(f"count and seed must be >= 0 and size >= 16, got {count}, {seed} and {size}")
    sigma = math.inf if position_sigma == "uniform" else position_sigma
    if isinstance(sigma, str) or not (0 <= sigma < math.inf or position_sigma == "uniform"):
        raise UsageError(f"position_sigma must be a number of pixels >= 0 or 'uniform', got {position_sigma!r}")
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


def _centre(u: Tensor, sigma: float, size: int) -> Tensor:
    """Positions (N, 2) from uniform numbers: normal around the middle, kept 3/16 of the size away from the border."""
    low, high = size * 3 / 16, size * 13 / 16
    if math.isinf(sigma):
        return low + (high - low) * u
    return (size / 2 + sigma * torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))).clamp(low, high)


def render(
    scenes: Scenes, shift: tuple[float, float] | Tensor = (0.0, 0.0), noise: float = NOISE
) -> tuple[Tensor, Tensor]:
    """Images, float `(N, 3, size, size)` in [0, 1], and the visible coverage of the object, float `(N, size, size)`.

    `shift` is (down, right) in pixels, any fraction, for all images or `(N, 2)` one each; what enters at the border is
    the continuation of the scene. `noise` is that of a sensor: it belongs to the pixels, and stays where it is when the
    scene moves. With `noise=0` a shift by whole pixels moves every pixel value unchanged.
    """
    shifts = torch.as_tensor(shift, dtype=torch.float32).expand(len(scenes), 2)
    images = torch.empty(len(scenes), 3, scenes.size, scenes.size)
    coverage = torch.empty(len(scenes), scenes.size, scenes.size)
    for part in torch.arange(len(scenes)).split(CHUNK):
        images[part], coverage[part] = _render(scenes[part], shifts[part])
        if noise:
            images[part] += noise * _noise(scenes[part])
    return images.clamp_(0, 1), coverage


def _render(s: Scenes, shifts: Tensor) -> tuple[Tensor, Tensor]:
    centres = torch.arange(s.size) + 0.5
    y = (centres - shifts[:, :1])[:, :, None]  # (N, H, 1)
    x = (centres - shifts[:, 1:])[:, None, :]  # (N, 1, W)
    strokes = [_stroke(s, j, y, x) for j in range(STROKES)]

    image = _background(s, y, x)
    for j, alpha in enumerate(strokes):
        image = _over(image, alpha * (1 - s.stroke_front[:, j, None, None]), s.stroke_colour[:, j])
    object_alpha = _object(s, y, x)
    dy, dx = y - s.centre[:, :1, None], x - s.centre[:, 1:, None]
    texture = (s.grating[:, :1, None] * dy + s.grating[:, 1:, None] * dx + s.phase[:, None, None]).cos()
    texture *= s.contrast[:, None, None]
    image = _over(image, object_alpha, s.colour) + (object_alpha * texture)[:, None]
    visible = object_alpha
    for j, alpha in enumerate(strokes):
        front = alpha * s.stroke_front[:, j, None, None]
        image = _over(image, front, s.stroke_colour[:, j])
        visible = visible * (1 - front)
    return image, visible


def _over(image: Tensor, alpha: Tensor, colour: Tensor) -> Tensor:
    """Paint `colour` `(N, 3)` over the image with opacity `alpha` `(N, H, W)`."""
    return torch.lerp(image, colour[:, :, None, None], alpha[:, None])


def _background(s: Scenes, y: Tensor, x: Tensor) -> Tensor:
    """Sum of plane waves; cos(a + b) = cos a cos b - sin a sin b makes it a matrix product per image."""
    down = y[:, None, :, 0] * s.waves[..., :1] + s.wave_phase[..., None]  # (N, WAVES, H)
    right = x[:, None, 0, :] * s.waves[..., 1:]  # (N, WAVES, W)
    rows = torch.cat((down.cos(), -down.sin()), 1)
    columns = torch.cat((right.cos(), right.sin()), 1)
    tinted = s.wave_colour.repeat(1, 2, 1).mT[..., None] * rows[:, None]  # (N, 3, 2 WAVES, H)
    return tinted.mT @ columns[:, None] + s.ground[:, :, None, None]


def _stroke(s: Scenes, j: int, y: Tensor, x: Tensor) -> Tensor:
    """Opacity of stroke j: a line segment with round ends and a soft edge one pixel wide."""
    (ay, ax), (by, bx) = (s.stroke_ends[:, j, end].T[..., None, None] for end in (0, 1))
    uy, ux = by - ay, bx - ax
    along = (((y - ay) * uy + (x - ax) * ux) / (uy**2 + ux**2)).clamp_(0, 1)
    distance = torch.hypot(y - ay - along * uy, x - ax - along * ux)
    return (s.stroke_width[:, j, None, None] + 0.5 - distance).clamp_(0, 1)


def _object(s: Scenes, y: Tensor, x: Tensor) -> Tensor:
    """Opacity of the object: 1/2 minus the signed distance to its outline, a soft edge one pixel wide."""
    dy, dx = y - s.centre[:, :1, None], x - s.centre[:, 1:, None]
    cos, sin = s.rotation.cos()[:, None, None], s.rotation.sin()[:, None, None]
    stretch = s.stretch.exp()[:, None, None]
    v, u = (cos * dy - sin * dx) * stretch, (sin * dy + cos * dx) / stretch
    radius = s.radius[:, None, None]
    distance = torch.empty_like(u)
    for k, signed_distance in enumerate(OUTLINES.values()):
        chosen = s.labels // 2 == k
        distance[chosen] = signed_distance(v[chosen], u[chosen], radius[chosen])
    return (0.5 - distance).clamp_(0, 1)


def _noise(s: Scenes) -> Tensor:
    """Standard normal values `(N, 3, size, size)`, each image from its own seed."""
    generator = torch.Generator()
    out = torch.empty(len(s), 3, s.size, s.size)
    for values, seed in zip(out, s.noise_seed.tolist(), strict=True):
        values.normal_(generator=generator.manual_seed(seed))
    return out


def load(
    split: str,
    count: int | None = None,
    seed: int = 0,
    position_sigma: float | str = 3.0,
    size: int = 32,
    noise: float = NOISE,
) -> ImageSet:
    """Procedural textured shapes, 10 classes, 32x32 or larger, exact sub-pixel positions, masks.

    By default 8,000 / 1,000 / 2,000 images; splits and seeds never share a stream of numbers. `masks` are 0 for the
    background and 1 to 5 for the visible part of a disc, square, triangle, plus or ring.
    """
    if not 0 <= noise <= 1:
        raise UsageError(f"shapes: noise must be 0 to 1 of the full range, got {noise}")
    scenes = sample(COUNTS[split] if count is None else count, seed, split, position_sigma, size)
    images, coverage = render(scenes, noise=noise)
    masks = torch.where(coverage >= 0.5, scenes.labels[:, None, None] // 2 + 1, 0).to(torch.uint8)
    return ImageSet(images.mul_(255).round_().to(torch.uint8), scenes.labels, CLASSES, "shapes", masks)
