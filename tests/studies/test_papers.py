"""What the plans and statistics of single papers promise."""

from itertools import combinations
from operator import ne

import pandas as pd
import pytest
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18, resnet50

from aliasing.jobs import build
from aliasing.layers.blur import binomial
from aliasing.records import home
from aliasing.studies import get
from aliasing.studies.ablations import START, role
from aliasing.studies.bases import ALPHA
from aliasing.studies.saha2024 import GROWTH, VARIANTS, ring
from aliasing.studies.vasconcelos2020 import ERROR, PLACES, SUBSETS, along_a_line


def jobs(study, profile, **labels):
    return [job for job in get(study).jobs(profile) if job.labels.items() >= labels.items()]


def test_azulay_shares_its_runs_with_the_other_chapters():
    shared = {job.run.id for name in ("zhang2019", "comparison") for job in get(name).jobs("desktop")}
    assert {job.run.id for job in get("azulay2018").jobs("desktop")} <= shared


def test_vasconcelos_tries_every_subset_of_the_places():
    found = {tuple(case.get("positions", PLACES)) for name, case in SUBSETS.items() if name != "none"}
    assert found == {chosen for n in (1, 2, 3) for chosen in combinations(PLACES, n)} and not SUBSETS["none"]


def test_kernels_of_the_real_networks_have_roles():
    (job, *_) = jobs("ablations", "laptop", case="trainable")
    weights = {name: getattr(part, "weight", None) for name, part in build(job.run).named_modules()}
    names = [name for name, weight in weights.items() if isinstance(weight, torch.Tensor) and weight.ndim == 4]
    roles = [role(name, names) for name in names]
    assert {kind: roles.count(kind) for kind in set(roles)} == {
        "stem": 1, "blur": 7, "skip": 3, "strided conv": 3, "other": 3
    }  # fmt: skip


@pytest.mark.parametrize("network", [resnet18, resnet50])
def test_what_strides_is_called_so(network):
    with torch.device("meta"):
        network = network()
    kernels = {name: part for name, part in network.named_modules() if isinstance(part, torch.nn.Conv2d)}
    strided = [name for name, part in kernels.items() if part.stride != (1, 1) and "layer" in name]
    assert strided == [name for name in kernels if role(name, kernels) in ("strided conv", "skip")]


def test_trainable_filters_start_where_the_finding_says():
    line = torch.tensor(binomial(3), dtype=torch.float64)
    power = torch.fft.fft2(line[:, None] * line, s=(2048, 2048)).abs() ** 2
    low = torch.fft.fftfreq(2048).abs() <= 0.25
    assert 1 - (power[low][:, low].sum() / power.sum()).item() == pytest.approx(START, abs=2e-3)


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_the_wide_network_computes_as_much_as_the_one_that_keeps_every_pixel(profile):
    def macs(case):
        (job, *_) = jobs("ablations", profile, case=case)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            build(job.run)(torch.zeros(2, 3, 32, 32))
        return counter.get_total_flops()

    assert macs("wide stem") == pytest.approx(macs("none"), rel=0.05)


def test_rings_of_a_surface():
    surface = [[0.1, 0.2, 0.1], [0.2, 1.0, 0.2], [0.1, 0.2, 0.1]]
    assert ring(surface, 0) == 1 and ring(surface, 1) == pytest.approx(0.15)
    near_far = [[0.0] * 5, [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0.0] * 5]
    assert GROWTH.function(near_far) == pytest.approx(-1)


def test_errors_are_correlated_over_cases_and_not_over_seeds():
    clean, hurt = [0.1, 0.2, 0.3, 0.4, 0.6], [0.5, 0.4, 0.7, 0.6, 0.9]
    rows = [(case, seed, clean[case] + seed, hurt[case] + seed) for case in range(5) for seed in range(3)]
    table = pd.DataFrame(rows, columns=["case", "seed", "clean_error.clean_error", ERROR])
    found, known = along_a_line(table), stats.pearsonr(clean, hurt)
    assert found[:4] == pytest.approx((known.statistic, *known.confidence_interval(0.95), 3))
    for column in ("clean_error.clean_error", ERROR):
        assert along_a_line(table.assign(**{column: 0.3})) is None


@pytest.mark.parametrize("profile", ["smoke", "cluster"])
def test_variants_of_the_losses_change_one_thing_at_a_time(profile):
    recipes = [job.run.recipe for job in jobs("saha2024", profile, task="variants") if job.run.seed == 0]
    settings = [(recipe.auxiliary, recipe.auxiliary_wake, recipe.auxiliary_form) for recipe in recipes]
    usual = (ALPHA, 0.4, "code")
    assert settings == list(VARIANTS) and {sum(map(ne, usual, setting)) for setting in settings} == {0, 1}


def test_the_twin_of_adversarial_training_differs_in_the_adversary_alone():
    for profile in ("laptop", "desktop"):
        (twin, *_) = jobs("grabinski2023", profile, twin=True)
        (hardened, *_) = jobs("grabinski2023", profile, layer="subsample", group="adversarial")
        assert (twin.run.dataset, twin.run.network) == (hardened.run.dataset, hardened.run.network)
        assert twin.run.recipe.epochs == hardened.run.recipe.epochs and twin.run.recipe.adversary == 0


def test_published_stability_is_the_product_of_its_neighbours():
    paper = pd.read_csv(home() / "data/published/saha2024.csv")
    wide = paper.dropna(subset=["spread"]).pivot_table("value", ["dataset", "network", "method"], "metric")
    for shift in ("standard", "circular"):
        product = wide["accuracy"] * wide[f"{shift}_consistency"] / 100
        off = (wide[f"{shift}_stability"] - product).abs() > 0.0101
        assert len(wide) == 30 and off.sum() == (shift == "standard")
