"""Photographer's bias under control: the same procedural scenes with the object in the middle and off it."""

from typing import Any

import torch
from torch import Tensor

from ..datasets import shapes
from ..errors import UsageError
from ..evaluation import Subject, measurement
from ..metrics import Estimate, predict

EDGES = (0, 2, 4, 6, 8, 10)  # pixels from the middle in 32; at most 10 occur


@measurement
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
    size, seed = options.get("size", 32), options.get("seed", 0)
    scenes = shapes.sample(count, seed, "test", "uniform", size)
    centred = shapes.sample(count, seed, "test", 0, size)
    own, moved, middle = (
        predict(subject.network, image).argmax(1).cpu()
        for image in (_seen(scenes), _seen(scenes, (1.0, 1.0)), _seen(centred))
    )
    offset = (scenes.centre - size / 2) * 32 / size
    facts = {"accuracy": own == scenes.labels, "change": own != moved, "agreement": own == middle}
    return _by_distance(facts, offset.abs().amax(1)) | {"bias_accuracy_map": _by_place(facts["accuracy"], offset)}


def _seen(scenes: shapes.Scenes, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return shapes.render(scenes, shift)[0].mul_(255).round_().to(torch.uint8)


def _by_distance(facts: dict[str, Tensor], distance: Tensor) -> dict[str, Any]:
    values: dict[str, Any] = {"bias_edges": EDGES}
    near, far = distance < EDGES[2], distance >= EDGES[3]
    group = torch.bucketize(distance, torch.tensor(EDGES[1:-1], dtype=distance.dtype), right=True)
    for name, hits in facts.items():
        for place, inside in (("near", near), ("far", far)):
            values[f"bias_{name}_{place}"] = Estimate.proportion(hits[inside].sum().item(), int(inside.sum()))
        parts = [hits[group == index].double() for index in range(len(EDGES) - 1)]
        values[f"bias_{name}"] = [part.mean().item() if len(part) else None for part in parts]
    return values


def _by_place(hits: Tensor, offset: Tensor, cells: int = 5) -> list[list[float | None]]:
    """Share of the hits in each of ``cells`` x ``cells`` places of the object, row by row from the top."""
    cell = ((offset + EDGES[-1]) / (2 * EDGES[-1]) * cells).long().clamp(0, cells - 1)
    shares: list[list[float | None]] = []
    for row in range(cells):
        parts = [hits[(cell[:, 0] == row) & (cell[:, 1] == column)].double() for column in range(cells)]
        shares.append([part.mean().item() if len(part) else None for part in parts])
    return shares
