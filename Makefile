PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PICTURES := 12.3.0

.PHONY: run test check lint format bench reliability fuzz docs screenshots monitoring image image-test k8s-test lock clean

run: $(VENV)/.installed  ## Install and start the app; PORT overrides 7860
	@exec $(BIN)/clip-app serve

test: $(VENV)/.developed  ## Install the dev tools and run the whole suite
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS)

check: lint  ## For each save: style, types, walls, and the tests that need no other process
	@$(BIN)/python -m pytest --quiet -m "not processes" $(PYTEST_ARGS)

lint: $(VENV)/.developed  ## Style, types and the walls between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.developed  ## Write the code in the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.developed .bench/infinity/.installed  ## Measure beside the peers, by turns; writes docs/performance.md
	@$(BIN)/python benchmarks/bench.py
	@$(BIN)/python benchmarks/decoding.py
	@$(BIN)/python benchmarks/precisions.py

reliability: $(VENV)/.developed  ## Load it, slow it down and let it live long, for a quarter of an hour; writes docs/reliability.md
	@$(BIN)/python benchmarks/reliability.py

FUZZ_SECONDS ?= 60

fuzz: $(VENV)/.developed  ## Bytes for the decoder, guided by its code, for FUZZ_SECONDS; installs atheris, which has wheels for few systems
	@$(BIN)/python -m pip install --quiet atheris
	@$(BIN)/python tests/fuzz_decoder.py $(FUZZ_SECONDS)

docs: $(VENV)/.developed  ## Write the tables that tests make into docs/
	@CLIP_TESTS_WRITE_DOCS=1 $(BIN)/python -m pytest tests/test_prefetch*.py tests/test_monitoring_docs.py tests/test_k8s.py tests/test_errors.py tests/test_models.py
	@$(BIN)/python docs/draw_architecture.py

screenshots: $(VENV)/.developed  ## Take the pictures of README and docs from the real page; needs chromium
	@$(BIN)/python docs/take_screenshots.py

monitoring:  ## Prometheus on loopback against the running app; PORT as for run, PROMETHEUS_PORT overrides 9090
	@command -v prometheus >/dev/null || { echo "prometheus is not installed; Debian has it under that name"; exit 1; }
	@mkdir -p build/monitoring
	@cp monitoring/recording.yml monitoring/alerts.yml build/monitoring/
	@sed "s/127.0.0.1:7860/127.0.0.1:$${PORT:-7860}/" monitoring/prometheus.yml >build/monitoring/prometheus.yml
	@exec prometheus --config.file=build/monitoring/prometheus.yml --storage.tsdb.path=build/monitoring/data \
		--web.listen-address=127.0.0.1:$${PROMETHEUS_PORT:-9090} --enable-feature=exemplar-storage

IMAGE ?= localhost/clip_app
TARGET ?= runtime
TAG ?= $(TARGET)
BUILDER ?= $(shell for name in buildah podman docker; do command -v $$name && break; done)

image:  ## Build the image with buildah, podman or docker; TARGET=with-model, IMAGE, TAG, BASE_IMAGE, TORCH_INDEX_URL, IMAGE_ARGS
	@test -n "$(BUILDER)" || { echo "none of buildah, podman and docker is installed"; exit 1; }
	BUILDAH_FORMAT=docker BUILDAH_LAYERS=true $(BUILDER) build --target $(TARGET) --tag $(IMAGE):$(TAG) \
		--build-arg VERSION=$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
		--build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) \
		$(if $(BASE_IMAGE),$(if $(filter docker,$(notdir $(BUILDER))),--build-context python=docker-image://,--from=)$(BASE_IMAGE)) \
		$(foreach name,TORCH_BACKEND TORCH_INDEX_URL MODEL,$(if $($(name)),--build-arg $(name)=$($(name)))) $(IMAGE_ARGS) .

image-test: $(VENV)/.developed  ## Build both targets and run them locked down; prints size, start and stop
	@CLIP_TESTS_IMAGE=1 $(BIN)/python -m pytest -s tests/test_image.py

k8s-test: $(VENV)/.developed build/checkov/.installed  ## Build every overlay and check it; a KUBECONFIG asks that cluster too
	@command -v kubectl >/dev/null || { echo "kubectl is not installed; .ci/kubectl DIR puts it into DIR"; exit 1; }
	@$(BIN)/python -m pytest tests/test_k8s.py tests/test_k8s_start.py $(PYTEST_ARGS)
	@test -n "$$KUBECONFIG" || echo "left out, for want of a KUBECONFIG: test_the_api_server_takes_it and" \
		"test_the_api_server_takes_settings_images_and_components_that_change"

build/pictures/.unpacked:  ## Pillow's test pictures, which come with its source: files as strange as files get
	@mkdir -p build/pictures
	@$(PYTHON) -m pip download --quiet --no-deps --no-binary pillow --dest build/pictures "pillow==$(PICTURES)"
	@tar -xzf build/pictures/pillow-$(PICTURES).tar.gz -C build/pictures --strip-components=2 \
		--wildcards "*/Tests/images"
	@touch $@

build/checkov/.installed:
	@mkdir -p build
	@$(PYTHON) -m venv build/checkov
	@build/checkov/bin/pip install --quiet 'checkov>=3.3,<4'
	@touch $@

LOCKED := --quiet --upgrade --generate-hashes --no-header --python-version 3.11 --python-platform linux

# What the image has besides the dependencies. Not mcp: with what it brings (16 of 25 MB are cryptography, for tokens that
# nobody uses here) it is more than a face is worth that most deployments do not show. EXTRAS="heic mcp" has it.
EXTRAS ?= heic

lock: $(VENV)/.developed  ## Pin what the image installs, with hashes; torch's CPU build is another file than the registry's; EXTRAS
	@$(BIN)/uv pip compile $(LOCKED) --output-file requirements/image.txt pyproject.toml $(EXTRAS:%=--extra %) \
		--no-emit-package torch --excludes requirements/cuda.txt >/dev/null
	@printf "hatchling\nuv\n" | $(BIN)/uv pip compile $(LOCKED) --output-file requirements/build.txt --no-annotate - >/dev/null

clean:
	rm -rf $(VENV) .bench build dist *.egg-info

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --editable '.[heic,mcp]'
	@touch $@

$(VENV)/.developed: pyproject.toml | $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --editable '.[heic,mcp]' --group dev
	@touch $@ $(VENV)/.installed

# A peer with dependencies of its own; where it cannot be installed its rows are left out.
.bench/infinity/.installed: benchmarks/infinity-requirements.txt
	$(PYTHON) -m venv .bench/infinity
	-.bench/infinity/bin/python -m pip install --quiet --requirement $<
	@touch $@
