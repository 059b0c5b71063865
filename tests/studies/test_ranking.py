"""Orders of layers against cases known by hand and an independent formula."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aliasing.studies.ranking import agreement, association, concordance, kendall_w, wide


def results(values, column="score"):
    rows = [
        {"seed": seed, "layer": layer, column: value}
        for seed, row in enumerate(values)
        for layer, value in zip("abcdefgh", row, strict=False)
    ]
    return pd.DataFrame(rows)


def test_concordance_is_one_for_equal_orders_and_zero_for_opposite_ones():
    assert kendall_w(pd.DataFrame([[1, 2, 3, 4], [10, 20, 30, 40]])) == pytest.approx(1)
    assert kendall_w(pd.DataFrame([[1, 2, 3, 4], [4, 3, 2, 1]])) == pytest.approx(0)
    assert np.isnan(kendall_w(pd.DataFrame([[1, 1, 1], [2, 2, 2]])))


def test_concordance_follows_from_the_mean_correlation_of_the_rows():
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(4, 7)))
    pairs = [stats.spearmanr(values.loc[i], values.loc[j]).statistic for i in range(4) for j in range(i)]
    assert kendall_w(values) == pytest.approx((1 + 3 * np.mean(pairs)) / 4)


def test_concordance_of_ties_follows_from_the_mean_correlation_too():
    values = pd.DataFrame([[1, 1, 2, 3, 3], [3, 3, 1, 2, 2]])  # rows with the same tie sizes
    assert kendall_w(values) == pytest.approx((1 + stats.spearmanr(values.loc[0], values.loc[1]).statistic) / 2)


def test_the_interval_of_concordance_contains_it_and_widens_with_disorder():
    rng = np.random.default_rng(1)
    order = np.arange(8.0)
    alike = concordance(pd.DataFrame(order + rng.normal(scale=0.5, size=(3, 8))))
    apart = concordance(pd.DataFrame(order + rng.normal(scale=5, size=(3, 8))))
    for estimate in (alike, apart):
        assert estimate.low <= estimate.value <= estimate.high <= 1 and estimate.n == 3
    assert alike.value > apart.value
    assert apart.high - apart.low > alike.high - alike.low


def test_concordance_needs_two_seeds_and_three_layers():
    assert concordance(pd.DataFrame([[1, 2, 3]])) is None
    assert concordance(pd.DataFrame([[1, 2], [2, 1]])) is None


def test_association_is_taken_within_each_seed():
    first = results([[1, 2, 3, 4], [11, 12, 13, 14]])
    table = first.assign(other=[4, 3, 2, 1, 40, 30, 20, 10])  # opposite within seeds, alike between them
    estimate = association(table, "score", "other")
    assert estimate.value == pytest.approx(-1) and estimate.n == 2
    assert association(table.assign(other=1), "score", "other") is None


def test_agreement_uses_the_layers_and_seeds_that_both_tables_have():
    first, second = results([[1, 2, 3, 4], [1, 2, 3, 4]]), results([[5, 6, 7]])
    estimate = agreement(first, second, "score")
    assert estimate.value == pytest.approx(1) and estimate.n == 1
    assert agreement(first, results([[5, 6]]), "score") is None


def test_wide_leaves_incomplete_seeds_out():
    table = results([[1, 2, 3], [4, 5, 6]]).iloc[:-1]
    assert wide(table, "score").index.tolist() == [0]
    assert wide(table, "missing").empty
