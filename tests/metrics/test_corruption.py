"""Corruption errors of networks whose answers are known, and their normalisations worked out by hand."""

import pytest
import torch
from torch import nn

from aliasing.datasets.corruptions import NAMES, SEVERITIES, corrupt
from aliasing.errors import UsageError
from aliasing.metrics.corruption import (
    ALEXNET,
    CorruptionErrors,
    corruption_error,
    mean_corruption_error,
    relative_corruption_error,
)

torch.set_num_threads(1)


class Bright(nn.Module):
    """Says 1 for an image whose mean is above one half."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def noisy_pictures(n=20):
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def random_errors(rates, n=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(n, len(rates), 5, generator=generator) < torch.tensor(rates)[:, None]
    return CorruptionErrors(wrong, NAMES[: len(rates)], SEVERITIES)


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


def test_stored_images_are_used_where_there_are_any():
    images, labels = noisy_pictures(), torch.zeros(20, dtype=torch.long)
    stored = corrupt(images, "fog", 4)
    asked = []

    def source(name, severity, part):
        asked.append((name, severity))
        return stored[part]

    found = corruption_error(Bright(), images, labels, ("fog",), (4,), batch_size=7, source=source)
    assert found.wrong[:, 0, 0].equal((stored / 255.0).mean((1, 2, 3)) > 0.5)
    assert asked == [("fog", 4)] * 3


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


def test_mce_equals_a_loop():
    errors = random_errors([0.1 + 0.05 * i for i in range(15)], n=60)
    ratios = []
    for i, name in enumerate(NAMES):
        cells = [errors.wrong[n, i, s].item() for n in range(60) for s in range(5)]
        ratios.append(sum(cells) / len(cells) / ALEXNET[name])
    assert mean_corruption_error(errors).value == pytest.approx(sum(ratios) / 15)


def test_mce_by_hand():
    wrong = torch.zeros(2, 15, 5, dtype=torch.bool)
    wrong[0] = True  # half of the answers wrong everywhere
    found = mean_corruption_error(CorruptionErrors(wrong, NAMES, SEVERITIES))
    assert found.value == pytest.approx(sum(0.5 / error for error in ALEXNET.values()) / 15)
    rates = torch.tensor(list(ALEXNET.values()))[:, None]
    draws = torch.rand(4000, 15, 5, generator=torch.Generator().manual_seed(0))
    alexnet = CorruptionErrors(draws < rates, NAMES, SEVERITIES)
    assert mean_corruption_error(alexnet).value == pytest.approx(1, abs=0.02)


def test_mce_needs_the_whole_table():
    with pytest.raises(UsageError, match="all 15 corruptions"):
        mean_corruption_error(random_errors([0.5, 0.2]))


def test_relative_error_is_the_mean_of_ratios():
    own, other = random_errors([0.3, 0.6, 0.1], seed=1), random_errors([0.6, 0.5, 0.4], seed=2)
    ratios = own.table.sum(1) / other.table.sum(1)
    found = relative_corruption_error(own, other)
    assert found.value == pytest.approx(ratios.mean().item())
    assert found.low < found.value < found.high
    itself = relative_corruption_error(own, own)
    assert tuple(itself)[:3] == pytest.approx((1, 1, 1))


def test_interval_of_the_relative_error_matches_resampling():
    own, other = random_errors([0.3, 0.6], seed=1), random_errors([0.6, 0.5], seed=2)
    found = relative_corruption_error(own, other)
    generator, draws = torch.Generator().manual_seed(3), []
    for _ in range(800):
        index = torch.randint(400, (400,), generator=generator)
        draws.append((own.wrong[index].double().mean((0, 2)) / other.wrong[index].double().mean((0, 2))).mean())
    spread = torch.stack(draws).std().item()
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_interval_of_the_relative_error_covers():
    """Some images are harder than others for both networks; the ratios are 0.5 and 1.2."""
    generator = torch.Generator().manual_seed(4)
    hard = 0.5 + 0.5 * torch.rand(2000, 100, 1, 1, generator=generator)
    own, other = (
        torch.rand(2000, 100, 2, 5, generator=generator) < hard * torch.tensor(rates)[:, None]
        for rates in ((0.3, 0.6), (0.6, 0.5))
    )
    estimates = [
        relative_corruption_error(*(CorruptionErrors(wrong, NAMES[:2], SEVERITIES) for wrong in pair))
        for pair in zip(own, other, strict=True)
    ]
    covered = sum(low <= 0.85 <= high for _, low, high, _ in estimates) / 2000
    assert 0.93 <= covered <= 0.97


def test_bad_input_is_named():
    images, labels = noisy_pictures(), torch.zeros(20, dtype=torch.long)
    with pytest.raises(UsageError, match="unknown corruption"):
        corruption_error(Bright(), images, labels, ("rain",))
    with pytest.raises(UsageError, match="one label per image"):
        corruption_error(Bright(), images, labels[:2])
    with pytest.raises(UsageError, match="at least one corruption"):
        corruption_error(Bright(), images, labels, ())
    with pytest.raises(UsageError, match="the same images"):
        relative_corruption_error(random_errors([0.5]), random_errors([0.5, 0.5]))
    with pytest.raises(UsageError, match="makes no error"):
        relative_corruption_error(random_errors([0.5]), random_errors([0.0]))
