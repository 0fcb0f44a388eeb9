"""What the models do: accuracies beside the base's and beside each other, by paired tests alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product

from report import formats
from report.findings.claim import Claim, between, ends
from report.findings.evidence import Evidence, Family
from report.findings.trials import LEVEL, Tested, accuracies, tasks, tested
from report.model_index import BASE, ModelIndex
from results import Results
from results.evaluation import Task

# From this share of cut answers on it is said beside the accuracy, which it can hold down by as much.
MANY_CUT = 0.1
NAMED = 8  # models that a sentence names; of more it says how many
SOME = "some in function"


def points(results: Results, index: ModelIndex) -> list[Claim]:
    """For each task: who stands above or below the base, and what keeps the task from telling."""
    return [claim for task in tasks(results) for claim in (*_beside_base(task, index), *_cut(task, index))]


def _beside_base(task: Task, index: ModelIndex) -> Iterator[Claim]:
    accuracy = accuracies(task)
    others = index.order(name for name in accuracy if name != BASE)
    point = f"accuracy {task.task}"
    head = f"{task.title} (n = {formats.count(task.n)}): "
    if len(accuracy) > 1 and set(accuracy.values()) in ({0.0}, {1.0}):
        share = next(iter(accuracy.values()))
        words = f"all {len(accuracy)} models stand at {formats.percent(share)}: this task cannot tell them apart."
        yield Claim("level at an end", point, head + words, tuple(accuracy), {"accuracy": (share, share)})
        return
    if BASE not in accuracy or not others:
        return
    sides: dict[str, list[str]] = {"above": [], "below": []}
    open_ = []
    for name in others:
        for test in tested(task, [BASE], [name]):
            if test.shown:
                sides["above" if test.difference > 0 else "below"].append(name)
            else:
                open_.append(name)
    numbers = {BASE: (accuracy[BASE], accuracy[BASE])}
    text = f"{head}the base stands at {formats.percent(accuracy[BASE])}"
    how = "sign-flip test" if task.samples > 1 else "McNemar"
    test_words = f"({how}, Holm-adjusted p < {LEVEL})"
    shown = [(side, names) for side, names in sides.items() if names]
    if not shown and not open_:
        yield Claim("base alone", point, f"{text}.", (BASE,), numbers)
        return
    parts = [f"{_listed(index, names, len(others))} {side} it" for side, names in shown]
    if open_:
        all_open = f"none of the {len(open_)} trained models is shown to differ"
        some = f"{_listed(index, open_, len(others))} {'is' if len(open_) == 1 else 'are'} not shown to differ"
        parts.append(all_open if len(open_) == len(others) > 1 else some)
    kinds = [*shown, *([("open", open_)] if open_ else [])]
    for i, ((side, names), part) in enumerate(zip(kinds, parts, strict=True)):
        start, end = (f"{text}; " if i == 0 else ""), (f" {test_words}." if i == len(parts) - 1 else ";")
        yield Claim(f"{side} the base", point, f"{start}{part}{end}", tuple(names), numbers)


def _listed(index: ModelIndex, names: Sequence[str], of: int) -> str:
    if len(names) == of > 1:
        return f"all {of} trained models"
    return (
        f"{len(names)} of {of} trained models"
        if len(names) > NAMED
        else formats.listing([index.label(name) for name in names])
    )


def _cut(task: Task, index: ModelIndex) -> Iterator[Claim]:
    shares = {score.name: score.truncated / (score.n * score.samples) for score in task.models}
    many = {name: shares[name] for name in index.order(shares) if shares[name] >= MANY_CUT}
    if not many:
        return
    at = f"at max_tokens ({formats.count(task.sampling.max_tokens)})"
    held = "their accuracy is held down by that (a floor effect), and a difference in it may be one in length"
    shown = between([formats.percent(value) for value in ends(list(many.values()))])
    names = formats.listing([index.label(name) for name in many])
    if len(many) == len(shares) and set(many.values()) == {1.0}:
        words = f"every answer was cut off {at}"
    else:
        of = "each model’s answers" if len(many) == len(shares) > 1 else f"the answers of {names}"
        words = f"{shown} of {of} were cut off {at}"
    numbers = {name: (value, value) for name, value in many.items()}
    yield Claim("cut", f"accuracy {task.task}", f"On {task.title} {words}: {held}.", tuple(many), numbers)


def differs(ev: Evidence, families: Sequence[Family], point: str) -> list[Claim]:
    """That methods which are not told apart by direction are told apart by their accuracy, task by task.

    Said of two methods where every pair of runs differs significantly, the same way, and by more than two runs of one
    of them differ; of so many pairs of runs otherwise.
    """
    claims = [_differs(ev, family, task, point) for family, task in product(families, tasks(ev.results))]
    some = [claim for claim in claims if claim and claim.kind == SOME]
    whole = [claim for claim in claims if claim and claim.kind != SOME]
    return (
        [replace(claim, words="In function they do differ: " + claim.words) for claim in whole[:1]] + whole[1:] + some
    )


def _differs(ev: Evidence, family: Family, task: Task, point: str) -> Claim | None:
    names, reference = ev.label(family), ev.label(ev.reference)
    tests = tested(task, ev.reference.names, family.names)
    shown = [test for test in tests if test.shown]
    if not shown:
        return None
    size = max((abs(test.difference) for test in _within(task, family, ev.reference)), default=0.0)
    signs = {test.difference > 0 for test in shown}
    steps = ends([100 * abs(test.difference) for test in shown])
    by = f"{between([formats.fixed(step, 1) for step in steps])} points"
    p = _p(shown)
    subjects, numbers = (*family.names, *ev.reference.names), {"points": steps}
    if len(shown) == len(tests) and len(signs) == 1 and steps[0] > 100 * size:
        side = "above" if signs == {True} else "below"
        words = f"{names} stands {by} {side} {reference} on {task.title} ({p})."
        return Claim(f"{side} in function", point, words, subjects, numbers)
    orders = f"; two orders of one of them by up to {formats.fixed(100 * size, 1)} points" if size else ""
    words = (
        f"{names} and {reference} differ in accuracy on {task.title} in {len(shown)} of {len(tests)} pairs of runs "
        f"(by {by}, {p}){orders}."
    )
    return Claim(SOME, point, words, subjects, numbers)


def _p(tests: Sequence[Tested]) -> str:
    """The largest of their p-values, in words."""
    shown = formats.p_value(max(test.p for test in tests))
    return f"Holm p {shown}" if len(tests) == 1 or shown.startswith("<") else f"Holm p at most {shown}"


def _within(task: Task, *of: Family) -> list[Tested]:
    pairs = [pair for family in of for pair in combinations(family.names, 2)]
    return [test for a, b in pairs for test in tested(task, [a], [b])]


def _span(shares: Sequence[float]) -> str:
    """59.0%, or 59.0–59.2%: of a change is said from what to what, so a range needs other words."""
    low, high = (formats.percent(value) for value in ends(shares))
    return low if low == high else f"{low.removesuffix('%')}–{high}"


def changed(ev: Evidence, first: Family, second: Family, point: str) -> Iterator[Claim]:
    """What paired tests show of accuracy from one family to another, task by task."""
    for task in tasks(ev.results):
        tests, accuracy = tested(task, first.names, second.names), accuracies(task)
        shown = [test for test in tests if test.shown]
        here = [[accuracy[name] for name in family.names if name in accuracy] for family in (first, second)]
        shares = [_span(values) for values in here if values]
        if not tests or len(shares) < 2 or shares[0] == shares[1]:
            continue
        signs = {test.difference > 0 for test in shown}
        subjects, numbers = (*first.names, *second.names), {first.name: ends(here[0]), second.name: ends(here[1])}
        if len(shown) == len(tests) and len(signs) == 1:
            way = "rises" if signs == {True} else "falls"
            there = [accuracy[name] for name in ev.reference.names if name in accuracy]
            beside = f"; {ev.label(ev.reference)} has {_span(there)}" if there else ""
            words = (
                f"From the one to the other its accuracy on {task.title} {way} from {shares[0]} to {shares[1]} "
                f"({_p(tests)}){beside}."
            )
            yield Claim(f"accuracy {way}", point, words, subjects, numbers)
        elif not shown:
            words = (
                f"Between the two its accuracy on {task.title}, {shares[0]} and {shares[1]}, is not shown to change."
            )
            yield Claim("accuracy open", point, words, subjects, numbers)
