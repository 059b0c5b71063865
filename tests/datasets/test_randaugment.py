"""RandAugment: each operation against a case known by hand, and where the draws come from."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from aliasing.datasets.randaugment import OPERATIONS, randaugment


def pictures(count: int = 4, size: int = 12) -> torch.Tensor:
    return torch.randint(30, 200, (count, 3, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def apply(name: str, images: torch.Tensor, strength: float) -> torch.Tensor:
    strengths, places = torch.full((len(images), 1, 1, 1), strength), torch.full((len(images), 2), 0.5)
    return OPERATIONS[name](images.float(), strengths, places)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("autocontrast", ImageOps.autocontrast),
        ("invert", ImageOps.invert),
        ("posterize", lambda image: ImageOps.posterize(image, 6)),
        ("solarize", lambda image: ImageOps.solarize(image, 128)),
    ],
)
def test_colour_operations_agree_with_pillow(name, reference):
    images = pictures()
    ours = apply(name, images, 0.5)
    for picture, found in zip(images, ours, strict=True):
        expected = np.asarray(reference(Image.fromarray(picture.permute(1, 2, 0).numpy())), dtype=float)
        np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1.0)  # Pillow truncates


def test_equalize_gives_ranks():
    image = torch.tensor([[10, 20], [30, 40]]).expand(1, 3, 2, 2)
    assert apply("equalize", image, 0.0)[0, 0].tolist() == [[0, 85], [170, 255]]
    flat = torch.full((1, 3, 2, 2), 7)
    assert torch.equal(apply("equalize", flat, 0.0), flat.float())


def test_solarize_add_and_cutout_by_hand():
    halves = torch.tensor([[100, 200]]).expand(1, 3, 1, 2)
    assert apply("solarize-add", halves, 0.5)[0, 0].tolist() == [[155, 200]]  # 110 times the strength, to the dark
    cut = apply("cutout", torch.zeros(1, 3, 56, 112), 1.0)[0, 0] == 128  # 40 of 224 to each side
    assert cut.sum(0).tolist() == [0] * 36 + [20] * 40 + [0] * 36


def test_shifts_move_by_whole_pixels_and_fill_with_grey():
    images = pictures(2, 224)
    moved = apply("shift-x", images, 0.1)  # 10 of 224 pixels
    torch.testing.assert_close(moved[..., :-10], images[..., 10:].float(), atol=0.02, rtol=0)
    assert torch.allclose(moved[..., -9:], torch.tensor(128.0))
    torch.testing.assert_close(apply("shift-y", images.mT, 0.1), moved.mT)


def test_turns_and_shears_are_of_pixels_whatever_the_sides():
    square = torch.zeros(1, 3, 40, 80, dtype=torch.uint8)
    square[:, :, 12:28, 32:48] = 200
    picture = Image.fromarray(square[0].permute(1, 2, 0).numpy())
    sheared = {"shear-x": (1, 0.3, -6, 0, 1, 0), "shear-y": (1, 0, 0, 0.3, 1, -12)}
    expected = {name: picture.transform((80, 40), Image.AFFINE, data, Image.BILINEAR) for name, data in sheared.items()}
    for name, moved in (expected | {"rotate": picture.rotate(30, Image.BILINEAR)}).items():
        inside = np.asarray(moved, dtype=float)[8:32, 28:52]
        np.testing.assert_allclose(apply(name, square, 1.0)[0].permute(1, 2, 0)[8:32, 28:52], inside, atol=3)


def test_draws_are_per_image_and_repeatable():
    images = pictures(1).repeat(64, 1, 1, 1)
    first = randaugment(images, 2, torch.Generator().manual_seed(5))
    assert first.dtype == torch.uint8 and first.shape == images.shape
    assert torch.equal(first, randaugment(images, 2, torch.Generator().manual_seed(5)))
    assert len(first.flatten(1).unique(dim=0)) > 30
    single = randaugment(images.repeat(2, 1, 1, 1), 1, torch.Generator().manual_seed(5))
    for strength in (0.3, -0.3):  # either way
        assert (single == apply("shift-x", images[:1], strength).round()).all((1, 2, 3)).any()
    assert torch.equal(randaugment(images, 0, torch.Generator()), images)
    assert not torch.equal(images, first) and torch.equal(images, pictures(1).repeat(64, 1, 1, 1))
