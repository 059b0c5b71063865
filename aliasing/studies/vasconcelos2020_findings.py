"""What Vasconcelos et al. 2020 (A) and 2021 (A') claim, and the rules that decide; fixed before the networks ran."""

import re
from collections.abc import Callable, Iterable

import pandas as pd

from ..metrics import Estimate
from .findings import Finding, Part, across_seeds, paired

__all__ = ["FINDINGS", "difference", "role"]

POINT = 0.005  # an effect below half a per cent would not matter in practice
BLURRED = ("all", "other stem + blur")  # the second where the profile's own stem keeps every pixel
SINGLES, PAIRS = ("conv", "skip", "pool"), ("conv + skip", "conv + pool", "skip + pool")

Statistic = Callable[[pd.DataFrame], Estimate | None]


def role(name: str) -> str:
    """What the kernel of that name does: "stem", "strided conv", "skip", "blur" or "other"."""
    if re.search(r"\b(main|side|down)$", name):
        return "blur"
    if "layer" not in name:
        return "stem"
    if ".downsample." in name:
        return "skip"
    return "strided conv" if re.search(r"layer[2-9]\.0\.conv1$", name) else "other"


def _mean(table: pd.DataFrame, column: str, cases: Iterable[str]) -> pd.Series:
    """Mean over cases, by seed."""
    return pd.concat([across_seeds(table, column, case=case) for case in cases], axis=1).mean(axis=1, skipna=False)


def difference(column: str, first: str | tuple[str, ...], second: str | tuple[str, ...] = "none") -> Statistic:
    """First cases minus second cases, paired by seed."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        groups = [(cases,) if isinstance(cases, str) else cases for cases in (first, second)]
        return paired(*(_mean(table, column, cases) for cases in groups))

    return statistic


def _interaction(column: str) -> Statistic:
    """What blur adds to RandAugment minus what it adds without."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        value = {case: across_seeds(table, column, case=case) for case in table["case"].unique()}
        names = ("RandAugment + blur", "RandAugment", "all", "none")
        if not set(names) <= set(value):
            return None
        return paired(value[names[0]] - value[names[1]], value[names[2]] - value[names[3]])

    return statistic


