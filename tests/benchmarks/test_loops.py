"""The benchmarks of training and evaluation compare equal computations; how fast they are is not tested."""

import json

import pytest
import torch

from aliasing import models
from aliasing.cli import main
from aliasing.metrics import roll_logits
from benchmarks import evaluation, training


@pytest.fixture(scope="module")
def trained():
    return training.run(quick=True, repeats=1)


@pytest.fixture(scope="module")
def evaluated():
    return evaluation.run(quick=True, repeats=1)


def test_both_loops_end_with_the_same_weights(trained):
    assert 0 <= trained["difference"].max() < 1e-5


def test_operations_of_a_step_by_hand(trained):
    """Forward, gradient of the weights, gradient of the input, which the first convolution does not need."""
    first, second = 6 * 6 * 4 * 27, 6 * 6 * 8 * 36
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 8, 3, padding=1))
    assert training.step_flops(network, 6, "cpu") == 2 * (2 * first + 3 * second)
    assert training.peak_flops("cpu", 64) > 0 and (trained["mfu"] > 0).all()


def test_both_ways_give_the_same_logits(evaluated):
    assert evaluated["difference"].max() < 1e-5
    assert set(evaluated["method"]) == {"stitched"}


def test_one_at_a_time_is_what_the_metric_means():
    torch.manual_seed(0)
    model = models.create("vgg-small", 3, downsample="subsample", padding_mode="circular").eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    logits = evaluation.one_at_a_time(model, images)
    (other,) = roll_logits(model, images)
    assert logits.std((1, 2)).min() > 1e-4  # otherwise nothing is compared
    torch.testing.assert_close(logits, other.logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bench", [training, evaluation])
def test_the_table_and_the_json_carry_the_conditions(bench, trained, evaluated):
    frame = trained if bench is training else evaluated
    loaded = json.loads(json.dumps(bench.report(frame)))
    assert {"device", "threads", "versions", "repeats", "rows"} <= set(loaded)
    assert (frame["ratio_low"] <= frame["ratio_high"]).all()
    assert len(bench.table(frame)) == len(frame)


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert main(["bench", "evaluation", "--quick", "--repeats", "1", "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["evaluation"]["rows"][0]["difference"] < 1e-5


def test_the_command_refuses_nonsense(capsys):
    assert main(["bench", "evaluation", "--quick", "--repeats", "0"]) == 2
    assert "repeats must be 1 or more" in capsys.readouterr().err
    assert main(["bench", "layers", "--device", "tpu"]) == 2
