"""Images read from the disk while they are used are those held in memory, in the same order."""

import os
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from aliasing.datasets import SPLITS, ImageFiles, ImageSet, decoding, load, pictures
from aliasing.datasets.image_files import _LISTED
from aliasing.errors import DataError, UsageError
from aliasing.training import Recipe, train
from tests.toys import write

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more than this machine has cores
]


@pytest.fixture
def folder(tmp_path):
    """Noise of uneven sizes: 14 and 11 pictures to train on, 3 and 2 to test on."""
    generator = torch.Generator().manual_seed(0)
    for part, counts in (("train", {"cow": 14, "dog": 11}), ("val", {"cow": 3, "dog": 2})):
        for name, count in counts.items():
            sizes = [(3, 9 + i % 3, 12) for i in range(count)]
            noise = [torch.randint(256, size, generator=generator, dtype=torch.uint8) for size in sizes]
            write(tmp_path / part / name, noise)
    return tmp_path


@pytest.fixture
def streamed(folder, monkeypatch):
    monkeypatch.setenv("ALIASING_MEMORY", "0")
    return load("folder", "train", root=folder, size=8)


def test_on_the_disk_and_in_memory_are_the_same(folder, monkeypatch):
    deep = np.arange(0, 65280, 255, dtype=np.uint16).reshape(16, 16)  # whose greys are kept: ``test_diagnose``
    Image.fromarray(deep).save(folder / "val/cow/deep.png")
    for split in SPLITS:
        held = load("folder", split, root=folder, size=8)
        part = folder / ("val" if split == "test" else "train")
        files = [(path.parent.name, str(path), path.read_bytes()) for path in part.glob("*/*.png")]
        other = decoding.cut(*decoding.decode(files, lambda image: decoding.square(image, 8)), split, "other")
        monkeypatch.setenv("ALIASING_MEMORY", "0")
        read = load("folder", split, root=folder, size=8)
        monkeypatch.delenv("ALIASING_MEMORY")
        assert isinstance(held, ImageSet) and isinstance(read, ImageFiles)
        assert (len(read), read.classes, read.name) == (len(held), held.classes, held.name)
        for images, labels in ((held.images, held.labels), (read.images, read.labels)):
            assert torch.equal(images, other.images) and torch.equal(labels, other.labels)
        chosen = torch.tensor([1, 0])
        assert torch.equal(read[chosen].images, held.images[chosen])
        assert torch.equal(read[1:3].labels, held.labels[1:3])


def test_a_folder_of_ones_own(folder):
    for odd in ("val/dog/notes.txt", "val/dog/._0.png", "train/.cache/0.png", "val/.cache/0.png"):  # what is hidden
        (folder / odd).parent.mkdir(exist_ok=True)
        (folder / odd).touch()
    assert [len(load("folder", split, root=folder, size=6)) for split in SPLITS] == [23, 2, 5]
    few = load("folder", "test", root=folder, size=6, per_class=1)
    assert (len(few), few.name, few.classes) == (2, folder.name, ("cow", "dog"))
    flat = load("folder", "test", root=folder / "train", size=6)
    assert len(flat) == 25
    with pytest.raises(DataError, match="a folder of images per class"):
        load("folder", "train", root=folder / "val")
    (folder / "val").rename(folder / "other")
    with pytest.raises(DataError, match=r"test or .*val with a folder of images per class"):  # "train" is no class here
        load("folder", "test", root=folder, size=6)
    (folder / "other").rename(folder / "val")
    (folder / "val/cow").rename(folder / "cow")  # a class without test images; the other keeps its number
    dogs = load("folder", "test", root=folder, size=6)
    assert (dogs.classes, dogs.labels.tolist()) == (("cow", "dog"), [1, 1])
    (folder / "cow").rename(folder / "val/bull")
    with pytest.raises(DataError, match="'bull' is none of the classes, which are cow, dog"):
        load("folder", "test", root=folder, size=6)


def test_a_folder_is_told_from_others_wherever_the_process_is_and_once_it_is_there(folder, monkeypatch):
    found = []
    for part in ("train", "val"):
        monkeypatch.chdir(folder / part)
        assert pictures({"name": "folder", "root": "copy"}) == {}
        shutil.copytree("cow", "copy/train")  # a class of that name
        (folder / part / "copy/dog").symlink_to(folder / part / "dog")
        found.append(pictures({"name": "folder", "root": "copy"})["pictures"])
    assert found[0] != found[1]
    shutil.rmtree("copy/train")
    _LISTED.clear()
    assert pictures({"name": "folder", "root": "copy"})["pictures"] not in found  # of the class that is a link


