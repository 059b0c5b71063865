"""Segmentation metrics against loops over pixels, and networks that commute with shifts or do not."""

import numpy as np
import pytest
import torch
from torch import nn

from aliasing.metrics.masks import MASK_SHIFTS, _draw_shifts, mask_consistency, mask_equivariance_error, mean_iou
from tests.toys import Answer, noise

# The channels of the image are the logits: every pixel for itself.
CHANNELS = Answer(lambda x: 5 * x)


def test_mean_iou_equals_a_loop_over_classes():
    images = noise(7, 3, 20, 24)
    masks = torch.randint(0, 4, (7, 20, 24), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    masks[masks == 3] = 255
    predicted = images.argmax(1)

    def slow(chosen):
        known = masks[chosen] != 255
        pairs = [(predicted[chosen][known] == c, masks[chosen][known] == c) for c in range(3)]
        return np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])

    found = mean_iou(CHANNELS, images, masks, batch_size=3)
    assert found.value == pytest.approx(slow(list(range(7))))
    left_out = np.array([slow([i for i in range(7) if i != k]) for k in range(7)])
    error = (6 * left_out.var()) ** 0.5
    assert found.high - found.value == pytest.approx(2.4469 * error, rel=1e-3)  # t quantile, 6 degrees of freedom
    assert mean_iou(CHANNELS, images, predicted).value == 1
    assert found.n == 7


@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("shift", MASK_SHIFTS)
def test_equals_a_comparison_pixel_by_pixel(shift, border):
    torch.manual_seed(0)
    model, images = nn.Conv2d(3, 3, 3, padding=1).double(), noise(4, 3, 9, 11)
    rows, columns = np.mgrid[:9, :11]
    same, apart = [], []
    for image, (dy, dx) in zip(images, _draw_shifts(4, 2, None).tolist(), strict=True):
        moved, to = torch.zeros_like(image), [rows + dy, columns + dx]
        seen = [(0, 8), (0, 10)]  # the first and last row and column that both views show
        if shift == "circular":
            to = [to[0] % 9, to[1] % 11]
        else:
            seen = [(max(0, -d), min(n - 1, n - 1 - d)) for n, d in ((9, dy), (11, dx))]
        there = np.logical_and(*((a <= x) & (x <= b) for x, (a, b) in zip((rows, columns), seen, strict=True)))
        moved[:, to[0][there], to[1][there]] = image[:, rows[there], columns[there]]
        inside = [(a + border <= x) & (x <= b - border) for x, (a, b) in zip((rows, columns), seen, strict=True)]
        there = np.logical_and(*inside)
        with torch.no_grad():
            first, second = (model(view[None])[0].softmax(0) for view in (image, moved))
        p, q = first[:, rows[there], columns[there]], second[:, to[0][there], to[1][there]]
        same.append((p.argmax(0) == q.argmax(0)).double().mean().item())
        apart.append((p - q).abs().sum(0).mean().item() / 2)
    options = {"shift": shift, "max_shift": 2, "border": border, "batch_size": 3}
    assert mask_consistency(model, images, **options).value == pytest.approx(np.mean(same), abs=1e-6)
    assert mask_equivariance_error(model, images, **options).value == pytest.approx(np.mean(apart), abs=1e-6)
    if not border and shift != "circular":
        assert sum(apart) > 0


def test_the_interval_of_mean_iou_covers():
    """Each image shows one class in a rectangle of its own size, hit in a share of its own; the means are known."""

    model = Answer(lambda x: nn.functional.one_hot(answer, 3).permute(0, 3, 1, 2).double())
    generator, found = np.random.default_rng(0), []
    for _ in range(400):
        masks = torch.from_numpy(np.repeat(generator.integers(0, 2, (40, 1, 1)), 12, 2))
        right = torch.from_numpy(generator.random((40, 1, 12)) < generator.beta(6, 2, (40, 1, 1)))
        answer = torch.where(right, masks, 2)  # the third class is never right
        found.append(mean_iou(model, torch.zeros(40, 3, 1, 12), masks))
    assert 0.92 <= np.mean([low <= 0.5 <= high for _, low, high, _ in found]) <= 0.98  # 0.75, 0.75 and 0


def test_shifts_are_uniform_without_the_centre():
    shifts = _draw_shifts(24000, 2, torch.Generator().manual_seed(0))
    counts = torch.bincount((shifts[:, 0] + 2) * 5 + shifts[:, 1] + 2, minlength=25)
    assert counts[12] == 0
    assert (counts[counts > 0] - 1000).abs().max() < 150
    assert (counts > 0).sum() == 24
