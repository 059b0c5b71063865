"""What a network does when it runs: its steps, whose maps each of them reads, and every spatial reduction."""

import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, Mapping, ValuesView
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, is_dataclass
from inspect import BoundArguments, signature
from itertools import product, takewhile
from traceback import walk_stack
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import UsageError
from ..inference import evaluating
from ..layers.base import Downsample
from .calls import call_of
from .owners import Antialiased

SPATIAL = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)
_SIDES = (224, 32, 64, 28, 96, 128, 256, 299, 384, 512)
# Functions that drop samples wherever they return fewer, at any number of dimensions.
_SAMPLING = ("pool", "interpolate", "upsample", "unshuffle", "grid_sample")
# Those that take no border away, so that one sample less was dropped as well.
_RESAMPLING = ("adaptive", "fractional", "interpolate", "upsample")
# Functions that take a part of a map, or whose last two axes need not be those of a map.
_PARTS = {"split", "split_with_sizes", "chunk", "tensor_split", "unbind", "narrow", "select", "pad", "glu"}
_PACKETS = [getattr(torch.ops.aten, name) for name in ("stack", "cat", "concat", "concatenate")]
_JOINS = {torch.stack, torch.cat, torch.concat, torch.concatenate, *_PACKETS, *(join.default for join in _PACKETS)}
PRODUCTS = {"matmul", "mm", "bmm", "baddbmm", "einsum", "tensordot", "linear", "scaled_dot_product_attention"}


@dataclass(eq=False)
class Step:
    """One step of a run: a module that is taken as a whole, or a call of a function outside of such modules.

    Attributes:
        module: the module; ``None`` for a function.
        name: of the function, without underscores.
        alone: whether it was called with a single argument.
        sources: the steps whose maps it read.
        readers: the steps that read what it returned.
        shape: of the first tensor it returned, with a batch of one where a convolution or pool got a map without.
        drops: whether a function that it called, or it itself, drops samples.
    """

    module: nn.Module | None
    name: str
    alone: bool
    sources: list["Step"]
    shape: tuple[int, ...]
    drops: bool
    readers: list["Step"] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Reduction:
    """One call of a function that returned a map with fewer samples.

    Attributes:
        function: its name.
        stack: the modules that were running, the outermost first, each with the number of the run.
        call: what an owner may replace, if the function is one of those.
        before, after: height and width of the maps, or as many axes as there are.
        source: the map that was read, which may have been changed since.
        x, y: copies of the maps.
        operator: the call as a function of the map; ``None`` where it joins parts of it.
        running: the code of the functions from the ``forward`` of the innermost module to the call.
    """

    function: str
    stack: tuple[tuple[nn.Module, int], ...]
    call: Any  # a Call
    before: tuple[int, ...]
    after: tuple[int, ...]
    source: Tensor
    x: Tensor
    y: Tensor
    operator: Callable[[Tensor], Tensor] | None
    running: frozenset[CodeType]

    @property
    def module(self) -> nn.Module:
        """In whose ``forward`` it was called."""
        return self.stack[-1][0]


def tensors(value: Any, within: bool = False, seen: dict[Any, Any] | None = None) -> Iterator[Tensor]:
    """Every tensor in an output, whatever it is packed in.

    But not in a generator, which can be run through only once, nor in a set, which has another order in each run.
    """
    seen, key = {} if seen is None else seen, (id(value), within)  # packs may hold themselves
    if isinstance(value, Tensor):
        yield value
    elif key in seen:
        return
    elif isinstance(value, (list, tuple, deque, Mapping, ItemsView, ValuesView)):
        seen[key] = value
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors(part, within, seen)
    elif not isinstance(value, (type, nn.Module)) and (not within or is_dataclass(value)):
        seen[key] = value  # an object of some library, which may hold much else, or a dataclass at any depth
        yield from tensors(object.__getstate__(value), True, seen)  # its attributes, also those in slots


