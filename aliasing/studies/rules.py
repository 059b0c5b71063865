"""Findings: a claim, what must hold before it can be tested, the tests, the rule, the verdict.

The rules are the same for every finding and are fixed in code. A test is a statistic with a 95 % interval and the side
of a threshold on which the claim puts it. The first line that is true is its outcome:

* *no effect*: the interval lies within the margin around the threshold;
* *holds*: the interval lies on the claimed side, and the statistic is at least the margin away from the threshold;
* *opposite*: the same on the other side;
* *open*: anything else.

A regime is a property of the control, such as its accuracy, without which the claim is about something else.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from ..errors import UsageError, one_of
from .evidence import Column, Result, Setting, Statistic, having, level, minus

Outcome = Literal["holds", "opposite", "no effect", "open", "not run"]
# What readers are told of a test that was run.
WORDS = {"holds": "as claimed", "opposite": "the other way", "no effect": "no effect", "open": "open"}
Verdict = Literal[
    "reproduced", "partly", "not reproduced", "contradicted", "inconclusive", "not testable here", "not run"
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# Commits in which rules got the form that they have: time, digest, and of which claims (the first: of all that no later
# one names). A changed rule gets a line; where a record that decides is older than it, the finding is post hoc. The
# changelog says why each was changed.
FIXED: dict[str, tuple[str, str, str]] = {
    "5809cd3": ("2026-11-27T03:45:19+00:00", "a96c028c", ""),
    "3241a61": ("2026-11-27T04:04:40+00:00", "340cceb1", "tuned-1 tuned-3 tuned-4"),
    "44696b2": ("2026-11-28T17:35:09+00:00", "cad94640", "azulay-4 saha-13 tuned-2"),
    "6cc8704": ("2026-11-29T23:48:45+00:00", "77f4164c", "azulay-10 real-5"),
    "c1fdb72": ("2026-11-30T02:46:05+00:00", "b44da4d7", "saha-7"),
    "582e084": ("2026-11-30T16:03:14+00:00", "a0b63c17", "vasconcelos-2 comparison-6"),
    "341b6a1": ("2026-11-30T17:42:04+00:00", "9a299b37", "grabinski-12 vasconcelos-13 control-4"),
    "188b77e": (
        "2026-11-30T18:46:14+00:00",
        "ec1aa353",
        "azulay-2 azulay-6 azulay-7 azulay-9 zhang-7 grabinski-10 comparison-2 control-1 control-5",
    ),
    "65712fa": (
        "2026-11-30T21:20:11+00:00",
        "e7690e32",
        "azulay-5 zhang-1 zhang-2 zhang-3 zhang-4 grabinski-9 comparison-9",
    ),
    "fab99d6": ("2026-11-30T21:52:09+00:00", "5ce0c03a", "azulay-11 comparison-8 comparison-12"),
    "61a6715": ("2026-11-30T23:43:07+00:00", "57e9003d", "grabinski-13 control-2 comparison-5"),
    "2e5710a": (
        "2026-12-01T03:45:16+00:00",
        "6c39cb99",
        "vasconcelos-3 vasconcelos-5 vasconcelos-6 vasconcelos-7 vasconcelos-8 vasconcelos-9 vasconcelos-10 "
        "vasconcelos-11 vasconcelos-15",
    ),
    "10d9654": (
        "2026-12-01T11:54:41+00:00",
        "7d359886",
        "saha-3 saha-4 saha-5 saha-6 saha-8 saha-9 saha-10 saha-12 saha-14",
    ),
    "db43121": ("2026-12-01T12:52:17+00:00", "3a0021a1", "comparison-7 comparison-10"),
}


# Margins, the same for all claims: half a point of accuracy or consistency matters in practice; a point where fewer
# images are measured, and what is lower by less is "kept"; of correlations, three tenths.
FINE, POINT, RHO = 0.005, 0.01, 0.3


@dataclass(frozen=True)
class Test:
    """One testable piece of a claim.

    Attributes:
        statistic: of the results table of the study.
        side: the claim says the statistic is "above" or "below" the threshold.
        threshold: in the unit of the statistic.
        margin: less than this away from the threshold is no effect worth the name.
        ours: whether the claim does not say this, and we ask it of the claim.
    """

    __test__ = False  # nothing for pytest

    statistic: Statistic
    side: Literal["above", "below"] = "above"
    threshold: float = 0.0
    margin: float = 0.0
    ours: bool = False

    @property
    def rule(self) -> str:
        """The rule in words."""
        margin = f", by {self.margin:g} or more; no effect if within ±{self.margin:g}" if self.margin else ""
        return f"95 % interval {self.side} {self.threshold:g}{margin}"

    def outcome(self, result: Result | None) -> Outcome:
        """Apply the rule."""
        if result is None:
            return "not run"
        sign = 1 if self.side == "above" else -1
        # Rounded, since .03 - .02 is less than .01.
        value, *ends = (round(sign * (number - self.threshold), 12) for number in result[:3])
        low, high = min(ends), max(ends)
        if -self.margin < low and high < self.margin:
            return "no effect"
        if low > 0 and value >= self.margin:
            return "holds"
        return "opposite" if high < 0 and value <= -self.margin else "open"

    def told(self, result: Result) -> str:
        """Value and interval, in three decimals or as many as it takes to see the outcome; of a fact the value."""
        if result.seeds + result.pictures == 0:
            return f"{result.value:.3g}"
        for digits in range(3, 18):
            value, low, high = (f"{number:.{digits}f}" for number in result[:3])
            shown = result._replace(value=float(value), low=float(low), high=float(high))
            if self.outcome(shown) == self.outcome(result):
                break
        return f"{value} [{low},\N{NO-BREAK SPACE}{high}]"


def above(
    what: Statistic | Column,
    one: Setting | list[Setting] | None = None,
    other: Setting | list[Setting] | None = None,
    threshold: float = 0.0,
    margin: float | None = None,
    ours: bool = False,
    side: Literal["above", "below"] = "above",
    **common: Any,
) -> Test:
    """The test that a statistic is above the threshold.

    Args:
        what: the statistic; or a column, of which it is the level of ``one``, or ``one`` minus ``other``.
        one: labels of networks; of several, their mean.
        other: likewise.
        threshold: see ``Test``.
        margin: see ``Test``; by default ``FINE`` of a difference, 0 of all else.
        ours: see ``Test``.
        side: see ``Test``.
        common: labels of all networks, within which spread is pooled.
    """
    if margin is None:
        margin = 0.0 if other is None else FINE
    if not isinstance(what, Statistic):
        what = level(what, **common, **one) if other is None else minus(what, one, other, **common)  # type: ignore
    return Test(what, side, threshold, margin, ours)


below = partial(above, side="below")
kept = partial(above, threshold=-POINT, margin=0.0)  # not lower by a point


class Regime(NamedTuple):
    """What must hold of the control before a claim can be tested at all.

    Attributes:
        label: what is looked at.
        statistic: of the control.
        least: smallest value, or one per profile.
        most: largest value.
    """

    label: str
    statistic: Statistic
    least: float | Mapping[str, float] = -np.inf
    most: float = np.inf

    def bounds(self, profile: str) -> tuple[float, float]:
        """The allowed range in ``profile``."""
        return (self.least if isinstance(self.least, int | float) else self.least[profile]), self.most

    def rule(self, profile: str) -> str:
        """The condition in words."""
        low, high = self.bounds(profile)
        ends = [f"at least {low:g}" if np.isfinite(low) else "", f"at most {high:g}" if np.isfinite(high) else ""]
        return f"{self.label} {' and '.join(filter(None, ends))}"

    def holds(self, result: Result | None, profile: str) -> bool | None:
        """Whether the value lies in the range; ``None`` if there is none."""
        low, high = self.bounds(profile)
        return None if result is None else low <= result.value <= high

    def told(self, result: Result, profile: str) -> str:
        """The value in so many digits, three or more, that it is seen whether it lies in the range."""
        shown = (f"{result.value:.{digits}g}" for digits in range(3, 18))
        inside = self.holds(result, profile)
        return next(text for text in shown if self.holds(result._replace(value=float(text)), profile) == inside)


class Finding(NamedTuple):
    """One claim of a paper.

    Attributes:
        id: short name, unique over all studies, such as ``zhang-3``.
        claim: what the paper says, in our words.
        source: paper and place, with the status of that knowledge.
        published: the paper's own number, or why there is none.
        tests: of the claim: what the statistic is, with its unit, and how it is decided.
        regime: all of it must hold before the tests mean anything.
        by: whose claim it is: of the chapter's "paper", of "another" one, or "ours".
        fixed: key of ``FIXED``: when its rule got the form that it has.
    """

    id: str
    claim: str
    source: str
    published: str
    tests: tuple[tuple[str, Test], ...]
    regime: tuple[Regime, ...] = ()
    by: Literal["paper", "another", "ours"] = "paper"
    fixed: str = next(iter(FIXED))

    @property
    def settings(self) -> list[Mapping[str, Any]]:
        """Labels of the networks that it needs."""
        parts: list[Test | Regime] = [*(test for _, test in self.tests), *self.regime]
        return [setting for part in parts for setting in part.statistic.settings]

    def needs(self, labels: Mapping[str, Any]) -> bool:
        """Whether a run with these labels is one of its networks."""
        return any(labels.items() >= setting.items() for setting in self.settings)


@cache
def _lines() -> dict[str, dict[str, Any]]:
    """The lines of ``claims.csv`` by their ids: what the papers say."""
    with Path(__file__).with_name("claims.csv").open(newline="", encoding="utf-8") as file:
        lines = {row["id"]: row for row in csv.DictReader(file)}
    if odd := [name for name, row in lines.items() if None in row or None in row.values()]:
        raise UsageError(f"claims.csv: {odd[0]} has not one text for each column; put texts with commas in quotes")
    return lines


Tests = Mapping[str, Test | list[Test]]


def claims(regimes: Mapping[str, Iterable[Regime]], tests: Tests) -> tuple[Finding, ...]:
    """The findings of a study, in the order of ``tests``.

    Args:
        regimes: by the claims, separated by spaces, what must hold before they can be tested.
        tests: by "claim: statistic", with the statistic's unit; the words of the claim are in ``claims.csv``.

    Raises:
        UsageError: the table has no such line (the message lists those that it has), or one with too many texts or too
            few; or claims with a regime are not those that are tested.
    """
    regime = {name: tuple(parts) for names, parts in regimes.items() for name in names.split()}
    pairs: dict[str, list[tuple[str, Test]]] = {}
    for label, one in tests.items():
        name, _, what = label.partition(": ")
        pairs.setdefault(name, []).extend((what, test) for test in (one if isinstance(one, list) else [one]))
    if regime.keys() != pairs.keys():
        odd = ", ".join(sorted(regime.keys() ^ pairs.keys()))
        raise UsageError(f"a claim needs a line in TESTS and one in REGIMES, if only an empty one, got one of {odd}")
    found = []
    for name, own in pairs.items():
        one_of("claim", name, _lines())
        *_, fixed = (commit for commit, (_, _, names) in FIXED.items() if not names or name in names.split())
        found.append(Finding(**_lines()[name], tests=tuple(own), regime=regime[name], fixed=fixed))
    return tuple(found)


def decide(outcomes: Iterable[str]) -> Verdict:
    """The verdict from the outcomes of a finding's tests, its regime holding."""
    kinds = set(outcomes)
    if "not run" in kinds:
        return "not run"
    if kinds == {"holds"}:
        return "reproduced"
    if "holds" in kinds:
        return "partly"
    if "opposite" in kinds:
        return "contradicted"
    return "not reproduced" if kinds == {"no effect"} else "inconclusive"


