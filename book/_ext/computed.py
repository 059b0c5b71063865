"""The parts of pages that the build computes: the layer reference, the status page, how to run a chapter again.

A page asks for a part with a comment line, ``% computed: layers``; the text is computed each time the book is built.
Pages made from notebooks end with the command that runs them and the time it took.
"""

import contextlib
import json
import platform
import re
import runpy
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PAGES = ["diagnose", "layers", "status"]
PACKAGES = ["aliasing", "torch", "torchvision", "numpy", "pandas", "papermill", "jupyter-book", "sphinx-book-theme"]


def layers(book):
    """One section per class: the names it answers to, then its documentation."""
    from aliasing.layers import CATALOGUE

    names = {}
    for name, entry in CATALOGUE.items():
        names.setdefault(entry.layer, []).append(name)
    lines = ["## Names", "", "| name | what it does | strides | source | class |", "|---|---|---|---|---|"]
    for name, entry in CATALOGUE.items():
        link = f"[{entry.layer.__name__}](#layer-{entry.layer.__name__.lower()})"
        strides = f"{min(entry.strides)} to {max(entry.strides)}" if len(entry.strides) > 1 else str(entry.strides[0])
        lines.append(f"| `{name}` | {entry.description} | {strides} | {entry.source} | {link} |")
    for layer, answers_to in names.items():
        lines += ["", f"(layer-{layer.__name__.lower()})=", f"## {layer.__name__}", ""]
        lines += ["Names: " + ", ".join(f"`{name}`" for name in answers_to) + ".", ""]
        lines += ["```{eval-rst}", f".. autoclass:: {layer.__module__}.{layer.__qualname__}", "```"]
    return lines


def markdown(frame, corner):
    """A table of strings; ``corner`` is the heading above the names of the rows."""
    lines = [f"| {corner} | " + " | ".join(frame.columns) + " |", "|---" * (len(frame.columns) + 1) + "|"]
    return lines + [
        f"| {name} | " + " | ".join(row) + " |" for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]


def promises(book):
    """Every layer against the contract, and the same for the layers of other packages."""
    from aliasing.benchmarks.contract import ours, peers_table, table

    return [
        *markdown(table(ours()).rename(index="`{}`".format), "layer"),
        "",
        "The same calls on what others offer, made when this page was built or, where a package was not installed,",
        "on the date in the row:",
        "",
        *markdown(peers_table(book.parent / "data" / "peers.json"), "peer"),
    ]


def diagnosis(book):
    """What the example of the page on diagnosing finds: its table, and the sites of its networks."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = place
        try:
            with contextlib.redirect_stdout(None):
                found = runpy.run_path(str(book / "diagnose_example.py"))["found"]
        finally:
            tempfile.tempdir = None
    sites = {
        f"{portrait.network}, `{site.name}` ({site.module})": {
            "alias energy": f"{100 * site.alias_energy.value:.1f} %",
            "alias error": f"{100 * site.alias_error.value:.1f} %",
            "maximum-sampling bias": f"{100 * site.max_bias.value:.1f} %",
        }
        for portrait in found.portraits
        for site in portrait.sites
    }
    return [
        *markdown(found.table().drop(index="weights"), "measure"),
        "",
        "Where samples are dropped:",
        "",
        *markdown(pd.DataFrame.from_dict(sites, orient="index"), "network, site (module)"),
    ]


def execution(notebook):
    """Profile, end (UTC, to the minute) and seconds of the execution that papermill noted in ``notebook``."""
    facts = notebook["metadata"]["papermill"]
    ended = facts["end_time"][:16].replace("T", " ")
    return facts["parameters"].get("profile", "laptop"), ended, facts["duration"]


def runs(book):
    """When each notebook of this build was executed, with which profile, and how long it took."""
    lines = ["| page | profile | executed (UTC) | run time |", "|---|---|---|---|"]
    for path in sorted((book / "notebooks").glob("*.ipynb")):
        profile, ended, seconds = execution(json.loads(path.read_text()))
        lines.append(f"| [{path.stem}](notebooks/{path.name}) | `{profile}` | {ended} | {seconds:.0f} s |")
    return lines


def run_again(name, source):
    """The notebook, given as text, with a last cell that tells how to run it."""
    notebook = json.loads(source)
    profile, ended, seconds = execution(notebook)
    text = f"""
:::{{admonition}} Run this page yourself
:class: tip
`.venv/bin/papermill -k python3 notebooks/{name}.ipynb out.ipynb -p profile {profile}`

This page was executed on {ended} UTC with the profile `{profile}`, in {seconds:.0f} seconds; networks that were in the
records already were not trained again. [How to re-run](../rerun.md) says what a profile is and where records are.
:::
"""
    cell = {"cell_type": "markdown", "id": "run-again", "metadata": {}, "source": text}
    notebook["cells"].append(cell)
    return json.dumps(notebook)


def versions(book):
    """What the book was built with."""
    rows = [("Python", platform.python_version()), *((package, version(package)) for package in PACKAGES)]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return [
        f"This book was built on {now} UTC, on {platform.system()} ({platform.machine()}), with:",
        "",
        "| package | version |",
        "|---|---|",
        *(f"| {name} | {number} |" for name, number in rows),
    ]


def fill(app, page, source):
    parts = {"diagnosis": diagnosis, "layers": layers, "promises": promises, "runs": runs, "versions": versions}
    if page in PAGES:
        source[0] = re.sub(
            r"^% computed: (\w+)$",
            lambda found: "\n".join(parts[found[1]](Path(app.srcdir))),
            source[0],
            flags=re.MULTILINE,
        )
    if page.startswith("notebooks/"):
        source[0] = run_again(page.removeprefix("notebooks/"), source[0])


def setup(app):
    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: PAGES)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
