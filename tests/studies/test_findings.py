"""Rules and verdicts on numbers worked out by hand."""

import itertools

import pandas as pd
import pytest

from aliasing.metrics import Estimate
from aliasing.studies.findings import Part, across_seeds, decide, paired


def part(**options) -> Part:
    return Part("difference", lambda table: None, **options)


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.01, 0.03, "holds", "opposite"),
        (-0.03, -0.01, "opposite", "holds"),
        (-0.01, 0.03, "open", "open"),
        (-0.004, 0.003, "null", "null"),
    ],
)
def test_the_rule_looks_at_the_interval_only(low, high, above, below):
    estimate = Estimate((low + high) / 2, low, high, 3)
    assert part(side="above", margin=0.005).outcome(estimate) == above
    assert part(side="below", margin=0.005).outcome(estimate) == below


def test_a_threshold_moves_the_rule():
    kept = part(threshold=-0.01)
    assert kept.outcome(Estimate(-0.002, -0.008, 0.004, 3)) == "holds"
    assert kept.outcome(Estimate(-0.03, -0.04, -0.02, 3)) == "opposite"


def test_one_seed_decides_nothing():
    assert part().outcome(Estimate(0.5, float("-inf"), float("inf"), 1)) == "not run"
    assert part().outcome(None) == "not run"


def test_verdicts():
    assert decide(["holds"]) == "reproduced"
    assert decide(["holds", "holds"]) == "reproduced"
    assert decide(["holds", "open"]) == "partly"
    assert decide(["holds", "opposite"]) == "partly"
    assert decide(["opposite"]) == "contradicted"
    assert decide(["opposite", "open"]) == "contradicted"
    assert decide(["null", "null"]) == "not reproduced"
    assert decide(["null", "open"]) == "inconclusive"
    assert decide(["open"]) == "inconclusive"
    assert decide(["holds", "not run"]) == "not run"


def test_the_order_of_the_parts_does_not_matter():
    kinds = ("holds", "opposite", "null", "open", "not run")
    for outcomes in itertools.product(kinds, repeat=3):
        assert len({decide(order) for order in itertools.permutations(outcomes)}) == 1


def test_differences_are_paired_by_seed():
    table = pd.DataFrame({"layer": ["a", "a", "a", "b", "b"], "seed": [0, 1, 2, 0, 1], "x": [1.0, 2.0, 9.0, 0.5, 1.0]})
    estimate = paired(across_seeds(table, "x", layer="a"), across_seeds(table, "x", layer="b"))
    assert estimate is not None
    assert estimate.n == 2
    assert estimate.value == pytest.approx(0.75)
    # Student's t with one degree of freedom: 12.706 * sd / sqrt(2), sd of 0.5 and 1.0.
    assert estimate.high - estimate.value == pytest.approx(12.7062 * 0.353553 / 2**0.5, rel=1e-4)
    assert paired(across_seeds(table, "x", layer="c"), across_seeds(table, "x", layer="b")) is None
    assert across_seeds(table, "y").empty


def test_the_rule_is_told_in_words():
    assert part(side="below", margin=0.01).rule == "95 % interval below 0; none if the interval lies within ±0.01 of it"
