"""Several processes train what one process trains: on equal batches, killed and restarted, from the command line."""

import json
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from aliasing import torchrun
from aliasing.cli import main
from aliasing.distributed import World, device_of_process, launched, world
from aliasing.errors import UsageError
from aliasing.studies.bases import BASES

SCRIPT = Path(__file__).parent / "torchrun_job.py"
JOB = runpy.run_path(str(SCRIPT))
SURROUNDINGS = {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def close(found: dict, expected: dict, tolerance: float = 2e-5) -> None:
    """Weights, running statistics and curves agree to float tolerance."""
    for key, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][key], value, rtol=tolerance, atol=tolerance, msg=key)
    assert found["curves"].keys() == expected["curves"].keys()
    for key, values in expected["curves"].items():
        assert found["curves"][key] == pytest.approx(values, abs=tolerance), key


@pytest.mark.slow
def test_two_and_three_processes_train_what_one_trains(tmp_path):
    """Every recipe in two and in three processes; and one training of which epochs 1 to 3 are done in three processes,
    epoch 4 in one, and epoch 5 in two.
    """
    subprocess.run([sys.executable, SCRIPT, tmp_path], env=os.environ | SURROUNDINGS, check=True)
    first, last = torch.load(tmp_path / "first.pt"), torch.load(tmp_path / "last.pt")
    for name in JOB["RECIPES"]:
        alone = JOB["trained"](name)
        another = JOB["trained"](name, seed=4)["weights"]
        for together in (first["equal"][name], last["equal"][name]):
            close(together, alone)
            with pytest.raises(AssertionError):  # the tolerance tells another order of the images
                close(together, {"weights": another, "curves": alone["curves"]})
    close(last["resumed"], JOB["trained"]("plain", epochs=5), 5e-5)


def tiny() -> None:
    """The plan of the cluster profile with sizes for toys."""
    base = BASES["cluster"]
    network = {"name": "vgg-small", "num_classes": 2, "width": 2, "padding_mode": "circular"}
    recipe = replace(base.recipe, epochs=2, batch_size=8)
    BASES["cluster"] = replace(base, dataset=base.dataset | {"size": 16}, vgg=network, count=4, recipe=recipe)


def until_killed(train):
    """``train``, but the second process is killed after the first epoch of its first life."""

    def on_epoch(entry: dict) -> None:
        if entry["epoch"] == 1 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            Path(os.environ["KILLED"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda *arguments: train(*arguments[:-1], lambda entry: (on_epoch(entry), arguments[-1](entry)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_the_cluster_profile_on_a_folder_of_pictures(tmp_path, monkeypatch):
    """By the commands that a user types: two processes, one of which is killed after its first epoch, whereupon both
    are started again, equal a process alone, also in the random parts that they see.
    """
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 10), ("val", 3)):
        for label, name in enumerate(("dark", "bright")):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for i in range(count):
                noise = torch.randint(128, (20, 18, 3), generator=generator, dtype=torch.uint8) + 100 * label
                Image.fromarray(noise.numpy()).save(tmp_path / "pictures" / part / name / f"{i}.png")
    command = ["run", "zhang2019", "--profile", "cluster", "--device", "cpu", "--quiet", "--only", "layer=subsample"]
    monkeypatch.setenv("ALIASING_DATA", str(tmp_path / "pictures"))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    launcher += ["--monitor-interval=0.1"]
    said = subprocess.run(
        [sys.executable, *launcher, __file__, *command],
        env=os.environ
        | SURROUNDINGS
        | {"ALIASING_MEMORY": "0", "ALIASING_RUNS": str(tmp_path / "two"), "KILLED": str(tmp_path / "killed")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert said.strip() == "zhang2019 (cluster): 1 done"
    assert (tmp_path / "killed").exists()
    monkeypatch.setitem(BASES, "cluster", BASES["cluster"])  # as it was, when the test is over
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "one"))
    tiny()
    assert main(command) == 0
    records = {}
    for store in ("one", "two"):
        (path,) = (tmp_path / store).glob("*/record.json")
        records[path.parent.name, store] = json.loads(path.read_text())
    (name, _), _ = records
    one, two = records[name, "one"], records[name, "two"]
    assert two["provenance"]["training"]["processes"] == 2
    assert one["measurements"].keys() == two["measurements"].keys()
    assert two["measurements"]["training"]["loss"] == pytest.approx(one["measurements"]["training"]["loss"], rel=1e-4)
    assert two["measurements"]["training"]["data"] == "pictures"


@pytest.mark.parametrize(("total", "size"), [(8, 2), (7, 2), (2, 3), (10, 4), (0, 3)])
def test_the_parts_of_a_batch_are_the_batch(total, size):
    parts = [World(rank, size).part(total) for rank in range(size)]
    assert [i for part in parts for i in range(total)[part.rows]] == list(range(total))
    sizes = [len(range(total)[part.rows]) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert {part.total for part in parts} == {total}


def test_a_process_alone_is_the_whole_world():
    assert not launched()
    assert world() == World(0, 1)
    assert (world().first("x"), world().all("x")) == ("x", ["x"])
    assert world().sum(torch.ones(2)).tolist() == [1, 1]


def test_devices_that_processes_cannot_share_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of_process(torch.device("cuda")) == torch.device("cuda", 1)
    assert device_of_process(torch.device("cpu")) == torch.device("cpu")
    for wrong in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"expected --device cuda or cpu, got '{wrong}'"):
            device_of_process(torch.device(wrong))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="process 2 of this machine has no GPU: there are 1"):
        device_of_process(torch.device("cuda"))


def test_torchrun_and_workers_do_not_mix(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert main(["run", "zhang2019", "--profile", "smoke", "--workers", "2"]) == 2
    assert "leave --workers 2 out" in capsys.readouterr().err


if __name__ == "__main__":  # in the processes of the test of the cluster profile
    tiny()
    torchrun.train = until_killed(torchrun.train)
    sys.exit(main())
