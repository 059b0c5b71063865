"""The notebooks' side of the package: opening a chapter, and executing all chapters for the book.

``python -m aliasing.chapters --profile laptop`` executes the notebooks whose source, package, records or profile
changed since their last execution into ``book/notebooks/`` and writes the generated pages.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch

from . import __version__, studies
from .errors import UsageError, unknown
from .files import write_atomically
from .profiles import PROFILES, check_profile
from .records import Store, code_version, home
from .runner import execute as run_jobs
from .runner import merged
from .training import pick_device

__all__ = ["PARAMETERS", "begin", "execute", "ledger", "published", "stamp"]

PARAMETERS = ("profile", "device", "seeds")


def begin(study: str, namespace: Mapping[str, Any], extra: tuple[str, ...] = ()) -> pd.DataFrame:
    """Open a chapter: check its parameters, carry out what the study lacks, return the results table.

    Args:
        study: a name in ``studies.STUDIES``.
        namespace: ``globals()`` of the notebook, right after the parameters cell and the imports.
        extra: the notebook's own parameters besides ``PARAMETERS``.

    Raises:
        UsageError: a parameter that the notebook does not have (papermill itself would only warn), or a wrong value.
    """
    allowed = PARAMETERS + extra
    hidden = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    for name, value in namespace.items():
        if not (name.startswith("_") or name in hidden or name in allowed or isinstance(value, ModuleType)):
            raise unknown("parameter", name, allowed)
    for name in PARAMETERS:
        if name not in namespace:
            raise UsageError(f"the parameters cell must set {', '.join(PARAMETERS)}; {name} is missing")
    profile, seeds = check_profile(namespace["profile"]), namespace["seeds"]
    if not (seeds is None or (isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1)):
        raise UsageError(f"seeds must be a whole number from 1 on, or None for all of the profile, got {seeds!r}")
    device = pick_device(namespace["device"])
    print(f"aliasing {__version__} ({code_version()}), torch {torch.__version__}, Python {platform.python_version()}")
    pd.set_option("display.max_colwidth", None)  # claims and rules are read in full
    results = studies.run(study, profile, seeds, device=str(device))
    devices = ", ".join(sorted(results["device"].unique()))
    hours = results["training.seconds"].sum() / 3600
    print(f"profile {profile}: {len(results)} networks, trained in {hours:.2f} h of computing on {devices}")
    return results


def published(study: str, profile: str) -> pd.DataFrame:
    """The results table of the runs of another ``profile`` that the stores already hold; nothing is trained."""
    return studies.table(studies.get(study).jobs(profile), Store())


def ledger(study: str, results: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The study's findings decided on ``results``, formatted for the end of a chapter."""
    decided = studies.ledger(studies.get(study), results, profile)
    interval = decided.apply(
        lambda row: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" if row.seeds > 1 else "not run", axis=1
    )
    shown = decided.assign(ours=interval)
    head = ["finding", "claim", "published", "verdict"]  # cells of the index that repeat are merged
    return shown.set_index(head)[["statistic", "rule", "ours", "seeds"]]


def stamp(notebook: Path, profile: str, root: Path) -> str:
    """What an execution depends on, as a hash: the notebook, the package, the published records, the profile."""
    digest = hashlib.sha256(profile.encode())
    files = [notebook, *sorted((root / "aliasing").rglob("*.py")), *sorted((root / "data/records").glob("*.jsonl"))]
    for file in files:
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], root: Path | None = None) -> float:
    """Execute ``notebook`` with ``parameters`` into ``output`` from the project's folder; returns the seconds it took.

    Raises:
        UsageError: the notebook has no such parameter.
        papermill.PapermillExecutionError: a cell failed.
    """
    import papermill
    from traitlets.config import Config

    root = root or home()
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise unknown("parameter", name, known)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp.ipynb")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # a kernel of the user's of the same name must not win
    os.environ["TQDM_DISABLE"] = "1"  # a progress bar has no place in a page
    started = time.perf_counter()
    papermill.execute_notebook(
        str(notebook),
        str(temporary),
        parameters=dict(parameters),
        kernel_name="python3",
        cwd=str(root),
        progress_bar=False,
        start_timeout=300,  # a crowded machine starts a kernel slowly
        config=Config({"KernelManager": {"transport": "ipc"}}),
    )
    os.replace(temporary, output)
    return time.perf_counter() - started


def _known(notebook: Path, output: Path, profile: str, root: Path) -> tuple[str, dict[str, Any] | None]:
    """The notebook's present stamp, and what is stored with its last execution if that was under the same stamp."""
    current = stamp(notebook, profile + os.environ.get("ALIASING_FRESH", ""), root)
    known = json.loads(output.read_text())["metadata"].get("aliasing", {}) if output.exists() else {}
    return current, known if known.get("stamp") == current else None


