"""Findings as text, for a terminal of any width."""

import textwrap
from typing import Any

import pandas as pd

from .rules import WORDS


def statistic(row: Any) -> str:
    """Value, 95 % interval, number of seeds and outcome of one statistic, or that it was not run."""
    if row.outcome == "not run":
        return "not run"
    counts = {"seeds": int(row.seeds), "pictures": int(getattr(row, "pictures", 0))}
    over = [f"{count} {what[: None if count > 1 else -1]}" for what, count in counts.items() if count] or ["exact"]
    return ", ".join((row.told, *over, WORDS[row.outcome]))


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
    first = first.assign(told=first["told"].where(ran, "-"))[ran | never]
    verdicts, names = first["verdict"].str.len().max(), first["finding"].str.len().max()
    room, lines = first["told"].str.len().max(), []
    for row in first.itertuples():
        profile = "-" if row.verdict == "not run" else row.profile
        line = f"{row.verdict:{verdicts}}  {profile:7}  {row.finding:{names}}  {row.told:{room}}  {row.claim}"
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
            p = "" if test.outcome == "not run" or test.fact else f", p {test.p:.2g}"
            asked = " (we ask this, not the paper)" if test.ours else ""
            paragraphs.append(f"  - {test.statistic}{asked}: {statistic(test)}{p} (rule: {test.rule})")
    if idle := [profile for profile in own["profile"].unique() if profile not in ran]:
        paragraphs.append(f"{', '.join(idle)}: not run")
    if "not run" in set(own["outcome"][own["profile"].isin(ran)]):
        paragraphs.append(
            "Not run: networks are missing (`aliasing status --runs`) or of one seed: no interval; or none has "
            "the column that is asked for, if its name is right."
        )
    return "\n".join(
        textwrap.fill(text, width, subsequent_indent="    " if text.startswith("  ") else "  ") for text in paragraphs
    )
