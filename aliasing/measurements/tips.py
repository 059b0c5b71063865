"""What the TIPS paper asks of its layers: their weights and their undo loss."""

from typing import Any

import torch
from torch import Tensor

from ..inference import batches, evaluating
from ..layers import TIPS, recorded
from .subject import Subject


def tips_weights(subject: Subject, count: int) -> dict[str, Any]:
    """Mixing weights of each TIPS layer on ``count`` test images: mean largest weight and mean l2 norm."""
    with torch.no_grad():
        taus = [layer.mixing_weights(x) for layer, x in _inputs(subject, count)]
    return {"tau_largest": [tau.amax(2).mean() for tau in taus], "tau_norm": [tau.norm(dim=2).mean() for tau in taus]}


def tips_phases(subject: Subject, count: int, bins: int = 25) -> dict[str, Any]:
    """Mean phase of each TIPS layer: the density, in ``bins`` bins, of ``sum_p p tau_p`` over channels.

    From 0 to the last phase, which is 3 for stride 2. Phases are counted row by row. Uniform weights give the middle;
    so do others, and an end is reached by one phase only.
    """
    densities = []
    with torch.no_grad():
        for layer, x in _inputs(subject, count):
            tau = layer.mixing_weights(x).double()
            place = tau @ torch.arange(tau.shape[2], dtype=tau.dtype, device=tau.device)
            last = max(1, tau.shape[2] - 1)
            place = place.flatten().clamp(0, last).cpu()  # rounded, it may pass the last
            shares = torch.histc(place, bins, 0, last) / place.numel()
            densities.append(shares * bins / last)
    return {"tau_mean_phase": densities}


def undo_loss(subject: Subject, count: int, pictured: int = 0) -> dict[str, Any]:
    """The undo loss of each TIPS layer split into its floor and what psi adds, in units of the input's energy.

    Over all circular shifts of up to a quarter of the map the loss is exactly the sum of two terms:
    ``E|psi - X^t|^2 = E|X^t - mean(X^t)|^2 + |psi - mean(X^t)|^2``. No psi can get below the first. ``pictured``
    channels of the first layer and the first image are returned as pictures, those of largest contrast.
    """
    values: dict[str, Any] = {"undo_floor": [], "undo_excess": [], "undo_pictures": []}
    for level, (layer, x) in enumerate(_inputs(subject, count)):
        mean, psi = x, layer.psi(x).detach()
        for axis in (2, 3):
            reach = x.shape[axis] // 4
            mean = torch.stack([mean.roll(step, axis) for step in range(-reach, reach + 1)]).mean(0)
        energy = x.square().mean()
        values["undo_floor"].append((energy - mean.square().mean()) / energy)
        values["undo_excess"].append((psi - mean).square().mean() / energy)
        if level == 0 and pictured:
            chosen = x[0].flatten(1).std(1).argsort(descending=True)[:pictured]
            moved = x.roll((5, 3), (2, 3))
            pictures = torch.stack([maps[0, chosen] for maps in (x, moved, psi, mean)], 1)
            values["undo_pictures"] = pictures.round(decimals=4)
    return values


def _inputs(subject: Subject, count: int) -> list[tuple[TIPS, Tensor]]:
    """Each TIPS layer with its completed input for the first ``count`` test images."""
    (batch,) = batches(subject.network, subject.split("test", count).images, count)
    with evaluating(subject.network), torch.no_grad(), recorded(subject.network) as calls:
        subject.network(batch)
    return [(call.layer, call.layer.complete(call.x)) for call in calls if isinstance(call.layer, TIPS)]
