"""What a chapter calls beside the package itself: its parameters checked, its sweep opened, its claims decided."""

import ast
import html
import math
import os
import platform
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from . import layers, studies
from .clone import published
from .diagnosis.report import percent
from .errors import DataError, UsageError, one_of
from .jobs import Job, complete, makers
from .measurements import MEASUREMENTS
from .metrics import Estimate
from .plots import measured
from .plots import seeds as told_seeds
from .profiles import PROFILES, check_profile
from .records import Record, Store, code_version
from .runner import execute
from .studies.evidence import Column, derived, entry, level, select
from .studies.text import statistic
from .training import pick_device
from .version import __version__

PROFILE = ("best", *PROFILES)
# Where the accuracy of the plain network is found, in the order of preference, and the word for it.
ACCURACY: dict[Column, str] = {
    "accuracy.accuracy": "accurate",
    "circular_rolls.accuracy": "accurate",
    "circular_fidelity.accuracy": "accurate",
    "masks.mean_iou": "mean IoU",
    "photographers_bias.bias_accuracy_near": "accurate",
    "one_pixel_windows.accuracy": "accurate",
    "fine_tuned.accuracy": "accurate",
    entry("attacks.pgd_accuracy", 0): "accurate under the weakest attack",
}


def check(**parameters: Any) -> None:
    """Check a chapter's parameters before anything runs.

    Raises:
        UsageError: a wrong value, or a parameter that papermill injected and the notebook does not have; papermill
            itself would only warn. The message lists the valid ones.
    """
    _refuse_unknown()
    for name, value in parameters.items():
        if name == "profile":
            one_of("profile", value, PROFILE)
        elif name == "device":
            pick_device(value)
        elif name in LISTS:
            words, sound = LISTS[name]
            if not isinstance(value, list | tuple) or not value or not all(map(sound, value)):
                how = f"papermill is given lists as -y '{{{name}: [A, B]}}'"
                raise UsageError(f"{name} must be a list of {words}, got {value!r}; {how}")
            for layer in value if name == "layers" else ():
                one_of("downsampling layer", layer, layers.CATALOGUE)
        elif not _number(value, int, 1) and not (name == "seeds" and value is None):
            all_of_them = ", or None for all of the profile" if name == "seeds" else ""
            raise UsageError(f"{name} must be a whole number from 1 on{all_of_them}, got {value!r}")


def _number(value: Any, kind: Any = int | float, least: int = 0) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and least <= value < math.inf


LISTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "layers": ("names of layers", lambda item: isinstance(item, str)),
    "radii": ("numbers from 0 on", _number),
    "shifts": ("whole numbers from 0 on", lambda item: _number(item, int)),
}


def _refuse_unknown() -> None:
    """Compare the cell that papermill injected with the cell of parameters that it follows."""
    from IPython import get_ipython

    cells = getattr(get_ipython(), "user_ns", {}).get("In", [])
    for written, injected in pairwise(cells):
        if injected.startswith("# Parameters\n"):
            known = _assigned(written)
            for name in _assigned(injected):
                one_of("parameter", name, known)


def _assigned(source: str) -> list[str]:
    return [ast.unparse(target) for node in ast.parse(source).body if isinstance(node, ast.Assign)
            for target in node.targets]  # fmt: skip


def best(study: str, store: Store | None = None) -> str:
    """The profile on which a study is told: the largest that decides half of its claims, or as many as "laptop" does.

    Where few claims are decided, those are mostly facts about layers, which need no network.
    """
    store, plan = store or studies.open_store(), studies.get(study)

    def decided(profile: str) -> int:
        results = studies.results(plan.jobs(profile), store)
        verdicts = plan.verdicts(results, profile).drop_duplicates("finding")
        return int(verdicts["decided"].sum()) if len(results) else 0

    for profile in ("cluster", "gpu", "desktop"):
        count = decided(profile)
        if count and (2 * count >= len(plan.findings) or count >= decided("laptop")):
            return profile
    return "laptop"


def planned(study: str, profile: str = "best", seeds: int | None = None) -> tuple[str, list[Job]]:
    """The profile that a chapter opens on, and the runs it needs; of a best one beyond a laptop's none is trained."""
    plan = studies.get(study)
    chosen = best(study) if profile == "best" else check_profile(profile)
    return chosen, [] if profile == "best" and chosen != "laptop" else plan.jobs(chosen, seeds)


