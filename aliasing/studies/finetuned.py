"""What does anti-aliasing give a network that is already trained, at equal fine-tuning? The control, and every layer.

One network, Imagenette's pictures without those of ImageNet's validation set, which are kept for measuring. Intervals
are over pictures, of the mean over seeds; differences are paired by picture.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch

from ..finetuning import LR
from ..jobs import Job
from ..measurements import Measurement, unpacked
from ..metrics import Estimate
from ..records import Run
from ..training import Recipe
from .evidence import Result, Statistic, select
from .rules import POINT, above, below, claims, kept
from .study import Study

# "none" is the control. The most informative first: a stop leaves whole comparisons.
LAYERS = ("none", "tri-3", "bin-5", "flc", "aps", "rect-2", "bin-7", "asap", "lps", "tips", "ddac")


def plan(profile: str) -> Iterator[Job]:
    """A run per seed and layer, and one without fine-tuning, where nothing is drawn, per layer."""
    if profile in ("laptop", "cluster"):
        return
    learn: dict[str, Any] = {"name": "imagenette", "size": 160, "origin": "train"}
    held: dict[str, Any] = {"name": "imagenette", "size": 160, "origin": "val"}
    others: dict[str, Any] = {"name": "imagenet-sample-1000", "size": 160}
    layers: tuple[str, ...] = LAYERS
    seeds, count, size = 3, 9469 if profile == "desktop" else 12_894, 144
    if profile == "smoke":  # drawn pictures: they show that the code works, and nothing else
        learn, held, others = ({"name": "shapes", "seed": s, "size": 40, "count": 24} for s in (5, 6, 7))
        layers, seeds, count, size = LAYERS[:3], 1, 24, 32
    options = {"held_out": held, "others": others, "count": count, "size": size, "epochs": 1, "lr": LR}
    for seed in range(seeds):
        for layer in layers:
            for tuned in (False, True) if seed == 0 else (True,):
                network = {"name": "tf_efficientnet_lite0", "pretrained": True, "layer": layer, "tuned": tuned}
                run = Run(learn, network, Recipe(epochs=0), seed)
                yield Job(run, (Measurement("fine_tuned", options),), {"layer": layer, "tuned": tuned})


def _minus(measure: str, layer: str, other: str = "none", other_tuned: bool = True) -> Statistic:
    """What the fine-tuned network with ``layer`` gives minus another, paired by picture, of the mean over seeds.

    The interval is over pictures, for the networks of these seeds; a network without fine-tuning has none.
    """
    settings = {"layer": layer, "tuned": True}, {"layer": other, "tuned": other_tuned}
    column = f"fine_tuned.{measure}_by_image"

    def of(table: pd.DataFrame) -> Result | None:
        texts = [select(table, setting)[column].dropna() if column in table else [] for setting in settings]
        if not all(map(len, texts)):
            return None
        means = (torch.stack([unpacked(text).double() for text in own]).mean(0) for own in texts)
        drawn = [len(own) for own, setting in zip(texts, settings, strict=True) if setting["tuned"]]
        return Result.over(Estimate.difference(*means), min(drawn))

    return Statistic(settings, of)


_CHANGE, _CONSISTENCY = "one_pixel_changes_the_answer", "consistency_crop_shifts"
_AGREEMENT, _ALL = "agreement_with_the_original", "accuracy_on_all_classes"
TESTS = {
    "tuned-1: P(top-1 change), one pixel, tri-3 minus the control": below(_minus(_CHANGE, "tri-3"), margin=POINT),
    "tuned-1: consistency under crop shifts, tri-3 minus the control": above(
        _minus(_CONSISTENCY, "tri-3"), margin=POINT
    ),
    "tuned-2: accuracy on the classes it was fine-tuned on, tri-3 minus the control": kept(_minus("accuracy", "tri-3")),
    "tuned-2: accuracy on all classes, tri-3 minus the control": kept(_minus(_ALL, "tri-3")),
    "tuned-3: agreement with the original, tri-3, fine-tuned minus not": above(
        _minus(_AGREEMENT, "tri-3", "tri-3", other_tuned=False), margin=POINT
    ),
    "tuned-4: accuracy on all classes, bin-5 minus tri-3": below(_minus(_ALL, "bin-5", "tri-3"), margin=POINT),
}

STUDY = Study(
    "finetuned",
    "Anti-aliasing a network that is already trained",
    "a question of users; EfficientNet-Lite0 of Tan & Le 2019",
    plan,
    claims({"tuned-1 tuned-2 tuned-3 tuned-4": ()}, TESTS),
    shown_in="which_layer",
)
