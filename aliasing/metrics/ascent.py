"""Gradient ascent on a loss inside a ball around each image: projected gradient ascent and Auto-PGD.

Both stop working on an image at the first misclassified point they visit.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..streams import per_image

__all__ = ["Ball", "Loss", "Norm", "Problem", "apgd", "checkpoints", "pgd"]

Norm = Literal["linf", "l2"]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits (n, classes), labels (n,) and targets (n,)


class Ball(NamedTuple):
    """The ball of radius ``eps`` in ``norm`` around an image, cut with the image box [0, 1]."""

    eps: float
    norm: Norm

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """Into the ball, then into the box; the second step stays in the ball, since its centre is in the box."""
        away = x - centre
        if self.norm == "linf":
            away = away.clamp(-self.eps, self.eps)
        else:
            away = away * (self.eps / _length(away)).clamp_max(1)
        return (centre + away).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of unit norm in which a loss with this gradient rises fastest."""
        return gradient.sign() if self.norm == "linf" else gradient / _length(gradient)

    def random_point(self, centre: Tensor, seeds: Tensor, start: int, stretch: bool = False) -> Tensor:
        """A random point around each image, from the stream of its seed plus ``start``.

        l-infinity: uniform; ``stretch`` moves it out until it touches the ball, as APGD does. l2: uniform on the
        sphere, where nearly all of a ball in thousands of dimensions lies.
        """
        draw = torch.rand if self.norm == "linf" else torch.randn
        shape = centre.shape[1:]
        noise = per_image(seeds + start, lambda stream: draw(shape, generator=stream)).to(centre)
        if self.norm == "l2":
            noise = noise / _length(noise)
        else:
            noise = 2 * noise - 1
            noise = noise / noise.abs().amax((1, 2, 3), keepdim=True) if stretch else noise
        return self.project(centre + self.eps * noise, centre)


class Problem(NamedTuple):
    """What is maximised: ``loss`` of ``model`` in ``ball`` around ``images`` (n, 3, H, W)."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor
    loss: Loss
    ball: Ball

    def at(self, x: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, its gradient and whether the label loses, at one point ``x`` for each image of ``active`` (m,)."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.model(x)
            value = self.loss(logits, self.labels[active], self.targets[active])
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient, logits.argmax(1) != self.labels[active]

    @torch.no_grad()
    def wrong(self, x: Tensor, active: Tensor) -> Tensor:
        """Whether the label loses at ``x``, for a point from which nobody goes on."""
        return self.model(x).argmax(1) != self.labels[active]


def pgd(problem: Problem, x: Tensor, steps: int, step_size: float) -> tuple[Tensor, Tensor]:
    """Projected gradient ascent from ``x``: the last point of each image, and which are misclassified."""
    found, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    active = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        _, gradient, wrong = problem.at(x, active)
        found[active], broken[active] = x, wrong
        if wrong.all():
            return found, broken
        active, x, gradient = active[~wrong], x[~wrong], gradient[~wrong]
        x = problem.ball.project(x + step_size * problem.ball.steepest(gradient), problem.images[active])
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


class _State(NamedTuple):
    """What Auto-PGD keeps of each image; ``best_then`` is the best loss at the last checkpoint."""

    active: Tensor
    x: Tensor
    previous: Tensor
    value: Tensor
    gradient: Tensor
    best: Tensor
    best_value: Tensor
    best_gradient: Tensor
    best_then: Tensor
    size: Tensor
    rises: Tensor
    halved: Tensor


def apgd(problem: Problem, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Auto-PGD (Croce and Hein 2020, Algorithm 1) from ``x``: last points and which are misclassified, as ``pgd``.

    Momentum 0.75; one step size per image, 2 eps at first; at a checkpoint it is halved and the search goes back to
    the best point if the loss rose in at most 75 % of the steps since the last one, or neither the best loss nor the
    step size changed.
    """
    ball = problem.ball
    found, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    active = torch.arange(len(x), device=x.device)
    value, gradient, wrong = problem.at(x, active)
    size, none = torch.full_like(value, 2 * ball.eps), torch.zeros_like(value)
    s = _State(active, x, x, value, gradient, x, value, gradient, value, size, none, torch.zeros_like(wrong))
    checked = 0
    for step in range(1, steps + 1):
        found[s.active], broken[s.active] = s.x, wrong
        if wrong.all():
            return found, broken
        if wrong.any():
            s = _State(*(t[~wrong] for t in s))
        centre = problem.images[s.active]
        x = ball.project(s.x + s.size[:, None, None, None] * ball.steepest(s.gradient), centre)
        if step > 1:
            x = ball.project(s.x + 0.75 * (x - s.x) + 0.25 * (s.x - s.previous), centre)
        value, gradient, wrong = problem.at(x, s.active)
        better = value > s.best_value
        s = s._replace(
            x=x,
            previous=s.x,
            value=value,
            gradient=gradient,
            best=_choose(better, x, s.best),
            best_value=torch.where(better, value, s.best_value),
            best_gradient=_choose(better, gradient, s.best_gradient),
            rises=s.rises + (value > s.value),
        )
        if step in checkpoints(steps):
            slow = s.rises <= 0.75 * (step - checked)
            halve = slow | (~s.halved & (s.best_value <= s.best_then))
            back = halve & ~wrong  # a misclassified point is the result
            s = s._replace(
                x=_choose(back, s.best, s.x),
                value=torch.where(back, s.best_value, s.value),
                gradient=_choose(back, s.best_gradient, s.gradient),
                best_then=s.best_value,
                size=torch.where(halve, s.size / 2, s.size),
                rises=torch.zeros_like(s.rises),
                halved=halve,
            )
            checked = step
    found[s.active], broken[s.active] = s.x, wrong
    return found, broken


def _choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(mask[:, None, None, None], yes, no)


def _length(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
