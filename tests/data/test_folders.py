"""General corpora: tables, folders of pictures, tar shards and data sets on the Hub become the same rows."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ggez_hub.data import archives, folders, images, readers, tables
from ggez_hub.errors import ConfigError, HubError, InputError
from ggez_hub.schema import Corpus
from tests.hub_server import HubServer

LLAVA = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Rendang"}]
TOLD = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "Rendang"}]


def read(reader: str, path: Path | None = None, pictures: bool = True, **settings: Any) -> list[dict[str, Any]]:
    corpus = {"reader": reader} | ({"path": str(path)} if path else {}) | settings
    found = readers.read(Corpus.model_validate_json(json.dumps(corpus)), pictures=pictures, section="data")
    return [row for batch in found for row in batch.to_pylist()]


def fields(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def picture(color: str = "red", kind: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(held, kind, quality=1)  # which packing it anew would change
    return held.getvalue()


def shard(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


# --------------------------------------------------------------------------------------------------------------- tables
def test_tables_are_read_by_column_mapping_and_rows_without_an_id_say_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.csv").write_text("photo,caption,where,score\na.jpg,Rendang,Indonesia,3.5\nb.jpg,Pho,Viet Nam,good\n")
    (tmp_path / "b" / "c.jsonl").write_text('{"photo": "c.jpg", "caption": 5, "where": "Laos", "id": "mine"}\n')
    columns = {"image": "photo", "text": "caption", "country": "where", "reward": "score"}
    rows = read("table", tmp_path, columns=columns)
    assert fields(rows, "id", "text", "country", "reward") == [
        ("a.csv/1", "Rendang", "IDN", 3.5),
        ("a.csv/2", "Pho", "VNM", None),  # a reward that is none is none, not an error
        ("mine", "5", "LAO", None),
    ]
    assert rows[0]["image"] == {"bytes": None, "path": "a.jpg"}
    assert fields(read("table", tmp_path / "a.csv", columns=columns), "id") == [("a.csv/1",), ("a.csv/2",)]


@pytest.mark.parametrize("ending", [".tsv", ".jsonl", ".json"])
def test_tables_of_other_kinds_are_read_alike(tmp_path: Path, ending: str) -> None:
    row = {"id": "7", "image": "a.jpg", "text": "Rendang", "country": "id"}
    text = {".tsv": "\t".join(row) + "\n" + "\t".join(row.values()), ".jsonl": json.dumps(row)}.get(ending)
    (tmp_path / f"rows{ending}").write_text(text or json.dumps([row]))
    assert fields(read("table", tmp_path), "id", "text", "country") == [("7", "Rendang", "IDN")]


def test_conversations_of_a_table_need_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"image": "a.jpg", "conversations": LLAVA}, {"image": "b.jpg", "conversations": [{"from": "?"}]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read("table", path, columns={"messages": "conversations"})
    assert fields(found, "messages", "text") == [(TOLD, None), (None, None)]


def test_parquet_with_paths_and_conversations_in_json_is_read_by_column_mapping(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"photo": ["a.jpg"], "talk": [json.dumps(LLAVA)], "more": [LLAVA]}), path)
    for column in ("talk", "more"):
        row = read("parquet", path, columns={"image": "photo", "messages": column})[0]
        assert (row["image"], row["messages"]) == ({"bytes": None, "path": "a.jpg"}, TOLD)


def test_a_bad_row_of_a_table_is_a_row_without_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"image": "a", "text": "a"}\n{"image": "b", "te\n{"image": "c", "text": "\\ud800\\u0000c"}\n')
    assert fields(read("table", path), "id", "text") == [
        ("rows.jsonl/1", "a"),
        ("rows.jsonl/2", None),
        ("rows.jsonl/3", "\ufffdc"),
    ]


def test_bad_text_in_parquet_is_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": ["a"], "text": ["Ren\x00dang\x1b"]}), path)
    assert read("parquet", path)[0]["text"] == "Rendang"


def test_a_column_of_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("image,caption\na.jpg,Rendang\n")
    with pytest.raises(InputError, match=r"no column 'text'; the file has: .*caption") as caught:
        read("table", path)
    assert caught.value.hint == "name the right one with data.columns.text=COLUMN"
    with pytest.raises(InputError, match=r"no column 'captoin' .*did you mean 'caption'"):
        read("table", path, columns={"text": "captoin"})
    path = tmp_path / "rows.jsonl"
    path.write_text('{"image": "a.jpg", "captions": ["a", "b"]}')
    with pytest.raises(InputError, match="column 'text' is list<item: string>, expected string"):
        read("table", path, columns={"text": "captions"})


@pytest.mark.parametrize("reader", ["table", "image_folder", "webdataset"])
def test_a_folder_without_data_is_refused(tmp_path: Path, reader: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no \*.+ file there"):
        read(reader, tmp_path)


# -------------------------------------------------------------------------------------------------------- image folders
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two metadata files, in the folder and below, of three pictures; a fourth is in neither."""
    for name in ("a.png", "b.png", "laos/c.png", "laos/more/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "metadata.csv").write_text("file_name,text,country\na.png,Rendang,Indonesia\n")
    rows = [{"file_name": "c.png", "text": "Larb"}, {"file_name": "more/d.png", "text": "Khao"}]
    (tmp_path / "laos" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mymetadata.csv").write_text("x\n1\n")
    return tmp_path


def test_an_image_folder_is_read_with_its_metadata(folder: Path) -> None:
    rows = read("image_folder", folder)
    assert fields(rows, "id", "text", "country") == [
        ("laos/metadata.jsonl/1", "Larb", None),
        ("laos/metadata.jsonl/2", "Khao", None),
        ("metadata.csv/1", "Rendang", "IDN"),
    ]
    assert [row["image"]["path"] for row in rows] == ["laos/c.png", "laos/more/d.png", "a.png"]
    for row in rows:
        assert images.fetch(row["image"], readers.root(folder)) == picture()


def test_the_library_datasets_reads_the_same_pictures(folder: Path) -> None:
    rows = read("image_folder", folder / "laos")
    by_datasets = read("hub", folder / "laos")
    assert sorted(fields(rows, "text")) == sorted(fields(by_datasets, "text")) == [("Khao",), ("Larb",)]
    assert {row["image"]["bytes"] for row in by_datasets} == {picture()}


def test_metadata_in_parquet_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    pq.write_table(pa.table({"file_name": ["a.png", None], "text": ["Rendang", "Pho"], "id": ["x", None]}), path)
    for place in (tmp_path, path):
        rows = read("image_folder", place)
        assert fields(rows, "id", "text") == [("x", "Rendang"), ("metadata.parquet/2", "Pho")]
        assert [row["image"] for row in rows] == [{"bytes": None, "path": "a.png"}, None]


def test_metadata_without_names_of_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("filename,text\na.png,Rendang\n")
    with pytest.raises(InputError, match="row 1: no column 'file_name'; did you mean 'filename'"):
        read("image_folder", tmp_path)


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "b/../../a.png"])
def test_metadata_lead_to_no_picture_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "metadata.csv").write_text(f"file_name,text\n{name},Rendang\n")
    row = read("image_folder", inner)[0]
    with pytest.raises(images.BrokenImage, match="no such picture below"):
        images.fetch(row["image"], readers.root(inner))


