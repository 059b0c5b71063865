"""Measurements of the chapter on Azulay & Weiss, on networks whose answers are known by hand."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aliasing import layers
from aliasing.datasets import shapes
from aliasing.errors import UsageError
from aliasing.measurements import MEASUREMENTS, Subject
from aliasing.records import Run
from aliasing.training import Recipe


class Halving(nn.Module):
    """Two stages that halve with ``layer``, a global average, as many classes as channels."""

    def __init__(self, layer):
        super().__init__()
        self.act = nn.Identity()
        self.layer1, self.layer2 = (layers.create(layer, 3, padding_mode="circular") for _ in range(2))

    def forward(self, x):
        return self.layer2(self.layer1(self.act(x))).mean((2, 3))


class Place(nn.Module):
    """Answers class 0 if the brightest column lies left of the middle, else class 1."""

    def forward(self, x):
        half = x.shape[3] // 2
        return torch.stack([x[..., :half].amax((1, 2, 3)), x[..., half:].amax((1, 2, 3))], 1)


def subject(network, **dataset):
    run = Run({"name": "shapes", "count": 64, **dataset}, {"name": "vgg-small", "num_classes": 10}, Recipe(), 0)
    return Subject(run, network, torch.device("cpu"))


@pytest.mark.parametrize(("layer", "share", "law"), [("subsample", 1 / 16, 1.0), ("flc", 1.0, 16.0)])
def test_exact_shifts_are_the_multiples_of_the_factor(layer, share, law):
    """The mean of an ideal low-pass is that of its input, whatever the shift; subsampling by 4 keeps 1 of 16 shifts."""
    values = MEASUREMENTS["exact_shifts"](subject(Halving(layer)), count=2, window=8)
    assert values["exact_shift_factor"] == 4
    assert values["exact_shift_share"] == pytest.approx(share)
    assert values["exact_shift_law"] == pytest.approx(law)
    assert values["exact_shift_map"][4][4] == 1


def test_shiftability_reports_one_value_per_stage():
    values = MEASUREMENTS["shiftability"](subject(Halving("subsample")), count=4)
    assert values["stage_factors"] == [1, 2, 4]
    assert values["non_shiftability_circular"][0] == 0.0
    assert len(values["non_shiftability_inpainting"]) == 3


def test_feature_maps_move_with_the_picture_by_multiples_of_the_factor():
    values = MEASUREMENTS["feature_maps"](subject(Halving("subsample")), shifts=(0, 4))
    for first, second in values["feature_maps"].values():
        assert np.array_equal(np.roll(first, 4 * len(first) // 32, 0), second)
    assert max(max(map(max, maps)) for maps in values["feature_maps"]["2"]) == 255
    for first, second in values["feature_sums"].values():
        assert first == pytest.approx(second)


def test_photographers_bias_sees_scenes_that_differ_by_place_alone():
    values = MEASUREMENTS["photographers_bias"](subject(Place()), count=400)
    assert values["bias_change_near"].n + values["bias_change_far"].n < 400
    assert sum(value is not None for value in values["bias_agreement"]) == 5
    assert 0 < values["bias_agreement_far"].value < 1
    grid = values["bias_accuracy_map"]
    assert len(grid) == 5 and all(len(row) == 5 for row in grid)


def test_a_constant_answer_agrees_everywhere():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.eye(10)[:1].repeat(len(x), 1)

    values = MEASUREMENTS["photographers_bias"](subject(Constant()), count=200)
    assert values["bias_change"] == [0.0] * 5
    assert values["bias_agreement"] == [1.0] * 5
    labels = shapes.sample(200, 0, "test", "uniform").labels
    near, far = values["bias_accuracy_near"], values["bias_accuracy_far"]
    assert near.value * near.n + far.value * far.n <= int((labels == 0).sum())


def test_photographers_bias_needs_shapes():
    other = Subject(
        Run({"name": "cifar10"}, {"name": "vgg-small", "num_classes": 10}, Recipe(), 0),
        nn.Identity(),
        torch.device("cpu"),
    )
    with pytest.raises(UsageError, match="needs the data set shapes"):
        MEASUREMENTS["photographers_bias"](other, count=8)


def test_typicality_orders_the_groups_by_distance():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
    values = MEASUREMENTS["typicality"](subject(network), count=50, training=64, pairs=2)
    assert values["typicality_distance"] == sorted(values["typicality_distance"])
    assert values["typicality_gap"] == pytest.approx(values["typicality_change"][-1] - values["typicality_change"][0])


def test_a_sweep_keeps_what_the_network_saw():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
    values = MEASUREMENTS["sweep"](subject(network), count=4, pictures=2)
    assert values["sweep_probability"].shape == (4, 32)
    assert len(values["sweep_answers"]) == 4
    assert len(values["sweep_pictures"]) == 2
    seen = subject(network).split("test", 4).images[0]
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(values["sweep_pictures"][0]))))
    assert np.array_equal(shown, seen.permute(1, 2, 0).numpy())
