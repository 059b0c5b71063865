"""What is measured on each network, on the same pictures and with the same draws."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import UsageError
from ..metrics import (
    Estimate,
    alias_energy,
    alias_error,
    consistency,
    max_sampling_bias,
    one_pixel,
    predict,
    shift_images,
    sites,
)
from ..models import Report, antialias
from ..models.wrappers import Normalized
from .networks import Network
from .pictures import Pictures

__all__ = ["Curve", "Portrait", "Site", "portray", "sweep"]

PAIRS = 2  # of neighbouring windows per picture, along one diagonal
AT_SITES = 8  # pictures whose feature maps are looked at: maps in front of a stride are large
CANDIDATES = 2  # pictures that are swept for every one that is shown


@dataclass(frozen=True)
class Curve:
    """Probabilities while the window over one picture moves down and right by one pixel per step.

    Attributes:
        name: file of the picture.
        positions: pixels (P,) from the centre, of the picture in the window.
        answers: most probable class at each position.
        classes: the classes that are ever the answer, most frequent first, at most four.
        probabilities: (P, len(classes)).
        changes: neighbouring positions with different answers.
        before: window (3, S, S), bytes, at the first of the steepest changes.
        after: the window one pixel further.
        step: index of ``before`` among the positions.
    """

    name: str
    positions: list[int]
    answers: list[int]
    classes: list[int]
    probabilities: Tensor
    changes: int
    before: Tensor
    after: Tensor
    step: int


@dataclass(frozen=True)
class Site:
    """One place where the network drops samples; fractions with intervals over pictures."""

    name: str
    module: str
    stride: int
    alias_energy: Estimate
    alias_error: Estimate
    max_bias: Estimate


@dataclass(frozen=True)
class Portrait:
    """Everything measured on one network.

    Attributes:
        network: its name.
        weights: where they come from.
        size: side of its input in pixels.
        pictures: how many it saw.
        margin: reach of the crop shifts in pixels.
        top1_change: how often one pixel changes the answer (Azulay and Weiss 2019, crop protocol).
        mean_absolute_change: of the probability of the answer, by one pixel.
        changes: rate of each picture (N,), in the order of the pictures, for paired differences.
        crop: consistency under crop shifts up to the margin.
        standard: consistency under standard (zero-fill) shifts up to an eighth of the side.
        curves: of the most fragile pictures.
        sites: where the network drops samples, in the order of its modules.
        conversion: what ``antialias`` would replace, or why nothing.
        class_names: empty where nobody tells.
        seconds: spent on it.
    """

    network: str
    weights: str
    size: int
    pictures: int
    margin: int
    top1_change: Estimate
    mean_absolute_change: Estimate
    changes: Tensor
    crop: Estimate
    standard: Estimate
    curves: list[Curve]
    sites: list[Site]
    conversion: Report | str
    class_names: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)


def portray(
    network: Network,
    pictures: Pictures,
    shown: int = 6,
    batch_size: int = 16,
    say: Callable[[str], None] = lambda text: None,
) -> Portrait:
    """Measure ``network`` where it is; every draw comes from private generators, so networks are compared in pairs."""
    started = time.perf_counter()
    model, margin = network.module, pictures.margin
    images = pictures.images
    centre = images[:, :, margin : margin + network.size, margin : margin + network.size]
    say("one pixel")
    pixel = one_pixel(model, centre, "crop", pairs=PAIRS, batch_size=batch_size)
    say("crop and standard shifts")
    crop = consistency(model, images, "crop", margin, batch_size=batch_size)
    standard = consistency(model, centre, "standard", batch_size=batch_size)
    say("the most fragile pictures")
    fragile = pixel.images.argsort(descending=True, stable=True)[: CANDIDATES * shown]
    curves = [sweep(model, images[i], pictures.names[i], margin, batch_size) for i in fragile.tolist()]
    curves.sort(key=lambda curve: (curve.changes, _range(curve)), reverse=True)
    say("downsampling sites")
    some = centre[:AT_SITES]
    return Portrait(
        network.name,
        network.weights,
        network.size,
        len(images),
        margin,
        pixel.top1_change,
        pixel.mean_absolute_change,
        pixel.images,
        crop,
        standard,
        curves[:shown],
        _sites(network, some),
        _conversion(network),
        network.classes,
        time.perf_counter() - started,
    )


def sweep(model: torch.nn.Module, image: Tensor, name: str, margin: int, batch_size: int = 16) -> Curve:
    """Move the window over one ``image`` (3, S + 2 margin, S + 2 margin) along the diagonal, and watch the answer."""
    positions = torch.arange(-margin, margin + 1)
    shifts = positions[:, None].expand(-1, 2)
    windows = shift_images(image[None].expand(len(positions), -1, -1, -1), shifts, "crop", margin)
    probabilities = predict(model, windows, batch_size).softmax(1).cpu()
    answers = probabilities.argmax(1)
    changed = answers[1:] != answers[:-1]
    counts = answers.bincount()
    classes = counts.argsort(descending=True, stable=True)[: min(4, int((counts > 0).sum()))]
    curves = probabilities[:, classes]
    # The steepest step among those that change the answer, or among all.
    steps = (curves[1:] - curves[:-1]).abs().sum(1) + 10 * changed
    step = int(steps.argmax())
    return Curve(
        name,
        positions.tolist(),
        answers.tolist(),
        classes.tolist(),
        curves,
        int(changed.sum()),
        windows[step],
        windows[step + 1],
        step,
    )


def _range(curve: Curve) -> float:
    first = curve.probabilities[:, 0]
    return float(first.max() - first.min())


def _sites(network: Network, images: Tensor, batch_size: int = 4) -> list[Site]:
    modules = sites(network.module)
    if not modules:
        return []
    energy = alias_energy(network.module, images, batch_size)
    error = alias_error(network.module, images, batch_size)
    bias = max_sampling_bias(network.module, images, batch_size)
    rows = []
    for name, module in modules.items():
        if name in energy:  # some modules are never called
            stride = module.stride if isinstance(module.stride, int) else max(module.stride)  # type: ignore[arg-type]
            rows.append(
                Site(
                    _own(network, name),
                    type(module).__name__,
                    stride,
                    energy[name],
                    error[name],
                    bias[name].nearest,
                )
            )
    return rows


def _conversion(network: Network) -> Report | str:
    try:
        report = antialias(network.module, return_report=True)[1]
    except UsageError as error:
        return str(error)
    for changes in (report.replaced, report.left):
        changes[:] = [change._replace(name=_own(network, change.name)) for change in changes]
    return report


def _own(network: Network, name: str) -> str:
    """A module's name as its owner knows it, without the standardisation we put in front."""
    return name.removeprefix("network.") if isinstance(network.module, Normalized) else name
