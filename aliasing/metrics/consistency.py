"""How often a shifted image keeps its class: consistency and fidelity, for each of the four shifts."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..inference import check_images, predict
from .estimate import Estimate
from .exhaustive import agreement_per_image
from .rolls import roll_predictions
from .shifts import draw_shifts, reach, shift_images

__all__ = ["Fidelity", "Shifted", "agreements", "consistency", "fidelity", "fidelity_of", "shifted", "shifted_classes"]


class Fidelity(NamedTuple):
    """Accuracy and consistency in one number; three definitions, and their ingredients.

    Saha and Gokhale (2025) print the product and code, with a defect, the agreement of three; the joint one is ours.

    Attributes:
        product: accuracy times consistency, which is what the published table holds.
        joint: probability that both shifted copies are classified correctly.
        agreement3: probability that the image and both shifted copies get one class, right or wrong.
        accuracy: of the unshifted images.
        consistency: agreement of the two shifted copies.
    """

    product: Estimate
    joint: Estimate
    agreement3: Estimate
    accuracy: Estimate
    consistency: Estimate


def consistency(
    model: nn.Module,
    images: Tensor,
    shift: str = "circular",
    max_shift: int | None = None,
    exhaustive: bool = False,
    labels: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Estimate:
    """Probability that two independent random shifts of an image get the same class (Zhang 2019).

    Every image has its own pair of shifts; the published scripts draw one pair per batch, which has the same
    expectation.

    Args:
        model: images in, logits (N, classes) out.
        images: (N, 3, H, W), uint8 or float in [0, 1]. For crop shifts larger than the network's input.
        shift: "circular", "standard" (zero-fill), "crop" or "sub-pixel" (band-limited).
        max_shift: shifts are uniform on -M..M per axis, ends included. Default: all rolls for circular shifts, an
            eighth of the side for standard and sub-pixel ones, none for crop shifts, whose window is H - 2M pixels.
        exhaustive: circular shifts only: the expectation over all pairs of shifts, instead of one pair per image.
        labels: if given, only images classified correctly when unshifted count.
        generator: on the CPU; without one a private generator with seed 0.
        batch_size: images per forward pass; does not change the value.
    """
    scores = agreements(model, images, shift, max_shift, exhaustive, labels, generator, batch_size)
    return Estimate.mean(scores) if exhaustive else Estimate.share(scores)


def agreements(
    model: nn.Module,
    images: Tensor,
    shift: str = "circular",
    max_shift: int | None = None,
    exhaustive: bool = False,
    labels: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Tensor:
    """What ``consistency`` takes the mean of, by image (n,): booleans, or probabilities if ``exhaustive``."""
    reach(shift, images, max_shift)
    if exhaustive:
        if shift != "circular":
            raise UsageError(f"only circular shifts can be exhausted, got shift={shift!r}")
        predictions = roll_predictions(model, images, labels, max_shift, batch_size)
        return agreement_per_image(predictions, correct_only=labels is not None)
    first, second = shifted_classes(model, images, shift, 2, max_shift, generator, batch_size)
    agree = first == second
    if labels is not None:
        agree = agree[_unshifted_classes(model, images, shift, max_shift, batch_size) == labels.cpu()]
    return agree


class Shifted(NamedTuple):
    """Classes (N,) of two shifted copies and of the image itself, and the labels (N,)."""

    first: Tensor
    second: Tensor
    plain: Tensor
    truth: Tensor


def fidelity(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    shift: str = "circular",
    max_shift: int | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Fidelity:
    """The three readings of "shift fidelity" or "stability"; arguments as in ``consistency``.

    The interval of the product is the linearised one, images being independent.
    """
    return fidelity_of(shifted(model, images, labels, shift, max_shift, generator, batch_size))


def shifted(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    shift: str = "circular",
    max_shift: int | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Shifted:
    """What ``fidelity`` counts, by image; arguments as there."""
    first, second = shifted_classes(model, images, shift, 2, max_shift, generator, batch_size)
    plain = _unshifted_classes(model, images, shift, max_shift, batch_size)
    return Shifted(first, second, plain, labels.cpu())


def fidelity_of(classes: Shifted) -> Fidelity:
    """The three definitions from the classes of all images."""
    first, second, plain, truth = classes
    correct, agree = plain == truth, first == second
    share_correct, share_agree = correct.double().mean(), agree.double().mean()
    # d(ac) = c da + a dc, image by image, around the product of the means.
    product = Estimate.mean(
        share_correct * share_agree
        + share_agree * (correct.double() - share_correct)
        + share_correct * (agree.double() - share_agree)
    )
    return Fidelity(
        product,
        Estimate.share((first == truth) & (second == truth)),
        Estimate.share(agree & (plain == first)),
        Estimate.share(correct),
        Estimate.share(agree),
    )


def shifted_classes(
    model: nn.Module,
    images: Tensor,
    shift: str,
    copies: int,
    max_shift: int | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Classes (copies, N) of independently shifted copies of each image, on the CPU."""
    drawn = draw_shifts(shift, images, copies, max_shift, generator)
    return torch.stack([_classes(model, images, shifts, shift, max_shift, batch_size) for shifts in drawn])


def _unshifted_classes(model: nn.Module, images: Tensor, shift: str, max_shift: int | None, batch_size: int) -> Tensor:
    """Classes (N,) at shift zero of the same protocol: the central window for crop shifts."""
    return _classes(model, images, torch.zeros(len(images), 2, dtype=torch.long), shift, max_shift, batch_size)


def _classes(
    model: nn.Module, images: Tensor, shifts: Tensor, shift: str, max_shift: int | None, batch_size: int
) -> Tensor:
    parts = zip(check_images(images).split(batch_size), shifts.split(batch_size), strict=True)
    moved = (shift_images(part, own, shift, max_shift) for part, own in parts)
    return torch.cat([predict(model, part, batch_size).argmax(1).cpu() for part in moved])
