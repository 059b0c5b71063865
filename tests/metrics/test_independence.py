"""Every metric that takes a batch size: its value depends on neither that, nor on earlier calls, nor on the device.

The list is read off the package; a new metric is tested as soon as it is exported.
"""

import inspect
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from aliasing import metrics, models
from aliasing.errors import UsageError
from tests.toys import Custom

APART = ("outputs", "roll_logits", "sampled")  # they yield batches


def parameters(name):
    function = getattr(metrics, name)
    return inspect.signature(function).parameters if inspect.isfunction(function) else {}


def takes_batches(name):
    """By name, or with the other options of a function that it passes them on to."""
    kinds = {parameter.kind for parameter in parameters(name).values()}
    return "batch_size" in parameters(name) or inspect.Parameter.VAR_KEYWORD in kinds


NAMES = [name for name in metrics.__all__ if takes_batches(name) and name not in APART]
OF_MASKS = ("mean_iou", "mask_consistency", "mask_equivariance_error")
# What makes an example small, or is needed besides images and labels.
OPTIONS = {
    "attack_accuracy": {"eps": 0.01, "steps": 3},
    "consistency": {"max_shift": 2},
    "corruption_error": {"names": ("gaussian_noise", "glass_blur", "fog"), "severities": (1, 5)},
    "equivariance_maps": {"layers": ("stages.0.0.conv",), "max_shift": 1},
    "few_shot_accuracy": {"ways": 2, "queries": 1, "episodes": 20},
    "fidelity": {"max_shift": 2},
    "fit_readouts": {"layers": ("stages.0.0.conv",)},
    "jaggedness": {"top": 1},
    "mask_consistency": {"max_shift": 2},
    "mask_equivariance_error": {"max_shift": 2},
    "non_shiftability": {"layers": ("stages.0.0.conv",)},
    **{name: {"pairs": 2} for name in ("mean_absolute_change", "one_pixel", "top1_change")},
    "typicality": {"neighbours": 2},
}


IMAGES = torch.randint(256, (9, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    """Undecided between its classes on ``IMAGES``, so that every draw matters."""
    torch.manual_seed(0)
    model = models.create("vgg-small", 3, downsample="tri-3", padding_mode="circular", width=4).double()
    with torch.no_grad():
        model.classifier.bias -= metrics.predict(model, IMAGES).mean(0)
    return model


@pytest.fixture(scope="module")
def painter():
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1).double()


@pytest.fixture(scope="module")
def data(network):
    generator = torch.Generator().manual_seed(0)
    labels = metrics.predict(network, IMAGES).argmax(1)
    labels[:6] = torch.tensor([0, 0, 1, 1, 2, 2])  # some right, some wrong
    return {
        "images": IMAGES,
        "labels": labels,
        "masks": torch.randint(3, (9, 16, 16), generator=generator),
        "training_images": IMAGES.flip(3),
        "frames": torch.stack([IMAGES, IMAGES.roll(1, 2)]),
    }


def call(name, data, network, painter, device="cpu", **more):
    """The metric with the arguments it names, as numbers."""
    model = painter if name in OF_MASKS else network
    given = {key: value.to(device) for key, value in data.items()} | {"model": model, "features": model}
    needed = {
        key: given[key]
        for key, parameter in parameters(name).items()
        if key in given and (parameter.default is inspect.Parameter.empty)
    }
    return plain(getattr(metrics, name)(**needed | OPTIONS.get(name, {}) | more))


def plain(value):
    """Every number in ``value``, in one tensor; of a readout, those of its classifier."""
    leaves = tree_leaves(tree_map_only(nn.Module, lambda readout: dict(readout.classifier.state_dict()), value))
    numbers = [leaf for leaf in leaves if isinstance(leaf, (int, float, torch.Tensor))]
    return torch.cat([torch.as_tensor(one, dtype=torch.float64).detach().cpu().flatten() for one in numbers])


def same(first, second):
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_neither_batch_size_nor_company_changes_the_value(name, data, network, painter):
    whole = call(name, data, network, painter, batch_size=64)
    assert len(whole) > 0
    torch.manual_seed(5)  # the global generator is of no concern to a metric, and is left alone
    before = torch.get_rng_state()
    same(call(name, data, network, painter, batch_size=2), whole)
    assert torch.get_rng_state().equal(before)
    same(call(name, data, network, painter, batch_size=1), whole)
    assert network.training and painter.training


def standardised(model, inplace):
    """A network that standardises its input itself, as many do: in place."""
    return Custom(lambda net, x: net.model(x.sub_(0.3).mul_(1.5) if inplace else (x - 0.3) * 1.5), model=model)


@pytest.mark.parametrize("name", NAMES)
def test_neither_the_network_nor_the_mode_of_the_caller_changes_images_or_value(name, data, network, painter):
    images = IMAGES if name == "corruption_error" else IMAGES.double() / 255
    data = data | {"images": images, "training_images": images.flip(3), "frames": torch.stack([images, images.flip(2)])}
    more = {"layers": ("model.stages.0.0.conv",)} if "layers" in OPTIONS.get(name, {}) else {}
    values = []
    for inplace in (False, True):
        before = {key: value.clone() for key, value in data.items()}
        models = [standardised(model, inplace) for model in (network, painter)]
        values.append(call(name, data, *models, **more))
        assert all(value.equal(before[key]) for key, value in data.items())
    same(*values)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            same(call(name, {key: value.clone() for key, value in data.items()}, *models, **more), values[0])
    if images.is_floating_point():
        attached = data | {key: data[key].clone().requires_grad_() for key in ("images", "training_images", "frames")}
        same(call(name, attached, *models, **more), values[0])


@pytest.mark.parametrize("name", [name for name in NAMES if "labels" in parameters(name)])
def test_labels_of_another_form_are_refused(name, data, network, painter):
    """Compared as they are, a column is compared with every answer, and a class that does not exist is never right."""
    labels = data["labels"]
    whole = call(name, data, network, painter, labels=labels)
    same(call(name, data, network, painter, labels=labels.to(torch.uint16)), whole)
    wrong = {
        "one label per image": (labels[:1], labels[:8], labels.repeat(2)),
        "labels must be whole numbers": (labels[:, None], labels.float(), torch.eye(3)[labels], labels - 1),
    }
    if name not in ("few_shot_accuracy", "fit_readouts"):  # whose classes are those of the labels
        wrong["the last class of the network; got 1 to 3"] = (labels + 1,)
    for message, cases in wrong.items():
        for case in cases:
            with pytest.raises(UsageError, match=message):
                call(name, data, network, painter, labels=case)


@pytest.mark.parametrize("name", NAMES)
def test_answers_that_are_not_finite_are_no_classes(name, data, network, painter):
    """The argmax of NaN is a class: without a check such a network is perfectly consistent."""
    broken = [deepcopy(model) for model in (network, painter)]
    for model in broken:
        next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(UsageError, match=r"are NaN or infinite for \d+ of \d+ images"):
        call(name, data, *broken)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
@pytest.mark.parametrize("name", NAMES)
def test_the_place_of_the_data_does_not_change_the_value(name, data, network, painter):
    same(call(name, data, network, painter, "cuda"), call(name, data, network, painter))


def test_the_draws_matter(data, network, painter):
    """Otherwise equal values would prove nothing."""
    for name in ("consistency", "one_pixel", "fidelity", "mask_equivariance_error", "corruption_error"):
        draws = [torch.Generator().manual_seed(seed) for seed in range(4)]
        values = [call(name, data, network, painter, generator=draw) for draw in draws]
        assert any(not torch.equal(values[0], other) for other in values[1:]), name
