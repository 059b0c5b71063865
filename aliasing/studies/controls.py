"""Controls: could something duller than the paper's explanation have made the difference that a finding reports?

A control is decided like a finding, on the records of a study. Their rules were written after the `laptop` records had
been seen and before those of the other profiles; they change no verdict.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from ..metrics import Estimate
from ..records import Store
from . import saha2024_statistics
from .comparison import STUDY as COMPARISON
from .findings import Finding, Part, across_seeds, paired
from .grabinski2023 import STUDY as GRABINSKI2023
from .grabinski2023_findings import EPS, against
from .saha2024 import STUDY as SAHA2024
from .study import ledger, table
from .vasconcelos2020 import STUDY as VASCONCELOS2020
from .vasconcelos2020_findings import difference

__all__ = ["CONTROLS", "controls", "degradation"]

Statistic = Callable[[pd.DataFrame], Estimate | None]

# A statement of ours is not reproduced; what the words for verdicts on claims mean here.
WORDS = {"reproduced": "holds", "contradicted": "does not hold", "not reproduced": "no effect"}
HALF_A_POINT, POINT = 0.005, 0.01
OURS = "control of this project"


def degradation(results: pd.DataFrame) -> pd.DataFrame:
    """Adds "degradation", the error that corruption adds to that on the same pictures clean (as fractions)."""
    return results.assign(degradation=results["corruption_error"] - results["clean_error"])


def _added(first: str, second: str) -> Statistic:
    return lambda results: difference("degradation", first, second)(degradation(results))


def _of_clean_error(results: pd.DataFrame) -> Estimate | None:
    """Share of the variance of the corruption error over cases that a line in the clean error explains, by seed."""
    shares = [
        np.corrcoef(rows["clean_error"], rows["corruption_error"])[0, 1] ** 2
        for _, rows in results.groupby("seed")
        if len(rows) > 3
    ]
    return Estimate.mean(torch.tensor(shares, dtype=torch.float64)) if shares else None


def _right(layer: str, backbone: str) -> Statistic:
    """Consistency of correctly classified pictures, ``layer`` minus ``subsample``, paired by seed."""

    def statistic(results: pd.DataFrame) -> Estimate | None:
        column = "circular_consistency_if_correct"
        return paired(*(across_seeds(results, column, backbone=backbone, layer=one) for one in (layer, "subsample")))

    return statistic


def _right_ones(layer: str) -> tuple[Part, ...]:
    """One part per network: consistency among the pictures that are classified correctly where they are."""
    return tuple(
        Part(
            f"circular consistency of correctly classified pictures, {layer} minus subsample, {name}",
            _right(layer, key),
            margin=HALF_A_POINT,
        )
        for key, name in (("vgg", "VGG"), ("resnet", "residual network"))
    )


CONTROLS = (
    (
        COMPARISON,
        Finding(
            "control-1",
            "Blur's gain in consistency remains among correctly classified pictures: it is no by-product of accuracy.",
            OURS,
            "the objection is ours; no paper states consistency among correctly classified pictures",
            _right_ones("tri-3") + _right_ones("bin-5"),
        ),
    ),
    (
        GRABINSKI2023,
        Finding(
            "control-2",
            "FLC gains more native robustness than a plain low-pass of three taps.",
            OURS,
            "the paper compares FLC with strides only, as far as we could read it",
            (
                Part(
                    "accuracy under PGD of 1/255, FLC minus tri-3",
                    against("pgd_accuracy", "flc", "tri-3", index=EPS),
                    margin=POINT,
                ),
                Part(
                    "corruption error, FLC minus tri-3",
                    against("corruption_error", "flc", "tri-3"),
                    "below",
                    margin=HALF_A_POINT,
                ),
            ),
        ),
    ),
    (
        GRABINSKI2023,
        Finding(
            "control-3",
            "Halving the picture by a low-pass, with strides everywhere inside the network, already gains robustness.",
            OURS,
            "in the paper's ImageNet networks the picture is pooled before anything is learned",
            (
                Part(
                    "accuracy under PGD of 1/255, halving the picture by FLC minus by stride",
                    against("pgd_accuracy", "flc", group="input", index=EPS),
                    margin=POINT,
                ),
            ),
        ),
    ),
    (
        SAHA2024,
        Finding(
            "control-4",
            "TIPS misses 100 per cent because the published layer pads with zeros: circular padding cures it.",
            OURS,
            "the published layer pads its inner convolution with zeros (authors' code)",
            (
                Part(
                    "circular consistency, circular padding inside minus the published zeros",
                    saha2024_statistics.difference("circular_consistency_drawn", "tips + losses", "tips as published"),
                    margin=HALF_A_POINT,
                ),
                Part(
                    "circular consistency with circular padding inside",
                    saha2024_statistics.level("circular_consistency_drawn", "tips + losses"),
                    threshold=0.999,
                ),
            ),
        ),
    ),
    (
        VASCONCELOS2020,
        Finding(
            "control-5",
            "Corruption error tells how much a network learned, and blur does not bear corruption better.",
            OURS,
            "the paper's networks are trained to the end; ours, in the small profiles, are not",
            (
                Part(
                    "share of the corruption error's variance over cases explained by clean error",
                    _of_clean_error,
                    threshold=0.9,
                ),
                Part(
                    "error added by corruption, blur at all places minus none",
                    _added("all", "none"),
                    "above",
                    -HALF_A_POINT,
                ),
            ),
        ),
    ),
)


def controls(profile: str, store: Store | None = None) -> pd.DataFrame:
    """Every control decided on the records of ``profile``, as ``studies.ledger`` has findings; nothing is trained.

    Args:
        profile: a name in ``profiles.PROFILES``.
        store: the union of the working and the published store by default.
    """
    store = store or Store()
    decided = pd.concat(
        [
            ledger(replace(study, findings=(one,)), table(study.jobs(profile), store), profile)
            for study, one in CONTROLS
        ],
        ignore_index=True,
    )
    return decided.replace({"verdict": WORDS})
