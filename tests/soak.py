"""Kill ``aliasing run`` again and again, and compare what is left with an undisturbed run.

``python tests/soak.py --kills 100 --processes 2`` runs the smoke study of Zhang 2019 with that many concurrent commands
on one store. At random moments one of them dies by ``kill -9`` and is started anew. When all kills are spent the study
is finished, and every record must be there once and equal the undisturbed one, apart from when and how long.
Not collected by pytest: it takes from minutes to hours. Exit status 1 if anything was lost, doubled or differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from aliasing.records import Store, read_lines
from aliasing.studies import get

STUDY, PROFILE = "zhang2019", "smoke"


class Command:
    """``aliasing`` on one store, in a process (with workers of its own where asked for) that can be killed."""

    def __init__(self, runs: Path, workers: int) -> None:
        self.environment = os.environ | {"ALIASING_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
        options = ["--profile", PROFILE, "--device", "cpu", "--quiet", "--workers", str(workers)]
        self.arguments = [sys.executable, "-m", "aliasing", "run", STUDY, *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.arguments, env=self.environment, stdout=subprocess.DEVNULL)

    def finish(self) -> int:
        return self.process.wait()


def disturb(runs: Path, processes: int, kills: int, workers: int, pause: tuple[float, float], seed: int) -> Counter:
    """Kill ``kills`` times; where a command came to its end, two runs are forgotten and it begins anew.

    Returns how often what happened.
    """
    draw, happened = random.Random(seed), Counter()
    commands = [Command(runs, workers) for _ in range(processes)]
    while happened["killed"] < kills:
        time.sleep(draw.uniform(*pause))
        for command in commands:
            if command.process.poll() is not None:
                happened[f"ended with {command.process.returncode}"] += 1
                _forget(runs, draw)
                command.start()
        victim = draw.choice(commands)
        if not list(runs.glob("*/lock")):
            continue  # still starting up: nothing is at stake yet
        victim.process.kill()
        victim.finish()
        happened["killed"] += 1
        happened["runs begun when killed"] += len(list(runs.glob("*/lock")))
        happened["temporary files left"] += len(list(runs.rglob("*.tmp")))
        victim.start()
    for command in commands:
        happened[f"ended with {command.finish()}"] += 1
    return happened


def _forget(runs: Path, draw: random.Random) -> None:
    """Take two runs out of the store, so that there is work again until all kills are spent."""
    folders = sorted(path for path in runs.iterdir() if path.is_dir())
    for folder in draw.sample(folders, min(2, len(folders))):
        for name in ("record.json", "checkpoint.safetensors"):
            (folder / name).unlink(missing_ok=True)


def compare(calm: Path, wild: Path) -> Counter:
    """Records lost, doubled, damaged, differing and equal; also those of a published file of both stores."""
    found = Counter(lost=0, doubled=0, damaged=0, differing=0, equal=0)
    first, second = Store(calm, calm / "none"), Store(wild, wild / "none")
    found["damaged"] = len(list(wild.rglob("*.damaged*")))
    for job in get(STUDY).jobs(PROFILE):
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
    environment = os.environ | {"ALIASING_RUNS": str(wild)}
    publish = [sys.executable, "-m", "aliasing", "publish", STUDY, "--profile", PROFILE, "--out", str(out)]
    subprocess.run(publish, env=environment, check=True, stdout=subprocess.DEVNULL)
    ids = Counter(record.run.id for record in read_lines(out))
    found["doubled"] = sum(count - 1 for count in ids.values())
    found["lost"] += len(get(STUDY).jobs(PROFILE)) - len(ids)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="concurrent commands")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of each command")
    parser.add_argument("--pause", type=float, nargs=2, default=(0.5, 8.0), help="seconds between kills, from and to")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        assert Command(calm, 1).finish() == 0
        for processes in arguments.processes:
            started, wild = time.monotonic(), Path(folder) / f"wild-{processes}"
            happened = disturb(
                wild, processes, arguments.kills, arguments.workers, tuple(arguments.pause), arguments.seed
            )
            assert Command(wild, 1).finish() == 0
            found = compare(calm, wild)
            broken += found["lost"] + found["doubled"] + found["damaged"] + found["differing"]
            minutes = (time.monotonic() - started) / 60
            print(f"{processes} processes, {minutes:.1f} min: {dict(happened)} -> {dict(found)}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
