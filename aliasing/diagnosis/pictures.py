"""Any folder of pictures, as squares that leave room for crop shifts."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..datasets.decoding import pixels, square
from ..errors import DataError, UsageError, at_least

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Pictures(NamedTuple):
    """Pictures of one size."""

    images: Tensor  # (N, 3, size + 2 margin, size + 2 margin), uint8
    names: list[str]  # paths relative to the folder
    skipped: dict[str, str]  # what could not be read, and why
    margin: int  # pixels on each side beyond the network's input: how far crop shifts reach
    sides: list[int]  # short sides of their files in pixels

    @property
    def enlarged(self) -> int:
        """How many were smaller and had to be enlarged, which leaves nothing in them that could alias."""
        return sum(side < self.images.shape[-1] for side in self.sides)


LEAST = 50  # pictures without which there is nothing to learn from


def margin_of(size: int) -> int:
    """A fourteenth of the input's side: 16 pixels around 224, so that the window is taken from 256."""
    return max(1, round(size / 14))


def usual(sides: Sequence[int]) -> int:
    """The short side in pixels that all but a twentieth of the pictures reach."""
    return sorted(sides)[len(sides) // 20]


def window(size: int, sides: Sequence[int]) -> int:
    """The side of windows that can move in pictures of such short ``sides``: ``size``, or less if they are small."""
    return size if usual(sides) >= size + 2 else max(8, usual(sides) * 9 // 10)


def find(folder: str | Path) -> list[Path]:
    """Every picture below ``folder``, sorted by path.

    Raises:
        UsageError: there is no such folder.
        DataError: it holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"images must be a folder of pictures, and {str(folder)!r} is none")
    paths = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    found = sorted(path for path in paths if path.suffix.lower() in _ENDINGS and not path.name.startswith("."))
    if not found:
        raise DataError(
            f"no picture in {folder} or its subfolders; files ending in {', '.join(sorted(_ENDINGS))} count"
        )
    return found


def sides(folder: str | Path) -> Iterator[int]:
    """The short sides in pixels of the pictures in ``folder``, as far as their headers tell."""
    for path in find(folder):
        try:
            with Image.open(path) as image:
                yield min(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # reading the picture will say why


def read(folder: str | Path, size: int, count: int | None = None, margin: int | None = None) -> Pictures:
    """Up to ``count`` pictures of ``folder``: short side resized to ``size`` plus twice the margin, middle square kept.

    Which ones is a fixed random choice. Orientation notes of cameras are obeyed, greyscale, CMYK and 16 bits become
    RGB bytes, films show their first picture. Files that cannot be read are listed, and the next ones take their place.

    Raises:
        DataError: none of the files can be read.
    """
    at_least("count", count, 1)
    paths, margin = find(folder), margin_of(size) if margin is None else margin
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).tolist()
    images, names, skipped, sides = [], [], {}, []
    for path, image, short in _decoded([paths[i] for i in order], size + 2 * margin):
        name = str(path.relative_to(folder))
        if isinstance(image, Tensor):
            images.append(image)
            names.append(name)
            sides.append(short)
        else:
            skipped[name] = image
        if len(images) == count:
            break
    if not images:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"none of the {len(skipped)} pictures in {folder} can be read; {name}: {reason}")
    return Pictures(torch.stack(images), names, skipped, margin, sides)


def _decoded(paths: list[Path], side: int) -> Iterator[tuple[Path, Tensor | str, int]]:
    """Each path with its pixels (3, side, side), or the reason why there are none, and the short side of its file."""
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd metadata is no reason to stop
                with Image.open(path) as image:
                    upright = ImageOps.exif_transpose(image)
                    yield path, pixels(square(_colour(upright), side)), min(upright.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            # Pillow raises SyntaxError for some broken PNG files.
            yield path, str(error).replace(str(path), path.name) or type(error).__name__, 0


def _colour(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue; Pillow itself clips deeper pixels, which makes most of them white.

    Raises:
        ValueError: the pixels are numbers whose white is not known.
    """
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"pixels from {values.min():g} to {values.max():g} are no picture; save it with 8 or 16 bits"
            )
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    return image.convert("RGB")
