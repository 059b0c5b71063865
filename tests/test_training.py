"""The training loop: what it draws, what it stores, what it refuses."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from aliasing import training
from aliasing.datasets import ImageSet
from aliasing.errors import UsageError
from aliasing.optimizers import Optimizers
from aliasing.training import (
    Recipe,
    TrainingError,
    _learning_rate,
    augment,
    keep_weights,
    load_weights,
    pick_device,
    train,
    write_weights,
)
from tests.toys import Custom


def toy_data(count: int = 40) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 128, (count, 3, 8, 8), generator=generator) + 100 * labels[:, None, None, None]
    return ImageSet(images.to(torch.uint8), labels, ("dark", "bright"), "toy")


def toy_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


RECIPE = Recipe(epochs=3, batch_size=8, lr=0.05, flip=True, shift=2)


def settled_network() -> nn.Module:
    """Says the second class of everything."""
    network = toy_network()
    nn.init.zeros_(network[-1].weight)
    network[-1].bias.data = torch.tensor([0.0, 2.0])
    return network


def test_an_image_that_no_batch_has_is_left_out():
    """The ninth of nine would be alone. Half of what smoothing takes from a class goes to the other, 2 below."""
    data = replace(toy_data(9), labels=torch.ones(9, dtype=torch.long))
    (entry,) = train(settled_network(), data, Recipe(epochs=1, batch_size=8, lr=0.0, label_smoothing=0.1), seed=0)
    assert entry["loss"] == pytest.approx(math.log1p(math.exp(-2)) + 0.05 * 2) and entry["accuracy"] == 1


def test_interrupted_and_continued_training_ends_with_the_same_bits(tmp_path):
    """It learns, and reports every epoch."""
    whole, part, seen = toy_network(), toy_network(), []
    calm = train(whole, toy_data(), RECIPE, seed=3, on_epoch=seen.append)
    assert [entry["epoch"] for entry in calm] == [1, 2, 3] and seen == calm
    assert calm[-1]["loss"] < calm[0]["loss"]

    def stop(entry):
        assert not part._forward_hooks  # a copy of it would have them, too, and could not be saved
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(part, toy_data(), RECIPE, seed=3, checkpoint=checkpoint, on_epoch=stop)
    torch.manual_seed(99)  # the global generator must not matter
    continued = toy_network()
    history = train(continued, toy_data(), RECIPE, seed=3, checkpoint=checkpoint)
    assert len(history) == 3
    torch.testing.assert_close(continued.state_dict(), whole.state_dict(), rtol=0, atol=0)
    loaded = toy_network()
    assert load_weights(checkpoint, loaded) == history
    assert torch.equal(loaded[0].weight, whole[0].weight)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before, drawn = torch.get_rng_state(), replace(RECIPE, randaugment=1)
    runs = [(drawn, 0), (drawn, 0), (drawn, 1), (RECIPE, 0), (RECIPE, 1)]
    first, same, *others = [train(toy_network(), toy_data(), recipe, seed)[-1]["loss"] for recipe, seed in runs]
    assert torch.equal(torch.get_rng_state(), before)
    assert first == same and len({first, *others}) == 4
    still = train(toy_network(), toy_data(), Recipe(epochs=2, batch_size=8, lr=0.0), 0)
    assert still[0]["loss"] != still[1]["loss"]  # batches of other images


def test_augmentation_equals_a_loop_over_images():
    """Each picture is mirrored, then shifted."""
    images = torch.randint(0, 256, (16, 3, 7, 5), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    for mode, flip in product(("circular", "standard"), (False, True)):
        ours = augment(images, Recipe(flip=flip, shift=3, shift_mode=mode), torch.Generator().manual_seed(2))
        generator = torch.Generator().manual_seed(2)
        mirrored = torch.rand(16, generator=generator) < 0.5 * flip
        shifts = torch.randint(-3, 4, (2, 16), generator=generator).T.tolist()
        for image, mine, mirror, (dy, dx) in zip(images, ours, mirrored, shifts, strict=True):
            image = image.flip(2) if mirror else image
            moved = image.roll((dy, dx), (1, 2))
            if mode == "standard":
                moved = nn.functional.pad(image, (3, 3, 3, 3))[:, 3 - dy : 10 - dy, 3 - dx : 8 - dx]
            assert torch.equal(mine, moved)


def test_learning_rates():
    recipe = Recipe(lr=1.0, warmup=0.25)
    assert [_learning_rate(recipe, p, 1.0) for p in (0.125, 0.25, 0.625, 1.0)] == pytest.approx([0.5, 1, 0.5, 0])
    cosine = replace(recipe, schedule="cosine")
    assert [_learning_rate(cosine, p, 1.0) for p in (0.4375, 0.625)] == pytest.approx([0.5 + 0.125**0.5, 0.5])
    steps = replace(recipe, schedule="steps", warmup=0.0)
    assert [_learning_rate(steps, p, 1.0) for p in (0.0, 0.34, 0.67)] == pytest.approx([1.0, 0.1, 0.01])


def test_rates_attacks_and_layers_follow_the_progress(monkeypatch):
    """Of five batches in three epochs: rates are never those of either end; the adversary wakes in the last epoch."""
    heard, seen, attacks = [], [], []
    rate, step = training._learning_rate, training.signed_step
    monkeypatch.setattr(training, "_learning_rate", lambda *a: seen.append(a[1]) or rate(*a))
    monkeypatch.setattr(training, "signed_step", lambda *a: attacks.append((a[0].eps, a[2])) or step(*a))
    network = toy_network()
    network[0].on_epoch = heard.append
    train(network, toy_data(), replace(RECIPE, adversary=0.1, adversary_wake=0.5), seed=0)
    assert sorted(set(seen)) == pytest.approx([k / 16 for k in range(1, 16)])
    assert heard == [0, 0.5, 1] and attacks == [(0.1, pytest.approx(0.125))] * 5


def test_a_network_learns_in_training_mode_by_steps_that_are_clipped_and_is_left_to_be_asked():
    network = toy_network().eval()
    before = [p.detach().clone() for p in network.parameters()]
    train(network, toy_data(), Recipe(epochs=1, batch_size=40, lr=1.0, weight_decay=0.0, clip_norm=1e-3), seed=0)
    steps = [(p - q).norm() for p, q in zip(network.parameters(), before, strict=True)]
    assert 0 < max(steps) < 2e-3 and network[1].running_mean.any() and not network.training


def test_losses_of_layers_share_the_weight_with_the_task_once_they_wake():
    layer, frozen = Custom(None), Custom(None)
    layer.auxiliary_losses = lambda *of: (torch.tensor(2.0), torch.tensor(5.0))
    frozen.auxiliary_losses = lambda *of: None
    recipe = Recipe(auxiliary=0.25, auxiliary_wake=0.5)
    task, both = torch.tensor(8.0), [layer, frozen]
    cases = (0.4, 1.0), (0.5, 1.0), (0.5, 0.5)  # what is done, and this process's share of the layers' losses
    found = [training._with_auxiliary(task, both, recipe, done, None, share).item() for done, share in cases]
    with pytest.raises(UsageError, match="none ran in training mode"):
        training._with_auxiliary(task, [frozen], recipe, 0.5, None, 1.0)
    assert found == [0.75 * 8 + 2, 0.75 * 8 + 2 + 0.25 * 5, 0.75 * 8 + 1 + 0.25 * 2.5]


@pytest.mark.parametrize("count", [0, 1])
def test_devices(count, monkeypatch):
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UsageError, match="this machine has no such one"):
        pick_device("cuda:1")


def test_the_adversary_sleeps_and_probing_changes_nothing():
    """Before it wakes, training is ordinary; the probe looks at the network and leaves it and its randomness alone."""
    asleep = replace(RECIPE, adversary=0.1, adversary_wake=1.0)
    networks = [toy_network() for _ in range(4)]
    recipes = (RECIPE, asleep, replace(asleep, probe=16), replace(RECIPE, adversary=0.1))
    histories = [train(network, toy_data(), recipe, seed=1) for network, recipe in zip(networks, recipes, strict=True)]
    assert torch.equal(networks[0][0].weight, networks[1][0].weight)
    assert torch.equal(networks[0][0].weight, networks[2][0].weight)
    assert not torch.equal(networks[0][0].weight, networks[3][0].weight)
    assert "pgd" not in histories[1][-1]
    falls = [[entry["clean"] - entry[attack] for entry in histories[2]] for attack in ("fgsm", "pgd")]
    assert all(min(fall) >= 0 and max(fall) > 0 for fall in falls)


def test_no_label_is_ignored():
    """255 marks unlabelled pixels of masks, and is a class of ImageNet."""
    data = ImageSet(toy_data().images, torch.full((40,), 255), tuple(map(str, range(256))), "one class")
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 256))
    history = train(network, data, Recipe(epochs=1, batch_size=8, lr=0.01), seed=0)
    assert history[0]["loss"] > 0.5


def test_ignored_pixels_and_those_that_a_shift_fills_count_nowhere():
    data, network = toy_data(), nn.Conv2d(3, 2, 1)
    masks = torch.ones(40, 8, 8, dtype=torch.uint8)
    masks[:, 3:] = 7
    nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor([0.0, 2.0])  # the second class, everywhere
    recipe = Recipe(epochs=1, batch_size=8, lr=0.0, label_smoothing=0.0, shift=2, shift_mode="standard", target="masks")
    (entry,) = train(network, replace(data, masks=masks), replace(recipe, ignore=7), seed=0)
    assert entry["accuracy"] == 1
    assert entry["loss"] == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)
    masks[:39] = 7  # a batch without a pixel that counts
    with pytest.raises(TrainingError, match="smaller lr or clip_norm, or leave out the 39 images all"):
        train(network, replace(data, masks=masks), replace(recipe, ignore=7), seed=0)


def test_published_weights_are_finite_where_half_precision_has_no_number(tmp_path):
    network = toy_network()
    network[1].running_var.fill_(1e6)
    about = {"size": (8, 8)}
    write_weights(tmp_path / "all", network, Optimizers(network, "sgd", 0.1, 0.0, 0.9, 0.0), [], about)
    assert load_weights(tmp_path / "all", toy_network(), run=about) == []
    keep_weights(tmp_path / "all", tmp_path / "kept")
    load_weights(tmp_path / "kept", loaded := toy_network())
    assert torch.equal(loaded[1].running_var, network[1].running_var)
    assert torch.equal(loaded[0].weight, network[0].weight.half().float())


def test_a_loaded_state_has_the_memory_format_of_its_parameters():
    """Fused steps, as on CUDA, walk through both in the order of memory."""
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    first, then = (Optimizers(network, "sgd", 0.1, 0.0, 0.9, 0.0) for _ in range(2))
    network(torch.rand(2, 3, 5, 5)).sum().backward()
    first.step()
    then.load({key: value.contiguous() for key, value in first.state().items()})
    kept = {parameter: state["momentum_buffer"] for parameter, state in then.all[0].state.items()}
    assert kept[network.weight].stride() == network.weight.stride() != (27, 9, 3, 1)
    torch.testing.assert_close(kept[network.weight], network.weight.grad)


@pytest.mark.parametrize("given", [None, {"weight", "cls_token"}, {"tied"}])
def test_what_a_module_gives_or_names_is_not_decayed(given):
    filters = nn.Conv2d(3, 4, 3)
    filters.register_parameter("tied", filters.weight)
    filters.no_weight_decay = lambda: given or [filters.weight]
    decayed, others = Optimizers(nn.Sequential(filters), "adamw", 0.1, 0.0, 0.9, 0.5).all[0].param_groups
    assert (len(decayed["params"]), len(others["params"])) == (0, 2)


def test_muon_leaves_alone_what_is_refused_or_not_trained():
    network = nn.Sequential(nn.Conv2d(3, 2, 8, bias=False), nn.Flatten())
    before = network[0].weight.detach().clone()
    train(network, toy_data()[:1], Recipe(epochs=0, optimizer="muon", rest_lr=0.1), seed=0)
    unknown = replace(toy_data(), labels=torch.full((40,), -1))
    with pytest.raises(UsageError, match="labels"):
        train(network, unknown, Recipe(epochs=1, optimizer="muon", rest_lr=0.1), seed=0)
    assert torch.equal(network[0].weight, before)


def test_muon_steps_from_the_weights_there_are_and_leaves_networks_without_filters_to_the_other():
    filters = nn.Conv2d(3, 4, 3, bias=False)  # not channels_last: its matrix has memory of its own
    optimizer = Optimizers(filters, "muon", 0.1, 0.1, 0.9, 0.0)
    loaded = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    loaded *= 2 / loaded.flatten(1).norm()
    filters.load_state_dict({"weight": loaded})
    filters.weight.grad = torch.zeros_like(loaded)
    optimizer.set_rates(lambda peak: 0.0)
    optimizer.step()
    torch.testing.assert_close(filters.weight.detach(), loaded)
    twin = nn.Conv2d(3, 4, 3, bias=False)
    twin.weight = filters.weight
    assert len(Optimizers(nn.Sequential(filters, twin), "muon", 0.1, 0.1, 0.9, 0.0).muon.filters) == 1
    linear = nn.Linear(3, 2)
    optimizer = Optimizers(linear, "muon", 0.1, 0.1, 0.0, 0.0)
    before = linear.weight.detach().clone()
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(linear.weight.detach(), before - 0.1)
