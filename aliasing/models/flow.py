"""What the steps of a run tell: the activation behind a convolution, and branches that meet again."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn
from torch.nn.modules import activation

from .owners import stride_of
from .watch import PRODUCTS, SPATIAL, Step

_ACTIVATIONS = {
    *("relu", "relu6", "gelu", "silu", "softplus", "leaky_relu", "hardswish", "elu", "mish", "selu", "hardtanh"),
    *("sigmoid", "tanh"),
}
_JOINS = {  # of maps that need not be alike in shape
    *("add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide", "addcmul", "addcdiv"),
    *("lerp", "maximum", "minimum", "max", "min", "fmax", "fmin", "where", "pow"),
    *("cat", "concat", "concatenate", "stack", "hstack", "setitem"),
}
_ASKS = {"type_as", "to", "expand_as", "view_as", "reshape_as"}  # the second map for its type or shape alone
_PASSED = (nn.Identity, nn.Dropout, nn.Dropout2d)


def joined(steps: Sequence[Step], strided: Collection[nn.Module]) -> tuple[list[list[nn.Module]], set[nn.Module]]:
    """Which strided modules must keep the same pixels, because a function or module computes with both branches.

    Returns:
        Groups of modules whose inputs hold the same pixels, in the order of the run; and the modules in front
        of joints for which there is no such group: one branch drops pixels in more steps than the other, or by other
        means, or a module runs several times.
    """
    calls = Counter(step.module for step in steps)
    wanted = set(strided)
    drops: list[nn.Module | None] = []  # what dropped pixels, in the order of the run; None is a function
    first: list[int] = []  # of those that keep the same pixels, as far as is known
    paths: dict[Step, tuple[int, ...]] = {steps[0]: ()}  # what dropped pixels between the input and a step
    apart: set[Any] = set()

    def join(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
        """One path for both, where their modules can keep the same pixels; else the longer, noting the modules."""
        if len(one) != len(other):
            apart.update(drops[path[-1]] for path in (one, other) if path)
            return max(one, other, key=len)
        alike = True
        for a, b in [(first[a], first[b]) for a, b in zip(one, other, strict=True)]:
            x, y = drops[a], drops[b]
            alike = alike and (a == b or (x is not None and y is not None and stride_of(x) == stride_of(y)))
            if not alike:
                apart.update((x, y))
            first[:] = [a if alike and i == b else i for i in first]
        return one

    for step in steps[1:]:
        read = [source for source in step.sources if source in paths]
        if not read or not step.shape or step.name.startswith("new_") or step.name.endswith("_like"):
            continue  # it returns no map, or reads none of the pixels
        no_pixels = set(step.shape[2:]) <= {1}  # are left that could be others
        name = step.name.partition(".")[0]
        meet = name in _JOINS or (name not in _ASKS and _is_one_grid([source.shape for source in read]))
        meet = not no_pixels if step.module is not None else meet
        path, *others = dict.fromkeys(paths[source] for source in read)
        for other in others:
            # A product may sum over pixels, unless one side has fewer, as the keys of an attention: over channels then.
            if meet or (name in PRODUCTS and len(other) == len(path)):
                path = join(path, other)
        if no_pixels:
            continue
        if step.module in wanted or step.drops:
            drops.append(step.module if step.module in wanted else None)
            first.append(len(first))
            path = (*path, first[-1])
            if calls[step.module] > 1:
                apart.add(drops[-1])
        paths[step] = path
    apart.discard(None)
    members: dict[int, list[nn.Module]] = defaultdict(list)
    for leader, module in zip(first, drops, strict=True):
        if module is not None:
            members[leader].append(module)
    groups = [group for group in members.values() if len(group) > 1]
    together = [group for group in groups if not apart & set(group)]
    return together, apart | {module for group in groups if apart & set(group) for module in group}


def _is_one_grid(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether maps (N, C, H, W), or tokens (N, L, C), fit together, so that a function may take pixels in pairs."""
    sizes = [shape[2:] if len(shape) > 3 else shape[1:] for shape in shapes]
    return all(len({*along} - {1}) < 2 for along in zip(*map(reversed, sizes), strict=False))  # one may have no batch


def after_activation(
    steps: Sequence[Step], convolutions: Collection[nn.Module]
) -> dict[nn.Module, tuple[str, nn.Module, int]]:
    """For each convolution followed by norm and activation, the place behind the activation.

    The place is ``("after", m, C)``, the output of the module m, which has C channels, or ``("before", m, C)``, its
    input: an activation module may serve several places of a network, so its only reader is taken instead.
    Where a convolution runs several times, as in branches that share their weights, each run must lead there in turn.
    Convolutions without such a place are not in the answer.
    """

    def place(step: Step) -> tuple[str, Any, int] | None:
        if (end := _activated(step)) is None:
            return None
        for side, at in ("after", [end]), ("before", end.readers):
            if len(at) == 1 and at[0].module is not None and at[0].alone:
                pair = [step.module, at[0].module]
                runs = [other.module for other in steps if other.module in pair]
                if runs == pair * (len(runs) // 2):
                    return side, at[0].module, end.shape[-3:][0]  # which may have no batch
        return None

    places: dict[Any, set] = defaultdict(set)
    for step in steps:
        if step.module in convolutions:
            places[step.module].add(place(step))
    return {conv: found.pop() for conv, found in places.items() if len(found) == 1 and None not in found}


def _activated(step: Step) -> Step | None:
    """The activation reached from ``step`` through norms that feed nothing else."""
    while len(step.readers) == 1:
        step = step.readers[0]
        module = step.module
        if module is None:
            return step if step.name in _ACTIVATIONS else None
        act = getattr(module, "act", None)  # some libraries merge norm and activation in one module
        merged = _is_norm(module) and act is not None and not isinstance(act, nn.Identity)
        if merged or _is_activation(module):
            return step
        if not _is_norm(module) and not isinstance(module, _PASSED):
            return None
    return None


def _is_activation(module: nn.Module) -> bool:
    kind = type(module)
    if isinstance(module, nn.MultiheadAttention):
        return False
    return kind.__module__ == activation.__name__ or kind.__module__.rpartition(".")[2].startswith("activations")


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__ and not any(isinstance(part, SPATIAL) for part in module.modules())
