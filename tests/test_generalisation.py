"""Generalisation matrices: what each mix of a recipe learned against groups of the questions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ggez_hub import generalisation
from ggez_hub.recipes import load_recipe
from ggez_hub.runs import Run, read_json
from tests.conftest import RECIPE

Command = Callable[..., tuple[int, str, str]]
ONE = "data: {reader: pocket, options: {train: 2}, where: {category: [Food, Animals]}, synthetic: true}"
PARTS = """\
data:
  sources:
    food: {reader: pocket_questions, options: {train: 2}, where: {category: [Food]}, synthetic: true}
    animals: {reader: pocket_questions, options: {train: 2}, where: {category: [Animals]}, synthetic: true}
mixes:
  food: {food: null}
  animals: {animals: null}
"""


def of(run: Run, field: str, *mixes: str, **where: list[str]) -> dict[str, Any]:
    recipe = load_recipe("tiny", {"data.where": where})
    return generalisation.matrix("tiny", dict.fromkeys(mixes or ("food",), (recipe, run)), field)


def at(found: dict[str, Any], mix: str | None, which: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if (row["mix"], row["at"]) == (mix, which))


# -------------------------------------------------------------------------------------------------------------- numbers
def test_the_matrix_says_what_the_run_folder_holds(tiny_run: Run) -> None:
    found, results = of(tiny_run, "category", "food", "other"), read_json(tiny_run.stage("sweep") / "results.json")
    points, chosen = {point["alpha"]: point for point in results["points"]}, results["chosen"]
    expected: list[tuple[str | None, str, float]] = [(None, "base", 0.0)]
    expected += [(m, w, a) for m in ("food", "other") for w, a in (("specialist", 1.0), ("chosen", chosen["alpha"]))]
    assert [(row["mix"], row["at"], row["alpha"]) for row in found["rows"]] == expected
    regional = load_recipe("tiny").sweep.regional
    for row in found["rows"]:
        by = [points[row["alpha"]]["benchmarks"][name]["by"]["category"] for name in regional]
        assert list(row["groups"]) == ["Animals", "Food"]
        for name, part in row["groups"].items():
            assert part["value"] == pytest.approx(sum(each[name]["value"] for each in by) / len(by))
            assert part["difference"] == pytest.approx(part["value"] - found["rows"][0]["groups"][name]["value"])
            assert part["ci95"][0] <= part["value"] <= part["ci95"][1]
        assert row["global"]["value"] == pytest.approx(points[row["alpha"]]["global"])
        assert sum(group["n"] for group in found["groups"].values()) == sum(
            group["n"] for each in by for group in each.values()
        )
    judged = at(found, "food", "chosen")["global"]
    assert judged["retention"] == pytest.approx(chosen["retention"])
    assert judged["retention_ci95"] == pytest.approx(chosen["retention_ci95"])


def test_the_base_differs_from_itself_by_nothing(tiny_run: Run) -> None:
    base = of(tiny_run, "country")["rows"][0]
    for part in (*base["groups"].values(), base["global"]):
        assert (part["difference"], part["difference_ci95"]) == (0, [0, 0])
    assert base["global"]["retention"] == 1
    assert base["elsewhere"] is None


def test_what_a_mix_was_trained_on_is_marked_by_its_sources_too(tiny_run: Run) -> None:
    found = of(tiny_run, "category", "beasts", category=["Animals", "Plants"])
    row = at(found, "beasts", "specialist")
    assert [name for name, part in row["groups"].items() if part["own"]] == ["Animals"]
    assert row["elsewhere"] == {key: value for key, value in row["groups"]["Food"].items() if key != "own"}
    everything = of(tiny_run, "category", "all", category=["Animals", "Food"])
    assert at(everything, "all", "specialist")["elsewhere"] is None  # nothing is left


def test_a_mix_is_marked_where_it_is_named_as_the_group_and_judged_on_the_others(tiny_run: Run) -> None:
    found = of(tiny_run, "category", "food", "other")
    own = {(row["mix"], name) for row in found["rows"] for name, part in row["groups"].items() if part["own"]}
    assert own == {("food", "Food")}
    row = at(found, "food", "specialist")
    assert row["elsewhere"] == {key: value for key, value in row["groups"]["Animals"].items() if key != "own"}
    assert at(found, "other", "specialist")["elsewhere"] is None


@pytest.mark.parametrize(("field", "mix", "group"), [("continent", "asia", "asia"), ("country", "viet-nam", "VNM"),
                                                     ("country", "vnm", "VNM")])  # fmt: skip
def test_groups_of_places_have_names(tiny_run: Run, field: str, mix: str, group: str) -> None:
    found = of(tiny_run, field, mix)
    assert found["groups"][group]["title"] == {"asia": "Asia", "VNM": "Vietnam"}[group]
    own = [name for name, part in at(found, mix, "specialist")["groups"].items() if part["own"]]
    assert own == ([group] if mix != "viet-nam" else [])


def test_questions_that_depend_on_each_other_are_counted_and_drawn_together(tiny_run: Run) -> None:
    alone = of(tiny_run, "category")
    for name in ("regional", "choice"):  # the field is not in predictions.parquet
        path = Path(f"recipes/benchmarks/tiny-{name}.yaml")
        path.write_text(path.read_text() + "cluster: label\n")
    together = of(tiny_run, "category")
    for name, group in together["groups"].items():
        before = alone["groups"][name]
        assert group["n"] == before["n"] == 2 * before["independent"]  # two benchmarks ask about the same pictures
        assert group["independent"] == before["independent"] / 2  # two test pictures of each label
        assert at(together, None, "base")["groups"][name]["value"] == at(alone, None, "base")["groups"][name]["value"]


# ------------------------------------------------------------------------------------------------------ text and figure
def test_the_text_shows_base_diagonal_differences_and_what_is_forgotten(tiny_run: Run) -> None:
    found = of(tiny_run, "category")
    lines = generalisation.text(found).splitlines()
    row, head = (next(line for line in lines if line.startswith(start)) for start in ("food  ", " " * 12))
    assert f"{at(found, 'food', 'specialist')['groups']['Food']['value']:.3f}" in row
    assert row.count("◆") == 1
    assert abs(row.index("◆") - head.index("Food")) < 26
    change = next(line for line in lines if line.lstrip().startswith("against base"))
    assert f"{at(found, 'food', 'specialist')['groups']['Animals']['difference']:+.3f}" in change
    shown = "\n".join(lines)
    for words in ("at α = 1", "at the chosen α", "retention", "Animals*", "fewer than 30 independent", "Synthetic"):
        assert words in shown
    assert "Animals*" not in generalisation.text(found | {"few": 0})
    kept = at(found, "food", "specialist")["global"]
    assert f"{kept['retention']:.3f} [{kept['retention_ci95'][0]:.3f}, {kept['retention_ci95'][1]:.3f}]" in shown


def test_many_groups_go_below_each_other(tiny_run: Run) -> None:
    found = of(tiny_run, "country")
    shown = generalisation.text(found)
    assert len(found["groups"]) > 5
    assert max(map(len, shown.splitlines())) <= generalisation.WIDE
    assert all(shown.count(f"  {group['title'][:20]}") >= 2 for group in found["groups"].values())


def test_the_matrix_is_written_beside_the_other_tables(tiny_run: Run, tmp_path: Path) -> None:
    found = of(tiny_run, "category")
    written = generalisation.write(found, tmp_path / "tiny.ablation")
    assert [path.name for path in written] == ["matrix-category.json", "matrix-category.png"]
    assert read_json(written[0]) == found
    with Image.open(written[1]) as figure:
        figure.load()


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("contry", "no such field; did you mean 'country'?"),
        ("language", "no question of 'tiny-regional' says its language"),
    ],
)
def test_a_field_that_questions_lack_is_told_before_anything_is_trained(
    project: Path, ggez: Command, field: str, said: str
) -> None:
    path = project / "recipes" / "parts.yaml"
    path.write_text(RECIPE.replace(ONE, PARTS))
    code, _, err = ggez("ablate", "parts", "--by", field)
    assert code == 2
    assert f"--by {field}" in err
    assert said in err
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------------------------------- from the shell
@pytest.mark.slow
def test_each_mix_is_run_once_and_compared_by_what_only_the_questions_know(project: Path, ggez: Command) -> None:
    (project / "recipes" / "parts.yaml").write_text(RECIPE.replace(ONE, PARTS))
    for name in ("regional", "choice"):
        path = project / "recipes" / "benchmarks" / f"tiny-{name}.yaml"
        text = path.read_text().replace("reader: pocket,", "reader: pocket_questions,")
        path.write_text(text.replace("task: top1", "task: question").replace("task: choice", "task: question"))
    code, out, err = ggez("ablate", "parts", "--by", "language")
    assert code == 0, err
    matrix = read_json(Path("runs/parts.ablation/matrix-language.json"))
    for mix in ("food", "animals"):
        results = read_json(Path(f"runs/parts.{mix}/sweep/results.json"))
        part = at(matrix, mix, "specialist")["groups"]["en"]
        assert part["value"] == pytest.approx(results["points"][-1]["regional"])
        assert f"{part['value']:.3f}" in out
    code, again, err = ggez("ablate", "parts", "--by", "category", "--json")
    assert code == 0
    assert err.count("done already") == 6
    found = json.loads(again)
    own = {(row["mix"], name) for row in found["rows"] for name, part in row["groups"].items() if part["own"]}
    assert own == {("food", "Food"), ("animals", "Animals")}
