# Two commands: `make demo` shows everything once, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test model lint clean

demo: $(VENV)/installed
	$(BIN)/bcm-edge demo -o demo --force

test: $(VENV)/installed lint
	$(BIN)/python -m pytest
	$(BIN)/bcm-edge export -o build/digits.bundle --precision all --data digits --force
	tests/on_python.sh 3.10 build/digits.bundle
	tests/on_python.sh 3.12 build/digits.bundle

model: $(VENV)/installed
	$(BIN)/python -m bcm_edge.evaluation.shipped

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[export,quantize,openvino,debug,train,test,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* demo build *.egg-info
