"""Where measurements were; imports from here still work while everything moves to ``aliasing.measurements``."""

import json

from . import measurements
from .datasets import ImageFiles, ImageSet
from .measurements import MEASUREMENTS, Measurement, Subject

__all__ = ["MEASUREMENTS", "Measurement", "Subject", "loaded"]


def loaded(dataset: str, split: str) -> ImageSet | ImageFiles:
    """``measurements.loaded`` of options as JSON."""
    return measurements.loaded(json.loads(dataset), split)
