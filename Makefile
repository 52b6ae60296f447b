# make demo: a toy model from scratch, in minutes.
# make talk: BackChat as it comes with the repository, at a prompt; nothing is trained.
# make benchmark: how fast every stage is on this machine; about ten minutes on two CPU cores, for the published shape.
# make test-export: builds llama.cpp and compares the text that it writes with ours, for the demo's models; a quarter of an hour.
# make gpu: tests, benchmark and ten minutes of training on this machine's GPU; with DATA=folder on the token shards in it.
# make test: lint, types and the tests, on two processes.   make test-long: what takes minutes.
# make faults: kills, full disks, damaged and hostile files by the thousand, and a table of how they ended; under half an hour.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo talk benchmark gpu test test-long faults test-export lint format clean

demo: .venv/installed
	$(BIN)/python demo_xcoax.py

talk: .venv/installed
	$(BIN)/python sample_xcoax_instruct.py small

benchmark: .venv/installed
	$(BIN)/python benchmark_xcoax.py

gpu: .venv/installed-dev
	$(BIN)/python gpu_xcoax.py $(if $(DATA),--data-dir $(DATA))

# One torch thread per process: more would wait for each other.
test: .venv/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal -m "not long and not faults"

# One process: the demo takes all cores.
test-long: .venv/installed-dev
	$(BIN)/pytest -m long

faults: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/faults --numprocesses 2 --dist worksteal -m faults

# llama-cpp-python comes as source: pip builds it with the machine's C++ compiler and CMake.
test-export: .venv/installed-dev
	$(BIN)/python -m pip install --quiet llama-cpp-python==0.3.36
	$(BIN)/pytest tests/exporting/test_llama_cpp.py
	$(BIN)/pytest tests/test_demo.py -k exported

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; '$(PYTHON)' is older. Run: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/pip: | .venv/bin/python  # a .venv made by uv has no pip
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip
	@echo "installing into .venv: a minute or two, longer if torch comes as its CUDA build of several GB"
	@touch $@

.venv/installed: requirements.txt | .venv/pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

# One step, not two: a second resolution could replace the torch of the first.
.venv/installed-dev: requirements.txt requirements-dev.txt | .venv/pip
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	touch .venv/installed $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis out/demo out/demo-instruct data/demo data/demo-instruct data/demo-world
