"""The files around the package agree with it, with each other, and with where the repository lives."""

import ast
import importlib.util
import inspect
import json
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import origin
import pytest
import yaml
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import aliasing

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}


def module(path):
    """A Python file that is no part of the package."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").strip("."), ROOT / path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look there
    spec.loader.exec_module(loaded)
    return loaded


links = module(".ci/links.py")


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def tokens(text):
    """Everything in a Markdown text, as its parser sees it."""
    for token in MarkdownIt().parse(text):
        yield from [token, *(token.children or [])]


def code(page, language):
    """The code blocks of a page in a language."""
    return [t.content for t in tokens((ROOT / page).read_text()) if t.type == "fence" and t.info == language]


def addresses(text):
    """Where the links and pictures of a Markdown text lead."""
    return [t.attrs.get("href") or t.attrs["src"] for t in tokens(text) if t.type in ("link_open", "image")]


# Imports.


def imports(path):
    """Rooms of the package that a module imports, wherever in the file."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name.split(".") for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, name.name] for name in node.names]
        yield from (name[1] for name in names if name[0] == "aliasing" and len(name) > 1)


def test_imports_point_one_way():
    """The chain is stated in the docstring of the package; ``__init__`` itself, the front door, shows all rooms."""
    stated = [line for line in inspect.cleandoc(aliasing.__doc__).splitlines() if line.startswith("    ")]
    rank = {room.strip(): number for number, line in enumerate(stated) for room in line.split(",")}
    wrong = set()
    for path in (ROOT / "aliasing").rglob("*.py"):
        room = path.relative_to(ROOT / "aliasing").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        others = {other for other in imports(path) if other != room}
        wrong |= {f"{room} imports {other}" for other in others if not rank.get(other, 99) < rank[room]}
    assert wrong == set()


WITHOUT_EXTRAS = """
import sys
class Base:  # as if nothing but the base were installed
    def find_spec(name, *rest):
        if name.partition(".")[0] in {extras}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Base)
import torch, aliasing
from aliasing.cli import main
stem = torch.nn.Conv2d(3, 4, 3, 2, 1)
network = torch.nn.Sequential(stem, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 5))
converted = aliasing.antialias(network, "bin-5", example=torch.rand(1, 3, 16, 16))
print(aliasing.layers.create("tips", 4)(torch.rand(1, 4, 8, 8)).shape)
print(aliasing.metrics.consistency(converted.eval(), torch.rand(2, 3, 16, 16), max_shift=2).n)
print(aliasing.metrics.mean_absolute_change(converted, torch.rand(2, 3, 16, 16)).n)
try:
    from aliasing import studies
except ImportError as error:
    print(error)
sys.exit(main(["findings"]))
"""


def test_the_base_install_is_enough_for_layers_conversion_and_metrics():
    """What is not installed is named with its extra."""
    lines = chain(*PROJECT["optional-dependencies"].values())
    extras = {Requirement(line).name for line in lines} - {"filelock"}  # PyTorch asks for it itself
    code = WITHOUT_EXTRAS.format(extras=sorted(extras))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    reason = "pandas is not installed; pip install 'aliasing[studies]' brings it"
    assert done.stdout.splitlines() == ["torch.Size([1, 4, 4, 4])", "2", "2", reason], done.stderr
    assert (done.returncode, done.stderr) == (1, f"aliasing findings: {reason}\n")


# Versions.


def test_the_lock_pins_what_is_required_and_conda_installs_the_lock():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = {canonicalize_name(one.name): one for one in map(Requirement, lines)}
    extras = [PROJECT["optional-dependencies"][extra] for extra in ("studies", "book", "test", "dev")]
    for requirement in map(Requirement, chain(PROJECT["dependencies"], *extras)):
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), requirement
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [entry.removeprefix("python=") for entry in conda if str(entry).startswith("python=")]
    assert python in PROJECT["requires-python"]


