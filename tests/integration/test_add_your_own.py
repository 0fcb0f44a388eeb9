"""The page that says how to add a measurement, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.adapter import load_factors
from tests.integration.conftest import ROOT, handed_over

PAGE = ROOT / "docs" / "measurements" / "add-your-own.md"


def into(path: Path, before: str, line: str) -> None:
    """Put a line in front of the one place where ``before`` stands."""
    text = path.read_text()
    assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in {path}"
    path.write_text(text.replace(before, line + before))


def followed(copy: Path) -> None:
    """A copy of the project with the page's files and lines in it."""
    found = re.findall(r"```(?:python|text)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    arithmetic, step, types, field, kind, section, listed = found
    for package in (path.parent for path in ROOT.glob("*/__init__.py")):
        shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", copy / "configs")
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "analysis" / "weights" / "stable_rank.py").write_text(arithmetic)
    (copy / "orchestrator" / "steps" / "stable_rank.py").write_text(step)
    (copy / "results" / "stable_rank.py").write_text(types)
    document = copy / "results" / "document.py"
    into(document, "from results.study import", "from results.stable_rank import StableRank\n")
    into(document, "    losses: MayBeAbsent", field)
    kinds = copy / "orchestrator" / "steps" / "__init__.py"
    into(kinds, "    train,\n)", "    stable_rank,\n")
    into(kinds, "}\n", kind)
    (copy / "report" / "sections" / "stable_rank.py").write_text(section)
    sections = copy / "report" / "sections" / "__init__.py"
    into(sections, "    sweep,\n", "    stable_rank,\n")
    into(sections, "    activations.SECTION,\n", listed)


def test_following_the_page_gives_a_measurement_of_a_finished_study(serial: Path, tmp_path: Path) -> None:
    """Its step alone is done; its numbers are those of the whole delta's singular values."""
    copy, out = tmp_path / "project", tmp_path / "out"
    followed(copy)
    handed = handed_over(serial, out)
    assert handed == []
    words = [sys.executable, "-m", "orchestrator", "run", "configs/mini.yaml", "--serial", "--out", str(out)]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = ({p.parent.name for p in folder.glob("*/*/step.json")} for folder in (serial, out))
    assert [name.rpartition("-")[0] for name in after - before] == ["weights"]

    found = json.loads((out / "report" / "results.json").read_text())["stable_rank"]
    trained = {p.parent.name.rpartition("-")[0]: p.parent for p in serial.glob("train/*/step.json")}
    assert {row["name"] for row in found["adapters"]} == trained.keys()
    factors = load_factors(trained["sft"] / "adapter")
    by_hand = {}
    for module, pair in factors.items():
        values = torch.linalg.svdvals(pair.b @ pair.a)
        by_hand[module] = float((values**2).sum() / values[0] ** 2)
    told = {row["module"]: row["stable_rank"] for row in found["modules"] if row["name"] == "sft"}
    assert told == pytest.approx(by_hand, rel=1e-9)
    median = sorted(by_hand.values())[3:5]
    (row,) = (row for row in found["adapters"] if row["name"] == "sft")
    assert row["stable_rank"] == pytest.approx(sum(median) / 2, rel=1e-9)

    page = (out / "report" / "report.html").read_text()
    assert "How many directions carry each update" not in (serial / "report" / "report.html").read_text()
    shown = re.search(r"<table[^>]*>(?:(?!</table>).)*median over modules.*?</table>", page, re.DOTALL)
    assert shown is not None and f"{row['stable_rank']:.3g}" in shown[0]
    assert len((out / "report" / "csv" / "stable_rank_modules.csv").read_text().splitlines()) == 1 + 8 * 8

    words = [sys.executable, "-m", "ruff", "check", "."]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
