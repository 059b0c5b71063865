"""A number with its error bar."""

from functools import cache
from math import lgamma, log, pi
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError

LEVEL = 0.95
NORMAL = 1.959963984540054  # the normal distribution's quantile at 0.5 + LEVEL / 2


@cache
def student(freedom: int) -> float:
    """The quantile at 0.5 + LEVEL / 2 of Student's t with so many degrees of freedom.

    Newton's method on the distribution function, which is integrated by Gauss and Legendre's rule; from the normal
    quantile it climbs and cannot overshoot, since the function is concave.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    scale = lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - 0.5 * log(freedom * pi)
    quantile = NORMAL
    for _ in range(30):  # a single degree of freedom needs ten
        density = np.exp(
            scale - (freedom + 1) / 2 * np.log1p((quantile * np.append((nodes + 1) / 2, 1)) ** 2 / freedom)
        )
        quantile += float((LEVEL / 2 - quantile / 2 * weights @ density[:-1]) / density[-1])
    return quantile


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
        if not 0 <= successes <= n:
            raise UsageError(f"there are 0 to {n} successes among {n} units, got {successes}")
        z = NORMAL
        p = successes / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return cls(float(p), float(min(p, max(0.0, centre - half))), float(max(p, min(1.0, centre + half))), int(n))

    @classmethod
    def share(cls, hits: Tensor) -> "Estimate":
        """``proportion`` of the true ones among booleans (n,), one per independent unit."""
        hits = torch.as_tensor(hits)
        if hits.dtype != torch.bool:  # of what else the sum is no number of hits
            raise UsageError(f"a share is of booleans, got {hits.dtype}")
        return cls.proportion(hits.sum().item(), hits.numel())

    @classmethod
    def mean(cls, values: Tensor) -> "Estimate":
        """Mean of independent ``values`` (n,), with Student's t interval; a single value has an infinite one."""
        (values,) = _flat(values)
        n = values.numel()
        value = values.mean().item()
        if n == 1:
            return cls(value, float("-inf"), float("inf"), 1)
        half = student(n - 1) * values.std().item() / n**0.5
        return cls(value, float(value - half), float(value + half), n)

    @classmethod
    def difference(cls, first: Tensor, second: Tensor) -> "Estimate":
        """Mean of ``first - second`` (n,), paired by unit (seed, image), with Student's t interval."""
        first, second = _flat(first, second)
        return cls.mean(first - second)

    @classmethod
    def paired(cls, first: Tensor, second: Tensor) -> "Estimate":
        """Mean of ``first - second`` (n,) of hits or rates in [0, 1], paired by unit, with an interval inside [-1, 1].

        Bonett and Price's (2012): one more unit of each sign counts, so it does not collapse where all units agree.
        """
        first, second = _flat(first, second)
        low, high = (end.item() for end in torch.cat([first, second]).aminmax())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # also true of NaN
            raise UsageError(f"paired rates must lie in [0, 1], got {low:g} to {high:g}; see Estimate.difference")
        differences = torch.cat([first - second, torch.tensor([1.0, -1.0], dtype=torch.float64)])
        centre = differences.mean().item()
        half = NORMAL * (differences.var(correction=0) / len(differences)).sqrt().item()
        return cls.mean(first - second)._replace(low=max(-1.0, centre - half), high=min(1.0, centre + half))

    @classmethod
    def ratio(cls, numerators: Tensor, denominators: Tensor) -> "Estimate":
        """Sum of ``numerators`` over sum of ``denominators`` (n,), one pair per independent unit.

        For shares within units of unequal size, such as windows within images. The interval is Student's t with
        the linearised (delta-method) standard error of the ratio (Cochran 1977, section 6.4). If every denominator
        is zero, the ratio does not exist: value and both ends are NaN.
        """
        top, bottom = _flat(numerators, denominators)
        n, total = len(top), bottom.sum().item()
        if total == 0:
            return cls(float("nan"), float("nan"), float("nan"), n)
        value = top.sum().item() / total
        spread = cls.mean((top - value * bottom) * n / total)
        return cls(value, value + spread.low, value + spread.high, n)

    @classmethod
    def bootstrap(cls, values: Tensor, groups: Tensor | None = None, draws: int = 2000) -> "Estimate":
        """Mean of ``values`` (m,), with the percentile bootstrap over ``groups`` (m,) (Efron and Tibshirani 1993).

        Values of the same group (pairs of the same image) are resampled together. Without groups each value is its
        own; a single group has an infinite interval. ``draws`` resamples come from a private generator with seed 0.
        """
        if groups is None:
            groups = torch.arange(torch.as_tensor(values).numel())
        # Numbered before they become floats, which large numbers of groups share.
        values, labels = _flat(values, torch.as_tensor(groups).unique(return_inverse=True)[1])
        index = labels.long()
        n = int(index.max()) + 1
        if n == 1:
            return cls(values.mean().item(), float("-inf"), float("inf"), 1)
        sums = torch.zeros(n, dtype=torch.float64).index_add_(0, index, values)
        sizes = torch.bincount(index, minlength=n).double()
        generator = torch.Generator().manual_seed(0)
        rows = max(1, 2**22 // n)
        means = []
        for start in range(0, draws, rows):
            drawn = torch.randint(n, (min(rows, draws - start), n), generator=generator)
            means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
        ends = torch.cat(means).quantile(torch.tensor([0.5 - LEVEL / 2, 0.5 + LEVEL / 2], dtype=torch.float64))
        return cls(values.mean().item(), ends[0].item(), ends[1].item(), n)


def _flat(*given: Tensor) -> list[Tensor]:
    """Each in float64 on the CPU, (n,): those that are given together have one value for each unit."""
    lines = [torch.as_tensor(values).detach().cpu().double().flatten() for values in given]
    if len(lines[0]) == 0:
        raise UsageError("an estimate needs at least one value, got none")
    if any(len(line) != len(lines[0]) for line in lines):
        raise UsageError(f"one value of each kind per unit is needed, got {' and '.join(str(len(o)) for o in lines)}")
    return lines
