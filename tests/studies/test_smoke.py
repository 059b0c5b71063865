"""What the smoke runs of every study are enough for: its table is complete, and every claim is decided."""

import pytest

from aliasing import studies
from aliasing.records import Store
from aliasing.studies.study import results


@pytest.mark.parametrize("study", studies.STUDIES)
def test_every_finding_is_decided_on_the_smoke_runs(study, smoke_runs):
    chosen = studies.get(study)
    jobs = chosen.jobs("smoke")
    table = results(jobs, Store(smoke_runs, smoke_runs / "none"))
    assert len(table) == len(jobs)
    decided = chosen.verdicts(table, "smoke").set_index("finding")["verdict"]
    planned = {
        finding.id
        for finding in chosen.findings
        if all(any(job.labels.items() >= setting.items() for job in jobs) for setting in finding.settings)
    }
    absent = {name for name, verdict in decided.items() if verdict == "not run"}
    # A network that is right about nothing has nothing to show among the pictures that it is right about.
    if_right = {"control-1", "azulay-4"}
    assert absent - if_right == set(decided.index) - planned - if_right
    assert len(planned) > 0.6 * len(chosen.findings)
    for count in (0, 1, 2, len(table) // 2, len(table) - 1):  # a campaign that was stopped there
        assert set(chosen.verdicts(table.head(count), "smoke")["finding"]) == set(decided.index)
    without = table.drop(columns=[name for name in table if name.startswith(("corruptions.", "one_pixel."))])
    less = chosen.verdicts(without, "smoke").set_index("finding")["verdict"]
    kept = less != "not run"
    assert kept.any() and (less[kept] == decided[kept]).all()  # what was not measured takes only what needs it
