"""Networks that others trained, picture by picture: what Azulay & Weiss ask of them, and what fine-tuning gives them.

Pictures are the sample. Each measurement keeps a list over them, so that networks are compared in pairs on the same.
"""

import json
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from .. import metrics
from ..datasets import ImageSet
from ..datasets.decoding import as_png
from ..datasets.photographs import IMAGENETTE_RANKS, imagenet_classes
from ..finetuning import MOVES, Data, Lesson, Plan, answers, averaged, measure
from ..inference import as_float, correct, predict, probabilities
from ..metrics import Estimate
from ..metrics.canvases import PAPER_SIDE, embed, resize
from ..metrics.pixel_pairs import compared
from ..metrics.sweeps import crossings, deviation, of_labels, swept
from ..models import antialias
from .subject import Subject, by_image, loaded, pictured

DIAGONALS = torch.tensor([(-1, -1), (-1, 1), (1, -1), (1, 1)])  # of the protocol, whatever a teacher looks at
_BATCH = 16  # of pictures of 224 pixels; memory, not a protocol


def _pictures(subject: Subject, count: int) -> ImageSet:
    """``count`` pictures of the run's data set, which has one split; labels among ImageNet's classes."""
    dataset = subject.run.dataset
    seen = dataset["name"] == "imagenet-sample-1000" or dataset.get("origin") == "train"
    found = subject.split("train" if seen else "test", count)
    if dataset["name"] != "imagenette":
        return found
    return ImageSet(found.images, torch.tensor(IMAGENETTE_RANKS)[found.labels], imagenet_classes(), found.name)


def one_pixel_windows(subject: Subject, count: int, margin: int) -> dict[str, Any]:
    """The middle window of ``count`` pictures against its four diagonal neighbours, a pixel away; nothing is resized.

    The window is ``margin`` pixels smaller on each side than the pictures of the data set.
    """
    data, network = _pictures(subject, count), subject.network

    def answers(shift: Tensor) -> Tensor:
        windows = metrics.shift_images(data.images, shift.expand(len(data), 2), "crop", margin)
        return probabilities(network, windows, _BATCH)

    middle = answers(torch.zeros(2, dtype=torch.long))
    pairs = [compared(middle, answers(shift)) for shift in DIAGONALS]
    changed, moved = (torch.stack(parts, 1) for parts in zip(*pairs, strict=True))
    correct = middle.argmax(1) == data.labels
    return {
        "top1_change": Estimate.mean(changed.double().mean(1)),
        "top1_change_if_correct": Estimate.mean(changed[correct].double().mean(1)) if correct.sum() > 1 else None,
        "mean_absolute_change": Estimate.mean(moved.double().mean(1)),
        "accuracy": Estimate.share(correct),
        "changes": changed.sum(1).tolist(),
        "correct": correct.int().tolist(),
    }


def one_pixel_protocols(subject: Subject, count: int, protocols: Iterable[str], pairs: int = 1) -> dict[str, Any]:
    """P(top-1 change), mean absolute change and accuracy under the paper's ``protocols``, on ``count`` pictures."""
    data = _pictures(subject, count)
    values: dict[str, Any] = {}
    for protocol in protocols:
        rates = metrics.one_pixel(subject.network, data.images, protocol, data.labels, pairs, batch_size=_BATCH)
        values[f"top1_change_{protocol}"] = rates.top1_change
        values[f"mean_absolute_change_{protocol}"] = rates.mean_absolute_change
        values[f"accuracy_{protocol}"] = rates.accuracy
        values[f"changes_{protocol}"] = rates.images.tolist()  # the share of each picture's pairs
    return values


def embedded_sizes(subject: Subject, count: int, sizes: Iterable[int]) -> dict[str, Any]:
    """Accuracy and P(top-1 change) of pictures shrunk to ``sizes`` of 224 pixels in the corner of an inpainted frame.

    Sizes are below 224, since the second picture of a pair stands one pixel further down and right.
    ``half_over_whole`` is the top-5 accuracy at half of the frame's width over that at the largest size.
    """
    data = _pictures(subject, count)
    side, inside = data.images.shape[-1], {}
    lists: dict[str, list[float]] = {"size_top5": [], "size_top1": [], "size_change": []}

    def answers(size: int, corner: int) -> Tensor:
        pixels = max(2, round(size * side / PAPER_SIDE))
        found = []
        for part in data.images.split(_BATCH):
            small = resize(as_float(part), (pixels, pixels))
            corners = torch.full((len(part), 2), corner)
            found.append(predict(subject.network, embed(small, corners, (side, side), "inpainting"), _BATCH).cpu())
        return torch.cat(found)

    for size in sizes:
        logits, moved = answers(size, 0), answers(size, 1)
        inside[size] = (logits.topk(min(5, logits.shape[1])).indices == data.labels[:, None]).any(1).double()
        lists["size_top5"].append(inside[size].mean().item())
        lists["size_top1"].append((logits.argmax(1) == data.labels).double().mean().item())
        lists["size_change"].append((logits.argmax(1) != moved.argmax(1)).double().mean().item())
    half = min(inside, key=lambda size: abs(size - PAPER_SIDE / 2))
    ratio = Estimate.ratio(inside[half], inside[max(inside)])
    return {"size_axis": list(inside), "size_pictures": len(data), **lists, "half_over_whole": ratio}


