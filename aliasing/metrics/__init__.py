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
from .filters import normalised_variation, total_variation
from .inference import predict
from .one_pixel import ONE_PIXEL, OnePixel, mean_absolute_change, one_pixel, top1_change
from .response import Leakage, frequency_response, leakage, step_overshoot
from .rolls import RollLogits, RollPredictions, roll_logits, roll_predictions
from .sampling import MaxSamplingBias, max_sampling_bias, mean_bias
from .shifts import SHIFTS, draw_shifts, shift_images
from .sites import sites
from .spectra import alias_energy, alias_error, radial_spectrum

__all__ = [
    "ONE_PIXEL",
    "SHIFTS",
    "Estimate",
    "Fidelity",
    "Leakage",
    "MaxSamplingBias",
    "OnePixel",
    "RollLogits",
    "RollPredictions",
    "ShiftAccuracy",
    "accuracy_against_shift",
    "adversary_accuracy",
    "alias_energy",
    "alias_error",
    "consistency",
    "draw_shifts",
    "exact_consistency",
    "fidelity",
    "frequency_response",
    "leakage",
    "max_sampling_bias",
    "mean_absolute_change",
    "mean_bias",
    "normalised_variation",
    "one_pixel",
    "predict",
    "probability_variation",
    "radial_spectrum",
    "roll_logits",
    "roll_predictions",
    "shift_images",
    "sites",
    "step_overshoot",
    "top1_change",
    "total_variation",
    "variation_per_image",
]
