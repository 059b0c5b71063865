"""Mending a trained network: anti-aliased, then fine-tuned without labels towards its own answers.

The converted network learns, on windows of the user's pictures, the answer that the original gives averaged over
several windows of the same picture. The original is fine-tuned in the same way beside it: without that control, what is
due to the layer and what to the fine-tuning cannot be told apart.
"""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from .datasets import ImageSet
from .diagnosis import networks, pictures
from .errors import DataError, UsageError
from .files import read_tensors, write_atomically, write_tensors
from .inference import as_float, device_of, finite
from .metrics import Estimate, predict, shift_images
from .models import antialias
from .optimizers import Optimizers
from .training import pick_device

__all__ = ["COLUMNS", "finetune"]

MOVES = "one pixel moves its probability by"
COLUMNS = ("original", "original, fine-tuned", "converted", "converted, fine-tuned")
LEAST, MEASURED = 50, 500  # pictures: without which there is nothing to learn from; held out ones that are looked at
VIEWS = ((-1, -1), (-1, 1), (1, -1), (1, 1))  # windows that the original's answer is averaged over, half-way there
LR = 3e-4  # of the momentum .9 below; of 3e-4, 1e-3 and 3e-3 the one that kept most answers, on pictures not reported
KEEP = 60  # seconds between two checkpoints
MEMORY = 2**32  # bytes of decoded pictures; of more pictures a fixed random choice is taken


@dataclass(frozen=True)
class Plan:
    """What decides the result; a checkpoint of another plan is not continued."""

    network: str
    weights: str
    layer: str
    pictures: int
    size: int
    epochs: float
    lr: float
    batch_size: int
    seed: int


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
    0.9 and one-cycle-like cosine decay; soft cross-entropy with the averaged answers, which are computed once.

    Args:
        network: a name as for ``aliasing.diagnosis.load``, or a module that takes images in [0, 1]; it is not changed.
        layer: name of a downsampling layer.
        images: a folder of pictures, or pictures larger than the window (N, 3, H, W). Every third is held out.
        out: safetensors file for the result, which must not exist. A stopped call that is repeated continues from
            ``out`` with ``.partial`` behind it.
        epochs: passes over the pictures that are not held out.
        minutes: at most so long for the training of both networks; the schedule is shortened, not cut.
        size: side of the windows in pixels; by default the network's own input, 224 for modules.
        held_out: measure on these pictures instead of every third; with labels, as indices of the logits.
        lr: the largest learning rate.
        batch_size: windows per step.
        weights: where those of a named network come from; see ``aliasing.diagnosis.load``.
        device: auto, cpu, cuda, cuda:N or mps; bfloat16 is used where it is fast.
        seed: decides order and windows.
        progress: draw a progress bar on standard error.

    Returns:
        The converted, fine-tuned network, and a table of ``Estimate``: a column of ``COLUMNS`` each, a row per measure,
        below it the difference from the original and, in the last column, from the control, paired by picture.

    Raises:
        UsageError: a network that does not fit, pictures that are too small, fewer than 50, or a file that exists.
        DataError: weights or pictures that cannot be read.
    """
    place = pick_device(device)
    for name, value in {"epochs": epochs, "lr": lr, "batch_size": batch_size, "minutes": minutes}.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{name} must be a positive number, got {value}")
    out = None if out is None else Path(out)
    if out is not None and out.suffix != ".safetensors":
        raise UsageError(f"the file must end in .safetensors, by which aliasing diagnose knows it, got {str(out)!r}")
    if out is not None and out.exists():
        raise UsageError(f"{out} exists and is not overwritten; remove it, or name another file with --out")
    if isinstance(network, str):
        subject = networks.load(network, weights, size)
    else:
        subject = networks.of_module(type(network).__name__, deepcopy(network), size)
    subject.module.float()  # half precision does not learn
    subject = networks.adapted(subject, place)
    original = subject.module.eval()
    converted = antialias(original, layer)
    data = _data(images, subject.size, held_out, subject.classes)
    plan = Plan(subject.name, subject.weights, layer, len(data.learn), subject.size, epochs, lr, batch_size, seed)
    students = {"the original": deepcopy(original), "the converted network": deepcopy(converted)}
    job = Job(plan, data, original, students, None if out is None else out.with_name(out.name + ".partial"))
    with tqdm(total=100, disable=not progress, file=sys.stderr, bar_format=_BAR, dynamic_ncols=True) as bar:
        control, tuned = job.run(minutes, bar)
        bar.set_description("measuring")
        expected = answers(original, data)
        table = _table([measure(n, data, expected) for n in (original, control, converted, tuned)])
        bar.update(100 - bar.n)
    if out is not None:
        _write(out, tuned, plan, table)
    return tuned, table


_BAR = "{desc}{n:3.0f} % |{bar}| {elapsed}"


@dataclass(frozen=True)
class Data:
    """Pictures to learn from and held-out ones, bytes (N, 3, H, W) larger than the window; labels may be unknown."""

    learn: Tensor
    held: Tensor
    labels: Tensor | None
    size: int

    @property
    def margins(self) -> tuple[int, int]:
        """How far windows of the pictures to learn from, and of those held out, can move from the middle."""
        learn, held = ((images.shape[-1] - self.size) // 2 for images in (self.learn, self.held))
        return learn, held


def _data(images: Any, size: int, held_out: ImageSet | None, classes: tuple[str, ...]) -> Data:
    labels = None
    if isinstance(images, (str, Path)):
        side = _canvas(images, size)
        found = pictures.read(images, size, MEMORY // (3 * side**2), margin=(side - size) // 2)
        order = sorted(range(len(found.names)), key=found.names.__getitem__)
        images, labels = found.images[order], _labels([found.names[i] for i in order], classes)
    elif isinstance(images, ImageSet):
        images, labels = images.images, images.labels
    if len(images) < LEAST:
        raise UsageError(f"fine-tuning needs at least {LEAST} pictures that can be read, got {len(images)}")
    if images.shape[-1] < size + 2:
        side = images.shape[-1]
        raise UsageError(f"pictures of {side} pixels leave no room for windows of {size}: name a smaller --size")
    if held_out is not None:
        return Data(images, held_out.images, held_out.labels, size)
    every = torch.arange(len(images)) % 3 == 2
    chosen = every.nonzero()[:, 0]
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))[:MEASURED]]
    return Data(images[~every], images[chosen], None if labels is None else labels[chosen], size)


def _canvas(folder: str | Path, size: int) -> int:
    """The side that pictures are resized to: what crop shifts ask for, or less where the pictures are smaller."""
    sides = sorted(pictures.sides(folder))
    if not sides:  # reading them will say why
        return size + 2
    usual = sides[len(sides) // 20]
    side = size + 2 * min(pictures.margin_of(size), (usual - size) // 2)
    if usual < size + 2:
        raise UsageError(
            f"the pictures in {folder} have short sides from {usual} pixels on, too small for windows of {size}: "
            f"name --size {max(8, usual * 9 // 10)} or smaller"
        )
    return side


def _labels(names: list[str], classes: tuple[str, ...]) -> Tensor | None:
    """Labels from the first folder of each name, if all are classes: by name, or by ImageNet's ids of them."""
    index = {name.lower(): i for i, name in enumerate(classes)}
    if len(classes) == 1000:
        with suppress(ImportError):
            index |= {wnid: i for i, wnid in enumerate(import_module("timm.data").ImageNetInfo().label_names())}
    own = [index.get(Path(name).parts[0].lower()) for name in names]
    return None if None in own else torch.tensor(own)