def judged(
    findings: Iterable[Finding], table: pd.DataFrame, profile: str, absent: Iterable[Setting] = ()
) -> pd.DataFrame:
    """Every finding decided on a results table of ``profile``: one row per test, the verdict repeated.

    A statistic of ``every`` network with some labels is not run while one of those ``absent`` from the table has them.

    Columns, beside those of ``Finding`` and ``Test``: ``low`` and ``high`` of the interval, and how it is ``told``;
    ``seeds`` behind it and ``pictures`` that it counts as a sample; ``p`` and ``adjusted``, the p-value after Benjamini
    & Hochberg over all testable tests here, facts aside; ``fact``, whether the test is about layers, computed;
    ``outcome``; ``outcomes``, their numbers in the whole finding; ``verdict``; ``corrected``, the verdict if only tests
    with ``adjusted`` of at most 0.05 count, and facts; ``decided``, whether there is a verdict; ``regime``, in words
    with its values; ``commit`` that fixed the rule; ``post_hoc``, whether a record that decides is older than that;
    ``note``, what of all this a reader should know.
    """
    rows: list[dict[str, Any]] = []
    dates = [date if isinstance(date, str) else "9" for date in table.get("date", [None] * len(table))]
    older = {commit: np.array([date < time for date in dates], dtype=bool) for commit, (time, *_) in FIXED.items()}
    value = cache(lambda of: of(table))  # many claims share a regime
    for finding in findings:
        checks = [(part, value(part.statistic.of)) for part in finding.regime if len(table)]
        holding = [part.holds(result, profile) for part, result in checks]
        shared = {
            "finding": finding.id,
            **{name: getattr(finding, name) for name in ("claim", "source", "published", "by")},
            "profile": profile,
            "regime": "; ".join(
                f"{part.rule(profile)}{'' if result is None else f' (is {part.told(result, profile)})'}"
                for part, result in checks
            ),
            "tested": False if False in holding else None if None in holding else True,
            "commit": finding.fixed,
            "post_hoc": any((having(table, setting) & older[finding.fixed]).any() for setting in finding.settings),
        }
        for label, test in finding.tests:
            every = test.statistic.every
            lacks = every is not None and any(labels.items() >= every.items() for labels in absent)
            # Facts are not run either while nothing was in this profile.
            result = None if table.empty or lacks else value(test.statistic.of)
            row = shared | {"statistic": label, "ours": test.ours}
            row |= zip(Result._fields[:5], result or (None, None, None, 0, 0), strict=False)
            row |= {"fact": result is not None and result.seeds + result.pictures == 0, "rule": test.rule}
            row |= {"told": test.told(result), "p": result.p(test.threshold)} if result else {"told": "-", "p": None}
            rows.append(row | {"outcome": test.outcome(result)})
    frame = pd.DataFrame(rows)
    if frame.empty:  # of a study that has no claims yet
        return pd.DataFrame(columns=["finding", "claim", "profile", "told", "outcome", "verdict", "decided"])
    from scipy import stats  # takes two seconds, and only findings need it

    tested = frame.pop("tested")
    known = frame["p"].astype(float)[tested.eq(True) & ~frame["fact"]].dropna()
    # For the false discovery rate (Benjamini & Hochberg 1995).
    frame["adjusted"] = pd.Series(stats.false_discovery_control(known), known.index, dtype=float)
    unsure = frame["outcome"].isin(["holds", "opposite"]) & (frame["adjusted"] > 0.05)
    strict = frame["outcome"].where(~unsure, "open")
    for column, outcomes in (("verdict", frame["outcome"]), ("corrected", strict)):
        own = outcomes.groupby(frame["finding"]).transform(decide)
        frame[column] = np.where(tested.eq(False), "not testable here", np.where(tested.isna(), "not run", own))
    frame["decided"] = ~frame["verdict"].isin(["not run", "not testable here"])

    def counted(outcomes: pd.Series) -> str:
        numbers = {word: (outcomes == kind).sum() for kind, word in WORDS.items()}
        return ", ".join(f"{number} {word}" for word, number in numbers.items() if number)

    frame["outcomes"] = frame["outcome"].groupby(frame["finding"]).transform(counted)
    frame["note"] = [_note(row) for row in frame.itertuples()]
    return frame


def _note(row: Any) -> str:
    """What a reader should know beside the verdict."""
    said = [
        row.outcomes if row.decided else "",
        row.regime if row.verdict == "not testable here" else "",
        f"{row.corrected} if corrected for many tests" if row.decided and row.corrected != row.verdict else "",
        "post hoc" if row.decided and row.post_hoc else "",
        {"paper": "", "another": "another paper's claim", "ours": "our own claim"}[row.by],
    ]
    return "; ".join(filter(None, said))
