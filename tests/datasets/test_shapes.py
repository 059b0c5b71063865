"""The procedural images: drawn from a seed, exact under every shift, honest masks; glyphs; sets of images."""

import math
from dataclasses import replace

import pytest
import torch

from aliasing.datasets import ImageSet, load, shapes
from aliasing.metrics.readouts import episode_accuracies, sample_episodes


@pytest.mark.parametrize("count", [1, 7, 251])
def test_the_seed_decides_an_image_and_neither_the_global_generator_nor_how_many_are_drawn(count):
    torch.manual_seed(count)
    state = torch.get_rng_state()
    few, many, other = (load("shapes", "test", count=n, seed=s) for n, s in ((count, 3), (260, 3), (count, 4)))
    assert torch.equal(torch.get_rng_state(), state)
    for kind in ("images", "labels", "masks"):
        assert torch.equal(getattr(few, kind), getattr(many, kind)[:count])
    assert (few.images != other.images).float().mean() > 0.9


def test_a_whole_pixel_shift_moves_every_pixel():
    scenes, inside = shapes.sample(60), (..., slice(3, -3), slice(3, -3))
    still, _ = shapes.render(scenes, noise=0)
    for dy, dx in ((1, 0), (0, 1), (-2, 3)):
        moved, _ = shapes.render(scenes, shift=(dy, dx), noise=0)
        torch.testing.assert_close(moved[inside], still.roll((dy, dx), (2, 3))[inside], atol=1e-4, rtol=0)


def test_fractions_of_a_pixel_add_up_and_differ_from_none():
    """Moving the scene itself by half a pixel and rendering with the other half is a shift by one pixel."""
    scenes = shapes.sample(20)
    half = torch.tensor([0.5, 0.5])
    once, _ = shapes.render(scenes, shift=(0.5, 0.5), noise=0)
    whole, _ = shapes.render(scenes, shift=(1.0, 1.0), noise=0)
    phase = scenes.wave_phase - (scenes.waves * half).sum(-1)
    ends = scenes.stroke_ends + half
    displaced = replace(scenes, centre=scenes.centre + half, stroke_ends=ends, wave_phase=phase)
    torch.testing.assert_close(shapes.render(displaced, noise=0)[0], once, atol=1e-4, rtol=0)
    torch.testing.assert_close(shapes.render(displaced, shift=(0.5, 0.5), noise=0)[0], whole, atol=1e-4, rtol=0)
    assert (once - whole).abs().mean() > 0.01


def test_the_noise_belongs_to_the_pixels_and_has_the_deviation_it_is_given():
    scenes = shapes.sample(50)
    clean, _ = shapes.render(scenes, noise=0)
    noisy, _ = shapes.render(scenes, noise=0.02)
    unclipped = (clean > 0.15) & (clean < 0.85)
    noise = torch.where(unclipped, noisy - clean, 0)
    assert noise[unclipped].std().item() == pytest.approx(0.02, rel=0.02)
    shift = (0.4, 1.7)
    moved = shapes.render(scenes, shift, noise=0.02)[0] - shapes.render(scenes, shift, noise=0)[0]
    inside = unclipped & (moved + noisy > 0.3) & (moved + noisy < 1.5) & (shapes.render(scenes, shift, 0)[0] < 0.85)
    inside &= shapes.render(scenes, shift, 0)[0] > 0.15
    torch.testing.assert_close(moved[inside], noise[inside], atol=1e-5, rtol=0)


def test_the_background_is_the_sum_of_its_plane_waves():
    """Written out pixel by pixel in double precision, away from the object and the strokes."""
    scenes = shapes.sample(1, seed=5)
    image, coverage = shapes.render(scenes, noise=0)
    y, x = torch.meshgrid(*2 * (torch.arange(32, dtype=torch.float64) + 0.5,), indexing="ij")
    expected = scenes.ground[0, :, None, None].double().expand(3, 32, 32).clone()
    for k in range(scenes.waves.shape[1]):
        angle = scenes.waves[0, k, 0] * y + scenes.waves[0, k, 1] * x + scenes.wave_phase[0, k]
        expected += scenes.wave_colour[0, k, :, None, None] * angle.cos()
    agree = ((image[0] - expected.clamp(0, 1)).abs() < 1e-4).all(0)
    assert not agree[coverage[0] > 0.5].any()
    assert agree.float().mean() > 0.4


