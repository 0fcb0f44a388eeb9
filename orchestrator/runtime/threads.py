"""Threads of numerical libraries. They affect rounding, so the study sets them, never the machine."""

from __future__ import annotations

import os

# Read by OpenMP and BLAS when they are loaded, so to be set before numpy and torch are imported.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads would slow down other trainings on a small machine
    "TOKENIZERS_PARALLELISM": "false",
    # Deterministic kernels on GPUs; read once, at a process's first matrix product (methods.training.determinism).
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    # Suppresses Ray's long warning about many workers on a small machine, which are intended.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker processes have been started on node",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


def set_environment() -> None:
    """Set one thread per library, before any heavy import; a step can set more."""
    os.environ.update(ENVIRONMENT)


def pin(threads: int) -> None:
    """Set torch's intra-op threads in this process."""
    import torch

    torch.set_num_threads(threads)
