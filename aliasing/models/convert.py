"""Anybody's convolutional network in its anti-aliased form, weights kept: ``antialias(model)``."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, fx, nn

from .. import layers
from ..errors import UsageError, unknown
from ..layers.base import Downsample, PaddingMode
from ..layers.polyphase import Polyphase
from .blocks import PLACEMENTS
from .surgery import Instead, Link, complete, fix_same, keeps_size, pair, place_after, place_before, stride_of
from .trace import after_activation, joined, pool_calls, trace

__all__ = ["Change", "Report", "antialias"]

_STRIDES = (2, 3, 4)
# Classes of timm, and of those who copied them, that pad as TensorFlow does.
_SAME = ("Conv2dSame", "MaxPool2dSame")


class Change(NamedTuple):
    """One strided module: its name, what it is, and what was done with it or why it was left."""

    name: str
    what: str
    note: str


@dataclass
class Report:
    """What ``antialias`` did: modules ``replaced`` and modules ``left`` as they were."""

    downsample: str
    replaced: list[Change] = field(default_factory=list)
    left: list[Change] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} replaced with {self.downsample}, {len(self.left)} left"]
        for mark, changes in (("+", self.replaced), ("-", self.left)):
            lines += [f"  {mark} {change.name or '(root)'}: {change.what}: {change.note}" for change in changes]
        return "\n".join(lines)


@overload
def antialias(
    module: nn.Module,
    downsample: str | Mapping[str, Any] = ...,
    placement: str = ...,
    padding_mode: PaddingMode = ...,
    *,
    skip: Collection[str] = ...,
    keep_stem: bool = ...,
    example: Tensor | None = ...,
    inplace: bool = ...,
    return_report: Literal[False] = ...,
) -> nn.Module: ...
@overload
def antialias(
    module: nn.Module,
    downsample: str | Mapping[str, Any] = ...,
    placement: str = ...,
    padding_mode: PaddingMode = ...,
    *,
    skip: Collection[str] = ...,
    keep_stem: bool = ...,
    example: Tensor | None = ...,
    inplace: bool = ...,
    return_report: Literal[True],
) -> tuple[nn.Module, Report]: ...
def antialias(
    module: nn.Module,
    downsample: str | Mapping[str, Any] = "bin-5",
    placement: str = "act-then-pool",
    padding_mode: PaddingMode = "reflect",
    *,
    skip: Collection[str] = (),
    keep_stem: bool = False,
    example: Tensor | None = None,
    inplace: bool = False,
    return_report: bool = False,
) -> nn.Module | tuple[nn.Module, Report]:
    """Give every strided convolution and pool of ``module`` a downsampling layer; weights stay bit for bit.

    - Strided convolutions (any kernel, groups, dilation) run at stride 1, and the layer follows where ``placement``
      says. ``act-then-pool`` needs the activation behind the convolution: it is found by ``torch.fx``; where there is
      none, or the network cannot be traced, the layer follows the convolution itself, and the report says so.
    - Strided 1 x 1 convolutions get the layer in front: for a linear layer the same function, and cheaper.
    - Max-pools become dense max and the layer; with ``pool-then-conv`` the layer alone. Average pools become the layer.
    - Left as they are: patch embeddings (kernel = stride >= 4: dense windows would cost stride^2 times as much),
      strides that differ between the axes, what the layer refuses, what ``skip`` names, and pools written
      as function calls inside a ``forward``.

    Output sizes are those of the original at every input size. With ``subsample`` the function does not change, except
    where average pools are replaced. Names of parameters do not change, so checkpoints of the original load
    (``strict=False`` for layers that learn).

    With polyphase layers (``aps``, ``lps``), branches that meet again, in a residual block for example, sample the grid
    that the first of them chooses; where they cannot, or the network cannot be traced, the report says so. Feature maps
    then move exactly with circular shifts, if everything else in the network does: convolutions and pools padded
    circularly, H and W divisible by the total stride.

    To recover the accuracy of pretrained weights, fine-tune: Zhang's code starts from the original weights and runs
    the last two thirds of the original schedule (ImageNet: SGD, momentum 0.9, weight decay 1e-4, 60 epochs, learning
    rate 0.01 divided by 10 every 30), which ended better than training from scratch. Even without fine-tuning,
    re-estimate the batch-norm statistics: one pass over training images in ``train()`` mode without gradients.

    Args:
        module: any network; it is copied first, unless ``inplace``.
        downsample: name of a layer, or a mapping with its ``name`` and options.
        placement: one of ``aliasing.models.PLACEMENTS``.
        padding_mode: of the layers.
        skip: names of modules to leave, or patterns such as ``"features.*"``.
        keep_stem: leave the first strided convolution, as Zhang and Vasconcelos et al. do in ResNets.
        example: an input, needed only by layers that learn, to count the channels of pools; zeros of
            (1, 3, 224, 224) unless given.
        inplace: change ``module`` itself.
        return_report: return the report too.

    Raises:
        UsageError: unknown names, or nothing was replaced.
    """
    options = {"name": downsample} if isinstance(downsample, str) else dict(downsample)
    name = options.pop("name", None)
    if name not in layers.NAMES:
        raise unknown("downsampling layer", name, layers.NAMES)
    if placement not in PLACEMENTS:
        raise unknown("placement", placement, PLACEMENTS)
    network = module if inplace else deepcopy(module)
    job = _Job(name, {"padding_mode": padding_mode, **options}, placement)
    job.run(network, tuple(skip), keep_stem, example)
    if not job.report.replaced:
        raise UsageError(f"nothing to anti-alias in {type(module).__name__}: {job.report}")
    return (network, job.report) if return_report else network


class _Job:
    """One conversion: the layer to put in, and the report that grows."""

    def __init__(self, name: str, options: dict[str, Any], placement: str) -> None:
        self.name, self.options, self.placement = name, options, placement
        self.report = Report(name)

    def run(self, network: nn.Module, skip: tuple[str, ...], keep_stem: bool, example: Tensor | None) -> None:
        existing = {id(part) for m in network.modules() if isinstance(m, Downsample) for part in m.modules()}
        strided = [
            (name, part)
            for name, part in network.named_modules()
            if id(part) not in existing and stride_of(part) != (1, 1)
        ]
        convolutions = [part for _, part in strided if isinstance(part, nn.Conv2d)]
        graph = trace(network)
        behind = {}
        if graph is not None and self.placement == "act-then-pool":
            behind = after_activation(graph, network, convolutions)
        channels = _count_channels(network, [part for _, part in strided], example) if self._learns() else {}
        layer_of: dict[nn.Module, Downsample] = {}
        why_left: dict[nn.Module, str] = {}
        for name, part in strided:
            why = _why_left(part)
            if any(name == pattern or fnmatch(name, pattern) for pattern in skip):
                why = "named in skip"
            elif keep_stem and convolutions and part is convolutions[0]:
                why = "stem, kept on request"
            if why is None:
                try:
                    layer_of[part] = self._layer(part, channels.get(part, 1))
                except UsageError as error:
                    why = str(error)
            if why is not None:
                why_left[part] = why
        sharing = self._share(network, graph, [part for _, part in strided], layer_of, behind)
        for name, part in strided:
            what = _describe(part)
            if part in why_left:
                self.report.left.append(Change(name, what, why_left[part]))
                continue
            layer = layer_of[part]
            if isinstance(part, nn.Conv2d):
                note = self._convolution(part, layer, behind.get(part))
            elif isinstance(part, nn.MaxPool2d) and self.placement != "pool-then-conv":
                note = self._max(part, layer)
            else:
                network.set_submodule(name, Instead(part, layer))
                note = "the layer alone"
            self.report.replaced.append(Change(name, what, note + sharing.get(part, "")))
        for name in pool_calls(graph) if graph is not None else ():
            self.report.left.append(Change(name, "a function call", "not a module, out of reach"))

    def _share(
        self,
        network: nn.Module,
        graph: fx.Graph | None,
        strided: list[nn.Module],
        layer_of: dict[nn.Module, Downsample],
        behind: dict[nn.Module, tuple[str, nn.Module]],
    ) -> dict[nn.Module, str]:
        """Let branches that meet again sample one grid; returns what the report should say of each module.

        The first branch to run chooses; the others have no means to choose. Changes ``layer_of``.
        """
        if not any(isinstance(layer, Polyphase) for layer in layer_of.values()):
            return {}
        if graph is None:
            return dict.fromkeys(layer_of, "; cannot be traced: its choice is not shared with other branches")
        groups, apart = joined(graph, network, strided)
        names = {part: name for name, part in network.named_modules()}
        notes = {}
        turn = {network.get_submodule(str(node.target)): i for i, node in enumerate(graph.nodes) if _is_call(node)}

        def when(part: nn.Module) -> int:
            """When the layer of ``part`` runs."""
            in_front = isinstance(part, nn.Conv2d) and self._in_front(part)
            return turn[part if in_front or part not in behind else behind[part][1]]

        for group in groups:
            if any(part not in layer_of for part in group):
                apart.update(group)
                continue
            leader, *others = sorted(group, key=when)
            for part in others:
                layer_of[part] = self._follower(layer_of[part])
                notes[part] = f"; samples the grid that {names[leader]} chooses"
            Link(layer_of[leader], [layer_of[part] for part in others])
        return notes | dict.fromkeys(apart, "; its choice is not shared with the branch it joins")

    def _follower(self, layer: Downsample) -> Polyphase:
        options = {key: value for key, value in self.options.items() if key in ("padding_mode", "blur")}
        return Polyphase(1, layer.stride, **options).train(layer.training)

    def _learns(self) -> bool:
        return layers.CATALOGUE[self.name].parameters

    def _layer(self, part: nn.Module, channels: int) -> Downsample:
        if isinstance(part, nn.Conv2d):
            channels = part.in_channels if self._in_front(part) else part.out_channels
        layer = layers.create(self.name, channels, stride_of(part)[0], **self.options)
        weight = next(part.parameters(), None)
        return layer.train(part.training) if weight is None else layer.train(part.training).to(weight.device)

    def _in_front(self, conv: nn.Conv2d) -> bool:
        return keeps_size(conv) and (conv.kernel_size == (1, 1) or self.placement == "pool-then-conv")

    def _convolution(self, conv: nn.Conv2d, layer: Downsample, place: tuple[str, nn.Module] | None) -> str:
        in_front = self._in_front(conv)
        if type(conv).__name__ in _SAME:
            fix_same(conv, 0.0)
        conv.stride = (1, 1)
        if in_front and not hasattr(conv, "down_before"):
            place_before(conv, layer)
            return "layer, then the convolution at stride 1"
        if place is not None:
            side, target = place
            if side == "after" and not hasattr(target, "down"):
                place_after(target, layer)
                return "stride 1, layer after the activation"
            if side == "before" and not hasattr(target, "down_before"):
                place_before(target, layer)
                return "stride 1, layer after the activation"
        place_after(conv, layer)
        reason = {
            "conv-then-pool": "",
            "act-then-pool": " (no activation found behind it)",
            "pool-then-conv": " (in front it would change the size)",
        }
        return "stride 1, layer after the convolution" + reason[self.placement]

    def _max(self, pool: nn.MaxPool2d, layer: Downsample) -> str:
        if type(pool).__name__ in _SAME:
            fix_same(pool, float("-inf"))
        elif pool.ceil_mode:
            pool.register_forward_pre_hook(partial(complete, stride=stride_of(pool)[0]))
            pool.ceil_mode = False
        pool.stride = 1
        place_after(pool, layer)
        return "dense max, then the layer"


def _why_left(part: nn.Module) -> str | None:
    """Why a strided module is left as it is, or ``None``."""
    stride = stride_of(part)
    if stride[0] != stride[1]:
        return "its strides differ between the axes"
    if isinstance(part, nn.Conv2d) and part.kernel_size == stride and stride[0] >= 4:
        return "patch embedding: dense windows would cost stride^2 times as much"
    if stride[0] not in _STRIDES:
        return f"strides are supported up to {_STRIDES[-1]}"
    if isinstance(part, nn.AvgPool2d) and type(part) is not nn.AvgPool2d:
        return "an average pool of another kind"
    if isinstance(part, nn.MaxPool2d) and part.return_indices:
        return "its indices are used"
    return None


def _is_call(node: fx.Node) -> bool:
    return node.op == "call_module"


def _describe(part: nn.Module) -> str:
    kernel = "x".join(map(str, pair(part.kernel_size)))
    return f"{type(part).__name__} {kernel} stride {'x'.join(map(str, stride_of(part)))}"


def _count_channels(network: nn.Module, parts: list[nn.Module], example: Tensor | None) -> dict[nn.Module, int]:
    """Channels that arrive at each of ``parts``, counted in one forward pass."""
    counts: dict[nn.Module, int] = {}
    hooks = [part.register_forward_pre_hook(lambda m, x: counts.update({m: x[0].shape[1]})) for part in parts]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, 224, 224) if example is None else example)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return counts
