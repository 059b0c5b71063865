"""What a network does when it runs: every spatial reduction, whatever computes it, and the maps at chosen places."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from ..layers.base import Downsample
from .surgery import Antialiased, Instead, call_of

__all__ = ["Reduction", "Run", "called", "evaluated", "examples", "run", "tensors"]

_KINDS = ("pool", "interpolate", "upsample", "unshuffle", "grid_sample")
_SIDES = (224, 32, 64, 28, 96, 128, 256, 299, 384, 512)


@dataclass(frozen=True, eq=False)
class Reduction:
    """One call of a function that returned a map with fewer samples.

    Attributes:
        function: its name.
        module: in whose ``forward`` it was called.
        stack: identities of the modules that were running, the outermost first, each with the number of the run.
        call: what an owner may replace, if the function is one of those.
        before, after: shapes of the maps.
        source: identity of the map that was read.
        result: the map that was returned.
    """

    function: str
    module: nn.Module
    stack: tuple[tuple[int, int], ...]
    call: Any
    before: tuple[int, ...]
    after: tuple[int, ...]
    source: int
    result: Tensor


class Run(NamedTuple):
    """What was seen in one forward pass: output, reductions, and inputs and outputs of modules, call by call."""

    output: Any
    reductions: list[Reduction]
    inputs: dict[int, list[Tensor]]
    outputs: dict[int, list[Tensor]]


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in an output, whatever it is packed in."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def examples(network: nn.Module) -> Iterator[Any]:
    """Inputs that ``network`` may take: noise in [0, 1) of the size and channels it declares, or of usual ones."""
    first = next((part for part in network.modules() if isinstance(part, nn.modules.conv._ConvNd)), None)
    config: Any = getattr(network, "default_cfg", None) or getattr(network, "config", None)
    get = config.get if isinstance(config, dict) else lambda name: getattr(config, name, None)
    declared = get("input_size") or get("image_size")
    side = declared[-1] if isinstance(declared, (list, tuple)) else declared
    channels = getattr(first, "in_channels", 3)
    parameter = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    dimensions = 1 if isinstance(first, nn.Conv1d) else 3 if isinstance(first, nn.Conv3d) else 2
    generator = torch.Generator().manual_seed(0)
    for n in dict.fromkeys((*((side,) if isinstance(side, int) else ()), *_SIDES[: None if dimensions < 3 else 3])):
        x = torch.rand((1, channels, *[n] * dimensions), generator=generator).to(parameter)
        yield x
        if n == _SIDES[0]:
            yield [x[0]]  # as detectors take images


@contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """In evaluation mode without gradients; every module's own mode and the random state come back."""
    modes = [(module, module.training) for module in network.modules()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            network.eval()
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def call(network: nn.Module, example: Any) -> Any:
    """``network`` of an example: a tensor, a tuple of arguments, or a dictionary of named ones."""
    if isinstance(example, dict):
        return network(**example)
    return network(*example) if isinstance(example, tuple) else network(example)


@contextmanager
def called(network: nn.Module, see: Callable[..., None]) -> Iterator[None]:
    """Within, ``see(stack, function, args, kwargs, result)`` is told of every call of a function that takes a tensor.

    ``stack`` has the modules that are running, the outermost first, each with the number of the run.
    """
    stack: list[tuple[nn.Module, int]] = []
    runs: Counter[int] = Counter()

    def enter(module: nn.Module, inputs: tuple) -> None:
        runs[id(module)] += 1
        stack.append((module, runs[id(module)]))

    def leave(module: nn.Module, inputs: tuple, output: Any) -> None:
        while stack.pop()[0] is not module:
            pass

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if stack:
                see(stack, function, args, kwargs or {}, result)
            return result

    with ExitStack() as undo:
        for module in network.modules():
            undo.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        undo.enter_context(Watch())
        yield


def run(
    network: nn.Module,
    example: Any,
    into: Collection[nn.Module] = (),
    out_of: Collection[nn.Module] = (),
    instead: Callable[[nn.Module, str, Tensor], Tensor | None] | None = None,
) -> Run:
    """Run ``network`` once in evaluation mode, and keep what goes ``into`` and ``out_of`` some modules.

    What ``instead(module, "input" or "output", map)`` returns takes the place of that map, and is not kept.
    """
    seen = Run(None, [], defaultdict(list), defaultdict(list))
    alive: list[Any] = []  # so that identities stay theirs

    def keep(kept: dict[int, list[Tensor]], kind: str, module: nn.Module, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return None
        if instead is not None:
            return instead(module, kind, x)
        kept[id(module)].append(x.clone())
        return None

    def arrive(module: nn.Module, inputs: tuple) -> Any:
        x = keep(seen.inputs, "input", module, inputs[0]) if inputs else None
        return None if x is None else (x, *inputs[1:])

    def see(stack: list, function: Any, args: tuple, kwargs: dict, result: Any) -> None:
        source, first = args[0] if args else kwargs.get("input"), next(tensors(result), None)
        shape, after = _shape(source), _shape(first)
        found = call_of(function, args, kwargs)  # has a stride, however little a small map loses by it
        if not (_fewer(shape, after) or (found is not None and 0 < len(after) == len(shape))):
            return
        if any(isinstance(m, (Downsample, Antialiased, Instead)) for m, _ in stack):
            return
        name = resolve_name(function) or getattr(function, "__name__", "")
        if first is not None and (found or (_strided(name, args, kwargs) and set(after[2:]) != {1})):
            alive.append(source)
            short = "slice" if found is not None and found.kind == "slice" else name.rpartition(".")[2]
            where = tuple((id(module), number) for module, number in stack)
            seen.reductions.append(
                Reduction(short, stack[-1][0], where, found, shape, after, id(source), first.clone())
            )

    with ExitStack() as undo:
        undo.enter_context(called(network, see))
        for module in into:
            undo.callback(module.register_forward_pre_hook(arrive).remove)
        for module in out_of:
            hook = module.register_forward_hook(lambda m, i, y: keep(seen.outputs, "output", m, y), prepend=True)
            undo.callback(hook.remove)
        undo.enter_context(evaluated(network))
        output = call(network, example)
    return seen._replace(output=output)


def _strided(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether a function that no owner replaces drops samples, rather than a border."""
    if "conv" in name:
        stride = kwargs.get("stride", args[3] if len(args) > 3 else 1)
        return any(step != 1 for step in (stride if isinstance(stride, (list, tuple)) else (stride,)))
    return any(kind in name for kind in _KINDS) and name.rpartition(".")[2] not in ("max_pool2d", "avg_pool2d")


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(x.shape) if isinstance(x, Tensor) and x.ndim in (3, 4, 5) else ()


def _fewer(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether an axis lost a third or more of its samples."""
    return len(before) == len(after) > 0 and any(b >= 1.5 * a for b, a in zip(before[2:], after[2:], strict=True))
