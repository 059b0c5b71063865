"""Every benchmark compares equal computations and reports under which conditions; how fast they are is not tested."""

import json

import pandas as pd
import pytest
import torch

from aliasing.cli import main
from benchmarks import layers, training


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", ["layers", "training", "evaluation"])
def test_a_benchmark_compares_equal_work_and_says_where(name, tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert main(["bench", name, "--quick", "--repeats", "1", "--out", str(out)]) == 0
    assert "times of the peer over ours" in capsys.readouterr().out
    found = json.loads(out.read_text(), parse_constant=refuse)[name]
    assert found.keys() >= {"device", "threads", "versions", "repeats", "rows"}
    for row in found["rows"]:
        assert (
            row.get("method", "stitched") == "stitched"
            and row["difference"] < 1e-5
            and row["ratio_low"] <= row["ratio"] * 1.0001
        )
    if name == "layers":
        cases = {(row["layer"], row["size"], row["format"], row["pass"]) for row in found["rows"]}
        assert {case[0] for case in cases} == {*layers.TARGETS, "ddac", "rect-2"}
        assert len(cases) == 10 * 2 * 2 * 2
        assert {"antialiased-cnns", "timm", "kornia", "published", "torch"} == {
            row["peer"] for row in found["rows"]
        } | set(found["skipped"])


def test_nonsense_is_refused(capsys):
    assert main(["bench", "evaluation", "--quick", "--repeats", "0"]) == 2
    assert "repeats must be 1 or more" in capsys.readouterr().err
    assert main(["bench", "layers", "--device", "tpu"]) == 2


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
    blur, ddac = layers.verdicts(frame).to_dict("records")
    assert (blur["median"], blur["target"], blur["reached"]) == (2.6, layers.TARGETS["bin-5"], "yes")
    assert (blur["worst"], blur["where"], blur["never slower"]) == (0.9, "timm, a", "no")
    assert ddac["reached"] == ""


def test_operations_of_a_step_by_hand():
    """Forward, gradient of the weights, gradient of the input, which the first convolution does not need."""
    first, second = 6 * 6 * 4 * 27, 6 * 6 * 8 * 36
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 8, 3, padding=1))
    assert training.step_flops(network, 6, "cpu") == 2 * (2 * first + 3 * second)
    assert training.peak_flops("cpu", 64) > 0
