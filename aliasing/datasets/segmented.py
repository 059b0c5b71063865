"""CamVid: road scenes with a class for every pixel."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .archives import cached, find, members, verify
from .decoding import Decoded, pixels
from .imageset import ImageSet

CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign-symbol", "fence", "car", "pedestrian", "bicyclist"),
)


def camvid(split: str, root: str | Path | None = None) -> ImageSet:
    """Road scenes with a class for every pixel, 240x180, 367 / 101 / 233.

    ``masks`` hold indices into ``classes``, and 11 where the pixel is unlabelled and to be ignored. A frame as a whole
    has no class: its label is 0.
    """
    (archive,) = find("camvid", root)
    part = {"train": "train", "validation": "val", "test": "test"}[split]

    def build() -> Decoded:
        frames: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name, content in members(verify(archive, root)):
            place = PurePosixPath(name)
            if place.parent.name == part:
                frames[place.stem] = pixels(Image.open(io.BytesIO(content)))
            elif place.parent.name == f"{part}annot":
                masks[place.stem] = torch.from_numpy(np.array(Image.open(io.BytesIO(content))))
        if frames.keys() != masks.keys() or not frames:
            raise DataError(f"{archive.name}: frames and annotations of {part} do not correspond")
        names = sorted(frames)
        tensors = {"images": torch.stack([frames[n] for n in names]), "masks": torch.stack([masks[n] for n in names])}
        return tensors, list(CLASSES)

    tensors, classes = cached("camvid", [archive.checksum, part], build)
    labels = torch.zeros(len(tensors["images"]), dtype=torch.int64)
    return ImageSet(tensors["images"], labels, tuple(classes), "CamVid", tensors["masks"])
