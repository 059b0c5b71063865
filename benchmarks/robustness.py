"""Our corruptions and attacks beside the libraries they replace, on the same images and the same network.

Both take turns, so that a busy machine slows both. Corruptions: the library works on one image after the other, ours
on all of them; 224 pixels, where both use the constants of ImageNet-C, but for elastic_transform, of which the library
has its own variant, and frost, for which it has photographs. Attacks: the same radius, norm, steps and step size; ours
leave an image alone once it is misclassified, which is part of the comparison.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aliasing import models
from aliasing.datasets import load
from aliasing.datasets.corruptions import NAMES, SEVERITIES, corrupt
from aliasing.metrics import Attack, attack_images, predict
from aliasing.training import Recipe, train

from .reporting import ratios, report, surroundings, turns

__all__ = ["Duel", "report", "run", "table"]

#: Without random numbers, so that ours and theirs can be compared pixel by pixel.
DETERMINISTIC = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
EPS = 1 / 255  # leaves a network that was never attacked in training some accuracy to compare
STEPS = 20
Images = Callable[[], Tensor]


@dataclass(frozen=True)
class Duel:
    """Two ways to the same images; ``theirs`` is ``None`` if the peer is not installed.

    Attributes:
        columns: what is compared: its part, name, level and peer.
        ours: returns images; called once per turn.
        theirs: the same by the peer.
        effect: of the images that come out: what they did, one number.
        differ: of both: how far they are apart, one number; ``None`` where random numbers decide.
    """

    columns: dict[str, object]
    ours: Images
    theirs: Images | None
    effect: Callable[[Tensor], float]
    differ: Callable[[Tensor, Tensor], float] | None


def _peer(name: str) -> Any:
    """The module of a peer, or ``None``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other packages about themselves
            return importlib.import_module(name)
    except ImportError:
        return None


# Corruptions


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


def _corruptions(device: str, quick: bool) -> Iterator[Duel]:
    library = _peer("imagecorruptions")
    images = pictures(2, 128) if quick else pictures(16, 224)
    placed = images.to(device)

    def change(corrupted: Tensor) -> float:
        return _levels(corrupted, images)

    for name in NAMES:
        for severity in (3,) if quick else SEVERITIES:
            yield Duel(
                _columns("corruption", name, severity, "imagecorruptions", images),
                lambda name=name, severity=severity: corrupt(placed, name, severity),  # type: ignore[misc]
                None
                if library is None
                else lambda name=name, severity=severity: one_by_one(library, images, name, severity),  # type: ignore[misc]
                change,
                _levels if name in DETERMINISTIC else None,
            )


