PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-photos test lint

# Trains on scikit-learn's handwritten digits and writes samples: about 5 minutes on 2 cores.
demo: .venv
	$(BIN)/python train.py --data_set digits

.venv: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch .venv

test: .venv
	$(BIN)/python -m pytest

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
