"""The page that says how to add a task, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tasks-add-your-own.md"
PROGRAM = """
import json, sys
from pathlib import Path
from evals.engines import Completion
from evals.tasks import TASKS
from execution.context import Context
from orchestrator.config.evaluation import EvaluatedTask
from orchestrator.evaluation.answer import _task
from orchestrator.evaluation.problems import load_problems
from orchestrator.rollouts.sources.asked import verified

source, work = sys.argv[1], Path(sys.argv[2])
spec = EvaluatedTask(task="mmlu", name="quiz", source=source, draw=2, seed=3).model_dump()
problems = load_problems(spec, source)
again = load_problems(spec, source)
everything = load_problems(spec | {"draw": None}, source)

TEXTS = {"mmlu-test-0": ["<think>\\nB?\\n</think>\\nA is wrong, so (C).", "It is B"], "mmlu-test-1": ["D", "None"]}


class Engine:
    def generate(self, prompts, sampling, adapter):
        return [[Completion((3,), text, "stop") for text in TEXTS[prompt]] for prompt in prompts]


drawn = {"samples": 2, "temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "seed": 0}
config = {"sampling": {"quiz": drawn}, "part": 0, "parts": 1, "shard": 5}
config |= {"problems": {"task": "mmlu", "instruction": None}}
context = Context(
    config=config, runtime={"tasks": {"quiz": "mmlu"}}, inputs={}, out=work, work=work, keep=lambda: None,
    progress=lambda line: None, parallel_map=lambda function, items: [], resources=lambda config, model: Engine(),
)
asked = [{"id": p.id, "answer": p.answer, "stratum": None, "prompt_ids": p.id} for p in everything[:2]]
rows = _task(context, Engine(), {"task": "quiz", "problems": asked}, None)
found = [(p, text, True) for p in everything[:2] for text in TEXTS[p.id]]
rewards = [row["reward"] for row in verified(context, found, "teacher")]
print(json.dumps({
    "problems": [[p.id, p.problem, p.answer] for p in everything],
    "drawn": [p.id for p in problems], "same": problems == again,
    "verdicts": [[row["extracted"], row["vote"], row["correct"]] for row in rows], "rewards": rewards,
}))
"""


def followed(copy: Path) -> None:
    """A copy of the project with the page's file and line in it."""
    file, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for package in (path.parent for path in ROOT.glob("*/__init__.py")):
        shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "evals" / "tasks" / "mmlu.py").write_text(file)
    start = copy / "evals" / "tasks" / "__init__.py"
    text = start.read_text()
    assert text.count(" math, word_problems\n") == 1 and text.count('    "math": math.TASK,\n') == 1
    text = text.replace(" math, word_problems\n", " math, mmlu, word_problems\n")
    start.write_text(text.replace('    "math": math.TASK,\n', '    "math": math.TASK,\n' + line))


def test_following_the_page_gives_a_task_that_is_drawn_and_graded(tmp_path: Path) -> None:
    """By hand: C is the gold of the first problem, D of the second; a letter within a thought is none."""
    copy, source = tmp_path / "project", tmp_path / "test.jsonl"
    followed(copy)
    rows = [
        {"question": f"{i}?", "choices": ["k", "l", "m", i], "answer": answer} for i, answer in enumerate([2, 3, 0, 1])
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [sys.executable, "-c", PROGRAM, str(source), str(tmp_path)]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [p[0] for p in found["problems"]] == [f"mmlu-test-{i}" for i in range(4)]
    assert found["problems"][0][1:] == ["0?\nA. k\nB. l\nC. m\nD. 0", "C"]
    assert len(found["drawn"]) == 2 and found["same"]
    assert found["verdicts"] == [["C", "C", True], ["B", "B", False], ["D", "D", True], [None, None, False]]
    assert found["rewards"] == [1.0, 0.0, 1.0, 0.0]

    words = [sys.executable, "-m", "ruff", "check", "evals/tasks"]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
