"""Several processes train one network: from the command line, killed and started again."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from aliasing import datasets, layers, torchrun
from aliasing.cli import main
from aliasing.distributed import device_of_process
from aliasing.errors import UsageError
from aliasing.studies.bases import BASES
from aliasing.training import Recipe, train
from tests.toys import write


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

    return lambda *a: train(*a[:6], lambda entry: (on_epoch(entry), a[6](entry)), *a[7:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_the_cluster_profile_on_a_folder_of_pictures(tmp_path, monkeypatch):
    """By the command that a user types: two processes, one of which is killed after its first epoch, whereupon both
    are started again and go on.
    """
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 10), ("val", 3)):
        for label, name in enumerate(("dark", "bright")):
            noise = torch.randint(128, (count, 3, 20, 18), generator=generator, dtype=torch.uint8)
            write(tmp_path / "pictures" / part / name, noise + 100 * label)
    command = ["run", "zhang2019", "--profile", "cluster", "--device", "cpu", "--quiet", "--only", "layer=subsample"]
    monkeypatch.setenv("ALIASING_DATA", str(tmp_path / "pictures"))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    launcher = [sys.executable, *launcher, "--monitor-interval=0.1", __file__, *command]
    own = {"ALIASING_MEMORY": "0", "ALIASING_RUNS": str(tmp_path / "two"), "KILLED": str(tmp_path / "killed")}
    own |= {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    said = subprocess.run(launcher, env=os.environ | own, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.strip() == "zhang2019 (cluster): 1 done"
    assert (tmp_path / "killed").exists()
    (path,) = (tmp_path / "two").glob("*/record.json")
    record = json.loads(path.read_text())
    assert record["provenance"]["training"]["processes"] == 2
    assert len(record["measurements"]) > 1
    training = record["measurements"]["training"]
    assert training["data"] == "pictures" and training["loss"][-1] < training["loss"][0]


def trained(rank: int, processes: int, folder: Path) -> None:
    """In one of the processes: without batch statistics, which CPUs do not share; the shares of a batch are unequal."""
    if processes > 1:
        torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=processes)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    data, recipe = datasets.load("shapes", "train", count=20), Recipe(epochs=2, batch_size=5, label_smoothing=0.0)
    (entry, *_) = train(network, data, recipe, 0, "cpu")[-1:]
    masks = torch.zeros(8, 8, 8, dtype=torch.uint8)
    masks[:4], masks[4:, :3] = 255, 1  # all that one process has of some batch
    scenes = datasets.ImageSet(masks[:, None].repeat(1, 3, 1, 1), torch.zeros(8).long(), ("a",), "scenes", masks)
    tips = layers.create("tips", 3, faithful=True)
    segmenting = nn.Sequential(nn.Conv2d(3, 3, 1), tips, nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 1))
    recipe = Recipe(epochs=2, batch_size=4, target="masks", auxiliary=0.3)
    (last, *_) = train(segmenting, scenes, recipe, 0, "cpu")[-1:]
    if rank == 0:
        told = [one[name] for one in (entry, last) for name in ("loss", "accuracy")]
        torch.save([network.state_dict(), segmenting.state_dict(), told], folder / f"{processes}.pt")


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    trained(0, 1, tmp_path)
    torch.multiprocessing.spawn(trained, (2, tmp_path), nprocs=2)
    torch.testing.assert_close(torch.load(tmp_path / "2.pt"), torch.load(tmp_path / "1.pt"), rtol=1e-5, atol=1e-5)


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


def test_torchrun_and_workers_do_not_mix(monkeypatch, typed):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert "leave --workers 2 out" in typed("run", "zhang2019", "--profile", "smoke", "--workers", "2", status=2).err


if __name__ == "__main__":  # in the processes of the test of the cluster profile
    tiny()
    torchrun.train = until_killed(torchrun.train)
    sys.exit(main())
