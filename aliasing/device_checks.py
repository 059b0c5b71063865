"""Whether a device computes what the CPU does: training, layers in each format and precision, measurements."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from . import datasets, layers
from .files import write_atomically
from .inference import full_float32, placed
from .jobs import Job, build
from .measurements import Measurement, Subject
from .records import code_version, encode, provenance
from .studies import campaign
from .studies.bases import DECISIVE
from .training import Recipe, train

NO_TIME = "no time left"
CPU = torch.device("cpu")


class Notes:
    """What is known of a device, in a file that is kept at once; of another device or code nothing is known."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self.found = path, {"about": {"device": provenance(device, 0)["device"], "code": code_version()}}
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):  # a damaged file is no file
            known = json.loads(path.read_text())
            self.found = known if known["about"] == self.found["about"] else self.found

    def once(self, what: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, or did in an earlier call."""
        if what not in self.found:
            self.found[what] = json.loads(json.dumps(make()))
            write_atomically(self.path, json.dumps(self.found, indent=1) + "\n")
        return self.found[what]


def checks(device: torch.device, jobs: list[Job], seconds: float, notes: Notes) -> dict[str, str]:
    """Compare ``device`` with the CPU: layers in each format and precision, training, measurements of ``jobs``.

    Returns:
        What was checked, with its outcome: "passed", a reason, or "no time left" for a later call.
    """
    end = time.monotonic() + seconds
    with full_float32():
        return {
            what: notes.once(what, partial(_outcome, check))
            if what in notes.found or time.monotonic() < end
            else NO_TIME
            for what, check in _checks(device, jobs)
        }


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
        return "passed"
    except Exception as error:  # whatever it is, it must not end the campaign
        return f"{type(error).__name__}: {str(error).strip()[:500]}"


def _checks(device: torch.device, jobs: list[Job]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Training first, since everything depends on it; then layers, then measurements."""
    recipe = Recipe(epochs=2, batch_size=16, lr=0.05, flip=True, shift=2)
    yield "training", lambda: _check_near(_moved(recipe, device), _moved(recipe, CPU), 0.02)
    yield "continued training", partial(_check_continued, device)
    for name in layers.CATALOGUE:
        yield f"layer {name}", partial(_check_layer, name, device)
    wanted = {m.name for job in jobs for m in job.measurements}
    for job in campaign("smoke"):  # the same measurements with sizes for tests
        for measurement in job.measurements:
            if measurement.name in wanted:
                wanted.remove(measurement.name)
                yield f"measurement {measurement.name}", partial(_check_measurement, job, measurement, device)


def _check_layer(name: str, device: torch.device) -> None:
    """Forward and gradient on ``device`` against the CPU, for both memory formats and both precisions."""
    torch.manual_seed(0)
    layer = layers.create(name, 16, padding_mode="circular").eval()
    images = torch.randn(2, 16, 18, 16).bfloat16()

    def value_and_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        x.requires_grad_()
        y = layer(x)
        return y.detach(), torch.autograd.grad(y.float().square().sum(), x)[0]

    expected = value_and_gradient(images.float())
    layer = layer.to(device)
    for form, dtype in product((torch.contiguous_format, torch.channels_last), (torch.float32, torch.bfloat16)):
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = value_and_gradient(images.to(device, dtype).contiguous(memory_format=form))
        for ours, theirs in zip(found, expected, strict=True):
            _check_near(ours, theirs, 1e-4 if dtype == torch.float32 else 0.03)


def _check_continued(device: torch.device) -> None:
    """The recipe of photographs, cut after the first of two epochs and continued, against the same uncut."""
    recipe = replace(DECISIVE, epochs=2, batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"

        def stop(entry: dict) -> None:
            raise InterruptedError

        with suppress(InterruptedError):
            _moved(recipe, device, checkpoint, stop)
        _check_near(_moved(recipe, device, checkpoint), _moved(recipe, device), 0.1)


def _moved(recipe: Recipe, device: torch.device, *options: Any) -> Tensor:
    """By how much ``recipe`` changes each weight of a small network; ``options`` as for ``train``."""
    data, run = datasets.load("shapes", "train", count=64, seed=1), campaign("smoke")[0].run
    network = build(run)
    train(network, data, recipe, 0, device, *options)
    pairs = zip(network.parameters(), build(run).parameters(), strict=True)
    return torch.cat([(after.detach().cpu() - before.detach()).flatten() for after, before in pairs])


def _check_near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """``ours`` differs from ``theirs`` by at most ``tolerance`` of its norm."""
    distance = (ours.detach().float().cpu() - theirs).norm() / theirs.norm()
    if not distance <= tolerance:
        raise ArithmeticError(f"the distance is {distance:.2g} of the norm, and may be {tolerance:g}")


def _check_measurement(job: Job, wanted: Measurement, device: torch.device) -> None:
    """``wanted`` of an untrained network on ``device`` against the CPU: numbers agree within a picture or two."""
    values = []
    for place in (CPU, device):
        network = placed(build(job.run), place).eval()
        leaves = tree_leaves(encode(wanted.measure(Subject(job.run, network, place))))
        values.append(torch.tensor([leaf for leaf in leaves if isinstance(leaf, float)]))
    torch.testing.assert_close(values[1], values[0], rtol=0.1, atol=0.26)  # two pictures of eight
