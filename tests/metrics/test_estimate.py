"""Intervals: values known by hand, and coverage by simulation."""

import numpy as np
import pytest
import torch
from scipy import stats

from aliasing.metrics.estimate import Estimate

DRAWS = 2000
COVERED = (0.93, 0.97)


def coverage(intervals, truth):
    return np.mean([low <= truth <= high for _, low, high, _ in intervals])


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_quantiles_are_those_of_the_distributions(n):
    values = torch.linspace(0, 1, n, dtype=torch.float64)
    half = stats.t.ppf(0.975, n - 1) * values.std().item() / n**0.5
    estimate = Estimate.mean(values)
    assert estimate == pytest.approx((0.5, 0.5 - half, 0.5 + half, n), rel=1e-12)
    for hits in (0, n // 2, n):
        low, high = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert Estimate.proportion(hits, n) == pytest.approx((hits / n, low, high, n), rel=1e-12, abs=1e-12)
    assert Estimate.difference(values + 1, values) == pytest.approx((1, 1, 1, n))  # paired


def test_the_interval_of_paired_hits_is_no_point_and_covers_the_truth():
    """Over all tables of 8 pictures: of as many hits of the first alone, of the second alone, and of neither."""
    tables, n = [(a, b) for a in range(9) for b in range(9 - a)], 8
    found = {}
    for a, b in tables:
        first, second = torch.arange(n) < a, (torch.arange(n) >= a) & (torch.arange(n) < a + b)
        found[a, b] = value, low, high, _ = Estimate.paired(first, second)
        assert value == pytest.approx((a - b) / n) and -1 <= low <= value <= high <= 1 and high - low > 0.2
    for p, q in [(0, 0), (0.05, 0.05), (0.1, 0.3), (0.5, 0), (0.5, 0.5), (0.9, 0.05), (1, 0)]:
        chances = stats.multinomial.pmf([(a, b, n - a - b) for a, b in tables], n, [p, q, 1 - p - q])
        held = [low - 1e-9 <= p - q <= high + 1e-9 for _, low, high, _ in found.values()]
        assert chances @ held > 0.925  # Student's t covers it in 57 % at worst


def test_a_single_value_and_ratios_by_hand():
    assert Estimate.mean(torch.tensor([3.0])) == (3.0, -np.inf, np.inf, 1)
    estimate = Estimate.ratio(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))
    assert estimate.value == 1.0
    assert estimate[1:3] == pytest.approx(Estimate.mean(torch.tensor([0.5, 1.5]))[1:3])
    # 4 of 6, from which 1 of 2 and 3 of 4 are a third away, to either side; that is a ninth of the 3 there are in each.
    estimate = Estimate.ratio(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))
    assert estimate == pytest.approx(Estimate.mean(torch.tensor([5 / 9, 7 / 9], dtype=torch.float64)))
    assert np.isnan(Estimate.ratio(torch.zeros(3), torch.zeros(3)).value)


def test_bootstrap_is_of_groups_and_repeatable():
    values = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    groups = torch.tensor([7, 7, 7, 3, 3, 3])
    clustered = Estimate.bootstrap(values, groups)
    assert (clustered.value, clustered.n) == (0.5, 2)
    assert (clustered.low, clustered.high) == (0, 1)  # only the images 7 or 3 twice, or one of each, can be drawn
    assert Estimate.bootstrap(values).low > 0
    assert clustered == Estimate.bootstrap(values, groups) == Estimate.bootstrap(values, 2**60 + groups)
    groups = torch.cat([torch.arange(50), torch.arange(50, 100).repeat_interleave(3)])  # of one value, and of three
    uneven = Estimate.bootstrap(torch.arange(200) < 50, groups)
    assert uneven.low < uneven.value == 0.25 < uneven.high


def test_ratio_covers():
    generator = np.random.default_rng(3)
    windows = generator.integers(20, 200, (DRAWS, 60))
    share = generator.beta(2, 6, (DRAWS, 60))  # every image has a share of its own; their mean is 0.25
    hits = torch.from_numpy(generator.binomial(windows, share))
    estimates = [Estimate.ratio(a, b) for a, b in zip(hits, torch.from_numpy(windows), strict=True)]
    assert COVERED[0] <= coverage(estimates, 0.25) <= COVERED[1]


def test_bootstrap_covers_correlated_pairs():
    generator = np.random.default_rng(4)
    images, pairs = 100, 8
    rate = generator.beta(1, 3, (DRAWS, images, 1))
    changes = torch.from_numpy((generator.random((DRAWS, images, pairs)) < rate).astype(np.float64))
    groups = torch.arange(images).repeat_interleave(pairs)
    clustered = [Estimate.bootstrap(row.flatten(), groups, draws=400) for row in changes]
    assert COVERED[0] <= coverage(clustered, 0.25) <= COVERED[1]
    naive = [Estimate.proportion(row.sum().item(), row.numel()) for row in changes]
    assert coverage(naive, 0.25) < 0.9  # counting every pair as independent would be too sure
