"""Our speed beside that of others, measured in one run: ``aliasing bench``, in a clone of the repository.

Peers are the extra ``peers``; one that is not installed is left out, and the report says so.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from aliasing.errors import UsageError
from aliasing.files import write_atomically
from aliasing.training import pick_device

__all__ = ["NAMES", "compare"]

NAMES = ("layers", "training", "evaluation", "robustness")


def compare(
    names: Sequence[str], device: str, repeats: int, quick: bool, as_json: bool = False, out: Path | None = None
) -> None:
    """Run the benchmarks ``names`` one after the other and print them; ``out`` gets everything as JSON."""
    if repeats < 1:
        raise UsageError(f"repeats must be 1 or more, got {repeats}")
    reports = {}
    for name in names:
        bench = import_module(f"{__name__}.{name}")
        frame = bench.run(device=str(pick_device(device)), repeats=repeats, quick=quick)
        reports[name] = bench.report(frame)
        if not as_json:
            print(f"\n{name}: times of the peer over ours, above 1 where ours is faster")
            print(bench.table(frame).to_string())
            if hasattr(bench, "verdicts"):
                print("\nforward+backward against the targets")
                print(bench.verdicts(frame).to_string(index=False, float_format="{:.2f}".format, na_rep=""))
    text = json.dumps(reports, indent=1)
    if as_json:
        print(text)
    if out:
        write_atomically(out, text + "\n")
