"""The studies: one module per paper, and the comparison of all layers.

A study plans its runs for each profile, and states its findings with the rule that decides each.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..errors import extra, one_of

with extra():
    import pandas as pd
from ..jobs import Job, complete, is_leased, merged
from ..profiles import PROFILES
from ..records import Store
from ..runner import execute
from .ablations import STUDY as ABLATIONS
from .azulay2018 import STUDY as AZULAY2018
from .comparison import STUDY as COMPARISON
from .finetuned import STUDY as FINETUNED
from .grabinski2023 import STUDY as GRABINSKI2023
from .realnetworks import STUDY as REALNETWORKS
from .rules import VERDICTS, Finding, Regime, Test, Verdict
from .saha2024 import STUDY as SAHA2024
from .study import Study, asked, open_store, results
from .vasconcelos2020 import STUDY as VASCONCELOS2020
from .zhang2019 import STUDY as ZHANG2019

__all__ = ["STUDIES", "VERDICTS", "Finding", "Regime", "Study", "Test", "Verdict", "asked", "best_evidence",
           "campaign", "findings", "get", "open_store", "results", "run", "status_of", "worth"]  # fmt: skip

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        AZULAY2018,
        REALNETWORKS,
        ZHANG2019,
        VASCONCELOS2020,
        ABLATIONS,
        GRABINSKI2023,
        SAHA2024,
        COMPARISON,
        FINETUNED,
    )
}
# Whose networks come first: the two chapters that ask for the plain network, its blurs and its augmentation.
VALUE = (ZHANG2019, COMPARISON, SAHA2024, AZULAY2018, VASCONCELOS2020, ABLATIONS, GRABINSKI2023)


def get(name: str) -> Study:
    """The study called ``name``; ``UsageError`` lists the valid names."""
    return STUDIES[one_of("study", name, STUDIES)]


def run(
    study: str, profile: str = "laptop", seeds: int | None = None, only: Iterable[str] = (), **options: Any
) -> pd.DataFrame:
    """Train and measure what ``study`` still lacks and return one row per run.

    Args:
        study: a name in ``STUDIES``.
        profile: a name in ``profiles.PROFILES``.
        seeds: use only the seeds below this number; by default all that the profile plans.
        only: conditions "label=value" on the runs.
        options: ``device``, ``workers``, ``progress``, ``limit_minutes``; see ``runner.execute``.

    Raises:
        UsageError: an unknown study, profile, label or device, with the valid choices.
        RuntimeError: a run failed; the others are kept.
    """
    jobs, store = get(study).jobs(profile, seeds, only), open_store()
    outcomes = execute(jobs, store, **options)
    failed = [f"{run} {outcome}" for run, outcome in outcomes.items() if outcome.startswith("failed")]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(jobs)} runs of {study} failed; {failed[0]}")
    return results(jobs, store)


def status_of(names: Iterable[str] = (), profile: str | None = None) -> pd.DataFrame:
    """Planned, done, running and failed runs per study and profile.

    Hours left are those of the mean finished run, on one worker.
    """
    store, rows = open_store(), []
    for study in map(get, names or STUDIES):
        for chosen in [profile] if profile else PROFILES:
            found = [(job, asked(job, store)) for job in study.jobs(chosen)]
            left = [job for job, record in found if not complete(job, record)]
            done = [record for job, record in found if complete(job, record)]
            seconds = sum(origin["seconds"] for record in done for origin in record.provenance.values())
            row = {"study": study.name, "profile": chosen, "planned": len(found), "done": len(done)}
            row["running"] = sum(is_leased(store, job.run) for job in left)
            row["failed"] = sum((store.folder(job.run) / "failed.txt").exists() for job in left)
            row["hours left"] = round(len(left) * seconds / len(done) / 3600, 2) if done else None
            rows.append(row)
    return pd.DataFrame(rows)


def findings(names: Iterable[str] = (), profile: str | None = None, store: Store | None = None) -> pd.DataFrame:
    """Every finding decided on the records there are, one row per test; nothing is trained.

    Args:
        names: studies; all by default.
        profile: all but "smoke", which decides nothing, by default.
        store: see ``open_store``, the default.
    """
    store = store or open_store()
    profiles = [profile] if profile else [p for p in PROFILES if p != "smoke"]
    decided = [
        study.verdicts(results(study.jobs(chosen), store), chosen)
        for study in map(get, names or STUDIES)
        for chosen in profiles
    ]
    return pd.concat(decided, ignore_index=True)


def best_evidence(decided: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``findings`` on which the verdict on each claim rests: one profile per claim.

    It is the one with the largest networks that decides the claim; where none does, the largest in which it was found
    not testable, and else the largest of all.
    """
    worth = decided["verdict"].map({"not run": 0, "not testable here": 1}).fillna(2) * len(PROFILES)
    worth += decided["profile"].map([*PROFILES].index)
    return decided[worth == worth.groupby(decided["finding"]).transform("max")]


def campaign(profile: str) -> list[Job]:
    """Every run of ``profile`` with all that the studies measure on it, in the order in which time is best spent.

    A whole seed comes before the next, so that every stop leaves balanced results. On ``desktop``, where a network
    takes half an hour, two seeds do, which are what a verdict needs, and of them one chapter after the other.
    """

    def seed(job: Job) -> int:
        return job.run.seed

    chapters = [sorted(study.jobs(profile), key=seed) for study in VALUE]
    jobs = merged(job for chapter in chapters for job in chapter)
    return sorted(jobs, key=lambda job: seed(job) // (2 if profile == "desktop" else 1))


def worth(profile: str, store: Store) -> Counter[str]:
    """How many findings that are not decided yet need each run of ``profile``, by its id."""
    needed: Counter[str] = Counter()
    for study in STUDIES.values():
        jobs = study.jobs(profile)
        decided = study.verdicts(results(jobs, store), profile).drop_duplicates("finding").set_index("finding")
        undecided = [one for one in study.findings if decided["verdict"][one.id] in ("not run", "inconclusive")]
        needed.update({job.run.id: sum(one.needs(job.labels) for one in undecided) for job in jobs})
    return needed
