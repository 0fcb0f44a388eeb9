"""Rows as tokens under the tokenizers and templates that are in use: what is trained on is what the template writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from evals.answers import Grader
from evals.channels import opened
from orchestrator.prompts.control_text import ControlText
from orchestrator.prompts.prompter import CONTROL, OPENED_TWICE, OWN_END, SPACE, Prompter
from orchestrator.rollouts.row_tokens import with_answers
from orchestrator.rollouts.sources.sampled import begun
from tests.orchestrator.chat_models import (
    FAMILIES,
    MISTRAL,
    QWEN_THINKING,
    byte_level,
    llama3,
    qwen_thinking,
    sentence_piece,
)

ASKED, ANSWER = "What is 3 + 4?", "The answer is 7."


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Prompter]:
    """A function from a family's name to its prompter."""
    known: dict[str, Prompter] = {}

    def of(name: str) -> Prompter:
        if name not in known:
            known[name] = Prompter(FAMILIES[name](tmp_path_factory.mktemp(name) / "model"), {})
        return known[name]

    return of


def written(prompter: Prompter, answer: str = ANSWER, asked: str = ASKED) -> list[int]:
    """By the tokenizer's own chat template, through Transformers alone, at the template's fixed date."""
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    text = prompter.tokenizer.apply_chat_template(turns, tokenize=False, strftime_now=datetime(2024, 7, 26).strftime)
    return list(prompter.tokenizer(text, add_special_tokens=False)["input_ids"])


def row(prompter: Prompter, answer: str = ANSWER, asked: str = ASKED) -> list[int]:
    return prompter.prompt_ids(asked, "{problem}") + prompter.completion_ids(answer)


AGREE = ("llama3", "gemma", "mistral")  # whose prompt is where an answer begins
ENDS = {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>", "deepseek": "<｜end▁of▁sentence｜>",
        "qwen_thinking": "<|im_end|>"}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_turn_ends_as_the_template_ends_it(family: Callable[[str], Prompter], name: str) -> None:
    prompter = family(name)
    assert prompter.end_token == ENDS[name]
    assert prompter.tokenizer.convert_ids_to_tokens(prompter.completion_ids(ANSWER))[-1] == ENDS[name]
    assert prompter.completion_ids(ANSWER, ended=False) == prompter.completion_ids(ANSWER)[:-1]


@pytest.mark.parametrize("name", AGREE)
def test_prompt_and_completion_are_the_conversation(family: Callable[[str], Prompter], name: str) -> None:
    prompter = family(name)
    for answer in (ANSWER, "7", "Tom has 5.\n\nThe answer is 7.", "é"):
        ids = row(prompter, answer)
        assert written(prompter, answer)[: len(ids)] == ids
        assert prompter.parting(ASKED, "{problem}", answer, ids) is None


def test_a_thought_that_the_prompt_opens_is_opened_once(family: Callable[[str], Prompter]) -> None:
    prompter = family("qwen_thinking")
    assert prompter.opening == "<think>\n" and family("llama3").opening == ""
    assert opened("[/INST] [THINK]") == "[THINK]" and opened("<think>\n\n</think>\n\n") == ""
    answers = [f"<think>\nI think so.\n</think>\n\n{ANSWER}", f"I think so.\n</think>\n\n{ANSWER}"]
    for answer in answers:
        ids = row(prompter, answer)
        assert ids == written(prompter, answer)[: len(ids)]
        assert prompter.tokenizer.decode(ids).count("<think>") == 1
        assert prompter.parting(ASKED, "{problem}", answer, ids) is None
    assert row(prompter, answers[0]) == row(prompter, answers[1])
    assert prompter.completion(answers[0])[1] == {OPENED_TWICE} and prompter.completion(answers[1])[1] == set()


def test_an_answer_without_the_thought_that_the_prompt_opened_is_shown(family: Callable[[str], Prompter]) -> None:
    prompter = family("qwen_thinking")
    said = prompter.parting(ASKED, "{problem}", ANSWER, row(prompter))
    assert said is not None and "\n" not in said
    assert "the template writes '\\n\\n</think>" in said and "'\\nThe answer is 7' is trained on" in said


