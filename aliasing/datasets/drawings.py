"""Handwritten characters: far from photographs, for few-shot learning out of its domain."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..errors import UsageError
from .archives import cached, data_folder, find, members, verify
from .catalogue import ARCHIVES
from .decoding import Decoded, decode, square
from .imageset import ImageSet

__all__ = ["omniglot"]


def omniglot(split: str, root: str | Path | None = None, size: int = 28) -> ImageSet:
    """Handwritten characters, 20 drawings each, white on black so that padding with zeros adds background.

    The two "small background" sets: train and validation are alphabets of the first, test those of the second that
    the first does not have; every character belongs to one split.
    """
    if not 1 <= size <= 105:
        raise UsageError(f"omniglot: size must be 1 to 105 pixels, got {size}")
    form = find("omniglot", ARCHIVES["omniglot"], root)
    alphabets = {
        "train": ("Balinese", "Early_Aramaic", "Greek", "Korean"),
        "validation": ("Latin",),
        "test": ("Japanese_(katakana)", "Sanskrit", "Tagalog"),
    }[split]
    archive = form[1] if split == "test" else form[0]

    def build() -> Decoded:
        files = (
            ("/".join(PurePosixPath(name).parts[-3:-1]), name, content)
            for name, content in members(verify(archive, data_folder(root)))
            if name.endswith(".png") and PurePosixPath(name).parts[-3] in alphabets
        )
        return decode(files, lambda image: Image.fromarray(255 - np.asarray(square(size)(image.convert("L")))))

    tensors, classes = cached("omniglot", [archive.checksum, alphabets, size], build)
    return ImageSet(tensors["images"], tensors["labels"], tuple(classes), "Omniglot")
