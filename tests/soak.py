"""Kill ``aliasing run`` again and again, and compare what is left with an undisturbed run.

``python tests/soak.py --kills 100 --processes 2`` runs the smoke study of Zhang 2019 with that many concurrent commands
on one store. After a random time of computing a command dies at once, as by ``kill -9``, and another is started. When
all kills are spent the study is finished, and every record must be there and equal the undisturbed one. Commands are
forked from a process that has imported the package and computed nothing, so that their time is spent on runs. A short
version is among the tests. Exit status 1 if a command failed, or anything was lost, damaged or differs.
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
from collections import Counter
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a process with threads should not be forked

import torch

import aliasing.torchrun  # noqa: F401 - imported once here instead of in every command
from aliasing import cli
from aliasing.records import Store
from aliasing.studies import get

STUDY = "zhang2019"


def start(runs: Path, seeds: int, life: float = 0) -> BaseProcess:
    """The command on the store ``runs``, to die after ``life`` seconds of computing, however busy the machine is."""
    process = multiprocessing.get_context("fork").Process(target=_work, args=(runs, seeds, life))
    process.start()
    return process


def _work(runs: Path, seeds: int, life: float) -> None:
    os.environ["ALIASING_RUNS"] = str(runs)
    signal.setitimer(signal.ITIMER_PROF, life)  # whose signal nobody handles
    options = ["--profile", "smoke", "--seeds", str(seeds), "--device", "cpu", "--quiet", "--workers", "1"]
    with contextlib.redirect_stdout(io.StringIO()):
        sys.exit(cli.main(["run", STUDY, *options]))


def disturb(runs: Path, seeds: int, processes: int, kills: int, life: float, draw: random.Random) -> Counter:
    """Let ``kills`` commands die; returns how many did, finished and failed.

    Where one came to its end, two runs are forgotten, so that there is work until all kills are spent.
    """
    happened, commands = Counter(killed=0), []
    while happened["killed"] < kills or commands:
        while happened["killed"] + len(commands) < kills and len(commands) < processes:
            commands.append(start(runs, seeds, draw.uniform(0.01, life)))
        wait([command.sentinel for command in commands])
        for command in [command for command in commands if not command.is_alive()]:
            commands.remove(command)
            if command.exitcode == -signal.SIGPROF:
                happened["killed"] += 1
                continue
            happened["failed" if command.exitcode else "finished"] += 1
            folders = sorted(path for path in runs.iterdir() if path.is_dir())
            for folder in draw.sample(folders, min(2, len(folders))):
                (folder / "record.json").unlink(missing_ok=True)
                (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return happened


def compare(calm: Path, wild: Path, seeds: int) -> Counter:
    """Measurements that were lost, differ and are equal; files that were set aside as damaged."""
    first, second = (Store(runs, runs / "none") for runs in (calm, wild))
    found = Counter(lost=0, damaged=len(list(wild.rglob("*.damaged*"))), differing=0, equal=0)
    for job in get(STUDY).jobs("smoke", seeds):
        received = second.load(job.run).measurements
        for key, value in first.load(job.run).measurements.items():
            found["lost" if key not in received else "equal" if value == received[key] else "differing"] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="concurrent commands")
    parser.add_argument("--seeds", type=int, default=2, help="only the runs of the first seeds")
    parser.add_argument("--life", type=float, default=1.5, help="longest life of a command in seconds of computing")
    arguments = parser.parse_args()
    torch.optim.SGD([torch.zeros(1)])  # the first optimiser of a process imports half of PyTorch
    seeds, broken = arguments.seeds, 0
    with tempfile.TemporaryDirectory() as folder:
        stores = {count: Path(folder) / f"{count}" for count in (0, *arguments.processes)}
        happened = {
            count: disturb(stores[count], seeds, count, arguments.kills, arguments.life, random.Random(0))
            for count in arguments.processes
        }
        for count, runs in stores.items():  # the undisturbed one first
            last = start(runs, seeds)
            last.join()
            if count:
                found = happened[count] + compare(stores[0], runs, seeds)
                broken += bool(last.exitcode) + found["failed"] + found["lost"] + found["damaged"] + found["differing"]
                print(json.dumps({"processes": count} | found), flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
