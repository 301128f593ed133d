# make run: from nothing to numbers. make test: the test suite. make docs: the site, in build/docs.
# make check: all that CI runs.
# The newest of these that starts and can make an environment; another by make PYTHON=...
VERSIONS := 3.14 3.13 3.12 3.11
NEWEST := $(firstword $(foreach v,$(VERSIONS),$(shell python$(v) -c 'import ssl, venv; \
	print("python$(v)")' 2>/dev/null)) python3)
PYTHON ?= $(NEWEST)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
# Without bytecode every process of the tests compiles all modules that it imports, for 3 s or more.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test newest test-newest test-long test-faults check lint docs install bench clean

run: install
	$(BIN)/python -m kdjax train --config=experiments/digits_compare.py --workdir=runs/digits

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The slow tests, which `make test` excludes; CI runs both.
test-long: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

# The slow tests that kill processes: at twenty random moments, and either of two processes.
test-faults: install
	$(BIN)/python -m pytest -n 2 -m long tests/faults

check: lint docs test test-long

# What a newer jax could change: golden values, convolutions, one run with its resume.
SMOKE := tests/losses/test_golden.py tests/losses/test_table_golden.py tests/losses/test_divergence.py
SMOKE += tests/models/layers/test_conv.py tests/train/test_resume.py
newest:
	@echo $(NEWEST)

test-newest:
	$(MAKE) VENV=.venv-newest install
	.venv-newest/bin/python -m pytest -n 2 --dist loadfile $(SMOKE)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Warnings are errors. Two pages are notebooks, which the build executes: a minute or two.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

install: $(READY)

# uv is ten times faster than pip and uses the same constraints; pip is the fallback
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "kdjax needs Python 3.11 or newer: make PYTHON=python3.12 run"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	if [ -x $(BIN)/uv ]; then \
		$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt -e '.[dev]'; \
	else \
		$(BIN)/python -m pip install --constraint constraints.txt -e '.[dev]'; \
	fi
	touch $@

# Ratios of interleaved medians, also against PyTorch; half an hour on an idle machine, see
# benchmarks/RESULTS.md. BENCH_DATA=images.npz (32 x 32 photographs) adds mutual learning;
# BENCH_FLAGS=--repeats=1 checks in minutes that all of them run.
BENCHES := conv step dispatch sweep allocator start losses sinkhorn transformer dependency bounds detection
BENCHES += accelerator
bench: install
	if [ -x $(BIN)/uv ]; then \
		$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt -e '.[dev,bench]'; \
	else \
		$(BIN)/python -m pip install --constraint constraints.txt -e '.[dev,bench]'; \
	fi
	@for name in $(BENCHES); do \
		echo "== $$name"; $(BIN)/python benchmarks/$$name.py $(BENCH_FLAGS) || exit 1; \
	done
	$(BIN)/python benchmarks/shares.py experiments/digits_bdkd.py
	$(if $(BENCH_DATA),$(BIN)/python benchmarks/peer.py --data=$(BENCH_DATA) --epochs=10)

clean:
	rm -rf $(VENV) .cache runs build dist docs/_generated
