"""A labelled set of images in memory, as bytes: what every data set of this package loads to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import UsageError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels."""

    images: Tensor  # uint8 (N, 3, H, W)
    labels: Tensor  # int64 (N,), indices into ``classes``
    classes: tuple[str, ...]
    name: str  # what captions call the set
    masks: Tensor | None = None  # segmentation, uint8 (N, H, W); the data set explains its values

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise UsageError(f"images must be uint8 (N, 3, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != (n,):
            raise UsageError(f"labels must be int64 ({n},), got {self.labels.dtype} {tuple(self.labels.shape)}")
        masks = self.masks
        if masks is not None and (masks.dtype != torch.uint8 or masks.shape != (n, *self.images.shape[2:])):
            raise UsageError(f"masks must be uint8 ({n}, H, W) like the images, got {masks.dtype} {tuple(masks.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> ImageSet:
        if not isinstance(index, slice | Tensor):
            raise UsageError(f"an ImageSet is indexed with a slice or a tensor, got {type(index).__name__}")
        masks = None if self.masks is None else self.masks[index]
        return replace(self, images=self.images[index], labels=self.labels[index], masks=masks)
