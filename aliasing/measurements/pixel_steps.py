"""One pixel more or less, and pictures that move pixel by pixel: the protocols of Azulay & Weiss.

Also their photographer's bias, under control: the same procedural scenes with the object in the middle and off it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .. import metrics
from ..datasets import shapes
from ..datasets.decoding import as_png
from ..errors import UsageError
from ..inference import classified, probabilities
from ..metrics import ONE_PIXEL, Estimate, jaggedness, probability_curves, vertical_sweep
from ..metrics.pixel_pairs import SIZES, compared, size_pairs
from .subject import Subject, by_image

EDGES = (0, 2, 4, 6, 8, 10)  # pixels from the middle in 32; at most 10 occur


def one_pixel(
    subject: Subject, count: int, protocols: Iterable[str] = tuple(ONE_PIXEL), per_image: bool = False
) -> dict[str, Any]:
    """P(top-1 change) and mean absolute change under one-pixel ``protocols``, on ``count`` test images.

    By image: whether the answer changes.
    """
    test = subject.split("test", count)
    values: dict[str, Any] = {}
    for protocol in protocols:
        change = metrics.one_pixel(subject.network, test.images, protocol, test.labels)
        name = protocol.replace("-", "_")
        values[f"top1_change_{name}"] = change.top1_change
        values[f"mean_absolute_change_{name}"] = change.mean_absolute_change
        values |= by_image(per_image, **{f"top1_changes_{name}": change.images > 0})
    return values


def one_pixel_by_size(subject: Subject, count: int) -> dict[str, Any]:
    """P(top-1 change), mean absolute change and accuracy for cropped and embedded pictures of growing ``size_axis``."""
    test = subject.split("test", count)
    rows = []
    for size in SIZES:
        before, after = (probabilities(subject.network, part) for part in size_pairs(test.images, size))
        facts = (*compared(before, after), before.argmax(1) == test.labels)
        rows.append(torch.stack([fact.double().mean() for fact in facts]))
    change, move, accuracy = torch.stack(rows, 1)
    return {"size_axis": list(SIZES), "size_change": change, "size_absolute_change": move, "size_accuracy": accuracy}


def jagged(subject: Subject, count: int) -> dict[str, Any]:
    """How often the true class enters or leaves the top 5 (of few classes: the top 1) along a vertical sweep."""
    test = subject.split("test", count)
    top = 5 if len(test.classes) >= 50 else 1
    values: dict[str, Any] = {"jaggedness_top": top}
    for border in ("inpainting", "circular"):
        found = jaggedness(subject.network, test.images, test.labels, top, border=border)
        values |= {f"jaggedness_{name}_{border}": value for name, value in found._asdict().items()}
    return values


def sweep(subject: Subject, count: int, pictures: int) -> dict[str, Any]:
    """Probability of the right class, and the class answered, while ``count`` test images roll down once around.

    The first ``pictures`` of the images are kept as well, so that a figure can show what the network saw.
    """
    test = subject.split("test", count)
    frames = vertical_sweep(test.images, border="circular")
    return {
        "sweep_probability": probability_curves(subject.network, frames, test.labels)[0],
        "sweep_answers": torch.stack([classified(subject.network, frame) for frame in frames], 1).tolist(),
        "sweep_labels": test.labels.tolist(),
        "sweep_classes": list(test.classes),
        "sweep_pictures": [as_png(image) for image in test.images[:pictures]],
    }


def typicality(subject: Subject, count: int, training: int) -> dict[str, Any]:
    """Change rate by circular one-pixel shifts in fifths of the test images, from the most to the least typical.

    Typical are images near to ``training`` training images in the network's own features.
    """
    test, network = subject.split("test", count), subject.network
    distance = metrics.typicality(network, test.images, subject.split("train", training).images)
    change = metrics.one_pixel(network, test.images, "circular", pairs=4).images
    correct = subject.correct(count).double()
    parts = distance.argsort().tensor_split(5)
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


def photographers_bias(subject: Subject, count: int) -> dict[str, Any]:
    """Accuracy, one-pixel change and agreement with the centred scene, by the object's distance from the middle.

    ``count`` test scenes have their objects anywhere, whatever the bias of the training set. Each is seen three
    times: as it is; moved by one pixel down and right as a camera would move it, new content entering; and with its
    object in the middle. Distance is the larger of the two components, in pixels of a 32-pixel image; "near" is
    below 4, "far" from 6 on. Needs a network trained on ``shapes``.
    """
    options = dict(subject.run.dataset)
    if options.pop("name") != "shapes":
        raise UsageError("photographers_bias needs the data set shapes, where the bias is an option")
    size, seed, noise = options.get("size", 32), options.get("seed", 0), options.get("noise", shapes.NOISE)
    scenes = shapes.sample(count, seed, "test", "uniform", size)
    centred = shapes.sample(count, seed, "test", 0, size)
    seen = _seen(scenes, noise), _seen(scenes, noise, (1.0, 1.0)), _seen(centred, noise)
    own, moved, middle = (classified(subject.network, images) for images in seen)
    offset = (scenes.centre - size / 2) * 32 / size
    distance = offset.abs().amax(1)
    ring = torch.bucketize(distance, torch.tensor(EDGES[1:-1], dtype=distance.dtype), right=True)
    facts = {"accuracy": own == scenes.labels, "change": own != moved, "agreement": own == middle}
    values: dict[str, Any] = {"bias_edges": EDGES}
    for name, hits in facts.items():
        values[f"bias_{name}_near"] = Estimate.share(hits[distance < EDGES[2]])
        values[f"bias_{name}_far"] = Estimate.share(hits[distance >= EDGES[3]])
        values[f"bias_{name}"] = _means(hits, ring, len(EDGES) - 1)
    side = 5  # of the map of places, row by row from the top
    place = ((offset + EDGES[-1]) / (2 * EDGES[-1]) * side).long().clamp(0, side - 1)
    rows = [_means(facts["accuracy"][place[:, 0] == row], place[place[:, 0] == row, 1], side) for row in range(side)]
    return values | {"bias_accuracy_map": rows}


def _seen(scenes: shapes.Scenes, noise: float, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return shapes.render(scenes, shift, noise)[0].mul_(255).round_().to(torch.uint8)


def _means(hits: Tensor, group: Tensor, groups: int) -> list[float | None]:
    """Share of the hits in each of the groups; ``None`` in an empty one."""
    parts = [hits[group == index].double() for index in range(groups)]
    return [part.mean().item() if len(part) else None for part in parts]
