"""Mending a trained network: anti-aliased, then fine-tuned without labels towards its own answers.

The converted network learns, on windows of the user's pictures, the answer that the original gives averaged over
several windows of the same picture. The original is fine-tuned in the same way beside it: without that control, what is
due to the layer and what to the fine-tuning cannot be told apart.
"""

import json
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import accumulate
from numbers import Real
from pathlib import Path
from shutil import rmtree
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from .datasets import ImageSet
from .diagnosis import networks, pictures
from .errors import DamagedError, DataError, UsageError, check_whole
from .files import checksum, leased, read_tensors, write_atomically, write_tensors
from .inference import as_float, check_images, device_of, finite, form_of, placed, probabilities
from .memory import keep_freed
from .metrics import Estimate, predict, shift_images
from .models import antialias
from .models.owners import Antialiased
from .models.watch import copied
from .optimizers import Optimizers
from .precision import is_fast
from .records import encode
from .training import load_weights, pick_device, write_weights

MOVES = "one pixel moves its probability by"
CHANGES, AGREES = "one pixel changes the answer", "agreement with the original"
COLUMNS = ("original", "original, fine-tuned", "converted", "converted, fine-tuned")
MEASURED = 500  # held-out pictures that are looked at
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
    minutes: float | None = None
    checksum: str = ""  # of the pictures to learn from and of the original


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
    if out is not None and out.exists():
        raise UsageError(f"{out} exists and is not overwritten; remove it, or name another file with --out")
    if isinstance(network, str):
        subject = networks.load(network, weights, size)
    else:
        subject = networks.of_module(type(network).__name__, network, size, weights)
    subject.module.float()  # half precision does not learn
    subject = networks.adapted(subject, place)
    original = subject.module.eval()
    converted = antialias(original, layer, example=subject.size)
    data = _data(images, subject, held_out, progress)
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
        students = {"the original": copied(original), "the converted network": copied(converted)}
        bar.set_description("answers of the original")
        if begun := _begun(folder, plan) if folder else None:
            lesson = Lesson(plan, data, original, begun[0])
            lesson.steps = begun[1]
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
        table = _table([measure(n, data, expected, at_once) for n in (original, control, converted, tuned)])
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


