"""A plan as text: what will be trained, which steps that takes, and what it asks of a machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from execution.fingerprint import differences
from execution.step import Step
from execution.store import Store
from methods import METHODS
from orchestrator.config.study import Study
from orchestrator.planning.cost import (
    Cost,
    estimate,
    module_shapes,
    units,
)
from orchestrator.planning.scaled_copies import scaled_copies
from orchestrator.planning.training_runs import TrainingRun, rate_name, training_runs
from orchestrator.planning.views.power import power_lines
from orchestrator.rollouts.row import Row
from orchestrator.runtime.served_models import engine_lines

CHANGES = 4  # shown for a step that runs again
LONGEST = 40  # characters of a value in them


def lines(study: Study, steps: Sequence[Step], store: Store, rows: Sequence[Row] = ()) -> Iterator[str]:
    """The whole page, line by line. ``rows`` are the study's rollouts where they are at hand: see ``cost.units``."""
    yield f"{study.name}: {study.title}" if study.title else study.name
    yield ""
    yield from _protocol(study)
    yield ""
    yield from table(("training", "method", "rate", "init", "order", "settings", "epochs"), _trainings(study, rows))
    if rows:
        yield "(epochs count rows longer than the limits too: which these are is known once they are tokens)"
    yield ""
    yield from table(("step", "key", "state", "runs as", "reads"), _steps(steps, store))
    yield ""
    power = list(power_lines(study))
    yield from [*power, ""] if power else ()
    states = [_state(step, store) for step in steps]
    again = list(_again(steps, store))
    if again:
        yield from table(("made again", "because"), iter(again))
        yield ""
    yield ", ".join([f"{len(steps)} steps"] + [f"{states.count(s)} {s}" for s in dict.fromkeys(states)])
    cost = estimate(study)
    yield from _cost(study, cost) if cost else ["give base.shape to have memory and GPU-hours estimated"]


def _protocol(study: Study) -> Iterator[str]:
    adapter, training, prompt, table = study.adapter, study.training, study.prompt, study.rollouts.table
    yield f"base       {study.base.name} ({study.base.kind})"
    yield (
        f"adapter    LoRA on {', '.join(adapter.targets)}: rank {adapter.rank}, alpha {adapter.alpha}, dropout "
        f"{adapter.dropout:g}, the same initial {adapter.start.upper()} for all at init {study.seeds.init}"
    )
    yield from study.rollouts.describe()
    yield from engine_lines(study)
    rows = "all" if table.rows is None else f"at most {table.rows}"
    pairs = "all" if table.pairs is None else f"at most {table.pairs}"
    yield (
        f"table      {table.heldout:.0%} of the problems held out; {rows} training rows; {pairs} pairs by rule "
        f"{table.pair_rule}; prompts to {prompt.max_prompt_tokens} and answers to {prompt.max_answer_tokens} tokens, "
        f"longer ones: {prompt.overlong}"
    )
    yield (
        f"training   {training.steps} steps scheduled, {training.last_step} run, step "
        f"{training.report_step or training.last_step} reported; batch {training.batch_size}, cosine, warm-up "
        f"{training.warmup:.0%}, weight decay {training.weight_decay:g}, clip {training.clip:g}, "
        f"{training.precision} base"
    )
    for task in study.evaluation.tasks:
        draw, drawn = "all" if task.draw is None else task.draw, study.evaluation.sampling(task)
        how = "greedy" if not drawn["temperature"] else f"{drawn['samples']} at temperature {drawn['temperature']:g}"
        shots = f", {task.shots.count} shots" if task.shots else ""
        yield (
            f"evaluate   {draw} problems of {task.known_as} ({_part(task.source, task.split)}){shots}, {how}, at most "
            f"{drawn['max_tokens']} tokens; contamination: {study.evaluation.contamination}"
        )
    copies = scaled_copies(study, training_runs(study))
    if copies:
        yield f"norm       {len(copies)} trainings also scaled to the norm of {copies[0].to}'s update, and evaluated so"


