"""What ``antialias`` converts: every place that drops samples, with its layer, or the reason why it is left."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from copy import deepcopy
from fnmatch import fnmatch
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from .. import layers
from ..errors import UsageError, reason, unknown
from ..layers.base import DTYPES, Downsample, per_axis
from ..layers.polyphase import Polyphase
from .calls import Intercepted, codes_of, pool_of, with_inner
from .flow import after_activation, joined
from .owners import SAME, Antialiased, keeps_size, make_dense, stride_of
from .watch import Reduction, Step, call, copied, evaluated, examples, flags, varied, watched

_STRIDES = (2, 3, 4)
CLASH = f"its owner would hide an attribute of its own: one of {', '.join(Antialiased.own)}"
NO_FLOATS = "its map does not hold real numbers of 16, 32 or 64 bits"
AVERAGE = "averaging is its filter: subsampling instead would be another function"


class Change(NamedTuple):
    """One place that drops samples: its name, what it is, and what was done with it or why it was left."""

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
        call: the call, of the module ``caller``; ``place`` is its number among the ``alike`` calls like it.
        running: the code of the functions in which the calls of ``caller`` were made.
    """

    name: str
    kind: str
    target: str
    reader: bool = False
    note: str = ""
    call: Any = None  # a Call
    caller: str = ""
    place: int = 0
    alike: int = 0
    running: frozenset[CodeType] = frozenset()


