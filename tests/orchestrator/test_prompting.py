"""Problems and answers as tokens, on a tokenizer whose ids are known: word n is token 8 + n, "=" 3, "+" 4, eos 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.prompts.prompter import Prompter


@pytest.fixture
def changed(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tokenizer, to be changed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.glob("*token*"):
        shutil.copy(file, folder)
    for file in tiny_model.glob("*.jinja"):
        shutil.copy(file, folder)
    shutil.copy(tiny_model / "config.json", folder)
    return folder


def set_template(folder: Path, template: str | None) -> None:
    for file in folder.glob("*.jinja"):
        file.unlink()
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("chat_template", None)
    if template is not None:
        config["chat_template"] = template
    path.write_text(json.dumps(config))


def test_a_prompt_is_the_template_around_the_instruction(tiny_model: Path) -> None:
    prompter = Prompter(tiny_model, {})
    assert prompter.prompt_ids("3 + 4", "{problem}") == [11, 4, 12, 3]
    assert prompter.prompt_ids("3 + 4", "# {problem} , {problem}") == [6, 11, 4, 12, 7, 11, 4, 12, 3]


def test_a_problem_is_never_read_as_a_pattern(tiny_model: Path) -> None:
    prompter = Prompter(tiny_model, {})
    assert prompter.prompt_ids("{problem} {0}", "1 {problem} 2") == [9, 2, 2, 10, 3]


def test_the_systems_turn_stands_first(tiny_model: Path) -> None:
    prompter = Prompter(tiny_model, {"system": "5 #"})
    assert prompter.prompt_ids("3", "{problem}") == [13, 6, 3, 11, 3]


@pytest.mark.parametrize(("thinking", "ids"), [(None, [9]), (True, [10]), (False, [8])])
def test_thinking_is_told_to_templates_that_know_it(changed: Path, thinking: bool | None, ids: list[int]) -> None:
    set_template(changed, "{% if enable_thinking is not defined %}1{% elif enable_thinking %}2{% else %}0{% endif %}")
    assert Prompter(changed, {"thinking": thinking}).prompt_ids("3", "{problem}") == ids


def test_the_studys_own_template_stands_for_the_tokenizers(tiny_model: Path) -> None:
    template = "{% for m in messages %}# {{ m['content'] }} {% endfor %}"
    assert Prompter(tiny_model, {"template": template}).prompt_ids("3 + 4", "{problem}") == [6, 11, 4, 12]


def test_shots_stand_before_the_question(changed: Path) -> None:
    shots = [("1", "2"), ("3", "4")]
    _, ids = Prompter(changed, {"system": "#"}).rendered("5", "{problem} ,", shots)
    assert ids == [6, 3, 9, 7, 3, 10, 1, 11, 7, 3, 12, 1, 13, 7, 3]
    set_template(changed, None)
    assert Prompter(changed, {}).rendered("5", "{problem} ,", shots)[0] == "1 ,\n2\n\n3 ,\n4\n\n5 ,"


def test_without_a_template_the_prompt_is_the_instruction(changed: Path) -> None:
    set_template(changed, None)
    assert Prompter(changed, {"system": "5"}).prompt_ids("3", "# {problem}") == [6, 11]


def test_an_answer_ends_with_the_end_token_unless_it_was_cut(tiny_model: Path) -> None:
    prompter = Prompter(tiny_model, {})
    assert prompter.completion_ids("3 + 4 = 7") == [11, 4, 12, 3, 15, 1]
    assert prompter.completion_ids("3 + 4", ended=False) == [11, 4, 12]


def test_prompt_and_answer_are_one_conversation(tiny_model: Path) -> None:
    prompter = Prompter(tiny_model, {})
    turns = [{"role": "user", "content": "3 + 4"}, {"role": "assistant", "content": "7"}]
    whole = prompter.tokenizer.apply_chat_template(turns, tokenize=False)
    ids = prompter.tokenizer.encode(whole, add_special_tokens=False)
    assert prompter.prompt_ids("3 + 4", "{problem}") + prompter.completion_ids("7") == ids


def test_a_tokenizer_without_an_end_token_is_refused(changed: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = changed / name
        if path.exists():
            config = json.loads(path.read_text())
            config.pop("eos_token", None)
            path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the tokenizer of model names no end-of-sequence token"):
        Prompter(changed, {})
