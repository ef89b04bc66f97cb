"""What cards say of the data: every source, every rule, every translator with its license; no place of this machine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ggez_hub import gate, metadata
from ggez_hub.data import account
from ggez_hub.recipes import load_recipe
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, read_json, write_json
from ggez_hub.schema import Recipe
from ggez_hub.stages import card

SOURCES: dict[str, Any] = {
    "near": {"reader": "pocket", "options": {"train": 2}, "license": "cc-by-4.0", "languages": ["id", "th"]},
    "far": {"reader": "parquet", "path": "corpora/far.parquet", "license": "mit", "synthetic": True, "regional": False,
            "translate": True, "cap": 50},
}  # fmt: skip
TRANSLATE: dict[str, Any] = {
    "translators": {
        "nllb": {"id": "facebook/nllb-200-3.3B"},
        "gemma": {"id": "gemma", "endpoint": "http://10.0.0.7/v1"},
    },
    "models": {"mya": "nllb"},
    "default": "gemma",
    "languages": ["ind", "mya"],
}


def several(**overrides: Any) -> Recipe:
    """The tiny recipe with two sources, of which one is translated."""
    return load_recipe("tiny", {"data": {"sources": SOURCES}, "translate": TRANSLATE} | overrides)


def test_every_rule_is_said_with_its_threshold(project: Path) -> None:
    (project / "own-clip").mkdir()
    overrides = {
        "filter.region": ["country", "image"],
        "filter.min_similarity": 0.02,
        "filter.embedding": str(project / "own-clip"),
        "filter.min_text": 10,
        "filter.max_text": 900,
        "filter.licenses": ["cc0-1.0", "cc-by-4.0"],
        "filter.unsafe": {"column": "nsfw", "max": 0.3},
        "filter.min_side": 256,
        "filter.max_aspect": 2.5,
        "filter.min_reward": 3.5,
        "filter.reward": {"model": "clip", "revision": "abc123"},
        "filter.max_hash_distance": 4,
        "filter.max_cosine": 0.95,
        "filter.contamination": "keep",
    }
    rules = "\n".join(account.rules(load_recipe("tiny", overrides).filter))
    expected = (
        "country, image", "0.02", "`own-clip`", "10 characters", "900", "cc0-1.0, cc-by-4.0", "the column nsfw",
        "unsafe to at most 0.3", "256 pixels", "2.5 times", "at least 3.5", "CLIP similarity", "at `abc123`",
        "by their percentile", "within 4 of 64", "above 0.95", "**kept**",
    )  # fmt: skip
    for said in expected:
        assert said in rules
    assert str(project) not in rules
    unified = load_recipe("tiny", {"filter.min_reward": 3, "filter.reward": {"model": "unified-reward"}}).filter
    (rule,) = account.rules(unified)
    assert "UnifiedReward" in rule
    assert "percentile" not in rule  # it answers on this scale itself
    assert account.rules(load_recipe("tiny").filter) == []


def test_languages_are_those_that_rows_are_in_once_they_are_translated(project: Path) -> None:
    assert account.languages(several(), load_region("sea")) == ["id", "th", "ind", "mya"]
    assert account.languages(load_recipe("tiny"), load_region("sea")) == ["en"]


def clashes(recipe: Recipe) -> list[str]:
    """What the gate says of licenses."""
    return [why for _, why in gate.rights(recipe)]


def test_a_translator_s_license_stands_in_the_way_of_a_freer_one(project: Path) -> None:
    refused = clashes(several(**{"translate.default": "nllb"}))
    wanted = "translate.translators.nllb.license cc-by-nc-4.0 forbids commercial use, card.license apache-2.0 does not"
    assert wanted in refused
    assert clashes(several(**{"translate.default": "nllb", "card.license": "cc-by-nc-4.0"})) == []
    assert "translate.translators.gemma.license is not stated" in clashes(several())
    assert "data.license is not stated" in clashes(load_recipe("tiny"))


def test_every_source_s_license_counts(project: Path) -> None:
    sources = SOURCES | {"near": SOURCES["near"] | {"license": "cc-by-sa-4.0"}}
    (found,) = [line for line in clashes(several(data={"sources": sources})) if "data.sources" in line]
    assert found.startswith("data.sources.near.license cc-by-sa-4.0 goes on: card.license has to be cc-by-sa-4.0")


@pytest.fixture
def mixed_card(tiny_run: Run) -> tuple[Recipe, str]:
    """The card of a run whose data had several sources."""
    path = tiny_run.stage("filter") / "report.json"
    parts = {"near": {"rows": 90, "kept": 31}, "far": {"rows": 700, "kept": 50}}
    write_json(path, read_json(path) | {"sources": parts, "rows": 790, "kept": 81})
    recipe = several(**{"filter.min_reward": 3})
    return recipe, card.card(recipe, tiny_run, "adapter")


def test_a_card_has_a_line_for_each_source(mixed_card: tuple[Recipe, str]) -> None:
    _, text = mixed_card
    assert "790 rows read of 2 sources, 81 kept." in text
    assert "| near | cc-by-4.0 | id, th | 90 | 31 |  |" in text
    assert "| far | mit | en | 700 | 50 | synthetic, general: of any region, translated, at most 50 rows |" in text
    assert "* a reward of at least 3 on a scale of 1 to 5, as the data give it" in text
    assert "English text of far was translated by a machine into ind, mya" in text
    assert "`facebook/nllb-200-3.3B`, license cc-by-nc-4.0; `gemma`, license not stated" in text
    assert "not for commercial use" in text
    assert "**Synthetic.**" in text  # all that it was measured on


def test_a_card_s_metadata_name_the_licenses_of_all_that_went_in(mixed_card: tuple[Recipe, str]) -> None:
    found = metadata.read(mixed_card[1])
    assert found["language"] == ["id", "th", "ind", "mya"]
    assert found["ggez"]["data_licenses"] == ["cc-by-4.0", "cc-by-nc-4.0", "mit"]
    assert found["ggez"]["synthetic"] is True


def test_a_published_recipe_names_no_place_of_this_machine(tiny_run: Run, project: Path) -> None:
    (project / "own-clip").mkdir()
    own = {"filter.max_cosine": 0.9, "filter.embedding": str(project / "own-clip"), "filter.min_reward": 3}
    own |= {"filter.reward": {"model": "unified-reward", "endpoint": "http://10.0.0.8:8000/v1"}}
    recipe = several(**own)
    public = card._public(recipe)
    text = yaml.safe_dump(public)
    for place in (str(project), "10.0.0.", "corpora/"):
        assert place not in text
    assert public["data"]["sources"]["far"]["path"] == "far.parquet"
    assert public["filter"]["embedding"] == "own-clip"
    Path("recipes/public.yaml").write_text(text)
    assert load_recipe("public").mixes == {}  # what is published can be read again
