"""The decision guide on results whose answers are known beforehand."""

import pandas as pd
import pytest

from aliasing.figures.comparison import efficient, named, summary
from aliasing.figures.comparison_tables import guide, overview, published, sentences
from aliasing.studies.comparison_metrics import METRICS, prepared

METRIC = {metric.column: metric for metric in METRICS}
DEFAULT = {
    "backbone": "vgg",
    "accuracy": 0.9,
    "circular_consistency": 0.9,
    "standard_consistency": 0.9,
    "top1_change_crop": 0.05,
    "corruption_error": 0.3,
    "pgd_accuracy": [0.8, 0.7, 0.6, 0.1],
    "macs": 100,
    "milliseconds": 1.0,
    "training.parameters": 1234,
}


def results(changes, seeds=3):
    """One row per layer and seed: ``DEFAULT``, what ``changes`` says, and a wobble that all layers of a seed share."""
    rows = []
    for seed in range(seeds):
        for layer, change in changes.items():
            row = DEFAULT | change | {"layer": layer, "seed": seed}
            row["accuracy"] += 0.01 * seed
            rows.append(row if seed == 0 else row | {"macs": None, "milliseconds": None})
    return pd.DataFrame(rows)


CLEAR = results(
    {
        "subsample": {},
        "tri-3": {"accuracy": 0.93, "top1_change_crop": 0.02, "macs": 150},
        "bin-5": {"accuracy": 0.925, "top1_change_crop": 0.01, "macs": 200},
        "aps": {"circular_consistency": 1.0, "accuracy": 0.91, "standard_consistency": 0.88},
    }
)


def test_the_first_choice_changes_least_within_a_point_of_the_best():
    first = sentences(prepared(CLEAR))[0]
    assert "take **bin-5**: within a point of the most accurate, tri-3 (94.0 %)" in first
    assert "1.0 % of the cases" in first and "2.00 times" in first


def test_who_must_be_exact_is_told_the_price():
    exact = sentences(prepared(CLEAR))[1]
    assert "only aps will do (consistency 100.00 %" in exact
    assert "accuracy is -1.5 points [-1.5, -1.5]" in exact and "standard shifts -2.0 points" in exact


def test_nobody_is_called_exact_who_is_not():
    exact = sentences(prepared(results({"subsample": {}, "tri-3": {"circular_consistency": 0.99}})))[1]
    assert exact == "No layer is exactly invariant to circular shifts: the best worst seed is 99.00 %."


def test_a_special_need_gets_another_layer_only_if_that_is_clearly_better():
    table = results({"subsample": {}, "tri-3": {"top1_change_crop": 0.01}, "flc": {"corruption_error": 0.2}})
    sensor = next(text for text in sentences(prepared(table)) if text.startswith("If the sensor"))
    assert "take **flc**: corruption error 20.0 %, -10.0 points [-10.0, -10.0] against tri-3" in sensor
    table.loc[(table["layer"] == "flc") & (table["seed"] == 1), "corruption_error"] = 0.35
    sensor = next(text for text in sentences(prepared(table)) if text.startswith("If the sensor"))
    assert sensor.startswith("If the sensor is poor, stay with tri-3: flc has the best corruption error 25.0 %")


def test_the_cheapest_and_the_beaten():
    *_, cheapest, beaten = sentences(prepared(CLEAR))
    assert "**tri-3** is the cheapest" in cheapest and "1.50 times" in cheapest and "bin-5: 2.00 times" in cheapest
    assert beaten.startswith("No layer has a rival")  # both blurs cost more than what they beat
    table = results({"subsample": {"macs": 150}, "tri-3": {"accuracy": 0.93, "top1_change_crop": 0.02, "macs": 150}})
    assert "no more operations: subsample (by tri-3: accuracy +3.0 points" in sentences(prepared(table))[-1]


def test_a_single_seed_makes_nothing_clear():
    text = guide(results({"subsample": {}, "tri-3": {"top1_change_crop": 0.01}}, seeds=1)).data
    assert "No layer changes its answer clearly less often than subsample" in text


def test_every_sentence_has_a_number_or_says_that_there_is_none():
    for sentence in sentences(prepared(CLEAR)):
        assert any(letter.isdigit() for letter in sentence) or sentence.startswith("No layer")


def test_costs_are_known_for_all_seeds_and_relative_to_subsampling():
    table = prepared(CLEAR)
    assert table.groupby("layer")["work"].unique().map(list).to_dict()["tri-3"] == [1.5]
    assert table["small_attack"].unique() == pytest.approx([0.7])


def test_the_table_has_a_row_per_layer_and_the_published_one_a_column_of_ours():
    assert len(overview(CLEAR)) == 4
    shown = published(CLEAR)
    assert (shown["theirs: accuracy"] > 50).all()
    assert "94.0" in shown.xs("tri-3", level="method")["ours: accuracy"].iloc[0]


def test_efficient_points_are_those_that_nothing_beats():
    points = pd.DataFrame({"accuracy": [0.9, 0.8, 0.85, 0.9], "work": [2, 1, 3, 2.5]}, index=list("abcd"))
    assert efficient(points, METRIC["accuracy"], METRIC["work"]) == ["a", "b"]


def test_summary_has_no_infinite_bar_for_one_seed():
    one = summary(results({"subsample": {}}, seeds=1), "accuracy")
    assert one.loc["subsample"].tolist() == [0.9, 0.0]


def test_names_are_joined_as_in_a_sentence():
    assert (named(["a"]), named("ab"), named("abc")) == ("a", "a and b", "a, b and c")
