"""A picture and its curves under a slider: plain HTML that works in a static page, without any script from elsewhere.

The picture is one PNG that the browser rolls as a background; the curves are one SVG. Where scripts do not run, the
still figure that it is built from stays.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from ..plots import COLOURS, Captioned, drawing

__all__ = ["Slider"]

WIDTH, HEIGHT, MARGIN, SIDE = 440, 220, 34, 220  # pixels of the chart, its margin, and the picture
DASHES = ("", "7 4", "2 3")

SCRIPT = """
(function () {
  const box = document.getElementById("NAME"), data = DATA;
  const range = box.querySelector("input"), said = box.querySelector("output"), picture = box.querySelector(".seen");
  function draw() {
    const k = Number(range.value);
    picture.style.backgroundPositionY = (k * data.step) + "px";
    const words = data.curves.map(function (curve, i) {
      const mark = box.querySelectorAll("circle")[i];
      mark.setAttribute("cx", data.x[k]);
      mark.setAttribute("cy", curve.y[k]);
      return curve.name + ": " + curve.answers[k] + ", P(right class) " + curve.values[k].toFixed(2);
    });
    said.textContent = k + (k === 1 ? " pixel. " : " pixels. ") + words.join("; ");
    range.setAttribute("aria-valuetext", said.textContent);
  }
  range.addEventListener("input", draw);
  draw();
  box.hidden = false;
  const still = document.getElementById("NAME-still");
  if (still) still.hidden = true;
})();
"""


class Slider(Captioned):
    """A still figure that turns into a slider over circular shifts down by 0, 1, 2, ... pixels.

    Args:
        still: what is shown where no script runs.
        picture: PNG in base64, square or not; rolled downwards.
        curves: layer name to the probabilities, one per shift.
        answers: layer name to the classes answered, one per shift.
        caption: of the slider; the alternative text is that of ``still``.
    """

    def __init__(
        self,
        still: Captioned,
        picture: str,
        curves: Mapping[str, Sequence[float]],
        answers: Mapping[str, Sequence[str]],
        caption: str,
    ) -> None:
        super().__init__(still.image, caption, still.alt)
        self.picture, self.curves, self.answers = picture, curves, answers

    def _repr_html_(self) -> str:
        count = len(next(iter(self.curves.values())))
        xs = [round(MARGIN + k * (WIDTH - 1.5 * MARGIN) / max(1, count - 1), 1) for k in range(count)]
        rows = [
            {
                "name": name,
                "values": [round(float(value), 3) for value in values],
                "y": [round(_height(value), 1) for value in values],
                "answers": list(self.answers[name]),
            }
            for name, values in self.curves.items()
        ]
        name = "slider-" + hashlib.sha1(json.dumps(rows).encode()).hexdigest()[:10]
        data = json.dumps({"x": xs, "step": SIDE / count, "curves": rows}).replace("</", "<\\/")
        script = SCRIPT.replace("NAME", name).replace("DATA", data)
        return self.framed(
            f"{drawing(self.image, self.alt, f'{name}-still')}"
            f'<div id="{name}" class="slider" hidden style="background:white;color:#222;padding:8px">'
            f'<div style="display:flex;flex-wrap:wrap;gap:12px;align-items:center">'
            f'<div class="seen" role="img" aria-label="the picture, rolled down by the shift" '
            f'style="width:{SIDE}px;height:{SIDE}px;image-rendering:pixelated;background-size:100% 100%;'
            f'background-image:url(data:image/png;base64,{self.picture})"></div>{_chart(xs, rows)}</div>'
            f'<label style="display:block;margin-top:6px">shift down '
            f'<input type="range" min="0" max="{count - 1}" value="0" step="1" style="width:min(100%,{WIDTH}px)">'
            f'</label><output aria-live="polite" style="display:block;min-height:3em"></output></div>'
            f"<script>{script}</script>"
        )


def _height(value: float) -> float:
    """Where a probability lies in the chart."""
    return HEIGHT - MARGIN - float(value) * (HEIGHT - 1.5 * MARGIN)


def _chart(xs: Sequence[float], rows: Sequence[dict]) -> str:
    """The curves as SVG, a movable mark on each."""
    parts = []
    for share in (0, 0.5, 1):
        y = _height(share)
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN / 2}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4}" text-anchor="end">{share:g}</text>')
    for k in range(0, len(xs), 8):
        parts.append(f'<text x="{xs[k]}" y="{HEIGHT - MARGIN + 15}" text-anchor="middle">{k}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">shift down (pixels)</text>')
    for index, row in enumerate(rows):
        colour, dash = COLOURS[row["name"]], DASHES[index % len(DASHES)]
        points = " ".join(f"{x},{y}" for x, y in zip(xs, row["y"], strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-dasharray="{dash}"/>')
        x = MARGIN + 110 * index
        parts.append(f'<line x1="{x}" x2="{x + 24}" y1="8" y2="8" stroke="{colour}" stroke-dasharray="{dash}"/>')
        parts.append(f'<text x="{x + 30}" y="12">{row["name"]}</text>')
    marks = "".join(f'<circle r="5" fill="{COLOURS[row["name"]]}" stroke="white"/>' for row in rows)
    return (
        f'<svg role="img" aria-label="probability of the right class against the shift" width="{WIDTH}" '
        f'style="flex:1 1 300px;max-width:100%" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-size="12" fill="#222" stroke-width="1.5">'
        f"{''.join(parts)}{marks}</svg>"
    )
