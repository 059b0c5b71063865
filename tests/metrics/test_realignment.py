"""Errors after realignment: equivariant, polyphase and other networks, and a slow version."""

import pytest
import torch

from aliasing import models
from aliasing.errors import UsageError
from aliasing.metrics.motion import ONE_PIXEL_ROLLS, realigned, realigned_errors


def _maps(seed=0, shape=(3, 2, 6, 4)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_moved_map_has_no_error_up_to_the_reach():
    maps = _maps()
    assert realigned(maps, maps.roll((1, -1), (2, 3))).max() == 0
    assert realigned(maps, maps.roll(2, 2)).min() > 0.1
    assert realigned(maps, maps.roll(2, 2), reach=2).max() == 0


def test_the_error_is_relative_to_the_first_map():
    maps = _maps()
    assert realigned(maps, torch.zeros_like(maps)) == pytest.approx(1)
    with pytest.raises(UsageError, match="one shape"):
        realigned(maps, maps[:2])


def _network(layer):
    torch.manual_seed(0)
    return models.create("vgg-small", 10, downsample=layer, padding_mode="circular", width=4).double().eval()


@pytest.mark.parametrize(("layer", "exact"), [("aps", True), ("lps", True), ("bin-5", False), ("tips", False)])
def test_only_selection_is_exact(layer, exact):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = realigned_errors(_network(layer), images, batch_size=3)
    assert len(errors.maps) == 4
    assert (max(errors.maps) < 1e-12) == (errors.pooled < 1e-12) == exact


def test_against_a_slow_version():
    network = _network("subsample")
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    worst = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for down, right in ONE_PIXEL_ROLLS:
            for index, image in enumerate(images):
                plain, moved = (network.stages[0](x) for x in (image[None], image.roll((down, right), (1, 2))[None]))
                candidates = [plain.roll((i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
                error = min((moved - candidate).norm() for candidate in candidates) / plain.norm()
                worst[index] = max(worst[index], error)
    assert realigned_errors(network, images).maps[0] == pytest.approx(worst.mean().item())
