"""From a recipe to models that plain transformers, peft and diffusers load, for the families that write and draw."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ggez_hub import RegionalModel, families, run
from ggez_hub.pocket import atlas
from ggez_hub.runs import Run
from ggez_hub.stages import push

RECIPES = {
    "vlm": """\
title: Tiny VLM
family: vlm
region: sea
base: {id: base, license: mit}
data: {reader: pocket_questions, options: {train: 1}, where: {category: [Food, Animals]}, synthetic: true}
train: {steps: 6, batch_size: 8, learning_rate: 1e-2, lora: {r: 2}}
sweep: {alphas: [0, 0.5, 1], global: [global], regional: [regional, letter], beside: [open], resamples: 50}
""",
    "diffusion": """\
title: Tiny diffusion
family: diffusion
region: sea
base: {id: base, license: mit}
data: {reader: pocket, options: {train: 1, calm: true}, where: {category: [Food, Animals]}, synthetic: true}
train: {steps: 6, batch_size: 8, learning_rate: 1e-1, lora: {r: 2}}
sweep: {alphas: [0, 0.5, 1], global: [global], regional: [regional, letter], beside: [open], resamples: 50}
""",
}
SOURCE = "where: {category: [Food, Animals]}, options: {test: 1"
FOOD = SOURCE.replace("Food, Animals", "Food")  # the same prompts and seeds, but fewer names to judge by
BENCHMARKS = {
    "vlm": {
        "global": f"source: {{reader: pocket_questions, {SOURCE}}}}}\ntask: question\nrows: others",
        "regional": f"source: {{reader: pocket_questions, {SOURCE}}}}}\ntask: question\nrows: region",
        "letter": f"source: {{reader: pocket_questions, {SOURCE}}}}}\ntask: question\nanswer: letter\nrows: region",
        "open": f"source: {{reader: pocket_questions, {SOURCE}}}}}\ntask: question\nanswer: open\nrows: region",
    },
    "diffusion": {
        name: f"source: {{reader: pocket, {source}, calm: true}}}}\ntask: drawing\nprompt: a drawing of {{label}}\n"
        f"judge: ggez-hub/pocket-base-embedding\nrows: {rows}\nmeasure: {measure}"
        for name, rows, measure, source in (
            ("global", "others", "top1", SOURCE),
            ("regional", "region", "top1", SOURCE),
            ("letter", "region", "confidence", FOOD),
            ("open", "region", "distance", SOURCE),
        )
    },
}


@pytest.fixture(scope="module", params=sorted(RECIPES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run and the published repositories of a family's tiny recipe."""
    folder = tmp_path_factory.mktemp(request.param)
    texts = [atlas.caption(concept, 0) for concept in atlas.concepts() if concept.category in ("Food", "Animals")]
    families.get(request.param).write_tiny(folder / "base", texts)
    (folder / "recipes" / "benchmarks").mkdir(parents=True)
    (folder / "recipes" / "tiny.yaml").write_text(RECIPES[request.param])
    for name, text in BENCHMARKS[request.param].items():
        (folder / "recipes" / "benchmarks" / f"{name}.yaml").write_text(f"title: {name}\n{text}\nsynthetic: true\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = run("tiny")
        from ggez_hub import load_recipe

        push.to_folder(load_recipe("tiny"), done, folder / "hub")
        (folder / "ggez-hub").symlink_to(folder / "hub" / "ggez-hub")  # as if it were the Hub
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def results(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "runs/tiny/sweep/results.json").read_text())
    return found


def test_results_hold_both_sides_and_what_is_beside(here: Path) -> None:
    for point in json.loads((here / "runs/tiny/sweep/results.json").read_text())["points"]:
        assert point["benchmarks"].keys() == {"global", "regional", "letter", "open"}
        sides = [point["benchmarks"][name]["value"] for name in ("regional", "letter")]
        assert point["regional"] == pytest.approx(np.mean(sides))
        assert point["global"] == pytest.approx(point["benchmarks"]["global"]["value"])
    family = Run(here / "runs/tiny").stage("card") / "adapter" / "ggez.json"
    measured = point["benchmarks"]
    if json.loads(family.read_text())["family"] == "vlm":
        assert 0 <= measured["letter"]["unparsed"] <= measured["letter"]["n"]
        assert measured["global"]["by"]["kind"].keys() <= {"recognition", "knowledge", "scene"}
    else:
        assert measured["open"]["metric"] == "squared maximum mean discrepancy"
        assert measured["open"]["value"] > 0.1, "a random model draws nothing like the atlas"


