"""Shift and stitch: the logits for every circular shift of an image, exactly and cheaply.

Rolling commutes with every stage of stride 1 if the padding is circular. So a network that downsamples k times by 2
distinguishes at most 4**k rolls, and they are had by keeping, at each downsampling, the output for every phase of
its grid: 4 times as many maps, each 4 times smaller. Every stage then costs what it would at full resolution,
instead of H x W forward passes. The idea is that of the "a trous" evaluation of sliding windows (Giusti et al. 2013,
Sermanet et al. 2013).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import batches, scores
from ..layers import Downsample, intercepted, outermost


class _Unfit(Exception):
    """The network cannot be stitched; the reason is the message."""


def stitch(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, H, W, classes) for all rolls of the batch ``x``, by one pass through the expanded network.

    Call ``stitches`` first: whether the result holds depends on the network.
    """
    with _phases(model, len(x)) as levels:
        logits = scores(model(x))
    strides = [levels[maps] for maps in sorted(levels)]
    total = prod(strides)
    if logits.ndim != 2 or len(logits) != total * total * len(x):
        raise _Unfit(f"{len(logits)} rows of logits where {total * total * len(x)} phases were expected")
    if x.shape[2] % total or x.shape[3] % total:
        raise _Unfit(f"the total stride {total} does not divide {tuple(x.shape[2:])}")
    # Rows run over the phases of the last level, ..., of the first level, then over the images. The input of phases
    # a1, a2, ... was rolled by -(a1 + s1 (a2 + s2 (a3 + ...))), so their digits, last level first, spell that number.
    digits = [length for stride in reversed(strides) for length in (stride, stride)]
    count = len(digits)
    order = [count, *range(0, count, 2), *range(1, count, 2), count + 1]
    grid = logits.reshape(*digits, len(x), -1).permute(order).reshape(len(x), total, total, -1)
    rows, columns = (-torch.arange(size, device=x.device) % total for size in x.shape[2:])
    return grid[:, rows][:, :, columns]


@contextmanager
def _phases(model: nn.Module, images: int) -> Iterator[dict[int, int]]:
    """Let every outermost ``Downsample`` answer for all phases of its grid, stacked phase-major into the batch.

    Yields a dictionary that fills with the stride met at each multiple of the batch, i.e. at each level.
    """
    levels: dict[int, int] = {}

    def around(
        layer: Downsample, name: str, method: Callable[..., Any], x: Tensor, choice: Tensor | None = None
    ) -> Any:
        (stride,) = set(layer.strides)  # one for both axes, see ``_fits``
        if stride == 1:
            return method(x) if name == "choose" else method(x, choice)
        if x.shape[2] % stride or x.shape[3] % stride:
            raise _Unfit(f"stride {stride} does not divide a map of {tuple(x.shape[2:])}")
        if levels.setdefault(len(x) // images, stride) != stride:
            raise _Unfit("two branches downsample the same maps by different strides")
        moved = [x.roll((-a, -b), (2, 3)) for a in range(stride) for b in range(stride)]
        if name == "choose":
            choices = [method(part) for part in moved]
            return None if choices[0] is None else torch.cat(choices)
        choices = [None] * len(moved) if choice is None else list(choice.chunk(len(moved)))
        return torch.cat([method(part, own) for part, own in zip(moved, choices, strict=True)])

    with intercepted(model, around):
        yield levels


def stitches(model: nn.Module, images: Tensor) -> bool:
    """Whether stitching fits the network's structure and reproduces ordinary forward passes on a few rolls."""
    if not _fits(model):
        return False
    generator = torch.Generator().manual_seed(0)
    x = next(batches(model, images[:1], 1))
    x = torch.cat([x, torch.rand(x.shape, generator=generator).to(x)])  # the image may be the same after every roll
    rolls = torch.stack([torch.randint(size, (6,), generator=generator) for size in x.shape[2:]], 1).tolist()
    try:
        stitched = stitch(model, x)
    except (_Unfit, UsageError, RuntimeError):  # the latter where a branch that was not expanded meets one that was
        return False
    plain = torch.stack([scores(model(x.roll(roll, (2, 3)))) for roll in rolls])
    ours = torch.stack([stitched[:, down, right] for down, right in rolls])
    # Rounding differs between the two routes; anything the structure gets wrong is far larger. That of half precision
    # is not told from it, so such a network is not stitched.
    tolerance = 500 * torch.finfo(plain.dtype).eps * plain.abs().amax()
    return bool((ours - plain).abs().amax() <= tolerance)


def _fits(model: nn.Module) -> bool:
    """The structural part: every stride sits in a periodic ``Downsample`` and convolutions pad circularly.

    What a layer pads only matters if its filter reaches beyond the border, and padding written as a function call
    cannot be seen here: both are left to the numerical comparison.
    """
    layers = list(outermost(model).values())
    inside = {id(part) for layer in layers for part in layer.modules()}
    for layer in layers:
        if len(set(layer.strides)) > 1 or (layer.strides[0] > 1 and not layer.periodic):
            return False
    for part in model.modules():
        if id(part) in inside:
            continue
        if isinstance(part, nn.Conv2d):
            padded = part.padding == "same" or any(part.padding)
            if any(step != 1 for step in part.stride) or (padded and part.padding_mode != "circular"):
                return False
        if isinstance(part, (nn.MaxPool2d, nn.AvgPool2d)) and part.stride not in (1, (1, 1)):
            return False
    return True
