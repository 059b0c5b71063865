"""Kill ``aliasing run`` again and again, and compare what is left with an undisturbed run.

``python tests/soak.py --kills 100 --processes 2`` runs the smoke study of Zhang 2019 with that many concurrent commands
on one store. At random moments one of them dies by ``kill -9`` and is started anew. When all kills are spent the study
is finished, and every record must be there once and equal the undisturbed one, apart from when and how long. Commands
are forked from a process that has imported the package and computed nothing, so that their time is spent on runs.
Needs Linux; a short version is among the tests. Exit status 1 if a command failed, or anything was lost, doubled,
damaged or differs.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a process with threads should not be forked

import torch

import aliasing.torchrun  # noqa: F401 - imported once here instead of in every command
from aliasing import cli
from aliasing.records import Store, read_lines
from aliasing.studies import get

STUDY = ["zhang2019", "--profile", "smoke"]
FORK = multiprocessing.get_context("fork")


class Command:
    """``aliasing ARGUMENTS`` on the store ``runs``, to be killed after ``life`` seconds of computing, however busy the
    machine is.
    """

    def __init__(self, runs: Path, arguments: list[str], life: float = float("inf")) -> None:
        self.life = life
        self.process = FORK.Process(target=_work, args=(runs, arguments))
        self.process.start()

    def seconds(self) -> float:
        """Computing time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def holds_a_lease(self) -> bool:
        with contextlib.suppress(OSError):  # a file that was closed, or a process that ended, while we look
            files = Path(f"/proc/{self.process.pid}/fd").iterdir()
            return any(os.path.basename(os.readlink(file)) == "lock" for file in files)
        return False

    def finish(self) -> int:
        self.process.join()
        return self.process.exitcode


def _work(runs: Path, arguments: list[str]) -> None:
    os.environ["ALIASING_RUNS"] = str(runs)
    with contextlib.redirect_stdout(io.StringIO()):
        sys.exit(cli.main(arguments))


def run(seeds: int) -> list[str]:
    """Arguments of the command that is killed."""
    return ["run", *STUDY, "--seeds", str(seeds), "--device", "cpu", "--quiet", "--workers", "1"]


def disturb(runs: Path, seeds: int, processes: int, kills: int, life: float, seed: int) -> Counter:
    """Kill ``kills`` times; where a command came to its end, two runs are forgotten and it begins anew.

    Returns how often what happened.
    """
    draw, happened = random.Random(seed), Counter()

    def start() -> Command:
        return Command(runs, run(seeds), draw.uniform(0, life))

    commands = [start() for _ in range(processes)]
    while happened["killed"] < kills:
        time.sleep(0.01)
        for index, command in enumerate(commands):
            alive = command.process.exitcode is None
            if alive and command.seconds() <= command.life:
                continue
            at_work = alive and command.holds_a_lease()
            command.process.kill()
            if (status := command.finish()) == -signal.SIGKILL:
                happened["killed"] += 1
                happened["killed at work on a run"] += at_work
            else:
                happened["failed" if status else "finished"] += 1
                _forget(runs, draw)
            commands[index] = start()
    for command in commands:
        happened["failed" if command.finish() else "finished"] += 1
    return happened


def _forget(runs: Path, draw: random.Random) -> None:
    """Take two runs out of the store, so that there is work again until all kills are spent."""
    folders = sorted(path for path in runs.iterdir() if path.is_dir())
    for folder in draw.sample(folders, min(2, len(folders))):
        for name in ("record.json", "checkpoint.safetensors"):
            (folder / name).unlink(missing_ok=True)


def compare(calm: Path, wild: Path, seeds: int) -> Counter:
    """Records lost, doubled, damaged, differing and equal; also those of a published file of both stores."""
    found = Counter(lost=0, doubled=0, damaged=0, differing=0, equal=0)
    first, second = Store(calm, calm / "none"), Store(wild, wild / "none")
    found["damaged"] = len(list(wild.rglob("*.damaged*")))
    jobs = get(STUDY[0]).jobs("smoke", seeds)
    for job in jobs:
        expected = first.load(job.run).measurements
        with warnings.catch_warnings(record=True) as damaged:
            warnings.simplefilter("always")
            received = second.load(job.run).measurements
        found["damaged"] += len(damaged)
        found["lost"] += len(expected.keys() - received.keys())
        common = expected.keys() & received.keys()
        # Wall time is the one measurement that is no function of the run.
        steady = {key for key in common if not key.startswith("cost(")}
        same = sum(json.dumps(expected[key]) == json.dumps(received[key]) for key in steady)
        found["equal"] += same
        found["differing"] += len(steady) - same
    out = wild.parent / f"{wild.name}.jsonl"
    assert Command(wild, ["publish", *STUDY, "--out", str(out)]).finish() == 0
    ids = Counter(record.run.id for record in read_lines(out))
    found["doubled"] = sum(count - 1 for count in ids.values())
    found["lost"] += len(jobs) - len(ids)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="concurrent commands")
    parser.add_argument("--seeds", type=int, default=2, help="only the runs of the first seeds")
    parser.add_argument("--life", type=float, default=1.5, help="longest life of a command in seconds of computing")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.optim.SGD([torch.zeros(1)])  # the first optimiser of a process imports half of PyTorch
    seeds, broken = arguments.seeds, 0
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        assert Command(calm, run(seeds)).finish() == 0
        for processes in arguments.processes:
            started, wild = time.monotonic(), Path(folder) / f"wild-{processes}"
            happened = disturb(wild, seeds, processes, arguments.kills, arguments.life, arguments.seed)
            assert Command(wild, run(seeds)).finish() == 0
            found = compare(calm, wild, seeds)
            broken += happened["failed"] + found["lost"] + found["doubled"] + found["damaged"] + found["differing"]
            about = {"processes": processes, "minutes": round((time.monotonic() - started) / 60, 1)}
            print(json.dumps(about | happened | found), flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
