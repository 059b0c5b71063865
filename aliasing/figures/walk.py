"""Figures one after the other under a slider: plain HTML for a static page, without any script from elsewhere.

Where scripts do not run, the still figure that it is built from stays.
"""

import hashlib
import html
import json
from collections.abc import Mapping

from ..plots import Captioned, drawing

__all__ = ["Walk"]

SCRIPT = """
(function () {
  const box = document.getElementById("NAME"), steps = STEPS;
  const range = box.querySelector("input"), said = box.querySelector("output"), picture = box.querySelector("img");
  const button = box.querySelector("button");
  let timer = null;
  function draw() {
    const step = steps[Number(range.value)];
    picture.src = step.image;
    picture.alt = step.alt;
    said.textContent = step.name;
    range.setAttribute("aria-valuetext", step.name);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  function advance() {
    range.value = (Number(range.value) + 1) % steps.length;
    draw();
    if (Number(range.value) === steps.length - 1) stop();
  }
  button.addEventListener("click", function () {
    if (timer) return stop();
    button.textContent = "Stop";
    timer = setInterval(advance, 1200);
    advance();
  });
  range.addEventListener("input", function () { stop(); draw(); });
  draw();
  box.hidden = false;
  document.getElementById("NAME-still").hidden = true;
})();
"""


class Walk(Captioned):
    """A still figure that turns into a walk through ``steps``, by slider, arrow keys or a button that plays them.

    Args:
        still: what is shown where no script runs; its kind is that of all steps.
        steps: what is said at each step, to the figure shown there.
        label: of the slider.
        caption: of the whole.
    """

    def __init__(self, still: Captioned, steps: Mapping[str, Captioned], label: str, caption: str) -> None:
        super().__init__(still.image, caption, still.alt, still.kind)
        self.steps, self.label = steps, label

    def _repr_html_(self) -> str:
        steps = [{"name": name, "image": step.image, "alt": step.alt} for name, step in self.steps.items()]
        data = json.dumps(steps).replace("</", "<\\/")
        name = "walk-" + hashlib.sha1(data.encode()).hexdigest()[:10]
        return self.framed(
            f'{drawing(self.image, self.alt, f"{name}-still")}<div id="{name}" class="walk" hidden>'
            f'{drawing(steps[0]["image"], steps[0]["alt"])}<div class="controls">'
            f'<label>{html.escape(self.label)} <input type="range" min="0" max="{len(steps) - 1}" value="0" step="1">'
            f'</label><button type="button">Play</button><output aria-live="polite"></output></div></div>'
            f"<script>{SCRIPT.replace('NAME', name).replace('STEPS', data)}</script>"
        )
