"""Photographs: tiny archives of every layout, and the real ones where they are."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageOps

from aliasing import datasets
from aliasing.datasets import archives, data_folder, fetch, load, photographs
from aliasing.datasets.archives import Archive
from aliasing.errors import DataError
from tests.datasets.conftest import pack


def png(colour, size=(32, 32), mode="RGB", sides=None):
    """A picture of one colour; to its left and right there may be another one, half as wide."""
    buffer, image = io.BytesIO(), Image.new(mode, size, colour)
    if sides:
        image = ImageOps.expand(image, (size[0] // 2, 0), sides)
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Empty folders for archives and decoded copies."""
    monkeypatch.setenv("ALIASING_DATA", str(tmp_path / "downloads"))
    monkeypatch.setenv("ALIASING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


@pytest.fixture
def offer(downloads, monkeypatch):
    """A function that puts archives, or {name: {member: bytes}}, into the place of a form of a data set."""

    def offered(dataset, form, place=-1):
        forms = list(archives.ARCHIVES[dataset])
        made = [pack(downloads / name, files) for name, files in form.items()] if isinstance(form, dict) else form
        forms[place] = tuple(made)
        monkeypatch.setitem(archives.ARCHIVES, dataset, forms)

    return offered


@pytest.fixture
def cifar_copy(offer):
    """20 images of each of two classes to train on and 2 to test on; the blue channel numbers them."""
    files = {f"train/{c}/{i:02}.jpg": png((r, 0, i)) for c, r in (("cat", 10), ("ant", 200)) for i in range(20)}
    files |= {f"test/{c}/{i:02}.jpg": png((r, 1, i)) for c, r in (("cat", 10), ("ant", 200)) for i in range(2)}
    offer("cifar10", {"cifar10-jpeg.tar.xz": files})


def test_a_copy_in_folders_is_named_as_one_and_split_without_overlap(cifar_copy):
    parts = [load("cifar10", split) for split in datasets.SPLITS]
    assert (parts[0].name, parts[0].classes) == ("CIFAR-10 (JPEG copy)", ("ant", "cat"))
    assert [part.labels.bincount().tolist() for part in parts] == [[18, 18], [2, 2], [2, 2]]
    assert all(torch.equal(part.images[:, 0, 0, 0] == 200, part.labels == 0) for part in parts)
    numbers = torch.cat([torch.stack([part.labels, part.images[:, 2, 0, 0]], 1) for part in parts[:2]]).tolist()
    assert sorted(numbers) == [[label, number] for label in (0, 1) for number in range(20)] != numbers
    assert torch.equal(load("cifar10", "train").images, parts[0].images)


def test_a_damaged_archive_is_refused_by_load_and_fetch(cifar_copy, downloads):
    path = downloads / "cifar10-jpeg.tar.xz"
    path.write_bytes(path.read_bytes()[:-100])
    for call in (lambda: load("cifar10", "test"), lambda: fetch("cifar10")):
        with pytest.raises(DataError, match=r"sha256 is .* expected"):
            call()


def test_fetch_downloads_what_is_missing(offer, downloads, served):
    made = pack(served[0] / "a.zip", {"a": b"a"})
    offer("cifar10", [Archive("official.zip", made.checksum, f"{served[1]}/a.zip")], place=0)
    assert fetch("cifar10") == downloads
    assert (downloads / "official.zip").is_file()
    assert fetch("shapes") == downloads


def test_the_official_cifar10_is_read_through_torchvision(offer, downloads, monkeypatch):
    """An archive in the official format, with five images in each batch."""
    numbers = np.arange(6 * 5 * 3072).reshape(6, 5, 3072) % 251
    batches = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    contents = {
        name: pickle.dumps({"data": data.astype(np.uint8), "labels": [0, 1, 2, 3, 9]})
        for name, data in zip(batches, numbers, strict=True)
    }
    contents["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    sums = {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}
    folder = {f"cifar-10-batches-py/{name}": data for name, data in contents.items()}
    made = pack(downloads / "cifar-10-python.tar.gz", folder)
    official = torchvision.datasets.CIFAR10
    monkeypatch.setattr(official, "train_list", [[name, sums[name]] for name in batches[:5]])
    monkeypatch.setattr(official, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": sums["batches.meta"]})
    offer("cifar10", [archives.ARCHIVES["cifar10"][0][0]._replace(checksum=made.checksum)], place=0)
    test = load("cifar10", "test")
    assert test.name == "CIFAR-10"
    assert test.classes == tuple("abcdefghij")
    assert test.labels.tolist() == [0, 1, 2, 3, 9]
    assert torch.equal(test.images, torch.from_numpy(numbers[5].reshape(5, 3, 32, 32)).to(torch.uint8))
    assert len(load("cifar10", "train")) == 25  # fewer than ten of a class: nothing is held out


def test_our_checksums_are_those_of_torchvision():
    (cifar,), (imagenette,) = archives.ARCHIVES["cifar10"][0], archives.ARCHIVES["imagenette"][0]
    official = torchvision.datasets.CIFAR10
    assert (cifar.name, cifar.url, cifar.checksum) == (official.filename, official.url, f"md5:{official.tgz_md5}")
    known = torchvision.datasets.Imagenette._ARCHIVES["160px"]
    assert (imagenette.url, imagenette.checksum.removeprefix("md5:")) == known


def test_classes_come_in_the_order_of_the_word_list(offer):
    wnids = [f"n{99 - i:02}" for i in range(100)]
    files = {f"tiny-imagenet-100/val/{w}/val_0.JPEG": png((i, i, i), (64, 64), "RGB") for i, w in enumerate(wnids)}
    files["tiny-imagenet-100/words.txt"] = "".join(f"{w}\tword {w}, other\n" for w in wnids).encode()
    offer("tiny-imagenet-100", {"tiny-imagenet-100.tar.xz": files})
    found = load("tiny-imagenet-100", "test")
    assert sorted(found.labels.tolist()) == list(range(100))
    assert torch.equal(found.images[:, 0, 0, 0].long(), found.labels)
    assert found.classes == tuple(f"word {wnid}" for wnid in wnids)


def test_drawings_are_white_on_black_and_no_character_is_in_two_splits(offer):
    drawing = png(1, (105, 105), "1")
    alphabets = [("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")]
    alphabets += [("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog")]
    files = [
        {f"images_background_small{i}/{a}/character0{c}/1.png": drawing for a in names for c in (1, 2)}
        for i, names in enumerate(alphabets, 1)
    ]
    offer("omniglot", {"omniglot-small1.zip": files[0], "omniglot-small2.zip": files[1]})
    parts = [load("omniglot", split, size=14) for split in datasets.SPLITS]
    assert [len(part) for part in parts] == [8, 2, 6]
    assert len({c for part in parts for c in part.classes}) == 16
    assert (parts[0].images == 0).all()  # blank paper
    assert parts[0].images.shape == (8, 3, 14, 14)


def test_segmentation_frames_go_with_their_annotations(offer):
    files = {}
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        for i in range(count):
            files[f"camvid-240/{part}/f{i}.png"] = png((i, 0, 0), (8, 6))
            files[f"camvid-240/{part}annot/f{i}.png"] = png(11 - i, (8, 6), "L")
    offer("camvid", {"camvid-240.tar.xz": files})
    train = load("camvid", "train")
    assert train.images.shape == (3, 3, 6, 8)
    assert torch.equal(train.masks, 11 - train.images[:, 0])
    assert len(train.classes) == 11
    assert [len(load("camvid", split)) for split in ("validation", "test")] == [1, 2]
    del files["camvid-240/testannot/f1.png"]
    offer("camvid", {"camvid-240.tar.xz": files})
    with pytest.raises(DataError, match="do not correspond"):
        load("camvid", "test")


def real(name, split, **options):
    """A split of a data set whose archives are there."""
    try:
        archives.find(name)
    except DataError:
        pytest.skip(f"no archive of {name} in {data_folder()} (set ALIASING_DATA)")
    return load(name, split, **options)


@pytest.mark.data
def test_real_cifar10():
    test = real("cifar10", "test")  # the training images take five times as long to decode
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.classes[0] == "airplane"
    # Mean colour of CIFAR-10 as commonly published for the training images: 0.491, 0.482, 0.447.
    mean = (test.images.float() / 255).mean((0, 2, 3))
    assert mean.tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.01)


def test_the_readme_lists_every_archive_with_its_sum():
    readme = Path(__file__).parents[2] / "data" / "README.md"
    rows = [line for line in readme.read_text().splitlines() if line.startswith("| `")]
    for forms in archives.ARCHIVES.values():
        for archive in (archive for form in forms for archive in form):
            assert f"| `{archive.name}` | {archive.checksum.replace(':', ' ')} |" in rows
    for name in datasets.CATALOGUE:
        assert any(row.startswith(f"| `{name}` |") for row in rows), name


def test_imagenette_is_cropped_and_imagenets_own_validation_pictures_are_kept_apart(offer):
    """It deals them into both of its folders; the networks have seen all the others. The middle square is kept."""
    root, church = "imagenette2-160", "n03028079"
    names = {"train": ("n03028079_1", "ILSVRC2012_val_00000001"), "val": ("n03028079_2", "ILSVRC2012_val_00000002")}
    form = {}
    for first, (part, own) in zip((0, 10), names.items(), strict=True):
        of = f"{root}/{part}/{church}"
        files = {f"{of}/{name}.JPEG": png((i, 0, 0), sides="blue") for i, name in enumerate(own, first)}
        form[f"{root}-{part}.tar.xz"] = files
    offer("imagenette", form)
    seen, unseen = (load("imagenette", split, size=4, origin=o) for split, o in (("train", "train"), ("test", "val")))
    assert sorted(seen.images[:, 0, 0, 0].tolist()) == [0, 10]
    assert sorted(unseen.images[:, 0, 0, 0].tolist()) == [1, 11]
    assert not (seen.images[:, 2].any() or unseen.images[:, 2].any())  # nothing of the blue sides
    assert (seen.classes, seen.images.shape) == (("church",), (2, 3, 4, 4))
    assert [len(load("imagenette", split, size=4)) for split in ("train", "test")] == [2, 2]
    wnids = photographs._IMAGENETTE
    files = {f"imagenet-val-500/{wnid}/{wnid}.JPEG": png((20 * i, 0, 0)) for i, wnid in enumerate(wnids)}
    offer("imagenet-val-500", {"imagenet-val-500.tar.xz": files})
    found = load("imagenet-val-500", "test", size=8)
    assert found.images.shape == (10, 3, 8, 8)
    names = [found.classes[found.labels[found.images[:, 0, 0, 0] == 20 * i]] for i in range(10)]
    assert names == ["tench", "English springer", "cassette player", "chain saw", "church", "French horn",
                     "garbage truck", "gas pump", "golf ball", "parachute"]  # fmt: skip


@pytest.mark.data
def test_real_imagenet_pictures():
    assert sorted(real("imagenet-sample-1000", "train", size=16).labels.tolist()) == list(range(1000))
    assert len(real("imagenet-val-500", "test", size=16)) == 500
