"""What the book is built from: executed notebooks and counts of verdicts.

``python book/_ext/builder.py`` executes the notebooks whose source, package, records or profile changed since their
last execution into ``book/notebooks/``. ``--readme`` writes the tables of README.md instead.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from aliasing import chapters, studies
from aliasing.chapters import share
from aliasing.diagnosis.report import percent
from aliasing.errors import UsageError, unknown
from aliasing.files import write_atomically
from aliasing.jobs import merged
from aliasing.models.imagenet import PRETRAINED
from aliasing.plots import seeds
from aliasing.profiles import PROFILES
from aliasing.records import Store, fresh, home
from aliasing.runner import execute as run_jobs
from aliasing.studies.evidence import select
from aliasing.studies.rules import VERDICTS

SMOKE = {"epochs": 1, "width": 4, "count": 320}  # of what a chapter itself trains, in a book of profile smoke


def verdicts(decided: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """By study: how many claims got which verdict on the best evidence, and on what they were decided, both in words.

    Args:
        decided: the findings, as ``studies.findings`` returns them.
    """
    best = studies.best_evidence(decided)
    said = {}
    for name, rows in best.groupby("study", sort=False):
        columns = {"verdict": "first", "decided": "first", "profile": "first", "fact": "all"}
        claims = rows.groupby("finding", sort=False).agg(columns)
        facts = claims["decided"] & claims["fact"]
        sure, evidence = claims[claims["decided"] & ~facts], []
        for profile, own in sorted(sure.groupby("profile"), key=lambda pair: [*PROFILES].index(pair[0]), reverse=True):
            trained = rows.loc[rows["finding"].isin(own.index) & (rows["seeds"] > 0), "seeds"]  # of a test that was run
            behind = f" ({seeds(trained)})" if len(trained) else ""  # none where networks of others are measured
            evidence.append(f"{len(own)} on {profile}{behind}")
        evidence += [f"{facts.sum()} computed"] if facts.any() else []
        counts = claims["verdict"].value_counts().reindex(VERDICTS, fill_value=0)
        said[name] = told(counts), ", ".join(evidence) or "none"
    return said


def markdown(headings: str, rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a table under ``headings``, columns of numbers to the right; none without rows."""
    cells = [[str(cell) for cell in row] for row in rows]
    numbers = [all(re.match(r"[\d.,]+( [%(]|$)", cell) for cell in column) for column in zip(*cells, strict=True)]
    sides = ["--:" if number else "---" for number in numbers]
    return [f"| {line} |" for line in (headings, *map(" | ".join, [sides, *cells]))] if cells else []


def told(counts: pd.Series) -> str:
    """Counts of verdicts in words: "3 of 5 reproduced, 1 partly, 1 inconclusive"."""
    words = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return ", ".join([words[0].replace(" ", f" of {counts.sum()} ", 1), *words[1:]])


def verdict_table(decided: pd.DataFrame, link: str) -> list[str]:
    """The ``verdicts`` as lines of a Markdown table; ``link`` makes a link from ``{study}``."""
    rows = [
        (f"[{studies.get(name).title}]({link.format(study=studies.get(name).chapter)})", *said)
        for name, said in verdicts(decided).items()
    ]
    return markdown("chapter | verdicts on its claims | decided on", rows)


class Front(NamedTuple):
    """A table of the front pages: rows of one study's networks.

    Attributes:
        study: a name in ``studies.STUDIES``.
        rows: by what is said of the networks in a row, the labels that select them.
        columns: by what is said of them, columns of the results table.
    """

    study: str
    rows: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, str]


# What the illness is, what the layers do for a network that is trained with them, and for one that is trained already.
FRONT = {
    "imagenet": Front(
        "realnetworks",
        {f"Lite{name[-1]}": {"network": name, "pictures": "validation"} for name in PRETRAINED},
        {"accuracy (next window)": "one_pixel_windows.accuracy", "next window": "one_pixel_windows.top1_change"}
        | {move: f"one_pixel_protocols.top1_change_{move}" for move in ("crop", "black", "inpainting", "scale")},
    ),
    "trained": Front(
        "zhang2019",
        {
            f"{words}{', shifts in training' * shifts}": {"layer": layer, "augmented": shifts}
            for shifts in (False, True)
            for layer, words in {"subsample": "max pooling", "tri-3": "with `tri-3`", "bin-7": "with `bin-7`"}.items()
        },
        {"accuracy": "accuracy.accuracy", "same answer, two circular shifts": "circular_rolls.circular_consistency"},
    ),
    "tuned": Front(
        "finetuned",
        {"the original": {"layer": "none", "tuned": False}, "fine-tuned alone": {"layer": "none", "tuned": True}}
        | {
            f"`{layer}`, {words}": {"layer": layer, "tuned": tuned}
            for layer in ("tri-3", "aps")
            for tuned, words in ((False, "converted"), (True, "and fine-tuned"))
        },
        {
            "one pixel changes": "fine_tuned.one_pixel_changes_the_answer",
            "same answer, two crop shifts": "fine_tuned.consistency_crop_shifts",
            "accuracy": "fine_tuned.accuracy_on_all_classes",
        },
    ),
}


