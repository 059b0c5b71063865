"""Measurements: what can be asked of a trained network, by name, with the protocol as part of the name.

A measurement is a function ``(subject, **protocol) -> {metric: value}``, one of the public ones of the modules here;
the first line of its docstring is what ``aliasing list metrics`` says. With ``per_image=True`` some also return what
they found for each image, as ``packed`` text under names that end in ``_by_image``, for statistics over networks and
images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from inspect import Parameter, isfunction, signature
from typing import Any

from ..errors import UsageError, one_of
from ..inference import full_float32
from ..options import arguments, check_options
from . import classes, features, pixel_steps, pretrained, shifted, tips
from .subject import Subject, drawn, loaded, packed, unpacked

__all__ = ["MEASUREMENTS", "Measurement", "Subject", "drawn", "loaded", "measurement", "packed", "unpacked"]

MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    name: function
    for module in (classes, shifted, pixel_steps, features, pretrained, tips)
    for name, function in vars(module).items()
    if isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
}


def measurement(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Decorator that adds a measurement of one's own, such as a notebook's, to the table under its name."""
    MEASUREMENTS[function.__name__] = function
    return function


@cache  # of thousands that the plans ask for
def _protocol(function: Callable[..., dict[str, Any]]) -> tuple[dict[str, Parameter], bool]:
    """What a measurement takes beside its subject, which is its first argument; and whether it takes any name."""
    given = signature(function).parameters
    known = {name: one for name, one in arguments(function).items() if name != next(iter(given), None)}
    return known, any(one.kind is Parameter.VAR_KEYWORD for one in given.values())


@dataclass(frozen=True)
class Measurement:
    """A measurement with its protocol.

    Attributes:
        name: of a function in ``MEASUREMENTS``.
        options: its protocol, such as the number of test images.

    Raises:
        UsageError: there is no such function, or it does not take these options: said before anything is trained.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        function = MEASUREMENTS[one_of("measurement", self.name, MEASUREMENTS)]
        known, any_name = _protocol(function)
        check_options(self.name, function, self.options if any_name else known, self.options)
        needed = [name for name, one in known.items() if one.default is Parameter.empty]
        if lacking := [name for name in needed if name not in self.options]:
            raise UsageError(f"measurement {self.name} needs {', '.join(lacking)}, got {self.options}")

    @property
    def key(self) -> str:
        """Name and protocol in one line, the key in the record."""
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in sorted(self.options.items()))})"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """Carry it out: metric names to estimates, numbers or lists."""
        function = MEASUREMENTS[one_of("measurement", self.name, MEASUREMENTS)]
        with full_float32():
            found = function(subject, **self.options)
        if not isinstance(found, dict):
            raise UsageError(f"{self.name} must return values by their names, {{'metric': value}}, got {found!r}")
        return found