def trained(data, recipe, **options):
    """Weights and losses of a small network after its training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8), torch.nn.Dropout(), torch.nn.Flatten())
    history = train(network, data, recipe, seed=1, **options)
    return network[0].weight.tolist(), [entry["loss"] for entry in history]


def test_training_from_the_disk_ends_with_the_same_bits(folder, streamed, monkeypatch):
    monkeypatch.delenv("ALIASING_MEMORY")
    held = load("folder", "train", root=folder, size=8)
    recipe = Recipe(epochs=2, batch_size=8, lr=0.05, flip=True, shift=2, adversary=0.1, probe=4)
    assert trained(streamed, recipe) == trained(held, recipe)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_parts_are_those_of_torchvision_whoever_draws_them(folder, workers):
    cropped = load("folder", "train", root=folder, size=8, crop="random-resized")
    seeds = torch.arange(100, 100 + len(cropped))
    batches = [torch.tensor([5, 1, 7]), torch.tensor([0, 2])]
    state = torch.get_rng_state()
    found = list(cropped.batches(batches, workers, seeds=seeds))
    assert torch.equal(torch.get_rng_state(), state)
    for batch, (images, labels) in zip(batches, found, strict=True):
        assert torch.equal(labels, cropped.labels[batch])
        for number, image in zip(batch.tolist(), images, strict=True):
            whole = torchvision.io.decode_image(cropped.paths[number].decode())
            with torch.random.fork_rng():
                torch.manual_seed(100 + number)
                place = v2.RandomResizedCrop.get_params(whole, [0.08, 1], [3 / 4, 4 / 3])
            expected = v2.functional.resized_crop(v2.functional.to_pil_image(whole), *place, [8, 8])
            assert torch.equal(image, v2.functional.pil_to_tensor(expected))
            assert not torch.equal(image, cropped.images[number])  # the middle square


def test_only_training_sees_random_parts(folder):
    options = {"root": folder, "size": 8, "crop": "random-resized"}
    assert isinstance(load("folder", "train", **options), ImageFiles)  # though it fits into memory
    for split in SPLITS:  # who measures sees the middle squares
        middle = load("folder", split, root=folder, size=8)
        assert torch.equal(load("folder", split, **options)[:].images, middle.images)


def test_training_on_random_parts_resumes_with_the_same_bits(folder, tmp_path):
    data = load("folder", "train", root=folder, size=8, crop="random-resized")
    recipe = Recipe(epochs=3, batch_size=8, lr=0.05, flip=True)

    def stop(entry):
        if entry["epoch"] == 1:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(data, recipe, checkpoint=checkpoint, on_epoch=stop)
    calm = trained(data, recipe)
    assert trained(data, recipe, checkpoint=checkpoint) == calm
    assert trained(load("folder", "train", root=folder, size=8), recipe) != calm


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_named_whoever_reads_it_and_a_pipe_is_not_waited_for(folder, streamed, workers):
    path = folder / "train" / "cow" / "3.png"
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^\S*cow/3\.png is not a readable image"):
        list(streamed.batches([torch.arange(len(streamed))], workers))
    shutil.copy(path.with_name("4.png"), path)
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"\0\1\2\3"))  # which Pillow calls a SyntaxError
    with pytest.raises(DataError, match=r"^\S*cow/3\.png is not a readable image"):
        list(streamed.batches([torch.arange(len(streamed))], workers))
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(DataError, match=r"^\S*cow/3\.png is not a readable image"):
        pictures({"name": "folder", "root": folder})
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"3.png is a pipe, a device or the like, and no file"):
        list(streamed.batches([torch.arange(len(streamed))], workers))
    with pytest.raises(DataError, match=r"3.png is a pipe, a device or the like, and no file"):
        pictures({"name": "folder", "root": folder})


def test_a_wrong_limit_is_refused(folder, monkeypatch):
    monkeypatch.setenv("ALIASING_MEMORY", "much")
    with pytest.raises(UsageError, match="must be a number of GiB, got 'much'"):
        load("folder", "train", root=folder)
