# make demo    make .venv, install, and run the three panels on the shipped samples
# make test    the same environment, and the fast tests
# make check   style and types
# make slow    the tests marked slow

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.triptych-installed

.PHONY: demo test check slow install clean

demo: install
	$(BIN)/triptych demo

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p triptych

slow: install
	$(BIN)/python -m pytest -m "slow and not cuda"

install: $(STAMP)

# A .venv that works is kept and brought up to date; one that is missing or broken is made anew.
$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: .venv
.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Triptych needs Python 3.11 or later, found: $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear .venv

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
