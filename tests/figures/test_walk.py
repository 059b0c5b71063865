"""A walk is one piece of HTML: a still figure first, then all steps, a slider and a button."""

import json
import re

import torch

from aliasing import layers
from aliasing.figures import primer
from aliasing.plots import Captioned, Walk

STILL = Captioned("data:image/png;base64,AA==", "", "still", "chart")
STEPS = {"one </script>": Captioned("data:image/png;base64,BB==", "", 'first "a"'), "two": STILL}


def page(steps=STEPS):
    return Walk(STILL, steps, "layer", "a caption")._repr_html_()


def test_the_still_figure_is_shown_until_the_script_has_run():
    html = page()
    assert re.search(
        r'<div class="drawing" id="walk-\w+-still"><img src="data:image/png;base64,AA==" alt="still">', html
    )
    assert re.search(r'<div id="walk-\w+" class="walk" hidden>', html)
    assert html.startswith('<figure class="drawn chart">')


def test_the_slider_has_a_step_for_each_figure_and_a_label():
    assert '<label>layer <input type="range" min="0" max="1" value="0" step="1"></label>' in page()


def test_all_steps_are_in_the_script_and_do_not_end_it():
    html = page()
    steps = json.loads(re.search(r"steps = (\[.*?\]);\n", html)[1])
    assert [step["name"] for step in steps] == list(STEPS)
    assert [step["image"] for step in steps] == [figure.image for figure in STEPS.values()]
    assert [step["alt"] for step in steps] == [figure.alt for figure in STEPS.values()]
    assert html.count("</script>") == 1


def test_two_walks_on_a_page_do_not_meet():
    names = {re.search(r'id="(walk-\w+)"', page(steps))[1] for steps in (STEPS, {"two": STILL})}
    assert len(names) == 2


def test_true_content_and_aliases_add_up_to_the_output():
    """Linear layers; and by hand, a wave the grid holds has no alias, one it does not hold is all alias."""
    image = primer.star(32)
    for name in primer.FILTERS:
        held, folded = primer.split(image, name)
        whole = layers.create(name, channels=1, padding_mode="circular")(image[None, None])[0, 0]
        torch.testing.assert_close(held + folded, whole)
    position = torch.arange(32, dtype=torch.float64)
    for cycles, alias in ((3, False), (13, True)):
        wave = torch.cos(2 * torch.pi * cycles * position / 32).expand(32, 32)
        held, folded = primer.split(wave, "subsample")
        assert (float(held.abs().max()) < 1e-12) == alias
        assert (float(folded.abs().max()) < 1e-12) == (not alias)


def test_the_star_has_nothing_that_its_own_grid_cannot_hold():
    """Almost no energy in the outermost tenth of the spectrum's radius, where an aliased star would put some."""
    image = primer.star(128) - primer.star(128).mean()
    frequency = torch.fft.fftfreq(128, dtype=torch.float64)
    energy = torch.fft.fft2(image).abs().square()
    outside = torch.hypot(frequency[:, None], frequency) > 0.5
    assert float(energy[outside].sum() / energy.sum()) < 0.01
