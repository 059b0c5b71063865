"""Images that stay on the disk and are decoded when they are asked for: data sets larger than memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..distributed import cores
from ..errors import DataError, UsageError
from .decoding import BROKEN, arranged, check_regular, opened, pixels, random_part, square
from .imageset import ImageSet

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MEMORY = 16  # GiB of decoded images that a process holds, if ALIASING_MEMORY does not say otherwise


def fits(size: int) -> bool:
    """Whether ``size`` bytes of decoded images may be held in memory."""
    text = os.environ.get("ALIASING_MEMORY", str(MEMORY))
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise UsageError(f"ALIASING_MEMORY must be a number of GiB, got {text!r}")
    return size <= limit * 2**30


def _classes(folder: Path) -> list[Path]:
    """The folders in ``folder``, one per class; what is hidden is none."""
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))


def _images(of_class: Path) -> Iterator[Path]:
    """The files at any depth that say they are images, and are not hidden, in no order."""
    files = of_class.rglob("*")
    return (path for path in files if path.suffix.lower() in ENDINGS and not path.name.startswith("."))


def classes_in(folder: Path) -> list[str]:
    """The folders in ``folder`` that hold images, at any depth, by name; none where it is no folder."""
    return [path.name for path in _classes(folder) if any(_images(path))]  # of a million files, one of each


def looked_for(place: Path, learn: bool) -> list[Path]:
    """Folders for images to learn from, or to test on, of which the first that is there counts.

    Where no images are there, "train" may be a class.
    """
    if learn:
        return [place / "train"]
    return [place / name for name in ("test", "val", *([] if classes_in(place / "train") else [""]))]


_LISTED: dict[Path, str] = {}  # ``measurements.loaded``, too, takes for granted that no folder changes under a process


def listing(place: Path) -> str | None:
    """What tells one folder of pictures from another: a sum over all names, and over the bytes of a hundred files.

    So it takes seconds where there are a million. ``None`` where there is none yet.

    Raises:
        DataError: one of the hundred cannot be read.
    """
    if place in _LISTED:
        return _LISTED[place]
    learn, test = ([part for part in looked_for(place, learn) if part.is_dir()] for learn in (True, False))
    parts = learn + (test[:1] if place in test else test)
    found = [path for part in parts for own in _classes(part) for path in _images(own)]
    names = sorted(os.fsencode(path.relative_to(place).as_posix()) for path in found)
    digest = hashlib.sha256(b"\n".join(names))
    for name in names[:: len(names) // 100 + 1]:
        path = place / os.fsdecode(name)
        try:
            check_regular(path)
            digest.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path} is not a readable image: {error}") from error
    return _LISTED.setdefault(place, digest.hexdigest()[:12]) if names else None


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Labelled images in files, all of one size once decoded; what ``ImageSet`` is for images in memory."""

    paths: np.ndarray  # of the files, bytes (N,); not a list, whose objects every reading process would come to copy
    labels: Tensor  # int64 (N,)
    classes: tuple[str, ...]
    name: str
    size: int  # of the short side, whose middle square is kept
    random_crop: bool = False  # whether training looks at random parts instead; see ``batches``
    masks: None = None

    @classmethod
    def under(
        cls, folder: Path, name: str, size: int, per_class: int | None = None, classes: list[str] | None = None
    ) -> ImageFiles:
        """The images in the folders of ``folder``, one per class, in the order that ``decoding.decode`` gives them."""
        found = []
        for of_class in _classes(folder):
            found += [(str(path), of_class.name) for path in sorted(_images(of_class))[:per_class]]
        order, labels, classes = arranged(found, classes)
        paths = np.array([os.fsencode(found[i][0]) for i in order])
        return cls(paths, labels, tuple(classes), name, size)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def images(self) -> Tensor:
        """All images in memory, uint8 `(N, 3, size, size)`."""
        return self[:].images

    def only(self, index: Tensor) -> ImageFiles:
        """Some of the images, still on the disk; ``index`` is a mask or numbers."""
        return replace(self, paths=self.paths[index.numpy()], labels=self.labels[index])

    def __getitem__(self, index: slice | Tensor) -> ImageSet:
        """Some of the images, decoded."""
        if not isinstance(index, slice | Tensor):
            raise UsageError(f"images are indexed with a slice or a tensor, got {type(index).__name__}")
        chosen = torch.arange(len(self))[index]
        parts = [images for images, _ in self.batches(chosen.split(256), cores() if len(chosen) > 512 else 0)]
        images = torch.cat(parts) if parts else torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)
        return ImageSet(images, self.labels[chosen], self.classes, self.name)

    def batches(
        self, batches: Sequence[Tensor], workers: int | None = None, pinned: bool = False, seeds: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Bytes `(n, 3, size, size)` and labels `(n,)` of each batch of numbers, in their order.

        Args:
            batches: numbers of images.
            workers: processes that decode ahead (by default ``cores()``, 0 for none); what comes does not depend on
                them.
            pinned: whether the bytes lie in pinned memory.
            seeds: one for each of the N images; of an image comes the part that its seed decides, drawn and resized by
                torchvision's ``RandomResizedCrop`` (8 to 100 % of the area, sides 3:4 to 4:3; Szegedy et al. 2015),
                instead of the middle square.

        Raises:
            DataError: a file that is no readable image.
        """
        loader: DataLoader = DataLoader(
            range(len(self)),  # type: ignore[arg-type]  # decoding a batch is "collating" its numbers
            batch_sampler=[batch.tolist() for batch in batches],
            collate_fn=partial(self._decoded, seeds),
            num_workers=cores() if workers is None else workers,
            pin_memory=pinned,
            generator=torch.Generator(),  # otherwise it would draw from the global one
        )
        for batch, images in zip(batches, loader, strict=True):
            if isinstance(images, str):
                raise DataError(images)
            yield images.view(len(batch), 3, self.size, self.size), self.labels[batch]

    def _decoded(self, seeds: Tensor | None, numbers: list[int]) -> Tensor | str:
        """What the reading processes do; an exception would arrive with the traceback of another process."""
        images = []
        for path, number in zip(map(os.fsdecode, self.paths[numbers]), numbers, strict=True):
            try:
                with opened(path) as image:
                    part = (
                        square(image, self.size) if seeds is None else random_part(image, self.size, int(seeds[number]))
                    )
                    images.append(pixels(part))
            except BROKEN as error:
                return f"{path} is not a readable image: {error}"
        return torch.stack(images) if images else torch.empty(0, dtype=torch.uint8)
