"""The chapter on Saha and Gokhale: what is computed from the layers, and which networks enter a correlation."""

import pandas as pd
import torch

from aliasing.figures.saha2024_correlation import correlations, gathered
from aliasing.figures.saha2024_look import look
from aliasing.figures.saha2024_theory import counter_example, fm_forms, random_depth
from aliasing.records import Store, provenance
from aliasing.studies.saha2024 import METHODS, STUDY


def test_the_counter_example_is_that_of_the_published_layer():
    # 7.300664 - 7.889310, the spatial means of the authors' code with and without a roll by one row
    assert "moves it by -0.589 " in counter_example().caption


def test_only_the_two_sided_loss_is_smallest_between_the_extremes():
    assert "code 1.00, linear 1.00, two_sided 0.7" in fm_forms().caption


def test_selection_alone_is_exact_at_random_weights():
    errors, data = random_depth(count=2)
    assert "2 pictures" in data
    assert {name for name, error in errors.items() if max(error.maps) < 1e-12} == {"aps", "lps"}


def test_every_method_has_its_own_look():
    looks = [(each["color"], each["linestyle"]) for each in map(look, METHODS)]
    assert len(set(looks)) == len(METHODS)


def test_networks_of_all_studies_enter_the_correlation_and_max_pooling_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path))
    store, origin = Store(tmp_path, tmp_path / "published"), provenance(torch.device("cpu"), 0.0)
    for job in STUDY.jobs("smoke", seeds=1):
        if job.labels["task"] == "classes" and job.labels["method"] != "lps":
            record = store.load(job.run)
            record.add("sampling_bias(count=1)", {"msb_exact": 0.1, "msb_nearest": 0.2, "msb_weight": None}, origin)
            if job.labels["method"] != "aps":
                shifts = {"standard_consistency": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}}
                record.add("shift_consistency(count=1, max_shift=8)", shifts, origin)
            record.add("shift_consistency(count=1, max_shift=4)", {"standard_consistency": 0.9}, origin)
            record.add("circular_fidelity(count=1)", {"accuracy": 0.7}, origin)
            store.save(record)
    table = gathered("smoke")
    assert set(table["layer"]) == {"max", "rect-2", "bin-5", "tips"}  # no aps, no lps, no second name of max
    assert set(table["standard_consistency"]) == {0.5}
    found = correlations("smoke", table)
    assert (found["Spearman"] == "too few").all()  # nothing varies


def test_correlations_with_and_without_max_pooling():
    rows = [("max", 1.0, 0.2), ("a", 0.1, 0.5), ("b", 0.2, 0.6), ("c", 0.3, 0.7), ("d", 0.4, 0.8)]
    table = pd.DataFrame(
        {"layer": name, "kind": name, "msb_nearest": bias, "standard_consistency": value, "accuracy": 0.5 + bias**2}
        for name, bias, value in rows
    )
    found = correlations("smoke", table).sort_index().loc[("standard", "nearest"), "Pearson"]
    assert float(found["with"].split()[0]) < 0 < float(found["without"].split()[0])
    assert found["without"].startswith("1.00")
