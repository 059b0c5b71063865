"""Vasconcelos's study: its subsets are all subsets, its statistics are those that their labels say."""

from itertools import combinations

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aliasing.layers.blur import binomial
from aliasing.metrics.kernels import stop_band
from aliasing.runner import build
from aliasing.studies.vasconcelos2020 import PLACES, STUDY, SUBSETS
from aliasing.studies.vasconcelos2020_findings import FINDINGS, START, role


def multiply_accumulates(network, images):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops() // (2 * len(images))


def value(finding: str, part: int, rows: list[dict]) -> float:
    chosen = next(f for f in FINDINGS if f.id == finding)
    estimate = chosen.parts[part].statistic(pd.DataFrame(rows))
    assert estimate is not None
    return estimate.value


def test_every_subset_of_the_places_is_a_case():
    found = {tuple(case.network.get("positions", PLACES)) for name, case in SUBSETS.items() if name != "none"}
    assert found == {chosen for n in (1, 2, 3) for chosen in combinations(PLACES, n)}
    assert SUBSETS["none"].network == {}


def test_kernels_of_the_real_networks_have_roles():
    job = next(job for job in STUDY.jobs("laptop") if job.labels["case"] == "trainable")
    network = build(job.run)
    roles = [
        role(name)
        for name, part in network.named_modules()
        if isinstance(getattr(part, "weight", None), torch.Tensor) and part.weight.ndim == 4
    ]
    counts = {kind: roles.count(kind) for kind in set(roles)}
    assert counts == {"stem": 1, "blur": 7, "skip": 3, "strided conv": 2, "other": 4}


def test_trainable_filters_start_where_the_finding_says():
    line = torch.tensor(binomial(3))
    assert stop_band((line[:, None] * line)[None, None]) == pytest.approx(START, abs=2e-3)


def test_differences_are_paired_and_averaged_over_cases():
    error = {"none": 0.5, "all": 0.1, "conv": 0.4, "skip": 0.3, "pool": 0.2}
    rows = [{"case": k, "seed": s, "corruption_error": v + s} for k, v in error.items() for s in (0, 1)]
    assert value("vasconcelos-1", 0, rows) == pytest.approx(-0.4)
    assert value("vasconcelos-3", 0, rows) == pytest.approx(0.1 - 0.3)


def test_the_interaction_is_a_difference_of_differences():
    accuracy = {"none": 0.5, "all": 0.6, "RandAugment": 0.4, "RandAugment + blur": 0.8}
    rows = [{"case": k, "seed": s, "accuracy": v} for k, v in accuracy.items() for s in (0, 1)]
    assert value("vasconcelos-12", 0, rows) == pytest.approx(0.4 - 0.1)


@pytest.mark.parametrize("own", [1, 2])
def test_stems_are_compared_by_their_stride_whichever_is_the_profiles_own(own):
    score = {(1, "plain"): 0.9, (2, "plain"): 0.2, (1, "blur"): 0.3, (2, "blur"): 0.6}
    rows = []
    for (stem, kind), score_of in score.items():
        case = {"plain": ("none", "other stem"), "blur": ("all", "other stem + blur")}[kind][stem != own]
        rows += [{"case": case, "stem": stem, "seed": s, "few_shot_known_5": score_of} for s in (0, 1)]
    assert value("vasconcelos-5", 0, rows) == pytest.approx(0.9 - 0.6)
    rows += [{"case": "wide stem", "stem": 2, "seed": s, "few_shot_known_5": 0.5} for s in (0, 1)]
    assert value("vasconcelos-5", 0, rows) == pytest.approx(0.9 - 0.6)
    assert value("vasconcelos-15", 0, rows) == pytest.approx(0.9 - 0.5)


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_the_wide_network_computes_as_much_as_the_one_that_keeps_every_pixel(profile):
    jobs = {job.labels["case"]: job for job in STUDY.jobs(profile, seeds=1)}
    assert jobs["none"].labels["stem"] == 1 and jobs["wide stem"].labels["stem"] == 2

    def macs(case):
        return multiply_accumulates(build(jobs[case].run).train(), torch.zeros(2, 3, 32, 32))

    assert macs("wide stem") == pytest.approx(macs("none"), rel=0.05)


def test_laptop_trains_whatever_a_finding_needs():
    lean, whole = ({job.labels["case"] for job in STUDY.jobs(profile, seeds=1)} for profile in ("laptop", "smoke"))
    assert whole - lean == {"GELU"}


def test_missing_bands_count_by_what_they_cost():
    curves = {"none": [0.4, 0.4], "all": [0.7, 0.5], "RandAugment": [0.1, 0.1]}
    rows = [
        {"case": k, "seed": s, "accuracy": 0.7, "accuracy_without_band": v} for k, v in curves.items() for s in (0, 1)
    ]
    rows.append({"case": "skip", "seed": 0, "accuracy": 0.7, "accuracy_without_band": None})  # was not asked
    assert value("vasconcelos-13", 0, rows) == pytest.approx(0.6 - 0.3)
    assert value("vasconcelos-13", 1, rows) == pytest.approx(0.1 - 0.3)
