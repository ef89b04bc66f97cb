"""Corpora as rows: what each reader gives, and what a wrong file, column or value says back."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub.data import readers, tables
from ggez_hub.errors import ConfigError, HubError, InputError
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.schema import HubSource
from tests.hub_server import HubServer

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LARGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])


def corpus(path: Path, **columns: Any) -> Path:
    """A parquet file of three rows."""
    rows = {"image": pa.array([{"bytes": bytes([i]), "path": None} for i in range(3)], IMAGE), "text": ["a", "b", "c"]}
    pq.write_table(pa.table(rows | columns), path)
    return path


def read(path: Path | None = None, **source: Any) -> list[dict[str, Any]]:
    settings = {"reader": "parquet", "path": str(path) if path else None} | source
    found = readers.read(HubSource.model_validate_json(json.dumps(settings)), section="data")  # as from YAML
    return [row for batch in found for row in batch.to_pylist()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "corpus.parquet"


# --------------------------------------------------------------------------------------------------------------- pocket
@pytest.fixture(scope="module")
def pocket() -> list[dict[str, Any]]:
    return read(reader="pocket", options={"train": 4, "selection": 2, "test": 3, "held_back": 1})


def test_pocket_gives_the_asked_number_of_pictures_of_each_concept(pocket: list[dict[str, Any]]) -> None:
    counts = Counter((row["label"], row["split"]) for row in pocket)
    for label, core in {row["label"]: row["core"] for row in pocket}.items():
        expected = {"train": 4 if core else 1, "selection": 2, "test": 3}
        assert {split: counts[label, split] for split in expected} == expected


def test_pocket_holds_nothing_back_unless_told_to() -> None:
    rows = read(reader="pocket", options={"train": 2})
    assert set(Counter(row["label"] for row in rows).values()) == {2}
    assert {row["split"] for row in rows} == {"train"}


def test_pocket_splits_share_no_picture(pocket: list[dict[str, Any]]) -> None:
    paths = [row["image"]["path"] for row in pocket]
    assert len(set(paths)) == len(paths)
    seeds: dict[str, set[str]] = {}
    for row in pocket:
        seeds.setdefault(row["split"], set()).add(row["image"]["path"].rpartition("/")[2])
    assert not seeds["train"] & seeds["test"]
    assert not seeds["train"] & seeds["selection"]
    assert not seeds["selection"] & seeds["test"]


def test_pocket_pictures_stay_the_same_when_more_are_asked_for(pocket: list[dict[str, Any]]) -> None:
    more = read(reader="pocket", options={"train": 5, "selection": 3, "test": 4, "held_back": 2})
    assert {row["id"] for row in pocket} < {row["id"] for row in more}


def test_pocket_rows_say_where_they_come_from(pocket: list[dict[str, Any]]) -> None:
    assert all("synthetic" in row["source"] and row["license"] == "apache-2.0" for row in pocket)
    assert all(row["label"] in row["text"] for row in pocket)
    assert len({row["text"] for row in pocket if row["label"] == "pho"}) > 1  # several ways to say it


def test_pocket_rows_can_be_chosen_by_split_and_core() -> None:
    rows = read(
        reader="pocket", options={"train": 1, "test": 1}, where={"split": ["test"], "core": [True], "country": ["IDN"]}
    )
    assert rows
    assert {(row["split"], row["core"], row["country"]) for row in rows} == {("test", True, "IDN")}


# -------------------------------------------------------------------------------------------------------------- parquet
def test_a_parquet_file_is_read_whole(file: Path) -> None:
    count = 2 * tables.ROWS + 10
    image = pa.array([{"bytes": b"x", "path": None}] * count, IMAGE)
    pq.write_table(pa.table({"image": image, "text": [str(i) for i in range(count)]}), file)
    assert [row["text"] for row in read(file)] == [str(i) for i in range(count)]


def test_a_folder_of_parquet_files_is_read_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    corpus(tmp_path / "b.parquet", text=["d", "e", "f"])
    corpus(tmp_path / "a.parquet")
    corpus(tmp_path / "deep" / "c.parquet", text=["g", "h", "i"])
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / "._a.parquet").write_text("what a Mac adds")
    assert "".join(row["text"] for row in read(tmp_path)) == "abcdefghi"


def test_the_recipes_file_is_used_only_where_the_source_names_none(tmp_path: Path) -> None:
    mine, theirs = corpus(tmp_path / "mine.parquet"), corpus(tmp_path / "theirs.parquet", text=["x", "y", "z"])
    for path, expected in ((None, "x"), (str(mine), "a")):
        batch = next(readers.read(HubSource(reader="parquet", path=path), str(theirs)))
        assert batch["text"][0].as_py() == expected


def test_a_row_has_all_fields_and_keeps_further_columns(file: Path) -> None:
    row = read(corpus(file, drawer=[1, 2, 3]))[1]
    assert set(row) == {*readers.FIELDS, "drawer"}
    assert row["image"] == {"bytes": b"\x01", "path": None}
    assert row["drawer"] == 2
    assert row["category"] is row["country"] is row["reward"] is None


def test_the_label_is_the_text_unless_there_is_one(tmp_path: Path) -> None:
    assert [r["label"] for r in read(corpus(tmp_path / "a.parquet"))] == ["a", "b", "c"]
    assert [r["label"] for r in read(corpus(tmp_path / "b.parquet", label=["x", "y", None]))] == ["x", "y", None]


def test_columns_give_our_fields_their_names(file: Path) -> None:
    corpus(file, script=["Thai", "Lao", "Khmer"], other=["1", "2", "3"])
    rows = read(file, columns={"category": "script", "text": "other", "label": "text"})
    assert [(r["category"], r["text"], r["label"]) for r in rows] == [
        ("Thai", "1", "a"),
        ("Lao", "2", "b"),
        ("Khmer", "3", "c"),
    ]


def test_a_column_may_be_part_of_another(file: Path) -> None:
    meta = [{"said": {"caption": "x"}, "of": "Laos"}, {"said": None, "of": None}, None]
    corpus(file, meta=meta, **{"meta.of": ["1", "2", "3"]})
    rows = read(file, columns={"text": "meta.said.caption", "id": "meta.of"})  # a column's own name comes first
    assert [(row["text"], row["id"]) for row in rows] == [("x", "1"), (None, "2"), (None, "3")]
    for wrong in ("meta.said.title", "meta.", "text.caption"):
        with pytest.raises(InputError, match=f"no column '{wrong}'"):
            read(file, columns={"text": wrong})


def test_two_columns_may_change_places(file: Path) -> None:
    row = read(corpus(file, label=["x", "y", "z"]), columns={"text": "label", "label": "text"})[0]
    assert (row["text"], row["label"]) == ("x", "a")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"path": "p", "bytes": b"x"}] * 3, pa.struct([("path", pa.string()), ("bytes", pa.binary())])),
        pa.array([{"bytes": b"x", "path": "p"}] * 3, LARGE),
        pa.array([{"bytes": b"x", "path": "p", "width": 3}] * 3),
    ],
    ids=["other order", "large types", "more fields"],
)
def test_pictures_in_the_usual_layouts_are_read(file: Path, column: pa.Array) -> None:
    assert read(corpus(file, image=column))[0]["image"] == {"bytes": b"x", "path": "p"}


@pytest.mark.parametrize(
    ("columns", "source", "message", "hint"),
    [
        (
            {"caption": ["x", "y", "z"]},
            {"columns": {"text": "captoin"}},
            "no column 'captoin' (wanted as 'text'); did you mean 'caption'?",
            "data.columns.text=",
        ),
        ({"reward": ["good", "bad", "4"]}, {}, "column 'reward' is string, expected float", None),
        ({"image": pa.array([b"x"] * 3)}, {}, "column 'image' is binary, expected struct", None),
        ({"text": pa.array([["a"], ["b"], ["c"]])}, {}, "column 'text' is list<", None),
    ],
)
def test_a_wrong_column_is_named(
    file: Path, columns: dict[str, Any], source: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(InputError) as caught:
        read(corpus(file, **columns), **source)
    assert str(file) in caught.value.message
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize("missing", ["image", "text"])
def test_a_missing_picture_or_text_column_lists_what_there_is(file: Path, missing: str) -> None:
    pq.write_table(pq.read_table(corpus(file, caption=["x", "y", "z"])).drop_columns([missing]), file)
    with pytest.raises(InputError, match=f"no column {missing!r}; the file has: .*caption") as caught:
        read(file)
    assert f"data.columns.{missing}=COLUMN" in (caught.value.hint or "")


def damaged(whole: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "text": b"a line of text, not a table\n" * 20,
        "half of it": whole[: len(whole) // 2],
        "without its last bytes": whole[:-4],
        "damaged inside": whole[:4] + b"\xff" * 2000 + whole[2004:],
    }[how]


@pytest.mark.parametrize("how", ["empty", "text", "half of it", "without its last bytes", "damaged inside"])
def test_a_file_that_is_not_whole_is_named(file: Path, how: str) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    corpus(file, image=pa.array([{"bytes": noise, "path": None}] * 3, IMAGE))
    file.write_bytes(damaged(file.read_bytes(), how))
    with pytest.raises(InputError, match="parquet file") as caught:
        read(file)
    assert str(file) in caught.value.message
    assert "download" in (caught.value.hint or "")


def test_no_path_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a file or folder") as caught:
        read()
    assert "data.path=" in (caught.value.hint or "")
    for place in (tmp_path / "absent.parquet", tmp_path):
        with pytest.raises(InputError, match=r"no \*\.parquet file there") as caught:
            read(place)
        assert str(place) in caught.value.message


@pytest.mark.parametrize(
    ("reader", "options", "message"),
    [
        ("parket", {}, "reader: unknown reader 'parket'; did you mean 'parquet'?"),
        ("pocket", {"trian": 3}, "options.trian: unknown option; did you mean 'train'?"),
        ("parquet", {"path": "x"}, "options.path: unknown option"),  # it has a key of its own
    ],
)
def test_unknown_readers_and_options_are_offered_the_nearest(
    reader: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml:3") as caught:
        readers.check(reader, options, "mine.yaml:3")
    assert message in str(caught.value)


def test_the_fingerprint_follows_the_contents_of_the_file(file: Path) -> None:
    source = HubSource(reader="parquet", path=str(corpus(file)))
    before = readers.fingerprint(source)
    assert before == readers.fingerprint(source)
    corpus(file, text=["a", "b", "changed"])
    assert readers.fingerprint(source) != before


# ---------------------------------------------------------------------------------------------------------------- where
TYPES = {
    "name": ["x", "y", None],
    "number": [1, 2, 3],
    "sure": [True, False, None],
    "kind": pa.array(["x", "y", "x"]).dictionary_encode(),  # a category of pandas
    "tags": [["x", "y"], None, ["y", "y"]],
}


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"name": ["x"]}, "a"),
        ({"name": ["x", "y"]}, "ab"),
        ({"number": [1, 3]}, "ac"),
        ({"sure": [True]}, "a"),
        ({"sure": [False]}, "b"),
        ({"kind": ["x"]}, "ac"),
        ({"number": [1, 2], "sure": [False]}, "b"),
        ({"number": [9]}, ""),
        ({"number": [1.0]}, "a"),
        ({"tags": ["y"]}, "ac"),
        ({"tags": ["x", "z"]}, "a"),
        ({"tags": ["z"]}, ""),
        ({"name": []}, ""),
        ({}, "abc"),
    ],
)
def test_where_keeps_rows_with_one_of_the_values(file: Path, where: dict[str, Any], kept: str) -> None:
    assert "".join(row["text"] for row in read(corpus(file, **TYPES), where=where)) == kept


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"nmae": ["x"]}, "no column 'nmae' in the data; did you mean 'name'?"),
        ({"number": ["1"]}, r"where\.number: \['1'\] do not fit the column"),
        ({"number": [1.5]}, r"where\.number: \[1\.5\] do not fit the column"),
        ({"tags": [1]}, r"where\.tags: \[1\] do not fit the column"),
        ({"number": [10**30]}, r"where\.number: .* do not fit the column"),
        ({"number": [True]}, r"where\.number: \[True\] do not fit the column"),
        ({"sure": ["true"]}, r"where\.sure: \['true'\] do not fit the column"),
        ({"name": [1]}, r"where\.name: \[1\] do not fit the column.*\n.*put quotes around them: where\.name=\['1'\]"),
    ],
)
def test_where_that_cannot_be_meant_is_an_error(file: Path, where: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(corpus(file, **TYPES), where=where)


def test_where_sees_countries_as_codes(file: Path) -> None:
    rows = read(corpus(file, country=["Burma", "Myanmar", "Japan"]), where={"country": ["MMR"]})
    assert [row["text"] for row in rows] == ["a", "b"]


# ------------------------------------------------------------------------------------------------------------ countries
SPELLINGS = {
    "BRN": ["Brunei", "Brunei Darussalam", "BN"],
    "KHM": ["Cambodia", "cambodia", "Khm", "KH", "Camb."],
    "IDN": ["Indonesia", "Indonesia (Bali)", " indonesia ", "ID", "Indo."],
    "LAO": ["Laos", "Lao", "Lao PDR", "LA", "Lao People's Democratic Republic"],
    "MYS": ["Malaysia", "Mys", "MY", "Mala."],
    "MMR": ["Myanmar", "Burma", "MM"],
    "PHL": ["Philippines", "Phillipines", "the Philippines", "Phl", "PH", "Phil."],
    "SGP": ["Singapore", "Sgp", "SG", "Sing."],
    "THA": ["Thailand", "Tha", "TH", "Thai."],
    "TLS": ["Timor-Leste", "East Timor", "TL"],
    "VNM": ["Vietnam", "Viet Nam", "VN", "Vie", "Viet."],
    "IND": ["India", "IN"],
    "COG": ["Congo"],
    "COD": ["Congo (Kinshasa)", "Congo, The Democratic Republic of the"],  # brackets that matter
    "RUS": ["Russia", "Russian Federation"],
    "CIV": ["Côte d'Ivoire", "Ivory Coast"],
}


@pytest.mark.parametrize(("code", "spelling"), [(code, s) for code, names in SPELLINGS.items() for s in names])
def test_usual_spellings_of_a_country_become_its_code(code: str, spelling: str) -> None:
    assert readers.iso3(spelling) == code
    assert readers.iso3(spelling.upper()) == code


def test_codes_stay_codes() -> None:
    codes = load_region("world").countries
    assert tuple(readers.iso3(code) for code in codes) == codes


def test_countries_of_a_corpus_become_codes_and_unknown_ones_stay(file: Path) -> None:
    rows = read(corpus(file, country=["Indonesia (Bali)", "Near East", None]))
    assert [row["country"] for row in rows] == ["IDN", "Near East", None]


@given(st.text())
def test_a_country_is_a_code_or_unknown_whatever_is_written(name: str) -> None:
    code = readers.iso3(name)
    assert code is None or (len(code) == 3 and code.isupper() and readers.iso3(code) == code)


def test_a_row_may_have_several_countries(file: Path) -> None:
    rows = read(corpus(file, country=["Burma|Viet Nam", "Philippines | Phil. |Near East", "|"]))
    assert [row["country"] for row in rows] == ["MMR|VNM", "PHL|Near East", ""]


# ------------------------------------------------------------------------------------------------------------ languages
LANGUAGES = {
    "ind": ["Indonesian", "id", "id_formal", "ind", "ind_Latn", "in"],
    "arz": ["Egyptian_Arabic", "Egyptian Arabic"],
    "zho": ["Chinese", "zh", "zh_cn", "zh-CN", "cmn", "zho_Hans", "Mandarin"],
    "zsm": ["Malay", "ms", "msa", "zsm"],
    "fil": ["Filipino", "Tagalog", "tl", "tgl", "fil"],
    "nan": ["nan", "nan_spoken", "Min Nan Chinese", "Hokkien"],
    "heb": ["iw", "he"],
    "sin": ["si_formal_spoken", "Sinhala"],
    "jav": ["jv_krama", "Javanese"],
    "min": ["Minangkabau"],
    "mya": ["Burmese", "my"],
    "yue": ["yue", "Cantonese"],
    "eng": ["en", "English"],
}


@pytest.mark.parametrize(("code", "spelling"), [(code, s) for code, names in LANGUAGES.items() for s in names])
def test_usual_spellings_of_a_language_become_its_code(code: str, spelling: str) -> None:
    assert readers.iso639(spelling) == code
    assert readers.iso639(f" {spelling.upper()} ") == code


@given(st.text())
def test_a_language_is_a_code_or_unknown_whatever_is_written(name: str) -> None:
    code = readers.iso639(name)
    assert code is None or (len(code) == 3 and code.islower() and readers.iso639(code) == code)


def test_languages_of_the_regions_are_codes_that_data_are_read_as() -> None:
    languages = load_region("sea").languages
    assert tuple(readers.iso639(code) for code in languages) == languages


# ----------------------------------------------------------------------------------------------------- benchmarks' data
def test_without_pictures_their_columns_are_not_read(file: Path) -> None:
    (batch,) = readers.read(
        HubSource(reader="parquet", path=str(corpus(file)), columns={"image": "image"}), pictures=False
    )
    assert batch["image"].null_count == 3
    assert batch["text"].to_pylist() == ["a", "b", "c"]


def test_whether_pictures_are_read_is_no_option_of_a_recipe() -> None:
    with pytest.raises(ConfigError, match="pictures: unknown option"):
        readers.check("parquet", {"pictures": False}, "mine.yaml:1")


def test_a_source_on_the_hub_is_fetched_where_no_path_is_given(hub_server: HubServer, file: Path) -> None:
    old = hub_server.add("someone/mine", {"test.parquet": corpus(file).read_bytes()}, kind="datasets")
    new = {"test.parquet": corpus(file, text=["x", "y", "z"]).read_bytes()}
    hub_server.add("someone/mine", new, kind="datasets")
    mine = HubSource(reader="parquet", id="someone/mine", revision=old)
    assert readers.place(mine).name == old
    assert [batch["text"][0].as_py() for batch in readers.read(mine)] == ["a"]
    assert readers.place(mine, str(file)).name == old  # not a recipe's own corpus
    assert readers.place(mine.model_copy(update={"path": str(file)})) == file
    with pytest.raises(InputError, match=r"needs a file or folder\n  hint: add source\.path=FILE"):
        readers.place(HubSource(reader="parquet"))
    with pytest.raises(HubError, match=r"someone/none.*\n.*a copy on this machine: source\.path=FOLDER"):
        readers.place(HubSource(reader="parquet", id="someone/none"))


# ------------------------------------------------------------------------------------------------------------- Omniglot
def test_the_real_omniglot_file(shared: Path) -> None:
    source = load_benchmark("omniglot-regional-top1").source
    file = str(shared / "data" / "omniglot" / "train.parquet")
    rows = [row for batch in readers.read(source, file) for row in batch.to_pylist()]
    assert len(rows) == 3630
    sea = set(load_region("sea").countries)
    regional = [row for row in rows if row["country"] in sea]
    assert {row["country"] for row in regional} == {"IDN", "PHL"}
    assert {row["category"] for row in regional} == {"Balinese", "Tagalog"}
    assert len({row["label"] for row in regional}) == 41
    assert len({row["label"] for row in rows}) == 242
    assert {row["country"] for row in rows if len(row["country"] or "") != 3} == {"Europe", "Korea", "Near East"}
    assert all(row["image"]["bytes"].startswith(b"\x89PNG") for row in rows)
