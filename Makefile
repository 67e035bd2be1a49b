# Two commands on a fresh machine with python3 (3.11 to 3.13) and internet to PyPI:
#   make demo    trains, evaluates and draws the denoising autoencoder on synthetic brains, CPU, minutes
#   make test    runs the tests (make test-fast: those of a few seconds each)
# and for those who change the code:
#   make lint    ruff and mypy
#   make wheel   dist/medae_jax-*.whl
#   make docs    site/index.html, out of docs/
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
WORKDIR ?= runs/demo
PYTEST = $(RUN) -m pytest tests -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast lint wheel docs clean

demo: $(VENV)/.run
	$(RUN) launch.py --config=configs/dae_brats.py:demo --workdir=$(WORKDIR)
	@echo "Picture: $(WORKDIR)/evaluation/test_panel.png   Report: $(WORKDIR)/report.html"

test: $(VENV)/.dev
	$(PYTEST) --durations=15

test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow"

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m mypy

wheel: $(VENV)/.dev
	$(RUN) -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

docs: $(VENV)/.dev
	$(RUN) -m mkdocs build --quiet
	@echo "site/index.html"

# The stamp appears only after a complete installation, so that a broken one is repeated.
$(VENV)/.run: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed, {v[0]}.{v[1]} found: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(RUN) -m pip install --quiet -r requirements-dev.txt
# It asks for an older orbax-checkpoint, which it never imports: what it does import is named there.
	$(RUN) -m pip install --quiet --no-deps 'jax2onnx>=0.17,<0.18'
	@touch $@

clean:
	rm -rf $(VENV) runs build dist site medae_jax.egg-info
