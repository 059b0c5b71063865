"""Findings as text, for a terminal of any width."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from .rules import WORDS


def statistic(row: Any) -> str:
    """Value, 95 % interval, number of seeds and outcome of one statistic, or that it was not run."""
    if row.outcome == "not run":
        return "not run"
    if row.fact:
        return f"{row.value:.3g}, exact, {WORDS[row.outcome]}"
    counts = {"seeds": int(row.seeds), "pictures": int(getattr(row, "pictures", 0))}
    over = [f"{count} {what[: None if count > 1 else -1]}" for what, count in counts.items() if count]
    numbers = row.value, row.low, row.high
    marks = [row.threshold + step * row.margin for step in (-1, 0, 1)]

    def sides(digits: int) -> list[float]:
        return [np.sign(round(round(number, digits) - mark, 12)) for number in numbers for mark in marks]

    # As many digits as tell on which side of what decides the numbers lie.
    digits = next((digits for digits in range(3, 12) if sides(digits) == sides(12)), 12)
    value, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{value} [{low},\N{NO-BREAK SPACE}{high}], {', '.join((*over, WORDS[row.outcome]))}"


def one_line_each(decided: pd.DataFrame, width: int) -> str:
    """Verdict, profile, name, a number and the claim: a line per finding and profile.

    The number is that of the test that keeps the verdict from being better. A finding that no profile has run stands
    there once.
    """
    decided = decided.reset_index(drop=True)
    worst = decided["outcome"].map({"opposite": 0, "open": 1, "no effect": 2}).fillna(3).sort_values(kind="stable")
    first = decided.loc[worst.index].drop_duplicates(["finding", "profile"]).sort_index()
    ran = first["verdict"] != "not run"
    never = ~first["finding"].isin(first["finding"][ran]) & ~first.duplicated("finding")
    first = first[ran | never]
    verdicts, names = first["verdict"].str.len().max(), first["finding"].str.len().max()
    numbers = [
        "-" if row.verdict == "not run" or pd.isna(row.value) else f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]"
        for row in first.itertuples()
    ]
    room, lines = max(map(len, numbers), default=0), []
    for row, number in zip(first.itertuples(), numbers, strict=True):
        profile = "-" if row.verdict == "not run" else row.profile
        line = f"{row.verdict:{verdicts}}  {profile:7}  {row.finding:{names}}  {number:{room}}  {row.claim}"
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return "\n".join(lines)


def whole(own: pd.DataFrame, width: int) -> str:
    """All there is about one finding: claim, source, regime, every test with its rule and what it found.

    Where no test was run, rules are told once, and only if no profile has run any.
    """
    first = own.iloc[0]
    paragraphs = [f"{first.finding}: {first.claim}", f"Source: {first.source}. Published: {first.published}."]
    ran = set(own["profile"][own["outcome"] != "not run"]) or {first.profile}
    for profile, tests in own[own["profile"].isin(ran)].groupby("profile", sort=False):
        row = tests.iloc[0]
        paragraphs.append(f"{profile}: {row.verdict}{f' ({row.note})' if row.note else ''}")
        paragraphs.append(f"  regime: {row.regime or 'none'}; rule of commit {row.commit}")
        for test in tests.itertuples():
            p = "" if test.outcome == "not run" else f", p {test.p:.2g}"
            asked = " (we ask this, not the paper)" if test.ours else ""
            paragraphs.append(f"  - {test.statistic}{asked}: {statistic(test)}{p} (rule: {test.rule})")
    if idle := [profile for profile in own["profile"].unique() if profile not in ran]:
        paragraphs.append(f"{', '.join(idle)}: not run")
    if "not run" in set(own["outcome"][own["profile"].isin(ran)]):
        paragraphs.append("Not run: networks are missing (`aliasing status --runs`) or of one seed: no interval.")
    return "\n".join(
        textwrap.fill(text, width, subsequent_indent="    " if text.startswith("  ") else "  ") for text in paragraphs
    )
