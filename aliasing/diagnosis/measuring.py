"""What is measured on each network, on the same pictures and with the same draws."""

import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import probabilities
from ..layers import CATALOGUE, Blur, Downsample, create, outermost
from ..layers.base import DTYPES, per_axis
from ..metrics import Estimate, consistency, one_pixel, predict, sampled, shift_images, sites
from ..metrics.downsampling import KINDS, Dense, Sample, subsampling
from ..metrics.sampling import bias_of, window_counts
from ..metrics.spectra import aliasable, distance_from_ideal, holdable, spacing, transformable
from ..models import Report, antialias
from ..models.calls import pool_of
from ..models.owners import make_dense, stride_of
from ..models.plan import numbered
from ..models.watch import Reduction, eager, watched
from ..models.wrappers import Normalized
from .networks import OF_MODULE, RANDOM, TUNED, UNTUNED, WHOLE, Adapted, Network
from .pictures import LEAST, Pictures

# The layer that is recommended: of those that make a trained network steadier, the one that costs it least (the study
# "finetuned", in which it costs some accuracy on classes that it is not fine-tuned on).
REMEDY = "tri-3"

PAIRS = 2  # of neighbouring windows per picture, along one diagonal
AT_SITES = 8  # pictures whose feature maps are looked at: maps in front of a stride are large
_LOOK = 16  # passes of the network that a look at its feature maps takes, about
SHOWN = 6  # pictures over which the window moves: those on which one pixel changes most answers


@dataclass(frozen=True)
class Curve:
    """Probabilities while one picture moves down and right by one pixel per step, behind the window over it."""

    name: str  # file of the picture
    positions: list[int]  # pixels (P,) from the centre, of the picture in the window
    answers: list[int]  # most probable class at each position
    classes: list[int]  # those that are ever the answer, most frequent first, at most four
    probabilities: Tensor  # (P, len(classes))
    changes: int  # neighbouring positions with different answers
    before: Tensor  # window (3, S, S), bytes, at the first of the steepest changes
    after: Tensor  # the picture one pixel further
    step: int  # index of ``before`` among the positions


class Site(NamedTuple):
    """One place where the network drops samples; fractions with intervals over pictures."""

    name: str  # of the module; of a function, that of the module that calls it
    module: str  # class of the module, or name of the function
    stride: int  # how many times fewer samples come out, per axis
    alias_energy: Estimate  # what does alias: the share of the output from frequencies that its samples cannot hold
    at_risk: Estimate  # what could alias: their share of the map in front of the layer, or behind a max-pool's maxima
    alias_error: Estimate  # distance of the output from ideal downsampling, relative to it
    max_bias: Estimate | None  # how often the sample nearest to the output is its window's maximum; not of functions


