"""Pages made from executed notebooks: fresh, with figures that lead to their code, and the command that runs them.

A notebook that was executed before its source, the package or the records changed stops the build.
"""

import json
import tomllib
from pathlib import Path

from computed import decided, profile_of
from docutils import nodes
from sphinx.errors import ExtensionError

from aliasing.book import execution, stale, told, verdicts
from aliasing.records import home
from aliasing.studies import STUDIES

REPOSITORY = tomllib.loads((home() / "pyproject.toml").read_text())["project"]["urls"]["Source"]
RUN_AGAIN = """
## Run this page yourself

From a clone of [the repository]({repository}), after `make install`:

```bash
.venv/bin/papermill -k python3 notebooks/{name}.ipynb out.ipynb -p profile {profile}
```

It was executed like this on {ended} UTC in {seconds:.0f} seconds; networks that had records were not trained again.
[How to re-run](../rerun.md) explains profiles and records, [the status page](../status.md) lists all executions.
"""
VERDICTS = """
:::{{admonition}} What became of the claims
:class: note
{counts}

[Each claim with its rule, numbers and verdict](#findings), [what the verdicts mean](../findings.md), and
[the command that computes them again](#run-this-page-yourself).
:::
"""


def refuse_stale(app):
    old = sorted(path.stem for path in (Path(app.srcdir) / "notebooks").glob("*.ipynb") if stale(path))
    if old:
        raise ExtensionError(
            f"executed before their source, the package or the records changed: {', '.join(old)}; "
            "make book, or python -m aliasing.book, executes them again"
        )


def link_figures(notebook):
    """Let the caption of every figure lead to the cell that drew it."""
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        for output in cell["outputs"]:
            shown = "".join(output.get("data", {}).get("text/html", ""))
            if '<figure class="drawn' not in shown:
                continue
            origin = f' <span class="origin"><a href="#cell-{index}">The cell</a>.</span></figcaption>'
            output["data"]["text/html"] = shown.replace("</figcaption>", origin)


def markdown(name, text):
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def counted(study, book):
    """The verdicts of a study, one line per profile."""
    counts = verdicts(decided(profile_of(book))).query("study == @study")
    return "\n".join(f"* Profile `{profile}`: {told(row)}." for (_, profile), row in counts.iterrows())


def complete(app, page, source):
    if not page.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    path = Path(app.srcdir) / f"{page}.ipynb"
    if path.stem in STUDIES:
        counts = counted(path.stem, Path(app.srcdir)) or "None was decided: no profile has records."
        notebook["cells"].insert(1, markdown("verdicts", VERDICTS.format(counts=counts)))
    link_figures(notebook)  # after the insertion, which moves the cells
    facts = execution(path) | {"name": path.stem, "repository": REPOSITORY}
    text = RUN_AGAIN.format(**facts | {"ended": facts["ended"][:16].replace("T", " ")})
    notebook["cells"].append(markdown("run-again", text))
    source[0] = json.dumps(notebook)


def name_cells(app, doctree):
    """An anchor for every code cell, so that captions can point at it."""
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            node["ids"].append(f"cell-{node['cell_index']}")


def setup(app):
    app.connect("builder-inited", refuse_stale)
    app.connect("source-read", complete)
    app.connect("doctree-read", name_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