class Plan:
    """What is converted in a network, from a look at its modules, its graph and one run; and why the rest is not.

    Attributes:
        left: places that are left, with reasons.
        layers: the layer of each place that is converted; ``fresh`` is a copy for the result, which nothing ran.
        groups: places that sample one grid, the one that chooses first.
        example, output, steps, reductions: what was seen run; no steps if no input was found that the network takes.
    """

    def __init__(
        self,
        original: nn.Module,
        name: str,
        options: dict[str, Any],
        placement: str,
        skip: tuple[str, ...],
        keep_stem: bool,
        example: Any,
    ) -> None:
        network = copied(original)  # some change when they run
        self.network, self.name, self.options, self.skip, self.keep_stem = network, name, options, skip, keep_stem
        # Subsampling a convolution is the strided convolution, also in training, where a norm sees what is behind it.
        self.placement = "conv-then-pool" if name == "subsample" else placement
        self.learns = learns(name, options)
        self.modules = dict(network.named_modules())
        self.name_of = {id(part): name for name, part in self.modules.items()}
        self.names = defaultdict(list)
        for path, part in network.named_modules(remove_duplicate=False):
            self.names[id(part)].append(path)
        existing = {id(p) for m in self.modules.values() if isinstance(m, Downsample) for p in m.modules()}
        self.strided = [m for m in self.modules.values() if id(m) not in existing and stride_of(m) != (1, 1)]
        if any(nn.parameter.is_lazy(p) for p in [*network.parameters(), *network.buffers()]):
            raise UsageError(f"{type(network).__name__} has lazy modules without weights: run it once, then convert it")
        self.whats = {self.name_of[id(part)]: _describe(part) for part in self.strided}
        self._look(example)
        convolutions = [part for part in self.strided if isinstance(part, nn.Conv2d)]
        ran = (step.module for step in self.steps if step.module in convolutions)  # may be defined in another order
        self.stem = self.name_of.get(id(next(ran, next(iter(convolutions), None))))
        self.behind = after_activation(self.steps, convolutions)
        self.demoted = {self.name_of[id(c)]: CLASH for c, (_, target, _) in self.behind.items() if _clashes(target)}
        self.kept: dict[str, str] = {}
        self.notes: list[str] = []
        self._look_in_training(convolutions)
        self._hold(original)

    def _hold(self, original: nn.Module) -> None:
        """Have weights that a run changed, as of an encoder that follows another one, begin each run as they were."""
        own = dict(self.network.named_parameters())
        pairs = [(own[name], weight) for name, weight in original.named_parameters() if name in own]
        # Not those that other libraries pack, which need not be comparable.
        pairs = [(x, y) for x, y in pairs if type(y) is nn.Parameter and not y.is_meta and not torch.equal(x, y)]

        def restore(*_: Any) -> None:
            for x, y in pairs:
                x.data.copy_(y)

        if pairs:
            self.network.register_forward_pre_hook(restore)  # its copies have the hook as well

    def _look_in_training(self, convolutions: list[nn.Conv2d]) -> None:
        """Demote or keep what a forward uses in another way in training, as with an auxiliary head, or by a flag."""
        for flag in ({}, *flags(self.network, self.example)) if self.steps else ():
            where = "".join(f"with {name}={value}" for name, value in flag.items()) or "in training"
            twin = self.twin()  # some change there, as those that begin with the statistics of a first batch
            named = twin.named_modules(remove_duplicate=False)  # also those that a first run adds
            own: dict[Any, nn.Module] = {part: self.modules[name] for name, part in named if name in self.modules}
            try:
                with watched(twin) as (steps, reductions), evaluated(twin, as_in_training=not flag):
                    call(twin, self.example, flag)
            except Exception:  # it wants labels there
                continue
            for step in steps:
                step.module = own.get(step.module)
            behind, ran = after_activation(steps, convolutions), {step.module for step in steps}
            names = [Counter(step.name for step in run if step.module is None) for run in (steps, self.steps)]
            lends = any("conv" in name for name in names[0] - names[1])  # a function with the weights of a module
            for conv in convolutions:
                name = self.name_of[id(conv)]
                if lends and conv not in ran and self.shapes(conv):
                    self.kept[name] = f"it does not run {where}, where a function may use its weights and stride"
                elif conv in ran and conv in self.behind and behind.get(conv) != self.behind[conv]:
                    self.demoted.setdefault(name, f"{where} something else reads what lies behind it")
            known = [(r.module, r.function, r.call) for r in self.reductions]
            there = [(own.get(r.module), r.function, r.call) for r in reductions if stride_of(r.module) == (1, 1)]
            more = Counter(one[:2] for one in there) - Counter(one[:2] for one in known)
            for module, function in ((module, function) for module, function in more if module is not None):
                name = f"{self.name_of[id(module)]}:{function}".lstrip(":")
                extra = [call for *one, call in Counter(there) - Counter(known) if one == [module, function] and call]
                # An owner refuses to guess which of several like its own it is to replace.
                alike = any(call in extra and module in outer.modules() for outer, _, call in known)
                fate = "once the call like it is converted, that is refused: name it in skip"
                fate = fate if alike else "what runs only there is left"
                self.notes.append(f"{where} {name} drops samples as well: {fate}")
        for conv in convolutions:
            if not is_standard(conv) and _has_own_stride(conv):
                self.kept.setdefault(self.name_of[id(conv)], "in training its class computes with a stride of its own")

    def twin(self) -> nn.Module:
        """A copy of the network that has its weights, not others like them, which would take time and memory."""
        return copied(self.network, self.network.parameters())

    def _look(self, example: Any) -> None:
        """Watch the example, or the first that runs."""
        self.example = self.output = None
        self.steps: list[Step] = []
        self.reductions: list[Reduction] = []
        given = example is not None and not isinstance(example, int)
        for one in (varied(example),) if given else examples(self.network, example):
            self.ran: set[nn.Module] = set()  # modules whose forward was called, unlike that of a ModuleList
            hook = nn.modules.module.register_module_forward_pre_hook(lambda part, _: self.ran.add(part))
            try:
                with watched(self.network) as (steps, reductions), evaluated(self.network):
                    output = call(self.network, one)
            except Exception as error:  # of anybody's network
                if given:
                    kind = type(self.network).__name__
                    raise UsageError(f"{kind} does not run on the example: {reason(error)}") from error
            else:
                self.example, self.output, self.steps, self.reductions = one, output, steps, reductions
                return
            finally:
                hook.remove()

    def plan(self) -> list[Site]:
        """What is converted, in the order of the modules, calls behind them; why the rest is not is in ``left``."""
        self.left: list[Change] = []
        self.layers: dict[str, Downsample] = {}
        sites: list[Site] = []
        taken = {(self.name_of[id(c)], True) for c in self.strided if isinstance(c, nn.Conv2d) and self._in_front(c)}
        for part in self.strided:
            name = self.name_of[id(part)]
            shapes = self.shapes(part)
            why = self._why_left(self.names[id(part)], part, shapes) or self._create(name, part, shapes, part)
            if why is not None:
                self.left.append(Change(name, self.whats[name], why))
            else:
                sites.append(self._site(name, part, taken))
        for name, part in self.modules.items():
            outer = self.modules[name.rpartition(".")[0]] if name else None
            if isinstance(part, torch.jit.ScriptModule) and not isinstance(outer, torch.jit.ScriptModule):
                self.left.append(Change(name, "a scripted module", "nothing in it can be seen: convert, then script"))
        self.groups, notes = self._share(sites)
        sites = [site._replace(note=site.note + notes.get(site.name, "")) for site in sites] + self._calls()
        self.fresh = deepcopy(self.layers)
        return sites

    def shapes(self, part: nn.Module) -> list[tuple[int, ...]]:
        """Of what the module ``part`` returned, run by run."""
        return [step.shape for step in self.steps if step.module is part]

    def _create(self, name: str, part: nn.Module, shapes: list[tuple[int, ...]], around: nn.Module) -> str | None:
        """Make the layer of a site; why not, if it refuses."""
        if isinstance(part, nn.Conv2d):
            channels = part.in_channels if self._in_front(part) else self._activated(part)[2]
        elif not shapes and self.learns:
            return "the layer learns, and the channels of the map are not known: give an example"
        elif self.learns and len(several := sorted({shape[1] for shape in shapes})) > 1:
            counts = " and ".join(map(str, several))
            return f"the layer learns for one number of channels, and its maps have {counts}: give each its own module"
        else:
            channels = shapes[0][1] if shapes else 1
        try:
            layer = layers.create(self.name, channels, stride_of(part)[0], **self.options)
        except UsageError as error:
            return str(error)
        weight = next(around.parameters(), next(self.network.parameters(), torch.empty(0)))
        self.layers[name] = layer.train(around.training).to(weight.device, weight.dtype if self.learns else None)
        return None

    def _skipped(self, names: list[str]) -> str | None:
        skipped = any(name == pattern or fnmatch(name, pattern) for pattern in self.skip for name in names)
        return "named in skip" if skipped else self.kept.get(names[0])

    def _why_left(self, names: list[str], part: Any, shapes: list[tuple[int, ...]]) -> str | None:
        """Why a strided module, or a call like it, is left as it is, or ``None``."""
        stride = stride_of(part)
        if why := self._skipped(names):
            return why
        if _clashes(part):
            return CLASH
        if self.keep_stem and names[0] == self.stem:
            return "stem, kept on request"
        if isinstance(part, nn.Conv2d) and part.kernel_size == stride and min(stride) >= 4:
            return "patch embedding: dense windows would cost stride^2 times as much"
        if stride[0] != stride[1]:
            return "its strides differ between the axes"
        if stride[0] not in _STRIDES:
            return f"strides are supported up to {_STRIDES[-1]}"
        if getattr(part, "return_indices", False):
            return "its indices are used"
        if any(r.module is part and r.y.dtype not in DTYPES for r in self.reductions):
            return NO_FLOATS
        if isinstance(part, nn.AvgPool2d):
            if type(part) is not nn.AvgPool2d:
                return "an average pool of another kind"
            if self.name == "subsample":
                return AVERAGE
            if shapes and all(shape[2:] == (1, 1) for shape in shapes):
                return "a global average: it covers the whole map of the example"
        if not shapes and not is_standard(part):
            return "its class computes in a way of its own, and no example ran through it to check: give an example"
        return None

    def check_skip(self) -> None:
        """Raise ``UsageError`` for a name in ``skip`` that matches nothing."""
        names = {path for part in self.strided for path in self.names[id(part)]}
        names |= {change.name for change in self.left} | set(self.layers)
        for pattern in self.skip:
            if not any(name == pattern or fnmatch(name, pattern) for name in names):
                raise unknown("name or pattern in skip (nothing there drops samples)", pattern, sorted(names))

    def _activated(self, conv: nn.Conv2d) -> tuple[str, nn.Module, int]:
        """Where the layer of a convolution may be placed behind the activation, and the channels it sees there."""
        where = self.behind.get(conv)
        if where is None or self.placement != "act-then-pool" or self.name_of[id(conv)] in self.demoted:
            return "", conv, conv.out_channels
        return where

    def _in_front(self, conv: nn.Conv2d) -> bool:
        return keeps_size(conv) and (conv.kernel_size == (1, 1) or self.placement == "pool-then-conv")

    def _site(self, name: str, part: nn.Module, taken: set[tuple[str, bool]]) -> Site:
        if isinstance(part, nn.MaxPool2d) and self.placement != "pool-then-conv":
            return Site(name, "max", name, note="dense max, then the layer")
        if not isinstance(part, nn.Conv2d):
            return Site(name, "alone" if hasattr(part, "kernel_size") else "after", name, note="the layer alone")
        if self._in_front(part):
            return Site(name, "front", name, note="layer, then the convolution at stride 1")
        if not self.shapes(part):
            self.demoted.setdefault(name, "no example ran through it to show what lies behind it")
        side, target, _ = self._activated(part)
        place = self.name_of[id(target)], side == "before"
        if side and place not in taken:
            taken.add(place)
            hooked = ", ".join(self._hooked(part, target, side == "before"))
            seen = f"; hooks on {hooked} see the map in front of it" if hooked else ""
            return Site(name, "behind", *place, note="stride 1, layer after the activation" + seen)
        none = "another layer has the place behind its activation" if side else "no activation found behind it"
        reason = {
            "conv-then-pool": "",
            "act-then-pool": f" ({self.demoted.get(name, none)})",
            "pool-then-conv": " (in front it would change the size)",
        }
        return Site(name, "after", name, note="stride 1, layer after the convolution" + reason[self.placement])

    def _hooked(self, conv: nn.Module, target: nn.Module, reader: bool) -> list[str]:
        """Modules with hooks that see a map on its way from a convolution to its layer: what ends or begins there."""
        path = [next(step for step in self.steps if step.module is conv)]
        while path[-1].module is not target:  # each step has one reader
            path += path[-1].readers
        on, found = {step.module for step in path}, []
        for name, module in self.modules.items():
            ends, begins = map(_has_own, (module._forward_hooks, module._forward_pre_hooks))
            inside = {*module.modules()} if ends or begins else set()
            ends, begins = ends and target not in inside, begins and conv not in inside
            if on & inside and (ends or (begins and not (reader and module is target))):
                found.append(name)
        return found

    def _share(self, sites: list[Site]) -> tuple[list[list[str]], dict[str, str]]:
        """Sites that sample one grid because their branches meet again, the first to run first; notes for the report.

        The first branch to run chooses; the others have no means to choose. Changes ``layers``.
        """
        if not any(isinstance(layer, Polyphase) for layer in self.layers.values()):
            return [], {}
        by_name = {site.name: site for site in sites}
        turn = {self.name_of[id(step.module)]: i for i, step in enumerate(self.steps) if step.module is not None}
        groups, apart = joined(self.steps, self.strided) if self.steps else ([], set())
        shared, notes = [], {}
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
        unseen = [name for name in by_name if not self.shapes(self.modules[name])]
        notes |= dict.fromkeys(unseen, "; no example ran through it: its choice is not shared with other branches")
        return shared, notes

    def _calls(self) -> list[Site]:
        """Calls of functions that are converted. Adds to ``left``."""
        self.results: dict[str, list[Tensor]] = {}
        callers: dict[str, list[Reduction]] = defaultdict(list)
        for reduction in self.reductions:
            if stride_of(reduction.module) == (1, 1):  # not a site itself
                callers[self.name_of[id(reduction.module)]].append(reduction)
        gone: dict[int, str] = {}
        for caller, own in callers.items():
            first = [r for r in own if r.stack[-1] == own[0].stack[-1]]
            for i, name in enumerate(numbered([f"{caller}:{r.function}".lstrip(":") for r in first])):
                alike = own[i :: len(first)]  # the same call whenever the module ran
                self.whats[name] = _describe_call(first[i])
                why = self._skipped([name]) or _why_no_pool(alike, self.reductions)
                if why is None and first[i].call is not None:
                    part, maps = pool_of(first[i].call), [r.y for r in alike]
                    shapes = [(1, *y.shape)[-4:] for y in maps]
                    why = self._why_left([name], part, shapes) or self._create(name, part, shapes, first[i].module)
                    self.results[name] = maps
                if why is None:
                    gone |= dict.fromkeys(map(id, alike), name)
                else:
                    self.left.append(Change(name, self.whats[name], why))
        sites = []
        for caller, own in callers.items():
            frame = own[0].stack[-1]
            converted = [r for r in own if r.stack[-1] == frame and id(r) in gone]
            wanted = [r.call for r in converted]
            running = frozenset[CodeType]().union(*(r.running for r in own if id(r) in gone))
            # The owners see the calls like theirs that are still made, also those of modules inside.
            still = [
                r
                for r in self.reductions
                if frame in r.stack
                and r.call in wanted
                and (r in converted or (id(r) not in gone and self.name_of[id(r.module)] not in self.layers))
            ]
            for i, r in enumerate(converted):
                name, target = gone[id(r)], f"{caller}.antialiased.{i}".lstrip(".")
                site, at, many = self._site(name, pool_of(r.call), set()), still.index(r), len(still)
                note = site.note + ("; its choice is its own" if isinstance(self.layers[name], Polyphase) else "")
                site = site._replace(target=target, note=note, call=r.call, caller=caller)
                sites.append(site._replace(place=at, alike=many, running=running))
        return sites


