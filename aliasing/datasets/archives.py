"""Where data sets lie: finding an archive, checking its sum, reading its members, keeping a decoded copy."""

import csv
import hashlib
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from torch import Tensor

from ..clone import home
from ..errors import DamagedError, DataError, StorageError
from ..files import check_file, read_tensors, set_aside, write_tensors

DECODING = 1  # raised whenever images would be decoded to other bytes, so that older copies are left alone


class Archive(NamedTuple):
    """A file known by its checksum: ``checksum`` is "sha256:..." or, where only that is published, "md5:..."."""

    name: str
    checksum: str
    url: str | None = None


# The forms in which a data set is understood, the preferred one first.
ARCHIVES: dict[str, list[tuple[Archive, ...]]] = {}
with Path(__file__).with_suffix(".csv").open(newline="", encoding="utf-8") as _file:
    for (_dataset, _), _rows in groupby(csv.DictReader(_file), itemgetter("dataset", "form")):
        _form = tuple(Archive(row["name"], row["checksum"], row["url"] or None) for row in _rows)
        ARCHIVES.setdefault(_dataset, []).append(_form)


def data_folder(root: str | Path | None = None) -> Path:
    """The folder with the archives: ``root``, else ``ALIASING_DATA``, else ``data/downloads``; it may be read-only.

    What was read from it is kept under its absolute path: a relative one is another folder after a ``chdir``.
    """
    return Path(root or os.environ.get("ALIASING_DATA") or home() / "data/downloads").absolute()


def cache_folder() -> Path:
    """The folder for decoded copies: ``ALIASING_CACHE``, else ``data/cache``."""
    return Path(os.environ.get("ALIASING_CACHE") or home() / "data/cache")


def find(dataset: str, root: str | Path | None = None) -> tuple[Archive, ...]:
    """The first of the forms of a data set whose archives are all in the folder.

    Raises ``DataError`` with what was looked for, where, and what to do.
    """
    folder, forms = data_folder(root), ARCHIVES[dataset]
    for form in forms:
        if all((folder / archive.name).is_file() for archive in form):
            return form
    wanted = " or ".join(" with ".join(archive.name for archive in form) for form in forms)
    fetchable = any(archive.url for form in forms for archive in form)
    remedy = (
        f"run `aliasing data {dataset}` where there is a network, or set ALIASING_DATA to the folder that has it"
        if fetchable
        else f"put it there (data/README.md says where it comes from), or set ALIASING_DATA to the folder that has it, "
        f"and check with `aliasing data {dataset}`"
    )
    raise DataError(f"{dataset}: looked for {wanted} in {folder} and did not find it; {remedy}")


def verify(archive: Archive, root: str | Path | None = None) -> Path:
    """The path of an archive whose checksum is right; raises ``DataError`` naming both sums."""
    path = data_folder(root) / archive.name
    check_file(path, archive.checksum, "delete it and fetch it again")
    return path


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a tar or zip archive, in order of storage, unpacking nothing to disk."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as packed:
                for name in packed.namelist():
                    if not name.endswith("/"):
                        yield name, packed.read(name)
        else:
            with tarfile.open(path, "r|*") as stream:
                for member in stream:
                    file = stream.extractfile(member) if member.isfile() else None
                    if file is not None:
                        yield member.name, file.read()
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); delete it and fetch it again") from error


def download(dataset: str, archive: Archive, folder: Path, timeout: float = 60.0) -> None:
    """Download an archive and check it; ``timeout`` is in seconds without any answer."""
    if archive.url is None:
        raise DataError(f"{dataset}: {archive.name} has no address to download from; data/README.md says more")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            request = Request(archive.url, headers={"User-Agent": "aliasing"})  # some hosts refuse Python's own name
            with urlopen(request, timeout=timeout) as answer, (Path(partial) / archive.name).open("wb") as file:
                shutil.copyfileobj(answer, file, 2**20)
            verify(archive, Path(partial))
            os.replace(Path(partial) / archive.name, folder / archive.name)
    except OSError as error:
        raise DataError(
            f"{dataset}: cannot download {archive.url} to {folder.absolute()} ({error}); without a network, put "
            f"{archive.name} there by hand or set ALIASING_DATA to a folder that has it"
        ) from error


def cached(name: str, key: object, build: Callable[[], tuple[dict[str, Tensor], list[str]]]) -> tuple[dict, list[str]]:
    """Tensors and class names from the decoded copy, which ``build`` makes when there is none.

    ``key`` is everything the copy depends on, as JSON: checksums and options. The copy appears whole or not at all;
    a damaged one is named, set aside and made again.
    """
    digest = hashlib.sha256(json.dumps([DECODING, key]).encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{digest}.safetensors"
    try:
        try:
            return read_tensors(path, "classes")
        except DamagedError as error:
            warnings.warn(f"{error}; kept as {set_aside(path)}, and decoded again", stacklevel=2)
        except FileNotFoundError:
            pass
        tensors, classes = build()
        write_tensors(path, tensors, classes=classes)
    except StorageError as error:
        raise DataError(
            f"cannot keep the decoded copy of {name}: {error}, such as one that ALIASING_CACHE names"
        ) from error
    return tensors, classes
