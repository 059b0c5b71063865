"""The book in headless Chromium: every page on a desk, on a phone, in the dark; a reader at work; any web server."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe

from .conftest import PAGES, new_tab

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}  # CSS pixels
LOOK = """async () => {
    if (window.MathJax?.startup) await MathJax.startup.promise;
    const images = [...document.querySelectorAll("article img")];
    for (const image of images) image.loading = "eager";
    await Promise.all(images.map(image => image.decode().catch(() => null)));
    return {
        formulas: document.querySelectorAll("mjx-container").length,
        "formula not typeset": [...document.querySelectorAll("article .math")]
            .filter(e => !e.querySelector("mjx-container") || e.querySelector("mjx-merror, [data-mml-node=merror]"))
            .map(e => e.textContent),
        "image not visible": images.filter(e => !e.naturalWidth).map(e => e.src.slice(0, 80)),
        "image without text": images.filter(e => !e.alt.trim()).map(e => e.src.slice(0, 80)),
    };
}"""
# On a phone more regions scroll sideways than on a desk; scripts make them reachable after the change of width.
REACHABLE = """() => [...document.querySelectorAll(".drawing, article pre, article div.math, article div.cell_output")]
    .every(region => region.scrollWidth <= region.clientWidth + 1 || region.tabIndex === 0
        || getComputedStyle(region).overflowX === "visible" || region.querySelector("[tabindex='0'], a, button, input"))
"""


# What depends on colours takes most of axe's time and comes from one stylesheet. It is measured on pages that have each
# kind of element, and once of what repeats there, such as words of code and rows of a table: what looks alike, with all
# that is in it, under ancestors that look alike: equal in tag, class, style, being seen, having words of its own, and
# being an even row.
COLOURS = ["color-contrast", "link-in-text-block"]
COLOURFUL = ("index", "layers", "bibliography", "glossary", "status")
COLOURFUL += ("notebooks/azulay2018", "notebooks/primer", "notebooks/zhang2019")
REPEATED = """() => {
    const seen = new Set();
    const look = e => [e.tagName, e.getAttribute("class"), e.getAttribute("style"), e.checkVisibility(),
        [...e.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim()), e.rowIndex % 2].join();
    const known = new Map();
    const whole = e => {
        if (!known.has(e)) known.set(e, look(e) + [...new Set([...e.children].map(whole))].sort().join());
        return known.get(e);
    };
    const visit = (e, path) => {
        if (seen.has(path + whole(e))) return e.remove();
        seen.add(path + whole(e));
        path += `${look(e)}/`;
        for (const child of [...e.children]) visit(child, path);
    };
    visit(document.body, "");
}"""


def barriers(tab, **options):
    """What axe finds that is serious or critical in the page: rule, and the elements at fault."""
    options |= {"resultTypes": ["violations"], "preload": False}
    return [
        f"{violation['id']}: {node['target'][0]} {node['html'][:100]}"
        for violation in Axe().run(tab, options=options).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]


@pytest.fixture(scope="module")
def home(site, tmp_path_factory):
    """The address of a web server that has the book under /x/y/."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "x").mkdir()
    (folder / "x/y").symlink_to(site)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/x/y/"
        server.shutdown()


def watched(browser, home):
    """A tab, and what goes wrong in it, by kind; what is not of the book is not let through."""
    found = {"error": [], "outside request": [], "missing": []}
    tab = new_tab(browser, color_scheme="light")

    def only_local(route):
        if route.request.url.startswith((home, "data:", "blob:")):
            return route.continue_()
        if route.request.url.endswith("favicon.ico"):  # which browsers ask for by themselves
            return route.fulfill(status=204)
        found["outside request"].append(route.request.url)
        return route.abort()

    tab.route("**/*", only_local)
    tab.on("response", lambda got: got.status >= 400 and found["missing"].append(got.url))
    tab.on("console", lambda message: message.type == "error" and found["error"].append(message.text))
    tab.on("pageerror", lambda error: found["error"].append(str(error)))
    return tab, found


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_sound_under_any_path(browser, home, page):
    """From a web server under /x/y/: nothing is missing, nothing else is asked for, and everybody can read it."""
    tab, found = watched(browser, home)
    tab.goto(f"{home}{page}.html")
    found |= tab.evaluate(LOOK)
    formulas = found.pop("formulas")
    found["barrier"] = barriers(tab, rules={rule: {"enabled": False} for rule in COLOURS})
    for name, viewport in {"desktop": DESKTOP, "phone": PHONE}.items():
        tab.set_viewport_size(viewport)
        root = "document.documentElement"
        found[f"scrolls sideways on a {name}"] = tab.evaluate(f"{root}.scrollWidth > {root}.clientWidth")
    tab.wait_for_function(REACHABLE)
    if page in COLOURFUL:
        tab.evaluate(REPEATED)
    for theme in ("light", "dark") if page in COLOURFUL else ():
        tab.emulate_media(color_scheme=theme)
        tab.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")  # the theme hears of it later
        found[f"colours in {theme}"] = barriers(tab, runOnly=COLOURS)
    tab.close()
    assert not any(found.values()), found
    assert formulas > 10 or page != "notebooks/primer"  # otherwise no formula was looked at


