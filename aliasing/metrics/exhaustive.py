"""What one tensor of predictions over all circular shifts tells: the shift metrics of Zhang (2019), exactly."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from .estimate import Estimate
from .rolls import RollPredictions

__all__ = [
    "ShiftAccuracy",
    "accuracy_against_shift",
    "adversary_accuracy",
    "agreement_per_image",
    "exact_consistency",
    "probability_variation",
    "variation_per_image",
]


class ShiftAccuracy(NamedTuple):
    """Accuracy as a function of the circular shift.

    Attributes:
        map: accuracy (A, B) for each roll, in the order of ``rolls``.
        rolls: pixels by which rows (A,) and columns (B,) are rolled.
        curve: for n = 0, 1, ... the accuracy over all shifts with max(|down|, |right|) = n.
    """

    map: Tensor
    rolls: tuple[Tensor, Tensor]
    curve: list[Estimate]


def exact_consistency(predictions: RollPredictions, correct_only: bool = False) -> Estimate:
    """Probability that two independent uniform rolls of an image get the same class: mean of ``sum_c (n_c / K)**2``.

    ``correct_only`` keeps the images that are classified correctly unrolled; accuracy confounds consistency.
    """
    return Estimate.mean(agreement_per_image(predictions, correct_only))


def agreement_per_image(predictions: RollPredictions, correct_only: bool = False) -> Tensor:
    """``sum_c (n_c / K)**2`` of each image (n,), the expectation over all pairs of rolls; see ``exact_consistency``."""
    values = _agreement(predictions.classes.flatten(1))
    return values[_unrolled(predictions)] if correct_only else values


def accuracy_against_shift(predictions: RollPredictions) -> ShiftAccuracy:
    """Accuracy for every roll, and against the size of the shift (the wrapped distance, 0 to half the side)."""
    correct = _correct(predictions)
    distance = _distance(predictions)
    curve = [_share(correct[:, distance == n]) for n in range(int(distance.max()) + 1)]
    return ShiftAccuracy(correct.double().mean(0), predictions.rolls, curve)


def variation_per_image(predictions: RollPredictions) -> Tensor:
    """Standard deviation (N,) over the rolls of the probability of the labelled class, Zhang's (2019) [unverified]."""
    if predictions.probability is None:
        raise UsageError("the variation of the class probability needs labels: roll_predictions(..., labels=...)")
    return predictions.probability.double().flatten(1).std(1, correction=0)


def probability_variation(predictions: RollPredictions) -> Estimate:
    """Mean of ``variation_per_image``, as a fraction of 1."""
    return Estimate.mean(variation_per_image(predictions))


def adversary_accuracy(predictions: RollPredictions) -> list[Estimate]:
    """For n = 0, 1, ... the share of images correct under every shift of at most n pixels per axis.

    Our working definition of the shift-based adversary of Zhang (2019), whose own was not found [unverified]; at half
    the side it covers every roll.
    """
    correct, distance = _correct(predictions), _distance(predictions)
    surviving = [correct[:, distance <= n].all(1).sum().item() for n in range(int(distance.max()) + 1)]
    return [Estimate.proportion(count, len(correct)) for count in surviving]


def _share(hits: Tensor) -> Estimate:
    """Mean of booleans (N, K) over images; with one shift per image it is a proportion."""
    if hits.shape[1] == 1:
        return Estimate.proportion(hits.sum().item(), len(hits))
    return Estimate.mean(hits.double().mean(1))


def _agreement(classes: Tensor) -> Tensor:
    """``sum_c (n_c / K)**2`` (N,) of classes (N, K)."""
    counts = torch.zeros(len(classes), int(classes.max()) + 1, dtype=torch.float64)
    counts.scatter_add_(1, classes.long(), torch.ones(1, dtype=torch.float64).expand(classes.shape))
    return (counts / classes.shape[1]).square().sum(1)


def _correct(predictions: RollPredictions) -> Tensor:
    if predictions.labels is None:
        raise UsageError("accuracy needs labels: roll_predictions(..., labels=...)")
    return predictions.classes == predictions.labels[:, None, None]


def _unrolled(predictions: RollPredictions) -> Tensor:
    """Whether each image (N,) is classified correctly without a roll."""
    rows, columns = predictions.rolls
    return _correct(predictions)[:, rows == 0][:, :, columns == 0].flatten()


def _distance(predictions: RollPredictions) -> Tensor:
    """``max(|down|, |right|)`` (A, B) of every roll, the shorter way round where all of them are there."""
    down, right = (
        torch.minimum(rolls, len(rolls) - rolls) if int(rolls.min()) == 0 else rolls.abs()
        for rolls in predictions.rolls
    )
    return torch.maximum(down[:, None], right[None, :])
