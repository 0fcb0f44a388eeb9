"""The pages of texts: whatever a model writes comes back as text, cut and legible, and makes no mark-up of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from report.render import render
from report.text_pages import LONGEST, PROBLEMS, chosen, legible
from tests.report.example_study import provenance, typed
from tests.report.test_render import Page

Write = Callable[[dict], dict[str, Page]]
HOSTILE = {
    "markup": "</div></details><script>alert(1)</script><img src=x onerror=alert(1)><a href='http://x.test'>x</a>",
    "entities": "&lt;b&gt; &amp;amp; &#60;script&#62; <!-- <![CDATA[ ]]> --> <?php ?> <!doctype html>",
    "attributes": "\"><style>*{display:none}</style>' onmouseover='alert(1)",
    "templates": "{{ 7 * 7 }} {% raw %} {# no #} ${7*7}",
    "control": "a\x00b\x07c\x08d\x1b[31mred\x1b[0m\x1b]0;title\x07\x7f\x85\x9b31m\r\noverwritten\rby this",
    "directions": "abc \u202egnp.exe\u202c \u2066isolated\u2069 \u05d0\u05d1\u05d2 \u0627\u0628",
    "surrogates": "half \ud83d of a pair, \udc00 and \ufffe\uffff",
    "combining": "z" + "\u0335\u0321\u034f" * 400,
}


def answer(text: str, right: bool = True, finish: str = "stop") -> dict:
    return {"completion": text, "extracted": text[:40], "correct": right, "tokens": 12, "finish": finish}


def question(name: str, text: str, models: dict[str, list[dict]], samples: int = 1) -> dict:
    rows = [
        {"name": m, "right": sum(a["correct"] for a in answers), "samples": samples, "answers": answers}
        for m, answers in models.items()
    ]
    return {"id": name, "problem": text, "answer": text[:20], "models": rows}


def asked(problems: list[dict], n: int, differing: int) -> list[dict]:
    return [{"task": "gsm8k", "title": "GSM8K", "n": n, "differing": differing, "problems": problems}]


def rollouts(text: str) -> dict:
    rows = [{"teacher": text, "reward": reward, "completion": text, "tokens": 9} for reward in (1.0, 0.0, 0.25)]
    problem = {"id": text, "problem": text, "answer": text, "split": "train", "rows": rows}
    return {"of": 40, "seed": 3, "problems": [problem]}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A function from what is to be shown to the two pages, parsed."""
    monkeypatch.setattr("report.figures.FIGURES", {})

    def write(shown: dict) -> dict[str, Page]:
        render(typed(), provenance(), tmp_path, shown)
        names = ("report.html", "answers.html", "rollouts.html")
        return {n: Page((tmp_path / n).read_text(encoding="utf-8")) for n in names if (tmp_path / n).exists()}

    return write


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_text_comes_back_as_text(write: Write, text: str) -> None:
    models = {"base": [answer(text, False)], "sft": [answer(text, True, "length")]}
    benign = {"base": [answer("plain", False)], "sft": [answer("plain", True, "length")]}
    found = write({"answers": asked([question(text, text, models)], 1, 1), "rollouts": rollouts(text)})
    tame = write({"answers": asked([question("plain", "plain", benign)], 1, 1), "rollouts": rollouts("plain")})
    for name in ("answers.html", "rollouts.html"):
        page, expected = found[name], tame[name]
        assert page.open == [] and page.tags == expected.tags, "no tag that was not there with harmless text"
        assert [a for a, _ in page.values] == [a for a, _ in expected.values]
        assert page.words.count(legible(text).text) >= 3
        assert not {"script", "img", "style"} & set(page.tags[page.tags.index("body") :])
        for sign in ("\x00", "\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2066", "\ud83d"):
            assert sign not in page.words


def test_what_would_not_show_has_a_sign(write: Write) -> None:
    assert legible("\x1b[0m\x00\x7f").text == "\u241b[0m\u2400\u2421"
    assert legible("a\u202eb\u2069\x9b").text == "a[U+202E]b[U+2069][U+009B]"
    assert legible("\ud800x\udfff").text == "\ufffdx\ufffd"
    assert legible("tab\tand\nline").text == "tab\tand\nline"
    assert legible(None).text == ""


