"""Common corruptions (Hendrycks and Dietterich 2019): 15 kinds in five severities.

The constants are those published for CIFAR-10-C, Tiny-ImageNet-C and ImageNet-C (hendrycks/robustness, make_cifar_c.py,
make_tinyimagenet_c.py, make_imagenet_c.py). Rule for other sizes (our choice): the table whose side, 32, 64 or 224
pixels, is nearest to the shorter side of the image on a logarithmic scale; so up to 45, up to 119, and above.
"""

import csv
import json
import math
from pathlib import Path

import torch
from torch import Generator, Tensor

from ..errors import UsageError, one_of
from ..streams import image_seeds, streams
from . import corruption_transforms as transforms

SEVERITIES = (1, 2, 3, 4, 5)


def _published() -> dict[str, dict[int, tuple[tuple[float, ...], ...]]]:
    """Arguments of the functions in corruption_transforms, by name, side of the image and severity, from the table."""
    found: dict[str, dict[int, tuple[tuple[float, ...], ...]]] = {}
    with Path(__file__).with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        for name, side, *cells in [*csv.reader(file)][1:]:
            found.setdefault(name, {})[int(side)] = tuple(tuple(map(json.loads, cell.split())) for cell in cells)
    large = found["elastic_transform"]  # published in multiples of 244 pixels, for images of 224
    large[224] = tuple(tuple(value * 244 / 224 for value in own) for own in large[224])
    return found


CONSTANTS = _published()
NAMES = tuple(CONSTANTS)


def table_side(height: int, width: int) -> int:
    """Which published table an image of this size uses: 32, 64 or 224."""
    return min((32, 64, 224), key=lambda side: abs(math.log(min(height, width) / side)))


def corrupt(images: Tensor, name: str, severity: int, generator: Generator | None = None) -> Tensor:
    """Corrupt uint8 images (N, 3, H, W) at ``severity`` 1 to 5; uint8 of the same shape, on the same device.

    Every image has its own random stream, seeded in image order from ``generator`` (seed 0 without one): corrupting a
    set in parts with one generator gives what corrupting it at once gives.
    """
    one_of("corruption", name, NAMES)
    if severity not in SEVERITIES:
        raise UsageError(f"severity must be 1 to 5, got {severity!r}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        span = f" from {images.amin():g} to {images.amax():g}" if images.numel() else ""
        raise UsageError(
            f"images must be bytes, uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}{span}; "
            "floats in [0, 1] become bytes by (255 * images).round().to(torch.uint8)"
        )
    height, width = images.shape[2:]
    constants = CONSTANTS[name][table_side(height, width)][int(severity) - 1]
    if name == "elastic_transform":
        constants = tuple(value * min(height, width) for value in constants)
    transform = getattr(transforms, name)
    values = 2**19 if images.device.type == "cpu" else 2**22  # at work at a time; fewer stay in the cache of a CPU
    chunk = max(1, values // (3 * height * width))
    corrupted, seeds = torch.empty_like(images), image_seeds(len(images), generator)
    for part in (slice(start, start + chunk) for start in range(0, len(images), chunk)):
        if name in transforms.ON_BYTES:
            corrupted[part] = transform(images[part], streams(seeds[part]), *constants)
        else:
            x = images[part].float() / 255
            corrupted[part] = transforms.to_bytes(transform(x, streams(seeds[part]), *constants))
    return corrupted