def _first(network: nn.Module) -> tuple[Any, int]:
    """The first convolution, and the axes of the images that ``network`` takes, without batch and channels."""
    first = next((part for part in network.modules() if isinstance(part, nn.modules.conv._ConvNd)), None)
    return first, 1 if isinstance(first, nn.Conv1d) else 3 if isinstance(first, nn.Conv3d) else 2


def examples(network: nn.Module, more: int | None = None) -> Iterator[Any]:
    """Inputs that ``network`` may take: noise in [0, 1) of the size and channels it declares, or of usual ones.

    A side of ``more`` pixels is the last, so that a network that takes others is converted alike whatever it is. Colour
    and grey follow, for networks that make channels of pixels before their first convolution.
    """
    first, dimensions = _first(network)
    config: Any = getattr(network, "default_cfg", None) or getattr(network, "config", None)
    get = config.get if isinstance(config, dict) else lambda name: getattr(config, name, None)
    declared = get("input_size") or get("image_size")
    side = declared[-1] if isinstance(declared, (list, tuple)) else declared
    parameter = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    sides = side, *_SIDES[: None if dimensions < 3 else 3], more
    channels = getattr(first, "in_channels", 3), 3, 1
    for c, n in product(dict.fromkeys(channels), dict.fromkeys(n for n in sides if isinstance(n, int))):
        x = torch.rand((1, c, *[n] * dimensions), generator=generator, device="cpu").to(parameter)
        yield x
        if n == _SIDES[0]:
            yield [x[0]]  # as detectors take images


def _maps(example: Any) -> list[Tensor]:
    """The tensors of an example that are maps: every (N, C, H, W), and its first if that has three axes or more."""
    every = [x for x in tree_leaves(example) if isinstance(x, Tensor)]
    return [x for x in every if x.ndim == 4 or (x is every[0] and x.ndim > 2)]


def varied(example: Any) -> Any:
    """``example`` with noise for its blank maps, such as zeros: a blank map looks alike everywhere.

    So a network that was converted wrongly would return on it what it did before, and after every shift.
    """
    maps, first = {id(x) for x in _maps(example)}, next(tensors(example), None)
    generator = torch.Generator().manual_seed(0)

    def change(x: Tensor) -> Tensor:
        if id(x) not in maps or x.is_meta or not x.is_floating_point():
            return x
        if not x.numel() or not x.isfinite().all():
            if x is not first:  # such as a mask of attention
                return x
            raise UsageError(f"the example must hold an image, of finite numbers; {tuple(x.shape)} holds none")
        if (x != x[..., :1, :1]).any():
            return x
        noise = torch.rand(x.shape, generator=generator, device="cpu").to(x)
        return noise * torch.where(x == 0, 1, x)

    return tree_map_only(Tensor, change, example)


def smaller(example: Any, by: int) -> Iterator[Any]:
    """``example`` with some rows and columns less: of its first map, then of all, which may have to fit together."""
    maps = [id(x) for x in _maps(example)]

    def less(some: list[int]) -> Any:
        return tree_map_only(Tensor, lambda x: x[..., :-by, :-by] if id(x) in some else x, example)

    yield from map(less, (maps[:1], maps)[: len(maps)])


@contextmanager
def evaluated(network: nn.Module, as_in_training: bool = False) -> Iterator[None]:
    """In evaluation mode without gradients, not compiled; modes of modules, buffers and the random state come back.

    With ``as_in_training`` a ``forward`` goes the way it goes in training, with norms and the modules of torch as here.
    """
    buffers = [
        (m._buffers, name, x, None if x is None else x.clone())
        for m in network.modules()
        for name, x in m._buffers.items()
    ]
    with eager(), evaluating(network), torch.random.fork_rng(devices=[]), torch.no_grad():
        for module in network.modules() if as_in_training else ():
            module.training = not isinstance(module, _NormBase) and not type(module).__module__.startswith("torch.nn.")
        try:
            yield
        finally:
            for own, name, buffer, value in buffers:
                own[name] = buffer
                # Only what was changed: some cannot be written to, such as those that repeat a value by a stride of 0.
                if buffer is None or value is None or buffer.layout != torch.strided or buffer.is_meta:
                    continue
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def eager() -> Any:
    """Within, what was compiled runs as it is written: compilers follow neither modes nor hooks."""
    compiler = "torch._dynamo" in sys.modules  # nothing is compiled before it is there, and it takes seconds to import
    return torch.compiler.set_stance("force_eager") if compiler else nullcontext()


