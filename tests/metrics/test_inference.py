"""How metrics run a network: modes, precision, batches, and that the device of the images does not matter."""

import numpy as np
import pytest
import torch
from torch import nn

from aliasing import metrics, models
from aliasing.inference import predict
from tests.toys import Answer, Custom

MEAN = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
POOLED = nn.Sequential(nn.MaxPool2d(2), MEAN, nn.Linear(3, 2))


def network():
    torch.manual_seed(0)
    return models.create("vgg-small", 4, "tri-3", padding_mode="circular", width=4)


def pictures(n=5):
    return torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_predict_equals_one_pass_and_leaves_modes_and_gradients_alone():
    model = network().train()
    next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d)).eval()
    modes = [part.training for part in model.modules()]
    statistics = [buffer.clone() for buffer in model.buffers()]
    result = predict(model, pictures(), 2)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.buffers(), strict=True))
    torch.testing.assert_close(result, model.eval()(pictures().float() / 255).detach())
    assert torch.is_grad_enabled() and not result.requires_grad


def test_modes_come_back_after_an_error():
    def broken(net, x):
        assert not net.training and torch.backends.cudnn.conv.fp32_precision == "ieee"
        raise KeyError

    model, precision = nn.Sequential(Custom(broken)).train(), torch.backends.cudnn.conv.fp32_precision
    with pytest.raises(KeyError):
        predict(model, pictures())
    assert all(part.training for part in model.modules())
    assert torch.backends.cudnn.conv.fp32_precision == precision != "ieee"


class Merging(nn.Identity):
    """As layers that merge their weights to be evaluated."""

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)


def test_what_evaluation_does_to_a_layer_is_undone_where_it_was_in_training():
    model = nn.Sequential(MEAN, Merging(), nn.Sequential(Merging().eval(), Merging())).train()
    model[2].eval()[1].train()
    for _ in range(2):
        predict(model, pictures())
        assert [part.training for part in model.modules()] == [True, True, True, True, True, False, False, True]
        assert [part.merged for part in model.modules() if isinstance(part, Merging)] == [False, True, False]


LABELLED = pictures(), torch.arange(5) % 3
MEASURED = {
    "predict": lambda n: predict(MEAN, pictures(), n),
    "consistency": lambda n: metrics.consistency(MEAN, pictures(), batch_size=n),
    "one pixel": lambda n: metrics.one_pixel(MEAN, pictures(), pairs=n, batch_size=n).images,
    "rolls": lambda n: metrics.roll_predictions(MEAN, pictures(), max_shift=n, batch_size=n).classes,
    "masks": lambda n: metrics.mean_iou(nn.ReLU(), pictures(), pictures()[:, 0] % 3, batch_size=n),
    "mask shifts": lambda n: metrics.mask_consistency(nn.ReLU(), pictures(), max_shift=n, batch_size=n),
    "sweep": lambda n: metrics.non_shiftability(POOLED, pictures(), batch_size=n)["0"],
    "corruptions": lambda n: metrics.corruption_error(MEAN, *LABELLED, ["fog"], [n], batch_size=n).wrong,
    "typicality": lambda n: metrics.typicality(POOLED, pictures(), pictures(), n, batch_size=n),
}


@pytest.mark.parametrize("measure", MEASURED.values(), ids=MEASURED)
def test_whole_numbers_may_be_numpys(measure):
    torch.testing.assert_close(measure(np.int64(2)), measure(2), rtol=0, atol=0)


def test_probabilities_of_a_network_in_half_precision_are_those_of_its_logits():
    """Logits that differ by one bit became equal probabilities, of which the first counted; others were 1."""
    logits = torch.tensor([[0.01, 0.01005, 0.0, -5.0], [20.0, 15.0, 16.0, 14.0]], dtype=torch.bfloat16)
    model = Answer(lambda x: logits[(x.mean((1, 2, 3)) > 0.5).long()])
    images = torch.stack([torch.full((3, 8, 8), value) for value in (0.2, 0.8)])
    assert metrics.one_pixel(model, images, "circular").answers.tolist() == [1, 0]
    expected = logits.double().softmax(1)[[0, 1], [1, 0]]
    found = metrics.roll_predictions(model, images, torch.tensor([1, 0])).probability
    torch.testing.assert_close(found, expected.float()[:, None, None].expand(2, 8, 8))


def test_close_logits_do_not_tie_as_probabilities():
    logits = torch.tensor([[1e-8, 2e-8, 0.0]])
    model = Answer(lambda x: logits.expand(len(x), -1))
    found = metrics.one_pixel(model, pictures(), "circular", labels=torch.ones(5, dtype=torch.long))
    assert found.answers.tolist() == predict(model, pictures()).argmax(1).tolist() == [1] * 5
    assert found.accuracy.value == 1


def test_one_logit_means_two_classes():
    images = pictures(8)
    model = Answer(lambda x: 20 * x.mean((1, 2, 3))[:, None] - 10)
    two = Answer(lambda x: torch.cat([torch.zeros(len(x), 1), model(x)], 1))
    assert predict(model, images).equal(predict(two, images))
    assert metrics.consistency(model, images, "sub-pixel") == metrics.consistency(two, images, "sub-pixel")
    labels = predict(two, images).argmax(1)
    attacked = [metrics.attack_accuracy(either, images, labels, "fgsm", 0.01) for either in (model, two)]
    assert attacked[0] == attacked[1]
