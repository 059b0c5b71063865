"""What exists, a line each: kept in a file, so that ``aliasing list`` and ``--help`` need not wait for PyTorch.

``python -m aliasing.catalogue`` writes the file anew from the registries; a test compares them.
"""

import json
from pathlib import Path

__all__ = ["Rows", "catalogue", "collect"]

Rows = list[dict[str, str]]

FILE = Path(__file__).with_suffix(".json")


def catalogue() -> dict[str, Rows]:
    """The kinds of things there are, in the order of the registries; the first column of a row is the name."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def collect() -> dict[str, Rows]:
    """The catalogue as the registries have it, which loads the whole package."""
    from . import datasets, layers, models, studies
    from .evaluation import MEASUREMENTS
    from .profiles import PROFILES

    lines = {name: (function.__doc__ or "").strip().splitlines()[0] for name, function in MEASUREMENTS.items()}
    return {
        "layers": [{"layer": n, "what": e.description, "source": e.source} for n, e in layers.CATALOGUE.items()],
        "models": [{"model": n, "what": e.description, "source": e.source} for n, e in models.CATALOGUE.items()],
        "datasets": [{"dataset": n, "what": e.description, "source": e.source} for n, e in datasets.CATALOGUE.items()],
        "studies": [{"study": s.name, "title": s.title, "source": s.source} for s in studies.STUDIES.values()],
        "metrics": [{"metric": name, "what": line} for name, line in lines.items()],
        "profiles": [{"profile": name} | profile._asdict() for name, profile in PROFILES.items()],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
