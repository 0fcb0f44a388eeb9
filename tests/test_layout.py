"""The house as it is described: the README's tree is true, the arrows hold, nothing unsafe is called."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("orchestrator", "methods", "analysis", "report", "evals", "models", "execution", "results")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def tree() -> dict[str, str]:
    """The entries of the README's tree, as paths, with their lines."""
    block = re.search(r"## The tree\n+```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    entries, folder = {}, ""
    for line in block[1].splitlines():
        name, _, text = line.strip().partition(" ")
        if not line.startswith(" "):
            folder = name
        entries[name if name == folder else folder + name] = text.strip()
    return entries


def test_the_readmes_tree_is_true() -> None:
    for name, text in tree().items():
        assert (ROOT / name).exists(), f"{name} stands in the README and is not there"
        assert text, f"{name} has no line"
    listed = {Path(name).name for name in tree() if name.startswith("orchestrator/") and name != "orchestrator/"}
    rooms = {p.parent.name for p in (ROOT / "orchestrator").glob("*/__init__.py")}
    files = {p.name for p in (ROOT / "orchestrator").glob("*.py") if not p.name.startswith("__")}
    assert rooms | files == listed
    folders = [ROOT / "orchestrator" / room for room in rooms] + [
        p.parent for p in (ROOT / "methods").rglob("__init__.py")
    ]
    assert all(len(list(folder.glob("*.py"))) <= 14 for folder in folders), "rooms of a dozen files"


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_workers_get_every_package() -> None:
    text = (ROOT / "orchestrator" / "cluster" / "connection.py").read_text()
    given = re.search(r"^PACKAGES = (\(.*?\))", text, re.MULTILINE | re.DOTALL)
    assert given is not None and set(ast.literal_eval(given[1])) == set(PACKAGES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sources_are_short_and_safe(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 450
    for unsafe in (
        r"\bpickle\b(?! and| is|,)",
        r"torch\.(save|load)\((?!\"adapter)",
        r"trust_remote_code=True",
        r"(?<![.\w])eval\(",
    ):
        assert not re.search(unsafe, re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.DOTALL)), unsafe
    assert path.stem not in ("utils", "helpers", "common", "misc")


def test_every_measurement_and_method_has_its_page() -> None:
    from methods import METHODS

    assert {p.stem for p in (ROOT / "docs" / "methods").glob("*.md")} == {*METHODS, "add-your-own"}
    assert len(list((ROOT / "docs" / "measurements").glob("*.md"))) >= 8


def test_the_readmes_study_loads(tmp_path: Path) -> None:
    from orchestrator.config.study_file import load_study

    block = re.search(r"## Your own study.*?```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    path = tmp_path / "mine.yaml"
    path.write_text(block[1])
    study = load_study(path)
    assert study.sweep is not None and study.training.learning_rate in study.sweep.learning_rates
