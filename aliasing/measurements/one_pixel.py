"""The one-pixel protocols and sweeps of Azulay & Weiss."""

from collections.abc import Iterable
from typing import Any

import torch

from ..evaluation import Subject, measurement
from ..metrics import (
    ONE_PIXEL,
    SIZES,
    Estimate,
    jaggedness,
    predict,
    probability_curves,
    size_pairs,
    vertical_sweep,
)
from ..metrics import one_pixel as change_by_one_pixel
from ..metrics import typicality as distance_to_training
from .pictures import as_png


@measurement
def one_pixel(
    subject: Subject, count: int, pairs: int = 1, protocols: Iterable[str] = tuple(ONE_PIXEL)
) -> dict[str, Any]:
    """P(top-1 change) and mean absolute change under one-pixel ``protocols``, on ``count`` test images."""
    test = subject.split("test", count)
    values: dict[str, Any] = {}
    for protocol in protocols:
        change = change_by_one_pixel(subject.network, test.images, protocol, test.labels, pairs=pairs)
        name = protocol.replace("-", "_")
        values[f"top1_change_{name}"] = change.top1_change
        values[f"mean_absolute_change_{name}"] = change.mean_absolute_change
    return values


@measurement
def one_pixel_by_size(subject: Subject, count: int) -> dict[str, Any]:
    """P(top-1 change), mean absolute change and accuracy for cropped and embedded pictures of growing ``size_axis``."""
    test = subject.split("test", count)
    changes, moves, correct = [], [], []
    for size in SIZES:
        before, after = (predict(subject.network, part).softmax(1).cpu() for part in size_pairs(test.images, size))
        top = before.argmax(1, keepdim=True)
        changes.append((after.argmax(1) != top[:, 0]).double().mean())
        moves.append((before.gather(1, top) - after.gather(1, top)).abs().double().mean())
        correct.append((top[:, 0] == test.labels).double().mean())
    return {
        "size_axis": list(SIZES),
        "size_change": torch.stack(changes),
        "size_absolute_change": torch.stack(moves),
        "size_accuracy": torch.stack(correct),
    }


@measurement
def jagged(subject: Subject, count: int) -> dict[str, Any]:
    """How often the true class enters or leaves the top 5 (of few classes: the top 1) along a vertical sweep."""
    test = subject.split("test", count)
    top = 5 if len(test.classes) >= 50 else 1
    values: dict[str, Any] = {"jaggedness_top": top}
    for border in ("inpainting", "circular"):
        found = jaggedness(subject.network, test.images, test.labels, top, border=border)
        values[f"jaggedness_crossings_{border}"] = found.crossings
        values[f"jaggedness_images_{border}"] = found.images
        values[f"jaggedness_pairs_{border}"] = found.pairs
    return values


@measurement
def sweep(subject: Subject, count: int, pictures: int) -> dict[str, Any]:
    """Probability of the right class, and the class answered, while ``count`` test images roll down once around.

    The first ``pictures`` of the images are kept as well, so that a figure can show what the network saw.
    """
    test = subject.split("test", count)
    frames = vertical_sweep(test.images, border="circular")
    return {
        "sweep_probability": probability_curves(subject.network, frames, test.labels)[0],
        "sweep_answers": torch.stack([predict(subject.network, frame).argmax(1).cpu() for frame in frames], 1).tolist(),
        "sweep_labels": test.labels.tolist(),
        "sweep_classes": list(test.classes),
        "sweep_pictures": [as_png(image) for image in test.images[:pictures]],
    }


@measurement
def typicality(subject: Subject, count: int, training: int, pairs: int = 4, groups: int = 5) -> dict[str, Any]:
    """Change rate by circular one-pixel shifts in ``groups`` of test images, from the most to the least typical.

    Typical are images near to ``training`` training images in the network's own features.
    """
    test, network = subject.split("test", count), subject.network
    distance = distance_to_training(network, test.images, subject.split("train", training).images)
    change = change_by_one_pixel(network, test.images, "circular", pairs=pairs).images
    correct = (predict(network, test.images).argmax(1).cpu() == test.labels).double()
    parts = distance.argsort().tensor_split(groups)
    gap = change[parts[-1]].mean() - change[parts[0]].mean()
    return {
        "typicality_distance": [distance[part].mean().item() for part in parts],
        "typicality_change": [change[part].mean().item() for part in parts],
        "typicality_change_if_correct": [Estimate.mean(change[part][correct[part] > 0]).value for part in parts]
        if all(correct[part].any() for part in parts)
        else None,
        "typicality_accuracy": [correct[part].mean().item() for part in parts],
        "typicality_gap": gap.item(),
    }