def _stem(column: str, *others: str) -> Statistic:
    """Plain network that keeps every pixel in its first convolution, minus another one that halves there."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        whole = table[table["case"].isin(["none", "other stem"]) & (table["stem"] == 1)]
        halved = table[table["case"].isin(others) & (table["stem"] == 2)]
        return paired(across_seeds(whole, column), across_seeds(halved, column))

    return statistic


def _power(case: str, *roles: str, stem: int | None = None) -> Callable[[pd.DataFrame], pd.Series]:
    """Stop-band share averaged over the kernels of some roles, by seed."""

    def series(table: pd.DataFrame) -> pd.Series:
        chosen = table[table["case"].isin([case, "none"] if stem else [case])]
        if stem:
            chosen = chosen[chosen["stem"] == stem]
        means = [pd.Series({k: v for k, v in row.items() if role(k) in roles}).mean() for row in chosen["stop_band"]]
        return pd.Series(means, index=chosen["seed"], dtype=float)

    return series


def _stem_kernel(table: pd.DataFrame) -> Estimate | None:
    power = _power("other stem", "stem", stem=2)(table)
    return paired(power, 0 * power + 0.75)


def _small_kernel(table: pd.DataFrame) -> Estimate | None:
    return paired(_power("other stem", "strided conv", stem=2)(table), _power("other stem", "stem", stem=2)(table))


def _drift(table: pd.DataFrame) -> Estimate | None:
    power = _power("trainable", "blur")(table)
    return paired(power, 0 * power + START)


def _sensitivity(first: str) -> Statistic:
    """Accuracy lost when a band is removed, mean over bands, of a case minus that of the plain network."""

    def statistic(table: pd.DataFrame) -> Estimate | None:
        asked = table[table["accuracy_without_band"].notna()]
        kept = [sum(curve) / len(curve) for curve in asked["accuracy_without_band"]]
        return difference("lost", first)(asked.assign(lost=asked["accuracy"] - kept))

    return statistic


# Stop-band share of the untrained filter [1 2 1]/4 on both axes: by hand, 1 - ((3 pi + 8) / (6 pi))^2.
START = 0.1455

ABSTRACT = "2020 abstract"
SEED = "2020, stated in a seed summary only"
SUMMARY = "2021, stated in third-party summaries only"

FINDINGS = (
    Finding(
        "vasconcelos-1",
        "Fixed blur at the strided places, with smooth activations or without, lowers the error under corruptions.",
        f"{ABSTRACT}; hendrycks/robustness README for the baseline's 76.7; 70.0 in a seed summary only",
        "ImageNet-C mCE of ResNet-50: 76.7 to 70.0 by architecture alone",
        (
            Part("corruption error, blur minus none", difference("corruption_error", "all"), "below", 0, POINT),
            Part(
                "corruption error, GELU + blur minus none",
                difference("corruption_error", "GELU + blur"),
                "below",
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-2",
        "Blur with GELU gives features that transfer better to few-shot tasks, also outside the training domain.",
        SEED,
        "Meta-Dataset: +3.75 points on average, +2.73 out of domain",
        (
            Part(
                "few-shot accuracy, known kind of picture, GELU + blur minus none",
                difference("few_shot_known_5", "GELU + blur"),
                margin=POINT,
            ),
            Part(
                "few-shot accuracy, handwriting, GELU + blur minus none",
                difference("few_shot_glyphs_5", "GELU + blur"),
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-3",
        "Blur works best at all three places together: strided convolution, strided shortcut, max-pool.",
        SEED,
        "best of the places tried; no number found",
        (
            Part(
                "corruption error, all three places minus mean of single places",
                difference("corruption_error", "all", SINGLES),
                "below",
                margin=POINT,
            ),
            Part(
                "corruption error, all three places minus mean of pairs",
                difference("corruption_error", "all", PAIRS),
                "below",
                margin=POINT,
            ),
            Part("accuracy, all three places minus mean of pairs", difference("accuracy", "all", PAIRS), margin=POINT),
        ),
    ),
    Finding(
        "vasconcelos-4",
        "Blur on the strided shortcut alone already raises accuracy; at all three places it does as well.",
        SUMMARY,
        "about +0.6 to +0.7 points of ImageNet accuracy; all critical paths about +1",
        (
            Part("accuracy, shortcut alone minus none", difference("accuracy", "skip"), margin=POINT),
            Part("accuracy, all three places minus none", difference("accuracy", "all"), margin=POINT),
        ),
    ),
    Finding(
        "vasconcelos-5",
        "Without the first halving a plain network transfers better than a blurred network with it.",
        SEED,
        "Meta-Dataset 77.86, above blurring alone",
        (
            Part(
                "few-shot accuracy, known kind, stem of stride 1 minus stride 2 blurred",
                _stem("few_shot_known_5", *BLURRED),
                margin=POINT,
            ),
            Part("few-shot accuracy, handwriting, the same", _stem("few_shot_glyphs_5", *BLURRED), margin=POINT),
        ),
    ),
    Finding(
        "vasconcelos-6",
        "Blur helps wherever it was tried and never costs clean accuracy.",
        f"{SEED}; 21.2 against 23.85 per cent in the hendrycks/robustness README, with augmentation",
        "clean ImageNet error 23.85 to 21.2 per cent (RandAugment included)",
        (
            Part(
                "accuracy, blur minus none; kept if not lower by a point",
                difference("accuracy", "all"),
                "above",
                -0.01,
            ),
            Part(
                "accuracy, mean of all seven subsets of places minus none; likewise",
                difference("accuracy", ("all", *SINGLES, *PAIRS)),
                threshold=-0.01,
            ),
            Part(
                "corruption error, mean of all seven subsets of places minus none",
                difference("corruption_error", ("all", *SINGLES, *PAIRS)),
                "below",
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-7",
        "Too much filtering hurts: a long filter after every convolution is worse than at the critical places.",
        SUMMARY,
        "about 68 per cent with 7 taps everywhere, about 77 without",
        (
            Part(
                "accuracy, 7 taps everywhere minus at critical places",
                difference("accuracy", "everywhere 7", "critical 7"),
                "below",
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-8",
        "The gain comes from what the filter does to values, not to gradients.",
        f"{SEED}; the paper's control is not known, ours filters in one direction only",
        "no number found",
        (
            Part(
                "corruption error, filter in the forward pass only minus none",
                difference("corruption_error", "forward only"),
                "below",
                margin=POINT,
            ),
            Part(
                "corruption error, forward only minus backward only",
                difference("corruption_error", "forward only", "backward only"),
                "below",
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-9",
        "The gain does not come from a wider receptive field.",
        f"{SEED}; the paper's control is not known; ours filter after the subsampling, or with random signs",
        "no number found",
        (
            Part(
                "corruption error, filter before minus after the subsampling",
                difference("corruption_error", "all", "too late"),
                "below",
                margin=POINT,
            ),
            Part(
                "corruption error, filter minus the same taps with random signs",
                difference("corruption_error", "all", "random signs"),
                "below",
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-10",
        "Training gives a blur no reason to stay a low-pass: if it may learn, it lets more of the stop band through.",
        "2020 research question 4 in a seed summary; drift in a third-party summary of 2021",
        "no number found",
        (Part("stop-band share of the learned filters minus that of the start", _drift, margin=0.01),),
    ),
    Finding(
        "vasconcelos-11",
        "A large stem learns a low-pass by itself; small strided kernels do not.",
        SUMMARY,
        "argument by the number of cosines; no number found",
        (
            Part("stop-band share of the strided 7 x 7 stem minus 3/4 (white)", _stem_kernel, "below", margin=0.01),
            Part("stop-band share, strided 3 x 3 minus stem", _small_kernel, margin=0.01),
        ),
    ),
    Finding(
        "vasconcelos-12",
        "Blur and RandAugment help each other.",
        SUMMARY,
        "top-1: none 77.36, blur 77.76, RandAugment 77.32, both 78.45: interaction +0.73 points",
        (
            Part("accuracy, gain by blur with RandAugment minus without", _interaction("accuracy"), margin=POINT),
            Part(
                "corruption error, the same difference of differences",
                _interaction("corruption_error"),
                "below",
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-13",
        "RandAugment alone makes a network need every band of frequencies more; blur makes it need them less.",
        SUMMARY,
        "curves only, no number found",
        (
            Part("accuracy lost per missing band, RandAugment minus none", _sensitivity("RandAugment"), margin=POINT),
            Part("accuracy lost per missing band, blur minus none", _sensitivity("all"), "below", margin=POINT),
        ),
    ),
    Finding(
        "vasconcelos-14",
        "Right after the convolution is the best place for the filter, better than after the activation (Zhang).",
        f"{SUMMARY}; Zhang's place is our comparison",
        "post-filter best of those tried; no number found",
        (
            Part(
                "accuracy, after convolution minus after activation",
                difference("accuracy", "all", "after activation"),
                margin=POINT,
            ),
            Part(
                "corruption error, the same",
                difference("corruption_error", "all", "after activation"),
                "below",
                margin=POINT,
            ),
        ),
    ),
    Finding(
        "vasconcelos-15",
        "What the first halving drops cannot be recovered: not even by a wider network of the same compute.",
        f"{SEED}; the control of equal compute is ours",
        "Meta-Dataset 77.86 without the halving; nothing found on compute",
        (
            Part(
                "few-shot accuracy, known kind, stem of stride 1 minus wider network with stride 2",
                _stem("few_shot_known_5", "wide stem"),
                margin=POINT,
            ),
            Part("few-shot accuracy, handwriting, the same", _stem("few_shot_glyphs_5", "wide stem"), margin=POINT),
        ),
    ),
    Finding(
        "vasconcelos-16",
        "Blur and RandAugment together lower the error, on corrupted pictures and on clean ones.",
        "hendrycks/robustness README, row of the first author; that RandAugment was used, in a seed summary only",
        "ImageNet-C mCE 76.7 to 64.9; clean error 23.85 to 21.2 per cent",
        (
            Part(
                "corruption error, RandAugment + blur minus none",
                difference("corruption_error", "RandAugment + blur"),
                "below",
                margin=POINT,
            ),
            Part("accuracy, RandAugment + blur minus none", difference("accuracy", "RandAugment + blur"), margin=POINT),
        ),
    ),
)
