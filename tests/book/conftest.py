"""The book, built strictly with the smoke profile once, and the browser that opens it from the disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
TOC = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]  # in order
HOME = {"BOOK_SOURCE": "https://github.com/owner/name", "BOOK_SITE": "https://owner.github.io/name/"}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)
            if "browser" in item.fixturenames:
                item.add_marker(pytest.mark.browser)


def run(*command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture(scope="session")
def site(request, made_once):
    """The folder of the built pages; ``ALIASING_SITE`` names one that is built already."""
    if known := os.environ.get("ALIASING_SITE"):
        return Path(known).resolve()

    def build(book):
        shutil.copytree(ROOT / "book", book, ignore=shutil.ignore_patterns("_build", "notebooks"))
        environment = HOME | {"ALIASING_RUNS": str(request.getfixturevalue("smoke_runs"))}
        notebooks = str(book / "notebooks")
        run(sys.executable, "book/_ext/builder.py", "--profile", "smoke", "--output", notebooks, **environment)
        builder = str(Path(sys.executable).with_name("jupyter-book"))
        run(builder, "build", str(book), "-W", "--keep-going", **environment)

    return made_once("book", build) / "_build/html"


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: install it or set CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def new_tab(browser, **options):
    """A tab on a desk; options are those of a browser context."""
    tab = browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | options)
    tab.set_default_timeout(180_000)  # a crowded machine loads a page slowly
    return tab


@pytest.fixture
def open_page(browser, site):
    """Opens a page of the book from the disk in a tab of its own."""

    def opened(page, **options):
        tab = new_tab(browser, **options)
        tab.goto((site / f"{page}.html").as_uri())
        return tab

    return opened
