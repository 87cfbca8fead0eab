# `make demo` and `make test` are the whole set-up: each makes .venv when it is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-real check bench clean

demo: .venv/.package
	$(BIN)/matrix demo --out out/demo

# One thread a test, so two processes for two cores; a file's tests stay together, as its fixtures do.
test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Optional packages and Chromium; the last result is in docs/skips.md.
test-real: .venv/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,quantize,tracking]"
	$(BIN)/python -m pytest -m real

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

bench: .venv/.dev
	mkdir -p out/bench
	$(BIN)/python benchmarks/world.py --out out/bench/world.json
	$(BIN)/python benchmarks/readout.py --grids 5x16x16 13x16x20 21x16x20 --heads 8 --limit-gb 3 --out out/bench/readout.json
	$(BIN)/python benchmarks/train_step.py --out out/bench/train_step.json
	$(BIN)/python benchmarks/plan.py --out out/bench/plan.json
	$(BIN)/python benchmarks/convert.py --out out/bench/convert.json

clean:
	rm -rf .venv out build dist

# One pip call each, so that the exact versions of constraints.txt hold for everything.
.venv/.package: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.dev: .venv/.package
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
