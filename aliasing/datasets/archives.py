"""Where data sets lie: finding an archive, checking its sum, reading its members, keeping a decoded copy.

``ALIASING_DATA`` names the folder with the archives (default ``data/downloads``); it may be read-only.
``ALIASING_CACHE`` names the folder for decoded copies (default ``data/cache``). Both defaults lie in the project's
folder when the package runs from a clone, in the working directory otherwise.
"""

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
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

from torch import Tensor

from ..errors import DamagedError, DataError, StorageError
from ..files import read_tensors, set_aside, write_tensors

DECODING = 1  # raised whenever images would be decoded to other bytes, so that older copies are left alone


@dataclass(frozen=True)
class Archive:
    """A file known by its checksum: ``checksum`` is "sha256:..." or, where only that is published, "md5:..."."""

    name: str
    checksum: str
    url: str | None = None


# One file a line: data set, number of the form it belongs to (the preferred first), name, checksum, address if any.
_FILES = """\
cifar10 1 cifar-10-python.tar.gz c58f30108f718f92721af3b95e74349a https://www.cs.toronto.edu/~kriz
cifar10 2 cifar10-jpeg.tar.xz e82212b8f8580e3e79f41a32c7db0e6a5b8fb10188d1723b706e150379c98be9
imagenette 1 imagenette2-160.tgz e793b78cc4c9e9a4ccc0c1155377a412 https://s3.amazonaws.com/fast-ai-imageclas
imagenette 2 imagenette2-160-train.tar.xz 95b2fd19b6d2b53bb285a91dfa3350f65e15e6950dae45682b2e47d7e5f51c98
imagenette 2 imagenette2-160-val.tar.xz a731ccfa489175d0b8ba17ac875b807ac3f02ba942eccde3d82f653b1e61b08c
imagenet-val-500 1 imagenet-val-500.tar.xz 180aff1c65138cd7f69ddc5209d69b129152deb79fad7b8a15ca10dacf5582bf
imagenet-sample-1000 1 imagenet-sample-1000.tar.xz c5a9e2e9641b22fbe57efb0703c7bd22b3c278fb7fb4dd9848f6057d19681815
tiny-imagenet-100 1 tiny-imagenet-100.tar.xz a2a7fa861d00e3813f6517cf78e0f8e238d95d30e1201fe1d229a7a3c8120e54
omniglot 1 omniglot-small1.zip f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4
omniglot 1 omniglot-small2.zip 3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f
camvid 1 camvid-240.tar.xz e65f18d3312f29434269254c40149bba446ab4c44c5a52ac1825820741dba302
"""
# The forms in which a data set is understood, the preferred one first.
ARCHIVES: dict[str, list[tuple[Archive, ...]]] = {}
for _line in _FILES.splitlines():
    _dataset, _form, _name, _sum, *_where = _line.split()
    _checksum = f"{'md5' if len(_sum) == 32 else 'sha256'}:{_sum}"
    _archive = Archive(_name, _checksum, f"{_where[0]}/{_name}" if _where else None)
    _forms = ARCHIVES.setdefault(_dataset, [])
    if len(_forms) < int(_form):
        _forms.append(())
    _forms[-1] += (_archive,)

_CLONE = Path(__file__).resolve().parents[2]
_HOME = _CLONE if (_CLONE / "pyproject.toml").is_file() else Path()


def data_folder(root: str | Path | None = None) -> Path:
    """The folder with the archives: ``root``, else ``ALIASING_DATA``, else ``data/downloads``."""
    return Path(root or os.environ.get("ALIASING_DATA") or _HOME / "data" / "downloads")


def cache_folder() -> Path:
    """The folder for decoded copies: ``ALIASING_CACHE``, else ``data/cache``."""
    return Path(os.environ.get("ALIASING_CACHE") or _HOME / "data" / "cache")


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
    raise DataError(f"{dataset}: looked for {wanted} in {folder.absolute()} and did not find it; {remedy}")


def verify(archive: Archive, root: str | Path | None = None) -> Path:
    """The path of an archive whose checksum is right; raises ``DataError`` naming both sums."""
    path = data_folder(root) / archive.name
    algorithm, expected = archive.checksum.split(":")
    with path.open("rb") as file:
        received = hashlib.file_digest(file, algorithm).hexdigest()
    if received != expected:
        raise DataError(
            f"{path} is damaged or another version: its {algorithm} is {received}, expected {expected}; "
            "delete it and fetch it again"
        )
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


def download(dataset: str, archive: Archive, folder: Path, timeout: float = 60.0) -> Path:
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
    return folder / archive.name


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
