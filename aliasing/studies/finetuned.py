"""What does anti-aliasing give a network that is already trained, at equal fine-tuning? The control, and every layer.

One network, Imagenette's pictures without those of ImageNet's validation set, which are kept for measuring. Intervals
are over pictures, of the mean over seeds; differences are paired by picture.
"""

from typing import Any, NamedTuple

import pandas as pd
import torch

from ..finetuning import LR
from ..measurements import Measurement, unpacked
from ..metrics import Estimate
from ..records import Run
from ..runner import Job
from ..training import Recipe
from .evidence import Result
from .rules import Test, claim
from .study import Study

__all__ = ["LAYERS", "STUDY"]

# "none" is the control. The most informative first: a stop leaves whole comparisons.
LAYERS = ("none", "tri-3", "bin-5", "flc", "aps", "rect-2", "bin-7", "asap", "lps", "tips", "ddac")


def plan(profile: str) -> list[Job]:
    """A run per seed and layer, and one without fine-tuning, where nothing is drawn, per layer."""
    if profile in ("laptop", "cluster"):
        return []
    learn: dict[str, Any] = {"name": "imagenette", "size": 160, "origin": "train"}
    held: dict[str, Any] = {"name": "imagenette", "size": 160, "origin": "val"}
    others: dict[str, Any] = {"name": "imagenet-sample-1000", "size": 160}
    layers: tuple[str, ...] = LAYERS
    seeds, count, size = 3, 9469 if profile == "desktop" else 12_894, 144
    if profile == "smoke":  # drawn pictures: they show that the code works, and nothing else
        learn, held, others = ({"name": "shapes", "seed": s, "size": 40, "count": 24} for s in (5, 6, 7))
        layers, seeds, count, size = LAYERS[:3], 1, 24, 32
    options = {"held_out": held, "others": others, "count": count, "size": size, "epochs": 1, "lr": LR}
    jobs = []
    for seed in range(seeds):
        for layer in layers:
            for tuned in (False, True) if seed == 0 else (True,):
                network = {"name": "tf_efficientnet_lite0", "pretrained": True, "layer": layer, "tuned": tuned}
                run = Run(learn, network, Recipe(epochs=0), seed)
                jobs.append(Job(run, (Measurement("fine_tuned", options),), {"layer": layer, "tuned": tuned}))
    return jobs


class _Difference(NamedTuple):
    """A measure of the fine-tuned network with ``layer`` minus that of another, paired by picture, mean over seeds."""

    measure: str
    layer: str
    other: str = "none"
    other_tuned: bool = True

    @property
    def settings(self) -> tuple[dict[str, Any], ...]:
        """The two networks."""
        return {"layer": self.layer, "tuned": True}, {"layer": self.other, "tuned": self.other_tuned}

    def __call__(self, table: pd.DataFrame) -> Result | None:
        """``None`` unless both were measured."""
        column, means, seeds = f"fine_tuned.{self.measure}_by_image", [], []
        for setting in self.settings:
            rows = table[(table["layer"] == setting["layer"]) & (table["tuned"] == setting["tuned"])]
            texts = rows[column].dropna() if column in table else []
            if not len(texts):
                return None
            means.append(torch.stack([unpacked(text).double() for text in texts]).mean(0))
            seeds.append(len(texts))
        found = Estimate.difference(*means)
        return Result(*found[:3], min(seeds), found.n, (found.high - found.low) / 2 / 1.96)


def _test(label: str, measure: str, layer: str, other: str = "none", side: Any = "above", **rule: Any) -> Test:
    """``layer`` minus another, both fine-tuned."""
    name = "the control" if other == "none" else other
    return Test(f"{label}, {layer} minus {name}", _Difference(measure, layer, other), side, **rule)


_CHANGE, _CONSISTENCY = "one_pixel_changes_the_answer", "consistency_crop_shifts"
_AGREEMENT, _ALL = "agreement_with_the_original", "accuracy_on_all_classes"
_FIXED = "3241a61"
FINDINGS = (
    claim(
        "tuned-1",
        (),
        _test("P(top-1 change), one pixel", _CHANGE, "tri-3", side="below", margin=0.01),
        _test("consistency under crop shifts", _CONSISTENCY, "tri-3", margin=0.01),
        fixed=_FIXED,
    ),
    claim(
        "tuned-2",
        (),
        _test("accuracy on the classes it was fine-tuned on", "accuracy", "tri-3", threshold=-0.01, margin=0.01),
        _test("accuracy on all classes", _ALL, "tri-3", threshold=-0.01, margin=0.01),
        fixed=_FIXED,
    ),
    claim(
        "tuned-3",
        (),
        Test(
            "agreement with the original, tri-3, fine-tuned minus not",
            _Difference(_AGREEMENT, "tri-3", "tri-3", other_tuned=False),
            margin=0.01,
        ),
        fixed=_FIXED,
    ),
    claim(
        "tuned-4",
        (),
        _test("accuracy on all classes", _ALL, "bin-5", "tri-3", side="below", margin=0.01),
        fixed=_FIXED,
    ),
)

STUDY = Study(
    "finetuned",
    "Anti-aliasing a network that is already trained",
    "a question of users; EfficientNet-Lite0 of Tan & Le 2019",
    plan,
    FINDINGS,
    shown_in="which_layer",
)
