"""Differences over seeds, for the figures that are still here."""

import pandas as pd
import torch

from ..metrics import Estimate

__all__ = ["paired"]


def paired(first: pd.Series, second: pd.Series) -> Estimate | None:
    """Mean difference ``first - second`` over the seeds that both have; ``None`` if there is none."""
    difference = (first - second).dropna()
    return None if difference.empty else Estimate.mean(torch.tensor(difference.to_numpy(dtype=float)))
