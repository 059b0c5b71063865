"""What is asked of trained networks, on networks whose answers are known by hand, and against slow versions."""

import base64
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import nn

from aliasing import datasets, layers, metrics
from aliasing.datasets import ImageSet, shapes
from aliasing.jobs import build
from aliasing.measurements import MEASUREMENTS, Measurement, Subject, features, packed, pixel_steps, unpacked
from aliasing.metrics import predict
from aliasing.metrics.pixel_pairs import SIZES, size_pairs
from aliasing.records import Run
from aliasing.training import Recipe
from tests.toys import Answer, Custom


def subject(network="vgg-small", data=None, **options):
    """Of a network, or of a small one with these options, which is then normalised; on drawn pictures."""
    named = {"name": network, "num_classes": 10, "width": 4, "padding_mode": "circular"} | options
    own = named if isinstance(network, str) else {"name": "vgg-small", "num_classes": 10}
    run = Run({"name": "shapes", "seed": 1, "count": 32} | (data or {}), own, Recipe(), 0)
    return Subject(run, (build(run) if isinstance(network, str) else network).eval(), torch.device("cpu"))


def measured(name, chosen, **options):
    return Measurement(name, options).measure(chosen)


def halving(layer):
    """Two stages that halve with ``layer``, a global average, as many classes as channels."""
    stages = {name: layers.create(layer, 3, padding_mode="circular") for name in ("layer1", "layer2")}
    return Custom(lambda net, x: net.layer2(net.layer1(net.act(x))).mean((2, 3)), act=nn.Identity(), **stages)


# Class 0 if the brightest column lies left of the middle, else class 1; and always class 0.
PLACE = Answer(lambda x: torch.stack([half.amax((1, 2, 3)) for half in x.chunk(2, 3)], 1))
CONSTANT = Answer(lambda x: torch.eye(10)[:1].repeat(len(x), 1))


def linear():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))


# What some measurements are, from the functions of ``metrics``, of a network, test and training images.


def values(found):
    return [one.value for one in found.values()]


def by_size(net, test, train):
    rows = []
    for size in SIZES:
        before, after = (softmax(predict(net, part).double().numpy(), 1) for part in size_pairs(test.images, size))
        top, rows_of = before.argmax(1), np.arange(len(before))
        move = np.abs(before - after)[rows_of, top].mean()
        rows.append(((top != after.argmax(1)).mean(), move, (top == test.labels.numpy()).mean()))
    return dict(zip(("size_change", "size_absolute_change", "size_accuracy"), torch.tensor(rows).T, strict=True))


def all_rolls(net, test, train):
    right = metrics.roll_predictions(net, test.images, test.labels).correct
    distance = torch.arange(32).minimum(32 - torch.arange(32))
    near = [right[:, distance <= n][:, :, distance <= n] for n in range(17)]
    return {
        "circular_accuracy": right.double().mean(),
        "circular_consistency_if_correct": metrics.consistency(net, test.images, exhaustive=True, labels=test.labels),
        "adversary": [rolled.all(2).all(1).double().mean().item() for rolled in near],
    }


def fifths(net, test, train):
    order = metrics.typicality(net, test.images, train.images).argsort().view(5, -1)
    change = metrics.one_pixel(net, test.images, "circular", pairs=4).images[order]
    right = (predict(net, test.images).argmax(1) == test.labels)[order]
    return {
        "typicality_change": change.mean(1).tolist(),
        "typicality_change_if_correct": [own[hit].mean().item() for own, hit in zip(change, right, strict=True)],
        "typicality_accuracy": right.double().mean(1).tolist(),
        "typicality_gap": (change[4] - change[0]).mean().item(),
    }


def biases(net, test, train):
    own = metrics.max_sampling_bias(net, test.images).values()
    by_site = {name: [getattr(one, name).value for one in own] for name in ("constant", "exact")}
    means = {f"msb_{name}": np.mean(found) for name, found in by_site.items()}
    return means | {f"msb_{name}_by_site": found for name, found in by_site.items()}


