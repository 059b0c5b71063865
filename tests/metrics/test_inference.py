"""How metrics run a network: modes, precision, batches, and that the device of the images does not matter."""

import pytest
import torch
from torch import nn

from aliasing import metrics, models
from aliasing.errors import UsageError
from aliasing.metrics.inference import batches, predict


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.create("vgg-small", 4, "tri-3", padding_mode="circular", width=4)


def pictures(n=5):
    return torch.randint(256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_predict_equals_one_pass_and_leaves_modes_and_gradients_alone():
    model = network().train()
    next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d)).eval()
    modes = [part.training for part in model.modules()]
    statistics = [buffer.clone() for buffer in model.buffers()]
    results = [predict(model, pictures(), size) for size in (1, 2, 256)]
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.buffers(), strict=True))
    expected = model.eval()(pictures().float() / 255)
    for result in results:
        assert not result.requires_grad
        torch.testing.assert_close(result, expected.detach())
    assert torch.is_grad_enabled()


def test_modes_come_back_after_an_error():
    class Broken(nn.Module):
        def forward(self, x):
            assert not self.training
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            raise KeyError

    model, precision = nn.Sequential(Broken()).train(), torch.backends.cudnn.conv.fp32_precision
    with pytest.raises(KeyError):
        predict(model, pictures())
    assert all(part.training for part in model.modules())
    assert torch.backends.cudnn.conv.fp32_precision == precision != "ieee"


def test_batches_take_the_precision_of_the_network():
    parts = list(batches(network().double(), pictures(), 2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert {part.dtype for part in parts} == {torch.float64}
    torch.testing.assert_close(torch.cat(parts), pictures().double() / 255, atol=1e-7, rtol=0)
    assert next(batches(nn.Identity(), pictures())).dtype == torch.float32


@pytest.mark.parametrize(
    "images", [torch.zeros(0, 3, 4, 4), torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.long), None]
)
def test_refuses_what_is_no_batch_of_images(images):
    with pytest.raises(UsageError):
        predict(network(), pictures() if images is None else images, 0 if images is None else 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_does_not_change_the_values():
    images, labels = pictures(20), torch.arange(20) % 4

    def measure(model, images, labels):
        return [
            metrics.consistency(model, images, exhaustive=True).value,
            metrics.consistency(model, images, "sub-pixel").value,
            metrics.fidelity(model, images, labels, "standard").product.value,
            metrics.one_pixel(model, images, "inpainting").mean_absolute_change.value,
            *(estimate.value for estimate in metrics.alias_energy(model, images).values()),
            *(bias.nearest.value for bias in metrics.max_sampling_bias(model, images).values()),
        ]

    here = measure(network(), images, labels)
    there = measure(network().cuda(), images.cuda(), labels.cuda())
    mixed = measure(network().cuda(), images, labels)
    assert there == pytest.approx(here, abs=1e-3)
    assert mixed == pytest.approx(here, abs=1e-3)
