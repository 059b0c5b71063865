"""Correlation with an interval over clusters."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from aliasing.errors import UsageError
from aliasing.studies.correlation import correlation


def _table(clusters=8, copies=3, seed=0):
    generator = np.random.default_rng(seed)
    level = generator.normal(size=clusters).repeat(copies)
    noise = generator.normal(scale=0.3, size=(2, clusters * copies))
    kinds = np.arange(clusters).repeat(copies)
    return pd.DataFrame({"x": np.exp(level + noise[0]), "y": -level + noise[1], "level": level, "kind": kinds})


def test_coefficients_are_scipys():
    table = _table()
    assert correlation(table, "x", "y", "kind").value == pytest.approx(spearmanr(table["x"], table["y"])[0])
    plain = correlation(table, "x", "y", "kind", ranks=False)
    assert plain.value == pytest.approx(pearsonr(table["x"], table["y"])[0])
    assert plain.low < plain.value < plain.high


def test_a_common_cause_is_taken_out():
    table = _table()
    table["x"] = np.log(table["x"])
    given = correlation(table, "x", "y", "kind", given="level", ranks=False)
    slopes = [np.polyfit(table["level"], table[name], 1) for name in "xy"]
    left = [table[name] - np.polyval(slope, table["level"]) for name, slope in zip("xy", slopes, strict=True)]
    assert given.value == pytest.approx(pearsonr(*left)[0])
    assert abs(given.value) < 0.5 < abs(correlation(table, "x", "y", "kind", ranks=False).value)


def test_what_is_a_function_of_the_given_has_no_correlation_left():
    table = _table().assign(y=lambda t: 2 * t["level"])
    assert correlation(table, "x", "y", "kind", given="level", ranks=False) is None


def test_copies_of_a_cluster_do_not_narrow_the_interval():
    table = _table(copies=1)
    often = pd.concat([table] * 10)
    once, ten = (correlation(part, "x", "y", "kind") for part in (table, often))
    assert ten.value == pytest.approx(once.value)
    assert ten.high - ten.low == pytest.approx(once.high - once.low)
    assert (once.n, ten.n) == (8, 80)


def test_too_few_clusters_and_missing_values():
    assert correlation(_table(clusters=3), "x", "y", "kind") is None
    table = _table()
    table.loc[table["kind"] >= 3, "y"] = np.nan
    assert correlation(table, "x", "y", "kind") is None
    assert correlation(_table().assign(x=1.0), "x", "y", "kind") is None
    with pytest.raises(UsageError, match="no column 'z'"):
        correlation(table, "x", "z", "kind")
