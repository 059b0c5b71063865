"""Findings: a claim, the statistics that test it, the rule, the verdict.

The rule is fixed in code before a study runs and is the same for every finding. A claim has one part or more; a
part is a statistic with a 95 % interval over seeds and the side of a threshold on which the claim puts it:

* the interval lies on the claimed side: the part *holds*;
* the interval lies on the other side: the part is *opposite*;
* the interval contains the threshold but lies within the margin that we call no effect: the part is *null*;
* otherwise it is *open*.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch

from ..metrics import Estimate

__all__ = ["Finding", "Part", "Verdict", "across_seeds", "decide", "paired"]

Verdict = Literal["reproduced", "partly", "not reproduced", "contradicted", "inconclusive", "not run"]


@dataclass(frozen=True)
class Part:
    """One testable piece of a claim.

    Attributes:
        label: what the statistic is, with its unit.
        statistic: results table of the study to an estimate over seeds; ``None`` or a KeyError if runs it needs are
            missing.
        side: the claim says the statistic is "above" or "below" the threshold.
        threshold: in the unit of the statistic.
        margin: an interval that lies within threshold +- margin shows no effect worth the name.
    """

    label: str
    statistic: Callable[[pd.DataFrame], Estimate | None]
    side: Literal["above", "below"] = "above"
    threshold: float = 0.0
    margin: float = 0.0

    @property
    def rule(self) -> str:
        """The rule in words."""
        null = f"; none if the interval lies within ±{self.margin:g} of it" if self.margin else ""
        return f"95 % interval {self.side} {self.threshold:g}{null}"

    def estimate(self, results: pd.DataFrame) -> Estimate | None:
        """The statistic of ``results``, ``None`` if runs that it needs are missing, or all."""
        try:
            return self.statistic(results) if len(results) else None
        except KeyError:  # a column or a label that only those runs have
            return None

    def outcome(self, estimate: Estimate | None) -> Literal["holds", "opposite", "null", "open", "not run"]:
        """Apply the rule to the estimate."""
        if estimate is None or estimate.n < 2:
            return "not run"
        above, below = estimate.low > self.threshold, estimate.high < self.threshold
        if above or below:
            return "holds" if above == (self.side == "above") else "opposite"
        inside = estimate.low > self.threshold - self.margin and estimate.high < self.threshold + self.margin
        return "null" if inside else "open"


@dataclass(frozen=True)
class Finding:
    """One claim of a paper.

    Attributes:
        id: short name, unique over all studies, such as ``zhang-3``.
        claim: what the paper says, in our words.
        source: paper and place, with the status of that knowledge.
        published: the paper's own number, or why there is none.
        parts: what tests the claim.
    """

    id: str
    claim: str
    source: str
    published: str
    parts: tuple[Part, ...]


def decide(outcomes: Iterable[str]) -> Verdict:
    """The verdict from the outcomes of a finding's parts."""
    kinds = set(outcomes)
    if "not run" in kinds:
        return "not run"
    if kinds == {"holds"}:
        return "reproduced"
    if "holds" in kinds:
        return "partly"
    if "opposite" in kinds:
        return "contradicted"
    return "not reproduced" if kinds == {"null"} else "inconclusive"


def across_seeds(table: pd.DataFrame, column: str, **where: object) -> pd.Series:
    """The values of ``column`` indexed by seed, for the rows in which every ``where`` column has that value."""
    for key, value in where.items():
        table = table[table[key] == value]
    if column not in table:
        return pd.Series(dtype=float)
    return table.set_index("seed")[column].dropna().astype(float)


def paired(first: pd.Series, second: pd.Series) -> Estimate | None:
    """Mean difference ``first - second`` over the seeds that both have; ``None`` if there is none."""
    difference = (first - second).dropna()
    if difference.empty:
        return None
    return Estimate.mean(torch.tensor(difference.to_numpy(dtype=float)))