def front_table(name: str, store: Store) -> list[str]:
    """A table of ``FRONT`` as lines of Markdown: shares with 95 % intervals; only what is on record of ``desktop``."""
    study, rows, columns = FRONT[name]
    table = studies.results(studies.get(study).jobs("desktop"), store)
    known = []
    for words, labels in rows.items():
        shares = [share(select(table, labels), column) for column in columns.values()]
        if None not in shares:
            known.append([words, *(percent(share) for share in shares if share)])
    return markdown(" | ".join(["network", *columns]), known) or ["*Not on record here: no such network was trained.*"]


def only_published() -> Store:
    """The published records without this machine's own."""
    return Store(working=Path(os.devnull))


def agreement(fresh: Store, published: Store) -> list[str]:
    """How far verdicts on networks that were trained here agree with the published ones, as lines of Markdown."""
    both = [studies.findings(store=store).drop_duplicates(["finding", "profile"]) for store in (fresh, published)]
    here, there = (one.set_index(["finding", "profile"])["verdict"] for one in both)
    known = (here != "not run") & (there != "not run")
    if not known.any():
        return ["The networks trained here decide no claim that published ones decide."]
    other = here[known & (here != there)]
    same = (known & (here == there)).sum()
    lines = [f"Of {known.sum()} verdicts that follow from networks trained here, {same} are as published."]
    rows = [(name, f"`{size}`", there[name, size], verdict) for (name, size), verdict in other.items()]
    return [*lines, *([""] if rows else []), *markdown("finding | profile | published | trained here", rows)]


def update_readme(text: str) -> str:
    """The text of README.md with its tables as the published records have them now."""
    store = only_published()
    tables = {name: front_table(name, store) for name in FRONT}
    tables["verdicts"] = verdict_table(studies.findings(store=store), "notebooks/{study}.ipynb")
    for name, lines in tables.items():
        head, _, rest = text.partition(f"<!-- {name} -->\n")
        table, tail = "\n".join(lines), rest.partition("<!-- end -->")[2]
        text = f"{head}<!-- {name} -->\n\n{table}\n\n<!-- end -->{tail}"
    return text


def stamp(notebook: Path, profile: str, root: Path) -> str:
    """What an execution depends on, as a hash: notebook, package, published records, papers' numbers, profile.

    This machine's own records are in ``measured``.
    """
    patterns = (
        "aliasing/**/*.py",
        "aliasing/**/*.csv",
        "aliasing/*.jinja",
        "data/records/*.jsonl",
        "data/published/*.csv",
    )
    files = [notebook, *(path for pattern in patterns for path in sorted(root.glob(pattern)))]
    digest = hashlib.sha256(profile.encode())
    for file in files:
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def measured() -> str:
    """What is in the working store, as a hash: another training may end at any time, and that must not stop a build."""
    digest = hashlib.sha256()
    for record in sorted(Store(published=Path(os.devnull)).working.glob("*/record.json")):
        digest.update(record.parent.name.encode() + hashlib.sha256(record.read_bytes()).digest())
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
    os.environ["OMP_NUM_THREADS"] = "1"  # two kernels run at a time, and sums depend on the number of threads
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as sockets:  # kernels that run at the same time must not share them
        papermill.execute_notebook(
            str(notebook),
            str(temporary),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(root),
            progress_bar=False,
            start_timeout=300,  # a crowded machine starts a kernel slowly
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
        )
    os.replace(temporary, output)
    return time.perf_counter() - started


def execution(output: Path) -> dict[str, Any]:
    """What is stored beside an executed notebook: parameters, seconds, end, and what ``_about`` says."""
    note = output.with_suffix(".json")
    return json.loads(note.read_text()) if output.exists() and note.exists() else {}


def stale(output: Path, root: Path | None = None) -> bool:
    """Whether the notebook behind the executed one, the package or published records changed since its execution."""
    root, known = root or home(), execution(output)
    notebook = root / "notebooks" / output.name
    return not (known and notebook.exists()) or known["stamp"] != stamp(notebook, known["profile"], root)


