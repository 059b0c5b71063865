"""Photographs with a class for every pixel."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, UsageError, extra
from .archives import cached, data_folder, find, members, verify
from .catalogue import ARCHIVES
from .decoding import Decoded, cut, part_of, pixels, square
from .imageset import ImageSet

__all__ = ["CAMVID_CLASSES", "FOLDERS", "IGNORE", "VOC_CLASSES", "camvid", "cityscapes", "find_folder", "voc2012"]

#: The mask value of pixels that are not labelled.
IGNORE = {"camvid": 11, "voc2012": 255, "cityscapes": 255}

CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign-symbol", "fence", "car", "pedestrian", "bicyclist"),
)
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

#: What is not in an archive of ours: where it lies once its owner has unpacked it, and the folders that tell it.
FOLDERS = {
    "voc2012": ("VOCdevkit/VOC2012", ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")),
    "cityscapes": ("cityscapes", ("leftImg8bit", "gtFine")),
}

Fit = Callable[[Image.Image, Image.Resampling], Image.Image]


def camvid(split: str, root: str | Path | None = None) -> ImageSet:
    """CamVid road scenes, 240 wide and 180 high: 367 / 101 / 233 frames with its own validation split.

    ``masks`` hold indices into ``classes``, and 11 where the pixel is unlabelled and to be ignored. A frame as a whole
    has no class: its label is 0.
    """
    (archive,) = find("camvid", ARCHIVES["camvid"], root)
    part = {"train": "train", "validation": "val", "test": "test"}[split]

    def build() -> Decoded:
        frames: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name, content in members(verify(archive, data_folder(root))):
            place = PurePosixPath(name)
            if place.parent.name == part:
                frames[place.stem] = pixels(Image.open(io.BytesIO(content)))
            elif place.parent.name == f"{part}annot":
                masks[place.stem] = torch.from_numpy(np.array(Image.open(io.BytesIO(content))))
        if frames.keys() != masks.keys() or not frames:
            raise DataError(f"{archive.name}: frames and annotations of {part} do not correspond")
        names = sorted(frames)
        tensors = {"images": torch.stack([frames[n] for n in names]), "masks": torch.stack([masks[n] for n in names])}
        return tensors, list(CAMVID_CLASSES)

    tensors, classes = cached("camvid", [archive.checksum, part], build)
    labels = torch.zeros(len(tensors["images"]), dtype=torch.int64)
    return ImageSet(tensors["images"], labels, tuple(classes), "CamVid", tensors["masks"])


def voc2012(split: str, root: str | Path | None = None, size: int = 256) -> ImageSet:
    """PASCAL VOC 2012, segmentation: 1,318 / 146 / 1,449 middle squares, resized to ``size`` pixels.

    Read from ``VOCdevkit/VOC2012`` as the official archive unpacks. The annotations of the official test images are
    not public: test is the official list ``val``, validation a tenth of ``train``. ``masks`` hold the indices of the
    palette, 0 background and 1 to 20 the classes, and 255 around objects, to be ignored (Everingham et al.,
    development kit of 2012); they are resized to the nearest pixel. The label of every image is 0.
    """
    _check("voc2012", size)
    place = find_folder("voc2012", root)
    part = _official(split)
    listed = place / "ImageSets/Segmentation" / f"{part}.txt"
    try:
        names = listed.read_text().split()
    except OSError as error:
        raise DataError(f"voc2012: cannot read the list {listed} ({error.strerror})") from error
    pairs = [(place / "JPEGImages" / f"{n}.jpg", place / "SegmentationClass" / f"{n}.png") for n in names]
    meaning = {index: index for index in (*range(len(VOC_CLASSES)), IGNORE["voc2012"])}
    fit = lambda image, how: square(size, how)(image)  # noqa: E731
    tensors, classes = _kept("voc2012", pairs, [part, size], meaning, VOC_CLASSES, fit)
    return cut(tensors, classes, split, "PASCAL VOC 2012")


def cityscapes(split: str, root: str | Path | None = None, size: int = 256) -> ImageSet:
    """Cityscapes, fine annotations: 2,678 / 297 / 500 frames of ``size`` rows and twice as many columns, 19 classes.

    Read from ``leftImg8bit`` and ``gtFine`` in the folder ``cityscapes``, or in ``root`` itself. The annotations of the
    official test cities are not public: test is the official ``val``, validation a tenth of ``train``. ``masks`` hold
    the 19 classes of the benchmark, made from the ids of the files ``*_labelIds.png``; all other ids are 255, to be
    ignored (``labels.py`` of the authors' scripts, as torchvision lists it). They are resized to the nearest pixel. The
    label of every frame is 0.
    """
    with extra():
        from torchvision.datasets import Cityscapes

    _check("cityscapes", size)
    place = find_folder("cityscapes", root)
    part = _official(split)
    frames = _by_name(place / "leftImg8bit" / part, "_leftImg8bit.png")
    annotations = _by_name(place / "gtFine" / part, "_gtFine_labelIds.png")
    if frames.keys() != annotations.keys():
        alone = sorted(frames.keys() ^ annotations.keys())[0]
        raise DataError(f"cityscapes: {alone} of {part} is not both in leftImg8bit and in gtFine; unpack both archives")
    known = [entry for entry in Cityscapes.classes if entry.id >= 0]
    counted = sorted((entry for entry in known if 0 <= entry.train_id < 255), key=lambda entry: entry.train_id)
    meaning = {entry.id: IGNORE["cityscapes"] for entry in known} | {entry.id: entry.train_id for entry in counted}
    tensors, classes = _kept(
        "cityscapes",
        [(frames[name], annotations[name]) for name in sorted(frames)],
        [part, size],
        meaning,
        tuple(entry.name for entry in counted),
        lambda image, how: image.resize((2 * size, size), how),
    )
    return cut(tensors, classes, split, "Cityscapes")


def find_folder(name: str, root: str | Path | None = None) -> Path:
    """The folder of a data set of ``FOLDERS``: in ``root`` (default: ``ALIASING_DATA``), or that itself.

    Raises ``DataError`` with what was looked for and where.
    """
    usual, parts = FOLDERS[name]
    places = data_folder(root).absolute() / usual, data_folder(root).absolute()
    for place in places:
        if all((place / part).is_dir() for part in parts):
            return place
    raise DataError(
        f"{name}: looked for the folders {', '.join(parts)} in {places[0]} and in {places[1]} and did not find them; "
        "unpack what its authors give out (data/README.md) there, or set ALIASING_DATA to the folder that has it"
    )


def _official(split: str) -> str:
    """The official part that a split is cut from."""
    return "val" if part_of(split) == "test" else "train"


def _check(name: str, size: int) -> None:
    if size < 1:
        raise UsageError(f"{name}: size must be at least 1 pixel, got {size}")


def _by_name(folder: Path, ending: str) -> dict[str, Path]:
    return {path.name.removesuffix(ending): path for path in folder.glob(f"*/*{ending}")}


def _kept(
    name: str,
    pairs: list[tuple[Path, Path]],
    options: list[str | int],
    meaning: dict[int, int],
    classes: tuple[str, ...],
    fit: Fit,
) -> tuple[dict[str, Tensor], list[str]]:
    """Images, masks and labels of (image, annotation) files, from the decoded copy where there is one."""
    if not pairs:
        raise DataError(f"{name}: no image is listed for {options[0]}; is it unpacked completely?")

    def build() -> Decoded:
        images = torch.stack([pixels(fit(_opened(path).convert("RGB"), Image.Resampling.BICUBIC)) for path, _ in pairs])
        masks = torch.stack([_mask(path, frame, meaning, fit) for frame, path in pairs])
        labels = torch.zeros(len(images), dtype=torch.int64)
        return {"images": images, "masks": masks, "labels": labels}, list(classes)

    # Nobody publishes sums of the single files; their names and lengths tell copies apart.
    files = [[path.name, _length(path)] for pair in pairs for path in pair]
    return cached(name, [files, options], build)


def _mask(path: Path, frame: Path, meaning: dict[int, int], fit: Fit) -> Tensor:
    """Classes uint8 (H, W) from the values of an annotation."""
    image = _opened(path)
    if image.mode not in ("L", "P"):
        raise DataError(f"{path} holds colours ({image.mode}); expected one number a pixel, as in the official release")
    if image.size != (size := _opened(frame).size):
        raise DataError(f"{path} is {image.size} pixels large, but its image {size}")
    values = np.array(image)
    if strange := set(np.unique(values).tolist()) - meaning.keys():
        raise DataError(
            f"{path} holds the value {min(strange)}, which stands for no class; is it the official release?"
        )
    table = np.zeros(256, dtype=np.uint8)
    table[list(meaning)] = list(meaning.values())
    return torch.from_numpy(np.array(fit(Image.fromarray(table[values]), Image.Resampling.NEAREST)))


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except OSError as error:
        raise DataError(f"{path} is not a readable image: {error}") from error


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} is missing ({error.strerror}); is the data set unpacked completely?") from error
