"""The errors a user can mend: what was received, what was expected, what to do."""

import os
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["DamagedError", "DataError", "StorageError", "UsageError", "unknown"]


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


def unknown(kind: str, received: object, choices: Iterable[object]) -> UsageError:
    """The error for a name outside a list: lists the valid names and the nearest one."""
    names = [str(choice) for choice in choices]
    near = get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {str(received)!r}; choose from {', '.join(names)}.{hint}")
