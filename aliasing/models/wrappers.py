"""Modules around a network, or a part of one, that leave the names in its ``state_dict`` alone."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import UsageError


class Wrapper(nn.Module):
    """A module around the submodule named ``around``, whose weights keep the names they had without the wrapper."""

    around: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)


def _drop_prefix(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    inside = f"{prefix}{module.around}."
    for key in [key for key in state if key.startswith(inside)]:
        state[prefix + key.removeprefix(inside)] = state.pop(key)


def _add_prefix(module: Wrapper, state: dict, prefix: str, *rest: object) -> None:
    inside = module._modules[module.around]  # keys may have the names of named_parameters() as well
    foreign = tuple(
        f"{prefix}{name}." for name in module._modules if name != module.around or not hasattr(inside, name)
    )
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(foreign)]:
        state[f"{prefix}{module.around}.{key.removeprefix(prefix)}"] = state.pop(key)


class Normalized(Wrapper):
    """A network that takes images in [0, 1], or bytes: ``(N, C, H, W) -> network((images - mean) / std)``.

    Raises:
        UsageError: ``mean`` and ``std`` differ in length, or a standard deviation is not positive.
    """

    around = "network"
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std, default=0) <= 0:
            raise UsageError(f"mean and std need one value per channel and std > 0, got {mean!r} and {std!r}")
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32)[:, None, None], persistent=False)

    def standardise(self, images: Tensor) -> Tensor:
        """The images as the network inside expects them."""
        images = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the network inside, ``(N, C)``."""
        return self.network.features(self.standardise(images))  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """The logits of the network inside."""
        return self.network(self.standardise(images))


normalized = Normalized
