"""What all tests share: one thread each (there is a worker per core), and no window for figures."""

import os

# Before torch and its thread pool are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import multiprocessing

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def empty_store(tmp_path, monkeypatch):
    """The folder of a working store in which nothing is yet; its name has to be quoted."""
    monkeypatch.setenv("ALIASING_RUNS", str(tmp_path / "my runs"))
    return tmp_path / "my runs"


@pytest.fixture
def forked(monkeypatch):
    """Workers are forked, and need not import the package: seconds each. Tests of the real start leave this out."""
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: context)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of the built book are one piece of work, so that one worker builds it and reads it; others are single.

    pytest-xdist's own groups (``--dist loadgroup``) do nothing since pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class BookTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "tests/book" if nodeid.startswith("tests/book/") else nodeid

    # Who asks for another distribution by --dist gets it.
    return BookTogether(config, log) if config.getvalue("dist") == "load" else None
