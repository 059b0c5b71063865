"""Every benchmark compares equal computations and reports under which conditions; how fast they are is not tested."""

import json
import sys
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import benchmarks
from aliasing.datasets import load
from aliasing.datasets.corruptions import NAMES, corrupt
from aliasing.finetuning import AGREES
from aliasing.studies import get
from aliasing.training import Recipe
from benchmarks import accuracy, conversion, evaluation, finetuning, layers, robustness, training


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def bench(name, folder, typed):
    """What the command writes."""
    said = typed("bench", name, "--quick", "--repeats", "1", "--out", str(folder / "bench.json")).out
    assert "times of the peer over ours" in said
    found = json.loads((folder / "bench.json").read_text(), parse_constant=refuse)[name]
    assert found.keys() >= {"device", "threads", "versions", "repeats", "rows", "skipped"}
    assert all(row["ratio_low"] <= row["ratio"] * 1.0001 for row in found["rows"])
    return found


@pytest.mark.parametrize("name", ["layers", "training", "evaluation"])
def test_a_benchmark_compares_equal_work_and_says_where(name, tmp_path, typed):
    found = bench(name, tmp_path, typed)
    for row in found["rows"]:
        assert row.get("method", "stitched") == "stitched" and row["difference"] < 1e-5
    if name == "layers":
        cases = {(row["layer"], row["size"], row["format"], row["pass"]) for row in found["rows"]}
        assert {case[0] for case in cases} == {*layers.TARGETS, "ddac", "rect-2"}
        assert len(cases) == 10 * 2 * 2 * 2
        peers = {row["peer"] for row in found["rows"]} | set(found["skipped"])
        assert {*benchmarks.BLURS, "published", "torch"} == peers


def ourselves(array, corruption_name, severity):
    """The library's call, answered by our own corruptions."""
    image = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]
    if corruption_name == "contrast":  # somebody who does nothing
        return array
    return corrupt(image, corruption_name, severity)[0].permute(1, 2, 0).numpy()


def by_hand(network):
    def step(images, labels):
        x = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network(x), labels)
        (gradient,) = torch.autograd.grad(loss, x)
        return (images + robustness.EPS * gradient.sign()).clamp(0, 1)

    return {"fgsm": step}


def test_corruptions_and_attacks_notice_other_work_and_do_without_peers(tmp_path, typed, monkeypatch):
    library = SimpleNamespace(corrupt=ourselves)
    for module in (benchmarks, robustness):
        monkeypatch.setattr(module, "peer", lambda name: None if name == "foolbox" else library)
    monkeypatch.setattr(robustness, "ATTACKS", {"torchattacks": by_hand, "foolbox": by_hand})
    found = bench("robustness", tmp_path, typed)
    assert found["skipped"] == {"foolbox": "not installed"}
    *corruptions, attack = found["rows"]
    assert [row["name"] for row in corruptions] == [*NAMES]
    for row in corruptions:
        if row["name"] == "contrast":
            assert row["difference"] == row["ours_effect"] > 1 and row["peer_effect"] == 0
        else:
            assert row["difference"] == (0 if row["name"] in robustness.DETERMINISTIC else None)
    assert attack["peer"] == "torchattacks" and attack["difference"] == 0
    assert attack["ours_effect"] == attack["peer_effect"]
    monkeypatch.setattr(robustness, "peer", lambda name: None)
    assert "nothing to compare with" in typed("bench", "robustness", "--quick", "--repeats", "1").out


def test_in_the_time_that_a_campaign_has_a_case_is_timed_and_failures_are_told(monkeypatch):
    for bench in (training, evaluation):
        monkeypatch.setattr(bench, "measure", lambda *a: 1 / 0)
    found = benchmarks.speed("cpu", 0.0)
    assert found["layers"].keys() >= {"device", "code", "skipped", "verdicts"}
    assert {row["peer"] for row in found["layers"]["rows"]} == {"published"}  # one case is timed however late it is
    assert "ZeroDivisionError" in found["training"]["failed"]


