"""Corruption errors of networks whose answers are known."""

import pytest
import torch
from torch import nn

from aliasing.datasets.corruptions import corrupt
from aliasing.errors import UsageError
from aliasing.metrics import corruption_error

torch.set_num_threads(1)


class Bright(nn.Module):
    """Says 1 for an image whose mean is above one half."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def noisy_pictures(n=20):
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_a_network_that_reads_the_mean_fails_by_hand():
    # Grey 102 (0.4): brightness adds .05 .1 .15 .2 .3, so that the mean passes one half from severity 3 on.
    images, labels = torch.full((4, 3, 32, 32), 102, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    found = corruption_error(Bright(), images, labels, ("brightness", "contrast"), (1, 3, 5))
    assert found.table.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert found.mean.value == pytest.approx(1 / 3)
    assert found.mean.n == 4
    assert found.by_name["brightness"].value == pytest.approx(2 / 3)
    assert found.by_name["contrast"].value == 0


def test_cells_do_not_depend_on_batches_or_on_other_cells():
    # On grey images a filter of mean zero sees nothing but the noise, so that its answers tell draws apart.
    images, labels = torch.full((20, 3, 8, 8), 128, dtype=torch.uint8), torch.zeros(20, dtype=torch.long)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3, bias=False))
    with torch.no_grad():
        model[1].weight -= model[1].weight.mean(1, keepdim=True)
    whole = corruption_error(model, images, labels, ("gaussian_noise", "impulse_noise", "fog"), (1, 5), batch_size=20)
    parts = corruption_error(model, images, labels, ("impulse_noise",), (5,), batch_size=3)
    assert 0 < parts.mean.value < 1
    assert whole.wrong[:, 1, 1].equal(parts.wrong[:, 0, 0])
    assert not whole.wrong[:, 1, 0].equal(parts.wrong[:, 0, 0])
    other = corruption_error(model, images, labels, ("impulse_noise",), (5,), torch.Generator().manual_seed(9))
    assert not other.wrong.equal(parts.wrong)


def test_equals_a_loop_over_images_and_cells():
    images, labels = noisy_pictures(9), torch.arange(9) % 2
    names, severities = ("fog", "pixelate", "contrast"), (2, 4)
    stored = {(name, severity): corrupt(images, name, severity) for name in names for severity in severities}
    found = corruption_error(
        Bright(), images, labels, names, severities, batch_size=4, source=lambda n, s, part: stored[n, s][part]
    )
    rows = []
    for i in range(9):
        for name in names:
            for severity in severities:
                bright = sum((stored[name, severity][i] / 255).flatten().tolist()) / 192 > 0.5
                rows.append((name, severity, bright != bool(labels[i])))
    for a, name in enumerate(names):
        for b, severity in enumerate(severities):
            wrong = [miss for own, level, miss in rows if (own, level) == (name, severity)]
            assert found.table[a, b].item() == pytest.approx(sum(wrong) / 9)
        wrong = [miss for own, _, miss in rows if own == name]
        assert found.by_name[name].value == pytest.approx(sum(wrong) / 18)
    assert found.mean.value == pytest.approx(sum(miss for *_, miss in rows) / 54)
    assert 0 < found.mean.value < 1


def test_bad_input_is_named():
    images, labels = noisy_pictures(), torch.zeros(20, dtype=torch.long)
    with pytest.raises(UsageError, match="unknown corruption"):
        corruption_error(Bright(), images, labels, ("rain",))
    with pytest.raises(UsageError, match="one label per image"):
        corruption_error(Bright(), images, labels[:2])
    with pytest.raises(UsageError, match="at least one corruption"):
        corruption_error(Bright(), images, labels, ())
    for scale, reason in ((1.0, "in .0, 1., got 0 to 255"), (1 / 255, "must be bytes")):
        with pytest.raises(UsageError, match=reason):
            corruption_error(Bright(), images.float() * scale, labels, ("fog",), (1,))
