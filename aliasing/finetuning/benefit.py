"""What a fine-tuning gave: measured on held-out pictures, beside the original and the control."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..inference import probabilities
from ..metrics import Estimate, shift_images
from ..records import encode
from .data import Data

MOVES = "one pixel moves its probability by"
CHANGES, AGREES = "one pixel changes the answer", "agreement with the original"
COLUMNS = ("original", "original, fine-tuned", "converted", "converted, fine-tuned")


def answers(model: nn.Module, data: Data, shifts: Tensor | int = 0, batch_size: int = 32) -> Tensor:
    """Probabilities (N, classes) in a window of each held-out picture, moved by ``shifts`` from the middle."""
    moved = shifts if isinstance(shifts, Tensor) else torch.full((len(data.held), 2), shifts)
    return probabilities(model, shift_images(data.held, moved, "crop", data.margins[1]), batch_size)


def measure(model: nn.Module, data: Data, expected: Tensor, batch_size: int = 32) -> dict[str, Tensor]:
    """What is measured on each held-out picture (N,), hits as 0 or 1; ``expected`` are the original's answers."""
    reach, generator = data.margins[1], torch.Generator().manual_seed(0)
    drawn = torch.randint(-reach, reach + 1, (2, len(data.held), 2), generator=generator)
    plain, beside, first, second = (answers(model, data, shifts, batch_size) for shifts in (0, 1, *drawn))
    top = plain.argmax(1, keepdim=True)
    found = {
        AGREES: top[:, 0] == expected.argmax(1),
        CHANGES: beside.argmax(1) != top[:, 0],
        MOVES: (plain - beside).gather(1, top)[:, 0].abs(),
        "consistency, crop shifts": first.argmax(1) == second.argmax(1),
    }
    if data.labels is not None:
        found["accuracy"] = top[:, 0] == data.labels
    return {name: values.double() for name, values in found.items()}


def tabled(measured: list[dict[str, Tensor]]) -> pd.DataFrame:
    """Every measure of the four networks, and the paired differences."""
    rows: dict[str, list[Estimate | None]] = {}
    for name in measured[0]:
        values = [own[name] for own in measured]
        minus = Estimate.difference if name == MOVES else Estimate.paired
        rows[name] = [Estimate.mean(v) if name == MOVES else Estimate.share(v > 0) for v in values]
        rows[f"{name}, minus original"] = [None, *(minus(v, values[0]) for v in values[1:])]
        rows[f"{name}, minus control"] = [None, None, None, minus(values[3], values[1])]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))


def conclusion(table: pd.DataFrame) -> str:
    """Whether it helped: the converted network beside the control, both fine-tuned, in a sentence."""

    def told(name: str) -> tuple[str, str]:
        value, low, high, count = table.loc[f"{name}, minus control", COLUMNS[-1]]
        points = f"{100 * value:+z.1f} points, {100 * low:+z.1f} to {100 * high:+z.1f}"
        direction = "more" if value > 0 else "fewer" if value < 0 else "as many"
        if low <= 0 <= high:
            return f"perhaps {direction}", f"{points}: {count} pictures cannot tell"
        return direction, points

    (changed, by), (kept, than) = told(CHANGES), told(AGREES)
    return (
        f"Beside the same fine-tuning without the layer, one pixel changes {changed} of its answers ({by}), and "
        f"{kept} of them are the original's ({than})."
    )


def plain(table: pd.DataFrame) -> dict[str, Any]:
    """A table of estimates as plain values for JSON, row by row."""
    return encode(table.to_dict("index"))
