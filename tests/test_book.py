"""The book, built strictly with the smoke profile and then opened in a browser, every page of it, from the disk."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}  # CSS pixels

# One group: the worker that builds the book is the one that reads it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("book")]
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: install it or set CHROMIUM")


def contents():
    """The pages of the table of contents, in order."""
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def run(*command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages."""
    folder = tmp_path_factory.mktemp("book")
    book = folder / "book"
    shutil.copytree(ROOT / "book", book, ignore=shutil.ignore_patterns("_build", "notebooks", "generated"))
    chapters = [sys.executable, "-m", "aliasing.chapters", "--profile", "smoke", "--output", str(book / "notebooks")]
    run(*chapters, ALIASING_RUNS=str(folder / "runs"))
    run(str(Path(sys.executable).with_name("jupyter-book")), "build", str(book), "-W", "--keep-going")
    return book / "_build/html"


@dataclass
class Visit:
    """What a browser noticed on one page."""

    complaints: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    formulas: int = 0
    untypeset: list = field(default_factory=list)
    images: list = field(default_factory=list)
    scroll: dict = field(default_factory=dict)


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


def visit(browser, site, page):
    seen = Visit()
    context = browser.new_context(viewport=DESKTOP)

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
    for name, viewport in {"phone": PHONE, "desktop": DESKTOP}.items():
        tab.set_viewport_size(viewport)
        seen.scroll[name] = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    return seen


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def visits(browser, site):
    return {page: visit(browser, site, page) for page in contents()}


def test_every_page_of_the_contents_is_built(site):
    missing = [page for page in contents() if not (site / f"{page}.html").exists()]
    assert not missing


def test_every_page_is_in_the_contents():
    pages = {path.stem for path in (ROOT / "book").glob("*.md")} | {
        f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    assert pages <= set(contents())


def test_no_cell_failed(site):
    for page in contents():
        assert "Traceback (most recent call last)" not in (site / f"{page}.html").read_text(), page


def test_buttons_point_at_sources(site):
    html = (site / "notebooks/primer.html").read_text()
    assert "/edit/main/notebooks/primer.ipynb" in html
    assert "book/notebooks/" not in html


def test_layer_reference_names_every_layer(site):
    from aliasing.layers import NAMES

    html = (site / "layers.html").read_text()
    assert [name for name in NAMES if f">{name}<" not in html] == []


def test_pages_are_light(site):
    """Three megabytes with everything a page shows; scripts and styles of the theme are shared by all pages."""
    for page in contents():
        path = site / f"{page}.html"
        pictures = [path.parent / source for source in re.findall(r'<img[^>]* src="([^":]+)"', path.read_text())]
        size = sum(file.stat().st_size for file in [path, *pictures] if file.exists())
        assert size < 3e6, f"{page}: {size / 1e6:.1f} MB"


@pytest.mark.browser
@needs_browser
class TestInBrowser:
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

    def test_search_finds_nyquist(self, browser, site):
        tab = browser.new_page()
        tab.goto((site / "search.html").as_uri() + "?q=Nyquist")
        tab.wait_for_selector("#search-results li a", timeout=20_000)
        hits = tab.eval_on_selector_all("#search-results li a", "links => links.map(link => link.getAttribute('href'))")
        assert any("notebooks/primer.html" in hit for hit in hits)
        tab.close()

    def test_figures_and_captions_in_the_dark(self, browser, site):
        tab = browser.new_context(color_scheme="dark").new_page()
        tab.goto((site / "notebooks/primer.html").as_uri())
        filters = tab.eval_on_selector_all("figure.drawn img", "images => images.map(i => getComputedStyle(i).filter)")
        behind = tab.eval_on_selector_all(
            "div.text_html:has(figure.drawn)", "boxes => boxes.map(box => getComputedStyle(box).backgroundColor)"
        )
        assert tab.get_attribute("html", "data-theme") == "dark"
        assert set(behind) == {"rgba(0, 0, 0, 0)"}  # otherwise captions are light on light
        assert filters
        assert set(filters) == {"none"}
        tab.close()
