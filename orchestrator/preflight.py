"""What can be known to fail before anything starts, said in one line. Reads files; loads no model."""

from __future__ import annotations

import importlib.util
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evals.engines import LORA_RANKS
from evals.tasks import TASKS
from methods import METHODS
from methods.view import LACKS
from orchestrator.base_spec import SCRATCH_POSITIONS
from orchestrator.errors import UserError, first_line
from orchestrator.evaluation_spec import Problems
from orchestrator.facts import adapters_how, engine_kind, gguf_path, here, local_folder
from orchestrator.plan import Step, cells
from orchestrator.rollout_file import Row, read_rollouts
from orchestrator.rollout_spec import ApiRollouts, AskedRollouts, FileRollouts, HubRollouts
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.table import normal
from orchestrator.teacher_api import key_of

SAMPLE = 20  # problems of a task that makes its own, to see whether it can
DRAWN = 5000  # up to so many are all made here, where it matters which they are: in a second


def check(study: Study) -> None:
    """``UserError`` for rollouts that cannot be read, views that are empty, targets that match no module."""
    asked: set[str] = set()
    rows = _given_rows(study)
    if rows:
        if not any(row.completion.strip() for row in rows):
            raise UserError("rollouts: every completion is empty: name others")
        if getattr(study.rollouts, "rewards", None) == "given" and rows[0].reward is not None:
            _check_views(study, rows)
        asked = {normal(row.problem) for row in rows}
        _check_heldout(study, len(asked))
    elif isinstance(study.rollouts, AskedRollouts) and study.rollouts.problems.draw:
        _check_heldout(study, study.rollouts.problems.draw)
    _check_targets(study)
    if study.training.attention == "flash" and importlib.util.find_spec("flash_attn") is None:
        raise UserError("training.attention: flash needs the package flash-attn: install it, or leave sdpa")
    _check_engine(study)
    _check_problems(study, asked)
    names = {cell.name for cell in cells(study)} | {"base"}
    for a, b in study.analysis.connectivity.pairs:
        for name in {a, b} - names:
            raise UserError(f"analysis.connectivity.pairs names {name}, which is none of {', '.join(sorted(names))}")


def check_key(study: Study, plan: Iterable[Step], store: Store) -> None:
    """``UserError`` where rollouts are still to be asked of a teacher whose key is not in this environment."""
    if isinstance(study.rollouts, ApiRollouts) and not all(store.done(s) for s in plan if s.kind == "rollouts"):
        key_of(study.rollouts.key)


def _given_rows(study: Study) -> list[Row]:
    """Rollouts that lie on this machine: a file's, or a folder's. None are fetched."""
    spec = study.rollouts
    if isinstance(spec, FileRollouts):
        return read_rollouts(Path(spec.path), spec.draw, spec.table.seed)
    if isinstance(spec, HubRollouts) and here(spec.name):
        from orchestrator.rollout_hub import read_dataset

        return read_dataset(spec.name, None, spec.model_dump(), spec.draw, spec.table.seed)[0]
    return []


def _check_engine(study: Study) -> None:
    """What vLLM refuses when it is opened, hours later."""
    if engine_kind(study) != "vllm":
        return
    if adapters_how(study) == "lora" and study.adapter.rank > LORA_RANKS[-1]:
        raise UserError(
            f"adapter.rank: vLLM serves adapters up to rank {LORA_RANKS[-1]}, not {study.adapter.rank}: set "
            "engine.kind=transformers"
        )
    longest = _positions(study.base)
    if longest is not None and study.engine.max_model_len > longest:
        raise UserError(
            f"engine.max_model_len: {study.base.name} has {longest} positions, {study.engine.max_model_len} are more: "
            f"set engine.max_model_len={longest}, or less"
        )


def _positions(base: Any) -> int | None:
    """The longest text that the base takes, in tokens; None where only its download would tell."""
    if base.kind == "from_scratch":
        return SCRATCH_POSITIONS
    if base.kind != "local":
        return None
    config = json.loads((local_folder(base) / "config.json").read_text(encoding="utf-8"))
    found = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return found if isinstance(found, int) and not config.get("rope_scaling") else None


def _check_heldout(study: Study, problems: int) -> None:
    share = study.rollouts.table.heldout
    if round(share * problems) >= problems:
        raise UserError(
            f"rollouts.table.heldout: {share:g} of {problems} problems are all of them, none is left to train on: hold "
            "fewer out"
        )


