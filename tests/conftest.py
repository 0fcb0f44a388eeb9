"""Fixtures that every package's tests share: a random tiny model and random adapters, made on the spot."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from orchestrator.runtime.threads import set_environment

os.environ["ORCHESTRATOR_CALIBRATION"] = ""  # of this machine, if any: estimates are those that are assumed
set_environment()  # as in every process of a study: on a busy machine, threads that wait for each other take minutes

import numpy as np  # noqa: E402

# The same examples every time: a change fails for what it changes. Others with --hypothesis-profile=default.
hypothesis.settings.load_profile("ci")

# A shell ignores Ctrl-C for what it starts in the background, and so would the processes that tests stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

Agreement = Callable[[str, Any, Any, float], None]
ROOMS = ("tests/integration/on_ray/", "tests/integration/")  # that take longest, the longest first


def shared(nodeid: str) -> str:
    """What the tests share that a process of pytest-xdist takes together: a file has its fixtures; those that run a
    study all begin with the same finished one; and of two studies on Ray the one would disturb the other.
    """
    return next((room for room in ROOMS if nodeid.startswith(room)), nodeid.partition("::")[0])


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files of its own for each process of pytest-xdist: a run removes what dead runs left there, so another
    process's run would take away what a test expects to find. The name is short, since Ray's sockets lie below it.
    """
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        own = Path(tempfile.gettempdir()) / f"{worker}-{os.getuid()}"
        own.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process waits for the other at the end."""
    items.sort(key=lambda item: ROOMS.index(room) if (room := shared(item.nodeid)) in ROOMS else len(ROOMS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``: each group of tests goes to one process, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared(nodeid)

    config.option.loadscopereorder = False
    return Together(config, log)


@pytest.fixture
def agreement(request: pytest.FixtureRequest) -> Agreement:
    """``(oracle, found, expected, limit)``: asserts that the largest difference, over the largest expected value, is
    within the limit, and has it listed when the tests end.
    """

    def check(oracle: str, found: Any, expected: Any, limit: float) -> None:
        one, two = (np.asarray(values, dtype=np.float64) for values in (found, expected))
        assert one.shape == two.shape
        difference = float(np.abs(one - two).max() / max(1e-300, np.abs(two).max()))
        request.node.user_properties.append(("agreement", (oracle, difference, limit)))
        assert difference <= limit, oracle

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Where tests of agreement were asked for by name: each oracle with its largest difference."""
    if "agreement" not in config.option.keyword:
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    rows = [tuple(value) for report in reports for name, value in report.user_properties if name == "agreement"]
    terminalreporter.write_sep("-", "largest difference, relative to the largest value")
    for oracle, difference, limit in sorted(rows):
        terminalreporter.write_line(f"{oracle:<60} {difference:8.1e}  (limit {limit:.0e})")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Qwen3 (2 layers, hidden 64, vocabulary 64), its tokenizer and chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    words = ["<pad>", "<eos>", "<unk>", "=", "+", "-", "#", ","] + [str(i) for i in range(56)]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }} <eos>"
        "{% else %}{{ m['content'] }} = {% endif %}{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def served_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with heads of 32: vLLM's CPU attention takes none smaller."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("served") / "model"))
    config = AutoConfig.from_pretrained(tiny_model)
    config.head_dim = 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def write_adapter() -> Callable[..., Path]:
    """``(path, model_dir, seed, rank=8, scale=0.5)`` -> path: writes a random PEFT LoRA there."""

    def write(path: Path, model_dir: Path, seed: int, rank: int = 8, scale: float = 0.5) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
        generator = torch.Generator().manual_seed(seed)
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.data = torch.randn(value.shape, generator=generator) * scale / value.shape[1] ** 0.5
        wrapped.save_pretrained(path)
        return path

    return write


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Any]:
    """A function ``(method, **changes)`` for a training of six steps of eight units."""

    from methods.config import TrainConfig

    def make(method: str = "sft", **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "method": method, "learning_rate": 3e-3, "steps": 6, "report_step": 6, "run_steps": 6,
            "batch_size": 8, "micro_batch": 8, "rank": 4, "alpha": 8, "init_seed": 1, "order_seed": 2,
            "base_name": "someone/tiny", "precision": "float32", "resume_every": 0, "resume_seconds": 0.0,
        }  # fmt: skip
        return TrainConfig(**(values | changes))

    return make
