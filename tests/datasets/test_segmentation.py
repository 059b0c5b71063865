"""VOC and Cityscapes as their owners unpack them: tiny folders of the same layout."""

import numpy as np
import pytest
import torch
from PIL import Image

from aliasing import datasets
from aliasing.datasets import fetch, load
from aliasing.datasets.segmentation import IGNORE
from aliasing.errors import DataError

# The first colours of VOC's palette and the one around objects; the reader must look at the indices alone.
PALETTE = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 255: (224, 224, 192)}


def indexed(values):
    image = Image.fromarray(np.asarray(values, dtype=np.uint8), "P")
    image.putpalette([part for index in range(256) for part in PALETTE.get(index, (index, 255 - index, 7))])
    return image


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ALIASING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def voc(home, counts, width=10):
    """Frames whose grey value and whose only class count them, in order; one more photograph is in no list."""
    place = home / "VOCdevkit/VOC2012"
    (place / "ImageSets/Segmentation").mkdir(parents=True)
    for part, first, count in counts:
        names = [f"2007_{first + i:06}" for i in range(count)]
        for i, name in enumerate(names, first):
            save(Image.new("RGB", (width, 10), (10 * i,) * 3), place / f"JPEGImages/{name}.jpg")
            save(indexed(np.full((10, width), i)), place / f"SegmentationClass/{name}.png")
        (place / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(names) + "\n")
    save(Image.new("RGB", (8, 8)), place / "JPEGImages/2012_000000.jpg")
    return place


def test_voc_follows_its_lists_and_holds_out_a_tenth(home):
    place = voc(home, [("train", 0, 11), ("val", 11, 3)])
    train, validation, test = (load("voc2012", split, size=5) for split in datasets.SPLITS)
    assert [len(part) for part in (train, validation, test)] == [10, 1, 3]
    seen = []
    for part in (train, validation, test):
        assert part.images.shape[1:] == (3, 5, 5) and part.masks.shape[1:] == (5, 5)
        number = part.masks[:, 0, 0].int()
        assert (part.masks.flatten(1) == number[:, None]).all()
        assert ((part.images.int() - 10 * number[:, None, None, None]).abs() <= 2).all()  # JPEG rounds
        seen += number.tolist()
    assert sorted(seen) == list(range(14))
    assert test.classes[0] == "background" and test.classes[15] == "person" and len(test.classes) == 21
    assert fetch("voc2012") == place == fetch("voc2012", root=place)


def test_voc_masks_are_palette_indices_of_the_middle_square_to_the_nearest_pixel(home):
    place = voc(home, [("train", 0, 1), ("val", 1, 1)], width=20)
    values = np.zeros((10, 20), dtype=np.uint8)
    values[:, :5] = 3  # cut off
    values[2:, 5:9] = 15
    values[:, 9:11] = 255
    indexed(values).save(place / "SegmentationClass/2007_000001.png")
    mask = load("voc2012", "test", size=5).masks[0]
    square = values[:, 5:15]
    assert mask.tolist() == [[square[2 * i + 1, 2 * j + 1] for j in range(5)] for i in range(5)]
    assert set(mask.flatten().tolist()) == {0, 15, IGNORE["voc2012"]}


def test_another_annotation_is_decoded_anew(home):
    place = voc(home, [("train", 0, 1), ("val", 1, 1)])
    assert (load("voc2012", "test", size=4).masks == 1).all()
    indexed(np.arange(100).reshape(10, 10) % 21).save(place / "SegmentationClass/2007_000001.png")
    assert load("voc2012", "test", size=4).masks.unique().numel() > 1


# Ids of the 19 classes of the Cityscapes benchmark, in its order, from the authors' table.
COUNTED = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def street(home, part, city, number, ids, grey=0):
    name = f"{city}_{number:06}_000019"
    frame = Image.new("RGB", (len(ids[0]), len(ids)), (grey,) * 3)
    save(frame, home / f"leftImg8bit/{part}/{city}/{name}_leftImg8bit.png")
    save(Image.fromarray(np.asarray(ids, dtype=np.uint8)), home / f"gtFine/{part}/{city}/{name}_gtFine_labelIds.png")
    save(frame, home / f"gtFine/{part}/{city}/{name}_gtFine_color.png")  # other annotations lie beside it


def test_cityscapes_ids_become_the_classes_of_the_benchmark(home):
    ids = np.arange(34)[:, None].repeat(68, 1)
    street(home / "cityscapes", "val", "lindau", 3, ids)
    part = load("cityscapes", "test", size=34)
    expected = [COUNTED.index(i) if i in COUNTED else 255 for i in range(34)]
    assert part.masks[0].tolist() == [[value] * 68 for value in expected]
    assert len(part.classes) == 19
    assert [part.classes[i] for i in (0, 10, 11, 18)] == ["road", "sky", "person", "bicycle"]
    assert fetch("cityscapes") == home / "cityscapes"
    assert fetch("cityscapes", home / "cityscapes") == home / "cityscapes"


def test_cityscapes_frames_go_with_their_annotations_over_all_cities(home):
    counted = [(city, number) for city in ("bochum", "aachen") for number in range(5)]
    for i, (city, number) in enumerate(counted):
        street(home, "train", city, number, np.full((4, 8), COUNTED[i]), grey=i)
    street(home, "val", "munster", 0, np.full((4, 8), 7))
    train, validation = (load("cityscapes", split, size=2) for split in ("train", "validation"))
    assert (len(train), len(validation), len(load("cityscapes", "test", size=2))) == (9, 1, 1)
    images = torch.cat([train.images, validation.images])
    assert images.shape == (10, 3, 2, 4)
    assert torch.equal(images[:, 0], torch.cat([train.masks, validation.masks]))
    assert sorted(images[:, 0, 0, 0].tolist()) == list(range(10))


@pytest.mark.parametrize("name", ["voc2012", "cityscapes"])
def test_what_is_not_there_is_named(name, home):
    for call in (lambda: fetch(name), lambda: load(name, "train")):
        with pytest.raises(DataError, match=rf"looked for the folders .* in {home}.*ALIASING_DATA"):
            call()


def test_damage_is_named(home):
    place = voc(home, [("train", 0, 1), ("val", 1, 1)])
    path = place / "SegmentationClass/2007_000001.png"
    for damaged, match in (
        (indexed(np.full((10, 10), 21)), "value 21, which stands for no class"),
        (Image.new("RGB", (10, 10)), r"holds colours \(RGB\)"),
        (indexed(np.zeros((9, 10))), r"\(10, 9\) pixels large, but its image \(10, 10\)"),
    ):
        damaged.save(path)
        with pytest.raises(DataError, match=match):
            load("voc2012", "test")
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2007_000001\.png is not a readable image"):
        load("voc2012", "test")
    path.unlink()
    with pytest.raises(DataError, match="unpacked completely"):
        load("voc2012", "test")
    (place / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read the list .*val\.txt"):
        load("voc2012", "test")


def test_frames_without_annotation_are_named(home):
    street(home, "val", "lindau", 1, np.full((4, 8), 7))
    street(home, "val", "lindau", 2, np.full((4, 8), 7))
    with pytest.raises(DataError, match="no image is listed for train"):
        load("cityscapes", "train")
    (home / "gtFine/val/lindau/lindau_000002_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match="lindau_000002_000019 of val"):
        load("cityscapes", "test")
