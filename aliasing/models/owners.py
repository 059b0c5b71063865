"""The modules that own downsampling layers in a converted network, and what stands in for a stride.

A layer is not hung on a hook of a convolution or norm, which everyday tools replace with new ones: it belongs to an
``Antialiased`` module that stands in the place of the other and holds it. Tools that replace modules by type go on
inside.
"""

import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..errors import UsageError
from ..held import held
from ..layers.base import per_axis
from .wrappers import Wrapper

# Classes of timm, and of those who copied them, that pad as TensorFlow does.
SAME = ("Conv2dSame", "MaxPool2dSame")
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_backward_hooks"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_pre_hooks", "_is_full_backward_hook"),
)
# What a downsampling layer has taken from a module, and what it takes besides where it stands in the place of a pool.
_TAKEN = ("stride", "ceil_mode", "kernel_size", "padding")
_thread = threading.local()


class Antialiased(Wrapper):
    """``inner`` with downsampling layers in front of it (``down_before``) and behind it (``down``).

    Attributes that it does not have are those of ``inner``, for networks that look at their own parts.
    """

    around = "inner"
    own = ("site", "down_before", "complete", "inner", "down")  # children in the order in which they run

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
        """Set it where ``__getattr__`` would find it; what ``inner`` is to run or to compute with goes there."""
        inner = self.__dict__.get("_modules", {}).get("inner")
        own = name in self.__dict__ or name in self.__dict__.get("_modules", {}) or hasattr(type(self), name)
        if inner is not None and name in _TAKEN[: 4 if isinstance(inner, nn.Identity) else 2]:
            raise UsageError(f"{name} of {self.site} belongs to its downsampling layer: change it before antialias()")
        if inner is None or own or not (hasattr(inner, name) or isinstance(value, (Tensor, nn.Module))):
            super().__setattr__(name, value)
        elif name in inner._parameters and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            raise UsageError(
                f"{name} of {self.site} must be an nn.Parameter, got a tensor; torch.func.functional_call takes the "
                f"names of named_parameters() and named_buffers(), which have inner.{name}"
            )
        else:
            setattr(inner, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete it where ``__getattr__`` would find it."""
        inner = self._modules.get("inner")
        super().__delattr__(name) if inner is None or not hasattr(inner, name) else delattr(inner, name)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """To ``inner``, which runs it, unless it takes the place of a part of this one."""
        super().add_module(name, module) if name in self.own else self.inner.add_module(name, module)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Of ``inner``, which may have it already, where it is given to every module."""
        self.inner.register_buffer(name, tensor, persistent)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Likewise."""
        self.inner.register_parameter(name, param)

    def __getitem__(self, key: Any) -> Any:
        """Of an ``nn.Sequential``."""
        inner: Any = self.inner
        return inner[key]

    def __setitem__(self, key: Any, value: nn.Module) -> None:
        """Of an ``nn.Sequential``."""
        inner: Any = self.inner
        inner[key] = value

    def __delitem__(self, key: Any) -> None:
        """Of an ``nn.Sequential``."""
        inner: Any = self.inner
        del inner[key]

    def __len__(self) -> int:
        """Of an ``nn.Sequential``."""
        inner: Any = self.inner
        return len(inner)

    def __bool__(self) -> bool:
        """As modules are, though it has a length."""
        return True

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
            x = x if part is None else run(part, x)
        x = self.inner(x, *args, **kwargs)
        return x if self.down is None else run(self.down, x)


class Centred(nn.Module):
    """In front of a layer that takes a pool's place: samples around the centres of its windows, its output size."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.same = type(pool).__name__ in SAME
        self.windows = [_Windows(pool, axis, self.same) for axis in (0, 1)]
        divisor: Any = getattr(pool, "divisor_override", None)
        self.gain = 1.0 if divisor is None else self.windows[0].size * self.windows[1].size / divisor

    def forward(self, x: Tensor) -> Tensor:
        """Cut off what the first windows leave out, and what is too much for their number; repeat what is missing."""
        for axis, windows in enumerate(self.windows, start=2):
            n, stride = x.shape[axis], windows.stride
            out = windows.count(n)
            padding = windows.padding
            if self.same:  # half of what is missing
                padding = _larger((out - 1) * stride + windows.size - n, 0) // 2
            start = _larger((windows.size - 1) // 2 - padding, 0)
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
        options = getattr(part, "dilation", 1), part.kernel_size, part.stride, 0 if same else part.padding
        dilation, kernel, stride, padding = (per_axis(option)[axis] for option in options)
        size = dilation * (kernel - 1) + 1
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


def run(part: nn.Module, x: Tensor) -> Tensor:
    """``part`` of maps, or of one without a batch; one node where ``torch.fx`` traces; what it calls does not count."""
    if isinstance(x, fx.Proxy):
        return x.tracer.create_proxy("call_module", x.tracer.path_of_module(part), (x,), {})  # type: ignore[attr-defined]
    with held("muted", True, _thread):
        return part(x) if x.ndim == 4 or isinstance(part, Antialiased) else part(x[None])[0]


def is_muted() -> bool:
    """Whether a layer or an owner runs, whose calls of functions are its own."""
    return bool(getattr(_thread, "muted", False))


class Slice(nn.Module):
    """``x[:, :, i::s, j::t]``; when a layer takes the stride, ``x[:, :, i:, j:]`` is left of it."""

    def __init__(self, start: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.start, self.stride = start, stride

    def forward(self, x: Tensor) -> Tensor:
        """Every stride-th sample, from the first one on."""
        return x[:, :, self.start[0] :: self.stride[0], self.start[1] :: self.stride[1]]


def stride_of(part: nn.Module) -> tuple[int, ...]:
    """The stride of a convolution or pool, (1, 1) of anything else."""
    return per_axis(part.stride) if isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, Slice)) else (1, 1)


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
        return conv.padding == "same" or conv.kernel_size == (1, 1)
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return [2 * p for p in conv.padding] == reach
