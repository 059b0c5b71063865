"""Every circular shift of an image: its logits, and what they tell; the shift metrics of Zhang (2019), exactly.

The logits are stitched where the network allows it, and computed roll by roll elsewhere.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError, check_whole
from ..inference import answers, batches, check_labels, evaluating, finite
from ..shifts import reach
from .estimate import Estimate
from .stitching import stitch, stitches

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
    """What the metrics need of the logits of all images, on the CPU; ``rolls`` and ``method`` as in ``RollLogits``.

    Attributes:
        classes: most probable class (N, A, B), int32.
        probability: probability of the labelled class (N, A, B), float32; ``None`` without labels.
        labels: (N,), or ``None``.
    """

    classes: Tensor
    probability: Tensor | None
    labels: Tensor | None
    rolls: tuple[Tensor, Tensor]
    method: str

    @property
    def correct(self) -> Tensor:
        """Whether the most probable class is the labelled one, (N, A, B)."""
        if self.labels is None:
            raise UsageError("accuracy needs labels: roll_predictions(..., labels=...)")
        return self.classes == self.labels[:, None, None]

    @property
    def correct_unrolled(self) -> Tensor:
        """Whether each image (N,) is classified correctly without a roll."""
        rows, columns = self.rolls
        return self.correct[:, rows == 0][:, :, columns == 0].flatten()


def rolls_of(images: Tensor, max_shift: int | None) -> tuple[Tensor, Tensor]:
    """Pixels by which rows and columns are rolled: 0 to H-1 and 0 to W-1, or -M to M with ``max_shift`` M."""
    limit = reach("circular", images, max_shift)
    if limit is None:
        return torch.arange(images.shape[2]), torch.arange(images.shape[3])
    return (torch.arange(-limit, limit + 1),) * 2


def roll_logits(
    model: nn.Module, images: Tensor, max_shift: int | None = None, batch_size: int = 64, method: str | None = None
) -> Iterator[RollLogits]:
    """Logits of (N, C, H, W) images under circular shifts, ``batch_size`` images at a time.

    Args:
        max_shift: decides the rolls, see ``rolls_of``.
        batch_size: images per batch when stitching, rolled images per forward pass otherwise.
        method: ``None`` stitches where the network's structure allows it (every stride in a periodic
            ``Downsample``, circular padding, sizes that divide) and a few random rolls of two images agree with
            ordinary forward passes; otherwise, or with "brute force", every rolled image is evaluated.
    """
    rolls, batch_size = rolls_of(images, max_shift), check_whole("batch_size", batch_size, 1)
    height, width = images.shape[-2:]
    with evaluating(model), torch.no_grad():
        if method is None:
            method = STITCHED if stitches(model, images) else BRUTE_FORCE
        elif method != BRUTE_FORCE:
            raise UsageError(f"method must be None or {BRUTE_FORCE!r}, got {method!r}")
    # Not one `with` around the loop: the caller has the model back, in its own mode, between two batches.
    together = batch_size if method == STITCHED else max(1, batch_size // len(rolls[1]))
    for part in batches(model, images, together):
        with evaluating(model), torch.no_grad():
            if method == STITCHED:
                logits = stitch(model, part)[:, rolls[0] % height][:, :, rolls[1] % width]
            else:
                logits = _brute_force(model, part, rolls, batch_size)
        if logits.ndim != 4:
            raise UsageError(
                f"rolls need a network that returns logits (N, classes), not (N, {tuple(logits.shape[3:])})"
            )
        yield RollLogits(finite(logits), rolls, method)


def _brute_force(model: nn.Module, x: Tensor, rolls: tuple[Tensor, Tensor], batch_size: int) -> Tensor:
    """Logits (N, A, B, classes) of the batch ``x``, one row of rolls at a time."""
    rows = []
    for down in rolls[0].tolist():
        rolled = torch.stack([x.roll((down, right), (2, 3)) for right in rolls[1].tolist()], 1)
        rows.append(torch.cat([answers(model, part) for part in rolled.flatten(0, 1).split(batch_size)]))
    return torch.stack([row.unflatten(0, (len(x), -1)) for row in rows], 1)


def roll_predictions(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    max_shift: int | None = None,
    batch_size: int = 64,
) -> RollPredictions:
    """Top-1 classes, and probabilities of the labels (N,), under circular shifts; arguments as in ``roll_logits``."""
    labels = None if labels is None else check_labels(labels, images).cpu()
    classes, probabilities, done = [], [], 0
    for part in roll_logits(model, images, max_shift, batch_size):
        classes.append(part.logits.argmax(-1).to(torch.int32).cpu())
        if labels is not None:
            own = check_labels(labels[done : done + len(part.logits)], part.logits, part.logits.shape[-1])
            own = own.to(part.logits.device)
            chosen = part.logits.gather(-1, own[:, None, None, None].expand(*part.logits.shape[:3], 1)).squeeze(-1)
            probabilities.append((chosen - part.logits.logsumexp(-1)).exp().float().cpu())
        done += len(part.logits)
    probability = torch.cat(probabilities) if probabilities else None
    return RollPredictions(torch.cat(classes), probability, labels, part.rolls, part.method)


def agreement_per_image(predictions: RollPredictions) -> Tensor:
    """Probability that two independent uniform rolls of each image (N,) get the same class: ``sum_c (n_c / K)**2``."""
    classes = predictions.classes.flatten(1).long()
    counts = torch.zeros(len(classes), int(classes.max()) + 1, dtype=torch.float64)
    counts.scatter_add_(1, classes, torch.ones(1, dtype=torch.float64).expand(classes.shape))
    return (counts / classes.shape[1]).square().sum(1)


def accuracy_by_distance(predictions: RollPredictions) -> tuple[list[Estimate], list[Estimate]]:
    """For n = 0, 1, ...: accuracy over all shifts with max(|down|, |right|) = n, and against the worst of at most n.

    Distances are wrapped where all rolls are there. The second, the share of images correct under every shift of at
    most n pixels per axis, is our working definition of the shift-based adversary of Zhang (2019), whose own was not
    found [unverified]; at half the side it covers every roll.
    """
    correct = predictions.correct
    down, right = (
        torch.minimum(rolls, len(rolls) - rolls) if int(rolls.min()) == 0 else rolls.abs()
        for rolls in predictions.rolls
    )
    distance = torch.maximum(down[:, None], right[None, :])
    curve, adversary = [], []
    for n in range(int(distance.max()) + 1):
        ring = correct[:, distance == n]  # with one shift per image the accuracy is a proportion
        curve.append(Estimate.share(ring) if ring.shape[1] == 1 else Estimate.mean(ring.double().mean(1)))
        adversary.append(Estimate.share(correct[:, distance <= n].all(1)))
    return curve, adversary


def variation_per_image(predictions: RollPredictions) -> Tensor:
    """Standard deviation (N,) over the rolls of the probability of the labelled class, Zhang's (2019) [unverified]."""
    if predictions.probability is None:
        raise UsageError("the variation of the class probability needs labels: roll_predictions(..., labels=...)")
    return predictions.probability.double().flatten(1).std(1, correction=0)
