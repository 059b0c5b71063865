"""Costs counted by hand."""

import pytest
import torch
from torch import nn

from aliasing.layers import create
from aliasing.metrics.costs import count_flops, count_parameters
from aliasing.models.blocks import Style, Unit
from tests.toys import Custom


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # 8 x 8 out of (9, 12): 9 * 12 * 8 * 27 products
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),  # (5, 6): 5 * 6 * 8 * 9
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),  # 40
    )


MACS = 9 * 12 * 8 * 27 + 5 * 6 * 8 * 9 + 40


def test_operations_by_hand():
    model = network().train()
    before = [buffer.clone() for buffer in model.buffers()]
    assert count_flops(model, (9, 12)) == 2 * MACS
    assert model.training
    assert all(a.equal(b) for a, b in zip(before, model.buffers(), strict=True))
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("layer", "macs"), [("subsample", 5 * 6 * 8 * 27), ("tri-3", 9 * 12 * 8 * 27 + 8 * (5 * 9 * 12 + 5 * 12 * 6))]
)
def test_a_strided_convolution_costs_what_it_keeps(layer, macs):
    """5 x 6 pixels are kept of (9, 12). A filter sees the dense map, and is two products with matrices."""
    unit = Unit(Style(layer), 3, 8, stride=2).train()
    assert count_flops(unit, (9, 12)) == 2 * macs
    assert all(module.training for module in unit.modules())


def test_products_with_sparse_matrices_count():
    """The rows of this map are halved by one, with three taps beyond the border; the columns by a dense matrix."""
    macs = (5 * 512 - 3) * 1024 + 512 * 1024 * 512
    assert count_flops(create("bin-5", 1), (1, 1024, 1024)) == 2 * macs


@pytest.mark.parametrize("fast", [True, False])
def test_attention_counts_as_its_products(fast):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = Custom(lambda n, x: n.layer(x.flatten(2).mT), layer=layer)
    torch.backends.mha.set_fastpath_enabled(fast)
    try:  # of 16 tokens of 8 channels: four projections, two products of tokens with tokens, two layers
        assert count_flops(model, (8, 4, 4)) == 2 * (16 * 8 * 8 * 4 + 2 * 16 * 16 * 8 + 16 * 8 * 16 * 2)
        assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_grey_images_and_other_precisions():
    conv = nn.Conv2d(1, 2, 3)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert count_flops(conv.to(dtype), (1, 5, 5)) == 2 * 9 * 2 * 9


def test_parameters_by_hand():
    model = network()
    assert count_parameters(model) == 8 * 27 + 16 + 8 * 9 + 8 + 8 * 5 + 5
    model[3].weight.requires_grad_(False)
    assert count_parameters(model) == 8 * 27 + 16 + 8 + 8 * 5 + 5
    shared = nn.Linear(4, 4, bias=False)
    assert count_parameters(nn.Sequential(shared, nn.ReLU(), shared)) == 16
