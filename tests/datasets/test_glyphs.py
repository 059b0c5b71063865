"""Procedural handwriting: repeatable, split by character, and learnable from one example."""

import pytest
import torch

from aliasing import datasets
from aliasing.errors import UsageError
from aliasing.metrics import few_shot_accuracy


def test_a_set_is_what_was_asked_for():
    glyphs = datasets.load("glyphs", "test", classes=7, each=3, size=28)
    assert glyphs.images.shape == (21, 3, 28, 28) and len(glyphs.classes) == 7
    assert glyphs.labels.tolist() == [label for label in range(7) for _ in range(3)]
    assert torch.equal(glyphs.images, datasets.load("glyphs", "test", classes=7, each=3, size=28).images)
    assert glyphs.images.amax((1, 2, 3)).min() == 255 and glyphs.images.float().mean() < 80


def test_drawings_of_a_character_resemble_each_other():
    glyphs = datasets.load("glyphs", "test", classes=20)
    pixels = torch.nn.functional.avg_pool2d(glyphs.images.float(), 4).flatten(1)
    accuracy = few_shot_accuracy(pixels, None, glyphs.labels, episodes=50)
    assert 0.3 < accuracy.value < 0.95  # chance is 0.2; pixels alone do not solve it


def test_refuses_what_cannot_be_drawn():
    with pytest.raises(UsageError, match="glyphs"):
        datasets.load("glyphs", "test", classes=0)
