"""`ggez new`: a recipe for a region, from the family's pocket recipe, that validates and runs as it stands."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ggez_hub import kof, registry
from ggez_hub.cli import _guarded, cli
from ggez_hub.recipes import load_recipe
from ggez_hub.scaffold import COMMENTS
from ggez_hub.schema import Recipe

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
FAMILIES = list(registry.files("families"))
REGIONS = ("sea", "sa", "maghreb")
OWN = "title: 'Maghreb: the west'\ncountries: [DZA, LBY, MAR, MRT, TUN]\n"
BENCHMARK = """\
title: A few questions
source: {{reader: pocket, options: {{selection: 1, test: 1}}, where: {{category: [Food]}}}}
task: top1
rows: {rows}
test: {{split: [test]}}
selection: {{split: [selection]}}
synthetic: true
"""


def ggez(*arguments: str) -> int:
    return _guarded(lambda: cli.main(arguments, standalone_mode=False))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, but for a region of one's own."""
    monkeypatch.chdir(tmp_path)
    own_region("maghreb", OWN)
    return tmp_path


def own_region(name: str, text: str) -> None:
    path = Path("recipes/regions", f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def loaded(name: str) -> dict[str, Any]:
    return load_recipe(name).model_dump(by_alias=True)


# -------------------------------------------------------------------------------------------------------------- recipes
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("region", REGIONS)
def test_new_recipe_is_valid_and_differs_from_the_pocket_recipe_in_title_and_region(
    family: str, region: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = family.replace("_", "-")
    assert ggez("new", region, "--family", family) == 0
    out, said = capsys.readouterr()
    assert out == f"{region}-{stem}.yaml\n"
    assert f"ggez validate {region}-{stem}.yaml\n" in said
    assert ggez("validate", f"{region}-{stem}.yaml") == 0
    made, pocket = loaded(f"{region}-{stem}.yaml"), loaded(f"pocket-sea-{stem}")
    assert made["title"].startswith(f"{registry.load_region(region).title}, ")
    assert made["region"] == region
    if region == "maghreb":  # its file has no KOF value, so the recipe needs one to run
        assert made["sweep"].pop("globalization") == 0.5
        assert pocket["sweep"].pop("globalization") is None
    assert made | {"title": "", "region": ""} == pocket | {"title": "", "region": ""}


@pytest.mark.parametrize("family", FAMILIES)
def test_comments_stand_above_what_they_tell_of(family: str) -> None:
    assert ggez("new", "maghreb", "--family", family, "--out", "mine.yaml") == 0
    text = Path("mine.yaml").read_text()
    lines, places = text.splitlines(), registry.parse_yaml(text, "mine.yaml")[1]
    for key, comment in COMMENTS.items():
        notes = comment.splitlines()
        above = [line.strip() for line in lines[places[key] - 1 - len(notes) : places[key] - 1]]
        assert above == notes
    assert max(map(len, lines)) <= 120
    assert "(synthetic)" in lines[0]
    assert "mere placeholder" in text


def test_what_is_commented_out_is_valid_once_it_is_not() -> None:
    assert ggez("new", "sa", "--family", "embedding") == 0
    path = Path("sa-embedding.yaml")
    text = path.read_text()
    said = re.sub(r"^# (?=card:|push:|  )", "", text, flags=re.MULTILINE)
    path.write_text(said)
    recipe = load_recipe("sa-embedding.yaml")
    assert recipe.push.namespace == "YOU"
    assert recipe.card.limits
    assert recipe.card.intended_use
    assert recipe.card.cautions


def test_a_region_with_a_kof_value_of_its_own_gets_no_placeholder() -> None:
    own_region("maghreb", OWN + "kof: {2023: 60}\n")
    assert ggez("new", "maghreb", "--family", "embedding") == 0
    assert load_recipe("maghreb-embedding.yaml").sweep.globalization is None
    assert kof.globalization_factor("maghreb") == 0.6


def test_new_recipe_runs_on_the_pocket_world(folder: Path) -> None:
    (folder / "recipes" / "benchmarks").mkdir()
    for rows in ("region", "others"):  # few questions
        (folder / "recipes" / "benchmarks" / f"few-{rows}.yaml").write_text(BENCHMARK.format(rows=rows))
    few = ("train.steps=2", "train.batch_size=8", "data.options.train=1", "sweep.alphas=[0, 1]", "sweep.resamples=10")
    questions = ("sweep.global=[few-others]", "sweep.regional=[few-region]")
    assert ggez("new", "maghreb", "--family", "embedding", "--out", "atlas/west.yaml") == 0
    assert ggez("run", "atlas/west.yaml", *few, *questions) == 0
    results = json.loads((folder / "runs" / "west" / "sweep" / "results.json").read_text())
    assert (results["region"], results["synthetic"]) == ("maghreb", True)
    assert "Maghreb: the west" in (folder / "runs" / "west" / "card" / "adapter" / "README.md").read_text()


def test_the_changes_that_the_documents_show_fit_a_new_recipe() -> None:
    found = re.search("^```diff\n(.+?)^```", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    lines = found[1].splitlines()
    assert ggez("new", "sa", "--family", "embedding") == 0
    text = Path("sa-embedding.yaml").read_text()
    assert [line for line in lines if line[0] in "- " and line[1:] not in text.splitlines()] == []
    changes = registry.parse_yaml("\n".join(line[1:] for line in lines if line[0] in "+ "), "the documents")[0]
    recipe = registry.check(Recipe, registry.parse_yaml(text, "new")[0] | changes, lambda key: registry.dotted(key))
    assert not recipe.data.synthetic
    assert recipe.card.license == recipe.data.license


# --------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maghrib", "--family", "vlm"], "unknown region 'maghrib'; did you mean 'maghreb'?"),
        (["atoll", "--family", "vlm"], "hint: to make it: ggez cp sea recipes/regions/atoll.yaml, edit title and"),
        (["sea", "--family", "embeding"], "unknown family 'embeding'; did you mean 'embedding'?\n  hint: ggez ls fam"),
        (["sea", "--family", "vlm", "--out", "x.txt"], "x.txt: expected a file name that ends in .yaml"),
        (["sea", "--family", "vlm", "--out", "recipes"], "recipes: expected a file name that ends in .yaml"),
        (["recipes/regions/maghreb.yaml", "--family", "vlm"], "expected the name of a region, not a path"),
        (["..\\sea", "--family", "vlm"], "expected the name of a region, not a path"),
        (["maghreb.yaml", "--family", "vlm"], "unknown region 'maghreb.yaml'; did you mean 'maghreb'?"),
        (["world", "--family", "vlm"], "region 'world' holds all countries of the pocket world"),
        (["tuvalu", "--family", "vlm"], "region 'tuvalu': the pocket world has no picture from TUV, so the recipe"),
        (["tuvalu", "--family", "vlm"], "ggez cp omniglot-sea tuvalu.yaml"),
        (["broken", "--family", "vlm"], "broken.yaml:1  titel: unknown key; did you mean 'title'?"),
        (["Upper", "--family", "vlm"], "Upper-vlm.yaml  region: String should match pattern"),
    ],
)
def test_what_cannot_become_a_recipe_says_why_and_writes_nothing(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_region("tuvalu", "title: Tuvalu\ncountries: [TUV]\n")
    own_region("broken", "titel: Broken\ncountries: [DZA]\n")
    own_region("Upper", OWN)
    before = set(folder.rglob("*"))
    assert ggez("new", *arguments) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert message in said
    assert set(folder.rglob("*")) == before


def test_an_existing_file_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sea-vlm.yaml").write_text("mine")
    assert ggez("new", "sea", "--family", "vlm") == 2
    assert "sea-vlm.yaml: exists already" in capsys.readouterr().err
    assert Path("sea-vlm.yaml").read_text() == "mine"
