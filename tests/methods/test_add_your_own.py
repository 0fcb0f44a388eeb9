"""The page that says how to add a method, followed to the letter in a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from methods import METHODS, check
from methods.data.batch import Batch, Rollout
from methods.config import TrainConfig
from methods.training.trainer import train
from methods.objectives.unlikelihood import losses

logp = torch.tensor([[0.5, 0.25], [0.5, 0.25]], dtype=torch.float64).log()
mask = torch.tensor([[True, True], [True, False]])
reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
by_hand = losses(Batch(logp, mask, reward, reward), alpha=2.0).sum(dim=1).tolist()
logp.requires_grad_()
checked = torch.autograd.gradcheck(lambda x: losses(Batch(x, mask, reward, reward)), logp)

rollouts = [Rollout([3, 4], [5 + i, 1], float(i % 2), i // 2) for i in range(8)]
out = Path(sys.argv[2])
out.mkdir()
config = TrainConfig(
    method="unlikelihood", settings={"alpha": 0.5}, learning_rate=1e-3, steps=3, report_step=3, run_steps=3,
    batch_size=4, micro_batch=2, rank=2, alpha=4, init_seed=1, order_seed=2, base_name="tiny", precision="float32",
)
summary = train(config, Path(sys.argv[1]), rollouts, out / "trained", work=out)
print(json.dumps([by_hand, checked, summary["settings"], summary["b_norm"] > 0]))
"""


def test_following_the_page_gives_a_method_that_trains(tiny_model: Path, tmp_path: Path) -> None:
    """Right row: 3 ln 2; wrong one: 2 ln 2 for its one token of probability 1/2."""
    page = (ROOT / "docs" / "methods" / "add-your-own.md").read_text()
    file, line = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (own_page,) = re.findall(r"```markdown\n(.*?)```", page, re.DOTALL)
    copy = tmp_path / "project"
    for part in ("methods", "models", "execution", "docs/methods", "tests/methods"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("tests/__init__.py", "tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / part, copy / part)
    (copy / "methods" / "objectives" / "unlikelihood.py").write_text(file)
    (copy / "docs" / "methods" / "unlikelihood.md").write_text(own_page)
    start = copy / "methods" / "objectives" / "__init__.py"
    text = start.read_text()
    assert text.count("rift, sft\n") == 1 and text.count('    "dpo": dpo.METHOD,\n') == 1
    text = text.replace("rift, sft\n", "rift, sft, unlikelihood\n")
    start.write_text(text.replace('    "dpo": dpo.METHOD,\n', '    "dpo": dpo.METHOD,\n' + line))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_model), str(tmp_path / "out")],
        cwd=copy, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ln2 = 0.6931471805599453
    assert done.stdout.splitlines()[-1] == f'[[{3 * ln2}, {2 * ln2}], true, {{"alpha": 0.5}}, true]'

    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/methods/test_method.py"]
    done = subprocess.run([sys.executable, *words], cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


def test_the_file_of_the_page_passes_the_linter(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "methods" / "add-your-own.md").read_text()
    (tmp_path / "unlikelihood.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    words = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