# ---------------------------------------------------------------------------------------------------------- tar shards
def test_shards_give_a_row_for_each_key(tmp_path: Path) -> None:
    told = {"text": "not this", "country": "Laos", "license": "cc0", "n": 5}
    shard(
        tmp_path / "0.tar",
        ("./x/1.jpg", b"one"),
        ("./x/1.txt", b" Rendang\n"),
        ("./x/1.json", json.dumps(told).encode()),
        ("./x/2.PNG", b"two"),
        ("./x/2.cls", b"3"),
        ("./x/2.json", b'{"id": "mine", "text": "Pho"}'),
    )
    shard(tmp_path / "1.tar.gz", ("1.webp", b"three"), ("1.json", b'["no row"]'), ("1.npy", b"x"), ("2.txt", b"\xff"))
    rows = read("webdataset", tmp_path)
    assert fields(rows, "id", "text", "label", "country", "license", "n") == [
        ("0.tar/x/1", "Rendang", None, "LAO", "cc0", 5),
        ("mine", "Pho", "3", None, None, None),
        ("1.tar.gz/1", None, None, None, None, None),
        ("1.tar.gz/2", "\ufffd", None, None, None, None),
    ]
    assert [row["image"] and row["image"]["bytes"] for row in rows] == [b"one", b"two", b"three", None]


