"""How often a shifted image keeps its class: consistency and fidelity, for each of the four shifts."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..errors import UsageError, check_whole
from ..inference import check_images, check_labels, chosen, hits, predict
from ..shifts import draw_shifts, shift_images
from .estimate import Estimate
from .rolls import agreement_per_image, roll_predictions


class Fidelity(NamedTuple):
    """Accuracy and consistency in one number; three definitions, and their ingredients.

    Saha and Gokhale (2025) print the product and code, with a defect, the agreement of three; the joint one is ours.

    Attributes:
        product: accuracy times consistency, which is what the published table holds.
        joint: probability that both shifted copies are classified correctly.
        agreement3: probability that the image and both shifted copies get one class, right or wrong.
        accuracy: of the unshifted images.
        consistency: agreement of the two shifted copies.
        agree: (N,) whether the two shifted copies of each image got the same class.
    """

    product: Estimate
    joint: Estimate
    agreement3: Estimate
    accuracy: Estimate
    consistency: Estimate
    agree: Tensor


def consistency(
    model: nn.Module,
    images: Tensor,
    shift: str = "circular",
    max_shift: int | None = None,
    exhaustive: bool = False,
    labels: Tensor | None = None,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> Estimate:
    """Probability that two independent random shifts of an image get the same class (Zhang 2019).

    Every image has its own pair of shifts; the published scripts draw one pair per batch, which has the same
    expectation.

    Args:
        images: for crop shifts larger than the network's input.
        shift: "circular", "standard" (zero-fill), "crop" or "sub-pixel" (band-limited).
        max_shift: shifts are uniform on -M..M per axis, ends included. Default: all rolls for circular shifts, an
            eighth of the side for standard and sub-pixel ones, none for crop shifts, whose window is H - 2M pixels.
        exhaustive: circular shifts only: the expectation over all pairs of shifts, instead of one pair per image.
        labels: if given, only images classified correctly when unshifted count.
    """
    if exhaustive:
        if shift != "circular":
            raise UsageError(f"only circular shifts can be exhausted, got shift={shift!r}")
        predictions = roll_predictions(model, images, labels, max_shift, batch_size)
        shares = agreement_per_image(predictions)
        return Estimate.mean(shares if labels is None else shares[predictions.correct_unrolled])
    agree = agreements(model, images, shift, max_shift, generator, batch_size)
    if labels is not None:
        agree = agree[hits(_logits(model, images, None, shift, max_shift, batch_size), labels)]
    return Estimate.share(agree)


def agreements(
    model: nn.Module, images: Tensor, shift: str, max_shift: int | None, generator: Generator | None, batch_size: int
) -> Tensor:
    """Whether two shifted copies of each image (N,) get the same class; arguments as in ``consistency``."""
    first, second = (
        chosen(_logits(model, images, shifts, shift, max_shift, batch_size))
        for shifts in draw_shifts(shift, images, 2, max_shift, generator)
    )
    return first == second


def fidelity(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    shift: str = "circular",
    max_shift: int | None = None,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> Fidelity:
    """The three readings of "shift fidelity" or "stability"; arguments as in ``consistency``.

    The interval of the product is the linearised one, images being independent.
    """
    check_labels(labels, check_images(images))
    shifts = (*draw_shifts(shift, images, 2, max_shift, generator), None)
    logits = [_logits(model, images, own, shift, max_shift, batch_size) for own in shifts]
    first, second, plain = map(chosen, logits)
    first_right, second_right, correct = (hits(own, labels) for own in logits)
    agree = first == second
    share_correct, share_agree = correct.double().mean(), agree.double().mean()
    # d(ac) = c da + a dc, image by image, around the product of the means.
    product = Estimate.mean(
        share_correct * share_agree
        + share_agree * (correct.double() - share_correct)
        + share_correct * (agree.double() - share_agree)
    )
    return Fidelity(
        product,
        Estimate.share(first_right & second_right),
        Estimate.share(agree & (plain == first)),
        Estimate.share(correct),
        Estimate.share(agree),
        agree,
    )


def _logits(
    model: nn.Module, images: Tensor, shifts: Tensor | None, shift: str, max_shift: int | None, batch_size: int
) -> Tensor:
    """Logits (N, classes) of shifted images; without ``shifts`` at shift zero: the central window of crops."""
    shifts = torch.zeros(len(images), 2, dtype=torch.long) if shifts is None else shifts
    batch_size = check_whole("batch_size", batch_size, 1)
    parts = zip(check_images(images).split(batch_size), shifts.split(batch_size), strict=True)
    moved = (shift_images(part, own, shift, max_shift) for part, own in parts)
    return torch.cat([predict(model, part, batch_size).cpu() for part in moved])
