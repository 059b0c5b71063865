"""What a study is: its runs per profile, its results, its findings."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..errors import UsageError, at_least
from ..jobs import Job
from ..measurements import drawn, unpacked
from ..metrics.sampling import mean_bias
from ..profiles import PROFILES, check_profile
from ..records import Record, Store, fresh
from .evidence import having
from .rules import Finding, judged


class Study(NamedTuple):
    """One paper, or the comparison.

    Attributes:
        name: also the name of its notebook, unless ``shown_in`` names another.
        title: of its chapter.
        source: the paper.
        plan: profile to the runs with what is measured on each, most informative first, for all seeds.
        findings: the paper's claims and how they are tested.
        shown_in: the notebook that shows it, where it has none of its own.
    """

    name: str
    title: str
    source: str
    plan: Callable[[str], Iterable[Job]]
    findings: tuple[Finding, ...]
    shown_in: str = ""

    @property
    def chapter(self) -> str:
        """The name of the notebook that shows it."""
        return self.shown_in or self.name

    def jobs(self, profile: str, seeds: int | None = None, only: Iterable[str] = ()) -> list[Job]:
        """The runs of ``profile`` with a seed below ``seeds`` and the labels that ``only`` asks for, "key=value" each.

        Raises:
            UsageError: an unknown profile, label or value, or fewer than one seed.
        """
        jobs = _planned(self.name, self.plan, profile)
        at_least("seeds", seeds, 1)
        jobs = [job for job in jobs if seeds is None or job.run.seed < seeds]
        for condition in [only] if isinstance(only, str) else only:
            key, equals, value = condition.partition("=")
            values = sorted({str(job.labels[key]) for job in jobs if key in job.labels})
            if not equals or value not in values:
                labels = sorted({label for job in jobs for label in job.labels})
                expected = f"{key}=VALUE with VALUE one of {', '.join(values)}" if values else f"KEY one of {labels}"
                raise UsageError(f"--only {condition!r} selects nothing in {self.name}; expected {expected}")
            jobs = [job for job in jobs if str(job.labels.get(key)) == value]
        return jobs

    def verdicts(self, table: pd.DataFrame, profile: str) -> pd.DataFrame:
        """Every finding decided on results of ``profile``; see ``rules.judged`` for the columns beside ``study``.

        Raises:
            UsageError: a finding needs networks that the study plans in no profile: its labels are misspelt, as a rule.
        """
        planned = _labels(self.name, self.plan)
        for finding in self.findings:
            for setting in finding.settings:
                if not any(labels.items() >= setting.items() for labels in planned):
                    raise UsageError(
                        f"{finding.id} needs networks with the labels {dict(setting)}, which {self.name} plans in no "
                        f"profile; some that it plans have {planned[:3]}"
                    )
        absent = [job.labels for job in self.jobs(profile) if not having(table, job.labels).any()]
        return judged(self.findings, table, profile, absent).assign(study=self.name)


def _planned(study: str, plan: Callable[[str], Iterable[Job]], profile: str) -> list[Job]:
    """What ``Study.jobs`` chooses from."""
    try:
        return list(plan(check_profile(profile)))
    except KeyError as error:
        if error.args != (profile,):
            raise
        raise UsageError(f"the plan of {study} must know every profile, if only by no runs, got {profile!r}") from error


@cache
def _labels(study: str, plan: Callable[[str], Iterable[Job]]) -> list[dict[str, Any]]:
    """The labels of all runs of all profiles."""
    return [job.labels for profile in PROFILES for job in _planned(study, plan, profile)]


def open_store() -> Store:
    """The project's records, without the published ones where ``records.fresh`` says so."""
    return Store(published=Path(os.devnull)) if fresh() else Store()


def asked(job: Job, store: Store) -> Record:
    """What the store has of the run, without what other studies measured on a network that they share."""
    return store.load(job.run).only(["training", *(wanted.key for wanted in job.measurements)])


def results(jobs: Iterable[Job], store: Store) -> pd.DataFrame:
    """One row per trained run: id, setting (the same for all seeds), seed, labels, then every measured value.

    Columns are called "measurement.metric". An estimate becomes three, with ".low" and ".high" appended; curves stay
    lists; what was not measured is not a number.

    Raises:
        UsageError: two measurements of one run have a metric of the same name, or a label is called like a column.
    """
    rows = []
    for job in jobs:
        record = store.load(job.run)
        if "training" not in record.measurements:
            continue
        run, origin = job.run, record.provenance["training"]
        row: dict[str, Any] = {
            "id": run.id,
            "setting": replace(run, seed=0).id,
            "seed": run.seed,
            "network": run.network["name"],
            "data": record.measurements["training"]["data"],
            "device": origin["device"],
            "date": origin.get("date"),
        }
        if taken := job.labels.keys() & {*row, "profile", "plain"}:
            raise UsageError(f"a label of run {run.id} is called like a column that there is: {', '.join(taken)}")
        row |= {**job.labels, "training.seconds": origin["seconds"]}
        for source, key in (("training", "training"), *((m.name, m.key) for m in job.measurements)):
            for metric, value in record.measurements.get(key, {}).items():
                column = f"{source}.{metric}"
                if column in row:
                    raise UsageError(f"two measurements of run {run.id} give {column}; one of them is {key}")
                if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
                    row |= {column: value["value"], f"{column}.low": value["low"], f"{column}.high": value["high"]}
                else:
                    row[column] = value
        rows.append(_told_since(row, job))
    return pd.DataFrame(rows)


def _told_since(row: dict[str, Any], job: Job) -> dict[str, Any]:
    """What measurements have told since a record was made, from what it holds.

    The mean of a bias where a site was without windows; of CIFAR-10 the clean error, and the accuracy of the pictures
    that then miss a band, from outcomes on all 10,000 test pictures, of which ``Subject.split`` drew those.
    """
    found, by_image = {}, row.get("accuracy.accuracy_by_image")
    for definition in ("exact", "nearest", "weight"):
        column = f"sampling_bias.msb_{definition}"
        if row.get(column, 0) is None:
            found[column] = mean_bias(row[f"{column}_by_site"], row["sampling_bias.msb_constant_by_site"])
    counts = {one.name: one.options["count"] for one in job.measurements if one.name in ("band_removal", "clean_error")}
    if by_image and counts and job.run.dataset["name"] == "cifar10":
        correct = unpacked(by_image).double()
        counts = counts if len(correct) == 10_000 else {}
        accuracy = {name: correct[drawn(len(correct), count)].mean().item() for name, count in counts.items()}
        if "band_removal" in accuracy:
            found["band_removal.accuracy_with_all_bands"] = accuracy["band_removal"]
        if "clean_error" in accuracy:
            found["clean_error.clean_error"] = 1 - accuracy["clean_error"]
    return row | {column: value for column, value in found.items() if row.get(column) is None}
