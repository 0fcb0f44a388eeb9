"""Checks of a study before anything starts: each raises ``UserError``, in one line. Reads files; loads no model."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Iterable

from evals.engines import CPU_HEAD_SIZES, LORA_RANKS
from evals.tasks import TASKS
from execution.errors import UserError, first_line
from execution.step import Step
from execution.store import Store
from methods import METHODS
from methods.data.view import LACKS
from orchestrator.config.evaluation import Problems
from orchestrator.config.study import Study
from orchestrator.config.values import here
from orchestrator.planning.cost import module_shapes
from orchestrator.planning.resolve import adapters_how, engine_kind, vllm_on_cpu
from orchestrator.planning.training_runs import largest_rank, training_runs
from orchestrator.prompts.templates import PROBLEMS, why_not
from orchestrator.rollouts.dataset import normal
from orchestrator.rollouts.row import Row
from orchestrator.runtime.device import bfloat16_products, cards
from orchestrator.runtime.served_models import check_served, served_models

HEADS = ("lm_head", "embed_out")  # what models call their output head
SAMPLE = 20  # problems generated to check that a task can generate them
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}  # by default
DRAWN = 5000  # draws up to this size are generated completely if the texts matter: takes a second


def check(study: Study) -> None:
    """``UserError`` for unreadable rollouts, methods without training rows, and targets that match no module."""
    asked: set[str] = set()
    rows, problems = study.rollouts.rows_at_hand(), study.rollouts.asked_problems
    if rows:
        if not any(row.completion.strip() for row in rows):
            raise UserError("rollouts: every completion is empty: name other rollouts")
        if study.rollouts.keeps_rewards and rows[0].reward is not None:
            _check_views(study, rows)
        asked = {normal(row.problem) for row in rows}
        _check_heldout(study, len(asked))
    elif problems is not None and problems.draw:
        _check_heldout(study, problems.draw)
    _check_targets(study)
    runs = training_runs(study)
    for training in (run.training for run in runs):
        if training.warmup and training.reported_step == 1 < training.steps:
            raise UserError(
                f"training.report_step: with a warm-up the first of {training.steps} steps has rate 0, so its "
                "adapter equals the base: set training.report_step=2, or training.warmup=0"
            )
        if training.attention == "flash" and importlib.util.find_spec("flash_attn") is None:
            raise UserError("training.attention: flash needs the package flash-attn: install it, or leave sdpa")
    _check_engine(study)
    _check_problems(study, asked)
    names = {run.name for run in runs} | {"base"}
    for a, b in study.analysis.connectivity.pairs:
        for name in {a, b} - names:
            raise UserError(f"analysis.connectivity.pairs names {name}; known: {', '.join(sorted(names))}")


def check_fit(study: Study) -> None:
    """``UserError`` for settings that a step would reject: engine limits, ranks, lengths, templates.

    Some checks depend on what is installed here. A template is rendered in a separate process (``templates.py``).
    """
    _check_heads(study)
    _check_rank(study)
    _check_lengths(study)
    _check_templates(study)


def advice(study: Study) -> list[str]:
    """Warnings about settings that are slow on this machine, one line each, with the setting that avoids it."""
    places = {"training.precision": study.training.precision, "engine.precision": study.engine.precision}
    slow = [place for place, precision in places.items() if precision == "bfloat16"]
    if not slow or cards() or bfloat16_products() is not False:
        return []
    return [
        f"{' and '.join(slow)}: this processor multiplies bfloat16 some 17 times slower than float32: "
        + " ".join(f"--set {place}=float32" for place in slow)
    ]


def check_key(study: Study, plan: Iterable[Step], store: Store) -> None:
    """``UserError`` if a teacher is still to be queried for rollouts and its API key is not in this environment."""
    if _to_sample(plan, store):
        study.rollouts.check_access()


def check_price(study: Study, plan: Iterable[Step], store: Store) -> None:
    """``UserError`` if a teacher that is paid for is still to be queried and the study does not limit its cost."""
    if _to_sample(plan, store):
        study.rollouts.check_cost()


def _to_sample(plan: Iterable[Step], store: Store) -> bool:
    return not all(store.done(step) for step in plan if step.kind.name == "rollouts")


def _check_engine(study: Study) -> None:
    """``UserError`` for limits that vLLM would report only when it is opened, possibly hours later."""
    lora = engine_kind(study) == "vllm" and adapters_how(study) == "lora"
    if lora and (rank := largest_rank(study)) > LORA_RANKS[-1]:
        raise UserError(
            f"adapter.rank: vLLM serves adapters up to rank {LORA_RANKS[-1]}, not {rank}: set engine.kind=transformers"
        )
    check_served(study)


def _check_heads(study: Study) -> None:
    """``UserError`` for head sizes that vLLM's attention on a CPU does not support."""
    for model in served_models(study) if vllm_on_cpu() else ():
        shape = model.base.known_shape()
        if model.kind(study) == "vllm" and shape is not None and shape.head_dim not in CPU_HEAD_SIZES:
            raise UserError(
                f"{model.model_at}: {model.base.name} has heads of {shape.head_dim}, and vLLM on a CPU serves "
                f"{', '.join(map(str, CPU_HEAD_SIZES))}: set {model.engine_at}.kind=transformers"
            )


