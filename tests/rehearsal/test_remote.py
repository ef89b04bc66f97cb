"""A recipe held against the Hub before it is fetched: what is gone, renamed, gated or of another license is named."""

import csv
import io
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub import registry
from ggez_hub.data import tables
from ggez_hub.errors import InputError
from ggez_hub.pins import Named, ask
from ggez_hub.recipes import load_recipe
from ggez_hub.rehearsal import bases, remote
from ggez_hub.rehearsal.remote import Checked
from ggez_hub.schema import HubSource
from tests.endpoint_server import MODEL, EndpointServer
from tests.hub_server import HubServer

FIXTURES = Path(__file__).parents[1] / "fixtures"
CARD = b"---\nlicense: %s\n---\n"
RECIPE = """\
title: Tiny
family: embedding
region: sea
base: {id: org/model, license: mit}
data:
  sources:
    ours: {reader: READER, id: org/data, license: mit}
    drawn: {reader: pocket, options: {train: 2}, synthetic: true}
sweep: {global: [pocket-core-top1], regional: [asked]}
"""
BENCHMARK = """\
title: Asked
source:
  reader: cvqa
  id: afaji/cvqa
  license: mit
task: top1
"""


def uploaded(folder: str, **changed: bytes) -> dict[str, bytes]:
    root = FIXTURES / folder
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return files | {"README.md": CARD % b"mit"} | changed


