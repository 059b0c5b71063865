"""Accuracy under attack: FGSM, PGD and APGD in an l-infinity or l2 ball around each image.

Protocol. Images are floats in [0, 1] and the network normalises them itself; it runs in evaluation mode and its
parameters get no gradient. Only images that are classified correctly are attacked, and an attack, restart or target
only ever continues on those that are still correct. An image counts as broken as soon as one point that the attack
visits inside the ball and the image box is misclassified. Random starts come from one stream per image.

Sources: FGSM (Goodfellow et al. 2015); PGD (Madry et al. 2018); APGD, the DLR loss and its targeted form (Croce and
Hein 2020, Algorithm 1 and equations 2 and 6). "worst-of" is APGD-CE followed by targeted APGD-DLR: AutoAttack without
FAB and Square, hence an upper bound of AutoAttack's accuracy.
"""

from collections.abc import Iterator, Sequence
from typing import get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError, unknown
from ..streams import Part, image_seeds
from .ascent import Ball, Loss, Norm, Problem, apgd, pgd
from .estimate import Estimate
from .inference import batches, check_images, evaluating

__all__ = ["ATTACKS", "NORMS", "attack_accuracy", "attack_curve", "attack_images", "dlr_loss", "perturb", "survivors"]

ATTACKS = ("fgsm", "pgd", "apgd-ce", "apgd-t", "worst-of")
NORMS = get_args(Norm)
STEPS = {"fgsm": 1, "pgd": 20, "apgd-ce": 100, "apgd-t": 100, "worst-of": 100}
TARGETS = 9  # of targeted APGD, as in AutoAttack


def attack_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str = "pgd",
    eps: float = 8 / 255,
    norm: Norm = "linf",
    steps: int | None = None,
    restarts: int = 1,
    step_size: float | None = None,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> Estimate:
    """Share of ``images`` (N, 3, H, W) that are classified correctly and stay so everywhere the attack looks.

    ``eps`` is the radius of the ball, in units of the image range [0, 1]. ``steps`` defaults to 20 for "pgd" and 100
    for APGD, ``step_size`` (PGD only) to ``eps / 4``. ``restarts`` repeats PGD and APGD-CE from other random starts.
    Raises ``UsageError`` for unknown names, and for targeted APGD on fewer than four classes (its loss is undefined).
    """
    (estimate,) = attack_curve(
        model, images, labels, (eps,), attack, norm, steps, restarts, step_size, generator, batch_size
    ).values()
    return estimate


def attack_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    attack: str = "pgd",
    norm: Norm = "linf",
    steps: int | None = None,
    restarts: int = 1,
    step_size: float | None = None,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> dict[float, Estimate]:
    """Accuracy under attack for each radius of ``eps``, in increasing order; arguments as in ``attack_accuracy``.

    The balls are nested, so an image broken at one radius is broken at every larger one and is not attacked again:
    the curve never rises, and a point of it can lie below ``attack_accuracy`` at that radius alone.
    """
    alive = survivors(model, images, labels, eps, attack, norm, steps, restarts, step_size, generator, batch_size)
    return {radius: Estimate.share(hits) for radius, hits in alive.items()}


