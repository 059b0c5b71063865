"""The claims of Grabinski et al. 2022 and 2023, each with the statistics and the rule that decide it.

Two of them are about the layers alone. Their intervals are over frequencies or map sizes instead of seeds.
"""

from collections.abc import Callable

import pandas as pd
import torch

from .. import layers
from ..metrics import Estimate, leakage, step_overshoot
from .findings import Finding, Part, across_seeds, paired

__all__ = ["EPS", "FINDINGS", "against", "last", "rise_and_fall"]

EPS = 2  # index of 1/255 among the radii of the measurement "attacks"
TRAINED = 5  # index of 8/255
FLOOR = 1e-3  # -30 dB: less than a thousandth of the energy is as good as nothing

Statistic = Callable[[pd.DataFrame], Estimate | None]


def _pool(name: str) -> layers.Downsample:
    """The published operator; the claims are about that one, not about our corrections."""
    return layers.create(name, channels=1, faithful=True)


def _stopped(name: str, half_bin: bool) -> torch.Tensor:
    """Energy that a layer passes of each frequency it should stop."""
    found = leakage(_pool(name), half_bin=half_bin)
    return found.energy[found.stopped]


def _leak(half_bin: bool) -> Statistic:
    return lambda table: Estimate.mean(_stopped("flc", half_bin))


def _less_leakage(share: float) -> Statistic:
    return lambda table: Estimate.mean(_stopped("asap", True) - share * _stopped("flc", True))


def _less_ringing(share: float) -> Statistic:
    """Over map sizes, in the middle row, away from the border that the published layer darkens."""

    def statistic(table: pd.DataFrame) -> Estimate:
        asap, flc = (
            torch.tensor([step_overshoot(_pool(name), size, border=False)[0] for size in range(16, 65, 4)])
            for name in ("asap", "flc")
        )
        return Estimate.mean(asap - share * flc)

    return statistic


