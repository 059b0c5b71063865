"""A study spread over a cluster: an array job of SLURM, each task of which runs a shard of the study.

SLURM does the rest: it queues, starts, stops and requeues. A task that starts again continues where it was.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import UsageError
from .records import Store

__all__ = ["script", "submit"]


def script(command: Sequence[str], name: str, tasks: int, options: Sequence[str] = (), processes: int = 1) -> str:
    """The text of an array job.

    Args:
        command: arguments of ``aliasing``, such as ``run zhang2019 --profile gpu``; each task adds its ``--shard``.
        name: of the job.
        tasks: into how many shards the runs are dealt.
        options: of ``sbatch``, each of which goes before ours.
        processes: that ``torchrun`` starts in a task, to train every network together; with 1 it is not used.
    """
    store = Store().working.absolute()
    ours = [f"--job-name={name}", f"--array=1-{tasks}", f"--output={store / 'slurm'}/%x-%A-%a.log"]
    ours += ["--open-mode=append", "--requeue"]
    folders = {name: os.environ[name] for name in ("ALIASING_DATA", "ALIASING_CACHE") if name in os.environ}
    python = [sys.executable, "-m"]
    if processes > 1:
        python += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    lines = ["#!/bin/sh"]
    # Of two options that disagree, the later counts.
    lines += [f"#SBATCH {shlex.quote(option)}" for option in (*ours, *options)]
    for variable, folder in ({"ALIASING_RUNS": store} | folders).items():
        lines.append(f"export {variable}={shlex.quote(str(Path(folder).absolute()))}")
    lines.append(f"cd {shlex.quote(str(Path.cwd()))}")
    lines.append(f'exec {shlex.join([*python, "aliasing", *command])} --quiet --shard "$SLURM_ARRAY_TASK_ID/{tasks}"')
    return "\n".join([*lines, ""])


def submit(text: str) -> str:
    """Hand a script to ``sbatch`` and return its answer, such as "Submitted batch job 7".

    Raises:
        UsageError: this machine has no ``sbatch``, or it refuses the script; its own message is given.
    """
    if not shutil.which("sbatch"):
        raise UsageError(
            "sbatch was not found: run this where SLURM's jobs are submitted, or add --dry-run to print the script"
        )
    (Store().working / "slurm").mkdir(parents=True, exist_ok=True)  # SLURM makes no folder for its logs
    done = subprocess.run(["sbatch"], input=text, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"sbatch refused the job: {done.stderr.strip()}; --dry-run prints the script")
    return done.stdout.strip()
