"""Scaled copies on the page: their names, their rows beside the others at one rate, and a table of each."""

from __future__ import annotations

from functools import cache

from report import csv_export, matched
from report.model_index import model_index
from report.sections.sweep import scaled
from report.sections.sweep.matched_tables import behaviour_table, matched_table
from results import Results, dump
from results.matched import Both, Span
from tests.report.example_study import typed

NAMES = ("dpo-norm", "rft-norm")


@cache
def example() -> Results:
    """The synthetic study with two of its trainings scaled to SFT's norm."""
    given = typed()
    assert given.geometry is not None and given.matched is not None and given.evaluation is not None
    norms = given.geometry.norms
    told = dump(given)
    told["scaled"] = [
        {"name": f"{of}-norm", "of": of, "to": "sft", "factor": norms["sft"] / norms[of], "norm_before": norms[of],
         "norm": norms["sft"], "reference_norm": norms["sft"]}
        for of in ("dpo", "rft")
    ]  # fmt: skip
    told["scaled_cka"] = [{"name": "dpo-norm", "layer": layer, "cka": cka} for layer, cka in ((0, 0.75), (1, 0.625))]
    told["losses"].append({"name": "dpo-norm", "nll_right": 0.4321, "nll_wrong": 1.0, "kl_to_base": 0.1234})
    for task in told["evaluation"]["tasks"]:
        (score,) = (row for row in task["models"] if row["name"] == "dpo")
        task["scaled"] = [score | {"name": "dpo-norm", "accuracy": 0.4567, "low": 0.4, "high": 0.5}]
    row = next(row for row in given.matched if row.method == "dpo")
    factor = Span(mean=9.5, low=9.5, high=9.5, pairs=1)
    update = {
        "matched": "norm",
        "trainings": ["dpo-norm"],
        "factor": factor,
        "nll_right": Both(its=0.4321, reference=0.5),
    }
    told["matched"].append(dump(row.model_copy(update=update)))
    return Results.model_validate(told)


def _line(table: object, label: str) -> list[str]:
    """The texts of the cells of the line of this label, with their details."""
    (line,) = (line for line in table.lines if line.cells[0].text == label)  # type: ignore[attr-defined]
    return [f"{cell.text} {cell.detail}".strip() for cell in line.cells]


def test_a_copy_is_called_by_its_training_and_the_norm_that_it_has() -> None:
    index = model_index(example())
    assert [index.label(name) for name in NAMES] == ["DPO, at SFT’s norm", "RFT, at SFT’s norm"]
    assert {index.role(name) for name in NAMES} == {"scaled"}
    assert list(index.models)[-2:] == list(NAMES), "behind all trainings"
    assert index.models["dpo-norm"].colour == index.models["dpo"].colour


def test_the_other_models_keep_their_names_and_looks() -> None:
    before, after = model_index(typed()).models, model_index(example()).models
    assert {name: model for name, model in after.items() if name in before} == before


def test_the_matched_table_says_by_how_much() -> None:
    table = matched_table(example(), model_index(example()))
    assert table is not None and table.title.endswith("at the same learning rate, and at the same norm")
    line = dict(zip([column.title for column in table.columns], _line(table, "DPO, at SFT’s norm"), strict=True))
    assert line["Scaled by"] == "9.50×"
    behaviour = behaviour_table(example(), model_index(example()))
    assert behaviour is not None
    does = dict(zip([c.title for c in behaviour.columns], _line(behaviour, "DPO, at SFT’s norm"), strict=True))
    assert does["Held-out loss"].startswith("0.432 ")
    assert "nothing is trained again" in table.caption
    plain = matched_table(typed(), model_index(typed()))
    assert plain is not None and "Scaled by" not in [column.title for column in plain.columns]
    assert "nothing is trained again" not in plain.caption and "norm" not in plain.title


def test_a_row_at_the_norm_alone_is_reason_for_the_table() -> None:
    rows = [row for row in example().matched or [] if row.matched == "norm"]
    only = example().model_copy(update={"matched": rows})
    assert matched.rows(only) == rows and matched.covered(only) == set()


def test_each_copy_has_its_line_and_its_record() -> None:
    table = scaled.table(example(), model_index(example()))
    assert table is not None
    line = dict(zip([f"{c.title} {c.unit}" for c in table.columns], _line(table, "DPO, at SFT’s norm"), strict=True))
    assert (line["Held-out loss right rows, nats a token"], line["KL to base nats a token"]) == ("0.432", "0.123")
    assert line["CKA to base after layer 1"] == "0.625", "of the last layer"
    assert any(text.startswith("45.7%") for text in line.values())
    assert "– " in " ".join(f"{text} " for text in _line(table, "RFT, at SFT’s norm")), "it was not evaluated"
    assert scaled.table(typed(), model_index(typed())) is None
    rows = csv_export.tables(example())
    assert [row["name"] for row in rows["scaled"]] == list(NAMES)
    assert {row[f"accuracy.{task.task}"] for row in rows["scaled"][:1] for task in example().tasks} == {0.4567}
    assert len(rows["scaled_cka"]) == 2 and not csv_export.tables(typed())["scaled"]
