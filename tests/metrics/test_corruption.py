"""Corruption errors of networks whose answers are known."""

import numpy as np
import pytest
import torch
from torch import nn

from aliasing.datasets.corruptions import corrupt
from aliasing.metrics import corruption_error
from aliasing.metrics.robustness import corrupted
from tests.toys import Answer

# Says 1 for an image whose mean is above one half.
BRIGHT = Answer(lambda x: (x.mean((1, 2, 3))[:, None] - 0.5) * torch.tensor([-1, 1]))


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
    weak, strong = (corrupted(images)("gaussian_noise", severity) > 128 for severity in (1, 5))
    assert (weak == strong).float().mean() < 0.7  # not the same noise with another strength


def test_equals_a_loop_over_images_and_cells():
    images = torch.randint(0, 128, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = (images + 12 * torch.arange(9)[:, None, None, None]).to(torch.uint8)
    labels = torch.arange(9) % 2
    names, severities = ("fog", "pixelate", "brightness"), (2, 4)
    stored = {(name, severity): corrupt(images, name, severity) for name in names for severity in severities}
    found = corruption_error(BRIGHT, images, labels, names, severities, batch_size=4, source=lambda *cell: stored[cell])
    bright = [[stored[name, s].double().mean((1, 2, 3)) > 127.5 for s in severities] for name in names]
    wrong = np.array(bright) != labels.bool().numpy()
    assert (wrong[:, 0] != wrong[:, 1]).any()
    np.testing.assert_allclose(found.table, wrong.mean(2))
    for name, misses in zip(names, wrong, strict=True):
        assert found.by_name[name].value == pytest.approx(misses.mean())
    assert found.mean.value == pytest.approx(wrong.mean())
    assert 0 < found.mean.value < 1