class Job:
    """Fine-tuning of several ``students`` towards one original, each on the same windows in the same order."""

    def __init__(
        self, plan: Plan, data: Data, original: nn.Module, students: dict[str, nn.Module], file: Path | None = None
    ) -> None:
        self.plan, self.data, self.file = plan, data, file
        self.original = original.eval().requires_grad_(False)
        self.place = device_of(original, data.learn)
        self.students = {
            name: student.to(self.place).to(memory_format=torch.channels_last).requires_grad_(True)  # type: ignore[call-overload]
            for name, student in students.items()
        }
        self.optimizers = {name: self._optimizer(name) for name in students}
        self.answers: Tensor | None = None
        self.done = dict.fromkeys(self.students, 0)
        self.steps = 0
        self.saved = time.monotonic()

    def run(self, minutes: float | None = None, bar: Any = None) -> list[nn.Module]:
        """Train what is missing; the students in evaluation mode."""
        bar = tqdm(total=100, disable=True) if bar is None else bar
        if not self._resume():
            some = torch.arange(min(64, len(self.data.learn)))
            for student in self.students.values():
                _recalibrate(student, self.original, self._windows(some, torch.tensor([0, 0])))
        if self.answers is None:
            bar.set_description("answers of the original")
            self.answers = self.averaged(bar)
            self._keep(force=True)
        if not self.steps:
            per_epoch = math.ceil(len(self.data.learn) / self.plan.batch_size)
            self.steps = max(1, round(self.plan.epochs * per_epoch))
            if minutes is not None:
                self.steps = max(1, min(self.steps, int(60 * minutes / len(self.students) / self._seconds())))
        for number, name in enumerate(self.students):
            bar.set_description(f"fine-tuning {name}")
            for step in range(self.done[name], self.steps):
                self._step(name, step)
                self.done[name] = step + 1
                self._keep()
                bar.update(20 + 70 * (number + (step + 1) / self.steps) / len(self.students) - bar.n)
            self._keep(force=True)
        return [student.eval() for student in self.students.values()]

    def _optimizer(self, name: str) -> Optimizers:
        return Optimizers(self.students[name], "sgd", self.plan.lr, self.plan.lr, 0.9, 0.0)

    def _windows(self, rows: Tensor, shifts: Tensor) -> Tensor:
        """Windows of some pictures, moved by ``shifts`` (2,) or (N, 2) from the middle."""
        shifts = shifts.expand(len(rows), 2)
        windows = as_float(shift_images(self.data.learn[rows], shifts, "crop", self.data.margins[0])).to(self.place)
        return windows.contiguous(memory_format=torch.channels_last)

    def _fast(self) -> torch.autocast:
        """bfloat16 where the processor computes in it."""
        if self.place.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported())
        able: dict = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.autocast("cpu", torch.bfloat16, enabled=bool(able.get("amx_bf16") or able.get("avx512_bf16")))

    @torch.no_grad()
    def averaged(self, bar: Any = None) -> Tensor:
        """The original's probabilities (N, classes), averaged over windows half-way to the corners."""
        reach, found = (self.data.margins[0] + 1) // 2, []
        for rows in torch.arange(len(self.data.learn)).split(self.plan.batch_size):
            total = torch.zeros(())
            for corner in VIEWS:
                windows = self._windows(rows, reach * torch.tensor(corner))
                with self._fast():
                    logits = self.original(windows)
                total = total + finite(logits.float(), "answers of the original").softmax(1).cpu() / len(VIEWS)
            found.append(total)
            if bar is not None:
                bar.update(20 * (int(rows[-1]) + 1) / len(self.data.learn) - bar.n)
        return torch.cat(found)

    def _step(self, name: str, step: int) -> None:
        """One batch; order and windows depend on the step alone, so both networks see the same."""
        student, optimizer, count = self.students[name], self.optimizers[name], len(self.data.learn)
        start = step * self.plan.batch_size
        seeds = (self.plan.seed * 100_003 + epoch for epoch in (start // count, start // count + 1))
        order = torch.cat([torch.randperm(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        rows = order[start % count :][: self.plan.batch_size]
        generator, reach = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + step), self.data.margins[0]
        windows = self._windows(rows, torch.randint(-reach, reach + 1, (len(rows), 2), generator=generator))
        warm = min(1.0, (step + 1) / max(1, self.steps // 20))
        optimizer.set_rates(lambda peak: peak * warm * (0.5 + 0.5 * math.cos(math.pi * step / self.steps)))
        student.eval()  # batch norms keep their statistics
        with self._fast():
            logits = student(windows)
        assert self.answers is not None
        loss = F.cross_entropy(logits.float(), self.answers[rows].to(self.place))
        optimizer.zero_grad()
        loss.backward()
        if not math.isfinite(loss.item()):
            raise UsageError(f"the loss is {loss.item()} in step {step + 1}; try a smaller lr than {self.plan.lr}")
        optimizer.step()

    def _seconds(self) -> float:
        """Of one step, the faster of two; what the student learned is forgotten."""
        name = next(iter(self.students))
        before, times = deepcopy(self.students[name].state_dict()), []
        for step in range(2):
            started = time.perf_counter()
            self._step(name, step)
            times.append(time.perf_counter() - started)
        self.students[name].load_state_dict(before)
        self.optimizers[name] = self._optimizer(name)
        return min(times)

    def _keep(self, force: bool = False) -> None:
        if self.file is not None and (force or time.monotonic() - self.saved > KEEP):
            tensors = {} if self.answers is None else {"answers": self.answers}
            for name, student in self.students.items():
                tensors |= {f"{name}.network.{key}": value for key, value in student.state_dict().items()}
                tensors |= {f"{name}.{key}": value for key, value in self.optimizers[name].state().items()}
            tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            write_tensors(self.file, tensors, about={"plan": asdict(self.plan), "done": self.done, "steps": self.steps})
            self.saved = time.monotonic()

    def _resume(self) -> bool:
        if self.file is None or not self.file.exists():
            return False
        try:
            tensors, about = read_tensors(self.file, "about")
        except DataError as error:
            raise DataError(f"{error}; remove it to begin anew") from error
        if about["plan"] != asdict(self.plan):
            raise UsageError(f"{self.file} is of another fine-tuning; remove it, or name another file with --out")
        self.answers, self.done, self.steps = tensors["answers"], about["done"], about["steps"]
        for name, student in self.students.items():
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            student.load_state_dict({key: own.pop(f"network.{key}") for key in student.state_dict()})
            try:
                self.optimizers[name].load(own)
            except ValueError as error:
                raise DataError(f"{self.file} is of another version ({error}); remove it to begin anew") from None
        return True


@torch.no_grad()
def _recalibrate(converted: nn.Module, original: nn.Module, windows: Tensor) -> None:
    """Move the statistics of each batch norm by what the layers change in the map in front of it.

    Only the change is taken from the pictures: statistics of the user's pictures alone would forget those that the
    network was trained on.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, norm: nn.BatchNorm2d, x: Tensor) -> None:
        seen[name] = x.mean((0, 2, 3)), x.var((0, 2, 3))

    def move(name: str, norm: nn.BatchNorm2d, x: Tensor) -> None:
        if name in seen and norm.running_mean is not None and norm.running_var is not None:
            mean, variance = seen.pop(name)  # a norm that is used twice moves once
            norm.running_mean += x.mean((0, 2, 3)) - mean
            norm.running_var *= torch.where(variance > 1e-12, x.var((0, 2, 3)) / variance, 1.0)

    for network, act in ((original, note), (converted, move)):
        handles = [
            norm.register_forward_pre_hook(lambda m, inputs, name=name, act=act: act(name, m, inputs[0]))
            for name, norm in network.named_modules()
            if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
        ]
        try:
            network.eval()(windows)
        finally:
            for handle in handles:
                handle.remove()


def answers(model: nn.Module, data: Data, shifts: Tensor | int = 0) -> Tensor:
    """Probabilities (N, classes) in a window of each held-out picture, moved by ``shifts`` from the middle."""
    moved = shifts if isinstance(shifts, Tensor) else torch.full((len(data.held), 2), shifts)
    return predict(model, shift_images(data.held, moved, "crop", data.margins[1]), 32).softmax(1).cpu()


def measure(model: nn.Module, data: Data, expected: Tensor) -> dict[str, Tensor]:
    """What is measured on each held-out picture (N,), hits as 0 or 1; ``expected`` are the original's answers."""
    reach, generator = data.margins[1], torch.Generator().manual_seed(0)
    drawn = torch.randint(-reach, reach + 1, (2, len(data.held), 2), generator=generator)
    plain, beside, first, second = (answers(model, data, shifts) for shifts in (0, 1, *drawn))
    top = plain.argmax(1, keepdim=True)
    found = {
        "agreement with the original": top[:, 0] == expected.argmax(1),
        "one pixel changes the answer": beside.argmax(1) != top[:, 0],
        MOVES: (plain - beside).gather(1, top)[:, 0].abs(),
        "consistency, crop shifts": first.argmax(1) == second.argmax(1),
    }
    if data.labels is not None:
        found["accuracy"] = top[:, 0] == data.labels
    return {name: values.double() for name, values in found.items()}


def _table(measured: list[dict[str, Tensor]]) -> pd.DataFrame:
    """Every measure of the four networks, and the paired differences."""
    rows: dict[str, list[Estimate | None]] = {}
    for name in measured[0]:
        values = [own[name] for own in measured]
        rows[name] = [Estimate.mean(v) if name == MOVES else Estimate.share(v > 0) for v in values]
        rows[f"{name}, minus original"] = [None, *(Estimate.difference(v, values[0]) for v in values[1:])]
        rows[f"{name}, minus control"] = [None, None, None, Estimate.difference(values[3], values[1])]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))


def _write(out: Path, tuned: nn.Module, plan: Plan, table: pd.DataFrame) -> None:
    """The owner's tensors, with what they are in the header; the checkpoint goes."""
    inner = tuned.network if isinstance(tuned, networks.Adapted) else tuned
    assert isinstance(inner, nn.Module)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in inner.state_dict().items()}
    about = asdict(plan) | {"network": f"{plan.network}+{plan.layer}", "measured": plain(table)}
    write_atomically(out, save(tensors, {networks.NOTE: json.dumps(about)}))
    out.with_name(out.name + ".partial").unlink(missing_ok=True)


def plain(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The table as plain values: measure to column to value, ends of the interval and number of pictures."""
    return {
        str(row): {name: None if cell is None else cell._asdict() for name, cell in cells.items()}
        for row, cells in table.to_dict(orient="index").items()
    }
