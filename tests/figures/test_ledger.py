"""The ledger of a chapter: one row per claim, one line per statistic, nothing invented for what was not run."""

import re

import pandas as pd

from aliasing.figures.ledger import Ledger

COMMON = {"claim": "a < b", "published": "12 %", "rule": "95 % interval above 0", "seeds": 3}
ROWS = [
    COMMON | {"finding": "x-1", "verdict": "partly", "statistic": "gain", "outcome": "holds", "value": 0.25,
              "low": 0.125, "high": 0.375},
    COMMON | {"finding": "x-1", "verdict": "partly", "statistic": "loss", "outcome": "open", "value": 0.0,
              "low": -1.0, "high": 1.0},
    COMMON | {"finding": "x-2", "verdict": "not run", "statistic": "gain", "outcome": "not run", "value": None,
              "low": None, "high": None, "seeds": 0},
]  # fmt: skip


def test_one_row_per_claim_and_one_line_per_statistic():
    html = Ledger(pd.DataFrame(ROWS))._repr_html_()
    rows = re.findall(r"<tr><td>(.*?)</tr>", html)
    assert [row.count("<li>") for row in rows] == [2, 1]
    assert rows[0].startswith("<strong>partly</strong><br><small>x-1</small>")
    assert "gain: <strong>0.250 [0.125,\N{NO-BREAK SPACE}0.375], 3 seeds</strong>, holds" in rows[0]
    assert "a &lt; b" in rows[0] and "Published: 12 %." in rows[0]


def test_what_was_not_run_has_no_number():
    html = Ledger(pd.DataFrame(ROWS[2:]))._repr_html_()
    assert "gain: <strong>not run</strong> <small>" in html
    assert "nan" not in html.lower()


def test_as_text_it_names_the_verdicts():
    assert repr(Ledger(pd.DataFrame(ROWS))) == "x-1: partly\nx-2: not run"
