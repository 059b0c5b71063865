"""Measurements: what can be asked of a trained network, by name, with the protocol as part of the name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .datasets import ImageSet, load
from .errors import unknown
from .metrics import (
    accuracy_against_shift,
    adversary_accuracy,
    equivariance_maps,
    exact_consistency,
    probability_variation,
    roll_predictions,
    sites,
    total_variation,
    variation_per_image,
)
from .records import Run

__all__ = ["MEASUREMENTS", "Measurement", "Subject", "measurement"]


@dataclass
class Subject:
    """A trained network with the run it came from; what a measurement looks at."""

    run: Run
    network: nn.Module
    device: torch.device

    def split(self, name: str, count: int | None = None) -> ImageSet:
        """``count`` images of a split of the run's data set (all of them by default), the same for every run."""
        data = load(split=name, **self.run.dataset)
        if count is None or count >= len(data):
            return data
        return data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count]]


@dataclass(frozen=True)
class Measurement:
    """A measurement with its protocol.

    Attributes:
        name: of a function in ``MEASUREMENTS``.
        options: its protocol, such as the number of test images.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name and protocol in one line, the key in the record."""
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in sorted(self.options.items()))})"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """Carry it out: metric names to estimates, numbers or lists."""
        if self.name not in MEASUREMENTS:
            raise unknown("measurement", self.name, MEASUREMENTS)
        return MEASUREMENTS[self.name](subject, **self.options)


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {}


def measurement(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Register ``function(subject, **protocol) -> {metric: value}`` under its name."""
    MEASUREMENTS[function.__name__] = function
    return function


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
