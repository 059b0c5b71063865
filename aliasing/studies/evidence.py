"""Statistics over the results of a study, with intervals that know of seeds, of pictures and of layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from ..measurements import unpacked
from ..metrics import Estimate

Setting = Mapping[str, Any]  # labels of runs, such as {"layer": "bin-7", "augmented": False}


class Result(NamedTuple):
    """A statistic with its 95 % interval.

    Attributes:
        value: in the unit of the statistic.
        low: lower end of the interval.
        high: upper end.
        seeds: behind it; 0 where it is a fact about layers.
        pictures: that the interval counts as a sample; 0 where it holds for these test pictures only.
        error: standard error, on Fisher's scale where ``fisher``.
        freedom: degrees of freedom of the error.
        fisher: whether the interval is symmetric in the inverse hyperbolic tangent: of correlations.
    """

    value: float
    low: float
    high: float
    seeds: int
    pictures: int = 0
    error: float = 0.0
    freedom: float = np.inf
    fisher: bool = False

    @classmethod
    def of(cls, value: float, error: float, freedom: float, seeds: int, pictures: int = 0) -> "Result":
        """With Student's t interval."""
        half = _quantile(freedom) * error
        return cls(value, value - half, value + half, seeds, pictures, error, freedom)

    @classmethod
    def over(cls, found: Estimate, seeds: int = 0) -> "Result":
        """An estimate over pictures."""
        return cls(*found[:3], seeds, found.n, (found.high - found.low) / 2 / 1.96)

    def p(self, threshold: float) -> float:
        """Two-sided p-value of the hypothesis that the truth is ``threshold``."""
        distance = abs(self.value - threshold)
        if self.fisher:  # from the end that a whole correlation does not reach, to its middle
            end, sign = (self.low, 1) if self.value > 0 else (self.high, -1)
            middle = np.arctanh(end) + sign * _quantile(np.inf) * self.error
            distance = abs(middle - np.arctanh(np.clip(threshold, -1 + 1e-12, 1 - 1e-12)))
        if self.error == 0:
            return float(distance == 0)
        t = float(distance / self.error)
        return float(2 * (special.ndtr(-t) if np.isinf(self.freedom) else special.stdtr(self.freedom, -t)))


def _quantile(freedom: float) -> float:
    return float(special.ndtri(0.975) if np.isinf(freedom) else special.stdtrit(freedom, 0.975))


class Statistic(NamedTuple):
    """What a test evaluates.

    Attributes:
        settings: labels of the networks that it needs; several networks may have them.
        of: its value for a results table; ``None`` where networks or measurements that it needs are not there.
        every: labels of which every kind of network that is planned has to be there: all those that one is to beat.
    """

    settings: tuple[Setting, ...]
    of: Callable[[pd.DataFrame], Result | None]
    every: Setting | None = None


def having(table: pd.DataFrame, setting: Setting) -> np.ndarray:
    """Which rows have all labels of ``setting``; none if a label is not of this table."""
    wanted = np.full(len(table), set(setting) <= set(table))
    if wanted.any():
        for key, value in setting.items():
            wanted &= (table[key] == value).to_numpy(dtype=bool)
    return wanted


