"""Our corruptions and attacks beside the libraries they replace, on the same images and the same network.

Corruptions: the library works on one image after the other, on the CPU; ours on all of them; 224 pixels, where both use
the constants of ImageNet-C, but for elastic_transform, of which the library has its own variant, and frost, for which
it has photographs. Attacks: the same radius, norm, steps and step size; ours leave an image alone once it is
misclassified, which is part of the comparison.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aliasing import models
from aliasing.datasets import load
from aliasing.datasets.corruptions import NAMES, SEVERITIES, corrupt
from aliasing.metrics import attack_images, predict
from aliasing.training import Recipe, train

from . import peer, ratios, turns

__all__ = ["PEERS", "Duel", "cases", "measure", "table"]

PEERS = ("imagecorruptions", "torchattacks", "foolbox")
#: Without random numbers, so that ours and theirs can be compared pixel by pixel.
DETERMINISTIC = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
EPS = 1 / 255  # leaves a network that was never attacked in training some accuracy to compare
STEPS = 20


class Duel(NamedTuple):
    """Two ways to the same images.

    Attributes:
        columns: what is compared: its part, name, level (severity or number of steps), peer, images and their side.
        ours: returns images.
        theirs: the same by the peer.
        effect: of the images that come out: what they did, one number.
        differ: of both: how far they are apart, one number; ``None`` where random numbers decide.
    """

    columns: dict[str, object]
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    effect: Callable[[Tensor], float]
    differ: Callable[[Tensor, Tensor], float] | None


def cases(device: str, quick: bool) -> Iterator[Duel]:
    """Every corruption at every severity, and every attack, beside the peers that are installed."""
    if library := peer("imagecorruptions"):
        yield from _corruptions(library, device, quick)
    made = {name: make for name, make in ATTACKS.items() if peer(name)}
    if made:
        yield from _attacks(made, device, quick)


def pictures(count: int, side: int) -> Tensor:
    """Smooth colourful images with some detail, (count, 3, side, side) uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.rand(count, 3, n, n, generator=generator) for n in (5, side // 4))
    coarse, fine = (F.interpolate(x, (side, side), mode="bicubic").clamp(0, 1) for x in (coarse, fine))
    return ((0.7 * coarse + 0.3 * fine) * 255).to(torch.uint8)


def one_by_one(library: Any, images: Tensor, name: str, severity: int) -> Tensor:
    """What the library makes of ``images`` (N, 3, H, W) uint8: each on its own, channels last."""
    arrays = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    done = [library.corrupt(array, corruption_name=name, severity=severity) for array in arrays]
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2)


def _corruptions(library: Any, device: str, quick: bool) -> Iterator[Duel]:
    images = pictures(2, 128) if quick else pictures(16, 224)
    placed = images.to(device)
    for name in NAMES:
        for severity in (3,) if quick else SEVERITIES:
            yield Duel(
                _columns("corruption", name, severity, "imagecorruptions", images),
                partial(corrupt, placed, name, severity),
                partial(one_by_one, library, images, name, severity),
                partial(_levels, images),
                _levels if name in DETERMINISTIC else None,
            )


def _levels(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of images in levels of 0 to 255."""
    return (first.cpu().float() - second.cpu().float()).abs().mean().item()


def subject(device: str, quick: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network trained for a moment, test images as floats in [0, 1], and their labels."""
    data = load("shapes", "train", count=64 if quick else 4000, size=32)
    test = load("shapes", "test", count=32 if quick else 256, size=32)
    torch.manual_seed(0)
    network = models.create("vgg-small", 10)
    train(network, data, Recipe(epochs=1 if quick else 3, batch_size=64, lr=0.05), 0, device)
    return network.to(device).eval(), test.images.to(device).float() / 255, test.labels.to(device)


Attacks = dict[str, Callable[[Tensor, Tensor], Tensor]]


def _torchattacks(network: nn.Module) -> Attacks:
    library = peer("torchattacks")
    return {
        "fgsm": library.FGSM(network, eps=EPS),
        "pgd": library.PGD(network, eps=EPS, alpha=EPS / 4, steps=STEPS),
        "apgd-ce": library.APGD(network, eps=EPS, steps=STEPS),
    }


def _foolbox(network: nn.Module) -> Attacks:
    library = peer("foolbox")
    wrapped = library.PyTorchModel(network, bounds=(0, 1), device=next(network.parameters()).device)
    attacks = library.attacks
    made = {"fgsm": attacks.LinfFastGradientAttack(), "pgd": attacks.LinfPGD(abs_stepsize=EPS / 4, steps=STEPS)}
    return {
        name: lambda images, labels, own=own: own(wrapped, images, labels, epsilons=EPS)[1]  # type: ignore[misc]
        for name, own in made.items()
    }


ATTACKS: dict[str, Callable[[nn.Module], Attacks]] = {"torchattacks": _torchattacks, "foolbox": _foolbox}


def _attacks(made: dict[str, Callable[[nn.Module], Attacks]], device: str, quick: bool) -> Iterator[Duel]:
    network, images, labels = subject(device, quick)

    def right(attacked: Tensor) -> Tensor:
        return predict(network, attacked).argmax(1) == labels

    for name, make in made.items():
        for attack, theirs in make(network).items():
            steps = 1 if attack == "fgsm" else STEPS
            ours = partial(attack_images, network, images, labels, attack, EPS, steps)
            yield Duel(
                _columns("attack", attack, steps, name, images),
                lambda ours=ours: ours()[0],  # type: ignore[misc]
                partial(theirs, images, labels),
                lambda attacked: right(attacked).double().mean().item(),
                lambda attacked, other: (right(attacked) != right(other)).double().mean().item(),
            )


def _columns(part: str, name: str, level: int, peer: str, images: Tensor) -> dict[str, object]:
    count, _, side, _ = images.shape
    return {"part": part, "name": name, "level": level, "peer": peer, "images": count, "size": side}


def measure(duel: Duel, device: str, repeats: int) -> list[dict[str, object]]:
    """Median images per second of both and ratios; the effect of both, and their difference.

    Effects are, of corruptions, the mean absolute change of a pixel in levels of 255, and of attacks the accuracy left;
    differences the mean absolute difference of the pixels, where no random number decides, and the share of images on
    which the attacks disagree.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, made = turns({"ours": duel.ours, "peer": duel.theirs}, device, repeats)
    row = duel.columns | ratios(seconds["ours"], seconds["peer"])
    for who, images in made.items():
        row |= {f"{who}_images_per_s": len(images) / median(seconds[who]), f"{who}_effect": duel.effect(images)}
    return [row | {"difference": duel.differ(*made.values()) if duel.differ else None}]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Per part, name and peer: speeds and ratio (median over severities, extremes in brackets), effects, difference."""
    groups = frame.groupby(["part", "name", "peer"], sort=False)
    found = pd.DataFrame(index=groups.size().index)
    share = found.index.get_level_values("part") == "attack"
    for column, heading in {"ours_images_per_s": "ours, images/s", "peer_images_per_s": "peer, images/s"}.items():
        found[heading] = groups[column].median().map("{:.0f}".format)
    found["ratio"] = groups["ratio"].agg(lambda r: f"{r.median():.2f} ({r.min():.2f} to {r.max():.2f})")
    effects = {"ours_effect": "effect of ours", "peer_effect": "of the peer", "difference": "difference"}
    for column, heading in effects.items():
        means = frame[column].astype(float).groupby([frame["part"], frame["name"], frame["peer"]], sort=False).mean()
        found[heading] = (means * np.where(share, 100, 1)).map("{:.2f}".format) + np.where(share, " %", "")
    return found
