"""Links to the repository and the address of the pages, as far as ``origin`` finds them.

``[text](source:path)`` on a page becomes a link to a file of the repository, or the text alone where there is none. The
comment lines ``% clone`` and ``% elsewhere`` become the commands and the section that need the repository's address.
"""

import os
import re
from functools import cache
from pathlib import Path

import origin
from sphinx.errors import ExtensionError


@cache
def found():
    try:
        return origin.find(Path(__file__).resolve().parents[2], os.environ)
    except ValueError as error:
        raise ExtensionError(str(error)) from None


def link(text, path):
    """Markdown for a file of the repository."""
    address = found().to("file", path)
    return f"[{text}]({address})" if address else text


def clone():
    """How to get the repository, where its address is known, and to build the book."""
    source = found().source
    lines = [f"git clone {source}", f"cd {source.rpartition('/')[2]}"] if source else []
    return ["```bash", *lines, "make book", "```"]


def elsewhere():
    """Services that run a notebook, if the repository is where they can fetch it."""
    services, source = found().launch("notebooks/primer.ipynb"), found().source
    if not services:
        return []
    names = " or ".join(services)
    lines = ["## In the browser", "", f"The rocket at the top of a chapter opens its notebook on {names}."]
    lines += ["Binder makes the environment of `environment.yml` first, which takes a while."]
    if "Colab" in services:
        lines += ["Colab opens the notebook alone; run this in a cell above the first:", "", "```text"]
        lines += [
            f"!git clone --depth 1 {source}",
            f"%cd {source.rpartition('/')[2]}",
            "!pip install --quiet .[studies]",
        ]
        lines += ["```", "", "It brings the package and the published records, so nothing is trained."]
    return lines


def link_sources(app, page, source):
    for name, part in {"clone": clone, "elsewhere": elsewhere}.items():
        source[0] = re.sub(rf"^% {name}$", lambda _, part=part: "\n".join(part()), source[0], flags=re.MULTILINE)
    source[0] = re.sub(r"\[([^\]]*)\]\(source:([^)]*)\)", lambda match: link(match[1], match[2]), source[0])


def source_of(page, suffix):
    """The file of the repository that a page was made from."""
    return f"{page}{suffix}" if page.startswith("notebooks/") else f"book/{page}{suffix}"


def add_buttons(app, page, template, context, doctree):
    """Repository, issues, editor of the source, and services that run a notebook."""
    known, suffix = found(), context.get("page_source_suffix")
    if not known.source:
        return
    buttons = [("Repository", known.source, "fab fa-git-alt")]
    buttons.append(("Open issue", known.to("issue", f"Page {page}"), "fas fa-bug"))
    launch = {}
    if doctree and suffix:
        buttons.append(("Suggest edit", known.to("edit", source_of(page, suffix)), "fas fa-pencil-alt"))
        launch = known.launch(source_of(page, suffix)) if suffix == ".ipynb" else {}
    groups = {
        ("Repository", "source-buttons", "fab fa-git-alt"): buttons,
        ("Run it elsewhere", "launch-buttons", "fas fa-rocket"): [(*one, "fas fa-rocket") for one in launch.items()],
    }
    for (tooltip, label, icon), members in groups.items():
        links = [
            {"type": "link", "text": text, "tooltip": text, "url": url, "icon": symbol}
            for text, url, symbol in members
            if url
        ]
        if links:
            group = {"type": "group", "tooltip": tooltip, "icon": icon, "label": label, "buttons": links}
            context["header_buttons"].append(group)


def name_site(app, config):
    config.html_baseurl = found().site or ""
    if found().site:  # else the extension is not loaded, and knows no such values
        config.sitemap_url_scheme, config.sitemap_excludes = "{link}", ["search.html", "genindex.html"]
    config.origin = repr(found())


def setup(app):
    app.add_config_value("origin", None, "env")  # pages of an earlier build, which lived elsewhere, are made anew
    app.connect("config-inited", name_site)
    app.connect("source-read", link_sources)
    app.connect("html-page-context", add_buttons, priority=990)
    Path(app.outdir).joinpath("sitemap.xml").unlink(missing_ok=True)  # of an earlier build that knew its site
    if found().site:
        app.setup_extension("sphinx_sitemap")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
