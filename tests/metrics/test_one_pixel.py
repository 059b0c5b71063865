"""One-pixel protocols: the pairs by hand, the measures against loops."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import signal, special, stats
from torch import nn

from aliasing import metrics
from aliasing.errors import UsageError
from aliasing.metrics.canvases import embed, inpaint, shrink
from aliasing.metrics.pixel_pairs import ONE_PIXEL, SIZES, one_pixel_pairs, size_pairs
from tests.toys import Answer


def pictures(n=4, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


def pairs_of(protocol, images, pairs=1, seed=1, batch_size=256):
    parts = list(one_pixel_pairs(images, protocol, pairs, torch.Generator().manual_seed(seed), batch_size))
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def box(image, background):
    """Rows and columns of what differs from the background: (top, bottom, left, right), ends included."""
    rows, columns = (image - background).abs().sum(0).nonzero().unbind(1)
    return [rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()]


@pytest.mark.parametrize(("size", "side"), [(32, 14), (224, 100)])
def test_embedding_moves_the_same_picture_by_one_diagonal_pixel(size, side):
    images = pictures(3, size)
    first, second = pairs_of("black", images, pairs=2)
    owners = torch.arange(3).repeat_interleave(2)
    small = shrink(images, side)
    corners = set()
    for index, owner in enumerate(owners.tolist()):
        top, bottom, left, right = box(first[index], 0)
        assert (bottom - top + 1, right - left + 1) == (side, side)
        torch.testing.assert_close(first[index, :, top : bottom + 1, left : right + 1], small[owner])
        assert box(second[index], 0) == [top + 1, bottom + 1, left + 1, right + 1]
        torch.testing.assert_close(second[index, :, 1:, 1:], first[index, :, :-1, :-1])
        corners.add((top, left))
    assert len(corners) > 3


def resized(image, size):
    """One image (3, h, w) to (3, *size), channel by channel, by Pillow."""
    channels = [Image.fromarray(channel.numpy()) for channel in image.contiguous()]
    channels = [part.resize(size[::-1], Image.Resampling.BILINEAR) for part in channels]
    return torch.from_numpy(np.stack(channels))


@pytest.mark.parametrize(("pairs", "margin"), [(1, 1), (3, 3)])  # of the shorter side: 28 * 10 / 224, and room for all
def test_crop_equals_a_loop_with_pillow(pairs, margin):
    images = pictures(4, 40)[:, :, :28]
    first, second = pairs_of("crop", images, pairs, seed=4)
    draws = torch.rand(4, pairs, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)[:, 0]
    sizes = set()
    for index, (area, aspect, down, right) in enumerate(draws.tolist()):
        pixels, ratio = (0.08 + 0.92 * area) * 28 * 40, 0.75 ** (1 - 2 * aspect)
        height, width = min(28, round((pixels / ratio) ** 0.5)), min(40, round((pixels * ratio) ** 0.5))
        top, left = int(down * (28 - height + 1)), int(right * (40 - width + 1))
        canvas = resized(images[index, :, top : top + height, left : left + width], (28 + margin, 40 + margin))
        for pair in range(pairs):
            for step, ours in ((0, first), (1, second)):
                at = pair + step
                expected = canvas[:, at : at + 28, at : at + 40]
                torch.testing.assert_close(ours[index * pairs + pair], expected, atol=1e-5, rtol=0)
        sizes.add((height, width))
    assert len(sizes) == 4


def test_scale_keeps_the_corner_and_adds_one_pixel():
    images = pictures(3)
    first, second = pairs_of("scale", images)
    for image, one, other in zip(images, first, second, strict=True):
        top, bottom, left, right = box(one, 0)
        assert box(other, 0) == [top, bottom + 1, left, right + 1]
        larger = nn.functional.interpolate(image[None], (15, 15), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(other[:, top : top + 15, left : left + 15], larger)


def published_inpainting(image, taps, allowed):
    """The algorithm as described, one image, with dense two-dimensional convolutions."""
    row = special.binom(taps - 1, np.arange(taps)) / 2 ** (taps - 1)
    blur = np.outer(row, row)
    image = image.copy()
    for _ in range(80):
        known = image.sum(0) != 0
        if (~known).sum() <= allowed:
            break
        weight = signal.convolve2d(known.astype(float), blur, mode="same")
        weight[weight == 0] = 1
        for channel in image:
            fill = signal.convolve2d(channel * known, blur, mode="same") / weight
            channel[~known] = fill[~known]
    return image


@pytest.mark.parametrize(("size", "taps"), [(32, 4), (112, 6)])
def test_inpainting_equals_the_published_algorithm(size, taps):
    small = pictures(2, size // 3).double()
    small[0, :, 2:4, 2:4] = 0  # truly black pixels are filled too
    canvas = embed(small, torch.tensor([[1, 2], [size // 2, size // 3]]), (size, size))
    ours = inpaint(canvas)
    allowed = 200 * size**2 / 224**2
    for image, filled in zip(canvas, ours, strict=True):
        np.testing.assert_allclose(filled, published_inpainting(image.numpy(), taps, allowed), atol=1e-12)
        assert (filled.sum(0) == 0).sum() <= allowed


def test_a_wide_canvas_is_filled_to_its_end_and_pictures_lie_inside():
    wide = embed(pictures(1, 8), torch.tensor([[0, 0]]), (8, 200), "inpainting")
    assert (wide.sum(1) == 0).sum() <= 200 * 8 * 200 / 224**2
    for corner in ([0, 1], [-1, 0]):
        with pytest.raises(UsageError, match="8 x 8 pixels reach beyond a canvas of 8 x 8"):
            embed(pictures(1, 8), torch.tensor([corner]), (8, 8))


def test_a_network_that_reads_one_pixel_by_hand():
    """Class 1 if the pixel (5, 5) is brighter than a half."""
    reader = Answer(lambda x: 4 * torch.stack([torch.full_like(x[:, 0, 5, 5], 0.5), x[:, 0, 5, 5]], 1))
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float()
    stripes = (torch.arange(32) % 2).float().expand(32, 32)
    images = torch.stack([board, stripes])[:, None].expand(2, 3, 32, 32)
    result = metrics.one_pixel(reader, images, "circular", pairs=4)
    # A diagonal step keeps the parity of row + column, and flips that of the column.
    assert result.images.tolist() == [0, 1] and result.top1_change[1:] == (0, 1, 2)
    gap = (torch.sigmoid(torch.tensor(2.0)) - torch.sigmoid(torch.tensor(-2.0))).item()
    assert result.mean_absolute_change.value == pytest.approx(gap / 2) and result.mean_absolute_change.n == 2
    assert result.moves.tolist() == pytest.approx([0, gap])
    assert metrics.top1_change(reader, images, "circular", pairs=4) == result.top1_change
    still = metrics.top1_change(reader, images[:1].expand(3, -1, -1, -1), "circular", pairs=4)
    low, high = stats.binomtest(0, 3).proportion_ci(method="wilson")  # of images, not of their pairs
    assert still == pytest.approx((0, low, high, 3), abs=1e-12)
    assert metrics.mean_absolute_change(reader, images, "circular", pairs=4) == result.mean_absolute_change


@pytest.mark.parametrize("protocol", ONE_PIXEL)
def test_measures_equal_a_loop(protocol):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 225, 4))
    nn.init.normal_(model[-1].weight)
    images, labels = pictures(20), torch.arange(20) % 4
    first, second = pairs_of(protocol, images, 2, seed=3)
    changes, moves, right = [], [], []
    with torch.no_grad():
        for one, other, owner in zip(first, second, range(40), strict=True):
            before, after = (model(x[None]).softmax(1)[0] for x in (one, other))
            top = int(before.argmax())
            changes.append(float(int(after.argmax()) != top))
            moves.append(abs(before[top] - after[top]).item())
            right.append(float(top == labels[owner // 2]))
    assert sum(changes) > 0
    result = metrics.one_pixel(model, images, protocol, labels, 2, torch.Generator().manual_seed(3), batch_size=3)
    assert result.top1_change.value == pytest.approx(np.mean(changes))
    assert result.mean_absolute_change.value == pytest.approx(np.mean(moves), rel=1e-5)
    assert result.accuracy.value == pytest.approx(np.mean(right))
    assert result.top1_change.n == 20
    assert all(part.shape == (20, 1, 32, 32) for part in pairs_of(protocol, images[:, :1]))  # grey stays grey


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (24, 16)])
def test_pairs_are_one_diagonal_pixel_apart(size, shape):
    first, second = size_pairs(0.9 * torch.rand(4, 3, *shape) + 0.1, size)
    assert first.shape == second.shape == (4, 3, *shape)
    if size > 1:
        assert torch.equal(first[:, :, :-1, :-1], second[:, :, 1:, 1:])
    else:
        assert torch.equal(first[:, :, 1:, 1:], second[:, :, :-1, :-1])


def test_an_embedded_picture_has_the_size_it_should_and_lies_near_the_middle():
    assert shrink(pictures(1, 40)[:, :, :20], 10).shape == (1, 3, 10, 20)
    first, _ = size_pairs(pictures(6), 1.6)
    for image in first:
        rows, columns = ((image > 0).any(0).any(axis).nonzero().flatten() for axis in (1, 0))
        for inside in (rows, columns):
            assert inside.max() - inside.min() + 1 == 20  # 32 / 1.6
            assert abs((inside.min() + inside.max()) / 2 - 15.5) <= 2


@pytest.mark.parametrize(("size", "kept"), [(1.0, 32), (0.25, 16)])
def test_the_kept_part_is_stretched_to_one_pixel_more_than_the_window(size, kept):
    images = ((torch.arange(32.0)[:, None] + torch.arange(32)) / 64).expand(6, 3, 32, 32)
    first, second = size_pairs(images, size)
    step = (second - first)[:, :, 8:24, 8:24]
    assert torch.allclose(step, torch.full_like(step, kept / 32 / 33), atol=1e-3)
    assert (len(first[:, 0, 0, 0].unique()) > 1) == (kept < 32)  # each image is cut elsewhere