def _bound(network: nn.Module, example: Any) -> BoundArguments:
    """An example as the arguments of the network's ``forward``."""
    if isinstance(example, dict):
        return signature(network.forward).bind(**example)
    return signature(network.forward).bind(*(example if isinstance(example, tuple) else (example,)))


def flags(network: nn.Module, example: Any) -> list[dict[str, bool]]:
    """The arguments of its ``forward`` that are true or false in an example, each alone and the other way round."""
    try:
        given = _bound(network, example)
    except (TypeError, ValueError):  # of what was wrapped, or traced
        return []
    given.apply_defaults()
    return [{name: not value} for name, value in given.arguments.items() if isinstance(value, bool)]


def copied(network: nn.Module, shared: Iterable[nn.Parameter] = ()) -> nn.Module:
    """A deep copy, also of what holds a tensor with a gradient, such as a weight that a hook computes: without that.

    Parameters that are ``shared`` are those of the original.
    """
    computed = [x for m in network.modules() for x in vars(m).values() if isinstance(x, Tensor) and not x.is_leaf]
    with torch.enable_grad():  # scripted weights are cloned, and one that learns is known by that
        known = {id(x): x.detach().clone() for x in computed} | {id(weight): weight for weight in shared}
        twin = deepcopy(network, known)
    modes = {name: getattr(part, "training", None) for name, part in network.named_modules()}
    for name, part in twin.named_modules():  # copies of torchvision's feature extractors train, whatever they were
        mode = modes.get(name)  # frozen scripts have none
        if mode is not None and getattr(part, "training", mode) != mode:
            part.train(mode)  # which also chooses their graph; parts inside follow
    for weight in twin.parameters():
        if not weight.is_leaf:  # a clone, whose gradient the original would get
            weight.detach_().requires_grad_()
    return twin


def forget(twin: nn.Module, original: nn.Module) -> None:
    """Free the weights of a copy, which steps and hooks that hold one another would keep for long."""
    for weight in {*twin.parameters()} - {*original.parameters()}:
        weight.data = weight.new_empty(0)


def call(network: nn.Module, example: Any, flag: Mapping[str, bool] | None = None) -> Any:
    """``network`` of a copy of an example: a tensor, a tuple of arguments, or a dictionary of named ones.

    Many networks standardise their input in place, and would see another one in the next run.
    """
    example = tree_map_only(Tensor, Tensor.clone, example)
    if flag:
        given = _bound(network, example)
        given.arguments |= flag
        return network(*given.args, **given.kwargs)
    if isinstance(example, dict):
        return network(**example)
    return network(*(example if isinstance(example, tuple) else (example,)))