def survivors(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    attack: str = "pgd",
    norm: Norm = "linf",
    steps: int | None = None,
    restarts: int = 1,
    step_size: float | None = None,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> dict[float, Tensor]:
    """Which images (N,) are still classified correctly at each radius; arguments as in ``attack_curve``."""
    radii = sorted(set(eps))
    if not radii:
        raise UsageError("an attack curve needs at least one eps, got none")
    if len(labels) != len(check_images(images)):
        raise UsageError(f"one label per image is needed, got {len(labels)} labels for {len(images)} images")
    kept = torch.zeros(len(radii), len(images), dtype=torch.bool)
    parts = batches(model, images, batch_size)
    seeds = image_seeds(len(images), generator)
    indices = torch.arange(len(images)).split(batch_size)
    for x, y, seed, index in zip(parts, labels.split(batch_size), seeds.split(batch_size), indices, strict=True):
        y = y.to(x.device)
        with evaluating(model), torch.no_grad():
            alive = model(x).argmax(1) == y
        for row, radius in enumerate(radii):
            x, y, seed, index = x[alive], y[alive], seed[alive.cpu()], index[alive.cpu()]
            _, broken = attack_images(model, x, y, attack, radius, norm, steps, restarts, step_size, seed)
            alive = ~broken
            kept[row, index[alive.cpu()]] = True
    return dict(zip(radii, kept, strict=True))


def attack_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str = "pgd",
    eps: float = 8 / 255,
    norm: Norm = "linf",
    steps: int | None = None,
    restarts: int = 1,
    step_size: float | None = None,
    seeds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attack one batch of float images (n, 3, H, W): the images afterwards, and which are misclassified (n,).

    An image that the attack does not break, or that is misclassified already, is returned as it was. ``seeds`` (n,)
    are those of ``aliasing.streams.image_seeds``; the other arguments are those of ``attack_accuracy``.
    """
    if attack not in ATTACKS:
        raise unknown("attack", attack, ATTACKS)
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    steps = STEPS[attack] if steps is None else steps
    if eps < 0 or steps < 1 or restarts < 1:
        raise UsageError(f"eps must be >= 0, steps and restarts >= 1; got {eps}, {steps} and {restarts}")
    seeds = image_seeds(len(images)) if seeds is None else seeds
    ball = Ball(eps, norm)
    found, broken = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
    if len(images) == 0:
        return found, broken
    with evaluating(model):
        with torch.no_grad():
            logits = model(images)
        broken |= logits.argmax(1) != labels
        for start, loss, targets in _rounds(attack, logits, labels, restarts):
            active = (~broken).nonzero().flatten()
            if len(active) == 0:
                break
            centre, own_seeds = images[active], seeds[active.cpu()]
            problem = Problem(model, centre, labels[active], targets[active], loss, ball)
            if attack == "fgsm":
                points, hit = pgd(problem, centre, 1, eps)
            elif attack == "pgd":
                size = eps / 4 if step_size is None else step_size
                points, hit = pgd(problem, ball.random_point(centre, own_seeds, start), steps, size)
            else:
                points, hit = apgd(problem, ball.random_point(centre, own_seeds, start, stretch=True), steps)
            found[active[hit]] = points[hit]
            broken[active[hit]] = True
    return found, broken


def perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator,
    eps: float = 8 / 255,
    alpha: float = 10 / 255,
    part: Part | None = None,
) -> Tensor:
    """Images to train on in single-step adversarial training (Wong et al. 2020): uniform start, one signed step.

    ``images`` are floats in [0, 1], (n, 3, H, W); ``eps`` and ``alpha`` are the radius and the step, in the same unit;
    ``part`` says which rows of a batch ``images`` are.
    The network stays in the mode it is in, so in training mode its batch statistics see this pass as well, as in
    the published recipe.
    """
    ball = Ball(eps, "linf")
    count, rows = part or Part.whole(len(images))
    noise = torch.rand((count, *images.shape[1:]), generator=generator)[rows].to(images)
    start = ball.project(images + eps * (2 * noise - 1), images)
    problem = Problem(model, images, labels, labels, _cross_entropy, ball)
    _, gradient, _ = problem.at(start, torch.arange(len(images), device=images.device))
    return ball.project(start + alpha * gradient.sign(), images)


def dlr_loss(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference-of-logits ratio (n,) of ``logits`` (n, classes), untargeted or towards ``targets`` (n,).

    Positive exactly where the label (or the target against the label) loses; unlike cross-entropy it does not change
    when logits are shifted or rescaled (Croce and Hein 2020, equations 2 and 6). The ratio needs at least three
    classes, with targets four.
    """
    needed = 3 if targets is None else 4
    if logits.shape[1] < needed:
        raise UsageError(f"this DLR loss needs at least {needed} classes, got {logits.shape[1]}; use cross-entropy")
    ordered = logits.sort(1, descending=True).values
    own = logits.gather(1, labels[:, None]).squeeze(1)
    if targets is None:
        rival = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
        return (rival - own) / (ordered[:, 0] - ordered[:, 2] + 1e-12)
    rival = logits.gather(1, targets[:, None]).squeeze(1)
    return (rival - own) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


def _cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _rounds(attack: str, logits: Tensor, labels: Tensor, restarts: int) -> Iterator[tuple[int, Loss, Tensor]]:
    """The passes that make up an attack: number of the random start, loss, targets (n,)."""
    if attack != "apgd-t":
        yield from ((start, _cross_entropy, labels) for start in range(restarts if attack != "fgsm" else 1))
    if attack in ("apgd-t", "worst-of"):
        others = logits.scatter(1, labels[:, None], float("-inf"))
        targets = others.topk(min(TARGETS, logits.shape[1] - 1), 1).indices  # most likely wrong class first
        yield from ((restarts + rank, dlr_loss, targets[:, rank]) for rank in range(targets.shape[1]))
