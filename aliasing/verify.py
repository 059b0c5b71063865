"""Re-run one published record and compare: training, then every measurement."""

import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .errors import DataError, UsageError
from .jobs import merged
from .profiles import PROFILES
from .records import Store
from .runner import execute
from .studies import STUDIES

# Of ``cost``, in older records: times, which are measured no longer and never repeated.
TIMES = {"milliseconds", "milliseconds_quartiles"}


def verify(name: str, device: str = "cpu", progress: bool = True) -> list[dict[str, Any]]:
    """Train the run whose id begins with ``name`` anew, measure it, and compare with its published record.

    Returns:
        A row per measurement: its key, whether all values are ``equal``, the largest relative ``difference`` and where.

    Raises:
        UsageError: no published record, or several, begin with ``name``.
        DataError: the run failed, or its data are not there.
    """
    store = Store(working=Path(os.devnull))
    jobs = merged(job for study in STUDIES.values() for profile in PROFILES for job in study.jobs(profile))
    found = [job for job in jobs if job.run.id.startswith(name) and store.load(job.run).measurements]
    if len(found) != 1:
        known = ", ".join(job.run.id for job in found) or "none"
        raise UsageError(f"a record is named by the beginning of its id; {name!r} begins {known} of those in the plans")
    (job,) = found
    record = store.load(job.run)
    kept = tuple(m for m in job.measurements if m.key in record.measurements)
    with tempfile.TemporaryDirectory() as folder:
        again = Store(Path(folder), Path(os.devnull))
        (outcome,) = execute([replace(job, measurements=kept)], again, device, 1, progress).values()
        if outcome != "done":
            raise DataError(f"{job.run.id} {outcome}")
        repeated = again.load(job.run)
    made, here = record.provenance["training"], repeated.provenance["training"]
    for about in ("processor", "device", "torch"):
        if made.get(about, "unknown") != here[about]:
            warnings.warn(
                f"{job.run.id} was made with {about} {made.get(about, 'unknown')}, this is {here[about]}: sums are "
                "rounded differently, and trainings drift apart",
                stacklevel=2,
            )
    rows = []
    for key, now in repeated.measurements.items():
        differences = list(_differences("", record.measurements[key], now))
        where, largest = max(differences, key=lambda difference: difference[1], default=("", 0.0))
        rows.append({"measurement": key, "equal": not differences, "difference": largest, "where": where})
    return rows


def _differences(place: str, before: Any, now: Any) -> Iterator[tuple[str, float]]:
    """Where two values differ, and by how much of the larger; infinite where they are not comparable."""
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() - TIMES == now.keys():
        for key in now:
            yield from _differences(f"{place}.{key}".lstrip("."), before[key], now[key])
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{place}[{index}]", *pair)
    elif before != now:
        numbers = all(isinstance(value, int | float) for value in (before, now))
        yield place, abs(before - now) / max(abs(before), abs(now)) if numbers else math.inf
