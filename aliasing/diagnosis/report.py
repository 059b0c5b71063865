"""The report: one HTML page that asks for nothing outside itself, from the template beside this file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from torch import Tensor

from ..datasets.decoding import as_png
from ..metrics import Estimate
from .measuring import AT_SITES, PAIRS, Curve, Portrait, Site

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 320, 150, 34, 22  # of the curves, in pixels


def page(found: Any, rows: Mapping[str, Sequence[str]]) -> str:
    """The whole page of a ``Diagnosis``, whose table has these ``rows``."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"png": as_png, "shift": _shift, "percent": _percent, "worst": _worst, "ends": _ends}
    environment.globals |= {"drawing": _drawing, "windows": _windows, "at_sites": AT_SITES, "pairs": PAIRS}
    template = files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    text = environment.from_string(template).render(found=found, portraits=found.portraits, rows=rows)
    return text.encode(errors="replace").decode()  # folders and files have names that are no UTF-8


def _shift(position: int) -> str:
    """``+3 px``, and ``0 px`` without a sign."""
    return f"{position:+d} px" if position else "0 px"


def percent(estimate: Estimate, sign: str = "") -> str:
    """``12.3 % (10.1 to 14.9)``; an end that is not known is a question mark."""
    return f"{100 * estimate.value:{sign}z.1f} % ({_ends(estimate, sign)})"


def _ends(estimate: Estimate, sign: str = "") -> str:
    low, high = (f"{100 * end:{sign}z.1f}" if math.isfinite(end) else "?" for end in (estimate.low, estimate.high))
    return f"{low} to {high}"


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _worst(sites: Sequence[Site], shown: int = 3) -> list[Site]:
    """The places at which most aliases."""
    known = [site for site in sites if site.alias_energy.value == site.alias_energy.value]
    return sorted(known, key=lambda site: site.alias_energy.value, reverse=True)[:shown]


def _windows(portrait: Portrait, curve: Curve) -> Iterator[tuple[Tensor, int, str]]:
    """The two windows of the steepest step: picture, position, answer with its probability."""
    for index, window in ((curve.step, curve.before), (curve.step + 1, curve.after)):
        answer = curve.answers[index]
        label = portrait.class_name(answer)
        if answer in curve.classes:
            label += f", {100 * float(curve.probabilities[index, curve.classes.index(answer)]):.0f} %"
        yield window, curve.positions[index], label


def _drawing(curve: Curve) -> dict[str, Any]:
    """Where the lines of a curve lie in a drawing: probability upwards, shift to the right, ticks at changes."""
    inner, height = _WIDTH - _LEFT - 6, _HEIGHT - _BOTTOM - 8
    first, last = curve.positions[0], curve.positions[-1]

    def x(position: float) -> str:
        return f"{_LEFT + inner * (position - first) / (last - first):.1f}"

    def y(probability: float) -> str:
        return f"{8 + height * (1 - probability):.1f}"

    steps = zip(curve.answers[:-1], curve.answers[1:], curve.positions[:-1], strict=True)
    return {
        "size": (_WIDTH, _HEIGHT, _LEFT),
        "grid": [(y(p), f"{100 * p:.0f} %") for p in (0, 0.5, 1)],
        "ends": [(x(p), anchor, _shift(p)) for p, anchor in ((first, "start"), (0, "middle"), (last, "end"))],
        "ticks": [x(position + 0.5) for before, after, position in steps if before != after],
        "lines": [
            " ".join(f"{x(p)},{y(v)}" for p, v in zip(curve.positions, values, strict=True))
            for values in curve.probabilities.T.tolist()
        ],
    }
