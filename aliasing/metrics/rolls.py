"""Logits for every circular shift of an image: stitched where the network allows it, by brute force elsewhere."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import batches, check_images, check_labels, evaluating, finite, scores
from .stitching import stitch, stitches

__all__ = ["RollLogits", "RollPredictions", "roll_logits", "roll_predictions"]

STITCHED, BRUTE_FORCE = "stitched", "brute force"


class RollLogits(NamedTuple):
    """Logits (N, A, B, classes) of N images under A x B rolls; ``[n, i, j]`` is for ``rolls[0][i], rolls[1][j]``.

    Attributes:
        logits: on the device of the network.
        rolls: pixels by which ``torch.roll`` moves rows (A,) and columns (B,).
        method: "stitched" or "brute force".
    """

    logits: Tensor
    rolls: tuple[Tensor, Tensor]
    method: str


class RollPredictions(NamedTuple):
    """What the metrics need of the logits of all images, on the CPU.

    Attributes:
        classes: most probable class (N, A, B), int16.
        probability: probability of the labelled class (N, A, B), float32; ``None`` without labels.
        labels: (N,), or ``None``.
        rolls: pixels by which rows (A,) and columns (B,) are rolled.
        method: "stitched" or "brute force".
    """

    classes: Tensor
    probability: Tensor | None
    labels: Tensor | None
    rolls: tuple[Tensor, Tensor]
    method: str


def roll_logits(
    model: nn.Module, images: Tensor, max_shift: int | None = None, batch_size: int = 64, method: str | None = None
) -> Iterator[RollLogits]:
    """Logits of (N, C, H, W) images under circular shifts, ``batch_size`` images at a time.

    Args:
        model: images in, logits (N, classes) out.
        images: uint8, or float in [0, 1].
        max_shift: ``None`` gives all H x W rolls, 0 to H-1 and 0 to W-1; M gives those from -M to M per axis.
        batch_size: images per batch when stitching, rolled images per forward pass otherwise.
        method: ``None`` stitches where the network's structure allows it (every stride in a periodic
            ``Downsample``, circular padding, sizes that divide) and a few random rolls of two images agree with
            plain forward passes; otherwise, or with "brute force", every rolled image is evaluated.
    """
    height, width = check_images(images).shape[-2:]
    rolls = _rolls(height, max_shift), _rolls(width, max_shift)
    with evaluating(model), torch.no_grad():
        if method is None:
            method = STITCHED if stitches(model, images) else BRUTE_FORCE
        elif method != BRUTE_FORCE:
            raise UsageError(f"method must be None or {BRUTE_FORCE!r}, got {method!r}")
    # Not one `with` around the loop: the caller has the model back, in its own mode, between two batches.
    together = batch_size if method == STITCHED or batch_size < 1 else max(1, batch_size // len(rolls[1]))
    for chunk in batches(model, images, together):
        with evaluating(model), torch.no_grad():
            if method == STITCHED:
                logits = stitch(model, chunk)[:, rolls[0] % height][:, :, rolls[1] % width]
            else:
                logits = _brute_force(model, chunk, rolls, batch_size)
        yield RollLogits(finite(logits), rolls, method)


def roll_predictions(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    max_shift: int | None = None,
    batch_size: int = 64,
    method: str | None = None,
) -> RollPredictions:
    """Top-1 classes, and probabilities of the labels (N,), under circular shifts; arguments as in ``roll_logits``."""
    if labels is not None:
        check_labels(labels, images)
    classes, probabilities, done = [], [], 0
    for part in roll_logits(model, images, max_shift, batch_size, method):
        classes.append(part.logits.argmax(-1).to(torch.int16).cpu())
        if labels is not None:
            own = labels[done : done + len(part.logits)].to(part.logits.device).long()
            chosen = part.logits.gather(-1, own[:, None, None, None].expand(*part.logits.shape[:3], 1)).squeeze(-1)
            probabilities.append((chosen - part.logits.logsumexp(-1)).exp().float().cpu())
        done += len(part.logits)
    probability = None if labels is None else torch.cat(probabilities)
    own_labels = None if labels is None else labels.cpu().long()
    return RollPredictions(torch.cat(classes), probability, own_labels, part.rolls, part.method)


def _rolls(size: int, max_shift: int | None) -> Tensor:
    if max_shift is None:
        return torch.arange(size)
    if max_shift < 0:
        raise UsageError(f"max_shift must be at least 0, got {max_shift}")
    return torch.arange(-max_shift, max_shift + 1)


def _brute_force(model: nn.Module, x: Tensor, rolls: tuple[Tensor, Tensor], batch_size: int) -> Tensor:
    """Logits (N, A, B, classes) of the batch ``x``, one row of rolls at a time."""
    rows = []
    for down in rolls[0].tolist():
        rolled = torch.stack([x.roll((down, right), (2, 3)) for right in rolls[1].tolist()], 1)
        rows.append(torch.cat([scores(model(part)) for part in rolled.flatten(0, 1).split(batch_size)]))
    return torch.stack([row.unflatten(0, (len(x), -1)) for row in rows], 1)
