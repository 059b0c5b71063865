"""Records: what was run, what was measured on it, and where the numbers came from; one JSON object per run.

Two stores hold them. The working store (``runs/``, or the folder named by ``ALIASING_RUNS``) has a folder per
run with its checkpoint and record. The published store (``data/records/*.jsonl``) is committed. Readers see
the union, and nothing that either of them holds is computed again.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from . import clone, datasets, models
from .clone import home
from .errors import DataError, StorageError, UsageError, check_whole
from .files import set_aside, write_atomically
from .training import Recipe
from .version import __version__


@dataclass(frozen=True)
class Run:
    """A frozen description of one training; its ``id`` is its identity, whichever study asked for it.

    What is not said in ``dataset``, ``network`` and ``recipe`` is filled in when the run is made, so that the id covers
    every value that counts: a default that changes makes other runs.
    """

    dataset: dict[str, Any]  # name and options for ``datasets.load``, and the checksums of the archives
    network: dict[str, Any]  # name and options for ``models.create``, those of the layer included
    recipe: Recipe  # how it is trained
    seed: int  # decides initial weights, order, augmentation

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)
        object.__setattr__(self, "dataset", datasets.resolved(**self.dataset))
        object.__setattr__(self, "network", models.resolved(**self.network))

    def describe(self) -> dict:
        """The run as plain JSON values, nothing left out but what is in ``_SINCE``."""
        parts = {"dataset": self.dataset, "network": self.network, "recipe": asdict(self.recipe)}
        kept = {
            part: {key: value for key, value in values.items() if (part, key, value) not in _SINCE}
            for part, values in parts.items()
        }
        return json.loads(json.dumps(kept | {"seed": self.seed}))

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the description."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def from_description(cls, description: dict) -> "Run":
        """The inverse of ``describe``."""
        dataset, network, recipe = (
            {key: value for where, key, value in _SINCE if where == part} | description[part]
            for part in ("dataset", "network", "recipe")
        )
        return cls(dataset, network, Recipe(**recipe), description["seed"])


# Options that came after records were published: (part of the run, option, value that stands for how it was before).
# At that value they are left out of the description, so that older records keep their ids.
_SINCE: list[tuple[str, str, Any]] = []


@dataclass
class Record:
    """A run and everything measured on its network so far."""

    run: Run
    # "training", or a measurement with its protocol, to the measured values.
    measurements: dict[str, dict] = field(default_factory=dict)
    # The same keys to code version, device, library versions, date and seconds.
    provenance: dict[str, dict] = field(default_factory=dict)

    def add(self, key: str, values: dict, origin: dict) -> None:
        """Keep the measured ``values`` under ``key`` together with their origin."""
        self.measurements[key] = encode(values)
        self.provenance[key] = origin

    def only(self, keys: Iterable[str]) -> "Record":
        """The record with the measurements under ``keys`` alone, as far as it has them."""
        kept = [key for key in keys if key in self.measurements]
        measurements, provenance = ({key: part[key] for key in kept} for part in (self.measurements, self.provenance))
        return Record(self.run, measurements, provenance)

    def to_line(self) -> str:
        """One line of canonical JSON, with a check sum over the rest of it."""
        content = vars(self) | {"id": self.run.id, "run": self.run.describe()}
        return _canonical(content | {"check": _digest(_canonical(content))})

    @classmethod
    def from_line(cls, line: str) -> "Record":
        """Read one line.

        Raises:
            ValueError: the line is not one that ``to_line`` wrote, or its id is no longer that of its run.
        """
        try:
            content = json.loads(line)
            check = content.pop("check")
            # Lines as we write them need not be written again to be checked.
            as_written = line.strip().replace(f'"check":"{check}",', "", 1)
            if check != _digest(as_written) and check != _digest(_canonical(content)):
                raise ValueError("its content does not match its check sum; records are not edited by hand")
            record = cls(Run.from_description(content["run"]), content["measurements"], content["provenance"])
            if record.measurements.keys() != record.provenance.keys():
                raise ValueError("not every measurement has its provenance")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a record: {error!r}") from error
        if record.run.id != content["id"]:
            raise ValueError(f"the id {content['id']} does not match the run, whose id is {record.run.id}")
        return record


def _canonical(content: dict) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def encode(value: Any, digits: int | None = 5) -> Any:
    """Measured values as JSON: what has named parts as objects, lists of ``digits`` significant digits, no NaN.

    The digits are those of lists of floats and of tensors; a list of numbers that are tensors each is kept whole.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(value) if value.ndim else value.item()
    if isinstance(value, Tensor) and not value.is_complex():  # which is refused below
        value = value.detach().cpu()
        numbers = value.double() if value.is_floating_point() else value.long()
        value = numbers.tolist() if value.ndim else value.item()
    if is_dataclass(value):
        value = vars(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        if len({str(key) for key in value}) < len(value):
            raise UsageError(f"a record names what it holds by texts, of which two are alike, got {list(value)}")
        return {str(key): encode(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        rounded = [float(f"{item:.{digits}g}") if digits and isinstance(item, float) else item for item in value]
        return [encode(item, digits) for item in rounded]
    if not isinstance(value, str | int | float | None):
        raise UsageError(f"a record holds numbers, texts, estimates, and lists and mappings of them, got {value!r}")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def same_training(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two values of "training" are those of one network: elsewhere other roundings add up to another one."""
    curves = {key for one in (first, second) for key, value in one.items() if isinstance(value, list)}
    return all(first.get(key) == second.get(key) for key in curves)


def merge(first: Record, second: Record) -> Record:
    """The union of two records of one run; where both measured, the earlier (then the smaller) one stays.

    Of two networks, which differ in the curves of their training, that trained later, by what is on record, stays
    whole: what was measured on one is not put beside what was measured on the other. Commutative and idempotent; and
    associative for records of one network, so that those can be merged in any order.
    """

    def age(record: Record, key: str) -> tuple[str, ...]:
        parts = record.measurements[key], record.provenance[key]
        return record.provenance[key].get("date", ""), *(json.dumps(part, sort_keys=True) for part in parts)

    trained = [record.measurements["training"] for record in (first, second) if "training" in record.measurements]
    if len(trained) == 2 and not same_training(*trained):
        return max(first, second, key=lambda record: age(record, "training"))
    merged = Record(first.run)
    for key in sorted(first.measurements.keys() | second.measurements.keys()):
        own = [record for record in (first, second) if key in record.measurements]
        chosen = min(own, key=partial(age, key=key)) if len(own) > 1 else own[0]
        merged.measurements[key], merged.provenance[key] = chosen.measurements[key], chosen.provenance[key]
    return merged


def _unite(known: dict[str, Record], records: Iterable[Record]) -> None:
    """Add ``records`` to those that are ``known`` by their ids."""
    for record in records:
        name = record.run.id
        known[name] = merge(known[name], record) if name in known else record


def fresh() -> bool:
    """Whether ``ALIASING_FRESH`` in the environment is 1: published records are not read, everything is made anew."""
    if (value := os.environ.get("ALIASING_FRESH") or "0") not in ("0", "1"):
        raise UsageError(f"ALIASING_FRESH must be 0 or 1, got {value!r}")
    return value == "1"


@cache
def code_version() -> str:
    """Short commit hash of the package's checkout, with "+" if its files were changed.

    Where there is none, or git does not keep the package's files, its version and a sum over them.
    """
    package = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # a repository around an installed package is not ours
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        sources = b"".join(path.read_bytes() for path in sorted(package.rglob("*.py")))
        return f"{__version__} (sha256 {hashlib.sha256(sources).hexdigest()[:10]})"


@cache
def processor() -> str:
    """The processor's own name where the system tells it; numbers of two that are not alike may differ in last bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def provenance(device: torch.device, seconds: float) -> dict:
    """Where and when a number was made; ``seconds`` is the wall time it took."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    return {
        "code": code_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(seconds, 2),
    }


class Store:
    """The union of the working and the published store.

    Args:
        working: folder of the working store; default ``ALIASING_RUNS``, else ``runs`` in the project's folder.
        published: folder of the published files; default ``data/records`` in the project's folder, and those that an
            installed package brings.
    """

    def __init__(self, working: Path | None = None, published: Path | None = None) -> None:
        self.working = Path(working or os.environ.get("ALIASING_RUNS") or home() / "runs")
        self._asked = published
        folders = [Path(published)] if published else clone.published("records")
        self.published = folders[0]
        self._records: dict[str, Record] = {}
        for path in sorted(path for folder in folders for path in folder.glob("*.jsonl")):
            _unite(self._records, _as_of(path, _stamp(path)))

    def __reduce__(self) -> tuple:
        """Another process opens it anew."""
        return Store, (self.working, self._asked)

    def folder(self, run: Run) -> Path:
        """Where the working store keeps the run."""
        return self.working / run.id

    def weights(self, run: Run) -> Path:
        """Where the trained network of a published run is kept, if it is."""
        return self.published.parent / "weights" / f"{run.id}.safetensors"

    def load(self, run: Run) -> Record:
        """Everything measured on ``run`` so far; empty if nothing was."""
        return self._known(run, lambda path: "it was ignored, and will be measured again")

    def save(self, record: Record) -> None:
        """Write the record to the working store, keeping what is already there.

        A damaged record is set aside, not overwritten.
        """
        known = self._known(record.run, lambda path: f"kept as {set_aside(path)}")
        write_atomically(self.folder(record.run) / "record.json", merge(known, record).to_line() + "\n")

    def _known(self, run: Run, where_damaged: Callable[[Path], str]) -> Record:
        """What both stores have of ``run``; ``DataError`` where it cannot be read."""
        # A copy: what was parsed is shared by all stores.
        record, path = merge(self._records.get(run.id, Record(run)), Record(run)), self.folder(run) / "record.json"
        try:
            working = Record.from_line(path.read_text(encoding="utf-8"))
            if working.run.id != run.id:
                raise ValueError(f"it is of run {working.run.id}")
            return merge(record, working)
        except (FileNotFoundError, NotADirectoryError):
            return record
        except OSError as error:  # not damaged, and not to be made again
            raise DataError(f"{path} cannot be read ({error.strerror}); ALIASING_RUNS names its store") from error
        except ValueError as error:
            warnings.warn(f"{path} is damaged ({error}); {where_damaged(path)}", stacklevel=3)
            return record


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with the content of a file; ``None`` where reading it will say what is wrong."""
    try:
        found = path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    except OSError:
        return None


@cache
def _as_of(path: Path, stamp: tuple[int, int, int] | None) -> list[Record]:
    """``read_lines``, once for each content: chapters open the store in every other cell."""
    return read_lines(path)


def read_lines(path: Path, strict: bool = False) -> list[Record]:
    """All sound records of a published file; damaged lines are named in a warning and left out.

    Raises:
        DataError: the file cannot be read; or, where ``strict``, holds damaged lines.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(Record.from_line(line.decode()))
        except ValueError as error:
            if strict:
                raise DataError(f"{path}, line {number} is damaged ({error}); mend or remove it") from None
            warnings.warn(f"{path}, line {number} is damaged and was ignored ({error})", stacklevel=2)
    return records


def publish(records: Iterable[Record], path: Path) -> int:
    """Merge ``records`` into the file ``path``, sorted by id; returns how many lines it has then.

    Two processes that publish to one file at the same time take turns.

    Raises:
        UsageError: the path is that of a folder.
        DataError: the file holds damaged lines, which writing would lose.
        StorageError: the file cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"records are published in a file, such as records.jsonl, got the folder {str(path)!r}")
    lines: dict[str, Record] = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            _unite(lines, [*(read_lines(path, strict=True) if path.is_file() else []), *records])
            write_atomically(path, "".join(lines[key].to_line() + "\n" for key in sorted(lines)))
    except OSError as error:
        raise StorageError.of(path, error) from error
    return len(lines)
