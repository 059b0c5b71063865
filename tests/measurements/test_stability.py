"""What attacks and noise do inside a network, against networks whose answer is known."""

import pytest
import torch

from aliasing.measurements import Measurement, Subject
from aliasing.metrics import predict
from aliasing.records import Run
from aliasing.runner import build
from aliasing.training import Recipe

DATA = {"name": "shapes", "seed": 1, "count": 32}


def _subject(layer="subsample"):
    network = {"name": "resnet-small", "num_classes": 10, "width": 4, "padding_mode": "circular", "downsample": layer}
    if layer == "flc":
        network["placement"] = "pool-then-conv"
    run = Run(DATA, network, Recipe(), 0)
    return Subject(run, build(run).eval(), torch.device("cpu"))


def test_without_an_attack_features_stay_and_with_a_large_one_they_move_more():
    subject = _subject()
    cosines = []
    for eps in (1e-4, 8, 32):
        values = Measurement("stability", {"count": 8, "eps": eps}).measure(subject)
        cosines.append(values["stability_attack"].value)
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert cosines[0] > cosines[1] > cosines[2]


def test_the_perturbation_is_a_signed_step():
    """Its energy is that of values +-eps, spread over all frequencies: Parseval bounds the mean of the logarithm."""
    values = Measurement("stability", {"count": 8, "eps": 8}).measure(_subject())
    assert values["perturbation_spectrum"].exp().mean() <= (8 / 255) ** 2 * 1.01


def test_flc_has_no_alias_error_to_raise():
    subject = _subject("flc")
    values = Measurement("aliasing_and_attack", {"count": 32, "eps": 1, "steps": 1}).measure(subject)
    assert values["alias_error_rise"] == pytest.approx(0, abs=1e-5)


def test_broken_and_kept_pictures_are_the_correct_ones():
    subject = _subject()
    test = subject.split("test", 32)
    right = int((predict(subject.network, test.images).argmax(1) == test.labels).sum())
    values = Measurement("aliasing_and_attack", {"count": 32, "eps": 1, "steps": 2}).measure(subject)
    assert right and values["broken"] + values["kept"] == right


def test_a_network_that_is_never_right_has_no_difference():
    subject = _subject()
    with torch.no_grad():  # class 9 for every picture, of which none is asked
        head = subject.network.network.fc
        head.weight.zero_()
        head.bias.copy_(torch.arange(10.0))
    subject.split = lambda name, count: Subject.split(_subject(), name)[torch.arange(9)]
    values = Measurement("aliasing_and_attack", {"count": 9, "eps": 1, "steps": 1}).measure(subject)
    assert values == {"alias_error_of_broken_minus_kept": None, "alias_error_rise": None, "broken": 0, "kept": 0}


def test_spectra_in_front_of_and_behind_the_first_halving():
    values = Measurement("map_spectra", {"count": 4}).measure(_subject())
    assert len(values["map_frequency"]) == 16 and len(values["sampled_frequency"]) == 8