def test_shards_are_read_by_column_mapping(tmp_path: Path) -> None:
    talk = json.dumps({"caption": "Rendang", "talk": LLAVA, "image": "elsewhere.jpg"})
    path = shard(tmp_path / "a.tar", ("1.json", talk.encode()), ("1.jpg", b"one"))
    row = read("webdataset", path, columns={"text": "caption", "messages": "talk"})[0]
    assert (row["text"], row["messages"], row["image"]["bytes"]) == ("Rendang", TOLD, b"one")


def test_without_pictures_none_is_read_from_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "a.tar", ("1.jpg", b"one"), ("1.txt", b"Rendang"))
    monkeypatch.setattr(archives, "MAX_MEMBER", 0)
    with pytest.raises(InputError, match="3 bytes"):
        read("webdataset", path)
    monkeypatch.setattr(archives, "MAX_MEMBER", 7)
    assert read("webdataset", path, pictures=False)[0]["image"] is None


def test_rows_come_before_a_shard_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 2)
    files = [(f"{i}.{ending}", bytes(2000)) for i in range(20) for ending in ("jpg", "txt")]
    path = shard(tmp_path / "a.tar", *files)
    path.write_bytes(path.read_bytes()[:50_000])
    found = readers.read(Corpus(reader="webdataset", path=str(path)))
    assert next(found).num_rows == 2
    with pytest.raises(InputError, match="not a readable tar archive"):
        list(found)


@pytest.mark.parametrize("name", ["../1.jpg", "/1.jpg"])
def test_a_shard_with_a_name_that_leads_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leads out of the archive"):
        read("webdataset", shard(tmp_path / "a.tar", (name, b"x"), ("1.txt", b"x")))


