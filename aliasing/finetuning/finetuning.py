"""Mending a trained network: anti-aliased, then fine-tuned without labels towards its own answers.

The converted network learns, on windows of the user's pictures, the answer that the original gives averaged over
several windows of the same picture. The original is fine-tuned in the same way beside it: without that control, what is
due to the layer and what to the fine-tuning cannot be told apart.
"""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from shutil import rmtree

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from ..datasets import ImageSet
from ..diagnosis import networks
from ..errors import UsageError, check_whole
from ..files import checksum, copies, leased, write_atomically, write_tensors
from ..memory import keep_freed
from ..models import antialias
from ..models.watch import copied
from ..training import pick_device
from .benefit import answers, measure, plain, tabled
from .data import gather
from .lesson import LR, Lesson, Plan, averaged, begun

_BAR = "{desc}{n:3.0f} % |{bar}| {elapsed}"


def finetune(
    network: str | nn.Module,
    layer: str,
    images: str | Path | Tensor | ImageSet,
    *,
    out: str | Path | None = None,
    epochs: float = 1,
    minutes: float | None = None,
    size: int | None = None,
    held_out: ImageSet | None = None,
    lr: float = LR,
    batch_size: int = 32,
    weights: str = "pretrained",
    device: str = "auto",
    seed: int = 0,
    progress: bool = False,
) -> tuple[nn.Module, pd.DataFrame]:
    """Anti-alias ``network`` with ``layer`` and fine-tune it on pictures; no labels are needed.

    Batch norms keep their statistics, corrected for what the layer does to the maps in front of them. SGD with momentum
    0.9 and one-cycle-like cosine decay; soft cross-entropy with the averaged answers, which are computed once. All
    weights learn, those that were frozen as well.

    Args:
        network: a name as for ``aliasing.diagnosis.load``, or a module that takes images in [0, 1]; it is not changed.
        layer: name of a downsampling layer.
        images: a folder of pictures, or pictures larger than the window (N, 3, H, W), of which the middle squares
            count; 4 GiB of them at most. A third is held out, a fixed random choice without pictures that are among
            the others as well; 500 of that are measured.
        out: safetensors file for the result, which must not exist. A stopped call that is repeated continues from
            the folder ``out`` with ``.partial`` behind it.
        epochs: passes over the pictures that are not held out.
        minutes: about so long for the training of both networks; the schedule is shortened, not cut.
        size: side of the windows in pixels; by default the network's own input, 224 for modules.
        held_out: measure on these pictures instead. As those of ``images``, its labels count if its classes are those
            of the network by name or, where that has no names, by number.
        lr: the largest learning rate.
        batch_size: windows per step; twice as many at most pass without gradients.
        weights: where those of a named network come from; see ``aliasing.diagnosis.load``.
        device: auto, cpu, cuda, cuda:N or mps; bfloat16 is used where it is fast.
        seed: decides order and windows; below 2**43.
        progress: draw a progress bar on standard error.

    Returns:
        The converted, fine-tuned network, which takes and returns what ``network`` does, and a table of ``Estimate``: a
        column of ``COLUMNS`` each, a row per measure, below it the difference from the original and, in the last
        column, from the control, paired by picture.

    Raises:
        UsageError: a network that does not fit, pictures that are too small, fewer than 50, or a file that exists.
        DataError: weights or pictures that cannot be read, or a folder that cannot be written.
    """
    keep_freed()
    place = pick_device(device)
    if not isinstance(layer, str):  # by which the file is known
        raise UsageError(f"layer must be the name of a downsampling layer, such as 'tri-3', got {layer!r}")
    for name, value in {"epochs": epochs, "lr": lr, "minutes": 1 if minutes is None else minutes}.items():
        if not (isinstance(value, Real) and 0 < value < math.inf):
            raise UsageError(f"{name} must be a positive number, got {value!r}")
    batch_size, seed = check_whole("batch_size", batch_size, 1), check_whole("seed", seed, 0)
    if seed >= 2**43:  # generators take a million times as much, below 2**64
        raise UsageError(f"seed must be below 2**43, got {seed}")
    if held_out is not None and not isinstance(held_out, ImageSet):
        raise UsageError(f"held_out must be an aliasing.datasets.ImageSet, got {type(held_out).__name__}")
    out = None if out is None else Path(out)
    if out is not None and out.suffix != ".safetensors":
        raise UsageError(f"the file must end in .safetensors, by which aliasing diagnose knows it, got {str(out)!r}")
    _check_new(out)
    if isinstance(network, str):
        subject = networks.load(network, weights, size)
    else:
        subject = networks.of_module(type(network).__name__, network, size, weights)
    subject.module.float()  # half precision does not learn
    subject = networks.adapted(subject, place)
    original = subject.module.eval()
    with torch.random.fork_rng(devices=[]):  # layers that learn begin with random weights
        torch.manual_seed(seed)
        converted = antialias(original, layer, example=subject.size)
    data = gather(images, subject, held_out, progress)
    state = original.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise UsageError(f"{subject.name} cannot learn: {odd[0]} is no tensor; fine-tune first, then quantise")
    own = {f"network.{name}": value.cpu() for name, value in state.items()}
    contents = checksum(own | {"pictures": data.learn.cpu()})
    decides = float(epochs), float(lr), batch_size, seed, minutes and float(minutes), contents
    plan = Plan(subject.name, subject.weights, layer, len(data.learn), subject.size, *decides)
    folder = None if out is None else out.with_name(out.name + ".partial")
    bar = tqdm(total=100, disable=not progress, file=sys.stderr, bar_format=_BAR, dynamic_ncols=True)
    with (
        leased(folder) if folder else nullcontext(True) as mine,
        _enough_memory(plan),
        bar,
        torch.inference_mode(False),  # whatever mode the caller is in
        torch.enable_grad(),
    ):
        if not mine:
            raise UsageError(f"another process works in {folder}: let it finish, or name another file with --out")
        _check_new(out)  # one that worked there when this began may have finished
        students = {"the original": copied(original), "the converted network": copied(converted)}
        bar.set_description("answers of the original")
        if stopped := begun(folder, plan) if folder else None:
            lesson = Lesson(plan, data, original, stopped[0])
            lesson.steps = stopped[1]
        else:
            lesson = Lesson(plan, data, original, averaged(original, data, batch_size, bar))
            if minutes is not None:
                lesson.shorten(students.values(), 60 * minutes)
            if folder is not None:
                about = {"plan": asdict(plan), "steps": lesson.steps}
                write_tensors(folder / "answers.safetensors", {"answers": lesson.answers}, about=about)
        for number, (name, student) in enumerate(students.items()):
            bar.set_description(f"fine-tuning {name}")
            file = None if folder is None else folder / f"{name.replace(' ', '-')}.safetensors"
            lesson.teach(student, file, lambda share, n=number: bar.update(20 + 35 * (n + share) - bar.n))  # type: ignore[misc]
        control, tuned = students.values()
        bar.set_description("measuring")
        at_once = min(32, batch_size)
        expected = answers(original, data, batch_size=at_once)
        table = tabled([measure(n, data, expected, at_once) for n in (original, control, converted, tuned)])
        bar.update(100 - bar.n)
    given = tuned.network if isinstance(tuned, networks.Adapted) else tuned
    assert isinstance(given, nn.Module)
    if out is not None:
        _write(out, given, plan, table)
    return given, table


@contextmanager
def _enough_memory(plan: Plan) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):  # what a CPU says
            raise
        raise UsageError(
            f"too little memory for batches of {plan.batch_size} windows of {plan.size} pixels: "
            "name a smaller --batch-size or --size"
        ) from error


def _check_new(out: Path | None) -> None:
    if out is not None and out.exists():
        raise UsageError(f"{out} exists and is not overwritten; remove it, or name another file with --out")


def _write(out: Path, tuned: nn.Module, plan: Plan, table: pd.DataFrame) -> None:
    """The owner's tensors, with what they are in the header; the checkpoints go."""
    about = asdict(plan) | {"network": f"{plan.network}+{plan.layer}", "measured": plain(table)}
    _check_new(out)
    write_atomically(out, save(copies(tuned.state_dict()), {networks.NOTE: json.dumps(about)}))
    rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)
