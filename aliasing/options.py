"""Options that arrive by name, from a study, a record or a reader: each must be of the type its function declares."""

from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from inspect import Parameter, formatannotation, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import UsageError, one_of, unknown


def check_options(
    what: str, function: Callable[..., Any] | type, known: Collection[str], options: Mapping[str, object]
) -> None:
    """Refuse ``options`` of ``what`` that are not ``known``, or not of the type that ``function`` declares.

    Raises:
        UsageError: names the first such option, and what there is instead.
    """
    for option in options:
        if not known:
            raise UsageError(f"{what} has no options, got {option!r}")
        one_of(f"option of {what}", option, known)
    check_types(what, function, options)


def check_types(what: str, function: Callable[..., Any] | type, values: Mapping[str, object]) -> None:
    """Compare ``values`` with the annotations of the parameters of ``function`` (or class) that they are meant for.

    A whole number passes for a float and a list for a tuple, as in JSON; truth values are no numbers, nor is NaN.

    Raises:
        UsageError: a value of another type; named ``what`` with what was expected.
    """
    function = function.func if isinstance(function, partial) else function
    hints = _hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            if get_origin(hints[name]) is Literal:
                raise unknown(f"{name} of {what}", value, get_args(hints[name]))
            expected = formatannotation(hints[name]).replace("typing.", "").replace("collections.abc.", "")
            raise UsageError(f"{what}: {name} must be {expected}, got {value!r}")


@cache  # looked up once: a store checks thousands of descriptions when it is opened
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types that ``function`` declares; none where they are named for type checkers alone."""
    try:
        return get_type_hints(function)
    except NameError:
        return {}


def _arguments(function: Callable[..., Any] | type) -> Mapping[str, Parameter]:
    """What ``function`` (or the constructor of a class) takes under a name of its own, by that name."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {name: one for name, one in signature(function).parameters.items() if one.kind in named}


arguments: Callable[..., Mapping[str, Parameter]] = cache(_arguments)


def defaults(*functions: Callable[..., Any] | type) -> dict[str, Any]:
    """What the arguments of ``functions`` are if they are not given, by name; without those that have to be given."""
    own = [item for function in functions for item in arguments(function).items()]
    return {name: one.default for name, one in own if one.default is not Parameter.empty}


def filled(known: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """``options``, those not given at their ``known`` defaults; a number that equals its default is it, as 3 is 3.0."""
    numbers = [name for name, value in options.items() if _fits(value, float) and _fits(known.get(name), float)]
    return {**known, **options, **{name: known[name] for name in numbers if options[name] == known[name]}}


def _fits(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    if kind in (None, NoneType):
        return value is None
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and value == value
    if origin is tuple:
        return isinstance(value, tuple | list)
    if isinstance(origin, type):
        return isinstance(value, origin) and not isinstance(value, str)
    return not isinstance(kind, type) or isinstance(value, kind)
