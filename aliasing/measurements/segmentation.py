"""Networks that classify every pixel."""

from typing import Any

from ..evaluation import Subject, measurement
from ..metrics import mask_consistency, mask_equivariance_error, mean_iou, predict


@measurement
def masks(subject: Subject, count: int, max_shift: int) -> dict[str, Any]:
    """Mean IoU of the test masks, and consistency and equivariance of masks under circular and standard shifts."""
    test = subject.split("test", count)
    assert test.masks is not None
    images = test.images
    return {
        "mean_iou": mean_iou(subject.network, images, test.masks, subject.run.recipe.ignore),
        "mask_consistency_circular": mask_consistency(subject.network, images, "circular", max_shift),
        "mask_consistency_standard": mask_consistency(subject.network, images, "standard", max_shift, max_shift),
        "mask_equivariance_error": mask_equivariance_error(subject.network, images, "circular", max_shift),
    }


@measurement
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