@contextmanager
def watched(network: nn.Module) -> Iterator[tuple[list[Step], list[Reduction]]]:
    """Within, the steps and reductions of ``network`` are written down; the first step stands for the input."""
    whole = {id(m) for m in network.modules() if _is_whole(m)}
    steps, reductions = [Step(None, "input", False, [], (), False)], list[Reduction]()
    made: Any = WeakTensorKeyDictionary()  # the step that made a tensor
    sides: Any = WeakTensorKeyDictionary()  # of a map, or of the map a tensor of other dimensions was made of
    _, dimensions = _first(network)
    stack: list[tuple[nn.Module, int]] = []  # the modules that are running, each with the number of the run
    runs: Counter[int] = Counter()

    def step(module: nn.Module | None, name: str, args: tuple, kwargs: dict, result: Any, drops: bool) -> None:
        sources = dict.fromkeys(made[x] for x in tensors([args, kwargs]) if x in made)
        shape = next((tuple(y.shape) for y in tensors(result)), ())
        shape = (1, *shape) if isinstance(module, SPATIAL) and len(shape) == 3 else shape
        new = Step(module, name, len(args) + len(kwargs) == 1, list(sources), shape, drops)
        for source in sources:
            source.readers.append(new)
        for y in tensors(result):
            made[y] = new
        steps.append(new)

    def reduces(function: Any, args: tuple, kwargs: dict, result: Any) -> bool:
        """Keep the call if it drops samples."""
        x, y = (next(tensors(values), None) for values in ([args, kwargs], result))
        if function is torch.Tensor.__setitem__:  # of x[:, :, ::2, ::2] += 1: what is written back was not dropped
            read = call_of(torch.Tensor.__getitem__, args[:2], {})
            reductions[:] = [r for r in reductions if r.source is not x or r.call != read or read is None]
        if x is None or y is None or any(isinstance(m, (Downsample, Antialiased)) for m, _ in stack):
            return False
        if isinstance(x, nn.Parameter):  # no map
            return False
        views: Any = [part._base for part in tensors([args, kwargs])] if function in _JOINS else [None]
        joins = views[0] is not None and all(v is views[0] for v in views) and y.shape[2:] != x.shape[2:]
        x = views[0] if joins else x  # the map whose parts are joined, such as every other row
        first = 1 if x.ndim == dimensions + 1 and sides.get(x) == tuple(x.shape[1:]) else 2  # one map of a batch
        is_map, shape, after = y.ndim == dimensions + first, tuple(x.shape[first:]), tuple(y.shape[first:])
        before = sides.get(x, shape)
        sides[y], before = (after, before) if is_map else (before, shape)
        found = call_of(function, args, kwargs)  # has a stride, however little a small map loses by it
        if before == after and (found is None or not found.options):  # such as every other channel
            return False
        name = resolve_name(function) or getattr(function, "__name__", type(function).__name__)
        name = name.removesuffix(".default").rpartition(".")[2]
        if found is None and not _drops(function, name, args, kwargs, x, y, before, after, is_map):
            return False
        name = "slice" if name == "__getitem__" else name
        rest = {key: value for key, value in kwargs.items() if value is not x}
        again = None if joins else lambda z: next(tensors(function(z, *args[1:], **rest)))
        inside = takewhile(lambda at: at[0].f_code is not nn.Module._call_impl.__code__, walk_stack(sys._getframe()))
        codes = frozenset(frame.f_code for frame, _ in inside)
        reductions.append(Reduction(name, tuple(stack), found, before, after, x, x.clone(), y.clone(), again, codes))
        return True

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not stack:
            for x in tensors([args, kwargs]):
                made[x] = steps[0]
        runs[id(module)] += 1
        stack.append((module, runs[id(module)]))

    def leave(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        while stack[-1][0] is not module:  # these raised an error that was caught
            stack.pop()
        if [m for m, _ in stack if id(m) in whole] == [module]:
            with torch._C.DisableTorchFunction():
                step(module, "", args, kwargs, output, any(stack[-1] in r.stack for r in reductions))
        stack.pop()
        if not stack:  # who called the network reads what it returns, what its modules keep, and what was put in a list
            read = output, args, kwargs, [vars(part) for part in network.modules()]
            with torch._C.DisableTorchFunction():
                step(None, "output", read, {}, None, False)

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            kwargs = kwargs or {}
            result = function(*args, **kwargs)
            if stack:
                drops = reduces(function, args, kwargs, result)
                if not any(id(m) in whole for m, _ in stack):
                    name, made_by, base = getattr(function, "__name__", ""), result, None
                    out = kwargs.get("out")
                    if out is not None or name == "__setitem__" or name.endswith("_") != name.endswith("__"):
                        made_by = next(tensors([out, args, kwargs]), None)  # the map that it writes to
                        base = getattr(made_by, "_base", None)
                    step(None, name.strip("_"), args, kwargs, made_by, drops)
                    if base is not None:  # a part of which was written to, in a shape of its own
                        step(None, "setitem", (base, made_by), {}, base, False)
            return result

    with ExitStack() as undo:
        for module in network.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            undo.callback(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        undo.enter_context(Watch())
        yield steps, reductions


def _is_whole(module: nn.Module) -> bool:
    """Whether a run goes through a module in one step: those without convolutions and pools inside, and these."""
    return isinstance(module, (*SPATIAL, Downsample)) or not any(isinstance(m, SPATIAL) for m in module.modules())


def _drops(
    function: Any, name: str, args: tuple, kwargs: dict, x: Tensor, y: Tensor, before: tuple, after: tuple, is_map: bool
) -> bool:
    """Whether a function that no owner replaces drops samples of a map, rather than a border or all of them."""
    least = 1 if any(kind in name for kind in _RESAMPLING) else 1.5
    little = len(before) == len(after) and all(b <= a or b < least * a for b, a in zip(before, after, strict=True))
    if little or name.startswith("new_"):
        return False
    at_windows = function is F.unfold  # in a row
    if not at_windows and (len(before) != len(after) or set(after) == {1}):
        return False
    if at_windows or "conv" in name:
        at = 4 if at_windows else 3
        stride = kwargs.get("stride", args[at] if len(args) > at else 1)
        strides = stride if isinstance(stride, (list, tuple)) else (stride,)
        if all(isinstance(step, int) for step in strides):
            return any(step != 1 for step in strides)
        return True  # an operator of another library, with arguments in an order of its own
    if any(kind in name for kind in _SAMPLING):
        return x.ndim == y.ndim and name not in ("max_pool2d", "avg_pool2d")
    if name in _PARTS or (name == "__getitem__" and not _skips(args[1])):
        # Of a map whose axes were split, such as (N, C, H/2, 2, W/2, 2), a part may be every other sample.
        split = x.ndim > y.ndim and all(b % a == 0 for b, a in zip(before, after, strict=True))
        if not split or name in ("pad", "glu"):
            return False
    if name in PRODUCTS:
        return False
    return (
        is_map
        and len(y) == len(x)
        and y.numel() < x.numel()
        and any(b >= 1.5 * a > 1.5 for b, a in zip(before, after, strict=True))
    )


def _skips(index: Any) -> bool:
    """Whether an index takes anything but a window."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(i, (Tensor, list)) or getattr(i, "step", None) not in (None, 1) for i in parts)


def maps_of(
    network: nn.Module,
    example: Any,
    into: Collection[nn.Module],
    out_of: Collection[nn.Module],
    instead: Callable[[nn.Module, bool, Tensor], Tensor | None] = lambda module, is_input, x: None,
) -> tuple[Any, dict[tuple[nn.Module, bool], list[Tensor]]]:
    """The output of ``network``, and what goes ``into`` (key: module, True) and ``out_of`` (False) modules, by call.

    What ``instead(module, is_input, map)`` returns takes the place of that map.
    """
    maps: dict[tuple[nn.Module, bool], list[Tensor]] = defaultdict(list)

    def keep(module: nn.Module, is_input: bool, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return None
        maps[module, is_input].append(x.clone())
        return instead(module, is_input, x)

    def arrive(module: nn.Module, args: tuple, kwargs: dict) -> Any:
        name = next(iter(kwargs), None)  # of its input, where that is not given by its place
        x = keep(module, True, args[0] if args else kwargs.get(name))
        return None if x is None else ((x, *args[1:]), kwargs) if args else (args, kwargs | {name: x})

    with ExitStack() as undo:
        for module in into:
            undo.callback(module.register_forward_pre_hook(arrive, with_kwargs=True).remove)
        for module in out_of:
            hook = module.register_forward_hook(lambda module, inputs, y: keep(module, False, y), prepend=True)
            undo.callback(hook.remove)
        undo.enter_context(evaluated(network))
        return call(network, example), maps
