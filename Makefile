# What a contributor and the continuous integration run. `make` lists it.
#
# Every target sets up what it needs: a virtual environment in the tree, the pinned packages, the
# release build. Stamp files remember what is done, so a second run rebuilds nothing.
#   make test PYTHON=python3.12     another interpreter, in an environment of its own

PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built
PEERS := $(VENV)/.peers
CORPUS := $(VENV)/.corpus
INTEGRATIONS := $(VENV)/.integrations

# The inputs of the native build. Python sources are used in place and need no build.
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find crates -path '*/fuzz' -prune -o \( -name '*.rs' -o -name Cargo.toml \) -print)

# A build of its own with the kill points compiled in, for the crash tests.
FAULTY := target/fault

# Kill points are compiled in for the crash tests and the lints, never into what users run.
FAULTS := --features treadle-shm/fault

# PyO3 compiles against the environment's interpreter, in every cargo command alike, so that
# clippy, the tests and maturin do not throw away each other's work.
export PYO3_PYTHON := $(abspath $(BIN)/python)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help build demo examples example-crawler example-images example-server measure-examples test test-rust test-python test-integrations test-all chaos fuzz sanitize miri loom bench flatness accuracy lint format wheel audit lock clean FORCE

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: $(BUILT) ## build the extension in release mode into the environment

demo: $(BUILT) ## compare a thumbnail function and a fetch function: two decisions
	@$(BIN)/python demo/run.py $(DEMO)

examples: example-crawler example-images example-server ## the three programs in examples/: their tests and a short measurement

# One cache with `make lint`: the standard library's types are read once.
EXAMPLE_TYPES := --config-file ../../pyproject.toml --cache-dir $(abspath .mypy_cache) --explicit-package-bases

# What each program runs on, its types, its tests, and the table of its README in short form.
example-crawler: $(VENV)/.example-crawler ## pages over HTTP into SQLite or PostgreSQL
	cd examples/crawler && MYPYPATH=. $(abspath $(BIN))/mypy $(EXAMPLE_TYPES) -p crawler
	cd examples/crawler && $(abspath $(BIN))/python -m pytest --quiet tests
	cd examples/crawler && $(abspath $(BIN))/python -m crawler measure --short

example-images: $(VENV)/.example-images ## a batch over photographs
	cd examples/images && MYPYPATH=. $(abspath $(BIN))/mypy $(EXAMPLE_TYPES) -p images
	cd examples/images && $(abspath $(BIN))/python -m pytest --quiet tests
	cd examples/images && $(abspath $(BIN))/python -m images measure --short

example-server: $(VENV)/.example-server ## websocket clients on a loop, reports in processes
	cd examples/server && MYPYPATH=. $(abspath $(BIN))/mypy $(EXAMPLE_TYPES) -p live
	cd examples/server && $(abspath $(BIN))/python -m pytest --quiet tests
	cd examples/server && $(abspath $(BIN))/python -m live measure --short

measure-examples: $(VENV)/.example-crawler $(VENV)/.example-images $(VENV)/.example-server ## their whole measurements into their READMEs (a quarter of an hour, a quiet machine); EXAMPLES='images --folder /dev/shm'
	$(BIN)/python examples/measure.py $(EXAMPLES)

test: lint test-rust test-python ## format, lints, Rust tests, Python tests: with `make examples`, what CI runs

test-rust: $(INSTALLED) ## the Rust tests
	cargo test --workspace --locked --quiet

test-python: $(BUILT) ## the Python tests; PYTEST='-k name' to choose
	$(BIN)/python -m pytest $(PYTEST)

test-integrations: $(BUILT) $(INTEGRATIONS) ## Dask, Ray, joblib, scikit-learn and Jupyter, each for real (installs them, 160 MB)
	$(BIN)/python -m pytest tests/integrations $(PYTEST)

test-all: $(BUILT) ## the Python tests on every other interpreter (3.10 to 3.15, free-threaded ones too) found here
	bash .ci/interpreters $(BIN)/python $(PYTEST)

chaos: $(BUILT) $(FAULTY)/.built ## kills, stops, limits, leaks; CHAOS='--quick --seed 7 single' (minutes)
	cargo test --package treadle-shm $(FAULTS) --locked --test kills
	$(BIN)/python tests/chaos/run.py $(CHAOS)
	PYTHONPATH=$(FAULTY)/python $(BIN)/python tests/chaos/run.py --faults $(CHAOS)

# libFuzzer and the sanitizers hide behind unstable flags, which this opens on the stable compiler.
UNSTABLE := RUSTC_BOOTSTRAP=1
HOST = $(shell rustc -vV | sed -n 's/host: //p')
# Seconds for each fuzz target.
FUZZ ?= 60

fuzz: ## fuzz what reads shared memory or decodes; FUZZ=600 seconds each (needs cargo-fuzz)
	@cargo fuzz --version >/dev/null 2>&1 || { \
	  echo "error: cargo-fuzz is not installed"; \
	  echo "hint: cargo install --locked cargo-fuzz"; exit 1; } >&2
	set -e; for crate in treadle-shm treadle-core; do \
	  for target in $$(ls crates/$$crate/fuzz/bodies | sed 's/[.]rs$$//'); do \
	    mkdir -p target/fuzz/found/$$target; \
	    (cd crates/$$crate && $(UNSTABLE) cargo fuzz run --target-dir $(abspath target/fuzz) $$target \
	      $(abspath target/fuzz)/found/$$target fuzz/corpus/$$target -- \
	      -max_total_time=$(FUZZ) -max_len=2048 -print_final_stats=1); \
	  done; \
	done