# -------------------------------------------------------------------------------------------------------------- the Hub
@pytest.fixture
def hub(data_hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The local Hub, which the library `datasets` talks to as well."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 1)
    return data_hub


def as_parquet(**columns: Any) -> bytes:
    held = io.BytesIO()
    pq.write_table(pa.table(columns), held)
    return held.getvalue()


def test_a_data_set_on_the_hub_is_streamed_at_the_pinned_commit(hub: HubServer) -> None:
    name = "someone/food"
    stored = pa.array([{"bytes": picture(), "path": "a.png"}, {"bytes": None, "path": "/etc/hostname"}])
    content = as_parquet(photo=stored, caption=["Rendang", "Pho"], where=["Indonesia", "Viet Nam"])
    first = hub.add(name, {"data/train-00000-of-00001.parquet": content}, kind="datasets")
    hub.add(name, {"data/train-00000-of-00001.parquet": as_parquet(photo=["x"], caption=["newer"])}, kind="datasets")
    columns = {"image": "photo", "text": "caption"}
    rows = read("hub", id=name, revision=first, columns=columns | {"country": "where"})
    assert fields(rows, "id", "text", "country") == [("train/1", "Rendang", "IDN"), ("train/2", "Pho", "VNM")]
    assert [row["image"]["bytes"] for row in rows] == [picture(), None]  # no file of this machine
    assert fields(read("hub", id=name, columns=columns), "text") == [("newer",)]
    assert not any(request.path.endswith(".parquet") and request.status == 200 for request in hub.requests)
    without = read("hub", id=name, revision=first, columns={"text": "caption"}, pictures=False)
    assert fields(without, "text", "image") == [("Rendang", None), ("Pho", None)]


def test_a_part_and_a_split_are_chosen(hub: HubServer) -> None:
    parts = ("{config_name: id, data_files: [{split: dev, path: id.jsonl}]}", "{config_name: th, data_files: th.jsonl}")
    card = "---\nconfigs:\n" + "".join(f"- {part}\n" for part in parts) + "---\n"
    lines = {f"{name}.jsonl": f'{{"image": "a", "text": "{name}"}}'.encode() for name in ("id", "th")}
    hub.add("someone/parts", {"README.md": card.encode(), **lines}, kind="datasets")
    rows = read("hub", id="someone/parts", options={"config": "id", "split": "dev"})
    assert fields(rows, "id", "text") == [("dev/1", "id")]
    for options, message in (
        ({}, "Config name is missing"),
        ({"config": "lo"}, "'lo' not found"),
        ({"config": "id", "split": "test"}, "Bad split: test"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read("hub", id="someone/parts", options=options)
        assert caught.value.message.startswith("someone/parts: ")


@pytest.mark.parametrize("layout", ["folder", "zip", "shard"])
def test_pictures_that_are_files_of_a_data_set_come_with_their_bytes(
    hub: HubServer, tmp_path: Path, layout: str
) -> None:
    jpg = picture(kind="JPEG")
    metadata = b"file_name,text\na.jpg,Rendang\n"
    columns = {}
    if layout == "folder":
        files = {"train/a.jpg": jpg, "train/metadata.csv": metadata}
    elif layout == "zip":
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            archive.writestr("a.jpg", jpg)
            archive.writestr("metadata.csv", metadata)
        files = {"train.zip": held.getvalue()}
    else:
        path = shard(tmp_path / "train.tar", ("1.jpg", jpg), ("1.txt", b"Rendang"))
        files, columns = {"train.tar": path.read_bytes()}, {"image": "jpg", "text": "txt"}
    hub.add("someone/pictures", files, kind="datasets")
    row = read("hub", id="someone/pictures", columns=columns)[0]
    assert (row["text"], row["image"]["bytes"]) == ("Rendang", jpg)  # as they are, not packed anew


def test_a_data_set_that_needs_its_own_code_is_refused_and_never_run(hub: HubServer, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    files = {"code.py": f"open({str(ran)!r}, 'w')".encode(), "train.jsonl": b'{"text": "a"}'}
    hub.add("someone/code", files, kind="datasets")
    with pytest.raises(InputError, match="scripts are no longer supported") as caught:
        read("hub", id="someone/code")
    assert "refs/convert/parquet" in (caught.value.hint or "")
    assert not ran.exists()


def test_a_data_set_reads_no_file_of_this_machine(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password")
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {tmp_path}/secret.txt\n---\n"
    hub.add("someone/thief", {"README.md": card.encode(), "a.txt": b"a"}, kind="datasets")
    with pytest.raises(InputError, match="don't belong to someone/thief"):
        read("hub", id="someone/thief")


def test_rows_of_a_data_set_lead_to_its_own_pictures_alone(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "secret.png").write_bytes(picture())
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "own.png").write_bytes(picture("blue"))
    paths = [folder / "own.png", tmp_path / "secret.png", folder / "../secret.png", f"file://{tmp_path}/secret.png"]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": [{"bytes": None, "path": str(path)} for path in paths], "text": ["a"] * len(paths)}
    pq.write_table(pa.table(rows, features.arrow_schema), folder / "train.parquet")
    own, *others = (row["image"]["bytes"] for row in read("hub", folder))
    assert own == picture("blue")
    assert not any(others)


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("hf://datasets/a/b@c/x.jpg", True),
        ("zip://x.jpg::hf://datasets/a/b@c/x.zip", True),
        ("hf://datasets/a/b@c2/x.jpg", False),
        ("hf://datasets/a/secret@c/x.jpg", False),
        ("file:///etc/passwd::hf://datasets/a/b@c/x.zip", False),
        ("https://10.0.0.1/x.jpg", False),
        ("/etc/passwd", False),
    ],
)
def test_a_path_in_a_data_set_of_the_hub_leads_to_its_own_commit_alone(path: str, own: bool) -> None:
    assert folders._is_own(path, "a/b", "c") == own


def test_a_damaged_file_on_the_hub_is_named(hub: HubServer) -> None:
    good = as_parquet(image=["a"] * 1000, text=[str(i) for i in range(1000)])
    for content in (b"PAR1 nonsense PAR1", good[:4] + bytes(500) + good[504:], good[:-100]):
        hub.add("someone/damaged", {"train.parquet": content}, kind="datasets")
        with pytest.raises(InputError, match=r"^someone/damaged: "):
            read("hub", id="someone/damaged")


def test_a_hub_without_the_data_set_or_without_a_network_says_what_to_do(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match="someone/none: no such repository"):
        read("hub", id="someone/none")
    first = hub.add("someone/food", {"train.jsonl": b'{"image": "a", "text": "a"}'}, kind="datasets")
    with pytest.raises(HubError, match="someone/food: has no such revision"):
        read("hub", id="someone/food", revision="v9")
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in (None, first):
        with pytest.raises(HubError, match="someone/food: the Hub cannot be reached") as caught:
            read("hub", id="someone/food", revision=revision)
        assert "a copy on this machine" in (caught.value.hint or "")


def test_a_hub_that_fails_on_the_way_is_told(hub: HubServer) -> None:
    content = as_parquet(image=["a"] * 9, text=["b"] * 9)
    hub.add("someone/food", {"train.parquet": content}, kind="datasets")
    hub.fail("GET", r".*/train\.parquet", times=100)
    with pytest.raises(HubError, match="someone/food: the Hub says 503") as caught:
        read("hub", id="someone/food")
    assert "try again later" in (caught.value.hint or "")


def test_a_folder_is_read_as_a_data_set_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"image": "a.png", "text": "Rendang"}')
    assert fields(read("hub", tmp_path), "id", "text") == [("train/1", "Rendang")]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".txt"])