def begin(study: str, profile: str = "best", device: str = "auto", seeds: int | None = None) -> pd.DataFrame:
    """Open a chapter's sweep: train and measure what it lacks, and return ``on_record``.

    Args:
        study: a name in ``studies.STUDIES``.
        profile: how large the sweep is. "best" takes the best evidence on record, and trains nothing that is not.
        device: what trains, if something has to be trained.
        seeds: only the seeds below this number; by default all.
    """
    check(profile=profile, device=device, seeds=seeds)
    chosen, jobs = planned(study, profile, seeds)
    _carry_out(jobs, studies.open_store(), device)
    results = on_record(study, chosen, seeds)
    devices, hours = ", ".join(sorted(results["device"].unique())), results["training.seconds"].sum() / 3600
    print(f"aliasing {__version__} ({code_version()}), torch {torch.__version__}, Python {platform.python_version()}")
    (profile,) = results["profile"].unique()
    print(f"profile {profile}: {len(results)} networks, trained in {hours:.2f} h on {devices}")
    print(*_kinds(study, results, seeds), sep="\n")
    return results


def brief(study: str, profile: str, seeds: int | None, *said: tuple[str, list[tuple[Column, dict[str, Any]]]]) -> Any:
    """What came out, in short, as Markdown: a chapter's main numbers with 95 % intervals, and the networks behind them.

    Args:
        study: a name in ``studies.STUDIES``.
        profile: see ``begin``; nothing is trained here.
        seeds: likewise.
        said: sentences with gaps, each with what fills them: a column and labels of networks. One of which a number is
            not on record is left out.
    """
    from IPython.display import Markdown

    results = on_record(study, profile, seeds, empty=True)
    if results.empty:
        return Markdown("*Nothing is on record in this profile yet.*")
    filled = [(words, [share(select(results, labels), column) for column, labels in gaps]) for words, gaps in said]
    lines = [f"* {words.format(*(percent(one) for one in own if one))}" for words, own in filled if None not in own]
    lines = lines or ["* The numbers that stand here are not on record in this profile yet."]
    (chosen,), networks = results["profile"].unique(), results["network"].unique()
    behind = f"{len(networks)} networks as their makers trained them ({', '.join(networks)})"
    if results.get("training.images", pd.Series(dtype=float)).any():
        count = told_seeds(results.groupby("setting")["seed"].nunique())
        behind = f"{len(results)} networks, {count} of each ({'; '.join(_kinds(study, results, seeds))})"
    lines += [f"* Behind it: {behind}; profile `{chosen}`."]
    return Markdown("**What came out.**\n\n" + "\n".join(lines))


def _kinds(study: str, results: pd.DataFrame, seeds: int | None) -> list[str]:
    """Which networks a results table has: their names, widths, epochs and data."""
    known = dict(zip(results["id"], results["data"], strict=True))
    runs = [job.run for job in studies.get(study).jobs(results["profile"].iloc[0], seeds) if job.run.id in known]
    kinds = [
        f"{run.network['name']}, width {run.network.get('width', 'as published')}: "
        + (f"{run.recipe.epochs} epochs of {known[run.id]}" if run.recipe.epochs else "trained by its makers")
        for run in runs
    ]
    return [*dict.fromkeys(kinds)]


def share(rows: pd.DataFrame, column: Column) -> Estimate | None:
    """Over seeds and pictures; of a single network over pictures; ``None`` if it was not measured."""
    result = level(column).of(rows)
    if result is not None:
        return Estimate(result.value, result.low, result.high, result.pictures)
    if len(rows) == 1 and (own := derived(column).outcomes(rows)[0]) is not None:
        return Estimate.mean(torch.from_numpy(own))
    row: Any = rows.iloc[0] if len(rows) and isinstance(column, str) else {}
    if pd.isna(row.get(f"{column}.low")):
        return None
    return Estimate(row[column], row[f"{column}.low"], row[f"{column}.high"], 0)


