"""The findings of a study as a table to read: verdict, claim, and what each statistic did."""

import html

import pandas as pd

__all__ = ["Ledger"]


class Ledger:
    """Findings decided on one results table, shown as HTML in notebooks and in the book.

    Args:
        decided: one row per statistic, as ``studies.ledger`` returns it; kept as the attribute ``table``.
    """

    def __init__(self, decided: pd.DataFrame) -> None:
        self.table = decided

    def _repr_html_(self) -> str:
        rows = "".join(_row(own) for _, own in self.table.groupby("finding", sort=False))
        head = '<tr><th scope="col">verdict</th><th scope="col">claim</th><th scope="col">measured</th></tr>'
        return f'<table class="ledger"><thead>{head}</thead><tbody>{rows}</tbody></table>'

    def __repr__(self) -> str:
        verdicts = self.table.drop_duplicates("finding").set_index("finding")["verdict"]
        return "\n".join(f"{name}: {verdict}" for name, verdict in verdicts.items())


def measured(row: pd.Series) -> str:
    """Value, 95 % interval and number of seeds of one statistic, or that it was not run."""
    if row.outcome == "not run":
        return "not run"
    return f"{row.value:.3f} [{row.low:.3f},\N{NO-BREAK SPACE}{row.high:.3f}], {row.seeds} seeds"


def _row(own: pd.DataFrame) -> str:
    first = own.iloc[0]
    statistics = "".join(
        f"<li>{html.escape(row.statistic)}: <strong>{measured(row)}</strong>"
        f"{'' if row.outcome == 'not run' else f', {row.outcome}'} <small>(rule: {html.escape(row.rule)})</small></li>"
        for row in own.itertuples()
    )
    return (
        f"<tr><td><strong>{first.verdict}</strong><br><small>{first.finding}</small></td>"
        f"<td>{html.escape(first.claim)}<br><small>Published: {html.escape(first.published)}.</small></td>"
        f"<td><ul>{statistics}</ul></td></tr>"
    )
