"""The paper's printed tables, as typed into the package."""

import csv
from pathlib import Path

import pytest

from ggez_hub import method, registry
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.scoring import paper

PRINTED = {1: "vlm", 2: "vlm_human_rank", 3: "diffusion_dpgbench", 4: "diffusion_human", 5: "embedding",
           10: "vlm_seavqa_by_country", 15: "data_ablation_seavqa"}  # fmt: skip


@pytest.mark.parametrize("number", PRINTED)
def test_every_cell_is_as_printed(number: int, shared: Path) -> None:
    with (shared / "paper" / f"table{number}_{PRINTED[number]}.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    table = paper.table(number)
    assert list(table.columns) == ["alpha" if name == "beta" else name for name in header]
    assert [list(row) for row in table.rows] == [[name, *map(float, cells)] for name, *cells in rows]
    text = paper.FILE.read_text(encoding="utf-8")
    for row in rows:  # digits too: 1.470 is not 1.47
        assert f"[{', '.join(row)}]" in text


def test_the_formula_gives_the_printed_parities_and_the_note_tells_of_the_one_it_does_not() -> None:
    for row in paper.table(1).records():
        assert round(method.grp(row["global_avg"], row["sea_avg"], 0.43), 1) == row["grp"]
    for row in paper.table(5).records():
        regional = (row["cvqa_sea"] + row["seavqa_sea"]) / 2
        assert method.grp(row["cvqa_global"], regional, 0.43) == pytest.approx(row["grp"], abs=0.0051)
    off = [row["alpha"] for row in paper.table(2).records()
           if abs(method.grp(row["global"], row["sea"], 0.43) - row["grp"]) > 0.011]  # fmt: skip
    assert off == [1.0]
    assert "misprint" in (paper.table(2).note or "")


def test_a_table_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    with pytest.raises(InputError, match=r"table 7.*1, 2, 3, 4, 5, 10, 15"):
        paper.table(7)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("[[a, 1.0], [b, 1.0, 2.0]]", "row 1 has 3 cells, expected 2"),
        ("[[a, b]]", "expected a name, then numbers"),
        ("[]", "at least 1 item"),
    ],
)
def test_a_row_that_does_not_fit_its_columns_is_refused(rows: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(f"title: t\nsource: s\ncolumns: [model, alpha]\nrows: {rows}\n")
    with pytest.raises(ConfigError, match=problem):
        registry.read(paper.Printed, file)