def against(column: str, layer: str, other: str = "subsample", group: str = "native", index: int = -1) -> Statistic:
    """``layer`` minus ``other``, paired by seed; ``index`` picks an entry of a column of curves."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        chosen = table[table["group"] == group]
        if index >= 0:
            chosen = chosen.assign(picked=[curve[index] for curve in chosen[column]])
        values = [across_seeds(chosen, "picked" if index >= 0 else column, layer=name) for name in (layer, other)]
        return paired(*values)

    return statistic


def _mean(column: str, layer: str, group: str = "native") -> Statistic:
    def statistic(table: pd.DataFrame) -> Estimate | None:
        values = across_seeds(table, column, layer=layer, group=group)
        return Estimate.mean(torch.tensor(values.to_numpy())) if len(values) else None

    return statistic


def rise_and_fall(table: pd.DataFrame) -> pd.DataFrame:
    """Adds "collapse": PGD accuracy on training pictures in the best epoch minus that in the last."""
    return table.assign(collapse=[max(curve) - curve[-1] for curve in table["training.pgd"]])


def last(table: pd.DataFrame) -> pd.DataFrame:
    """Adds "robust": PGD accuracy on test pictures at the radius of training."""
    return table.assign(robust=[curve[TRAINED] for curve in table["pgd_accuracy"]])


def _adversarial(table: pd.DataFrame) -> pd.DataFrame:
    return last(rise_and_fall(table[table["group"] == "adversarial"]))


def _less_collapse(table: pd.DataFrame) -> Estimate | None:
    return against("collapse", "flc", group="adversarial")(_adversarial(table))


def _collapse(table: pd.DataFrame) -> Estimate | None:
    return _mean("collapse", "subsample", "adversarial")(_adversarial(table))


def _more_robust(table: pd.DataFrame) -> Estimate | None:
    return against("robust", "flc", group="adversarial")(_adversarial(table))


def _alias_less(table: pd.DataFrame) -> Estimate | None:
    plain = table[table["layer"] == "subsample"]
    trained, twin = (across_seeds(plain, "mean_alias_error", group=group) for group in ("adversarial", "twin"))
    return paired(trained, twin)


NO_NUMBER = "no number could be read; the papers' tables are not public where we looked"

FINDINGS = (
    Finding(
        "grabinski-1",
        "The aliasing of strided downsampling is tied to the lack of robustness.",
        "abstract of arXiv:2307.09804v1, citing earlier work; the two statistics are ours",
        NO_NUMBER,
        (
            Part(
                "strided network, mean alias error of pictures that PGD at 1/255 breaks minus those it does not",
                _mean("alias_error_of_broken_minus_kept", "subsample"),
                margin=0.005,
            ),
            Part(
                "strided network, mean alias error after a gradient step of 1/255 minus before",
                _mean("alias_error_rise", "subsample"),
                margin=0.005,
            ),
        ),
    ),
    Finding(
        "grabinski-2",
        "FLC pooling is free of aliasing in theory, and makes adversarial training simpler.",
        "abstract of arXiv:2307.09804v1; the layer itself, interval over frequencies instead of seeds",
        NO_NUMBER,
        (
            Part("energy that FLC passes of stopped waves on the bins, mean", _leak(False), "below", FLOOR),
            Part(
                "after single-step adversarial training: PGD accuracy at the radius of training, FLC minus stride",
                _more_robust,
                margin=0.01,
            ),
        ),
    ),
    Finding(
        "grabinski-3",
        "Pooling that cuts the spectrum still leaks: waves between the bins come through, and edges ring.",
        "abstract of arXiv:2307.09804v1 (leakage) and v2 (sinc artefacts); interval over frequencies",
        NO_NUMBER,
        (Part("energy that FLC passes of stopped waves between the bins, mean", _leak(True), "above", FLOOR),),
    ),
    Finding(
        "grabinski-4",
        "ASAP fixes leakage and ringing with a few changes; we call them fixed if at least half is gone.",
        "abstract of arXiv:2307.09804v1; intervals over frequencies and over map sizes instead of seeds",
        NO_NUMBER,
        (
            Part("energy passed between the bins, ASAP minus FLC", _less_leakage(1), "below", margin=FLOOR),
            Part("the same, ASAP minus half of FLC's", _less_leakage(0.5), "below", margin=FLOOR),
            Part("overshoot at a step, ASAP minus FLC", _less_ringing(1), "below", margin=0.01),
            Part("the same, ASAP minus half of FLC's", _less_ringing(0.5), "below", margin=0.01),
        ),
    ),
    Finding(
        "grabinski-5",
        "Naturally trained networks with ASAP withstand common corruptions better; those with FLC did not.",
        "abstract of arXiv:2307.09804v1",
        NO_NUMBER,
        (
            Part(
                "mean error under corruption, ASAP minus stride",
                against("corruption_error", "asap"),
                "below",
                margin=0.005,
            ),
            Part(
                "mean error under corruption, FLC minus stride; no gain if not lower by half a point",
                against("corruption_error", "flc"),
                threshold=-0.005,
            ),
        ),
    ),
    Finding(
        "grabinski-6",
        "Naturally trained networks with ASAP withstand adversarial attacks better.",
        "abstract of arXiv:2307.09804v1; the radius is ours, for at 8/255 no natural network is left",
        NO_NUMBER,
        (
            Part(
                "accuracy under PGD of 1/255, ASAP minus stride",
                against("pgd_accuracy", "asap", index=EPS),
                margin=0.01,
            ),
            Part(
                "accuracy under FGSM of 1/255, ASAP minus stride",
                against("fgsm_accuracy", "asap", index=EPS),
                margin=0.01,
            ),
        ),
    ),
    Finding(
        "grabinski-7",
        "Clean accuracy with ASAP is similar to the baseline's or better.",
        "abstracts of arXiv:2307.09804v1 and v2",
        NO_NUMBER,
        (
            Part(
                "accuracy, ASAP minus stride; similar if not lower by a point",
                against("accuracy", "asap"),
                threshold=-0.01,
            ),
        ),
    ),
    Finding(
        "grabinski-8",
        "Features are more stable under attack and corruption with FLC and with ASAP.",
        "abstract of arXiv:2307.09804v2; the cosine of pooled features is our measure",
        NO_NUMBER,
        tuple(
            Part(
                f"cosine of features before and after {cause}, {name} minus stride",
                against(f"stability_{column}", layer),
                margin=0.002,
            )
            for layer, name in (("flc", "FLC"), ("asap", "ASAP"))
            for column, cause in (("attack", "a gradient step of 1/255"), ("noise", "Gaussian noise"))
        ),
    ),
    Finding(
        "grabinski-9",
        "With FLC, single-step adversarial training does not overfit catastrophically; with strides it does.",
        "abstract of arXiv:2204.00491",
        NO_NUMBER,
        (
            # Added after a run in which a fall of three points sufficed for "reproduced".
            Part(
                "fall of PGD accuracy on training pictures, stride; a collapse if above a tenth",
                _collapse,
                threshold=0.1,
            ),
            Part(
                "fall of PGD accuracy on training pictures from the best epoch to the last, FLC minus stride",
                _less_collapse,
                "below",
                margin=0.02,
            ),
        ),
    ),
    Finding(
        "grabinski-10",
        "Robust networks alias less.",
        "abstract of Grabinski et al., Machine Learning 2022",
        NO_NUMBER,
        (
            Part(
                "mean alias error of the strided network, adversarially trained minus naturally trained",
                _alias_less,
                "below",
                margin=0.005,
            ),
        ),
    ),
)
