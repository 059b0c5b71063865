"""Photographs from public archives or from a folder, decoded once to bytes; road scenes with a class per pixel."""

import io
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ..errors import DataError, UsageError, at_least, extra
from .archives import cached, data_folder, find, members, verify
from .decoding import Decoded, cut, dealt, decode, files_of, part_of, pixels, square, whole
from .image_files import ImageFiles, classes_in, fits, looked_for
from .imageset import ImageSet

# Imagenette's folders, and the ranks of their classes among ImageNet's thousand.
_IMAGENETTE = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
               "n03394916", "n03417042", "n03425413", "n03445777", "n03888257")  # fmt: skip
IMAGENETTE_RANKS = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)

CAMVID = "sky building pole road pavement tree sign-symbol fence car pedestrian bicyclist"  # its classes, in order


def cifar10(split: str, root: str | Path | None = None) -> ImageSet:
    """Photographs, 10 classes, 32x32, 45,000 / 5,000 / 10,000.

    Reads the official archive, or a copy in JPEG folders, which the name tells: "CIFAR-10 (JPEG copy)".
    The official batches are pickles; only torchvision opens them, after their checksums were found right.
    """
    (archive,) = find("cifar10", root)
    part = part_of(split)
    if archive.url:
        name, build = "CIFAR-10", lambda: _official_cifar10(verify(archive, root), part)
    else:
        name, build = "CIFAR-10 (JPEG copy)", lambda: decode(files_of(verify(archive, root), part))
    return cut(*cached("cifar10", [archive.checksum, part], build), split, name)


def _official_cifar10(path: Path, part: str) -> Decoded:
    with extra():
        from torchvision.datasets import CIFAR10

    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(path) as packed:
            packed.extractall(unpacked, filter="data")
        try:
            batches = CIFAR10(unpacked, train=part == "train")
        except RuntimeError as error:
            raise DataError(f"{path} does not hold CIFAR-10: {error}") from error
    images = torch.from_numpy(np.ascontiguousarray(batches.data.transpose(0, 3, 1, 2)))
    return {"images": images, "labels": torch.tensor(batches.targets)}, list(batches.classes)


def imagenette(
    split: str, root: str | Path | None = None, size: int = 128, origin: Literal["any", "train", "val"] = "any"
) -> ImageSet:
    """Photographs, 10 ImageNet classes, at most 160 pixels, 8,525 / 944 / 3,925.

    Imagenette: the short side is resized to ``size``, the middle square kept. Test is the official validation folder.

    Imagenette deals ImageNet's pictures anew: 500 of the two folders come from ImageNet's own validation set, which
    networks trained on ImageNet have not seen. With ``origin="val"`` they are the test split, with ``origin="train"``
    all the others are the training split.
    """
    if not 1 <= size <= 160:
        raise UsageError(f"imagenette: size must be 1 to 160 pixels, got {size}")
    if origin != "any" and split != (only := {"train": "train", "val": "test"}[origin]):
        raise UsageError(f"imagenette: origin={origin!r} has only the split {only!r}, got {split!r}")
    form = find("imagenette", root)
    official = form[0].url is not None
    part = part_of(split)
    both = origin != "any"
    used = form if official or both else form[:1] if part == "train" else form[1:]

    def build() -> Decoded:
        paths = [verify(archive, root) for archive in used]
        parts = ("train", "val") if both else ("train" if part == "train" else "val",)
        files = (file for path in paths for own in parts for file in files_of(path, own))
        kept = (f for f in files if not both or ("ILSVRC2012_val" in f[1]) == (origin == "val"))
        tensors, wnids = decode(kept, partial(square, size=size))
        names = dict(zip(_IMAGENETTE, (imagenet_classes()[rank] for rank in IMAGENETTE_RANKS), strict=True))
        return tensors, [names.get(wnid, wnid) for wnid in wnids]

    key = [[archive.checksum for archive in used], part, size, *([origin] if both else [])]
    name = "Imagenette" if official else "Imagenette (resized copy)"
    if not both:
        return cut(*cached("imagenette", key, build), split, name)
    return whole(*cached("imagenette", key, build), f"{name}, ImageNet's own {origin} pictures")


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, in the order of their labels."""
    with extra():
        from torchvision.models import MobileNet_V2_Weights

    return tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


def imagenet_val_500(split: str, root: str | Path | None = None, size: int = 224) -> ImageSet:
    """Photographs of ImageNet's validation set, 50 of each of Imagenette's ten classes, short side 224.

    Labels are those of the 1,000 classes; there is a test split and nothing else.
    The short side is resized to ``size``, the middle square kept.
    """
    return _imagenet("imagenet-val-500", split, "test", root, size, IMAGENETTE_RANKS)


def imagenet_sample_1000(split: str, root: str | Path | None = None, size: int = 256) -> ImageSet:
    """Photographs, one of each of ImageNet's 1,000 classes, 256x256, very probably training pictures: no test split."""
    return _imagenet("imagenet-sample-1000", split, "train", root, size, range(1000))


