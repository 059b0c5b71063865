"""What Azulay & Weiss ask of ImageNet networks, picture by picture: nothing is trained, so pictures are the sample.

Each measurement keeps a short list over the pictures, so that networks can be compared in pairs on the same ones.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets import ImageSet
from ..datasets.photographs import IMAGENETTE_RANKS
from ..inference import as_float
from ..metrics import Estimate, embedding, one_pixel, outputs, predict, shift_images, vertical_sweep
from ..metrics.canvases import PAPER_SIDE, embed
from ..metrics.sweeps import crossings
from .subject import Subject, as_png, loaded

DIAGONALS = torch.tensor([(-1, -1), (-1, 1), (1, -1), (1, 1)])
_BATCH = 16  # of pictures of 224 pixels; memory, not a protocol


def _pictures(subject: Subject, count: int) -> ImageSet:
    """``count`` pictures of the run's data set, which has one split; labels among ImageNet's classes."""
    dataset = subject.run.dataset
    seen = dataset["name"] == "imagenet-sample-1000" or dataset.get("origin") == "train"
    found = subject.split("train" if seen else "test", count)
    if dataset["name"] != "imagenette":
        return found
    return ImageSet(found.images, torch.tensor(IMAGENETTE_RANKS)[found.labels], found.classes, found.name)


def one_pixel_windows(subject: Subject, count: int, margin: int) -> dict[str, Any]:
    """The middle window of ``count`` pictures against its four diagonal neighbours, a pixel away; nothing is resized.

    The window is ``margin`` pixels smaller on each side than the pictures of the data set.
    """
    data, network = _pictures(subject, count), subject.network

    def answers(shift: Tensor) -> Tensor:
        windows = shift_images(data.images, shift.expand(len(data), 2), "crop", margin)
        return predict(network, windows, _BATCH).softmax(1).cpu()

    middle = answers(torch.zeros(2, dtype=torch.long))
    top = middle.argmax(1, keepdim=True)
    neighbours = [answers(shift) for shift in DIAGONALS]
    changed = torch.stack([other.argmax(1) != top[:, 0] for other in neighbours], 1)
    moved = torch.stack([(other - middle).gather(1, top)[:, 0].abs() for other in neighbours], 1)
    correct = top[:, 0] == data.labels
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
        rates = one_pixel(subject.network, data.images, protocol, data.labels, pairs, batch_size=_BATCH)
        values[f"top1_change_{protocol}"] = rates.top1_change
        values[f"mean_absolute_change_{protocol}"] = rates.mean_absolute_change
        values[f"accuracy_{protocol}"] = rates.accuracy
        values[f"changes_{protocol}"] = (rates.images * pairs).round().int().tolist()
    return values


def embedded_sizes(subject: Subject, count: int, sizes: Iterable[int]) -> dict[str, Any]:
    """Accuracy and P(top-1 change) of pictures shrunk to ``sizes`` of 224 pixels in the corner of an inpainted frame.

    The second picture of a pair stands one pixel further down and right. ``half_over_whole`` is the top-5 accuracy at
    half of the frame's width over that at the largest size.
    """
    data = _pictures(subject, count)
    side = data.images.shape[-1]
    inside: dict[int, Tensor] = {}
    values: dict[str, Any] = {
        "size_axis": list(sizes),
        "size_pictures": len(data),
        "size_top5": [],
        "size_top1": [],
        "size_change": [],
    }
    for size in values["size_axis"]:
        first: list[Tensor] = []
        second: list[Tensor] = []
        for part in data.images.split(_BATCH):
            pixels = max(2, round(size * side / PAPER_SIDE))
            small = F.interpolate(as_float(part), (pixels, pixels), mode="bilinear", antialias=True)
            for corner, into in ((0, first), (1, second)):
                corners = torch.full((len(part), 2), corner)
                into.append(predict(subject.network, embed(small, corners, (side, side), "inpainting"), _BATCH).cpu())
        logits, moved = torch.cat(first), torch.cat(second)
        inside[size] = (logits.topk(min(5, logits.shape[1])).indices == data.labels[:, None]).any(1)
        values["size_top5"].append(inside[size].double().mean().item())
        values["size_top1"].append((logits.argmax(1) == data.labels).double().mean().item())
        values["size_change"].append((logits.argmax(1) != moved.argmax(1)).double().mean().item())
    half = min(inside, key=lambda size: abs(size - PAPER_SIDE / 2))
    return values | {"half_over_whole": Estimate.ratio(inside[half].double(), inside[max(inside)].double())}


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
    logits, sums = [], []
    for images, drawn in zip(data.images.split(8), draws.split(8), strict=True):  # eight sweeps at a time fit in memory
        frames = vertical_sweep(images, positions, "inpainting")
        watched = [_watched(network, frame, list(names.values()), drawn) for frame in frames]
        logits.append(torch.stack([answers for answers, _ in watched], 1))
        sums.append(torch.stack([totals for _, totals in watched], 1))
    answers, curves = torch.cat(logits), torch.cat(sums)  # (N, P, classes), (N, P, factors)
    own = data.labels[:, None, None].expand(-1, answers.shape[1], 1)
    rank = (answers > answers.gather(2, own)).sum(2)
    top5, top1 = crossings(rank < 5), answers.argmax(2)
    changed = top1[:, 1:] != top1[:, :-1]
    mean = curves.mean(1, keepdim=True)
    off = (((curves - mean).abs() >= 0.2 * mean.abs()) & (curves != mean)).double().mean(1)
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
        "probability": answers.softmax(2).gather(2, own)[:kept, :, 0].mul(1000).round().div(1000),
        "probability_labels": [data.classes[label] for label in data.labels[:kept].tolist()],
    }


def _activations(network: nn.Module, image: Tensor) -> dict[int, str]:
    """The last module with a non-negative map, by accumulated subsampling factor."""
    found: dict[int, str] = {}

    def hook(name: str, maps: Any) -> None:
        if isinstance(maps, Tensor) and maps.ndim == 4 and maps.shape[2] > 1 and maps.min() >= 0:
            found[round(image.shape[2] / maps.shape[2])] = name

    inner = {name: part for name, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)}
    handles = [part.register_forward_hook(lambda _, __, y, name=name: hook(name, y)) for name, part in inner.items()]
    try:
        predict(network, image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _watched(network: nn.Module, frame: Tensor, names: list[str], draws: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) of a frame (N, 3, H, W), and the sum (N, layers) of one drawn map of each layer."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: seen.update({name: y}))
        for name in names
    ]
    try:
        logits = predict(network, frame, len(frame))
    finally:
        for handle in handles:
            handle.remove()
    rows = torch.arange(len(frame))
    sums = [
        seen[name][rows, (draws[:, layer] * seen[name].shape[1]).long()].double().sum((1, 2))
        for layer, name in enumerate(names)
    ]
    return logits.cpu(), torch.stack(sums, 1).cpu()


def moving_maps(subject: Subject, index: int = 0, positions: int = 3) -> dict[str, Any]:
    """One map per accumulated subsampling factor from 4 on, in bytes, while a picture moves down an inpainted frame.

    The channel with the largest mean at the first position is taken; bytes are relative to its largest value.
    """
    data, network = _pictures(subject, index + 1), subject.network
    names = _activations(network, data.images[:1])
    frames = vertical_sweep(data.images[index:], positions, "inpainting")[:, 0]
    maps, sums = {}, {}
    for factor, name in names.items():
        if factor >= 4:
            found = next(outputs(network, frames, [name], positions))[name]
            own = found[:, found[0].mean((1, 2)).argmax()].cpu()
            maps[str(factor)] = (255 * own / own.max().clamp(min=1e-9)).round().int().tolist()
            sums[str(factor)] = own.double().sum((1, 2)).tolist()
    return {"feature_maps": maps, "feature_sums": sums, "feature_picture": as_png(data.images[index])}


def distance_to_training(
    subject: Subject, count: int, against: dict[str, Any], training: int, margin: int, neighbours: int = 10
) -> dict[str, Any]:
    """Mean distance of each of ``count`` pictures to its ``neighbours`` nearest of ``training`` training pictures.

    Distances are Euclidean between features of unit length in front of the last linear layer, of middle windows that
    are ``margin`` pixels smaller on each side; ``against`` is the data set that the training pictures are of.
    """
    known = loaded(against, "train")
    own = torch.randperm(len(known), generator=torch.Generator().manual_seed(1))[:training]

    def features(images: Tensor) -> Tensor:
        window = slice(margin, images.shape[-1] - margin)
        return embedding(subject.network, images[:, :, window, window], batch_size=_BATCH)

    queries, trained = features(_pictures(subject, count).images), features(known[own].images)
    distance = torch.cdist(queries, trained, compute_mode="donot_use_mm_for_euclid_dist")
    return {"distance": distance.topk(neighbours, largest=False).values.mean(1), "training": len(trained)}
