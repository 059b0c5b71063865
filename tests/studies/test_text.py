"""Findings as text: within the width, a line each, all of one."""

import pandas as pd
import pytest

from aliasing.cli import main
from aliasing.studies.evidence import level
from aliasing.studies.rules import Finding, Regime, above, below, judged
from aliasing.studies.text import one_line_each, whole

LONG = "a claim that goes on and on " * 8


@pytest.fixture
def decided():
    table = pd.DataFrame({"setting": "a", "seed": [0, 1, 2], "x": [0.31, 0.32, 0.33], "date": "2030"})
    tests = ("level of x", above(level("x"), threshold=0.1)), ("below", below(level("x"), threshold=0.2, ours=True))
    findings = [
        Finding("one-1", LONG, "Table 1", "0.3", tests, by="another"),
        Finding("one-2", LONG, "Table 2", "none", tests, (Regime("accuracy", level("x"), 0.9),)),
        Finding("one-3", LONG, "Table 3", "none", (("y", above(level("y"))),)),
    ]
    return pd.concat([judged(findings, table, "laptop"), judged(findings, table.iloc[:0], "gpu")])


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_line_each_within_the_width(decided, width):
    lines = one_line_each(decided, width).splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= width
    assert lines[0].startswith("partly") and "laptop" in lines[0] and "one-1" in lines[0] and "0.32 [" in lines[0]
    assert lines[1].startswith("not testable here") and lines[2].startswith("not run")


def test_the_whole_of_one(decided):
    text = whole(decided[decided["finding"] == "one-1"], 80)
    assert max(map(len, text.splitlines())) <= 80
    for part in ("Table 1", "1 as claimed, 1 the other way", "another paper", "we ask this", "3 seeds", "gpu: not run"):
        assert part in " ".join(text.split())


def test_a_claim_that_is_none_is_refused(capsys):
    assert main(["findings", "--claim", "zhang-99"]) == 2
    assert "zhang-5" in capsys.readouterr().err
