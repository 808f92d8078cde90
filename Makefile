# What a person types. Everything happens in .venv; nothing outside the checkout is touched.
PYTHON ?= python3
VENV := .venv
FUZZ_SECONDS ?= 600
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The generator plugins and buf are those of the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo serve test test-pipeline test-readme torch-cpu test-lowest test-examples lint format generate check-generated lock docker docker-report wheel bench fuzz audit sbom clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

demo: $(VENV)/.server ## Set up, and mark the keywords in the bundled recording at its own pace
	@$(BIN)/earmark demo

serve: $(VENV)/.server ## Set up, and serve on 127.0.0.1:50051
	@$(BIN)/earmark-server

test: $(VENV)/.dev ## Set up what is still missing, and run the tests
	$(BIN)/python -m pytest -q

test-pipeline: $(VENV)/.dev ## Run the training pipeline (dvc) on a few made-up words: minutes
	@$(PIP) --editable '.[pipeline]'
	scripts/test_pipeline.sh

test-readme: $(VENV)/.dev ## Run what README.md shows, also its trainings and, where Docker answers, its images: many minutes
	README_ALL=1 $(BIN)/python -m pytest -q tests/integration/test_readme.py tests/integration/test_readme_training.py \
	  tests/integration/test_readme_docker.py

torch-cpu: $(VENV)/.server ## Install torch for the CPU, where the package index has it for CUDA (before test or lint)
	@$(PIP) uv
	@$(BIN)/uv pip install --python $(BIN)/python --torch-backend=cpu --requirement requirements/torch.txt

test-lowest: $(VENV)/.dev ## Test client and server with the lowest versions that are allowed
	scripts/test_lowest.sh

test-examples: $(VENV)/.dev ## Test the examples, with what they need besides
	$(PIP) 'ray[data]>=2.40'
	$(BIN)/python -m pytest -q tests/examples

lint: $(VENV)/.dev check-generated ## Check style, types, protos, scripts, images and workflows, and that the generated code is current
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/shellcheck scripts/*.sh .ci/run
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml compose.dev.yaml

format: $(VENV)/.dev ## Put the sources into the project's format
	$(BIN)/ruff check --fix --select I
	$(BIN)/ruff format
	$(BIN)/buf format -w

generate: $(VENV)/.dev ## Make the Python code from protos/ (the only way it is made)
	$(BIN)/buf generate

check-generated: $(VENV)/.dev
	@scripts/check_generated.sh

lock: $(VENV)/.dev ## Write requirements/ anew, the images' exact packages with their hashes (UPGRADE=--upgrade: newest)
	@scripts/lock.sh $(UPGRADE)

docker: ## Build the server's and the client's image, try them, and clean up (DOCKER_BUILD_FLAGS are passed on)
	@scripts/test_docker_build.sh

docker-report: ## Build the server's image with all output, and tell what in it is heavy
	@scripts/report_docker.sh

wheel: $(VENV)/.dev ## Build the wheel, and try it in an empty environment
	@rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist
	PYTHON=$(PYTHON) scripts/smoke_test_wheel.sh dist/*.whl

bench: $(VENV)/.bench ## Load a server with real-time streams and print what they cost
	$(BIN)/python -m benchmarks.streams

audit: $(VENV)/.dev ## Ask whether anything installed is known to be vulnerable (2: it could not be asked)
	@$(BIN)/python scripts/audit.py

sbom: $(VENV)/.dev ## Write what the server is made of to dist/earmark-sbom.cdx.json
	@mkdir -p dist
	@scripts/make_sbom.sh dist/earmark-sbom.cdx.json

fuzz: $(VENV)/.dev ## Throw broken input at a server for ten minutes (FUZZ_SECONDS=600), beside a stream of speech
	PYTHONPATH=tests:tests/fuzz:. $(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

clean: ## Remove what was built and installed
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