def test_a_megabyte_is_cut_and_said(write: Write) -> None:
    long = "<b>" * 350_000
    page = write({"answers": asked([question("q", "2 + 2?", {"base": [answer(long)]})], 1, 0)})["answers.html"]
    assert "Cut here: 4\u202f000 of 1\u202f050\u202f000 characters are shown." in page.words
    assert LONGEST / 3 - 1 < page.words.count("<b>") < LONGEST / 3 + 20
    assert page.tags.count("b") == 1, "its verdict"


def test_answers_stand_side_by_side_with_their_verdicts(write: Write) -> None:
    models = {
        "sft": [answer("It is 4.")],
        "base": [answer("It is 5", False, "length") | {"extracted": None}],
        "dpo": [answer("Four: 4.")],
    }
    found = write({"answers": asked([question("q7", "2 + 2?", models)], 300, 250)})
    page = found["answers.html"]
    assert page.tags.count("article") == 3
    words = " ".join(page.words.split())
    assert "q7 right: 2 of 3 models" in words and "Gold answer: 2 + 2?" in words
    assert "Base wrong, no answer found, 12 tokens, cut off by the token limit It is 5" in words
    assert "SFT right, answer It is 4., 12 tokens It is 4." in words
    assert words.index("Base wrong") < words.index("SFT right") < words.index("DPO right"), "the index's order"
    assert "300 problems; models differ on 250 of them" in words and "Shown: 1; left out: 299." in words
    assert "export --to FOLDER" in words
    links = [value for name, value in found["report.html"].values if name == "href" and not value.startswith("#")]
    assert links == ["answers.html", "answers.html"]
    assert "rollouts.html" not in found


def test_of_several_samples_the_first_are_shown_with_the_share(write: Write) -> None:
    row = {"name": "sft", "right": 3, "samples": 8, "answers": [answer("4"), answer("5", False)]}
    problem = {"id": "q", "problem": "2 + 2?", "answer": "4", "models": [row]}
    words = " ".join(write({"answers": asked([problem], 1, 0)})["answers.html"].words.split())
    assert "3 of 8 samples right; the first 2 are shown" in words and "left out" not in words


def test_rollouts_stand_with_teacher_reward_and_split(write: Write) -> None:
    found = write({"rollouts": rollouts("teacher-1")})
    page = found["rollouts.html"]
    words = " ".join(page.words.split())
    assert "1 of 40 problems, drawn at seed 3, with all their rollouts" in words
    assert "for training; right: 2 of 3" in words and "right, reward 0.250, 9 tokens" in words
    assert "wrong, reward 0, 9 tokens" in words
    assert {"rollouts", "teachers", "views"} <= page.tables.keys(), "the report's own statistics"
    assert page.tables["rollouts"] == found["report.html"].tables["rollouts"]


@pytest.mark.parametrize("name", ["answers.html", "rollouts.html"])
def test_the_pages_need_nothing_from_elsewhere(write: Write, name: str) -> None:
    questions = [question("q", "x", {"base": [answer("x")]})]
    page = write({"answers": asked(questions, 1, 0), "rollouts": rollouts("x")})[name]
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert [value for key, value in page.values if key in ("href", "src")] == ["report.html"]
    assert any(value.startswith("default-src 'none'") for key, value in page.values if key == "content")
    assert len(page.ids) == len(set(page.ids))


def test_problems_on_which_models_differ_come_first() -> None:
    assert chosen([(1, 1), (0, 1), (0, 0), (1, 0)], 3) == ([1, 3, 0], 2)
    picked, differing = chosen([(i % 2, 1) for i in range(400)])
    assert differing == 200 and picked == list(range(0, 400, 2))[:PROBLEMS]
    assert chosen([(2, 2), (2, 3)], 5) == ([1, 0], 1)


def test_a_report_without_texts_takes_old_pages_away(write: Write) -> None:
    shown = {"answers": asked([question("q", "x", {"base": [answer("x")]})], 1, 0), "rollouts": rollouts("x")}
    assert len(write(shown)) == 3
    assert list(write({})) == ["report.html"]
