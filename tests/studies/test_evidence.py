"""The statistics, against what is known of them by hand, by scipy or by simulation."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from aliasing.measurements import packed
from aliasing.metrics import Estimate
from aliasing.studies.evidence import (
    Derived,
    Result,
    Statistic,
    across_seeds,
    best,
    concordance,
    contrast,
    derived,
    entry,
    fact,
    kendall_w,
    kind_means,
    level,
    minus,
    near,
    over_kinds,
    rank_correlation,
    survived,
)
from aliasing.studies.rules import below

A, B, C = {"layer": "a"}, {"layer": "b"}, {"layer": "c"}


def table(values):
    """One row per layer and seed; ``values`` maps layers to a number per seed."""
    rows = [(layer, layer, seed, value) for layer, own in values.items() for seed, value in enumerate(own)]
    return pd.DataFrame(rows, columns=["setting", "layer", "seed", "m.x"])


def test_intervals_are_students_and_differences_the_paired_t_test():
    first, second = [0.2, 0.5, 0.3, 0.9], [0.1, 0.2, 0.3, 0.4]
    values = table({"a": first, "b": second})
    found = level("m.x", **A).of(values)
    low, high = stats.t.interval(0.95, 3, np.mean(first), stats.sem(first))
    assert found[:5] == pytest.approx((np.mean(first), low, high, 4, 0))
    assert found.p(0.1) == pytest.approx(stats.ttest_1samp(first, 0.1).pvalue)
    assert minus("m.x", A, B).of(values).p(0) == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert Result.over(Estimate(0.5, 0.4, 0.6, 9)).error == pytest.approx(0.1 / 1.96)


def test_spread_is_pooled_over_the_settings_of_the_block():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=4) for name in "abcde"}
    found = minus("m.x", A, B).of(table(values))
    layout = np.array(list(values.values()))
    left = layout - layout.mean(0) - layout.mean(1, keepdims=True) + layout.mean()
    assert found.freedom == 12 and found.error == pytest.approx(((left**2).sum() / 12 * 2 / 4) ** 0.5)
    whole = table(values | {"constant": [0.1] * 4, "short": [1.0, 2.0]}).assign(group="one")
    other = table({"f": [100.0, -100.0, 50.0, 3.0]}).assign(group="two")
    inside = minus("m.x", A, B, group="one").of(pd.concat([whole, other]))
    assert inside == pytest.approx(found)  # settings of other blocks, without spread or with missing seeds do not count
    twice = table(values).assign(place="one"), table({"e": values["e"]}).assign(place="two")
    assert minus("m.x", A, B).of(pd.concat(twice)) == pytest.approx(found)  # a run with two places in a study


def test_means_of_settings_and_differences_of_differences():
    values = table({"a": [1.0, 2], "b": [3.0, 5], "c": [5.0, 9]})
    assert minus("m.x", A, [B, C]).of(values).value == pytest.approx(1.5 - 5.5)
    assert contrast("m.x", [(A, 1.0), (B, -2.0), (C, 1.0)]).of(values).value == pytest.approx(1.5 - 8 + 7)


@pytest.mark.parametrize("still", ["", "pictures", "seeds"])
def test_pictures_and_seeds_are_crossed_in_the_interval(still, monkeypatch):
    """The variance of a mean over two crossed random effects, from the mean squares of its layout."""
    monkeypatch.setattr("aliasing.studies.evidence.unpacked", lambda text: torch.tensor(json.loads(text)))
    rng = np.random.default_rng(1)
    layout = rng.normal(scale=0.1, size=(5, 1)) + rng.normal(size=60) + rng.normal(scale=0.2, size=(5, 60))
    if still == "pictures":  # they vary less than by chance, which takes nothing from the seeds
        layout += layout.mean() - layout.mean(0)
    elif still == "seeds":  # likewise, and the interaction is the least that their part may be
        layout += layout.mean() - layout.mean(1, keepdims=True)
    rows = [
        (k, k, s, json.dumps([*own]), own.mean())
        for s in range(5)
        for k, own in (("a", layout[s]), ("b", 0 * layout[0]))
    ]
    found = minus("m.x", A, B).of(pd.DataFrame(rows, columns=["setting", "layer", "seed", "m.x_by_image", "m.x"]))
    by_seed, by_picture = (
        count * ((layout.mean(axis) - layout.mean()) ** 2).sum() for axis, count in ((1, 60), (0, 5))
    )
    left = ((layout - layout.mean()) ** 2).sum() - by_seed - by_picture
    squares = [max(by_seed / 4, left / 236) / 300, max(0, by_picture / 59 - left / 236) / 300]
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / (236 if still == "seeds" else 4) + squares[1] ** 2 / 59)
    assert found.pictures == 60 and found.seeds == 5
    assert (found.error, found.freedom) == pytest.approx((sum(squares) ** 0.5, freedom))


def test_pictures_that_are_not_the_same_are_not_crossed():
    values = table({"a": [0.5, 1], "b": [0.0, 0.5]})
    values["m.x_by_image"] = [packed(torch.tensor(own)) for own in ([True, False], [True] * 2, [False], [True])]
    assert minus("m.x", A, B).of(values).pictures == 0 and level("m.x", **A).of(values).pictures == 2


def test_what_is_missing_gives_nothing():
    values = table({"a": [1.0, 2], "b": [3.0, np.nan]})
    for absent in (minus("m.x", A, B), minus("m.x", A, C), minus("m.y", A, B), level("m.x", other=1), entry("m.y", 0)):
        statistic = level(absent, **A) if isinstance(absent, Derived) else absent
        assert statistic.of(values) is None and statistic.of(values.iloc[:0]) is None
    assert level("m.x", **A).of(pd.DataFrame()) is None
    with pytest.raises(ValueError, match="several networks"):
        level("m.x").of(table({"a": [1.0, 2], "b": [3.0, 4]}))


def test_derived_columns_leave_out_what_was_not_measured():
    values = table({"a": [1.0, 2, 3]}).assign(curve=[[1, 5], None, [2, 9]])
    assert across_seeds(values, entry("curve", -1, 0), **A).to_dict() == {0: 4, 2: 7}
    assert across_seeds(values, Derived(("curve", "m.x"), lambda curve, x: curve[0] + x)).to_dict() == {0: 2, 2: 5}
    assert across_seeds(values, Derived(("m.x",), lambda x: 1 / (x - 1))).to_dict() == {1: 1, 2: 0.5}  # nor 1 / 0


def test_outcomes_by_image_have_the_mean_of_their_column_where_a_measurement_keeps_them():
    alive = np.arange(4)
    assert survived(1).outcome(alive).tolist() == [0, 0, 1, 1]
    assert survived(slice(3)).outcome(alive).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    counts = {"corruptions.corruption_error": [0.4], "corruptions.corruption_errors_by_image": [[10, 26]]}
    rows = pd.DataFrame(counts).map(lambda own: packed(torch.tensor(own)) if isinstance(own, list) else own)
    (found,) = derived("corruptions.corruption_error").outcomes(rows)
    assert found.tolist() == pytest.approx([0.4 * 10 / 18, 0.4 * 26 / 18])
    assert derived("one_pixel.top1_change_crop").by_image == "one_pixel.top1_changes_crop_by_image"
    assert derived("circular_fidelity.accuracy").by_image == "accuracy.accuracy_by_image"


def test_the_best_is_chosen_in_each_seed_of_those_that_are_complete():
    values = table({"a": [1.0, 1, 2], "b": [3.0, 0, 1], "c": [2.0, 4, 0]}).assign(other=lambda t: t["layer"] != "a")
    found = best("m.x", A, {"other": True}, highest=True).of(values)
    less = [1 - 3, 1 - 4, 2 - 1]
    assert found[:3] == pytest.approx([np.mean(less), *stats.t.interval(0.95, 2, np.mean(less), stats.sem(less))])
    lowest = best("m.x", A, {"other": True}, highest=False, sign=-1)
    assert lowest.of(values).value == pytest.approx(((2 - 1) + (0 - 1) + (0 - 2)) / 3)
    assert lowest.of(values.drop(index=[3, 5, 7])) is None  # of seed 2 both rivals, of the others one each
    assert lowest.of(pd.DataFrame()) is None


def test_correlations_are_over_kinds_and_not_over_seeds():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 9))
    rows = [(kind, seed, first[kind], second[kind]) for kind in range(9) for seed in range(50)]
    found = over_kinds("m.x", "m.y", {}, "layer").of(pd.DataFrame(rows, columns=["layer", "seed", "m.x", "m.y"]))
    assert found.value == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.seeds == 50 and found.low < found.value < found.high and found.high - found.low > 0.5


def test_the_second_column_may_be_of_other_networks_of_the_kinds_and_kinds_be_left_out():
    rng = np.random.default_rng(2)
    rows = [(kind, seed, wide, *rng.normal(size=2)) for kind in "abcdefgh" for wide in (0, 1) for seed in (0, 1)]
    rows = pd.DataFrame(rows, columns=["layer", "seed", "wide", "m.x", "m.y"])
    found = over_kinds("m.x", "m.y", {"wide": 0}, "layer", other={"wide": 1}, without=("h", "c")).of(rows)
    by_hand = [
        [rows[(rows["layer"] == kind) & (rows["wide"] == wide)][column].mean() for kind in "abdefg"]
        for wide, column in ((0, "m.x"), (1, "m.y"))
    ]
    assert found.value == pytest.approx(stats.spearmanr(*by_hand).statistic)


def test_a_kind_that_lacks_a_hard_seed_does_not_look_better():
    rows = table({name: [i + 0.0, i + 10, i + 20] for i, name in enumerate("abcdefgh")})
    rows["m.y"] = rows["layer"].map(ord)
    whole = kind_means(rows, "layer", "m.x")
    assert whole.equals(rows.groupby("layer")["m.x"].mean())
    lacking = rows[
        ~(rows["layer"].isin([*"abc"]) & (rows["seed"] == 0)) & ~((rows["layer"] == "h") & (rows["seed"] > 0))
    ]
    assert kind_means(lacking, "layer", "m.x").to_dict() == pytest.approx(whole.to_dict())
    assert over_kinds("m.x", "m.y", {}, "layer").of(lacking).value == pytest.approx(1)
    assert kind_means(rows.iloc[:0], "layer", "m.x").empty
    exact = table({"a": [0.8, 0.9], "b": [1], "c": [1, 1]})  # b lacks the seed in which a is better
    assert kind_means(exact, "layer", "m.x").to_dict() == pytest.approx({"a": 0.85, "b": 1, "c": 1})
    apart = rows[(rows["layer"] == "a") & (rows["seed"] < 2) | (rows["layer"] == "b") & (rows["seed"] == 2)]
    assert kind_means(apart, "layer", "m.x").to_dict() == pytest.approx({"a": 5, "b": 21})  # of which nothing is known
    assert kind_means(rows.assign(layer=rows["layer"].replace("a", None)), "layer", "m.x").size == 7


def test_rank_correlation_covers_and_takes_out_what_is_given():
    rng = np.random.default_rng(3)
    covered = [(r := rank_correlation(*rng.normal(size=(2, 12)))).low <= 0 <= r.high for _ in range(400)]
    assert 0.92 < np.mean(covered) < 0.98
    common = rng.normal(size=200)
    first, second = common + rng.normal(scale=0.3, size=(2, 200))
    assert rank_correlation(first, second).value > 0.8
    given = rank_correlation(first, second, common)
    assert given.low < 0 < given.high
    assert rank_correlation(first[:4], second[:4]) is None and rank_correlation(first * 0, second) is None
    assert rank_correlation(first[:9], second[:9], first[:9]) is None  # nothing is left of the first


@pytest.mark.parametrize("kinds", [5, 6])
@pytest.mark.parametrize("sign", [1, -1])
def test_orders_that_agree_whole_may_do_so_by_chance(kinds, sign):
    found = rank_correlation(np.arange(kinds), sign * np.arange(kinds))
    assert found.value == pytest.approx(sign) and found.low <= found.value <= found.high
    assert found.p(0) == pytest.approx(2 / math.factorial(kinds), rel=1.1)


def test_concordance_is_kendalls_w():
    same = np.tile(np.arange(6.0), (3, 1))
    assert kendall_w(same).value == pytest.approx(1)
    # Two raters: W = (1 + rho) / 2.
    pair = np.random.default_rng(4).normal(size=(2, 8))
    whole, *jackknifed = (
        (1 + stats.spearmanr(*v).statistic) / 2 for v in (pair, *(np.delete(pair, k, 1) for k in range(8)))
    )
    found, pseudo = kendall_w(pair), [8 * whole - 7 * without for without in jackknifed]
    assert found.value == pytest.approx(whole) and found.error == pytest.approx(stats.sem(pseudo))
    ties = np.array([[1.0, 1, 2, 3, 4], [1, 1, 2, 3, 4]])
    assert kendall_w(ties).value == pytest.approx(1)
    assert kendall_w(np.ones((3, 6))) is None and kendall_w(same[:1]) is None and kendall_w(same[:, :4]) is None
    long = table({name: [i, i + 0.1] for i, name in enumerate("abcde")})
    assert concordance("m.x", {}, "layer").of(long).value == pytest.approx(1)
    # A sixth layer of one seed, or a third seed of one layer, does not take the others out.
    for more in ({"f": [9.0]}, {"a": [0.0, 0.1, 7.0]}):
        uneven = table({name: [i, i + 0.1] for i, name in enumerate("abcde")} | more)
        assert concordance("m.x", {}, "layer").of(uneven).value == pytest.approx(1)


@pytest.mark.parametrize(
    ("low", "high", "outcome", "distance"),
    [
        (0.45, 0.6, "holds", (0.025, 0, 0.1)),
        (0.25, 0.42, "open", (0.165, 0.08, 0.25)),
        (0.5, 0.71, "open", (0.105, 0, 0.21)),
        (0.9, 1.0, "opposite", (0.45, 0.4, 0.5)),  # nothing is lost: not half of a claim that half is
    ],
)
def test_about_a_half_is_one_claim_and_not_one_for_each_side(low, high, outcome, distance):
    found = near(Statistic((A,), lambda table: Result((low + high) / 2, low, high, 3)), 0.5)
    assert found.of(None)[:3] == pytest.approx(distance) and found.settings == (A,)
    assert below(found, threshold=1 / 6).outcome(found.of(None)) == outcome
    assert near(Statistic((), lambda table: None), 0.5).of(None) is None


def test_facts_have_no_spread():
    found = fact(lambda: 0.25).of(pd.DataFrame())
    assert found[:4] == (0.25, 0.25, 0.25, 0) and found.p(0.2) == 0 and found.p(0.25) == 1
