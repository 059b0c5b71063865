"""What ``antialias`` converts: every place that drops samples, with its layer, or the reason why it is left."""

from collections import Counter, defaultdict
from fnmatch import fnmatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import UsageError, unknown
from ..layers.base import Downsample
from ..layers.polyphase import Polyphase
from .surgery import Call, keeps_size, pair, stride_of
from .trace import after_activation, joined, traceable
from .watch import Reduction, Run, examples, run

__all__ = ["AVERAGE", "SAME", "Change", "Plan", "Site", "first_line"]

_STRIDES = (2, 3, 4)
# Classes of timm, and of those who copied them, that pad as TensorFlow does.
SAME = ("Conv2dSame", "MaxPool2dSame")
_GLOBAL = "a global average: it covers the whole map of the example"
AVERAGE = "averaging is its filter: subsampling instead would be another function"


class Change(NamedTuple):
    """One strided module: its name, what it is, and what was done with it or why it was left."""

    name: str
    what: str
    note: str


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


class Plan:
    """What is converted in a network, from a look at its modules, its graph and one run; and why the rest is not.

    Attributes:
        left: places that are left, with reasons.
        layers: the layer of each place that is converted.
        calls: calls of functions that are converted, by module: place, number among the calls like them, call.
        groups: places that sample one grid, the one that chooses first.
        seen: what was seen in the run of ``example``; ``None`` if no input was found that the network takes.
    """

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
            raise UsageError(f"{type(self.network).__name__} does not run on the example: {first_line(why)}") from why
        return None, None

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
            return AVERAGE
        if isinstance(part, nn.MaxPool2d) and part.return_indices:
            return "its indices are used"
        maps = self.seen.outputs.get(id(part)) if self.seen is not None else None
        if isinstance(part, nn.AvgPool2d) and maps and all(y.shape[2:] == (1, 1) for y in maps):
            return _GLOBAL
        if not maps and type(part).__name__ not in SAME and not _is_standard(part):
            return "its class computes in a way of its own, and no example ran through it to check: give an example"
        return None

    def check_skip(self) -> None:
        """Raise ``UsageError`` for a name in ``skip`` that matches nothing."""
        names = {path for part in self.strided for path in self.names[id(part)]}
        names |= {change.name for change in self.left} | set(self.layers)
        for pattern in self.skip:
            if not any(name == pattern or fnmatch(name, pattern) for name in names):
                raise unknown("name or pattern in skip (nothing there drops samples)", pattern, sorted(names))

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
            return AVERAGE
        if call.kind == "average" and reduction.after[2:] == (1, 1):
            return _GLOBAL
        return None


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


def first_line(error: BaseException | None) -> str:
    """Kind and first line of an error of other people's code."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
