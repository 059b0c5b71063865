"""The benchmark compares equal functions and reports all it should; how fast they are is not tested."""

import json

import pytest

from aliasing.benchmarks.layers import report, run, table


@pytest.fixture(scope="module")
def frame():
    return run(quick=True, repeats=1)


def test_ours_and_the_peers_compute_the_same(frame):
    assert frame["difference"].max() < 1e-5


def test_every_case_has_a_row(frame):
    layers = {"tri-3", "bin-5", "bin-7", "flc", "asap", "aps", "lps", "tips"}
    published = frame[frame["peer"] == "published"]
    assert set(published["layer"]) == layers
    assert len(published) == len(layers) * 2 * 2 * 2
    assert set(frame["format"]) == {"contiguous", "channels_last"}
    assert (frame["ratio_low"] <= frame["ratio"] * 1.0001).all()


def test_the_summary_and_the_json_carry_the_conditions(frame):
    assert table(frame).shape == (len(frame.groupby(["layer", "peer"])), 4)
    loaded = json.loads(json.dumps(report(frame)))
    assert loaded["threads"] >= 1
    assert loaded["device"]
    assert set(loaded["versions"]) == {"python", "torch"}
    assert len(loaded["rows"]) == len(frame)
    assert {"antialiased-cnns", "timm", "kornia"} == set(loaded["skipped"]) | set(frame["peer"]) - {"published"}


def test_layers_can_be_chosen():
    assert set(run(quick=True, repeats=1, layers=("flc",))["layer"]) == {"flc"}
