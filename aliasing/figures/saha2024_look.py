"""What the figures on Saha and Gokhale share: how a method looks, and on which networks something is known."""

from typing import Any

import pandas as pd

from ..plots import COLOURS, MARKERS

__all__ = ["classes", "look"]

LINES = {"tips + losses": "--", "tips as published": ":", "average": "-."}
LAYERS = {"tips + losses": "tips", "tips as published": "tips", "average": "rect-2"}


def classes(results: pd.DataFrame, column: str) -> pd.DataFrame:
    """The classifiers on which ``column`` was measured."""
    return results[(results["task"] == "classes") & results[column].notna()]


def look(method: str) -> dict[str, Any]:
    """Options of ``plot`` for a method."""
    layer = LAYERS.get(method, method)
    return {
        "color": COLOURS[layer],
        "marker": MARKERS[layer],
        "linestyle": LINES.get(method, "-"),
        "markerfacecolor": "none" if method in LINES else COLOURS[layer],
    }