def _imagenet(name: str, split: str, only: str, root: str | Path | None, size: int, ranks: Sequence[int]) -> ImageSet:
    """Pictures in ``name/WNID/FILE``; ``ranks`` of the sorted names of their folders among the thousand classes."""
    if split != only:
        raise UsageError(f"{name} has only the split {only!r}, got {split!r}")
    at_least(f"{name}: size", size, 1)
    (archive,) = find(name, root)

    def build() -> Decoded:
        tensors, folders = decode(files_of(verify(archive, root), name), partial(square, size=size))
        return {"images": tensors["images"], "labels": torch.tensor(ranks)[tensors["labels"]]}, folders

    tensors, _ = cached(name, [archive.checksum, size], build)
    title = f"ImageNet, {len(tensors['labels'])} {'validation' if only == 'test' else 'training'} pictures"
    return ImageSet(tensors["images"], tensors["labels"], imagenet_classes(), title)


def tiny_imagenet_100(split: str, root: str | Path | None = None) -> ImageSet:
    """Photographs, first 100 classes of Tiny-ImageNet, 64x64, 360 / 40 / 50 a class."""
    (archive,) = find("tiny-imagenet-100", root)
    part = part_of(split)

    def build() -> Decoded:
        path = verify(archive, root)
        words = next(content.decode() for name, content in members(path) if name.endswith("words.txt"))
        order = [line.split("\t") for line in words.splitlines()]
        files = files_of(path, "train" if part == "train" else "val")
        tensors, _ = decode(files, classes=[wnid for wnid, _ in order])
        return tensors, [word.split(",")[0] for _, word in order]

    return cut(*cached("tiny-imagenet-100", [archive.checksum, part], build), split, "Tiny-ImageNet-100")


def camvid(split: str, root: str | Path | None = None) -> ImageSet:
    """Road scenes with a class for every pixel, 240x180, 367 / 101 / 233.

    ``masks`` hold indices into ``classes``, and 11 where the pixel is unlabelled and to be ignored. A frame as a whole
    has no class: its label is 0.
    """
    (archive,) = find("camvid", root)
    part = {"train": "train", "validation": "val", "test": "test"}[split]

    def build() -> Decoded:
        found: dict[str, dict[str, Image.Image]] = {part: {}, f"{part}annot": {}}
        for name, content in members(verify(archive, root)):
            place = PurePosixPath(name)
            if place.parent.name in found:
                found[place.parent.name][place.stem] = Image.open(io.BytesIO(content))
        frames, masks = found.values()
        if frames.keys() != masks.keys() or not frames:
            raise DataError(f"{archive.name}: frames and annotations of {part} do not correspond")
        tensors = {
            "images": torch.stack([pixels(frames[name]) for name in sorted(frames)]),
            "masks": torch.stack([torch.from_numpy(np.array(masks[name])) for name in sorted(frames)]),
        }
        return tensors, CAMVID.split()

    tensors, classes = cached("camvid", [archive.checksum, part], build)
    return whole(tensors | {"labels": torch.zeros(len(tensors["images"]), dtype=torch.int64)}, classes, "CamVid")


def folder(
    split: str,
    root: str | Path | None = None,
    size: int = 224,
    per_class: int | None = None,
    crop: Literal["middle", "random-resized"] = "middle",
) -> ImageSet | ImageFiles:
    """Your own images or ImageNet: a folder per class.

    Either ``root/train/CLASS/*`` and ``root/val/CLASS/*`` (ImageNet's layout), or ``root/CLASS/*``. The short side is
    resized to ``size``, the middle square kept; orientation notes of cameras are not obeyed, as in torchvision's
    ``ImageFolder``. Validation is cut from ``train``; test is the folder ``test``, else
    ``val``; without any of them every image is for testing. ``per_class`` keeps the first few of each class. A split is
    held in memory, and nothing is cached; one of more than 16 GiB (``ALIASING_MEMORY`` says another number) stays on
    the disk and is decoded whenever it is used.

    With ``crop="random-resized"`` the training split always stays there, and each time that training looks at an image
    it sees a part of it, drawn and resized as usual for ImageNet (see ``ImageFiles.batches``). Measurements get the
    middle square.
    """
    at_least("folder: size", size, 1)
    at_least("folder: per_class", per_class, 1)
    place = data_folder(root)
    learn = part_of(split) == "train"
    wanted = looked_for(place, learn)
    found = next((part for part in wanted if part.is_dir()), None)
    if found is None:
        told = " or ".join(map(str, wanted))
        raise DataError(f"folder: looked for {told} with a folder of images per class")
    classes = [] if learn else classes_in(place / "train")  # the test split has the labels of training
    files = ImageFiles.under(found, place.name, size, per_class, classes or None)
    if split != "test":
        files = files.only(dealt(files.labels, split))
    if split == "train" and crop == "random-resized":
        return replace(files, random_crop=True)
    return files[:] if fits(len(files) * 3 * size**2) else files
