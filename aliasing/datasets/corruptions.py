"""Common corruptions (Hendrycks and Dietterich 2019): 15 kinds in five severities.

The constants are those published for CIFAR-10-C, Tiny-ImageNet-C and ImageNet-C (hendrycks/robustness, make_cifar_c.py,
make_tinyimagenet_c.py, make_imagenet_c.py). Rule for other sizes (our choice): the table whose side, 32, 64 or 224
pixels, is nearest to the shorter side of the image on a logarithmic scale; so up to 45, up to 119, and above.
"""

import math

import torch
from torch import Generator, Tensor

from ..errors import UsageError, unknown
from ..streams import image_seeds, streams
from . import corruption_transforms as transforms

SEVERITIES = (1, 2, 3, 4, 5)

# Arguments of the functions in corruption_transforms, by side of the image and severity.
CONSTANTS: dict[str, dict[int, tuple[tuple[float, ...], ...]]] = {
    "gaussian_noise": {
        32: ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        64: ((0.04,), (0.08,), (0.12,), (0.15,), (0.18,)),
        224: ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    },
    "shot_noise": {
        32: ((500,), (250,), (100,), (75,), (50,)),
        64: ((250,), (100,), (50,), (30,), (15,)),
        224: ((60,), (25,), (12,), (5,), (3,)),
    },
    "impulse_noise": {
        32: ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
        64: ((0.01,), (0.02,), (0.05,), (0.08,), (0.14,)),
        224: ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    },
    "defocus_blur": {  # radius, smoothing of the disk
        32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    },
    "glass_blur": {  # sigma, reach, rounds
        32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    },
    "motion_blur": {  # radius, sigma
        32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    },
    "zoom_blur": {  # end, step
        32: ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        64: ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        224: ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    },
    "snow": {  # mean, std, zoom, threshold, radius, sigma, mix
        32: (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        64: (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8), (0.1, 0.2, 1, 0.5, 10, 4, 0.8), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        224: (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    },
    "frost": {  # weight of the image, weight of the frost
        32: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        64: ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        224: ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    },
    "fog": {  # strength, decay
        32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    },
    "brightness": {
        32: ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
        64: ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        224: ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    },
    "contrast": {
        32: ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        64: ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        224: ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    },
    "elastic_transform": {  # alpha, sigma, affine in shorter sides of the image
        32: ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        64: ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        224: tuple(  # published in multiples of 244, for images of 224
            (a * 244 / 224, s * 244 / 224, p * 244 / 224)
            for a, s, p in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
    },
    "pixelate": {
        32: ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        64: ((0.9,), (0.8,), (0.7,), (0.6,), (0.5,)),
        224: ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    },
    "jpeg_compression": {
        32: ((80,), (65,), (58,), (50,), (40,)),
        64: ((65,), (58,), (50,), (40,), (25,)),
        224: ((25,), (18,), (15,), (10,), (7,)),
    },
}  # fmt: skip
NAMES = tuple(CONSTANTS)


def table_side(height: int, width: int) -> int:
    """Which published table an image of this size uses: 32, 64 or 224."""
    return min((32, 64, 224), key=lambda side: abs(math.log(min(height, width) / side)))


def corrupt(images: Tensor, name: str, severity: int, generator: Generator | None = None) -> Tensor:
    """Corrupt uint8 images (N, 3, H, W) at ``severity`` 1 to 5; uint8 of the same shape, on the same device.

    Every image has its own random stream, seeded in image order from ``generator`` (seed 0 without one): corrupting a
    set in parts with one generator gives what corrupting it at once gives.
    """
    if name not in NAMES:
        raise unknown("corruption", name, NAMES)
    if severity not in SEVERITIES:
        raise UsageError(f"severity must be 1 to 5, got {severity!r}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        span = f" from {images.amin():g} to {images.amax():g}" if images.numel() else ""
        raise UsageError(
            f"images must be bytes, uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}{span}; "
            "floats in [0, 1] become bytes by (255 * images).round().to(torch.uint8)"
        )
    height, width = images.shape[2:]
    constants = CONSTANTS[name][table_side(height, width)][severity - 1]
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
