"""The claims of Saha and Gokhale and the rules that decide them, written down before the runs."""

from typing import Any

from .findings import Finding, Part
from .saha2024_statistics import (
    bias_correlation,
    difference,
    entry_difference,
    gap_growth,
    level,
    mean,
    shortfall,
    surface_mean,
    tips_overhead,
    undo_difference,
)

__all__ = ["FINDINGS"]

# What would matter in practice: half a point of accuracy or consistency, a point of bias, of weights or of loss.
FINE, COARSE = 0.005, 0.01


def _against(column: str, *others: str, task: str = "classes", method: str = "tips + losses", **rule: Any) -> tuple:
    """One part for each other method: ``method`` minus it."""
    label = column.replace("_", " ")
    return tuple(
        Part(f"{label}, {method} minus {other}", difference(column, method, other, task=task), margin=FINE, **rule)
        for other in others
    )


_OTHERS = ("subsample", "bin-5", "aps", "lps")
_ABSTRACT = "abstracts of arXiv:2404.07410v1 and of WACV 2025"
_TABLE = "cls_results.png in the authors' repository"

FINDINGS = (
    Finding(
        "saha-1",
        "Downsampling breaks the shift invariance of networks, and hurts their features even for small shifts.",
        _ABSTRACT,
        "max pooling, CIFAR-10, ResNet-18: circular consistency 89.9 per cent",
        (
            Part(
                "1 - circular consistency of max pooling",
                shortfall("circular_consistency_drawn", "subsample"),
                threshold=0.01,
            ),
            Part(
                "relative change of the pooled features, one-pixel rolls, max pooling",
                level("pooled_change", "subsample"),
                threshold=0.01,
            ),
        ),
    ),
    Finding(
        "saha-2",
        "Maximum-sampling bias is negatively correlated with shift consistency over networks.",
        _ABSTRACT,
        "no coefficient found",
        tuple(
            Part(
                f"Spearman, bias ({definition}) and standard consistency, with{'' if maximum else 'out'} max pooling"
                f"{', given accuracy' if given else ''}; interval over methods",
                bias_correlation(definition, maximum, given),
                "below",
                margin=0.2,
            )
            for definition, maximum, given in (
                ("exact", True, None),
                ("nearest", True, None),
                ("nearest", False, None),
                ("nearest", True, "accuracy"),
            )
        ),
    ),
    Finding(
        "saha-3",
        "TIPS has the lowest maximum-sampling bias of all layers.",
        _ABSTRACT,
        "no value found",
        tuple(
            Part(
                f"bias ({definition}), tips + losses minus the lowest of the other layers",
                difference(
                    f"msb_{definition}", "tips + losses", "subsample", "average", "tri-3", "bin-5", "aps", "lps"
                ),
                "below",
                margin=COARSE,
            )
            for definition in ("exact", "nearest")
        ),
    ),
    Finding(
        "saha-4",
        "TIPS is more accurate than max pooling, blur, APS and LPS.",
        _TABLE,
        "CIFAR-10: 98.1 against 91.6, 93.3, 94.1 and 94.5 per cent",
        _against("accuracy", *_OTHERS),
    ),
    Finding(
        "saha-5",
        "TIPS is more consistent under standard shifts than max pooling, blur, APS and LPS.",
        _TABLE,
        "CIFAR-10: 98.7 against 87.4, 90.5, 92.7 and 93.6 per cent",
        _against("standard_consistency", *_OTHERS),
    ),
    Finding(
        "saha-6",
        "TIPS improves shift fidelity over max pooling.",
        "tips_teaser.png in the authors' repository",
        "mean gains: 15.5 points (standard), 17.6 points (circular)",
        (
            *_against("standard_fidelity_joint", "subsample"),
            *_against("circular_fidelity_joint", "subsample"),
        ),
    ),
    Finding(
        "saha-7",
        "TIPS improves semantic segmentation and its consistency over max pooling.",
        _ABSTRACT,
        "no number found",
        tuple(
            part
            for column in ("mean_iou", "mask_consistency_standard", "mask_consistency_circular")
            for part in _against(column, "subsample", task="masks", method="tips")
        ),
    ),
    Finding(
        "saha-8",
        "TIPS is more robust to adversarial attacks.",
        _ABSTRACT,
        "no number found",
        tuple(
            Part(
                f"accuracy under PGD, mean of six radii, tips + losses minus {other}",
                entry_difference("pgd_accuracy", mean, "tips + losses", other),
                margin=FINE,
            )
            for other in ("subsample", "bin-5")
        ),
    ),
    Finding(
        "saha-9",
        "TIPS is more robust to changes of the distribution.",
        _ABSTRACT,
        "no number found",
        _against("corruption_error", "subsample", "bin-5", side="below"),
    ),
    Finding(
        "saha-10",
        "The circular consistency of TIPS is 100 per cent.",
        _TABLE,
        "100 ± 0.0 on all six benchmarks",
        tuple(
            Part(f"circular consistency, {method}", level("circular_consistency_drawn", method), threshold=0.999)
            for method in ("tips", "tips + losses", "tips as published")
        ),
    ),
    Finding(
        "saha-11",
        "The circular consistency of APS and of LPS is 100 per cent.",
        _TABLE + "; abstracts of both layers' papers",
        "100 ± 0.0 (LPS on Food-101: 99.5)",
        tuple(
            Part(f"circular consistency, {method}", level("circular_consistency_drawn", method), threshold=0.999)
            for method in ("aps", "lps")
        ),
    ),
    Finding(
        "saha-12",
        "Over shifts of up to 8 pixels consistency is highest for TIPS, then LPS, then max pooling; the gap grows.",
        "tips_teaser.png in the authors' repository",
        "a surface from 40 to 100 per cent, no numbers",
        (
            *(
                Part(
                    f"standard shifts, mean of the surface, {method} minus {other}",
                    entry_difference("surface_standard", surface_mean, method, other),
                    margin=FINE,
                )
                for method, other in (("tips + losses", "lps"), ("lps", "subsample"))
            ),
            Part(
                "gap of tips + losses to subsample, largest shift minus one pixel",
                gap_growth("tips + losses", "subsample"),
                margin=FINE,
            ),
        ),
    ),
    Finding(
        "saha-13",
        "TIPS costs little.",
        _ABSTRACT,
        "no number found; from the code: 0.12 per cent more parameters (ResNet-50)",
        (
            Part(
                "parameters of tips relative to subsample, minus 1",
                tips_overhead("parameters"),
                "below",
                threshold=0.05,
            ),
            Part("multiply-accumulates, likewise", tips_overhead("macs"), "below", threshold=0.05),
            Part("time of a forward pass, likewise", tips_overhead("milliseconds"), "below", threshold=0.25),
        ),
    ),
    Finding(
        "saha-14",
        "The two losses do their work: weights away from uniform, shifts undone, consistency up.",
        "abstract; diagrams and code in the authors' repository",
        "no number found",
        (
            Part(
                "mean l2 norm of the weights, with losses minus without",
                entry_difference("tau_norm", mean, "tips + losses", "tips"),
                margin=COARSE,
            ),
            Part(
                "undo loss relative to the map's energy, with losses minus without",
                undo_difference("tips + losses", "tips"),
                "below",
                margin=COARSE,
            ),
            *_against("standard_consistency", "tips"),
        ),
    ),
)
