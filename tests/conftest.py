"""What all tests share: one thread each (there is a worker per core), and no window for figures."""

import os

# Before torch and its thread pool are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import multiprocessing

import pytest
import torch
from filelock import FileLock

from aliasing.memory import keep_freed

torch.set_num_threads(1)
keep_freed()


@pytest.fixture
def empty_store(tmp_path, monkeypatch):
    """The folder of a working store in which nothing is yet; its name has to be quoted."""
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "my runs"))
    return tmp_path / "my runs"


@pytest.fixture
def typed(capsys):
    """Carries out a command, which has to end with ``status``; returns what it said since the last one."""
    from aliasing.cli import main

    def carried_out(*words, status=0):
        assert main([*words]) == status
        return capsys.readouterr()

    return carried_out


@pytest.fixture
def where(tmp_path):
    """A store of runs in which nothing is yet."""
    from tests.runs import store

    return store(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The store of three runs that nothing happened to."""
    from aliasing.runner import execute
    from tests.runs import JOBS, store

    where = store(tmp_path_factory.mktemp("undisturbed"))
    torch.manual_seed(7)  # of no concern to a run
    assert set(execute(JOBS, where, "cpu", workers=1, progress=False).values()) == {"done"}
    return where


def fork(patch):
    """Fork workers from a process that has imported the package and done nothing else; returns what starts them.

    A fork of the tests' own process cannot train once a derivative on another device, such as "meta", was taken in it:
    that starts threads of autograd, which a fork does not have.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aliasing.campaign", "pytest", "torch._dynamo"])  # which an optimizer imports
    patch.setattr(multiprocessing, "get_context", lambda kind: context)
    return context


@pytest.fixture
def forked(monkeypatch):
    """Processes need not import the package: seconds each. Tests of the real start leave this out."""
    return fork(monkeypatch)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Makes what the whole suite shares: the folder of that name is filled by the worker that asks first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name, fill):
        folder = shared / name
        with FileLock(f"{folder}.lock"):  # the others wait
            if not folder.with_suffix(".done").exists():
                assert not folder.exists(), f"{folder} could not be made; an error of another test says why"
                fill(folder)
                folder.with_suffix(".done").touch()
        return folder

    return made


@pytest.fixture(scope="session")
def smoke_runs(made_once):
    """The folder of a working store with the smoke runs of all studies."""
    from aliasing.jobs import merged
    from aliasing.records import Store
    from aliasing.runner import execute
    from aliasing.studies import STUDIES

    def fill(folder):
        jobs = merged(job for study in STUDIES.values() for job in study.jobs("smoke"))
        with pytest.MonkeyPatch.context() as patch:
            fork(patch)
            outcomes = execute(jobs, Store(folder, folder / "none"), "cpu", progress=False)
        assert set(outcomes.values()) == {"done"}, outcomes

    return made_once("runs", fill)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Two workers begin with what takes long and end with the pages of the book, which has been built by then."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: ("browser" in item.keywords, "slow" not in item.keywords))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Who makes the smoke runs builds the book from them and reads its files, first of all; other tests are single.

    pytest-xdist's own groups (``--dist loadgroup``) do nothing since pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class SmokeTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "smoke" if nodeid.startswith(("tests/book/test_built.py", "tests/studies/test_smoke.py")) else nodeid

    # Who asks for another distribution by --dist gets it.
    return SmokeTogether(config, log) if config.getvalue("dist") == "load" else None
