"""What studies measure on a trained network: thin adapters from ``metrics`` to named values in a record.

Importing this package fills ``evaluation.MEASUREMENTS``.
"""

from . import cost, few_shot, generalisation, one_pixel, robustness, sampling, segmentation, shifts

__all__ = ["cost", "few_shot", "generalisation", "one_pixel", "robustness", "sampling", "segmentation", "shifts"]
