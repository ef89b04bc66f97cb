"""Tables for people: what there is, every value with its source, and the results of a run."""

from pathlib import Path
from typing import Any

import pytest

from ggez_hub import registry
from ggez_hub.describe import listing, results_table, values
from ggez_hub.errors import ConfigError

RECIPE = """\
title: Mine
family: embedding
region: sea
base: {random: {hidden: 16}}
data: {reader: pocket}
train:
  steps: 7
sweep: {global: [pocket-core-top1], regional: [pocket-regional-top1]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return str(path)


def sources(name: str, *overrides: str) -> dict[str, tuple[Any, str]]:
    return {key: (value, source) for key, value, source in values(name, overrides)}


@pytest.mark.parametrize("kind", registry.KINDS)
def test_listing_has_a_name_and_a_title_for_each(kind: registry.Kind) -> None:
    rows = listing(kind)
    assert [row["name"] for row in rows] == sorted(registry.files(kind))
    assert all(row["title"] for row in rows)
    if kind == "recipes":
        assert all(row["family"] in registry.files("families") for row in rows)
        assert all(row["region"] in registry.files("regions") for row in rows)


def test_a_file_that_is_no_recipe_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "notes.yaml").write_text("- a list\n")
    monkeypatch.chdir(tmp_path)
    names = {row["name"]: row["title"] for row in listing("recipes")}
    assert names["notes"] == ""
    assert names["pocket-sea-embedding"]


def test_every_value_of_a_recipe_says_where_it_comes_from(recipe: str) -> None:
    shown = sources(recipe, "train.batch_size=4", "sweep.alphas=[0.5]")
    assert shown["title"] == ("Mine", "mine.yaml:1")
    assert shown["base.random.hidden"] == (16, "mine.yaml:4")
    assert shown["train.steps"] == (7, "mine.yaml:7")
    assert shown["sweep.global"] == (["pocket-core-top1"], "mine.yaml:8")
    assert shown["train.learning_rate"] == (1e-4, "default")
    assert shown["sweep.min_retention"] == (0.98, "default")
    assert shown["train.batch_size"] == (4, "override")
    assert shown["sweep.alphas"] == ([0.0, 0.5, 1.0], "override")
    value, source = shown["globalization"]
    assert value == 0.434
    assert source.startswith("KOF: KOFIpGIdf 2025 edition")
    assert source.endswith(", 2023")


def test_values_of_a_recipe_that_extends_another_say_which_file_gave_them(recipe: str, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: mine.yaml\ntrain:\n  epochs: 2\n  lora: {r: 4}\n")
    shown = sources(str(child), "train.batch_size=4")
    assert shown["title"] == ("Mine", "mine.yaml:1")
    assert shown["base.random.hidden"] == (16, "mine.yaml:4")
    assert shown["train.epochs"] == (2.0, "child.yaml:3")
    assert shown["train.steps"] == (None, "default")  # what gave way
    assert shown["train.lora.r"] == (4, "child.yaml:4")
    assert shown["train.lora.lora_alpha"] == (16, "default")
    assert shown["train.batch_size"] == (4, "override")
    assert "extends" not in shown


def test_globalization_that_the_recipe_gives_is_not_called_kofs(recipe: str) -> None:
    shown = sources(recipe, "sweep.globalization=0.3")
    assert shown["sweep.globalization"] == (0.3, "override")
    assert "globalization" not in shown


def test_regions_benchmarks_and_families_are_shown_too() -> None:
    region = sources("sea")
    assert "IDN" in region["countries"][0]
    assert region["kof.2023"][1].startswith("sea.yaml:")
    assert region["globalization"][0] == 0.434
    assert sources("pocket-core-top1")["task"][0] == "top1"
    assert sources("embedding")["library_name"] == ("transformers", "families/embedding.py")


def test_a_benchmark_takes_overrides() -> None:
    shown = sources("pocket-core-top1", "average=[country]", "source.options.test=3")
    assert shown["average"] == (["country"], "override")
    assert shown["source.options.test"] == (3, "override")
    assert shown["source.options.selection"][1].startswith("pocket-core-top1.yaml:")


@pytest.mark.parametrize("name", ["sea", "embedding"])
def test_regions_and_families_refuse_overrides(name: str) -> None:
    with pytest.raises(ConfigError, match="argument title: only recipes and benchmarks take overrides"):
        values(name, ["title=x"])


def test_unknown_name_gets_the_nearest_of_any_kind() -> None:
    with pytest.raises(ConfigError, match=r"nothing is called 'wrld'; did you mean 'world'\?\n  hint: ggez ls"):
        values("wrld")
    with pytest.raises(ConfigError, match=r"^nowhere\.yaml: no such file"):
        values("nowhere.yaml")


def results(**changes: Any) -> dict[str, Any]:
    points = [
        {"alpha": 0.0, "global": 0.6, "regional": 0.4, "grp": 0.48},
        {"alpha": 0.25, "global": 0.59, "regional": 0.5, "grp": 0.54},
        {"alpha": 1.0, "global": 0.5, "regional": 0.6, "grp": 0.56},
    ]
    chosen = points[1] | {"gain": 0.25, "gain_ci95": [0.2, 0.3], "retention": 0.983, "retention_ci95": [0.97, 0.99]}
    best = points[2] | {"gain": 0.5, "gain_ci95": [0.4, 0.6], "retention": 0.833, "retention_ci95": [0.8, 0.9]}
    return {"points": points, "chosen": chosen, "grp_best": best, "synthetic": False} | changes


def test_results_show_the_chosen_alpha_and_that_of_the_plain_rule() -> None:
    lines = results_table(results()).splitlines()
    assert lines[0].split() == ["alpha", "global", "regional", "GRP"]
    assert lines[2].split() == ["0.25", "0.590", "0.500", "0.540", "chosen"]
    assert lines[3].endswith("highest GRP")
    assert "chosen α = 0.25: gain 0.250 [0.200, 0.300], retention 0.983 [0.970, 0.990], GRP 0.540" in lines
    assert "plain rule α = 1: gain 0.500 [0.400, 0.600], retention 0.833 [0.800, 0.900], GRP 0.560" in lines


def test_results_without_an_interval_or_a_gain_say_so() -> None:
    chosen = results()["chosen"] | {"gain": None, "gain_ci95": None, "retention_ci95": None}
    text = results_table(results(chosen=chosen))
    assert "gain undefined (0 at α = 0), retention 0.983, GRP" in text


def test_results_of_drawn_pictures_say_so() -> None:
    assert "Synthetic" not in results_table(results())
    assert "Synthetic pictures" in results_table(results(synthetic=True))
