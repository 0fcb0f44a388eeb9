"""Compares the time of evaluation and grading with other ways to get the same verdicts.

    python benchmarks/evaluate.py [engines] [grading] [--harness PYTHON] [--rows N] [--sample N]

engines   base and six adapters of the default study's base, 200 problems each: one engine with the adapters swapped
          into its weights (ours, the canary before each), one engine with vLLM's LoRA, one engine per merged model
          (all in one process, and one process each), and lm-evaluation-harness with its Transformers backend, one
          adapter per run, if PYTHON has it (``--harness "env PYTHONPATH=FOLDER python"`` for a separate installation);
          then the time of an eighth adapter beyond its own tokens. Medians of three alternating rounds of the first 3
grading   10 000 generated rows, numbers and formulas, ten of them planted to hang: ours, with 5 s per row on all cores,
          and math-verify's own parse and verify, row by row in one process with its own time limits (5 s each), on a
          sample of the rows and on one hang of each kind, for at most 30 s

Without arguments all parts. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from evals.answers import Grader  # noqa: E402
from evals.engines import Sampling, open_engine, prepare  # noqa: E402
from evals.pool import cores  # noqa: E402

Row = tuple[str, str, bool | None]  # completion, gold, the correct verdict (None: math-verify hangs)

TINY = ROOT / "configs" / "tiny.yaml"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
ADAPTERS = ("sft", "rft", "dft", "rift", "offline_grpo", "dpo", "sft-order43")  # the last is the eighth model
OTHERS = {"lora": "vLLM's LoRA", "merged": "one engine per merged model"}
ROUNDS = 3
ENGINE: dict[str, Any] = {"precision": "float32", "max_model_len": 128}
SAMPLING = Sampling(max_tokens=40)
SHORT = ("base.steps=150", "training.steps=20", "evaluation.tasks.0.draw=200")
HARNESS = """
task: planted
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{rows}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["<eos>"], do_sample: false, max_gen_toks: {max_tokens}}}
filter_list:
  - name: number
    filter: [{{function: regex, regex_pattern: "#(-?[0-9]+)"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def engines(python: list[str]) -> None:
    """Print ratios of wall-clock times; everything runs in separate processes, whose start-up is included."""
    with tempfile.TemporaryDirectory(prefix="evaluate-") as temporary:
        folder = Path(temporary)
        asked = study(folder)
        print(f"engines   base and {len(asked['adapters']) - 1} adapters, {len(asked['problems'])} problems each")
        ways = ("swapped", *OTHERS)
        rounds = [[child(how, asked, folder) for how in ways] for _ in range(ROUNDS)]  # alternating, as the load varies
        (whole, ours, times), *others = map(_median, zip(*rounds, strict=True))
        right = [model["right"] for model in ours["models"]]
        speed = _speed(ours["models"])
        opening = f"of which {ours['open']:.1f} s to import and open the engine"
        print(f"          ours: {times}, {opening}; {speed:.0f} tokens/s", flush=True)
        for name, (seconds, result, times) in zip(OTHERS.values(), others, strict=True):
            rights = [model["right"] for model in result["models"]]
            _report(name, times, seconds / whole, rights, right, _speed(result["models"]))
        one_by_one, rights = 0.0, []
        for adapter in asked["adapters"]:
            seconds, result = child("merged", asked | {"adapters": [adapter]}, folder)
            one_by_one += seconds
            rights += [model["right"] for model in result["models"]]
        _report("the same, one process each", f"{one_by_one:.1f} s", one_by_one / whole, rights, right)
        _eighth(asked, folder)
        if subprocess.run([*python, "-c", "import lm_eval"], capture_output=True).returncode:
            print("          lm-evaluation-harness is not installed: pip install lm_eval, or set --harness")
            return
        seconds, rights = harness(asked, folder, python)
        _report("lm-evaluation-harness", f"{seconds:.1f} s", seconds / whole, rights, right)


def _median(timed: Iterable[tuple[float, dict[str, Any]]]) -> tuple[float, dict[str, Any], str]:
    """(seconds, result, text with all durations) of the run of median duration."""
    by_length = sorted(timed, key=lambda pair: pair[0])
    seconds, result = by_length[len(by_length) // 2]
    return seconds, result, f"{seconds:.1f} s (of {', '.join(f'{length:.1f}' for length, _ in by_length)})"


def _report(
    name: str, times: str, ratio: float, rights: list[int], right: list[int], speed: float | None = None
) -> None:
    same = "the same verdict counts" if rights == right else f"correct: {rights}, ours {right}"
    more = "" if speed is None else f"; {speed:.0f} tokens/s"
    print(f"          {name}: {times}, {ratio:.2f} x ours; {same}{more}", flush=True)


def _speed(models: list[dict[str, Any]]) -> float:
    return sum(model["tokens"] for model in models) / sum(model["generate"] for model in models)


def _eighth(asked: dict[str, Any], folder: Path) -> None:
    """Print the time of one more model in the open engine: canary, swap and grading, without its generation."""
    eighth = {"adapters": [*asked["adapters"], asked["eighth"]]}
    _, result = child("swapped", asked | eighth, folder)
    last = result["models"][-1]
    beyond = last["before"] + last["after"]
    print(
        f"          an eighth model: {beyond:.2f} s besides generation (canary and swap {last['before']:.2f}, "
        f"grading {last['after']:.2f}); generation {last['generate']:.2f} s (limit: 2 s besides generation)"
    )


def study(folder: Path) -> dict[str, Any]:
    """Run a shortened default study; returns its base, its adapters, its problems with their prompts."""
    words = [word for setting in SHORT for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", str(TINY), "--out", str(folder / "run"), *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout)
    run = folder / "run"
    problems = json.loads(next(run.glob("problems/*/problems.json")).read_text())["tasks"][0]["problems"]
    made = {p.name.rpartition("-")[0]: str(p / "adapter") for p in run.glob("train/*")}
    adapters = [made[name] for name in ADAPTERS]
    base = str(next(run.glob("base/*/model")))
    return {"base": base, "adapters": [None, *adapters[:-1]], "eighth": adapters[-1], "problems": problems}


def child(how: str, asked: dict[str, Any], folder: Path) -> tuple[float, dict[str, Any]]:
    """(wall-clock seconds, last line of output) of a process that generates by the method ``how``."""
    path = folder / "asked.json"
    path.write_text(json.dumps(asked))
    begun = time.perf_counter()
    words = [sys.executable, __file__, "--answer", how, str(path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return seconds, json.loads(done.stdout.strip().splitlines()[-1])


def answer(how: str, path: Path) -> None:
    """In the child process: print the results of the method ``how``."""
    asked = json.loads(path.read_text())
    result = engine_a_model(asked, path.parent) if how == "merged" else one_engine(asked, path.parent, how)
    print(json.dumps(result))


def one_engine(asked: dict[str, Any], folder: Path, adapters: str) -> dict[str, Any]:
    """One engine for all models, the canary before each, as a study's evaluation does it."""
    begun = time.perf_counter()
    prepare("vllm")
    from evals import canary

    base, prompts = Path(asked["base"]), [p["prompt_ids"] for p in asked["problems"]]
    engine = open_engine("vllm", base, max_lora_rank=16, adapters=adapters, **ENGINE)
    opened = time.perf_counter() - begun
    zero = canary.zero_adapter(folder / "zero", base, TARGETS)
    models = []
    with Grader() as grader:
        for path in asked["adapters"]:
            first = time.perf_counter()
            own = {} if path is None else {"adapter": Path(path)}
            rows = canary.check(engine, base, {"base": None, "zero": zero, **own}, prompts[:8])
            assert all(row["passed"] for row in rows), rows
            ready = time.perf_counter()
            completions = engine.generate(prompts, SAMPLING, own.get("adapter"))
            written = time.perf_counter()
            models.append(_graded(grader, completions, asked) | {"before": ready - first, "generate": written - ready})
            models[-1]["after"] = time.perf_counter() - written
    engine.close()
    return {"open": opened, "models": models}


def engine_a_model(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The usual way: merge each adapter into a copy of the base and open an engine on it."""
    prepare("vllm")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts, models = [p["prompt_ids"] for p in asked["problems"]], []
    with Grader() as grader:
        for path in asked["adapters"]:
            model = Path(asked["base"])
            if path is not None:
                model = folder / "merged"
                whole = AutoModelForCausalLM.from_pretrained(asked["base"], dtype=torch.float32)
                PeftModel.from_pretrained(whole, path).merge_and_unload().save_pretrained(model)
                AutoTokenizer.from_pretrained(asked["base"]).save_pretrained(model)
            engine = open_engine("vllm", model, **ENGINE)
            begun = time.perf_counter()
            completions = engine.generate(prompts, SAMPLING)
            models.append({"generate": time.perf_counter() - begun} | _graded(grader, completions, asked))
            engine.close()
    return {"models": models}


def _graded(grader: Grader, completions: list[list[Any]], asked: dict[str, Any]) -> dict[str, Any]:
    rows = [(c[0].text, p["answer"]) for c, p in zip(completions, asked["problems"], strict=True)]
    tokens = sum(len(c[0].token_ids) for c in completions)
    return {"right": sum(v.correct for v in grader.grade(rows)), "tokens": tokens}


def harness(asked: dict[str, Any], folder: Path, python: list[str]) -> tuple[float, list[int]]:
    """(total seconds, correct answers per model) of lm-evaluation-harness with Transformers, one run per adapter."""
    rows = folder / "problems.jsonl"
    rows.write_text("".join(json.dumps({k: p[k] for k in ("prompt", "answer")}) + "\n" for p in asked["problems"]))
    (folder / "planted.yaml").write_text(HARNESS.format(rows=rows, max_tokens=SAMPLING.max_tokens))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    seconds, rights = 0.0, []
    for i, adapter in enumerate(asked["adapters"]):
        model = f"pretrained={asked['base']},dtype=float32" + (f",peft={adapter}" if adapter else "")
        out = folder / f"harness-{i}"
        words = ["--model", "hf", "--model_args", model, "--tasks", "planted", "--include_path", str(folder)]
        words += ["--device", "cpu", "--batch_size", "64", "--output_path", str(out)]
        begun = time.perf_counter()
        done = subprocess.run([*python, "-m", "lm_eval", *words], cwd=folder, env=environment,
                              capture_output=True, text=True)  # fmt: skip
        seconds += time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        scores = json.loads(next(out.rglob("results_*.json")).read_text())["results"]["planted"]
        rights.append(round(scores["exact_match,number"] * len(asked["problems"])))
    return seconds, rights


HANGS = (  # answers that take math-verify far more than 5 s
    "9^{{9^{{9}}}} + {0}",
    "(10^{{7}})! + {0}",
    "\\sum_{{k=1}}^{{10^{{9}}}} \\sin(k + {0})",
    "(x+y+z)^{{100}} + {0}",
)
PATIENCE = 30.0  # seconds after which a hanging math-verify is killed
FILLER = "Let us see. We add what there is, and take away what is gone, step by step. " * 8


def made(count: int, hangs: int, seed: int = 0) -> list[Row]:
    """Rows as models and tasks write them: half integers, about a third formulas that need math-verify."""
    rng = random.Random(seed)
    rows = [rng.choice(KINDS)(rng) for _ in range(count - hangs)]
    for i in range(hangs):
        rows.insert(rng.randrange(len(rows)), (HANGS[i % len(HANGS)].format(i), f"\\sqrt{{{i + 2}}}", None))
    return [(f"{FILLER}So the answer is $\\boxed{{{answer}}}$.", gold, right) for answer, gold, right in rows]


def _whole(rng: random.Random) -> Row:
    gold, right = rng.randint(0, 99_999), rng.random() < 0.6
    said = gold if right else gold + rng.randint(1, 9)
    return rng.choice(("{}", "{:,}", "{}.00", "\\${}", "{} \\text{{ cm}}")).format(said), str(gold), right


def _fraction(rng: random.Random) -> Row:
    top, bottom, factor, right = rng.randint(1, 99), rng.randint(2, 99), rng.randint(2, 5), rng.random() < 0.6
    return f"\\dfrac{{{top * factor + (not right)}}}{{{bottom * factor}}}", f"\\frac{{{top}}}{{{bottom}}}", right


def _root(rng: random.Random) -> Row:
    a, b, right = rng.randint(2, 30), rng.choice((2, 3, 5, 6, 7, 10)), rng.random() < 0.6
    return f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b + (not right)}}}", right


def _polynomial(rng: random.Random) -> Row:
    a, b, right = rng.randint(1, 20), rng.randint(1, 20), rng.random() < 0.6
    return f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b + (not right)}", right


def _interval(rng: random.Random) -> Row:
    a, b, right = rng.randint(-30, 0), rng.randint(1, 30), rng.random() < 0.6
    return f"\\left[{a}, {b}\\right)", f"[{2 * a}/2,{b}{')' if right else ']'}", right


def _pair(rng: random.Random) -> Row:
    a, b, right = rng.randint(-30, 30), rng.randint(1, 30), rng.random() < 0.6
    return f"\\left(\\frac{{{2 * a}}}{{2}}, {b}\\right)", f"({a}, {b + (not right)})", right


KINDS: list[Callable[[random.Random], Row]] = [
    *[_whole] * 10, *[_fraction] * 4, _root, _root, _polynomial, _polynomial, _interval, _pair,
]  # fmt: skip


def grading(count: int, sample: int) -> None:
    hangs = 10 * count // 10_000
    rows = made(count, hangs)
    begun, used = time.perf_counter(), sum(os.times()[:4])
    with Grader() as grader:
        verdicts = grader.grade([(completion, gold) for completion, gold, _ in rows])
        processes = len(grader.pool.processes)
    ours, used = time.perf_counter() - begun, sum(os.times()[:4]) - used
    wrong = [row for row, v in zip(rows, verdicts, strict=True) if v.correct is not bool(row[2])]
    print(
        f"grading   ours {ours:.1f} s for {count} rows, {hangs} of which hang: {count / ours:.0f} rows/s in "
        f"{processes} processes on {cores()} cores (limit: 60 s for 10 000)\n"
        f"          {used:.0f} s of processor time; {len(wrong)} wrong verdicts"
    )
    usual = [row for row in rows if row[2] is not None]
    chosen = random.Random(1).sample(usual, min(sample, len(usual)))
    plain, differ = _math_verify(chosen)
    late = [_hang(row) for row in [row for row in rows if row[2] is None][: len(HANGS)]]
    whole = plain * len(usual) / len(chosen) + hangs * sum(late) / max(1, len(late))
    print(
        f"          math-verify row by row {plain:.1f} s for {len(chosen)} rows that do not hang ({differ} wrong),\n"
        f"          {', '.join(f'{s:.1f}' for s in late)} s for rows that hang (killed after {PATIENCE:g} s)"
    )
    print(f"          at least {whole:.0f} s for all rows (extrapolated); ours / math-verify {ours / whole:.2f}")


def _hang(row: Row) -> float:
    """Seconds until math-verify finished a row or was killed."""
    begun = time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=_math_verify, args=([row],))
    process.start()
    process.join(PATIENCE)
    process.kill()
    process.join()
    return time.perf_counter() - begun


def _math_verify(rows: list[Row]) -> tuple[float, int]:
    """Seconds for math-verify to parse and compare completions and golds, and the number of wrong verdicts."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    verify(parse("$1$"), parse("$1$"))  # load imports and grammar before timing; our own start-up is timed
    begun = time.perf_counter()
    verdicts = [verify(parse(f"${gold}$"), parse(completion)) for completion, gold, _ in rows]
    seconds = time.perf_counter() - begun
    return seconds, sum(v is not bool(row[2]) for v, row in zip(verdicts, rows, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", choices=["engines", "grading", []], default=[])
    parser.add_argument("--harness", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--answer", nargs=2, help=argparse.SUPPRESS)  # what a child of this script does
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=500)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer[0], Path(options.answer[1]))
        return
    parts = {
        "engines": lambda: engines(shlex.split(options.harness)),
        "grading": lambda: grading(options.rows, options.sample),
    }
    for word in options.words or parts:
        parts[word]()


if __name__ == "__main__":
    main()
