"""How a study says what is evaluated and how: what is unset falls back, and what cannot be is refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from execution.errors import UserError
from orchestrator.config.study import Study
from orchestrator.planning.preflight import check

Maker = Callable[..., Study]


def test_a_task_is_sampled_as_it_says_and_else_as_the_evaluation_says(make_study: Maker) -> None:
    study = make_study(
        "evaluation.temperature=0.6",
        "evaluation.samples=4",
        "evaluation.seed=9",
        "evaluation.top_p=0.9",
        "evaluation.tasks=[{task: arithmetic}, {task: arithmetic, name: greedy, samples: 1, temperature: 0}]",
    )
    both = [study.evaluation.sampling(task) for task in study.evaluation.tasks]
    assert both == [
        {"samples": 4, "temperature": 0.6, "top_p": 0.9, "max_tokens": 1024, "seed": 9},
        {"samples": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 1024, "seed": 0},  # what greedy answers need
    ]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["evaluation.tasks=[{task: arithmetic}, {task: arithmetic}]"], "arithmetic appears twice: give one"),
        (["evaluation.samples=2"], "2 samples at temperature 0 are equal"),
        (["evaluation.temperature=3"], "evaluation.temperature"),
        (["evaluation.temperature=true"], "must be a number, not true or false"),
        (["rollouts.temperature=2.1"], "rollouts.temperature: input should be less than or equal to 2"),
        (["evaluation.parts=0"], "evaluation.parts"),
        (["evaluation.tasks.0.shots={count: 0}"], "shots.count"),
        (["evaluation.tasks.0.name=a/b"], "tasks.0.name"),
        (["engine.adapters=swapped"], "swapped needs engine.kind=vllm"),
        (["engine={kind: vllm, adapters: swapped}"], "swapped needs engine.precision=float32"),
        (["prompt.template='{% if %}'"], "prompt.template is not a Jinja template (line 1"),
        (["evaluation.task=x"], "unknown key; did you mean tasks?"),
        (["evaluation.tasks.0.shots={count: 2, spilt: dev}"], "did you mean split?"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(make_study: Maker, overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as refused:
        make_study(*overrides)
    assert line in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["engine.max_model_len=300"], "engine.max_model_len: scratch has 256 positions, fewer than 300"),
        (["engine.max_model_len=200", "engine.adapters=lora", "adapter.rank=513"], "adapters up to rank 512, not 513"),
    ],
)
def test_what_vllm_would_refuse_hours_later_is_refused_at_once(
    make_study: Maker, overrides: list[str], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        check(make_study("engine.kind=vllm", *overrides))
    check(make_study("engine.kind=transformers", *overrides))


def test_a_local_bases_positions_are_read(make_study: Maker, tiny_model: Path) -> None:
    base = f"base={{kind: local, name: mine, path: {tiny_model}}}"
    check(make_study(base, "engine={kind: vllm, max_model_len: 256}"))
    with pytest.raises(
        UserError, match=r"mine has 256 positions, fewer than 257: set engine.max_model_len=256, or less"
    ):
        check(make_study(base, "engine={kind: vllm, max_model_len: 257}"))


@pytest.mark.parametrize("key", ["[sk-secret]", "{a: sk-secret}", "sk-secret!"])
@pytest.mark.parametrize("source", ["source: openai, ", ""])
def test_a_key_that_is_typed_into_a_study_is_not_told_back(make_study: Maker, key: str, source: str) -> None:
    with pytest.raises(UserError) as refused:
        make_study(f"rollouts={{{source}base_url: 'http://h/v1', model: m, key: {key}}}")
    assert "sk-secret" not in str(refused.value)


def test_a_template_may_use_what_chat_templates_use(make_study: Maker) -> None:
    template = "{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% break %}{% endfor %}"
    assert make_study(f"prompt.template='{template}'").prompt.template == template
