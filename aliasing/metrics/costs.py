"""What a network costs: floating point operations and parameters. ``benchmarks`` has times, of peers in turns."""

from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import UsageError
from ..inference import batches, evaluating


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers; a parameter that modules share counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_flops(model: nn.Module, size: tuple[int, ...] = (32, 32)) -> int:
    """Floating point operations for one image, counted by PyTorch operator by operator.

    ``size`` is (H, W) of an image of three channels, or (C, H, W). A strided convolution counts the pixels it keeps.
    What is counted is the implementation, not the definition of a layer: on the CPU a low-pass filter is a product with
    dense matrices where that is faster, which is more operations than taps times pixels, and where it is depends on the
    size and memory format of the map. So compare counts of one device and memory format. Only products count: Fourier
    transforms do not. Attention counts as the products that define it.

    A blank image goes through the network itself and not through a copy on PyTorch's "meta" device, since a layer
    that decides by the values of its input could not run there.
    """
    if not isinstance(size, (tuple, list)) or len(size) not in (2, 3):
        raise UsageError(f"size must be (H, W) or (C, H, W), got {size!r}")
    from torch.utils.flop_counter import FlopCounterMode  # loads PyTorch's compiler, which nothing else here needs

    aten = torch.ops.aten  # bags are how layers compute products with sparse matrices, see ``layers._matrices``
    bags = dict.fromkeys((aten._embedding_bag, aten._embedding_bag_forward_only), _of_bags)
    counter = FlopCounterMode(display=False, custom_mapping=bags)
    image, fast = next(batches(model, torch.zeros(1, *(3, *size)[-3:]), 1)), torch.backends.mha.get_fastpath_enabled()
    try:  # the counter does not see into what attention is fused to
        torch.backends.mha.set_fastpath_enabled(False)
        with evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            model(image)  # layers build their matrices once, which is no cost of an image
            with counter:
                model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def _of_bags(lines: Any, read: Any, *others: Any, **named: Any) -> int:
    """Operations of sums of ``read`` weighted ``lines`` (n, inner), given their shapes."""
    return 2 * prod(read) * lines[1]
