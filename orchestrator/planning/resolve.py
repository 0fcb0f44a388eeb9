"""What a study names that lies outside it, resolved to an identity: content hashes, commits, the engine at hand.

A branch of a hub repository moves; so its commit is looked up once and pinned in ``pins.json`` of the run's folder.
Planning never reaches for the network: a name without a pin or a cached copy is then "unresolved".
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from execution.errors import UserError, first_line
from execution.fingerprint import canonical, file_hash
from execution.store import write_json
from orchestrator.config.values import here, hub_like

if TYPE_CHECKING:
    from orchestrator.config.study import Study

PINS, PIN = "pins.json", "pin:"
UNRESOLVED = "unresolved"


def gather(study: Study, root: Path, *, online: bool) -> dict[str, str]:
    """The facts that ``make_plan`` asks for. ``UserError`` names a file that is not there.

    ``online`` lets hub names be looked up that are not pinned under ``root``. Writes nothing: see ``keep_pins``.
    """
    facts = {"engine": engine_kind(study), "adapters": adapters_how(study)}
    resolver = Resolver(root, online)
    sources = [(task.task, task.source) for task in study.evaluation.tasks]
    sources += [(t.task, t.shots.source) for t in study.evaluation.tasks if t.shots and t.shots.source is not None]
    asked = study.rollouts.asked_problems
    if asked is not None:
        sources.append((asked.task, asked.source))
    facts |= study.rollouts.facts(resolver)
    for base in [study.base, *study.rollouts.teachers]:
        if (identity := base.identity(resolver)) is not None:
            facts[base.locator] = identity
    for task, source in sources:
        facts[f"task:{task}:{source}"] = _source_identity(source, resolver)
    return facts | {f"{PIN}{name}": commit for name, commit in resolver.known.items()}


def keep_pins(facts: Mapping[str, str], root: Path) -> None:
    """Write what hub names were resolved to beside the run, so that the next one finds the same."""
    pins = {name.removeprefix(PIN): commit for name, commit in facts.items() if name.startswith(PIN)}
    if pins:
        write_json(root / PINS, pins)


def engine_kind(study: Study) -> str:
    """``vllm`` or ``transformers``: the study's word, or for ``auto`` what is installed."""
    if study.engine.kind != "auto":
        return study.engine.kind
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def vllm_on_cpu() -> bool:
    """Whether the vLLM that is installed here is a build for CPUs."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:  # the CPU build's package goes by another name
        return importlib.util.find_spec("vllm") is not None


def adapters_how(study: Study) -> str:
    """``lora`` or ``swapped``: the study's word, or for ``auto`` what its precision allows (``EngineSettings``)."""
    kind = engine_kind(study)
    if study.engine.adapters == "swapped" and kind != "vllm":
        raise UserError("engine.adapters: swapped needs vLLM, which is not installed: leave it at auto")
    return study.engine.adapters_in(kind)


def _source_identity(source: str | None, resolver: Resolver) -> str:
    if source is None:
        return "own"
    path = here(source)
    if path is not None and path.is_file():
        return file_hash(path)
    if path is not None:
        files = {p.name: file_hash(p) for p in sorted(path.glob("*.jsonl"))}  # all that a loader reads of a folder
        return hashlib.sha256(canonical(files).encode()).hexdigest()
    if hub_like(source):
        return resolver.commit(source, "main", "dataset")
    raise UserError(f"{source} is neither a file, a folder nor a hub name: mend the task's source")


class Resolver:
    """Tells the commits of hub names: once looked up, kept. ``UNRESOLVED`` where it may not look one up."""

    def __init__(self, root: Path, online: bool) -> None:
        self.online = online
        self.known = _read_pins(root / PINS)

    def commit(self, name: str, revision: str, kind: str) -> str:
        """Of a repository of this ``kind`` (``model``, ``dataset``) at a branch, tag or commit."""
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            return revision
        pin = f"{kind}:{name}@{revision}"
        if pin not in self.known:
            if not self.online:
                return UNRESOLVED
            self.known[pin] = _ask_hub(name, revision, kind)
        return self.known[pin]


def _read_pins(path: Path) -> dict[str, str]:
    """The pins of a run, none where there are none yet; ``UserError`` for damaged ones: others make another study."""
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(pins, dict) and all(
            isinstance(v, str) and re.fullmatch(r"[\w.-]{1,64}", v) for v in pins.values()
        ):
            return pins
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError):
        pass
    raise UserError(
        f"{path} is damaged, so the commits of the run's hub names are not known: bring it back, or remove it to "
        "have them looked up again (a name that has moved since is another step)"
    )


def hub_commit(name: str) -> str:
    """The commit of a model's main branch on the hub; ``UserError`` where it cannot be resolved."""
    return _ask_hub(name, "main", "model")


def _ask_hub(name: str, revision: str, kind: str) -> str:
    """The commit that a hub's branch stands at; from the local cache where the hub is out of reach."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    ref = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind) / "refs" / revision
    try:
        info = HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=20)
    except Exception as error:  # the client raises a zoo of network errors; each means: not reached
        if ref.is_file():
            return ref.read_text().strip()
        raise UserError(
            f"{name}@{revision} cannot be resolved ({first_line(error)}): use a local folder, or go online"
        ) from None
    assert info.sha is not None
    return info.sha
