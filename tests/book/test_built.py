"""The built pages as files: complete, light, linked to each other, and to the repository where its address is known."""

import json
import re
import subprocess
import sys
import tomllib
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import builder
import executed
import pytest
from bs4 import BeautifulSoup
from sphinx.errors import ExtensionError

from aliasing.layers import CATALOGUE
from aliasing.studies import STUDIES

from .conftest import HOME, PAGES, ROOT


class Page:
    """Addresses, anchors and the text of a page, and the addresses in each caption."""

    def __init__(self, path):
        # Without the bytes of pictures, which take most of the time.
        soup = BeautifulSoup(re.sub(r'"data:[^"]*"', '"data:"', path.read_text()), "html.parser")
        self.links, self.text = addresses(soup), soup.get_text()
        self.anchors = {tag[key] for key in ("id", "name") for tag in soup.find_all(attrs={key: True})}
        self.captions = [addresses(caption) for caption in soup.find_all("figcaption")]


def addresses(tag):
    tags = tag.find_all(["a", "link", "img", "script", "source", "iframe"])
    return [one[name] for one in tags for name in ("href", "src", "srcset") if one.get(name)]


@pytest.fixture(scope="module")
def read(site):
    return {path.resolve(): Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_the_contents_are_complete_and_no_cell_failed(site, read):
    assert {path.stem for path in (ROOT / "book").glob("*.md")} <= set(PAGES)
    assert {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= set(PAGES)
    for page in PAGES:
        text = read[(site / f"{page}.html").resolve()].text
        assert "Traceback (most recent call last)" not in text and "| --" not in text, page  # a table left as text


def test_links_inside_the_book_lead_somewhere(read):
    broken = []
    for path, page in read.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (target in read and unquote(parts.fragment) not in {"", *read[target].anchors}):
                broken.append((path.name, link))
    assert broken == []


def test_links_to_the_outside_lead_to_listed_hosts_or_home(read):
    hosts = tomllib.loads((ROOT / "book/links.toml").read_text())["hosts"]
    files = set()
    for link in {link for page in read.values() for link in page.links if urlsplit(link).netloc}:
        if link.startswith(HOME["BOOK_SOURCE"]):
            kind, _, path = link.removeprefix(HOME["BOOK_SOURCE"]).strip("/").partition("/")
            if kind in ("blob", "edit"):
                files.add(unquote(urlsplit(path).path.partition("/")[2]))
        else:
            assert link.startswith(HOME["BOOK_SITE"]) or urlsplit(link).hostname in hosts, link
    assert {"notebooks/primer.ipynb", "book/index.md", "CONTRIBUTING.md"} <= files
    assert [path for path in files if not (ROOT / path).exists()] == []


def test_every_figure_leads_to_its_cell(site, read):
    chapters = [page for path, page in read.items() if path.parent.name == "notebooks"]
    captions = [(page, caption) for page in chapters for caption in page.captions]
    assert len(captions) > 50
    for page, caption in captions:
        assert any(link.startswith("#cell-") and link[1:] in page.anchors for link in caption), caption


def test_what_the_build_computes_is_complete(site, read):
    """Layers, findings, counts of verdicts, stamps, and the command that runs a chapter."""
    text = {name: read[(site / f"{name}.html").resolve()].text for name in ("layers", "index", "status")}
    assert [name for name in CATALOGUE if name not in text["layers"]] == []
    findings = read[(site / "findings.html").resolve()].anchors
    assert [f.id for study in STUDIES.values() for f in study.findings if f.id not in findings] == []
    trained = [study for study in STUDIES.values() if not study.shown_in]  # by the chapters, at any profile
    assert [study.name for study in trained if f" of {len(study.findings)} " not in text["index"]] == []
    done = json.loads((site / "stamp.json").read_text())["executed"]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page = read[(site / f"notebooks/{path.stem}.html").resolve()]
        assert f"papermill -k python3 notebooks/{path.name} out.ipynb -p profile" in page.text
        assert done[path.stem]["seconds"] >= 0 and path.stem in text["status"]


def test_pages_are_light(site, read):
    """Three megabytes with the pictures that are not the theme's."""
    for path, page in read.items():
        pictures = {(path.parent / link).resolve() for link in page.links if link.endswith((".png", ".svg", ".gif"))}
        size = path.stat().st_size + sum(picture.stat().st_size for picture in pictures if picture.exists())
        assert size < 3e6, f"{path.name}: {size / 1e6:.1f} MB"


CONFIG = """
import sys
sys.path.insert(0, {extensions!r})
extensions = ["myst_nb", "sources"]
html_theme = "sphinx_book_theme"
nb_execution_mode = "off"
"""
CHAPTER = {"cells": [], "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize(
    ("environment", "present", "absent"),
    [
        ({}, ["make book"], ["git clone", "http", "Binder"]),
        (HOME, ["git clone https://github.com/owner/name", "https://owner.github.io/name/rerun.html",
                "https://colab.research.google.com/github/owner/name/blob/main/notebooks/a.ipynb",
                "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/a.ipynb",
                "https://github.com/owner/name/edit/main/book/rerun.md",
                "https://github.com/owner/name/edit/main/notebooks/a.ipynb",
                "https://github.com/owner/name/blob/main/CONTRIBUTING.md"], []),
        ({"BOOK_SOURCE": "git@gitlab.com:a/b.git"},
         ["git clone https://gitlab.com/a/b", "https://a.gitlab.io/b/rerun.html",
          "https://mybinder.org/v2/gl/a%2Fb/main?urlpath=lab/tree/notebooks/a.ipynb",
          "https://gitlab.com/a/b/-/edit/main/book/rerun.md"], ["Colab", "colab", "github"]),
    ],
)  # fmt: skip
def test_links_follow_the_repository(environment, present, absent, tmp_path, monkeypatch):
    """In a book of two pages: text and links of both."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "conf.py").write_text(CONFIG.format(extensions=str(ROOT / "book/_ext")))
    (tmp_path / "index.md").write_text("# Contents\n\n```{toctree}\nrerun\nnotebooks/a\n```\n")
    (tmp_path / "rerun.md").write_text("# Title\n\n% clone\n\n% elsewhere\n\n[it](source:CONTRIBUTING.md)\n")
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# A chapter"}
    (tmp_path / "notebooks/a.ipynb").write_text(json.dumps(CHAPTER | {"cells": [cell]}))
    for name in ("GITHUB_REPOSITORY", "CI_PROJECT_URL", *HOME):
        monkeypatch.setenv(name, environment.get(name, ""))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))  # of this checkout nothing is known
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(tmp_path), str(tmp_path / "html")]
    subprocess.run(command, check=True)
    read = [Page(tmp_path / f"html/{page}.html") for page in ("rerun", "notebooks/a")]
    theme = ("sphinx-doc.org", "pydata.org", "ebp.jupyterbook.org")
    links = {link for page in read for link in page.links if not any(host in link for host in theme)}
    shown = "\n".join([*(page.text for page in read), *links])
    assert [text for text in present if text not in shown] == []
    assert [text for text in absent if text in shown] == []
    assert (tmp_path / "html/sitemap.xml").exists() == bool(environment)


def test_executions_that_differ_by_chance_give_the_same_notebook():
    def ran(name, *streams):
        outputs = [{"output_type": "stream", "name": kind, "text": text} for kind, text in streams]
        outputs.append({"output_type": "display_data", "data": {"text/plain": ["a"]}, "metadata": {}})
        cell = {"cell_type": "code", "id": name, "metadata": {"papermill": name, "tags": ["x"]}, "outputs": outputs}
        kept = {"kernelspec": {}, "language_info": {}, "papermill": {"duration": name}}
        return builder.reproducible({"cells": [cell, {"cell_type": "markdown", "metadata": {}}], "metadata": kept})

    one = ran("p", ("stdout", ["a\n", "b\n"]), ("stderr", ["/tmp/1"]), ("stdout", ["c\n"]))
    assert one == ran("q", ("stdout", ["a\n"]), ("stdout", ["b\n", "c\n"]))
    assert one["cells"][0]["outputs"][0]["text"] == "a\nb\nc\n" and len(one["cells"][0]["outputs"]) == 2


def test_a_stale_notebook_stops_the_build(tmp_path):
    """The book's own extension, on a notebook that is fresh, then changed, then of unknown origin."""
    app = SimpleNamespace(srcdir=tmp_path)
    output = tmp_path / "notebooks/primer.ipynb"
    output.parent.mkdir()
    output.write_bytes((ROOT / "notebooks/primer.ipynb").read_bytes())
    stamp = builder.stamp(ROOT / "notebooks/primer.ipynb", "smoke", ROOT)
    for known in ({"profile": "smoke", "stamp": stamp}, {"profile": "smoke", "stamp": "0" * 16}, {}):
        output.with_suffix(".json").write_text(json.dumps(known))
        if known.get("stamp") == stamp:
            executed.refuse_stale(app)
        else:
            with pytest.raises(ExtensionError, match="changed: primer; make book"):
                executed.refuse_stale(app)
