"""Every notebook is clean source: no outputs, one cell of literal parameters, short cells, described figures."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST = 25  # lines

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    notebook = json.loads(path.read_text())
    return [("".join(cell["source"]), cell["metadata"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def tree(source):
    """The syntax tree of a cell; lines of IPython magic are no Python and are refused."""
    return ast.parse(source)


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_outputs_are_stripped(path):
    done = subprocess.run(
        [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_notebook
def test_runs_with_the_projects_kernel(path):
    metadata = json.loads(path.read_text())["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert metadata["language_info"]["pygments_lexer"]  # otherwise Sphinx warns at every cell


@each_notebook
def test_parameters_are_literals(path):
    """Papermill puts its values into a new cell below: what one computes here from a parameter would be stale."""
    (source,) = [source for source, metadata in cells(path) if "parameters" in metadata.get("tags", [])]
    body = tree(source).body
    assert body
    for statement in body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        ast.literal_eval(statement.value)


@each_notebook
def test_has_the_profile_parameter_and_its_default(path):
    (source,) = [source for source, metadata in cells(path) if "parameters" in metadata.get("tags", [])]
    values = {s.targets[0].id: ast.literal_eval(s.value) for s in tree(source).body if isinstance(s, ast.Assign)}
    assert values["profile"] == "laptop"


@each_notebook
def test_code_cells_are_short(path):
    for source, _ in cells(path):
        assert len(source.splitlines()) <= LONGEST, source


@each_notebook
def test_style(path):
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", path], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout


@each_notebook
def test_figures_are_described(path):
    """Figures are shown by ``plots.show``, which asks for caption and alternative text; nothing shows them bare."""
    for source, _ in cells(path):
        for node in ast.walk(tree(source)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("plt.show", "display", "figure.show"), source
    for source, _ in cells(path, "markdown"):
        assert "![](" not in source, "an image without alternative text"


@each_notebook
def test_opens_with_one_title(path):
    titles = [line for source, _ in cells(path, "markdown") for line in source.splitlines() if line.startswith("# ")]
    assert len(titles) == 1
    assert cells(path, "markdown")[0][0].startswith(titles[0])
