"""Consistency, fidelity and what all rolls tell: against loops, and for networks whose answer is known by hand."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from aliasing import metrics
from aliasing.metrics import draw_shifts, shift_images
from aliasing.metrics.rolls import RollPredictions, accuracy_by_distance, agreement_per_image, variation_per_image
from tests.toys import Answer, noise


def random_network():
    torch.manual_seed(1)
    conv, head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(128, 4)
    return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head).double()


@pytest.mark.parametrize("shift", ["circular", "standard", "crop", "sub-pixel"])
def test_sampled_equals_a_loop_over_single_images(shift):
    """And over those that are right about the middle, if there are labels."""
    model, images, labels = random_network(), noise(30, 3, *[12 if shift == "crop" else 8] * 2), torch.arange(30) % 4
    drawn = [*draw_shifts(shift, images, 2, 2, torch.Generator().manual_seed(9)), torch.zeros(30, 2).long()]
    agree, right = [], []
    with torch.no_grad():
        for index in range(30):
            one = images[[index]]
            first, second, middle = (model(shift_images(one, s[[index]], shift, 2)).argmax() for s in drawn)
            agree.append(bool(first == second))
            right.append(bool(middle == labels[index]))
    assert 3 < sum(agree) < 30 and 3 < sum(right) < 30
    for own, known in ((agree, None), ([a for a, hit in zip(agree, right, strict=True) if hit], labels)):
        generator = torch.Generator().manual_seed(9)
        found = metrics.consistency(model, images, shift, 2, labels=known, generator=generator, batch_size=7)
        assert found == metrics.Estimate.proportion(sum(own), len(own))


def test_fidelity_has_three_meanings():
    model, images = random_network(), noise(60, 3, 8, 8)
    labels = torch.arange(60) % 4
    generator = torch.Generator().manual_seed(2)
    result = metrics.fidelity(model, images, labels, max_shift=3, generator=generator)
    first, second = draw_shifts("circular", images, 2, 3, torch.Generator().manual_seed(2))
    with torch.no_grad():
        a, b, plain = (
            torch.tensor([model(x.roll(s, (1, 2))[None]).argmax() for x, s in zip(images, moves.tolist(), strict=True)])
            for moves in (first, second, torch.zeros_like(first))
        )
    accuracy, agreement = (plain == labels).double().mean().item(), (a == b).double().mean().item()
    assert result.accuracy.value == pytest.approx(accuracy)
    assert result.consistency.value == pytest.approx(agreement)
    assert result.product.value == pytest.approx(accuracy * agreement)
    assert result.joint.value == pytest.approx(((a == labels) & (b == labels)).double().mean().item())
    assert result.agreement3.value == pytest.approx(((a == b) & (a == plain)).double().mean().item())


def test_the_interval_of_the_product_covers():
    """Hard images are wrong and waver together: P(right) = 0.7 and P(agree) = 0.75 are not independent."""

    # The unshifted images, and two copies of them, as they were drawn: predictions come in that order.
    model = Answer(lambda x: nn.functional.one_hot(next(answers), 2).double())
    generator, products = np.random.default_rng(5), []
    for _ in range(400):
        easy = generator.random(120) < 0.5
        right, agree = (torch.from_numpy(generator.random(120) < low + 0.4 * easy) for low in (0.5, 0.55))
        second = torch.where(agree, ~right, right).long()
        answers = iter([(~right).long(), second, (~right).long()])
        products.append(metrics.fidelity(model, torch.zeros(120, 3, 2, 2), torch.zeros(120).long()).product)
    assert 0.92 <= np.mean([low <= 0.7 * 0.75 <= high for _, low, high, _ in products]) <= 0.98


def test_rows_and_columns_of_rolls_are_told_apart():
    # Right without a roll, and two columns to the right and back; wrong one row down.
    rolls = torch.arange(-1, 2), torch.arange(-2, 3)
    classes = torch.zeros(1, 3, 5, dtype=torch.int16)
    classes[:, 1] = 1
    predictions = RollPredictions(classes, None, torch.tensor([1]), rolls, "by hand")
    # Nearest first: one pixel, eight around it of which two are right, the two columns of distance 2: 2 of 6.
    curve = [estimate.value for estimate in accuracy_by_distance(predictions)[0]]
    assert curve == pytest.approx([1, 2 / 8, 2 / 6])
    # Only the middle roll is none: the corner of the table says wrong, and must not be asked.
    assert predictions.correct_unrolled.all()
    assert agreement_per_image(predictions) == pytest.approx((5 / 15) ** 2 + (10 / 15) ** 2)


def test_all_rolls_equal_loops():
    model, images, labels = random_network(), noise(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    predictions = metrics.roll_predictions(model, images, labels, batch_size=3)
    with torch.no_grad():
        logits = torch.stack([model(images.roll(roll, (2, 3))) for roll in product(range(8), repeat=2)], 1)
    top = logits.argmax(2)
    probability = logits.double().softmax(2)[torch.arange(5), :, labels]
    np.testing.assert_allclose(variation_per_image(predictions), probability.numpy().std(1), rtol=1e-4)
    pairs = torch.tensor([[a == b for a in one for b in one] for one in top.tolist()]).double()
    assert 0.3 < pairs.mean() < 0.99
    right = top[:, 0] == labels
    assert 0 < right.sum() < 5
    for kept, known in ((pairs, None), (pairs[right], labels)):
        found = metrics.consistency(model, images, exhaustive=True, labels=known)
        assert found == pytest.approx(metrics.Estimate.mean(kept.mean(1)))
    away = torch.tensor([max(min(a, 8 - a), min(b, 8 - b)) for a, b in product(range(8), repeat=2)])
    hit = (top == labels[:, None]).double()
    for n, (accuracy, worst) in enumerate(zip(*accuracy_by_distance(predictions), strict=True)):
        assert accuracy.value == pytest.approx(hit[:, away == n].mean().item())
        assert worst.value == pytest.approx(hit[:, away <= n].amin(1).mean().item())
    assert n == 4