def select(table: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """The rows with all labels of ``setting``."""
    return table[having(table, setting)]


class Derived(NamedTuple):
    """A column computed from others, network by network; not a number where one of them was not measured, or is a zero
    to divide by.

    Attributes:
        needs: the others.
        function: of their values.
        by_image: a column with outcomes by image; "" where there is none.
        outcome: makes of them the outcomes whose mean this is; by default a factor does, the same for all.
    """

    needs: tuple[str, ...]
    function: Callable[..., float]
    by_image: str = ""
    outcome: Callable[[np.ndarray], np.ndarray] | None = None

    def of(self, table: pd.DataFrame) -> pd.Series:
        """Its values by row."""
        if not set(self.needs) <= set(table):
            return pd.Series(np.nan, table.index, dtype=float)

        def known(entry: Any) -> bool:
            return isinstance(entry, list | dict) or pd.notna(entry)

        def value(row: tuple) -> float:
            try:
                return self.function(*row) if all(map(known, row)) else np.nan
            except ZeroDivisionError:
                return np.nan

        rows = table[list(self.needs)].itertuples(index=False, name=None)
        return pd.Series([*map(value, rows)], table.index, dtype=float)

    def outcomes(self, table: pd.DataFrame) -> list[np.ndarray | None]:
        """What it is the mean of, by row: a number per image; ``None`` where no record has them."""

        def own(text: Any, value: float) -> np.ndarray | None:
            if not isinstance(text, str):
                return None
            found = unpacked(text).double().numpy()
            if self.outcome:
                return self.outcome(found)
            return found * (value / found.mean()) if found.any() else found  # such as 45 corruptions, counted

        return list(map(own, table.get(self.by_image, [None] * len(table)), self.of(table)))


Column = str | Derived

# Columns whose outcomes by image are called otherwise, or stand in a measurement that was made on the same images.
_BY_IMAGE = {
    "circular_fidelity.accuracy": "accuracy.accuracy_by_image",
    "corruptions.corruption_error": "corruptions.corruption_errors_by_image",
}


def derived(column: Column) -> Derived:
    """A column that was measured is the simplest of those that are computed."""
    if isinstance(column, Derived):
        return column
    own = column.replace("top1_change_", "top1_changes_") + "_by_image"
    return Derived((column,), float, _BY_IMAGE.get(column, own))


def entry(column: str, index: int, less: int | None = None) -> Derived:
    """One entry of a column of curves, or the difference of two; not a number where an entry is ``None``."""

    def number(curve: list[float | None]) -> float:
        first, second = np.array([curve[index], 0 if less is None else curve[less]], dtype=float)
        return float(first - second)

    return Derived((column,), number)


def survived(radii: int | slice) -> Derived:
    """Accuracy under PGD at one radius of the measurement "attacks", or the mean of the first few."""
    last = radii if isinstance(radii, int) else radii.stop - 1

    def outcomes(alive: np.ndarray) -> np.ndarray:  # at how many radii, the smaller ones
        return (alive > last) * 1.0 if isinstance(radii, int) else np.minimum(alive, radii.stop) / radii.stop

    return Derived(
        ("attacks.pgd_accuracy",), lambda curve: np.mean(curve[radii]), "attacks.pgd_radii_by_image", outcomes
    )


def across_seeds(table: pd.DataFrame, column: Column, **setting: Any) -> pd.Series:
    """The values of ``column`` by seed, for the networks with the labels ``setting``; empty if there are none."""
    rows = select(table, setting)
    return derived(column).of(rows).set_axis(rows["seed"] if len(rows) else []).dropna()


def contrast(column: Column, weights: Sequence[tuple[Setting, float]], block: Setting | None = None) -> Statistic:
    """A weighted sum over settings of one column: a level, a difference, a difference of differences.

    Args:
        column: of the results table.
        weights: of each setting.
        block: labels that all settings have in common whose spread is pooled.

    Seeds and pictures are crossed random effects. The variance from seeds is the residual of the two-way layout of all
    settings in the block and seeds (weights that sum to 0), or that of the seeds themselves (a level). Where every
    network has outcomes image by image, of equally many, the variance from pictures is that of the two-way layout of
    seeds and pictures, whose interaction is the least that the seeds' may be; else the interval is over seeds alone.
    Degrees of freedom after Satterthwaite. ``None`` with fewer than two seeds that every setting has.
    """
    settings, weight = tuple(setting for setting, _ in weights), np.array([weight for _, weight in weights])
    column = derived(column)
    needed = {"setting", "seed", column.by_image}.union(column.needs, block or (), *settings)

    def of(table: pd.DataFrame) -> Result | None:
        table = table[[name for name in table if name in needed]]  # of hundreds of columns, all copied by a selection
        columns = [across_seeds(table, column, **setting) for setting in settings]
        if any(column.index.has_duplicates for column in columns):
            raise ValueError(f"labels that select several networks of a seed: {settings}")
        values = pd.concat(columns, axis=1).dropna()
        seeds = len(values)
        if seeds < 2:
            return None
        by_seed = values.to_numpy() @ weight
        variance, freedom = by_seed.var(ddof=1) / seeds, float(seeds - 1)
        if abs(weight.sum()) < 1e-9:
            pooled = _residual(select(table, block or {}), column, values.index)
            if pooled is not None:
                variance, freedom = pooled[0] * (weight**2).sum() / seeds, pooled[1]
        shots, pictures, least = _from_pictures(table, column, settings, weight, values.index)
        if variance < least:  # what seeds add is no less than nothing
            variance, freedom = least, (seeds - 1.0) * (pictures - 1.0)
        total = variance + shots
        if total > 0:
            freedom = total**2 / (variance**2 / freedom + shots**2 / max(1.0, pictures - 1.0))
        return Result.of(float(by_seed.mean()), float(total**0.5), freedom, seeds, pictures)

    return Statistic(settings, of)


def _from_pictures(
    table: pd.DataFrame, column: Derived, settings: tuple[Setting, ...], weight: np.ndarray, seeds: pd.Index
) -> tuple[float, int, float]:
    """Variance of a contrast from pictures, their number, and the variance from seeds and pictures together."""
    outcomes = [
        [*pd.Series(column.outcomes(rows), rows["seed"], dtype=object).reindex(seeds)]
        for rows in (select(table, setting) for setting in settings)
    ]
    counts = {len(one) if isinstance(one, np.ndarray) else 0 for own in outcomes for one in own}
    if len(counts) > 1 or 0 in counts:  # not of every network, or not of the same pictures
        return 0.0, 0, 0.0
    crossed = np.tensordot(weight, np.array(outcomes), 1)  # (seeds, pictures)
    both, pictures = _interaction(crossed) / crossed.size, crossed.shape[1]
    return max(0.0, float(crossed.mean(0).var(ddof=1)) / pictures - both), pictures, both


def _interaction(values: np.ndarray) -> float:
    """Variance of what is left of a two-way layout without the means of its rows and columns."""
    left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    rows, columns = values.shape
    return float((left**2).sum() / ((rows - 1) * (columns - 1)))


def _residual(table: pd.DataFrame, column: Derived, seeds: pd.Index) -> tuple[float, float] | None:
    """Variance and degrees of freedom of what is left of (settings, seeds) without the means of both.

    Settings that lack a seed, and those that do not vary, are left out; a run that is in the table twice counts once.
    """
    by_run = column.of(table).set_axis([table["setting"], table["seed"]])
    layout = by_run[~by_run.index.duplicated()].unstack().reindex(columns=seeds).dropna()
    values = layout[layout.max(axis=1) > layout.min(axis=1)].to_numpy()
    if len(values) < 2:
        return None
    return _interaction(values), float((len(values) - 1) * (len(seeds) - 1))


def level(column: Column, **setting: Any) -> Statistic:
    """Mean over the seeds of one setting."""
    return contrast(column, [(setting, 1.0)])


def minus(column: Column, first: Setting | list[Setting], second: Setting | list[Setting], **common: Any) -> Statistic:
    """First setting minus second, or means of several; all have the labels ``common``, whose spread is pooled."""
    weights = []
    for sign, settings in ((1.0, first), (-1.0, second)):
        chosen = settings if isinstance(settings, list) else [settings]
        weights += [(common | dict(one), sign / len(chosen)) for one in chosen]
    return contrast(column, weights, common)


def best(column: str, one: Setting, many: Setting, highest: bool, sign: float = 1.0) -> Statistic:
    """``one`` minus the best of the networks with the labels ``many``, chosen anew in each seed, over seeds.

    With ``sign`` -1 the best minus ``one``. ``None`` with fewer than two seeds that all have.
    """

    def of(table: pd.DataFrame) -> Result | None:
        rows = select(table, many)
        if rows.empty:
            return None
        by_run = derived(column).of(rows).set_axis([rows["setting"], rows["seed"]])
        others = by_run[~by_run.index.duplicated()].unstack(0).dropna()
        chosen = others.max(axis=1) if highest else others.min(axis=1)
        return by_seeds((sign * (across_seeds(table, column, **one) - chosen)).dropna().to_numpy())

    return Statistic((one, many), of, every=many)


def by_seeds(values: Any) -> Result | None:
    """The mean of one number per seed; ``None`` for fewer than two."""
    seeds = len(values)
    if seeds < 2:
        return None
    return Result.of(float(np.mean(values)), float(np.std(values, ddof=1) / seeds**0.5), seeds - 1, seeds)


def kind_means(table: pd.DataFrame, kind: str, column: str) -> pd.Series:
    """The mean of ``column`` of each kind of networks over all seeds there are, even where a kind lacks some.

    What a seed does to the kinds that have it counts for those that lack it, which would else look better without a
    hard one: least squares of kinds plus seeds, of those that a chain of kinds links, within the range of what was
    observed: no share gets above 1. Where all have the same seeds, this is the plain mean.
    """
    known = table.dropna(subset=[kind, column])
    values = known[column].to_numpy(dtype=float)
    kinds, seeds = (pd.get_dummies(known[name], dtype=float) for name in (kind, "seed"))
    found = np.linalg.lstsq(np.hstack([kinds, seeds]), values, rcond=None)[0]
    effects = found[kinds.shape[1] :]
    near = (kinds.T.to_numpy() @ seeds.to_numpy()) > 0  # (kinds, seeds)
    for _ in effects:  # until all are that a chain of kinds leads to: no others can be compared
        near = near @ near.T @ near
    means = found[: kinds.shape[1]] + near @ effects / near.sum(1)
    means = means.clip(values.min(initial=np.inf), values.max(initial=-np.inf))
    return pd.Series(means, kinds.columns, name=column).round(12)[known[kind].unique()]  # ties stay ties


def over_kinds(
    first: str,
    second: str,
    where: Setting,
    kind: str,
    given: str | None = None,
    other: Setting | None = None,
    without: tuple[str, ...] = (),
) -> Statistic:
    """Spearman's correlation of two columns over kinds of networks, each the mean of its seeds (``kind_means``).

    Networks that differ in the seed alone are near copies; kinds are the sample. ``None`` with fewer than five kinds.

    Args:
        first: a column.
        second: a column.
        where: labels of the networks.
        kind: the label that tells kinds apart.
        given: a column whose influence on the ranks of both is taken out.
        other: labels of the networks whose ``second`` is taken, if they are others: kinds that both have count.
        without: kinds left out.
    """

    def of(table: pd.DataFrame) -> Result | None:
        wanted = [(first, where), (second, other or where), *([(given, where)] if given else [])]
        if not {kind, *(column for column, _ in wanted)} <= set(table):
            return None
        table = table[~table[kind].isin(without)]
        columns = [kind_means(select(table, setting), kind, column) for column, setting in wanted]
        found = rank_correlation(*pd.concat(columns, axis=1).dropna().to_numpy(dtype=float).T)
        return found and found._replace(seeds=select(table, where).dropna(subset=first)["seed"].nunique())

    return Statistic((where, *([other] if other else [])), of)


def rank_correlation(first: np.ndarray, second: np.ndarray, given: np.ndarray | None = None) -> Result | None:
    """Spearman's correlation, after ``given`` was regressed out of the ranks; ``None`` for too few, or ties only.

    The interval is Fisher's with the standard error of Bonett & Wright 2000, one freedom less for ``given``; of orders
    that agree whole with a correction for continuity, as few kinds agree by chance (five in one of 120 orders).
    """
    from scipy import stats

    taken = 0 if given is None else 1
    if len(first) < 5 + taken or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    ranks = [stats.rankdata(one) for one in (first, second)]
    if given is not None:
        line = np.stack([np.ones(len(first)), stats.rankdata(given)], 1)
        ranks = [one - line @ np.linalg.lstsq(line, one, rcond=None)[0] for one in ranks]
        if min(np.ptp(one) for one in ranks) < 1e-9:  # nothing is left of one but roundings
            return None
    value = np.corrcoef(*ranks)[0, 1]
    most = 1 - 6 / (len(first) ** 3 - len(first))  # half an exchange of neighbours away from orders that agree
    return _fisher(value, ((1 + value**2 / 2) / (len(first) - 3 - taken)) ** 0.5, most)


def line_correlation(first: np.ndarray, second: np.ndarray) -> Result | None:
    """Pearson's correlation with Fisher's interval; ``None`` for fewer than five pairs, or where one does not vary."""
    if len(first) < 5 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return _fisher(np.corrcoef(first, second)[0, 1], (len(first) - 3) ** -0.5)


def _fisher(value: float, error: float, most: float = 1 - 1e-12) -> Result:
    """Of a correlation with its standard error on Fisher's scale, where it counts as ``most`` at most."""
    value, middle = float(np.clip(value, -1, 1)), np.arctanh(np.clip(value, -most, most))
    low, high = np.tanh([middle - _quantile(np.inf) * error, middle + _quantile(np.inf) * error])
    return Result(value, min(float(low), value), max(float(high), value), 0, 0, float(error), np.inf, True)


def concordance(column: str, where: Setting, kind: str) -> Statistic:
    """``kendall_w`` of the seeds' orders by ``column`` of the kinds, over the networks with the labels ``where``.

    Where a kind lacks a seed, either such kinds or such seeds are left out: what leaves more networks.
    """

    def of(table: pd.DataFrame) -> Result | None:
        rows = select(table, where)
        if column not in rows:
            return None
        layout = rows.pivot_table(column, "seed", kind, sort=False)
        return kendall_w(max((layout.dropna(axis=0), layout.dropna(axis=1)), key=np.size).to_numpy(dtype=float))

    return Statistic((where,), of)


def kendall_w(values: np.ndarray) -> Result | None:
    """Kendall's W of ``values`` (seeds, kinds), with a jackknife over kinds; ``None`` for too few, or ties only.

    1 if all seeds rank the kinds alike, about 1 / seeds if at random; corrected for ties (Kendall 1948). ``None`` with
    fewer than two seeds or five kinds. Of few seeds the interval is too narrow: where the truth is 0.7, that of two
    seeds lies above it in 8 of 100 cases, of three in 4, and not in 2.5 (simulated).
    """
    from scipy import stats

    seeds, kinds = values.shape
    if seeds < 2 or kinds < 5:
        return None

    def w(values: np.ndarray) -> float:
        rows, columns = values.shape
        ranks = stats.rankdata(values, axis=1)
        ties = sum((counts**3 - counts).sum() for counts in (np.unique(row, return_counts=True)[1] for row in ranks))
        spread = ((ranks.sum(0) - ranks.sum(0).mean()) ** 2).sum()
        largest = (rows**2 * (columns**3 - columns) - rows * ties) / 12
        return float(spread / largest) if largest > 0 else float("nan")

    whole = w(values)
    pseudo = [kinds * whole - (kinds - 1) * w(np.delete(values, kind, 1)) for kind in range(kinds)]
    if np.isnan([whole, *pseudo]).any():
        return None
    found = Result.of(whole, float(np.std(pseudo, ddof=1) / kinds**0.5), kinds - 1, seeds)
    return found._replace(high=min(1.0, found.high))


def near(statistic: Statistic, middle: float) -> Statistic:
    """How far a statistic is from ``middle``, on either side: its interval begins at 0 where that lies within."""

    def of(table: pd.DataFrame) -> Result | None:
        if (found := statistic.of(table)) is None:
            return None
        value, *ends = (abs(number - middle) for number in found[:3])
        return found._replace(value=value, low=0.0 if found.low <= middle <= found.high else min(ends), high=max(ends))

    return Statistic(statistic.settings, of)


def fact(function: Callable[[], float]) -> Statistic:
    """A property of layers or networks that is computed, not measured on trained ones: its interval is a point."""

    def of(table: pd.DataFrame) -> Result:
        value = float(function())
        return Result(value, value, value, 0)

    return Statistic((), of)
