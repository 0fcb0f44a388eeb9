"""``compare``'s adapters beside their base: its weights' own directions, and the inputs that its modules get."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution.context import Inputs, ParallelMap
from execution.errors import UserError, joined
from execution.store import write_json
from execution.workspace import own

PROMPT = {"max_prompt_tokens": 2048, "max_answer_tokens": 2048}
INSTRUCTION = "{problem}"
if TYPE_CHECKING:
    from models.adapter import Start
    from results.document import Measured

ShareOf = Callable[[Inputs], ParallelMap]


def look(base: str, rollouts: Path | None) -> None:
    """What is wrong with the words for the base and the rollouts, as far as their names tell."""
    if not Path(base).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        raise UserError(f"--base {base[:200]} is neither a folder nor a hub name: name the adapters' base model")
    if rollouts is not None and not rollouts.is_file():
        raise UserError(f"--rollouts: {rollouts} is not there: name a JSONL or Parquet file of rollouts")


def survey(
    places: Mapping[str, Any],
    inputs: Mapping[str, Path],
    options: argparse.Namespace,
    share_of: ShareOf,
    progress: Any,
    start: Start,
) -> tuple[str, Measured, list[str]]:
    """The base's folder, the ``spectra`` and ``activations`` of the results, and what is not in them, a line each.

    ``start``: the factor that the first adapter drew.
    """
    from transformers.utils.logging import disable_progress_bar

    from orchestrator.measurements import activations, spectra
    from report import formats
    from results.document import Measured

    disable_progress_bar()
    measurements: dict[str, Any] = {}
    notes: list[str] = []
    with own("orchestrator-compare-") as folder:
        base = _base(options.base, folder)
        why_not = None if options.rollouts is None else _not_causal(base)
        rows = [] if options.rollouts is None or why_not is not None else _rows(options, base)
        everything = {**inputs, "base": folder}
        share = share_of(everything)
        settings = {"top": options.top, "threshold": options.intruder_below, "threads": 1}
        try:
            measurements["spectra"] = spectra.survey(places, everything, settings, share, progress)
        except spectra.NothingBeside as error:
            notes.append(f"Nothing lies beside the base's weights: {error}.")
        try:
            if rows:
                # In one piece: threads that load a model at once get in each other's way.
                with _loading(base):
                    measurements["activations"] = activations.survey(
                        dict(places), rows, everything, 1, share, 1, progress, start=start
                    )
        except activations.Unweighed as error:
            why_not = str(error)
    if why_not is not None:
        notes.append(f"Not weighed by activations: {why_not}.")
    for part, words in (("spectra", "Beside the base's weights"), ("activations", "By activations")):
        left_out = measurements.get(part, {}).get("left_out")
        if left_out:
            notes.append(f"{words}, left out: {formats.left_out(left_out)}.")
    for note in notes:
        progress(note)
    return str(base), Measured.model_validate(measurements), notes


def _base(base: str, folder: Path) -> Path:
    """The base's folder on this machine, noted in ``folder`` as a finished base step would."""
    from analysis.weights.base_file import BaseFile
    from orchestrator.planning.resolve import hub_commit
    from orchestrator.steps.base import NOTE, model_folder

    at = base
    if not Path(base).is_dir():
        write_json(folder / NOTE, {"name": base, "kind": "hub", "revision": hub_commit(base)})
        at = str(model_folder(folder))
    BaseFile(at)
    write_json(folder / NOTE, {"name": base, "kind": "local", "folder": str(Path(at).resolve())})
    return Path(at)


def _not_causal(base: Path) -> str | None:
    """Why the base has no activations to weigh by: it is no causal language model. None where it is one."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from orchestrator.bases.local import local_folder

    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        kinds = config.get("architectures") or [""]
        known = str(list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))
        if isinstance(kinds[0], str) and kinds[0] and not kinds[0].endswith("Model") and f"'{kinds[0]}'" not in known:
            return f"the base is a {kinds[0]}, no causal language model"
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError):
        pass  # the next line says what is wrong
    try:
        local_folder(base)
    except UserError as error:
        raise UserError(str(error).replace("base.path:", "--base:", 1)) from None
    return None


def _rows(options: argparse.Namespace, base: Path) -> list[tuple[list[int], list[int]]]:
    """Rollouts as the base's tokens, evenly spaced over the file, cut where the base's positions end."""
    from orchestrator.measurements.activations import spread
    from orchestrator.prompts.prompter import Prompter
    from orchestrator.rollouts.sources.file import read_rollouts

    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    longest = config.get("max_position_embeddings") or config.get("n_positions") or sum(PROMPT.values())
    try:
        held = read_rollouts(options.rollouts)
    except UserError as error:
        raise UserError(str(error).replace("rollouts.path:", "--rollouts:", 1)) from None
    if not isinstance(longest, int) or longest < 2:
        raise UserError(f"--base {base}: config.json gives {longest!r} positions: save the model again")
    with _loading(base):
        rows = _tokenized(Prompter(base, PROMPT), spread(held, options.rows), longest)
    most, known = max(max(map(max, filter(None, row)), default=0) for row in rows), config.get("vocab_size")
    if isinstance(known, int) and most >= known:
        raise UserError(
            f"--base {base}: its tokenizer knows token {most}, its model {known} tokens: save them together"
        )
    return rows


@contextmanager
def _loading(base: Path) -> Iterator[None]:
    """While Transformers reads the base: it raises a zoo of errors on a folder that is not whole."""
    from torch import OutOfMemoryError

    from orchestrator.measurements.activations import Unweighed

    try:
        yield
    except (UserError, Unweighed):
        raise
    except (MemoryError, OutOfMemoryError):
        raise Unweighed(
            "the base and the rows in float32 do not fit the memory here: give fewer, or shorter, rows"
        ) from None
    except Exception as error:
        raise UserError(f"--base {base}: it cannot be loaded or run ({joined(error)}): save the model again") from None


def _tokenized(prompter: Any, held: Sequence[Any], longest: int) -> list[tuple[list[int], list[int]]]:
    rows = []
    for row in held:
        prompt = prompter.prompt_ids(row.problem, INSTRUCTION)[-min(PROMPT["max_prompt_tokens"], longest // 2) :]
        answer = prompter.completion_ids(row.completion)[: PROMPT["max_answer_tokens"]]
        rows.append((prompt, answer[: longest - len(prompt)]))
    return rows
