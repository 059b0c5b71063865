"""The version of the installed package, which pyproject.toml states."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("aliasing")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"
