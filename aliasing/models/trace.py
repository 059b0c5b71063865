"""What the graph of a network tells: the activation behind a convolution, and branches that meet again."""

import operator
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules import activation

from ..layers.base import Downsample
from .surgery import call_of, stride_of

__all__ = ["after_activation", "joined", "traceable"]

_FUNCTIONS = {
    *(F.relu, F.relu6, F.gelu, F.silu, F.softplus, F.leaky_relu, F.hardswish, F.elu, F.mish, F.selu, F.hardtanh),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh),
}
_METHODS = {"relu", "relu_", "sigmoid", "tanh"}
_JOINS = {
    *(operator.add, operator.iadd, operator.sub, operator.mul, operator.imul),
    *(torch.add, torch.sub, torch.mul, torch.maximum, torch.cat, torch.concat, torch.stack),
    *("add", "add_", "sub", "sub_", "mul", "mul_"),
}
_SPATIAL = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)
_PASSED = (nn.Identity, nn.Dropout, nn.Dropout2d)


class _Tracer(fx.Tracer):
    """Traces into what contains convolutions or pools; everything else is one node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*_SPATIAL, Downsample)) or not any(isinstance(part, _SPATIAL) for part in m.modules())


def traceable(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module, fx.Graph]]:
    """The largest parts of ``network`` with strided modules that ``torch.fx`` can trace: name, module and graph."""
    if isinstance(network, _SPATIAL) or all(stride_of(part) == (1, 1) for part in network.modules()):
        return
    try:
        graph = _Tracer().trace(network)
    except Exception:  # the network's own code runs, on symbols instead of tensors: it may raise anything
        for name, child in network.named_children():
            yield from traceable(child, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, network, graph


def _pools(node: fx.Node) -> bool:
    """Whether a function call drops samples."""
    index = node.args[1] if node.op == "call_function" and node.target is operator.getitem else ()
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, slice) and part.step not in (None, 1) for part in parts):
        return True
    return node.op == "call_function" and call_of(node.target, node.args, dict(node.kwargs)) is not None


def joined(
    graph: fx.Graph, network: nn.Module, strided: Collection[nn.Module]
) -> tuple[list[list[nn.Module]], set[nn.Module]]:
    """Which strided modules must keep the same pixels, because their branches are added or concatenated.

    Returns:
        Groups of modules whose inputs hold the same pixels; and the modules in front
        of joints for which there is no such group: one branch drops pixels in more steps than the other, or by other
        means, or a module is called several times.
    """
    modules = dict(network.named_modules())
    calls = Counter(id(modules[node.target]) for node in graph.nodes if node.op == "call_module")
    wanted = {id(module) for module in strided}
    steps: list[nn.Module | None] = []  # what dropped pixels, in the order of the graph; None is a function
    first: list[int] = []  # of the steps that keep the same pixels, as far as is known
    paths: dict[fx.Node, tuple[int, ...]] = {}  # the steps from the input to a node
    apart: set[Any] = set()

    def join(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
        """One path for both, where their modules can keep the same pixels; else the longer, noting the modules."""
        if len(one) != len(other):
            apart.update(steps[path[-1]] for path in (one, other) if path)
            return max(one, other, key=len)
        alike = True
        for a, b in [(first[a], first[b]) for a, b in zip(one, other, strict=True)]:
            x, y = steps[a], steps[b]
            alike = alike and (a == b or (x is not None and y is not None and stride_of(x) == stride_of(y)))
            if not alike:
                apart.update((x, y))
            first[:] = [a if alike and i == b else i for i in first]
        return one

    for node in graph.nodes:
        ways = list(dict.fromkeys(paths[source] for source in node.all_input_nodes if source in paths))
        if node.op == "placeholder":
            ways = [()]
        if not ways:
            continue
        path = ways[0]
        for other in ways[1:] if node.op == "call_module" or node.target in _JOINS else ():
            path = join(path, other)
        module = modules[node.target] if node.op == "call_module" else None
        if id(module) in wanted or _pools(node):
            steps.append(module)
            first.append(len(first))
            path = (*path, first[-1])
            if calls[id(module)] > 1:
                apart.add(module)
        paths[node] = path
    apart.discard(None)
    members: dict[int, list[nn.Module]] = defaultdict(list)
    for leader, module in zip(first, steps, strict=True):
        if module is not None:
            members[leader].append(module)
    groups = [group for group in members.values() if len(group) > 1]
    together = [group for group in groups if not apart & set(group)]
    return together, apart | {module for group in groups if apart & set(group) for module in group}


def after_activation(
    graph: fx.Graph, network: nn.Module, convolutions: Collection[nn.Module]
) -> dict[nn.Module, tuple[str, nn.Module]]:
    """For each convolution followed by norm and activation, the place behind the activation.

    The place is ``("after", m)``, the output of the module m, or ``("before", m)``, its input: an activation module may
    serve several places of a network, so its only reader is taken instead. Convolutions without such a place are not
    in the answer.
    """
    modules = dict(network.named_modules())
    calls = Counter(id(modules[node.target]) for node in graph.nodes if node.op == "call_module")
    wanted = {id(conv) for conv in convolutions}
    places: dict[nn.Module, tuple[str, nn.Module]] = {}
    for node in graph.nodes:
        conv = modules[str(node.target)] if node.op == "call_module" else None
        if conv is None or id(conv) not in wanted or calls[id(conv)] > 1:
            continue
        end = _activated(node, modules)
        if end is None:
            continue
        readers = list(end.users)
        if end.op == "call_module" and calls[id(modules[str(end.target)])] == 1 and len(end.args) == 1:
            places[conv] = ("after", modules[str(end.target)])
        elif len(readers) == 1 and readers[0].op == "call_module" and readers[0].args == (end,):
            reader = modules[str(readers[0].target)]
            if calls[id(reader)] == 1:
                places[conv] = ("before", reader)
    return places


def _activated(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The activation reached from ``node`` through norms that feed nothing else."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op == "call_function":
            return node if node.target in _FUNCTIONS else None
        if node.op == "call_method":
            return node if node.target in _METHODS else None
        if node.op != "call_module":
            return None
        module = modules[str(node.target)]
        if _is_activation(module):
            return node
        if _is_norm(module):
            act = getattr(module, "act", None)  # some libraries merge norm and activation in one module
            if act is not None and not isinstance(act, nn.Identity):
                return node
        elif not isinstance(module, _PASSED):
            return None
    return None


def _is_activation(module: nn.Module) -> bool:
    kind = type(module)
    if isinstance(module, nn.MultiheadAttention):
        return False
    return kind.__module__ == activation.__name__ or kind.__module__.rpartition(".")[2].startswith("activations")


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__ and not any(isinstance(part, _SPATIAL) for part in module.modules())
