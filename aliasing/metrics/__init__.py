"""Measuring: shifts, sampling, attacks, corruptions, few-shot, segmentation, cost; every number with an interval."""

from ..adversary import ATTACKS, Attack, attack_images, perturb
from ..inference import predict
from .consistency import Fidelity, consistency, fidelity
from .cost import Timing, count_flops, count_parameters, milliseconds
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
from .few_shot import Episodes, episode_accuracies, few_shot_accuracy, sample_episodes
from .filters import normalised_variation, total_variation
from .one_pixel import (
    ONE_PIXEL,
    OnePixel,
    mean_absolute_change,
    one_pixel,
    one_pixel_changes,
    one_pixel_of,
    top1_change,
)
from .readouts import Readout, embedding, fit_readouts, typicality
from .response import Leakage, frequency_response, leakage, step_overshoot
from .robustness import CorruptionErrors, attack_accuracy, attack_curve, corruption_error
from .rolls import RollLogits, RollPredictions, roll_logits, roll_predictions
from .sampling import MaxSamplingBias, max_sampling_bias
from .segmentation import mask_consistency, mask_equivariance_error, mean_iou
from .shifts import SHIFTS, draw_shifts, shift_images
from .sites import Sample, outputs, sampled, sites
from .sizes import SIZES, size_pairs
from .spectra import alias_energy, alias_error, radial_spectrum
from .sweeps import Jaggedness, crossings, jaggedness, non_shiftability, probability_curves, vertical_sweep

__all__ = [
    "ATTACKS",
    "ONE_PIXEL",
    "SHIFTS",
    "SIZES",
    "Attack",
    "CorruptionErrors",
    "Episodes",
    "Estimate",
    "Fidelity",
    "Jaggedness",
    "Leakage",
    "MaxSamplingBias",
    "OnePixel",
    "Readout",
    "RollLogits",
    "RollPredictions",
    "Sample",
    "ShiftAccuracy",
    "Timing",
    "accuracy_against_shift",
    "adversary_accuracy",
    "alias_energy",
    "alias_error",
    "attack_accuracy",
    "attack_curve",
    "attack_images",
    "consistency",
    "corruption_error",
    "count_flops",
    "count_parameters",
    "crossings",
    "draw_shifts",
    "embedding",
    "episode_accuracies",
    "equivariance_maps",
    "exact_consistency",
    "few_shot_accuracy",
    "fidelity",
    "fit_readouts",
    "frequency_response",
    "jaggedness",
    "leakage",
    "mask_consistency",
    "mask_equivariance_error",
    "max_sampling_bias",
    "mean_absolute_change",
    "mean_iou",
    "milliseconds",
    "non_shiftability",
    "normalised_variation",
    "one_pixel",
    "one_pixel_changes",
    "one_pixel_of",
    "outputs",
    "perturb",
    "predict",
    "probability_curves",
    "probability_variation",
    "radial_spectrum",
    "roll_logits",
    "roll_predictions",
    "sample_episodes",
    "sampled",
    "shift_images",
    "sites",
    "size_pairs",
    "step_overshoot",
    "top1_change",
    "total_variation",
    "typicality",
    "variation_per_image",
    "vertical_sweep",
]
