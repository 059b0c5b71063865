"""The one-pixel protocols and sweeps of Azulay & Weiss."""

from typing import Any

from ..evaluation import Subject, measurement
from ..metrics import ONE_PIXEL
from ..metrics import one_pixel as change_by_one_pixel


@measurement
def one_pixel(subject: Subject, count: int, pairs: int = 1) -> dict[str, Any]:
    """P(top-1 change) and mean absolute change under every one-pixel protocol, on ``count`` test images."""
    test = subject.split("test", count)
    values: dict[str, Any] = {}
    for protocol in ONE_PIXEL:
        change = change_by_one_pixel(subject.network, test.images, protocol, test.labels, pairs=pairs)
        name = protocol.replace("-", "_")
        values[f"top1_change_{name}"] = change.top1_change
        values[f"mean_absolute_change_{name}"] = change.mean_absolute_change
    return values
