"""Every page of the book in headless Chromium: as it looks on a desk, on a phone, in the dark, on paper."""

from dataclasses import dataclass, field

import pytest

try:
    from axe_playwright_python.sync_playwright import Axe
except ImportError:  # an environment from before it was required
    Axe = None

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}  # CSS pixels


@dataclass
class Visit:
    """What a browser noticed on one page."""

    complaints: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    formulas: int = 0
    untypeset: list = field(default_factory=list)
    images: list = field(default_factory=list)
    scroll: dict = field(default_factory=dict)
    barriers: list = field(default_factory=list)


LOOK = """async () => {
    if (window.MathJax?.startup) await MathJax.startup.promise;
    const images = [...document.querySelectorAll("article img")];
    for (const image of images) image.loading = "eager";
    await Promise.all(images.map(image => image.decode().catch(() => null)));
    return {
        formulas: document.querySelectorAll("mjx-container").length,
        untypeset: [...document.querySelectorAll("article .math")].filter(e => !e.querySelector("mjx-container"))
            .map(e => e.textContent),
        errors: [...document.querySelectorAll("mjx-merror, [data-mml-node=merror]")].map(e => e.textContent),
        images: images.map(e => [e.src.slice(0, 80), e.naturalWidth, e.alt]),
    };
}"""


# On a phone more regions scroll sideways than on a desk; scripts make them reachable after the change of width.
REACHABLE = """() => [...document.querySelectorAll(".drawing, article pre, article div.math, article div.cell_output")]
    .every(region => region.scrollWidth <= region.clientWidth + 1 || region.tabIndex === 0
        || getComputedStyle(region).overflowX === "visible" || region.querySelector("[tabindex='0'], a, button, input"))
"""


def barriers(tab, rules=None):
    """What axe finds that is serious or critical: rule, and the elements at fault."""
    if Axe is None:
        return []
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": rules} if rules else {})
    found = Axe().run(tab, options=options).response["violations"]
    return [
        f"{violation['id']}: {node['target'][0]} {node['html'][:100]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]


def visit(browser, site, page):
    seen = Visit()
    context = browser.new_context(viewport=DESKTOP, color_scheme="light")

    def only_local(route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            seen.requests.append(route.request.url)
            route.abort()

    context.route("**/*", only_local)
    tab = context.new_page()
    tab.on("console", lambda message: message.type == "error" and seen.complaints.append(message.text))
    tab.on("pageerror", lambda error: seen.complaints.append(str(error)))
    tab.goto((site / f"{page}.html").as_uri())
    found = tab.evaluate(LOOK)
    seen.formulas, seen.images = found["formulas"], found["images"]
    seen.untypeset = found["untypeset"] + found["errors"]
    seen.barriers = barriers(tab)
    for name, viewport in {"desktop": DESKTOP, "phone": PHONE}.items():
        tab.set_viewport_size(viewport)
        seen.scroll[name] = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    tab.wait_for_function(REACHABLE)
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function("document.documentElement.dataset.theme === 'dark'")  # the theme hears of it a little later
    seen.barriers += [f"dark, {barrier}" for barrier in barriers(tab, ["color-contrast"])]
    context.close()
    return seen


@pytest.fixture(scope="module")
def visits(browser, site, pages):
    return {page: visit(browser, site, page) for page in pages}


class TestEveryPage:
    """Each test names all pages at fault."""

    def test_no_console_error(self, visits):
        assert {page: seen.complaints for page, seen in visits.items() if seen.complaints} == {}

    def test_no_outside_request(self, visits):
        assert {page: seen.requests for page, seen in visits.items() if seen.requests} == {}

    def test_equations_are_typeset(self, visits):
        assert {page: seen.untypeset for page, seen in visits.items() if seen.untypeset} == {}
        assert visits["notebooks/primer"].formulas > 10

    def test_images_are_visible(self, visits):
        broken = {page: [src for src, width, _ in seen.images if not width] for page, seen in visits.items()}
        assert {page: sources for page, sources in broken.items() if sources} == {}
        assert len(visits["notebooks/primer"].images) >= 6

    def test_images_have_alternative_text(self, visits):
        silent = {page: [src for src, _, alt in seen.images if not alt.strip()] for page, seen in visits.items()}
        assert {page: sources for page, sources in silent.items() if sources} == {}

    def test_no_horizontal_scroll(self, visits):
        assert {page: seen.scroll for page, seen in visits.items() if max(seen.scroll.values()) > 0} == {}

    @pytest.mark.skipif(Axe is None, reason="axe-playwright-python is not installed")
    def test_no_barrier(self, visits):
        assert {page: seen.barriers for page, seen in visits.items() if seen.barriers} == {}


def test_figures_and_captions_in_the_dark(open_page):
    """Charts are turned over, pictures shown as they are, captions legible."""
    tab = open_page("notebooks/primer", color_scheme="dark")

    def filters(kind):
        script = "images => images.map(image => getComputedStyle(image).filter)"
        return set(tab.eval_on_selector_all(f"figure.drawn.{kind} img", script))

    behind = tab.eval_on_selector_all(
        "div.text_html:has(figure.drawn)", "boxes => boxes.map(box => getComputedStyle(box).backgroundColor)"
    )
    assert tab.get_attribute("html", "data-theme") == "dark"
    assert set(behind) == {"rgba(0, 0, 0, 0)"}  # otherwise captions are light on light
    assert filters("picture") == {"none"}
    assert filters("chart") == {"invert(1) hue-rotate(180deg)"}


def test_print_shows_the_text_alone_in_dark_on_white(open_page):
    tab = open_page("notebooks/primer", color_scheme="dark")
    tab.emulate_media(media="print")
    for gone in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", ".walk button"):
        assert not tab.locator(gone).first.is_visible(), gone
    assert tab.locator("h1:visible").count() == 1
    colours = tab.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert tab.eval_on_selector("figure.drawn.chart img", "image => getComputedStyle(image).filter") == "none"
