"""How every measurement runs a network: in evaluation mode, batch by batch, on the device the network lives on.

What goes in and what comes out is checked here: a wrong number without an error is the worst fault.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from .errors import UsageError, check_whole
from .held import held


def full_float32() -> AbstractContextManager[None]:
    """Convolutions run in full float32 on CUDA meanwhile: with TF32, its default, only ten bits of a number count."""
    return held("fp32_precision", "ieee", torch.backends.cudnn.conv)  # type: ignore[attr-defined]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` into evaluation mode and give every submodule its own mode back afterwards, also on error.

    Within ``full_float32``: else the logits would depend on the batch size.
    """
    before = {part: getattr(part, "training", None) for part in model.modules()}  # from the outside to the inside
    with held("training", False, *before), full_float32():
        model.eval()  # which a network may have defined anew
        try:
            yield model
        finally:
            for part, mode in before.items():
                if mode is not None and part.training != mode:
                    part.train(mode)  # which undoes what its own ``eval`` did, such as merging weights


def device_of(model: nn.Module, otherwise: Tensor) -> torch.device:
    """Where the parameters (or buffers) of ``model`` are; the device of ``otherwise`` if it has none."""
    return next((t.device for group in (model.parameters(), model.buffers()) for t in group), otherwise.device)


def placed(model: nn.Module, device: torch.device, form: torch.memory_format = torch.channels_last) -> nn.Module:
    """``model`` on ``device``, its kernels in this form; a method of modules that does it refuses those of videos."""
    for tensor in (*model.to(device).parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=form)
    return model


def form_of(model: nn.Module) -> torch.memory_format:
    """The form of the kernels of ``model``, which maps behind a convolution have as well, whatever the images have."""
    own = all(tensor.is_contiguous() for tensor in model.parameters() if tensor.ndim == 4)
    return torch.contiguous_format if own else torch.channels_last


def check_images(images: Tensor, unit: bool = False) -> Tensor:
    """``images``, cut off from autograd; ``UsageError`` unless they are at least one (N, C, H, W), uint8 or float.

    With ``unit`` floats must lie inside [0, 1] as well.
    """
    wanted = "images must be uint8 or float in [0, 1], (N, 3, H, W) with N >= 1"
    if not isinstance(images, Tensor):
        raise UsageError(f"{wanted}; got {type(images).__name__}, of which torch.as_tensor makes a tensor")
    if images.ndim != 4 or len(images) == 0 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise UsageError(f"{wanted}; got {images.dtype} {tuple(images.shape)}")
    if unit and images.is_floating_point():
        low, high = (end.item() for end in images.aminmax())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # also true of NaN
            raise UsageError(
                f"images must lie in [0, 1], got {low:g} to {high:g}; divide bytes by 255, and let the network "
                "standardise its input itself (aliasing.models.normalized)"
            )
    return images.detach()


def check_labels(labels: Tensor, images: Tensor, classes: int | None = None) -> Tensor:
    """Labels as int64 (N,); ``UsageError`` unless there is one per image, a whole number from 0 to below ``classes``.

    Compared as they are, a column or a class that the network lacks would count as wrong.
    """
    labels = torch.as_tensor(labels)
    if labels.ndim != 1 or labels.is_floating_point():
        raise UsageError(f"labels must be whole numbers (N,), got {labels.dtype} {tuple(labels.shape)}")
    if len(labels) != len(images):
        raise UsageError(f"one label per image is needed, got {len(labels)} labels for {len(images)} images")
    labels = labels.long()  # of unsigned integers PyTorch knows no extremes
    low, high = (int(end) for end in labels.aminmax()) if len(labels) else (0, 0)
    if low < 0 or (classes is not None and high >= classes):
        last = "" if classes is None else f" to {classes - 1}, the last class of the network"
        raise UsageError(f"labels must be whole numbers from 0{last}; got {low} to {high}")
    return labels


