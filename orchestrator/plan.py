"""From a study to its steps, purely: the same study and facts give the same plan, and nothing is touched.

A step's key is the hash of its payload: kind, code version, settings, and the keys of the steps it reads. Paths and
placement ride along in ``where``, outside the payload. Steps that measure many adapters together are *collective*:
when a training has failed they go on with the others, as another step with another key.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

from methods import METHODS
from orchestrator.evaluation_spec import EvaluatedTask, Problems
from orchestrator.fingerprint import canonical, key
from orchestrator.rollout_spec import ApiRollouts, AskedRollouts, HubRollouts, SampledRollouts
from orchestrator.study import Study

# A step's version goes up when its code changes what it writes; every step that reads it is then made anew.
VERSIONS = {
    "base": 2,
    "rollouts": 3,
    "problems": 3,
    "reference": 3,
    "train": 4,
    "evaluate": 3,
    "geometry": 3,
    "activations": 2,
    "spectra": 2,
    "connectivity": 2,
    "similarity": 2,
}

ROWS_A_SHARD = 16  # of the activations: fixed, so that sums do not depend on how many workers there are
COMMIT = 40  # hex digits of a hub commit; a content hash has 64


@dataclass(frozen=True)
class Step:
    """One unit of work with one result folder.

    ``config`` decides the result; ``inputs`` are the steps it reads, by role; ``where`` tells it where to find
    material (paths, sources) and is no part of its identity; ``role`` says what a training is for in the study, and
    whose answers an evaluation holds.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Step] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    collective: bool = False
    role: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"

    @cached_property
    def key(self) -> str:
        return key(self.payload())

    def payload(self) -> dict[str, Any]:
        """What the key is the hash of, as plain JSON values."""
        payload = {
            "kind": self.kind,
            "version": VERSIONS[self.kind],
            "config": dict(self.config),
            "inputs": {role: step.key for role, step in self.inputs.items()},
        }
        if self.collective:
            payload["order"] = list(self.inputs)  # results are listed so, and the first stands for chance
        return json.loads(canonical(payload))

    def without(self, lost: Collection[str]) -> Step:
        """The collective step without the inputs titled ``lost``."""
        return replace(self, inputs={r: s for r, s in self.inputs.items() if s.title not in lost})


@dataclass(frozen=True)
class Cell:
    """One training of the study: a method, by its name there, at a learning rate and two seeds."""

    name: str
    method: str
    role: str  # "method", "sweep", "order", "init" or "rate"
    learning_rate: float
    init_seed: int
    order_seed: int
    objective: str  # its key in METHODS


def rate_name(rate: float) -> str:
    """A learning rate as people write it: 5e-7, 1.5e-4."""
    _, digits, exponent = Decimal(repr(rate)).normalize().as_tuple()
    first, *rest = map(str, digits)
    return f"{first}{'.' if rest else ''}{''.join(rest)}e{int(exponent) + len(rest)}"


def cells(study: Study) -> list[Cell]:
    """All trainings: the methods, the sweep's further points, the replicas; no name twice."""
    init, order = study.seeds.init, study.seeds.order
    found = [Cell(m, m, "method", study.learning_rate(m), init, order, study.objective(m)) for m in study.methods]
    if study.sweep:
        method = study.sweep.method
        for rate in sorted(set(study.sweep.learning_rates) - {study.learning_rate(method)}):
            name = f"{method}-lr{rate_name(rate)}"
            found.append(Cell(name, method, "sweep", rate, init, order, study.objective(method)))
    for r in study.replicas:
        rate, objective = study.learning_rate(r.method), study.objective(r.method)
        if r.order_seed is not None:
            cell = Cell(f"{r.method}-order{r.order_seed}", r.method, "order", rate, init, r.order_seed, objective)
        elif r.init_seed is not None:
            cell = Cell(f"{r.method}-init{r.init_seed}", r.method, "init", rate, r.init_seed, order, objective)
        else:
            assert r.learning_rate is not None
            name = f"{r.method}-lr{rate_name(r.learning_rate)}"
            cell = Cell(name, r.method, "rate", r.learning_rate, init, order, objective)
        if all(cell.name != other.name for other in found):
            found.append(cell)
    return found


