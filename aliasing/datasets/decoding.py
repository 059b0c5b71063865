"""From files in folders of classes to bytes in memory, and from there to splits."""

import base64
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, extra
from .archives import members
from .imageset import ImageSet

# What Pillow raises for files that it cannot read; SyntaxError for some broken PNG files.
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
Decoded = tuple[dict[str, Tensor], list[str]]  # tensors, names of the classes


def part_of(split: str) -> str:
    """The part of an archive a split is cut from."""
    return "test" if split == "test" else "train"


def files_of(path: Path, part: str) -> Iterator[tuple[str, str, bytes]]:
    """(class, name, content) of the files in ``.../part/CLASS/FILE`` of an archive."""
    for name, content in members(path):
        parts = PurePosixPath(name).parts
        if len(parts) >= 3 and parts[-3] == part:
            yield parts[-2], name, content


def decode(
    files: Iterable[tuple[str, str, bytes]],
    transform: Callable[[Image.Image], Image.Image] = lambda image: image,
    classes: list[str] | None = None,
) -> Decoded:
    """Decode files of (class, name, content); their order and that of the classes are those of ``arranged``."""
    found, images = [], []
    for of_class, name, content in files:
        try:
            images.append(pixels(transform(Image.open(io.BytesIO(content)))))
        except BROKEN as error:
            raise DataError(f"{name} is not a readable image: {error}") from error
        found.append((name, of_class))
    order, labels, classes = arranged(found, classes)
    return {"images": torch.stack([images[i] for i in order]), "labels": labels}, classes


def arranged(files: list[tuple[str, str]], classes: list[str] | None = None) -> tuple[list[int], Tensor, list[str]]:
    """The order in which files of (name, class) come, their labels (N,) in that order, and the classes.

    The order is random and fixed, whatever that of storage, so that the first few are a fair sample; the classes are
    sorted where no order is given.
    """
    if not files:
        raise DataError("no image found where the data set should have some; is it laid out as folders of classes?")
    by_name = sorted(range(len(files)), key=lambda i: files[i][0])
    order = [by_name[i] for i in torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()]
    there = {of_class for _, of_class in files}
    classes = classes or sorted(there)
    if odd := there.difference(classes):
        raise DataError(f"{min(odd)!r} is none of the classes, which are {', '.join(classes[:9])}")
    index = {of_class: i for i, of_class in enumerate(classes)}
    return order, torch.tensor([index[files[i][1]] for i in order]), classes


def check_regular(path: str | os.PathLike) -> None:
    """Raise ``OSError`` for what is no file: a pipe, or a device, may never answer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{os.fspath(path)} is a pipe, a device or the like, and no file")


def opened(path: str | os.PathLike) -> Image.Image:
    """``Image.open`` of a file alone."""
    check_regular(path)
    return Image.open(path)


def colour(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue; Pillow itself clips deeper pixels, which makes most of them white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """The middle square, resized to ``size`` with an anti-aliasing filter."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if image.mode not in ("L", "RGB"):
        image = colour(image)
    return image.resize((size, size), Image.Resampling.BICUBIC)


def random_part(image: Image.Image, size: int, seed: int) -> Image.Image:
    """Torchvision's ``RandomResizedCrop`` with the draws that ``seed`` decides: ``size`` pixels high and wide."""
    with extra():
        from torchvision.transforms.v2 import RandomResizedCrop

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torchvision asks for no generator
        return RandomResizedCrop(size)(colour(image))


def pixels(image: Image.Image) -> Tensor:
    """uint8 `(3, H, W)`."""
    return torch.from_numpy(np.array(colour(image))).permute(2, 0, 1).contiguous()


def as_png(image: Tensor, side: int | None = None) -> str:
    """A uint8 image (3, H, W) as a PNG file in base64; at most ``side`` pixels high and wide."""
    picture, stream = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()), io.BytesIO()
    if side is not None:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def whole(tensors: dict[str, Tensor], classes: list[str], name: str) -> ImageSet:
    """All that was decoded as one set."""
    return ImageSet(tensors["images"], tensors["labels"], tuple(classes), name, tensors.get("masks"))


def cut(tensors: dict[str, Tensor], classes: list[str], split: str, name: str) -> ImageSet:
    """A split from the part it is cut from: train and validation share one."""
    part = whole(tensors, classes, name)
    return part if split == "test" else part[dealt(part.labels, split)]


def dealt(labels: Tensor, split: str) -> Tensor:
    """Mask `(N,)` of the images of "train" or "validation", a tenth of every class, the last of a permutation."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for label in labels.unique():
        of_class = order[labels[order] == label]
        chosen[of_class[len(of_class) - len(of_class) // 10 :]] = True
    return chosen if split == "validation" else ~chosen
