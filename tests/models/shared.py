"""What the tests of networks share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.toys import Custom


def images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def called(reduce: Callable[[Tensor], Tensor]) -> Custom:
    """A network that drops samples in a given way, by a function call."""
    conv, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1)
    return Custom(lambda n, x: n.last(n.reduce(n.conv(x).relu())), conv=conv, reduce=reduce, last=last)


def strided() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3, 2, 1)


def residual() -> Custom:
    """One activation module used twice, as in many residual blocks."""
    torch.manual_seed(0)
    return Custom(
        lambda n, x: n.relu(n.conv2(n.relu(n.bn1(n.conv1(x)))) + n.side(x)),
        conv1=nn.Conv2d(3, 4, 3, 2, 1),
        bn1=nn.BatchNorm2d(4),
        conv2=nn.Conv2d(4, 4, 3, 1, 1),
        side=nn.Conv2d(3, 4, 1, 2),
        relu=nn.ReLU(),
    )
