# The targets say what they do: `make help`. Everything runs from .venv, which the first target that needs it sets up.
# Nothing is installed outside this folder, and the project itself is not installed at all: its programs run from here.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check policy-test drills simulate up bench kafka kafka-stop

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with the pinned dependencies (the other targets do it on their own)

$(READY): requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "Enrollstream needs Python 3.11 or newer, and found no python3 on PATH." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Enrollstream needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one and name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot create virtual environments; on Debian and Ubuntu: apt-get install python3.11-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(READY) ## Run the whole system on this machine and play a registration morning (KEEP=1 leaves it running)
	@$(BIN)/python -m services.sandbox demo $(if $(KEEP),--keep) $(DEMO)

test: $(READY) ## Run all tests; those for a real Kafka run when KAFKA_BOOTSTRAP_SERVERS is set (see `make kafka`)
	$(BIN)/pytest $(TESTS)

check: $(READY) ## Format, lint, types, layers and the event contract; what CI checks before the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas check

policy-test: $(READY) ## Decide worked examples under a policy: POLICY=file.yaml, EXAMPLES=file.csv (see docs/policy.md)
	@$(BIN)/python -m services.consumer policy test $(POLICY) $(if $(EXAMPLES),--examples $(EXAMPLES))

drills: $(READY) ## Break a real system on purpose: all drills, or DRILLS="K1 C7"; SMOKE=1, SEED=n, RECORD=1 (see docs/reliability.md)
	@$(BIN)/python -m tests.drills $(DRILLS) $(if $(SMOKE),--smoke) $(if $(SEED),--seed $(SEED)) $(if $(RECORD),--record)

simulate: $(READY) ## Run the whole system under a virtual clock: SEEDS=n, SEED=n (SHRINK=1), PLANTED=1 (see docs/simulation.md)
	@$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(SHRINK),--shrink) $(if $(PLANTED),--planted) $(if $(PLANT),--plant "$(PLANT)") $(if $(HYPOTHESIS),--hypothesis $(HYPOTHESIS))

up: $(READY) ## Run publisher and consumer against your services (KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL, CANVAS_URL, CANVAS_TOKEN_FILE)
	@$(BIN)/python -m services.sandbox up

bench: $(READY) ## Measure against baselines (BENCH="overhead --quick"); needs a quiet machine and about 40 minutes, a real Kafka included
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	KAFKA_BOOTSTRAP_SERVERS="$${KAFKA_BOOTSTRAP_SERVERS:-$$(deploy/kafka/kafka.sh start)}" $(BIN)/python -m bench $(BENCH)

kafka: ## Start a real Apache Kafka from Maven jars (needs Java 17 and mvn); prints its address
	@deploy/kafka/kafka.sh start

kafka-stop: ## Stop it and forget its data
	@deploy/kafka/kafka.sh stop