def aliased(net, test, train):
    energy, error = (values(measure(net, test.images)) for measure in (metrics.alias_energy, metrics.alias_error))
    return {"alias_energy": energy, "alias_error": error, "mean_alias_error": np.mean(error)}


def surface(net, test, train):
    padded, plain = torch.nn.functional.pad(test.images, (1, 1, 1, 1)), predict(net, test.images).argmax(1)
    steps = [padded[:, :, 1 - i : 33 - i, 1 - j : 33 - j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    kept = [(predict(net, moved).argmax(1) == plain).double().mean() for moved in steps]
    return {"surface_standard": torch.stack(kept).view(3, 3)}


def read_out(net, test, train):
    found = metrics.fit_readouts(net, train.images, train.labels, ["act", "layer1", "layer2"]).values()
    right = [predict(readout, test.images).argmax(1) == test.labels for readout in found]
    black = [metrics.one_pixel(readout, test.images, "black") for readout in found]
    return {
        "readout_accuracy": [own.double().mean().item() for own in right],
        "readout_change_black": [change.top1_change.value for change in black],
        "readout_absolute_change_black": [change.mean_absolute_change.value for change in black],
    }


def spectra(net, test, train):
    first = next(metrics.sampled(net, test.images))[0]
    found = {name: metrics.radial_spectrum(maps) for name, maps in (("map", first.x), ("sampled", first.y))}
    return {f"{name}_{what}": own[i] for name, own in found.items() for i, what in enumerate(("frequency", "spectrum"))}


def moved_masks(net, test, train):
    standard = metrics.mask_consistency(net, test.images, shift="standard", max_shift=2, border=2)
    return {
        "mean_iou": metrics.mean_iou(net, test.images, test.masks, 255),
        "mask_consistency_standard": standard,
        "mask_consistency_circular": metrics.mask_consistency(net, test.images, max_shift=2),
        "mask_equivariance_error": metrics.mask_equivariance_error(net, test.images, max_shift=2),
    }


def jagged(net, test, train):
    found = metrics.jaggedness(net, test.images, test.labels, 1, "circular")
    return {"jaggedness_top": 1, "jaggedness_crossings_circular": found.crossings}


def depth(net, test, train):
    return dict(zip(("depth_error", "pooled_change"), metrics.realigned_errors(net, test.images), strict=True))


def halvings(net, test, train):
    maps = metrics.equivariance_maps(net, test.images, list(metrics.sites(net)), 1).values()
    return {"equivariance": {f"halving {number}": own for number, own in enumerate(maps, 1)}}


def counted(net, test, train):
    return {"macs": metrics.count_flops(net, (32, 32)) / 2, "parameters": sum(w.numel() for w in net.parameters())}


def diagonal(net, test, train):
    probability = metrics.roll_predictions(net, test.images, test.labels).probability
    return {"diagonal_probability": probability[:, range(32), range(32)]}


# With the options, of which the count is 20 unless it is given.
DIRECT = [
    ("one_pixel_by_size", by_size, {}),
    ("circular_rolls", all_rolls, {}),
    ("shift_curves", diagonal, {}),
    ("consistency_surface", surface, {"max_shift": 1}),
    ("jagged", jagged, {"count": 2}),
    ("typicality", fifths, {"count": 30, "training": 24}),
    ("stage_readouts", read_out, {"training": 12}),
    ("sampling_bias", biases, {}),
    ("aliasing", aliased, {}),
    ("map_spectra", spectra, {}),
    ("depth_error", depth, {"count": 4}),
    ("equivariance", halvings, {"count": 2, "max_shift": 1}),
    ("masks", moved_masks, {"count": 4, "max_shift": 2}),
    ("cost", counted, None),
    ("kernels", lambda net, test, train: {"stop_band": metrics.stop_bands(net)}, None),
]


@pytest.mark.parametrize(("name", "direct", "options"), DIRECT, ids=[case[0] for case in DIRECT])
def test_what_is_measured_is_what_the_metrics_say_of_the_right_split(name, direct, options, monkeypatch):
    """Of a network that is undecided, so that every pixel counts, and right about every second picture."""
    monkeypatch.setattr("aliasing.metrics.readouts.STEPS", 5)
    networks = {"stage_readouts": halving("subsample"), "masks": subject("unet-small", num_classes=6).network}
    chosen = subject(networks.get(name, "resnet-small"))
    net, plain = chosen.network, chosen.split
    if name not in networks:
        with torch.no_grad():
            net.network.fc.weight.mul_(20)
            net.network.fc.bias -= predict(net, plain("test").images).mean(0)

        def split(which, count):
            found = plain(which, count)
            answers = predict(net, found.images).argmax(1)
            return replace(found, labels=torch.where(torch.arange(len(found)) % 2 == 0, answers, found.labels))

        chosen.split = split
    options = {} if options is None else {"count": 20} | options
    found = measured(name, chosen, **options)
    test, train = chosen.split("test", options.get("count", 1)), chosen.split("train", options.get("training", 1))
    for key, value in direct(net, test, train).items():
        torch.testing.assert_close(found[key], value, check_dtype=False)


@pytest.mark.parametrize(("layer", "share", "law"), [("subsample", 1 / 16, 1.0), ("flc", 1.0, 16.0)])
def test_exact_shifts_are_the_multiples_of_the_factor(layer, share, law):
    """The mean of an ideal low-pass is that of its input, whatever the shift; subsampling by 4 keeps 1 of 16 shifts."""
    values = measured("exact_shifts", subject(halving(layer)), count=2, window=8)
    found = [values[f"exact_shift_{name}"] for name in ("factor", "share", "law")]
    assert found == pytest.approx([4, share, law]) and values["exact_shift_map"][4][4] == 1


def test_stages_have_factors_and_maps_that_move_with_the_picture_by_their_multiples():
    chosen = subject(halving("subsample"))
    values = measured("shiftability", chosen, count=4)
    assert values["stage_factors"] == [1, 2, 4] and values["non_shiftability_circular"][0] == 0.0
    assert len(values["non_shiftability_inpainting"]) == 3
    values = measured("feature_maps", chosen, shifts=(0, 4))
    for first, second in values["feature_maps"].values():
        assert np.array_equal(np.roll(first, 4 * len(first) // 32, 0), second)
    assert max(max(map(max, maps)) for maps in values["feature_maps"]["2"]) == 255
    for first, second in values["feature_sums"].values():
        assert first == pytest.approx(second)


def test_photographers_bias_of_four_scenes_by_hand(monkeypatch):
    """One bright pixel, and a network that says in which quarter it is; the scenes with a bias have it in the last."""
    centres = torch.tensor([(15.5, 16.5), (16.5, 15.5), (6.5, 22.5), (22, 16)])  # of quarters 1, 2, 1 and 3
    scenes = {"uniform": centres, 0: torch.full((4, 2), 16.0)}

    def sample(count, seed, split, bias, size):
        return SimpleNamespace(labels=torch.tensor([1, 0, 1, 3]), centre=scenes[bias] if split == "test" else centres)

    def seen(scenes, noise, shift=(0, 0)):
        images = torch.zeros(4, 3, 32, 32)
        rows, columns = (scenes.centre + torch.tensor(shift)).long().T
        images[range(4), :, rows, columns] = 1
        return images

    monkeypatch.setattr(shapes, "sample", sample)
    monkeypatch.setattr(pixel_steps, "_seen", seen)
    quarters = Answer(lambda x: torch.stack([q.amax((1, 2, 3)) for h in x.chunk(2, 2) for q in h.chunk(2, 3)], 1))
    found = measured("photographers_bias", subject(quarters), count=4)
    assert found["bias_accuracy"] == [0.5, None, None, 1, 1]  # 6 pixels off is the ring from 6 to 8
    assert found["bias_change"] == [1, None, None, 0, 0]  # one changes by going down, one by going right
    ends = [found[f"bias_{name}_{place}"].value for name in ("accuracy", "agreement") for place in ("near", "far")]
    assert ends == [0.5, 1, 0, 0.5]
    empty = [None] * 5
    assert found["bias_accuracy_map"] == [
        [*empty[:4], 1],
        empty,
        [None, None, 0.5, None, None],
        empty,
        [None, None, 1, None, None],
    ]


def test_a_sweep_keeps_what_the_network_saw():
    chosen = subject(linear())
    values = measured("sweep", chosen, count=4, pictures=2)
    assert values["sweep_probability"].shape == (4, 32)
    assert len(values["sweep_answers"]) == 4 and len(values["sweep_pictures"]) == 2
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(values["sweep_pictures"][0]))))
    assert np.array_equal(shown, chosen.split("test", 4).images[0].permute(1, 2, 0).numpy())


def test_a_measurement_of_ones_own_may_name_types_that_only_checkers_know(monkeypatch):
    def mine(subject: "Elsewhere", /, count):  # noqa: F821
        return {"m": count}

    monkeypatch.setitem(MEASUREMENTS, "mine", mine)
    assert measured("mine", subject(CONSTANT), count=3) == {"m": 3}
    monkeypatch.setitem(MEASUREMENTS, "free", lambda subject, **protocol: protocol)  # the form that the docstring has
    assert measured("free", subject(CONSTANT), count=3) == {"count": 3}


def test_accuracy_with_and_without_bands_of_a_network_that_always_says_zero():
    chosen = subject(CONSTANT, {"count": 20})
    chosen.split("test", 20).labels.fill_(0)  # of one's own copy
    assert measured("accuracy", chosen, count=20)["accuracy"].value == 0.1
    assert measured("clean_error", chosen, count=20)["clean_error"].value == 0.9
    found = measured("band_removal", chosen, count=20, bands=3)
    assert found["accuracy_without_band"] == [0.1] * 3 and found["accuracy_with_all_bands"].value == 0.1


def test_numbers_by_image_survive_being_packed():
    line = torch.arange(13)
    for values in (line % 3 == 0, line * 17, torch.linspace(0, 1, 13).double(), torch.ones(0) > 0):
        found = unpacked(packed(values))
        torch.testing.assert_close(found, values, atol=1e-5 * values.is_floating_point(), rtol=0)


def test_what_is_found_by_image_adds_up_to_the_values():
    """With ``per_image`` the other values stay as they are."""
    chosen = subject("resnet-small", stem="imagenet", padding_mode="zeros")
    options = {
        "accuracy": {},
        "circular_rolls": {},
        "shift_consistency": {"max_shift": 4},
        "one_pixel": {"protocols": ("crop", "circular")},
        "attacks": {"steps": 2},
        "corruptions": {"severities": (1, 5)},
    }
    found = {}
    for name, protocol in options.items():
        plain, more = (measured(name, chosen, count=8, **protocol, per_image=own) for own in (False, True))
        assert all(str(more[key]) == str(value) for key, value in plain.items())
        assert all(key.endswith("_by_image") for key in more.keys() - plain.keys())
        found |= {key: unpacked(more[key]).double() for key in more.keys() - plain.keys()} | plain
    for name in ("accuracy", "circular_consistency", "standard_consistency", "sub_pixel_consistency"):
        assert found[f"{name}_by_image"].mean().item() == pytest.approx(found[name].value, abs=1e-5)
    for protocol in ("crop", "circular"):
        changes = found[f"top1_changes_{protocol}_by_image"]
        assert changes.mean().item() == pytest.approx(found[f"top1_change_{protocol}"].value)
    for radius, value in enumerate(found["pgd_accuracy"]):
        assert (found["pgd_radii_by_image"] > radius).double().mean().item() == pytest.approx(value)
    assert found["corruption_errors_by_image"].mean().item() / 30 == pytest.approx(found["corruption_error"].value)


def test_weights_of_an_untrained_layer_are_almost_uniform_and_the_mean_phase_is_theirs(monkeypatch):
    chosen = subject(downsample="tips")
    values = measured("tips_weights", chosen, count=8)
    assert [float(v) for v in values["tau_largest"]] == pytest.approx([0.25] * 4, abs=0.03)
    assert all(0.5 <= float(v) < 0.53 for v in values["tau_norm"])
    middle = measured("tips_phases", chosen, count=8, bins=3)["tau_mean_phase"]
    assert torch.stack(middle).tolist() == [[0, 1, 0]] * 4  # almost uniform weights, everything within 1 to 2
    with monkeypatch.context() as patch:  # of nine phases alike
        patch.setattr("aliasing.measurements.tips._inputs", lambda *of: [(layers.TIPS(2, 3), torch.zeros(1, 2, 6, 6))])
        (middle,) = measured("tips_phases", chosen, count=1, bins=3)["tau_mean_phase"]
        assert middle.tolist() == [0, 3 / 8, 0]
    last_phase = torch.eye(4)[3] * (1 + 1e-7)  # rounded
    monkeypatch.setattr(layers.TIPS, "mixing_weights", lambda layer, x, *given: last_phase.expand(*x.shape[:2], 4))
    last = measured("tips_phases", chosen, count=2, bins=6)["tau_mean_phase"]
    assert torch.stack(last).tolist() == [[0, 0, 0, 0, 0, 2]] * 4  # the last phase only: density 1/(3/6)


def test_the_bias_of_photographers_is_measured_under_the_noise_of_training(monkeypatch):
    seen, render = [], shapes.render
    monkeypatch.setattr(shapes, "render", lambda s, shift, noise: seen.append(noise) or render(s, shift, noise))
    for noise in (0.0, 0.2):
        measured("photographers_bias", subject(PLACE, {"noise": noise}), count=100)
    assert seen == [0.0] * 3 + [0.2] * 3


def test_the_undo_loss_is_the_mean_over_all_shifts():
    chosen = subject(downsample={"name": "tips", "faithful": True})
    values = measured("undo_loss", chosen, count=4, pictured=2)
    seen = {}
    layer = next(m for m in chosen.network.modules() if type(m).__name__ == "TIPS")
    layer.register_forward_pre_hook(lambda _, args: seen.update(x=layer.complete(args[0])))
    with torch.no_grad():
        chosen.network(chosen.split("test", 4).images.float() / 255)
        x = seen["x"]
        psi = layer.psi(x)
        steps = range(-(x.shape[2] // 4), x.shape[2] // 4 + 1)
        losses = [(psi - x.roll((i, j), (2, 3))).square().mean() for i in steps for j in steps]
    slow = torch.stack(losses).mean() / x.square().mean()
    assert float(values["undo_floor"][0] + values["undo_excess"][0]) == pytest.approx(float(slow), rel=1e-4)
    assert len(values["undo_floor"]) == 4 and 0 < float(values["undo_floor"][0]) < 1
    assert values["undo_pictures"].shape == (2, 4, *x.shape[2:])
    assert (values["undo_pictures"][:, 0].roll((5, 3), (1, 2)) == values["undo_pictures"][:, 1]).all()


def test_aps_moves_with_circular_shifts_and_not_with_others():
    chosen = subject(downsample="aps")
    values = measured("consistency_surface", chosen, count=12, max_shift=2)
    assert values["surface_circular"].shape == values["surface_standard"].shape == (5, 5)
    assert values["surface_standard"][2, 2] == 1 and (values["surface_circular"] == 1).all()
    assert values["surface_standard"].min() < 1
    values = measured("circular_fidelity", chosen, count=16)
    assert values["circular_consistency_drawn"].value == 1
    assert values["circular_fidelity_joint"].value == pytest.approx(values["accuracy"].value)
    masks = subject("unet-small", num_classes=6, downsample="aps")
    masks.run = replace(masks.run, recipe=replace(masks.run.recipe, target="masks"))
    values = measured("mask_pictures", masks, count=2, down=3, right=5)
    assert values["pictures"].shape == (2, 3, 32, 32) and values["true_masks"].shape == (2, 32, 32)
    assert (values["masks"] == values["masks_moved_back"]).float().mean() > 0.999


def test_without_an_attack_features_stay_and_with_a_large_one_they_move_more():
    chosen = subject("resnet-small")
    found = [measured("stability", chosen, count=8, eps=eps) for eps in (1e-4, 8, 32)]
    cosines = [values["stability_attack"].value for values in found]
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert cosines[0] > cosines[1] > cosines[2]
    assert len({values["stability_noise"] for values in found}) == 1  # whatever the attack
    # A signed step has the energy of values +-eps, over all frequencies: Parseval bounds the mean of the logarithm.
    assert found[1]["perturbation_spectrum"].exp().mean() <= (8 / 255) ** 2 * 1.01


def test_alias_errors_of_pictures_that_are_broken_and_kept(monkeypatch):
    flc = subject("resnet-small", downsample="flc", placement="pool-then-conv")
    values = measured("aliasing_and_attack", flc, count=32, eps=1, steps=1)
    assert values["alias_error_rise"] == pytest.approx(0, abs=1e-5)  # FLC has none to raise
    chosen = subject("resnet-small")
    test = chosen.split("test", 32)
    right = int((predict(chosen.network, test.images).argmax(1) == test.labels).sum())
    values = measured("aliasing_and_attack", chosen, count=32, eps=1, steps=2)
    assert right and values["broken"] + values["kept"] == right
    with torch.no_grad():  # class 9 for every picture, of which none is asked
        head = chosen.network.network.fc
        head.weight.zero_()
        head.bias.copy_(torch.arange(10.0))
    chosen.split = lambda name, count: Subject.split(subject("resnet-small"), name)[torch.arange(9)]
    values = measured("aliasing_and_attack", chosen, count=9, eps=1, steps=1)
    assert values == {"alias_error_of_broken_minus_kept": None, "alias_error_rise": None, "broken": 0, "kept": 0}
    chosen = subject(CONSTANT)
    zeros = replace(chosen.split("test", 5), labels=torch.tensor([0, 0, 0, 0, 1]))
    errors = iter(torch.tensor([[1.0, 8, 3, 4], [2.0, 9, 4, 7]]))
    attack = None, torch.tensor([True, False, True, False])
    own = {"split": zeros, "_one_step": None, "attack_images": attack}
    for name, given in own.items():
        place = chosen if name == "split" else features
        monkeypatch.setattr(place, name, lambda *of, given=given: given)
    monkeypatch.setattr(features, "_alias_errors", lambda *of: next(errors))
    values = measured("aliasing_and_attack", chosen, count=5, eps=1)
    assert (values["alias_error_of_broken_minus_kept"], values["alias_error_rise"]) == (-4, 1.5)


def test_a_data_set_that_is_defined_again_is_another_one(monkeypatch):
    """Of a network that calls dark pictures wrong."""
    bright = Answer(lambda x: torch.stack([x.mean((1, 2, 3)), 0.5 - x.mean((1, 2, 3))], 1))

    def error(grey):
        data = ImageSet(torch.full((4, 3, 16, 16), grey, dtype=torch.uint8), torch.zeros(4).long(), ("a", "b"), "mine")
        own = datasets.Entry(lambda split, seed, count: data, "this test")
        monkeypatch.setitem(datasets.CATALOGUE, "mine", own)
        found = measured("corruptions", subject(bright, {"name": "mine"}), count=2, severities=(1,))
        return found["corruption_error"].value

    assert error(0) > 0.5 > error(255)


def test_pictures_are_the_sample_of_networks_that_others_trained(monkeypatch):
    """Six pictures of vertical stripes, two pixels wide, on a network that reads one pixel."""
    images = torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
    images[:, :, :, 0::4] = images[:, :, :, 1::4] = 255
    images[4:] = 255  # but for two
    data = ImageSet(images, torch.zeros(6, dtype=torch.long), ("bright", "dark"), "stripes")
    for room in ("subject", "pretrained"):
        monkeypatch.setattr(f"aliasing.measurements.{room}.loaded", lambda dataset, split: data)
    corner = Answer(lambda x: torch.stack([x[:, 0, 0, 0], 0.5 - x[:, 0, 0, 0]], 1))
    chosen = subject(nn.Sequential(nn.BatchNorm2d(3, affine=False), corner))  # whose map is watched
    data.labels[4:] = 1
    found = measured("one_pixel_windows", chosen, count=6, margin=4)
    data.labels[4:] = 0
    # The window's corner shows column 4, bright as column 5; of the two columns beside it, 3 is dark.
    assert found["changes"] == [2, 2, 2, 2, 0, 0]
    shares = [found[name].value for name in ("top1_change", "top1_change_if_correct", "accuracy")]
    assert shares == pytest.approx([1 / 3, 1 / 2, 2 / 3])
    assert found["mean_absolute_change"].value == pytest.approx((0.8176 - 0.3775) / 3, abs=1e-3)
    found = measured("inpainted_sweep", chosen, count=6, positions=5)
    assert (found["steps"], found["factors"], found["crossings"]) == (4, [1], 0)  # of two classes both are among five
    assert len(found["probability"]) == len(found["non_shiftability_by_picture"]) == 6
    chosen.run.dataset["name"] = "imagenette"  # whose labels become ImageNet's
    assert measured("inpainted_sweep", chosen, count=2, positions=2)["probability_labels"] == ["tench"] * 2
    # Of seven classes the first is first or last. At half the size the second column is dark, the first one bright.
    second = Answer(lambda x: nn.functional.pad(x[:, :1, 1, 1] - 0.5, (0, 6)))
    chosen.run.dataset["name"] = "shapes"
    images[4:] = images[0]
    found = measured("embedded_sizes", subject(second), count=6, sizes=(112, 217))
    assert [found[f"size_{name}"] for name in ("top5", "top1", "change")] == [[0, 1], [0, 1], [1, 0]]
    assert found["half_over_whole"].value == 0
    ranks = torch.tensor([0, 1, 5, 4, 0])  # of the right class at five positions: two crossings of the top five
    with monkeypatch.context() as patch:
        logits = (torch.arange(7.0) * -1 - 0.5).repeat(5, 1)
        logits[:, 0] = -ranks - 1.0
        patch.setattr(
            "aliasing.measurements.pretrained.swept", lambda *of: (logits.expand(6, 5, 7), torch.ones(6, 5, 1))
        )
        found = measured("inpainted_sweep", subject(nn.BatchNorm2d(3)), count=6, positions=5)
    assert found["crossings"] == 6 * 2
    images[:], images[:, :, 16, 16] = 0, 255
    bright = nn.Sequential(
        nn.MaxPool2d(2), Answer(lambda x: nn.functional.pad(x.amax((1, 2, 3))[:, None] - 0.6, (0, 1)))
    )
    chosen = subject(bright)
    chosen.run.network.update(layer="tri-3", tuned=False)  # whose filter halves the one bright pixel
    own = {"held_out": {"name": "shapes"}, "others": {"name": "shapes"}, "size": 24, "epochs": 1, "lr": 0.1}
    assert measured("fine_tuned", chosen, count=6, **own)["accuracy_on_all_classes"].value == 0
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    options = {"count": 6, "against": {"name": "shapes"}, "training": 6, "margin": 4, "neighbours": 2}
    near = measured("distance_to_training", subject(mean), **options)
    assert near["distance"].tolist() == pytest.approx([0] * 6)  # a picture of the training set is its own neighbour
