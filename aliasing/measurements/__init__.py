"""What studies measure on a trained network: thin adapters from ``metrics`` to named values in a record.

Importing this package fills ``evaluation.MEASUREMENTS``.
"""

from . import (
    bias,
    cost,
    few_shot,
    generalisation,
    layerwise,
    one_pixel,
    polyphase,
    realnetworks,
    robustness,
    sampling,
    segmentation,
    shifts,
    stability,
)

__all__ = [
    "bias",
    "cost",
    "few_shot",
    "generalisation",
    "layerwise",
    "one_pixel",
    "polyphase",
    "realnetworks",
    "robustness",
    "sampling",
    "segmentation",
    "shifts",
    "stability",
]
