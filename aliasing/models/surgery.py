"""What a converted network is made of: modules that own the layers, and checks that they are still in their places.

A layer is not hung on a hook of a convolution or norm, which everyday tools replace with new ones: it belongs to an
``Antialiased`` module that stands in the place of the other and holds it. Tools that replace modules by type go on
inside; code that replaces the owner itself meets a ``Guard``.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from ..errors import UsageError
from ..layers.base import Downsample
from .wrappers import Wrapper

__all__ = [
    "SAME",
    "Antialiased",
    "Centred",
    "Complete",
    "Guard",
    "Link",
    "Place",
    "call_of",
    "intercept",
    "keeps_size",
    "make_dense",
    "pair",
    "pool_of",
    "stride_of",
]

# Classes of timm, and of those who copied them, that pad as TensorFlow does.
SAME = ("Conv2dSame", "MaxPool2dSame")
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_backward_hooks"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_pre_hooks", "_is_full_backward_hook"),
)
_thread = threading.local()


class Antialiased(Wrapper):
    """``inner`` with downsampling layers in front of it (``down_before``) and behind it (``down``).

    Attributes that it does not have are those of ``inner``, for networks that look at their own parts.
    """

    around = "inner"
    own = ("site", "down_before", "complete", "down", "inner")

    def __init__(self, inner: nn.Module, site: str) -> None:
        super().__init__()
        self.site = site
        self.down_before: nn.Module | None = None
        self.complete: nn.Module | None = None
        self.down: nn.Module | None = None
        self.inner = inner
        self.train(inner.training)

    def __getattr__(self, name: str) -> Any:
        """What this module has not, ``inner`` may have."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get("_modules", {}).get("inner")
            if inner is None or name.startswith("__"):  # such as __deepcopy__, which would copy inner alone
                raise
            return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set it where ``__getattr__`` would find it."""
        inner = self.__dict__.get("_modules", {}).get("inner")
        own = name in self.__dict__ or name in self.__dict__.get("_modules", {}) or hasattr(type(self), name)
        if inner is not None and not own and hasattr(inner, name):
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> None:
        """Called by ``torch.jit.script``, which follows neither hooks nor modes."""
        raise UsageError("a converted network cannot be scripted: use torch.export or torch.jit.trace")

    def take_hooks(self, module: nn.Module) -> None:
        """Those of ``module``, so that they see the maps they saw; but what computes its weights stays with it."""
        for name in _HOOKS:
            vars(self)[name], vars(module)[name] = vars(module)[name], vars(self)[name]
        for key, hook in list(self._forward_pre_hooks.items()):
            if type(hook).__module__.startswith("torch.nn.utils"):
                module._forward_pre_hooks[key] = self._forward_pre_hooks.pop(key)

    def forward(self, x: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """The layer in front, the module, the layer behind; each if there is one."""
        if x is None:  # given by the name it has in the module
            x = kwargs.pop(next(iter(kwargs)))
        for part in (self.down_before, self.complete):
            x = x if part is None else _run(part, x)
        x = self.inner(x, *args, **kwargs)
        return x if self.down is None else _run(self.down, x)


class Centred(nn.Module):
    """In front of a layer that takes a pool's place: samples around the centres of its windows, its output size."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.windows = [_Windows(pool, axis) for axis in (0, 1)]
        divisor: Any = getattr(pool, "divisor_override", None)
        self.gain = 1.0 if divisor is None else self.windows[0].size * self.windows[1].size / divisor

    def forward(self, x: Tensor) -> Tensor:
        """Cut off what the first windows leave out, and what is too much for their number; repeat what is missing."""
        for axis, windows in enumerate(self.windows, start=2):
            n, stride = x.shape[axis], windows.stride
            out = windows.count(n)
            start = max(0, (windows.size - 1) // 2 - windows.padding)
            # The layer returns ceil(length / stride); lengths that give `out` are (out - 1) stride + 1 to out stride.
            length = _smaller(_larger(n - start, (out - 1) * stride + 1), out * stride)
            if not isinstance(n, int) or length != n:  # exporters follow no conditions on sizes
                index = torch.arange(start, start + length, device=x.device).clamp(max=n - 1)
                x = x.index_select(axis, index)
        return x if self.gain == 1 else x * self.gain


class Complete(nn.Module):
    """Pads for the stride a module had: at stride 1 its own padding would move the grid, or end too early.

    With ``same`` as TensorFlow pads, ceil(n / stride) windows with the odd pixel at the right and bottom; otherwise as
    far at the right and bottom as a pool in ``ceil_mode`` reaches.
    """

    def __init__(self, part: nn.Module, same: bool, value: float) -> None:
        super().__init__()
        self.same, self.value = same, value
        self.windows = [_Windows(part, axis, same) for axis in (0, 1)]

    def forward(self, x: Tensor) -> Tensor:
        """The larger map."""
        amounts: list[Any] = []
        for axis, windows in ((3, self.windows[1]), (2, self.windows[0])):
            n = x.shape[axis]
            total = (windows.count(n) - 1) * windows.stride + windows.size - n - 2 * windows.padding
            if windows.least < 0:
                total = _larger(total, 0)
            amounts += [total // 2, total - total // 2] if self.same else [0, total]
        return F.pad(x, amounts, value=self.value)

    def extra_repr(self) -> str:
        """Kind and stride."""
        return f"{'same' if self.same else 'ceil_mode'}, stride={self.windows[0].stride}"


class _Windows:
    """The windows of a convolution or pool along one axis: their ``size``, ``stride`` and ``padding`` in pixels.

    In ``ceil_mode`` no window may start beyond the map. Sizes are never compared, and nothing negative is divided:
    exporters follow neither.
    """

    def __init__(self, part: Any, axis: int, same: bool = False) -> None:
        dilation, kernel = pair(getattr(part, "dilation", 1))[axis], pair(part.kernel_size)[axis]
        size, stride = dilation * (kernel - 1) + 1, pair(part.stride)[axis]
        padding = 0 if same else pair(part.padding)[axis]
        self.size, self.stride, self.padding = size, stride, padding
        more = 2 * padding - size + 1
        if getattr(part, "ceil_mode", False):
            more = padding + min(padding - size + stride, 0)
        self.more = 0 if same else more
        self.least = self.more + size - stride - 2 * padding  # that the last window reaches beyond the padded map

    def count(self, n: Any) -> Any:
        """Number of windows of n pixels, ceil((n + more) / stride)."""
        return (n + self.more + self.stride - 1) // self.stride


def _larger(a: Any, b: Any) -> Any:
    """The larger of two lengths, also where a tracer has a tensor or a symbol for one of them."""
    if isinstance(a, Tensor):
        return (a + b + abs(a - b)) // 2
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else torch.sym_max(a, b)


def _smaller(a: Any, b: Any) -> Any:
    return a + b - _larger(a, b)


def _run(part: nn.Module, x: Tensor) -> Tensor:
    """``part`` of maps, or of one without a batch; one node where ``torch.fx`` traces; what it calls does not count."""
    if isinstance(x, fx.Proxy):
        return x.tracer.create_proxy("call_module", x.tracer.path_of_module(part), (x,), {})  # type: ignore[attr-defined]
    with _muted():
        return part(x) if x.ndim == 4 or isinstance(part, Antialiased) else part(x[None])[0]


@contextmanager
def _muted() -> Iterator[None]:
    before = getattr(_thread, "muted", False)
    _thread.muted = True
    try:
        yield
    finally:
        _thread.muted = before


class _PerThread(threading.local):
    """What belongs to the thread that wrote it, since several may use one network, and is not copied."""

    def __reduce__(self) -> tuple:
        return _PerThread, ()


class Link:
    """Hands the choice of a polyphase layer on to layers of other branches, once to each in a forward pass."""

    def __init__(self, leader: Downsample, followers: Sequence[Downsample]) -> None:
        self.readers, self.waiting = len(followers), _PerThread()
        leader.register_forward_pre_hook(self._choose)
        for follower in followers:
            follower.register_forward_pre_hook(self._follow)

    def _choose(self, leader: Downsample, inputs: tuple) -> tuple:
        choice = leader.choose(inputs[0])
        self.waiting.choice, self.waiting.readers = choice, self.readers
        return inputs[0], choice

    def _follow(self, follower: Downsample, inputs: tuple) -> tuple:
        choice = getattr(self.waiting, "choice", None)
        if choice is None:
            raise UsageError("a branch samples the grid another one chooses, which has not run: call the whole network")
        self.waiting.readers -= 1
        if not self.waiting.readers:  # what the choice was computed from may go
            self.waiting.choice = None
        return inputs[0], choice


class Place(NamedTuple):
    """Where a site lives, as names below one module: its owner, and the module that gave up its stride for it."""

    site: str
    owner: tuple[str, ...]
    dense: tuple[str, ...] | None


class Guard:
    """Before each forward: every owner is where it was, and what computes densely for it still does.

    A hook of all modules around the owners. Where an owner stands behind the activation, one of its own ``watches``
    both ends of the site.
    """

    def __init__(self, places: tuple[Place, ...], home: nn.Module | None = None) -> None:
        self.places, self.home, self.dense = places, home, _PerThread()

    def __deepcopy__(self, memo: dict) -> "Guard":
        """Of a part that is copied alone, as some tools do to replace it, it goes on watching for its network."""
        if self.home is not None and id(self.home) not in memo:
            return self
        return Guard(self.places, memo.get(id(self.home)))

    def __call__(self, module: nn.Module, inputs: tuple) -> None:
        """Raise ``UsageError`` if a layer was lost."""
        home = module if self.home is None else self.home
        for site, path, dense in self.places:
            owner, cut = _find(home, path)
            if isinstance(owner, Antialiased) and owner.site == site:
                if dense is None or _is_dense(_find(home, dense)[0]):
                    continue
            elif cut and (dense is None or _find(home, dense)[1]):
                continue
            raise UsageError(
                f"the downsampling layer of {site} lost its place: {'.'.join(path)}, a forward or the convolution in "
                "front was replaced or removed after antialias(); replace modules, fuse or re-parameterise first, "
                "then call antialias()"
            )

    def watch(self, home: nn.Module, is_root: bool, dense: nn.Module, owner: nn.Module) -> None:
        """Whenever ``home``, which holds both, runs, what computes densely and the owner run equally often."""
        self.home = home
        home.register_forward_pre_hook(self._begin)
        for end, change in ((dense, 1), (owner, -1)):
            end.register_forward_pre_hook(partial(self._count, change))
        if not is_root:  # there a compiler would take the hook for a graph of its own
            home.register_forward_hook(self._end)

    def _begin(self, home: nn.Module, inputs: tuple) -> None:
        self.dense.maps = 0

    def _count(self, change: int, module: nn.Module, inputs: tuple) -> None:
        self(module, inputs)
        maps = getattr(self.dense, "maps", None)  # None: a part is called alone, or again for its gradient
        if maps is None or any(isinstance(x, fx.Proxy) for x in inputs):  # tracers go into some modules only
            return
        self.dense.maps = maps + change
        if maps + change < 0:
            raise self._error()

    def _end(self, home: nn.Module, inputs: tuple, output: Any) -> None:
        maps, self.dense.maps = self.dense.maps, None
        if maps:
            raise self._error()

    def _error(self) -> UsageError:
        site = self.places[0].site
        return UsageError(
            f"{site} and its downsampling layer did not run together, as they did when they were converted: a forward "
            f"does something else at this size or with these values, {site} was replaced, or a part was called alone; "
            "call the whole network, name it in skip, or convert with placement 'conv-then-pool'"
        )


def _find(home: nn.Module, path: tuple[str, ...]) -> tuple[nn.Module | None, bool]:
    """The module at ``path``, and whether it was cut away: an Identity in its place, or the end of a Sequential."""
    module = home
    for name in (None, *path):
        parent, child = module, module if name is None else module._modules.get(name)
        if child is None:
            return None, isinstance(parent, nn.Sequential)
        if isinstance(child, nn.Identity):
            return None, True
        if isinstance(child, (Antialiased, Intercepted)) and "forward" in vars(child):
            return None, False  # replaced by one that may know nothing of a layer
        module = child
    return module, False


def _is_dense(part: nn.Module | None) -> bool:
    return part is None or all(stride_of(module) == (1, 1) for module in part.modules())


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
    """The call as the owner that may replace it sees it; ``None`` if it keeps every sample, or is another function."""
    if function is torch.Tensor.__getitem__:
        return _slice(*args)
    if function not in _POOLS:
        return None
    kind, defaults = _POOLS[function]
    options = defaults | dict(zip(defaults, args[1:], strict=False)) | {k: v for k, v in kwargs.items() if k != "input"}
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
    whole = all(isinstance(i, slice) and (i.stop is None or i.stop >= n) for i, n in zip(index, x.shape, strict=True))
    if not whole or index[0] != slice(None) or index[1].start or index[1].step:  # batches may become larger
        return Call("slice", ())
    return Call(
        "slice", (("start", tuple(i.start or 0 for i in index[2:])), ("stride", tuple(i.step or 1 for i in index[2:])))
    )


class _Slice(nn.Module):
    """``x[:, :, i::s, j::t]``; when a layer takes the stride, ``x[:, :, i:, j:]`` is left of it."""

    def __init__(self, start: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.start, self.stride = start, stride

    def forward(self, x: Tensor) -> Tensor:
        """Every stride-th sample, from the first one on."""
        return x[:, :, self.start[0] :: self.stride[0], self.start[1] :: self.stride[1]]


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
        call = None if getattr(_thread, "muted", False) else call_of(function, args, kwargs)
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
            return _run(self.owners[self.done - 1], args[0] if args else kwargs["input"])
        raise UsageError(f"a call changed since antialias(): {call}, expected {expected}; convert the network again")


class Intercepted:
    """A module whose ``forward`` pools or slices by function calls; the layers that replace them are its children."""

    antialiased: nn.ModuleList
    antialiased_calls: tuple[tuple[int, Call], ...]
    antialiased_alike: int

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Its class is made when it is needed, so a copy is made from the class of the original."""
        return _rebuild, (type(self).__bases__[1],), self.__getstate__()


@cache
def _intercepted(kind: Any) -> type:
    @wraps(kind.forward)  # tracers look at its arguments
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = _Calls(self.antialiased, self.antialiased_calls)
        with calls:
            result = kind.forward(self, *args, **kwargs)
        if calls.done < len(self.antialiased) or calls.seen != self.antialiased_alike:
            raise UsageError(
                f"{kind.__name__}: {calls.done} of {len(self.antialiased)} anti-aliased calls of functions ran, among "
                f"{calls.seen} calls like them, {self.antialiased_alike} when it was converted; its forward does "
                "something else than then (in training, or at this size), or a tool traces it that does not see them: "
                "name the module in skip"
            )
        return result

    return type(kind.__name__, (Intercepted, kind), {"__module__": kind.__module__, "forward": forward})


def _rebuild(kind: type) -> nn.Module:
    return object.__new__(_intercepted(kind))


def intercept(module: nn.Module, owners: Sequence[nn.Module], calls: Sequence[tuple[int, Call]], alike: int) -> None:
    """Have ``owners`` run instead of the function ``calls``, of ``alike`` ones, of the forward of ``module``."""
    module.antialiased = nn.ModuleList(owners)
    module.antialiased_calls = tuple(calls)  # type: ignore[assignment]
    module.antialiased_alike = alike  # type: ignore[assignment]
    module.__class__ = _intercepted(type(module))  # type: ignore[arg-type]


def pool_of(call: Call) -> nn.Module:
    """The module that does what the call does."""
    options = dict(call.options)
    if call.kind == "slice":
        return _Slice(**options)
    return nn.MaxPool2d(**options) if call.kind == "max" else nn.AvgPool2d(**options)


def pair(value: Any) -> tuple[int, int]:
    """A value per axis."""
    return (value, value) if isinstance(value, int) else tuple(value)


def stride_of(part: nn.Module) -> tuple[int, int]:
    """The stride of a convolution or pool, (1, 1) of anything else."""
    return pair(part.stride) if isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, _Slice)) else (1, 1)


def make_dense(part: Any) -> Complete | None:
    """Take the stride from a convolution, max-pool or slice; what must pad in front of it, if anything must."""
    is_pool, complete = isinstance(part, nn.MaxPool2d), None
    if type(part).__name__ in SAME:
        complete = Complete(part, True, float("-inf") if is_pool else 0.0)
        part.__class__ = nn.MaxPool2d if is_pool else nn.Conv2d
        part.padding = (0, 0)
    elif getattr(part, "ceil_mode", False):
        complete = Complete(part, False, float("-inf"))
        part.ceil_mode = False
    part.stride = 1 if is_pool else (1, 1)
    return complete


def keeps_size(conv: nn.Conv2d) -> bool:
    """Whether at stride 1 the output is as large as the input."""
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return [2 * p for p in conv.padding] == reach
