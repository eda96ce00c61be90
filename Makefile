# Every target works alone on a fresh clone. Another interpreter: make clean, then make test PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test docs format clean
.DELETE_ON_ERROR:
# demo and test install into the same environment: one pip at a time, whatever -j says.
.NOTPARALLEL:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.has-plot  ## train on handwritten digits, print the accuracy, draw the evidence
	$(RUN) examples/plot_digits.py

# Two processes, which must collect the tests in the same order, hence the hash seed. worksteal: each runs consecutive
# tests, so that a module's fixtures are built once. One thread each: more are no faster for networks this small, and
# while another program uses the cores, where each waits for the others at every layer, they take minutes for what takes
# seconds.
test: $(VENV)/.has-dev  ## lint, check format and imports, run all tests and doctests
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	PYTHONHASHSEED=0 MPLBACKEND=Agg OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal

docs: $(VENV)/.has-docs  ## run the examples and build the manual in docs/_build/html
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(RUN) -m sphinx -W --keep-going -n -b html docs docs/_build/html

format: $(VENV)/.has-dev  ## let ruff repair and format the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove the environment and everything built or cached
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	rm -rf $(addprefix docs/,_build api benchmarks gallery project sg_execution_times.rst)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, one stamp per extra: "dev" contains "plot", and demo alone need not wait for the test tools.
# --clear: an interrupted first try is started over, and takes the stamps with it.
$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found. Name a Python 3.11 or newer: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	"$(PYTHON) is Python %d.%d; skgcm needs 3.11 or newer. Name one: make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.has-plot $(VENV)/.has-dev $(VENV)/.has-docs: $(VENV)/.has-%: $(VENV)/.created pyproject.toml constraints.txt
	$(RUN) -m pip install --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"
	@touch $@