def as_float(images: Tensor) -> Tensor:
    """Images as float in [0, 1]: uint8 is divided by 255; half precision lacks operations and becomes float32."""
    return images.float() / 255 if images.dtype == torch.uint8 else widened(images)


def widened(x: Tensor) -> Tensor:
    """``x`` in at least float32: in half precision probabilities tie, and sums of squares leave the range."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_seen(model: nn.Module, images: Tensor) -> Tensor:
    """Images as floats in [0, 1] of the precision of the parameters: networks in float64 are measured in float64."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return as_float(images).to(dtype)


def batches(model: nn.Module, images: Tensor, batch_size: int = 256) -> Iterator[Tensor]:
    """Go through ``images`` in order as float batches on the device of ``model``; the last one may be smaller.

    They are copies: a network may work in place, and many standardise their input in that way.
    """
    batch_size = check_whole("batch_size", batch_size, 1)
    device = device_of(model, images)
    return (as_seen(model, part.detach().to(device, copy=True)) for part in images.split(batch_size))


def scores(output: object) -> Tensor:
    """Class scores (N, classes, ...) from what a network returned, in at least float32.

    One logit z of a binary network becomes (0, z).
    """
    if not isinstance(output, Tensor):
        raise UsageError(
            f"metrics need a network that returns a tensor of logits, this one returns {type(output).__name__}; "
            "wrap it in a module whose forward picks the logits"
        )
    if output.ndim < 2:
        raise UsageError(f"metrics need a network that returns logits (N, classes), got {tuple(output.shape)}")
    output = widened(output)
    return torch.cat([torch.zeros_like(output), output], 1) if output.shape[1] == 1 else output


def finite(values: Tensor, what: str = "logits") -> Tensor:
    """``values`` (N, ...); ``UsageError`` unless all are finite, since an ``argmax`` of NaN is an answer, too."""
    if values.is_floating_point() and not values.isfinite().all():
        count = int((~values.isfinite().flatten(1).all(1)).sum())
        raise UsageError(
            f"{what} are NaN or infinite for {count} of {len(values)} images; look for weights that are not finite, an "
            "overflow in half precision, or images on another scale than the network was trained on"
        )
    return values


def answers(model: nn.Module, batch: Tensor) -> Tensor:
    """Finite class scores of ``model`` for one batch, which it cannot change; see ``scores`` and ``finite``."""
    return _answers(model, batch.clone())


def _answers(model: nn.Module, batch: Tensor) -> Tensor:
    """The same for one of ``batches``, which is a copy already."""
    values = finite(scores(model(batch)))
    if len(values) != len(batch):
        raise UsageError(f"metrics need one row of logits per image, got {tuple(values.shape)} for {len(batch)} images")
    return values


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Class scores of ``model`` for ``images`` (N, 3, H, W), on the device of the model."""
    with evaluating(model):
        return torch.cat([_answers(model, x) for x in batches(model, check_images(images), batch_size)])


def probabilities(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Probability of each class (N, classes), on the CPU; in float64, since in less those of close logits tie."""
    return predict(model, images, batch_size).cpu().double().softmax(1)


def chosen(logits: Tensor) -> Tensor:
    """The most probable class (N,) of logits (N, classes); a network that answers otherwise does not classify."""
    if logits.ndim != 2:
        raise UsageError(f"this needs a network that returns logits (N, classes), got {tuple(logits.shape)}")
    return logits.argmax(1)


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the most probable class is the label, (N,) bool where the logits (N, classes) are; checks the labels."""
    return chosen(logits) == check_labels(labels, logits, logits.shape[1]).to(logits.device)


def classified(model: nn.Module, images: Tensor) -> Tensor:
    """The most probable class (N,) of each image, on the CPU."""
    return chosen(predict(model, images)).cpu()


def correct(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 256) -> Tensor:
    """Whether each image is classified as its label says, (N,) bool on the CPU."""
    labels = check_labels(labels, check_images(images))
    return hits(predict(model, images, batch_size).cpu(), labels)