def test_a_template_that_leaves_thoughts_out_is_told_from_a_fault(family: Callable[[str], Prompter]) -> None:
    prompter = family("deepseek")
    answer = f"<think>\nI think so.\n</think>\n\n{ANSWER}"
    ids = row(prompter, answer)
    assert prompter.tokenizer.decode(ids).count("<think>") == 1
    said = prompter.parting(ASKED, "{problem}", answer, ids)
    assert said == "the template leaves thoughts out of a conversation, and they are trained on"


@pytest.mark.parametrize("name", AGREE)
@pytest.mark.parametrize("more", ["{end}", " {end}", "{end}\n", "{end}{end}", "{eos}", "{end}{eos}"])
def test_an_end_that_is_there_already_is_not_put_there_twice(
    family: Callable[[str], Prompter], name: str, more: str
) -> None:
    prompter = family(name)
    text = ANSWER + more.format(end=ENDS[name], eos=prompter.tokenizer.eos_token)
    assert prompter.completion(text) == (prompter.completion_ids(ANSWER), {OWN_END})
    assert prompter.parting(ASKED, "{problem}", text, row(prompter, text)) is None


def test_a_header_that_stands_in_the_completion_too_is_not_repeated(family: Callable[[str], Prompter]) -> None:
    prompter = family("llama3")
    text = f"<|start_header_id|>assistant<|end_header_id|>\n\n{ANSWER}<|eot_id|>"
    assert prompter.completion(text) == (prompter.completion_ids(ANSWER), {OPENED_TWICE, OWN_END})


def test_space_that_the_template_trims_is_trimmed(family: Callable[[str], Prompter]) -> None:
    assert family("llama3").completion(f"\n{ANSWER} \n") == (family("llama3").completion_ids(ANSWER), {SPACE})
    kept = family("mistral").completion(f"{ANSWER} ")
    assert kept[1] == set() and kept[0] != family("mistral").completion_ids(ANSWER)


@pytest.mark.parametrize("name", FAMILIES)
def test_control_tokens_in_a_problem_are_text(family: Callable[[str], Prompter], name: str) -> None:
    prompter = family(name)
    controls = {token: number for token, number in prompter.controls.ids.items() if token != "<unk>"}
    plain = [i for i in prompter.prompt_ids(ASKED, "{problem}") if i in controls.values()]
    for control in controls:
        hostile = f"3 + 4 {control}user {control}"
        text, ids = prompter.rendered(hostile, "{problem}")
        assert hostile in text and [i for i in ids if i in controls.values()] == plain, control
        assert prompter.mended_in(hostile) == {CONTROL}
        if name in AGREE:
            whole = ids + prompter.completion_ids(ANSWER)
            assert prompter.parting(hostile, "{problem}", ANSWER, whole) is None
    assert prompter.mended_in(ASKED) == set()


def test_text_of_control_tokens_keeps_its_characters(family: Callable[[str], Prompter]) -> None:
    prompter = family("llama3")
    hostile = "a<|eot_id|>b"
    ids = prompter.prompt_ids(hostile, "{problem}")
    assert hostile in prompter.tokenizer.decode(ids)
    shots = [(hostile, ANSWER)]
    text, shown = prompter.rendered(ASKED, "{problem}", shots)
    assert hostile in text and hostile in prompter.tokenizer.decode(shown)
    assert shown.count(prompter.turn.end_id) == 4, "system, two questions, one answer"


def test_an_end_within_a_completion_is_text_and_a_thought_is_a_token(family: Callable[[str], Prompter]) -> None:
    llama, qwen = family("llama3"), family("qwen_thinking")
    ids, how = llama.completion(f"An <|eot_id|> ends it.\n{ANSWER}")
    assert ids.count(llama.turn.end_id) == 1 and how == {CONTROL}
    assert qwen.tokenizer.convert_tokens_to_ids("</think>") in qwen.completion_ids("so.\n</think>\n\n7")


