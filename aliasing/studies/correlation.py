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
    labels, kinds = pd.factorize(table[cluster])
    if len(kinds) < 4:
        return None
    [value] = _coefficients(values, np.ones((1, len(labels))), ranks)
    if np.isnan(value):
        return None
    chosen = np.random.default_rng(seed).integers(len(kinds), size=(draws, len(kinds)))
    times = (chosen[:, :, None] == np.arange(len(kinds))).sum(1)
    drawn = _coefficients(values, times[:, labels].astype(float), ranks)
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Estimate(float(value), min(float(value), float(low)), max(float(value), float(high)), len(table))


def _coefficients(values: np.ndarray, weights: np.ndarray, ranks: bool) -> np.ndarray:
    """Correlation of the first two rows of ``values`` (2 or 3, n) after the third, if there is one, was regressed out.

    Each row of ``weights`` (draws, n) says how often every column counts, and gives one coefficient; not a number where
    nothing varies.
    """

    def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.einsum("dn,dn,dn->d", weights, first, second)[:, None]

    everywhere = [_ranks(row, weights) if ranks else np.tile(row, (len(weights), 1)) for row in values]
    centred = [row - np.average(row, 1, weights, keepdims=True) for row in everywhere]
    if len(centred) == 3:
        given = centred.pop()
        size = product(given, given)
        centred = [row - given * np.divide(product(row, given), size, out=0 * size, where=size > 0) for row in centred]
    sizes = [product(row, row) for row in centred]
    # Rounding leaves a little of a constant.
    varies = [size > 1e-18 * product(row, row) for size, row in zip(sizes, everywhere[:2], strict=True)]
    nothing = np.full_like(sizes[0], np.nan)
    return np.divide(product(*centred), np.sqrt(sizes[0] * sizes[1]), out=nothing, where=varies[0] & varies[1])[:, 0]


def _ranks(row: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average ranks (draws, n) of the entries of ``row``, each as often as ``weights`` says."""
    distinct, places = np.unique(row, return_inverse=True)
    order = np.argsort(places, kind="stable")
    equal = np.add.reduceat(weights[:, order], np.searchsorted(places[order], range(len(distinct))), axis=1)
    return (equal.cumsum(1) - equal + (equal + 1) / 2)[:, places]
