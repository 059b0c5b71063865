"""Measurements: what can be asked of a trained network, by name, with the protocol as part of the name."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from .datasets import ImageFiles, ImageSet, load
from .errors import unknown
from .records import Run

__all__ = ["MEASUREMENTS", "Measurement", "Subject", "loaded", "measurement"]


@lru_cache(maxsize=4)  # training and test images of one set, training images of the next ones
def loaded(dataset: str, split: str) -> ImageSet | ImageFiles:
    """The data set whose options are the JSON text; kept, because one measurement after the other asks for it."""
    return load(split=split, **json.loads(dataset))


@dataclass
class Subject:
    """A trained network with the run it came from; what a measurement looks at."""

    run: Run
    network: nn.Module
    device: torch.device

    def split(self, name: str, count: int | None = None) -> ImageSet:
        """``count`` images of a split of the run's data set (all of them by default), the same for every run."""
        data = loaded(json.dumps(self.run.dataset), name)
        if count is None or count >= len(data):
            return data[:]
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
        if self.name not in list(MEASUREMENTS):  # a list, since a wrong name need not be hashable
            raise unknown("measurement", self.name, MEASUREMENTS)
        return MEASUREMENTS[self.name](subject, **self.options)


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {}


def measurement(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Register ``function(subject, **protocol) -> {metric: value}`` under its name."""
    MEASUREMENTS[function.__name__] = function
    return function
