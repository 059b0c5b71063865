"""The page that plans the cluster profile adds up what was recorded."""

import json
import re
import runpy
from pathlib import Path

import pytest

from aliasing.benchmarks import scaling
from aliasing.studies import STUDIES
from aliasing.studies.bases import BASES

ROOT = Path(__file__).parent.parent
PAGE = runpy.run_path(str(ROOT / "book/_ext/scale.py"))
RECORDED = json.loads((ROOT / "data/benchmarks/scaling.json").read_text())["scaling"]


def test_every_planned_network_was_counted():
    """After a change of the plan: aliasing bench scaling --out data/benchmarks/scaling.json."""
    assert {scaling.network_key(run) for run in scaling.planned().values()} <= RECORDED["networks"].keys()


def test_each_training_is_counted_once():
    rows = PAGE["costs"](RECORDED)
    ids = [run.id for new, *_ in rows.values() for run in new]
    assert sorted(ids) == sorted(scaling.planned())
    assert list(rows) == list(STUDIES)


def test_the_operations_of_a_study_are_the_sum_over_its_runs():
    """Zhang 2019 as if it stood alone: 3 passes, 9/10 of ImageNet, 90 epochs, and every roll of the pictures."""
    jobs = STUDIES["zhang2019"].jobs("cluster")
    flops = {job.run.id: RECORDED["networks"][scaling.network_key(job.run)]["flops"] for job in jobs}
    new, trained, rolled = PAGE["costs"](RECORDED)["zhang2019"]
    assert trained == sum(3 * 1_153_050 * 90 * flops[run.id] for run in new)
    seen_before = {job.run.id for job in STUDIES["azulay2018"].jobs("cluster")}
    assert rolled == sum(
        BASES["cluster"].exact * 224 * 224 * count for run, count in flops.items() if run not in seen_before
    )


def test_hours_of_a_gpu():
    assert PAGE["hours"](989e12 * 3600, 0.5) == pytest.approx(2)
    assert PAGE["span"](989e12 * 3600 * 100) == "250 to 500"


def test_decoding_reads_files():
    found = scaling.decoding(4)
    assert found["decoded_images_per_s"] > 0
    assert 20_000 < found["file_bytes"] < 500_000


def test_every_part_that_the_page_asks_for_is_computed():
    asked = re.findall(r"^% computed: (\w+)$", (ROOT / "book/scale.md").read_text(), flags=re.MULTILINE)
    assert sorted(asked) == sorted(PAGE["PARTS"])
    for name in asked:
        assert re.search(r"\d", "".join(PAGE["PARTS"][name](ROOT / "book")))
