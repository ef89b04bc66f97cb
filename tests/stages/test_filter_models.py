"""The filter with models: what they decide, which commit of them, and sources from everywhere."""

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ggez_hub import load_recipe, run
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import Run, read_json
from ggez_hub.stages import filter as stage
from tests.hub_server import HubServer

Ggez = Callable[..., tuple[int, str, str]]
EMBEDDING = "ggez-hub/pocket-base-embedding"


def picture() -> bytes:
    """One that is like no other."""
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 90).save(buffer, "PNG")
    return buffer.getvalue()


def stored(count: int, **further: Any) -> bytes:
    """A parquet file of so many rows."""
    rows = [
        {"image": {"bytes": picture(), "path": None}, "text": f"roof {i}", "country": "Thailand"} | further
        for i in range(count)
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.mark.slow
def test_every_model_of_a_filter_has_a_word(tmp_path: Path, ggez: Ggez) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    names: dict[str, Any] = {"id2label": {0: "normal", 1: "nsfw"}, "label2id": {"normal": 0, "nsfw": 1}}
    config = ViTConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                       image_size=32, patch_size=8, initializer_range=0.2, **names)  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "guard")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "guard")
    settings = (
        "data.options={train: 3}", "data.where={core: [true]}", f"filter.embedding={EMBEDDING}",
        "filter.region=[image]",
        "filter.min_similarity=-0.27", "filter.max_cosine=0.8", "filter.unsafe={id: guard, max: 0.75}",
        f"filter.reward={{model: clip, id: {EMBEDDING}}}", "filter.min_reward=2",
    )  # fmt: skip
    code, out, said = ggez("filter", "pocket-sea-embedding", *settings)
    assert code == 0, said
    folder = tmp_path / "runs" / "pocket-sea-embedding" / "filter"
    report, decisions = read_json(folder / "report.json"), pq.read_table(folder / "decisions.parquet").to_pylist()
    dropped = {rule: count for rule, count in report["dropped"].items() if count}
    assert dropped.keys() == {"region by image", "unsafe", "reward", "duplicate"}, "each of them drops something"
    why = {rule: next(each["why"] for each in decisions if each["rule"] == rule) for rule in dropped}
    assert why["region by image"].startswith("like ")
    assert why["unsafe"].startswith("nsfw 0.")
    assert why["reward"].endswith(" of 5 by its percentile")
    assert why["duplicate"].startswith("embedding of data, row ")
    scored = report["kept"] + dropped["reward"] + dropped["duplicate"]
    assert dropped["reward"] == pytest.approx(scored / 4, abs=1), "2 of 5 is the lowest quarter"
    examples = pq.read_table(folder / "examples.parquet")
    assert examples["id"].to_pylist() == [each["id"] for each in decisions if each["kept"]]
    assert min(examples["reward"].to_pylist()) >= 2
    models = read_json(folder / "manifest.json")["inputs"]["models"]
    assert models.keys() == {EMBEDDING, "guard"}
    card = (folder / "README.md").read_text()
    assert "mapped to this one by their percentile" in card
    assert "Looked for, and left out" in card
    assert re.search(rf"region by image +-{dropped['region by image']}\n", out)


