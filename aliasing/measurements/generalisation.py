"""Accuracy on unseen pictures, whole and with frequencies missing; what the kernels let pass."""

from typing import Any

from ..evaluation import Subject, measurement
from ..metrics import Estimate, predict
from ..metrics.bands import band_accuracy, stop_bands


@measurement
def accuracy(subject: Subject, count: int) -> dict[str, Any]:
    """Accuracy on ``count`` test images."""
    test = subject.split("test", count)
    right = predict(subject.network, test.images).argmax(1).cpu() == test.labels
    return {"accuracy": Estimate.proportion(int(right.sum()), len(right))}


@measurement
def band_removal(subject: Subject, count: int, bands: int = 16) -> dict[str, Any]:
    """Accuracy on ``count`` test images from which one band of frequencies is removed, lowest band first."""
    test = subject.split("test", count)
    found = band_accuracy(subject.network, test.images, test.labels, bands)
    return {"accuracy_without_band": [estimate.value for estimate in found]}


@measurement
def kernels(subject: Subject) -> dict[str, Any]:
    """Share of each convolution's and trainable blur's power that would alias, by name."""
    return {"stop_band": stop_bands(subject.network)}