# The sanitizers' own maps do not fit into the address space that the skipped test leaves.
sanitize: ## AddressSanitizer over the tests of the engine, ThreadSanitizer over those in one process
	$(UNSTABLE) CARGO_TARGET_DIR=target/address RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS=detect_leaks=1 \
	  cargo test --package treadle-shm $(FAULTS) --locked --target $(HOST) -- --skip exhausted_address_space
	$(UNSTABLE) CARGO_TARGET_DIR=target/address RUSTFLAGS="-Zsanitizer=address" \
	  cargo test --package treadle-core --locked --target $(HOST) --lib pool
	$(UNSTABLE) CARGO_TARGET_DIR=target/thread TSAN_OPTIONS="suppressions=$(abspath tests/chaos/thread-sanitizer.txt)" \
	  RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
	  cargo test --package treadle-shm --locked --target $(HOST) --lib --test board --test arena --test garbage -- --skip exhausted_address_space

miri: ## the engine's plain code under Miri (needs a nightly toolchain with miri)
	@cargo +nightly miri --version >/dev/null 2>&1 || { \
	  echo "error: there is no nightly toolchain with miri"; \
	  echo "hint: rustup toolchain install nightly --component miri"; exit 1; } >&2
	CARGO_TARGET_DIR=target/miri MIRIFLAGS=-Zmiri-disable-isolation \
	  cargo +nightly miri test --package treadle-core --locked --lib pool::cell pool::tasks pool::wire
	CARGO_TARGET_DIR=target/miri cargo +nightly miri test --package treadle-shm --locked --lib

loom: ## the shared-memory protocols under every interleaving (loom; minutes)
	CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg loom" \
	  cargo test --package treadle-shm --test loom --release --locked

bench: $(BUILT) $(PEERS) ## treadle against its peers in one run; BENCH='--quick --only tiny,map'
	@$(BIN)/python -m benches.whole $(BENCH)

flatness: $(BUILT) ## cost per task for up to 1,000,000 queued tasks and 64 workers; FLATNESS='--quick --only queued'
	@$(BIN)/python -m benches.flatness $(FLATNESS)

accuracy: $(BUILT) $(CORPUS) ## what following compare's advice costs, over a corpus; ACCURACY='--only hashing --quick' (an hour)
	@$(BIN)/python -m benches.accuracy $(ACCURACY)

lint: $(INSTALLED) ## formats and lints, changing nothing
	cargo fmt --all --check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cargo clippy --workspace --all-targets $(FAULTS) --locked --quiet -- -D warnings

format: $(INSTALLED) ## format the sources, and fix what the lint can fix
	cargo fmt --all
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

wheel: $(INSTALLED) ## a wheel for this interpreter, in dist/
	$(BIN)/maturin build --release --interpreter $(BIN)/python --out dist

audit: ## licences and known faults of the Rust dependencies (needs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || { \
	  echo "error: cargo-deny is not installed"; \
	  echo "hint: cargo install --locked cargo-deny"; exit 1; } >&2
	cargo deny --locked check

lock: ## resolve the Python requirements anew (requirements/*.in to *.txt)
	bash .ci/lock $(PYTHON)

clean: ## remove everything that was built (not the demo's photographs)
	rm -rf .venv .venv-* target dist .pytest_cache .mypy_cache .ruff_cache
	find python tests benches demo examples \( -name '__pycache__' -o -name '*.so' \) -prune -exec rm -rf {} +

# The environment is made anew when the interpreter behind PYTHON is another one.
$(VENV)/.interpreter: FORCE
	@command -v cargo >/dev/null || { \
	  echo "error: cargo is not on the PATH"; \
	  echo "hint: install Rust from https://rustup.rs, then run make again" ; exit 1; } >&2
	@found=$$($(PYTHON) -c 'import sys; print(sys.base_prefix, sys.version); sys.exit(sys.version_info < (3, 10))') || { \
	  echo "error: $(PYTHON) is not Python 3.10 or later (found: $${found:-none})"; \
	  echo "hint: name one that is: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2; \
	if [ "$$(cat $@ 2>/dev/null)" != "$$found" ]; then \
	  rm -rf $(VENV) && mkdir -p $(VENV) && echo "$$found" > $@; \
	fi

$(INSTALLED): $(VENV)/.interpreter requirements/develop.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/develop.txt
	@touch $@

$(PEERS): $(INSTALLED) requirements/peers.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/peers.txt
	@touch $@

$(CORPUS): $(INSTALLED) requirements/corpus.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/corpus.txt
	@touch $@

$(INTEGRATIONS): $(INSTALLED) requirements/integrations.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/integrations.txt
	@touch $@

$(VENV)/.example-%: $(BUILT) examples/%/requirements.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r examples/$*/requirements.txt
	@touch $@

$(BUILT): $(INSTALLED) $(RUST_SOURCES)
	env -u CONDA_PREFIX VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	@touch $@

$(FAULTY)/.built: $(INSTALLED) $(RUST_SOURCES) $(shell find python -name '*.py')
	rm -rf $(FAULTY)/wheel $(FAULTY)/python
	CARGO_TARGET_DIR=$(FAULTY) $(BIN)/maturin build --release --quiet $(FAULTS) \
	  --interpreter $(BIN)/python --out $(FAULTY)/wheel
	$(BIN)/python -m zipfile -e $(FAULTY)/wheel/*.whl $(FAULTY)/python
	@touch $@

# The stamp tells nothing when the built module itself is gone.
ifeq ($(wildcard python/treadle/_core*.so),)
$(BUILT): FORCE
endif
