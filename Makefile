# Everything a fresh machine needs: CPython 3.11 or newer and a C++17 compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*) $(wildcard bindings/*)

.PHONY: demo test lint format stubs clean

demo: $(VENV)/installed  ## analyse the embedded networks and write a report
	$(BIN)/ncut demo

test: $(VENV)/installed-dev  ## the whole test suite, slow tests included
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev  ## formatting, types, spelling, and the stub of the compiled module
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.* bindings/*.*
	$(BIN)/codespell
	$(BIN)/python scripts/stubs.py --check

format: $(VENV)/installed-dev  ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*.* bindings/*.*

stubs: $(VENV)/installed-dev  ## write ncut/_core.pyi anew from the compiled module
	$(BIN)/python scripts/stubs.py

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	$(PIP) --editable '.[plot]'
	touch $@

# Compiler warnings are errors here, and not for users, whose compilers we do not know.
$(VENV)/installed-dev: $(SOURCES) | $(BIN)/python
	$(PIP) --editable '.[torch,plot,dev]' --config-settings=cmake.define.NCUT_STRICT=ON
	touch $@ $(VENV)/installed