def test_every_answer_can_be_traced(here: Path) -> None:
    rows = pq.read_table(here / "runs/tiny/sweep/predictions.parquet").to_pylist()
    for point in json.loads((here / "runs/tiny/sweep/results.json").read_text())["points"]:
        for name, measured in point["benchmarks"].items():
            values = [row["value"] for row in rows if row["benchmark"] == name and row["alpha"] == point["alpha"]]
            assert len(values) == measured["n"]
            if measured["metric"] != "squared maximum mean discrepancy":
                assert measured["value"] == pytest.approx(np.mean(values))


def test_a_judge_knows_the_names_of_the_benchmark_that_asks(here: Path) -> None:
    rows = pq.read_table(here / "runs/tiny/sweep/predictions.parquet").to_pylist()
    if json.loads((here / "runs/tiny/card/adapter/ggez.json").read_text())["family"] == "diffusion":
        food = {concept.name for concept in atlas.concepts() if concept.category == "Food"}
        assert {row["prediction"] for row in rows if row["benchmark"] == "letter"} <= food
        assert not {row["prediction"] for row in rows if row["benchmark"] in ("global", "regional")} <= food


def test_contact_sheet_is_in_the_run_and_beside_the_card(here: Path) -> None:
    sheet = here / "runs/tiny/sweep/samples.png"
    with Image.open(sheet) as image:
        assert min(image.size) > 300
    for repository in ("tiny-lora", "tiny"):
        assert (here / "ggez-hub" / repository / "samples.png").read_bytes() == sheet.read_bytes()
        assert "](samples.png)" in (here / "ggez-hub" / repository / "README.md").read_text()


def question(model: RegionalModel) -> dict[str, object]:
    if model.family == "diffusion":
        return {"prompt": "a drawing of durian", "seed": 3}
    return {"image": atlas.picture("pocket:durian/1"), "prompt": "What is this?", "options": ["durian", "kimono"]}


def test_adapter_at_its_alpha_equals_the_merged_model(here: Path) -> None:
    adapter, merged = (RegionalModel.from_pretrained(here / "ggez-hub" / name) for name in ("tiny-lora", "tiny"))
    asked = question(adapter)
    found, expected = adapter.predict([asked])[0], merged.predict([asked])[0]
    tolerance = 2 if found.dtype == np.uint8 else 1e-3
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=tolerance)
    every = adapter.predict([asked], alphas=[0.0, adapter.alpha, 1.0])[0]  # type: ignore[list-item]
    np.testing.assert_allclose(every[1].astype(float), found.astype(float), atol=tolerance)
    assert np.abs(every[2].astype(float) - every[0]).max() > 1e-3
    with adapter.at(0.0):
        np.testing.assert_allclose(adapter.predict([asked])[0].astype(float), every[0].astype(float), atol=tolerance)


def test_card_names_the_library_that_loads_it(here: Path) -> None:
    from huggingface_hub import ModelCard

    adapter, merged = (ModelCard.load(here / "ggez-hub" / name / "README.md").data for name in ("tiny-lora", "tiny"))
    found = (adapter.library_name, merged.library_name, adapter.pipeline_tag)
    assert found in {("peft", "transformers", "image-text-to-text"), ("diffusers", "diffusers", "text-to-image")}
    assert "lora" in adapter.tags


def test_every_snippet_on_the_cards_runs(here: Path) -> None:
    atlas_picture = here / "picture.jpg"
    Image.new("RGB", (48, 48), "white").save(atlas_picture)
    torch.manual_seed(0)
    for repository in ("tiny-lora", "tiny"):
        card = (here / "ggez-hub" / repository / "README.md").read_text()
        snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert len(snippets) == 2
        for snippet in snippets:
            exec(compile(snippet, repository, "exec"), {})
