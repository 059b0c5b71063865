"""A number with its error bar."""

from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from ..errors import UsageError

__all__ = ["Estimate"]

LEVEL = 0.95


class Estimate(NamedTuple):
    """A measured value with its 95 % confidence interval.

    Attributes:
        value: the point estimate, in the unit of the metric (fractions, not per cent).
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of independent units (images, episodes, seeds) behind it.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def proportion(cls, successes: float, n: int) -> "Estimate":
        """Share of ``n`` independent units that succeeded, with Wilson's score interval (Wilson 1927).

        Unlike the normal interval it stays inside [0, 1] and does not collapse at 0 or 1.
        """
        if n < 1:
            raise UsageError(f"an estimate needs at least one unit, got n={n}")
        z = stats.norm.ppf(0.5 + LEVEL / 2)
        p = successes / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return cls(float(p), float(min(p, max(0.0, centre - half))), float(max(p, min(1.0, centre + half))), int(n))

    @classmethod
    def mean(cls, values: Tensor) -> "Estimate":
        """Mean of independent ``values`` (n,), with Student's t interval; a single value has an infinite one."""
        values = torch.as_tensor(values, dtype=torch.float64).flatten()
        n = values.numel()
        if n < 1:
            raise UsageError("an estimate needs at least one value, got none")
        value = values.mean().item()
        if n == 1:
            return cls(value, float("-inf"), float("inf"), 1)
        half = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * values.std().item() / n**0.5
        return cls(value, float(value - half), float(value + half), n)
