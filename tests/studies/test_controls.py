"""The controls against tables whose answers are worked out by hand."""

import pandas as pd
import pytest

from aliasing.records import Store
from aliasing.studies.controls import CONTROLS, controls, degradation

SEEDS = (0, 1, 2)


def parts(name):
    (finding,) = [finding for _, finding in CONTROLS if finding.id == name]
    return finding.parts


def rows(**columns):
    """One row per seed."""
    return [{"seed": seed} | {key: value(seed) for key, value in columns.items()} for seed in SEEDS]


def layers(column, values, **fixed):
    return pd.DataFrame(
        row | {"layer": layer} | fixed for layer, value in values.items() for row in rows(**{column: value})
    )


def test_consistency_is_compared_among_the_right_ones_of_one_network():
    values = {"subsample": lambda s: 0.8 + 0.01 * s, "tri-3": lambda s: 0.9 + 0.01 * s, "bin-5": lambda s: 0.7}
    table = pd.concat(
        [
            layers("circular_consistency_if_correct", values, backbone="vgg"),
            layers(
                "circular_consistency_if_correct", dict.fromkeys(values, lambda s: 0.5 + 0.1 * s), backbone="resnet"
            ),
        ]
    )
    found = [part.statistic(table) for part in parts("control-1")]
    assert [one.value for one in found] == pytest.approx([0.1, 0.0, -0.11, 0.0])
    assert [part.outcome(one) for part, one in zip(parts("control-1"), found, strict=True)][:2] == ["holds", "null"]


def test_attacks_are_compared_at_one_over_255_and_within_their_group():
    # The radii of the measurement are 1/4, 1/2, 1, ... of 1/255; other entries and groups must not count.
    def curve(at_one):
        return lambda seed: [0.9, 0.8, at_one + 0.01 * seed, 0.0]

    native = layers("pgd_accuracy", {"flc": curve(0.6), "tri-3": curve(0.5), "subsample": curve(0.1)}, group="native")
    inputs = layers("pgd_accuracy", {"flc": curve(0.3), "subsample": curve(0.4)}, group="input")
    table = pd.concat([native, inputs]).assign(corruption_error=0.5)
    assert parts("control-2")[0].statistic(table).value == pytest.approx(0.1)
    assert parts("control-2")[1].statistic(table).value == pytest.approx(0.0)
    assert parts("control-3")[0].statistic(table).value == pytest.approx(-0.1)


def test_padding_cures_only_what_becomes_exact():
    table = pd.DataFrame(
        [
            row | {"task": "classes", "method": "tips + losses"}
            for row in rows(circular_consistency_drawn=lambda s: 0.96)
        ]
        + [
            row | {"task": "classes", "method": "tips as published"}
            for row in rows(circular_consistency_drawn=lambda s: 0.90)
        ]
    )
    cured, exact = parts("control-4")
    assert cured.statistic(table).value == pytest.approx(0.06) and cured.outcome(cured.statistic(table)) == "holds"
    assert exact.outcome(exact.statistic(table)) == "opposite"


def test_degradation_is_what_corruption_adds_to_the_clean_error():
    table = degradation(pd.DataFrame({"clean_error": [0.1, 0.6], "corruption_error": [0.3, 0.7]}))
    assert list(table["degradation"]) == pytest.approx([0.2, 0.1])


def test_clean_error_explains_all_or_nothing():
    cases = {"none": 0.9, "all": 0.6, "conv": 0.8, "skip": 0.7}
    line = pd.DataFrame(
        row | {"case": case, "clean_error": 1 - clean}
        for case, clean in cases.items()
        for row in rows(corruption_error=lambda s, clean=clean: 0.1 + 0.01 * s + 2 * (1 - clean))
    )
    explained, added = parts("control-5")
    assert explained.statistic(line).value == pytest.approx(1.0)
    assert added.statistic(line).value == pytest.approx((0.9 - 0.4) - (0.3 - 0.1))  # without seeds' own 0.1 + 0.01 s
    errors = {"none": 0.3, "all": 0.3, "conv": 0.5, "skip": 0.1}
    flat = line.assign(corruption_error=line["case"].map(errors) + 0.01 * line["seed"])
    covariance = sum((cases[c] - 0.75) * (errors[c] - 0.3) for c in cases)
    size = sum((cases[c] - 0.75) ** 2 for c in cases) * sum((errors[c] - 0.3) ** 2 for c in cases)
    assert explained.statistic(flat).value == pytest.approx(covariance**2 / size)


def test_without_records_nothing_is_decided(tmp_path):
    decided = controls("smoke", Store(working=tmp_path, published=tmp_path))
    assert set(decided["verdict"]) == {"not run"}
    assert set(decided["finding"]) == {f"control-{number}" for number in range(1, 6)}
