"""What a measurement looks at: a network and images of its data set; and small things for records: maps, flags."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets import CATALOGUE, ImageFiles, ImageSet, data_folder, load
from ..errors import UsageError, at_least
from ..inference import correct
from ..records import Run

_KEPT: list[tuple[Any, ImageSet | ImageFiles]] = []
ROOM = 4  # training and test images of one set, training images of the next ones


def identity(dataset: Mapping[str, Any]) -> tuple[dict[str, Any], Path, Any]:
    """What tells a data set apart from others while this process lasts: its name may come to mean another one."""
    return dict(dataset), data_folder(dataset.get("root")), CATALOGUE.get(dataset["name"])


def loaded(dataset: Mapping[str, Any], split: str) -> ImageSet | ImageFiles:
    """The ``split`` of a data set given by name and options; the last few are kept, since measurements share them."""
    key = identity(dataset), split
    for entry in _KEPT:
        if entry[0] == key:
            _KEPT.remove(entry)
            _KEPT.append(entry)
            return entry[1]
    data = load(split=split, **dataset)
    _KEPT.append((key, data))
    del _KEPT[:-ROOM]
    return data


def drawn(images: int, count: int | None) -> Tensor:
    """Indices of the ``count`` pictures that are drawn of so many; of all in their order, where there are no more."""
    at_least("count", count, 1)
    if count is None or count >= images:
        return torch.arange(images)
    return torch.randperm(images, generator=torch.Generator().manual_seed(0))[:count]


@dataclass
class Subject:
    """A trained network with the run it came from; what a measurement looks at."""

    run: Run
    network: nn.Module
    device: torch.device

    def split(self, name: str, count: int | None = None) -> ImageSet:
        """``count`` images of a split of the run's data set (all of them by default), the same for every run.

        On CUDA the images are on the device, where they are shifted and corrupted faster; labels never are. All are
        copies, which may be written into.
        """
        data = loaded(self.run.dataset, name)
        chosen = data[drawn(len(data), count)]
        return replace(chosen, images=chosen.images.to(self.device)) if self.device.type == "cuda" else chosen

    def correct(self, count: int) -> Tensor:
        """Whether each of ``count`` test images is classified correctly, (count,) bool."""
        test = self.split("test", count)
        return correct(self.network, test.images, test.labels)


def pictured(maps: Mapping[int, Tensor]) -> dict[str, Any]:
    """One channel of the maps (P, C, h, w) of each factor, that of the largest mean in the first, in bytes; its sums.

    Bytes are relative to the largest value of all P.
    """
    own = {str(factor): part[:, part[0].mean((1, 2)).argmax()].cpu() for factor, part in maps.items()}
    as_bytes = {f: (255 * m / m.max().clamp(min=1e-9)).round().clamp(0, 255).int().tolist() for f, m in own.items()}
    return {"feature_maps": as_bytes, "feature_sums": {f: m.double().sum((1, 2)).tolist() for f, m in own.items()}}


def packed(values: Tensor) -> str:
    """One number per image (N,) as a short text, so that records can hold it; ``unpacked`` reads it back.

    Booleans take one bit each, whole numbers from 0 to 255 a byte, and fractions in [0, 1] two bytes: they are rounded
    to 65535ths. The text is ``N x bits : base64``, numbers in the order of the images.
    """
    values = values.detach().cpu().flatten()
    most = 1 if values.is_floating_point() or values.dtype == torch.bool else 255
    if not ((values >= 0) & (values <= most)).all():
        got = f"{values.min()} to {values.max()}"
        raise UsageError(f"numbers by image must be from 0 to {most} as {values.dtype}, got {got}")
    if values.dtype == torch.bool:
        bits, data = 1, np.packbits(values.numpy())
    elif values.is_floating_point():
        bits, data = 16, (values.double() * 65535).round().numpy().astype("<u2")
    else:
        bits, data = 8, values.numpy().astype(np.uint8)
    return f"{len(values)}x{bits}:{base64.b64encode(data.tobytes()).decode()}"


def by_image(wanted: bool, **values: Tensor) -> dict[str, Any]:
    """If ``wanted``, numbers per image ``packed``, under names that say so."""
    return {f"{name}_by_image": packed(own) for name, own in values.items()} if wanted else {}


def unpacked(text: str) -> Tensor:
    """The numbers (N,) that ``packed`` wrote: bool, int64, or float64 for fractions.

    Raises:
        UsageError: the text is of another form.
    """
    head, _, body = text.partition(":")
    count, _, bits = head.partition("x")
    if not count.isdigit() or bits not in ("1", "8", "16"):
        raise UsageError(f"numbers by image look like '500x1:...', got {text[:20]!r}")
    try:
        data = np.frombuffer(base64.b64decode(body), dtype="<u2" if bits == "16" else np.uint8)
    except ValueError:  # binascii's as well
        data = np.empty(0)
    if len(data) != (-(-int(count) // 8) if bits == "1" else int(count)):
        raise UsageError(f"numbers by image must be {count} of {bits} bits, got {text[:20]!r} with {len(data)} parts")
    if bits == "1":
        return torch.from_numpy(np.unpackbits(data, count=int(count)).astype(bool))
    return torch.from_numpy(data / 65535) if bits == "16" else torch.from_numpy(data.astype(np.int64))
