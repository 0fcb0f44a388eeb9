"""The vLLM engine (0.32), in this process: the base and any number of adapters, one per call.

Adapters are applied by vLLM's LoRA, or swapped into the weights (``swap.py``), since on a CPU vLLM's LoRA reaches a
fraction of the base's speed.

vLLM changes process state: environment variables, ``torch.set_num_threads`` (which it disables on a CPU), a process
group, and it imports Ray if installed. All of that is undone or prevented here, so that a serial run can train in the
same process. On a CPU ``punica.py`` replaces its LoRA kernels. Only one engine may be open at a time.

Under tensor parallelism vLLM starts a child process for each GPU (its "mp" backend), and this process schedules. The
alternative, Ray actors in a placement group ("ray"), would need Ray in an engine that also runs without it, and would
leave groups to be removed after a death; a process that holds N GPUs is on one node by itself, and its children end
with it (``ranks.py``).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig

from evals.engines import CPU_HEAD_SIZES, LORA_RANKS, Completion, Sampling
from evals.engines.requests import Decoder, check_adapter, check_prompts, prompt_seeds
from evals.engines.settings import EngineConfig
from evals.engines.swap import Swap
from execution.errors import WorkerLost
from models.adapter_config import WEIGHTS

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

BATCHED_TOKENS = 8192  # per step; more gains nothing on a CPU and costs memory
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in this process: 3 s to start, not 30
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # of ranks: a fork of a process with threads can hang
}

RANKS_ON_CPU = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else each rank needs a NUMA node of its own
    "TORCHDYNAMO_DISABLE": "1",  # as ``_eager``, which does not reach them
}


def import_vllm() -> None:
    """Import vLLM as opening an engine does, and restore the process state."""
    with _process_kept():
        from vllm import LLM  # noqa: F401


class VllmEngine:
    """See ``Engine`` and ``open_engine``."""

    def __init__(self, model: Path, config: EngineConfig) -> None:
        self.max_lora_rank, self.max_model_len = config.max_lora_rank, config.max_model_len
        self.threads, self.device = config.threads, config.device
        self.decoder = Decoder(model)
        self._adapters: dict[tuple[str, int], LoRARequest] = {}
        swapped = config.adapters_in("vllm") == "swapped"
        self._swap = Swap(model) if swapped and config.max_lora_rank else None
        self._within: tuple[tuple[str, int] | None, ...] = (None,)  # the adapter in the weights; () unknown
        lora_rank = 0 if self._swap else config.max_lora_rank
        settings: dict[str, Any] = {
            "dtype": config.precision,
            "max_model_len": config.max_model_len,
            "max_num_seqs": config.batch_size,
            "max_num_batched_tokens": max(BATCHED_TOKENS, config.max_model_len),
            "max_logprobs": -1,
            "seed": config.seed,
            "enable_prefix_caching": False,  # a call must not depend on earlier calls
            "skip_tokenizer_init": True,
            "use_tqdm_on_load": False,
        }
        if lora_rank:
            settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": served_rank(lora_rank)}
        if config.device == "cpu":
            _check_head_size(model)
            settings |= {"enforce_eager": True, "kv_cache_memory_bytes": int(config.cache_gib * 2**30)}
            if lora_rank:
                settings["worker_cls"] = "evals.engines.punica.MatmulWorker"
        else:
            settings["gpu_memory_utilization"] = config.memory_share
        if config.tensor_parallel > 1:
            settings |= {
                "tensor_parallel_size": config.tensor_parallel,
                "distributed_executor_backend": "mp",
                "worker_extension_cls": "evals.engines.ranks.Rank",
            }
        with _process_kept(), _threads(config.threads):
            if config.tensor_parallel > 1 and config.device == "cpu":
                os.environ.update(RANKS_ON_CPU, OMP_NUM_THREADS=str(config.threads))
            from vllm import LLM

            self.llm: Any = LLM(str(model), **settings)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, adapter: Path | None = None
    ) -> list[list[Completion]]:
        """See ``Engine.generate``."""
        check_prompts(prompts, self.max_model_len)
        stops = self.decoder.stops_with(sampling)
        parameters = [
            self._parameters(
                n=sampling.n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=min(sampling.max_tokens, self.max_model_len - len(prompt)),
                seed=seed if sampling.temperature > 0 else None,
                stop_token_ids=list(stops),
            )
            for prompt, seed in zip(prompts, prompt_seeds(prompts, sampling.seed), strict=True)
        ]
        answers = self._ask(prompts, parameters, adapter)
        rows = [list(output.token_ids) for answer in answers for output in answer.outputs]
        flat = self.decoder.completions(rows, stops)
        return [flat[start : start + sampling.n] for start in range(0, len(flat), sampling.n)]

    def top_logprobs(
        self, prompts: Sequence[Sequence[int]], k: int, adapter: Path | None = None
    ) -> list[dict[int, float]]:
        """See ``Engine.top_logprobs``."""
        check_prompts(prompts, self.max_model_len)
        parameters = [self._parameters(temperature=0.0, max_tokens=1, logprobs=k) for _ in prompts]
        top = []
        for answer in self._ask(prompts, parameters, adapter):
            entries = answer.outputs[0].logprobs[0].items()
            top.append({token: entry.logprob for token, entry in entries if entry.rank <= k})
        return top

    def close(self) -> None:
        """See ``Engine.close``."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        with _process_kept():
            cleanup_dist_env_and_memory()

    def _parameters(self, **settings: Any) -> SamplingParams:
        from vllm import SamplingParams

        return SamplingParams(detokenize=False, **settings)

    def _ask(
        self, prompts: Sequence[Sequence[int]], parameters: list[SamplingParams], adapter: Path | None
    ) -> list[Any]:
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        if adapter is not None:
            check_adapter(adapter, self.max_lora_rank)
        if self._swap:
            self._swap_in(self._swap, adapter)
        lora = None if adapter is None or self._swap else self._adapter(adapter)
        with _threads(self.threads), _eager(self.device):
            try:
                answers: list[Any] = self.llm.generate(requests, parameters, lora_request=lora, use_tqdm=False)
            except BaseException as error:
                if isinstance(error, Exception) and self._rank_died():
                    raise WorkerLost("a process of the engine, which holds a shard of the model, has died") from error
                # vLLM keeps the requests of a failed call and would mix them into the next one.
                pending = list(self.llm.llm_engine.output_processor.request_states)
                self.llm.llm_engine.abort_request(pending, internal=True)
                raise
        assert len(answers) == len(prompts)
        return answers

    def _rank_died(self) -> bool:
        """Whether a process of a tensor-parallel engine has ended by itself; vLLM then ends the others."""
        return bool(getattr(self.llm.llm_engine.engine_core.engine_core.model_executor, "is_failed", False))

    def _swap_in(self, swap: Swap, adapter: Path | None) -> None:
        """Make the weights those with ``adapter`` (None: the base). After an error they are undefined: close."""
        key = None if adapter is None else _identity(adapter)
        if self._within == (key,):
            return
        weights = swap.weights(adapter)
        self._within = ()
        with _threads(self.threads):
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._within = (key,)

    def _adapter(self, adapter: Path) -> LoRARequest:
        """vLLM's request for an adapter."""
        from vllm.lora.request import LoRARequest

        key = _identity(adapter)
        if key not in self._adapters:
            number = len(self._adapters) + 1
            self._adapters[key] = LoRARequest(f"adapter-{number}", number, key[0])
        return self._adapters[key]