@dataclass(frozen=True)
class Portrait:
    """Everything measured on one network."""

    network: str
    weights: str  # where they come from
    size: int  # side of its input in pixels
    pictures: int  # how many it saw
    enlarged: int  # how many of them were smaller than its windows and their margin ask for
    margin: int  # reach of the crop shifts in pixels
    available: int  # how many there are in the folder, to fine-tune on
    window: int  # side of windows in pixels that it can be fine-tuned on: ``size``, or less if they are small, or 0
    top1_change: Estimate  # how often one pixel changes the answer (Azulay and Weiss 2019, crop protocol)
    mean_absolute_change: Estimate  # of the probability of the answer, by one pixel
    answers: int  # how many classes were answered at all
    changes: Tensor  # rate of each picture (N,), in the order of the pictures, for paired differences
    crop: Estimate  # consistency under crop shifts up to the margin
    standard: Estimate  # consistency under standard (zero-fill) shifts up to an eighth of the side
    curves: list[Curve]  # of the most fragile pictures
    sites: list[Site]  # where the network drops samples, in the order of its modules, functions behind them
    layers: dict[str, int]  # the anti-aliasing layers that it has, and how many of each
    conversion: Report | str  # what ``antialias`` would replace with ``REMEDY``, or why nothing
    class_names: tuple[str, ...] = ()  # empty where they are unknown
    options: tuple[str, ...] = ()  # of the command line that names the same network, but for the size
    scripted: bool = False  # whether parts of it are, in which no site can be seen
    seconds: float = field(default=0.0, compare=False)  # spent on it

    def class_name(self, index: int) -> str:
        """The name of a class, or its number."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    @property
    def unseen(self) -> str:
        """What must be known of the number of its sites, to be said behind it."""
        return "; nothing in scripted modules can be seen" if self.scripted else ""

    @property
    def tuned(self) -> bool:
        """Whether its weights come from ``aliasing finetune``."""
        return self.weights.startswith(TUNED)

    @property
    def random(self) -> bool:
        """Whether nobody trained it."""
        return self.weights.startswith(RANDOM)

    @property
    def remedy(self) -> str:
        """What it has and what it lacks, in a sentence or two, after what must be known first."""
        return self._caution + self._advice

    def command(self, folder: str) -> str:
        """What would mend it on the pictures of ``folder``; empty if that were refused, or nothing calls for it."""
        if self.random or self.tuned or (self._caution and not self.layers):
            return ""
        if self.weights.endswith(WHOLE):  # fine-tuning begins with weights of the original
            return ""
        if self.available < LEAST or not self.window:
            return ""
        plain, _, layer = self.network.partition("+")
        if self.weights == OF_MODULE:
            call = f'aliasing.finetune(network, "{REMEDY}", {folder!r}, size={self.window})'
            return "" if self.layers or isinstance(self.conversion, str) else call
        if not layer and isinstance(self.conversion, str):
            return ""
        name = f"{plain}+{layer or REMEDY}"
        file = f"{name.replace(':', '-').replace('/', '-')}.safetensors"
        words = ["aliasing", "finetune", name, "--images", folder, "--out", file, "--size", str(self.window)]
        return shlex.join([*words, *self.options])

    @property
    def _advice(self) -> str:
        has = ", ".join(f"{name} at {_many(count)}" for name, count in self.layers.items())
        if not has and isinstance(self.conversion, str):
            return f"{self.conversion[:1].upper()}{self.conversion[1:]}."
        if not has:
            count = len(self.conversion.replaced)  # type: ignore[union-attr]
            large = "" if self.window else f" of {self.size + 2} pixels or more"
            return (
                f"{REMEDY} low-pass filters at {_many(count)}, weights kept, then fine-tuning without "
                f"labels, on {LEAST} pictures or more{large}. It forgets part of what they do not show."
            )
        left = [] if isinstance(self.conversion, str) else self.conversion.replaced
        still = f" Still without one: {', '.join(change.name for change in left)}." if left else ""
        if self.tuned:
            better = "On the pictures that it learned from it looks better than on others."
            return f"It has {has}, and was fine-tuned.{still} {better}"
        if self.weights.endswith(UNTUNED):
            return f"It has {has}.{still} It lacks fine-tuning: its weights were learned without these filters."
        return f"It has {has}.{still} If it was not trained with them, fine-tuning is what it lacks."

    @property
    def _caution(self) -> str:
        """What its reader must know before any remedy."""
        if self.random:
            return "Its weights are random, and say nothing of trained ones. "
        if self.pictures > 1 and self.answers == 1 and not self.top1_change.value:
            return (
                "Every picture got the same answer: check the weights, the standardisation, and that the pictures are "
                "of several classes. "
            )
        if self.top1_change.low <= 0:
            return (
                f"One pixel changes no answer, or too few to tell on {_many(self.pictures, 'picture')}: there may be "
                "nothing to mend. "
            )
        return ""


def _many(count: int, noun: str = "place") -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class _Counted(nn.Module):
    """A network that tells ``say`` how many images it has seen. No hook: scripted networks take none."""

    def __init__(self, network: nn.Module, say: Callable[[int], object]) -> None:
        super().__init__()
        self.network, self.say = network, say

    def forward(self, images: Tensor) -> Any:
        self.say(len(images))
        return self.network(images)


def passes(pictures: Pictures) -> int:
    """How many images ``portray`` says that it is done with."""
    swept, looked_at = (min(len(pictures.names), most) for most in (SHOWN, AT_SITES))
    return len(pictures.names) * (PAIRS + 5) + swept * (2 * pictures.margin + 1) + looked_at * _LOOK


def portray(
    network: Network, pictures: Pictures, available: int, window: int, batch_size: int, say: Callable[[int], object]
) -> Portrait:
    """Measure ``network`` where it is; every draw comes from private generators, so networks are compared in pairs.

    Args:
        network: what ``networks.adapted`` returned.
        pictures: of its size.
        available: see ``Portrait``.
        window: likewise.
        batch_size: images per forward pass.
        say: hears how many images it is done with, whenever there are some; ``passes`` in all.
    """
    started = time.perf_counter()
    model, images, margin = _Counted(network.module, say), pictures.images, pictures.margin
    centre = images[:, :, margin : margin + network.size, margin : margin + network.size]
    pixel = one_pixel(model, centre, "crop", pairs=PAIRS, batch_size=batch_size)
    crop = consistency(model, images, "crop", margin, batch_size=batch_size)
    standard = consistency(model, centre, "standard", batch_size=batch_size)
    fragility = list(zip(pixel.images.tolist(), pixel.moves.tolist(), strict=True))
    fragile = sorted(range(len(images)), key=fragility.__getitem__, reverse=True)[:SHOWN]
    curves = [sweep(model, images[i], pictures.names[i], margin, batch_size) for i in fragile]
    curves.sort(key=lambda curve: curve.changes, reverse=True)
    has = Counter(_label(layer) for layer in outermost(model).values() if max(layer.strides) > 1)
    for plain in ("subsample", "max"):  # which filter nothing
        has.pop(plain, None)
    return Portrait(
        network=network.name,
        weights=network.weights,
        size=network.size,
        pictures=len(images),
        enlarged=pictures.enlarged,
        margin=margin,
        available=available,
        window=window,
        top1_change=pixel.top1_change,
        mean_absolute_change=pixel.mean_absolute_change,
        answers=len(pixel.answers.unique()),
        changes=pixel.images,
        crop=crop,
        standard=standard,
        curves=curves,
        sites=_sites(network, centre[:AT_SITES], say),
        layers=dict(has),
        conversion=_conversion(network),
        class_names=network.classes,
        options=network.options,
        scripted=any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()),
        seconds=time.perf_counter() - started,
    )


def sweep(model: torch.nn.Module, image: Tensor, name: str, margin: int, batch_size: int) -> Curve:
    """Move one ``image`` (3, S + 2 margin, S + 2 margin) behind the window along the diagonal, and watch the answer."""
    positions = torch.arange(-margin, margin + 1)
    shifts = positions[:, None].expand(-1, 2)
    windows = shift_images(image[None].expand(len(positions), -1, -1, -1), shifts, "crop", margin)
    found = probabilities(model, windows, batch_size)
    answers = found.argmax(1)
    changed = answers[1:] != answers[:-1]
    counts = answers.bincount()
    classes = counts.argsort(descending=True, stable=True)[: min(4, int((counts > 0).sum()))]
    curves = found[:, classes]
    # The steepest step among those that change the answer, or among all.
    steps = (curves[1:] - curves[:-1]).abs().sum(1) + 10 * changed
    step = int(steps.argmax())
    return Curve(
        name,
        positions=positions.tolist(),
        answers=answers.tolist(),
        classes=classes.tolist(),
        probabilities=curves,
        changes=int(changed.sum()),
        before=windows[step],
        after=windows[step + 1],
        step=step,
    )


@torch.no_grad()
def _sites(network: Network, images: Tensor, say: Callable[[int], object]) -> list[Site]:
    """Modules that drop samples, and functions that do, each with what goes in and comes out."""
    model, kinds, front = network.module, sites(network.module), _unwrapped(network)[1]
    found: dict[tuple[str, str, int], list[Tensor]] = defaultdict(list)

    def own_name(name: str) -> str:
        return f"{name}.".removeprefix(front).removesuffix(".")

    for image in images.split(1):  # maps in front of a stride are large; and all maps are of this image
        own: dict[tuple[str, str, int], list[Tensor]] = defaultdict(list)
        with eager():  # apart: what runs once more at stride 1 is no call of the network
            passed = next(sampled(model, image)) if kinds else []
            with watched(model) as (_, reductions):
                predict(model, image)
        for sample in passed:
            module = kinds[sample.site]
            known = sample.x.dtype in DTYPES  # nothing is known of what was quantised
            counts = window_counts(model, sample).cpu() if known else torch.full((1, 5), torch.nan)
            values = torch.cat([_values(_dense(module, sample)), counts], 1)
            own[sample.site, type(module).__name__, max(sample.strides)].append(values.mean(0, keepdim=True))
        for what, called in _functions(model, reductions):
            own[called.site, what, max(called.strides)].append(_values(called).mean(0, keepdim=True))
        for key, uses in own.items():  # a site that is used twice counts with its mean, of what is known
            found[key].append(torch.stack(uses).nanmean(0))
        say(_LOOK)
    rows = []
    for (name, kind, stride), parts in found.items():
        table = torch.cat(parts)
        does, could, error = (Estimate.mean(column) for column in table[:, :3].T)
        bias = bias_of(table[:, 3:]).nearest if table.shape[1] > 3 else None
        rows.append(Site(own_name(name), kind, stride, does, could, error, bias))
    order = {own_name(name): index for index, (name, _) in enumerate(model.named_modules())}
    return sorted(rows, key=lambda site: (site.max_bias is None, order.get(site.name, 0)))  # which functions have not


def _values(sample: Sample) -> Tensor:
    """What does alias, what could, and the error, of each image (N, 3); NaN where that is not known."""
    # Windows in axes of their own may lie anywhere in the map.
    if sample.x.ndim > 4 or sample.x.dtype not in DTYPES or sample.x.shape[:2] != sample.y.shape[:2]:
        return torch.full((len(sample.x), 3), torch.nan, dtype=torch.float64)
    x, y, strides = sample.x.float(), sample.y.float(), spacing(sample)
    low = sample.operator(_low_pass(x, strides).to(sample.x.dtype)).float()
    folded = (y - low).square().sum((1, 2, 3))
    whole = folded + (low - low.mean((2, 3), keepdim=True)).square().sum((1, 2, 3))  # but for the mean that was there
    folded = torch.where(whole > 1e-12 * y.square().sum((1, 2, 3)), folded / whole, 0.0)
    columns = [folded, aliasable(x, strides), distance_from_ideal(sample)]
    if holdable(x, strides).all():  # such as two samples of three, or one of one: nothing could alias
        columns[:2] = [torch.full_like(folded, torch.nan)] * 2
    return torch.stack([column.double().cpu() for column in columns], 1)


def _low_pass(x: Tensor, strides: tuple[float, float]) -> Tensor:
    """The part of maps (N, C, H, W) that a grid of these ``strides`` can hold."""
    return torch.fft.ifft2(torch.fft.fft2(transformable(x)) * holdable(x, strides)).real


def _dense(module: nn.Module, sample: Sample) -> Sample:
    """A max-pool as a maximum at every pixel and subsampling, of which only the latter aliases."""
    if not isinstance(module, nn.MaxPool2d) or sample.x.dtype not in DTYPES:
        return sample
    pool = copy(module)
    complete = make_dense(pool)  # windows may reach beyond the map
    x = sample.x if complete is None else complete(sample.x)
    dense = F.max_pool2d(x, pool.kernel_size, 1, pool.padding, pool.dilation)
    kept = subsampling(sample.strides)
    # A subclass may pad in its own way.
    return replace(sample, x=dense, operator=kept) if torch.equal(kept(dense), sample.y) else sample


def _functions(model: nn.Module, reductions: Sequence[Reduction]) -> Iterator[tuple[str, Sample]]:
    """Calls of functions that hold a map at fewer places, not inside a module that is a site itself."""
    names = {id(part): name for name, part in model.named_modules()}
    forwards: dict[Any, list[Reduction]] = defaultdict(list)
    for call in reductions:
        forwards[call.stack[-1]].append(call)
    for calls in forwards.values():
        for function, call in zip(numbered([call.function for call in calls]), calls, strict=True):
            if call.x.ndim == call.y.ndim == 3 and len(call.before) == 2 and "2d" in function:  # of a single image
                call = replace(call, x=call.x[None], y=call.y[None])
            axes = 1 if "conv" in function else 2  # a convolution may return other channels
            if any(isinstance(part, KINDS) for part, _ in call.stack) or not call.x.ndim >= call.y.ndim == 4:
                continue
            if call.x.shape[:axes] == call.y.shape[:axes] and call.operator is not None and min(call.after) > 1:
                sample = _called(names[id(call.module)], call, call.operator)
                if max(sample.strides) > 1:
                    yield f"{function}, a function", sample


def _called(name: str, call: Reduction, operator: Callable[[Tensor], Tensor]) -> Sample:
    """What passed a call of a function; of pools and of convolutions that are no filters as if a module had called."""
    strides = [round(n / m) for n, m in zip(call.before, call.after, strict=True)]
    sample = Sample(name, (strides[0], strides[1]), call.x, call.y, operator)
    if call.call is not None and call.call.options:
        pool = pool_of(call.call)
        down, right = stride_of(pool)
        return _dense(pool, replace(sample, strides=(down, right)))
    with Dense() as dense:
        x = operator(call.x) if "conv" in call.function else call.x
    given = dense.replaced
    if given is None:
        return sample
    down, right = per_axis(given["stride"])
    if given.get("groups", 1) == call.x.shape[1] == call.y.shape[1]:
        return replace(sample, strides=(down, right))
    return Sample(name, (down, right), x, call.y, subsampling((down, right)))


def _conversion(network: Network) -> Report | str:
    try:
        return antialias(_unwrapped(network)[0], REMEDY, example=network.size, return_report=True)[1]
    except UsageError as error:
        return str(error)


def _label(layer: Downsample) -> str:
    """The registry's name of a layer, "subsample" of what filters nothing; that of its class if it has none there."""
    control = layer.control if isinstance(layer, Blur) else "none"
    if control in ("backward", "late", "signs") or (isinstance(layer, Blur) and sum(map(bool, layer.taps)) == 1):
        return "subsample"
    for name, entry in CATALOGUE.items():
        alike = entry.layer is type(layer) and control == "none"
        if alike and (not isinstance(layer, Blur) or create(name, 1).taps == layer.taps):
            return name
    return type(layer).__name__


def _unwrapped(network: Network) -> tuple[nn.Module, str]:
    """What its owner knows, without what we put around it, and what that puts before the names of modules."""
    part, front = network.module, ""
    while isinstance(part, (Normalized, Adapted)):
        part, front = part.network, f"{front}network."
    return part, front
