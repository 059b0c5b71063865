"""Kill ``aliasing run`` again and again, and compare what is left with an undisturbed run.

``python tests/soak.py --kills 100 --processes 2`` runs the smoke study of Zhang 2019 with that many concurrent commands
on one store. At random moments one of them dies by ``kill -9`` and is started anew. When all kills are spent the study
is finished, and every record must be there once and equal the undisturbed one, apart from when and how long.
Not collected by pytest: it takes from minutes to hours, and needs Linux. Exit status 1 if anything was lost, doubled or
differs.
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
    """``aliasing run`` on one store, to be killed after some seconds of computing, however busy the machine is."""

    def __init__(self, runs: Path) -> None:
        self.environment = os.environ | {"ALIASING_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
        options = ["--profile", PROFILE, "--device", "cpu", "--quiet", "--workers", "1"]
        self.arguments = [sys.executable, "-m", "aliasing", "run", STUDY, *options]
        self.start(0.0)

    def start(self, life: float) -> None:
        self.life = life
        self.process = subprocess.Popen(self.arguments, env=self.environment, stdout=subprocess.DEVNULL)

    def seconds(self) -> float:
        """Computing time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def holds_a_lease(self) -> bool:
        files = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return any(os.path.basename(os.readlink(file)) == "lock" for file in files)

    def finish(self) -> int:
        return self.process.wait()


def disturb(runs: Path, processes: int, kills: int, lives: tuple[float, float], seed: int) -> Counter:
    """Kill ``kills`` times; where a command came to its end, two runs are forgotten and it begins anew.

    Returns how often what happened.
    """
    draw, happened = random.Random(seed), Counter()
    commands = [Command(runs) for _ in range(processes)]
    for command in commands:
        command.life = draw.uniform(*lives)
    while happened["killed"] < kills:
        time.sleep(0.02)
        for command in commands:
            if command.process.poll() is not None:
                happened[f"ended with {command.process.returncode}"] += 1
                _forget(runs, draw)
            elif command.seconds() > command.life:
                happened["killed at work on a run"] += command.holds_a_lease()
                command.process.kill()
                command.finish()
                happened["killed"] += 1
                if happened["killed"] % 10 == 0:
                    print(f"  {happened['killed']} of {kills} killed", file=sys.stderr, flush=True)
            else:
                continue
            command.start(draw.uniform(*lives))
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


def startup() -> float:
    """Seconds of computing until a command begins to work."""
    before = os.times()
    subprocess.run([sys.executable, "-c", "import aliasing.studies, aliasing.torchrun"], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="concurrent commands")
    parser.add_argument("--life", type=float, default=4.0, help="longest life in computing seconds after the start-up")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        assert Command(calm).finish() == 0
        begun = startup()
        for processes in arguments.processes:
            started, wild = time.monotonic(), Path(folder) / f"wild-{processes}"
            lives = (0.9 * begun, begun + arguments.life)
            happened = disturb(wild, processes, arguments.kills, lives, arguments.seed)
            assert Command(wild).finish() == 0
            found = compare(calm, wild)
            broken += found["lost"] + found["doubled"] + found["damaged"] + found["differing"]
            minutes = (time.monotonic() - started) / 60
            print(f"{processes} processes, {minutes:.1f} min: {dict(happened)} -> {dict(found)}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