def _check_rank(study: Study) -> None:
    """``UserError`` for a rank above a module's rows or columns, which bound the rank of its update."""
    modules = study.base.module_sizes() or {}
    shape = None if modules else study.base.known_shape()
    modules = module_shapes(shape) if shape else modules
    adapted = [name for name in modules if any(f".{name}".endswith(f".{t}") for t in study.adapter.targets)]
    name = min(adapted, key=lambda name: min(modules[name]), default=None)
    if name is not None and (rank := largest_rank(study)) > min(modules[name]):
        raise UserError(
            f"adapter.rank: {rank} exceeds the size of {name} of {study.base.name} "
            f"({' x '.join(map(str, modules[name]))}): set adapter.rank={min(modules[name])}, or less"
        )


def _check_lengths(study: Study) -> None:
    """``UserError`` for answer lengths that do not fit after a prompt; they would be cut off silently."""
    served = study.rollouts.served(study)
    limits = [("rollouts.max_tokens", study.rollouts.engine_tokens or 0, model) for model in served]
    for i, task in enumerate(study.evaluation.tasks):
        where = "evaluation.max_tokens" if task.max_tokens is None else f"evaluation.tasks.{i}.max_tokens"
        limits.append((where, study.evaluation.sampling(task)["max_tokens"], served_models(study)[0]))
    for where, tokens, model in limits:
        longest = model.engine.max_model_len
        room = longest - study.prompt.max_prompt_tokens
        if tokens > room:
            raise UserError(
                f"{where}: {tokens} do not fit into {model.engine_at}.max_model_len {longest} after a prompt "
                f"of prompt.max_prompt_tokens {study.prompt.max_prompt_tokens}: set {where}={room}, or less"
            )


def _check_templates(study: Study) -> None:
    """``UserError`` unless each template renders two problems to two different prompts, with shots if there are any."""
    prompt = study.prompt
    templates = [("prompt.template", prompt.template, study.base.own_template()[1])]
    if prompt.template is None:
        templates = [(f"the chat template of {study.base.name}", *study.base.own_template())]
    templates += [(f"the chat template of {base.name}", *base.own_template()) for base in study.rollouts.teachers]
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    chats = [[*system, {"role": "user", "content": text}] for text in PROBLEMS]
    if any(task.shots for task in study.evaluation.tasks):
        shot = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
        chats.append([*system, *shot, chats[0][-1]])
    thinking = {} if prompt.thinking is None else {"enable_thinking": prompt.thinking}
    for where, template, tokens in templates:
        why = None if template is None else why_not(template, chats, TOKENS | tokens | thinking)
        if why is not None:
            raise UserError(f"{where} {why}")


def _check_heldout(study: Study, problems: int) -> None:
    share = study.rollouts.table.heldout
    if round(share * problems) >= problems:
        raise UserError(
            f"rollouts.table.heldout: {share:g} of {problems} problems are all of them, none is left to train on: "
            "lower it"
        )
    if study.search is not None and round(share * problems) < 1:
        raise UserError(
            f"search: {share:g} of {problems} problems hold none out to judge a rate on: raise rollouts.table.heldout"
        )


