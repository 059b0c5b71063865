"""What a network learns in a fine-tuning: another network's own answers, averaged over windows of each picture."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DamagedError, DataError, UsageError
from ..files import read_tensors
from ..inference import device_of, finite, form_of, placed
from ..models.owners import Antialiased
from ..models.watch import copied
from ..optimizers import Optimizers
from ..precision import is_fast
from ..training import load_weights, write_weights
from .data import Data, windows

VIEWS = ((-1, -1), (-1, 1), (1, -1), (1, 1))  # windows that the original's answer is averaged over, half-way there
LR = 3e-4  # of the momentum .9 below; of 3e-4, 1e-3 and 3e-3 the one that kept most answers, on pictures not reported
KEEP = 60  # seconds between two checkpoints


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
            recalibrate(student, self.original, windows(self.data, some, torch.tensor([0, 0]), self.place))
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


def begun(folder: Path, plan: Plan) -> tuple[Tensor, int] | None:
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
def recalibrate(converted: nn.Module, original: nn.Module, windows: Tensor) -> None:
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
            network.eval()(windows.clone())  # of its own: some standardise their input in place
