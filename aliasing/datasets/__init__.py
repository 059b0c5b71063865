"""Data sets, loaded to bytes in memory where they fit: procedural shapes, and photographs from public archives."""

from collections.abc import Callable, Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, UsageError, one_of
from ..options import arguments, check_options, defaults, filled
from . import characters, photographs, shapes
from .archives import ARCHIVES, cache_folder, data_folder, download, find, verify
from .image_files import ImageFiles, listing
from .imageset import SPLITS, ImageSet

__all__ = ["CATALOGUE", "SPLITS", "Entry", "ImageFiles", "ImageSet", "cache_folder", "data_folder", "fetch",
           "load", "pictures", "resolved"]  # fmt: skip


class Entry(NamedTuple):
    """A data set: the function that loads a split of it, and who made it. Its terms of use are in data/README.md."""

    function: Callable[..., ImageSet | ImageFiles]
    source: str

    @property
    def description(self) -> str:
        """The data set in one line, the first of the function's docstring."""
        return cleandoc(self.function.__doc__ or "").partition("\n")[0].removesuffix(".")

    @property
    def options(self) -> list[str]:
        """Names of the options of the function."""
        return [name for name in arguments(self.function) if name not in ("split", "root")]


_IMAGENET = "Deng et al., CVPR 2009"
CATALOGUE: dict[str, Entry] = {
    "shapes": Entry(shapes.load, "this package"),
    "glyphs": Entry(characters.glyphs, "this package"),
    "cifar10": Entry(photographs.cifar10, "Krizhevsky, Learning multiple layers of features from tiny images, 2009"),
    "imagenette": Entry(
        photographs.imagenette, f"Howard, fastai/imagenette, version 2; images of ImageNet ({_IMAGENET})"
    ),
    "imagenet-val-500": Entry(photographs.imagenet_val_500, _IMAGENET),
    "imagenet-sample-1000": Entry(photographs.imagenet_sample_1000, f"{_IMAGENET}; collected by E. Schwartz"),
    "tiny-imagenet-100": Entry(
        photographs.tiny_imagenet_100, f"Stanford CS231n, Tiny ImageNet; images of ImageNet ({_IMAGENET})"
    ),
    "omniglot": Entry(characters.omniglot, "Lake, Salakhutdinov and Tenenbaum, Science 350, 2015"),
    "camvid": Entry(
        photographs.camvid, "Brostow, Fauqueur and Cipolla, Pattern Recognition Letters 30, 2009; split of SegNet"
    ),
    "folder": Entry(photographs.folder, "you"),
}


def _entry(name: str) -> Entry:
    return CATALOGUE[one_of("data set", name, CATALOGUE)]


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
    entry = _entry(name)
    one_of("split", split, SPLITS)
    if archives is not None and name not in ARCHIVES:
        raise UsageError(f"{name} has no archives, got {archives!r}; leave them out")
    if archives is not None and list(archives) != (there := [archive.checksum for archive in find(name, root)]):
        raise DataError(
            f"{name}: expected the archives {', '.join(archives)}, found {', '.join(there)} in {data_folder(root)}, "
            "another form of the same data set; numbers of the two must not be mixed"
        )
    check_options(name, entry.function, entry.options, options)
    most = 2**32 // len(SPLITS) - 1  # a generator has 32 bits, for seed and split
    if not 0 <= options.get("seed", 0) <= most:
        raise UsageError(f"{name}: seed must be 0 to {most}, got {options['seed']}")
    if "root" in arguments(entry.function):
        options["root"] = root
    return entry.function(split, **options)


def resolved(name: str, **options: Any) -> dict[str, Any]:
    """``name`` and all options of ``load``, those not given at their defaults; and the checksums of its archives.

    They are those of the form of the data set that is there; where none is, of the form that published records were
    made from.
    """
    entry = _entry(name)
    known = entry.options
    if isinstance(options.get("root"), Path):
        options["root"] = str(options["root"])  # as JSON has it
    given = {option: value for option, value in defaults(entry.function).items() if option in known}
    if name in ARCHIVES and "archives" not in options:
        try:
            form = find(name, options.get("root"))
        except DataError:
            form = ARCHIVES[name][-1]
        given["archives"] = [archive.checksum for archive in form]
    return {"name": name} | filled(given, options)


def pictures(dataset: Mapping[str, Any]) -> dict[str, str]:
    """What tells the pictures of a ``folder`` from others, as its name and options do not: ``{"pictures": sum}``.

    It belongs into whatever is kept of a run. Nothing for other sets, and where no picture is.
    """
    own = listing(data_folder(dataset.get("root"))) if dataset["name"] == "folder" else None
    return {"pictures": own} if own else {}


def fetch(name: str, root: str | Path | None = None) -> Path:
    """Make sure that a data set is there and undamaged, downloading it where that is possible; returns its folder.

    Archives are read as they are, so nothing is unpacked.

    Raises:
        UsageError: an unknown name.
        DataError: an archive that is damaged, or missing and not to be downloaded.
    """
    _entry(name)
    place = data_folder(root)
    if name not in ARCHIVES:  # shapes and glyphs are drawn when asked for; a folder is looked at by loading it
        return place
    try:
        form = find(name, root)
    except DataError:
        form = next((form for form in ARCHIVES[name] if all(archive.url for archive in form)), ())
        if not form:
            raise
        for archive in form:
            download(name, archive, place)
    for archive in form:
        verify(archive, place)
    return place
