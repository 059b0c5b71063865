"""What is measured inside small networks: TIPS layers, surfaces, attacks and noise; against slow versions."""

from dataclasses import replace

import pytest
import torch

from aliasing.measurements import Measurement, Subject
from aliasing.metrics import predict
from aliasing.records import Run
from aliasing.runner import build
from aliasing.training import Recipe


def _subject(layer="subsample", name="vgg-small", **options):
    network = {"name": name, "num_classes": 10, "width": 4, "padding_mode": "circular", "downsample": layer} | options
    run = Run({"name": "shapes", "seed": 1, "count": 32}, network, Recipe(), 0)
    return Subject(run, build(run).eval(), torch.device("cpu"))


def test_weights_of_an_untrained_layer_are_almost_uniform():
    values = Measurement("tips_weights", {"count": 8}).measure(_subject("tips"))
    assert [float(v) for v in values["tau_largest"]] == pytest.approx([0.25] * 4, abs=0.03)
    assert all(0.5 <= float(v) < 0.53 for v in values["tau_norm"])


def test_the_mean_phase_is_that_of_the_weights():
    subject = _subject("tips")
    middle = Measurement("tips_phases", {"count": 8, "bins": 3}).measure(subject)["tau_mean_phase"]
    assert torch.stack(middle).tolist() == [[0, 1, 0]] * 4  # almost uniform weights, everything within 1 to 2
    last = []
    for module in subject.network.modules():
        if type(module).__name__ == "_Tau":
            module.register_forward_hook(lambda *args: torch.eye(4)[[3]].expand_as(args[-1]))
            last.append([0, 0, 0, 2])
    values = Measurement("tips_phases", {"count": 2, "bins": 6}).measure(subject)["tau_mean_phase"]
    assert torch.stack(values).tolist() == [[0, 0, *ends] for ends in last]  # the last phase only: density 1/(3/6)


def test_the_undo_loss_is_the_mean_over_all_shifts():
    subject = _subject({"name": "tips", "faithful": True})
    values = Measurement("undo_loss", {"count": 4, "pictured": 2}).measure(subject)
    seen = {}
    layer = next(m for m in subject.network.modules() if type(m).__name__ == "TIPS")
    layer.tau.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    with torch.no_grad():
        subject.network(subject.split("test", 4).images.float() / 255)
        x = seen["x"]
        psi = layer.tau.psi(x, layer.tau.filter.weight)
        reach = x.shape[2] // 4
        steps = range(-reach, reach + 1)
        losses = [(psi - x.roll((i, j), (2, 3))).square().mean() for i in steps for j in steps]
    slow = torch.stack(losses).mean() / x.square().mean()
    assert float(values["undo_floor"][0] + values["undo_excess"][0]) == pytest.approx(float(slow), rel=1e-4)
    assert len(values["undo_floor"]) == 4 and 0 < float(values["undo_floor"][0]) < 1
    assert values["undo_pictures"].shape == (2, 4, *x.shape[2:])
    assert (values["undo_pictures"][:, 0].roll((5, 3), (1, 2)) == values["undo_pictures"][:, 1]).all()


def test_the_surface_is_one_without_a_shift_and_everywhere_for_aps():
    values = Measurement("consistency_surface", {"count": 12, "max_shift": 2}).measure(_subject("aps"))
    assert values["surface_circular"].shape == values["surface_standard"].shape == (5, 5)
    assert values["surface_standard"][2, 2] == 1 and (values["surface_circular"] == 1).all()
    assert values["surface_standard"].min() < 1


def test_drawn_consistency_is_exact_for_aps():
    values = Measurement("circular_fidelity", {"count": 16}).measure(_subject("aps"))
    assert values["circular_consistency_drawn"].value == 1
    assert values["circular_fidelity_joint"].value == pytest.approx(values["accuracy"].value)


def test_masks_that_move_with_the_picture():
    subject = _subject("aps")
    network = {"name": "unet-small", "num_classes": 6, "width": 4, "padding_mode": "circular", "downsample": "aps"}
    run = replace(subject.run, network=network, recipe=replace(subject.run.recipe, target="masks"))
    wanted = Measurement("mask_pictures", {"count": 2, "down": 3, "right": 5})
    values = wanted.measure(Subject(run, build(run).eval(), torch.device("cpu")))
    assert values["pictures"].shape == (2, 3, 32, 32) and values["true_masks"].shape == (2, 32, 32)
    assert (values["masks"] == values["masks_moved_back"]).float().mean() > 0.999


def test_without_an_attack_features_stay_and_with_a_large_one_they_move_more():
    subject = _subject(name="resnet-small")
    cosines = []
    for eps in (1e-4, 8, 32):
        values = Measurement("stability", {"count": 8, "eps": eps}).measure(subject)
        cosines.append(values["stability_attack"].value)
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert cosines[0] > cosines[1] > cosines[2]


def test_the_perturbation_is_a_signed_step():
    """Its energy is that of values +-eps, spread over all frequencies: Parseval bounds the mean of the logarithm."""
    values = Measurement("stability", {"count": 8, "eps": 8}).measure(_subject(name="resnet-small"))
    assert values["perturbation_spectrum"].exp().mean() <= (8 / 255) ** 2 * 1.01


def test_flc_has_no_alias_error_to_raise():
    subject = _subject("flc", "resnet-small", placement="pool-then-conv")
    values = Measurement("aliasing_and_attack", {"count": 32, "eps": 1, "steps": 1}).measure(subject)
    assert values["alias_error_rise"] == pytest.approx(0, abs=1e-5)


def test_broken_and_kept_pictures_are_the_correct_ones():
    subject = _subject(name="resnet-small")
    test = subject.split("test", 32)
    right = int((predict(subject.network, test.images).argmax(1) == test.labels).sum())
    values = Measurement("aliasing_and_attack", {"count": 32, "eps": 1, "steps": 2}).measure(subject)
    assert right and values["broken"] + values["kept"] == right


def test_a_network_that_is_never_right_has_no_difference():
    subject = _subject(name="resnet-small")
    with torch.no_grad():  # class 9 for every picture, of which none is asked
        head = subject.network.network.fc
        head.weight.zero_()
        head.bias.copy_(torch.arange(10.0))
    subject.split = lambda name, count: Subject.split(_subject(name="resnet-small"), name)[torch.arange(9)]
    values = Measurement("aliasing_and_attack", {"count": 9, "eps": 1, "steps": 1}).measure(subject)
    assert values == {"alias_error_of_broken_minus_kept": None, "alias_error_rise": None, "broken": 0, "kept": 0}


def test_spectra_in_front_of_and_behind_the_first_halving():
    values = Measurement("map_spectra", {"count": 4}).measure(_subject(name="resnet-small"))
    assert len(values["map_frequency"]) == 16 and len(values["sampled_frequency"]) == 8
