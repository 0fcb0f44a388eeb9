"""The rollouts step from each source that is not served here: an API, a dataset's folder, a file; and preflight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from evals.engines import Completion, Sampling
from execution.context import Context
from execution.errors import UserError
from execution.store import write_json
from methods.data.batch import Rollout
from methods.data.view import group_means
from methods.objectives.offline_grpo import weights
from orchestrator.config.study import Study
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preflight import check
from orchestrator.planning.resolve import gather
from orchestrator.rollouts.build import build
from orchestrator.rollouts.dataset import read_table
from orchestrator.rollouts.sources.file import FileRollouts
from orchestrator.rollouts.sources.hub import HubRollouts, read_dataset
from orchestrator.rollouts.sources.openai import ApiRollouts
from orchestrator.rollouts.sources.sampled import SampledRollouts
from orchestrator.steps.rollouts import STATISTICS
from tests.chat_server import Reply, chat_server, completion
from tests.orchestrator.chat_models import qwen_thinking

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-secret-0123456789"
Maker = Callable[..., Study]
Writer = Callable[..., Path]
PROMPT = {
    "system": None, "template": None, "thinking": None, "max_prompt_tokens": 64, "max_answer_tokens": 64,
    "overlong": "drop",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def said() -> list[str]:
    """What the step tells while it runs."""
    return []


@pytest.fixture
def perform(
    tmp_path: Path, tiny_model: Path, said: list[str]
) -> Callable[..., tuple[list[dict[str, Any]], dict[str, Any]]]:
    """A function that runs the step of a source; returns the table and its statistics."""

    def perform(
        config: Mapping[str, Any], runtime: Mapping[str, Any], engine: Any = None, model: Path = tiny_model
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        folders = base, out, work = tmp_path / "base", tmp_path / "out", tmp_path / "work"
        for folder in folders:
            folder.mkdir(exist_ok=True)
        write_json(base / "base.json", {"folder": str(model), "name": "tiny"})
        build(
            Context(
                config=config, runtime=runtime, inputs={"base": base, "model": base}, out=out, work=work,
                keep=lambda: None, progress=said.append,
                parallel_map=lambda function, items: pytest.fail("nothing is shared out"),
                resources=lambda config, model: engine or pytest.fail("no engine is needed"),
            )
        )  # fmt: skip
        return read_table(out), json.loads((out / STATISTICS).read_text())

    return perform


def asked(folder: Path, url: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and where of a step that asks three problems of a file."""
    source = folder / "q.jsonl"
    rows = [{"question": f"{i} + 1", "answer": f"#### {i + 1}"} for i in range(3)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = ApiRollouts.model_validate(
        {"source": "openai", "base_url": url, "model": "a/teacher", "retries": 0, "table": {"heldout": 0}}
        | {"problems": {"task": "gsm8k", "source": str(source), "instruction": "{problem}"}, "samples": 2}
        | more
    )
    config = spec.model_dump() | {"prompt": PROMPT}
    return config, {"sources": [str(source)], **spec.model_dump()}


def right_or(wrong: Reply, on: Sequence[int]) -> Callable[[int, dict[str, Any]], Reply]:
    """Answers rightly, but for the requests numbered in ``on``."""

    def reply(number: int, body: dict[str, Any]) -> Reply:
        asked = body["messages"][-1]["content"]
        return wrong if number in on else completion(f"{asked} = # {int(asked.split()[0]) + 1}", usage=(4, 6))

    return reply


def test_a_teacher_behind_an_api(perform: Callable[..., Any], tmp_path: Path) -> None:
    with chat_server(right_or(completion("# 40", usage=(4, 2)), [1, 4])) as server:
        table, stats = perform(*asked(tmp_path, server.url, at_once=1, prices=[1.0, 2.0]))
    assert [r["problem"] for r in table] == ["0 + 1", "0 + 1", "1 + 1", "1 + 1", "2 + 1", "2 + 1"]
    assert [r["reward"] for r in table] == [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    assert {r["teacher"] for r in table} == {"a/teacher"}
    assert table[1]["completion"] == "# 40" and table[1]["completion_ids"][-1] == 1  # it ended by itself
    assert [r["answer"] for r in table[::2]] == ["1", "2", "3"]
    assert stats["api"] == {
        "answers": 6, "refused": 0, "prompt_tokens": 24, "completion_tokens": 4 * 6 + 2 * 2, "with_reasoning": 0,
    }  # fmt: skip
    assert stats["asked"] == "{problem}" and stats["source"] == "openai" and stats["dropped"] == {}
    assert stats["right_counts"] == [0, 2, 1] and stats["duplicates"] == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_the_teacher_may_be_asked_otherwise_than_the_students(perform: Callable[..., Any], tmp_path: Path) -> None:
    with chat_server(right_or(completion("x"), [])) as server:
        table, _ = perform(*asked(tmp_path, server.url))
        config, where = asked(tmp_path, server.url, instruction="{problem} +")
        (tmp_path / "work" / "answers.jsonl").unlink()
        other, stats = perform(config, where)
    assert stats["asked"] == "{problem} +" and server.texts()[-1].endswith("+")
    assert [r["prompt_ids"] for r in other] == [r["prompt_ids"] for r in table]


@pytest.mark.parametrize("reasoning", ["drop", "keep"])
def test_reasoning_told_apart(perform: Callable[..., Any], tmp_path: Path, reasoning: str) -> None:
    thought = completion("# 1", reasoning_content=" so 7 \n")
    with chat_server(lambda n, body: thought) as server:
        table, stats = perform(*asked(tmp_path, server.url, reasoning=reasoning))
    text = "<think>\nso 7\n</think>\n\n# 1" if reasoning == "keep" else "# 1"
    assert {r["completion"] for r in table} == {text}
    assert stats["api"]["with_reasoning"] == 6


def test_answers_that_did_not_end_are_dropped_by_reason(perform: Callable[..., Any], tmp_path: Path) -> None:
    replies: list[Reply] = [
        completion("# 1"), completion("# 1", "length"), completion("# 1", "content_filter"),
        completion(None, "tool_calls"), completion(""), (400, "no"),
    ]  # fmt: skip
    with chat_server(lambda n, body: replies[n]) as server:
        table, stats = perform(*asked(tmp_path, server.url, at_once=1))
    assert len(table) == 1
    assert stats["dropped"] == {
        "answer too long": 1, "ended by content_filter": 1, "ended by tool_calls": 1, "empty": 1,
        "refused by the teacher": 1,
    }  # fmt: skip


def test_a_long_reason_for_an_end_is_told_shortly_and_without_the_key(
    perform: Callable[..., Any], tmp_path: Path
) -> None:
    with chat_server(right_or(completion("# 1", f"a\n{KEY}" + "b" * 100), [1])) as server:
        _, stats = perform(*asked(tmp_path, server.url, at_once=1))
    assert stats["dropped"] == {f"ended by a [key]{'b' * 33}": 1}


def test_equal_answers_are_told_equally_however_they_came(perform: Callable[..., Any], tmp_path: Path) -> None:
    with chat_server(right_or(completion("x"), [])) as server:
        _, first = perform(*asked(tmp_path, server.url, at_once=1))
    (tmp_path / "work" / "answers.jsonl").unlink()
    with chat_server(lambda n, body: (503, "busy") if n == 0 else right_or(completion("x"), [])(n, body)) as server:
        config, where = asked(tmp_path, server.url, retries=1, prices=[1, 2])
        _, again = perform(config, where)
    assert again == first


def test_duplicates_are_dropped_where_the_table_says_so(perform: Callable[..., Any], tmp_path: Path) -> None:
    with chat_server(right_or(completion(" # 9 "), [1])) as server:
        config, where = asked(tmp_path, server.url, at_once=1, table={"heldout": 0, "duplicates": "drop"})
        table, stats = perform(config, where)
    assert [r["completion"] for r in table] == ["0 + 1 = # 1", " # 9 ", "1 + 1 = # 2", "2 + 1 = # 3"]
    assert stats["dropped"] == {"duplicate": 2} and stats["duplicates"] == 0


# --- datasets


def hub(**more: Any) -> dict[str, Any]:
    return HubRollouts.model_validate({"source": "hub", "name": "x"} | more).model_dump()


def read(folder: Path, **more: Any) -> list[tuple[str, str, str, float | None, str]]:
    rows, _ = read_dataset(str(folder), None, hub(**more))
    return [(r.problem, r.answer, r.completion, r.reward, r.teacher) for r in rows]


def refused(folder: Path, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_dataset(str(folder), None, hub(**more), more.get("draw"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


PLAIN = [{"problem": f"p{i}", "answer": str(i), "completion": f"It is {i}."} for i in range(4)]


def test_a_folders_files_and_splits(tmp_path: Path, write_rows: Writer) -> None:
    """JSONL, Parquet and CSV; splits as files and as folders below folders."""
    expected = [(r["problem"], r["answer"], r["completion"], None, "unnamed") for r in PLAIN]
    write_rows(tmp_path / "a" / "train.jsonl", PLAIN)
    write_rows(tmp_path / "a" / "test.jsonl", PLAIN[:1])
    assert read(tmp_path / "a") == expected
    assert read(tmp_path / "a", split="test") == expected[:1]
    assert read(tmp_path / "a", split="train[1:3]") == expected[1:3]
    (tmp_path / "b" / "data" / "test").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(PLAIN)
    pyarrow.parquet.write_table(table, tmp_path / "b" / "data" / "test" / "0.parquet")
    assert read(tmp_path / "b", split="test") == expected
    (tmp_path / "c").mkdir()
    pyarrow.csv.write_csv(table, tmp_path / "c" / "train.csv")
    assert read(tmp_path / "c") == expected


def test_columns_of_other_names_and_lists_of_completions(tmp_path: Path, write_rows: Writer) -> None:
    rows = [
        {"q": "1 + 1", "gold": 2, "outs": ["2", "3", None], "ok": [True, False, False], "who": ["a", "b", "b"], "x": 1},
        {"q": "2 + 1", "gold": 3, "outs": ["3"], "ok": [True], "who": ["a"], "x": 2},
    ]
    folder = write_rows(tmp_path / "d" / "train.jsonl", rows).parent
    columns = {"problem": "q", "completion": "outs", "answer": "gold", "reward": "ok", "teacher": "who"}
    assert read(folder, columns=columns) == [
        ("1 + 1", "2", "2", 1.0, "a"), ("1 + 1", "2", "3", 0.0, "b"), ("1 + 1", "2", "", 0.0, "b"),
        ("2 + 1", "3", "3", 1.0, "a"),
    ]  # fmt: skip
    assert {r[4] for r in read(folder, columns=columns | {"teacher": None, "reward": None})} == {"unnamed"}


def test_the_gold_is_the_completions_own_answer_where_there_is_no_column(tmp_path: Path, write_rows: Writer) -> None:
    """GSM8K's layout, and a solution that states no answer."""
    rows = [
        {"question": "Tom has 2 and gets 3.", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
        {"question": "And half?", "answer": "It is \\boxed{\\frac{1}{2}}."},
        {"question": "Why?", "answer": "Because."},
    ]
    folder = write_rows(tmp_path / "d" / "train.jsonl", rows).parent
    columns = {"problem": "question", "completion": "answer", "answer": None}
    found, dropped = read_dataset(str(folder), None, hub(columns=columns))
    assert [(r.problem_id, r.answer) for r in found] == [
        ("Tom has 2 and gets 3.", "5"), ("And half?", "\\frac{1}{2}"),
    ]  # fmt: skip
    assert dropped == {"without a final answer": 1} and found[0].completion == rows[0]["answer"]
    write_rows(tmp_path / "e" / "train.jsonl", rows[2:])
    assert "no completion states a final answer: name" in refused(tmp_path / "e", columns=columns)


def test_a_problem_with_two_golds_of_its_completions_is_left_out(tmp_path: Path, write_rows: Writer) -> None:
    texts = [("a", "It is \\boxed{1/2}."), ("b", "# 3"), ("a", "A: 0.5"), ("c", "A: 1"), ("c", "A: 2"), ("c", "No.")]
    folder = write_rows(tmp_path / "d" / "train.jsonl", [{"problem": p, "completion": c} for p, c in texts]).parent
    found, dropped = read_dataset(str(folder), None, hub(columns={"answer": None}))
    assert [(r.problem, r.answer) for r in found] == [("a", "1/2"), ("b", "3"), ("a", "0.5")]
    assert dropped == {"with two golds": 2, "without a final answer": 1}
    write_rows(tmp_path / "e" / "train.jsonl", [{"problem": p, "completion": c} for p, c in texts[3:]])
    assert "the completions of each problem state two final answers" in refused(
        tmp_path / "e", columns={"answer": None}
    )
    write_rows(
        tmp_path / "f" / "train.jsonl", [{"problem": "c", "completion": c, "answer": c[-1]} for _, c in texts[3:5]]
    )
    assert "problem_id c stands for two problems or answers" in refused(tmp_path / "f")


@pytest.mark.skipif("ORCHESTRATOR_DATA" not in os.environ, reason="reads GSM8K from the data folder")
def test_gsm8ks_own_solutions() -> None:
    """Against the gold that GSM8K marks in each solution's last line."""
    folder = str(Path(os.environ["ORCHESTRATOR_DATA"]) / "gsm8k")
    columns = {"problem": "question", "completion": "answer", "answer": None}
    rows, dropped = read_dataset(folder, None, hub(split="test", columns=columns))
    assert len(rows) == 1319 and not dropped
    golds = [row.completion.rpartition("####")[2].strip().replace(",", "") for row in rows]
    assert [row.answer.replace(",", "") for row in rows] == golds


def test_what_is_wrong_with_a_dataset_is_said_in_a_line(tmp_path: Path, write_rows: Writer) -> None:
    folder = write_rows(tmp_path / "d" / "train.jsonl", PLAIN).parent
    assert refused(folder, columns={"problem": "question"}) == (
        f"rollouts.columns.problem: {folder} has no column question; it has problem, answer, completion"
    )
    assert "null takes each completion's own final answer" in refused(folder, columns={"answer": "gold"})
    line = refused(folder, split="test")
    assert line.startswith(f"rollouts.name: {folder}: cannot load split test (") and "train" in line
    line = refused(folder, config="main")
    assert line.startswith(f"rollouts.name: {folder}: cannot load split train of main (")
    assert refused(folder, draw=5) == f"rollouts.draw: 5 problems asked for, {folder} holds 4"
    bad = write_rows(tmp_path / "e" / "train.jsonl", [*PLAIN, PLAIN[0] | {"problem": " "}]).parent
    assert refused(bad) == f"{bad}[4]: problem is empty"
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "train.jsonl").write_text('{"problem": "a"}\nno json\n')
    assert refused(tmp_path / "f").startswith(f"rollouts.name: {tmp_path / 'f'}: cannot load split train (")
    (tmp_path / "g").mkdir()
    assert "cannot load split train" in refused(tmp_path / "g")


def test_a_hub_out_of_reach_is_said_in_a_line() -> None:
    program = """
from orchestrator.rollouts.sources.hub import HubRollouts, read_dataset
read_dataset("some/dataset", "0" * 40, HubRollouts(source="hub", name="some/dataset").model_dump())
"""
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=offline, capture_output=True, text=True)
    line = done.stderr.strip().splitlines()[-1]
    assert "UserError: rollouts.name: some/dataset: cannot load split train (" in line
    assert line.endswith("): name a local folder, or go online")


@pytest.mark.parametrize(
    ("row", "columns", "line"),
    [
        ({"reward": [1.0]}, {"reward": "reward"}, "2 completions and 1 rewards: give each its own"),
        ({"reward": 1.0}, {"reward": "reward"}, "2 completions and one reward: the reward must be a list too"),
        ({"who": ["a"]}, {"teacher": "who"}, "2 completions and 1 teachers: give each its own"),
        ({}, {"answer": None}, "columns.answer: null needs one completion per row, and this is a list"),
    ],
)
def test_lists_at_odds_are_named(
    tmp_path: Path, write_rows: Writer, row: dict[str, Any], columns: dict[str, Any], line: str
) -> None:
    rows = [{"problem": "a", "answer": "1", "completion": ["1", "2"], **row}]
    folder = write_rows(tmp_path / "d" / "train.jsonl", rows).parent
    assert refused(folder, columns=columns).startswith(f"{folder}[0]: {line}")


def test_the_step_from_a_dataset(perform: Callable[..., Any], tmp_path: Path, write_rows: Writer) -> None:
    rows = [
        {"problem": f"{i} + 1", "answer": str(i + 1), "completion": [f"# {i + 1}", f"# {i}", " "], "reward": [1, 1, 0]}
        for i in range(4)
    ]
    folder = write_rows(tmp_path / "d" / "train.jsonl", rows).parent
    where = {"path": str(folder), "revision": None}
    config = hub(columns={"reward": "reward"}, draw=3, table={"heldout": 0}) | {"prompt": PROMPT}
    table, stats = perform(config, where)
    assert len(table) == 6 and {r["reward"] for r in table} == {1.0} and len({r["group"] for r in table}) == 3
    assert stats["grader_agreement"] == {"rows": 9, "agreed": 6}  # the second and the given reward are at odds
    assert stats["dropped"] == {"empty": 3} and stats["source"] == "hub"
    table, stats = perform(config | {"rewards": "graded"}, where)
    assert [r["reward"] for r in table] == [1.0, 0.0] * 3
    own = hub(columns={"answer": None, "completion": "answer"}, table={"heldout": 0}) | {"prompt": PROMPT}
    write_rows(
        tmp_path / "d" / "train.jsonl", [*rows, {"problem": "x", "answer": "no", "completion": [], "reward": []}]
    )
    table, stats = perform(own, where)
    assert [r["completion"] for r in table] == ["1", "2", "3", "4"] and stats["dropped"] == {
        "without a final answer": 1
    }


def given_file(folder: Path, rows: list[dict[str, Any]], **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and where of a step that reads these rows from a file."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"source": "file", "path": str(path), "table": {"heldout": 0}} | more
    return FileRollouts.model_validate(fields).model_dump() | {"prompt": PROMPT}, {"path": str(path)}


def test_what_is_too_long_still_counts_in_its_groups_mean(perform: Callable[..., Any], tmp_path: Path) -> None:
    """Rewards 1, 0, 0, 0 of which the wrong ones are too long: A = 1 - 1/4 + b, not b."""
    lengths = {1: 1, 0: 70}
    rows = [
        {"problem": "3 + 4", "answer": "7", "completion": "# " * lengths[r] + str(k), "reward": r, "teacher": "t"}
        for k, r in enumerate((1, 0, 0, 0))
    ]
    table, stats = perform(*given_file(tmp_path, rows))
    assert [r["reward"] for r in table] == [1.0] and stats["dropped"] == {"answer too long": 3}
    means = group_means([Rollout([3], [4], r["reward"], r["group"], group_mean=r["group_mean"]) for r in table])
    assert weights(table[0]["reward"], means[0], form="study", bias=0.1) == pytest.approx(0.85)


def test_two_spellings_of_a_problem_are_one_group(perform: Callable[..., Any], tmp_path: Path) -> None:
    rows = [
        {"problem": problem, "answer": "7", "completion": f"# {k}", "reward": k % 2}
        for k, problem in enumerate(["What is 3 + 4", "what is 3 + 4", "8 + 9", "8  + 9 "])
    ]
    table, stats = perform(*given_file(tmp_path, rows, table={"heldout": 0.5}))
    assert [r["group"] for r in table] == [0, 0, 1, 1] and stats["problems"] == 2 and stats["joined"] == 2
    assert table[0]["prompt_ids"] == table[1]["prompt_ids"] and table[2]["split"] == table[3]["split"]
    assert stats["groups"] == {"mixed": 2, "all_right": 0, "all_wrong": 0}


@pytest.mark.parametrize("cut", ["drop", "keep"])
def test_right_rows_cut_before_their_answer(perform: Callable[..., Any], tmp_path: Path, cut: str) -> None:
    """Of completions cut to 8 tokens: one that says its answer first, one last, and a wrong one."""
    texts = [("# 7 " + ", " * 9, 1), (", " * 9 + "# 7", 1), (", " * 9 + "# 8", 0), ("# 7", 1)]
    rows = [{"problem": "3 + 4", "answer": "7", "completion": text, "reward": r} for text, r in texts]
    config, where = given_file(tmp_path, rows, table={"heldout": 0, "cut": cut})
    short = {"prompt": PROMPT | {"max_answer_tokens": 8, "overlong": "truncate"}}
    table, stats = perform(config | short, where)
    kept = [0, 1, 2, 3] if cut == "keep" else [0, 2, 3]
    assert [r["completion"] for r in table] == [texts[i][0] for i in kept]
    assert stats["dropped"] == ({"answer cut": 3} if cut == "keep" else {"answer cut": 2, "cut before its answer": 1})
    assert {r["group_mean"] for r in table} == {0.75}


def test_what_was_mended_and_what_parts_is_counted(perform: Callable[..., Any], tmp_path: Path) -> None:
    texts = ["# 7", "# 7 <eos>", "# 7 <eos> 8", " <eos>"]
    rows = [{"problem": f"3 + {k}", "answer": "7", "completion": t, "reward": 1} for k, t in enumerate(texts)]
    rows.append({"problem": "5 <eos> 6", "answer": "7", "completion": "# 7", "reward": 1})
    table, stats = perform(*given_file(tmp_path, rows))
    assert [r["completion_ids"] for r in table] == [[6, 15, 1], [6, 15, 1], [6, 15, 2, 16, 1], [6, 15, 1]]
    assert table[3]["prompt_ids"] == [13, 2, 14, 3], "the text of a control token is no control token"
    assert stats["tokens"] == {
        "rows": 5, "parted": 0, "first": None, "as_drawn": 0, "end": "<eos>",
        "mended": {"control tokens in a text, kept as text": 2, "end of turn was there already": 2},
    }  # fmt: skip
    assert stats["dropped"] == {"empty": 1}


def test_where_a_row_parts_from_the_template_is_shown(
    perform: Callable[..., Any], tmp_path: Path, said: list[str]
) -> None:
    rows = [{"problem": f"3 + {k}", "answer": "7", "completion": "# 7", "reward": 1} for k in range(2)]
    config, where = given_file(tmp_path, rows)
    template = (
        "{% for m in messages %}{{ m['content'] }} {% if m['role'] == 'user' %}= {% else %}<eos>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}+ {% endif %}"
    )
    _, stats = perform(config | {"prompt": PROMPT | {"template": template}}, where)
    line = "3 + 0: behind '3 + 0 =' the template writes '# 7 <eos>', and '+ # 7 <eos>' is trained on"
    assert (stats["tokens"]["parted"], stats["tokens"]["first"]) == (2, line)
    assert f"2 of 2 rows have other tokens than the chat template writes; {line}" in said


def test_a_row_longer_than_the_base_is_known_when_the_table_is_made(
    perform: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [
        {"problem": "3 " * n, "answer": "7", "completion": "# " * k + "7", "reward": 1}
        for n, k in ((1, 1), (40, 230), (1, 254), (300, 1))
    ]
    config, where = given_file(tmp_path, rows)
    table, stats = perform(config | {"prompt": PROMPT | {"max_prompt_tokens": 400, "max_answer_tokens": 400}}, where)
    assert len(table) == 1 and stats["dropped"] == {"longer than the base's 256 positions": 3}


class Drawn:
    """An engine's answers: token ids that the text itself would not get."""

    def generate(self, prompts: Sequence[Any], sampling: Sampling, adapter: None) -> list[list[Completion]]:
        assert sampling.stop == (1,)
        return [[Completion((6, 2, 15, 1), "# 7", "stop"), Completion((6, 15), "# 7", "length")] for _ in prompts]


def test_rows_of_the_own_engine_keep_the_tokens_that_were_drawn(
    perform: Callable[..., Any], tmp_path: Path, tiny_model: Path
) -> None:
    source = tmp_path / "q.jsonl"
    source.write_text('{"question": "3 + 4", "answer": "#### 7"}\n')
    spec = SampledRollouts.model_validate(
        {"source": "vllm", "samples": 2, "table": {"heldout": 0}}
        | {"problems": {"task": "gsm8k", "source": str(source), "instruction": "{problem}"}}
    )
    config = spec.model_dump() | {"prompt": PROMPT | {"overlong": "truncate"}, "engine": {}}
    table, stats = perform(config, {"sources": [str(source)], "engine": {}}, engine=Drawn())
    assert [r["completion_ids"] for r in table] == [[6, 2, 15, 1], [6, 15]]
    assert stats["tokens"]["as_drawn"] == 1 and stats["tokens"]["parted"] == 0


class Thinking:
    """An engine whose model goes on with the thought that the prompt began: one ends, one does not."""

    def generate(self, prompts: Sequence[Any], sampling: Sampling, adapter: None) -> list[list[Completion]]:
        texts = ["So.\n</think>\n\nThe answer is 7.", "So \\boxed{7} perhaps"]
        return [[Completion((3, 4), text, "stop") for text in texts] for _ in prompts]


def test_a_thought_that_the_prompt_began_and_that_never_ends_is_no_answer(
    perform: Callable[..., Any], tmp_path: Path
) -> None:
    source = tmp_path / "q.jsonl"
    source.write_text('{"question": "3 + 4", "answer": "#### 7"}\n')
    spec = SampledRollouts.model_validate(
        {"source": "vllm", "samples": 2, "table": {"heldout": 0}}
        | {"problems": {"task": "gsm8k", "source": str(source), "instruction": "{problem}"}}
    )
    config = spec.model_dump() | {"prompt": PROMPT, "engine": {}}
    where = {"sources": [str(source)], "engine": {}}
    table, _ = perform(config, where, engine=Thinking(), model=qwen_thinking(tmp_path / "model"))
    assert [r["reward"] for r in table] == [1.0, 0.0]


# --- before anything starts


def test_a_folders_rows_are_looked_at_beforehand(make_study: Maker, tmp_path: Path, write_rows: Writer) -> None:
    def study(folder: str, *more: str) -> Study:
        source = f"rollouts={{source: hub, name: {tmp_path / folder}, columns: {{reward: reward}}}}"
        return make_study(source, "replicas=[]", "sweep=null", "analysis={}", *more)

    mixed = [p | {"problem": "p", "answer": "0", "reward": i % 2} for i, p in enumerate(PLAIN)]
    write_rows(tmp_path / "mixed" / "train.jsonl", mixed)
    check(study("mixed"))
    write_rows(tmp_path / "wrong" / "train.jsonl", [row | {"reward": 0} for row in mixed])
    with pytest.raises(UserError, match=r"^methods\.rft: no rollout is right"):
        check(study("wrong"))
    write_rows(tmp_path / "asked" / "test.jsonl", [{"question": " P ", "answer": "#### 1"}])
    task = f"evaluation.tasks=[{{task: gsm8k, source: {tmp_path / 'asked'}}}]"
    with pytest.raises(UserError, match="1 problems of the task gsm8k are also in the rollouts"):
        check(study("mixed", task))
    check(make_study("rollouts={source: hub, name: some/dataset}"))  # which is not fetched here


def test_a_folder_and_a_pinned_commit_are_where_the_rows_are_read(
    make_study: Maker, tmp_path: Path, write_rows: Writer
) -> None:
    def step(name: str, revision: str = "main") -> Any:
        study = make_study(f"rollouts={{source: hub, name: {name}, revision: '{revision}'}}")
        facts = gather(study, tmp_path / "none", online=False)
        return next(s for s in make_plan(study, facts) if s.kind.name == "rollouts")

    folder = write_rows(tmp_path / "d" / "train.jsonl", PLAIN).parent
    first = step(str(folder))
    assert first.runtime == {"path": str(folder), "revision": None} and len(first.config["content"]) == 64
    write_rows(tmp_path / "d" / "train.jsonl", PLAIN[:2])
    assert step(str(folder)).key != first.key
    pinned = step("some/dataset", "0" * 40)
    assert pinned.runtime == {"path": "some/dataset", "revision": "0" * 40}


@pytest.mark.parametrize(
    ("rule", "rows", "line"),
    [
        (
            "same_teacher",
            [("a", "t", 1), ("a", "u", 0)],
            "no teacher has both a right and a wrong rollout of one problem",
        ),
        ("same_teacher", [("a", "t", 1), ("a", "u", 0), ("b", "t", 0)], "no teacher has both"),
        ("same_teacher", [("a", "t", 1), ("a", "t", 0)], None),
        ("one", [("a", "t", 1), ("a", "u", 0)], None),
        ("one", [("a", "t", 1), ("a", "u", 0.5)], "needs rewards 0 and 1, the rollouts have 0.5"),
        ("best_worst", [("a", "t", 0.75), ("a", "u", 0.5)], None),
        ("best_worst", [("a", "t", 0.5), ("a", "u", 0.5), ("b", "u", 1)], "no problem has rollouts of unlike reward"),
    ],
)
def test_pair_rules_are_known_beforehand(
    make_study: Maker, tmp_path: Path, write_rows: Writer, rule: str, rows: list[Any], line: str | None
) -> None:
    given = [{"problem": p, "answer": "1", "completion": "1", "teacher": t, "reward": r} for p, t, r in rows]
    path = write_rows(tmp_path / "r.jsonl", given)
    source = f"rollouts={{source: file, path: {path}, table: {{pair_rule: {rule}}}}}"
    study = make_study(source, "methods={dpo: }", "replicas=[]", "sweep=null", "analysis={}")
    if line is None:
        check(study)
    else:
        with pytest.raises(UserError, match=line):
            check(study)


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("base_url: 'ftp://a/v1'", "rollouts: base_url must be http"),
        ("base_url: 'http://me:secret@a/v1'", "must not carry a secret"),
        ("base_url: 'http://me:secret@a:b/v1'", "base_url is not an address"),
        ("base_url: 'http://a/v1', body: {max_tokens: 3}", "rollouts.body: max_tokens is set by the study's own"),
        ("base_url: 'http://a/v1', body: {when: 2024-01-01}", "rollouts: body is not JSON"),
        ("base_url: 'http://a/v1', max_cost: 3", "rollouts: max_cost needs prices"),
        ("base_url: 'http://a/v1', key: secret", "rollouts: key names the environment variable with the key"),
        ("base_url: 'http://a/v1', reasoning: maybe", "rollouts.reasoning"),
    ],
)
def test_a_bad_teacher_is_refused_in_a_line(make_study: Maker, field: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        make_study(f"rollouts={{source: openai, model: m, problems: {{task: arithmetic}}, {field}}}")
    assert line in str(caught.value) and "\n" not in str(caught.value)
    assert ": secret" not in str(caught.value) and "me:secret" not in str(caught.value)


def test_where_and_how_fast_is_no_part_of_what_is_asked(make_study: Maker, tmp_path: Path) -> None:
    def step(**more: Any) -> Any:
        fields = {"base_url": "http://a/v1", "model": "m"} | more
        told = ", ".join(f"{k}: {json.dumps(v)}" for k, v in fields.items())
        study = make_study(
            f"rollouts={{source: openai, problems: {{task: arithmetic, split: train, draw: 9}}, {told}}}"
        )
        return next(s for s in make_plan(study, gather(study, tmp_path, online=False)) if s.kind.name == "rollouts")

    first = step()
    how = {"key": None, "prices": [1, 2], "max_cost": 3, "at_once": 1, "retries": 0, "timeout": 1, "shard": 3}
    assert step(**how).key == first.key and step(**how).runtime["max_cost"] == 3
    for other in ({"base_url": "http://b/v1"}, {"model": "n"}, {"body": {"a": 1}}, {"reasoning": "keep"}, {"seed": 1}):
        assert step(**other).key != first.key
    assert "key" not in first.config and "engine" not in first.config


TEACHER = """
rollouts:
  source: openai
  base_url: {url}
  model: teacher
  problems: {{task: arithmetic, split: train, draw: 4, seed: 0, instruction: null, settings: {{}}}}
  samples: 2
"""


@pytest.fixture
def orchestrator(study_file: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs the small study with a teacher at an address, up to its rollouts' failure."""

    def call(url: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        text = study_file.read_text()
        before, _, after = text.partition("rollouts:\n")
        path = tmp_path / "asked.yaml"
        path.write_text(before + TEACHER.format(url=url) + after[after.index("training:") :])
        given = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"} | {"OPENAI_LOG": "debug"} | environment
        out = str(tmp_path / "run")
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", "run", str(path), "--serial", "--out", out, *words],
            cwd=ROOT, env=given, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return call


def test_a_missing_key_is_said_before_anything_starts(orchestrator: Callable[..., Any], tmp_path: Path) -> None:
    done = orchestrator("http://127.0.0.1:9/v1")
    assert done.returncode == 2
    assert done.stderr.strip().startswith(
        "error: rollouts.key: the environment variable OPENAI_API_KEY is not set here: export the key in it"
    )
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file()]


def test_the_key_is_written_nowhere(orchestrator: Callable[..., Any], tmp_path: Path) -> None:
    """The server takes three requests and then echoes the key in its refusal, the client's own log at its loudest."""

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number < 3:
            return completion("A: 3")
        return 401, {"error": {"message": f"{KEY} is no key, Bearer {KEY}"}}

    with chat_server(reply) as server:
        done = orchestrator(server.url, "--set", "rollouts.at_once=1", OPENAI_API_KEY=KEY)
    assert done.returncode == 1
    assert (
        "rollouts/openai: FAILED: the teacher at" in done.stdout and "401: [key] is no key, Bearer [key]" in done.stdout
    )
    assert "1 of 4 problems are answered and kept" in done.stdout
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert any(p.name == "answers.jsonl" for p in files) and any(p.name == "report.html" for p in files)
    assert [p for p in files if KEY.encode() in p.read_bytes()] == []
    assert KEY not in done.stdout and KEY not in done.stderr
    assert "HTTP Response: POST 401" in done.stderr, "the client did log"
