"""Measuring: shifts, sampling, attacks, corruptions, few-shot, segmentation, cost; every number with an interval.

Unless a metric says otherwise, its ``model`` takes images and returns logits (N, classes); ``images`` are (N, 3, H, W),
uint8 or float in [0, 1], and ``labels`` (N,); ``generator`` draws on the CPU, and without one a private generator with
seed 0 does; ``batch_size`` is the number of images per forward pass and does not change the value.
"""

from ..adversary import ATTACKS, attack_images, perturb
from ..inference import predict
from ..shifts import SHIFTS, draw_shifts, shift_images
from .agreement import consistency, fidelity
from .costs import count_flops, count_parameters
from .downsampling import outputs, sampled, sites
from .estimate import Estimate
from .kernels import band_accuracy, frequency_response, leakage, low_pass, step_overshoot, stop_bands, total_variation
from .masks import mask_consistency, mask_equivariance_error, mean_iou
from .motion import equivariance_maps, realigned_errors
from .pixel_pairs import ONE_PIXEL, mean_absolute_change, one_pixel, top1_change
from .readouts import embedding, few_shot_accuracy, fit_readouts, typicality
from .robustness import attack_accuracy, corruption_error
from .rolls import roll_logits, roll_predictions
from .sampling import max_sampling_bias
from .spectra import alias_energy, alias_error, radial_spectrum
from .sweeps import jaggedness, non_shiftability, probability_curves, vertical_sweep

__all__ = ["ATTACKS", "ONE_PIXEL", "SHIFTS", "Estimate", "alias_energy", "alias_error", "attack_accuracy",
           "attack_images", "band_accuracy", "consistency", "corruption_error", "count_flops", "count_parameters",
           "draw_shifts", "embedding", "equivariance_maps", "few_shot_accuracy", "fidelity",
           "fit_readouts", "frequency_response", "jaggedness", "leakage", "low_pass", "mask_consistency",
           "mask_equivariance_error", "max_sampling_bias", "mean_absolute_change", "mean_iou",
           "non_shiftability", "one_pixel", "outputs", "perturb", "predict", "probability_curves", "radial_spectrum",
           "realigned_errors", "roll_logits", "roll_predictions", "sampled", "shift_images", "sites", "step_overshoot",
           "stop_bands", "top1_change", "total_variation", "typicality", "vertical_sweep"]  # fmt: skip