def sweep_points(study: Study) -> list[Cell]:
    """The trainings that are points of the sweep, by learning rate; the method's own run is one if its rate is."""
    if study.sweep is None:
        return []
    wanted = set(study.sweep.learning_rates)
    init, order = study.seeds.init, study.seeds.order
    points = [c for c in cells(study) if c.method == study.sweep.method and c.learning_rate in wanted]
    return sorted((c for c in points if (c.init_seed, c.order_seed) == (init, order)), key=lambda c: c.learning_rate)


def make_plan(study: Study, facts: Mapping[str, str]) -> list[Step]:
    """All steps in an order in which each stands behind what it reads.

    ``facts`` maps what lies outside the study (a path, a hub name, the engine's choice) to its identity: a content
    hash, a commit, a name. See ``facts.py``.
    """
    base = base_step(study.base, facts)
    prompt = study.prompt.model_dump()
    steps = [base]
    sampled_from = base
    if isinstance(study.rollouts, SampledRollouts) and study.rollouts.model != "base":
        sampled_from = base_step(study.rollouts.model, facts)
        if sampled_from.key == base.key:
            sampled_from = base
        else:
            if sampled_from.title == base.title:  # another revision of the same model
                sampled_from = replace(sampled_from, name=f"{sampled_from.name}-teacher")
            steps.append(sampled_from)
    rollouts = _rollouts_step(study, facts, base, sampled_from)
    problems = Step(
        "problems",
        "evaluation",
        {
            "tasks": [_task_config(t, facts) for t in study.evaluation.tasks],
            "contamination": study.evaluation.contamination,
            "prompt": prompt,
        },
        {"base": base, "rollouts": rollouts},
        {
            "sources": [_pinned(t.task, t.source, facts) for t in study.evaluation.tasks],
            "shots": [_pinned(t.task, _shots_source(t), facts) for t in study.evaluation.tasks],
            "max_model_len": study.engine.max_model_len,
        },
    )
    steps += [rollouts, problems]
    trainings = _training_steps(study, base, rollouts)
    shared = {t.inputs["reference"].title: t.inputs["reference"] for t in trainings if "reference" in t.inputs}
    steps += shared.values()
    steps += trainings
    steps += _evaluation_steps(study, facts, base, problems, trainings)
    steps += _analysis_steps(study, base, rollouts, problems, trainings)
    assert len({step.title for step in steps}) == len(steps), "a step is known by its title"
    return steps


def base_step(base: Any, facts: Mapping[str, str]) -> Step:
    """A model made ready: its identity is its content or commit, or the recipe that makes it."""
    places = ("path", "package", "shape") if base.kind != "from_scratch" else ()
    config = base.model_dump(exclude=set(places))
    where = {p: getattr(base, p) for p in ("path", "package") if getattr(base, p, None)}
    if base.kind != "from_scratch":
        config["content"] = facts[base_locator(base)]
        config.pop("revision", None)
    return Step("base", base.name.replace("/", "--"), config, {}, where)


def base_locator(base: Any) -> str:
    """Under which name the facts hold what a base that lies outside the study is."""
    place = (getattr(base, field, None) or "" for field in ("revision", "path", "package"))
    return ":".join(["base", base.name, *place])


def _problems_config(problems: Problems, facts: Mapping[str, str]) -> dict[str, Any]:
    config = problems.model_dump(include=set(Problems.model_fields) - {"source"})
    config["content"] = facts[f"task:{problems.task}:{problems.source}"]
    return config


