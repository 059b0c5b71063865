"""The built pages as files: complete, light, linked to each other and to their sources."""

import importlib
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]


class Page(HTMLParser):
    """Collects addresses and anchors."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag in ("a", "link", "img", "script", "source", "iframe"):
            self.links += [attributes[name] for name in ("href", "src", "srcset") if attributes.get(name)]


@pytest.fixture(scope="module")
def read(site):
    return {path.resolve(): Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_no_other_worker_builds_the_book(site, tmp_path_factory):
    assert len(list(tmp_path_factory.getbasetemp().parent.glob("popen-*/book[0-9]*"))) <= 1


def test_every_page_of_the_contents_is_built(site, pages):
    assert [page for page in pages if not (site / f"{page}.html").exists()] == []


def test_every_page_is_in_the_contents(pages):
    found = {path.stem for path in (ROOT / "book").glob("*.md")}
    assert found | {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= set(pages)


def test_no_cell_failed(site, pages):
    for page in pages:
        assert "Traceback (most recent call last)" not in (site / f"{page}.html").read_text(), page


def test_links_inside_the_book_lead_somewhere(read):
    broken = []
    for path, page in read.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in read and unquote(parts.fragment) not in read[target].anchors
            ):
                broken.append((path.name, link))
    assert broken == []


def test_links_to_the_outside_are_well_formed(read):
    """Nothing is fetched here: that would test other people's servers."""
    outside = {link for page in read.values() for link in page.links if re.match(r"(?!data:)\w+:|//", link)}
    assert [link for link in outside if not re.fullmatch(r"(https://[\w.-]+\.\w+(/\S*)?|mailto:\S+@\S+)", link)] == []


def test_links_to_the_repository_name_files_of_it(read):
    """Edit buttons, "its source" and links in prose; a branch or a commit stands before the path."""
    checked = 0
    for path, page in read.items():
        for link in page.links:
            if found := re.match(rf"{SOURCE}/(?:blob|edit|tree)/[\w.]+/([^#]*)", link):
                assert (ROOT / unquote(found[1])).exists(), (path.name, link)
                checked += 1
            elif "github.com" in link and "/blob/" in link:
                assert link.startswith(SOURCE) or "colab" in link or "aliasing-book" not in link, link
    assert checked > len(read)


def test_launch_buttons_open_the_source_notebook(read, site):
    owner = SOURCE.removeprefix("https://github.com/")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        links = read[(site / f"notebooks/{path.stem}.html").resolve()].links
        assert f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/{path.name}" in links
        assert any(
            link.startswith(f"https://mybinder.org/v2/gh/{owner}/main?")
            and unquote(link).endswith(f"notebooks/{path.name}")
            for link in links
        )
        assert any(link.startswith(f"{SOURCE}/issues/new") for link in links)


def test_every_chapter_ends_with_the_command_that_runs_it(site):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = re.sub("<[^>]+>", "", (site / f"notebooks/{path.stem}.html").read_text())
        assert f"papermill -k python3 notebooks/{path.name} out.ipynb -p profile" in text


def test_every_figure_leads_to_the_code_that_drew_it(site, read):
    figures = 0
    for path in (site / "notebooks").glob("*.html"):
        for caption in re.findall(r"<figcaption>(.*?)</figcaption>", path.read_text(), flags=re.DOTALL):
            cell = re.search(r'href="#(cell-\d+)"', caption)
            assert cell and cell[1] in read[path.resolve()].anchors, caption
            figures += 1
    assert figures > 50


def test_layer_reference_names_every_layer(site):
    from aliasing.layers import NAMES

    html = (site / "layers.html").read_text()
    assert [name for name in NAMES if f">{name}<" not in html] == []


def test_findings_page_has_every_finding(site):
    from aliasing.studies import STUDIES

    html = (site / "findings.html").read_text()
    assert [f.id for study in STUDIES.values() for f in study.findings if f'id="{f.id}"' not in html] == []


def test_landing_page_counts_every_finding(site):
    """The counts of a row add up to the findings of its study."""
    from aliasing.studies import STUDIES

    text = re.sub("<[^>]+>", "", (site / "index.html").read_text())
    for study in STUDIES.values():
        (told, *_) = re.findall(rf"{re.escape(study.title)}\s+\w+\s+(\d+ of {len(study.findings)} [^\n]*)", text)
        counts = [int(number) for number in re.findall(r"(\d+) (?!of)", told.replace(f" of {len(study.findings)}", ""))]
        assert sum(counts) == len(study.findings), told


def test_status_page_tells_run_times_and_stamps(site):
    text = re.sub("<[^>]+>", " ", (site / "status.html").read_text())
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert re.search(rf"{path.stem}\s+(smoke|laptop|\w+)\s+[\d-]+ [\d:]+\s+\d+ s\s+[0-9a-f]{{16}}", text), path.stem


def test_pages_are_light(site, pages):
    """Three megabytes with everything a page shows; scripts and styles of the theme are shared by all pages."""
    for page in pages:
        path = site / f"{page}.html"
        pictures = [path.parent / source for source in re.findall(r'<img[^>]* src="([^":]+)"', path.read_text())]
        size = sum(file.stat().st_size for file in [path, *pictures] if file.exists())
        assert size < 3e6, f"{page}: {size / 1e6:.1f} MB"


def test_a_stale_notebook_stops_the_build(tmp_path, monkeypatch):
    """The book's own extension, on a notebook that is fresh, then changed, then of unknown origin."""
    from aliasing import book

    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    executed = importlib.import_module("executed")
    app = SimpleNamespace(srcdir=tmp_path)
    output = tmp_path / "notebooks/primer.ipynb"
    output.parent.mkdir()
    notebook = json.loads((ROOT / "notebooks/primer.ipynb").read_text())
    stamp = book.stamp(ROOT / "notebooks/primer.ipynb", "smoke", ROOT)
    for known, message in (
        ({"profile": "smoke", "stamp": stamp}, None),
        ({"profile": "smoke", "stamp": "0" * 16}, "changed: primer; make book"),
        ({"profile": "laptop", "stamp": stamp}, "changed: primer; make book"),
        (None, "changed: primer; make book"),
    ):
        notebook["metadata"].pop("aliasing", None)
        notebook["metadata"] |= {"aliasing": known} if known else {}
        output.write_text(json.dumps(notebook))
        if message is None:
            executed.refuse_stale(app)
        else:
            with pytest.raises(ExtensionError, match=message):
                executed.refuse_stale(app)


def test_no_table_is_left_as_text(site):
    raw = re.compile(r"\|\s*[-—–]{1,3}:?\s*\|")
    pages = {path for path in site.rglob("*.html") if "_static" not in path.parts}
    assert pages
    assert [path.name for path in pages if raw.search(path.read_text())] == []
