# Two commands: `make demo` shows everything once, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow serve test-arm test-gpu model lint clean

demo: $(VENV)/installed
	$(BIN)/bcm-edge demo -o demo --force

test: $(VENV)/installed lint
	tests/tensorrt/fetch.sh $(BIN)/python .tensorrt
	tests/serving/fetch.sh $(BIN)/python .triton
	$(BIN)/python -m pytest
	$(BIN)/bcm-edge export -o build/digits.bundle --precision all --data digits --force
	tests/on_python.sh 3.10 build/digits.bundle
	tests/on_python.sh 3.12 build/digits.bundle

test-arm: $(VENV)/installed
	$(BIN)/bcm-edge export -o build/arm.bundle --force
	tests/arm/run.sh $(BIN)/python build/arm.bundle

# What takes minutes: a server under load for as long as it takes to trust it.
test-slow: $(VENV)/installed
	tests/serving/fetch.sh $(BIN)/python .triton
	BCM_EDGE_SOAK_SECONDS=60 $(BIN)/python -m pytest tests/serving/test_soak.py -s

# A real Triton on the shipped model, until Ctrl-C; client.py in build/models asks it for a picture.
serve: $(VENV)/installed
	$(BIN)/python tests/serving/server.py
	tests/serving/fetch.sh $(BIN)/python .triton
	$(BIN)/bcm-edge export -o build/digits.bundle --force
	$(BIN)/bcm-edge triton build/digits.bundle -o build/models --platform python --stream --force
	$(BIN)/python tests/serving/server.py build/models

# With a Python that has torch, and TensorRT, for the GPU of this machine; nothing is installed, this checkout included.
test-gpu:
	mkdir -p build/here && ln -sfn ../.. build/here/bcm_edge
	PYTHONPATH=build/here$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) -m pytest tests/gpu -rs

model: $(VENV)/installed
	$(BIN)/python -m bcm_edge.evaluation.shipped

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

$(VENV)/installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[export,quantize,openvino,debug,serve,scale,train,evaluate,test,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* .tensorrt .triton demo build *.egg-info
