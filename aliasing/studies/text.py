"""Findings as text, for a terminal of any width."""

import textwrap

import pandas as pd

__all__ = ["one_line_each", "whole"]


def one_line_each(decided: pd.DataFrame, width: int) -> str:
    """Verdict, profile, name, the first test's number and the claim: a line per finding and profile.

    A finding that no profile has run stands there once.
    """
    first = decided.drop_duplicates(["finding", "profile"])
    ran = first["verdict"] != "not run"
    never = ~first["finding"].isin(first["finding"][ran]) & ~first.duplicated("finding")
    first = first[ran | never]
    verdicts, names = first["verdict"].str.len().max(), first["finding"].str.len().max()
    lines = []
    for row in first.itertuples():
        number = (
            "-"
            if row.verdict == "not run" or pd.isna(row.value)
            else f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]"
        )
        profile = "-" if row.verdict == "not run" else row.profile
        line = f"{row.verdict:{verdicts}}  {profile:7}  {row.finding:{names}}  {number:22}  {row.claim}"
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return "\n".join(lines)


def whole(own: pd.DataFrame, width: int) -> str:
    """All there is about one finding: claim, source, regime, every test with its rule and what it found."""
    first = own.iloc[0]
    paragraphs = [f"{first.finding}: {first.claim}", f"Source: {first.source}. Published: {first.published}."]
    for profile, tests in own.groupby("profile", sort=False):
        row = tests.iloc[0]
        paragraphs.append(f"{profile}: {row.verdict}{f' ({row.note})' if row.note else ''}")
        paragraphs.append(f"  regime: {row.regime or 'none'}; rule of commit {row.commit}")
        for test in tests.itertuples():
            found = "not run"
            if test.outcome != "not run":
                over = (
                    f"{test.seeds} seeds, {test.pictures or 'no'} pictures" if test.seeds or test.pictures else "exact"
                )
                found = f"{test.value:.4g} [{test.low:.4g}, {test.high:.4g}], {over}, p {test.p:.2g}: {test.outcome}"
            asked = " (we ask this, not the paper)" if test.ours else ""
            paragraphs.append(f"  - {test.statistic}{asked}: {found} (rule: {test.rule})")
    return "\n".join(
        textwrap.fill(text, width, subsequent_indent="    " if text.startswith("  ") else "  ") for text in paragraphs
    )
