# Every target creates what it needs in .venv, and changes nothing outside of the checkout.
PYTHON ?= python3
VENV := .venv
FUZZ_SECONDS ?= 600
BIN := $(VENV)/bin
# Each process runs whole files, since the tests of a file share their servers.
PYTEST := $(BIN)/python -m pytest -q --numprocesses auto --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The generator plugins and buf are those of the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo serve docs test test-all test-pipeline test-readme torch-cpu test-lowest test-examples lint format generate check-generated lock docker docker-report dist test-sdist bench attack fuzz audit sbom clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

demo: $(VENV)/.server ## Set up, and detect the keywords in the bundled recording in real time
	@$(BIN)/earmark demo

serve: $(VENV)/.server ## Set up, and start a server on 127.0.0.1:50051
	@$(BIN)/earmark-server

# Tests start Python hundreds of times, which is slow where it may not keep its bytecode.
test test-all: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.dev ## Run all tests but the slow ones, in parallel
	$(PYTEST) -m 'not slow'

test-all: $(VENV)/.dev ## Run all tests, in parallel
	$(PYTEST)

test-pipeline: $(VENV)/.dev ## Run the training pipeline (DVC) on a few synthetic words: several minutes
	@$(PIP) --editable '.[pipeline]'
	scripts/test_pipeline.sh

test-readme: $(VENV)/.dev ## Run every command of the documents, including training and Docker images: many minutes
	README_ALL=1 $(BIN)/python -m pytest -q --timeout 3600 tests/integration/test_readme.py \
	  tests/integration/test_readme_training.py tests/integration/test_readme_docker.py

torch-cpu: $(VENV)/.server ## Install the CPU build of torch, which is much smaller (run it before test or lint)
	@$(PIP) uv
	@$(BIN)/uv pip install --python $(BIN)/python --torch-backend=cpu --requirement requirements/torch.txt

test-lowest: $(VENV)/.dev ## Test client and server with the lowest versions of packages that pyproject.toml allows
	scripts/test_lowest.sh

test-examples: $(VENV)/.dev ## Install what the examples need, and test them
	$(PIP) 'ray[data]>=2.40' 'moto[server]>=5'
	$(BIN)/python -m pytest -q tests/examples

lint: $(VENV)/.dev check-generated ## Check style, types, imports, protos, scripts, images, workflows and the generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/buf lint
	$(BIN)/shellcheck scripts/*.sh .ci/run
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml compose.dev.yaml

docs: $(VENV)/.dev ## Write the documentation of the Python API to dist/api, from its docstrings
	$(BIN)/python -W error scripts/build_api_docs.py dist/api

format: $(VENV)/.dev ## Format the sources
	$(BIN)/ruff check --fix --select I
	$(BIN)/ruff format
	$(BIN)/buf format -w

generate: $(VENV)/.dev ## Generate the Python code of protos/
	$(BIN)/buf generate

check-generated: $(VENV)/.dev
	@scripts/check_generated.sh

lock: $(VENV)/.dev ## Pin the images' packages in requirements/, with hashes (UPGRADE=--upgrade: the newest versions)
	@scripts/lock.sh $(UPGRADE)

docker: ## Build the images of server and client, test them, and remove them (DOCKER_BUILD_FLAGS: more options)
	@scripts/test_docker_build.sh

docker-report: ## Build the server's image with full output, and list its largest parts
	@scripts/report_docker.sh

dist: $(BIN)/python ## Build the source distribution and, from it, the wheel; test the wheel in an empty environment
	@rm -rf dist
	@$(PIP) build
	$(BIN)/python -m build --outdir dist
	PYTHON=$(PYTHON) scripts/smoke_test_wheel.sh dist/*.whl

test-sdist: ## Unpack the source distribution that `make dist` built, and run its tests as `make test` does
	PYTHON=$(PYTHON) scripts/test_sdist.sh dist/*.tar.gz

bench: $(VENV)/.bench ## Measure what real-time streams cost a server
	$(BIN)/python -m benchmarks.streams

audit: $(VENV)/.dev ## Look up known vulnerabilities of the installed packages (exit code 2: no answer)
	@$(BIN)/python scripts/audit.py

sbom: $(VENV)/.dev ## Write the server's bill of materials to dist/earmark-sbom.cdx.json
	@mkdir -p dist
	@scripts/make_sbom.sh dist/earmark-sbom.cdx.json

fuzz: $(VENV)/.dev ## Fuzz a server for ten minutes (FUZZ_SECONDS=600) while it processes a stream of speech
	PYTHONPATH=tests:tests/fuzz:. $(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

attack: $(VENV)/.bench ## Attack servers on this machine in many ways, while it serves streams of speech: about five minutes
	$(BIN)/python -m benchmarks.attack

clean: ## Remove everything that was built and installed
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/integration/node_client/node_modules

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Earmark needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Earmark's server and client into $(VENV) (once, about a minute)"
	@$(PIP) --editable '.[server]'
	@touch $@

$(VENV)/.bench: $(VENV)/.server
	@$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.dev: $(VENV)/.server
	@echo "Installing what development needs into $(VENV) (once; torch is large)"
	@$(PIP) --editable '.[dev]'
	@$(BIN)/python scripts/repair_torchaudio.py
	@touch $@
