"""The errors a user can mend: what was received, what was expected, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["DataError", "UsageError", "unknown"]


class UsageError(ValueError):
    """An argument that cannot work; the command line answers it with exit status 2."""


class DataError(RuntimeError):
    """A data set that is missing, damaged or of another version; the message names the command that mends it."""


def unknown(kind: str, received: object, choices: Iterable[object]) -> UsageError:
    """The error for a name outside a list: lists the valid names and the nearest one."""
    names = [str(choice) for choice in choices]
    near = get_close_matches(str(received), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {str(received)!r}; choose from {', '.join(names)}.{hint}")
