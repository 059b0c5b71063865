"""Data sets, loaded to bytes in memory where they fit: procedural shapes, and photographs from public archives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError, unknown
from ..options import check_types
from . import characters, photographs, segmented, shapes
from .archives import Archive, cache_folder, data_folder, download, find, verify
from .catalogue import ARCHIVES, CATALOGUE, NAMES, Entry
from .files import ImageFiles
from .imageset import SPLITS, ImageSet, check_split

__all__ = [
    "CATALOGUE",
    "NAMES",
    "SPLITS",
    "Entry",
    "ImageFiles",
    "ImageSet",
    "cache_folder",
    "data_folder",
    "fetch",
    "load",
    "resolved",
]

_DRAWN: dict[str, Callable[..., ImageSet]] = {"shapes": shapes.load, "glyphs": characters.glyphs}
_FROM_FILES: dict[str, Callable[..., ImageSet | ImageFiles]] = {
    "cifar10": photographs.cifar10,
    "imagenette": photographs.imagenette,
    "imagenet-val-500": photographs.imagenet_val_500,
    "imagenet-sample-1000": photographs.imagenet_sample_1000,
    "tiny-imagenet-100": photographs.tiny_imagenet_100,
    "omniglot": characters.omniglot,
    "camvid": segmented.camvid,
    "folder": photographs.folder,
}


def load(
    name: str, split: str, root: str | Path | None = None, archives: Sequence[str] | None = None, **options: Any
) -> ImageSet | ImageFiles:
    """Load the "train", "validation" or "test" split of a data set; ``ImageFiles`` only for a very large folder.

    ``root`` is the folder with the archives (default: ``ALIASING_DATA``, else ``data/downloads``). ``archives``, the
    checksums that ``resolved`` gives, refuses every other form of the data set.
    Options are those of the data set's own function, for example ``photographs.imagenette``.
    Validation is cut from the training images, never from the test set.

    Raises:
        UsageError: an unknown name, split or option.
        DataError: an archive that is missing or damaged; the message says how to mend it.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    check_split(split)
    if archives is not None and list(archives) != (there := _checksums(find(name, ARCHIVES[name], root))):
        raise DataError(
            f"{name}: expected the archives {', '.join(archives)}, found {', '.join(there)} in {data_folder(root)}, "
            "another form of the same data set; numbers of the two must not be mixed"
        )
    function: Callable[..., ImageSet | ImageFiles] = _DRAWN.get(name) or _FROM_FILES[name]
    known = [option for option in signature(function).parameters if option not in ("split", "root")]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known) if known else UsageError(f"{name} has no options")
    check_types(name, function, options)
    if not 0 <= options.get("seed", 0) < 2**32:
        raise UsageError(f"{name}: seed must be 0 to 2^32 - 1, got {options['seed']}")
    return function(split, **options) if name in _DRAWN else function(split, root, **options)


def _checksums(form: Iterable[Archive]) -> list[str]:
    return [archive.checksum for archive in form]


def resolved(name: str, **options: Any) -> dict[str, Any]:
    """``name`` and all options of ``load``, those not given at their defaults; and the checksums of its archives.

    They are those of the form of the data set that is there; where none is, of the form that published records were
    made from.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    function: Callable[..., ImageSet | ImageFiles] = _DRAWN.get(name) or _FROM_FILES[name]
    defaults = {
        key: value.default for key, value in signature(function).parameters.items() if key not in ("split", "root")
    }
    if name in ARCHIVES and "archives" not in options:
        try:
            form = find(name, ARCHIVES[name])
        except DataError:
            form = ARCHIVES[name][-1]
        defaults["archives"] = _checksums(form)
    return {"name": name} | defaults | options


def fetch(name: str, root: str | Path | None = None) -> Path:
    """Make sure that a data set is there and undamaged, downloading it where that is possible; returns its folder.

    Archives are read as they are, so nothing is unpacked.

    Raises:
        UsageError: an unknown name.
        DataError: an archive that is damaged, or an archive or folder that is missing and not to be downloaded.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    place = data_folder(root)
    if name not in ARCHIVES:  # shapes and glyphs are drawn when asked for; a folder is looked at by loading it
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
