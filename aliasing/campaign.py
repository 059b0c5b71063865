"""One command for a machine that is there for minutes: check it, time it, then run what is worth most.

Everything it finds lies in one folder: ``checks.json``, ``speed.json``, ``log.txt``, and ``records.jsonl``, which
``aliasing publish`` merges. Called again with the same folder it continues.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from . import datasets, layers, models
from .errors import UsageError
from .files import write_atomically
from .measurements import Measurement, Subject
from .records import Store, encode, provenance, publish
from .runner import Job, build, complete, execute, is_leased
from .studies import STUDIES, campaign, worth
from .training import Recipe, pick_device, train

__all__ = ["checks", "order", "run", "speed"]

CHECKS, SPEED, RESERVE = 75.0, 60.0, 15.0  # seconds at most, and those kept for writing
NO_TIME = "no time left"
CPU = torch.device("cpu")


def run(device: str, profile: str, budget: float, out: Path) -> dict[str, Any]:
    """Spend ``budget`` seconds on ``device``; returns how many checks passed and what became of the runs.

    Raises:
        UsageError: an unknown profile or device, or a budget that is not positive.
    """
    if not budget > 0:
        raise UsageError(f"a budget is a number of seconds above 0, got {budget}")
    started, chosen, jobs = time.monotonic(), pick_device(device), campaign(profile)
    out.mkdir(parents=True, exist_ok=True)

    def log(text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {time.monotonic() - started:6.1f} s  {text}"
        print(line, flush=True)
        with (out / "log.txt").open("a") as file:
            file.write(line + "\n")

    def left() -> float:
        return budget - (time.monotonic() - started)

    log(f"{profile} on {provenance(chosen, 0)['device']}: {len(jobs)} runs planned, {budget:g} s")
    found = _once(out / "checks.json", lambda: checks(chosen, jobs, min(CHECKS, left() / 4)))
    passed = sum(check["outcome"] == "passed" for check in found)
    failed = {check["what"] for check in found if check["outcome"] not in ("passed", NO_TIME)}
    log(f"{passed} of {len(found)} checks passed; failed: {', '.join(sorted(failed)) or 'none'}")
    timed = _once(out / "speed.json", lambda: speed(chosen, min(SPEED, left() / 4)))
    log(f"{len(timed)} layers timed; definition over fast form, median {median(row['ratio'] for row in timed):.2f}")
    usable = [job for job in (_without(job, failed) for job in jobs) if job is not None]
    log(f"{len(usable)} runs need nothing that failed")
    store = Store(out / "runs", out)
    known = Store()  # what is published already need not be done again
    todo = [job for job in usable if not complete(job, known.load(job.run))]
    outcomes: dict[str, str] = {}
    # Small maps do not fill a large GPU: as many networks at once as its memory has room for, four at most.
    workers = max(1, min(4, torch.cuda.mem_get_info(chosen)[1] // 2**34)) if chosen.type == "cuda" else None
    if "training" not in failed:
        limit = max(0.0, left() - RESERVE * min(1.0, budget / 120)) / 60
        with _published_meanwhile(todo, store, out / "records.jsonl"):
            outcomes = execute(todo, store, str(chosen), workers, False, limit, cut=True)
    done = sum(outcome == "done" for outcome in outcomes.values())
    log(f"{done} of {len(todo)} runs done")
    for name, outcome in outcomes.items():
        if outcome.startswith("failed"):
            log(f"{name} {outcome}")
    return {"checks": len(found), "failed": sorted(failed), "planned": len(todo), "done": done}


def order(profile: str, store: Store) -> list[dict[str, Any]]:
    """The runs of ``profile`` in order of value: state, seconds that such runs took so far, open verdicts they share.

    ``verdicts`` counts the claims that are not decided yet and need the run.
    """
    needed = worth(profile, store)
    owners: dict[str, list[str]] = {}
    for name, study in STUDIES.items():
        for job in study.jobs(profile):
            owners.setdefault(job.run.id, []).append(name)
    seconds: dict[str, list[float]] = {}
    rows = []
    for job in campaign(profile):
        record = store.load(job.run)
        network = job.run.network
        kind = f"{network['name']} {network.get('width') or ''}".strip()
        done = complete(job, record)
        if done:
            seconds.setdefault(kind, []).append(sum(origin["seconds"] for origin in record.provenance.values()))
        rows.append(
            {
                "run": job.run.id,
                "seed": job.run.seed,
                "network": kind,
                "layer": network.get("downsample", {"name": "its own"})["name"],
                "studies": ", ".join(owners[job.run.id]),
                "state": "done" if done else "running" if is_leased(store, job.run) else "to do",
                "verdicts": needed[job.run.id],
            }
        )
    return [row | {"seconds": round(median(seconds[k])) if (k := row["network"]) in seconds else None} for row in rows]


def _once(path: Path, make: Callable[[], list[dict]]) -> list[dict]:
    """What ``make`` returns, from ``path`` if an earlier call was through with it."""
    if path.exists():
        return json.loads(path.read_text())
    rows = make()
    write_atomically(path, json.dumps(rows, indent=1) + "\n")
    return rows


@contextmanager
def _published_meanwhile(jobs: list[Job], store: Store, path: Path) -> Iterator[None]:
    """Keep in ``path`` what the store has of ``jobs``, so that a command that is killed leaves its records there."""
    over = threading.Event()

    def keep() -> None:
        while True:
            last = over.wait(10)
            records = [record for record in (store.load(job.run) for job in jobs) if record.measurements]
            if records:
                publish(records, path)
            if last:
                return

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _without(job: Job, failed: set[str]) -> Job | None:
    """``job`` without the measurements that failed their check, ``None`` if its layer failed."""
    if f"layer {job.run.network['downsample']['name']}" in failed:
        return None
    return replace(job, measurements=tuple(m for m in job.measurements if f"measurement {m.name}" not in failed))


def checks(device: torch.device, jobs: list[Job], seconds: float) -> list[dict]:
    """Compare ``device`` with the CPU: layers in each format and precision, training, measurements of ``jobs``.

    Each row says ``what`` was checked, the ``outcome`` ("passed", a reason, or "no time left"), and its seconds.
    """
    end, rows = time.monotonic() + seconds, []
    for what, check in _checks(device, jobs):
        started = time.monotonic()
        try:
            outcome = "passed" if started < end and (check() or True) else NO_TIME
        except Exception as error:  # whatever it is, it must not end the campaign
            outcome = f"{type(error).__name__}: {str(error).strip()[:500]}"
        rows.append({"what": what, "outcome": outcome, "seconds": round(time.monotonic() - started, 2)})
    return rows


def _checks(device: torch.device, jobs: list[Job]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Training first, since everything depends on it; then layers, then measurements."""
    yield "training", partial(_check_training, device)
    for name in layers.NAMES:
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
    x = torch.randn(2, 16, 18, 16)
    expected = _value_and_gradient(layer, x)
    layer = layer.to(device)
    for form in (torch.contiguous_format, torch.channels_last):
        for half, tolerance in ((False, 1e-4), (True, 0.05)):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                found = _value_and_gradient(layer, x.to(device).contiguous(memory_format=form))
            for theirs, ours in zip(expected, found, strict=True):
                torch.testing.assert_close(ours.float().cpu(), theirs, rtol=tolerance, atol=tolerance)