def _about(notebook: Path, profile: str, root: Path) -> dict[str, Any]:
    """What an execution must have been made of to be kept; "fresh" ones saw no published records."""
    return {"stamp": stamp(notebook, profile, root), "measured": measured(), "profile": profile, "fresh": fresh()}


def reproducible(content: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook without what differs from one execution to the next.

    That is names of cells, clocks, what the standard error says (progress and paths, which no page shows), and where a
    kernel happened to cut what a cell prints.
    """
    content["metadata"] = {key: content["metadata"][key] for key in ("kernelspec", "language_info")}
    for index, cell in enumerate(content["cells"]):
        tags = cell["metadata"].get("tags", [])
        hidden = ["remove-cell"] if "injected-parameters" in tags else []  # both parameter cells are shown otherwise
        cell |= {"id": f"cell-{index}", "metadata": {"tags": [*tags, *hidden]}}
        outputs: list[dict[str, Any]] = []
        for output in cell.pop("outputs", ()):
            if output.get("name") == "stdout":
                text = "".join(output["text"])
                if outputs and outputs[-1].get("name") == "stdout":
                    text = outputs.pop()["text"] + text
                outputs.append(output | {"text": text})
            elif output.get("name") != "stderr":
                outputs.append(output)
        if cell["cell_type"] == "code":
            cell["outputs"] = outputs
    return content


def _refresh(notebook: Path, output: Path, profile: str, root: Path, about: dict[str, Any]) -> None:
    """Execute the notebook; beside it goes what it is ``about`` to see, so that a change since makes it stale."""
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    wanted = {"profile": profile} | (SMOKE if profile == "smoke" else {})
    parameters = {name: value for name, value in wanted.items() if name in known}
    print(f"{notebook.name}: executing", flush=True)
    output.with_suffix(".json").unlink(missing_ok=True)
    seconds = execute(notebook, output, parameters, root)
    write_atomically(output, json.dumps(reproducible(json.loads(output.read_text())), indent=1) + "\n")
    ended = datetime.now(UTC).isoformat(timespec="minutes")
    note = {"parameters": parameters, "seconds": round(seconds, 1), "ended": ended} | about
    write_atomically(output.with_suffix(".json"), json.dumps(note, indent=1) + "\n")
    print(f"{notebook.name}: {seconds:.0f} s", flush=True)


def _refresh_all(notebooks: list[Path], output: Path, profile: str, root: Path) -> None:
    """Carry out what the stale chapters' studies lack, all in one pool of workers; then execute them two at a time.

    Raises:
        papermill.PapermillExecutionError: of the first notebook with a cell that failed; the others are executed.
    """

    def outdated() -> dict[Path, dict[str, Any]]:
        about = {path: _about(path, profile, root) for path in notebooks}
        return {path: own for path, own in about.items() if not execution(output / path.name).items() >= own.items()}

    needed = [path.stem for path in outdated() if path.stem in studies.STUDIES]
    jobs = [job for name in needed for job in chapters.planned(name, profile)[1]]
    if jobs:  # a failed run is reported by its notebook, which tries it again
        run_jobs(merged(jobs), studies.open_store())
    with ProcessPoolExecutor(2) as pool:
        waiting = [
            pool.submit(_refresh, path, output / path.name, profile, root, about)
            for path, about in sorted(outdated().items(), key=lambda item: -item[0].stat().st_size)  # the longest first
        ]
    for one in waiting:
        one.result()


def main(argv: list[str] | None = None) -> int:
    """Execute the notebooks that are not fresh."""
    parser = argparse.ArgumentParser(description="Execute the book's notebooks.")
    parser.add_argument("--profile", default="best", help=f"one of {', '.join(chapters.PROFILE)}")
    parser.add_argument("--output", type=Path, help="folder of the executed notebooks (default: book/notebooks)")
    parser.add_argument("--readme", action="store_true", help="only write the tables of README.md")
    arguments = parser.parse_args(argv)
    root = home()
    if arguments.readme:
        write_atomically(root / "README.md", update_readme((root / "README.md").read_text()))
        return 0
    output = arguments.output or root / "book/notebooks"
    try:
        chapters.check(profile=arguments.profile)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    from papermill import PapermillExecutionError

    try:
        _refresh_all(sorted((root / "notebooks").glob("*.ipynb")), output, arguments.profile, root)
    except PapermillExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    if fresh():
        print(*agreement(studies.open_store(), only_published()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
