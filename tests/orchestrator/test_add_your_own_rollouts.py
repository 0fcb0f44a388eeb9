"""The page that says how to add a source of rollouts, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "rollouts-add-your-own.md").read_text()
PACKAGES = (*sorted(path.parent.name for path in ROOT.glob("*/__init__.py")), "configs")
PROGRAM = """
import json, sys
from pathlib import Path
from execution.context import Context
from execution.store import write_json
from orchestrator.config.study_file import load_study
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preflight import check
from orchestrator.planning.resolve import gather
from orchestrator.rollouts.build import build
from orchestrator.rollouts.dataset import read_table

study_file, model, at = map(Path, sys.argv[1:])
folders = base, out, work = at / "base", at / "out", at / "work"
for folder in folders:
    folder.mkdir(parents=True)
study = load_study(study_file, ["rollouts=" + study_file.with_name("rollouts.yaml").read_text()])
check(study)
(step,) = [s for s in make_plan(study, gather(study, at, online=False)) if s.kind.name == "rollouts"]
write_json(base / "base.json", {"folder": str(model), "name": "tiny"})
build(Context(config=step.config, runtime=step.runtime, inputs={"base": base}, out=out, work=work,
              keep=lambda: None, progress=lambda line: None, parallel_map=None, resources=None))
rows = [[r["problem"], r["completion"], r["reward"], r["teacher"]] for r in read_table(out)]
told = {"title": step.title, "delimiter": step.config["delimiter"], "path": "path" in step.config, "rows": rows}
print(json.dumps(told))
"""
ROWS = "problem;answer;completion;reward;teacher\n1 + 1;2;# 2;1;a\n1 + 1;2;# 3;0;a\n2 + 1;3;# 3;1;b\n2 + 1;3;# 4;0;b\n"


def code() -> tuple[str, str]:
    file, line = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return file, line


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's file and its line."""
    file, line = code()
    copy = tmp_path_factory.mktemp("project")
    for part in PACKAGES:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    sources = copy / "orchestrator" / "rollouts" / "sources"
    (sources / "csv.py").write_text(file)
    start = sources / "__init__.py"
    text = start.read_text()
    above, entry = "from orchestrator.rollouts.sources.file import FileRollouts\n", '    "hub": HubRollouts,\n'
    assert text.count(above) == 1 and text.count(entry) == 1
    text = text.replace(above, "from orchestrator.rollouts.sources.csv import CsvRollouts\n" + above)
    start.write_text(text.replace(entry, entry + line))
    return copy


@pytest.fixture
def study_file(copy: Path, tmp_path: Path) -> Path:
    (tmp_path / "rollouts.csv").write_text(ROWS)
    (told,) = re.findall(r"```yaml\nrollouts: (.*?)```", PAGE, re.DOTALL)
    assert "path: rollouts.csv" in told
    (tmp_path / "rollouts.yaml").write_text(told.replace("rollouts.csv", str(tmp_path / "rollouts.csv")))
    study = tmp_path / "study.yaml"
    study.write_text(f"extends: {copy / 'configs' / 'mini.yaml'}\n")
    return study


def process(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=copy, capture_output=True, text=True, timeout=300)


def test_following_the_page_gives_a_source_that_is_checked_planned_and_read(
    copy: Path, study_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = process(copy, "-c", PROGRAM, str(study_file), str(tiny_model), str(tmp_path / "at"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["title"], told["delimiter"], told["path"]) == ("rollouts/csv", ";", False)
    assert sorted(told["rows"]) == [
        ["1 + 1", "# 2", 1.0, "a"], ["1 + 1", "# 3", 0.0, "a"], ["2 + 1", "# 3", 1.0, "b"], ["2 + 1", "# 4", 0.0, "b"],
    ]  # fmt: skip


def test_a_bad_line_is_named_before_anything_starts(copy: Path, study_file: Path, tmp_path: Path) -> None:
    words = ["-m", "orchestrator", "plan", str(study_file), "--out", str(tmp_path / "run"), "--set"]
    change = "rollouts=" + study_file.with_name("rollouts.yaml").read_text()
    done = process(copy, *words, change)
    assert done.returncode == 0, done.stderr
    assert f"rollouts   {tmp_path / 'rollouts.csv'}, all problems, rewards given" in done.stdout.splitlines()
    (tmp_path / "rollouts.csv").write_text(ROWS + ";5;# 5;1;a\n")
    done = process(copy, *words, change)
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {tmp_path / 'rollouts.csv'}, line 6: problem is empty"


def test_the_file_of_the_page_passes_the_linter(tmp_path: Path) -> None:
    (tmp_path / "csv.py").write_text(code()[0])
    words = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
