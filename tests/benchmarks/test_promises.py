"""The table of promises tells layers that keep them from layers that do not."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import BLURS, promises
from benchmarks.promises import CHECKS, examine, ours, peers_table, write_peers


class Breaker(nn.Module):
    """Breaks every promise: floor sizes from 2 x 2, one dtype, brightens, no gradients, no graph, a buffer."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride
        self.register_buffer("taps", torch.ones(1))

    def forward(self, x):
        if not len(x) or x.dtype != torch.float32:
            raise ValueError("not for me")
        if x.sum().item() == 0:
            return x
        return nn.functional.avg_pool2d(2 * x.detach() * self.taps, self.stride).contiguous()


def test_a_layer_that_breaks_all_is_found_out():
    found = examine(lambda channels, stride: Breaker(stride))
    assert found.pop("right sizes at stride") == "1; 2: 25 %; 3: 11 %; 4: 6 %"
    assert set(found) == set(CHECKS)
    assert set(found.values()) == {"no"}, found


@pytest.mark.parametrize("name", ["bin-5", "asap", "lps", "ddac"])
def test_ours_keep_them(name):
    found = examine(ours()[name])
    assert found.pop("right sizes at stride") == ("2, 3, 4" if name == "asap" else "1, 2, 3, 4")
    if name == "ddac":  # it contains a batch norm
        assert found.pop("no buffers stored") == "no"
    assert set(found.values()) == {"yes"}, found


def test_answers_of_peers_are_kept_for_machines_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr(promises, "_SIZES", (1, 4, 5))
    write_peers(tmp_path / "peers.json")
    kept = json.loads((tmp_path / "peers.json").read_text())
    assert kept["rows"]["timm.layers.BlurPool2d, 3 taps"]["gradient"] == "yes"
    monkeypatch.setattr(promises, "blur_of", lambda package: None)
    rows = peers_table(tmp_path / "peers.json")
    (name,) = [name for name in rows.index if name.startswith("timm.layers.BlurPool2d, 3 taps")]
    assert name.endswith(f"(timm {kept['versions']['timm']}, measured {kept['measured']})")
    assert dict(rows.loc[name]) == kept["rows"]["timm.layers.BlurPool2d, 3 taps"]


def test_the_published_answers_cover_every_peer():
    kept = json.loads((Path(__file__).parents[2] / "data" / "peers.json").read_text())
    assert set(kept["rows"]) == {f"{'.'.join(place)}, {taps} taps" for place in BLURS.values() for taps in (3, 5)}
    assert all(set(row) == {"right sizes at stride", *CHECKS} for row in kept["rows"].values())
