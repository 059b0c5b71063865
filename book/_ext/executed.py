"""Pages made from executed notebooks: fresh, with figures that lead to their code, and the command that runs them.

A notebook that was executed before its source, the package or published records changed stops the build.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from builder import execution, stale, verdicts
from computed import decided, profile_of
from docutils import nodes
from sources import found
from sphinx.errors import ExtensionError

from aliasing.studies import STUDIES

RUN_AGAIN = """
## Run this page yourself

In a clone of {repository}, after `make install`:

```bash
.venv/bin/papermill -k python3 notebooks/{name}.ipynb out.ipynb {parameters}
```

It was executed like this; networks that had records were not trained again.
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
            f"executed before their source, the package or published records changed: {', '.join(old)}; "
            "make book, or python book/_ext/builder.py, executes them again"
        )


def link_figures(notebook, name):
    """Let the caption of every figure lead to the cell that drew it, and to the notebook in the repository."""
    address = found().to("file", f"notebooks/{name}.ipynb")
    source = f'<a href="{address}">its notebook</a>' if address else ""
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        for output in cell["outputs"]:
            shown = "".join(output.get("data", {}).get("text/html", ""))
            if '<figure class="drawn' not in shown:
                continue
            links = ", ".join(filter(None, [f'<a href="#cell-{index}">The cell</a>', source]))
            origin = f' <span class="origin">{links}.</span></figcaption>'
            output["data"]["text/html"] = shown.replace("</figcaption>", origin)


def markdown(name, text):
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def counted(shown, book):
    """The verdicts of the studies that a page shows, one line each; guests come first."""
    said = verdicts(decided(profile_of(book)))
    names = sorted(shown, key=list(STUDIES).index, reverse=True)
    return "\n".join(f"* {STUDIES[name].title}: {said[name][0]}; decided: {said[name][1]}." for name in names)


def complete(app, page, source):
    if not page.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    path = Path(app.srcdir) / f"{page}.ipynb"
    if shown := [study.name for study in STUDIES.values() if study.chapter == path.stem]:
        notebook["cells"].insert(1, markdown("verdicts", VERDICTS.format(counts=counted(shown, Path(app.srcdir)))))
    link_figures(notebook, path.stem)  # after the insertion, which moves the cells
    source_code = found().source
    repository = f"[the repository]({source_code})" if source_code else "the repository"
    injected = execution(path)["parameters"]
    first = sorted(injected, key=lambda name: name != "profile")  # the profile, then what goes with it
    parameters = " ".join(f"-p {name} {injected[name]}" for name in first)
    text = RUN_AGAIN.format(name=path.stem, repository=repository, parameters=parameters)
    notebook["cells"].append(markdown("run-again", text))
    source[0] = json.dumps(notebook)


def name_cells(app, doctree):
    """An anchor for every code cell, so that captions can point at it."""
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            node["ids"].append(f"cell-{node['cell_index']}")


def stamp(app, error):
    """All that differs between two builds of one commit goes into one file, ``stamp.json``."""
    if not error:
        made = {path.stem: execution(path) for path in sorted((Path(app.srcdir) / "notebooks").glob("*.ipynb"))}
        executed = {name: {key: known[key] for key in ("ended", "seconds")} for name, known in made.items()}
        facts = {"built": datetime.now(UTC).isoformat(timespec="seconds"), "executed": executed}
        (Path(app.outdir) / "stamp.json").write_text(json.dumps(facts, indent=1) + "\n")


def setup(app):
    app.connect("builder-inited", refuse_stale)
    app.connect("source-read", complete)
    app.connect("doctree-read", name_cells)
    app.connect("build-finished", stamp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
