"""Adversarial images in an l-infinity ball: FGSM, PGD and APGD to measure with, and the single step to train with.

Protocol. Images are floats in [0, 1] and the network normalises them itself; its parameters get no gradient. Only
images that are classified correctly are attacked, and an attack only continues on those that still are. An image
counts as broken as soon as one point that the attack visits, inside the ball and the image box, is misclassified.
Random starts come from one stream per image, so results depend neither on the batch size nor on the other images.

Sources: FGSM (Goodfellow et al. 2015); PGD (Madry et al. 2018); APGD on cross-entropy (Croce and Hein 2020, Algorithm
1); training with one step from a random start (Wong et al. 2020).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from .errors import UsageError, at_least, one_of
from .inference import answers, as_float, as_seen, batches, check_images, check_labels, evaluating, finite, hits, scores
from .streams import drawing, image_seeds, sent, streams

STEPS = {"fgsm": 1, "pgd": 20, "apgd-ce": 100}  # of the gradient, by default; those of PGD are a quarter of the radius
ATTACKS = tuple(STEPS)


def survivors(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    attack: str,
    steps: int | None = None,
    generator: Generator | None = None,
    batch_size: int = 256,
) -> dict[float, Tensor]:
    """Which of ``images`` (N, 3, H, W) are still classified correctly, (N,) bool, at each radius in increasing order.

    The balls are nested, so an image broken at one radius is broken at every larger one and is not attacked again.
    """
    radii = sorted(set(eps))
    if not radii:
        raise UsageError("an attack needs at least one eps, got none")
    labels = check_labels(labels, check_images(images, unit=True))
    kept = torch.zeros(len(radii), len(images), dtype=torch.bool)
    parts = batches(model, images, batch_size)
    seeds = image_seeds(len(images), generator)
    indices = torch.arange(len(images)).split(batch_size)
    for x, y, seed, index in zip(parts, labels.split(batch_size), seeds.split(batch_size), indices, strict=True):
        y = y.to(x.device)
        with evaluating(model), torch.no_grad():
            alive = hits(answers(model, x), y)
        for row, radius in enumerate(radii):
            x, y, seed, index = x[alive], y[alive], seed[alive.cpu()], index[alive.cpu()]
            alive = ~attack_images(model, x, y, attack, radius, steps, seed)[1]
            kept[row, index[alive.cpu()]] = True
    return dict(zip(radii, kept, strict=True))


def attack_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str = "pgd",
    eps: float = 8 / 255,
    steps: int | None = None,
    seeds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attack one batch of float images (n, 3, H, W): the images afterwards, and which are misclassified (n,).

    An image that the attack does not break, or that is misclassified already, is returned as it was. The attack works
    in the precision of the images, the network's if that is higher, and in float32 at least. ``attack`` is one
    of ``ATTACKS``, and without ``steps`` takes those of ``STEPS``; ``eps`` is the radius in units of the image range
    [0, 1]; ``seeds`` (n,) are those of ``aliasing.streams.image_seeds``.
    """
    default = STEPS[one_of("attack", attack, ATTACKS)]
    steps = default if steps is None else steps
    at_least("steps", steps, 1)
    _check_radius(eps)
    seeds = image_seeds(len(images)) if seeds is None else seeds
    if len(images) == 0:
        return images.clone(), torch.zeros(0, dtype=torch.bool, device=images.device)
    images = as_float(check_images(images, unit=True))
    images = images.to(torch.promote_types(images.dtype, as_seen(model, images[:1]).dtype))
    found, labels = images.clone(), check_labels(labels, images).to(images.device)
    with evaluating(model):
        with torch.no_grad():
            broken = ~hits(answers(model, as_seen(model, images)), labels)
        active = (~broken).nonzero().flatten()
        if len(active):
            problem, own = Problem(model, images[active], labels[active], eps), seeds[active.cpu()]
            if attack == "fgsm":
                points, hit = pgd(problem, problem.images, 1, eps)
            elif attack == "pgd":
                points, hit = pgd(problem, problem.random_point(own), steps, eps / 4)
            else:
                points, hit = apgd(problem, problem.random_point(own, touch=True), steps)
            found[active[hit]] = points[hit]
            broken[active[hit]] = True
    return found, broken


def _check_radius(eps: float) -> None:
    if not 0 <= eps <= 1:
        raise UsageError(f"eps must be >= 0 and <= 1, the range of the images, got {eps}; 8 of 255 is eps=8 / 255")


def perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: Generator,
    eps: float = 8 / 255,
    alpha: float = 10 / 255,
) -> Tensor:
    """Images to train on in single-step adversarial training (Wong et al. 2020): uniform start, one signed step.

    ``images`` are floats in [0, 1] or bytes, (n, 3, H, W); returned are floats, float32 at least; ``eps`` and ``alpha``
    are the radius and the step, in units of that range. The network stays in the mode it is in, so in training mode its
    batch statistics see this pass as well, as in the published recipe.
    """
    _check_radius(eps)
    images = as_float(check_images(images, unit=True))
    labels = check_labels(labels, images).to(images.device)
    return signed_step(Problem(model, images, labels, eps), drawing(generator), alpha)


def signed_step(problem: "Problem", generator: Generator, alpha: float) -> Tensor:
    """``perturb`` without a look at the images, for which a GPU would be waited for."""
    noise = sent(torch.rand(problem.images.shape, generator=generator), problem.images.device).to(problem.images.dtype)
    start = problem.inside(problem.images + problem.eps * (2 * noise - 1))
    return problem.inside(start + alpha * problem.slope(start)[1].sign())