def test_one_version_and_one_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert version("aliasing") == aliasing.__version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert not citation.keys() & {"version", "url", "repository-code"}  # one place for each, and not this one


# Where the repository lives.


GITHUB, GITLAB, CODEBERG = "https://github.com", "https://gitlab.com", "https://codeberg.org"


@pytest.mark.parametrize(
    ("remote", "source", "site", "file"),
    [
        ("git@github.com:Owner/n.git", f"{GITHUB}/Owner/n", "https://owner.github.io/n/", "/blob/main/a.md"),
        ("https://me:token@github.com/o/n", f"{GITHUB}/o/n", "https://o.github.io/n/", "/blob/main/a.md"),
        ("ssh://git@gitlab.com:22/o/s/n.git/", f"{GITLAB}/o/s/n", "https://o.gitlab.io/s/n/", "/-/blob/main/a.md"),
        (f"{CODEBERG}/o/n.git", f"{CODEBERG}/o/n", "https://o.codeberg.page/n/", "/src/branch/main/a.md"),
        ("http://gitlab.example.org:81/o/n", "http://gitlab.example.org:81/o/n", None, "/-/blob/main/a.md"),
        ("git@git.example.org:o/n.git", "https://git.example.org/o/n", None, None),
        *((remote, None, None, None) for remote in ("../n", "work:o/n.git", "ssh://192.168.1.7/o/n.git", None)),
    ],
)  # fmt: skip
def test_the_repository_is_found_by_its_remote(remote, source, site, file, tmp_path):
    git(tmp_path, "init", "-q")
    if remote:
        git(tmp_path, "remote", "add", "origin", remote)
    (tmp_path / "inside").mkdir()
    found = origin.find(tmp_path, {})
    assert (found.source, found.site) == (source, site)
    assert found.to("file", "a.md") == (file and source + file)
    assert "token" not in json.dumps([found.source, found.to("edit", "a"), found.to("issue", "b"), found.launch("c")])
    assert origin.find(tmp_path / "inside", {}) == origin.Origin()  # a folder inside somebody's repository


