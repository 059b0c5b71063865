"""Standardisation inside the network, so that images stay in [0, 1] outside."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UsageError

__all__ = ["Normalized", "normalized"]


class Normalized(nn.Module):
    """A network that takes images in [0, 1]: ``(N, C, H, W) -> network((images - mean) / std)``.

    The keys of its ``state_dict`` are those of the network inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32)[:, None, None], persistent=False)
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    def standardise(self, images: Tensor) -> Tensor:
        """The images as the network inside expects them."""
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the network inside, ``(N, C)``."""
        return self.network.features(self.standardise(images))  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """The logits of the network inside."""
        return self.network(self.standardise(images))


def _drop_prefix(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    for key in [key for key in state if key.startswith(prefix + "network.")]:
        state[prefix + key.removeprefix(prefix + "network.")] = state.pop(key)


def _add_prefix(module: nn.Module, state: dict, prefix: str, *rest: object) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + "network." + key.removeprefix(prefix)] = state.pop(key)


def normalized(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Normalized:
    """Let ``network`` take images in [0, 1]: each channel is standardised by ``mean`` and ``std`` first.

    Raises:
        UsageError: lengths differ, or a standard deviation is not positive.
    """
    if len(mean) != len(std) or min(std, default=0) <= 0:
        raise UsageError(f"mean and std need one value per channel and std > 0, got {mean!r} and {std!r}")
    return Normalized(network, mean, std)
