"""Cards: every number comes from the run folder, and the shipped examples are what the recipes make today."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ggez_hub import families, registry, run
from ggez_hub.hub import fetch, shipped

GOLDEN = Path(__file__).parents[2] / "cards" / "pocket"
EXAMPLES = sorted(GOLDEN.iterdir())
NUMBER = re.compile(r"\b[0-9a-f]{64}\b|\d+(\.\d+)*(e-?\d+)?")


def test_every_region_has_an_example() -> None:
    regions = {json.loads((folder / "results.json").read_text())["region"] for folder in EXAMPLES}
    assert regions == set(registry.files("regions")) - {"world"}


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda f: f.name)
def test_example_says_what_was_measured(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    chosen = results["chosen"]
    for artefact in ("adapter", "merged"):
        card = ModelCard.load(folder / f"{artefact}.md")
        assert f"ggez-region:{results['region']}" in card.data.tags
        assert "synthetic" in card.data.tags
        assert "**Synthetic.**" in card.text
        assert f"**Gain** in the region {100 * chosen['gain']:.1f}%" in card.text
        assert f"global quality {100 * chosen['retention']:.1f}%" in card.text
        for point in results["points"]:
            row = f"| {point['alpha']:g} | {point['global']:.3f} | {point['regional']:.3f} | {point['grp']:.3f} |"
            assert row in card.text


QUESTIONS = {"embedding": (1000, 2000), "vlm": (200, 300), "diffusion": (150, 150)}  # regional, global


@pytest.mark.parametrize("family", QUESTIONS)
def test_pocket_sea_shows_what_the_method_promises(family: str) -> None:
    results = json.loads((GOLDEN / f"pocket-sea-{family}" / "results.json").read_text())
    chosen, points = results["chosen"], {point["alpha"]: point for point in results["points"]}
    assert chosen["gain"] >= 0.15
    assert chosen["gain_ci95"][0] > 0
    assert chosen["retention"] >= 0.97
    assert chosen["retention_ci95"][1] >= 0.98
    assert 0 < chosen["alpha"] < 1
    assert points[0]["regional"] < chosen["regional"] < points[1]["regional"]
    assert points[0]["global"] > points[1]["global"]
    questions = {name: measured["n"] for name, measured in points[0]["benchmarks"].items()}
    for side, least in zip(("regional", "global"), QUESTIONS[family], strict=True):
        assert min(n for name, n in questions.items() if side in name) >= least


@pytest.mark.slow
@pytest.mark.parametrize("family", QUESTIONS)
def test_example_is_what_its_recipe_makes(tmp_path: Path, family: str) -> None:
    made = run(f"pocket-sea-{family}", tmp_path)
    golden = GOLDEN / f"pocket-sea-{family}"
    for artefact in ("adapter", "merged"):
        ours = (made.stage("card") / artefact / "README.md").read_text()
        theirs = (golden / f"{artefact}.md").read_text()
        assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    ours, theirs = (json.loads(p.read_text()) for p in (made.stage("sweep") / "results.json", golden / "results.json"))
    assert ours["chosen"]["alpha"] == pytest.approx(theirs["chosen"]["alpha"], abs=0.25)  # the next one of the grid
    for our, their in zip(ours["points"], theirs["points"], strict=True):  # other processors round otherwise
        assert our["global"] == pytest.approx(their["global"], abs=0.03)
        assert our["regional"] == pytest.approx(their["regional"], abs=0.03)


@pytest.mark.parametrize("name", shipped())
def test_shipped_models_are_small_and_hold_no_place_of_this_machine(name: str) -> None:
    files = [path for path in fetch(f"ggez-hub/{name}").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    for path in files:
        if "config" in path.name or path.name == "model_index.json":
            assert not re.search(r'": "/', path.read_text()), f"{path} names a place of the machine that made it"


@pytest.mark.parametrize(("base", "travels"), [("pocket-base-embedding", True), ("omniglot-base", False)])
def test_snippet_says_that_a_base_travels_in_the_package_only_if_it_does(base: str, travels: bool) -> None:
    snippet = families.get("embedding").usage("me/mine-lora", f"ggez-hub/{base}", None)["adapter"]
    assert ("this base travels with ggez_hub" in snippet) is travels