def _refresh(notebook: Path, output: Path, profile: str, root: Path) -> dict[str, Any]:
    """Execute the notebook unless its last execution is still fresh; returns what is stored with the execution."""
    current, known = _known(notebook, output, profile, root)
    if known is not None:
        return known
    import papermill

    parameters = {"profile": profile} if "profile" in papermill.inspect_notebook(str(notebook)) else {}
    print(f"{notebook.name}: executing", flush=True)
    seconds = execute(notebook, output, parameters, root)
    content = json.loads(output.read_text())
    content["metadata"]["aliasing"] = {"stamp": current, "profile": profile, "seconds": round(seconds, 1)}
    for cell in content["cells"]:  # both parameter cells are shown otherwise
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("remove-cell")
    write_atomically(output, json.dumps(content, indent=1) + "\n")
    print(f"{notebook.name}: {seconds:.0f} s", flush=True)
    return content["metadata"]["aliasing"]


def _refresh_all(notebooks: list[Path], output: Path, profile: str, root: Path) -> dict[str, dict[str, Any]]:
    """Carry out what the stale chapters' studies lack, all in one pool of workers; then execute them two at a time.

    Raises:
        papermill.PapermillExecutionError: of the first notebook with a cell that failed; the others are executed.
    """
    stale = [path for path in notebooks if _known(path, output / path.name, profile, root)[1] is None]
    jobs = [job for path in stale if path.stem in studies.STUDIES for job in studies.get(path.stem).jobs(profile)]
    if jobs:  # a failed run is reported by its notebook, which tries it again
        run_jobs(merged(jobs), studies.open_store())
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        executions = {
            path.stem: pool.submit(_refresh, path, output / path.name, profile, root)
            for path in sorted(notebooks, key=lambda path: -path.stat().st_size)  # the longest first
        }
    return {path.stem: executions[path.stem].result() for path in notebooks}


def main(argv: list[str] | None = None) -> int:
    """Execute the notebooks that are not fresh, then write the generated pages."""
    parser = argparse.ArgumentParser(prog="python -m aliasing.chapters", description="Execute the book's notebooks.")
    parser.add_argument("--profile", default="laptop", help=f"one of {', '.join(PROFILES)}")
    parser.add_argument("--output", type=Path, help="folder of the executed notebooks (default: book/notebooks)")
    arguments = parser.parse_args(argv)
    root = home()
    output = arguments.output or root / "book/notebooks"
    try:
        check_profile(arguments.profile)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    from papermill import PapermillExecutionError

    try:
        status = _refresh_all(sorted((root / "notebooks").glob("*.ipynb")), output, arguments.profile, root)
    except PapermillExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    _generate(output.parent / "generated", arguments.profile, status)
    return 0


def _generate(folder: Path, profile: str, status: dict[str, dict[str, Any]]) -> None:
    """Write the pages that are made of records: the ledger of findings and the status of the executions."""
    decided = studies.findings(profile=profile if profile == "smoke" else None)
    write_atomically(folder / "findings.md", _findings_page(decided))
    rows = "".join(f"| {name} | {run['profile']} | {run['seconds']:.0f} |\n" for name, run in status.items())
    runs = studies.status_of(profile=profile)
    counts = "".join(f"| {row.study} | {row.planned} | {row.done} |\n" for row in runs.itertuples())
    page = (
        f"# Status of this build\n\nPackage {__version__} ({code_version()}), torch {torch.__version__}, "
        f"Python {platform.python_version()}, profile `{profile}`.\n\n"
        f"## Notebooks\n\n| notebook | profile | seconds |\n|---|---|---|\n{rows}\n"
        f"## Runs\n\n| study | planned | done |\n|---|---|---|\n{counts}"
    )
    write_atomically(folder / "status.md", page)


def _findings_page(decided: pd.DataFrame) -> str:
    parts = [
        "# Findings\n\nEvery claim we test, with the rule fixed in code before the runs. A verdict is computed "
        "from records, never typed; profiles without any record are left out.\n"
    ]
    shown = decided[decided["outcome"] != "not run"]
    for finding, rows in decided.groupby("finding", sort=False):
        first = rows.iloc[0]
        parts.append(f"\n## {finding}\n\n{first.claim}\n\n*Source:* {first.source}. *Published:* {first.published}.\n")
        measured = shown[shown["finding"] == finding]
        if measured.empty:
            parts.append("\nNot run in any profile of this build.\n")
            continue
        parts.append(
            "\n| profile | statistic | value [95 % interval] | seeds | rule | verdict |\n|---|---|---|---|---|---|\n"
        )
        for row in measured.itertuples():
            value = f"{row.value:.4f} [{row.low:.4f}, {row.high:.4f}]"
            parts.append(
                f"| {row.profile} | {row.statistic} | {value} | {row.seeds} | {row.rule} | **{row.verdict}** |\n"
            )
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
