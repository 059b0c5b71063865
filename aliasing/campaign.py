"""One command for a machine that is there for minutes: check it, time it, then run what is worth most.

Everything it finds lies in one folder: ``device.json`` with the checks, the benchmarks each as ``aliasing bench --out``
writes it, ``log.txt``, and ``records.jsonl``, which ``aliasing publish`` merges. Called again with the same folder it
continues.
"""

import json
import math
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from . import datasets, layers
from .clone import benchmarks
from .datasets import ImageSet
from .errors import DataError, StorageError, UsageError
from .files import write_atomically
from .inference import full_float32, placed
from .measurements import Measurement, Subject, loaded
from .records import Run, Store, code_version, encode, provenance, publish
from .runner import Job, build, complete, end_with_parent, execute, is_leased, merged, threads
from .studies import STUDIES, campaign, worth
from .studies.bases import DECISIVE
from .training import Recipe, pick_device, train

CHECKS, SPEED, RESERVE = 75.0, 60.0, 15.0  # seconds at most, and those kept for writing
PROBE = 1.0  # seconds of training for an estimate
NO_TIME = "no time left"
CPU = torch.device("cpu")


def run(device: str, profile: str, budget: float, out: Path) -> dict[str, Any]:
    """Spend ``budget`` seconds on ``device``; returns how many checks passed and what became of the runs.

    Raises:
        UsageError: an unknown profile or device, or a budget that is not positive.
        DataError: ``out`` cannot be written, or holds damaged records.
    """
    if not budget > 0:
        raise UsageError(f"a budget is a number of seconds above 0, got {budget}")
    started, chosen, jobs = time.monotonic(), pick_device(device), campaign(profile)

    def log(text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {time.monotonic() - started:6.1f} s  {text}"
        print(line, flush=True)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with (out / "log.txt").open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise StorageError.of(out / "log.txt", error) from error

    def left() -> float:
        return budget - (time.monotonic() - started)

    log(f"{profile} on {provenance(chosen, 0)['device']}: {len(jobs)} runs planned, {budget:g} s")
    sets = {repr(job.run.dataset): job.run.dataset for job in jobs if "archives" in job.run.dataset}
    if sets:  # decoded before all workers at once would do it
        multiprocessing.get_context("spawn").Process(target=_decode, args=([*sets.values()],), daemon=True).start()
    notes = _Notes(out / "device.json", chosen)
    found = checks(chosen, jobs, min(CHECKS, left() / 4), notes)
    failed = {what for what, outcome in found.items() if outcome not in ("passed", NO_TIME)}
    passed = sum(outcome == "passed" for outcome in found.values())
    log(f"{passed} of {len(found)} checks passed; failed: {', '.join(sorted(failed)) or 'none'}")
    lasting = min(SPEED, left() / 4)
    if lasting > 2 * notes.found.get("speed", {}).get("seconds", math.inf):  # an earlier call was in a hurry
        del notes.found["speed"]
    timed = notes.once("speed", lambda: {"seconds": lasting, "reports": _speed(chosen, lasting)})
    for name, report in timed["reports"].items():
        write_atomically(out / f"{name}.json", json.dumps({name: report}, indent=1) + "\n")
        ratios = [row["ratio"] for row in report.get("rows", [])]
        told = f"{len(ratios)} cases, peers take {median(ratios):.2f} times as long (median)" if ratios else ""
        log(f"speed of {name}: {told or report['failed']}; left out: {report.get('skipped') or 'nothing'}")
    usable = [job for job in (_without(job, failed) for job in jobs) if job is not None]
    store = Store(out / "runs", out)
    known = Store()  # what is published already need not be done again
    todo = [job for job in usable if not complete(job, known.load(job.run))]
    log(f"{len(usable)} runs need nothing that failed, {len(todo)} of them are not published yet")
    outcomes: dict[str, str] = {}
    if todo and "training" not in failed:
        counts = () if chosen.type == "cpu" else (1, 2, 4)  # on a CPU every core has its own training
        rates, reason = notes.once("steps per second", lambda: parallel(todo[0].run, chosen, 2.0, counts))
        # The most of those that are nearly as fast as any: half of a run is measuring, part of that on a CPU core,
        # and meanwhile the device should have the training of another.
        workers = max((int(count) for count, rate in rates.items() if rate > 0.9 * max(rates.values())), default=None)
        together = str(workers or ("as many trainings as cores" if chosen.type == "cpu" else "one training"))
        log(f"{together} at once; measured steps per second: {rates or 'none'}{reason and f'; then {reason}'}")
        limit = max(0.0, left() - RESERVE * min(1.0, budget / 120)) / 60
        with _published_meanwhile(todo, store, out / "records.jsonl"):
            outcomes = execute(todo, store, str(chosen), workers, False, limit, cut=True)
    done = sum(outcome == "done" for outcome in outcomes.values())
    log(f"{done} of {len(todo)} runs done")
    broken = {name: outcome for name, outcome in outcomes.items() if outcome.startswith("failed")}
    for name, outcome in broken.items():
        log(f"{name} {outcome}")
    became = {"planned": len(todo), "done": done, "broken": len(broken)}
    return {"checks": len(found), "failed": sorted(failed)} | became


def order(profile: str, store: Store, only: str | None = None) -> list[dict[str, Any]]:
    """The runs of ``profile`` in order of value: their state, the seconds each takes, the open verdicts they share.

    Those that no campaign carries out, of networks that others have trained, come last; ``only`` keeps one study's,
    which are done if they have what that one asks for. ``verdicts`` counts the claims that are not decided yet and need
    the run. Seconds are what it took, the median of recorded runs of such a network, or an ``estimate`` for a core of
    this machine: see ``durations``.
    """
    needed, planned, every = worth(profile, store), campaign(profile), list[Job]()
    owners: dict[str, list[str]] = {}
    for name, study in STUDIES.items():
        for job in study.jobs(profile):
            owners.setdefault(job.run.id, []).append(name)
            every.append(job)
    known = {job.run.id for job in planned}
    planned = [*planned, *(job for job in merged(every) if job.run.id not in known)]
    own = {job.run.id: job for job in (planned if only is None else merged(STUDIES[only].jobs(profile)))}
    jobs = [own[job.run.id] for job in planned if job.run.id in own]
    seconds, rows = durations(jobs, store), []
    for job in jobs:
        done, (taken, estimated) = complete(job, store.load(job.run)), seconds[job.run.id]
        rows.append(
            {
                "run": job.run.id,
                "seed": job.run.seed,
                "network": _kind(job),
                "layer": job.run.network.get("downsample", {"name": "its own"})["name"],
                "studies": ", ".join(owners[job.run.id]),
                "state": "done" if done else "running" if is_leased(store, job.run) else "to do",
                "verdicts": needed[job.run.id],
                "seconds": None if taken is None else round(taken),
                "estimate": "estimate" if estimated and taken is not None else "",
            }
        )
    return rows


def _kind(job: Job) -> str:
    run = job.run
    words = [run.network["name"], run.network.get("width"), "attacked" if run.recipe.adversary else ""]
    words += ["fine-tuned"] if run.network.get("tuned") else []
    return " ".join(str(word) for word in words if word)


def _alike(job: Job) -> tuple[str, ...]:
    """The same for runs that take about as long; where nothing is trained, measuring is what takes the time."""
    return _kind(job), *(() if job.run.recipe.epochs else sorted(wanted.name for wanted in job.measurements))


def durations(jobs: list[Job], store: Store) -> dict[str, tuple[float | None, bool]]:
    """Seconds that each of ``jobs`` takes one after the other, by id, and whether that is only an estimate.

    Of a finished run they are its own, else the median of those that are alike. It is an estimate for networks of which
    ``store`` has no finished run: from the training of one that is not finished, else from a second of training on the
    CPU; and from the share of measuring in the small runs. Nothing is said where the training images are not there.
    """
    found: dict[str, tuple[float | None, bool]] = {}
    recorded: dict[tuple[str, ...], list[float]] = {}
    rates: dict[tuple[str, ...], float] = {}  # images per second
    for job in jobs:
        record, kind = store.load(job.run), _alike(job)
        seconds = {key: origin["seconds"] for key, origin in record.provenance.items()}
        if complete(job, record):
            found[job.run.id] = (sum(seconds.values()), False)
            recorded.setdefault(kind, []).append(sum(seconds.values()))
        elif seconds.get("training"):
            images = job.run.recipe.epochs * record.measurements["training"]["images"]
            rates.setdefault(kind, images / seconds["training"])
    for job in jobs:
        kind, recipe = _alike(job), job.run.recipe
        if job.run.id in found:
            continue
        if kind in recorded:
            found[job.run.id] = (median(recorded[kind]), False)
            continue
        found[job.run.id] = (None, True)
        if not recipe.epochs:  # nothing is trained, and only a record tells
            continue
        with suppress(DataError):
            images = recipe.epochs * len(loaded(job.run.dataset, "train"))
            if kind not in rates:
                rates[kind] = recipe.batch_size * _steps(job.run, CPU, PROBE)
            found[job.run.id] = (images / rates[kind], True)
    if rates:
        small = [store.load(job.run).provenance for job in campaign("laptop")]
        shares = [sum(o["seconds"] for o in each.values()) / each["training"]["seconds"] for each in small if each]
        share = median(shares or [1.0])
        found = {run: (share * taken if guess and taken else taken, guess) for run, (taken, guess) in found.items()}
    return found


def _steps(run: Run, device: torch.device, seconds: float) -> float:
    """Steps per second of the training of ``run`` on noise, the first one not counted."""
    steps = 1 if device.type == "cpu" else 10  # an epoch, after which a GPU is waited for
    count, classes = steps * run.recipe.batch_size, run.network["num_classes"]
    height, width = loaded(run.dataset, "train")[:1].images.shape[2:]
    draw = partial(torch.randint, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels, masks = torch.arange(count) % classes, draw(classes, (count, height, width))
    data, began = ImageSet(draw(256, (count, 3, height, width)), labels, (), "noise", masks), []

    def on_epoch(entry: dict) -> None:
        began.append(time.perf_counter())
        if began[-1] - began[0] >= seconds and len(began) > 1:
            raise InterruptedError

    # Attacked from the first step: none of so many epochs would otherwise ever wake the adversary.
    recipe = replace(run.recipe, epochs=10**9, probe=0, adversary_wake=0.0)
    with threads(1), suppress(InterruptedError):
        train(build(run), data, recipe, run.seed, device, on_epoch=on_epoch)
    return steps * (len(began) - 1) / (began[-1] - began[0])


def parallel(run: Run, device: torch.device, seconds: float, counts: Sequence[int]) -> tuple[dict[int, float], str]:
    """Steps per second of so many processes together that train ``run``: small maps do not fill a large GPU.

    The first count that fails, such as one that does not fit into the memory, and those behind it are absent; why, is
    the second value.
    """
    context, rates = multiprocessing.get_context("spawn"), dict[int, float]()
    pool = ProcessPoolExecutor(max(counts, default=1), context, end_with_parent)

    def together(count: int, lasting: float) -> float:
        return sum(pool.map(_steps, [run] * count, [device] * count, [lasting] * count))

    try:
        with pool:
            with suppress(torch.OutOfMemoryError):
                together(max(counts, default=0), 0.0)  # all have started and are warm before any is timed
            for count in counts:
                rates[count] = together(count, seconds)
    except Exception as error:  # whatever it is, it must not end the campaign
        return rates, f"{type(error).__name__}: {error}"
    return rates, ""


class _Notes:
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


@contextmanager
def _published_meanwhile(jobs: list[Job], store: Store, path: Path) -> Iterator[None]:
    """Keep in ``path`` what the store has of ``jobs``, so that a command that is killed leaves its records there."""
    over = threading.Event()

    def keep() -> None:
        publish([record for record in (store.load(job.run) for job in jobs) if record.measurements], path)

    def meanwhile() -> None:
        with suppress(DataError):  # which is said at the end, when it is tried again
            while not over.wait(10):
                keep()

    keep()  # also to see that it can be done
    thread = threading.Thread(target=meanwhile)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        keep()


def _speed(device: torch.device, seconds: float) -> dict[str, dict[str, Any]]:
    try:
        return benchmarks().speed(str(device), seconds)
    except Exception as error:  # there are none, or a package is missing that they need
        return {"benchmarks": {"failed": str(error)}}


def _decode(sets: list[dict[str, Any]]) -> None:
    """Have the decoded copies of data sets on the disk; one that is not there fails where it is needed."""
    end_with_parent()
    for dataset, split in product(sets, ("train", "test")):
        with suppress(Exception):
            loaded(dataset, split)


def _without(job: Job, failed: set[str]) -> Job | None:
    """``job`` without the measurements that failed their check, ``None`` if its layer failed."""
    if f"layer {job.run.network['downsample']['name']}" in failed:
        return None
    return replace(job, measurements=tuple(m for m in job.measurements if f"measurement {m.name}" not in failed))


def checks(device: torch.device, jobs: list[Job], seconds: float, notes: _Notes) -> dict[str, str]:
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
