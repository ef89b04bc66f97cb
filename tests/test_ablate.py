"""Ablations: each mix is a run of its own, and the table says what their run folders hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ggez_hub import ablate
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.recipes import load_recipe
from ggez_hub.runs import Run, read_json
from tests.conftest import RECIPE

Command = Callable[..., tuple[int, str, str]]
ONE = "data: {reader: pocket, options: {train: 2}, where: {category: [Food, Animals]}, synthetic: true}"
SOURCES = """\
data:
  sources:
    near: {reader: pocket, options: {train: 2}, where: {category: [Food, Animals]}, synthetic: true}
    far: {reader: pocket, options: {train: 1}, where: {category: [Food]}, synthetic: true, regional: false}
mixes:
  few: {near: 9}
  both: {near: null, far: 12}
"""


@pytest.fixture
def mixes(project: Path) -> Path:
    """recipes/mixes.yaml in the current directory: the tiny recipe with two sources and two mixes."""
    assert ONE in RECIPE
    path = project / "recipes" / "mixes.yaml"
    path.write_text(RECIPE.replace(ONE, SOURCES))
    return path


def test_a_mix_takes_its_sources_alone_and_at_most_its_rows(mixes: Path) -> None:
    mixes.write_text(
        mixes.read_text()
        .replace("{train: 2}", "{train: 2}, share: 0.5")
        .replace("{train: 1}", "{train: 1}, share: 0.5")
    )
    found = ablate.mixed("mixes", "out", {"train.steps": 5})
    assert {name: run.folder.as_posix() for name, (_, run) in found.items()} == {
        "few": "out/mixes.few",
        "both": "out/mixes.both",
    }
    taken = {
        name: {source: (corpus.cap, corpus.share) for source, corpus in recipe.data.corpora.items()}
        for name, (recipe, _) in found.items()
    }
    assert taken == {"few": {"near": (9, None)}, "both": {"near": (None, None), "far": (12, None)}}
    for recipe, _ in found.values():
        assert recipe.train.steps == 5
        assert recipe.mixes == {}  # what other mixes there are changes nothing in the run of one
        assert recipe.data.sources["near"].where == {"category": ("Food", "Animals")}


def test_arguments_change_sources_and_mixes(mixes: Path) -> None:
    given = {"data.sources.near.options.train": 3, "mixes.few.near": 4, "data.sources.far.license": "mit"}
    found = ablate.mixed("mixes", "out", given)
    assert {recipe.data.sources["near"].options["train"] for recipe, _ in found.values()} == {3}
    assert found["few"][0].data.sources["near"].cap == 4
    assert list(found["few"][0].data.sources) == ["near"]
    assert found["both"][0].data.sources["far"].license == "mit"


def test_one_source_is_mixed_by_its_cap(project: Path) -> None:
    found = ablate.mixed("tiny", "out", {"mixes": {"half": {"data": 7}, "all": {"data": None}}})
    assert {name: recipe.data.cap for name, (recipe, _) in found.items()} == {"half": 7, "all": None}


def test_a_mix_without_translated_sources_needs_no_translator(mixes: Path) -> None:
    text = mixes.read_text().replace("regional: false", "regional: false, translate: true")
    mixes.write_text(
        text + "translate: {translators: {nllb: {id: facebook/nllb-200}}, default: nllb, languages: [ind]}\n"
    )
    found = ablate.mixed("mixes", "out", {})
    assert (found["few"][0].translate is None, found["both"][0].translate is None) == (True, False)


def test_a_recipe_without_mixes_says_how_to_name_them(project: Path, ggez: Command) -> None:
    with pytest.raises(InputError, match="names no mixes") as caught:
        ablate.mixed("tiny", "out", {})
    assert "mixes: {few: {data: 1000}}" in str(caught.value)
    code, _, err = ggez("ablate", "tiny")
    assert code == 2
    assert "names no mixes" in err


def test_a_mix_of_an_unknown_source_is_told_before_anything_runs(mixes: Path) -> None:
    with pytest.raises(ConfigError, match=r"mixes\.few\.neer: unknown source 'neer'; did you mean 'near'"):
        ablate.mixed("mixes", "out", {"mixes.few": {"neer": 3}})
    assert not Path("out").exists()


def test_the_table_says_what_the_run_folders_hold(tiny_run: Run) -> None:
    found = ablate.compare("tiny", {"all": (load_recipe("tiny"), tiny_run)})
    results = read_json(tiny_run.stage("sweep") / "results.json")
    points, chosen = {point["alpha"]: point for point in results["points"]}, results["chosen"]["alpha"]
    assert [(row["mix"], row["at"], row["alpha"]) for row in found["rows"]] == [
        (None, "base", 0.0), ("all", "specialist", 1.0), ("all", "chosen", chosen)
    ]  # fmt: skip
    for row in found["rows"]:
        point = points[row["alpha"]]
        assert (row["regional"], row["global"], row["grp"]) == (point["regional"], point["global"], point["grp"])
        countries = {country: part["value"] for country, part in row["countries"].items()}
        assert by_country(point, "tiny") == pytest.approx(countries)
        for part in row["countries"].values():
            assert part["ci95"][0] <= part["value"] <= part["ci95"][1]
    asked = [points[0]["benchmarks"][name]["n"] for name in found["benchmarks"]["regional"]]
    assert sum(found["questions"].values()) == sum(asked)
    rows = read_json(tiny_run.stage("filter") / "report.json")["kept"]
    assert found["mixes"] == {"all": {"rows": rows, "sources": {"data": rows}}}


def test_the_text_marks_countries_of_few_questions_and_shows_the_paper_s_figure(tiny_run: Run) -> None:
    found = ablate.compare("tiny", {"all": (load_recipe("tiny"), tiny_run)})
    few, *_ = (country for country, count in found["questions"].items() if count < 30)
    shown = ablate.text(found)
    words = (
        "at α = 1, the regional specialist",
        "at the chosen α",
        f"{few}*",
        "* fewer than 30 questions",
        "Synthetic",
    )
    assert all(word in shown for word in (*words, f"without a question: {', '.join(found['unasked'])}"))
    printed = next(line for line in shown.splitlines() if "CulturalGround-open-ended" in line)
    assert printed.split()[1:] == ["41.9", "40.5", "49.3", "50.0", "44.4", "46.6", "46.9", "39.1", "18.5"]
    assert f"{few}*" not in ablate.text(found | {"few": 0})


@pytest.mark.slow
def test_each_mix_is_run_once_and_compared(mixes: Path, ggez: Command) -> None:
    code, out, err = ggez("ablate", "mixes")
    assert code == 0, err
    table = read_json(Path("runs/mixes.ablation/table.json"))
    assert table["mixes"]["few"] == {"rows": 9, "sources": {"near": 9}}
    assert table["mixes"]["both"]["sources"]["far"] == 12
    for mix in ("few", "both"):
        results = read_json(Path(f"runs/mixes.{mix}/sweep/results.json"))
        row = next(row for row in table["rows"] if (row["mix"], row["at"]) == (mix, "specialist"))
        assert row["regional"] == results["points"][-1]["regional"]
        assert f"{row['regional']:.3f}" in out
    with Image.open("runs/mixes.ablation/figure3.png") as figure:
        figure.load()
    code, again, err = ggez("ablate", "mixes", "--json")
    assert code == 0
    assert json.loads(again) == table
    assert err.count("done already") == 6


def by_country(point: dict[str, Any], name: str) -> dict[str, float]:
    """The mean over the regional benchmarks of what each says of a country, from results.json."""
    parts = [point["benchmarks"][name]["by"]["country"] for name in load_recipe(name).sweep.regional]
    every = {country for part in parts for country in part}
    values = {country: [part[country]["value"] for part in parts if country in part] for country in every}
    return {country: sum(each) / len(each) for country, each in values.items()}