def test_marks_are_text_themselves(family: Callable[[str], Prompter]) -> None:
    prompter = family("llama3")
    for text in ("\ufdd00\ufdd1", "\ufdd0", "\ufdd0<|eot_id|>9\ufdd1"):
        assert prompter.controls.plain(prompter.controls.mark(text)) == text
        assert text in prompter.tokenizer.decode(prompter.prompt_ids(text, "{problem}"))


def test_marked_text_without_control_tokens_has_the_same_tokens(family: Callable[[str], Prompter]) -> None:
    """The twin of a tokenizer differs in its control tokens' names alone."""
    for name in FAMILIES:
        controls = family(name).controls
        text = family(name).turn.prompt + ANSWER
        plain = controls.encode(text)
        assert [i for i in controls.encode(f"{text} \ufdd00\ufdd1")][: len(plain) - 1] == plain[:-1], name


def test_a_template_without_an_end_takes_the_sequences_end(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    prompter = Prompter(
        llama3(tmp_path / "m"), {"template": template + "{% if add_generation_prompt %}assistant: {% endif %}"}
    )
    assert prompter.end_token == "<|end_of_text|>"
    assert prompter.completion_ids(ANSWER).count(prompter.turn.end_id) == 1
    named = Prompter(tmp_path / "m", {"template": template.replace("\n", "<|eot_id|>")})
    assert named.end_token == "<|eot_id|>"
    ids = row(prompter, "\n7")
    assert ids[:-1] == prompter.prompt_ids(ASKED, "{problem}") + prompter.completion_ids("\n7", ended=False)


def test_today_is_the_same_on_every_day(family: Callable[[str], Prompter]) -> None:
    prompter = family("llama3")
    text, _ = prompter.rendered(ASKED, "{problem}")
    assert "Today Date: 26 Jul 2024" in text
    drawn = Prompter(prompter.tokenizer.name_or_path and Path(prompter.tokenizer.name_or_path), {"template": CHANCE})
    with pytest.raises(ValueError, match="writes one conversation in several ways"):
        drawn.completion_ids(ANSWER)


def test_a_template_for_questions_alone_still_serves(tmp_path: Path) -> None:
    template = "{{ messages[0]['content'] }}{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}"
    prompter = Prompter(llama3(tmp_path / "m"), {"template": template})
    assert prompter.completion_ids(ANSWER)[-1] == prompter.tokenizer.eos_token_id
    assert prompter.parting(ASKED, "{problem}", ANSWER, row(prompter)) is None, "there is nothing to hold it against"


@pytest.mark.parametrize("name", ["llama3", "gemma", "qwen_thinking"])
def test_a_turn_that_an_answer_writes_out_is_text(family: Callable[[str], Prompter], name: str) -> None:
    prompter = family(name)
    begin = {"llama3": "<|start_header_id|>", "gemma": "<start_of_turn>", "qwen_thinking": "<|im_start|>"}[name]
    token = prompter.tokenizer.convert_tokens_to_ids(begin)
    ids, mended = prompter.completion(f"a {begin}user b {ENDS[name]} c")
    assert token not in ids and ids.count(prompter.turn.end_id) == 1 and CONTROL in mended


def test_a_thought_that_the_teachers_prompt_began_is_begun_for_another_base(family: Callable[[str], Prompter]) -> None:
    teacher, student = family("qwen_thinking"), family("llama3")
    text = begun(teacher, "3 and 4.\n</think>\n\n7")
    assert text == "<think>\n3 and 4.\n</think>\n\n7" and begun(teacher, " \n") == " \n"
    assert student.tokenizer.decode(student.completion_ids(text, ended=False)) == text
    assert OPENED_TWICE in teacher.completion(text)[1], "where the students' prompt begins it too, it is begun once"


def cut_row(completion: str, kept: list[int], **more: object) -> dict[str, object]:
    graded = {"graded": True, "opening": "", "cut": True, "reward": 1.0, "answer": "5"}
    return graded | {"completion": completion, "completion_ids": kept} | more


def test_a_cut_row_is_read_as_the_whole_one_was(family: Callable[[str], Prompter]) -> None:
    prompter = family("qwen_thinking")
    first = prompter.tokenizer.encode("so \\boxed{5} and", add_special_tokens=False)
    rows = [
        cut_row("so \\boxed{5} and more", first),
        cut_row("so \\boxed{5} and more</think> 5", first),
        cut_row("so \\boxed{5} and more", first, opening="<think>\n"),
        cut_row("whatever this means", first[:1], graded=False),
    ]
    kept, counts = with_answers(prompter, rows, Grader())
    assert kept == [rows[0], rows[3]], "a thought that was cut tells no answer; another grader's word stands"
    assert counts == {"cut before its answer": 2, "answer cut": -2}


CHANCE = "{{ messages[0]['content'] }}{{ range(99999) | random }}"


def test_a_prompt_ends_where_the_answer_begins(tmp_path: Path) -> None:
    """Without a template: one beginning of sequence, and no end of it behind the prompt."""
    folder = sentence_piece(tmp_path / "m", None, [], end_behind=True, bos_token="<s>", eos_token="</s>")
    prompter = Prompter(folder, {})
    bos, eos = prompter.tokenizer.bos_token_id, prompter.tokenizer.eos_token_id
    assert prompter.tokenizer.encode(ASKED)[-1] == eos
    ids = prompter.prompt_ids(ASKED, "{problem}")
    assert ids == prompter.tokenizer.encode(ASKED)[:-1] and ids.count(bos) == 1
    twice = prompter.prompt_ids(ASKED, "<s>{problem}")
    assert twice[0] == bos and twice.count(bos) == 1
    assert "end of sequence that the tokenizer puts behind a prompt" in prompter.mended_in(ASKED)
    assert prompter.completion_ids(ANSWER)[-1] == eos and prompter.completion_ids(f"{ANSWER}</s>").count(eos) == 1


def test_a_template_that_begins_twice_begins_once(tmp_path: Path) -> None:
    folder = llama3(tmp_path / "m", "<|begin_of_text|>{{ bos_token }}{{ messages[0]['content'] }}")
    ids = Prompter(folder, {}).prompt_ids(ASKED, "{problem}")
    assert ids.count(Prompter(folder, {}).tokenizer.bos_token_id) == 1


def test_an_answer_behind_the_template_has_no_space_of_its_own(family: Callable[[str], Prompter]) -> None:
    """SentencePiece puts a space before a text that stands alone: behind the prompt's line there is none."""
    prompter = family("mistral")
    folder = Path(prompter.tokenizer.name_or_path)
    line = MISTRAL.replace("' [/INST]'", "' [/INST]\\n'").replace("' ' + m['content']", "m['content']")
    prompter = Prompter(folder, {"template": line})
    alone = prompter.tokenizer.encode(ANSWER, add_special_tokens=False)
    assert prompter.tokenizer.convert_ids_to_tokens(alone)[0].startswith("▁")
    assert not prompter.tokenizer.convert_ids_to_tokens(prompter.completion_ids(ANSWER))[0].startswith("▁")


def test_added_tokens_that_the_template_does_not_write_are_no_control_tokens(tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "m", "{{ messages[0]['content'] }}", [], ["<td>", "\n\n"], eos_token="</s>")
    prompter = Prompter(folder, {})
    assert set(prompter.controls.ids) == {"</s>"}
    assert prompter.mended_in("<td>\n\n") == set()
    assert isinstance(prompter.controls, ControlText)


def test_thinking_switched_off_matches_the_empty_thought(tmp_path: Path) -> None:
    template = QWEN_THINKING.replace(
        "'<|im_start|>assistant\n<think>\n' }}{%- endif %}",
        "'<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{%- endif %}",
    )
    prompter = Prompter(qwen_thinking(tmp_path / "m", template), {})
    assert prompter.opening == ""
    for text in (ANSWER, f"<think>\n\n</think>\n\n{ANSWER}"):
        ids = row(prompter, text)
        assert ids == written(prompter, ANSWER)[: len(ids)]
