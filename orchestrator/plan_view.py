"""A plan as text: what will be trained, which steps that takes, and what it asks of a machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from methods import METHODS
from orchestrator.cost import Cost, estimate, module_shapes
from orchestrator.plan import Cell, Step, cells, rate_name
from orchestrator.store import Store
from orchestrator.study import SampledRollouts, Study

RESOURCES = {
    "train": "training slot (Ray Train)",
    "evaluate": "engine",
    "geometry": "tasks over modules",
    "connectivity": "tasks over models",
    "similarity": "tasks over models and pairs",
}


def lines(study: Study, steps: Sequence[Step], store: Store) -> Iterator[str]:
    """The whole page, line by line."""
    yield f"{study.name}: {study.title}" if study.title else study.name
    yield ""
    yield from _protocol(study)
    yield ""
    yield from _table(("training", "method", "rate", "init", "order", "settings", "epochs"), _trainings(study))
    yield ""
    yield from _table(("step", "key", "state", "runs as", "reads"), _steps(steps, store))
    yield ""
    states = [_state(step, store) for step in steps]
    yield ", ".join([f"{len(steps)} steps"] + [f"{states.count(s)} {s}" for s in dict.fromkeys(states)])
    cost = estimate(study)
    yield from _cost(study, cost) if cost else ["give base.shape to have memory and GPU-hours estimated"]


def _protocol(study: Study) -> Iterator[str]:
    adapter, training, prompt, table = study.adapter, study.training, study.prompt, study.rollouts.table
    yield f"base       {study.base.name} ({study.base.kind})"
    yield (
        f"adapter    LoRA on {', '.join(adapter.targets)}: rank {adapter.rank}, alpha {adapter.alpha}, dropout "
        f"{adapter.dropout:g}, the same initial A for all at init {study.seeds.init}"
    )
    if isinstance(study.rollouts, SampledRollouts):
        spec = study.rollouts
        model = "the base" if spec.model == "base" else spec.model.name
        draw = "all" if spec.problems.draw is None else spec.problems.draw
        yield (
            f"rollouts   {draw} problems of {spec.problems.task}, {spec.samples} completions each from {model}, "
            f"temperature {spec.temperature:g}, at most {spec.max_tokens} tokens"
        )
    else:
        draw = "all" if study.rollouts.draw is None else study.rollouts.draw
        yield f"rollouts   {study.rollouts.path}, {draw} problems, rewards {study.rollouts.rewards}"
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
        draw = "all" if task.draw is None else task.draw
        yield (
            f"evaluate   {draw} problems of {task.task} ({task.split}), greedy, at most {study.evaluation.max_tokens} "
            f"tokens; contamination: {study.evaluation.contamination}"
        )


def _trainings(study: Study) -> Iterator[tuple[str, ...]]:
    for cell in cells(study):
        settings = METHODS[cell.method].check(cell.method, study.methods[cell.method].settings)
        told = ", ".join(f"{name.rstrip('_')}={value}" for name, value in settings.items())
        seeds = str(cell.init_seed), str(cell.order_seed)
        yield cell.name, cell.method, rate_name(cell.learning_rate), *seeds, told or "-", _epochs(study, cell)


def _epochs(study: Study, cell: Cell) -> str:
    """Passes over the method's rows at the reported step, where the table's limits say how many these are."""
    table, view = study.rollouts.table, METHODS[cell.method].view
    units = {"all": table.rows, "pairs": table.pairs, "right": None}[view]
    steps = study.training.report_step or study.training.last_step
    return f"{steps * study.training.batch_size / units:.2f}" if units else "-"


def _state(step: Step, store: Store) -> str:
    return "done" if store.done(step) else "failed" if store.failure(step) else "to do"


def _steps(steps: Sequence[Step], store: Store) -> Iterator[tuple[str, ...]]:
    for step in steps:
        resource = RESOURCES.get(step.kind, "task")
        if step.kind == "rollouts" and step.config["source"] != "file":
            resource = "engine"
        if step.role == "sweep":
            resource = "training slot (Ray Tune)"
        adapters = [s.name for r, s in step.inputs.items() if r.startswith("adapter:")]
        reads = list(dict.fromkeys(s.kind for r, s in step.inputs.items() if not r.startswith("adapter:")))
        if adapters:
            reads.append(f"{len(adapters)} adapters")
        yield step.title, step.key, _state(step, store), resource, ", ".join(reads) or "-"


def _cost(study: Study, cost: Cost) -> Iterator[str]:
    assert study.base.shape is not None
    shapes = module_shapes(study.base.shape)
    told = ", ".join(f"{t} {shapes[t][1]}→{shapes[t][0]}" for t in study.adapter.targets if t in shapes)
    yield f"base of {_count(cost.parameters)} parameters, {study.base.shape.layers} layers; adapted: {told}"
    yield f"{cost.modules} modules; {_count(cost.adapter_parameters)} parameters an adapter, kept in float32"
    yield (
        f"estimated: {cost.training_gib:.1f} GiB a training; {cost.training_gpu_hours:.2g} GPU-hours for "
        f"{cost.trainings} trainings, {cost.evaluation_gpu_hours:.2g} for evaluation"
    )
    yield "(at 160 TFLOP/s sustained, rows half as long as their limits; a teacher's sampling is not counted)"


def _count(number: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their longest entry."""
    cells_ = [head, *rows]
    widths = [max(len(row[i]) for row in cells_) for i in range(len(head))]
    for row in cells_:
        yield "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
