"""A book that needs nothing but its own folder.

The default build asks a CDN for MathJax; here one file of a package of the index takes its place.
"""

from importlib.util import find_spec
from pathlib import Path


def use_local_mathjax(app, config):
    # The SVG variant draws its own glyphs: one file, no fonts. A file in _static would be loaded twice on each page.
    package = Path(find_spec("sphinx-mathjax-offline").origin).parent
    config.html_static_path.append(str(package / "static" / "mathjax" / "tex-svg.js"))
    config.mathjax_path = "tex-svg.js"


def drop_repeated_constants(app, page, template, context, doctree):
    # sphinx-thebe writes `const THEBE_JS_URL = ...` twice, which is a script error on every page.
    kept, seen = [], set()
    for script in context.get("script_files", []):
        body = (getattr(script, "attributes", None) or {}).get("body") or ""
        if "THEBE_JS_URL" in body:
            if body in seen:
                continue
            seen.add(body)
        kept.append(script)
    context["script_files"] = kept


def drop_wrong_role(app, page, template, context, doctree):
    # docutils calls the bibliography a list whose children are no list items, which screen readers stumble over.
    if body := context.get("body"):
        context["body"] = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def setup(app):
    app.connect("config-inited", use_local_mathjax, priority=900)
    app.connect("html-page-context", drop_wrong_role)
    app.connect("html-page-context", drop_repeated_constants, priority=991)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
