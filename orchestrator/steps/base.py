"""The base model made ready: a folder that Transformers and vLLM load, or the note of where the hub's copy lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from execution.context import Context
from execution.step import Step, StepKind
from execution.store import write_json
from orchestrator.config.base import Shape
from orchestrator.config.rollouts import SampledRollouts
from orchestrator.planning import cost

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

NOTE = "base.json"
SCRATCH_TOKENS = 40  # of a text that a base made on the spot is pretrained on


def plan(planned: Planned) -> list[Step]:
    """The study's base, and the model that rollouts are sampled from where it is another one."""
    study, resolved = planned.study, planned.resolved
    base = _step(study.base, resolved)
    if not isinstance(study.rollouts, SampledRollouts) or study.rollouts.model == "base":
        return [base]
    teacher = _step(study.rollouts.model, resolved)
    if teacher.key == base.key:
        return [base]
    if teacher.title == base.title:  # another revision of the same model
        teacher = replace(teacher, name=f"{teacher.name}-teacher")
    return [base, teacher]


def _step(base: Any, resolved: Mapping[str, str]) -> Step:
    """A model made ready: its identity is its content or commit, or the recipe that makes it."""
    places = ("path", "package", "shape") if base.kind != "from_scratch" else ()
    config = base.model_dump(exclude=set(places))
    where = {p: getattr(base, p) for p in ("path", "package") if getattr(base, p, None)}
    if base.kind != "from_scratch":
        config["content"] = resolved[locator(base)]
        config.pop("revision", None)
    return Step(KIND, base.name.replace("/", "--"), config, {}, where)


def locator(base: Any) -> str:
    """Under which name the resolved inputs hold what a base that lies outside the study is."""
    place = (getattr(base, field, None) or "" for field in ("revision", "path", "package"))
    return ":".join(["base", base.name, *place])


def run(context: Context) -> None:
    """Writes ``model/`` (from_scratch, GGUF) or refers to where the model is; ``base.json`` states its sizes."""
    config, where = context.config, context.where
    note: dict[str, object] = {"name": config["name"], "kind": config["kind"]}
    model = context.out / "model"
    if config["kind"] == "from_scratch":
        from orchestrator.bases import scratch

        settings = {k: v for k, v in config.items() if k not in ("kind", "name", "threads")}
        settings["shape"] = {k: v for k, v in settings["shape"].items() if v is not None}
        scratch.pretrain(model, progress=context.progress, **settings)
    elif config["kind"] == "gguf":
        from orchestrator.bases import gguf
        from orchestrator.planning.resolve import gguf_path

        gguf.convert(gguf_path(SimpleNamespace(**{"path": None, "package": None, **where})), model, context.progress)
    elif config["kind"] == "hub":
        model = Path(_download(config["name"], config["content"]))
    else:
        model = Path(where["path"]).resolve()
        note["folder"] = str(model)
    note["revision"] = config.get("content", "made by this study")
    write_json(context.out / NOTE, note | sizes(model))


def model_folder(base: Path) -> Path:
    """Where the model of a finished base step lies on this node; a hub's is fetched where it is not there yet."""
    note = json.loads((base / NOTE).read_text())
    if note.get("kind") == "hub":
        return Path(_download(note["name"], note["revision"]))
    folder = Path(note.get("folder", base / "model"))
    if not folder.is_dir():
        raise ValueError(f"the base model is not at {folder} any more: put it back, or delete {base} to find it anew")
    return folder


def address(base: Path) -> tuple[str, str | None]:
    """Where others find the model of a finished base step: its name on the hub and the commit, else its folder.

    The one thing in an adapter that depends on where the run lies; no key and no result is made of it.
    """
    note = json.loads((base / NOTE).read_text())
    return (note["name"], note["revision"]) if note.get("kind") == "hub" else (str(model_folder(base).resolve()), None)


def sizes(model: Path) -> dict[str, int]:
    """Parameters, layers and hidden size of a model folder, without loading its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    with torch.device("meta"):
        meta = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    return {
        "parameters": sum(p.numel() for p in meta.parameters()),
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
    }


def _download(name: str, commit: str) -> str:
    """The hub's copy of this commit on this node; the network is asked only for what is not there."""
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name, revision=commit, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    )


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Of a base made on the spot: what is read or downloaded takes no time."""
    config = step.config
    if config["kind"] != "from_scratch":
        return 0.0
    own = Shape(**config["shape"])
    return config["steps"] * config["batch"] * SCRATCH_TOKENS * 6 * cost.parameters(own) / cost.CPU_FLOPS


KIND = StepKind("base", version=2, plan=plan, run=run, seconds=seconds)
