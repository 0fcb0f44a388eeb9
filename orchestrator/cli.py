"""The command line. Light: what a command needs is imported when it runs.

Exit codes: 0 done; 1 some step failed, or the run could not go on (cluster gone, disk full, a library missing); 2 bad
input, nothing started; 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from execution.errors import BAD_INPUT, DONE, FAILED, STOPPED, Interrupted, UserError, first_line
from orchestrator.commands.process import DEFAULT_STUDY, refuse_intruders
from report.escape import line, tell

SHOWS = ("plan", "status", "doctor")  # commands that leave nothing behind but what they print


def main(arguments: list[str] | None = None) -> int:
    """Parse, run one command, return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        refuse_intruders()
        code: int = importlib.import_module(f"orchestrator.commands.{options.command}").main(options)
        sys.stdout.flush()
        return code
    except UserError as error:
        tell(f"error: {' '.join(str(error).splitlines())}", sys.stderr)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        lack = f"{sys.executable} has no module {error.name}: `make install` puts it into .venv"
        tell(f"error: {lack}; {_kept(options.command, arguments)}", sys.stderr)
        return FAILED
    except (Interrupted, OSError) as error:
        if isinstance(error, BrokenPipeError):
            _let_go()
            if options.command in SHOWS:
                return DONE
        with contextlib.suppress(BrokenPipeError):  # it may be this stream that nobody reads
            tell(f"error: {first_line(error, most=None)}; {_kept(options.command, arguments)}", sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        tell(file=sys.stderr)
        tell(f"stopped; {_kept(options.command, arguments)}", sys.stderr)
        return STOPPED


def _let_go() -> None:
    """Whoever read this has seen enough: what is still on its way to them is dropped."""
    with contextlib.suppress(OSError, ValueError):  # not a real file: a test's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _kept(command: str, arguments: list[str] | None) -> str:
    if command in ("compare", "grade"):
        return "nothing was kept"
    again = shlex.join(["python", "-m", "orchestrator", *(sys.argv[1:] if arguments is None else arguments)])
    return f"what is finished stays. Go on with: {again}"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, line(f"error: {' '.join(message.splitlines())}; see {self.prog} --help") + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m orchestrator",
        description="One base model, one set of rollouts, several offline objectives: what did each do to the weights?",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _command(commands, "run", "run a study to its report, taking up where the last run stopped")
    run.add_argument("--serial", action="store_true", help="one step after another in this process, without Ray")
    run.add_argument("--address", metavar="RAY", help="join a running Ray cluster instead of starting one")
    _store(run)
    plan = _command(commands, "plan", "show a study's steps, what each needs and what is done; touches nothing")
    plan.add_argument("--gpus", metavar="N", help="and an estimated schedule of the whole study on N GPUs, 1 to 4096")
    _store(plan)
    _command(commands, "status", "show how far a study's run is", None)
    _command(commands, "report", "rebuild the report from what is finished", None)
    export = _command(commands, "export", "write every completion as lm-evaluation-harness logs its samples", None)
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder, or an earlier export's")
    _compare(commands)
    grade = commands.add_parser(
        "grade", help="grade anyone's rows of completions and gold answers, without a study: adds extracted, correct"
    )
    grade.add_argument(
        "rows", type=Path, metavar="ROWS.jsonl", help="rows {completion, answer, ...}; all their fields are kept"
    )
    grade.add_argument(
        "--out", type=Path, metavar="FILE", help="(stdout); rows that have extracted or correct already are refused"
    )
    doctor = commands.add_parser("doctor", help="what this machine has and lacks, each lack with its mend")
    doctor.add_argument("study", nargs="?", type=Path, metavar="STUDY.yaml", help="whose model --measure takes")
    doctor.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of that study")
    doctor.add_argument("--measure", action="store_true", help="and how fast it is, in about a minute, for plan")
    return parser


def _compare(commands: argparse._SubParsersAction) -> None:
    compare = commands.add_parser("compare", help="the geometry of any PEFT LoRA adapters of one base, without a study")
    compare.add_argument(
        "adapters",
        nargs="+",
        metavar="[NAME=]ADAPTER",
        help="a folder that PEFT wrote; the others are compared to the first, or to sft",
    )
    compare.add_argument(
        "--base", metavar="MODEL", help="the base, a folder or a hub name: where do its weights point?"
    )
    compare.add_argument(
        "--rollouts", type=Path, metavar="FILE", help="rows to weigh the updates by, on the base's activations"
    )
    compare.add_argument("--rows", type=_count, default=64, metavar="N", help="of them, evenly spaced (default: 64)")
    compare.add_argument("--start", type=Path, metavar="ADAPTER", help="one adapter as it was before its first step")
    compare.add_argument("--top", type=_count, default=10, metavar="K", help="singular vectors compared (default: 10)")
    compare.add_argument(
        "--intruder-below", type=_cosine, default=0.5, metavar="COSINE", help="to any of the base's (default: 0.5)"
    )
    compare.add_argument("--out", type=Path, default=Path("runs/comparison"), metavar="DIR", help="(%(default)s)")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**6):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number from 1 to a million")
    return int(text)


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number between 0 and 1")
    return value


def _store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--store",
        metavar="PLACE",
        help="where steps are kept, if not in the run's folder: a folder, s3://BUCKET/PREFIX",
    )


def _command(
    commands: argparse._SubParsersAction, name: str, text: str, study: Path | None = DEFAULT_STUDY
) -> argparse.ArgumentParser:
    """``study`` None: without one, a command that looks at a run shows it as it was started."""
    command = commands.add_parser(name, help=text)
    command.add_argument("study", nargs="?", type=Path, default=study, metavar="STUDY.yaml")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, such as training.steps=200"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/NAME)")
    return command
