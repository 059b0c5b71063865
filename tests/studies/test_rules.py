"""The rules: outcomes, verdicts, regimes, multiplicity, what came first; and findings as text."""

import hashlib
from io import StringIO
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aliasing import studies
from aliasing.errors import UsageError
from aliasing.studies import rules
from aliasing.studies.evidence import Result, best, fact, level
from aliasing.studies.rules import FIXED, Finding, Regime, Test, above, below, claims, decide, judged
from aliasing.studies.text import one_line_each, whole


def test_the_margin_is_tested_before_significance():
    cases = [
        ((0.03, 0.02, 0.04), "holds"),
        ((-0.03, -0.04, -0.02), "opposite"),
        ((0.03, -0.01, 0.07), "open"),
        ((0.002, 0.001, 0.003), "no effect"),  # significant, and below the margin
        ((0.004, 0.001, 0.007), "open"),
        ((0.0, -0.004, 0.004), "no effect"),
    ]
    for side, sign in (("above", 1), ("below", -1)):
        for threshold in (0.0, 0.7):
            test = Test(level("x"), side, threshold, 0.005)
            for interval, outcome in cases:
                value, *ends = (threshold + sign * number for number in interval)
                assert test.outcome(Result(value, min(ends), max(ends), 3)) == outcome
            assert test.outcome(None) == "not run"
    assert Test(level("x"), "above", 0.02, 0.01).outcome(Result(0.03, 0.021, 0.039, 0)) == "holds"  # .03 - .02 < .01


def test_verdicts():
    verdicts = {
        "holds": "reproduced",
        "holds open": "partly",
        "holds opposite": "partly",
        "opposite no-effect": "contradicted",
        "no-effect": "not reproduced",
        "no-effect open": "inconclusive",
        "holds not-run": "not run",
    }
    found = {said: decide(outcome.replace("-", " ") for outcome in said.split()) for said in verdicts}
    assert found == verdicts
    words = pd.Series([*get_args(rules.Outcome), *rules.VERDICTS])
    assert [*pd.read_csv(StringIO(words.to_csv(index=False)))["0"]] == [*words]  # none that means "missing" to a reader


def test_a_claim_needs_words_tests_and_a_regime():
    tests = {"zhang-1: x": above("x", {}, threshold=1)}
    (found,) = claims({"zhang-1": ()}, tests)
    assert found.tests[0][0] == "x" and found.claim and found.settings == [{}]
    with pytest.raises(UsageError, match="zhang-2"):
        claims({"zhang-1 zhang-2": ()}, tests)
    with pytest.raises(UsageError, match="unknown claim 'zhang-x'"):
        claims({"zhang-x": ()}, {"zhang-x: x": tests["zhang-1: x"]})


@pytest.mark.parametrize("texts", ["ours,a claim, and more,none,us", "ours,a claim,none"])
def test_a_line_of_claims_with_too_many_texts_or_too_few_is_named(texts, monkeypatch, tmp_path):
    (tmp_path / "claims.csv").write_text(f"id,by,claim,published,source\nmine-1,{texts}\n")
    monkeypatch.setattr(rules, "__file__", str(tmp_path / "rules.py"))
    with pytest.raises(UsageError, match=r"claims\.csv: mine-1 .* quotes"):
        rules._lines.__wrapped__()


def finding(name, values, regime=(), **options):
    tests = tuple((f"{name} {i}", Test(fact(lambda v=v: v))) for i, v in enumerate(values))
    return Finding(name, "claim", "source", "none", tests, regime, **options)


def test_a_regime_that_does_not_hold_says_nothing_about_the_claim():
    table = pd.DataFrame({"setting": "a", "seed": [0, 1], "x": [0.8, 0.9], "date": "2030"})
    good, bad = Regime("accuracy", level("x"), {"laptop": 0.8, "gpu": 0.9}), Regime("attacked", level("x"), 0.1, 0.5)
    absent = Regime("other", level("y"), 0.1)
    found = judged(
        [
            finding("good", [1.0], (good,)),
            finding("bad", [-1.0], (good, bad)),
            finding("absent", [1.0], (good, absent)),
            finding("both", [1.0], (bad, absent)),
        ],
        table,
        "laptop",
    ).set_index("finding")
    assert found["verdict"].to_dict() == {
        "good": "reproduced", "bad": "not testable here", "absent": "not run", "both": "not testable here",
    }  # fmt: skip
    assert found["regime"]["bad"] == "accuracy at least 0.8 (is 0.85); attacked at least 0.1 and at most 0.5 (is 0.85)"
    assert set(found.index[found["decided"]]) == {"good"}
    assert set(judged([finding("good", [1.0], (good,))], table, "gpu")["verdict"]) == {"not testable here"}
    nothing = judged([finding("good", [1.0])], table.iloc[:0], "gpu")  # a profile without records
    assert set(nothing["verdict"]) == {"not run"} and not nothing["decided"].any() and not nothing["fact"].any()


def test_a_value_near_a_bound_has_the_digits_that_tell_them_apart():
    bounded = Regime("accuracy", level("x"), 0.75)
    values = (0.7499996, "0.7499996"), (0.75, "0.75"), (0.7512, "0.751"), (0.31234, "0.312")
    assert [bounded.told(Result(value, 0, 1, 2), "laptop") for value, _ in values] == [said for _, said in values]


