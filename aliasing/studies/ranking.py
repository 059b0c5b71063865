"""Orders of layers: how they agree between seeds, networks and metrics."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from ..metrics import Estimate

__all__ = ["agreement", "association", "concordance", "kendall_w", "wide"]

Statistic = Callable[[pd.Series, pd.Series], float]


def wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """``column`` with a row per seed and a column per layer; seeds that lack a layer are left out."""
    if column not in table:
        return pd.DataFrame()
    return table.pivot_table(column, "seed", "layer", sort=False).dropna()


def kendall_w(values: pd.DataFrame) -> float:
    """Kendall's coefficient of concordance of the rows' orders of the columns, corrected for ties (Kendall 1948).

    1 if all rows rank the columns alike, about 1 / rows if they rank them at random. NaN if every row is constant.
    """
    ranks = values.rank(axis=1).to_numpy()
    rows, columns = ranks.shape
    ties = sum((counts**3 - counts).sum() for counts in map(_tie_sizes, ranks))
    spread = ((ranks.sum(0) - ranks.sum(0).mean()) ** 2).sum()
    largest = (rows**2 * (columns**3 - columns) - rows * ties) / 12
    return float(spread / largest) if largest > 0 else float("nan")


def concordance(values: pd.DataFrame) -> Estimate | None:
    """Kendall's W of ``values`` (rows: seeds, columns: layers), with a jackknife interval over the layers.

    The question is whether the order would be as stable among other layers like these, hence the layers are the
    units of the interval; ``n`` counts the seeds, as in every finding. ``None`` with fewer than two seeds or three
    layers.
    """
    rows, columns = values.shape
    if rows < 2 or columns < 3:
        return None
    whole = kendall_w(values)
    without = [kendall_w(values.drop(columns=layer)) for layer in values]
    pseudo = Estimate.mean(torch.tensor([columns * whole - (columns - 1) * part for part in without]))
    return Estimate(whole, whole - (pseudo.value - pseudo.low), min(1.0, whole + (pseudo.high - pseudo.value)), rows)


def association(table: pd.DataFrame, first: str, second: str) -> Estimate | None:
    """Spearman's rank correlation of two metrics over the layers, computed per seed, averaged over seeds."""
    from scipy import stats  # takes a second to import, and only these two need it

    one, two = wide(table, first), wide(table, second)
    return _per_seed(one, two, lambda a, b: stats.spearmanr(a, b).statistic)


def agreement(first: pd.DataFrame, second: pd.DataFrame, column: str) -> Estimate | None:
    """Kendall's tau between the orders of the layers that two tables share, per seed, averaged over seeds."""
    from scipy import stats

    return _per_seed(wide(first, column), wide(second, column), lambda a, b: stats.kendalltau(a, b).statistic)


def _per_seed(one: pd.DataFrame, two: pd.DataFrame, statistic: Statistic) -> Estimate | None:
    layers, seeds = one.columns.intersection(two.columns, sort=False), one.index.intersection(two.index)
    if len(layers) < 3 or not len(seeds):
        return None
    values = []
    for seed in seeds:
        a, b = one.loc[seed, layers], two.loc[seed, layers]
        if a.nunique() > 1 and b.nunique() > 1:  # a constant has no order
            values.append(float(statistic(a, b)))
    return Estimate.mean(torch.tensor(values)) if values else None


def _tie_sizes(ranks: np.ndarray) -> np.ndarray:
    return np.unique(ranks, return_counts=True)[1]
