"""Adapters whose numbers are known by hand."""

import copy

import pytest
import torch

from aliasing import models
from aliasing.measurements import MEASUREMENTS, Subject, packed, unpacked
from aliasing.measurements.classes import accuracy, band_removal, clean_error, few_shot
from aliasing.measurements.features import kernels, macs
from aliasing.records import Run
from aliasing.training import Recipe

RUN = Run({"name": "shapes", "count": 20}, {"name": "resnet-small", "num_classes": 10}, Recipe(), 0)


def subject(**options) -> Subject:
    network = models.create("resnet-small", 10, stem="imagenet", width=4, **options)
    return Subject(RUN, network.eval(), torch.device("cpu"))


def test_strided_convolutions_count_what_they_keep():
    # Stem 7 x 7 at 16 x 16, max-pool to 8 x 8, then three halving blocks of widths 4, 8, 16, and the linear layer.
    blocks = [(4, 4, 4), (4, 8, 2), (8, 16, 1)]  # inputs, outputs, side of the output
    count = 16 * 16 * 49 * 3 * 4 + sum(s * s * (9 * i * o + 9 * o * o + i * o) for i, o, s in blocks) + 160
    chosen = subject()
    before = copy.deepcopy(chosen.network.state_dict())
    assert macs(chosen) == {"macs": count}
    assert not chosen.network.training
    assert all(torch.equal(value, before[key]) for key, value in chosen.network.state_dict().items())


def test_accuracy_with_and_without_bands_of_a_network_that_always_says_zero():
    chosen = subject()
    with torch.no_grad():
        chosen.network.fc.weight.zero_()
        chosen.network.fc.bias.copy_(torch.eye(10)[0])
    assert accuracy(chosen, 20)["accuracy"].value == 0.1
    assert clean_error(chosen, 20)["clean_error"].value == 0.9
    assert band_removal(chosen, 20, 3)["accuracy_without_band"] == [0.1] * 3


def test_kernels_names_every_convolution_and_learned_blur():
    found = kernels(subject(downsample={"name": "tri-3", "trainable": True}, placement="conv-then-pool"))["stop_band"]
    assert found["layer2.0.downsample.0"] == pytest.approx(0.75)
    assert found["layer2.0.main"] < 0.2
    assert len(found) == 1 + 3 * 3 + 7


def test_few_shot_episodes_are_the_same_for_every_call():
    data = {"name": "glyphs", "classes": 6}
    chosen = subject()
    first, again = (few_shot(chosen, data, "glyphs", shots=1, episodes=5) for _ in range(2))
    assert list(first) == ["few_shot_glyphs_1"] and first["few_shot_glyphs_1"].n == 5
    assert again == first


@pytest.mark.parametrize(
    "values", [torch.arange(13) % 3 == 0, torch.arange(13) * 17, torch.linspace(0, 1, 13).double(), torch.ones(0) > 0]
)
def test_numbers_by_image_survive_being_packed(values):
    found = unpacked(packed(values))
    assert len(found) == len(values)
    torch.testing.assert_close(found, values, atol=1e-5 * values.is_floating_point(), rtol=0)


def test_what_is_found_by_image_adds_up_to_the_values():
    """With ``per_image`` the other values stay as they are."""
    chosen = subject()
    options = {
        "accuracy": {},
        "circular_rolls": {},
        "shift_consistency": {"max_shift": 4},
        "one_pixel": {"protocols": ("crop", "circular"), "pairs": 2},
        "attacks": {"steps": 2},
        "corruptions": {"severities": (1, 5)},
    }
    found = {}
    for name, protocol in options.items():
        plain, more = (MEASUREMENTS[name](chosen, count=20, **protocol, per_image=own) for own in (False, True))
        assert all(str(more[key]) == str(value) for key, value in plain.items())
        assert all(key.endswith("_by_image") for key in more.keys() - plain.keys())
        found |= {key: unpacked(more[key]).double() for key in more.keys() - plain.keys()} | plain
    for name in ("accuracy", "circular_consistency", "standard_consistency", "sub_pixel_consistency"):
        assert found[f"{name}_by_image"].mean().item() == pytest.approx(found[name].value, abs=1e-5)
    for protocol in ("crop", "circular"):
        changes = found[f"top1_changes_{protocol}_by_image"]
        assert changes.mean().item() / 2 == pytest.approx(found[f"top1_change_{protocol}"].value)
    for radius, value in enumerate(found["pgd_accuracy"]):
        assert (found["pgd_radii_by_image"] > radius).double().mean().item() == pytest.approx(value)
    assert found["corruption_errors_by_image"].mean().item() / 30 == pytest.approx(found["corruption_error"].value)
