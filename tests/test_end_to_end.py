"""From a recipe to a published model that other libraries load: the main job, on a tiny recipe."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from PIL import Image
from transformers import AutoModel, AutoProcessor

from ggez_hub import RegionalModel
from ggez_hub.cli import _guarded, cli
from ggez_hub.data import readers
from ggez_hub.pocket import atlas
from ggez_hub.schema import Source

NAMES = ["angklung", "pho", "kimono", "taco"]


def ggez(*arguments: str) -> int:
    return _guarded(lambda: cli.main(arguments, standalone_mode=False))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what `published` made is kept from one test to the next."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def published(project: Path, kept: Path) -> Path:
    """The folder of the published repositories of the tiny recipe, its test's own copy; beside it the run."""
    if not (kept / "hub").is_dir():
        assert ggez("run", "tiny") == 0
        assert ggez("push", "tiny", "--to", "hub") == 0
        for folder in ("runs", "hub"):
            shutil.copytree(project / folder, kept / folder, symlinks=True)
    else:
        for folder in ("runs", "hub"):
            shutil.copytree(kept / folder, project / folder, symlinks=True)
    return project / "hub" / "ggez-hub"


@pytest.fixture
def picture() -> Image.Image:
    concept = atlas.concepts()[0]
    from ggez_hub.data.images import decode

    return decode(atlas.picture(atlas.picture_path(concept, "test", 0)))


def scores(model: Any, processor: Any, picture: Image.Image) -> np.ndarray:
    """What a user of plain transformers computes."""
    inputs = processor(
        images=[picture], text=NAMES, padding="max_length", truncation=True, max_length=64, return_tensors="pt"
    )
    with torch.inference_mode():
        return model(**inputs).logits_per_image[0].numpy()


def test_adapter_gives_the_same_through_ours_and_through_peft(published: Path, picture: Image.Image) -> None:
    ours = RegionalModel.from_pretrained(published / "tiny-lora", alpha=1.0)
    base = AutoModel.from_pretrained("base")
    plain = PeftModel.from_pretrained(base, published / "tiny-lora").eval()
    processor = AutoProcessor.from_pretrained(published / "tiny-lora")
    query = {"image": picture, "options": NAMES}
    np.testing.assert_allclose(ours.predict([query])[0], scores(plain, processor, picture), atol=1e-4)
    with ours.at(0.0):
        plain_base = AutoModel.from_pretrained("base").eval()
        np.testing.assert_allclose(ours.predict([query])[0], scores(plain_base, processor, picture), atol=1e-4)


def test_merged_checkpoint_equals_the_adapter_at_its_alpha(published: Path, picture: Image.Image) -> None:
    ours = RegionalModel.from_pretrained(published / "tiny-lora")
    merged = AutoModel.from_pretrained(published / "tiny").eval()
    processor = AutoProcessor.from_pretrained(published / "tiny")
    results = json.loads((published / "tiny" / "results.json").read_text())
    assert ours.alpha == results["chosen"]["alpha"]
    expected = ours.predict([{"image": picture, "options": NAMES}])[0]
    np.testing.assert_allclose(scores(merged, processor, picture), expected, atol=1e-4)
    again = RegionalModel.from_pretrained(published / "tiny").predict([{"image": picture, "options": NAMES}])[0]
    np.testing.assert_allclose(again, expected, atol=1e-4)


def test_run_folder_loads_as_the_published_adapter_does(published: Path, picture: Image.Image) -> None:
    query = {"image": picture, "options": NAMES}
    from_run, from_hub = (RegionalModel.from_pretrained(f) for f in ("runs/tiny", published / "tiny-lora"))
    np.testing.assert_array_equal(from_run.predict([query])[0], from_hub.predict([query])[0])
    assert (from_run.region, from_run.family) == ("sea", "embedding")


def test_every_snippet_on_the_cards_runs(published: Path, project: Path) -> None:
    os.symlink(project / "hub" / "ggez-hub", project / "ggez-hub")  # as if it were the Hub
    for repository in ("tiny-lora", "tiny"):
        card = (published / repository / "README.md").read_text()
        snippets = re.findall(r"```python\n(.*?)```", card, re.S)
        assert len(snippets) == 2
        for snippet in snippets:
            exec(compile(snippet, repository, "exec"), {})


