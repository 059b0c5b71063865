"""What the comparison compares by: its metrics, and the columns it derives from the measurements."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["LEARNED", "METRICS", "Metric", "prepared"]

LEARNED = ("lps", "tips", "tips + losses", "ddac")  # layers with something to train


@dataclass(frozen=True)
class Metric:
    """A column of the comparison.

    Attributes:
        column: of the prepared results table.
        title: for axes and table heads.
        higher: whether more is better.
    """

    column: str
    title: str
    higher: bool = True

    @property
    def arrow(self) -> str:
        """The title with the direction that is better."""
        return f"{self.title} {'↑' if self.higher else '↓'}"


METRICS = (
    Metric("accuracy", "accuracy"),
    Metric("circular_consistency", "circular consistency"),
    Metric("standard_consistency", "standard consistency"),
    Metric("sub_pixel_consistency", "sub-pixel consistency"),
    Metric("top1_change_crop", "one-pixel change, crop", higher=False),
    Metric("mean_absolute_change_crop", "mean absolute change, crop", higher=False),
    Metric("small_attack", "accuracy, small attacks"),
    Metric("corruption_error", "corruption error", higher=False),
    Metric("msb_nearest", "maximum-sampling bias", higher=False),
    Metric("mean_alias_error", "alias error", higher=False),
    Metric("work", "multiply-accumulates, relative", higher=False),
)


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """The results with three columns more: accuracy under small attacks, work and time relative to ``subsample``.

    Small attacks are those of eps = 1/4, 1/2 and 1 of 255; their accuracies are averaged.
    """
    table = table.copy()
    attacked = table["pgd_accuracy"]
    table["small_attack"] = [float(np.mean(c[:3])) if isinstance(c, list) else float("nan") for c in attacked]
    for name, column in (("work", "macs"), ("time", "milliseconds")):
        own = table.groupby(["backbone", "layer"])[column].transform("first")
        plain = table[table["layer"] == "subsample"].groupby("backbone")[column].first()
        table[name] = own / table["backbone"].map(plain)
    return table