class Problem(NamedTuple):
    """What an attack maximises: the cross-entropy of ``model`` within ``eps`` of ``images`` (n, 3, H, W)."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    eps: float

    def inside(self, x: Tensor, active: Tensor | slice = slice(None)) -> Tensor:
        """Project ``x`` into the ball, then into the box [0, 1]; the second step stays in the ball."""
        centre = self.images[active]
        return (centre + (x - centre).clamp(-self.eps, self.eps)).clamp(0, 1)

    def random_point(self, seeds: Tensor, touch: bool = False) -> Tensor:
        """A uniform point around each image, from the stream of its seed; ``touch`` moves it out to the ball's face."""
        shape = self.images.shape[1:]
        noise = torch.stack([torch.rand(shape, generator=stream) for stream in streams(seeds)])
        noise = 2 * noise.to(self.images) - 1
        noise = noise / noise.abs().amax((1, 2, 3), keepdim=True) if touch else noise
        return self.inside(self.images + self.eps * noise)

    def slope(self, x: Tensor, active: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (m,), its gradient and the logits, at one point ``x`` for each image of ``active`` (m,)."""
        with torch.inference_mode(False), torch.enable_grad():  # whatever mode the caller is in
            x, labels = x.detach().clone().requires_grad_(), self.labels[active].clone()
            logits = scores(self.model(as_seen(self.model, x.clone())))  # the network may work in place
            loss = F.cross_entropy(logits, labels, reduction="none")
            (gradient,) = torch.autograd.grad(loss.sum(), x)
        return loss.detach(), gradient, logits.detach()

    def at(self, x: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, its gradient and whether the label loses; ``UsageError`` if they are not finite."""
        loss, gradient, logits = self.slope(x, active)
        wrong = finite(logits, "logits of attacked images").argmax(1) != self.labels[active]
        return loss, finite(gradient, "gradients of the loss"), wrong

    @torch.no_grad()
    def wrong(self, x: Tensor, active: Tensor) -> Tensor:
        """Whether the label loses at ``x``, for a last point, where no gradient is needed."""
        return answers(self.model, as_seen(self.model, x)).argmax(1) != self.labels[active]


def pgd(problem: Problem, x: Tensor, steps: int, step_size: float) -> tuple[Tensor, Tensor]:
    """Projected gradient ascent from ``x``: the last point of each image, and which are misclassified.

    It stops working on an image at the first misclassified point, as ``apgd`` does.
    """
    found, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    active = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        _, gradient, wrong = problem.at(x, active)
        found[active], broken[active] = x, wrong
        if wrong.all():
            return found, broken
        active, x, gradient = active[~wrong], x[~wrong], gradient[~wrong]
        x = problem.inside(x + step_size * gradient.sign(), active)
    found[active], broken[active] = x, problem.wrong(x, active)
    return found, broken


def checkpoints(steps: int) -> list[int]:
    """Iterations at which APGD reconsiders its step: after 22 % of them, then at intervals shrinking from 19 to 6 %."""
    points, at, interval = [], 22, 22
    while at < 100:
        points.append(-(-at * steps // 100))
        interval = max(interval - 3, 6)
        at += interval
    return sorted(set(points))


def apgd(problem: Problem, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Auto-PGD (Croce and Hein 2020, Algorithm 1) from ``x``: last points and which are misclassified, as ``pgd``.

    Momentum 0.75; one step size per image, 2 eps at first; at a checkpoint it is halved and the search goes back to
    the best point if the loss rose in at most 75 % of the steps since the last one, or neither the best loss nor the
    step size changed.
    """
    found, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    active, previous = torch.arange(len(x), device=x.device), x
    value, gradient, wrong = problem.at(x, active)
    best, best_value, best_gradient, best_then = x, value, gradient, value
    size, rises = torch.full_like(value, 2 * problem.eps), torch.zeros_like(value)
    halved, checked = torch.zeros_like(wrong), 0
    for step in range(1, steps + 1):
        found[active], broken[active] = x, wrong
        if wrong.all():
            return found, broken
        if wrong.any():
            active, x, previous, value, gradient = (t[~wrong] for t in (active, x, previous, value, gradient))
            size, rises, halved, best_then = (t[~wrong] for t in (size, rises, halved, best_then))
            best, best_value, best_gradient = (t[~wrong] for t in (best, best_value, best_gradient))
        there = problem.inside(x + size[:, None, None, None] * gradient.sign(), active)
        if step > 1:
            there = problem.inside(x + 0.75 * (there - x) + 0.25 * (x - previous), active)
        x, previous, before = there, x, value
        value, gradient, wrong = problem.at(x, active)
        rises = rises + (value > before)
        better = value > best_value
        best, best_gradient = _choose(better, x, best), _choose(better, gradient, best_gradient)
        best_value = torch.where(better, value, best_value)
        if step in checkpoints(steps):
            slow = rises <= 0.75 * (step - checked)
            halve = slow | (~halved & (best_value <= best_then))
            back = halve & ~wrong  # a misclassified point is the result
            x, gradient = _choose(back, best, x), _choose(back, best_gradient, gradient)
            value, size = torch.where(back, best_value, value), torch.where(halve, size / 2, size)
            rises, halved, best_then, checked = torch.zeros_like(rises), halve, best_value, step
    found[active], broken[active] = x, wrong
    return found, broken


def _choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(mask[:, None, None, None], yes, no)
