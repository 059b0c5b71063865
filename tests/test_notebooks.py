"""Every notebook is clean source: no outputs, one cell of literal parameters, short cells, described figures."""

import ast
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST, MEDIAN = 20, 10  # lines

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    notebook = json.loads(path.read_text())
    return [("".join(cell["source"]), cell["metadata"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_outputs_are_stripped():
    command = [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", *NOTEBOOKS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert NOTEBOOKS and done.returncode == 0, done.stdout + done.stderr


@each_notebook
def test_opens_with_one_title_and_one_cell_of_parameters_that_are_literals(path):
    """Papermill puts its values into a new cell below: what one computes here from a parameter would be stale."""
    titles = [line for source, _ in cells(path, "markdown") for line in source.splitlines() if line.startswith("# ")]
    assert len(titles) == 1 and cells(path, "markdown")[0][0].startswith(titles[0])
    (source,) = [source for source, metadata in cells(path) if "parameters" in metadata.get("tags", [])]
    values = {statement.targets[0].id: ast.literal_eval(statement.value) for statement in ast.parse(source).body}
    assert values["profile"] == "best"
    metadata = json.loads(path.read_text())["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert metadata["language_info"]["pygments_lexer"]  # otherwise Sphinx warns at every cell


@each_notebook
def test_code_cells_are_short_and_figures_described(path):
    """Figures are shown by ``plots.show``, which asks for caption and alternative text; nothing shows them bare."""
    lines = {source: len(source.splitlines()) for source, _ in cells(path)}
    assert max(lines.values()) <= LONGEST, max(lines, key=lines.get)
    assert statistics.median(lines.values()) <= MEDIAN or path.stem == "primer"  # which draws all that it shows
    for source in lines:
        called = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
        assert not called & {"plt.show", "display", "figure.show"}, source
    for source, _ in cells(path, "markdown"):
        assert "![](" not in source, "an image without alternative text"


# Numbers of the papers that the one notebook quotes that quotes any: words around it, row of its file, and its value.
QUOTED = [
    ("70.0 for corruptions", "model == 'ResNet-50, architecture alone' and metric == 'mCE'", 70.0),
    ("21.2 for clean", "model == 'ResNet-50, BlurAfterConv' and metric == 'clean error'", 21.2),
    ("21.2 with 64.9", "model == 'ResNet-50, BlurAfterConv' and metric == 'mCE'", 64.9),
    ("about 68 per cent", "model == 'ResNet-50, 7 taps everywhere'", 68),
    ("begins at 77.36", "model == 'ResNet-50' and paper == '2021'", 77.36),
    ("about 61 per cent", "model == 'ResNet-50, low-pass at every convolution'", 61),
    ("76.7, 70.0", "paper == '2020' and case == 'none' and metric == 'mCE'", 76.7),
    ("61.5 per cent", "model == 'ResNet-50, pre- and post-filter'", 61.5),
]


@pytest.mark.parametrize(("words", "row", "value"), QUOTED, ids=[words for words, _, _ in QUOTED])
def test_numbers_of_papers_in_the_text_are_those_of_the_data_files(words, row, value):
    sources = cells(ROOT / "notebooks/vasconcelos2020.ipynb", "markdown")
    assert words in " ".join(" ".join(source.split()) for source, _ in sources)
    rows = pd.read_csv(ROOT / "data/published/vasconcelos2020.csv").query(row)["value"]
    assert rows.tolist() == [value]


@each_notebook
def test_no_measured_number_is_typed(path):
    """Prose has no decimals and no per cents but those of definitions and quotations, which are listed here."""
    allowed = {
        "primer": {"2.5", "0.4", "0.1"},  # the waves that the page draws
        "grabinski2023": {"0.54", "0.73", "0.08", "1.25"},  # the window, its root at the cut, its end; a step size
        # The claim in the title's words; settings of the authors' code; the middle of 0 to 3.
        "saha2024": {"100", "0.0", "0.35", "40", "1.5"},
        "vasconcelos2020": {"70.0", "21.2", "64.9", "76.7", "61.5", "68", "77.36", "61"},  # quoted, see above
        "comparison": {"12.7", "4.3", "2.8", "100"},  # Student's factor for two seeds, three and five; a claim
    }.get(path.stem, set())
    for source, _ in cells(path, "markdown"):
        prose = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`]*`", "", source, flags=re.DOTALL)
        for number in re.findall(r"\d+\.\d+|\d+(?=\s*(?:%|per cent|points))", prose):
            assert number in allowed | {"95"}, f"{number} in: {source[:200]}"


def test_every_figure_of_a_paper_is_in_a_section_of_its_chapter_or_says_why_not():
    for row in pd.read_csv(ROOT / "data/published/figures.csv").fillna("").itertuples():
        source = "\n".join(text for text, _ in cells(ROOT / f"notebooks/{row.paper}.ipynb", "markdown"))
        assert row.where or row.why, row.item
        assert not row.where or re.search(rf"^##+ {re.escape(row.where)}$", source, flags=re.MULTILINE), row