def _data(images: Any, subject: networks.Network, held_out: ImageSet | None, progress: bool = False) -> Data:
    labels, size = None, subject.size
    if isinstance(images, (str, Path)):
        paths = pictures.find(images)
        side = _canvas(images, paths, size)
        found = pictures.read(images, size, MEMORY // (3 * side**2), (side - size) // 2, progress, paths)
        for name, reason in found.skipped.items():
            warnings.warn(f"{name} is left out: {reason}", stacklevel=3)
        images, labels = found.images, _labels([Path(name).parts[0] for name in found.names], subject.classes)
    elif isinstance(images, ImageSet):
        images, labels = images.images, _indices(images, subject)
    images = _squares(images, size)
    if len(images) < pictures.LEAST:
        raise UsageError(f"fine-tuning needs at least {pictures.LEAST} pictures that can be read, got {len(images)}")
    # In no order: that of a folder may be by class, or alternate.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    if held_out is not None:
        return Data(images[order], _squares(held_out.images, size), _indices(held_out, subject), size)
    held, learn = order.tensor_split([len(order) // 3])
    same = [checksum({"": images[row].cpu()}) for row in order.tolist()]
    seen = set(same[len(held) :])
    new = torch.tensor([own not in seen for own in same[: len(held)]])
    if not new.all():
        text = f"{int((~new).sum())} of {len(new)} held-out pictures are left out, as others to learn from are the same"
        if not new.any():
            raise UsageError(f"{text}; give different pictures")
        warnings.warn(text, stacklevel=3)
    chosen = held[new][:MEASURED]
    return Data(images[learn], images[chosen], None if labels is None else labels[chosen], size)


def _squares(images: Any, size: int) -> Tensor:
    """The middle squares of colour pictures, in whose middle windows of ``size`` can stand, and move."""
    if not isinstance(images, Tensor) or images.shape[1:2] != (3,):
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(f"pictures must be a folder or a tensor (N, 3, H, W), bytes or floats in [0, 1], got {got}")
    images, side = check_images(images, unit=True), min(images.shape[2:])
    if side < size + 2:
        raise UsageError(f"pictures of {side} pixels leave no room for windows of {size}: name a smaller --size")
    side -= (side - size) % 2
    top, left = ((length - side) // 2 for length in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]


def _canvas(folder: str | Path, paths: list[Path], size: int) -> int:
    """The side that pictures are resized to: what crop shifts ask for, or less where the pictures are smaller."""
    usual = pictures.usual(paths)
    window = pictures.window(size, usual)
    if not usual:  # reading them will say why
        return size + 2
    if window != size:
        name = f"name --size {window} or smaller" if window else f"they need {pictures.SMALLEST + 2} at least"
        raise UsageError(
            f"pictures in {folder} have short sides of {usual} pixels, too small for windows of {size}: {name}"
        )
    return size + 2 * min(pictures.margin_of(size), (usual - size) // 2)


def _indices(given: ImageSet, subject: networks.Network) -> Tensor | None:
    """The labels of a set as indices of the network's logits, if its classes are those."""
    if subject.classes and given.classes != subject.classes:
        labels = _labels([given.classes[label] for label in given.labels.tolist()], subject.classes)
        if labels is not None or subject.classes != networks.BINARY:  # which are no names of its own
            return labels
    logits = predict(subject.module, torch.zeros(1, 3, subject.size, subject.size))
    return given.labels if len(given.classes) == logits.shape[1] else None


def _labels(names: list[str], classes: tuple[str, ...]) -> Tensor | None:
    """Labels from the names of classes, if all are that: ImageNet's ids of them, or names that no two classes have."""
    lower = [name.lower() for name in classes]
    counts = Counter(lower)
    index = {name: i for i, name in enumerate(lower) if counts[name] == 1}
    if len(classes) == 1000:
        with suppress(ImportError):
            index |= {wnid: i for i, wnid in enumerate(import_module("timm.data").ImageNetInfo().label_names())}
    own = [index.get(name.lower()) for name in names]
    return None if None in own else torch.tensor(own)


def windows(data: Data, rows: Tensor, shifts: Tensor, place: torch.device) -> Tensor:
    """Windows of some pictures to learn from, on ``place``, moved by ``shifts`` (2,) or (N, 2) from the middle."""
    moved = shift_images(data.learn[rows], shifts.expand(len(rows), 2), "crop", data.margins[0])
    return as_float(moved).float().to(place)


def _fast(place: torch.device) -> torch.autocast:
    """bfloat16 where the processor computes in it."""
    return torch.autocast(place.type, torch.bfloat16, enabled=is_fast(place))


@torch.no_grad()
def averaged(original: nn.Module, data: Data, batch_size: int, bar: Any = None) -> Tensor:
    """The original's probabilities (N, classes), averaged over windows half-way to the corners."""
    reach, place, found = (data.margins[0] + 1) // 2, device_of(original, data.learn), []
    for rows in torch.arange(len(data.learn)).split(batch_size):
        total = torch.zeros(())
        for corner in VIEWS:
            with _fast(place):
                logits = original(windows(data, rows, reach * torch.tensor(corner), place))
            total = total + finite(logits.float(), "answers of the original").softmax(1).cpu() / len(VIEWS)
        found.append(total)
        if bar is not None:
            bar.update(20 * (int(rows[-1]) + 1) / len(data.learn) - bar.n)
    return torch.cat(found)


class Lesson:
    """What networks learn from ``original``: its averaged ``answers``, on windows that depend on the step alone."""

    def __init__(self, plan: Plan, data: Data, original: nn.Module, answers: Tensor) -> None:
        self.plan, self.data, self.original, self.answers = plan, data, original, answers
        self.place = device_of(original, data.learn)
        self.steps = max(1, round(plan.epochs * math.ceil(len(data.learn) / plan.batch_size)))

    def teach(self, student: nn.Module, file: Path | None = None, say: Callable[[float], None] | None = None) -> None:
        """Train ``student`` in place, into evaluation mode; ``file`` keeps how far it is, and continues it.

        ``say`` hears the share of the steps that are done.
        """
        optimizer, done, saved = self._optimizer(student), 0, time.monotonic()
        if file is not None and file.exists():
            try:
                done = load_weights(file, student, optimizer)
            except DamagedError as error:
                raise DataError(f"{error}; remove it to fine-tune this network anew") from error
        else:
            some = torch.arange(min(64, 2 * self.plan.batch_size, len(self.data.learn)))  # in one batch
            _recalibrate(student, self.original, windows(self.data, some, torch.tensor([0, 0]), self.place))
        for step in range(done, self.steps):
            self._step(student, optimizer, step)
            if file is not None and (step + 1 == self.steps or time.monotonic() - saved > KEEP):
                write_weights(file, student, optimizer, step + 1)
                saved = time.monotonic()
            if say is not None:
                say((step + 1) / self.steps)
        student.eval()

    def shorten(self, students: Iterable[nn.Module], seconds: float) -> None:
        """Take no more steps than all of ``students`` can within ``seconds``; of each the faster of two counts."""
        took = 0.0
        for student in map(copied, students):
            optimizer, times = self._optimizer(student), []
            for step in range(2):
                started = time.perf_counter()
                self._step(student, optimizer, step)
                times.append(time.perf_counter() - started)
            took += min(times)
        self.steps = max(1, min(self.steps, int(seconds / took)))

    def _optimizer(self, student: nn.Module) -> Optimizers:
        for parameter in placed(student, self.place, form_of(self.original)).parameters():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        return Optimizers(student, "sgd", self.plan.lr, self.plan.lr, 0.9, 0.0)

    def _step(self, student: nn.Module, optimizer: Optimizers, step: int) -> None:
        plan, count, reach = self.plan, len(self.data.learn), self.data.margins[0]
        size = min(plan.batch_size, count)
        start = step * size
        seeds = (plan.seed * 100_003 + epoch for epoch in (start // count, start // count + 1))
        order = torch.cat([torch.randperm(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        rows = order[start % count :][:size]
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        shifts = torch.randint(-reach, reach + 1, (len(rows), 2), generator=generator)
        warm = min(1.0, (step + 1) / max(1, self.steps // 20))
        optimizer.set_rates(lambda peak: peak * warm * (0.5 + 0.5 * math.cos(math.pi * step / self.steps)))
        student.eval()  # batch norms keep their statistics
        with _fast(self.place):
            logits = student(windows(self.data, rows, shifts, self.place))
        loss = F.cross_entropy(logits.float(), self.answers[rows].to(self.place))
        if not loss.requires_grad:
            raise UsageError(f"{plan.network} cannot learn: its forward takes no gradient, as under torch.no_grad")
        student.zero_grad()
        loss.backward()
        if not math.isfinite(loss.item()):
            raise UsageError(f"the loss is {loss.item()} in step {step + 1}; name a smaller --lr than {plan.lr}")
        optimizer.step()


def _begun(folder: Path, plan: Plan) -> tuple[Tensor, int] | None:
    """The answers and the number of steps of a fine-tuning that was stopped."""
    file = folder / "answers.safetensors"
    if not file.exists() and not any(folder.glob("*.safetensors")):
        return None
    try:
        tensors, about = read_tensors(file, "about")
    except (DataError, FileNotFoundError) as error:  # without the answers nobody knows of which plan the others are
        raise DataError(f"{error}; remove {folder} to begin anew") from error
    told = {"checksum": "contents of pictures or weights"}
    if odd := [told.get(name, name) for name, value in asdict(plan).items() if about["plan"].get(name) != value]:
        raise UsageError(
            f"{folder} is of another fine-tuning, of other {', '.join(odd)}; remove it, or name another file with --out"
        )
    return tensors["answers"], about["steps"]


_STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def _recalibrate(converted: nn.Module, original: nn.Module, windows: Tensor) -> None:
    """Move the statistics of each batch norm by what the layers change in the map in front of it.

    Only the change is taken from the pictures: statistics of the user's pictures alone would forget those that the
    network was trained on.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        axes = (0, *range(2, x.ndim))
        return x.mean(axes), x.var(axes)

    def note(name: str, norm: Any, x: Tensor) -> None:
        if {norm.running_mean.shape, norm.running_var.shape} == {x.shape[1:2]}:  # those of other kinds are left
            seen.setdefault(name, statistics(x))  # a norm that is used twice moves by its first use

    def move(name: str, norm: Any, x: Tensor) -> None:
        if name in seen:
            (mean, variance), (own, spread) = seen.pop(name), statistics(x)
            norm.running_mean += own - mean
            norm.running_var *= torch.where(variance > 1e-12, spread / variance, 1.0)

    for network, act in ((original, note), (converted, move)):
        owners = [path for path, part in network.named_modules() if isinstance(part, Antialiased)]
        owned = {f"{path}.{Antialiased.around}".lstrip(".") for path in owners}
        with ExitStack() as hooks:
            for path, norm in network.named_modules():
                # Of any number of axes, frozen and synchronised ones as well.
                lends = isinstance(norm, Antialiased)  # the statistics of another, and may see the map before a layer
                if not lends and all(isinstance(getattr(norm, own, None), Tensor) for own in _STATISTICS):
                    # A norm with an activation in it may have an owner, which the original has not.
                    fronts = accumulate(path.split("."), "{}.{}".format)
                    name = ".".join(front.rpartition(".")[2] for front in fronts if front not in owned)

                    def hook(m: nn.Module, args: tuple, named: dict, act: Any = act, name: str = name) -> None:
                        act(name, m, next(iter((*args, *named.values()))))

                    hooks.enter_context(norm.register_forward_pre_hook(hook, with_kwargs=True))
            network.eval()(windows)


def answers(model: nn.Module, data: Data, shifts: Tensor | int = 0, batch_size: int = 32) -> Tensor:
    """Probabilities (N, classes) in a window of each held-out picture, moved by ``shifts`` from the middle."""
    moved = shifts if isinstance(shifts, Tensor) else torch.full((len(data.held), 2), shifts)
    return probabilities(model, shift_images(data.held, moved, "crop", data.margins[1]), batch_size)


def measure(model: nn.Module, data: Data, expected: Tensor, batch_size: int = 32) -> dict[str, Tensor]:
    """What is measured on each held-out picture (N,), hits as 0 or 1; ``expected`` are the original's answers."""
    reach, generator = data.margins[1], torch.Generator().manual_seed(0)
    drawn = torch.randint(-reach, reach + 1, (2, len(data.held), 2), generator=generator)
    plain, beside, first, second = (answers(model, data, shifts, batch_size) for shifts in (0, 1, *drawn))
    top = plain.argmax(1, keepdim=True)
    found = {
        AGREES: top[:, 0] == expected.argmax(1),
        CHANGES: beside.argmax(1) != top[:, 0],
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
        minus = Estimate.difference if name == MOVES else Estimate.paired
        rows[name] = [Estimate.mean(v) if name == MOVES else Estimate.share(v > 0) for v in values]
        rows[f"{name}, minus original"] = [None, *(minus(v, values[0]) for v in values[1:])]
        rows[f"{name}, minus control"] = [None, None, None, minus(values[3], values[1])]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))


def conclusion(table: pd.DataFrame) -> str:
    """Whether it helped: the converted network beside the control, both fine-tuned, in a sentence."""

    def told(name: str) -> tuple[str, str]:
        value, low, high, count = table.loc[f"{name}, minus control", COLUMNS[-1]]
        points = f"{100 * value:+z.1f} points, {100 * low:+z.1f} to {100 * high:+z.1f}"
        direction = "more" if value > 0 else "fewer" if value < 0 else "as many"
        if low <= 0 <= high:
            return f"perhaps {direction}", f"{points}: {count} pictures cannot tell"
        return direction, points

    (changed, by), (kept, than) = told(CHANGES), told(AGREES)
    return (
        f"Beside the same fine-tuning without the layer, one pixel changes {changed} of its answers ({by}), and "
        f"{kept} of them are the original's ({than})."
    )


def plain(table: pd.DataFrame) -> dict[str, Any]:
    """A table of estimates as plain values for JSON, row by row."""
    return encode(table.to_dict("index"))


def _write(out: Path, tuned: nn.Module, plan: Plan, table: pd.DataFrame) -> None:
    """The owner's tensors, with what they are in the header; the checkpoints go."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tuned.state_dict().items()}
    about = asdict(plan) | {"network": f"{plan.network}+{plan.layer}", "measured": plain(table)}
    write_atomically(out, save(tensors, {networks.NOTE: json.dumps(about)}))
    rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)