def inpainted_sweep(subject: Subject, count: int, positions: int, kept: int = 48) -> dict[str, Any]:
    """What happens while ``count`` shrunk pictures move down an inpainted frame, pixel by pixel (v1 of the paper).

    The probability of the right class (of the first ``kept`` pictures), how often it enters or leaves the top five,
    how often the answer changes; and by accumulated subsampling factor the share of positions at which the sum of a
    map, drawn at random for each picture, is 20 % or more off its mean. Maps are the last non-negative ones of each
    factor.
    """
    data, network = _pictures(subject, count), subject.network
    names = _activations(network, data.images[:1])
    draws = torch.rand(len(data), len(names), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [
        swept(network, metrics.vertical_sweep(part, positions, "inpainting"), list(names.values()), drawn)
        for part, drawn in zip(data.images.split(8), draws.split(8), strict=True)  # eight sweeps fit in memory
    ]
    logits, curves = (torch.cat(parts) for parts in zip(*found, strict=True))  # (N, P, classes), (N, P, factors)
    probability, rank = of_labels(logits, data.labels)
    top5, top1, off = crossings(rank < 5), logits.argmax(2), deviation(curves)
    changed = top1[:, 1:] != top1[:, :-1]
    return {
        "steps": positions - 1,
        "crossings": top5.crossings,
        "crossings_images": top5.images,
        "crossings_pairs": top5.pairs,
        "crossings_by_picture": ((rank < 5)[:, 1:] != (rank < 5)[:, :-1]).sum(1).tolist(),
        "top1_change": Estimate.mean(changed.double().mean(1)),
        "factors": list(names),
        "non_shiftability": off.mean(0),
        "non_shiftability_by_picture": off,
        "probability": probability[:kept].mul(1000).round().div(1000),
        "probability_labels": [data.classes[label] for label in data.labels[:kept].tolist()],
    }


def _activations(network: nn.Module, image: Tensor) -> dict[int, str]:
    """The last module with a non-negative map, by accumulated subsampling factor; activations are in the norms."""
    norms = [name for name, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)]
    (seen,) = metrics.outputs(network, image, norms)
    shown = {name: maps for name, maps in seen.items() if maps.shape[2] > 1 and maps.min() >= 0}
    return {round(image.shape[2] / maps.shape[2]): name for name, maps in shown.items()}


def moving_maps(subject: Subject) -> dict[str, Any]:
    """One map per accumulated subsampling factor from 4 on, in bytes: a picture at three places of an inpainted frame.

    The channel with the largest mean at the first position is taken; bytes are relative to its largest value.
    """
    data, network = _pictures(subject, 1), subject.network
    names = {factor: name for factor, name in _activations(network, data.images[:1]).items() if factor >= 4}
    frames = metrics.vertical_sweep(data.images, 3, "inpainting")[:, 0]
    (seen,) = metrics.outputs(network, frames, list(names.values()))
    maps = pictured({factor: seen[name] for factor, name in names.items()})
    return maps | {"feature_picture": as_png(data.images[0])}


def distance_to_training(
    subject: Subject, count: int, against: dict[str, Any], training: int, margin: int, neighbours: int = 10
) -> dict[str, Any]:
    """Mean distance of each of ``count`` pictures to its ``neighbours`` nearest of ``training`` training pictures.

    Distances are Euclidean between features of unit length in front of the last linear layer, of middle windows that
    are ``margin`` pixels smaller on each side; ``against`` is the data set that the training pictures are of.
    """
    known = loaded(against, "train")
    own = torch.randperm(len(known), generator=torch.Generator().manual_seed(1))[:training]
    queries, trained = (
        images[:, :, margin : images.shape[2] - margin, margin : images.shape[3] - margin]
        for images in (_pictures(subject, count).images, known[own].images)
    )
    distance = metrics.typicality(subject.network, queries, trained, neighbours, batch_size=_BATCH)
    return {"distance": distance, "training": len(trained)}


_averaged: dict[tuple, Tensor] = {}


def fine_tuned(
    subject: Subject, held_out: dict[str, Any], others: dict[str, Any], count: int, size: int, epochs: float, lr: float
) -> dict[str, Any]:
    """The run's network with its layer ("none": the control), fine-tuned on ``count`` pictures of its data set or not.

    Measured on windows of ``size`` pixels of ``held_out``, of which the network has seen none, and its accuracy on the
    middle windows of ``others``, pictures of all its classes. Texts are by picture.
    """
    run, original = subject.run, subject.network
    layer = run.network["layer"]
    train = subject.split("train", count)
    test, rest = loaded(held_out, "test")[:], loaded(others, "train")[:]
    labels = torch.tensor(IMAGENETTE_RANKS)[test.labels] if held_out["name"] == "imagenette" else test.labels
    data = Data(train.images, test.images, labels, size)
    student = deepcopy(original) if layer == "none" else antialias(original, layer)
    if run.network["tuned"]:
        plan = Plan(run.network["name"], run.network["weights"], layer, len(train), size, epochs, lr, 32, run.seed)
        key = (run.network["name"], json.dumps(run.dataset), count, size)  # the same answers for every layer and seed
        if key not in _averaged:
            _averaged.clear()
            _averaged[key] = averaged(original, data, plan.batch_size)
        Lesson(plan, data, original, _averaged[key]).teach(student)
    found = measure(student, data, answers(original, data))
    middle = slice((rest.images.shape[-1] - size) // 2, (rest.images.shape[-1] + size) // 2)
    found["accuracy on all classes"] = correct(student, rest.images[:, :, middle, middle], rest.labels, 32).double()
    values: dict[str, Any] = {}
    for name, own in found.items():
        key_of = name.replace(" ", "_").replace(",", "")
        values[key_of] = Estimate.mean(own)
        values |= by_image(True, **{key_of: own if name == MOVES else own > 0})
    return values
