"""Pictures inside a page: PNG as data, curves and bars as SVG in the colours of the page's theme."""

import base64
import html
import io

from PIL import Image
from torch import Tensor

from ..metrics import Estimate
from .measuring import Curve

__all__ = ["bar", "curve_svg", "picture", "shift"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 320, 150, 34, 22
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


def picture(image: Tensor, alt: str) -> str:
    """An ``img`` of bytes (3, H, W), at most 160 pixels wide in the file."""
    whole = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    whole.thumbnail((160, 160), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt, quote=True)}">'


def curve_svg(curve: Curve, labels: list[str]) -> str:
    """Probability against shift, one line per class; ticks below mark where the answer changes."""
    inner, height = _WIDTH - _LEFT - 6, _HEIGHT - _BOTTOM - 8
    first, last = curve.positions[0], curve.positions[-1]

    def x(position: float) -> float:
        return _LEFT + inner * (position - first) / (last - first)

    def y(probability: float) -> float:
        return 8 + height * (1 - probability)

    title = html.escape(
        f"Probability against shift for {curve.name}: the answer changes {curve.changes} times in "
        f"{len(curve.positions) - 1} steps of one pixel."
    )
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>',
        *(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 6}" y1="{y(p):.1f}" y2="{y(p):.1f}"/>'
            f'<text x="{_LEFT - 4}" y="{y(p) + 3:.1f}" text-anchor="end">{100 * p:.0f} %</text>'
            for p in (0, 0.5, 1)
        ),
        *(
            f'<text x="{x(position):.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{shift(position)}</text>'
            for position, anchor in ((first, "start"), (0, "middle"), (last, "end"))
        ),
    ]
    for index in range(len(curve.answers) - 1):
        if curve.answers[index] != curve.answers[index + 1]:
            middle = x((curve.positions[index] + curve.positions[index + 1]) / 2)
            parts.append(
                f'<line class="change" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y(0):.1f}" y2="{y(0) + 7:.1f}"/>'
            )
    for number, label in enumerate(labels):
        points = " ".join(
            f"{x(position):.1f},{y(probability):.1f}"
            for position, probability in zip(curve.positions, curve.probabilities[:, number].tolist(), strict=True)
        )
        dash = f' stroke-dasharray="{_DASHES[number]}"' if _DASHES[number] else ""
        parts.append(
            f'<polyline class="line c{number}" points="{points}"{dash}><title>{html.escape(label)}</title></polyline>'
        )
    return "".join(parts) + "</svg>"


def shift(position: int) -> str:
    """``+3 px``, and ``0 px`` without a sign."""
    return f"{position:+d} px" if position else "0 px"


def bar(estimate: Estimate | None, largest: float = 1.0) -> str:
    """A number, per cent, in a cell whose background is as long as the number is large; the interval on hovering."""
    if estimate is None or estimate.value != estimate.value:
        return "<td>-</td>"
    share = 100 * min(1.0, estimate.value / largest if largest else 0.0)
    return (
        f'<td class="bar" style="--share:{share:.1f}%" title="{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %">'
        f"{100 * estimate.value:.1f} %</td>"
    )
