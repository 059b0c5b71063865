"""The errors a user can mend: what was received, what was expected, what to do."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from operator import index
from typing import Any


class UsageError(ValueError):
    """An argument that cannot work; the command line answers it with exit status 2."""


class DataError(RuntimeError):
    """A file or data set that is missing, damaged or of another version; the message says how to mend it."""


class DamagedError(DataError):
    """A file that does not hold what was once written to it."""


class StorageError(DataError):
    """A file that cannot be written, because the disk is full, the folder read-only or the like."""

    @classmethod
    def of(cls, path: str | os.PathLike, error: OSError) -> "StorageError":
        """The error for a ``path`` that the operating system refused to write."""
        reason = error.strerror or error
        return cls(f"cannot write {os.fspath(path)} ({reason}); make room or choose a folder that can be written")


class ExtraError(DataError, ImportError):
    """A package that is not installed because the extra that brings it was not asked for."""


def missing(error: ModuleNotFoundError) -> Exception:
    """The error for an import that failed: which extra of this package brings it; ``error`` itself if none does."""
    from importlib.metadata import PackageNotFoundError, requires  # slow, and seldom needed

    wanted = (error.name or "").partition(".")[0].lower().replace("_", "-")
    try:
        requirements = requires("aliasing") or []
    except PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        name, needed = re.match(r"[\w.-]+", requirement), re.search(r"extra == .([\w-]+)", requirement)
        if name and needed and name[0].lower().replace("_", "-") == wanted:
            return ExtraError(f"{wanted} is not installed; pip install 'aliasing[{needed[1]}]' brings it")
    return error


@contextmanager
def extra() -> Iterator[None]:
    """Around an import inside a function: what is not installed is named with the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(error) from None


def reason(error: BaseException) -> str:
    """What an exception of other people's code says, in one line."""
    if isinstance(error, (UsageError, DataError)):
        return " ".join(str(error).splitlines())
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[: 2 if lines and lines[0].endswith(":") else 1]  # such as "Error(s) in loading state_dict for Linear:"
    return ": ".join([type(error).__name__, *told[:1]]) + "".join(f" {line}" for line in told[1:])


def unknown(kind: str, received: object, choices: Iterable[object]) -> UsageError:
    """The error for a name outside a list: lists the valid names and the nearest one."""
    names = [str(choice) for choice in choices]
    near = get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {str(received)!r}; choose from {', '.join(names)}.{hint}")


def one_of(kind: str, received: Any, choices: Iterable[object]) -> Any:
    """Return ``received`` if it is one of ``choices``; else raise the error ``unknown``."""
    if received not in list(choices):  # a list, since a wrong name need not be hashable
        raise unknown(kind, received, choices)
    return received


def whole(value: object) -> int | None:
    """``value`` as an ``int`` if it is a whole number, NumPy's included, else ``None``; ``True`` is not one."""
    try:
        return None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_whole(name: str, value: object, least: int) -> int:
    """``value`` as an ``int``; raises ``UsageError`` if it is no whole number of at least ``least``."""
    number = whole(value)
    if number is None or number < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def at_least(name: str, value: object, least: int) -> None:
    """``check_whole`` of what may also be ``None``, which is no value."""
    if value is not None:
        check_whole(name, value, least)
