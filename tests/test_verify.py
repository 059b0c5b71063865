"""Verification: a record that repeats, one that does not, and one that is not there."""

from aliasing.cli import main
from aliasing.records import Store, publish
from aliasing.runner import execute
from aliasing.studies import get

JOB = get("zhang2019").jobs("smoke", 1)[0]


def test_a_record_repeats_to_the_bit_and_a_changed_one_is_named(tmp_path, monkeypatch, capsys):
    """The record of a run of the smoke profile, published in a project of its own."""
    monkeypatch.chdir(tmp_path)
    path, store = tmp_path / "data/records/zhang2019.smoke.jsonl", Store(tmp_path / "runs")
    execute([JOB], store, "cpu", 1, progress=False)
    record = store.load(JOB.run)
    publish([record], path)
    assert main(["verify", JOB.run.id[:8]]) == 0
    assert "True" in capsys.readouterr().out
    key = next(key for key in record.measurements if key != "training")
    name, value = next((n, v) for n, v in record.measurements[key].items() if isinstance(v, dict))
    record.measurements[key][name] = value | {"value": value["value"] / 2 + 0.1}
    path.unlink()
    publish([record], path)
    assert main(["verify", JOB.run.id]) == 1
    assert f"{name}.value" in capsys.readouterr().out
    assert main(["verify", "0000000"]) == 2
    assert "begins none of those in the plans" in capsys.readouterr().err