def test_card_metadata_says_what_it_is(published: Path) -> None:
    adapter, merged = (ModelCard.load(published / name / "README.md").data for name in ("tiny-lora", "tiny"))
    assert (adapter.library_name, merged.library_name) == ("peft", "transformers")
    assert (adapter.base_model, merged.base_model) == (None, None), "a folder of this machine means nothing elsewhere"
    assert {"ggez", "ggez-region:sea", "synthetic"} <= set(adapter.tags)
    results = json.loads((published / "tiny" / "results.json").read_text())
    at_chosen = next(p for p in results["points"] if p["alpha"] == results["chosen"]["alpha"])
    found = {r.dataset_type: r.metric_value for r in merged.eval_results if r.dataset_type != "global-regional-parity"}
    assert found == {name: round(measured["value"], 4) for name, measured in at_chosen["benchmarks"].items()}


def test_pushing_twice_writes_nothing(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    assert ggez("push", "tiny", "--to", "hub") == 0
    assert "unchanged" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == before


def test_namespace_is_on_the_cards_too(published: Path, project: Path) -> None:
    assert ggez("push", "tiny", "--to", "hub", "--namespace", "me") == 0
    assert 'RegionalModel.from_pretrained("me/tiny-lora")' in (project / "hub/me/tiny-lora/README.md").read_text()


def test_changed_recipe_is_not_pushed_with_old_results(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ggez("push", "tiny", "train.steps=13", "--to", "hub") == 2
    assert "not done yet: train" in capsys.readouterr().err


def test_published_recipe_keeps_the_place_of_the_data_to_itself(project: Path) -> None:
    rows = pa.Table.from_batches(readers.read(Source(reader="pocket", options={"train": 1})))
    pq.write_table(rows, project / "corpus.parquet")
    data = f"data={{reader: parquet, path: {project / 'corpus.parquet'}}}"
    assert ggez("run", "tiny", data) == 0
    assert ggez("push", "tiny", data, "--to", "hub") == 0
    for file in (project / "hub").rglob("*.*"):
        assert str(project).encode() not in file.read_bytes(), file


def test_push_leaves_folders_of_others_alone(published: Path, project: Path) -> None:
    (project / "elsewhere" / "me" / "tiny").mkdir(parents=True)
    (project / "elsewhere" / "me" / "tiny" / "thesis.txt").write_text("mine")
    assert ggez("push", "tiny", "--to", "elsewhere", "--namespace", "me") == 2
    assert (project / "elsewhere" / "me" / "tiny" / "thesis.txt").read_text() == "mine"


def test_push_of_an_unfinished_run_says_what_is_missing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ggez("push", "tiny", "--to", "hub") == 2
    assert "ggez run tiny" in capsys.readouterr().err
    assert not (project / "hub").exists()


def test_unchanged_stages_are_skipped_and_plan_says_why_others_run(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert ggez("plan", "tiny", "--json") == 0
    assert [step["reason"] for step in json.loads(capsys.readouterr().out)["steps"]] == [None] * 5
    assert ggez("plan", "tiny", "train.steps=13", "--json") == 0
    steps = {step["stage"]: step["reason"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["filter"] is None
    assert "train.steps: 12 -> 13" in steps["train"]
    assert steps["merge"].startswith("after train")
    before = (published.parents[1] / "runs" / "tiny" / "train" / "manifest.json").stat().st_mtime_ns
    assert ggez("run", "tiny") == 0
    assert (published.parents[1] / "runs" / "tiny" / "train" / "manifest.json").stat().st_mtime_ns == before


def test_truncated_output_is_made_again(published: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = project / "runs" / "tiny" / "merge" / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert ggez("run", "tiny") == 0
    assert weights.read_bytes() == whole


@pytest.mark.parametrize(
    "stage", ["filter", *(pytest.param(name, marks=pytest.mark.slow) for name in ("train", "merge"))]
)
def test_full_disk_ends_in_one_message_and_nothing_half_written(project: Path, stage: str) -> None:
    if stage == "merge":
        assert ggez("run", "tiny", "--until", "sweep") == 0
    limit = {"filter": 20_000, "train": 2_000, "merge": 50_000}[stage]  # bytes a file may have: less than it needs

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    if stage == "train":
        assert ggez("run", "tiny", "--until", "filter") == 0
    done = subprocess.run(
        [sys.executable, "-m", "ggez_hub", "run", "tiny", "--until", stage],
        preexec_fn=small_files, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "runs" / "tiny" / stage).exists()
