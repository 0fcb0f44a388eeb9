"""Threads are part of a result: a sum's rounding follows its split. So the study sets them, never the machine."""

from __future__ import annotations

import os

# Read by OpenMP and BLAS when they are loaded: to be set before numpy and torch are imported.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait by spinning starve the other trainings of a small machine
    "TOKENIZERS_PARALLELISM": "false",
    # On GPUs: kernels that add in one order (methods.training.determinism). Torch looks once, before a process's first
    # product.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    # Ray tells every driver on a small machine at length that it has many workers; it has to.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker processes have been started on node",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


def set_environment() -> None:
    """Before any heavy import: one thread a library unless a step asks for more."""
    os.environ.update(ENVIRONMENT)


def pin(threads: int) -> None:
    """Give torch exactly ``threads`` intra-op threads in this process."""
    import torch

    torch.set_num_threads(threads)
