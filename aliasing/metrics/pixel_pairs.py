"""What one pixel changes: the protocols of Azulay and Weiss (2019), for images of any size.

They work with 224 pixels. For other sizes S their lengths are scaled by S / 224 and rounded (our adaptation): the crop
is taken from a picture of 234/224 S, an embedded picture has a shorter side of 100/224 S. The shift itself stays one
pixel of the network's input.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError, check_whole, one_of
from ..inference import as_float, check_images, check_labels, chosen, probabilities
from ..shifts import circular
from ..streams import drawing
from .canvases import BORDERS, PAPER_SIDE, embed, resize, shrink
from .estimate import Estimate

#: the sizes of the released script; its switch from cropping to embedding lies between 1 and 1.3
SIZES = (0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9)


class OnePixel(NamedTuple):
    """What a perturbation of one pixel does.

    Attributes:
        top1_change: probability that the most probable class changes.
        mean_absolute_change: mean of |p_c(x) - p_c(x')|, c the most probable class of the first image x.
        accuracy: of the first images; ``None`` without labels.
        images: (N,) mean change rate of each image, to find the fragile ones.
        moves: (N,) mean absolute change of each image, which tells those apart whose answers change as often.
        answers: (m,) most probable class of the first image of each pair.
    """

    top1_change: Estimate
    mean_absolute_change: Estimate
    accuracy: Estimate | None
    images: Tensor
    moves: Tensor
    answers: Tensor


def one_pixel(
    model: nn.Module,
    images: Tensor,
    protocol: str = "crop",
    labels: Tensor | None = None,
    pairs: int = 1,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> OnePixel:
    """P(top-1 change) and mean absolute change between images that differ by one pixel of shift or of size.

    Intervals are bootstrapped over images, since the pairs of one image are not independent; rates of one pair per
    image, or of 0 or 1, where a bootstrap has no width, get Wilson's.

    Args:
        images: of the size of the network's input.
        protocol: one of ``ONE_PIXEL``. "crop": a random crop (8 to 100 % of the area, aspect 3/4 to 4/3) is resized
            to 234/224 of the input, and the window moves over it. "black", "inpainting": the image, shrunk, is
            moved on a canvas. "scale": it keeps its corner on a black canvas and grows by one pixel. "circular":
            the image is rolled (ours, a control).
        labels: for the accuracy.
        pairs: pairs per image. In the crop protocol they lie along one diagonal, as in the released script, which
            has 8; in the others each pair has a position of its own.
    """
    befores, afters, pairs = [], [], check_whole("pairs", pairs, 1)
    for first, second in one_pixel_pairs(images, protocol, pairs, generator, batch_size):
        if protocol == "crop":  # neighbouring pairs share a window, which is looked at once
            grouped, last = first.unflatten(0, (-1, pairs)), second.unflatten(0, (-1, pairs))[:, -1:]
            windows = torch.cat([grouped, last], 1)
            found = probabilities(model, windows.flatten(0, 1), batch_size).unflatten(0, windows.shape[:2])
            before, after = found[:, :-1].flatten(0, 1), found[:, 1:].flatten(0, 1)
        else:
            before, after = (probabilities(model, part, batch_size) for part in (first, second))
        befores.append(before)
        afters.append(after)
    before = torch.cat(befores)
    change, move = compared(before, torch.cat(afters))
    owners = torch.arange(len(images)).repeat_interleave(pairs)
    truth = None if labels is None else check_labels(labels, images, before.shape[1]).cpu()[owners]
    return OnePixel(
        _rate(change, owners),
        Estimate.bootstrap(move, owners),
        None if truth is None else _rate(before.argmax(1) == truth, owners),
        change.double().reshape(-1, pairs).mean(1),
        move.reshape(-1, pairs).mean(1),
        chosen(before),
    )


def compared(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Of probabilities (m, classes): whether the first's class c changes (m,), and |p_c(x) - p_c(x')| (m,)."""
    top = chosen(before)[:, None]
    return after.argmax(1) != top[:, 0], (before.gather(1, top) - after.gather(1, top)).abs()[:, 0]


def _rate(hits: Tensor, groups: Tensor) -> Estimate:
    """Share of the hits (m,), with an interval over the groups (m,)."""
    images = len(groups.unique())
    rates = hits.double().reshape(images, -1).mean(1)  # pairs lie in the order of their images
    if images == len(hits) or rates.min() == rates.max():
        return Estimate.proportion(hits.double().mean().item() * images, images)
    return Estimate.bootstrap(hits, groups)


def top1_change(model: nn.Module, images: Tensor, protocol: str = "crop", **options) -> Estimate:
    """Probability that one pixel changes the most probable class; arguments as in ``one_pixel``."""
    return one_pixel(model, images, protocol, **options).top1_change


def mean_absolute_change(model: nn.Module, images: Tensor, protocol: str = "crop", **options) -> Estimate:
    """Mean change of the probability of the most probable class by one pixel; arguments as in ``one_pixel``."""
    return one_pixel(model, images, protocol, **options).mean_absolute_change


def one_pixel_pairs(
    images: Tensor, protocol: str, pairs: int = 1, generator: torch.Generator | None = None, batch_size: int = 256
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of first and second images, both float (n * pairs, 3, H, W), in the order of the images."""
    one_of("one-pixel protocol", protocol, ONE_PIXEL)
    pairs, batch_size = check_whole("pairs", pairs, 1), check_whole("batch_size", batch_size, 1)
    images = check_images(images, unit=True)
    if min(images.shape[-2:]) < 8:
        raise UsageError(f"one-pixel protocols need images of at least 8 x 8 pixels, got {tuple(images.shape[-2:])}")
    draws = torch.rand(len(images), pairs, 4, generator=drawing(generator), dtype=torch.float64)
    together = max(1, batch_size // pairs)
    for part, own in zip(images.split(together), draws.split(together), strict=True):
        yield ONE_PIXEL[protocol](as_float(part), own)


def size_pairs(images: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """One pair (N, 3, H, W) per image that differs by a diagonal shift of one pixel of the network's input.

    Up to 1, ``size`` is the share of the area that a crop keeps; it is enlarged to one pixel more than the input, over
    which the window moves. Above 1 the image, 1 / ``size`` as wide and high, moves near the middle of a black canvas.

    Departs from the script: crops keep the aspect of the image, black is truly black, one pair per image, not eight.
    """
    images = as_float(check_images(images, unit=True))
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if not 0 < size <= shorter:
        raise UsageError(f"size must be greater than 0 and at most {shorter}, the pixels there are, got {size}")
    draws = torch.rand(len(images), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if size > 1:
        small = shrink(images, int(shorter / size))
        room = torch.tensor([height - small.shape[2] - 1, width - small.shape[3] - 1])
        reach = max(1, round(4 * shorter / PAPER_SIDE))
        corners = (room // 2 - reach + (draws * 2 * reach).long()).clamp(min=0).minimum(room.clamp(min=0))
        return embed(small, corners, (height, width)), embed(small, corners + 1, (height, width))
    h, w = max(1, round(size**0.5 * height)), max(1, round(size**0.5 * width))
    corners = (draws * torch.tensor([height - h + 1, width - w + 1])).long()
    places = zip(images, corners.tolist(), strict=True)
    crops = [image[:, top : top + h, left : left + w] for image, (top, left) in places]
    canvas = resize(torch.stack(crops), (height + 1, width + 1))
    return canvas[:, :, :height, :width], canvas[:, :, 1:, 1:]


def _crop(images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Windows c and c + 1 along the diagonal of one resized random crop; both come from the same resized picture."""
    height, width = images.shape[-2:]
    pairs = draws.shape[1]
    margin = max(pairs, round(min(height, width) * 10 / PAPER_SIDE))
    boxes = _random_boxes(height, width, draws[:, 0])
    canvas = torch.cat(
        [
            resize(image[None, :, top : top + h, left : left + w], (height + margin, width + margin))
            for image, (top, left, h, w) in zip(images, boxes.tolist(), strict=True)
        ]
    )
    windows = [canvas[:, :, c : c + height, c : c + width] for c in range(pairs + 1)]
    return torch.stack(windows[:-1], 1).flatten(0, 1), torch.stack(windows[1:], 1).flatten(0, 1)


def _random_boxes(height: int, width: int, draws: Tensor) -> Tensor:
    """Boxes (N, 4): top, left, height, width. Area 8 to 100 %, log-uniform aspect 3/4 to 4/3, cut to the image.

    The usual crop draws again when a box does not fit; cutting it costs no extra draws (our simplification).
    """
    area = (0.08 + 0.92 * draws[:, 0]) * height * width
    aspect = (4 / 3) ** (2 * draws[:, 1] - 1)
    h = (area / aspect).sqrt().round().clamp(1, height)
    w = (area * aspect).sqrt().round().clamp(1, width)
    return torch.stack([_position(draws[:, 2], height - h), _position(draws[:, 3], width - w), h, w], 1).long()


def _position(draw: Tensor, last: Tensor | int) -> Tensor:
    """Whole number uniform on 0..last from ``draw`` uniform on [0, 1)."""
    return (draw * (last + 1)).floor()


def _embedded(images: Tensor, draws: Tensor, border: str = "black", grows: bool = False) -> tuple[Tensor, Tensor]:
    """The shrunk picture moves on a canvas, or ``grows`` by a pixel; both sizes are resized from the original."""
    size = images.shape[-2], images.shape[-1]
    small = shrink(images)
    other = resize(images, (small.shape[-2] + 1, small.shape[-1] + 1)) if grows else small
    last = [side - part - 1 for side, part in zip(size, small.shape[-2:], strict=True)]  # a pixel further still fits
    flat = draws.flatten(0, 1)
    corners = torch.stack([_position(flat[:, axis], last[axis]) for axis in (0, 1)], 1).long()
    first, second = (picture.repeat_interleave(draws.shape[1], 0) for picture in (small, other))
    return embed(first, corners, size, border), embed(second, corners if grows else corners + 1, size, border)


def _rolled(images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """One direction of the four diagonals per pair."""
    directions = (2 * (draws[..., :2] < 0.5).long() - 1).flatten(0, 1)
    first = images.repeat_interleave(draws.shape[1], 0)
    return first, circular(first, directions)


#: name of the protocol -> function of images (n, 3, H, W) and draws (n, pairs, 4) in [0, 1) that makes the pairs.
ONE_PIXEL: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "crop": _crop,
    **{border: partial(_embedded, border=border) for border in BORDERS},
    "scale": partial(_embedded, grows=True),
    "circular": _rolled,
}
