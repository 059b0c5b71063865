"""Measuring: shifts, sampling, attacks, corruptions, few-shot, segmentation, cost; every number with an interval."""

from .consistency import Fidelity, consistency, fidelity
from .equivariance import equivariance_maps
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
from .readouts import Readout, embedding, fit_readouts, typicality
from .response import Leakage, frequency_response, leakage, step_overshoot
from .rolls import RollLogits, RollPredictions, roll_logits, roll_predictions
from .sampling import MaxSamplingBias, max_sampling_bias, mean_bias
from .shifts import SHIFTS, draw_shifts, shift_images
from .sites import sites
from .spectra import alias_energy, alias_error, radial_spectrum
from .sweeps import Jaggedness, crossings, jaggedness, non_shiftability, probability_curves, vertical_sweep

__all__ = [
    "ONE_PIXEL",
    "SHIFTS",
    "Estimate",
    "Fidelity",
    "Jaggedness",
    "Leakage",
    "MaxSamplingBias",
    "OnePixel",
    "Readout",
    "RollLogits",
    "RollPredictions",
    "ShiftAccuracy",
    "accuracy_against_shift",
    "adversary_accuracy",
    "alias_energy",
    "alias_error",
    "consistency",
    "crossings",
    "draw_shifts",
    "embedding",
    "equivariance_maps",
    "exact_consistency",
    "fidelity",
    "fit_readouts",
    "frequency_response",
    "jaggedness",
    "leakage",
    "max_sampling_bias",
    "mean_absolute_change",
    "mean_bias",
    "non_shiftability",
    "normalised_variation",
    "one_pixel",
    "predict",
    "probability_curves",
    "probability_variation",
    "radial_spectrum",
    "roll_logits",
    "roll_predictions",
    "shift_images",
    "sites",
    "step_overshoot",
    "top1_change",
    "total_variation",
    "typicality",
    "variation_per_image",
    "vertical_sweep",
]
