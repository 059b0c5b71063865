"""The guide to extending the project, followed step by step in a copy of it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = re.split(r"^## ", (ROOT / "book/extend.md").read_text(), flags=re.MULTILINE)[1:]
STEP = re.compile(
    r"^`([\w/.]+)`, (a new file|a new cell|below `([^`\n]*)`)[^\n]*:\n\n```(?:python|{code-block} \w+)\n(.*?)```",
    re.M | re.S,
)
COMMAND = re.compile(r"^```bash\n(.*?)```", re.M | re.S)
EXPECTED = {  # what the last command of a section prints
    "Add a layer": "mean of each stride x stride window",
    "Add a network": "two convolutions, one halving",
    "Add a data set": "Stripes in four directions",
    "Add a claim": "zhang-mine",
    "Add a study": "stripes-1",
}


def apply(project, name, kind, line, code):
    path = project / name
    if kind == "a new file":
        assert not path.exists(), name
        path.write_text(code)
    elif kind == "a new cell":
        notebook = json.loads(path.read_text())
        notebook["cells"].append({"cell_type": "code", "source": code})
        path.write_text(json.dumps(notebook))
    else:
        lines = path.read_text().splitlines()
        places = [number for number, text in enumerate(lines, start=1) if text.lstrip().startswith(line)]
        assert places, f"{name} has no line {line!r}"
        lines.insert(places[0], code.rstrip("\n"))
        path.write_text("\n".join(lines) + "\n")


# The commands of the guide, then the figure that it draws, in a process that imports the copy once.
FOLLOW = """
import contextlib, io, json, os, sys
from aliasing.cli import main
if hasattr(os, "sched_setaffinity"):  # on one core runs are carried out here, and no worker imports the package again
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
commands, figure = json.loads(sys.argv[1])
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(command)
    print(json.dumps([status, said.getvalue()]))
exec(figure)
"""


@pytest.mark.slow
def test_every_step_of_the_guide_works(tmp_path):
    """All of them, then their commands: each section says something that the last of its own has to print."""
    project = tmp_path / "project"
    for name in ("aliasing", "notebooks", "data/records"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "data/README.md"):
        shutil.copy(ROOT / name, project / name)
    commands, expected = [], {}
    for section in SECTIONS:
        title, _, count = section.partition("\n")[0].partition(": ")
        steps = STEP.findall(section)
        assert len({name for name, *_ in steps}) == int(count.split()[0] if count else 0), title
        for step in steps:
            apply(project, *step)
        for line in (line for block in COMMAND.findall(section) for line in block.splitlines()):
            program, *arguments = shlex.split(line)
            assert program == ".venv/bin/aliasing"
            commands.append(arguments)
        if title in EXPECTED:
            expected[len(commands) - 1] = EXPECTED[title]
    assert len(expected) == len(EXPECTED)
    for lint in (["check", "--fix"], ["format", "--check"]):  # the first sorts imports; then nothing is left to do
        subprocess.run([sys.executable, "-m", "ruff", *lint, "--quiet", "aliasing"], cwd=project, check=True)
    cell = json.loads((project / "notebooks/zhang2019.ipynb").read_text())["cells"][-1]["source"]
    opened = 'from aliasing import chapters, plots\nresults = chapters.on_record("zhang2019", "laptop")\n'
    *drawing, shown = re.split(r"^(?=plots\.show)", cell, flags=re.MULTILINE)
    figure = f"{opened}{''.join(drawing)}print(({shown.strip()}).evidence)"
    command = [sys.executable, "-c", FOLLOW, json.dumps([commands, figure])]
    environment = os.environ | {"PYTHONPATH": str(project), "ALIASING_RUNS": str(project / "runs")}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    *printed, evidence = done.stdout.splitlines()
    for number, (status, text) in enumerate(map(json.loads, printed)):
        assert status == 0 and expected.get(number, "") in text, commands[number]
    assert len(printed) == len(commands) and "vgg-small on shapes" in evidence