def _task_config(task: EvaluatedTask, facts: Mapping[str, str]) -> dict[str, Any]:
    """An evaluated task's problems, the name they go by and their shots: how they are answered is not in it."""
    config = _problems_config(task, facts) | {"name": task.known_as, "shots": None}
    if task.shots:
        content = facts[f"task:{task.task}:{_shots_source(task)}"]
        config["shots"] = task.shots.model_dump(exclude={"source"}) | {"content": content}
    return config


def _shots_source(task: EvaluatedTask) -> str | None:
    return task.shots.source if task.shots and task.shots.source is not None else task.source


def _pinned(task: str, source: str | None, facts: Mapping[str, str]) -> str | None:
    """Where a task's loader reads: a path as it is, a hub name with its commit."""
    commit = facts[f"task:{task}:{source}"]
    return f"{source}@{commit}" if len(commit) == COMMIT else source


def _rollouts_step(study: Study, facts: Mapping[str, str], base: Step, sampled_from: Step) -> Step:
    spec = study.rollouts
    pairing: dict[str, Any] = {"table": {"pair_rule", "pairs"}}  # of the trainings, not of the table
    prompt = {"prompt": study.prompt.model_dump()}
    if not isinstance(spec, AskedRollouts):
        place = {"name", "revision"} if isinstance(spec, HubRollouts) else {"path"}
        config = spec.model_dump(exclude=dict.fromkeys(place, True) | pairing) | prompt
        if isinstance(spec, HubRollouts):
            content = config["content"] = facts[f"hub:{spec.name}"]
            where = {"path": spec.name, "revision": content if len(content) == COMMIT else None}
        else:
            config["content"] = facts[f"file:{spec.path}"]
            where = {"path": spec.path, "revision": None}
        return Step("rollouts", spec.source, config, {"base": base}, where)
    asked = {"problems": _problems_config(spec.problems, facts)} | prompt
    sources: dict[str, Any] = {"sources": [_pinned(spec.problems.task, spec.problems.source, facts)]}
    if isinstance(spec, ApiRollouts):
        how = {"key", "prices", "max_cost", "at_once", "retries", "timeout", "shard"}  # what decides no answer
        config = spec.model_dump(exclude=dict.fromkeys(how | {"problems"}, True) | pairing) | asked
        return Step("rollouts", "openai", config, {"base": base}, sources | spec.model_dump(include=how))
    config = spec.model_dump(exclude={"model": True, "problems": True} | pairing) | asked
    config["engine"] = engine_config(study, facts)
    where = sources | {"engine": engine_where(study, spec.model == "base")}
    return Step("rollouts", "sampled", config, {"base": base, "model": sampled_from}, where)


def engine_config(study: Study, facts: Mapping[str, str]) -> dict[str, Any]:
    """The engine as it will run: ``auto`` replaced by what this machine has."""
    config = study.engine.model_dump() | {"kind": facts["engine"], "adapters": facts["adapters"]}
    if facts["engine"] == "transformers":  # vLLM has its own
        config["attention"] = attention_in(study, study.engine.precision)
    return config


def attention_in(study: Study, precision: str) -> str:
    """The trainings' attention where the base is served or measured too; flash serves half precision alone."""
    chosen = study.training.attention
    return "sdpa" if chosen == "flash" and precision == "float32" else chosen


def engine_where(study: Study, adapters: bool) -> dict[str, Any]:
    """How the engine uses the machine. An engine that may meet adapters later is opened for them at once."""
    placement = study.placement
    return {
        "cache_gib": placement.cache_gib,
        "memory_share": placement.memory_share,
        "max_lora_rank": study.adapter.rank if adapters else 0,
    }