def _trainings(study: Study, rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    counts = {name: units(study, rows, name) for name in study.methods}
    for cell in training_runs(study):
        settings = METHODS[cell.objective].read(cell.settings)
        told = ", ".join(f"{name.rstrip('_')}={value}" for name, value in settings.items())
        varied = {key: value for key, value in cell.varied.items() if not key.startswith("settings.")}
        told = ", ".join(filter(None, (told, *(f"{key}={value}" for key, value in varied.items()))))
        seeds = str(cell.init_seed), str(cell.order_seed)
        yield (
            cell.name,
            cell.method,
            rate_name(cell.learning_rate),
            *seeds,
            told or "-",
            _epochs(cell, counts[cell.method]),
        )


def _epochs(run: TrainingRun, count: int | None) -> str:
    """Passes over so many units at the reported step."""
    return f"{run.training.reported_step * run.training.batch_size / count:.2f}" if count else "-"


def _state(step: Step, store: Store) -> str:
    if store.done(step):
        return "done"
    return "damaged" if store.spoilt(step) else "failed" if store.failure(step) else "to do"


def _steps(steps: Sequence[Step], store: Store) -> Iterator[tuple[str, ...]]:
    for step in steps:
        spare = step.spare_roles
        reads = list(dict.fromkeys(s.kind.name for r, s in step.inputs.items() if r not in spare))
        kinds = [step.inputs[role].kind.name for role in spare]
        reads += [f"{kinds.count(kind)} {'adapters' if kind == 'train' else kind}" for kind in dict.fromkeys(kinds)]
        yield step.title, step.key, _state(step, store), _runs_as(step), ", ".join(reads) or "-"


def _runs_as(step: Step) -> str:
    if step.runs_as == "training":
        return f"training slot (Ray {'Tune' if step.role == 'sweep' else 'Train'})"
    if step.runs_as == "engine":
        gpus = step.config["engine"].get("tensor_parallel", 1)
        return "engine" if gpus == 1 else f"engine on {gpus} GPUs"
    return step.kind.words


def _again(steps: Sequence[Step], store: Store) -> Iterator[tuple[str, ...]]:
    """Steps that were finished under another key, and what of it changed from what to what."""
    for step in steps:
        before = None if store.done(step) else store.earlier(step)
        if before is None:
            continue
        read, now = before.get("inputs", {}), {role: other.key for role, other in step.inputs.items()}
        own = differences({**before, "inputs": {}}, {**step.payload(), "inputs": {}})
        why = [_short(line.removeprefix("config.")) for line in own]
        why += [f"no longer reads {role}" for role in read if role not in now]
        others = [step.inputs[role].title for role in now if read.get(role) != now[role]]
        if others and (len(why) < CHANGES or not why):
            why.append(f"reads {', '.join(others[:CHANGES])}{_more(others)}, made again")
        yield step.title, "; ".join(why[:CHANGES]) + _more(why)


def _more(items: Sequence[object]) -> str:
    return f" and {len(items) - CHANGES} more" if len(items) > CHANGES else ""


def _short(line: str) -> str:
    """A difference whose values may be long texts or hashes, each cut."""
    where, _, values = line.partition(": ")
    where = "this tool's version of the step" if where == "version" else where
    return f"{where}: " + " -> ".join(v if len(v) <= LONGEST else v[:LONGEST] + "…" for v in values.split(" -> ", 1))


def _part(source: str | None, split: str) -> str:
    """The split that is read; of a single file only its name is known, whatever split the study says."""
    path = Path(source) if source is not None else None
    alone = path is not None and (path.is_file() or path.suffix in (".jsonl", ".json"))
    return f"rows of {path.name}" if path is not None and alone else split


def _cost(study: Study, cost: Cost) -> Iterator[str]:
    assert study.base.shape is not None
    shapes = module_shapes(study.base.shape)
    shapes_ = ", ".join(f"{t} {shapes[t][1]}→{shapes[t][0]}" for t in study.adapter.targets if t in shapes)
    embedded = "with" if study.base.shape.vocabulary else "without"  # what a tokenizer knows is not known here
    yield (
        f"base of {_count(cost.parameters)} parameters {embedded} embeddings, {study.base.shape.layers} layers; "
        f"adapted: {shapes_}"
    )
    yield f"{cost.modules} modules; {_count(cost.adapter_parameters)} parameters an adapter, kept in float32"
    memory = cost.memory
    yield (
        f"memory of a training: {memory.device:.1f} GiB on a GPU ({memory.weights:.1f} weights, {memory.adapter:.1f} "
        f"adapter, {memory.kept:.1f} activations that are kept, {memory.passing:.1f} of a layer or of the logits), "
        f"{memory.cpu:.1f} GiB in a process on CPUs"
    )
    yield (
        f"estimated: {_count(round(cost.training_tokens))} tokens and "
        f"{_hours(cost.training_gpu_hours)} GPU-hours for {cost.trainings} trainings, "
        f"{_hours(cost.evaluation_gpu_hours)} for evaluation"
    )
    yield "(at 160 TFLOP/s sustained, rows half as long as their limits; a teacher's sampling is not among them)"


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


def _count(number: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their longest entry."""
    cells_ = [head, *rows]
    widths = [max(len(row[i]) for row in cells_) for i in range(len(head))]
    for row in cells_:
        yield "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
