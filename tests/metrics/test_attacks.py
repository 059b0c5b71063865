"""Attacks against linear networks solved by hand, slow versions for one image, and the promises of the protocol."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aliasing.errors import UsageError
from aliasing.metrics.ascent import Ball, Problem, apgd, checkpoints
from aliasing.metrics.attacks import (
    ATTACKS,
    NORMS,
    attack_accuracy,
    attack_curve,
    attack_images,
    dlr_loss,
    perturb,
)
from aliasing.streams import image_seeds

torch.set_num_threads(1)


class Linear(nn.Module):
    """Logits ``images @ weight``; two classes differ by the direction ``weight[:, 1] - weight[:, 0]``."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        return images.flatten(1) @ self.weight


@pytest.fixture(scope="module")
def toy():
    """A small convolutional network with its own predictions as labels, so that every image starts out correct."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 6),
    ).eval()  # fmt: skip
    images = torch.rand(40, 3, 8, 8)
    with torch.no_grad():
        model[-1].weight *= 4
        labels = model(images).argmax(1)
    return model, images, labels


def cross_entropy(logits, labels, targets):
    return F.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd-ce"])
def test_linear_network_is_attacked_to_the_optimum(attack, norm):
    # Away from the box, the margin of a linear network falls by exactly eps times the dual norm of the weights.
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3 * 4 * 4, 2, generator=generator, dtype=torch.float64)
    images = 0.4 + 0.2 * torch.rand(60, 3, 4, 4, generator=generator, dtype=torch.float64)
    model = Linear(weight)
    logits = model(images).detach()
    labels = logits.argmax(1)
    labels[:5] = 1 - labels[:5]  # five are misclassified from the start
    direction = weight[:, 1] - weight[:, 0]
    dual = direction.abs().sum() if norm == "linf" else direction.norm()
    margin = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1)
    eps = (margin.sort().values[30:32].mean() / dual).item()
    expected = (margin > eps * dual).double().mean().item()
    assert 0.2 < expected < 0.8
    estimate = attack_accuracy(model, images, labels, attack, eps, norm)
    assert estimate.value == pytest.approx(expected)
    assert estimate.n == 60


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_images_stay_in_the_ball_and_the_box(toy, attack, norm):
    model, images, labels = toy
    images = images.round()  # at the faces of the box, where clipping matters
    labels = model(images).argmax(1)
    eps = 0.3 if norm == "linf" else 3.0
    found, broken = attack_images(model, images, labels, attack, eps, norm, steps=8)
    away = (found - images).flatten(1)
    assert broken.any()
    assert found.min() >= 0
    assert found.max() <= 1
    assert away.norm(dim=1, p=float("inf") if norm == "linf" else 2).max() <= eps + 1e-6
    assert (model(found).argmax(1) != labels).equal(broken)
    assert away[~broken].eq(0).all()


def test_misclassified_images_are_left_alone(toy):
    model, images, labels = toy
    labels = labels.clone()
    labels[::2] = (labels[::2] + 1) % 6
    found, broken = attack_images(model, images, labels, "pgd", 0.1)
    assert broken[::2].all()
    assert found[::2].equal(images[::2])
    assert attack_accuracy(model, images, labels, "pgd", 0.0).value == 0.5


@pytest.mark.parametrize("norm", NORMS)
def test_stronger_attacks_leave_less(toy, norm):
    model, images, labels = toy
    eps = 0.02 if norm == "linf" else 0.15
    left = {
        name: attack_accuracy(model, images, labels, name, eps, norm, steps=40 if name != "fgsm" else None).value
        for name in ATTACKS
    }
    assert left["apgd-ce"] <= left["pgd"] <= left["fgsm"] < 1
    assert left["worst-of"] <= min(left["apgd-ce"], left["apgd-t"])
    assert left["worst-of"] > 0


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_equals_a_loop_over_single_images(toy, norm):
    model, images, labels = toy
    eps, size, steps = (0.02, 0.006, 6) if norm == "linf" else (0.15, 0.05, 6)
    seeds = image_seeds(len(images), torch.Generator().manual_seed(5))
    found, broken = attack_images(model, images, labels, "pgd", eps, norm, steps, step_size=size, seeds=seeds)
    for i, seed in enumerate(seeds.tolist()):
        stream = torch.Generator().manual_seed(seed)
        if norm == "linf":
            delta = (torch.rand(3, 8, 8, generator=stream) * 2 - 1) * eps
        else:
            delta = torch.randn(3, 8, 8, generator=stream)
            delta = delta / delta.norm() * eps
        x = (images[i] + delta).clamp(0, 1)
        for step in range(steps + 1):
            x.requires_grad_()
            logits = model(x[None])[0]
            if logits.argmax() != labels[i] or step == steps:
                break
            (-logits.log_softmax(0)[labels[i]]).backward()
            move = x.grad.sign() if norm == "linf" else x.grad / x.grad.norm()
            delta = x.detach() + size * move - images[i]
            if norm == "linf":
                delta = delta.clamp(-eps, eps)
            elif delta.norm() > eps:
                delta = delta * eps / delta.norm()
            x = (images[i] + delta).clamp(0, 1)
        assert (logits.argmax() != labels[i]) == broken[i]
        torch.testing.assert_close(found[i], x.detach() if broken[i] else images[i], atol=1e-5, rtol=0)
    assert 0 < broken.sum() < len(images)
    model.zero_grad()


def test_fgsm_equals_a_loop_over_single_images(toy):
    model, images, labels = toy
    found, broken = attack_images(model, images, labels, "fgsm", 0.02)
    for image, label, ours, hit in zip(images, labels, found, broken, strict=True):
        x = image.clone().requires_grad_()
        (slope,) = torch.autograd.grad(-model(x[None])[0].log_softmax(0)[label], x)
        moved = (image + 0.02 * slope.sign()).clamp(0, 1)
        assert (model(moved[None]).argmax() != label) == hit
        torch.testing.assert_close(ours, moved if hit else image)
    assert 0 < broken.sum() < len(images)


def test_eps_sweep_of_a_linear_network_by_hand():
    """Each image falls at its margin over the dual norm of the weights, and is not attacked any more."""
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
    curve = attack_curve(Linear(weight), images, labels, (0.0, *eps), "pgd")
    assert [estimate.value for estimate in curve.values()] == [36 / 40, 30 / 40, 20 / 40, 10 / 40]


def slow_apgd(model, image, label, x, eps, steps, loss_of=None, norm="linf"):
    """Auto-PGD for one image, written out step by step."""
    loss_of = loss_of or (lambda logits: F.cross_entropy(logits[None], label[None]))

    def value_and_slope(x):
        x = x.clone().requires_grad_()
        logits = model(x[None])[0]
        loss = loss_of(logits)
        loss.backward()
        return loss.item(), x.grad.sign() if norm == "linf" else x.grad / x.grad.norm(), bool(logits.argmax() != label)

    def inside(x):
        if norm == "linf":
            return torch.minimum(torch.maximum(x, image - eps), image + eps).clamp(0, 1)
        return (image + (x - image) * min(1.0, eps / max((x - image).norm().item(), 1e-12))).clamp(0, 1)

    trace = [x]
    losses, slope, wrong = [], None, False
    loss, slope, wrong = value_and_slope(x)
    losses.append(loss)
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
        losses.append(loss)
    return x, wrong, size


def test_apgd_equals_a_loop_over_single_images(toy):
    model, images, labels = toy
    ball, steps = Ball(0.015, "linf"), 20
    start = ball.random_point(images, image_seeds(len(images)), 0, stretch=True)
    torch.testing.assert_close((start - images).abs().amax((1, 2, 3)), torch.full((40,), 0.015), atol=2e-3, rtol=0)
    points, broken = apgd(Problem(model, images, labels, labels, cross_entropy, ball), start, steps)
    sizes = set()
    for i in range(len(images)):
        point, wrong, size = slow_apgd(model, images[i], labels[i], start[i], 0.015, steps)
        assert wrong == broken[i]
        torch.testing.assert_close(points[i], point, atol=1e-5, rtol=0)
        sizes.add(size)
    assert 0 < broken.sum() < len(images)
    assert len(sizes) > 2  # steps were halved, and not for all images alike
    model.zero_grad()


class Peak(nn.Module):
    """A loss that rises gently with the mean of the image, but for a narrow peak; the class never changes."""

    def forward(self, images):
        mean = images.flatten(1).mean(1)
        loss = mean + 3 * torch.exp(-(((mean - 0.12) / 0.01) ** 2))
        return torch.stack([torch.full_like(loss, 9), loss], 1)


def test_apgd_halves_its_step_when_it_rises_without_reaching_the_best_point():
    """Away from the peak nearly every step rises, so that the two reasons to halve, and their memory, come apart."""
    images, labels = torch.full((10, 3, 1, 1), 0.5, dtype=torch.float64), torch.zeros(10, dtype=torch.long)
    start = images - 0.38 + torch.linspace(-0.01, 0.01, 10, dtype=torch.float64)[:, None, None, None]
    problem = Problem(Peak(), images, labels, labels, cross_entropy, Ball(0.4, "linf"))
    points, broken = apgd(problem, start, 100)
    slow = [slow_apgd(Peak(), image, labels[0], x, 0.4, 100)[0] for image, x in zip(images, start, strict=True)]
    assert not broken.any()
    torch.testing.assert_close(points, torch.stack(slow), atol=1e-9, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_and_worst_of_equal_a_loop_over_images_and_targets(toy, norm):
    model, images, labels = toy
    images, labels, seeds = images[:14], labels[:14], image_seeds(14)
    ball, steps = Ball(0.04 if norm == "linf" else 0.45, norm), 8
    plain = [ball.random_point(images, seeds, start, stretch=True) for start in range(6)]
    untargeted, targeted = [], []
    for i, label in enumerate(labels):

        def reaches(start, loss_of, i=i, label=label):
            x = plain[start][i]
            return slow_apgd(model, images[i], label, x, ball.eps, steps, loss_of, norm)[1]

        def towards(target, label=label):
            def ratio(logits):
                a, _, c, d = logits.sort(descending=True).values[:4]
                return (logits[target] - logits[label]) / (a - (c + d) / 2 + 1e-12)

            return ratio

        untargeted.append(reaches(0, None))
        ranks = [c for c in model(images[i : i + 1])[0].argsort(descending=True).tolist() if c != label]
        targeted.append(any(reaches(1 + rank, towards(target)) for rank, target in enumerate(ranks)))
    both = [a or b for a, b in zip(untargeted, targeted, strict=True)]
    for attack, expected in (("apgd-ce", untargeted), ("apgd-t", targeted), ("worst-of", both)):
        broken = attack_images(model, images, labels, attack, ball.eps, norm, steps, seeds=seeds)[1]
        assert broken.tolist() == expected, attack
        assert 0 < sum(expected) < 14
    model.zero_grad()


def test_checkpoints_are_the_published_ones():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("attack", ATTACKS)
def test_values_do_not_depend_on_batch_size_or_global_generator(toy, attack):
    model, images, labels = toy
    values = set()
    for batch_size in (7, 40):
        torch.manual_seed(batch_size)
        before = torch.get_rng_state()
        values.add(attack_accuracy(model, images, labels, attack, 0.015, steps=5, batch_size=batch_size))
        assert torch.get_rng_state().equal(before)
    assert len(values) == 1


def test_restarts_only_ever_break_more(toy):
    model, images, labels = toy
    one = attack_images(model, images, labels, "pgd", 0.03, steps=3, step_size=0.004)[1]
    five = attack_images(model, images, labels, "pgd", 0.03, steps=3, step_size=0.004, restarts=9)[1]
    assert (five | ~one).all()
    assert five.sum() > one.sum()


def test_curve_falls_and_starts_at_clean_accuracy(toy):
    model, images, labels = toy
    labels = labels.clone()
    labels[:4] = (labels[:4] + 1) % 6
    bytes_ = (images * 255).round().to(torch.uint8)
    curve = attack_curve(model, bytes_, labels, (0.05, 0.0, 0.01), "pgd", steps=5)
    clean = (model(bytes_ / 255).argmax(1) == labels).float().mean().item()
    assert list(curve) == [0.0, 0.01, 0.05]
    values = [estimate.value for estimate in curve.values()]
    assert values[0] == pytest.approx(clean)
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_network_is_left_as_it_was(toy):
    model, images, labels = toy
    model.train()
    model[3].eval()
    attack_accuracy(model, images, labels, "apgd-t", 0.01, steps=3)
    assert model.training
    assert not model[3].training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model.eval()


def test_dlr_of_logits_worked_by_hand():
    logits = torch.tensor([[5.0, 3.0, 1.0, -1.0], [2.0, 6.0, 4.0, 0.0]])
    labels = torch.tensor([0, 0])
    # (3 - 5) / (5 - 1) and (6 - 2) / (6 - 2)
    torch.testing.assert_close(dlr_loss(logits, labels), torch.tensor([-0.5, 1.0]))
    # towards class 2: (1 - 5) / (5 - (1 - 1) / 2) and (4 - 2) / (6 - (2 + 0) / 2)
    torch.testing.assert_close(dlr_loss(logits, labels, torch.tensor([2, 2])), torch.tensor([-0.8, 0.4]))
    torch.testing.assert_close(dlr_loss(7 * logits + 3, labels), dlr_loss(logits, labels))


def test_targeted_dlr_tries_every_wrong_class():
    # Class 3 wins over class 0 after a small step of pixel 0, although classes 1 and 2 rank above it on the image.
    weight = torch.zeros(3, 4)
    weight[0] = torch.tensor([1.0, 0.8, 0.7, 2.0])
    weight[1] = torch.tensor([1.0, 1.0, 1.0, 0.2])
    model, image = Linear(weight), torch.tensor([0.5, 0.5, 0.5])[None, :, None, None]
    assert model(image).argsort(descending=True)[0].tolist() == [3, 0, 1, 2]
    assert attack_accuracy(model, image, torch.tensor([3]), "apgd-t", 0.05).value == 1
    assert attack_accuracy(model, image, torch.tensor([3]), "apgd-t", 0.2).value == 0


def test_training_perturbation_on_a_linear_network():
    weight = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [2.0, 0.0]])
    images = torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 0.5]])[:, :, None, None]
    found = perturb(Linear(weight), images, torch.tensor([0, 1]), torch.Generator().manual_seed(0), 0.1, 10.0)
    # A large step ends in the corner of the ball that hurts the label most, within the box.
    expected = torch.tensor([[0.4, 0.6, 0.4], [0.1, 0.9, 0.6]])[:, :, None, None]
    torch.testing.assert_close(found, expected)
    small = perturb(Linear(weight), images, torch.tensor([0, 1]), torch.Generator().manual_seed(0), 0.1, 0.0)
    noise = torch.rand(2, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1
    torch.testing.assert_close(small, (images + noise).clamp(0, 1))


def test_bad_input_is_named(toy):
    model, images, labels = toy
    with pytest.raises(UsageError, match=r"unknown attack 'pdg'.*Did you mean 'pgd'"):
        attack_accuracy(model, images, labels, "pdg")
    with pytest.raises(UsageError, match="unknown norm"):
        attack_accuracy(model, images, labels, norm="l1")
    with pytest.raises(UsageError, match="eps must be >= 0"):
        attack_accuracy(model, images, labels, eps=-1.0)
    with pytest.raises(UsageError, match="one label per image"):
        attack_accuracy(model, images, labels[:3])
    with pytest.raises(UsageError, match="at least one eps"):
        attack_curve(model, images, labels, ())
    with pytest.raises(UsageError, match="at least 4 classes, got 2"):
        attack_accuracy(Linear(torch.randn(192, 2)), images, torch.zeros(40, dtype=torch.long), "apgd-t")


@pytest.mark.parametrize("attack", ["pgd", "apgd-ce"])
def test_random_starts_stay_with_their_images(toy, attack):
    model, images, labels = toy
    seeds = image_seeds(len(images))
    wrong = labels.clone()
    wrong[::2] = (wrong[::2] + 1) % 6  # every other image is broken from the start and not attacked
    found, _ = attack_images(model, images, wrong, attack, 0.02, steps=2, seeds=seeds)
    alone, _ = attack_images(model, images[1::2], labels[1::2], attack, 0.02, steps=2, seeds=seeds[1::2])
    assert not alone.equal(images[1::2])
    torch.testing.assert_close(found[1::2], alone)
