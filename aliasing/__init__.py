"""Aliasing in convolutional networks: layers, networks, training, measurements and studies.

A module imports only from lines above its own (a test holds it to that):

    errors, held, version
    clone, files, inference, memory, optimizers, options, precision, profiles, streams
    adversary, distributed, shifts
    layers
    models
    datasets
    metrics
    training
    records
    diagnosis
    finetuning
    measurements, slurm
    jobs
    runner
    torchrun
    plots
    studies
    chapters
    device_checks, durations
    campaign, verify
    cli
    __main__
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import extra

if TYPE_CHECKING:
    from . import datasets, layers, metrics, models, studies
    from .diagnosis import diagnose
    from .finetuning import finetune
    from .metrics import Estimate
    from .models import antialias
    from .studies import run
    from .version import __version__

__all__ = ["Estimate", "__version__", "antialias", "datasets", "diagnose", "finetune", "layers", "metrics", "models",
           "run", "studies"]  # fmt: skip

# Loaded on first use: one layer alone should not wait for pandas and the studies.
_HOMES = {
    "__version__": "version",
    "Estimate": "metrics",
    "antialias": "models",
    "diagnose": "diagnosis",
    "finetune": "finetuning",
    "run": "studies",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with extra():
        module = import_module(f".{_HOMES.get(name, name)}", __name__)
    return getattr(module, name) if name in _HOMES else module