def test_models_are_let_go_when_the_filter_is_done(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    from ggez_hub import families

    loaded, load = [], families.embedder

    def watched(*asked: Any) -> Any:
        loaded.append(weakref.ref(found := load(*asked)))
        return found

    monkeypatch.setattr(families, "embedder", watched)
    cosine = ["filter.contamination=keep", "filter.embedding=base", "filter.max_cosine=1.0", "data.options.train=1"]
    run("tiny", "runs", parse_overrides(cosine), until="filter")
    gc.collect()
    assert [model() for model in loaded] == [None], "it would take the memory that training needs"


def test_the_commit_of_a_model_on_the_hub_is_recorded(project: Path, data_hub: HubServer, ggez: Ggez) -> None:
    first = data_hub.add("someone/judge", {"config.json": b"{}", "model.safetensors": b"1"})
    asked = ("filter.embedding=someone/judge", "filter.reward={model: clip, id: someone/other}", "filter.min_reward=3")
    other = data_hub.add("someone/other", {"open_clip_config.json": b"{}"})

    def made() -> dict[str, str]:
        found: dict[str, str] = stage.inputs(load_recipe("tiny", parse_overrides(asked)), Run(Path("runs/tiny")))[
            "models"
        ]
        return found

    assert made() == {"someone/judge": first, "someone/other": other}
    second = data_hub.add("someone/judge", {"config.json": b"{}", "model.safetensors": b"2"})
    assert made()["someone/judge"] == second != first
    assert not any("safetensors" in request.path for request in data_hub.requests), "a plan fetches no weights"
    asked += (f"filter.embedding_revision={first}",)
    assert made()["someone/judge"] == first
    code, _, said = ggez("plan", "tiny", "filter.embedding=someone/nowhere", "filter.max_cosine=0.9")
    assert code != 0
    assert "someone/nowhere" in said


def test_an_embedding_model_is_taken_at_its_commit(project: Path, data_hub: HubServer, ggez: Ggez) -> None:
    first = data_hub.add("someone/judge", {path.name: path.read_bytes() for path in (project / "base").iterdir()})
    data_hub.add("someone/judge", {"config.json": b"broken"})
    asked = ("filter.contamination=keep", "filter.embedding=someone/judge", "filter.max_cosine=1.0")
    assert ggez("filter", "tiny", *asked)[0] == 2
    code, _, said = ggez("filter", "tiny", *asked, f"filter.embedding_revision={first}")
    assert code == 0, said
    assert read_json(project / "runs/tiny/filter/manifest.json")["inputs"]["models"] == {"someone/judge": first}


def test_sources_come_from_everywhere_and_are_told_before_the_work_begins(
    project: Path, data_hub: HubServer, monkeypatch: pytest.MonkeyPatch, ggez: Ggez
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    data_hub.add("someone/roofs", {"data/train.parquet": stored(2, likes=1)}, kind="datasets")
    (project / "shards").mkdir()
    with tarfile.open(project / "shards" / "00.tar", "w") as tar:
        members = {
            "a.png": picture(),
            "a.txt": b"a green roof",
            "a.json": b'{"country": "Thailand", "tags": ["x"]}',
        }
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (project / "own.parquet").write_bytes(stored(1, likes=2.5))
    sources = (
        "data={sources: {own: {reader: parquet, path: own.parquet}, far: {reader: hub, id: someone/roofs},"
        " tar: {reader: webdataset, path: shards}, none: {reader: parquet, path: %s}}}"
    )
    settings = ("filter.contamination=keep", "filter.max_hash_distance=0")
    code, _, said = ggez("filter", "tiny", sources % "lacking.parquet", *settings)
    assert code == 2
    assert "lacking.parquet: no " in said
    assert "rows are done" not in said, "the first sources were examined before the last was looked at"
    (project / "lacking.parquet").write_bytes(stored(1, country="Peru"))
    code, out, said = ggez("filter", "tiny", sources % "lacking.parquet", *settings)
    assert code == 0, said
    table = pq.read_table(project / "runs" / "tiny" / "filter" / "examples.parquet")
    assert table["source"].to_pylist() == ["own", "far", "far", "tar"]
    assert table["likes"].to_pylist() == [2.5, 1.0, 1.0, None]
    report = read_json(project / "runs" / "tiny" / "filter" / "report.json")
    assert report["sources"]["none"] == {
        "rows": 1, "kept": 0, "dropped": {"region": 1, "text": 0, "broken picture": 0, "duplicate": 0}
    }  # fmt: skip
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("kept")] == ["4"]
    for command in ("plan", "show"):
        code, out, said = ggez(command, "tiny", sources % "lacking.parquet", *settings)
        assert code == 0, said
