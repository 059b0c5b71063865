"""Figures of the chapter on Saha and Gokhale that need no training: computed from the layers, in double precision."""

from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from .. import datasets, layers, models
from ..layers import regularisers
from ..metrics.realignment import Realigned, realigned, realigned_errors
from ..plots import Captioned, grid, show

__all__ = ["FORMS", "counter_example", "fm_forms", "random_depth"]

FORMS = ("code", "linear", "two_sided")


def _impulse(scale: float, faithful: bool = False) -> layers.TIPS:
    """A TIPS layer of one channel whose psi is its (non-negative) input; ``scale`` is its one other parameter."""
    layer = layers.TIPS(1, padding_mode="circular", faithful=faithful)
    with torch.no_grad():
        layer.tau.filter.weight.zero_()
        layer.tau.filter.weight[0, 0, 1, 1] = 1
        layer.tau.scale.weight.fill_(scale)
    return layer.double()


@torch.no_grad()
def counter_example() -> Captioned:
    """Sixteen numbers and their sixteen rolls: what changes in the mean of the output, and in its map."""
    x = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)
    rolls = list(product(range(4), repeat=2))
    moved = torch.cat([x.roll(roll, (2, 3)) for roll in rolls])
    operators = {
        "tips, as published": _impulse(0.1, faithful=True),
        "tips, weights follow the phases": _impulse(0.1),
        "aps": layers.create("aps", 1, padding_mode="circular"),
    }
    figure, axes = grid(2, 3, width=9, height=2.6)
    means: dict[str, Tensor] = {}
    for column, (name, layer) in enumerate(operators.items()):
        plain, outputs = layer(x), layer(moved)
        means[name] = outputs.mean((1, 2, 3)) - plain.mean()
        maps = realigned(plain.expand_as(outputs), outputs)
        for axis, values, title in zip(
            axes[:, column], (means[name], maps), ("change of the mean", "error of the map"), strict=True
        ):
            square = values.reshape(4, 4).numpy()
            signed = axis is axes[0, column]
            axis.imshow(square, cmap="PuOr" if signed else "Purples", vmin=-1 if signed else 0, vmax=1)
            axis.grid(False)
            axis.set_xticks(range(4))
            axis.set_yticks(range(4))
            for i, j in rolls:
                axis.text(j, i, f"{square[i, j]:.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=8)
            axis.set_title(f"{name}\n{title}" if signed else title, fontsize=9)
    figure.supxlabel("roll to the right (pixels)")
    figure.supylabel("roll down (pixels)")
    one = float(means["tips, as published"][4])
    return show(
        figure,
        "The numbers 0 to 15 in a square, rolled in all sixteen ways. Top: mean of the layer's output minus that "
        f"without a roll; one roll down moves it by {one:.3f} in the published layer (impulse filter, scale 0.1). "
        "Bottom: relative error of the 2 x 2 output after the best realignment. Weights that follow the phases mend "
        "the mean, not the map; selection (aps) mends both. No training, no randomness.",
        "Six annotated 4 x 4 tables. Published TIPS: non-zero in both rows. TIPS with weights that follow the phases: "
        "zeros above, non-zero below. APS: zeros in both.",
    )


@torch.no_grad()
def fm_forms() -> Captioned:
    """The three forms of the loss on the mixing weights, against their l2 norm and against a logit that grows."""
    layer = _impulse(1.0)
    logits, norms = np.linspace(0, 12, 61), []
    losses: dict[str, list[float]] = {form: [] for form in FORMS}
    for logit in logits:
        x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
        x[:, :, ::2, ::2] = float(logit)  # logits (a, 0, 0, 0): from uniform weights to one phase
        norms.append(float(layer.tau(x).norm(dim=2)))
        for form in FORMS:
            losses[form].append(float(regularisers(layer, x, form=form)[0]))  # type: ignore[arg-type]
    figure, axes = grid(1, 2, width=9, height=3.3, sharey=True)
    lowest, first = {}, {}
    for start, form, line, marker in zip(range(3), FORMS, ("-", "--", "-."), "os^", strict=True):
        values = np.array(losses[form])
        lowest[form] = norms[int(values.argmin())]
        values = (values - values.min()) / np.ptp(values)
        first[form] = values[1] - values[0]
        for axis, place in zip(axes, (norms, logits), strict=True):
            axis.plot(place, values, line, marker=marker, markevery=(2 * start, 6), label=form)
    axes[0].set_xlabel("l2 norm of the weights (1/2: uniform, 1: one phase)")
    axes[1].set_xlabel("logit of one phase, the others 0")
    axes[0].set_ylabel("loss, rescaled to 0..1")
    axes[0].legend()
    found = ", ".join(f"{form} {norm:.2f}" for form, norm in lowest.items())
    return show(
        figure,
        f"The loss on the mixing weights as coded by the authors, as a third party reads the paper (linear), and a "
        f"two-sided form of ours. Smallest at the norm: {found}. The first two fall all the way to one phase: they "
        f"cannot hold back skewed weights. Right: all three are flat at uniform weights, where TIPS starts; a logit of "
        f"{logits[1]:.1f} changes them by {100 * max(map(abs, first.values())):.1f} per cent of their range at most. "
        "Computed by the package's loss; no training.",
        "Left: over the norm from one half to one, code and linear fall in a straight line and coincide, the two-sided "
        "form is a parabola with its minimum in the middle. Right: over the logit all start flat.",
    )


def random_depth(count: int = 16) -> tuple[dict[str, Realigned], str]:
    """Errors through untrained networks of each method, with the data they were measured on."""
    test = datasets.load("shapes", "test", seed=1, count=count)
    kinds: dict[str, dict[str, object] | str] = {name: name for name in ("subsample", "bin-5", "aps", "lps", "tips")}
    kinds["tips as published"] = {"name": "tips", "faithful": True}
    errors = {}
    for method, layer in kinds.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = models.create("vgg-small", 10, downsample=layer, padding_mode="circular", width=8).double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # one pass leaves the statistics of these pictures, as training would
        with torch.no_grad():
            network(test.images.double() / 255)
        errors[method] = realigned_errors(network, test.images)
    return errors, f"{count} pictures of {test.name}"
