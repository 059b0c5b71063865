"""The statistics of the study on Saha and Gokhale, on tables made by hand."""

from operator import ne

import pandas as pd
import pytest

from aliasing.records import home
from aliasing.studies.saha2024 import LEAN_VARIANTS, METHODS, STUDY, VARIANTS
from aliasing.studies.saha2024_statistics import (
    difference,
    entry_difference,
    gap_growth,
    mean,
    pooling,
    ring,
    shortfall,
    tips_overhead,
    undo_difference,
)


def _rows(**columns):
    """Two methods x two seeds; each column is given as (first, second) per seed."""
    rows = []
    for index, method in enumerate(("a", "b")):
        for seed in range(2):
            row = {"task": "classes", "method": method, "seed": seed}
            rows.append(row | {name: values[seed][index] for name, values in columns.items()})
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed():
    table = _rows(score=[(0.5, 0.2), (0.9, 0.6)])
    assert difference("score", "a", "b")(table).value == pytest.approx(0.3)
    assert difference("score", "a", "b")(table).low == pytest.approx(0.3)  # the same in both seeds
    assert difference("score", "a", "b", task="masks")(table) is None
    assert shortfall("score", "a")(table).value == pytest.approx(0.3)


def test_the_lowest_of_the_others_counts():
    first = _rows(score=[(0.5, 0.2), (0.9, 0.6)])
    third = _rows(score=[(0.1, 0), (0.7, 0)]).query("method == 'a'").assign(method="c")
    table = pd.concat([first, third])
    # b minus the lower of a and c: 0.2 - 0.1, 0.6 - 0.7
    assert difference("score", "b", "a", "c")(table).value == pytest.approx(0.0)


def test_ring_and_growth():
    surface = [[0.1, 0.2, 0.1], [0.2, 1.0, 0.2], [0.1, 0.2, 0.1]]
    assert ring(surface, 0) == 1 and ring(surface, 1) == pytest.approx(0.15)
    near_far = [[0.0] * 5, [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0.0] * 5]
    flat = [[1.0] * 5] * 5
    table = _rows(surface_standard=[(flat, near_far), (flat, near_far)])
    assert gap_growth("a", "b")(table).value == pytest.approx(1)  # no gap at one pixel, a whole one at two


def test_lists_are_reduced_and_the_undo_loss_summed():
    table = _rows(undo_floor=[([0.5, 0.7], [0.5]), ([0.6], [0.5])], undo_excess=[([0.1, 0.1], [0.2]), ([0.3], [0.1])])
    assert undo_difference("a", "b")(table).value == pytest.approx((0.7 - 0.7 + 0.9 - 0.6) / 2)
    assert entry_difference("undo_floor", mean, "a", "b")(table).value == pytest.approx(0.1)


def test_overhead_is_relative():
    table = _rows(macs=[(110.0, 100.0), (130.0, 100.0)]).replace({"a": "tips", "b": "subsample"})
    assert tips_overhead("macs")(table).value == pytest.approx(0.2)


def test_max_pooling_counts_once_or_not_at_all():
    table = pd.DataFrame({"task": "classes", "method": list(METHODS)})
    assert set(METHODS) - set(pooling(table, True)["method"]) == {"subsample"}
    assert set(METHODS) - set(pooling(table, False)["method"]) == {"subsample", "max"}


def test_the_published_layer_is_trained_with_its_losses():
    published = [job for job in STUDY.jobs("laptop") if job.labels["method"] == "tips as published"]
    assert len(published) == 3
    assert all(job.run.recipe.tips == 0.35 and job.run.network["downsample"]["faithful"] for job in published)


@pytest.mark.parametrize("profile", ["smoke", "laptop", "cluster"])
def test_variants_change_one_thing_at_a_time(profile):
    jobs = [job for job in STUDY.jobs(profile, seeds=1) if job.labels["task"] == "variants"]
    settings = [(job.run.recipe.tips, job.run.recipe.tips_wake, job.run.recipe.tips_form) for job in jobs]
    usual = (0.35, 0.4, "code")
    assert settings == list(LEAN_VARIANTS if profile == "laptop" else VARIANTS) and usual in settings
    assert {sum(map(ne, usual, setting)) for setting in settings} == {0, 1}


def test_published_stability_is_the_product_of_its_neighbours():
    paper = pd.read_csv(home() / "data/published/saha2024.csv")
    wide = paper.dropna(subset=["spread"]).pivot_table("value", ["dataset", "network", "method"], "metric")
    for shift in ("standard", "circular"):
        product = wide["accuracy"] * wide[f"{shift}_consistency"] / 100
        off = (wide[f"{shift}_stability"] - product).abs() > 0.0101
        assert len(wide) == 30 and off.sum() == (shift == "standard")
