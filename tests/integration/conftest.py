"""One small study, run whole once for all tests of this folder; what else they run begins with what it made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock

from execution.storage import Storage
from orchestrator.cli import main
from tests import forked

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "configs" / "mini.yaml"
# What a run that begins with the rest has yet to do: trainings (one of the sweep's, one with a reference), what reads
# them, and each step that measures many adapters together.
UNFINISHED = (
    *(f"{k}/{n}" for k in ("train", "evaluate", "losses", "features") for n in ("dft", "dpo", "dpo-lr3e-4")),
    *(f"{kind}/dft-norm" for kind in ("scale", "evaluate", "losses", "features")),
    *(f"{kind}/*" for kind in ("geometry", "activations", "spectra", "connectivity", "similarity")),
)

MODELS = ("base", "sft", "rft", "dft", "rift", "offline_grpo", "dpo", "dpo-lr3e-4", "sft-order43")
SCALED = ("rft-norm", "dft-norm", "rift-norm", "offline_grpo-norm", "dpo-norm", "dpo-lr3e-4-norm")
TITLES = (
    ["base/scratch", "rollouts/sampled", "problems/evaluation", "reference/base"]
    + [f"train/{m}" for m in ("sft", "rft", "dft", "rift", "offline_grpo", "dpo", "dpo-lr3e-4", "sft-order43")]
    + [f"scale/{m}" for m in SCALED]
    + [f"{kind}/{model}" for kind in ("evaluate", "losses", "features") for model in (*MODELS, *SCALED)]
    + ["geometry/weights", "activations/rows", "spectra/base", "connectivity/paths"]
    + ["similarity/cka", "similarity/scaled"]
)


def orchestrator(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user calls it."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.fixture(scope="session")
def mini() -> Path:
    """The small study's file."""
    return MINI


def forked_run(*words: str, first: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a forked process, which has imported all that a serial run needs. ``first`` is done there
    before it."""
    with TemporaryDirectory() as streams:
        return forked.run(command_line, [(words, first)], Path(streams), timeout=1200)[0]


def command_line(words: tuple[str, ...], first: Callable[[], None] | None) -> None:
    os.chdir(ROOT)
    if first:
        first()
    sys.exit(main(list(words)))


@pytest.fixture(scope="session")
def serial(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished serial run, made once for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "serial"
    with FileLock(f"{out}.lock"):
        if not (out / "report" / "report.html").exists():
            run_serially(mini, out)
    return out


def run_serially(study: Path, out: Path) -> None:
    """A serial run in a process that ends without having imported Ray or vLLM."""
    code = (
        "import sys\nfrom orchestrator.cli import main\ncode = main(sys.argv[1:])\n"
        "print(code, sorted({m.split('.')[0] for m in sys.modules} & {'ray', 'vllm'}))\n"
    )
    words = [sys.executable, "-c", code, "run", str(study), "--serial", "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stdout + done.stderr


def handed_over(serial: Path, to: Storage | Path, *left_out: str) -> list[str]:
    """Copy the finished steps of ``serial``, but for those whose titles fit a pattern of ``left_out``: these titles."""
    titles = []
    for record in sorted(serial.glob("*/*/step.json")):
        name = record.parent.relative_to(serial).as_posix()
        title = name.rpartition("-")[0]
        if any(fnmatch(title, pattern) for pattern in left_out):
            titles.append(title)
        elif isinstance(to, Path):
            shutil.copytree(record.parent, to / name)
        else:
            to.publish(record.parent, name)
    return titles


def finished(out: Path) -> set[str]:
    """The steps that a run's folder holds, by their records."""
    return {str(p.parent.relative_to(out)).rpartition("-")[0] for p in out.glob("*/*/step.json")}


def committed(out: Path) -> dict[str, int]:
    """When each finished step was committed: what is redone changes."""
    return {str(p): p.stat().st_mtime_ns for p in out.glob("*/*/step.json")}


def results(out: Path) -> bytes:
    return (out / "report" / "results.json").read_bytes()


@pytest.fixture
def begun(serial: Path, tmp_path: Path) -> Callable[..., Path]:
    """A run's folder in which only some kinds of steps are finished."""

    def copy(*kinds: str) -> Path:
        out = tmp_path / "out"
        for kind in kinds:
            shutil.copytree(serial / kind, out / kind)
        return out

    return copy
