"""A reader at work: finding the way, moving sliders, searching, reading without scripts."""

import pytest

RANGES = {"notebooks/azulay2018": 1, "notebooks/primer": 2}  # pages with sliders, and how many
STATE = """figure => {
    const rolled = figure.querySelector(".seen"), range = figure.querySelector("input[type=range]");
    const picture = figure.querySelector(".walk img");
    return {
        place: range.value,
        said: figure.querySelector("output").textContent,
        spoken: range.getAttribute("aria-valuetext"),
        picture: rolled ? rolled.style.backgroundPositionY : picture.src,
    };
}"""


def follow(tab, name, exact=False):
    """Click the first visible link that contains ``name`` in the text of the page."""
    tab.locator("article").get_by_role("link", name=name, exact=exact).first.click()


def test_from_the_landing_page_to_the_choice_of_a_layer(open_page):
    tab = open_page("index")
    follow(tab, "Which layer should I use?")
    heading = tab.get_by_role("heading", name="Which layer should I use?")
    heading.wait_for()
    assert tab.url.endswith("#which-layer-should-i-use")


@pytest.mark.parametrize("chapter", ["One pixel is enough", "Blur before you subsample"])
def test_from_the_landing_page_to_the_verdicts_of_a_chapter(open_page, chapter):
    tab = open_page("index")
    follow(tab, chapter, exact=True)
    table = tab.locator("#findings table").first
    table.wait_for()
    assert tab.url.endswith("#findings")
    assert table.inner_text().startswith("verdict")


def test_from_the_landing_page_to_the_command_that_runs_a_chapter(open_page):
    tab = open_page("index")
    follow(tab, "Zhang 2019")
    tab.get_by_role("link", name="Run this page yourself").first.click()
    command = tab.get_by_text("papermill -k python3 notebooks/zhang2019.ipynb").first
    command.wait_for()


def test_search_finds_nyquist(open_page):
    tab = open_page("search")
    tab.goto(tab.url + "?q=Nyquist")
    tab.wait_for_selector("#search-results li a", timeout=20_000)
    hits = tab.eval_on_selector_all("#search-results li a", "links => links.map(link => link.getAttribute('href'))")
    assert any("notebooks/primer.html" in hit for hit in hits)


@pytest.mark.parametrize("page", RANGES)
def test_sliders_change_the_picture_by_keyboard_and_by_mouse(open_page, page):
    tab = open_page(page)
    figures = tab.locator("figure:has(input[type=range])")
    assert figures.count() == RANGES[page]
    for index in range(figures.count()):
        figure = figures.nth(index)
        slider = figure.locator("input[type=range]")
        assert slider.get_attribute("min") == "0"
        start = figure.evaluate(STATE)
        slider.focus()
        tab.keyboard.press("ArrowRight")
        stepped = figure.evaluate(STATE)
        assert (start["place"], stepped["place"]) == ("0", "1")
        assert stepped["picture"] != start["picture"]
        assert stepped["said"] != start["said"]
        assert stepped["spoken"] == stepped["said"]
        box = slider.bounding_box()
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        tab.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
        clicked = figure.evaluate(STATE)
        assert int(clicked["place"]) > 1
        assert clicked["picture"] not in (start["picture"], stepped["picture"])
        tab.keyboard.press("Home")
        assert figure.evaluate(STATE) == start


def test_play_goes_to_the_end_and_stops(open_page):
    tab = open_page("notebooks/primer")
    tab.clock.install()
    figure = tab.locator("figure:has(.walk)").last
    button = figure.get_by_role("button")
    count = int(figure.locator("input").get_attribute("max"))
    button.click()
    assert (button.inner_text(), figure.locator("input").input_value()) == ("Stop", "1")
    tab.clock.run_for(1200 * count)
    assert (button.inner_text(), figure.locator("input").input_value()) == ("Play", str(count))


@pytest.mark.parametrize("page", RANGES)
def test_without_scripts_the_still_figures_stay(open_page, page):
    tab = open_page(page, java_script_enabled=False)
    stills = tab.locator("figure [id$=-still] img")
    assert stills.count() == RANGES[page]
    for index in range(stills.count()):
        assert stills.nth(index).is_visible()
    assert not tab.locator("figure input[type=range]").first.is_visible()


def test_the_moving_picture_can_be_stopped(open_page):
    tab = open_page("index", reduced_motion="no-preference")
    tab.get_by_role("button", name="Stop the picture").click()
    assert tab.locator("#film").get_attribute("src").endswith(".png")
    tab.get_by_role("button", name="Move the picture").click()
    assert tab.locator("#film").get_attribute("src").endswith(".gif")


def test_who_wants_less_motion_gets_a_still_picture(open_page):
    tab = open_page("index", reduced_motion="reduce")
    assert tab.locator("#film").evaluate("image => image.currentSrc").endswith(".png")
    assert not tab.locator("#film-stop").is_visible()
