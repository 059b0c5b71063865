"""Anybody's convolutional network in its anti-aliased form, weights kept: ``antialias(model)``.

A conversion watches one run of the network (``watch``, ``flow``), plans what becomes of every place that drops samples
(``plan``), gives layers to owners (``owners``, ``calls``, ``guards``), and checks that with layers that subsample the
result would be the original (here).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from math import isfinite
from posixpath import commonpath
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import UsageError, one_of, reason
from ..layers.base import Downsample, PaddingMode, per_axis
from ..layers.polyphase import Polyphase
from ..options import check_options, check_types
from .blocks import PLACEMENTS
from .calls import Conversion, intercept, pool_of
from .guards import Guard, Link, Place
from .owners import Antialiased, Centred, Complete, make_dense
from .plan import AVERAGE, Change, Plan, Site, is_standard, learns, names_stride
from .watch import call as call_on
from .watch import copied, evaluated, forget, maps_of, smaller, tensors, watched

# Modules around a network that change nothing, and where they hold it.
_EXACT = 1e-6  # of what another image changes; what rounding in float64 stays below
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


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
    skip: Iterable[str] = (),
    keep_stem: bool = False,
    example: Any = None,
    inplace: bool = False,
    return_report: bool = False,
) -> Any:
    """Give every strided convolution and pool of ``module`` a downsampling layer; weights stay bit for bit.

    - Strided convolutions (any kernel, groups, dilation) run at stride 1, and the layer follows where ``placement``
      says. ``act-then-pool`` needs the activation behind the convolution, which is found by watching ``example`` run;
      where there is none, the layer follows the convolution itself.
    - Strided 1 x 1 convolutions get the layer in front: for a linear layer the same function, and cheaper.
    - Max-pools become dense max and the layer; with ``pool-then-conv`` the layer alone. Average pools become the layer.
    - Pools and slices ``x[:, :, ::2, ::2]`` that a ``forward`` calls as functions are converted likewise, also where a
      method such as ``encode`` is called without it.
    - Left as they are: patch embeddings (kernel = stride >= 4: dense windows would cost stride^2 times as much),
      global averages and maxima, strides that differ between the axes, what the layer refuses, what ``skip`` names, and
      every other reduction (strided ``conv2d`` calls, interpolation, adaptive pools, one and three dimensions).

    The report names every place that drops samples when ``example`` runs, and what became of it; but products with
    matrices (``einsum``, ``matmul``) are not looked at, since what mixes channels looks the same, nor are slices and
    means of tokens or rows, whose axis need not be one of an image; and what NumPy, scripted functions and other
    threads do is not seen. Output sizes are those of the original at every input size. ``subsample`` in the new places
    is the original function: this is checked with the example, in evaluation mode, and a place where it is not is moved
    or left, with the reason. Whether something else reads a map in training, or with an argument of ``forward`` that is
    true or false the other way round, is looked at as well; but not what is done with targets or masks, or at some
    sizes alone: what is read only there may be the dense map, which is unfiltered. ``conv-then-pool`` leaves none.

    The ``state_dict`` keeps its names, so checkpoints of the original load (``strict=False`` for layers that learn).
    Modules may be replaced by type afterwards (norms, activations, quantisation); where a change loses a layer, the
    next forward raises ``UsageError``. Tools that are given one module (pruning, weight normalisation) want the one
    inside its owner, such as ``network.downsample.inner``. Norms are fused before: with ``conv-then-pool`` a fused bias
    lies in front of the layer, and ``aps`` and padding with zeros do not pass it unchanged. So are strides changed:
    afterwards they are 1. With ``act-then-pool`` the convolution computes at stride 1 and the layer samples behind the
    activation, so a part cut between them returns a larger map; ``conv-then-pool`` keeps both in one module.

    With polyphase layers (``aps``, ``lps``), branches that meet again, in a residual block for example, sample the grid
    that the first of them chooses; where they cannot, the report says so, and whether the output is exactly invariant
    to circular shifts: everything else has to be so as well (convolutions and pools padded circularly, H and W
    divisible by the total stride).

    To recover the accuracy of pretrained weights, fine-tune: Zhang's code starts from the original weights and runs
    the last two thirds of the original schedule (ImageNet: SGD, momentum 0.9, weight decay 1e-4, 60 epochs, learning
    rate 0.01 divided by 10 every 30), which ended better than training from scratch. Even without fine-tuning,
    re-estimate the batch-norm statistics: one pass over training images in ``train()`` mode without gradients.

    Args:
        module: any network, or a single convolution or pool; it is copied first, unless ``inplace``.
        downsample: name of a layer, or a mapping with its ``name`` and options.
        placement: one of ``aliasing.models.PLACEMENTS``.
        padding_mode: of the layers.
        skip: names of modules to leave, or patterns such as ``"features.*"``. Equal calls of a function are told apart
            by their order, which must be the same in training.
        keep_stem: leave the first strided convolution, as Zhang and Vasconcelos et al. do in ResNets.
        example: an input: a tensor, a tuple of arguments or a dictionary of named ones; noise takes the place of a
            blank image. Unless given, noise of the size the network declares, or of usual sizes until one fits; a
            number is the side, in pixels, of one more that is tried last.
        inplace: change ``module`` itself.
        return_report: return ``(network, report)`` instead of the network.

    Raises:
        UsageError: unknown names, a ``skip`` that matches nothing, an example that does not fit, or nothing to replace.
    """
    skip = (skip,) if isinstance(skip, str) else skip
    check_types("antialias", antialias, {"module": module, "downsample": downsample, "skip": skip})
    skip = tuple(skip)
    if others := [type(part).__name__ for part in skip if not isinstance(part, str)]:
        raise UsageError(
            f"antialias: skip must hold names of modules as named_modules() has them, or patterns such as "
            f"'features.*', got {others[0]}"
        )
    options = {"name": downsample} if isinstance(downsample, str) else dict(downsample)
    name = one_of("downsampling layer", options.pop("name", None), layers.CATALOGUE)
    entry, options = layers.CATALOGUE[name], {"padding_mode": padding_mode, **options}
    check_options(name, entry.layer, (*entry.options, "padding_mode"), options)
    one_of("placement", placement, PLACEMENTS)
    if inside := _WRAPPERS.get(type(module).__name__):
        if type(module).__name__ == "DistributedDataParallel" and learns(name, options):
            raise UsageError(f"{name} learns, and DistributedDataParallel would not see it: convert first, then wrap")
        wrapper = module if inplace else copied(module)
        options = {"placement": placement, "padding_mode": padding_mode, "skip": skip, "keep_stem": keep_stem}
        part = getattr(wrapper, inside)
        network, report = antialias(part, downsample, **options, example=example, inplace=True, return_report=True)
        setattr(wrapper, inside, network)
        if inside == "_orig_mod":
            wrapper.__setstate__(wrapper.__getstate__())  # it compiles what it holds now, not what it held
        return (wrapper, report) if return_report else wrapper
    job = _Job(module, name, options, placement, skip, keep_stem, example)
    network, sites = job.settle()
    report = job.finish(sites, network)
    if not report.replaced and not any(change.note == AVERAGE for change in report.left):
        has = len(layers.outermost(module))
        already = f", which has {has} downsampling layers already" if has else ""
        why = report if report.left or report.notes else "no convolution or pool of it drops samples"
        raise UsageError(f"nothing to anti-alias in {type(module).__name__}{already}: {why}")
    forget(job.network, module)
    job.layers = job.fresh
    network = job.apply(module if inplace else copied(module), sites)  # only now, when nothing can fail any more
    job._guard(network, sites)
    return (network, report) if return_report else network


class _Job(Plan):
    """One conversion: a plan, carried out and checked."""

    alike: bool | None = None  # whether the network returns the same again; None: not tried

    def __init__(self, *of_plan: Any) -> None:
        super().__init__(*of_plan)
        self.maps: dict[tuple[nn.Module, bool], list[Tensor]] = {}  # what came out of modules, or (True) went in

    def apply(self, network: nn.Module, sites: list[Site]) -> nn.Module:
        """Convert ``network``, which is like the one that was looked at."""
        modules = dict(network.named_modules())
        parents = list(modules.values())
        owners: dict[str, Antialiased] = {}

        def own(place: str, inner: nn.Module, site: Site) -> Antialiased:
            return owners[place] if place in owners else owners.setdefault(place, Antialiased(inner, site.name))

        for site in sites:
            place, part = (site.name, modules[site.name]) if site.call is None else (site.target, pool_of(site.call))
            alone = site.kind == "alone"
            complete = Centred(part) if alone else make_dense(part)
            if complete is not None:
                owner = own(place, part, site)  # which may have a layer in front already
                owner.complete = complete.train(part.training)
                owner.inner = nn.Identity().train(part.training) if alone else part
            before = site.kind == "front" or site.reader
            target: Any = modules.get(site.target, part)
            setattr(own(site.target, target, site), "down_before" if before else "down", self.layers[site.name])
            if not site.reader:
                owners[site.target].take_hooks(target)
        for owner in owners.values():  # in whose order some tools run leaf modules
            owner._modules = {name: owner._modules[name] for name in owner.own if name in owner._modules}
        swap = {id(modules[name]): new for name, new in owners.items() if name in modules}
        for parent in parents:  # under every name they have
            for key, child in parent._modules.items():
                parent._modules[key] = swap.get(id(child), child)
        by = Conversion()
        for caller in {site.caller: None for site in sites if site.call is not None}:
            calls = [site for site in sites if site.call is not None and site.caller == caller]
            owning = [owners[c.target] for c in calls]
            places = [(c.place, c.call) for c in calls]
            intercept(modules[caller], owning, places, calls[0].alike, by, calls[0].running)
        targets = {site.name: site.target.replace(".", "/") for site in sites}
        for group in (group for group in self.groups if targets.keys() >= {*group}):
            around = commonpath([targets[name] for name in group]).split("/")
            leader, *others = (self.layers[name] for name in group)
            Link(leader, others, modules[".".join(around[: self._runs(around, len(around))])])
        return owners.get("", network)

    def _runs(self, path: Sequence[str], depth: int) -> int:
        """``depth``, or less, so that the module ``path[:depth]`` was called: hooks of others never run."""
        while depth and self.modules[".".join(path[:depth])] not in self.ran:
            depth -= 1
        return depth

    def _guard(self, network: nn.Module, sites: list[Site]) -> None:
        """Have every module around the owners check that they are there."""
        places: dict[str, list[Place]] = defaultdict(list)
        for site in sites:
            if not site.target:
                continue
            owner: Any = network.get_submodule(site.target)  # its site is its own: it may have the layers of two
            path, own, behind = tuple(site.target.split(".")), tuple(site.name.split(".")), site.kind == "behind"
            dense = own if behind else (*path, "inner") if own == path else None
            depth = sum(not behind or path[:n] == own[:n] for n in range(1, len(path)))
            for n in range(depth + 1):
                places[".".join(path[:n])].append(Place(owner.site, path[n:], None if dense is None else dense[n:]))
            if behind:
                depth = self._runs(path, depth)
                guard = Guard((Place(owner.site, path[depth:], own[depth:]),))
                home = network.get_submodule(".".join(path[:depth]))
                guard.watch(home, not depth, network.get_submodule(site.name), owner)
        for around, inside in places.items():
            network.get_submodule(around).register_forward_pre_hook(Guard(tuple(inside)))

    def settle(self) -> tuple[nn.Module, list[Site]]:
        """The converted network and its sites.

        If the layers subsampled, it would be the original: sites where not are moved to the convolution, or left.
        """
        placement = self.placement
        while True:  # each turn moves or leaves a site
            if placement == "pool-then-conv":  # moved in front of a convolution, sampling is another function
                self.placement = "conv-then-pool"
            sites = self.plan()
            network, wrong = self._compare(sites)
            ran = [site for site in sites if site.call is not None or self.shapes(self.modules[site.name])]
            if wrong and len(ran) < len(sites):  # other code may compute with a module that does not run
                wrong = self._compare(ran)[1] or [site.name for site in sites if site not in ran]
            again, self.placement = self.placement != placement, placement
            if not wrong:
                self.check_skip()
                if again:
                    sites = self.plan()
                    network = self.apply(self.twin(), sites)
                self._guard(network, sites)
                return network, sites
            behind = {site.name for site in sites if site.kind == "behind"}
            for name in wrong:
                if name in behind:
                    self.demoted[name] = self.error or "what lies between it and the activation looks at the whole map"
                else:
                    why = "without its stride it computes something else: its class reads it, or its parent"
                    self.kept[name] = self.error or why

    def _compare(self, sites: list[Site]) -> tuple[nn.Module, list[str]]:
        """The converted network, and the names of sites where it would not be the original if its layers subsampled.

        Where it does not run, this is the last site that began, of those that did not end if there are any.
        """
        converted, self.error = self.apply(self.twin(), sites), ""
        if not self.steps or not sites:
            return converted, []
        self._observe(sites)
        expected: dict[tuple[nn.Module, bool], tuple[Site, list[Tensor]]] = {}
        for site in sites:
            own = self.results[site.name] if site.call else self.maps[self.modules[site.target], site.reader]
            expected[_end(converted, site)] = site, own.copy()
        begins = {converted.get_submodule(site.target if site.call else site.name): site.name for site in sites}
        wrong, against = _against(expected)
        begun: list[str] = []

        def compare(module: nn.Module, is_input: bool, x: Tensor) -> Tensor | None:
            if (module, is_input) not in expected:
                begun.append(begins[module])
                return None
            return against(module, is_input, x)

        into, out_of = _sides(expected)
        try:
            with _subsampling(self.layers[site.name] for site in sites):
                output = maps_of(converted, self.example, [*begins, *into], out_of, compare)[0]
        except Exception as error:
            waiting = {site.name for site, references in expected.values() if references}
            last = [name for name in begun if name in waiting][-1:]
            calls = [site for site in sites if site.call is not None]
            if calls and not last and not self._compare([site for site in sites if site.call is None])[1]:
                last = [site.name for site in calls]  # something ran their owners as if they were parts of its own
            last = last or [site.name for site in sites if site.kind == "behind"] or begun[-1:]
            if not last:
                raise self._does_not_run(error) from error
            self.error = f"the network does not run without its stride: {reason(error)}"
            return converted, last
        # What follows an owner that did not run saw another map: it is not at fault.
        wrong = [site.name for site, references in expected.values() if references] or wrong
        if not wrong and self.alike and not _alike(output, self.output):  # not alike: it draws noise of its own
            wrong = self._asked_for(sites)
        return converted, list(dict.fromkeys(wrong or self._elsewhere(converted, sites)))

    def _asked_for(self, sites: list[Site]) -> list[str]:
        """Sites with which the output is another, though each map is what it was: those at modules of a class, or all.

        A forward may ask for the class or the stride of a part, whose place an owner takes, or read what lies in front.
        """
        at: dict[Any, list[Site]] = defaultdict(list)
        for site in sites:
            at[site.kind, type(self.modules.get(site.target))].append(site)
        kinds = [some for some in at.values() if len(at) > 1 and self._compare(some)[1]]
        reads = "a forward reads its stride or what lies in front, or asks for its class"
        self.error = f"with its layer the output is another: {reads}"
        return [site.name for some in kinds or at.values() for site in some]

    def _elsewhere(self, converted: nn.Module, sites: list[Site]) -> list[str]:
        """Sites of modules that would not be the original where the example is a row and a column smaller.

        What pads by its stride may pad alike at stride 1 if a side is odd, and not if it is even, or the other way
        round. Maps behind d halvings are a row smaller if the example is 2^d rows smaller, which is tried where a class
        computes in a way of its own, or what holds a part looks at strides.
        """
        standard = all(is_standard(self.modules[site.name]) for site in sites if site.call is None)
        standard = standard and not any(map(names_stride, {*map(type, self.modules.values())}))
        others = (x for d in range(1 if standard else 5) for x in smaller(self.example, 2**d))
        return next(filter(None, (self._wrong_at(x, converted, sites) for x in others)), [])

    def _wrong_at(self, example: Any, converted: nn.Module, sites: list[Site]) -> list[str]:
        """Sites of modules that would not be the original with another example; none if it does not run on that."""
        own, calls = ([site for site in sites if (site.call is None) == is_module] for is_module in (True, False))
        theirs = [(self.modules[site.target], site.reader) for site in own]
        try:
            watching: Any = watched(self.network) if calls else nullcontext(([], []))
            with watching as (_, reductions):
                seen = maps_of(self.network, example, *_sides(theirs))[1]
            expected = {_end(converted, site): (site, seen[key]) for site, key in zip(own, theirs, strict=True)}
            if calls:
                # A call that averages would subsample as well: what it returns is put back, too.
                # Other reductions may be none where the map is small.
                then, now = ([r for r in run if r.call is not None] for run in (self.reductions, reductions))
                like = {id(r.y): again.y for r, again in zip(then, now, strict=True)}
                expected |= {_end(converted, s): (s, [like[id(y)] for y in self.results[s.name]]) for s in calls}
            wrong, against = _against(expected)
            with _subsampling(self.layers[site.name] for site in sites):
                maps_of(converted, example, *_sides(expected), against)
        except Exception:  # of anybody's network
            return []
        return wrong

    def _observe(self, sites: list[Site]) -> None:
        """See what the original computes at the sites, and at those that they may be moved to."""
        modules = [(self.modules[site.target], site.reader) for site in sites if site.call is None]
        modules += [(self.modules[site.name], False) for site in sites if site.kind == "behind"]
        if self.alike is None or not self.maps.keys() >= set(modules):
            output, seen = maps_of(self.network, self.example, *_sides(modules))
            self.maps |= {key: seen[key] for key in modules}
            self.alike = _alike(output, self.output)

    def _does_not_run(self, error: Exception) -> UsageError:
        return UsageError(f"{type(self.network).__name__} does not run when converted: {reason(error)}")

    def finish(self, sites: list[Site], network: nn.Module) -> Report:
        """Run the converted ``network`` once, and report."""
        report = Report(self.name, left=self.left)
        report.replaced = [Change(site.name, self.whats[site.name], site.note) for site in sites]
        if not self.steps:
            report.notes.append("no input was found that it runs on: nothing checked, function calls not looked for")
        elif report.replaced:
            try:
                with evaluated(network):
                    output = call_on(network, self.example)
            except Exception as error:
                raise self._does_not_run(error) from error
            shapes = [tuple(y.shape) if isinstance(y, Tensor) else None for y in (self.output, output)]
            if shapes[0] != shapes[1]:
                raise UsageError(f"the converted {type(network).__name__} returns {shapes[1]} instead of {shapes[0]}")
        if any(isinstance(layer, Polyphase) for layer in self.layers.values()) and report.replaced:
            report.notes.append(self._invariance(network, report))
        report.notes += self.notes
        return report

    def _invariance(self, network: nn.Module, report: Report) -> str:
        """Whether logits are exactly invariant to circular shifts of the example, and what spoils it."""
        spoils = [f"{len(report.left)} strided places left ({report.left[0].name})"] if report.left else []
        padded = [name for name, part in network.named_modules() if _pads(part)]
        spoils += [f"padding that is not circular in {len(padded)} modules ({padded[0]}, ...)"] if padded else []
        apart = [change.name for change in report.replaced if "not shared" in change.note]
        spoils += [f"grids that branches do not share ({', '.join(apart[:3])})"] if apart else []
        why = "; ".join(spoils) or "something else looks at absolute positions, or a side is no multiple of the stride"
        change = _moved(network, self.example) if self.steps else None
        if change is None:
            return f"Not measured whether circular shifts change the output; what may spoil it: {why}."
        if change > _EXACT:
            return f"Not exactly invariant to circular shifts ({change:.2g} of what another image changes): {why}."
        if spoils:
            return f"Nothing changed under three circular shifts of four images, but that of others may: {why}."
        sides = "x".join(map(str, next(tensors(self.example)).shape[-2:]))
        mode = ", in evaluation mode" if self.name == "lps" else ""
        return f"Exactly invariant to circular shifts{mode} ({change:.0e} of what another image changes, at {sides})."


def _moved(network: nn.Module, example: Any) -> float | None:
    """Largest change of logits (N, K) under three circular shifts, relative to that by another image; in float64.

    Of all logits that the network returns, and of four images: of one alone, grids may agree by chance. ``None`` where
    images hardly change them, so that rounding decides, as those of some networks with random weights, or are not
    finite.
    """
    if not isinstance(example, Tensor) or example.ndim != 4:
        return None
    try:
        network = copied(network).double()
        with evaluated(network):
            x = example.double()
            y = x.square()
            first, other = ([*tensors(call_on(network, image))] for image in (x, y))
            if first[0].ndim != 2 or first[0].is_meta:
                return None
            own = [i for i, logits in enumerate(first) if logits.ndim == 2]
            scales = [float((other[i] - first[i]).norm()) for i in own]
            if not all(scale > 1e-8 * float(first[i].norm()) for i, scale in zip(own, scales, strict=True)):  # or NaN
                return None
            moved = 0.0
            for image, known in ((x, first), (y, other), (x.flip(2), None), (y.flip(3), None)):
                still = known or [*tensors(call_on(network, image))]
                for shift in ((1, 0), (0, 1), (5, 3)):
                    there = [*tensors(call_on(network, image.roll(shift, (2, 3))))]
                    changes = [float((there[i] - still[i]).norm()) / s for i, s in zip(own, scales, strict=True)]
                    if not all(map(isfinite, changes)):
                        return None
                    moved = max(moved, *changes)
                if moved > _EXACT:  # the others would not change what is said
                    break
            return moved
    except Exception:  # not every network has a double precision
        return None


def _pads(part: nn.Module) -> bool:
    """Whether a module pads, and not circularly."""
    if isinstance(part, Complete):
        return True
    if "Pad" in type(part).__name__:
        return not isinstance(part, nn.CircularPad2d)
    padding = getattr(part, "padding", 0) if isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) else 0
    some = padding == "same" if isinstance(padding, str) else any(per_axis(padding))
    return some and getattr(part, "padding_mode", "zeros") != "circular"


@contextmanager
def _subsampling(parts: Iterable[Downsample]) -> Iterator[None]:
    """Within, the layers keep every stride-th sample and filter nothing."""
    with ExitStack() as undo:
        for layer in parts:
            layer.forward = lambda x, choice=None, s=layer.stride: x[:, :, ::s, ::s]  # type: ignore[method-assign, misc]
            undo.callback(delattr, layer, "forward")
        yield


def _end(converted: nn.Module, site: Site) -> tuple[nn.Module, bool]:
    """The module whose output, or with ``True`` whose input, is what the original has there."""
    owner: Any = converted.get_submodule(site.target)
    first = owner.inner if owner.complete is None else owner.complete  # what reads what the layer in front returns
    return first if site.reader else owner, site.reader


def _sides(ends: Collection[tuple[nn.Module, bool]]) -> tuple[set[nn.Module], set[nn.Module]]:
    """The modules whose input, and those whose output is meant."""
    return {module for module, is_input in ends if is_input}, {module for module, is_input in ends if not is_input}


def _against(
    expected: Mapping[tuple[nn.Module, bool], tuple[Site, list[Tensor]]],
) -> tuple[list[str], Callable[[nn.Module, bool, Tensor], Tensor | None]]:
    """A list, and what takes maps in the order of their calls and adds to it the sites of those that are not expected.

    It returns the expected map, so that what follows sees what it saw in the original.
    """
    wrong: list[str] = []

    def compare(module: nn.Module, is_input: bool, x: Tensor) -> Tensor | None:
        site, references = expected[module, is_input]
        reference = references.pop(0) if references else None
        if reference is None or (site.kind != "alone" and not _same(x, reference)):
            wrong.append(site.name)
        return reference

    return wrong, compare


def _alike(output: Any, reference: Any) -> bool:
    """Whether all tensors in an output are the ``_same`` as those in another."""
    pairs = [*zip_longest(tensors(output), tensors(reference))]
    return all(x is not None and y is not None and _same(x * 1.0, y * 1.0) for x, y in pairs)  # also of bools


def _same(x: Tensor, reference: Tensor) -> bool:
    """Equal up to the rounding of another order of summation."""
    if x.shape != reference.shape or x.is_meta:
        return x.shape == reference.shape
    exact = x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu"
    gap = (x - reference).abs().nan_to_num()
    return not gap.numel() or bool(gap.max() <= (1e-4 if exact else 2e-2) * reference.abs().nan_to_num().max() + 1e-7)