def test_layouts_whose_types_nobody_declared_are_streamed(tmp_path: Path, ending: str) -> None:
    gap = "\t" if ending == ".tsv" else ","
    texts = {".json": json.dumps([{"image": "a.png", "text": "Rendang"}]), ".txt": "Rendang\n"}
    content = texts.get(ending) or f"image{gap}text\na.png{gap}Rendang\n"
    (tmp_path / f"train{ending}").write_text(content)
    columns = {"image": "text"} if ending == ".txt" else {}
    assert fields(read("hub", tmp_path, columns=columns), "id", "text") == [("train/1", "Rendang")]


def test_a_reader_of_the_hub_needs_an_id() -> None:
    with pytest.raises(InputError, match="reader 'hub' needs a data set") as caught:
        read("hub")
    assert caught.value.hint == "add data.id=NAMESPACE/NAME"


# ------------------------------------------------------------------------------------------------------------- registry
def test_the_manifest_names_the_commit_that_is_streamed(hub: HubServer, tmp_path: Path) -> None:
    first = hub.add("someone/food", {"train.jsonl": b'{"text": "a"}'}, kind="datasets")
    assert readers.fingerprint(Corpus(reader="hub", id="someone/food")) == {"someone/food": first}
    (tmp_path / "train.jsonl").write_text("{}")
    assert list(readers.fingerprint(Corpus(reader="hub", path=str(tmp_path)))) == [str(tmp_path)]


@pytest.mark.parametrize(
    ("reader", "files"),
    [
        ("table", ["rows.tsv", "a/b.jpg", "rows.jsonl"]),
        ("image_folder", ["metadata.csv", "a/metadata.jsonl", "a/b.png"]),
        ("webdataset", ["0.tar", "a/1.tar.gz"]),
        ("parquet", ["data/0.parquet", "a.jpg"]),
    ],
)
def test_only_what_a_reader_reads_is_fetched(hub: HubServer, reader: str, files: list[str]) -> None:
    evil = ["evil.py", "weights.bin", "rows.pkl"]
    hub.add("someone/all", dict.fromkeys((*files, *evil), b"x"), kind="datasets")
    place = readers.place(Corpus(reader=reader, id="someone/all"))
    found = [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(files)


def test_options_of_the_new_readers_are_checked() -> None:
    readers.check("hub", {"config": "id", "split": "train"}, "mine.yaml:3")
    for option in ("name", "revision", "pictures"):
        with pytest.raises(ConfigError, match=f"options.{option}: unknown option"):
            readers.check("hub", {option: "x"}, "mine.yaml:3")
