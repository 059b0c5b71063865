"""Mixed precision on processors without instructions for bfloat16."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aliasing import precision
from aliasing.precision import InFloat32, bfloat16_products, is_fast
from aliasing.training import Recipe, train
from tests.test_training import toy_data, toy_network


def products(dtype: torch.dtype) -> list[Tensor]:
    """Strided, grouped and padded filters with the gradients of all their operands, and products of matrices."""
    draw = torch.Generator().manual_seed(0)
    maps, filters, bias = (
        torch.randn(size, generator=draw).bfloat16().to(dtype).requires_grad_()
        for size in ((2, 4, 9, 9), (6, 2, 3, 3), (6,))
    )
    found = torch.nn.functional.conv2d(maps, filters, bias, stride=2, padding=1, groups=2)
    found.backward(torch.randn(found.shape, generator=draw).bfloat16().to(dtype))
    first, second = (torch.randn(3, 5, 5, generator=draw).bfloat16().to(dtype) for _ in range(2))
    matrices = [first[0] @ second[0], first @ second, torch.addmm(first[0], first[1], second[0]),
                torch.baddbmm(first, first, second)]  # fmt: skip
    return [found.detach(), maps.grad, filters.grad, bias.grad, *matrices]


def test_products_are_exact_up_to_one_rounding():
    with InFloat32():
        ours = products(torch.bfloat16)
    for own, exact in zip(ours, products(torch.float64), strict=True):
        assert own.dtype == torch.bfloat16
        torch.testing.assert_close(own.double(), exact, rtol=2**-8, atol=1e-5)


class Seen(TorchDispatchMode):
    """Notes what is multiplied in which type."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("convolution", "convolution_backward", "mm", "addmm"):
            self.types.add((func.overloadpacket.__name__, args[0].dtype))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fast", [True, False])
def test_training_multiplies_bfloat16_only_where_there_are_instructions(monkeypatch, fast):
    monkeypatch.setattr(precision, "is_fast", lambda device: fast)
    network = toy_network()
    network[0].bias = None  # Muon's
    recipe = Recipe(epochs=1, batch_size=8, precision="bfloat16", optimizer="muon", rest_lr=0.1)
    with Seen() as seen:
        train(network, toy_data(), recipe, 0)
    expected = torch.bfloat16 if fast else torch.float32
    assert {name for name, _ in seen.types} >= {"convolution", "convolution_backward", "addmm"}
    assert all(dtype == expected for _, dtype in seen.types), seen.types


def test_other_devices_are_left_alone():
    assert not isinstance(bfloat16_products(torch.device("mps")), InFloat32)
    assert isinstance(bfloat16_products(torch.device("cpu")), InFloat32) is not is_fast(torch.device("cpu"))