def test_a_workflow_and_the_caller_know_better_than_the_remote(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "remote", "add", "origin", "https://gitlab.com/a/b")
    workflow = {"GITHUB_SERVER_URL": "https://git.example.org", "GITHUB_REPOSITORY": "me/fork"}
    workflow |= {"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "trunk"}
    found = origin.find(tmp_path, workflow)
    assert (found.to("file", "x"), found.site) == ("https://git.example.org/me/fork/blob/trunk/x", None)
    assert origin.find(tmp_path, workflow | {"GITHUB_HEAD_REF": "topic"}).branch == "main"  # of a pull request
    found = origin.find(tmp_path, {"CI_PROJECT_URL": "https://code.org/a/b", "CI_PAGES_URL": "https://pages.org/b"})
    assert (found.to("edit", "x"), found.site) == ("https://code.org/a/b/-/edit/main/x", "https://pages.org/b/")
    said = {"BOOK_SOURCE": "https://codeberg.org/c/d", "BOOK_SITE": "https://example.org/x/y"}
    found = origin.find(tmp_path, workflow | said)
    assert (found.source, found.site) == (said["BOOK_SOURCE"], said["BOOK_SITE"] + "/")
    for wrong in ({"BOOK_SOURCE": "d"}, {"BOOK_SITE": "example.org"}):
        with pytest.raises(ValueError, match="must be the address"):
            origin.find(tmp_path, wrong)


def test_readme_of_a_wheel_has_absolute_links_or_none():
    absolute, text = module("setup.py").absolute, (ROOT / "README.md").read_text()
    known = addresses(absolute(text, origin.Origin("https://github.com/o/n", None, "main", "github")))
    assert len(known) == len(addresses(text)) > 20
    for address in known:
        assert address.startswith("https://")
        head, _, file = address.partition("/main/")
        assert not head.startswith("https://github.com/o/n/") or (ROOT / file).exists()
    bare = absolute(text, origin.Origin())
    assert all(address.startswith("https://") for address in addresses(bare)) and "how to re-run: from toys" in bare


def test_every_outside_link_leads_to_a_listed_host():
    assert links.unlisted() == {}
    assert len(links.outside()) > 20 and all(links.listed().values())


@pytest.mark.parametrize("name", ["page.md", "module.py", "notebooks/n.ipynb", "data.csv", "references.bib"])
def test_a_link_to_another_host_is_found(name, tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/links.toml").write_text((ROOT / "book/links.toml").read_text())
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('see "https://arxiv.org/abs/1" and\n  url = {https://somebody.example.org/a_(b)}, doi = {10.1/x}\n')
    git(tmp_path, "add", ".")
    assert links.unlisted(tmp_path) == {"https://somebody.example.org/a_(b)": [name]}


# Workflows.


def test_workflows_run_pinned_actions_with_the_least_permissions():
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name
        events = workflow[True]  # "on" is a truth value to YAML
        assert "pull_request_target" not in events
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"]
            if "pull_request" in events:
                assert "permissions" not in job and "secrets" not in json.dumps(job)
            for step in job["steps"]:
                if "uses" in step:
                    commit = step["uses"].partition("@")[2]
                    assert len(commit) == 40 and int(commit, 16), step
    assert "secrets." not in json.dumps(WORKFLOWS)


# Pages.


def commands(page):
    """The shell commands of a page: lines of code blocks, and code spans."""
    spans = [token.content for token in tokens((ROOT / page).read_text()) if token.type == "code_inline"]
    lines = [line for block in code(page, "bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in [*lines, *spans] if "'" not in line]


def test_commands_on_pages_exist(capsys):
    """Make is asked by a dry run, the command line by its help; what only reads is carried out."""
    from aliasing.cli import main

    pages = ("README.md", "CONTRIBUTING.md", "book/index.md", "book/rerun.md", "book/diagnose.md")
    ours = lambda words: len(words) > 1 and (words[0] == "make" or words[0].endswith("aliasing"))  # noqa: E731
    found = {page: [words for words in commands(page) if ours(words)] for page in pages}
    assert all(found.values())
    for program, *words in {tuple(words) for lines in found.values() for words in lines}:
        if program == "make":
            subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)
            continue
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--help"])
        if expected := {"list layers": "source", "findings --study": "zhang-1"}.get(" ".join(words[:2])):
            assert main(words) == 0 and expected in capsys.readouterr().out


def test_make_in_the_conda_environment_makes_no_second_one(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "CONDA_DEFAULT_ENV": "aliasing", "CONDA_PREFIX": str(tmp_path)}
    for target in ("book", "test"):
        command = ["make", "--dry-run", "--always-make", target]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        assert "venv" not in done.stdout and "install" not in done.stdout
        assert f"{tmp_path}/bin/" in done.stdout


def test_make_book_heeds_the_environment_and_its_own_words_more():
    environment = {"PATH": "/usr/bin:/bin", "ALIASING_FRESH": "1", "BOOK_SOURCE": "https://a.b/c", "BOOK_SITE": "d"}
    command = ["make", "--dry-run", "--print-data-base", "book", "FRESH=0", "SITE=e"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    for line in ("ALIASING_FRESH := 0", "BOOK_SOURCE := https://a.b/c", "BOOK_SITE := e"):
        assert f"\nbook: {line}\n" in done.stdout


@pytest.mark.parametrize("page", ["README.md", "book/layers.md", "book/diagnose.md"])
def test_python_on_pages_runs(page):
    """Each Python block runs; a last line with ``# (8, 64, 16, 16)`` behind it has that shape."""
    for block in code(page, "python"):
        names = {}
        exec(block, names)
        value, _, remark = block.strip().splitlines()[-1].partition("# ")
        shape = remark[remark.find("(") :].partition(")")[0] + ")"
        if shape.lstrip("([")[:1].isdigit():
            assert tuple(eval(value, names)) == tuple(ast.literal_eval(shape))
