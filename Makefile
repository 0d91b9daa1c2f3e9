PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPAT_PYTHON ?= $(PYTHON)
SECONDS ?= 60
SEED ?=

.PHONY: help test unit soak faults chaos compat bench demo serve pyz image clean

help:            ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/'

# Where PYTHONDONTWRITEBYTECODE is set, each Hermes and each worker would compile its modules anew.
test: $(VENV)/ready  ## everything, with coverage (makes its own virtual environment)
	rm -f .coverage .coverage.*
	$(BIN)/python -m compileall -q hermes tests
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

unit: $(VENV)/ready  ## what needs no process: seconds
	$(BIN)/python -m pytest tests/unit -q

soak: $(VENV)/ready  ## what is too large for every day: uploads of 2 GiB
	HERMES_TEST_LARGE=1 $(BIN)/python -m pytest tests/process/test_uploads.py -k larger_than_memory

faults: $(VENV)/ready  ## bad input, greedy clients, a bad upstream and dying workers for longer than in `test`: a quarter of an hour
	HERMES_TEST_FAULTS=1 $(BIN)/python -m pytest tests/unit/test_http1_fuzz.py tests/process/test_fuzz.py tests/process/test_greedy.py tests/process/test_doors.py \
		tests/process/test_upstream.py tests/process/test_endurance.py tests/process/test_supervision.py -q -o faulthandler_timeout=900

chaos:           ## everything goes wrong at once, at random: SECONDS of it, and SEED=n for the same steps again
	$(PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED)) --seconds $(SECONDS)

# Installs nothing. pip: pytest ollama openai anthropic langchain-ollama llm llm-ollama, and apart from them pytest litellm mcp (COMPAT_PYTHON: both pythons);
# npm: ollama openai ai ollama-ai-provider-v2 @ai-sdk/openai-compatible @anthropic-ai/sdk (HERMES_COMPAT_NODE: the folder).
compat:          ## the clients' own libraries through Hermes, where they are installed
	for python in $(COMPAT_PYTHON); do $$python -m pytest tests/compat -W ignore || exit; done

$(VENV)/ready:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pytest coverage
	touch $@

bench:           ## what Hermes costs, beside the upstream alone and nginx; about four minutes on a quiet machine
	$(PYTHON) -m compileall -q hermes tests
	$(PYTHON) -m tests.bench

demo:            ## Hermes in front of a stand-in Ollama, on free ports
	$(PYTHON) -m hermes demo

serve:           ## Hermes with ./hermes.toml
	$(PYTHON) -m hermes serve

pyz:             ## hermes.pyz: everything in one file, the same bytes each time
	$(PYTHON) -m hermes.archive hermes.pyz

image:           ## the container image, without pip
	docker build -t hermes .

clean:           ## what the other targets made
	rm -rf $(VENV) hermes.pyz .coverage .coverage.* .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