def test_the_areas_of_unhidden_shapes_are_those_of_geometry():
    scenes = shapes.sample(100, position_sigma=0)
    bare = replace(scenes, stroke_front=torch.zeros_like(scenes.stroke_front))
    area = shapes.render(bare)[1].sum((1, 2)) / scenes.radius**2
    side = 2 * 0.6 * 1.5 * 2 / math.sqrt(3)  # a regular triangle with inradius 0.6
    expected = {
        0: math.pi * 0.95**2,
        1: (2 * 0.85) ** 2,
        2: math.sqrt(3) / 4 * (side * 1.0) ** 2,
        3: 4 * 0.36 * 2 - (2 * 0.36) ** 2,
        4: math.pi * (1.01**2 - 0.47**2),
    }
    for shape, value in expected.items():
        assert area[scenes.labels // 2 == shape].mean().item() == pytest.approx(value, rel=0.02), shapes.SHAPES[shape]


def test_scenes_are_drawn_as_described():
    scenes = shapes.sample(200)
    periods, (down, right) = 2 * math.pi / scenes.grating.norm(dim=1), scenes.grating.abs().T
    assert 2.3 <= periods.min() < 2.4 and 3.7 < periods.max() <= 3.8
    upright = torch.tensor([shapes.CLASSES[label].startswith("upright") for label in scenes.labels])
    assert ((down < right) == upright).all()  # stripes across the columns stand
    assert not torch.equal(scenes.centre, shapes.sample(200, split="test").centre)
    masks = load("shapes", "test", count=30).masks
    assert masks.amax((1, 2)).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5] * 3
    ones = torch.ones_like(scenes.stroke_front)
    hidden, free = (shapes.render(replace(scenes, stroke_front=k * ones))[1].sum() for k in (1, 0))
    assert hidden < 0.95 * free


@pytest.mark.parametrize(("sigma", "deviation"), [(0, 0.0), (1.5, 1.5), ("uniform", 20 / math.sqrt(12))])
def test_the_position_bias_is_the_deviation_of_the_centres(sigma, deviation):
    scenes = shapes.sample(4000, position_sigma=sigma)
    assert scenes.centre.std(0).tolist() == pytest.approx([deviation] * 2, rel=0.05)
    assert scenes.centre.mean(0).tolist() == pytest.approx([16.0] * 2, abs=0.3)
    assert scenes.centre.min() >= 6
    assert scenes.centre.max() <= 26


def test_a_set_is_what_was_asked_for():
    glyphs = load("glyphs", "test", classes=7, each=3, size=28)
    assert glyphs.images.shape == (21, 3, 28, 28) and len(glyphs.classes) == 7
    assert glyphs.labels.tolist() == [label for label in range(7) for _ in range(3)]
    assert torch.equal(glyphs.images, load("glyphs", "test", classes=7, each=3, size=28).images)
    assert glyphs.images.amax((1, 2, 3)).min() == 255 and glyphs.images.float().mean() < 80


def test_drawings_of_a_character_resemble_each_other():
    glyphs = load("glyphs", "test", classes=20)
    pixels = torch.nn.functional.avg_pool2d(glyphs.images.float(), 4).flatten(1)
    accuracy = episode_accuracies(pixels, *sample_episodes(glyphs.labels, 5, 1, 15, 50)).mean()
    assert 0.3 < accuracy < 0.95  # chance is 0.2; pixels alone do not solve it


def test_slices_and_indices_keep_images_labels_and_masks_together():
    images = torch.arange(6 * 3 * 4 * 5).reshape(6, 3, 4, 5).to(torch.uint8)
    whole = ImageSet(images, torch.arange(6) % 2, ("even", "odd"), "made", images[:, 0].contiguous())
    for index, numbers in ((slice(1, 3), [1, 2]), (torch.tensor([4, 1]), [4, 1]), (whole.labels == 1, [1, 3, 5])):
        chosen = whole[index]
        assert torch.equal(chosen.images, images[numbers]) and torch.equal(chosen.masks, images[numbers, 0])
        assert chosen.labels.tolist() == [number % 2 for number in numbers]
        assert (chosen.classes, chosen.name, len(chosen)) == (whole.classes, "made", len(numbers))
