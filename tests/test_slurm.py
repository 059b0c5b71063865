"""The array job: what its script says, and that a real SLURM carries it out."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aliasing.cli import main
from aliasing.records import Store
from aliasing.runner import execute
from aliasing.studies import get

SUBMIT = ["submit", "zhang2019", "--profile", "smoke"]
pytestmark = pytest.mark.usefixtures("empty_store")


def test_the_script_runs_the_shards(typed, empty_store):
    """Our options first, so that those of the caller count; torchrun before the command; shards from the array."""
    arguments = ["--tasks", "3", "--only", "augmented=False", "--processes", "8", "--sbatch=--job-name=mine"]
    lines = typed(*SUBMIT, "--dry-run", *arguments).out.splitlines()
    assert lines[0] == "#!/bin/sh" and "#SBATCH --array=1-3" in lines
    names = [line for line in lines if "--job-name" in line]
    assert names == ["#SBATCH --job-name=zhang2019.smoke", "#SBATCH --job-name=mine"]
    assert f"export ALIASING_RUNS='{empty_store}'" in lines
    assert f"#SBATCH '--output={empty_store}/slurm/%x-%A-%a.log'" in lines
    words = shlex.split(lines[-1])
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=8", "-m", "aliasing", "run", "zhang2019"]
    assert words[:3] == ["exec", sys.executable, "-m"] and words[3:10] == launcher
    assert words[-2:] == ["--shard", "$SLURM_ARRAY_TASK_ID/3"] and not empty_store.exists()
    with pytest.raises(SystemExit, match="0"):  # the command of each task is one that there is
        main([*words[8:-1], "1/3", "--help"])


def test_what_slurm_refuses_says_why(tmp_path, typed, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "invalid partition" in typed(*SUBMIT, status=2).err
    assert "is one line, such as --time=1:00, got '--time=1" in typed(*SUBMIT, "--sbatch=--time=1\nrm x", status=2).err


def test_shards_are_disjoint_and_complete(monkeypatch):
    """Each run of a study belongs to one shard, whatever their number."""
    jobs = {job.run.id for job in get("zhang2019").jobs("laptop")}
    dealt = []
    monkeypatch.setattr("aliasing.runner.execute", lambda jobs, *rest: dealt.append({job.run.id for job in jobs}) or {})
    for count in (1, 4, 7):
        dealt.clear()
        for index in range(1, count + 1):
            assert main(["run", "zhang2019", "--shard", f"{index}/{count}", "--quiet"]) == 0
        assert sum(map(len, dealt)) == len(jobs)
        assert set.union(*dealt) == jobs


def answers() -> str:
    """Why there is no SLURM to be used, or nothing."""
    if not shutil.which("sbatch"):
        return "no sbatch on this machine; .ci/slurm starts a SLURM of one node"
    done = subprocess.run(["sinfo", "--noheader", "--states=idle,mixed,alloc"], capture_output=True, text=True)
    return "" if done.stdout.strip() else f"SLURM has no node to run on: {done.stderr.strip()}"


@pytest.mark.slow
@pytest.mark.skipif(bool(answers()), reason=answers() or "SLURM answers")
def test_an_array_of_two_gives_the_records_of_a_plain_run(empty_store, tmp_path, typed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["--seeds", "1", "--device", "cpu", "--tasks", "2"]
    submitted = typed(*SUBMIT, *arguments, "--sbatch=--time=10:00", "--sbatch=--cpus-per-task=1").out
    number = re.fullmatch(r"Submitted batch job (\d+)\n", submitted)[1]
    jobs = get("zhang2019").jobs("smoke", seeds=1)
    plain = Store(tmp_path / "plain", tmp_path / "none")
    execute(jobs, plain, "cpu", workers=1, progress=False)
    deadline = time.monotonic() + 280
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "--noheader", f"--jobs={number}"], capture_output=True, text=True).stdout
        if not left.strip():
            break
        time.sleep(0.5)
    logs = {path.name: path.read_text() for path in (empty_store / "slurm").iterdir()}
    assert set(logs) == {f"zhang2019.smoke-{number}-{task}.log" for task in (1, 2)}
    assert "done" in "".join(logs.values()), logs
    array = Store(empty_store, tmp_path / "none")
    for job in jobs:
        assert array.load(job.run).measurements == plain.load(job.run).measurements != {}