def _value_and_gradient(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = layer(x)
    y.float().square().mean().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def _network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.create("vgg-small", 10, "tri-3", padding_mode="circular", width=4)


def _check_training(device: torch.device) -> None:
    """Two epochs on ``device`` against the CPU; and the same interrupted after the first and continued, bit by bit."""
    data = datasets.load("shapes", "train", count=64, seed=1)
    recipe = Recipe(epochs=2, batch_size=16, flip=True, shift=2)
    there, here = _network(), _network()
    losses = [train(network, data, recipe, 0, place)[-1]["loss"] for network, place in ((there, device), (here, CPU))]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=0.02)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"

        def stop(entry: dict) -> None:
            raise InterruptedError

        with suppress(InterruptedError):
            train(_network(), data, recipe, 0, device, checkpoint, stop)
        continued = _network()
        train(continued, data, recipe, 0, device, checkpoint)
    for ours, theirs in zip(continued.state_dict().values(), there.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def _check_measurement(job: Job, wanted: Measurement, device: torch.device) -> None:
    """``wanted`` of an untrained network on ``device`` against the CPU: numbers agree within a picture or two."""
    values = []
    for place in (CPU, device):
        network = build(job.run).to(place).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        values.append(_numbers(encode(wanted.measure(Subject(job.run, network, place)))))
    if wanted.name != "cost":  # a clock
        torch.testing.assert_close(values[1], values[0], rtol=0.1, atol=0.1)


def _numbers(value: Any) -> Tensor:
    """All fractional numbers of a nested value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return torch.cat([torch.zeros(0), *map(_numbers, value)])
    return torch.tensor([value] if isinstance(value, float) else [])


def speed(device: torch.device, seconds: float) -> list[dict]:
    """Forward and backward of every layer beside its definition, taking turns: medians in milliseconds and ratio."""
    end = time.monotonic() + seconds
    rows: list[dict] = []
    batch = 128 if device.type == "cuda" else 8
    for name in layers.NAMES:
        if rows and time.monotonic() > end:
            break
        x = torch.randn(batch, 64, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
        layer = layers.create(name, 64, padding_mode="circular").to(device)
        times: dict[str, list[float]] = {"ours": [], "definition": []}
        for _ in range(6):
            times["ours"].append(_milliseconds(layer, x, device))
            with layers.definitions():
                times["definition"].append(_milliseconds(layer, x, device))
        ours, definition = (median(times[kind][1:]) for kind in ("ours", "definition"))
        rows.append({"layer": name, "ours": ours, "definition": definition, "ratio": definition / ours})
    return rows


def _milliseconds(layer: nn.Module, x: Tensor, device: torch.device) -> float:
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else int
    wait()
    started = time.perf_counter()
    _value_and_gradient(layer, x)
    wait()
    return 1000 * (time.perf_counter() - started)
