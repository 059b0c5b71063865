"""The benchmark compares equal functions and reports all it should; how fast they are is not tested."""

import json

import pandas as pd
import pytest

from benchmarks.layers import TARGETS, report, run, table, verdicts


@pytest.fixture(scope="module")
def frame():
    return run(quick=True, repeats=1)


def test_every_case_has_a_row_and_ours_computes_the_same(frame):
    layers = {"tri-3", "bin-5", "bin-7", "flc", "asap", "aps", "lps", "tips", "ddac"}
    published = frame[frame["peer"] == "published"]
    assert set(published["layer"]) == layers and len(published) == len(layers) * 2 * 2 * 2
    assert frame["difference"].max() < 1e-5
    assert (frame["ratio_low"] <= frame["ratio"] * 1.0001).all()


def test_the_summary_and_the_json_carry_the_conditions(frame):
    assert table(frame).shape == (len(frame.groupby(["layer", "peer"])), 4)
    loaded = json.loads(json.dumps(report(frame)))
    assert loaded["threads"] >= 1
    assert loaded["device"]
    assert set(loaded["versions"]) == {"python", "torch"}
    assert len(loaded["rows"]) == len(frame)
    assert len(loaded["verdicts"]) == len(verdicts(frame)) == 2 * frame["layer"].nunique()
    assert {"antialiased-cnns", "timm", "kornia"} == set(loaded["skipped"]) | set(frame["peer"]) - {"published"}


def test_verdicts_of_known_ratios():
    ratios = {"a": (3.0, 0.9), "b": (2.0, 1.0), "c": (2.6, 5.0)}
    frame = pd.DataFrame(
        [
            {"layer": layer, "peer": peer, "size": size, "format": "contiguous", "pass": step, "ratio": ratio}
            for layer in ("bin-5", "ddac")
            for size, pair in ratios.items()
            for peer, ratio in zip(("published", "timm"), pair, strict=True)
            for step, ratio in (("forward+backward", ratio), ("forward", 0.1))
        ]
    )
    blur, ddac = verdicts(frame).to_dict("records")
    assert (blur["median"], blur["target"], blur["reached"]) == (2.6, TARGETS["bin-5"], "yes")
    assert (blur["worst"], blur["where"], blur["never slower"]) == (0.9, "timm, a", "no")
    assert ddac["reached"] == ""
