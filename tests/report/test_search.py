"""The section of the search: what was chosen, what as good is, why a trial ended."""

from __future__ import annotations

from report.csv_export import tables
from report.model_index import model_index
from report.section import Source
from report.sections.search import SECTION
from results import Results, dump
from tests.report.example_study import typed


def shown(results: Results) -> dict[str, list[list[str]]]:
    made = SECTION.tables(Source(results, {}, model_index(results)))
    return {table.key: [[cell.text for cell in line.cells] for line in table.lines] for table in made if table}


def test_the_chosen_rates_and_what_they_cost() -> None:
    rows = shown(typed())["search"]
    assert [row[1] for row in rows] == ["1e-3", "1e-4"]
    assert [row[2] for row in rows] == ["82.0%", "82.0%"]
    assert [row[3] for row in rows] == ["none", "3e-4"], "40 of 50 are within one standard error of 41"
    assert [row[4:] for row in rows] == [["2", "125", "200"], ["4", "225", "400"]]


def test_a_rate_beyond_one_standard_error_is_not_as_good() -> None:
    """The standard error of 41 in 50 is .0543, 2.7 problems: 39 is within it, 38 is not."""
    results = typed()
    dpo = results.search[1]  # type: ignore[index]
    for right, said in ((39, "3e-4"), (38, "none")):
        rung = dpo.trials[2].rungs[1].model_copy(update={"right": right, "accuracy": right / 50})
        trial = dpo.trials[2].model_copy(update={"rungs": [dpo.trials[2].rungs[0], rung]})
        search = dpo.model_copy(update={"trials": [*dpo.trials[:2], trial, dpo.trials[3]]})
        assert shown(results.model_copy(update={"search": [search]}))["search"][0][3] == said


def test_every_trial_tells_how_it_ended() -> None:
    rows = shown(typed())["search-dpo"]
    assert [row[0] for row in rows] == ["3e-5", "1e-4", "3e-4", "3e-3"]
    assert [row[3] for row in rows] == ["stopped", "chosen", "finished", "failed"]
    assert rows[0][4] == "32.0% after 25 steps, below the 50.0% that went on, by the 2 there before"
    assert rows[3][4].startswith("loss is not finite at step 41")


def test_a_row_a_trial_in_the_csv() -> None:
    rows = tables(typed())["search"]
    assert [row["learning_rate"] for row in rows] == [1e-4, 1e-3, 3e-5, 1e-4, 3e-4, 3e-3]
    assert [row["chosen"] for row in rows].count(True) == 2
    assert rows[0]["stopped_cutoff"] == 0.5 and "accuracy" not in rows[5]


def test_a_study_without_a_search_has_no_such_section() -> None:
    held = dump(typed())
    del held["search"]
    assert shown(Results.model_validate(held)) == {}