def _levels(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of images in levels of 0 to 255."""
    return (first.cpu().float() - second.cpu().float()).abs().mean().item()


# Attacks


def subject(device: str, quick: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network trained for a moment, test images as floats in [0, 1], and their labels."""
    data = load("shapes", "train", count=64 if quick else 4000, size=32)
    test = load("shapes", "test", count=32 if quick else 256, size=32)
    torch.manual_seed(0)
    network = models.create("vgg-small", 10)
    train(network, data, Recipe(epochs=1 if quick else 3, batch_size=64, lr=0.05), 0, device)
    return network.to(device).eval(), test.images.to(device).float() / 255, test.labels.to(device)


def _torchattacks(library: Any, network: nn.Module, attack: str) -> Callable[[Tensor, Tensor], Tensor]:
    attacks = {
        "fgsm": lambda: library.FGSM(network, eps=EPS),
        "pgd": lambda: library.PGD(network, eps=EPS, alpha=EPS / 4, steps=STEPS),
        "apgd-ce": lambda: library.APGD(network, eps=EPS, steps=STEPS),
    }
    return attacks[attack]()


def _foolbox(library: Any, network: nn.Module, attack: str) -> Callable[[Tensor, Tensor], Tensor]:
    attacks = {
        "fgsm": lambda: library.attacks.LinfFastGradientAttack(),
        "pgd": lambda: library.attacks.LinfPGD(abs_stepsize=EPS / 4, steps=STEPS),
    }
    own = attacks[attack]()
    wrapped = library.PyTorchModel(network, bounds=(0, 1), device=next(network.parameters()).device)
    return lambda images, labels: own(wrapped, images, labels, epsilons=EPS)[1]


PEERS: dict[str, tuple[Callable[..., Callable[[Tensor, Tensor], Tensor]], tuple[str, ...]]] = {
    "torchattacks": (_torchattacks, ("fgsm", "pgd", "apgd-ce")),
    "foolbox": (_foolbox, ("fgsm", "pgd")),
}


def _attacks(device: str, quick: bool) -> Iterator[Duel]:
    network, images, labels = subject(device, quick)

    def right(attacked: Tensor) -> Tensor:
        return predict(network, attacked).argmax(1) == labels

    for peer, (make, attacks) in PEERS.items():
        library = _peer(peer)
        for attack in attacks:
            steps = 1 if attack == "fgsm" else STEPS
            ours = Attack(attack, steps)
            theirs = None if library is None else make(library, network, attack)
            yield Duel(
                _columns("attack", attack, steps, peer, images),
                lambda ours=ours: attack_images(network, images, labels, ours, EPS)[0],  # type: ignore[misc]
                None if theirs is None else lambda theirs=theirs: theirs(images, labels),  # type: ignore[misc]
                lambda attacked: right(attacked).double().mean().item(),
                lambda attacked, other: (right(attacked) != right(other)).double().mean().item(),
            )


# Both


def _columns(part: str, name: str, level: int, peer: str, images: Tensor) -> dict[str, object]:
    """What tells rows apart; ``level`` is the severity or the number of steps."""
    count, _, side, _ = images.shape
    return {"part": part, "name": name, "level": level, "peer": peer, "images": count, "size": side}


def _row(duel: Duel, device: str, repeats: int) -> dict[str, object]:
    both = {"ours": duel.ours} | ({"peer": duel.theirs} if duel.theirs is not None else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, made = turns(both, device, repeats)
    rows: dict[str, object] = dict.fromkeys(("peer_images_per_s", "ratio", "ratio_low", "ratio_high"))
    rows |= {"peer_effect": None, "difference": None}
    for name, images in made.items():
        rows |= {f"{name}_images_per_s": len(images) / median(seconds[name]), f"{name}_effect": duel.effect(images)}
    if "peer" in made:
        rows |= ratios(seconds["ours"], seconds["peer"])
        rows["difference"] = duel.differ(made["ours"], made["peer"]) if duel.differ else None
    return duel.columns | rows


def run(device: str = "cpu", repeats: int = 5, quick: bool = False) -> pd.DataFrame:
    """Time every corruption at every severity, and every attack, beside the peers that are installed.

    Args:
        device: ``"cpu"`` or ``"cuda"``; the library of the corruptions works on the CPU in any case.
        repeats: timed turns per case, after one that warms up.
        quick: few small images and one severity, to see that it works; its ratios mean nothing.

    Returns:
        One row per case and peer: median images per second of both, the median, smallest and largest ratio of a turn,
        the effect of both (corruptions: mean absolute change of a pixel, in levels of 255; attacks: accuracy left), and
        their difference (mean absolute difference of the pixels, where no random number decides; share of images on
        which the attacks disagree). Peers that are not installed leave their columns empty. ``attrs`` has the
        surroundings and the peers that are missing.
    """
    rows = [_row(duel, device, repeats) for part in (_corruptions, _attacks) for duel in part(device, quick)]
    frame = pd.DataFrame(rows).astype(object)
    frame = frame.where(frame.notna(), None)
    missing = frame.loc[frame["ratio"].isna(), "peer"].unique().tolist()
    frame.attrs = surroundings(device, repeats) | {"skipped": dict.fromkeys(missing, "not installed")}
    return frame


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Per part, name and peer: speeds and ratio (median over severities, extremes in brackets), effects, difference."""
    lines = {}
    for key, rows in frame.groupby(["part", "name", "peer"], sort=False):
        numbers = {column: pd.to_numeric(rows[column]) for column in rows.columns[6:]}
        ratio = numbers["ratio"]
        scale = 100 if key[0] == "attack" else 1
        unit = " %" if key[0] == "attack" else ""
        lines[key] = {
            "ours, images/s": f"{numbers['ours_images_per_s'].median():.0f}",
            "peer, images/s": "not installed" if ratio.isna().all() else f"{numbers['peer_images_per_s'].median():.0f}",
            "ratio": _spread(ratio),
            "effect of ours": f"{scale * numbers['ours_effect'].mean():.1f}{unit}",
            "of the peer": "-" if ratio.isna().all() else f"{scale * numbers['peer_effect'].mean():.1f}{unit}",
            "difference": "-"
            if numbers["difference"].isna().all()
            else f"{scale * numbers['difference'].mean():.2f}{unit}",
        }
    index = pd.MultiIndex.from_tuples(lines, names=["part", "name", "peer"])
    return pd.DataFrame(list(lines.values()), index=index)


def _spread(ratio: pd.Series) -> str:
    if ratio.isna().all():
        return "-"
    if len(ratio) == 1:
        return f"{ratio.iloc[0]:.2f}"
    return f"{ratio.median():.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
