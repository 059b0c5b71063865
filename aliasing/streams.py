"""Random numbers that belong to images: with a stream of its own, what one gets does not depend on those beside it.

They are drawn on the CPU, so that they are the same for every device; ``sent`` takes them there.
"""

import torch
from torch import Generator, Tensor

from .errors import UsageError


def drawing(generator: Generator | None) -> Generator:
    """``generator``, which must draw on the CPU, or without one a private generator with seed 0.

    The global generator is never touched.
    """
    if generator is None:
        return Generator().manual_seed(0)
    if not isinstance(generator, Generator) or generator.device.type != "cpu":
        got = f"of {generator.device}" if isinstance(generator, Generator) else repr(generator)
        raise UsageError(
            f"generator must be a torch.Generator of the CPU, such as Generator().manual_seed(1), not {got}"
        )
    return generator


def image_seeds(n: int, generator: Generator | None = None) -> Tensor:
    """Draw one seed per image, ``(n,)`` int64 on the CPU; drawing in parts gives the same seeds as drawing at once."""
    return torch.randint(2**32, (n,), generator=drawing(generator))  # a CPU generator uses 32 bits of its seed


def streams(seeds: Tensor) -> list[Generator]:
    """A generator per image; all of them on the CPU, whatever device the work is done on."""
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def sent(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on ``device``; on the way to a GPU neither of the two waits for the other."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)
