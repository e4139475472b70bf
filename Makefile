# Everything a fresh machine needs: CPython 3.11 or newer and a C++17 compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CXX_SOURCES := $(wildcard csrc/*.*) $(wildcard csrc/tests/*.*) $(wildcard bindings/*.*)
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(CXX_SOURCES)

.PHONY: demo test sanitize bench lint format stubs docs docs-serve clean

demo: $(VENV)/installed  ## analyse the embedded networks and write a report
	$(BIN)/ncut demo

test: $(VENV)/installed-dev  ## the whole test suite, slow tests included
	$(BIN)/python -m pytest

sanitize: $(VENV)/installed-dev  ## the kernels' own tests under address and undefined-behaviour checks
	$(BIN)/cmake -S . -B build/sanitize -DNCUT_TESTS=ON -DNCUT_SANITIZE=ON -DNCUT_STRICT=ON
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure

lint: $(VENV)/installed-dev  ## formatting, types, spelling, and the stub of the compiled module
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	$(BIN)/codespell
	$(BIN)/python scripts/stubs.py --check

format: $(VENV)/installed-dev  ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

stubs: $(VENV)/installed-dev  ## write ncut/_core.pyi anew from the compiled module
	$(BIN)/python scripts/stubs.py

bench: $(VENV)/installed-dev  ## time ncut and its peers; a quarter of an hour
	cd benchmarks && ../$(BIN)/python run.py && ../$(BIN)/python tables.py

docs: $(VENV)/installed-dev  ## the documentation's site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(VENV)/installed-dev  ## the same at localhost:8000 while its sources are edited
	NO_MKDOCS_2_WARNING=1 NCUT_DOCS_EXECUTE=false $(BIN)/python -m mkdocs serve

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
