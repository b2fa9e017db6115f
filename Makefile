# `make help` lists everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A made-up SDKAppID, to try things out.
DEMO_APP_ID := 1400000000
export PROJECTOR_SDK_APP_ID ?= $(DEMO_APP_ID)
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help run demo test test-system quick check bench fuzz mutants soak freeze lock audit format clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev: $(VENV)/run scripts/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement scripts/dev.lock
	@touch $@

$(VENV)/bench $(VENV)/fuzz $(VENV)/mutants $(VENV)/supply: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group $(@F)
	@touch $@

run: $(VENV)/run  ## Install into .venv and serve on http://127.0.0.1:8000; PORT=… for another port
	@scripts/hello $(PORT)
	@exec $(BIN)/projector serve --port $(PORT)

demo: $(VENV)/run  ## Serve, send simulated traffic, print a roster, and stop; KEEP=1 to go on serving
	@exec $(BIN)/python scripts/demo.py $(if $(KEEP),--keep)

test: $(VENV)/dev  ## Install and run every test that needs nothing else
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not system'

test-system: $(VENV)/dev  ## As root on Debian: install pgbouncer, proxies, network tools and a C compiler, and run the tests that need them
	@scripts/install-debian caddy gcc haproxy iproute2 iptables libc6-dev nginx-light nodejs pgbouncer
	$(BIN)/python -m pytest -m system -n 2 --dist loadfile

quick: $(VENV)/dev  ## Run the quick tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not system'

check: $(VENV)/dev  ## Run every check and every test, as CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

bench: $(VENV)/bench  ## Run the benchmarks (15 minutes) and draw docs/bench
	$(BIN)/python -m scripts.bench.receiving --seconds 3 --results docs/bench/receiving.json
	$(BIN)/python -m scripts.bench.visible
	$(BIN)/python -m scripts.bench.asking --rounds 2 --seconds 2 --results docs/bench/asking.json
	$(BIN)/python -m scripts.bench.projecting
	$(BIN)/python -m scripts.bench.growing
	$(BIN)/python -m scripts.bench.rebuild --events 10000,100000,1000000 --rounds 2 --results docs/bench/rebuild.json
	$(BIN)/python -m scripts.bench.charts

fuzz: $(VENV)/fuzz  ## Fuzz translation, redaction and the receiver with seven million inputs (an hour)
	$(BIN)/python -m scripts.fuzz

mutants: $(VENV)/mutants  ## Change projector/domain in every small way; report changes that no test notices (an hour)
	$(BIN)/python -m scripts.mutants

soak: $(VENV)/bench  ## Run mixed traffic for 20 minutes; draw memory, lag and rate into docs/bench
	$(BIN)/python -m scripts.soak --minutes 20 --results docs/bench

freeze: $(VENV)/dev  ## Write the stores of this version as test data for all later versions; once for each release
	$(BIN)/python -m scripts.freeze

lock: $(VENV)/supply  ## Update the locked development packages, within the ranges of pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock' --group dev pyproject.toml --output-file scripts/dev.lock

audit: $(VENV)/supply  ## Check the locked packages for known vulnerabilities
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement scripts/dev.lock

format: $(VENV)/dev  ## Format the code, and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove everything installed and built; keep databases
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
