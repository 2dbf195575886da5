# make demo   set everything up and run the whole job on a small bucket of videos
# make test   pass the tests
# make help   the rest

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?=
OUTPUT ?= runs/demo
PORT   ?= 5000
# An index with CPU builds of torch saves gigabytes where there is no GPU.
TORCH_INDEX ?=

.PHONY: help demo test bench bench-data bench-train bench-batch kill-batch kill-train lint format ui lock clean

help:
	@echo "make demo [DATA=folder]   train, evaluate, register and complete videos, all on this machine"
	@echo "make test                 run the tests"
	@echo "make ui [PORT=5000]       the MLflow UI over the demo's runs"
	@echo "make bench                GFLOPs, seconds and memory per completed frame"
	@echo "make bench-data           the training stream against a bare loop, prepared, in memory"
	@echo "make bench-train          a training stage on Ray against a bare PyTorch loop; TFLOP/s"
	@echo "make bench-batch          the batch job against a bare loop, from 1 to 2 workers, in memory"
	@echo "make kill-batch           20 batches killed at random moments, held against one in peace"
	@echo "make kill-train           20 training stages killed at random steps, likewise"
	@echo "make lint, make format    check or mend the code's form"
	@echo "make lock                 renew constraints.txt from pyproject.toml"
	@echo "make clean                remove .venv and runs/demo"

# Installed once; again when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "error: $(PYTHON) is older than 3.10; use make PYTHON=python3.11"; exit 1; }
	@echo "installing into $(VENV) (a few minutes)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu:" \
	    "apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') --editable '.[cluster,demo,dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/python infra/demo.py --output '$(OUTPUT)' $(if $(DATA),--data '$(DATA)')

# What runs on a cluster mostly waits, so two processes share the tests; the second reports at the end.
LAST   := $(addprefix tests/pipelines/test_,$(addsuffix .py,train_kills batch_kills evaluate prepare_failures))
FIRST  := tests/pipelines $(addprefix --ignore=,$(LAST))
SECOND  = $(filter-out $(FIRST) tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/ tests/test_*.py))) $(LAST)

test: $(VENV)/.installed
	@$(BIN)/ruff check .
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@report=$$(mktemp); $(BIN)/python -m pytest $(SECOND) > "$$report" 2>&1 & second=$$!; \
	  $(BIN)/python -m pytest $(FIRST); first=$$?; \
	  wait $$second; second=$$?; cat "$$report"; rm -f "$$report"; \
	  exit $$((first || second))
endif

bench: $(VENV)/.installed
	@$(BIN)/python -m cssta.benchmark $(ARGS)

bench-train: $(VENV)/.installed
	@$(BIN)/python -m pipelines.bench_train $(ARGS)

bench-batch: $(VENV)/.installed
	@$(BIN)/python -m pipelines.bench_batch $(ARGS)

bench-data: $(VENV)/.installed
	@$(BIN)/python -m pipelines.bench_data $(ARGS)

kill-batch: $(VENV)/.installed
	@$(BIN)/python -m tests.pipelines.kill_batch $(ARGS)

kill-train: $(VENV)/.installed
	@$(BIN)/python -m tests.pipelines.kill_train $(ARGS)

ui: $(VENV)/.installed
	@echo "MLflow UI: http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@$(BIN)/python -m mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
	  --backend-store-uri "sqlite:///$$(realpath '$(OUTPUT)')/mlflow.db" --no-serve-artifacts \
	  --default-artifact-root "file://$$(realpath '$(OUTPUT)')/mlartifacts"

lint: $(VENV)/.installed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.installed
	@$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format --quiet .

lock: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet uv
	@echo '# Exact versions for every Python from 3.10 on; made from pyproject.toml by `make lock`.' \
	  > constraints.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --all-extras \
	  --no-header --no-annotate pyproject.toml >> constraints.txt

clean:
	@rm -rf $(VENV) runs/demo
