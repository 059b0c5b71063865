"""Data sets, loaded to bytes in memory: procedural shapes, and photographs from public archives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError, unknown
from . import photographs, shapes
from .archives import cache_folder, data_folder, download, find, verify
from .imageset import SPLITS, ImageSet, check_split
from .photographs import ARCHIVES

__all__ = [
    "CATALOGUE",
    "NAMES",
    "SPLITS",
    "Entry",
    "ImageSet",
    "cache_folder",
    "data_folder",
    "fetch",
    "load",
]


@dataclass(frozen=True)
class Entry:
    """A data set in one line, who made it, and on which terms it is used."""

    description: str
    source: str
    licence: str


CATALOGUE: dict[str, Entry] = {
    "shapes": Entry(
        "procedural textured shapes, 10 classes, 32x32 or larger, exact sub-pixel positions, masks",
        "this package",
        "MIT, generated",
    ),
    "cifar10": Entry(
        "photographs, 10 classes, 32x32, 50,000 + 10,000",
        "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        "no licence stated; research use",
    ),
    "imagenette": Entry(
        "photographs, 10 ImageNet classes, short side 160, 9,469 + 3,925",
        "Howard, fastai/imagenette, version 2; images of ImageNet (Deng et al., CVPR 2009)",
        "Apache-2.0 for the collection; images under the terms of ImageNet, research use",
    ),
    "tiny-imagenet-100": Entry(
        "photographs, first 100 classes of Tiny-ImageNet, 64x64, 400 + 50 a class, grouped for few-shot work",
        "Stanford CS231n, Tiny ImageNet; images of ImageNet (Deng et al., CVPR 2009)",
        "terms of ImageNet, research use",
    ),
    "omniglot": Entry(
        "drawings of handwritten characters, 20 each, white on black",
        "Lake, Salakhutdinov and Tenenbaum, Science 350, 2015",
        "MIT",
    ),
    "camvid": Entry(
        "road scenes with a class for every pixel, 240x180, 367 + 101 + 233",
        "Brostow, Fauqueur and Cipolla, Pattern Recognition Letters 30, 2009; split of SegNet",
        "research use",
    ),
    "folder": Entry(
        "your own images or ImageNet: a folder per class",
        "you",
        "yours",
    ),
}
NAMES: tuple[str, ...] = tuple(CATALOGUE)

_PHOTOGRAPHS: dict[str, Callable[..., ImageSet]] = {
    "cifar10": photographs.cifar10,
    "imagenette": photographs.imagenette,
    "tiny-imagenet-100": photographs.tiny_imagenet_100,
    "omniglot": photographs.omniglot,
    "camvid": photographs.camvid,
    "folder": photographs.folder,
}


def load(name: str, split: str, root: str | Path | None = None, **options: Any) -> ImageSet:
    """Load the "train", "validation" or "test" split of a data set.

    ``root`` is the folder with the archives (default: ``ALIASING_DATA``, else ``data/downloads``).
    Options are those of the data set's own function, ``aliasing.datasets.shapes.load`` or one in ``photographs``.
    Validation is cut from the training images, never from the test set.

    Raises:
        UsageError: an unknown name, split or option.
        DataError: an archive that is missing or damaged; the message says how to mend it.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    check_split(split)
    function: Callable[..., ImageSet] = shapes.load if name == "shapes" else _PHOTOGRAPHS[name]
    known = [option for option in signature(function).parameters if option not in ("split", "root")]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known) if known else UsageError(f"{name} has no options")
    return function(split, **options) if name == "shapes" else function(split, root, **options)


def fetch(name: str, root: str | Path | None = None) -> Path:
    """Make sure that a data set is there and undamaged, downloading it where that is possible; returns its folder.

    Archives are read as they are, so nothing is unpacked.

    Raises:
        UsageError: an unknown name.
        DataError: an archive that is damaged, or missing and not to be downloaded.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    place = data_folder(root)
    if name not in ARCHIVES:  # shapes are drawn when they are asked for; a folder is looked at by loading it
        return place
    try:
        form = find(name, ARCHIVES[name], root)
    except DataError:
        form = next((form for form in ARCHIVES[name] if all(archive.url for archive in form)), ())
        if not form:
            raise
        for archive in form:
            download(name, archive, place)
    for archive in form:
        verify(archive, place)
    return place
