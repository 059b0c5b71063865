"""The order in which a campaign spends its time."""

import pytest

from aliasing.errors import UsageError
from aliasing.records import Store
from aliasing.studies import STUDIES, campaign, worth
from aliasing.studies.order import VALUE


def test_a_campaign_has_every_run_of_every_study_once_with_all_that_is_measured_on_it():
    with pytest.raises(UsageError, match="smoke, laptop, desktop"):
        campaign("huge")
    jobs = campaign("laptop")
    asked = [
        (job.run.id, m.key) for study in STUDIES.values() for job in study.jobs("laptop") for m in job.measurements
    ]
    assert len({job.run.id for job in jobs}) == len(jobs)
    assert {(job.run.id, m.key) for job in jobs for m in job.measurements} == set(asked)


def test_a_chapter_comes_before_the_next_and_in_it_a_whole_seed_before_the_next():
    ordered = [job.run for job in campaign("desktop")]
    done = set()
    for study in VALUE:
        own = {job.run.id for job in study.jobs("desktop")} - done
        runs = ordered[len(done) : len(done) + len(own)]
        assert {run.id for run in runs} == own
        assert [run.seed for run in runs] == sorted(run.seed for run in runs)
        done |= own
    assert len(done) == len(ordered)


def test_a_run_is_worth_the_findings_that_need_it(tmp_path):
    needed = worth("laptop", Store(tmp_path, tmp_path / "none"))
    labels = {job.run.id: job.labels for job in STUDIES["zhang2019"].jobs("laptop", seeds=1)}
    longest = next(name for name, label in labels.items() if label["longest"] and not label["augmented"])
    middle = next(name for name, label in labels.items() if label["layer"] == "rect-2")
    assert needed[longest] >= 6 > needed[middle]
    assert not [run for run in needed if run not in {job.run.id for job in campaign("laptop")}]
