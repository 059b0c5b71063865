"""Procedural images on which aliasing matters: textured shapes before clutter, at exact sub-pixel positions.

Ten classes: five shapes times two texture directions. The texture has a period of 2.3 to 3.8 pixels, so the detail that
tells half of the classes apart sits near the Nyquist frequency of a map downsampled once. Every image is a continuous
function of the position (x, y), evaluated at pixel centres: a shift by any fraction of a pixel is exact.
Design and numbers are our choice; no paper uses this set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import UsageError
from .imageset import ImageSet, check_split
from .scenes import CLASSES, STROKES, Scenes, sample

COUNTS = {"train": 8000, "validation": 1000, "test": 2000}
NOISE = 0.06  # standard deviation of the pixel noise, in units of the full range
CHUNK = 250  # images rendered at a time


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
    for start in range(0, len(scenes), CHUNK):
        part = slice(start, start + CHUNK)
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
    for k, signed_distance in enumerate((_disc, _square, _triangle, _plus, _ring)):
        chosen = s.labels // 2 == k
        distance[chosen] = signed_distance(v[chosen], u[chosen], radius[chosen])
    return (0.5 - distance).clamp_(0, 1)


def _disc(v: Tensor, u: Tensor, r: Tensor) -> Tensor:
    return torch.hypot(v, u) - 0.95 * r


def _square(v: Tensor, u: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(v.abs(), u.abs()) - 0.85 * r


def _triangle(v: Tensor, u: Tensor, r: Tensor) -> Tensor:
    v = v - 0.2 * r  # the middle of the image of a triangle is above its centroid
    return torch.maximum(v, math.sqrt(3) / 2 * u.abs() - 0.5 * v) - 0.6 * r


def _plus(v: Tensor, u: Tensor, r: Tensor) -> Tensor:
    v, u = v.abs(), u.abs()
    return torch.maximum(torch.maximum(v, u) - r, torch.minimum(v, u) - 0.36 * r)


def _ring(v: Tensor, u: Tensor, r: Tensor) -> Tensor:
    return (torch.hypot(v, u) - 0.74 * r).abs() - 0.27 * r


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
    """Render one split, by default 8,000 / 1,000 / 2,000 images; splits and seeds never share a stream of numbers.

    `masks` are 0 for the background and 1 to 5 for the visible part of a disc, square, triangle, plus or ring.
    """
    check_split(split)
    if not 0 <= noise <= 1:
        raise UsageError(f"shapes: noise must be 0 to 1 of the full range, got {noise}")
    scenes = sample(COUNTS[split] if count is None else count, seed, split, position_sigma, size)
    images, coverage = render(scenes, noise=noise)
    masks = torch.where(coverage >= 0.5, scenes.labels[:, None, None] // 2 + 1, 0).to(torch.uint8)
    return ImageSet(images.mul_(255).round_().to(torch.uint8), scenes.labels, CLASSES, "shapes", masks)
