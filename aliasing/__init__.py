"""Aliasing in convolutional networks: layers, networks, training, measurements and studies."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets, layers, metrics, models, studies
    from .diagnosis import diagnose
    from .metrics import Estimate
    from .models import antialias
    from .studies import run

try:
    __version__ = version("aliasing")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Estimate",
    "__version__",
    "antialias",
    "datasets",
    "diagnose",
    "layers",
    "metrics",
    "models",
    "run",
    "studies",
]

# Loaded on first use: who wants one layer should not wait for pandas and the studies.
_HOMES = {"Estimate": "metrics", "antialias": "models", "diagnose": "diagnosis", "run": "studies"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