@pytest.mark.parametrize("device", ["cuda:1", "mps", "cpu"])
def test_the_device_that_is_timed_is_waited_for(device, monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    benchmarks.wait(device)
    assert waited == [device] * (device != "cpu")


def test_shards_that_begin_together_write_one_header(monkeypatch, tmp_path):
    """The second begins while the first is at its first network."""
    table = tmp_path / "table.csv"

    def attempt(build, library, name):
        if name == "a":
            convert("2/2")
        return {"outcome": "converted"}

    def convert(shard):
        monkeypatch.setattr(sys, "argv", ["conversion", str(table), "--shard", shard])
        conversion.main()

    monkeypatch.setattr(conversion, "attempt", attempt)
    for library in ("transformers", "torchvision", "timm"):
        monkeypatch.setattr(conversion, f"{library}_networks", list)
    monkeypatch.setattr(conversion, "timm_networks", lambda: [("a", None), ("b", None)])
    table.touch()  # by a shell, say
    for _ in range(2):  # what is there is not computed again
        convert("1/2")
        assert list(pd.read_csv(table)["network"]) == ["b", "a"]


def test_both_loops_are_trained_to_their_end_on_the_same_network_and_pictures():
    data, recipe = load("shapes", "train", count=32, seed=0), accuracy.PLAIN
    ((images, _),) = training._loader(data, recipe, [*range(32)])
    pairs = zip(images.mul(255).round().byte(), data.images, strict=True)
    assert all(found.equal(own) or found.equal(own.flip(2)) for found, own in pairs)  # mirrored, and not moved
    recipe = Recipe(epochs=2, batch_size=32)
    run = get("zhang2019").jobs("smoke", 1)[0].run
    plain, ours = accuracy.measure(run, {"plain": recipe, "ours": recipe}, timed=64, repeats=1)
    assert plain["seconds"] == pytest.approx(2 * 128 / plain["images_per_s"])
    assert abs(plain["accuracy"] - ours["accuracy"]) < 0.3  # the same but for the order of pictures


def test_ways_of_fine_tuning_move_the_weights_that_they_name(monkeypatch):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 8, 1),
                              torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 10))  # fmt: skip
    monkeypatch.setattr(finetuning, "load", lambda *a: SimpleNamespace(module=deepcopy(net).eval()))
    monkeypatch.setattr(finetuning, "SIZE", 24)
    shapes = load("shapes", "train", count=64, seed=0)

    def teach(lesson, student):
        before = {weight: weight.clone() for weight in student.parameters()}
        finetuning.Lesson.teach(lesson, student)
        moved = {weight for weight, value in before.items() if not weight.equal(value)}
        assert moved and moved <= {*lesson.chosen(student)}

    monkeypatch.setattr(finetuning.PartLesson, "teach", teach, raising=False)
    chosen = (finetuning.everything, finetuning.without_classifier, finetuning.norms, finetuning.filters)
    original, *rows = finetuning.compare(shapes, shapes, shapes, [(one, 0.1, 1) for one in chosen])
    assert original[AGREES].value == 1 and f"{AGREES}, minus the first" not in original
    every = 8 * 27 + 8 + 16 + 8 * 8 + 8 + 8 * 10 + 10
    assert [row["moved"] for row in rows] == [every, every - 90, 16, 8 * 27]
    assert rows[2][f"{AGREES}, minus the first"].value == pytest.approx(rows[2][AGREES].value - rows[0][AGREES].value)


def test_verdicts_of_known_ratios():
    ratios = pd.DataFrame({"published": [3.0, 2.0, 2.6], "timm": [0.9, 1.0, 5.0], "size": ["a", "b", "c"]})
    rows = ratios.melt("size", var_name="peer", value_name="ratio").assign(layer="bin-5", format="contiguous")
    both = pd.concat([rows.assign(**{"pass": "forward+backward"}), rows.assign(ratio=0.1, **{"pass": "forward"})])
    frame = pd.concat([both, both.assign(layer="ddac")])
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
