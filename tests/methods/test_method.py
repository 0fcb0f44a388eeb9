"""METHODS, the check of settings, the pages and the lightness of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from methods import METHODS, check

ROOT = Path(__file__).parents[2]


def test_keys_settings_units_and_views() -> None:
    declared = {key: (m.unit, m.view, m.settings) for key, m in METHODS.items()}
    assert declared == {
        "sft": ("token", "all", {}),
        "rft": ("token", "right", {}),
        "dft": ("token", "all", {}),
        "rift": ("token", "all", {"lambda_": 0.2}),
        "offline_grpo": ("token", "all", {"bias": 0.1}),
        "dpo": ("pair", "pairs", {"beta": 0.1}),
    }


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_its_page(method: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{method}.md").read_text(encoding="utf-8")
    entry = METHODS[method]
    assert f"| key | `{method}` |" in page and f"| unit | {entry.unit} |" in page
    assert page.count("$$") == 2
    for heading in ("**Logged.**", "**Departs from its source.**", "**Limit cases.**"):
        assert heading in page
    for name, value in entry.settings.items():
        assert f"`{name}` = {value}" in page


def test_check_fills_defaults_and_makes_numbers_float() -> None:
    assert check("sft", {}) == {}
    settings = check("dpo", {"beta": 1})
    assert settings == {"beta": 1.0} and isinstance(settings["beta"], float)


@pytest.mark.parametrize(
    ("method", "settings", "line"),
    [
        ("ppo", {}, "unknown method 'ppo'; known methods: sft, rft, dft, rift, offline_grpo, dpo"),
        ("dpo", {"betta": 0.1}, "dpo: unknown setting 'betta'; known settings: beta"),
        ("sft", {"beta": 0.1}, "sft: unknown setting 'beta'; known settings: it has none"),
        ("dpo", {"beta": "0.1"}, "dpo: setting beta must be a finite number, not '0.1'"),
        ("dpo", {"beta": True}, "dpo: setting beta must be a finite number, not True"),
        ("rift", {"lambda_": float("nan")}, "rift: setting lambda_ must be a finite number, not nan"),
        ("dpo", {"beta": 0.0}, "dpo: setting beta must be above 0, not 0.0"),
    ],
)
def test_check_refuses(method: str, settings: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(method, settings)
    assert str(caught.value) == line


def test_light_import() -> None:
    """Objectives, views and configs load without torch, transformers, peft or trl."""
    code = (
        "import sys, methods, methods.batch, methods.view, methods.config; "
        "print(sorted({'torch', 'transformers', 'peft', 'trl', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
