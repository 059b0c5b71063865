"""The pictures of a fine-tuning: read, split, labelled where their classes are known, and seen through windows."""

import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets import ImageSet
from ..diagnosis import networks, pictures
from ..errors import UsageError
from ..files import checksum
from ..inference import as_float, check_images
from ..metrics import predict, shift_images

MEASURED = 500  # held-out pictures that are looked at
MEMORY = 2**32  # bytes of decoded pictures; of more pictures a fixed random choice is taken


@dataclass(frozen=True)
class Data:
    """Pictures to learn from and held-out ones, bytes (N, 3, H, W) larger than the window; labels may be unknown."""

    learn: Tensor
    held: Tensor
    labels: Tensor | None
    size: int

    @property
    def margins(self) -> tuple[int, int]:
        """How far windows of the pictures to learn from, and of those held out, can move from the middle."""
        learn, held = ((images.shape[-1] - self.size) // 2 for images in (self.learn, self.held))
        return learn, held


def gather(images: Any, subject: networks.Network, held_out: ImageSet | None, progress: bool = False) -> Data:
    """Read, cut and split the pictures for a network; what ``images`` and ``held_out`` may be, ``finetune`` says."""
    labels, size = None, subject.size
    if isinstance(images, (str, Path)):
        paths = pictures.find(images)
        side = _canvas(images, paths, size)
        found = pictures.read(images, size, MEMORY // (3 * side**2), (side - size) // 2, progress, paths)
        for name, reason in found.skipped.items():
            warnings.warn(f"{name} is left out: {reason}", stacklevel=3)
        images, labels = found.images, _labels([Path(name).parts[0] for name in found.names], subject.classes)
    elif isinstance(images, ImageSet):
        images, labels = images.images, _indices(images, subject)
    images = _squares(images, size)
    if len(images) < pictures.LEAST:
        raise UsageError(f"fine-tuning needs at least {pictures.LEAST} pictures that can be read, got {len(images)}")
    # In no order: that of a folder may be by class, or alternate.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    if held_out is not None:
        return Data(images[order], _squares(held_out.images, size), _indices(held_out, subject), size)
    held, learn = order.tensor_split([len(order) // 3])
    same = [checksum({"": images[row].cpu()}) for row in order.tolist()]
    seen = set(same[len(held) :])
    new = torch.tensor([own not in seen for own in same[: len(held)]])
    if not new.all():
        text = f"{int((~new).sum())} of {len(new)} held-out pictures are left out, as others to learn from are the same"
        if not new.any():
            raise UsageError(f"{text}; give different pictures")
        warnings.warn(text, stacklevel=3)
    chosen = held[new][:MEASURED]
    return Data(images[learn], images[chosen], None if labels is None else labels[chosen], size)


def _squares(images: Any, size: int) -> Tensor:
    """The middle squares of colour pictures, in whose middle windows of ``size`` can stand, and move."""
    if not isinstance(images, Tensor) or images.shape[1:2] != (3,):
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(f"pictures must be a folder or a tensor (N, 3, H, W), bytes or floats in [0, 1], got {got}")
    images, side = check_images(images, unit=True), min(images.shape[2:])
    if side < size + 2:
        raise UsageError(f"pictures of {side} pixels leave no room for windows of {size}: name a smaller --size")
    side -= (side - size) % 2
    top, left = ((length - side) // 2 for length in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]


def _canvas(folder: str | Path, paths: list[Path], size: int) -> int:
    """The side that pictures are resized to: what crop shifts ask for, or less where the pictures are smaller."""
    usual = pictures.usual(paths)
    window = pictures.window(size, usual)
    if not usual:  # reading them will say why
        return size + 2
    if window != size:
        name = f"name --size {window} or smaller" if window else f"they need {pictures.SMALLEST + 2} at least"
        raise UsageError(
            f"pictures in {folder} have short sides of {usual} pixels, too small for windows of {size}: {name}"
        )
    return size + 2 * min(pictures.margin_of(size), (usual - size) // 2)


def _indices(given: ImageSet, subject: networks.Network) -> Tensor | None:
    """The labels of a set as indices of the network's logits, if its classes are those."""
    if subject.classes and given.classes != subject.classes:
        labels = _labels([given.classes[label] for label in given.labels.tolist()], subject.classes)
        if labels is not None or subject.classes != networks.BINARY:  # which are no names of its own
            return labels
    logits = predict(subject.module, torch.zeros(1, 3, subject.size, subject.size))
    return given.labels if len(given.classes) == logits.shape[1] else None


def _labels(names: list[str], classes: tuple[str, ...]) -> Tensor | None:
    """Labels from the names of classes, if all are that: ImageNet's ids of them, or names that no two classes have."""
    lower = [name.lower() for name in classes]
    counts = Counter(lower)
    index = {name: i for i, name in enumerate(lower) if counts[name] == 1}
    if len(classes) == 1000:
        with suppress(ImportError):
            index |= {wnid: i for i, wnid in enumerate(import_module("timm.data").ImageNetInfo().label_names())}
    own = [index.get(name.lower()) for name in names]
    return None if None in own else torch.tensor(own)


def windows(data: Data, rows: Tensor, shifts: Tensor, place: torch.device) -> Tensor:
    """Windows of some pictures to learn from, on ``place``, moved by ``shifts`` (2,) or (N, 2) from the middle."""
    moved = shift_images(data.learn[rows], shifts.expand(len(rows), 2), "crop", data.margins[0])
    return as_float(moved).float().to(place)
