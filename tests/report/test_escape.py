"""Foreign text: whatever a name or a text holds, what is shown of it hides nothing and turns nothing around."""

from __future__ import annotations

import ast
import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from report.csv_export import encode
from report.escape import cell, line, shown, tell
from report.render import _environment

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
NASTY = "\x1b[2J\x00\u202egnp.exe\u2066\ud800\u200f\x9b31m\r\n\t\ufeff\U000e0041"
anything = st.text(st.characters(codec=None), max_size=12) | st.sampled_from([NASTY, f"sft{NASTY}"])


def hidden(text: str, but: str = "") -> set[str]:
    return {c for c in text if unicodedata.category(c) in HIDDEN and c not in but and c != "\ufffd"}


def test_each_kind_has_its_sign() -> None:
    assert shown("\x1b[0m\x00\x7f") == "\u241b[0m\u2400\u2421"
    assert shown("a\u202eb\u200f\x9b\u200d") == "a[U+202E]b[U+200F][U+009B][U+200D]"
    assert shown("\ud800x\U000e0041") == "\ufffdx[U+E0041]"
    assert shown("tab\tand\nline") == "tab\tand\nline" and line("tab\tand\nline") == "tab\u2409and\u240aline"
    for plain in ("Zoë 模型 שלום 😀", "75\u202f000", "½ ≤ ‖ΔW‖"):
        assert shown(plain) == line(plain) == plain


@given(anything)
@example(NASTY)
def test_nothing_hidden_is_left_and_what_is_shown_stays(text: str) -> None:
    assert not hidden(shown(text), "\n\t") and not hidden(line(text))
    assert shown(shown(text)) == shown(text) and line(line(text)) == line(text)
    shown(text).encode("utf-8")


@given(anything)
@settings(max_examples=40)
def test_a_page_shows_it_through_every_template_expression(text: str) -> None:
    page = _environment().from_string('<p title="{{ text }}">{{ text }}</p>{{ [text] | join(", ") }}').render(text=text)
    assert not hidden(page, "\n\t")


@given(anything)
@settings(max_examples=60)
def test_a_terminal_gets_one_line_without_controls(text: str) -> None:
    out = io.StringIO()
    tell(text, out)
    assert out.getvalue().endswith("\n") and not hidden(out.getvalue()[:-1])


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1"])
def test_a_spreadsheet_evaluates_nothing(text: str) -> None:
    (heading, row) = csv.reader(io.StringIO(encode([{text: text}])))
    assert heading == row == [f"'{shown(text)}"]
    assert encode([{"ids": [text, "q1"]}]).splitlines()[1].lstrip('"').startswith("'")


@pytest.mark.parametrize("value", [-1.5, -3, "-1.5", "+2", "-1e-5", [-0.5, 0.25]])
def test_a_negative_number_stays_one(value: object) -> None:
    (field,) = list(csv.reader(io.StringIO(encode([{"x": value}]))))[1]
    assert [float(part) for part in field.split()] == [
        float(v) for v in (value if isinstance(value, list) else [value])
    ]


@given(anything)
@settings(max_examples=60)
def test_a_cell_begins_no_formula(text: str) -> None:
    found = cell(text)
    assert not hidden(found, "\n\t")
    assert not found.startswith(("=", "@", "\t", "\r"))


def test_every_word_to_the_terminal_goes_through_one_function() -> None:
    """``print`` shows foreign text raw: what the orchestrator says is told. JSON to another process is no such word."""
    for path in (ROOT / "orchestrator").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        printed = [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "print"]
        assert all(text.startswith("json.dumps(") for text in printed), path
