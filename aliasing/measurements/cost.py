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


@measurement
def macs(subject: Subject) -> dict[str, Any]:
    """Multiply-accumulates for one test image; unlike ``cost`` without a clock: it depends on the network alone."""
    height, width = subject.split("test", 1).images.shape[2:]
    return {"macs": count_flops(subject.network, (height, width)) // 2}
