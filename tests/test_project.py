"""The files around the package agree with it and with each other."""

import ast
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = sorted((ROOT / "aliasing").rglob("*.py"))
# The rooms of the package, in the order in which they may import each other: each only from those before it.
ROOMS = [
    ["errors"],
    ["files", "inference", "options", "profiles", "streams"],
    ["adversary", "distributed", "layers"],
    ["models"],
    ["datasets"],
    ["metrics"],
    ["training"],
    ["records"],
    ["evaluation", "slurm"],
    ["measurements"],
    ["runner"],
    ["torchrun"],
    ["plots"],
    ["studies"],
    ["chapters"],
    ["figures"],
    ["book", "catalogue", "benchmarks", "diagnosis"],
    ["cli"],
    ["__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = re.findall(r"^([\w.-]+)(?:\[\w+\])?==([^\s;]+)", "\n".join(lines), flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): number for name, number in pins}


def required(extra=None):
    requirements = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements]


def imports(path):
    """Dotted names inside ``aliasing`` that a module imports, wherever in the file."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".") for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ([*base, name.name] for name in node.names)


def test_environment_has_one_source_of_truth():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    python = next(entry.removeprefix("python=") for entry in conda if entry.startswith("python="))
    assert sorted(entry.split("=")[0] for entry in conda) == ["pip", "python"]
    assert tuple(map(int, python.split("."))) >= (3, 11)
    (entry,) = pip
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", entry)[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_lock_holds_everything_that_is_required():
    pins = locked()
    for name in required() + required("book") + required("test") + required("dev"):
        assert name in pins, name


def test_lock_pins_the_measured_pair():
    pins = locked()
    assert (pins["torch"], pins["torchvision"]) == ("2.11.0", "0.26.0")


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == version("aliasing")
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_one_licence_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_one_repository_everywhere():
    source, book = PROJECT["urls"]["Source"], PROJECT["urls"]["Book"]
    owner, name = source.removeprefix("https://github.com/").split("/")
    assert book == f"https://{owner}.github.io/{name}/"
    config = yaml.safe_load((ROOT / "book/_config.yml").read_text())
    assert (config["repository"]["url"], config["html"]["baseurl"]) == (source, book)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == source
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]:
        for link in re.findall(r"https://github\.com/[\w-]+/aliasing", path.read_text()):
            assert link == source, path


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "book/index.md", "book/rerun.md", "book/extend.md", "book/diagnose.md"]
)
def test_commands_on_pages_exist(page):
    """Each make target, and each ``aliasing`` command with its options, that a code block or code span shows."""
    from aliasing.cli import main

    text = (ROOT / page).read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", text)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    checked = 0
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"] and len(words) > 1:
            assert words[1] in targets, line
            checked += 1
        elif words and words[0].endswith("aliasing") and len(words) > 1:
            with pytest.raises(SystemExit) as stopped:
                main([*words[1:], "--help"])
            assert stopped.value.code == 0, line
            checked += 1
    assert checked


def readme_commands():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [words for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def test_readme_commands_run(capsys, monkeypatch, tmp_path):
    """Those of the package are carried out; what trains, with the smallest profile and one seed."""
    from aliasing.cli import main

    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path))
    expected = {"list": "bin-5", "run": "zhang2019 (smoke):", "findings": "zhang-1"}
    commands = [words[1:] for words in readme_commands() if words[0].endswith("aliasing")]
    assert {words[0] for words in commands} == expected.keys()
    for words in commands:
        smaller = [word.replace("laptop", "smoke") for word in words] + ["--seeds", "1"]
        assert main(smaller if words[0] == "run" else words) == 0
        assert expected[words[0]] in capsys.readouterr().out


def test_readme_make_targets_do_what_is_said():
    """A dry run: what they execute is carried out by the tests of the book, and by this very run."""
    found = {}
    for words in readme_commands():
        if words[0] == "make":
            found[words[1]] = subprocess.run(
                [words[0], "--no-print-directory", "--dry-run", *words[1:]],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
    assert "aliasing.book --profile laptop" in found["book"]
    assert "The book: " in found["book"].splitlines()[-1]
    assert "pytest" in found["test"].splitlines()[-1]


@pytest.mark.parametrize("page", ["README.md", "book/extend.md", "book/layers.md", "book/diagnose.md"])
def test_python_on_pages_runs(page):
    """Each Python block runs; a last line with ``# (8, 64, 16, 16)`` behind it has that shape."""
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL):
        names = {}
        exec(block, names)
        last = block.strip().splitlines()[-1]
        if shape := re.search(r"# \D*(\([\d, ]+\))", last):
            assert tuple(eval(last, names)) == ast.literal_eval(shape[1])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    parts = path.relative_to(ROOT / "aliasing").with_suffix("").parts
    if parts == ("__init__",):
        return  # the front door shows what all rooms offer
    room = parts[0]
    for name in imports(path):
        if name[0] == "aliasing" and len(name) > 1 and name[1] in RANK:
            assert name[1] == room or RANK[name[1]] < RANK[room], f"{room} imports {'.'.join(name)}"


def test_every_room_is_ranked():
    rooms = {path.relative_to(ROOT / "aliasing").parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert rooms <= set(RANK)


def test_nothing_of_the_build_is_tracked():
    """What git ignores must cover what the build makes."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for folder in ".venv/", "/runs/", "/book/_build/", "/book/notebooks/":
        assert folder in ignored
