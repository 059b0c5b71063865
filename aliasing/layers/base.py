"""What every downsampling layer is, and how measurements watch one at work."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from inspect import signature
from typing import Any, ClassVar, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from ..errors import UsageError, one_of, whole
from ..held import held

PaddingMode = Literal["reflect", "circular", "zeros", "replicate"]
PADDING_MODES = get_args(PaddingMode)  # once: a compiler cannot follow it into a forward pass
Stride = int | tuple[int, ...]  # of all spatial axes, or one per axis
Around = Callable[..., Any]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Downsample(nn.Module):
    """A downsampling layer: ``(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))``.

    Every H, W >= 1 and N >= 0 is accepted, H and W are independent, dtype, device and memory format are kept.

    A layer whose sampling grid depends on the input splits the work in two, so that the branches of a residual
    block can share one grid: ``choose`` looks at the input and returns the choice, ``sample`` applies it.
    For the other layers ``choose`` returns ``None``, and blocks need not tell them apart::

        choice = main.choose(h)
        h, shortcut = main.sample(h, choice), side.sample(x, choice)

    A subclass defines ``sample``, and ``choose`` if it has something to return there. In training a layer may have
    three more methods, which the trainer calls where they exist: ``no_weight_decay()`` returns the parameters that are
    not decayed, ``on_epoch(progress)`` is told how far the training is (0 in the first epoch, 1 in the last), and
    ``auxiliary_losses(form, generator)`` returns two terms for the loss, one that counts always and one that the recipe
    weighs.

    Args:
        channels: C of the maps; read only by layers that learn.
        stride: the subsampling factor, a whole number for all axes or one per axis.
        padding_mode: what lies beyond the border.
        dims: number of spatial axes; (N, C, L) for 1, (N, C, D, H, W) for 3.

    Attributes:
        valid_strides: the strides the layer is defined for, each axis having its own.
        valid_dims: the numbers of spatial axes it is defined for.
        periodic: with circular padding and H, W divisible by the stride, rolling the input by the stride rolls
            the output by one pixel. Exact evaluation over all circular shifts builds on it.

    Raises:
        UsageError: a stride or number of axes that the layer does not define, or an unknown padding mode.
    """

    valid_strides: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)
    valid_dims: ClassVar[tuple[int, ...]] = (2,)
    stride: Any  # a Stride
    dims: int = 2
    periodic: bool = True
    _around: Around | None = None

    def __init__(
        self, channels: int = 1, stride: Stride = 2, padding_mode: PaddingMode = "reflect", dims: int = 2
    ) -> None:
        super().__init__()
        name = type(self).__name__.lower()
        if whole(dims) not in self.valid_dims:
            raise UsageError(f"{name}: dims must be {' or '.join(map(str, self.valid_dims))}, got {dims!r}")
        self.dims = int(dims)
        self.stride = check_stride(name, stride, self.valid_strides, dims)
        self.padding_mode: PaddingMode = padding_mode

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a padding mode, now or later, has to be one, and is that of the layers inside as well."""
        if name == "padding_mode":
            one_of("padding mode", value, PADDING_MODES)
            for part in self.children():
                if isinstance(part, Downsample):
                    part.padding_mode = value
        super().__setattr__(name, value)

    def __init_subclass__(cls, **options: Any) -> None:
        """Have ``choose`` and ``sample`` look at their input first, and be open to ``intercepted``."""
        super().__init_subclass__(**options)
        for name in ("choose", "sample"):
            if name in vars(cls):
                setattr(cls, name, _entered(vars(cls)[name]))

    @property
    def strides(self) -> tuple[int, ...]:
        """The subsampling factor of each axis."""
        return per_axis(self.stride, self.dims)

    @property
    def observed(self) -> bool:
        """True if a hook, or an interception, needs the map before subsampling."""
        return bool(self._forward_hooks or self._forward_pre_hooks) or self._around is not None

    def choose(self, x: Tensor) -> Tensor | None:
        """Choose the sampling grid for ``x``; ``None`` where the layer has nothing a second branch could share."""
        return None

    def sample(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Downsample ``x`` on the grid ``choice``, or on the layer's own if it is ``None``."""
        raise NotImplementedError(f"{type(self).__name__} has no method sample(x, choice), which every layer defines")

    def forward(self, x: Tensor) -> Tensor:
        """Downsample ``x`` on the grid it chooses itself."""
        return self.sample(x, self.choose(x))

    def extra_repr(self) -> str:
        """The stride, and the arguments that are not at their defaults."""
        own = [(name, vars(self).get(name), given.default) for name, given in signature(type(self)).parameters.items()]
        shown = [f"{name}={value!r}" for name, value, default in own if value not in (None, default)]
        return ", ".join(dict.fromkeys([f"stride={self.stride}", *shown]))


def _entered(method: Callable[..., Any]) -> Callable[..., Any]:
    """``choose`` or ``sample`` of a layer, behind a look at the map and the layer's interception."""

    @wraps(method)
    def enter(self: Downsample, x: Tensor, *choice: Tensor | None, **named: Tensor | None) -> Any:
        check_map(type(self).__name__, x, self.dims)
        if self._around is None:
            return method(self, x, *choice, **named)
        around = self._around
        with held("_around", None, self):  # what the layer calls itself is not intercepted again
            return around(self, method.__name__, partial(method, self), x, *choice, **named)

    return enter


def outermost(network: nn.Module) -> dict[str, Downsample]:
    """The downsampling layers of ``network`` by name, each once, without those inside of another."""
    found = {name: part for name, part in network.named_modules() if isinstance(part, Downsample)}
    inner = {id(part) for layer in found.values() for part in layer.modules() if part is not layer}
    return {name: layer for name, layer in found.items() if id(layer) not in inner}


def intercepted(network: nn.Module, around: Around) -> AbstractContextManager[None]:
    """Within, ``layer.choose(x)`` and ``layer.sample(x, choice)`` of the outermost layers are calls of ``around``.

    ``around(layer, name, method, x, choice=None)`` returns what the caller gets instead of the result of the method;
    ``name`` is ``"choose"`` or ``"sample"``, and ``method(x, choice)`` does the layer's own work, on any map. Layers
    without a choice are not asked for one. One interception at a time; the last one counts.

    Example:
        ::

            def twice(layer, name, method, x, *choice):
                return 2 * method(x, *choice) if name == "sample" else method(x)

            with intercepted(network, twice):
                network(images)
    """
    return held("_around", around, *outermost(network).values())


class Call(NamedTuple):
    """One batch that passed a downsampling layer."""

    name: str  # of the layer in the network
    layer: Downsample
    x: Tensor  # the map (N, C, H, W) before filtering
    choice: Tensor | None  # the grid it was sampled on, chosen by the layer or handed in, if there is one
    y: Tensor  # what the layer returned, (N, C, ceil(H/stride), ceil(W/stride))

    def again(self, x: Tensor) -> Tensor:
        """What the layer makes of another map, on the grid it chose for this one; that call is not recorded."""
        with held("_around", None, self.layer):
            return self.layer.sample(x, self.choice)


@contextmanager
def recorded(network: nn.Module) -> Iterator[list[Call]]:
    """Record, in the order of the calls, what passes the outermost downsampling layers of ``network``.

    Whichever way a layer is called: by hooks, by ``layer(x)``, or by a block that calls ``sample`` itself. Maps are
    copied, because operations that work in place would change them afterwards; gradients flow as without. Networks of
    this package that merge plain subsampling with the convolution before it compute the dense map while in evaluation
    mode (see ``Downsample.observed``); in training mode such a layer does not run.

    Example:
        ::

            with torch.no_grad(), recorded(network.eval()) as calls:
                network(images)
            for call in calls:
                print(call.name, call.x.shape, call.y.shape, call.choice)
    """
    names = {id(layer): name for name, layer in outermost(network).items()}
    calls: list[Call] = []

    def around(layer: Downsample, name: str, method: Around, x: Tensor, choice: Tensor | None = None) -> Any:
        if name == "choose":
            return method(x)
        choice = layer.choose(x) if choice is None else choice
        before = x.clone()
        y = method(x, choice)
        calls.append(Call(names[id(layer)], layer, before, choice, y.clone()))
        return y

    with intercepted(network, around):
        yield calls


def renewed(module: Any) -> Any:
    """``module``, of which a layer only reads weight and bias, with the values that it would have if it were called.

    Pruning, and PyTorch's older norms of weights, put no parameter there but a tensor, which a hook computes anew
    before each call. Other hooks are left out: they expect an input.
    """
    if "weight" in vars(module) or "bias" in vars(module):
        for hook in module._forward_pre_hooks.values():
            if hasattr(hook, "apply_mask") or hasattr(hook, "compute_weight"):
                hook(module, ())
    return module


def check_map(layer: str, x: Tensor, dims: int = 2) -> None:
    """Raise ``UsageError`` unless ``x`` is a tensor of floats with so many spatial axes, none of them empty."""
    form = ("(N, C, L)", "(N, C, H, W)", "(N, C, D, H, W)")[dims - 1]
    if not isinstance(x, Tensor):
        raise UsageError(f"{layer} takes a tensor {form}, got {type(x).__name__}")
    if x.dim() != dims + 2:
        hint = "; x[None] adds the batch" if x.dim() == dims + 1 else "; see dims" if 3 <= x.dim() <= 5 else ""
        raise UsageError(f"{layer} takes maps {form}, got {x.dim()} dimensions, {tuple(x.shape)}{hint}")
    if x.dtype not in DTYPES:
        remedy = "quantise with prepare_fx and convert_fx" if x.is_quantized else "for bytes, x.float() / 255"
        raise UsageError(f"{layer} takes floats of 16, 32 or 64 bits, got {x.dtype}; {remedy}")
    if not torch.jit.is_tracing() and 0 in x.shape[2:]:
        raise UsageError(f"{layer} takes maps {form} of at least one pixel, got {tuple(x.shape)}")


def per_axis(stride: Any, dims: int = 2) -> tuple[Any, ...]:
    """``stride``, or what else is a whole number or one per axis, as one per axis."""
    return (stride,) * dims if isinstance(stride, int) else tuple(stride)


def check_stride(layer: str, stride: object, valid: tuple[int, ...], dims: int, name: str = "stride") -> Stride:
    """``stride`` as a whole number, or one per axis where they differ; ``UsageError`` if it is not one of ``valid``."""
    given = tuple(stride) if isinstance(stride, tuple | list) else (stride,) * dims
    strides = tuple(whole(value) for value in given)
    if len(strides) != dims or not set(strides) <= set(valid):
        expected = " or ".join(map(str, valid)) if len(valid) < 3 else f"a whole number from {valid[0]} to {valid[-1]}"
        axes = "" if len(strides) == dims else f" or one of these for each of {dims} axes"
        raise UsageError(f"{layer}: {name} must be {expected}{axes}, got {stride!r}")
    known = cast(tuple[int, ...], strides)
    return known[0] if len(set(known)) == 1 else known
