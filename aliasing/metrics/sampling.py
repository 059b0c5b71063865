"""Maximum-sampling bias: how often downsampling takes the maximum of its window (Saha and Gokhale 2025).

The published definition for operators that blend pixels is not known to us, so there are three, always named
(our choices): exact, nearest and weight.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers import TIPS
from ..layers.base import per_axis
from .downsampling import Sample, per_site
from .estimate import Estimate


class MaxSamplingBias(NamedTuple):
    """Shares of the windows (aligned blocks of one stride by the other) of a site; intervals over images.

    Constant windows, frequent behind a ReLU, would count for every operator and are left out of all but ``constant``.

    Attributes:
        exact: the output is the maximum, up to 1e-6 of the largest magnitude of the map.
        nearest: the sample of the window that is nearest to the output is the maximum; a tie does not count.
        weight: the sample with the largest weight is the maximum; ``None`` unless the output is a weighted sum over
            the window alone (subsampling, polyphase selections and mixtures, average pooling). A tie does not count.
        constant: windows without a maximum, among all windows.
    """

    exact: Estimate
    nearest: Estimate
    weight: Estimate | None
    constant: Estimate


def max_sampling_bias(model: nn.Module, images: Tensor, batch_size: int = 256) -> dict[str, MaxSamplingBias]:
    """Maximum-sampling bias of every downsampling site of ``model``, by site, on (N, 3, H, W) images.

    The window is that of the map the site samples: behind the dense max of a VGG, behind the convolution of a strided
    convolution. Bottom and right windows that the map does not fill, or that have no output, are skipped; of a pool
    whose own windows lie elsewhere, as those of ``MaxPool2d(2, padding=1)``, all are, and nothing is known (NaN).
    """
    counts = per_site(model, images, lambda sample: window_counts(model, sample), batch_size)
    return {site: bias_of(own) for site, own in counts.items()}


def bias_of(counts: Tensor) -> MaxSamplingBias:
    """The shares of what ``window_counts`` counted in all images (N, 5)."""
    total, constant, exact, nearest, weight = counts.unbind(1)
    uneven = total - constant
    return MaxSamplingBias(
        Estimate.ratio(exact, uneven),
        Estimate.ratio(nearest, uneven),
        None if weight.isnan().any() else Estimate.ratio(weight, uneven),
        Estimate.ratio(constant, total),
    )


def windows(x: Tensor, strides: tuple[int, int]) -> Tensor:
    """Aligned windows (N, C, H // s1, W // s2, s1 * s2) of a map (N, C, H, W), row by row."""
    (down, right), (rows, columns) = strides, (side // step for side, step in zip(x.shape[2:], strides, strict=True))
    blocks = x[:, :, : rows * down, : columns * right].reshape(*x.shape[:2], rows, down, columns, right)
    return blocks.transpose(3, 4).flatten(4)


def window_weights(model: nn.Module, sample: Sample) -> Tensor | None:
    """Weights of the samples of each window in the output, shaped like ``windows(sample.x)``, or ``None``.

    They are read off the operator itself, on the grid it chose for ``sample.x``: the response to the indicator of
    each position. ``None`` if it is no weighted sum (max pooling) or reaches beyond the window (filters).
    """
    x, (down, right) = sample.x, sample.strides
    rows, columns = x.shape[2] // down, x.shape[3] // right
    layer = model.get_submodule(sample.site)
    if isinstance(layer, TIPS):  # its weights depend on the input; the indicators would have their own
        whole = layer.complete(x)
        if whole.shape != x.shape:  # completed maps have other windows
            return None
        return layer.mixing_weights(whole)[:, :, None, None].expand(-1, -1, rows, columns, -1)
    parity = (torch.arange(x.shape[2])[:, None] // down + torch.arange(x.shape[3]) // right) % 2
    board = parity.to(x).expand_as(x)
    answer, squares = sample.operator(board), board[:, :, ::down, ::right]
    rows, columns = min(rows, answer.shape[2]), min(columns, answer.shape[3])
    if not torch.allclose(answer[:, :, :rows, :columns], squares[:, :, :rows, :columns]):
        return None
    responses = []
    for row in range(down):
        for column in range(right):
            indicator = torch.zeros_like(x)
            indicator[:, :, row::down, column::right] = 1
            responses.append(sample.operator(indicator)[:, :, :rows, :columns])
    weights = torch.stack(responses, -1)
    return weights if torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0])) else None


def _elsewhere(module: nn.Module) -> bool:
    """Whether the windows of a pool begin so far before the aligned blocks that they do not cover them."""
    if not isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        return False
    options = module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1)
    axes = zip(*map(per_axis, options), strict=True)
    return any(padding > 0 and dilation * (size - 1) + 1 - padding < stride for size, stride, padding, dilation in axes)


def window_counts(model: nn.Module, sample: Sample) -> Tensor:
    """Of a batch at one site (n, 5): windows, constant ones, and hits by each definition; NaN if there is no weight."""
    blocks = windows(sample.x, sample.strides)
    none = _elsewhere(model.get_submodule(sample.site))
    rows, columns = (0 if none else min(sample.y.shape[axis], blocks.shape[axis]) for axis in (2, 3))
    blocks, y = blocks[:, :, :rows, :columns], sample.y[:, :, :rows, :columns, None]
    top = blocks.amax(-1, keepdim=True)
    uneven = (top > blocks.amin(-1, keepdim=True))[..., 0]
    is_top = blocks == top
    tolerance = 1e-6 * sample.x.abs().amax((1, 2, 3)).view(-1, 1, 1, 1, 1)
    exact = (y - top).abs() <= tolerance
    other = (blocks - y).abs().masked_fill(is_top, torch.inf).amin(-1, keepdim=True)
    nearest = (y - top).abs() < other
    hits = [exact[..., 0], nearest[..., 0]]
    weights = window_weights(model, sample)
    if weights is not None:
        weights = weights[:, :, :rows, :columns]
        best = weights.amax(-1, keepdim=True)
        leading = weights >= best - 1e-6
        hits.append((leading.sum(-1) == 1) & (leading & is_top).any(-1))
    counted = [torch.ones_like(uneven), ~uneven, *(hit & uneven for hit in hits)]
    sums = [column.sum((1, 2, 3)).double() for column in counted]
    if weights is None:
        sums.append(torch.full_like(sums[0], torch.nan))
    return torch.stack(sums, 1)


def mean_bias(by_site: list[float | None], constant: list[float]) -> float | None:
    """Mean over the sites that have windows with one maximum; ``None`` if the definition does not apply to all these.

    Of the last, 2 x 2 map behind a circular maximum all windows are ``constant``.
    """
    known = [bias for bias, share in zip(by_site, constant, strict=True) if share < 1]
    return None if None in known or not known else sum(known) / len(known)  # type: ignore[arg-type]
