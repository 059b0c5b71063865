"""How every metric runs a network: in evaluation mode, batch by batch, on the device the network lives on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import UsageError

__all__ = ["as_float", "batches", "check_images", "device_of", "evaluating", "predict"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` into evaluation mode and give every submodule its own mode back afterwards, also on error.

    Convolutions run in full float32 on CUDA meanwhile: with TF32 the logits would depend on the batch size.
    """
    modes = [(module, module.training) for module in model.modules()]
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    precision = convolutions.fp32_precision
    try:
        model.eval()
        convolutions.fp32_precision = "ieee"
        yield model
    finally:
        convolutions.fp32_precision = precision
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module, otherwise: Tensor) -> torch.device:
    """Where the parameters (or buffers) of ``model`` are; the device of ``otherwise`` if it has none."""
    return next((t.device for group in (model.parameters(), model.buffers()) for t in group), otherwise.device)


def check_images(images: Tensor) -> Tensor:
    """Return ``images`` if they are at least one (N, 3, H, W), uint8 or float, else raise ``UsageError``."""
    if images.ndim != 4 or len(images) == 0 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise UsageError(
            "images must be uint8 or float in [0, 1], (N, 3, H, W) with N >= 1; "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    return images


def as_float(images: Tensor) -> Tensor:
    """Images as float in [0, 1]: uint8 is divided by 255, floats pass unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def batches(model: nn.Module, images: Tensor, batch_size: int = 256) -> Iterator[Tensor]:
    """Go through ``images`` in order as float batches on the device of ``model``; the last one may be smaller.

    They get the precision of the parameters, so that a network in float64 can be measured in float64.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}")
    device = device_of(model, images)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return (as_float(part.to(device)).to(dtype) for part in images.split(batch_size))


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Outputs of ``model`` for ``images`` (N, 3, H, W), on the device of the model."""
    with evaluating(model):
        return torch.cat([model(batch) for batch in batches(model, check_images(images), batch_size)])
