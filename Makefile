# Everything a developer or a new user runs. The environment is the target .venv; all others depend on it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint bench clean

.venv: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,oracles]'
	touch .venv

demo: .venv  ## train and compare four models on the handwritten digits that scikit-learn bundles
	$(BIN)/genrep compare --data digits --models vae,real_nvp,pixel_cnn,ddpm --seconds 60 --out demo

lint: .venv
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

test: lint  ## lint, types, layers, unit, contract and doctests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m 'not slow'

test-slow: .venv  ## the long ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow

BENCHMARKS := all
bench: .venv  ## side-by-side timings against other libraries; on an otherwise idle machine, about an hour
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torch-fidelity==0.4.0
	$(BIN)/python -m benchmarks --record $(BENCHMARKS)

clean:
	rm -rf .venv demo build dist