def on_record(study: str, profile: str = "best", seeds: int | None = None, empty: bool = False) -> pd.DataFrame:
    """A study's results table: one row per run, with everything that was measured on its network; trains nothing.

    Of a profile in which the study plans nothing (nothing is trained for some) it is the best one's.

    Returns:
        The columns of ``studies.results``, and ``profile`` and ``plain`` (how good the network without any filter is).

    Raises:
        DataError: no such run is on record; with ``empty`` a table without rows is returned instead.
    """
    store, plan = studies.open_store(), studies.get(study)
    chosen = best(study, store) if profile == "best" or not plan.jobs(check_profile(profile)) else profile
    jobs = plan.jobs(chosen, seeds)
    results = studies.results(jobs, store)
    if results.empty and empty:
        labels = {label: None for job in plan.jobs("desktop") for label in job.labels}
        return pd.DataFrame(columns=["id", "seed", "network", "data", "device", "profile", "plain", *labels])
    if results.empty:
        raise DataError(
            f"{study} has no records of profile {chosen}; aliasing run {study} --profile {chosen} makes them"
        )
    return _described(results, jobs, chosen)


def small(profile: str) -> str:
    """The profile of what a page trains itself, whatever its evidence: "laptop", in a book of "smoke" that."""
    return profile if profile == "smoke" else "laptop"


def part(
    study: str, results: pd.DataFrame, profile: str, where: str, *columns: str, seeds: int | None = None
) -> pd.DataFrame:
    """The rows of a chapter's results table that a figure shows; of the best evidence the largest profile's with any.

    A campaign trains what decides most first, so the profile that a chapter opens on may lack a whole group of networks
    for a while, and a larger one may have it already.

    Args:
        study: a name in ``studies.STUDIES``.
        results: what ``begin`` returned.
        profile: with which it was called. One that is named, and not "best", shows what it has.
        where: the rows, as for ``DataFrame.query``.
        columns: what must have been measured on them.
        seeds: as for ``begin``.
    """
    names = [name for name in reversed(PROFILES) if name != "smoke"]
    tables = (on_record(study, name, seeds, empty=True) for name in names) if profile == "best" else [results]
    shown = (measured(table.query(where), *columns) for table in tables)
    return next((rows for rows in shown if len(rows)), results.iloc[:0])


def sweep(jobs: list[Job], device: str = "auto") -> pd.DataFrame:
    """The table of ``jobs``, as ``begin`` returns it; what no store holds is trained here and now, and not kept.

    So a data set, a network, a layer or a measurement that was defined in a cell can be changed and tried again under
    its name, be it one of the package's.
    """
    store = studies.open_store()
    found = [(job, store.load(job.run)) for job in jobs]
    redefined = [job for job, record in found if _redefined(job, record)]
    known = [job for job, record in found if job not in redefined and complete(job, record)]
    new = [job for job in jobs if job not in known]
    with tempfile.TemporaryDirectory() as folder:
        own = Store(working=Path(folder), published=Path(os.devnull) if redefined else store.published)
        _carry_out(new, own, device, workers=1)  # in this process, which alone knows what its cells define
        rows = pd.concat([studies.results(known, store), studies.results(new, own)], ignore_index=True)
    return _described(rows, jobs, "of this page")


def _redefined(job: Job, record: Record) -> bool:
    """Whether the record is of another layer, say, whose name a reader gave to one of his own."""
    made = [one for key, own in makers(job).items() if key in record.measurements for one in own]
    return any(one.__module__.split(".")[0] != __name__.split(".")[0] for one in made)


def _carry_out(jobs: list[Job], store: Store, device: str, workers: int | None = None) -> None:
    outcomes = execute(jobs, store, device=device, workers=workers)
    failed = [f"{run} {outcome}" for run, outcome in outcomes.items() if outcome != "done"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(jobs)} runs failed; {failed[0]}")