def _training_steps(study: Study, base: Step, rollouts: Step) -> list[Step]:
    saving = study.training.model_dump(include={"resume_every", "resume_seconds"})  # decides no result
    common = study.training.model_dump(exclude={"learning_rate", "report_step", "run_steps", *saving})
    common |= {"report_step": study.training.report_step or study.training.last_step}
    common |= {"run_steps": study.training.last_step}
    pairs = {"pair_rule": study.rollouts.table.pair_rule, "pairs": study.rollouts.table.pairs}
    forward = {k: common[k] for k in ("precision", "attention", "head_chunk", "micro_batch", "threads")}
    of = {"base": base, "rollouts": rollouts}
    references = {  # two steps, so that a method which reads all rows takes nothing from those that read pairs
        True: Step("reference", "base", forward | {"rows": "pairs"} | pairs, of),
        False: Step("reference", "all-rows", forward | {"rows": "all"}, of),
    }
    steps = []
    for cell in cells(study):
        method, settings = METHODS[cell.objective], study.settings_of(cell.method)
        config = common | {
            "method": cell.objective,
            "settings": settings,
            "learning_rate": cell.learning_rate,
            "init_seed": cell.init_seed,
            "order_seed": cell.order_seed,
            **pairs,
            "adapter": study.adapter.model_dump(),
        }
        inputs = {"base": base, "rollouts": rollouts}
        if method.needs_reference(settings):
            inputs["reference"] = references[method.view == "pairs"]
        steps.append(Step("train", cell.name, config, inputs, dict(saving), role=cell.role))
    return steps


def _evaluation_steps(
    study: Study, facts: Mapping[str, str], base: Step, problems: Step, trainings: list[Step]
) -> list[Step]:
    spec = study.evaluation
    config = {
        "engine": engine_config(study, facts),
        "sampling": {task.known_as: spec.sampling(task) for task in spec.tasks},
        "shard": spec.shard,
        "parts": spec.parts,
        "canary": spec.canary.model_dump(),
        "targets": study.adapter.targets,
    }
    where = {"engine": engine_where(study, adapters=True)}
    common = {"base": base, "problems": problems}
    models = {"base": common} | {t.name: common | {"adapter": t} for t in trainings}
    return [
        Step("evaluate", part_name(model, part, spec.parts), config | {"part": part}, inputs, where, role=model)
        for model, inputs in models.items()
        for part in range(spec.parts)
    ]


def part_name(model: str, part: int, parts: int) -> str:
    """The name of the step that answers one of ``parts`` shares of a model's problems."""
    return model if parts == 1 else f"{model}-part{part + 1}of{parts}"


def _analysis_steps(study: Study, base: Step, rollouts: Step, problems: Step, trainings: list[Step]) -> list[Step]:
    spec = study.analysis
    adapters = {f"adapter:{t.name}": t for t in trainings}
    geometry: dict[str, Any] = {"top": spec.top, "chance_draws": spec.chance_draws, "seed": spec.seed}
    geometry |= {"threads": spec.threads}
    seeds = {"init_seeds": {t.name: t.config["init_seed"] for t in trainings}}  # the trainings' keys hold them already
    forward = {"threads": spec.threads, "attention": attention_in(study, "float32")}
    connectivity = spec.connectivity.model_dump() | forward
    similarity = spec.similarity.model_dump() | forward | {"seed": spec.seed}
    models = {"base": base, **adapters}
    steps = [Step("similarity", "cka", similarity, models | {"problems": problems}, collective=True)]
    if study.rollouts.table.heldout:
        steps.insert(0, Step("connectivity", "paths", connectivity, models | {"rollouts": rollouts}, collective=True))
    if spec.spectra.top:
        spectra = spec.spectra.model_dump() | {"threads": spec.threads}
        steps.insert(0, Step("spectra", "base", spectra, models, collective=True))
    if len(trainings) > 1 and spec.activations.rows:
        activations = spec.activations.model_dump() | forward
        steps.insert(0, Step("activations", "rows", activations, models | {"rollouts": rollouts}, collective=True))
    if len(trainings) > 1:
        steps.insert(0, Step("geometry", "weights", geometry, adapters, seeds, collective=True))
    return steps