def _check_views(study: Study, rows: list[Row]) -> None:
    """``UserError`` for methods without training rows, and for rewards that a method does not accept."""
    rule = study.rollouts.table.pair_rule
    rewards: dict[str, set[float]] = defaultdict(set)
    within: dict[tuple[str, str], set[float]] = defaultdict(set)  # pairs are formed within these
    for row in rows:
        if row.completion.strip():  # empty ones are dropped
            rewards[normal(row.problem)].add(row.reward or 0.0)
            within[normal(row.problem), row.teacher if rule == "same_teacher" else ""].add(row.reward or 0.0)
    other = next((reward for values in rewards.values() for reward in values - {0.0, 1.0}), None)
    for name in study.methods:
        method = METHODS[study.objective(name)]
        real = method.takes_real(study.settings_of(name)) or (method.view == "pairs" and rule == "best_worst")
        if other is not None and not real:
            raise UserError(
                f"methods.{name}: {method.title} needs rewards 0 and 1, the rollouts have {other:g}; remove {name}, or "
                "set rollouts.rewards=graded" + (", or pair_rule=best_worst" if method.view == "pairs" else "")
            )
        if method.view == "right" and not any(1.0 in values for values in rewards.values()):
            raise UserError(
                f"methods.{name}: no rollout is right, so {method.title} has nothing to train on; remove {name}, or "
                "name other rollouts"
            )
        if method.view == "pairs" and not any(len(values) > 1 for values in within.values()):
            raise UserError(
                f"methods.{name}: {LACKS[rule]}, so {method.title} has no pair; remove {name} and its sweep, or "
                "name other rollouts"
            )
    if any(run.training.examples == "paired" for run in training_runs(study)) and not any(
        len(values) > 1 for values in within.values()
    ):
        raise UserError(f"training.examples=paired: {LACKS[rule]}; leave it out, or name other rollouts")


def _check_targets(study: Study) -> None:
    for target in study.adapter.targets:
        if target.rpartition(".")[2] in HEADS:
            raise UserError(f"adapter.targets: {target} is the output head, which is not adapted here: leave it out")
    modules = study.base.module_sizes()
    if modules is None:
        return
    for target in study.adapter.targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            known = sorted({name.rpartition(".")[2] for name in modules}) or ["none inside its layers"]
            raise UserError(
                f"adapter.targets: {target} matches no module of {study.base.name}; it has {', '.join(known)}"
            )


def _check_problems(study: Study, asked: set[str]) -> None:
    """``UserError`` for problem sources on this machine with a bad row, and for contamination if the study refuses it.

    ``asked`` are the problems of given rollouts; those that a teacher will answer are added here. Contamination means
    that one of them is also evaluated.
    """
    refuse = study.evaluation.contamination == "refuse"
    if study.rollouts.asked_problems is not None:
        asked = asked.union(_texts(study.rollouts.asked_problems, whole=refuse))
    for spec in study.evaluation.tasks:
        shared = sum(text in asked for text in _texts(spec, whole=refuse and bool(asked)))
        if shared and refuse:
            raise UserError(
                f"{shared} problems of the task {spec.task} are also in the rollouts: draw others, or set "
                "evaluation.contamination=exclude"
            )


def _texts(spec: Problems, whole: bool) -> list[str]:
    """The normalised texts of a source's problems: none of a hub's, and a few of generated ones unless ``whole``."""
    if spec.source is not None and here(spec.source) is None:
        task = TASKS[spec.task]
        if spec.source == task.hub and task.splits is not None and spec.split not in task.splits:
            raise UserError(
                f"task {spec.task}: {spec.source} has no split {spec.split!r}, but {', '.join(task.splits)}: name one "
                "of them as split"
            )
        return []
    draw = spec.draw
    if spec.source is None and not (whole and (draw is None or draw <= DRAWN)):
        draw = min(draw or 1, SAMPLE)
    try:
        problems = TASKS[spec.task].load(spec.source, split=spec.split, draw=draw, seed=spec.seed, **spec.settings)
    except TypeError as error:
        raise UserError(f"the settings {spec.settings} do not fit the task {spec.task} ({error})") from None
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(f"task {spec.task}: {first_line(error)}") from None
    return [normal(problem.problem) for problem in problems]
