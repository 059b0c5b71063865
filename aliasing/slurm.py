"""A study spread over a cluster: an array job of SLURM, each task of which runs a shard of the study.

SLURM does the rest: it queues, starts, stops and requeues. A task that starts again continues where it was.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

from .errors import UsageError
from .records import Store


def script(command: Sequence[str], name: str, tasks: int, options: Sequence[str] = (), processes: int = 1) -> str:
    """The text of an array job that deals the runs of a ``command`` of ``aliasing`` into so many ``tasks``.

    The ``options`` of ``sbatch`` count more than ours. In each task ``torchrun`` starts so many ``processes``, which
    train every network together; with 1 it is not used.
    """
    if odd := [option for option in options if len(option.splitlines()) != 1]:
        raise UsageError(f"an option of sbatch is one line, such as --time=1:00, got {odd[0]!r}")
    logs = Store().working.absolute() / "slurm"
    ours = [f"--job-name={name}", f"--array=1-{tasks}", f"--output={logs}/%x-%A-%a.log"]
    ours += ["--open-mode=append", "--requeue"]
    python = [sys.executable, "-m"]
    if processes > 1:
        python += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    # Of two options that disagree, the later counts. The folder is that of the call; of the environment a cluster may
    # pass on nothing.
    lines = [f"#SBATCH {shlex.quote(option)}" for option in (*ours, *options)]
    lines += [
        f"export {name}={shlex.quote(value)}" for name, value in sorted(os.environ.items()) if name[:9] == "ALIASING_"
    ]
    line = f'exec {shlex.join([*python, "aliasing", *command])} --quiet --shard "$SLURM_ARRAY_TASK_ID/{tasks}"'
    return "\n".join(["#!/bin/sh", *lines, line, ""])


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
