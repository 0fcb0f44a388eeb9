"""METHODS, the check of settings, the pages and the lightness of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from methods import METHODS, check

ROOT = Path(__file__).parents[2]


def test_keys_settings_units_and_views() -> None:
    declared = {key: (m.unit_of(m.settings), m.view, m.settings) for key, m in METHODS.items()}
    rift = {"form": "study", "lambda_": 0.2, "probability": "token", "right": 1.0, "wrong": -0.2}
    assert [*declared][:6] == ["sft", "rft", "dft", "rift", "offline_grpo", "dpo"]
    for key, wanted in {
        "sft": ("token", "all", {}),
        "rft": ("token", "right", {"duplicates": "keep"}),
        "dft": ("token", "all", {}),
        "rift": ("token", "all", rift | {"divide_by": "count"}),
        "offline_grpo": ("token", "all", {"form": "study", "bias": 0.1, "kl": 0.2, "divide_by": "count"}),
        "dpo": (
            "pair",
            "pairs",
            {"beta": 0.1, "loss": "sigmoid", "label_smoothing": 0.0, "length_normalised": False},
        ),
    }.items():
        assert declared[key] == wanted


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_its_page(method: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{method}.md").read_text(encoding="utf-8")
    entry = METHODS[method]
    assert f"| key | `{method}` |" in page and f"| unit | {entry.unit_of(entry.settings)}" in page
    assert page.count("$$") >= 2 and page.count("$$") % 2 == 0
    for heading in ("**Logged.**", "**Departs from its source.**", "**Limit cases.**"):
        assert heading in page
    for name, value in entry.settings.items():
        told = str(value).lower() if isinstance(value, bool) else value
        assert f"`{name}` = {told}" in page
        assert all(f"`{choice}`" in page for choice in entry.choices.get(name, ()))


def test_check_fills_defaults_and_makes_numbers_float() -> None:
    assert check("sft", {}) == {}
    settings = check("dpo", {"beta": 1})
    assert settings == METHODS["dpo"].settings | {"beta": 1.0} and isinstance(settings["beta"], float)


@pytest.mark.parametrize(
    ("method", "settings", "line"),
    [
        ("ppo", {}, f"unknown method 'ppo'; known methods: {', '.join(METHODS)}"),
        (
            "dpo",
            {"betta": 0.1},
            "dpo: unknown setting 'betta'; known settings: beta, label_smoothing, length_normalised, loss",
        ),
        ("dpo", {"loss": "simpo"}, "dpo: setting loss must be one of sigmoid, ipo, hinge, not 'simpo'"),
        ("dpo", {"length_normalised": 1}, "dpo: setting length_normalised must be a bool, not 1"),
        (
            "dpo",
            {"label_smoothing": 0.5},
            "dpo: label_smoothing must be at least 0 and below 0.5, not 0.5",
        ),
        (
            "dpo",
            {"label_smoothing": 0.1, "loss": "ipo"},
            "dpo: label_smoothing is defined for loss: sigmoid, not ipo",
        ),
        ("rft", {"duplicates": True}, "rft: setting duplicates must be a str, not True"),
        (
            "rift",
            {"form": "source", "lambda_": 0.5},
            "rift: setting lambda_ belongs to form study, this is form source",
        ),
        (
            "rift",
            {"wrong": -1},
            "rift: setting wrong belongs to form source, this is form study",
        ),
        (
            "rift",
            {"form": "source", "wrong": 0.5},
            "rift: right must be above 0 and wrong at most 0, not 1 and 0.5",
        ),
        ("offline_grpo", {"kl": 1}, "offline_grpo: setting kl belongs to form source, this is form study"),
        ("offline_grpo", {"form": "source", "kl": -1}, "offline_grpo: kl must be at least 0, not -1"),
        (
            "offline_grpo",
            {"form": "source", "divide_by": "weights"},
            "offline_grpo: divide_by: weights would divide the KL term by the advantages too: set kl to 0, or divide "
            "by count",
        ),
        ("sft", {"beta": 0.1}, "sft: unknown setting 'beta'; known settings: it has none"),
        ("dpo", {"beta": "0.1"}, "dpo: setting beta must be a number of at most 1e30 in size, not '0.1'"),
        ("dpo", {"beta": True}, "dpo: setting beta must be a number of at most 1e30 in size, not True"),
        ("rift", {"lambda_": float("nan")}, "rift: setting lambda_ must be a number of at most 1e30 in size, not nan"),
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
        "import sys, methods, methods.data.batch, methods.data.view, methods.config; "
        "print(sorted({'torch', 'transformers', 'peft', 'trl', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
