# Needs Python 3.11 or later and make; uses uv where it is installed. `make demo` and `make test` are all a newcomer types.

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null)
RUN := .venv/bin/python -m
# On all cores, none of which waits for another.
TEST := $(RUN) pytest --numprocesses=auto --dist=worksteal

ifdef UV
CREATE := uv venv --quiet --allow-existing --python "$(PYTHON)" .venv
INSTALL := uv pip install --quiet --python .venv/bin/python
else
# pip knows dependency groups from 25.1 on.
CREATE := "$(PYTHON)" -m venv .venv && $(RUN) pip install --quiet --upgrade "pip>=25.1"
INSTALL := $(RUN) pip install --quiet
endif

.PHONY: demo test slow sample lint docs bench clean
.NOTPARALLEL:

demo: $(if $(wildcard .venv/ready-test),,.venv/ready-demo)
	.venv/bin/metering-core demo

test: .venv/ready-test
	$(TEST)

# The slow tests, Spark among them, and the laws with 1,000 examples each; -rs says why one is skipped.
# A file stays in one process, with the session of Spark that its tests share.
slow: .venv/ready-test .venv/ready-engines
	HYPOTHESIS_PROFILE=ci $(TEST) --dist=loadfile -rs -m "" -k "slow or laws"

# A fixed sixth of the slow tests, for each change; `make slow` once an issue.
sample: .venv/ready-test .venv/ready-engines
	HYPOTHESIS_PROFILE=ci $(TEST) --dist=loadfile -rs -m slow --slow-sample=6

lint: .venv/ready-test .venv/ready-lint
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy metering_core $(wildcard tests/typing)
	.venv/bin/lint-imports

docs: .venv/ready-test .venv/ready-docs
	$(RUN) sphinx -W -q -b html docs docs/_build/html

bench: .venv/ready-test .venv/ready-bench
	$(RUN) benchmarks

clean:
	rm -rf .venv docs/_build dist

.venv/bin/python:
	$(CREATE)

# The library and its command line, and none of the engines.
.venv/ready-demo: pyproject.toml | .venv/bin/python
	@echo "installing the library and its command line into .venv (once; make test installs the rest)"
	@$(INSTALL) --editable ".[cli]"
	@touch $@

.venv/ready-%: pyproject.toml | .venv/bin/python
	@echo "installing the library with all extras and the group '$*' into .venv (once; it takes minutes)"
	@$(INSTALL) --editable ".[arrow,cli,columnar,compiled,duckdb,hypothesis,plot]" --group $*
	@touch $@
