# Everything a fresh machine needs: CPython 3.11 or newer and a C++17 compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Modules are compiled as they are imported, not all 27,000 of an environment.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# Builds use all cores; `make -j` runs several targets beside each other.
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)
# Builds of the same files share their objects where ccache is installed.
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(shell command -v ccache)
export CCACHE_BASEDIR ?= $(CURDIR)
# Tests start hundreds of processes: none need compile the package's modules anew.
unexport PYTHONDONTWRITEBYTECODE
# The CPython of `make newest`.
NEWEST ?= python3.13
# One more than there are cores: some tests wait, for a killed process or a scheduler.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
CXX_SOURCES := $(wildcard csrc/*.* csrc/vector/*.* csrc/tests/*.* bindings/*.*)
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(CXX_SOURCES)

.PHONY: demo test collected coverage sanitize sanitize-addresses sanitize-threads fuzz fuzz-long fuzz-core endurance bench \
  bench-quick bench-built arm64 newest lint types style format stubs docs docs-serve clean

demo: $(VENV)/installed  ## analyse the embedded networks and write a report
	$(BIN)/ncut demo

test: $(VENV)/installed-dev  ## the whole test suite, slow tests included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations 25

collected: $(VENV)/installed-dev  ## compiles what tests import, once; each worker of `make test` would
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --collect-only --quiet --quiet

coverage: $(VENV)/installed-dev  ## the suite's coverage of ncut by lines and branches; twice as long as the suite
	$(BIN)/python -m coverage erase
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run -m pytest --numprocesses $(WORKERS) --dist worksteal
	$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report

sanitize: sanitize-addresses sanitize-threads  ## the kernels' own tests under address, undefined-behaviour and thread checks

sanitize-addresses: FLAGS = -DNCUT_SANITIZE=ON
sanitize-threads: FLAGS = -DNCUT_SANITIZE_THREADS=ON
sanitize-addresses sanitize-threads: | $(BIN)/cmake
	$(BIN)/cmake -S . -B build/$@ -DNCUT_TESTS=ON $(FLAGS) -DNCUT_STRICT=ON
	$(BIN)/cmake --build build/$@ --target test_kernels
	$(BIN)/ctest --test-dir build/$@ --output-on-failure

fuzz: $(VENV)/installed-dev  ## 20,000 damaged files of all formats and 5,000 wrong calls of the core, others than the suite's; two minutes
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py --first 720 --inputs 20000 --jobs 2
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/core.py --first 1500 --calls 5000

fuzz-long: $(VENV)/installed-dev  ## a million damaged files, hours; figures in build/fuzz.json, goes on when called again
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py --inputs 1000000 --jobs 2 --json build/fuzz.json --keep build/findings

fuzz-core: $(VENV)/installed-dev  ## wrong calls of the core under address and undefined-behaviour checks
	$(BIN)/cmake -S . -B build/sanitize-core -DNCUT_SANITIZE=ON -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	$(BIN)/cmake --build build/sanitize-core
	NCUT_CORE=$$(ls build/sanitize-core/_core*.so) OMP_NUM_THREADS=1 \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  $(BIN)/python tests/fuzz/core.py --calls 5000

endurance: $(VENV)/installed-dev  ## 2,000 analyses in one process and a scan of 1,000 models: memory, files, threads
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/endurance.py --analyses 2000 --models 1000 --json build/endurance.json

lint: types style  ## formatting, types, spelling, and the stub of the compiled module

types: $(VENV)/installed-dev
	$(BIN)/mypy

style: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	$(BIN)/codespell
	$(BIN)/python scripts/stubs.py --check

format: $(VENV)/installed-dev  ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

stubs: $(VENV)/installed-dev  ## write ncut/_core.pyi anew from the compiled module
	$(BIN)/python scripts/stubs.py

arm64: | $(BIN)/cmake  ## the kernels' own tests built for 64-bit ARM, run by qemu-user
	$(BIN)/cmake -S . -B build/arm64 -DNCUT_TESTS=ON -DNCUT_STRICT=ON -DCMAKE_SYSTEM_NAME=Linux \
	  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static \
	  -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64
	$(BIN)/cmake --build build/arm64 --target test_kernels
	$(BIN)/ctest --test-dir build/arm64 --output-on-failure

# From a folder without the sources, so that the processes that tests start find what is installed.
newest:  ## the engine's own tests on another CPython: make newest NEWEST=python3.13
	$(NEWEST) -m venv --clear build/newest
	build/newest/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --config-settings=cmake.define.NCUT_STRICT=ON --config-settings=build-dir=build/newest-objects \
	  . pytest hypothesis scikit-learn networkx array-api-strict jinja2
	rm -rf build/newest-tests && cp -r tests build/newest-tests
	cd build/newest-tests && OMP_NUM_THREADS=1 ../newest/bin/python -m pytest -q -m 'not slow' -p no:cacheprovider \
	  graphs/test_scale.py kernels/test_boundary.py nulls/test_models.py test_planted.py test_reference.py

bench-built: | $(BIN)/cmake
	$(BIN)/cmake -S . -B build/bench -DNCUT_TESTS=ON -DNCUT_STRICT=ON
	$(BIN)/cmake --build build/bench --target bench_kernels
	$(BIN)/python scripts/kernel_objects.py build/bench

bench-quick: bench-built  ## no kernel of any instruction set below a third of what a core can do; none leaves its file
	build/bench/bench_kernels 0.33

bench: bench-quick $(VENV)/installed-dev  ## time ncut and its peers; a quarter of an hour
	build/bench/bench_kernels > benchmarks/results/kernels.json
	cd benchmarks && ../$(BIN)/python run.py && ../$(BIN)/python tables.py

docs: $(VENV)/installed-dev  ## the documentation's site, written to build/site
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

# What compiles; the rest of an environment takes minutes to install.
$(BIN)/cmake: | $(BIN)/python
	$(PIP) scikit-build-core pybind11 cmake ninja

# Compiler warnings are errors here, and not for users, whose compilers we do not know. Built with
# the environment's own tools, so that the tests' wheel finds everything compiled.
$(VENV)/installed-dev: $(SOURCES) | $(BIN)/cmake
	$(PIP) --no-build-isolation --editable '.[torch,plot,dev]' \
	  --config-settings=cmake.define.NCUT_STRICT=ON
	touch $@ $(VENV)/installed
