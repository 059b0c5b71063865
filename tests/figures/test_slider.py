"""The slider is one piece of HTML: data, picture and script inside, a still figure where no script runs."""

import json
import re
from html.parser import HTMLParser

from aliasing.figures.slider import Slider
from aliasing.plots import Captioned

STILL = Captioned("data:image/svg+xml;base64,AA==", "still", 'two "curves"')
CURVES = {"subsample": [0.1, 0.9, 0.4], "bin-5": [0.5, 0.5, 0.6]}
ANSWERS = {"subsample": ["disc", "ring", "disc"], "bin-5": ["</script>", "disc", "disc"]}


def page():
    return Slider(STILL, "AAAA", CURVES, ANSWERS, "a caption")._repr_html_()


class Elements(HTMLParser):
    """Collects (tag, attributes), and whether every tag was closed in order."""

    VOID = ("img", "input", "line", "circle", "polyline")

    def __init__(self):
        super().__init__()
        self.found, self.open, self.script = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script += data


def parsed():
    reader = Elements()
    reader.feed(page())
    assert reader.open == []
    return reader


def test_nothing_comes_from_elsewhere():
    for _, attributes in parsed().found:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in page()


def test_the_still_figure_is_there_first_and_the_slider_hidden():
    reader = parsed()
    stills = [attributes for tag, attributes in reader.found if tag == "img"]
    assert [still["alt"] for still in stills] == [STILL.alt]
    assert "hidden" not in stills[0]
    assert any("hidden" in attributes for tag, attributes in reader.found if tag == "div")


def test_the_range_has_one_step_per_shift_and_a_label():
    reader = parsed()
    (range_,) = [attributes for tag, attributes in reader.found if tag == "input"]
    assert (range_["type"], range_["min"], range_["max"]) == ("range", "0", "2")
    assert [tag for tag, _ in reader.found].index("label") < [tag for tag, _ in reader.found].index("input")


def test_the_script_has_the_numbers_and_ends_where_it_should():
    script = parsed().script
    data = json.loads(re.search(r"data = (\{.*\});", script)[1])
    assert [curve["name"] for curve in data["curves"]] == list(CURVES)
    assert [curve["values"] for curve in data["curves"]] == list(CURVES.values())
    assert data["curves"][1]["answers"][0] == "</script>"  # written so that it does not end the script
    assert script.rstrip().endswith("})();")
    heights = data["curves"][0]["y"]
    assert heights[1] < heights[2] < heights[0]  # larger is higher


def test_two_sliders_on_a_page_do_not_meet():
    names = {
        re.search(r'id="(slider-\w+)"', Slider(STILL, "A", CURVES, a, "")._repr_html_())[1] for a in (ANSWERS, CURVES)
    }
    assert len(names) == 2
