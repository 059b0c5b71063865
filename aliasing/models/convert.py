"""Anybody's convolutional network in its anti-aliased form, weights kept: ``antialias(model)``."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import UsageError, unknown
from ..layers.base import Downsample, PaddingMode
from ..layers.polyphase import Polyphase
from .blocks import PLACEMENTS
from .surgery import (
    Antialiased,
    Call,
    Complete,
    Guard,
    Instead,
    Link,
    Place,
    intercept,
    keeps_size,
    pair,
    pool_of,
    stride_of,
)
from .trace import after_activation, joined, traceable
from .watch import Reduction, Run, evaluated, examples, run, tensors
from .watch import call as call_on

__all__ = ["Change", "Report", "antialias"]

_STRIDES = (2, 3, 4)
# Classes of timm, and of those who copied them, that pad as TensorFlow does.
_SAME = ("Conv2dSame", "MaxPool2dSame")
# Modules around a network that change nothing, and where they hold it.
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
_GLOBAL = "a global average: it covers the whole map of the example"
_AVERAGE = "averaging is its filter: subsampling instead would be another function"


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
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} replaced with {self.downsample}, {len(self.left)} left"]
        for mark, changes in (("+", self.replaced), ("-", self.left)):
            lines += [f"  {mark} {change.name or '(root)'}: {change.what}: {change.note}" for change in changes]
        return "\n".join([*lines, *(f"  ! {note}" for note in self.notes)])


def antialias(
    module: nn.Module,
    downsample: str | Mapping[str, Any] = "bin-5",
    placement: str = "act-then-pool",
    padding_mode: PaddingMode = "reflect",
    *,
    skip: Collection[str] = (),
    keep_stem: bool = False,
    example: Any = None,
    inplace: bool = False,
    return_report: bool = False,
) -> Any:
    """Give every strided convolution and pool of ``module`` a downsampling layer; weights stay bit for bit.

    - Strided convolutions (any kernel, groups, dilation) run at stride 1, and the layer follows where ``placement``
      says. ``act-then-pool`` needs the activation behind the convolution: ``torch.fx`` finds it in the largest parts
      of the network that it can trace; where it does not, the layer follows the convolution itself.
    - Strided 1 x 1 convolutions get the layer in front: for a linear layer the same function, and cheaper.
    - Max-pools become dense max and the layer; with ``pool-then-conv`` the layer alone. Average pools become the layer.
    - Pools and slices ``x[:, :, ::2, ::2]`` that a ``forward`` calls as functions are converted likewise.
    - Left as they are: patch embeddings (kernel = stride >= 4: dense windows would cost stride^2 times as much),
      global averages, strides that differ between the axes, what the layer refuses, what ``skip`` names, and every
      other reduction (strided ``conv2d`` calls, interpolation, adaptive pools, one and three dimensions).

    The report names every place that drops samples when ``example`` runs, and what became of it. Output sizes are those
    of the original at every input size. ``subsample`` in the new places is the original function: this is checked
    with the example, in evaluation mode, and a place where it is not is moved or left, with the reason.

    The ``state_dict`` keeps its names, so checkpoints of the original load (``strict=False`` for layers that learn).
    Modules may be replaced by type afterwards (norms, activations, quantisation); where a change loses a layer, the
    next forward raises ``UsageError``.

    With polyphase layers (``aps``, ``lps``), branches that meet again, in a residual block for example, sample the grid
    that the first of them chooses; where they cannot, or the network cannot be traced, the report says so, and whether
    the output is exactly invariant to circular shifts: everything else has to be so as well (convolutions and pools
    padded circularly, H and W divisible by the total stride).

    To recover the accuracy of pretrained weights, fine-tune: Zhang's code starts from the original weights and runs
    the last two thirds of the original schedule (ImageNet: SGD, momentum 0.9, weight decay 1e-4, 60 epochs, learning
    rate 0.01 divided by 10 every 30), which ended better than training from scratch. Even without fine-tuning,
    re-estimate the batch-norm statistics: one pass over training images in ``train()`` mode without gradients.

    Args:
        module: any network, or a single convolution or pool; it is copied first, unless ``inplace``.
        downsample: name of a layer, or a mapping with its ``name`` and options.
        placement: one of ``aliasing.models.PLACEMENTS``.
        padding_mode: of the layers.
        skip: names of modules to leave, or patterns such as ``"features.*"``.
        keep_stem: leave the first strided convolution, as Zhang and Vasconcelos et al. do in ResNets.
        example: an input: a tensor, a tuple of arguments or a dictionary of named ones. Unless given, noise of the size
            the network declares, or of usual sizes until one fits.
        inplace: change ``module`` itself.
        return_report: return ``(network, report)`` instead of the network.

    Raises:
        UsageError: unknown names, a ``skip`` that matches nothing, an example that does not fit, or nothing to replace.
    """
    options = {"name": downsample} if isinstance(downsample, str) else dict(downsample)
    name = options.pop("name", None)
    if name not in layers.NAMES:
        raise unknown("downsampling layer", name, layers.NAMES)
    if placement not in PLACEMENTS:
        raise unknown("placement", placement, PLACEMENTS)
    if inside := _WRAPPERS.get(type(module).__name__):
        wrapper = module if inplace else deepcopy(module)
        options = {"placement": placement, "padding_mode": padding_mode, "skip": skip, "keep_stem": keep_stem}
        part = getattr(wrapper, inside)
        network, report = antialias(part, downsample, **options, example=example, inplace=True, return_report=True)
        setattr(wrapper, inside, network)
        return (wrapper, report) if return_report else wrapper
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    job = _Job(module, name, {"padding_mode": padding_mode, **options}, placement, skip, keep_stem, example)
    sites = job.settle()
    network = job.apply(module if inplace else deepcopy(module), sites)
    report = job.finish(sites, network)
    if not report.replaced and not any(change.note == _AVERAGE for change in report.left):
        raise UsageError(f"nothing to anti-alias in {type(module).__name__}: {report}")
    return (network, report) if return_report else network


class Site(NamedTuple):
    """One place that is converted.

    Attributes:
        name: of the module; of a call of a function, of the module that calls it and the function.
        kind: ``front``, ``after``, ``behind`` (the activation), ``max`` or ``alone``.
        target: the module the layer is placed at: behind its output or, with ``reader``, in front of it.
        reader: whether the target reads the activation.
        note: what the report says.
    """

    name: str
    kind: str
    target: str
    reader: bool = False
    note: str = ""


class _Job:
    """One conversion: the layer to put in, what is known of the network, and the report that grows."""

    def __init__(
        self,
        network: nn.Module,
        name: str,
        options: dict[str, Any],
        placement: str,
        skip: tuple[str, ...],
        keep_stem: bool,
        example: Any,
    ) -> None:
        self.network, self.name, self.options, self.skip, self.keep_stem = network, name, options, skip, keep_stem
        self.placement = "act-then-pool" if name == "subsample" else placement  # a strided convolution, whatever it is
        self.learns = layers.CATALOGUE[name].parameters
        self.modules = dict(network.named_modules())
        self.name_of = {id(part): name for name, part in self.modules.items()}
        self.names = defaultdict(list)
        for path, part in network.named_modules(remove_duplicate=False):
            self.names[id(part)].append(path)
        existing = {id(p) for m in self.modules.values() if isinstance(m, Downsample) for p in m.modules()}
        self.strided = [m for m in self.modules.values() if id(m) not in existing and stride_of(m) != (1, 1)]
        self.whats = {self.name_of[id(part)]: _describe(part) for part in self.strided}
        self.parts = list(traceable(network))
        self.whole = len(self.parts) == 1 and not self.parts[0][0]
        self.behind: dict[str, tuple[str, nn.Module]] = {}
        convolutions = [part for part in self.strided if isinstance(part, nn.Conv2d)]
        self.stem = self.name_of[id(convolutions[0])] if convolutions else None
        for prefix, part, graph in self.parts:
            for conv, place in after_activation(graph, part, convolutions).items():
                if self.whole or all(f"{path}.".startswith(f"{prefix}.") for path in self.names[id(place[1])]):
                    self.behind[self.name_of[id(conv)]] = place
        self.demoted: dict[str, str] = {}
        self.kept: dict[str, str] = {}
        self.example, self.seen = self._see(example)

    def _see(self, example: Any) -> tuple[Any, Run | None]:
        """The example, or the first that runs, and what is seen with it."""
        into = [target for side, target in self.behind.values() if side == "before"]
        out_of = [*self.strided, *(target for side, target in self.behind.values() if side == "after")]
        why: Exception | None = None
        for one in examples(self.network) if example is None else (example,):
            try:
                return one, run(self.network, one, into, out_of)
            except Exception as error:  # of anybody's network
                why = error
        if example is not None:
            raise UsageError(f"{type(self.network).__name__} does not run on the example: {_line(why)}") from why
        return None, None

    # What is to be done

    def plan(self) -> list[Site]:
        """What is converted, in the order of the modules; why the rest is not is in ``left``."""
        self.left: list[Change] = []
        self.layers: dict[str, Downsample] = {}
        sites: list[Site] = []
        taken = {(self.name_of[id(c)], True) for c in self.strided if isinstance(c, nn.Conv2d) and self._in_front(c)}
        for part in self.strided:
            name = self.name_of[id(part)]
            why = self.kept.get(name) or self._why_left(name, part) or self._make(name, part)
            if why is not None:
                self.left.append(Change(name, self.whats[name], why))
            elif isinstance(part, nn.Conv2d):
                sites.append(self._convolution(name, part, taken))
            elif isinstance(part, nn.MaxPool2d) and self.placement != "pool-then-conv":
                sites.append(Site(name, "max", name, note="dense max, then the layer"))
            else:
                sites.append(Site(name, "alone", name, note="the layer alone"))
        self.groups, notes = self._share(sites)
        self.calls = self._functions()
        return [site._replace(note=site.note + notes.get(site.name, "")) for site in sites]

    def _make(self, name: str, part: nn.Module) -> str | None:
        """Make the layer of a site; why not, if it refuses."""
        channels = None
        if isinstance(part, nn.Conv2d):
            channels = part.in_channels if self._in_front(part) else part.out_channels
        elif self.seen is not None and self.seen.outputs.get(id(part)):
            channels = self.seen.outputs[id(part)][0].shape[1]
        if channels is None and self.learns:
            return "the layer learns, and the channels of the map are not known: give an example"
        return self._create(name, channels or 1, stride_of(part)[0], part)

    def _create(self, name: str, channels: int, stride: int, part: nn.Module) -> str | None:
        try:
            layer = layers.create(self.name, channels, stride, **self.options)
        except UsageError as error:
            return str(error)
        weight = next(part.parameters(), next(self.network.parameters(), torch.empty(0)))
        self.layers[name] = layer.train(part.training).to(weight.device)
        return None

    def _why_left(self, name: str, part: nn.Module) -> str | None:
        """Why a strided module is left as it is, or ``None``."""
        stride = stride_of(part)
        if any(path == pattern or fnmatch(path, pattern) for pattern in self.skip for path in self.names[id(part)]):
            return "named in skip"
        if self.keep_stem and name == self.stem:
            return "stem, kept on request"
        if isinstance(part, nn.Conv2d) and part.kernel_size == stride and min(stride) >= 4:
            return "patch embedding: dense windows would cost stride^2 times as much"
        if why := _why_stride(stride):
            return why
        if isinstance(part, nn.AvgPool2d) and type(part) is not nn.AvgPool2d:
            return "an average pool of another kind"
        if isinstance(part, nn.AvgPool2d) and self.name == "subsample":
            return _AVERAGE
        if isinstance(part, nn.MaxPool2d) and part.return_indices:
            return "its indices are used"
        maps = self.seen.outputs.get(id(part)) if self.seen is not None else None
        if isinstance(part, nn.AvgPool2d) and maps and all(y.shape[2:] == (1, 1) for y in maps):
            return _GLOBAL
        if not maps and type(part).__name__ not in _SAME and not _is_standard(part):
            return "its class computes in a way of its own, and no example ran through it to check: give an example"
        return None

    def _in_front(self, conv: nn.Conv2d) -> bool:
        return keeps_size(conv) and (conv.kernel_size == (1, 1) or self.placement == "pool-then-conv")

    def _convolution(self, name: str, conv: nn.Conv2d, taken: set[tuple[str, bool]]) -> Site:
        if self._in_front(conv):
            return Site(name, "front", name, note="layer, then the convolution at stride 1")
        side, target = self.behind.get(name, ("", conv))
        place = self.name_of[id(target)], side == "before"
        if self.placement == "act-then-pool" and side and name not in self.demoted and place not in taken:
            taken.add(place)
            return Site(name, "behind", *place, note="stride 1, layer after the activation")
        reason = {
            "conv-then-pool": "",
            "act-then-pool": f" ({self.demoted.get(name, 'no activation found behind it')})",
            "pool-then-conv": " (in front it would change the size)",
        }
        return Site(name, "after", name, note="stride 1, layer after the convolution" + reason[self.placement])

    def _share(self, sites: list[Site]) -> tuple[list[list[str]], dict[str, str]]:
        """Sites that sample one grid because their branches meet again, the first to run first; notes for the report.

        The first branch to run chooses; the others have no means to choose. Changes ``layers``.
        """
        if not any(isinstance(layer, Polyphase) for layer in self.layers.values()):
            return [], {}
        by_name = {site.name: site for site in sites}
        shared, notes = [], {}
        for _, part, graph in self.parts:
            groups, apart = joined(graph, part, self.strided)
            calls = [node for node in graph.nodes if node.op == "call_module"]
            turn = {self.name_of[id(part.get_submodule(str(node.target)))]: i for i, node in enumerate(calls)}
            for group in ([self.name_of[id(member)] for member in group] for group in groups):
                if any(name not in by_name for name in group):
                    apart.update(self.modules[name] for name in group)
                    continue
                leader, *others = sorted(group, key=lambda name: turn[by_name[name].target])
                shared.append([leader, *others])
                for name in others:
                    options = {k: v for k, v in self.options.items() if k in ("padding_mode", "blur")}
                    layer = self.layers[name]
                    self.layers[name] = Polyphase(1, layer.stride, **options).train(layer.training)
                    notes[name] = f"; samples the grid that {leader} chooses"
            notes |= {self.name_of[id(m)]: "; its choice is not shared with the branch it joins" for m in apart}
        if not self.whole:
            alone = set(by_name).difference(*shared)
            notes |= dict.fromkeys(alone, "; cannot be traced whole: its choice is not shared with other branches")
        return shared, notes

    def _functions(self) -> dict[str, list[tuple[str, int, Call]]]:
        """Calls of functions that are converted, by module: site, place among the calls, call. Adds to ``left``."""
        self.results: dict[str, list[Tensor]] = defaultdict(list)
        by_module: dict[str, list[Reduction]] = defaultdict(list)
        for reduction in self.seen.reductions if self.seen is not None else ():
            if stride_of(reduction.module) == (1, 1):  # not a site itself
                by_module[self.name_of[id(reduction.module)]].append(reduction)
        gone: dict[int, str] = {}
        for name, reductions in by_module.items():
            first = [r for r in reductions if r.stack[-1] == reductions[0].stack[-1]]
            names = _numbered([f"{name}:{r.function}".lstrip(":") for r in first])
            for i, reduction in enumerate(reductions):
                site, same = names[i % len(first)], first[i % len(first)]
                if i >= len(first):  # the module runs again
                    if site in self.layers and reduction.call == same.call:
                        gone[id(reduction)] = site
                        self.results[site].append(reduction.result)
                    continue
                why = self.kept.get(site) or self._why_not(site, name, reduction, reductions)
                if why is None and any(r.call != same.call for r in reductions[i :: len(first)]):
                    why = "its module makes other calls at other times"
                if why is None and reduction.call is not None:
                    stride = dict(reduction.call.options)["stride"][0]
                    why = self._create(site, reduction.before[1], stride, reduction.module)
                if why is None:
                    gone[id(reduction)] = site
                    self.results[site].append(reduction.result)
                else:
                    self.left.append(Change(site, _describe_call(reduction), why))
        ordered = {name: self._ordered(reductions, gone) for name, reductions in by_module.items()}
        return {name: calls for name, calls in ordered.items() if calls}

    def _ordered(self, reductions: list[Reduction], gone: dict[int, str]) -> list[tuple[str, int, Call]]:
        """The converted calls of a module, with their places among all like them that run inside it."""
        assert self.seen is not None
        frame = reductions[0].stack[-1]
        converted = [r for r in reductions if r.stack[-1] == frame and id(r) in gone]
        wanted = [r.call for r in converted]
        inside = [
            r
            for r in self.seen.reductions
            if frame in r.stack
            and r.call in wanted
            and (r in converted or (id(r) not in gone and self.name_of[id(r.module)] not in self.layers))
        ]
        return [(gone[id(r)], inside.index(r), r.call) for r in converted if r.call is not None]

    def _why_not(self, site: str, name: str, reduction: Reduction, reductions: list[Reduction]) -> str | None:
        """Why a reduction that a function call makes is left as it is, or ``None``."""
        call = reduction.call
        if any(pattern == site or fnmatch(site, pattern) for pattern in self.skip):
            return "named in skip"
        if "blur" in type(reduction.module).__name__.lower():
            return "filtered already"
        if type(reduction.module).__module__.startswith("torch.nn"):
            return "no layer is defined for this kind of module"
        if call is None:
            return "a function call for which no layer is defined"
        options = dict(call.options)
        if call.kind == "slice":
            same = [r for r in reductions if r.source == reduction.source and r.call is not None and r is not reduction]
            if any(r.call != call for r in same):
                return "the other samples are read as well: nothing is dropped"
            if "start" not in options or min(options["start"]) < 0:
                return "not a slice of both image axes"
        if why := _why_stride(options["stride"]):
            return why
        if options.get("return_indices"):
            return "its indices are used"
        if call.kind == "average" and self.name == "subsample":
            return _AVERAGE
        if call.kind == "average" and reduction.after[2:] == (1, 1):
            return _GLOBAL
        return None

    # Doing it

    def apply(self, network: nn.Module, sites: list[Site], plain: bool = False) -> nn.Module:
        """Convert ``network``, which is like the one that was looked at; ``plain``: with subsampling everywhere."""
        modules = dict(network.named_modules())
        parents = list(modules.values())
        owners: dict[str, Antialiased | Instead] = {}

        def owner(name: str, site: str) -> Any:
            if name not in owners:
                owners[name] = Antialiased(modules[name], site)
            return owners[name]

        def layer(name: str) -> Downsample:
            own = self.layers[name]
            return layers.create("subsample", 1, own.stride) if plain else own

        for site in sites:
            part: Any = modules[site.name]
            if site.kind == "alone":
                owners[site.name] = Instead(part, layer(site.name), site.name)
                continue
            if type(part).__name__ in _SAME:
                is_pool = isinstance(part, nn.MaxPool2d)
                owner(site.name, site.name).complete = Complete(part, True, float("-inf") if is_pool else 0.0)
                part.__class__ = nn.MaxPool2d if is_pool else nn.Conv2d
                part.padding = (0, 0)
            elif getattr(part, "ceil_mode", False):
                owner(site.name, site.name).complete = Complete(part, False, float("-inf"))
                part.ceil_mode = False
            part.stride = 1 if isinstance(part, nn.MaxPool2d) else (1, 1)
            where = owner(site.target, site.name)
            if site.kind == "front" or site.reader:
                where.down_before = layer(site.name)
            else:
                where.down = layer(site.name)
        swap = {id(modules[name]): new for name, new in owners.items()}
        for parent in parents:  # under every name they have
            for key, child in parent._modules.items():
                parent._modules[key] = swap.get(id(child), child)
        for name, calls in self.calls.items():
            pools = [self._pool(site, call, layer(site)) for site, _, call in calls]
            intercept(modules[name], pools, [(place, call) for _, place, call in calls])
        for leader, *others in self.groups if not plain else ():
            Link(self.layers[leader], [self.layers[name] for name in others])
        network = owners.get("", network)
        self._guard(network, sites)
        return network

    def _pool(self, site: str, call: Call, layer: Downsample) -> nn.Module:
        """The owner of the layer of a function call."""
        pool: Any = pool_of(call)
        if call.kind == "average" or (call.kind == "max" and self.placement == "pool-then-conv"):
            return Instead(pool, layer, site)
        owner = Antialiased(pool, site)
        if getattr(pool, "ceil_mode", False):
            owner.complete = Complete(pool, False, float("-inf"))
            pool.ceil_mode = False
        if call.kind == "max":
            pool.stride = 1
        owner.down = layer
        return owner

    def _guard(self, network: nn.Module, sites: list[Site]) -> None:
        """Have every module around the owners check that they are there."""
        places: dict[str, list[Place]] = defaultdict(list)
        for site in sites:
            if not site.target:
                continue
            path = tuple(site.target.split("."))
            dense = tuple(site.name.split(".")) if site.kind == "behind" else None
            # The name of the owner's site: one module may own the layers of two.
            name = str(network.get_submodule(site.target).site)
            both = path if dense is None else [a for a, b in zip(path, dense, strict=False) if a == b]
            depth = min(len(both), len(path) - 1)
            for n in range(depth + 1):
                places[".".join(path[:n])].append(Place(name, path[n:], None if dense is None else dense[n:]))
            if dense is not None:
                home = network.get_submodule(".".join(path[:depth]))
                guard = Guard((Place(name, path[depth:], dense[depth:]),), home)
                for end in (site.target, site.name):
                    network.get_submodule(end).register_forward_pre_hook(guard)
        for around, inside in places.items():
            network.get_submodule(around).register_forward_pre_hook(Guard(tuple(inside)))

    # Checking it

    def differing(self, sites: list[Site]) -> list[str]:
        """Names of sites where subsampling in the new places is not the network; none if no example ran."""
        if self.seen is None:
            return []
        converted = self.apply(deepcopy(self.network), sites, plain=True)
        expected: dict[int, tuple[str, bool, list[Tensor]]] = {}
        into: list[nn.Module] = []
        out_of: list[nn.Module] = []
        for site in sites:
            owner: Any = converted.get_submodule(site.target)
            maps = (self.seen.inputs if site.reader else self.seen.outputs)[id(self.modules[site.target])]
            end = owner.inner if site.reader else owner
            (into if site.reader else out_of).append(end)
            expected[id(end)] = site.name, site.kind != "alone", maps.copy()
        for module, calls in self.calls.items():
            owners: Any = converted.get_submodule(module).antialiased
            for (name, _, call), owner in zip(calls, owners, strict=True):
                out_of.append(owner)
                expected[id(owner)] = name, call.kind != "average", self.results[name].copy()
        wrong: list[str] = []

        def compare(module: nn.Module, kind: str, x: Tensor) -> Tensor | None:
            site, exact, maps = expected[id(module)]
            reference = maps.pop(0) if maps else None
            if reference is None or (exact and not _same(x, reference)):
                wrong.append(site)
            return reference  # so that what follows sees what it saw in the original

        try:
            run(converted, self.example, into, out_of, compare)
        except Exception as error:
            raise UsageError(f"{type(self.network).__name__} does not run when converted: {_line(error)}") from error
        return list(dict.fromkeys([*wrong, *(site for site, _, maps in expected.values() if maps)]))

    def settle(self) -> list[Site]:
        """The plan whose sites, subsampling, are the network; what differs is moved to the convolution, or left."""
        placement = self.placement
        for _ in range(9):
            if placement == "pool-then-conv":  # moved in front of a convolution, sampling is another function
                self.placement = "conv-then-pool"
            sites = self.plan()
            wrong = self.differing(sites)
            self.placement = placement
            if not wrong:
                sites = self.plan()
                self._check_skip()
                return sites
            behind = {site.name for site in sites if site.kind == "behind"}
            for name in wrong:
                if name in behind:
                    self.demoted[name] = "what lies between it and the activation looks at the whole map"
                else:
                    self.kept[name] = "without its stride it computes something else: its class reads it, or its parent"
        raise UsageError(f"{type(self.network).__name__} is another function without the stride of {', '.join(wrong)}")

    def _check_skip(self) -> None:
        names = {path for part in self.strided for path in self.names[id(part)]}
        names |= {change.name for change in self.left} | set(self.layers)
        for pattern in self.skip:
            if not any(name == pattern or fnmatch(name, pattern) for name in names):
                raise unknown("name or pattern in skip (nothing there drops samples)", pattern, sorted(names))

    def finish(self, sites: list[Site], network: nn.Module) -> Report:
        """Run the converted ``network`` once, and report."""
        report = Report(self.name, left=self.left)
        report.replaced = [Change(site.name, self.whats[site.name], site.note) for site in sites]
        for name, calls in self.calls.items():
            for site, _, call in calls:
                alone = call.kind == "average" or (call.kind == "max" and self.placement == "pool-then-conv")
                note = "the layer alone" if alone or call.kind == "slice" else "dense max, then the layer"
                note += "; its choice is its own" if isinstance(self.layers[site], Polyphase) else ""
                report.replaced.append(Change(site, f"{call.kind} by a function call in {name or 'forward'}", note))
        if self.seen is None:
            report.notes.append("no input was found that it runs on: nothing checked, function calls not looked for")
        elif report.replaced:
            try:
                with evaluated(network):
                    output = call_on(network, self.example)
            except Exception as error:
                raise UsageError(f"{type(network).__name__} does not run when converted: {_line(error)}") from error
            shapes = [tuple(y.shape) if isinstance(y, Tensor) else None for y in (self.seen.output, output)]
            if shapes[0] != shapes[1]:
                raise UsageError(f"the converted {type(network).__name__} returns {shapes[1]} instead of {shapes[0]}")
        if any(isinstance(layer, Polyphase) for layer in self.layers.values()) and report.replaced:
            report.notes.append(self._invariance(network, report))
        return report

    def _invariance(self, network: nn.Module, report: Report) -> str:
        """Whether logits are exactly invariant to circular shifts of the example, and what spoils it."""
        spoils = [f"{len(report.left)} strided places left ({report.left[0].name})"] if report.left else []
        padded = [name for name, part in network.named_modules() if _pads(part)]
        spoils += [f"padding that is not circular in {len(padded)} modules ({padded[0]}, ...)"] if padded else []
        apart = [change.name for change in report.replaced if "not shared" in change.note]
        spoils += [f"grids that branches do not share ({', '.join(apart[:3])})"] if apart else []
        why = "; ".join(spoils) or "something else looks at absolute positions, or a side is no multiple of the stride"
        change = _moved(network, self.example) if self.seen is not None else None
        if change is None:
            return f"Not measured whether circular shifts change the output; what spoils it: {why}."
        if change > 1e-9:
            return f"Not exactly invariant to circular shifts (they change the output by {change:.2g} of it): {why}."
        sides = "x".join(map(str, next(tensors(self.example)).shape[-2:]))
        mode = ", in evaluation mode" if self.name == "lps" else ""
        return f"Exactly invariant to circular shifts{mode}: they change the output by {change:.0e} of it at {sides}."


def _moved(network: nn.Module, example: Any) -> float | None:
    """Largest relative change of logits (N, K) under three circular shifts, in double precision."""
    if not isinstance(example, Tensor) or example.ndim != 4:
        return None
    try:
        network = deepcopy(network).double()
        with evaluated(network):
            logits = [
                next(tensors(network(example.double().roll(shift, (2, 3)))))
                for shift in ((0, 0), (1, 0), (0, 1), (5, 3))
            ]
    except Exception:  # not every network has a double precision
        return None
    if logits[0].ndim != 2:
        return None
    return max(float((moved - logits[0]).norm() / logits[0].norm()) for moved in logits[1:])


def _pads(part: nn.Module) -> bool:
    """Whether a module pads, and not circularly."""
    if isinstance(part, Complete):
        return True
    if "Pad" in type(part).__name__:
        return not isinstance(part, nn.CircularPad2d)
    padding = getattr(part, "padding", 0) if isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) else 0
    some = padding == "same" if isinstance(padding, str) else any(pair(padding))
    return some and getattr(part, "padding_mode", "zeros") != "circular"


def _same(x: Tensor, reference: Tensor) -> bool:
    """Equal up to the rounding of another order of summation."""
    if x.shape != reference.shape:
        return False
    exact = x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu"
    gap = (x - reference).abs().nan_to_num()
    return not gap.numel() or bool(gap.max() <= (1e-4 if exact else 2e-2) * reference.abs().nan_to_num().max() + 1e-7)


def _why_stride(stride: tuple[int, int]) -> str | None:
    if stride[0] != stride[1]:
        return "its strides differ between the axes"
    return None if stride[0] in _STRIDES else f"strides are supported up to {_STRIDES[-1]}"


def _is_standard(part: nn.Module) -> bool:
    """Whether a convolution or pool computes as the class of torch it is of."""
    kind = next(k for k in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d) if isinstance(part, k))
    return all(getattr(type(part), name, None) is getattr(kind, name, None) for name in ("forward", "_conv_forward"))


def _numbered(names: list[str]) -> list[str]:
    """With a number behind what occurs several times."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name} {seen[name]}" if names.count(name) > 1 else name)
    return result


def _describe(part: nn.Module) -> str:
    kernel = "x".join(map(str, pair(part.kernel_size)))
    return f"{type(part).__name__} {kernel} stride {'x'.join(map(str, stride_of(part)))}"


def _describe_call(reduction: Reduction) -> str:
    before, after = ("x".join(map(str, shape[2:])) for shape in (reduction.before, reduction.after))
    kind = type(reduction.module)
    what = kind.__name__ if kind.__module__.startswith("torch.nn") else f"{reduction.function}, a function call"
    return f"{what}, {before} to {after}"


def _line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
