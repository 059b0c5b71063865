# make test, make book: everything from a fresh clone. Needs Python 3.11+ and a package index, nothing else.
PYTHON ?= python3
PROFILE ?= best

# Inside the conda environment of environment.yml everything is installed already.
ifeq ($(CONDA_DEFAULT_ENV),aliasing)
BIN := $(CONDA_PREFIX)/bin
INSTALLED :=
else
BIN := .venv/bin
INSTALLED := .venv/.installed
endif
BOOK := book/_build/html/index.html

# The first kernel search path must be this environment's, whatever the user's shell says.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH
# Tests and chapters start dozens of processes, and each would compile PyTorch anew, for six seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install lint test check book readme bench lock clean

help:
	@echo "make test                   lint, type checks and tests"
	@echo "make check                  the same without the tests that take more than ten seconds: five minutes"
	@echo "make book [PROFILE=best]    run the notebooks and build the book (or smoke laptop desktop gpu cluster)"
	@echo "make book SOURCE=... SITE=...  with links to this repository and these pages, where git does not know them"
	@echo "make book FRESH=1           the same without the published records: every network is trained here"
	@echo "make bench                  our speed beside the peers'"
	@echo "make readme                 write the counts of verdicts into README.md"
	@echo "make lint                   lint and type checks only"
	@echo "make lock                   resolve requirements.lock again"
	@echo "make clean                  remove what the build made; keeps .venv, runs/ and data/"

install: $(INSTALLED)

ifdef INSTALLED
# uv installs in seconds but does not read pip's configuration (a mirror named there, say): pip is the fallback.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] + \
		"; name another one: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e . \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
endif

lint: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary

# One worker per core; tests/conftest.py has the book built by the first, and its pages looked at last.
test: lint
	$(BIN)/pytest -n auto

check: lint
	$(BIN)/pytest -n auto -m "not slow"

# Where links to the repository lead: book/_ext/origin.py.
book: export BOOK_SOURCE := $(or $(SOURCE),$(BOOK_SOURCE))
book: export BOOK_SITE := $(or $(SITE),$(BOOK_SITE))
book: export ALIASING_FRESH := $(or $(FRESH),$(ALIASING_FRESH))
# Threads that wait for each other on a shared machine cost ten times what they compute.
book: export OMP_NUM_THREADS := 1
book: $(INSTALLED)
	$(BIN)/python book/_ext/builder.py --profile $(PROFILE)
	$(BIN)/jupyter-book build book -W --keep-going --quiet
	@echo "The book: $(CURDIR)/$(BOOK)"

readme: $(INSTALLED)
	$(BIN)/python book/_ext/builder.py --readme

bench: $(INSTALLED)
	$(BIN)/aliasing bench

# Pinned: the pair of torch and torchvision that the published numbers were measured with.
lock: $(INSTALLED)
	printf 'torch==2.11.0\ntorchvision==0.26.0\n' > .venv/pins.txt
	$(BIN)/uv pip compile pyproject.toml --extra studies --extra book --extra test --extra dev -c .venv/pins.txt --python-version 3.11 \
		--universal --no-header --no-annotate --quiet -o requirements.lock

clean:
	rm -rf book/_build book/notebooks build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find aliasing benchmarks tests book notebooks -name __pycache__ -prune -exec rm -rf {} +
