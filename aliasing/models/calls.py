"""Pools and slices that a ``forward`` calls as functions, handed to the owners that replace them."""

from collections.abc import Sequence
from functools import cache, partial, partialmethod, wraps
from inspect import getattr_static, isfunction, isgeneratorfunction
from types import CellType, CodeType
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ..errors import UsageError
from ..held import held
from .owners import Slice, _thread, is_muted, run


class Call(NamedTuple):
    """A call of a function that pools or slices with a stride, with what decides its result."""

    kind: str
    options: tuple[tuple[str, Any], ...]


# Arguments behind the map, in their order, with what they are unless given.
_MAX = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
_AVERAGE = {"kernel_size": None, "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}
_POOLS: dict[Any, tuple[str, dict[str, Any]]] = {
    F.max_pool2d: ("max", _MAX),
    torch.max_pool2d: ("max", _MAX),
    F.avg_pool2d: ("average", _AVERAGE | {"divisor_override": None}),
}
for _name, _kind in (("max_pool2d", "max"), ("avg_pool2d", "average")):
    _packet = getattr(torch.ops.aten, _name)
    _POOLS |= dict.fromkeys((_packet, _packet.default), _POOLS[getattr(F, _name)])


def call_of(function: Any, args: tuple, kwargs: dict) -> Call | None:
    """The call as the owner that may replace it sees it; ``None`` if it keeps every sample, or is another function.

    Also of a parameter, such as a kernel of which a part is taken: that is no map.
    """
    if isinstance(args[0] if args else kwargs.get("input"), nn.Parameter):
        return None
    if function is torch.Tensor.__getitem__:
        return _slice(*args)
    if function not in _POOLS:
        return None
    kind, defaults = _POOLS[function]
    given = zip([*defaults][: len(args[1:])], args[1:], strict=True)  # the compiler of torch 2.9 wants equal lengths
    options = defaults | dict(given) | {k: v for k, v in kwargs.items() if k != "input"}
    options["stride"] = options["stride"] or options["kernel_size"]
    for name in ("kernel_size", "stride", "padding", "dilation"):
        if name in options:
            value = options[name]
            value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
            if not all(isinstance(n, int) for n in value):
                return None  # symbols of a tracer: as large as the map, whatever that is
            options[name] = value * 2 if len(value) == 1 else value
    return None if options["stride"] == (1, 1) else Call(kind, tuple(sorted(options.items())))


def _slice(x: Any, index: Any) -> Call | None:
    """``x[:, :, i::s, j::t]`` of a map; of other axes, or if it ends too early, it has neither start nor stride."""
    index = index if isinstance(index, tuple) else (index,)
    if getattr(x, "ndim", 0) != 4 or not any(isinstance(i, slice) and i.step not in (None, 1) for i in index):
        return None
    for at, i in enumerate(index):
        if i is Ellipsis:
            index = (*index[:at], *[slice(None)] * (5 - len(index)), *index[at + 1 :])
            break
    index += (slice(None),) * (4 - len(index))
    ends = zip(index, x.shape, strict=False)  # of an index with new axes, which is no slice of a map
    whole = len(index) == 4 and all(isinstance(i, slice) and (i.stop is None or i.stop >= n) for i, n in ends)
    if not whole or index[0] != slice(None) or index[1].start or index[1].step:  # batches may become larger
        return Call("slice", ())
    return Call(
        "slice", (("start", tuple(i.start or 0 for i in index[2:])), ("stride", tuple(i.step or 1 for i in index[2:])))
    )


class _Calls(TorchFunctionMode):
    """Hands calls of a forward to their owners: of those like one of ``calls``, the n-th for each n that is there."""

    def __init__(self, owners: nn.ModuleList, calls: tuple[tuple[int, Call], ...]) -> None:
        super().__init__()
        self.owners, self.calls, self.seen, self.done = owners, dict(calls), 0, 0
        self.learning = torch.is_grad_enabled()
        self.wanted = [call for _, call in calls]

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the function, or its owner."""
        kwargs = kwargs or {}
        call = None if is_muted() else call_of(function, args, kwargs)
        if call is None or call not in self.wanted:
            return function(*args, **kwargs)
        expected, self.seen = self.calls.get(self.seen), self.seen + 1
        if expected is None:
            return function(*args, **kwargs)
        if self.learning and not torch.is_grad_enabled():
            raise UsageError(
                "a converted call of a function runs in a checkpoint, or without gradients, in one forward: it would "
                "get the gradient of the original call; checkpoint the whole module, or name the call in skip"
            )
        if call == expected:
            self.done += 1
            return run(self.owners[self.done - 1], args[0] if args else kwargs["input"])
        raise UsageError(f"a call changed since antialias(): {call}, expected {expected}; convert the network again")


class Conversion:
    """One call of ``antialias``, whose modules hand calls to one another; a copy of a network has one of its own."""


class Intercepted:
    """A module whose ``forward`` pools or slices by function calls; the layers that replace them are its children."""

    antialiased: nn.ModuleList
    antialiased_calls: tuple[tuple[int, Call], ...]
    antialiased_alike: int
    antialiased_by: Conversion
    antialiased_methods: ClassVar[tuple[str, ...]]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Its class is made when it is needed, so a copy is made from the class of the original."""
        return _rebuild, (type(self).__bases__[1], self.antialiased_methods), self.__getstate__()


def codes_of(method: Any) -> list[CodeType]:
    """Of a function or a property, and of the functions that it wraps or closes over, as decorators do."""
    parts = [method.fget if isinstance(method, property) else method]
    for part in parts:  # which grows
        cells = [cell.cell_contents for cell in getattr(part, "__closure__", None) or () if cell != CellType()]
        inside = [*cells, getattr(part, "__wrapped__", None), getattr(part, "func", None)]
        parts += [own for own in inside if (isfunction(own) or isinstance(own, partial)) and own not in parts]
    return [part.__code__ for part in parts if isfunction(part)]


def with_inner(codes: list[CodeType]) -> list[CodeType]:
    """And those of comprehensions and functions inside."""
    for code in codes:  # which grows
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return codes


def _reached(kind: Any, running: frozenset[CodeType]) -> tuple[str, ...]:
    """The forward of ``kind``, the methods whose code was ``running`` when it made its calls, and those that may.

    These are the methods of its own that the others name, for other ways to go than that of the example, those that
    these name, and so on; but no generators, which could only be refused.
    """
    own = {name: getattr_static(kind, name) for name in dir(kind) if not hasattr(nn.Module, name)}
    methods = {name: method for name, method in own.items() if isfunction(method) or isinstance(method, partialmethod)}
    codes = {name: some for name, method in methods.items() if (some := codes_of(method))}
    # What a decorator returns has the same code for every method: something that it wraps must run as well.
    runs = [n for n, (code, *inside) in codes.items() if code in running and (not inside or running & {*inside})]
    found = ["forward", *runs]
    for name in found:  # which grows
        for code in with_inner([code for part in kind.__mro__ for code in codes_of(vars(part).get(name))]):
            texts = [text for text in code.co_consts if isinstance(text, str)]  # of getattr
            named = dict.fromkeys((*code.co_names, *texts))
            found += [part for part in named if part not in found and codes_of(own.get(part))]
    may = [name for name in found if name in codes and not isgeneratorfunction(own[name])]
    return tuple(dict.fromkeys(["forward", *runs, *may]))


@cache
def _intercepted(kind: Any, methods: tuple[str, ...]) -> type:
    """``kind`` whose forward, and what that calls where it is called without it, hand calls to their owners."""

    def open_to(name: str) -> Any:
        method, is_forward = getattr(kind, name), name == "forward"
        yields = isgeneratorfunction(method) and not is_forward

        @wraps(method)  # tracers look at its arguments
        def intercepted(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not hasattr(self, "antialiased_calls"):
                raise UsageError(
                    f"this {kind.__name__} is not converted, though its class was made for one that is: "
                    "copy.deepcopy() that one, or build another from the original class and call antialias()"
                )
            bound = getattr(super(Intercepted, self), name)  # a forward need not be a plain function
            own = [call for _, call in self.antialiased_calls]
            running = getattr(_thread, "running", None) or ()
            theirs = [call for by, wanted in running if by is self.antialiased_by for call in wanted]
            if not is_forward and any(call in own for call in theirs):  # a forward that runs hands them on
                return bound(*args, **kwargs)
            if yields:
                raise UsageError(
                    f"{kind.__name__}.{name} yields maps one by one, whose calls of functions cannot be "
                    "anti-aliased without its forward: call that, or name the module in skip"
                )
            # An image that is learned is a map, and what ``call_of`` takes for a kernel is none.
            args, kwargs = tree_map_only(nn.Parameter, lambda x: x.view_as(x), (args, kwargs))
            calls = _Calls(self.antialiased, self.antialiased_calls)
            with held("running", (*running, (self.antialiased_by, own)), _thread), calls:
                result = bound(*args, **kwargs)
            apart = calls.done < len(self.antialiased) or calls.seen != self.antialiased_alike
            if apart and (is_forward or calls.seen):
                raise UsageError(
                    f"{kind.__name__}: {calls.done} of {len(self.antialiased)} anti-aliased calls of functions ran, "
                    f"among {calls.seen} calls like them, {self.antialiased_alike} when it was converted; its "
                    f"{name} does something else than its forward did (in training, or at this size), or a "
                    "tool traces it that does not see them: name the module in skip"
                )
            return result

        return intercepted

    opened = {name: open_to(name) for name in methods} | {"antialiased_methods": methods}
    return type(kind.__name__, (Intercepted, kind), {"__module__": kind.__module__, **opened})


def _rebuild(kind: type, methods: tuple[str, ...] = ("forward",)) -> nn.Module:
    return object.__new__(_intercepted(kind, methods))


def intercept(
    module: nn.Module,
    owners: Sequence[nn.Module],
    calls: Sequence[tuple[int, Call]],
    alike: int,
    by: Conversion,
    running: frozenset[CodeType],
) -> None:
    """Have ``owners`` run instead of the function ``calls``, of ``alike`` ones, of the forward of ``module``.

    ``running`` is the code of the functions that made them.
    """
    module.antialiased = nn.ModuleList(owners).train(module.training)
    module.antialiased_calls = tuple(calls)  # type: ignore[assignment]
    module.antialiased_alike = alike  # type: ignore[assignment]
    module.antialiased_by = by  # type: ignore[assignment]
    kind = type(module)
    module.__class__ = _intercepted(kind, _reached(kind, running))  # type: ignore[arg-type]


def pool_of(call: Call) -> nn.Module:
    """The module that does what the call does."""
    options = dict(call.options)
    if call.kind == "slice":
        return Slice(**options)
    return nn.MaxPool2d(**options) if call.kind == "max" else nn.AvgPool2d(**options)
