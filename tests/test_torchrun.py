"""Several processes train what one process trains: on equal batches, killed and restarted, from the command line."""

import contextlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from aliasing.cli import main
from aliasing.distributed import World, device_of_process, launched, world
from aliasing.errors import UsageError

SCRIPT = Path(__file__).parent / "torchrun_job.py"
JOB = runpy.run_path(str(SCRIPT))
ROOT = Path(__file__).parent.parent


def torchrun(processes: int, *arguments, restarts: int = 0, **environment) -> str:
    """Run a script in ``processes`` processes on this machine and return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [f"--max-restarts={restarts}", "--monitor-interval=0.1", *map(str, arguments)]
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=surroundings | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def close(found: dict, expected: dict, tolerance: float = 2e-5) -> None:
    """Weights, running statistics and curves agree to float tolerance."""
    for key, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][key], value, rtol=tolerance, atol=tolerance, msg=key)
    assert found["curves"].keys() == expected["curves"].keys()
    for key, values in expected["curves"].items():
        assert found["curves"][key] == pytest.approx(values, abs=tolerance), key


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_train_what_one_trains(tmp_path, processes):
    torchrun(processes, SCRIPT, "equal", tmp_path)
    together = torch.load(tmp_path / "equal.pt")
    for name in JOB["RECIPES"]:
        alone = JOB["trained"](name)
        close(together[name], alone)
        another = JOB["trained"](name, seed=4)["weights"]
        with pytest.raises(AssertionError):  # the tolerance tells another order of the images
            close(together[name], {"weights": another, "curves": alone["curves"]})


@pytest.mark.slow
def test_killed_restarted_and_resumed_on_other_numbers_of_processes(tmp_path):
    """Epochs 1 to 3 in two processes, one of which is killed; epoch 4 in one; epoch 5 in two."""
    torchrun(2, SCRIPT, "killed", tmp_path, restarts=1)
    assert torch.load(tmp_path / "killed.pt") == {"lives": 2}
    checkpoint = tmp_path / "checkpoint.safetensors"
    with contextlib.suppress(JOB["Stop"]):
        JOB["trained"]("plain", epochs=5, checkpoint=checkpoint, on_epoch=JOB["until"](4))
    torchrun(2, SCRIPT, "last", tmp_path)
    close(torch.load(tmp_path / "last.pt"), JOB["trained"]("plain", epochs=5), 5e-5)


CLUSTER = """
import sys
from dataclasses import replace
from aliasing import cli
from aliasing.studies.bases import BASES
base = BASES["cluster"]
tiny = {"name": "vgg-small", "num_classes": 2, "width": 2, "padding_mode": "circular"}
BASES["cluster"] = replace(
    base, dataset=base.dataset | {"size": 16}, vgg=tiny, count=4, recipe=replace(base.recipe, epochs=2, batch_size=8)
)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_the_cluster_profile_on_a_folder_of_pictures(tmp_path):
    """The plan of the profile with sizes for toys, pictures read from the disk; equal to a plain run in memory."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 10), ("val", 3)):
        for label, name in enumerate(("dark", "bright")):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for i in range(count):
                noise = torch.randint(128, (20, 18, 3), generator=generator, dtype=torch.uint8) + 100 * label
                Image.fromarray(noise.numpy()).save(tmp_path / "pictures" / part / name / f"{i}.png")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    command = ["run", "zhang2019", "--profile", "cluster", "--device", "cpu", "--quiet"]
    command += ["--only", "layer=subsample"]
    data = {"ALIASING_DATA": str(tmp_path / "pictures")}
    said = torchrun(2, script, *command, **data, ALIASING_MEMORY="0", ALIASING_RUNS=str(tmp_path / "two"))
    assert said.strip() == "zhang2019 (cluster): 1 done"
    alone = os.environ | data | {"ALIASING_RUNS": str(tmp_path / "one"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script, *command], env=alone, check=True, capture_output=True)
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