@pytest.fixture
def hub(data_hub: HubServer, small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A Hub with the model, the data and the benchmark of RECIPE, and a current directory with it."""
    model = {path.name: path.read_bytes() for path in small_base.iterdir()}
    data_hub.add("org/model", model | {"README.md": CARD % b"mit"})
    data_hub.add("org/data", uploaded("corpora/flickr30k"), "datasets")
    data_hub.add("afaji/cvqa", uploaded("benchmarks/cvqa"), "datasets")
    (tmp_path / "recipes" / "benchmarks").mkdir(parents=True)
    (tmp_path / "recipes" / "benchmarks" / "asked.yaml").write_text(BENCHMARK)
    monkeypatch.chdir(tmp_path)
    return data_hub


def check(text: str = RECIPE, reader: str = "flickr30k") -> list[Checked]:
    path = Path("recipes") / "mine.yaml"
    path.write_text(text.replace("READER", reader))
    recipe = load_recipe("mine")
    return remote.check(recipe, registry.parse_file(path, extends=True)[1])


def wrong(found: list[Checked], what: str = "") -> list[Checked]:
    return [each for each in found if each.ok is False and each.what.startswith(what)]


def columns_of(source: HubSource) -> Checked:
    """Whether the reader of a source finds its columns."""
    thing = Named(("source", "id"), "org/data", "org/data", "dataset", ("source", "revision"))
    return remote._columns(source, ask("dataset", "org/data"), thing, lambda key: "a.yaml:3", "")


def parquet(**columns: Any) -> bytes:
    held = io.BytesIO()
    pq.write_table(pa.table(columns), held)
    return held.getvalue()


def test_a_recipe_that_is_right_is_found_right_without_its_weights_and_pictures(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "_met", {})
    found = check()
    met = json.loads(json.dumps(bases.met()))
    monkeypatch.setattr(bases, "_met", {})
    with pytest.raises(InputError, match="nothing is known of this model without the network"):
        bases.of(load_recipe("mine"))
    bases.learn(met)
    assert bases.of(load_recipe("mine")).class_name == "SiglipModel", "by the process that rehearses, offline"
    assert wrong(found) == []
    told = {(each.key, each.what): each for each in found}
    assert told["base.id", "weights"].ok
    assert told["base.id", "architecture"].said == "SiglipModel, which family embedding loads"
    for key in ("data.sources.ours", "benchmarks.asked.source"):
        assert told[key, "columns"].ok
    assert "Translated Options" in told["benchmarks.asked.source", "columns"].said
    assert told["data.sources.ours.revision", "pin"].ok is None
    assert "ggez pin" in (told["data.sources.ours.revision", "pin"].hint or "")
    assert not any("safetensors" in request.path and "resolve" in request.path for request in hub.requests)
    assert json.loads(json.dumps([asdict(each) for each in found]))


def test_a_lost_or_renamed_column_is_named_with_line_and_what_is_there(hub: HubServer) -> None:
    files = uploaded("corpora/flickr30k")
    name = next(file for file in files if file.endswith(".parquet"))
    table = pq.read_table(io.BytesIO(files[name]))
    for gone in ("caption", "image"):
        kept = {column: table.column(column) for column in table.column_names if column != gone}
        hub.add("org/data", {name: parquet(**kept, captionz=["x"] * table.num_rows)}, "datasets")
        (lost,) = wrong(check())
        assert (lost.key, lost.id, lost.what) == ("data.sources.ours", "org/data", "columns")
        assert lost.said.startswith("recipes/mine.yaml:7  data.sources.ours: org/data/")
        assert f"no column '{gone}'" in lost.said
        assert "captionz" in (lost.hint or "")
    columns = "license: mit, columns: {text: words}"
    (lost,) = wrong(check(RECIPE.replace("license: mit}\n    drawn", columns + "}\n    drawn"), "parquet"))
    assert "no column 'words' (wanted as 'text')" in lost.said
    assert "set data.sources.ours.columns.text= to the right one; it has: " in (lost.hint or "")


def test_a_vanished_revision_a_wrong_license_and_a_gate_are_named(hub: HubServer) -> None:
    hub.repos["models", "org/model"].gated = "manual"
    hub.repos["models", "org/model"].granted.add("ggez-hub")
    text = RECIPE.replace("org/data, license: mit", f"org/data, revision: {'f' * 40}")
    text = text.replace("license: mit}\ndata", "license: gemma}\ndata")
    found = {(each.key, each.what): each for each in wrong(check(text))}
    assert found.keys() == {("base.id", "license"), ("base.id", "gated"), ("data.sources.ours.revision", "revision")}
    assert "declared as gemma, on the Hub it is mit" in found["base.id", "license"].said
    assert found["base.id", "gated"].hint == "base.gated: true"
    assert found["data.sources.ours.revision", "revision"].said.startswith("recipes/mine.yaml:7  ")
    hub.repos["datasets", "afaji/cvqa"].gated = "auto"
    columns = [each for each in check() if each.key == "benchmarks.asked.source" and each.what == "columns"]
    assert [each.ok for each in columns] == [None]
    assert "access is restricted" in columns[0].said
    del hub.repos["datasets", "org/data"]
    (gone,) = wrong(check(), "exists")
    assert "org/data: no such repository" in gone.said


def test_pickles_alone_and_an_unknown_architecture_are_named(hub: HubServer) -> None:
    config = json.dumps({"model_type": "other", "architectures": ["OtherModel"]}).encode()
    hub.add("org/pickled", {"pytorch_model.bin": b"x", "config.json": config})
    found = {each.what: each for each in wrong(check(RECIPE.replace("org/model", "org/pickled")))}
    assert found.keys() == {"weights", "architecture"}
    assert "has its weights as pickles alone (pytorch_model.bin)" in found["weights"].said
    assert found["architecture"].said.startswith("recipes/mine.yaml:4  base.id: org/pickled")


def without(column: str, path: str, data: bytes) -> bytes:
    """A file that calls a column by another name."""
    if not path.endswith((".parquet", ".arrow")):
        return data.replace(column.encode(), b"other")
    is_parquet = path.endswith(".parquet")
    table = pq.read_table(io.BytesIO(data)) if is_parquet else pa.ipc.open_stream(data).read_all()
    table = table.rename_columns(["other" if name == column else name for name in table.column_names])
    held = pa.BufferOutputStream()
    with pq.ParquetWriter(held, table.schema) if is_parquet else pa.ipc.new_stream(held, table.schema) as writer:
        writer.write_table(table)
    return held.getvalue().to_pybytes()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("reader", "folder", "options", "lost"),
    [
        ("culturalground", "corpora/culturalground", {"countries": "indonesia"}, "media"),
        ("flickr30k", "corpora/flickr30k", {}, "image"),
        ("mammoth_vl", "corpora/mammoth_vl", {}, "conversations"),
        ("sea_vl", "corpora/sea_vl", {}, "culture_relevant_loc"),
        ("worldcuisines_train", "corpora/worldcuisines", {"kb": "org/kb"}, "open_ended_prompt"),
        ("xm3600_captions", "benchmarks/xm3600", {}, "captions"),
        ("cultural_vqa", "benchmarks/cultural_vqa", {}, "question"),
        ("cultureverse", "benchmarks/cultureverse", {}, "question_type"),
        ("cvqa", "benchmarks/cvqa", {}, "Subset"),
        ("dpg", "benchmarks/dpg_bench", {}, "keywords"),
        ("sea_vqa", "benchmarks/sea_vqa", {}, "correct_answer"),
        ("worldcuisines", "benchmarks/worldcuisines", {"kb": "org/kb", "size": "small"}, "multi_choice_prompt"),
        ("xm3600", "benchmarks/xm3600", {}, "image_locale"),
    ],
)
def test_every_layout_is_read_from_its_head_and_misses_what_it_lost(
    data_hub: HubServer,
    reader: str,
    folder: str,
    options: dict[str, Any],
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "HEAD", 6000)  # bytes; less than some of the files have
    files = uploaded(folder)
    data_hub.add("org/data", files, "datasets")
    data_hub.add("org/kb", uploaded("benchmarks/worldcuisines_kb"), "datasets")
    columns = {"question": "question"} if reader == "cultural_vqa" else {}
    source = HubSource(reader=reader, id="org/data", options=options, columns=columns)
    assert columns_of(source).ok, columns_of(source)
    assert not any(request.path.endswith((".tar.gz", ".png")) for request in data_hub.requests)
    data_hub.add("org/data", {path: without(lost, path, data) for path, data in files.items()}, "datasets")
    found = columns_of(source)
    assert found.ok is False, found
    assert found.said.startswith("a.yaml:3  source: org/data")
    assert f"no column '{lost}'" in found.said
    assert "it has: " in (found.hint or "")
    assert "other" in (found.hint or "")
    assert "ggez-" not in found.said, "the temporary folder is nobody's business"


def test_a_knowledge_base_that_lost_a_column_is_named(data_hub: HubServer) -> None:
    data_hub.add("org/data", uploaded("benchmarks/worldcuisines"), "datasets")
    files = uploaded("benchmarks/worldcuisines_kb")
    broken = {path: data.replace(b"ountries", b"ities") for path, data in files.items() if path.endswith(".csv")}
    data_hub.add("org/kb", broken, "datasets")
    options = {"kb": "org/kb", "size": "small"}
    found = columns_of(HubSource(reader="worldcuisines", id="org/data", options=options))
    assert found.ok is False
    assert "org/kb/worldcuisines.csv, row 1: no column 'countries' in the knowledge base" in found.said


@given(st.lists(st.text(max_size=30), min_size=1, max_size=30), st.integers(1, 600), st.sampled_from(remote.TEXTS))
def test_of_a_text_file_that_is_cut_anywhere_whole_rows_are_left(texts: list[str], end: int, suffix: str) -> None:
    rows = [{"text": text.replace("\0", " "), "more": '\n,"'} for text in texts]
    held = io.StringIO(newline="")
    if suffix in (".csv", ".tsv"):
        table = csv.DictWriter(held, ("text", "more"), delimiter="\t" if suffix == ".tsv" else ",")
        table.writeheader()
        table.writerows(rows)
    else:
        lines = [json.dumps(row, ensure_ascii=len(texts) % 2 == 0) for row in rows]
        held.write("\n".join(lines) if suffix == ".jsonl" else f"[{', '.join(lines)}]\n")
    data = held.getvalue().encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        try:
            columns = remote._texts(data[:end], end < len(data), path)
        except remote.Unread:
            assert end < len(data)
            return
        found = [record for _, record in tables.records(path)]
    assert columns == ["text", "more"]
    assert found == rows[: len(found)]
    assert len(found) == min(len(rows), remote.ROWS) if end >= len(data) else found


def test_a_file_that_an_option_asks_for_and_that_is_not_there_is_named(hub: HubServer) -> None:
    hub.add("org/data", uploaded("corpora/culturalground"), "datasets")
    text = RECIPE.replace("org/data,", "org/data, options: {countries: indonesia|laos},")
    (missing,) = wrong(check(text, "culturalground"))
    assert "org/data has no file */laos_refined.jsonl" in missing.said
    assert "indonesia_refined.jsonl" in (missing.hint or "")
    (missing,) = wrong(check(RECIPE, "mammoth_vl"))
    assert "org/data has no file that mammoth_vl reads: mammoth_si_10M.json" in missing.said


def test_of_large_files_only_a_head_is_fetched(data_hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "AHEAD", 2**12)
    pictures = pa.array([{"bytes": bytes([i % 256]) * 40_000, "path": f"{i}.jpg"} for i in range(200)])
    rows = {"image": pictures, "caption": [["words"]] * 200}
    text = "".join(json.dumps({"id": str(i), "text": "x" * 1000, "image": "a.jpg"}) + "\n" for i in range(5000))
    data_hub.add("org/data", {"a.parquet": parquet(**rows), "b.jsonl": text.encode()}, "datasets")
    sent: list[int] = []
    fetch = remote._Ranges._fetch
    monkeypatch.setattr(remote._Ranges, "_fetch", lambda self, a, n: [sent.append(n), fetch(self, a, n)][1])
    for reader in ("flickr30k", "table"):
        told = columns_of(HubSource(reader=reader, id="org/data"))
        assert told.ok, told
    assert sum(sent) < 2_300_000
    monkeypatch.setattr(remote, "TABLE", 5000)
    told = columns_of(HubSource(reader="flickr30k", id="org/data"))
    assert (told.ok, "take more than 5000 bytes" in told.said) == (None, True)


def test_any_data_set_that_is_streamed_is_asked_for_its_first_rows(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", tmp_path / "modules")
    hub.add("org/stream", {"data/train.jsonl": b'{"text": "a", "image": "b"}\n'}, "datasets")
    text = RECIPE.replace("org/data", "org/stream")
    found = [each for each in check(text, "hub") if each.key == "data.sources.ours"]
    assert [each.ok for each in found] == [True]
    (lost,) = wrong(
        check(text.replace("license: mit}\n    drawn", "columns: {text: words}}\n    drawn"), "hub"), "columns"
    )
    assert "no column 'words'" in lost.said


def test_servers_are_asked_whether_they_have_the_model(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with EndpointServer() as server:
        translate = "translate: {languages: [ind], translators: {a: {id: %s, endpoint: %s}}, default: a}\n"
        text = RECIPE.replace("license: mit}\n    drawn", "license: mit, translate: true}\n    drawn")
        told = [each for each in check(text + translate % (MODEL, server.url)) if each.what == "endpoint"]
        assert [(each.ok, each.key) for each in told] == [(True, "translate.translators.a.endpoint")]
        asked = len(server.requests)
        path = Path("recipes") / "mine.yaml"
        found = remote.check(load_recipe("mine"), registry.parse_file(path, extends=True)[1], addresses=False)
        assert not [each for each in found if each.what == "endpoint"]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert [each.what for each in check(text + translate % (MODEL, server.url))] == ["network"]
        assert len(server.requests) == asked, "nothing is asked offline, nor of strangers"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        server.script[""] = ["wrong key"]
        (refused,) = [each for each in check(text + translate % (MODEL, server.url)) if each.what == "endpoint"]
        assert refused.ok is None
        assert refused.hint is not None
        assert "recipes/mine.yaml:10  translate.translators.a.endpoint: " in refused.said
    (gone,) = [each for each in check(text + translate % (MODEL, "http://127.0.0.1:9/v1")) if each.what == "endpoint"]
    assert gone.ok is None, "it need not run before the run"
    assert "cannot be reached" in gone.said
    assert gone.hint == "start it before the run"


def test_without_a_network_one_line_says_that_nothing_was_checked(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.fail("GET", "/api/datasets/org/data", 503)
    (asked,) = [each for each in check() if each.what == "asked"]
    assert (asked.ok, "the Hub says 503" in asked.said) == (None, True)
    hub.drop("GET", "/api/models/org/model", times=9)
    (asked,) = [each for each in check() if each.id]
    assert "the rest was not asked for" in asked.said
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (only,) = check()
    assert only.ok is None
    assert "nothing was held against the Hub: http://127.0.0.1:9 cannot be reached" in only.said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (only,) = check()
    assert "HF_HUB_OFFLINE is set" in only.said
    pocket = RECIPE.replace("id: org/model, license: mit", "random: {hidden: 16}").replace(
        "[asked]", "[pocket-core-calm]"
    )
    assert check(pocket.replace("    ours: {reader: READER, id: org/data, license: mit}\n", "")) == []
