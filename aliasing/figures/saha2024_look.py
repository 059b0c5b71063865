"""How the methods of the chapter on Saha and Gokhale look: the colour of their layer, a line for every variant."""

from typing import Any

from ..plots import COLOURS, MARKERS

__all__ = ["look"]

LINES = {"tips + losses": "--", "tips as published": ":", "average": "-."}
LAYERS = {"tips + losses": "tips", "tips as published": "tips", "average": "rect-2"}


def look(method: str) -> dict[str, Any]:
    """Options of ``plot`` for a method."""
    layer = LAYERS.get(method, method)
    return {
        "color": COLOURS[layer],
        "marker": MARKERS[layer],
        "linestyle": LINES.get(method, "-"),
        "markerfacecolor": "none" if method in LINES else COLOURS[layer],
    }
