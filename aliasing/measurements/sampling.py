"""What happens at the downsampling sites: maximum-sampling bias, alias energy, alias error."""

from typing import Any

from ..evaluation import Subject, measurement
from ..metrics import alias_energy, alias_error, max_sampling_bias


@measurement
def sampling_bias(subject: Subject, count: int) -> dict[str, Any]:
    """Maximum-sampling bias by its three definitions, per site and averaged over sites, on ``count`` test images."""
    biases = max_sampling_bias(subject.network, subject.split("test", count).images)
    values: dict[str, Any] = {}
    for definition in ("exact", "nearest", "weight", "constant"):
        found = [getattr(bias, definition) for bias in biases.values()]
        known = [estimate.value for estimate in found if estimate is not None]
        values[f"msb_{definition}"] = sum(known) / len(known) if len(known) == len(found) else None
        values[f"msb_{definition}_by_site"] = [None if estimate is None else estimate.value for estimate in found]
    return values


@measurement
def aliasing(subject: Subject, count: int) -> dict[str, Any]:
    """Alias-able energy in front of each site and relative error of its output, on ``count`` test images."""
    images = subject.split("test", count).images
    energy, error = alias_energy(subject.network, images), alias_error(subject.network, images)
    return {
        "alias_energy": [estimate.value for estimate in energy.values()],
        "alias_error": [estimate.value for estimate in error.values()],
        "mean_alias_error": sum(estimate.value for estimate in error.values()) / len(error),
    }
