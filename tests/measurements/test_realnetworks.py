"""Real networks: pictures as the sample, on networks whose answers are known."""

import pytest
import torch
from torch import nn

from aliasing.datasets import ImageSet
from aliasing.measurements import MEASUREMENTS, Subject
from aliasing.records import Run
from aliasing.training import Recipe


class Corner(nn.Module):
    """Whether the top left pixel is bright; the map in front is that of a batch norm, so that it is watched."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, x):
        bright = self.norm(x)[:, 0, 0, 0]
        return torch.stack([bright, 0.5 - bright], 1)


@pytest.fixture
def stripes(monkeypatch):
    """Six pictures of vertical stripes, two pixels wide, on a network that reads one pixel."""
    images = torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
    images[:, :, :, 0::4] = images[:, :, :, 1::4] = 255
    data = ImageSet(images, torch.zeros(6, dtype=torch.long), ("bright", "dark"), "stripes")
    monkeypatch.setattr("aliasing.measurements.subject.loaded", lambda dataset, split: data)
    monkeypatch.setattr("aliasing.measurements.realnetworks.loaded", lambda dataset, split: data)
    run = Run({"name": "shapes"}, {"name": "tf_efficientnet_lite0", "pretrained": True}, Recipe(epochs=0), 0)
    return Subject(run, Corner().eval(), torch.device("cpu"))


def test_windows_count_the_neighbours_that_get_another_answer(stripes):
    found = MEASUREMENTS["one_pixel_windows"](stripes, count=6, margin=4)
    # The window's corner shows column 4, bright as column 5; of the two columns beside it, 3 is dark.
    assert found["changes"] == [2] * 6
    assert found["top1_change"].value == 0.5
    assert found["accuracy"].value == 1
    assert found["mean_absolute_change"].value == pytest.approx((0.8176 - 0.3775) / 2, abs=1e-3)


def test_a_sweep_counts_answers_and_sums(stripes):
    found = MEASUREMENTS["inpainted_sweep"](stripes, count=6, positions=5)
    assert found["steps"] == 4 and len(found["probability"]) == 6
    assert found["factors"] == [1]
    assert found["crossings"] == 0  # of two classes both are always among the first five
    assert len(found["non_shiftability_by_picture"]) == 6


def test_a_picture_of_the_training_set_is_its_own_neighbour(stripes):
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(x.mean((2, 3)))

    stripes.network = Mean()
    options = {"count": 6, "against": {"name": "shapes"}, "training": 6, "margin": 4, "neighbours": 2}
    assert MEASUREMENTS["distance_to_training"](stripes, **options)["distance"].tolist() == pytest.approx([0] * 6)