def test_links_and_search_work_under_any_path(browser, home):
    tab, found = watched(browser, home)
    tab.goto(home)
    tab.goto(home + "notebooks/primer.html")
    tab.locator(".bd-sidebar-primary").get_by_role("link", name="How to re-run this book").click()
    tab.get_by_role("heading", name="How to re-run this book").wait_for()
    assert tab.url == home + "rerun.html"
    tab.goto(home + "search.html?q=Nyquist")
    tab.locator("#search-results a[href*='notebooks/primer.html']").first.wait_for()
    tab.close()
    assert not any(found.values()), found


def test_from_the_disk_nothing_is_asked_for(browser, site):
    """The largest kinds of page: formulas, figures that move, tables."""
    for page in ("index", "notebooks/primer"):
        tab, found = watched(browser, "file:")
        tab.goto((site / f"{page}.html").as_uri())
        assert not tab.evaluate(LOOK)["formula not typeset"]
        tab.close()
        assert not any(found.values()), found


@pytest.mark.parametrize("page", ["notebooks/azulay2018", "notebooks/primer"])
def test_sliders_change_the_picture_by_keyboard_mouse_and_button(open_page, page):
    tab = open_page(page)
    figures = tab.locator("figure:has(input[type=range])")
    assert figures.count()
    for figure in figures.all():
        slider, said = figure.locator("input[type=range]"), figure.locator("output")
        slider.scroll_into_view_if_needed()
        start = (said.inner_text(), figure.screenshot())
        slider.focus()
        tab.keyboard.press("ArrowRight")
        assert slider.input_value() == "1" and slider.get_attribute("aria-valuetext") == said.inner_text() != start[0]
        assert figure.screenshot() != start[1]
        box = slider.bounding_box()
        tab.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
        assert int(slider.input_value()) > 1
        tab.keyboard.press("Home")
        assert said.inner_text() == start[0]
        if figure.get_by_role("button", name="Play").count():
            figure.get_by_role("button", name="Play").click()
            figure.get_by_role("button", name="Stop").click()
            assert slider.input_value() == "1"


@pytest.mark.parametrize("page", ["notebooks/azulay2018", "notebooks/primer"])
def test_without_scripts_still_figures_stay(open_page, page):
    with_scripts = open_page(page).locator("figure:has(input[type=range])")
    figures = open_page(page, java_script_enabled=False).locator("figure:has(input[type=range])")
    assert figures.count() == with_scripts.count() > 0
    for figure in figures.all():
        assert figure.locator("img:visible, svg:visible").count() and not figure.locator("input").is_visible()


def test_in_the_dark_and_on_paper(open_page):
    """Charts are turned over, photographs stay; on paper navigation and buttons go, and the text is dark on white."""
    tab = open_page("notebooks/primer", color_scheme="dark")

    def filters(kind):
        script = "images => images.map(image => getComputedStyle(image).filter)"
        return set(tab.eval_on_selector_all(f"figure.drawn.{kind} img", script))

    assert (filters("picture"), filters("chart")) == ({"none"}, {"invert(1) hue-rotate(180deg)"})
    tab.emulate_media(media="print")
    for gone in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", "figure button"):
        assert not tab.locator(gone).first.is_visible(), gone
    colours = tab.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"] and filters("chart") == {"none"}


def test_the_moving_picture_stops_by_a_button_and_where_less_motion_is_wished(open_page):
    tab = open_page("index", reduced_motion="no-preference")
    tab.get_by_role("button", name="Stop the picture").click()
    assert tab.locator("#film").get_attribute("src").endswith(".png")
    tab = open_page("index", reduced_motion="reduce")
    assert tab.locator("#film").evaluate("image => image.currentSrc").endswith(".png")
    assert not tab.locator("#film-stop").is_visible()
