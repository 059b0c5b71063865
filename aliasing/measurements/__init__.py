"""Measurements: what can be asked of a trained network, by name, with the protocol as part of the name.

A measurement is a function ``(subject, **protocol) -> {metric: value}`` in the table ``MEASUREMENTS``; the first line
of its docstring is what ``aliasing list metrics`` says. With ``per_image=True`` some also return what they found for
each image, as ``packed`` text under names that end in ``_by_image``, for statistics over networks and images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import unknown
from . import classes, features, finetuned, pixel_steps, realnetworks, shifted, tips
from .subject import Subject, loaded, packed, unpacked

__all__ = ["MEASUREMENTS", "Measurement", "Subject", "loaded", "measurement", "packed", "unpacked"]

MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (
        *(classes.accuracy, classes.clean_error, classes.attacks, classes.corruptions, classes.band_removal),
        *(classes.few_shot,),
        *(shifted.circular_rolls, shifted.shift_curves, shifted.shift_consistency, shifted.circular_fidelity),
        *(shifted.consistency_surface, shifted.masks, shifted.mask_pictures),
        *(pixel_steps.one_pixel, pixel_steps.one_pixel_by_size, pixel_steps.jagged, pixel_steps.sweep),
        *(pixel_steps.typicality, pixel_steps.photographers_bias),
        *(features.shiftability, features.stage_readouts, features.feature_maps, features.exact_shifts),
        *(features.equivariance, features.depth_error, features.sampling_bias, features.aliasing),
        *(features.stability, features.aliasing_and_attack, features.map_spectra, features.kernels),
        *(features.filter_variation, features.cost, features.macs),
        *(realnetworks.one_pixel_windows, realnetworks.one_pixel_protocols, realnetworks.embedded_sizes),
        *(realnetworks.inpainted_sweep, realnetworks.moving_maps, realnetworks.distance_to_training),
        *(finetuned.fine_tuned,),
        *(tips.tips_weights, tips.tips_phases, tips.undo_loss),
    )
}


def measurement(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Decorator that adds a measurement of one's own, such as a notebook's, to the table under its name."""
    MEASUREMENTS[function.__name__] = function
    return function


@dataclass(frozen=True)
class Measurement:
    """A measurement with its protocol.

    Attributes:
        name: of a function in ``MEASUREMENTS``.
        options: its protocol, such as the number of test images.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name and protocol in one line, the key in the record."""
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in sorted(self.options.items()))})"

    def measure(self, subject: Subject) -> dict[str, Any]:
        """Carry it out: metric names to estimates, numbers or lists."""
        if self.name not in list(MEASUREMENTS):  # a list, since a wrong name need not be hashable
            raise unknown("measurement", self.name, MEASUREMENTS)
        return MEASUREMENTS[self.name](subject, **self.options)
