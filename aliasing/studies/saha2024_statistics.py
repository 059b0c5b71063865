"""The statistics behind the findings on Saha and Gokhale: each is a function of the results table."""

from collections.abc import Callable

import pandas as pd

from ..metrics import Estimate
from .correlation import correlation
from .findings import across_seeds, paired

__all__ = [
    "bias_correlation",
    "difference",
    "entry_difference",
    "gap_growth",
    "level",
    "mean",
    "pooling",
    "ring",
    "shortfall",
    "surface_mean",
    "tips_overhead",
    "undo_difference",
]

Statistic = Callable[[pd.DataFrame], Estimate | None]


def pooling(table: pd.DataFrame, maximum: bool) -> pd.DataFrame:
    """Classifiers for a correlation: each operator once; without ``maximum`` no max pooling under either name.

    "subsample" behind a dense max and "max" are one function with two places to draw the operator's border.
    """
    table = table[table["task"] == "classes"]
    return table[table["method"] != "subsample"] if maximum else table[~table["method"].isin(("subsample", "max"))]


def bias_correlation(definition: str, maximum: bool, given: str | None = None) -> Statistic:
    """Spearman's correlation of a bias with standard consistency; the interval is over methods."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        chosen = pooling(table, maximum)
        found = correlation(chosen, f"msb_{definition}", "standard_consistency", "method", given)
        return found._replace(n=table["seed"].nunique()) if found else None

    return statistic


def level(column: str, method: str) -> Statistic:
    """Mean of a column over the seeds of one method."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        values = across_seeds(table, column, task="classes", method=method)
        return paired(values, 0 * values)

    return statistic


def shortfall(column: str, method: str) -> Statistic:
    """One minus ``level``."""
    return lambda table: level("shortfall", method)(table.assign(shortfall=1 - table[column]))


def difference(column: str, method: str, *others: str, task: str = "classes") -> Statistic:
    """Method minus another, paired by seed; of several others the lowest of each seed."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        first = across_seeds(table, column, task=task, method=method)
        values = [across_seeds(table, column, task=task, method=other) for other in others]
        return paired(first, pd.concat(values, axis=1).min(axis=1))

    return statistic


def entry_difference(column: str, reduce: Callable[[list], float], method: str, other: str) -> Statistic:
    """``difference`` of a column of lists, each reduced to one number."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        numbers = [reduce(entry) if isinstance(entry, list) else None for entry in table[column]]
        return difference("picked", method, other)(table.assign(picked=numbers))

    return statistic


def mean(entries: list[float]) -> float:
    """Mean of a list."""
    return sum(entries) / len(entries)


def surface_mean(surface: list[list[float]]) -> float:
    """Mean of a square surface."""
    return mean([mean(row) for row in surface])


def ring(surface: list[list[float]], distance: int) -> float:
    """Mean of a surface over the shifts whose larger component is ``distance``."""
    offsets = range(-(len(surface) // 2), len(surface) // 2 + 1)
    rows = zip(offsets, surface, strict=True)
    return mean(
        [value for i, row in rows for j, value in zip(offsets, row, strict=True) if max(abs(i), abs(j)) == distance]
    )


def gap_growth(method: str, other: str) -> Statistic:
    """Gap between two methods at the largest standard shift of the surface minus the gap at one pixel."""
    return entry_difference(
        "surface_standard", lambda surface: ring(surface, len(surface) // 2) - ring(surface, 1), method, other
    )


def tips_overhead(column: str) -> Statistic:
    """TIPS relative to max pooling, minus one."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        tips, plain = (across_seeds(table, column, task="classes", method=name) for name in ("tips", "subsample"))
        ratio = tips / plain
        return paired(ratio, ratio / ratio)

    return statistic


def undo_difference(method: str, other: str) -> Statistic:
    """Difference of the undo loss, in units of the energy of each layer's input, mean over layers."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        total = [
            mean(floor) + mean(excess) if isinstance(floor, list) else None
            for floor, excess in zip(table["undo_floor"], table["undo_excess"], strict=True)
        ]
        return difference("picked", method, other)(table.assign(picked=total))

    return statistic
