"""Consistency, exact over all circular shifts or drawn; equivariance; smoothness of the filters."""

from typing import Any

import torch

from ..evaluation import Subject, measurement
from ..metrics import (
    accuracy_against_shift,
    adversary_accuracy,
    consistency,
    equivariance_maps,
    exact_consistency,
    fidelity,
    probability_variation,
    roll_predictions,
    sites,
    total_variation,
    variation_per_image,
)


@measurement
def circular_rolls(subject: Subject, count: int) -> dict[str, Any]:
    """Everything that the predictions under all circular shifts tell (Zhang 2019), exact, on ``count`` test images."""
    test = subject.split("test", count)
    predictions = roll_predictions(subject.network, test.images, test.labels)
    by_shift = accuracy_against_shift(predictions)
    accuracy = by_shift.curve[0]
    return {
        "accuracy": accuracy,
        "circular_accuracy": by_shift.map.mean(),
        "circular_consistency": exact_consistency(predictions),
        "circular_consistency_if_correct": exact_consistency(predictions, correct_only=True)
        if accuracy.value
        else None,
        "probability_variation": probability_variation(predictions),
        "probability_variation_quantiles": variation_per_image(predictions).quantile(torch.linspace(0, 1, 21).double()),
        "accuracy_by_shift": [estimate.value for estimate in by_shift.curve],
        "adversary": [estimate.value for estimate in adversary_accuracy(predictions)],
        "rolls_method": predictions.method,
    }


@measurement
def shift_curves(subject: Subject, count: int) -> dict[str, Any]:
    """Probability of the right class of ``count`` test images moved along the diagonal by circular shifts."""
    test = subject.split("test", count)
    predictions = roll_predictions(subject.network, test.images, test.labels)
    assert predictions.probability is not None
    return {"diagonal_probability": predictions.probability.diagonal(dim1=1, dim2=2)}


@measurement
def filter_variation(subject: Subject) -> dict[str, Any]:
    """Normalised total variation of the filters of each convolution, input side first (Zhang 2019, supplement)."""
    return {"filter_variation": list(total_variation(subject.network).values())}


@measurement
def equivariance(subject: Subject, count: int, max_shift: int) -> dict[str, Any]:
    """Distance of each halving from moving with the picture, for shifts of up to ``max_shift`` pixels per axis."""
    halvings = list(sites(subject.network))
    maps = equivariance_maps(subject.network, subject.split("test", count).images, halvings, max_shift)
    return {"equivariance": {f"halving {level}": maps[name] for level, name in enumerate(halvings, start=1)}}


@measurement
def shift_consistency(subject: Subject, count: int, max_shift: int) -> dict[str, Any]:
    """Consistency of two standard (zero-fill) and of two sub-pixel circular shifts, and the three fidelities."""
    test = subject.split("test", count)
    standard = fidelity(subject.network, test.images, test.labels, "standard", max_shift)
    return {
        "standard_consistency": standard.consistency,
        "sub_pixel_consistency": consistency(subject.network, test.images, "sub-pixel", max_shift),
        "standard_fidelity_product": standard.product,
        "standard_fidelity_joint": standard.joint,
        "standard_fidelity_agreement3": standard.agreement3,
    }
