"""What the graph of a network tells: the activation behind a convolution, and pools that are function calls."""

from collections import Counter
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules import activation

__all__ = ["after_activation", "pool_calls", "trace"]

_FUNCTIONS = {
    *(F.relu, F.relu6, F.gelu, F.silu, F.softplus, F.leaky_relu, F.hardswish, F.elu, F.mish, F.selu, F.hardtanh),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh),
}
_POOLS = (F.max_pool2d, F.avg_pool2d, torch.max_pool2d)
_METHODS = {"relu", "relu_", "sigmoid", "tanh"}
_SPATIAL = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)
_PASSED = (nn.Identity, nn.Dropout, nn.Dropout2d)


class _Tracer(fx.Tracer):
    """Traces into what contains convolutions or pools; everything else is one node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _SPATIAL) or not any(isinstance(part, _SPATIAL) for part in m.modules())


def trace(network: nn.Module) -> fx.Graph | None:
    """The graph of ``network``, or ``None`` where ``torch.fx`` cannot trace it."""
    try:
        return _Tracer().trace(network)
    except Exception:  # the network's own code runs, on symbols instead of tensors: it may raise anything
        return None


def pool_calls(graph: fx.Graph) -> list[str]:
    """Names of the nodes that pool with a stride by a function call, out of the reach of module surgery."""
    found = []
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _POOLS:
            kernel = node.args[1] if len(node.args) > 1 else node.kwargs.get("kernel_size")
            stride = node.args[2] if len(node.args) > 2 else node.kwargs.get("stride")
            if (stride or kernel) not in (1, (1, 1)):
                found.append(node.name)
    return found


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
        if end.op == "call_module" and calls[id(modules[str(end.target)])] == 1:
            places[conv] = ("after", modules[str(end.target)])
        elif len(readers) == 1 and readers[0].op == "call_module" and readers[0].args[:1] == (end,):
            reader = modules[str(readers[0].target)]
            if calls[id(reader)] == 1:
                places[conv] = ("before", reader)
    return places


def _activated(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The activation reached from ``node`` through norms that nobody else reads."""
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
