"""Segmentation metrics against loops over pixels, and networks that commute with shifts or do not."""

import numpy as np
import pytest
import torch
from torch import nn

from aliasing.metrics.masks import (
    MASK_SHIFTS,
    _draw_shifts,
    mask_consistency,
    mask_equivariance_error,
    mean_iou,
)

torch.set_num_threads(1)


class Channels(nn.Module):
    """The channels of the image are the logits: every pixel for itself, hence equivariant to every shift."""

    def forward(self, images):
        return 5 * images


def pictures(n=6, height=20, width=24, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_mean_iou_equals_a_loop_over_pixels():
    images = pictures(7)
    masks = torch.randint(0, 4, (7, 20, 24), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    masks[masks == 3] = 255
    predicted = images.argmax(1)

    def slow(chosen):
        ious = []
        for c in range(3):
            pairs = [
                (p, m)
                for i in chosen
                for p, m in zip(predicted[i].flatten().tolist(), masks[i].flatten().tolist(), strict=True)
                if m != 255
            ]
            both = sum(p == c and m == c for p, m in pairs)
            either = sum(p == c or m == c for p, m in pairs)
            ious.append(both / either)
        return sum(ious) / 3

    found = mean_iou(Channels(), images, masks, batch_size=3)
    assert found.value == pytest.approx(slow(range(7)))
    left_out = torch.tensor([slow([i for i in range(7) if i != k]) for k in range(7)])
    error = (6 / 7 * (left_out - left_out.mean()).square().sum()).sqrt().item()
    assert found.high - found.value == pytest.approx(2.4469 * error, rel=1e-3)  # t quantile, 6 degrees of freedom
    assert mean_iou(Channels(), images, predicted).value == 1
    assert found.n == 7


@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("shift", MASK_SHIFTS)
def test_equals_a_loop_over_pixels_of_the_scene(shift, border):
    torch.manual_seed(0)
    model, images, reach = nn.Conv2d(3, 3, 3, padding=1).double(), pictures(4, 9, 11).double(), 2
    same, apart = [], []
    for image, (dy, dx) in zip(images, _draw_shifts(4, reach, None).tolist(), strict=True):
        # Where each of two views lies in the scene; what lies outside of it is black, or wraps around.
        size = (9, 11)
        views = [torch.zeros(3, *size, dtype=torch.float64) for _ in range(2)]
        for view, (top, left) in zip(views, [(0, 0), (-dy, -dx)], strict=True):
            for i in range(size[0]):
                for j in range(size[1]):
                    y, x = top + i, left + j
                    if shift == "circular":
                        view[:, i, j] = image[:, y % 9, x % 11]
                    elif 0 <= y < 9 and 0 <= x < 11:
                        view[:, i, j] = image[:, y, x]
        with torch.no_grad():
            first, second = (model(view[None])[0].softmax(0) for view in views)
        hits, gaps = [], []
        rows, columns = (
            range(border, n - border) if shift == "circular" else range(max(-d, 0) + border, n - max(d, 0) - border)
            for n, d in zip(size, (dy, dx), strict=True)
        )
        for i in rows:
            for j in columns:
                p, q = first[:, i, j].tolist(), second[:, (i + dy) % size[0], (j + dx) % size[1]].tolist()
                hits.append(p.index(max(p)) == q.index(max(q)))
                gaps.append(sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2)
        same.append(sum(hits) / len(hits))
        apart.append(sum(gaps) / len(gaps))
    options = {"shift": shift, "max_shift": reach, "border": border, "batch_size": 3}
    assert mask_consistency(model, images, **options).value == pytest.approx(sum(same) / 4, abs=1e-6)
    assert mask_equivariance_error(model, images, **options).value == pytest.approx(sum(apart) / 4, abs=1e-6)
    if not border and shift != "circular":
        assert sum(apart) > 0


def test_the_interval_of_mean_iou_covers():
    """Each image shows one class in a rectangle of its own size, hit in a share of its own; the means are known."""

    class Drawn(nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(self.answer, 3).permute(0, 3, 1, 2).double()

    generator, model, found = np.random.default_rng(0), Drawn(), []
    for _ in range(400):
        masks = torch.from_numpy(np.repeat(generator.integers(0, 2, (40, 1, 1)), 12, 2))
        right = torch.from_numpy(generator.random((40, 1, 12)) < generator.beta(6, 2, (40, 1, 1)))
        model.answer = torch.where(right, masks, 2)  # the third class is never right
        found.append(mean_iou(model, torch.zeros(40, 3, 1, 12), masks))
    assert 0.92 <= np.mean([low <= 0.5 <= high for _, low, high, _ in found]) <= 0.98  # 0.75, 0.75 and 0


def test_border_hides_what_zero_padding_does():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 5, padding=2)
    images = pictures()
    assert mask_equivariance_error(model, images, shift="standard", max_shift=4).value > 1e-4
    assert mask_equivariance_error(model, images, shift="standard", max_shift=4, border=2).value < 1e-6
    assert mask_consistency(model, images, shift="standard", max_shift=4, border=2).value == 1


def test_shifts_are_uniform_without_the_centre():
    shifts = _draw_shifts(24000, 2, torch.Generator().manual_seed(0))
    counts = torch.bincount((shifts[:, 0] + 2) * 5 + shifts[:, 1] + 2, minlength=25)
    assert counts[12] == 0
    assert (counts[counts > 0] - 1000).abs().max() < 150
    assert (counts > 0).sum() == 24
