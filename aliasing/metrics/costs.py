"""What a network costs: floating point operations, parameters and time per image."""

import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import batches, evaluating


class Timing(NamedTuple):
    """Milliseconds per image: median of the repeats with their quartiles."""

    median: float
    low: float
    high: float


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers; a parameter that modules share counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_flops(model: nn.Module, size: tuple[int, ...] = (32, 32)) -> int:
    """Floating point operations for one image, counted by PyTorch operator by operator.

    ``size`` is (H, W) of an image of three channels, or (C, H, W). A strided convolution counts the pixels it keeps.
    What is counted is the implementation, not the definition of a layer: on the CPU a low-pass filter is a product with
    dense matrices where that is faster, which is more operations than taps times pixels, and where it is depends on the
    size and memory format of the map. So compare counts of one device and memory format.

    A blank image goes through the network itself and not through a copy on PyTorch's "meta" device, since a layer
    that decides by the values of its input could not run there.
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads PyTorch's compiler, which nothing else here needs

    counter, image = FlopCounterMode(display=False), _images(model, size, 1).zero_()
    with evaluating(model), torch.no_grad():
        model(image)  # layers build their matrices once, which is no cost of an image
        with counter:
            model(image)
    return counter.get_total_flops()


def milliseconds(
    model: nn.Module, size: tuple[int, ...] = (32, 32), batch_size: int = 64, repeats: int = 20, warmup: int = 3
) -> Timing:
    """Time of a forward pass per image, after ``warmup`` passes; on CUDA each pass is waited for."""
    if batch_size < 1 or repeats < 1 or warmup < 0:
        raise UsageError(f"batch_size and repeats must be >= 1, warmup >= 0; got {batch_size}, {repeats}, {warmup}")
    images = _images(model, size, batch_size)
    times = []
    with evaluating(model), torch.no_grad():
        for _ in range(warmup + repeats):
            _wait(images)
            start = time.perf_counter()
            model(images)
            _wait(images)
            times.append(1000 * (time.perf_counter() - start) / batch_size)
    low, median, high = np.quantile(times[warmup:], (0.25, 0.5, 0.75)).tolist()
    return Timing(median, low, high)


def _images(model: nn.Module, size: tuple[int, ...], n: int) -> Tensor:
    images = torch.rand(n, *(3, *size)[-3:], generator=torch.Generator().manual_seed(0))
    return next(batches(model, images, n))


def _wait(images: Tensor) -> None:
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
