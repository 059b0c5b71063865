"""Attacks against linear networks solved by hand, slow versions for one image, and the promises of the protocol."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aliasing.adversary import ATTACKS, Problem, apgd, checkpoints, survivors
from aliasing.errors import UsageError
from aliasing.metrics import attack_accuracy, attack_images, perturb
from aliasing.streams import image_seeds
from tests.toys import Answer


def linear(weight):
    """Logits ``images @ weight``; two classes differ by the direction ``weight[:, 1] - weight[:, 0]``."""
    layer = nn.Linear(*weight.shape, bias=False)
    layer.weight = nn.Parameter(weight.T.clone())
    return nn.Sequential(nn.Flatten(), layer)


@pytest.fixture(scope="module")
def toy():
    """A small convolutional network with its own predictions as labels, so that every image starts out correct.

    In float64: signs of the gradient are compared, which in float32 depend on the processor where it is nearly zero.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 6),
    ).double().eval()  # fmt: skip
    images = torch.rand(40, 3, 8, 8).double()
    images[::2] = images[::2].round()  # at the faces of the box, where clipping matters
    with torch.no_grad():
        model[-1].weight *= 4
        labels = model(images).argmax(1)
    return model, images, labels


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_equals_a_loop_over_single_images(toy, name):
    """Those that are misclassified from the beginning are left alone."""
    model, images, labels = toy
    wrong = torch.arange(40) % 4 == 0
    labels = (labels + wrong) % 6
    eps, size, steps = (0.024, 0.024, 1) if name == "fgsm" else (0.024, 0.006, 6)
    seeds = image_seeds(len(images), torch.Generator().manual_seed(5))
    found, broken = attack_images(model, images, labels, name, eps, steps, seeds)
    for i, seed in enumerate(seeds.tolist()):
        noise = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed))
        delta = 0 * noise if name == "fgsm" or wrong[i] else (noise * 2 - 1) * eps
        x = (images[i] + delta).clamp(0, 1)
        for step in range(steps + 1):
            x.requires_grad_()
            logits = model(x[None])[0]
            if logits.argmax() != labels[i] or step == steps:
                break
            (-logits.log_softmax(0)[labels[i]]).backward()
            delta = (x.detach() + size * x.grad.sign() - images[i]).clamp(-eps, eps)
            x = (images[i] + delta).clamp(0, 1)
        assert (logits.argmax() != labels[i]) == broken[i]
        torch.testing.assert_close(found[i], x.detach() if broken[i] else images[i], atol=1e-5, rtol=0)
    assert broken[wrong].all() and 0 < broken[~wrong].sum() < 30
    model.zero_grad()


