"""Measuring: shifts, sampling, attacks, corruptions, few-shot, segmentation, cost; every number with an interval."""

from .consistency import Fidelity, consistency, fidelity
from .estimate import Estimate
from .exhaustive import (
    ShiftAccuracy,
    accuracy_against_shift,
    adversary_accuracy,
    exact_consistency,
    probability_variation,
    variation_per_image,
)
from .inference import predict
from .rolls import RollLogits, RollPredictions, roll_logits, roll_predictions
from .shifts import SHIFTS, draw_shifts, shift_images

__all__ = [
    "SHIFTS",
    "Estimate",
    "Fidelity",
    "RollLogits",
    "RollPredictions",
    "ShiftAccuracy",
    "accuracy_against_shift",
    "adversary_accuracy",
    "consistency",
    "draw_shifts",
    "exact_consistency",
    "fidelity",
    "predict",
    "probability_variation",
    "roll_logits",
    "roll_predictions",
    "shift_images",
    "variation_per_image",
]
