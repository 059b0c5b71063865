"""bfloat16: which processors multiply it fast, and what stands in on those that do not."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.convolution.default, _ATEN.convolution_backward.default, _ATEN.mm.default, _ATEN.addmm.default,
             _ATEN.bmm.default, _ATEN.baddbmm.default}  # fmt: skip


def is_fast(device: torch.device) -> bool:
    """Whether ``device`` has instructions that multiply bfloat16, and PyTorch uses them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    able: dict = getattr(torch.cpu, "get_capabilities", dict)()
    known = any(able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))  # the last is ARM's
    return device.type == "cpu" and known and torch.backends.mkldnn.is_available()


class InFloat32(TorchDispatchMode):
    """Multiplies and adds bfloat16 in float32 and rounds the sums, which is what the instructions for it do.

    Only the order of the terms differs, as between any two processors. PyTorch's own convolutions of bfloat16 take
    twelve times as long as these where there are no such instructions.
    """

    def __torch_dispatch__(
        self, func: Callable, types: Sequence, args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """``func``, in float32 if it multiplies bfloat16."""
        if func in _PRODUCTS and args[0].dtype is torch.bfloat16:
            product = func(*tree_map_only(Tensor, Tensor.float, args), **(kwargs or {}))
            return tree_map_only(Tensor, Tensor.bfloat16, product)
        return func(*args, **(kwargs or {}))


def bfloat16_products(device: torch.device) -> AbstractContextManager:
    """Where training in bfloat16 on ``device`` goes on, forwards and backwards: as fast as in float32 at least."""
    return InFloat32() if device.type == "cpu" and not is_fast(device) else nullcontext()
