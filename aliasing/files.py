"""Files that are whole or absent: written under another name and renamed, with a sum that shows later damage."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, contiguous_format, uint8

from .errors import DamagedError, DataError, StorageError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write under a temporary name, flush to the disk and rename: a reader sees all of it or none.

    A link stays, and the file that it names is replaced; a device or a pipe, which cannot be, is written to.

    Raises:
        StorageError: the disk is full, the folder read-only or the like; what was there before is kept.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # first: /dev/stdout may lead to no path
            path.write_bytes(data)
            return
        path = Path(os.path.realpath(path))  # Path.resolve() would raise RuntimeError for links in a circle
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError.of(path, error) from error


@contextmanager
def leased(folder: Path) -> Iterator[bool]:
    """Make ``folder`` and hold its lock meanwhile; false where another process has it, and still has it a second later.

    Not at once, since who only looks whether a folder is leased holds its lock for an instant.

    Raises:
        StorageError: the folder cannot be made, or is read-only.
    """
    lock = FileLock(folder / "lock", timeout=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            lock.acquire()
    except OSError as error:
        raise StorageError.of(folder, error) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the first free of ``NAME.damaged``, ``NAME.damaged-2``, ...; returns the new path."""
    number, kept = 1, path.with_name(f"{path.name}.damaged")
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.damaged-{number}")
    try:
        return path.rename(kept)
    except OSError as error:
        raise StorageError.of(path, error) from error


def checksum(tensors: dict[str, Tensor], note: str = "") -> str:
    """The SHA-256 of CPU tensors by name, with their types and shapes, and of a note."""
    digest = hashlib.sha256(note.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def check_file(path: Path, checksum: str, remedy: str) -> None:
    """Raise ``DataError`` if a file has not the ``checksum``, such as "md5:..."; it names both sums and the remedy."""
    algorithm, expected = checksum.split(":")
    with path.open("rb") as file:
        received = hashlib.file_digest(file, algorithm).hexdigest()
    if received != expected:
        raise DataError(
            f"{path} is damaged or another version: its {algorithm} is {received}, expected {expected}; {remedy}"
        )


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies of ``tensors``: safetensors refuses those that share memory, as parts of a network may."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=contiguous_format) for name, value in tensors.items()
    }


def write_tensors(path: Path, tensors: dict[str, Tensor], **note: object) -> None:
    """Write CPU tensors as safetensors, with one named JSON value and the SHA-256 of both in the header.

    Raises:
        StorageError: as for ``write_atomically``.
    """
    ((name, value),) = note.items()
    text = json.dumps(value)
    write_atomically(path, save(tensors, {name: text, "sha256": checksum(tensors, text)}))


def read_tensors(path: Path, name: str) -> tuple[dict[str, Tensor], Any]:
    """The tensors and the value called ``name`` that ``write_tensors`` wrote.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: the file was cut, changed or is something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = dict(file.metadata() or {})
        text = header.pop(name)
        if header != {"sha256": checksum(tensors, text)}:
            raise ValueError("its content does not match the sum in its header")
        return tensors, json.loads(text)
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors, JSON and the file system each have their own
        reason = f"no {name!r} in its header" if isinstance(error, KeyError) else error
        raise DamagedError(f"{path} is damaged ({reason})") from error