def _check_views(study: Study, rows: list[Row]) -> None:
    """Methods that would find no row, or rewards that they cannot take: known where the rows give the rewards."""
    rule = study.rollouts.table.pair_rule
    rewards: dict[str, set[float]] = defaultdict(set)
    within: dict[tuple[str, str], set[float]] = defaultdict(set)  # what a pair is picked from
    for row in rows:
        if row.completion.strip():  # an empty one is dropped
            rewards[normal(row.problem)].add(row.reward or 0.0)
            within[normal(row.problem), row.teacher if rule == "same_teacher" else ""].add(row.reward or 0.0)
    other = next((reward for found in rewards.values() for reward in found - {0.0, 1.0}), None)
    for name in study.methods:
        method = METHODS[study.objective(name)]
        real = method.takes_real(study.settings_of(name)) or (method.view == "pairs" and rule == "best_worst")
        if other is not None and not real:
            raise UserError(
                f"methods.{name}: {method.title} needs rewards 0 and 1, the rollouts have {other:g}; drop {name}, or "
                "set rollouts.rewards=graded" + (", or pair_rule=best_worst" if method.view == "pairs" else "")
            )
        if method.view == "right" and not any(1.0 in found for found in rewards.values()):
            raise UserError(
                f"methods.{name}: no rollout is right, so {method.title} has nothing to train on; drop {name}, or "
                "other rollouts"
            )
        if method.view == "pairs" and not any(len(found) > 1 for found in within.values()):
            raise UserError(
                f"methods.{name}: {LACKS[rule]}, so {method.title} has no pair; drop {name} and its sweep, or take "
                "other rollouts"
            )


def _check_targets(study: Study) -> None:
    modules = _modules(study.base)
    if modules is None:
        return
    for target in study.adapter.targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            there = sorted({name.rpartition(".")[2] for name in modules}) or ["none inside its layers"]
            raise UserError(
                f"adapter.targets: {target} matches no module of {study.base.name}; it has {', '.join(there)}"
            )


def _modules(base: Any) -> set[str] | None:
    """Names of modules with a weight matrix inside the layers; None where only loading the model would tell."""
    if base.kind == "from_scratch":
        parts = [f"self_attn.{p}_proj" for p in "qkvo"] + [f"mlp.{p}_proj" for p in ("gate", "up", "down")]
        return {f"model.layers.{i}.{part}" for i in range(base.shape.layers) for part in parts}
    if base.kind == "gguf":
        return _gguf_modules(gguf_path(base))
    if base.kind != "local":
        return None
    names: set[str] = set()
    for file in sorted(local_folder(base).glob("*.safetensors")):
        shapes = _shapes(file)
        names |= {n.removesuffix(".weight") for n, s in shapes.items() if len(s) == 2 and ".weight" in n}
    return {name for name in names if any(part.isdigit() for part in name.split("."))}


# GGUF's names of what Llama-like models call otherwise.
GGUF_NAMES = {
    "attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj",
    "ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj",
}  # fmt: skip


def _gguf_modules(file: Path) -> set[str]:
    """The matrices inside the layers of a GGUF file, under the names they get when it is read."""
    from gguf import GGUFReader

    try:
        names = [tensor.name for tensor in GGUFReader(file).tensors]
    except (ValueError, OSError, IndexError, KeyError):
        raise UserError(f"{file} is damaged or no GGUF file: copy it again") from None
    parts = [name.split(".") for name in names if name.startswith("blk.") and name.endswith(".weight")]
    return {f"layers.{p[1]}.{GGUF_NAMES[p[2]]}" for p in parts if p[2] in GGUF_NAMES}


def _shapes(file: Path) -> dict[str, list[int]]:
    """The tensors of a safetensors file and their shapes, from its header; the file must be as long as that says."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if file.stat().st_size < 8 + length + end:
            raise ValueError("the file is cut off")
        return {name: list(entry["shape"]) for name, entry in tensors.items()}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise UserError(f"base.path: {file} is damaged or no safetensors file: copy it again") from None


def _check_problems(study: Study, asked: set[str]) -> None:
    """Problem sources that lie on this machine are read once, so that a bad row is named before work begins.

    ``asked`` are the problems of given rollouts; those that a teacher is to be asked are added here. Where one is
    evaluated too and the study refuses that, so does this.
    """
    refuse = study.evaluation.contamination == "refuse"
    if isinstance(study.rollouts, AskedRollouts):
        asked = asked.union(_texts(study.rollouts.problems, whole=refuse))
    for spec in study.evaluation.tasks:
        met = sum(text in asked for text in _texts(spec, whole=refuse and bool(asked)))
        if met and refuse:
            raise UserError(
                f"{met} problems of the task {spec.task} stand in the rollouts too: draw others, or set "
                "evaluation.contamination=exclude"
            )


def _texts(spec: Problems, whole: bool) -> list[str]:
    """The problems of a source on this machine; a few of those that a task makes, unless ``whole``; none of a hub's."""
    if spec.source is not None and here(spec.source) is None:
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