def learns(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a layer of these options has parameters."""
    return layers.CATALOGUE[name].parameters or bool(options.get("trainable"))


def _why_no_pool(alike: list[Reduction], every: list[Reduction]) -> str | None:
    """Why a call, one of ``every``, cannot be replaced by a layer, or ``None``."""
    reduction, kind = alike[0], type(alike[0].module)
    if "blur" in kind.__name__.lower():
        return "filtered already"
    if any(r.y.dtype not in DTYPES for r in alike):
        return NO_FLOATS
    if isinstance(reduction.module, Intercepted):
        return "other calls of its module are converted already: convert the original, all at once"
    if isinstance(reduction.module, fx.GraphModule):
        return "called by an fx.GraphModule: convert the network that it was traced from"
    if kind.__module__.startswith("torch.nn"):
        return "no layer is defined for this kind of module"
    if "forward" in vars(reduction.module):
        return "its module has a forward of its own beside that of its class"
    if reduction.call is None:
        return "a function call for which no layer is defined"
    kernel = dict(reduction.call.options).get("kernel_size", ())
    # Of 2 x 2 it is rather the last halving of a small example.
    if reduction.call.kind == "max" and kernel > (2, 2) and all(r.before == kernel for r in alike):
        return "a global maximum: it covers the whole map of the example"
    if reduction.call.kind == "slice":
        same = [r.call for r in every if r.source is reduction.source and r.call is not None]
        if any(call.kind == "slice" and call != reduction.call for call in same):
            return "the other samples are read as well, by other slices"
        if min(dict(reduction.call.options).get("start", [-1])) < 0:
            return "not a slice of both image axes and of nothing else, from a first sample to the border"
    if any(r.call != reduction.call for r in alike):
        return "its module makes other calls at other times"
    return None


def _has_own(hooks: Mapping[int, Any]) -> bool:
    """Whether there are other hooks than those of a conversion before."""
    parts = (getattr(hook, "func", hook) for hook in hooks.values())
    return any(getattr(part, "__module__", None) != f"{__package__}.guards" for part in parts)


def _clashes(part: nn.Module) -> bool:
    """Whether the owner of ``part`` would hide something of it."""
    return not isinstance(part, Antialiased) and any(hasattr(part, name) for name in Antialiased.own)


def is_standard(part: nn.Module) -> bool:
    """Whether a convolution or pool computes as the class of torch it is of, or pads in a way that is known."""
    kind = next(k for k in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d) if isinstance(part, k))
    return type(part).__name__ in SAME or all(
        getattr(type(part), name, None) is getattr(kind, name, None) for name in ("forward", "_conv_forward")
    )


def names_stride(kind: type) -> bool:
    """Whether a class that is not torch's names a stride in its methods, as what pads by that of a part.

    In its constructor it would see the one that was given.
    """
    own = [vars(base) for base in kind.__mro__ if not base.__module__.startswith("torch.")]
    codes = [code for names in own for name in names if name != "__init__" for code in codes_of(names[name])]
    return any("stride" in code.co_names for code in with_inner(codes))


def _has_own_stride(conv: nn.Conv2d) -> bool:
    """Whether in training its class subsamples also where its stride is 1, as one that remembers its arguments."""
    parts = deepcopy(conv), deepcopy(conv)
    make_dense(parts[1])
    try:
        with evaluated(nn.ModuleList(parts), as_in_training=True):
            strided, dense = (part.forward(conv.weight.new_zeros(1, conv.in_channels, 64, 64)) for part in parts)
    except Exception:  # of anybody's class
        return False
    rows, columns = stride_of(conv)
    return bool(strided.shape != dense[..., ::rows, ::columns].shape)


def numbered(names: list[str]) -> list[str]:
    """With a number behind what occurs several times."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name} {seen[name]}" if names.count(name) > 1 else name)
    return result


def _describe(part: nn.Module) -> str:
    kernel = "x".join(map(str, per_axis(part.kernel_size)))
    return f"{type(part).__name__} {kernel} stride {'x'.join(map(str, stride_of(part)))}"


def _describe_call(reduction: Reduction) -> str:
    before, after = ("x".join(map(str, sides)) for sides in (reduction.before, reduction.after))
    kind = type(reduction.module)
    what = kind.__name__ if kind.__module__.startswith("torch.nn") else f"{reduction.function}, a function call"
    return f"{what}, {before} to {after}"
