"""The project's folder, and what lies beside the package in a clone of the repository."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .errors import DataError

_CLONE = Path(__file__).resolve().parents[1]


def home() -> Path:
    """The project's folder: the current one if it holds ``data/records``, else the one the package lies in."""
    here = Path.cwd()
    return _CLONE if not (here / "data/records").is_dir() and (_CLONE / "data/records").is_dir() else here


def published(kind: str) -> list[Path]:
    """The folders of what is published, "records" or "published": the project's, and that of an installed package."""
    return [home() / "data" / kind, Path(__file__).with_name("data") / kind]


def benchmarks() -> ModuleType:
    """The scripts that measure our speed beside that of others.

    Raises:
        DataError: this is no clone.
    """
    if not (_CLONE / "benchmarks").is_dir():
        raise DataError("the benchmarks are scripts beside the package, in a clone of the repository; run them there")
    if str(_CLONE) not in sys.path:
        sys.path.insert(0, str(_CLONE))
    return import_module("benchmarks")
