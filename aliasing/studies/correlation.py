"""Correlation over trained networks, with an interval that resamples whole kinds of networks, not single ones."""

import numpy as np
import pandas as pd

from ..errors import UsageError
from ..metrics import Estimate

__all__ = ["correlation"]


def correlation(
    table: pd.DataFrame,
    first: str,
    second: str,
    cluster: str,
    given: str | None = None,
    ranks: bool = True,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """Spearman's (``ranks``) or Pearson's correlation of two columns, with a percentile bootstrap over clusters.

    Networks that differ in the seed alone are near copies; rows with the same value in ``cluster`` are therefore
    drawn together. Resamples in which a column does not vary have no correlation and are left out.

    Args:
        table: one row per network; rows that lack a value are left out.
        first: a column.
        second: a column.
        cluster: column of labels.
        given: a column whose linear influence (on ranks, with ``ranks``) is taken out of both first.
        ranks: correlate ranks.
        draws: resamples.
        seed: of the private generator.

    Returns:
        The estimate, ``n`` being the number of rows; ``None`` with fewer than four clusters.
    """
    columns = [first, second, *([given] if given else [])]
    if missing := [name for name in (*columns, cluster) if name not in table]:
        raise UsageError(f"the table has no column {missing[0]!r}; it has {', '.join(map(str, table))}")
    table = table.dropna(subset=columns)
    values = table[columns].to_numpy(dtype=float).T
    labels = pd.factorize(table[cluster])[0]
    groups = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)] if len(labels) else []
    if len(groups) < 4:
        return None
    value = _coefficient(values, ranks)
    if value is None:
        return None
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        chosen = np.concatenate([groups[index] for index in generator.integers(len(groups), size=len(groups))])
        again = _coefficient(values[:, chosen], ranks)
        if again is not None:
            drawn.append(again)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(table))


def _coefficient(values: np.ndarray, ranks: bool) -> float | None:
    """Correlation of the first two rows, after the third, if there is one, was regressed out."""
    if ranks:
        from scipy.stats import rankdata  # takes a second to import, and only correlations need it

        values = rankdata(values, axis=1)
    values = values - values.mean(1, keepdims=True)
    size = np.linalg.norm(values, axis=1)
    if len(values) == 3 and size[2] > 0:
        given = values[2] / size[2]
        values = values[:2] - np.outer(values[:2] @ given, given)
        size = np.where(np.linalg.norm(values, axis=1) > 1e-9 * size[:2], np.linalg.norm(values, axis=1), 0)
    if size[0] == 0 or size[1] == 0:
        return None
    return float(values[0] @ values[1] / (size[0] * size[1]))
