"""What lies beside the package in a clone of the repository."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .errors import DataError


def benchmarks() -> ModuleType:
    """The scripts that measure our speed beside that of others.

    Raises:
        DataError: this is no clone.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "benchmarks").is_dir():
        raise DataError("the benchmarks are scripts beside the package, in a clone of the repository; run them there")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return import_module("benchmarks")
