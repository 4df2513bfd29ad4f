# Two commands do all the set-up: `make demo` and `make test`. Both make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint benchmark docs clean

demo: .venv/installed  ## Which attention on your machine? Trains four and compares them; OUT=folder to say where.
	$(BIN)/saccade compare $(if $(OUT),--out $(OUT))

test: .venv/installed  ## The whole suite: code, layers, style, types.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

lint: .venv/installed  ## Style and types alone, with repairs.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/pyright

benchmark: .venv/installed  ## Ratios to dense attention in one run.
	$(BIN)/python benchmarks/attention.py

docs: .venv/installed  ## The page of each mechanism, from its docstring, claims, costs and a picture; some two minutes.
	$(BIN)/python -m saccade.bench.pages docs/mechanisms

clean:  ## Remove the environment; runs/ stays.
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python must be 3.11 or newer, got " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,tensorboard,plots,flow,onnx,hf,dev]'
	@touch $@
