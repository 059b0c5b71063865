"""Answers to shifted images: consistency, exact over all circular shifts or drawn, and masks that should move along."""

from itertools import product
from typing import Any

import torch

from .. import metrics
from ..inference import classified, predict
from ..metrics import Estimate, roll_predictions
from ..metrics.agreement import Fidelity, agreements
from ..metrics.rolls import accuracy_by_distance, agreement_per_image, variation_per_image
from .subject import Subject, by_image


def circular_rolls(subject: Subject, count: int, per_image: bool = False) -> dict[str, Any]:
    """Everything that the predictions under all circular shifts tell (Zhang 2019), exact, on ``count`` test images.

    By image: whether it is classified correctly without a shift, and the probability that two shifts agree.
    """
    test = subject.split("test", count)
    predictions = roll_predictions(subject.network, test.images, test.labels)
    curve, adversary = accuracy_by_distance(predictions)
    agreement, variation = agreement_per_image(predictions), variation_per_image(predictions)
    of_correct = agreement[predictions.correct_unrolled]
    return {
        "accuracy": curve[0],
        "circular_accuracy": predictions.correct.double().mean(0).mean(),
        "circular_consistency": Estimate.mean(agreement),
        "circular_consistency_if_correct": Estimate.mean(of_correct) if len(of_correct) else None,
        "probability_variation": Estimate.mean(variation),
        "probability_variation_quantiles": variation.quantile(torch.linspace(0, 1, 21).double()),
        "accuracy_by_shift": [estimate.value for estimate in curve],
        "adversary": [estimate.value for estimate in adversary],
        "rolls_method": predictions.method,
    } | by_image(per_image, accuracy=predictions.correct_unrolled, circular_consistency=agreement)


def shift_curves(subject: Subject, count: int) -> dict[str, Any]:
    """Probability of the right class of ``count`` test images moved along the diagonal by circular shifts."""
    test = subject.split("test", count)
    predictions = roll_predictions(subject.network, test.images, test.labels)
    assert predictions.probability is not None
    return {"diagonal_probability": predictions.probability.diagonal(dim1=1, dim2=2)}


def shift_consistency(subject: Subject, count: int, max_shift: int, per_image: bool = False) -> dict[str, Any]:
    """Consistency of two standard (zero-fill) and of two sub-pixel circular shifts, and the three fidelities.

    By image: whether its two shifted copies agree.
    """
    test = subject.split("test", count)
    standard = metrics.fidelity(subject.network, test.images, test.labels, "standard", max_shift)
    sub_pixel = agreements(subject.network, test.images, "sub-pixel", max_shift, None, 256)
    values = {"standard_consistency": standard.consistency, "sub_pixel_consistency": Estimate.share(sub_pixel)}
    own = by_image(per_image, standard_consistency=standard.agree, sub_pixel_consistency=sub_pixel)
    return values | _fidelities("standard", standard) | own


def circular_fidelity(subject: Subject, count: int) -> dict[str, Any]:
    """Accuracy, consistency of two drawn circular shifts and the three fidelities, also where no stitching works."""
    test = subject.split("test", count)
    drawn = metrics.fidelity(subject.network, test.images, test.labels, "circular")
    values = {"accuracy": drawn.accuracy, "circular_consistency_drawn": drawn.consistency}
    return values | _fidelities("circular", drawn)


def _fidelities(shift: str, found: Fidelity) -> dict[str, Estimate]:
    return {f"{shift}_fidelity_{name}": getattr(found, name) for name in ("product", "joint", "agreement3")}


def consistency_surface(subject: Subject, count: int, max_shift: int) -> dict[str, Any]:
    """Share of ``count`` test images that keep the class of the unshifted image, for all shifts of -M..M per axis."""
    images = subject.split("test", count).images
    plain = classified(subject.network, images)
    classes = roll_predictions(subject.network, images, max_shift=max_shift).classes.long()
    circular = (classes == plain[:, None, None]).double().mean(0)
    standard = []
    for shift in product(range(-max_shift, max_shift + 1), repeat=2):
        moved = metrics.shift_images(images, torch.tensor([shift]).expand(len(images), 2), "standard")
        standard.append((classified(subject.network, moved) == plain).double().mean())
    return {"surface_circular": circular, "surface_standard": torch.stack(standard).view_as(circular)}


def masks(subject: Subject, count: int, max_shift: int) -> dict[str, Any]:
    """Mean IoU of the test masks, and consistency and equivariance of masks under circular and standard shifts."""
    test = subject.split("test", count)
    assert test.masks is not None
    network, images = subject.network, test.images
    return {
        "mean_iou": metrics.mean_iou(network, images, test.masks, subject.run.recipe.ignore),
        "mask_consistency_circular": metrics.mask_consistency(network, images, max_shift=max_shift),
        "mask_consistency_standard": metrics.mask_consistency(
            network, images, shift="standard", max_shift=max_shift, border=max_shift
        ),
        "mask_equivariance_error": metrics.mask_equivariance_error(network, images, max_shift=max_shift),
    }


def mask_pictures(subject: Subject, count: int, down: int, right: int) -> dict[str, Any]:
    """``count`` test images with true masks, and the answers to them as they are and after one circular shift."""
    test = subject.split("test", count)
    assert test.masks is not None
    moved = test.images.roll((down, right), (2, 3))
    answers, answers_moved = (predict(subject.network, images).argmax(1) for images in (test.images, moved))
    return {
        "pictures": test.images,
        "true_masks": test.masks,
        "masks": answers,
        "masks_moved_back": answers_moved.roll((-down, -right), (1, 2)),
    }
