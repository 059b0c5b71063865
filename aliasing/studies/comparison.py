"""The comparison: every downsampling layer in the same networks, under one recipe, by every metric and cost."""

from dataclasses import replace
from typing import Any, NamedTuple

from ..measurements import Measurement
from ..records import Run
from ..runner import Job
from .azulay2018_findings import PROTOCOLS
from .bases import ALPHA, BASES, Base
from .comparison_findings import FINDINGS
from .comparison_metrics import LEARNED
from .study import Study

__all__ = ["STUDY", "network"]

ALL = ("subsample", "average", "rect-2", "tri-3", "bin-5", "bin-7", "flc", "asap", "aps", "lps", "tips", "ddac")
RESIDUAL = ("subsample", "tri-3", "bin-5", "flc", "asap", "aps")

# Layers in the network with max-pools, and in the residual one; most informative first where time is short.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smoke": (
        ("subsample", "average", "rect-2", "tri-3", "bin-5", "flc", "asap", "aps", "tips"),
        ("subsample", "tri-3", "bin-5", "flc", "aps"),
    ),
    "laptop": (ALL, RESIDUAL),
    "desktop": (("subsample", "bin-7", "tri-3", "bin-5", "aps", "tips + losses", "lps"), RESIDUAL),
    "gpu": (
        ("subsample", "bin-7", "tri-3", "bin-5", "aps", "tips + losses", "lps", "flc", "asap", "ddac", "rect-2"),
        RESIDUAL,
    ),
    "cluster": (ALL, RESIDUAL + LEARNED),
}


class Sizes(NamedTuple):
    """Protocols of the measurements, as in the chapters that share them.

    Attributes:
        shifted: test images under standard and sub-pixel shifts, and under one-pixel protocols.
        attacked: test images under attack.
        corrupted: test images under corruption.
        rolled: test images under every circular shift, for ASAP: it adds a pixel and samples in steps of (n + 1)/h, so
            that no two shifts share any work.
        steps: of PGD.
        severities: of the corruptions.
        sampled: test images at the downsampling sites.
        protocols: of the one-pixel changes; where pictures are photographs, those of the chapter on Azulay & Weiss.
    """

    shifted: int
    attacked: int
    corrupted: int
    rolled: int
    steps: int
    severities: tuple[int, ...]
    sampled: int
    protocols: tuple[str, ...] = ("crop", "circular")


SIZES = {
    "smoke": Sizes(32, 8, 8, 8, 2, (3,), 16),
    "laptop": Sizes(500, 48, 48, 16, 10, (1, 3, 5), 256),
    "desktop": Sizes(2000, 500, 2000, 64, 10, (1, 3, 5), 500, (*PROTOCOLS, "circular")),
    "gpu": Sizes(10_000, 1000, 2000, 500, 20, (1, 2, 3, 4, 5), 1000, (*PROTOCOLS, "circular")),
    "cluster": Sizes(10_000, 1000, 1000, 8, 40, (1, 2, 3, 4, 5), 1000),
}


def network(base: Base, backbone: str, layer: str) -> dict[str, Any]:
    """The ``backbone`` ("vgg" or "resnet") with ``layer``.

    The layer follows the dense max of every pool, or convolution and activation. Exceptions: "average" is the two-tap
    filter without the max before it; the Fourier layers in residual networks come before the convolution, where their
    paper puts them.
    """
    if layer == "average":
        return base.vgg | {"downsample": "rect-2", "pool": "none"}
    options: dict[str, Any] = {"downsample": base.layer(layer.removesuffix(" + losses"))}
    if backbone == "resnet" and layer in ("flc", "asap"):
        options["placement"] = "pool-then-conv"
    return (base.vgg if backbone == "vgg" else base.resnet) | options


def plan(profile: str) -> list[Job]:
    """All runs of ``profile``, seed by seed."""
    base = BASES[profile]
    jobs = []
    for seed in range(base.seeds):
        for backbone, recipe, chosen in zip(
            ("vgg", "resnet"), (base.recipe, base.residual), LAYERS[profile], strict=True
        ):
            for layer in chosen:
                own = replace(recipe, auxiliary=ALPHA) if layer.endswith("losses") else recipe
                run = Run(base.dataset, network(base, backbone, layer), own, seed)
                wanted = _measurements(profile, backbone, layer, seed)
                jobs.append(Job(run, wanted, {"backbone": backbone, "layer": layer}))
    return jobs


def _measurements(profile: str, backbone: str, layer: str, seed: int) -> tuple[Measurement, ...]:
    """Accuracy and shifts for all; robustness and sampling sites for the VGGs; cost, which no seed changes, once."""
    base, sizes = BASES[profile], SIZES[profile]
    wanted = [
        Measurement("circular_rolls", {"count": sizes.rolled if layer == "asap" else base.exact}),
        Measurement("accuracy", {"count": base.tested}),  # after the rolls, whose accuracy may be of fewer images
        Measurement("shift_consistency", {"count": sizes.shifted, "max_shift": 8}),
        Measurement("one_pixel", {"count": sizes.shifted, "protocols": sizes.protocols}),
    ]
    if backbone == "vgg" or profile in ("desktop", "gpu"):
        wanted += [
            Measurement("attacks", {"count": sizes.attacked, "steps": sizes.steps}),
            Measurement("corruptions", {"count": sizes.corrupted, "severities": sizes.severities}),
            Measurement("sampling_bias", {"count": sizes.sampled}),
            Measurement("aliasing", {"count": sizes.sampled}),
        ]
    if seed == 0:
        wanted.append(Measurement("cost", {"size": base.dataset.get("size", 32)}))
    return tuple(wanted)


STUDY = Study(
    "comparison",
    "Every layer on equal footing",
    "this project; no paper has this comparison",
    plan,
    FINDINGS,
)