@pytest.mark.parametrize("attack", ATTACKS)
def test_eps_sweep_of_a_linear_network_by_hand(attack):
    """Away from the box each image falls exactly at its margin over the l1 norm of the weights."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3 * 4 * 4, 2, generator=generator, dtype=torch.float64)
    images = 0.4 + 0.2 * torch.rand(40, 3, 4, 4, generator=generator, dtype=torch.float64)
    logits = images.flatten(1) @ weight
    labels = logits.argmax(1)
    labels[:4] = 1 - labels[:4]
    direction = weight[:, 1] - weight[:, 0]
    radii = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1) / direction.abs().sum()
    ordered = radii.sort().values
    eps = [(ordered[k : k + 2].mean()).item() for k in (9, 19, 29)]
    alive = survivors(linear(weight), images, labels, (*eps[::-1], 0.0), attack)
    assert {radius: int(hits.sum()) for radius, hits in alive.items()} == dict(
        zip((0.0, *eps), (36, 30, 20, 10), strict=True)
    )


def slow_apgd(model, image, label, x, eps, steps):
    """Auto-PGD for one image, written out step by step."""

    def value_and_slope(x):
        x = x.clone().requires_grad_()
        logits = model(x[None])[0]
        loss = F.cross_entropy(logits[None], label[None])
        loss.backward()
        return loss.item(), x.grad.sign(), bool(logits.argmax() != label)

    def inside(x):
        return torch.minimum(torch.maximum(x, image - eps), image + eps).clamp(0, 1)

    trace = [x]
    loss, slope, wrong = value_and_slope(x)
    best = (loss, x, slope)
    size, last, best_then, halved = 2 * eps, 0, loss, False
    risen = []
    for k in range(1, steps + 1):
        if wrong:
            break
        z = inside(x + size * slope)
        new = z if k == 1 else inside(x + 0.75 * (z - x) + 0.25 * (x - trace[-2]))
        new_loss, slope, wrong = value_and_slope(new)
        risen.append(new_loss > loss)
        x, loss = new, new_loss
        if loss > best[0]:
            best = (loss, x, slope)
        if k in checkpoints(steps) and not wrong:
            few = sum(risen[last:k]) <= 0.75 * (k - last)
            halved, best_then, last = few or (not halved and best[0] <= best_then), best[0], k
            if halved:
                size /= 2
                loss, x, slope = best
        trace.append(x)
    return x, wrong, size


def test_apgd_equals_a_loop_over_single_images(toy):
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]  # as published
    model, images, labels = toy
    problem, steps = Problem(model, images, labels, 0.015), 20
    start = problem.random_point(image_seeds(len(images)), touch=True)
    assert (start - images).abs().amax((1, 2, 3)).tolist() == pytest.approx([0.015] * 40, abs=2e-3)
    points, broken = apgd(problem, start, steps)
    sizes = set()
    for i in range(len(images)):
        point, wrong, size = slow_apgd(model, images[i], labels[i], start[i], 0.015, steps)
        assert wrong == broken[i]
        torch.testing.assert_close(points[i], point, atol=1e-9, rtol=0)
        sizes.add(size)
    assert 0 < broken.sum() < len(images)
    assert len(sizes) > 2  # steps were halved, and not for all images alike
    model.zero_grad()


def peak(images):
    """A loss that rises gently with the mean of the image, but for a narrow peak; the class never changes."""
    mean = images.flatten(1).mean(1)
    loss = mean + 3 * torch.exp(-(((mean - 0.12) / 0.01) ** 2))
    return torch.stack([torch.full_like(loss, 9), loss], 1)


def test_apgd_halves_its_step_when_it_rises_without_reaching_the_best_point():
    """Away from the peak nearly every step rises, so that the two reasons to halve, and their memory, come apart."""
    images, labels = torch.full((10, 3, 1, 1), 0.5, dtype=torch.float64), torch.zeros(10, dtype=torch.long)
    start = images - 0.38 + torch.linspace(-0.01, 0.01, 10, dtype=torch.float64)[:, None, None, None]
    problem = Problem(Answer(peak), images, labels, 0.4)
    points, broken = apgd(problem, start, 100)
    slow = [slow_apgd(Answer(peak), image, labels[0], x, 0.4, 100)[0] for image, x in zip(images, start, strict=True)]
    assert not broken.any()
    torch.testing.assert_close(points, torch.stack(slow), atol=1e-9, rtol=0)


def test_a_misclassified_point_at_a_checkpoint_is_the_result_though_its_loss_is_lower():
    def cliff(images):  # nine classes rise together; beyond it one of them is the answer, and eight are far away
        mean = images.mean((1, 2, 3))[:, None]
        rising = torch.cat([0 * mean, (mean - 1).expand(-1, 9)], 1)
        return torch.where(mean > 0.55, torch.tensor([0, 0.1, *[-9.0] * 8]), rising)

    image, label = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, dtype=torch.long)
    points, broken = apgd(Problem(Answer(cliff), image, label, 0.1), image, 1)
    assert broken.all() and points.flatten().tolist() == pytest.approx([0.6] * 12)


def test_training_perturbation_on_a_linear_network():
    weight = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [2.0, 0.0]])
    images, labels = torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 0.5]])[:, :, None, None], torch.tensor([0, 1])

    def perturbed(images, *sizes):
        return perturb(linear(weight), images, labels, torch.Generator().manual_seed(0), *sizes)

    # A large step ends in the corner of the ball that hurts the label most, within the box.
    expected = torch.tensor([[0.4, 0.6, 0.4], [0.1, 0.9, 0.6]])[:, :, None, None]
    torch.testing.assert_close(perturbed(images, 0.1, 10.0), expected)
    noise = torch.rand(2, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1
    torch.testing.assert_close(perturbed(images, 0.1, 0.0), (images + noise).clamp(0, 1))
    given = (255 * images).to(torch.uint8)  # bytes were a step of 8 / 255 in units of bytes, and all became white
    torch.testing.assert_close(perturbed(given), perturbed(given / 255))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_a_network_of_any_precision_is_attacked(toy, dtype):
    model, images, labels = toy
    model, images = deepcopy(model).to(dtype), images.float()
    for attack in ATTACKS:
        found, broken = attack_images(model, images, labels, attack, 0.05, 3)
        reference = attack_images(toy[0], images.double(), labels, attack, 0.05, 3)[1]
        assert found.dtype == torch.promote_types(dtype, torch.float32)
        assert (broken != reference).sum() <= 3  # of 40, at the boundary
    before = attack_accuracy(model, images, labels, "fgsm", 0.01)
    assert 0 < before.value < 1 and attack_accuracy(model.train(), images, labels, "fgsm", 0.01) == before
    start = perturb(model, images.to(dtype), labels, torch.Generator().manual_seed(0))
    assert start.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("when", ["clean", "attacked", "gradient"])
def test_numbers_that_are_not_finite_are_no_broken_images(toy, when):
    def odd(x):
        logits = toy[0](x)
        if when == "gradient":  # of the root of zero
            return logits + (x - x.detach()).sum((1, 2, 3)).sqrt()[:, None] * torch.tensor([0.0, 1, 0, 0, 0, 0])
        return logits.where((x == toy[1]).all() == (when == "attacked"), torch.nan)

    with pytest.raises(UsageError, match=r"(logits|gradients).* are NaN or infinite for 40 of 40 images"):
        attack_accuracy(Answer(odd), *toy[1:], "apgd-ce", 0.01)