def _identity(adapter: Path) -> tuple[str, int]:
    """Path and modification time: a folder that was written again is another adapter."""
    path = adapter.resolve()
    return str(path), (path / WEIGHTS).stat().st_mtime_ns


def _check_head_size(model: Path) -> None:
    """ValueError for a head size that vLLM's CPU attention does not support: it would fail at the first request."""
    config = AutoConfig.from_pretrained(model, local_files_only=True).get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size not in CPU_HEAD_SIZES:
        raise ValueError(
            f"{model}: head_dim {size} is not one of {', '.join(map(str, CPU_HEAD_SIZES))}, which vLLM serves on "
            "a CPU; use the transformers engine"
        )


def served_rank(rank: int) -> int:
    """The smallest rank that vLLM serves and is at least ``rank``; ValueError if there is none."""
    for served in LORA_RANKS:
        if rank <= served:
            return served
    raise ValueError(f"rank {rank} is more than {LORA_RANKS[-1]}, the largest that vLLM serves; use transformers")


# torch's own function, saved before a vLLM worker replaces it with one that does nothing.
_set_num_threads = torch.set_num_threads


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """Use ``threads`` intra-op threads within the block; torch, vLLM's kernels and OpenMP share one pool."""
    before = torch.get_num_threads()
    _set_num_threads(threads)
    try:
        yield
    finally:
        _set_num_threads(before)


@contextmanager
def _eager(device: str) -> Iterator[None]:
    """On a CPU, compile nothing within the block.

    ``enforce_eager`` covers the model only: for log-probabilities vLLM compiles a function that counts ranks, which
    takes seconds and a C++ compiler.
    """
    if device != "cpu":
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _process_kept() -> Iterator[None]:
    """Set vLLM's environment and hide Ray within the block; restore the process state afterwards.

    If Ray is loaded already (inside an actor) it stays visible. ``None`` in ``sys.modules`` makes ``import ray`` raise
    ImportError, which vLLM takes for "not installed".
    """
    environment = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would override kv_cache_memory_bytes
    without_ray = "ray" not in sys.modules
    if without_ray:
        sys.modules["ray"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation warnings of vLLM and its dependencies
            yield
    finally:
        if without_ray:
            del sys.modules["ray"]
        torch.set_num_threads = _set_num_threads
        os.environ.clear()
        os.environ.update(environment)
