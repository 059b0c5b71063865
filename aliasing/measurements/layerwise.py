"""Layer by layer, after Azulay & Weiss: is a feature map shiftable, and how stable is a readout of it?"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from ..evaluation import Subject, measurement
from ..metrics import fit_readouts, non_shiftability, one_pixel, outputs, predict
from .pictures import as_png


def _stages(network: nn.Module) -> list[str]:
    """The first activation, where nothing may have been dropped yet, and the ends of the stages."""
    names = [name for name, _ in network.named_modules()]
    first = next(name for name in names if re.search(r"(^|\.)(act|relu)$", name))
    return [first, *(name for name in names if re.search(r"(^|\.)(stages\.|layer)\d+$", name))]


def _maps(network: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Feature maps (N, C, h, w) on the CPU by accumulated subsampling factor; the last one of each factor."""
    names = _stages(network)
    found = next(outputs(network, images, names, len(images)))
    return {round(images.shape[2] / maps.shape[2]): maps.cpu() for maps in found.values()}


@measurement
def shiftability(subject: Subject, count: int) -> dict[str, Any]:
    """Non-shiftability (v1 of the paper) of each stage in a vertical sweep, inpainted and circular."""
    network, images = subject.network, subject.split("test", count).images
    names = _stages(network)
    maps = next(outputs(network, images[:1], names))
    values: dict[str, Any] = {"stage_factors": [round(images.shape[2] / maps[name].shape[2]) for name in names]}
    for border in ("inpainting", "circular"):
        found = non_shiftability(network, images, names, border=border)
        values[f"non_shiftability_{border}"] = [found[name].value for name in names]
    return values


@measurement
def stage_readouts(subject: Subject, count: int, training: int) -> dict[str, Any]:
    """Accuracy and change by one pixel of a linear readout of every stage, trained on ``training`` images."""
    network, train, test = subject.network, subject.split("train", training), subject.split("test", count)
    values: dict[str, list[float]] = {}
    for readout in fit_readouts(network, train.images, train.labels, _stages(network)).values():
        correct = predict(readout, test.images).argmax(1).cpu() == test.labels
        values.setdefault("readout_accuracy", []).append(correct.double().mean().item())
        for protocol in ("circular", "crop", "black"):
            found = one_pixel(readout, test.images, protocol)
            values.setdefault(f"readout_change_{protocol}", []).append(found.top1_change.value)
            values.setdefault(f"readout_absolute_change_{protocol}", []).append(found.mean_absolute_change.value)
    return dict(values)


@measurement
def feature_maps(subject: Subject, index: int = 0, shifts: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """One map per stage from factor 2 on, in bytes, while a test image rolls down by ``shifts`` pixels; and its sums.

    The channel with the largest mean at the first shift is taken; bytes are relative to its largest value.
    """
    image = subject.split("test").images[index]
    found = _maps(subject.network, torch.stack([image.roll(shift, 1) for shift in shifts]))
    kept: dict[str, Any] = {}
    sums = {}
    for factor, maps in found.items():
        if factor > 1:
            own = maps[:, maps[0].mean((1, 2)).argmax()]
            kept[str(factor)] = (255 * own / own.max().clamp(min=1e-9)).round().clamp(0, 255).int().tolist()
            sums[str(factor)] = own.double().sum((1, 2)).tolist()
    return {"feature_maps": kept, "feature_sums": sums, "feature_shifts": shifts, "feature_picture": as_png(image)}


@measurement
def exact_shifts(subject: Subject, count: int, window: int = 32) -> dict[str, Any]:
    """Share of the ``window`` x ``window`` circular shifts that leave the logits of ``count`` test images as they are.

    "As they are" is within 1e-4 of the largest logit. ``exact_shift_law`` is the share times the squared subsampling
    factor: 1 if exactly the multiples of the factor are exact (Azulay & Weiss' counting argument).
    """
    images = subject.split("test", count).images
    before = predict(subject.network, images)
    exact = torch.zeros(window, window, dtype=torch.float64)
    for down in range(window):
        rolled = torch.cat([images.roll((down, right), (2, 3)) for right in range(window)])
        change = (predict(subject.network, rolled).reshape(window, *before.shape) - before).abs()
        exact[down] = (change.flatten(1).amax(1) <= 1e-4 * before.abs().max()).double().cpu()
    factor = max(_maps(subject.network, images[:1]))
    return {
        "exact_shift_map": exact.int().tolist(),
        "exact_shift_share": exact.mean().item(),
        "exact_shift_factor": factor,
        "exact_shift_law": exact.mean().item() * factor**2,
    }
