"""The statistics of the chapter on Azulay & Weiss, on tables made by hand."""

import pandas as pd
import pytest

from aliasing.studies import get, ledger

STUDY = get("azulay2018")


def row(seed, layer="subsample", backbone="vgg", augmented=False, bias="3", main=True, **values):
    labels = {"seed": seed, "layer": layer, "backbone": backbone, "augmented": augmented, "bias": bias, "main": main}
    return labels | values


def protocols(rate):
    return {f"top1_change_{name}": rate for name in ("crop", "black", "inpainting", "scale", "circular")}


def biased(seed, bias, near, far, change, agreement):
    return row(
        seed, bias=bias, main=False, bias_accuracy_near=near, bias_accuracy_far=far, bias_change_far=change,
        bias_agreement_far=agreement,
    )  # fmt: skip


def decided(rows, finding):
    found = ledger(STUDY, pd.DataFrame(rows), "laptop")
    return found[found["finding"] == finding]


def test_remedies_are_paired_by_seed():
    rows = []
    for seed in range(3):
        rows.append(row(seed, **protocols(0.2 + 0.1 * seed)))
        rows.append(row(seed, layer="tri-3", **protocols(0.9)))
        rows.append(row(seed, layer="bin-7", **protocols(0.1 + 0.1 * seed)))
        rows.append(row(seed, augmented=True, **protocols(0.05)))
    helps, partly = decided(rows, "azulay-5").itertuples()
    assert (helps.value, helps.outcome) == (pytest.approx(-0.1), "holds")
    assert partly.value == pytest.approx(0.2)
    assert decided(rows, "azulay-6")["value"].tolist() == pytest.approx([-0.25, -0.25, 0.05])
    assert set(decided(rows, "azulay-1")["verdict"]) == {"not run"}  # there is no residual network


def test_bias_compares_the_loss_off_the_middle():
    rows = []
    for seed in range(3):
        rows.append(biased(seed, "0", 0.9, 0.5 + 0.01 * seed, 0.3, 0.5))
        rows.append(biased(seed, "uniform", 0.9, 0.9, 0.1, 0.8 + 0.01 * seed))
        rows.append(biased(seed, "3", 0.1, 0.9, 0.9, 0.1))
    gap, change, agreement = decided(rows, "azulay-9").itertuples()
    assert gap.value == pytest.approx(0.39)
    assert change.value == pytest.approx(0.2)
    assert agreement.value == pytest.approx(-0.31)
    assert gap.verdict == "reproduced"


def test_curves_are_compared_at_their_ends():
    rows = [
        row(seed, backbone=backbone, readout_change_circular=[0.0, 0.3, 0.1 * rise + 0.01 * seed])
        for seed in range(3)
        for backbone, rise in (("vgg", 1), ("resnet", 2))
    ]
    assert decided(rows, "azulay-11")["value"].tolist() == pytest.approx([0.11, 0.21])


def test_the_law_of_exact_shifts_holds_from_both_sides():
    rows = [row(seed, exact_shift_law=1.0) for seed in range(3)]
    assert set(decided(rows, "azulay-8")["verdict"]) == {"reproduced"}
    rows = [row(seed, exact_shift_law=2.0) for seed in range(3)]
    assert decided(rows, "azulay-8")["outcome"].tolist() == ["holds", "opposite"]


@pytest.mark.parametrize("rows", [[], [biased(0, "0", 0.9, 0.5, 0.3, 0.5)], [row(0, **protocols(0.1))]])
def test_what_is_missing_is_not_run(rows):
    found = ledger(STUDY, pd.DataFrame(rows), "desktop")
    assert set(found["verdict"]) == {"not run"}


def test_runs_are_shared_with_the_other_chapters():
    own = {job.run.id for job in STUDY.jobs("laptop") if job.labels["main"] and job.labels["backbone"] == "vgg"}
    assert own <= {job.run.id for job in get("zhang2019").jobs("laptop")}
