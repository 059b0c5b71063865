"""What a network costs."""

from typing import Any

from ..evaluation import Subject, measurement
from ..metrics import count_flops, count_parameters, milliseconds


@measurement
def cost(subject: Subject, size: int = 32) -> dict[str, Any]:
    """Multiply-accumulates and parameters per image of ``size`` pixels, and milliseconds in batches of 64."""
    timing = milliseconds(subject.network, (size, size))
    return {
        "macs": count_flops(subject.network, (size, size)) // 2,
        "parameters": count_parameters(subject.network),
        "milliseconds": timing.median,
        "milliseconds_quartiles": [timing.low, timing.high],
    }
