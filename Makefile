# `make demo` shows everything once, `make check` is the fast loop, `make test` runs everything on the processor but test-arm and test-slow.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install $(if $(CI),--quiet) --constraint constraints.txt
BUNDLE := $(CURDIR)/build/digits.bundle

# The steps of `make test`. Each runs even if another fails; the last line names those that failed.
STEPS := suite lint docs bundle rehearse processors pythons
TOGETHER := --no-print-directory --keep-going --jobs=2 --output-sync=target

.PHONY: demo check test $(STEPS) dist quick test-slow serve test-arm test-gpu gpu-report emoji mnist model bundles clean

demo: $(VENV)/ready
	@echo 'make demo: restyle, generate, invert and edit emoji; half a minute'
	$(BIN)/bcm-edge demo -o demo --force

# The fast loop: lint, types, and the tests that are not marked slow.
check: $(VENV)/installed
	@$(MAKE) $(TOGETHER) lint quick

quick: $(VENV)/installed
	$(BIN)/python -m pytest -q -m "not slow"

# Two steps at a time: the suite, and beside it the others one after the other.
test: $(VENV)/installed
	@rm -rf build/passed && mkdir -p build/passed
	@echo "make test: two steps at a time of $(STEPS); each prints its output when it ends"
	-@$(MAKE) $(TOGETHER) $(addprefix passed-,$(STEPS))
	@failed=; for step in $(STEPS); do [ -e build/passed/$$step ] || failed="$$failed $$step"; done; \
	if [ -n "$$failed" ]; then echo "make test: these steps failed:$$failed"; exit 1; fi; \
	echo "make test: every step passed: $(STEPS)"

passed-%: %
	@touch build/passed/$*

passed-pythons passed-rehearse: passed-bundle
passed-rehearse: export BCM_EDGE_TEST_BUNDLE = $(BUNDLE)

lint: $(VENV)/installed build/here/bcm_edge
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml

# The documentation site, in build/site. A warning is an error, such as a link to a page or heading that does not exist.
docs: $(VENV)/installed build/here/bcm_edge
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the documentation is in build/site/index.html"

# The shipped model in all precisions, for the steps that play it elsewhere.
bundle: $(VENV)/installed
	$(BIN)/bcm-edge export -o $(BUNDLE) --precision all --data digits --force

suite: $(VENV)/installed
	tests/tensorrt/fetch.sh $(BIN)/python .tensorrt
	tests/engines/fetch_onnxruntime_gpu.sh $(BIN)/python .onnxruntime-gpu
	tests/serving/fetch.sh $(BIN)/python .triton
	tests/examples/fetch.sh .clients
	tests/ui/fetch.sh .axe
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

# The runtime on other Pythons, with the lowest versions that pyproject.toml allows and with the newest, and the wheel.
pythons: dist
	tests/on_python.sh 3.10 lowest $(BUNDLE)
	tests/on_python.sh 3.12 newest $(BUNDLE)
	tests/wheel_on_python.sh 3.13 build/dist
	tests/wheel_on_python.sh 3.14 build/dist

# The source archive, and the wheel that is built from it.
dist: $(VENV)/installed
	rm -rf build/dist
	$(BIN)/python -m build --no-isolation --outdir build/dist > build/dist.log || { cat build/dist.log; false; }

# The numerical tests with the instruction sets of older processors, and where two passes of a network differ by rounding.
processors: $(VENV)/installed
	ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -q -m numerical
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -q -m numerical --rounding

# make test-gpu and the GPU benchmark on the processor, over stand-ins for the hardware.
rehearse: $(VENV)/installed
	$(BIN)/python tests/rehearse.py

# On an emulated Jetson processor. It installs qemu-user-static and debootstrap with apt-get where they are missing.
test-arm: $(VENV)/installed
	$(BIN)/bcm-edge export -o build/arm.bundle --force
	tests/arm/run.sh $(BIN)/python build/arm.bundle

# What takes minutes: a server under load for as long as it takes to trust it.
test-slow: $(VENV)/installed
	tests/serving/fetch.sh $(BIN)/python .triton
	BCM_EDGE_SOAK_SECONDS=60 $(BIN)/python -m pytest tests/serving/test_soak.py -s

# With a Python that has torch, and TensorRT, for the GPU of this machine; nothing is installed, this checkout included.
test-gpu: build/here/bcm_edge
	PYTHONPATH=build/here$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) -m pytest tests/gpu -rs

# The same, and then benchmarks/gpu.py; the results are in the folder OUT. To end within 14 minutes:
# make gpu-report ARGUMENTS='--budget 840'
gpu-report:
	$(PYTHON) benchmarks/gpu_check.py -o $(or $(OUT),build/gpu-report) $(ARGUMENTS)

# A real Triton on the shipped model, until Ctrl-C; client.py in build/models asks it for a picture.
serve: $(VENV)/installed
	$(BIN)/python tests/serving/server.py
	tests/serving/fetch.sh $(BIN)/python .triton
	$(BIN)/bcm-edge export -o build/served.bundle --force
	$(BIN)/bcm-edge triton build/served.bundle -o build/models --platform python --stream --force
	$(BIN)/python tests/serving/server.py build/models

# The emoji model in the package, its report and its page, from trained weights and the drawings:
# make emoji CHECKPOINT=emoji.safetensors DATA=emoji64.npz [BASELINE=denoiser.safetensors] (docs/emoji.md)
emoji: $(VENV)/installed
	PATH=$(CURDIR)/$(BIN):$$PATH benchmarks/emoji.sh "$(CHECKPOINT)" "$(DATA)" $(BASELINE)

# The same for the MNIST model, from trained weights and the two parts of MNIST (docs/mnist.md):
# make mnist CHECKPOINT=mnist.safetensors DATA=mnist_train.npz TEST=mnist_test.npz [BASELINE=denoiser.safetensors]
mnist: $(VENV)/installed
	PATH=$(CURDIR)/$(BIN):$$PATH benchmarks/mnist.sh "$(CHECKPOINT)" "$(DATA)" "$(TEST)" $(BASELINE)

model: $(VENV)/installed
	$(BIN)/python -m bcm_edge.evaluation.shipped

# The bundles in the package, from the weights of the shipped models. tests/export/test_shipped_bundles.py compares them.
bundles: $(VENV)/installed
	$(BIN)/python -m bcm_edge.export.shipped

# The package by its name, without installing it.
build/here/bcm_edge:
	mkdir -p build/here
	ln -sfn ../.. $@

# What `make demo` needs. pip shows what it downloads, except in CI.
$(VENV)/ready: pyproject.toml constraints.txt Makefile
	@echo '$(VENV): installing the packages of the demo: numpy, Pillow, ONNX Runtime'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[run]'
	@touch $@

$(VENV)/installed: $(VENV)/ready
	@echo '$(VENV): installing the packages of all extras, for development'
	$(INSTALL) -e '.[all,test,dev,docs]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-* .tensorrt .onnxruntime-gpu .triton .clients .axe demo build *.egg-info
