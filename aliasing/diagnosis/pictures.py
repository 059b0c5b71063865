"""Any folder of pictures, as squares that leave room for crop shifts."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..datasets.decoding import BROKEN, opened, pixels, square
from ..errors import DataError, UsageError, at_least

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Pictures(NamedTuple):
    """Pictures of one size."""

    images: Tensor  # (N, 3, size + 2 margin, size + 2 margin), uint8
    names: list[str]  # paths relative to the folder
    skipped: dict[str, str]  # what could not be read, and why
    margin: int  # pixels on each side beyond the network's input: how far crop shifts reach
    enlarged: int  # how many were smaller and had to be enlarged, which leaves nothing in them that could alias


_UPRIGHT = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
# By the orientation that a camera notes.
_TURNS: dict[Any, Image.Transpose] = {note: Image.Transpose[name] for note, name in enumerate(_UPRIGHT, 2)}
_DEEP = [(mode, (16,), 1) for mode in ("I;16", "I;16B", "I;16L")]  # deep TIFF files that are understood
LEAST = 50  # pictures without which there is nothing to learn from
SMALLEST = 8  # pixels of a window's side
_HEADERS = 1000  # pictures that tell how large those of a folder are


def margin_of(size: int) -> int:
    """A fourteenth of the input's side: 16 pixels around 224, so that the window is taken from 256."""
    return max(1, round(size / 14))


def window(size: int, usual: int) -> int:
    """The side of windows that can move in pictures of such a short side: ``size``, or less; 0 where none can."""
    if usual < SMALLEST + 2:
        return 0
    return size if usual >= size + 2 else max(SMALLEST, min(usual - 2, usual * 9 // 10))


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders in ``folder`` that are not hidden, each once, then what links lead to; and the files in each."""
    seen, roots = set(), [folder]
    for root in roots:  # which grow
        for place, folders, names in os.walk(root):
            if (real := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            roots += [path for path in map(Path(place).joinpath, folders) if path.is_symlink()]
            yield Path(place), names


def find(folder: str | Path) -> list[Path]:
    """Every picture below ``folder``, in an order that is random, and always the same; what is hidden is none.

    Raises:
        UsageError: there is no such folder.
        DataError: it holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"images must be a folder of pictures, and {str(folder)!r} is none")
    paths = [place / name for place, names in _walk(folder) for name in names]
    found = sorted(path for path in paths if path.suffix.lower() in _ENDINGS and not path.name.startswith("."))
    if not found:
        raise DataError(
            f"no picture in {folder} or its subfolders; files ending in {', '.join(sorted(_ENDINGS))} count"
        )
    return [found[i] for i in torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()]


def usual(found: list[Path]) -> int:
    """The short side in pixels that all but a twentieth of the pictures found reach; 0 if none has a header."""
    sides = []
    for path in found[:_HEADERS]:
        with suppress(*BROKEN), opened(path) as image:  # reading the picture will say why
            sides.append(min(image.size))
    return sorted(sides)[len(sides) // 20] if sides else 0


def read(
    folder: str | Path,
    size: int,
    count: int | None = None,
    margin: int | None = None,
    progress: bool = False,
    paths: list[Path] | None = None,
) -> Pictures:
    """Up to ``count`` pictures of ``folder``: short side resized to ``size`` plus twice the margin, middle square kept.

    Which ones is a fixed random choice. Orientation notes of cameras are obeyed, greyscale, CMYK and 16 bits become
    RGB bytes, films show their first picture. Files that cannot be read are listed, and the next ones take their place.
    ``progress`` draws a bar on standard error; ``paths`` are what ``find`` gave, if it was asked before.

    Raises:
        DataError: none of the files can be read.
    """
    at_least("count", count, 1)
    margin = margin_of(size) if margin is None else margin
    images, names, skipped, enlarged = [], [], {}, 0
    paths = find(folder) if paths is None else paths
    total = min(len(paths), count or len(paths))
    bar = tqdm(total=total, desc=f"reading {folder}", leave=False, unit="", disable=not progress, file=sys.stderr)
    for path in paths:
        bar.update()
        name = os.fsencode(path.relative_to(folder)).decode(errors="replace")  # of whatever encoding the disk has
        try:
            image, small = _decoded(path, size + 2 * margin)
        except BROKEN as error:
            skipped[name] = str(error).replace(str(path), path.name) or type(error).__name__
            continue
        images.append(image)
        names.append(name)
        enlarged += small
        if len(images) == count:
            break
    bar.close()
    if not images:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"none of the {len(skipped)} pictures in {folder} can be read; {name}: {reason}")
    return Pictures(torch.stack(images), names, skipped, margin, enlarged)


def _decoded(path: Path, side: int) -> tuple[Tensor, bool]:
    """The pixels (3, side, side) of a file, and whether it had to be enlarged."""
    with warnings.catch_warnings(action="ignore"), opened(path) as image:  # odd metadata is no reason to stop
        # Of such numbers only PNG and PPM say which is white, whose 16 bits are mode "I" to some Pillows.
        # Of TIFF, it takes 12 bits for 16 and overlooks that white may be 0: tags 258 and 262.
        tags = getattr(image, "tag_v2", {}) if image.mode.startswith("I") else {}
        if image.mode == "F" or (tags and (image.mode, tags.get(258), tags.get(262, 0)) not in _DEEP):
            raise ValueError("which of its numbers is white is not known; save it with 8 or 16 bits")
        upright = _upright(image)
        return pixels(square(upright, side)), min(upright.size) < side


def _upright(image: Image.Image) -> Image.Image:
    """As the camera was held; ``ImageOps.exif_transpose`` writes all notes anew, which fails for odd ones."""
    image.load()  # some formats keep them behind the pixels
    turn = _TURNS.get(image.getexif().get(0x0112))
    return image if turn is None else image.transpose(turn)
