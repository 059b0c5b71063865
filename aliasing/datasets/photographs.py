"""Photographs and drawings from public archives, decoded once to bytes."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, UsageError, unknown
from .archives import Archive, cached, data_folder, find, held_out, members, verify
from .imageset import ImageSet

__all__ = ["ARCHIVES", "camvid", "cifar10", "folder", "imagenette", "omniglot", "tiny_imagenet_100"]

_CIFAR10_OFFICIAL = Archive(
    "cifar-10-python.tar.gz",
    "md5:c58f30108f718f92721af3b95e74349a",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
_CIFAR10_JPEG = Archive(
    "cifar10-jpeg.tar.xz", "sha256:e82212b8f8580e3e79f41a32c7db0e6a5b8fb10188d1723b706e150379c98be9"
)
_IMAGENETTE_OFFICIAL = Archive(
    "imagenette2-160.tgz",
    "md5:fe2fc210e6bb7c5664d602c3cd71e612",
    "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
)
_IMAGENETTE_COPY = (
    Archive("imagenette2-160-train.tar.xz", "sha256:95b2fd19b6d2b53bb285a91dfa3350f65e15e6950dae45682b2e47d7e5f51c98"),
    Archive("imagenette2-160-val.tar.xz", "sha256:a731ccfa489175d0b8ba17ac875b807ac3f02ba942eccde3d82f653b1e61b08c"),
)
_TINY = Archive("tiny-imagenet-100.tar.xz", "sha256:a2a7fa861d00e3813f6517cf78e0f8e238d95d30e1201fe1d229a7a3c8120e54")
_CAMVID = Archive("camvid-240.tar.xz", "sha256:e65f18d3312f29434269254c40149bba446ab4c44c5a52ac1825820741dba302")
_OMNIGLOT = (
    Archive("omniglot-small1.zip", "sha256:f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"),
    Archive("omniglot-small2.zip", "sha256:3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f"),
)

# The forms in which a data set is understood, the preferred one first.
ARCHIVES: dict[str, list[tuple[Archive, ...]]] = {
    "cifar10": [(_CIFAR10_OFFICIAL,), (_CIFAR10_JPEG,)],
    "imagenette": [(_IMAGENETTE_OFFICIAL,), _IMAGENETTE_COPY],
    "tiny-imagenet-100": [(_TINY,)],
    "omniglot": [_OMNIGLOT],
    "camvid": [(_CAMVID,)],
}

Decoded = tuple[dict[str, Tensor], list[str]]


def cifar10(split: str, root: str | Path | None = None) -> ImageSet:
    """CIFAR-10, 32x32: 45,000 / 5,000 / 10,000 images.

    Reads the official archive, or a copy in JPEG folders, which the name tells: "CIFAR-10 (JPEG copy)".
    The official batches are pickles; only torchvision opens them, after their checksums were found right.
    """
    (archive,) = find("cifar10", ARCHIVES["cifar10"], root)
    path = data_folder(root)
    part = _part(split)
    if archive is ARCHIVES["cifar10"][0][0]:
        name, build = "CIFAR-10", lambda: _official_cifar10(verify(archive, path), part)
    else:
        name, build = "CIFAR-10 (JPEG copy)", lambda: _by_folder(_files([verify(archive, path)], part), _plain)
    return _cut(*cached("cifar10", [archive.checksum, part], build), split, name)


def _official_cifar10(path: Path, part: str) -> Decoded:
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


def imagenette(split: str, root: str | Path | None = None, size: int = 128) -> ImageSet:
    """Imagenette (ten classes of ImageNet): 8,525 / 944 / 3,925 images, about; ``size`` pixels, at most 160.

    The short side is resized to ``size``, the middle square kept. Test is the official validation folder.
    """
    if not 1 <= size <= 160:
        raise UsageError(f"imagenette: size must be 1 to 160 pixels, got {size}")
    form = find("imagenette", ARCHIVES["imagenette"], root)
    official = form is ARCHIVES["imagenette"][0]
    part = _part(split)
    used = form if official else form[:1] if part == "train" else form[1:]

    def build() -> Decoded:
        paths = [verify(archive, data_folder(root)) for archive in used]
        tensors, wnids = _by_folder(_files(paths, "train" if part == "train" else "val"), _square(size))
        return tensors, [_IMAGENETTE_WORDS.get(wnid, wnid) for wnid in wnids]

    key = [[archive.checksum for archive in used], part, size]
    name = "Imagenette" if official else "Imagenette (resized copy)"
    return _cut(*cached("imagenette", key, build), split, name)


_IMAGENETTE_WORDS = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}

CLASS_GROUPS = {"base": slice(0, 64), "validation": slice(64, 80), "novel": slice(80, 100), "all": slice(0, 100)}


def tiny_imagenet_100(split: str, root: str | Path | None = None, classes: str = "all") -> ImageSet:
    """The first hundred classes of Tiny-ImageNet, 64x64: 360 / 40 / 50 images per class.

    For few-shot work ``classes`` picks the 64 "base", 16 "validation" or 20 "novel" ones; labels then count from 0.
    """
    if classes not in CLASS_GROUPS:
        raise unknown("group of classes", classes, CLASS_GROUPS)
    (archive,) = find("tiny-imagenet-100", ARCHIVES["tiny-imagenet-100"], root)
    part = _part(split)

    def build() -> Decoded:
        path = verify(archive, data_folder(root))
        words = next(content.decode() for name, content in members(path) if name.endswith("words.txt"))
        order = [line.split("\t") for line in words.splitlines()]  # the order that the groups of classes refer to
        files = _files([path], "train" if part == "train" else "val")
        tensors, _ = _by_folder(files, _plain, [wnid for wnid, _ in order])
        return tensors, [word.split(",")[0] for _, word in order]

    whole = _cut(*cached("tiny-imagenet-100", [archive.checksum, part], build), split, "Tiny-ImageNet-100")
    group = range(100)[CLASS_GROUPS[classes]]
    chosen = whole[(whole.labels >= group.start) & (whole.labels < group.stop)]
    return ImageSet(chosen.images, chosen.labels - group.start, whole.classes[group.start : group.stop], whole.name)


def omniglot(split: str, root: str | Path | None = None, size: int = 28) -> ImageSet:
    """Handwritten characters, 20 drawings each, white on black so that padding with zeros adds background.

    The two "small background" sets: train and validation are alphabets of the first, test those of the second that
    the first does not have; every character belongs to one split.
    """
    if not 1 <= size <= 105:
        raise UsageError(f"omniglot: size must be 1 to 105 pixels, got {size}")
    form = find("omniglot", ARCHIVES["omniglot"], root)
    alphabets = {
        "train": ("Balinese", "Early_Aramaic", "Greek", "Korean"),
        "validation": ("Latin",),
        "test": ("Japanese_(katakana)", "Sanskrit", "Tagalog"),
    }[split]
    archive = form[1] if split == "test" else form[0]

    def build() -> Decoded:
        files = (
            ("/".join(PurePosixPath(name).parts[-3:-1]), name, content)
            for name, content in members(verify(archive, data_folder(root)))
            if name.endswith(".png") and PurePosixPath(name).parts[-3] in alphabets
        )
        return _by_folder(files, lambda image: Image.fromarray(255 - np.asarray(_square(size)(image.convert("L")))))

    tensors, classes = cached("omniglot", [archive.checksum, alphabets, size], build)
    return ImageSet(tensors["images"], tensors["labels"], tuple(classes), "Omniglot")


CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign-symbol", "fence", "car", "pedestrian", "bicyclist"),
)


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
                frames[place.stem] = _pixels(Image.open(io.BytesIO(content)))
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


def folder(split: str, root: str | Path | None = None, size: int = 224, per_class: int | None = None) -> ImageSet:
    """Anybody's images as ``root/train/CLASS/*`` and ``root/val/CLASS/*`` (ImageNet's layout), or ``root/CLASS/*``.

    The short side is resized to ``size``, the middle square kept. Validation is cut from ``train``; test is the folder
    ``test``, else ``val``; without any of them every image is for testing. ``per_class`` keeps the first few of each
    class. Everything is held in memory, and nothing is cached.
    """
    place = data_folder(root)
    names = ("train",) if _part(split) == "train" else ("test", "val", "")
    found = next((place / name for name in names if (place / name).is_dir()), None)
    if found is None:
        raise DataError(f"folder: looked for {place.absolute() / names[0]} with a folder of images per class")
    endings = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

    def files() -> Iterator[tuple[str, str, bytes]]:
        for of_class in sorted(path for path in found.iterdir() if path.is_dir()):
            paths = sorted(path for path in of_class.rglob("*") if path.suffix.lower() in endings)
            for path in paths[:per_class]:
                yield of_class.name, str(path), path.read_bytes()

    return _cut(*_by_folder(files(), _square(size)), split, place.absolute().name)


def _part(split: str) -> str:
    """The part of an archive a split is cut from."""
    return "test" if split == "test" else "train"


def _files(paths: list[Path], part: str) -> Iterator[tuple[str, str, bytes]]:
    """(class, name, content) of the files in ``.../part/CLASS/FILE``."""
    for path in paths:
        for name, content in members(path):
            parts = PurePosixPath(name).parts
            if len(parts) >= 3 and parts[-3] == part:
                yield parts[-2], name, content


def _by_folder(
    files: Iterator[tuple[str, str, bytes]],
    transform: Callable[[Image.Image], Image.Image],
    classes: list[str] | None = None,
) -> Decoded:
    """Decode files of (class, name, content); classes are sorted where no order is given.

    Images come in a fixed random order, whatever the order of storage, so that the first few are a fair sample.
    """
    decoded = []
    for of_class, name, content in files:
        try:
            decoded.append((name, of_class, _pixels(transform(Image.open(io.BytesIO(content))))))
        except OSError as error:
            raise DataError(f"{name} is not a readable image: {error}") from error
    if not decoded:
        raise DataError("no image found where the data set should have some; is it laid out as folders of classes?")
    decoded.sort(key=lambda item: item[0])
    order = torch.randperm(len(decoded), generator=torch.Generator().manual_seed(0)).tolist()
    decoded = [decoded[i] for i in order]
    classes = classes or sorted({of_class for _, of_class, _ in decoded})
    index = {of_class: i for i, of_class in enumerate(classes)}
    labels = torch.tensor([index[of_class] for _, of_class, _ in decoded])
    return {"images": torch.stack([pixels for *_, pixels in decoded]), "labels": labels}, classes


def _plain(image: Image.Image) -> Image.Image:
    return image


def _square(size: int) -> Callable[[Image.Image], Image.Image]:
    """Resize the short side to ``size`` with an anti-aliasing filter, keep the middle square."""

    def transform(image: Image.Image) -> Image.Image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        if image.mode not in ("L", "RGB"):
            image = image.convert("RGB")
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box)

    return transform


def _pixels(image: Image.Image) -> Tensor:
    """uint8 `(3, H, W)`."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def _cut(tensors: dict[str, Tensor], classes: list[str], split: str, name: str) -> ImageSet:
    """A split from the part it is cut from: train and validation share one."""
    whole = ImageSet(tensors["images"], tensors["labels"], tuple(classes), name)
    if split == "test":
        return whole
    validation = held_out(whole.labels)
    return whole[validation if split == "validation" else ~validation]