def _described(results: pd.DataFrame, jobs: list[Job], profile: str) -> pd.DataFrame:
    """``results`` with the columns that a badge needs; a plan begins with the plain network of each architecture."""
    results = results.assign(profile=profile, plain="plain network not on record")
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        network, data = job.run.network, job.run.dataset
        # Of networks that others have trained, the data set is what they are measured on.
        kinds.setdefault(f"{network['name']} {data if 'pretrained' in network else data['name']}", []).append(job)

    def likeness(job: Job) -> tuple:
        return job.run.network.get("downsample"), job.run.recipe.adversary, job.run.recipe.epochs

    for alike in kinds.values():
        first = likeness(alike[0])
        for trained in {likeness(job)[1:] for job in alike}:  # how; where no plain network was, the first stands for it
            rows = results["id"].isin([job.run.id for job in alike if likeness(job)[1:] == trained])
            own = next((job for job in alike if likeness(job) == (first[0], *trained)), alike[0])
            plain = results[results["id"].isin([job.run.id for job in alike if job.labels == own.labels])]
            for column, word in ACCURACY.items():
                if (values := derived(column).of(plain)).notna().any():
                    about = "plain network, trained on attacks," if own.run.recipe.adversary else "plain network"
                    results.loc[rows, "plain"] = f"{about} {100 * values.mean():.1f} % {word}"
                    break
    return results


def columns(results: pd.DataFrame) -> pd.DataFrame:
    """What the columns of a results table hold: one row per measurement, in the words of its documentation."""
    first = {name: str(own.__doc__).partition("\n")[0] for name, own in MEASUREMENTS.items()}
    about = {name: line.replace("``count``", "some").replace("`", "") for name, line in first.items()}
    about["training"] = "The course of the training: loss and accuracy by epoch, images, parameters, seconds."
    names = [name.split(".", 1) for name in results if "." in name and not name.endswith((".low", ".high"))]
    own = pd.DataFrame(names, columns=["source", "columns"]).groupby("source", sort=False)["columns"].agg(", ".join)
    return own.rename_axis(None).to_frame().assign(**{"what was measured": own.index.map(about)})


def papers(study: str) -> pd.DataFrame:
    """The numbers of a chapter's paper, each with its source and how sure it is."""
    known = {path.stem: path for folder in reversed(published("published")) for path in folder.glob("*.csv")}
    return pd.read_csv(known[one_of("paper", study, known)])


def findings(study: str, results: pd.DataFrame) -> "Ledger":
    """The study's claims decided on ``results``, with the verdicts that other profiles came to."""
    (profile,) = results["profile"].unique()
    others = studies.findings([study])
    return Ledger(studies.get(study).verdicts(results, profile), others[others["profile"] != profile])


class Ledger:
    """Findings decided on one results table, shown as HTML in notebooks and in the book.

    Args:
        decided: one row per statistic, as ``Study.verdicts`` returns it; kept as the attribute ``table``.
        others: the same of other profiles, of which only the verdicts are shown.
    """

    def __init__(self, decided: pd.DataFrame, others: pd.DataFrame) -> None:
        self.table, self.others = decided, others

    def _repr_html_(self) -> str:
        rows = [self._row(own) for _, own in self.table.groupby("finding", sort=False)]
        cells = pd.DataFrame(rows, columns=["verdict", "claim", "measured"])
        with pd.option_context("display.max_colwidth", None):
            return cells.to_html(escape=False, index=False, border=0, classes="ledger")

    def __repr__(self) -> str:
        verdicts = self.table.drop_duplicates("finding").set_index("finding")["verdict"]
        return "\n".join(f"{name}: {verdict}" for name, verdict in verdicts.items())

    def _row(self, own: pd.DataFrame) -> tuple[str, str, str]:
        first = own.iloc[0]
        places = [f"{first.finding}, {first.profile}"]
        others = self.others[self.others["finding"].eq(first.finding) & self.others["verdict"].ne("not run")]
        places += [f"{row.profile}: {row.verdict}" for row in others.drop_duplicates("profile").itertuples()]
        places += [html.escape(first.note)] if getattr(first, "note", "") else []
        items = "".join(
            f"<li>{html.escape(row.statistic)}: <strong>{statistic(row)}</strong> "
            f"<small>(rule: {html.escape(row.rule)})</small>"
            for row in own.itertuples()
        )
        return (
            f"<strong>{first.verdict}</strong><br><small>{'<br>'.join(places)}</small>",
            f"{html.escape(first.claim)}<br><small>Published: {html.escape(first.published)}. "
            f"Source: {html.escape(first.source)}.</small>",
            f"<ul>{items}</ul>",
        )