def test_multiplicity_is_that_of_benjamini_and_hochberg():
    chance = pd.DataFrame({"setting": "a", "seed": range(4)} | {f"x{i}": [0.1, 0.2, 0.3, 1.2] for i in range(9)})
    chance["less"] = [-0.1, -0.2, -0.3, -0.35]
    chance["y"] = [1.0, 1.01, 1.02, 0.99]
    sides = [(c, Test(level(c), threshold=0.7 * (c == "y"))) for c in chance.columns[2:]]
    tests = [Finding(f"f{label}", "", "", "", ((label, test),)) for label, test in sides]
    found = judged(tests, chance, "laptop").set_index("finding")
    assert found["verdict"]["fy"] == found["corrected"]["fy"] == "reproduced"
    assert (found["verdict"]["fless"], found["corrected"]["fless"]) == ("contradicted", "inconclusive")
    assert found["p"]["fy"] == pytest.approx(stats.ttest_1samp(chance["y"], 0.7).pvalue)
    assert (found["adjusted"] >= found["p"]).all()
    by_rank = found["p"].sort_values()
    steps = by_rank * len(by_rank) / np.arange(1, len(by_rank) + 1)
    assert found["adjusted"].to_dict() == pytest.approx(steps[::-1].cummin().clip(upper=1).to_dict())
    facts = [Finding(f"fact {i}", "", "", "", (("", Test(fact(lambda: 1.0))),)) for i in range(9)]
    outside = [Finding("outside", "", "", "", tests[-1].tests, (Regime("", level("y"), 2.0),))]
    with_facts = judged(tests + facts + outside, chance, "laptop").set_index("finding")
    assert with_facts["adjusted"][found.index].equals(found["adjusted"])  # neither makes others more certain
    assert set(with_facts["corrected"][[one.id for one in facts]]) == {"reproduced"}


def test_a_rule_younger_than_a_record_that_it_decides_is_post_hoc(monkeypatch):
    monkeypatch.setitem(FIXED, "abc", ("2026-01-02T00:00:00+00:00", "", "c"))
    table = pd.DataFrame({"setting": "a", "layer": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "x": [1.0, 2, 1, 2]})
    table["date"] = ["2026-01-01T00:00:00+00:00"] * 2 + ["2026-01-03T00:00:00+00:00"] * 2
    both = [Finding(layer, "", "", "", (("", Test(level("x", layer=layer))),), fixed="abc") for layer in ("a", "b")]
    assert judged(both, table, "laptop").set_index("finding")["post_hoc"].to_dict() == {"a": True, "b": False}
    assert not judged(both, table.drop(columns="date"), "laptop")["post_hoc"].any()


def test_the_best_of_all_waits_for_all_that_are_planned():
    table = pd.DataFrame({"setting": [*"aabbcc"], "layer": [*"aabbcc"], "seed": [0, 1] * 3})
    table = table.assign(learns=table["layer"] != "a", x=[1.0, 1.1, 0.5, 0.6, 0.3, 0.3])
    claim = Finding("a", "", "", "", (("", Test(best("x", {"layer": "a"}, {"learns": True}, highest=True))),))
    for learns, verdict in ((True, "not run"), (False, "reproduced")):
        assert set(judged([claim], table, "laptop", [{"layer": "d", "learns": learns}])["verdict"]) == {verdict}
    table.loc[table["layer"] == "b", "x"] = np.nan  # it is there, and was not measured
    assert set(judged([claim], table, "laptop")["verdict"]) == {"not run"}


def digest(findings):
    """Eight hexadecimal digits of all that decides: tests, sides, thresholds, margins, regimes."""
    decisive = [
        (
            one.id,
            [(label, test.rule) for label, test in one.tests],
            [(r.label, str(r.least), r.most) for r in one.regime],
        )
        for one in findings
    ]
    return hashlib.sha256(repr(decisive).encode()).hexdigest()[:8]


def test_numbers_are_told_to_the_digit_that_decides():
    test = above("x", {}, threshold=-0.005)
    found = Result(0.0061, -0.0048, 0.017, 3)
    assert test.told(found) == "0.0061 [-0.0048,\N{NO-BREAK SPACE}0.0170]"
    assert test.told(found._replace(low=-0.00475)).startswith("0.0061 [-0.0047,")
    assert above("x", {}, threshold=-0.1).told(found).startswith("0.006 [-0.005,")
    assert test.told(found._replace(low=np.nan)).startswith("0.006 [nan,")
    assert test.told(found._replace(seeds=0)) == "0.0061"


def test_every_rule_is_as_it_was_when_it_was_fixed():
    known = [one for study in studies.STUDIES.values() for one in study.findings]
    for commit, (time, said, names) in FIXED.items():
        own = [one for one in known if one.fixed == commit]
        assert not names or {*names.split()} == {one.id for one in own}
        assert time and digest(own) == said, (
            f"a rule of {commit} was changed: give findings that changed an entry of their own in FIXED; {digest(own)}"
        )


LONG = "a claim that goes on and on " * 8


@pytest.fixture
def decided():
    table = pd.DataFrame({"setting": "a", "seed": [0, 1, 2], "x": [0.31, 0.32, 0.33], "date": "2030"})
    table["z"] = table["x"] + 0.1
    tests = ("level of x", above(level("x"), threshold=0.1)), ("below", below(level("z"), threshold=0.2, ours=True))
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
    assert lines[0].startswith("partly") and "laptop" in lines[0] and "one-1" in lines[0] and "0.420 [" in lines[0]
    assert lines[1].startswith("not testable here") and lines[2].startswith("not run")


def test_the_whole_of_one(decided):
    text = whole(decided[decided["finding"] == "one-1"], 80)
    assert max(map(len, text.splitlines())) <= 80
    parts = ("Table 1", "1 as claimed, 1 the other way", "another paper", "we ask this", "3 seeds", "gpu: not run")
    for part in (*parts, "claimed, p"):
        assert part in " ".join(text.split())
    hint = "or of one seed: no interval; or none has the column"
    assert hint not in text and hint in " ".join(whole(decided[decided["finding"] == "one-3"], 80).split())
