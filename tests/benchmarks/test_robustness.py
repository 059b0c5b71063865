"""The benchmark of corruptions and attacks compares equal work, notices other work, and does without the peers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aliasing.cli import main
from aliasing.datasets.corruptions import NAMES, corrupt
from benchmarks import robustness

torch.set_num_threads(1)


def ourselves(array, corruption_name, severity):
    """The library's call, answered by our own corruptions."""
    image = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]
    if corruption_name == "contrast":  # somebody who does nothing
        return array
    return corrupt(image, corruption_name, severity)[0].permute(1, 2, 0).numpy()


def by_hand(library, network, attack):
    def step(images, labels):
        x = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network(x), labels)
        (gradient,) = torch.autograd.grad(loss, x)
        return (images + robustness.EPS * gradient.sign()).clamp(0, 1)

    return step


@pytest.fixture(scope="module")
def frame():
    with pytest.MonkeyPatch.context() as patch:
        library = SimpleNamespace(corrupt=ourselves)
        patch.setattr(robustness, "_peer", lambda name: None if name == "absent" else library)
        patch.setattr(robustness, "PEERS", {"hand": (by_hand, ("fgsm",)), "absent": (by_hand, ("pgd",))})
        return robustness.run(quick=True, repeats=1)


def test_equal_work_does_not_differ_and_other_work_does(frame):
    rows = frame[frame["part"] == "corruption"].set_index("name")
    assert tuple(rows.index) == NAMES
    same = [name for name in robustness.DETERMINISTIC if name != "contrast"]
    assert (rows.loc[same, "difference"] == 0).all()
    assert rows.loc["contrast", "difference"] == rows.loc["contrast", "ours_effect"] > 1
    assert rows.loc["contrast", "peer_effect"] == 0
    random = [name for name in NAMES if name not in robustness.DETERMINISTIC]
    assert rows.loc[random, "difference"].isna().all()
    assert (rows["ratio_low"] <= rows["ratio_high"]).all()


def test_a_step_by_hand_leaves_the_same_accuracy(frame):
    (row,) = frame[frame["peer"] == "hand"].to_dict("records")
    assert row["difference"] == 0 and row["ours_effect"] == row["peer_effect"]


def test_a_missing_peer_leaves_its_columns_empty(frame):
    (row,) = frame[frame["peer"] == "absent"].to_dict("records")
    assert row["ours_images_per_s"] > 0
    assert row["ratio"] is row["peer_effect"] is None
    assert frame.attrs["skipped"] == {"absent": "not installed"}
    table = robustness.table(frame)
    assert table.loc[("attack", "pgd", "absent"), "peer, images/s"] == "not installed"
    assert "not installed" not in table.loc["corruption"].to_string()


def test_the_command_writes_valid_json(tmp_path, monkeypatch, capsys, frame):
    monkeypatch.setattr(robustness, "run", lambda **options: frame)
    out = tmp_path / "bench.json"
    assert main(["bench", "robustness", "--quick", "--repeats", "1", "--json", "--out", str(out)]) == 0
    assert "not installed" in capsys.readouterr().out

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(out.read_text(), parse_constant=refuse)["robustness"]
    assert {"device", "threads", "versions", "repeats", "rows", "skipped"} <= set(found)
    assert len(found["rows"]) == len(frame)
