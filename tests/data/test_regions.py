"""The regional filter: which evidence decides, why, and what files it takes."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub.data import filter_region, readers, regions
from ggez_hub.data.filters import Outcome
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.registry import load_region
from ggez_hub.schema import Region

SEA = load_region("sea")
ALL = ("country", "language", "text")


def rows(**columns: list[Any]) -> pa.RecordBatch:
    """A batch in the row schema."""
    count = len(next(iter(columns.values())))
    arrays = [pa.array(columns.get(field.name, [None] * count), field.type) for field in readers.row_schema()]
    return pa.RecordBatch.from_arrays(arrays, schema=readers.row_schema())


def said(texts: list[str]) -> list[dict[str, str]]:
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]


def kept(batch: pa.RecordBatch, evidence: tuple[Any, ...] = ALL, region: Region = SEA) -> list[tuple[bool, str]]:
    outcome = regions.in_region(region, evidence)(batch)
    assert outcome.kept.null_count == outcome.why.null_count == 0
    assert outcome.batch.equals(batch)
    return list(zip(outcome.kept.to_pylist(), outcome.why.to_pylist(), strict=True))


def written(folder: Path, table: dict[str, Any] | pa.Table, name: str = "rows.parquet") -> Path:
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), folder / name)
    return folder / name


def found(path: Path, region: Region | str = "sea", **arguments: Any) -> list[dict[str, Any]]:
    return [row for batch in filter_region(path, region, **arguments) for row in batch.to_pylist()]


# ---------------------------------------------------------------------------------------------------- which evidence
@pytest.mark.parametrize(
    ("country", "expected"),
    [
        ("IDN", (True, "country IDN")),
        ("Viet Nam", (True, "country VNM")),
        ("east timor", (True, "country TLS")),
        ("USA", (False, "country USA")),
        ("FRA|IDN", (True, "country FRA|IDN")),
        ("Malaysia, Singapore", (True, "country MYS|SGP")),
        ("Korea, South", (False, "country KOR")),
        ("Congo, Dem. Rep.", (False, "country COD")),
        ("Korea, Dem. People's Rep.", (False, "country PRK")),
        ("Hong Kong SAR, China", (False, "country HKG")),
        ("Bosnia and Herzegovina", (False, "country BIH")),
        ("Lao People's Democratic Republic", (True, "country LAO")),
        ("Việt Nam", (True, "country VNM")),
        ("Thailand and Laos", (True, "country THA|LAO")),
        ("England", (False, "country GBR")),
        ("Atlantis|THA", (True, "country THA")),
        ("Atlantis", (False, "no evidence")),
        ("", (False, "no evidence")),
        (None, (False, "no evidence")),
    ],
)
def test_a_country_decides_where_it_is_known(country: str | None, expected: tuple[bool, str]) -> None:
    assert kept(rows(country=[country]), ("country",)) == [expected]
    assert kept(rows(country=[country]))[0][0] is expected[0]


@pytest.mark.parametrize(
    ("language", "why"),
    [
        ("id", "language ind"),
        ("tha_Thai", "language tha"),
        ("Filipino (fil)", "language fil"),
        ("Tetum", "language tet"),
        ("zh-SG", "locale zh-SG"),
        ("en_PH", "locale en_PH"),
        ("ms", "language zsm"),
        ("zh", None),
        ("ta", None),
        ("en-US", None),
        ("pt", None),
        ("no such language", None),
        (None, None),
    ],
)
def test_a_language_is_evidence_if_most_of_its_speakers_live_in_the_region(
    language: str | None, why: str | None
) -> None:
    assert kept(rows(language=[language])) == [(bool(why), why or "no evidence")]


def test_where_no_language_is_known_the_script_of_the_text_may_tell_it() -> None:
    batch = rows(language=[None, "x", "en", None], text=["วัด", "វត្ត", "วัด", "寺庙"])
    assert [why for _, why in kept(batch)] == ["script of tha", "script of khm", "no evidence", "no evidence"]


def test_the_first_evidence_that_says_something_decides() -> None:
    batch = rows(
        country=["USA", None, None, None, "Atlantis", None],
        language=["th", "th", "en", "fr", "id", "zh"],
        text=["Bangkok", "Paris", "from Paris to Bangkok", "a Parisian in Paris", "Rome", "hello"],
    )
    assert kept(batch) == [
        (False, "country USA"), (True, "language tha"), (True, "names Bangkok (THA)"), (False, "names Paris (FRA)"),
        (True, "language ind"), (False, "no evidence"),
    ]  # fmt: skip
    assert [decided for decided, _ in kept(batch, ("text", "language", "country"))] == [
        True,
        False,
        True,
        False,
        False,
        False,
    ]
    assert [decided for decided, _ in kept(batch, ("country",))] == [False] * 6


def test_conversations_are_text_as_well() -> None:
    batch = rows(
        text=[None, "Rome", None, None],
        messages=[said(["<image>Where?", "In Hanoi."]), said(["What?", "Pho."]), [], None],
    )
    assert [why for _, why in kept(batch, ("text",))] == [
        "names Hanoi (VNM)", "names Rome (ITA)", "no evidence", "no evidence",
    ]  # fmt: skip
    assert [why for _, why in kept(batch.slice(1, 1), ("text",))] == ["names Rome (ITA)"]


def test_a_name_that_stands_for_countries_in_and_out_of_the_region_says_nothing() -> None:
    batch = rows(text=["a Malay house", "Southeast Asian food"])
    malaysia = Region(title="Malaysia", countries=("MYS",))
    assert kept(batch, ("text",), malaysia) == [(False, "no evidence"), (False, "no evidence")]
    assert kept(batch, ("text",)) == [(True, "names Malay (MYS|IDN)"), (True, "names Southeast Asian")]


def test_regions_anywhere_in_the_world_work_alike() -> None:
    africa = load_region("africa")
    batch = rows(
        country=["Côte d'Ivoire", None, None, None], language=[None, "sw", None, "pt"],
        text=["", "", "A market in Nairobi", "Bom dia"],
    )  # fmt: skip
    assert [decided for decided, _ in kept(batch, ALL, africa)] == [True, True, True, False]
    assert kept(rows(country=["XKX", "Kosovo"]), ALL, load_region("europe")) == [(True, "country XKX")] * 2


def test_a_batch_without_rows_is_no_problem() -> None:
    assert kept(rows(country=[])) == []


# ---------------------------------------------------------------------------------------------------------- pictures
def judge(batch: pa.RecordBatch) -> Outcome:
    """Stands for a model: keeps pictures of more than three bytes."""
    sizes = [len(image["bytes"] or b"") for image in batch.column("image").to_pylist()]
    why = pa.array([f"{size} bytes" for size in sizes], pa.string())
    return Outcome(
        batch.append_column("_size", pa.array(sizes)), pa.array([size > 3 for size in sizes], pa.bool_()), why
    )


def test_pictures_judge_only_what_nothing_else_decides() -> None:
    pictures = [{"bytes": data, "path": None} for data in (b"large", b"s", b"large", b"s")]
    batch = rows(country=["THA", "THA", None, None], image=pictures)
    first = regions.in_region(SEA, ("country", "image"))(batch)
    assert first.kept.to_pylist() == [True] * 4
    second = regions.undecided(judge)(first.batch)
    assert second.kept.to_pylist() == [True, True, True, False]
    assert second.why.to_pylist() == [None, None, "5 bytes", "1 bytes"]
    assert second.batch.column("_size").to_pylist() == [None, None, 5, 1]
    assert regions.undecided(judge)(batch).kept.to_pylist() == [True, False, True, False]  # nothing was asked before


def test_a_file_is_filtered_by_its_pictures(tmp_path: Path) -> None:
    pictures = [{"bytes": data, "path": None} for data in (b"s", b"large", b"large", b"s")]
    file = written(tmp_path, pa.table({"country": ["THA", "USA", None, None], "photo": pictures}))
    reasons = [
        row["reason"] for row in found(file, evidence=("country", "image"), columns={"image": "photo"}, image=judge)
    ]
    assert reasons == ["country THA", "5 bytes"]
    with pytest.raises(InputError, match="go together"):
        found(file, evidence=("country", "image"))


# ------------------------------------------------------------------------------------------------------------- files
def test_rows_of_a_file_come_with_all_their_columns_and_the_reason(tmp_path: Path) -> None:
    file = written(tmp_path, {"country": ["Laos", "France"], "n": [1, 2], "reason": ["old", "old"], "x": [[1], None]})
    assert found(file) == [{"country": "Laos", "n": 1, "x": [1], "reason": "country LAO"}]
    assert list(filter_region(file, Region(title="Moon", countries=("AQQ",)))) == []


def test_a_folder_is_read_file_by_file_and_kinds_that_are_no_data_are_left(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"part{i}").mkdir()
        written(tmp_path / f"part{i}", {"text": [f"from Laos {i}", "hello"]})
    (tmp_path / "info.json").write_text("{}")
    (tmp_path / ".cache").mkdir()
    written(tmp_path / ".cache", {"text": ["from Laos, hidden"]})
    assert [row["text"] for row in found(tmp_path)] == ["from Laos 0", "from Laos 1", "from Laos 2"]
    (tmp_path / "part0" / "rows.csv").write_text("text\nin Hanoi\n")
    for i in range(3):
        (tmp_path / f"part{i}" / "rows.parquet").unlink()
    (tmp_path / "info.json").unlink()
    assert [row["text"] for row in found(tmp_path)] == ["in Hanoi"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_other_tables_are_read_too(tmp_path: Path, suffix: str) -> None:
    table = [{"text": "In Hanoi", "n": "1"}, {"text": "In Rome", "n": "2"}]
    between = {".csv": ",", ".tsv": "\t"}.get(suffix)
    lines = (
        [between.join(row.values()) for row in [{"a": "text", "b": "n"}, *table]] if between else map(json.dumps, table)
    )
    (tmp_path / f"rows{suffix}").write_text(json.dumps(table) if suffix == ".json" else "\n".join(lines))
    assert found(tmp_path / f"rows{suffix}") == [{"text": "In Hanoi", "n": "1", "reason": "names Hanoi (VNM)"}]


def test_columns_are_found_by_the_names_that_are_given(tmp_path: Path) -> None:
    file = written(tmp_path, {"nation": ["Laos", None], "caption": ["", "In Hanoi"], "country": ["USA", "USA"]})
    mapped = found(file, columns={"country": "nation", "text": "caption"})
    assert [row["reason"] for row in mapped] == ["country LAO", "names Hanoi (VNM)"]


TYPES = [
    pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_texts_of_any_arrow_type_are_texts(kind: pa.DataType) -> None:
    batch = pa.record_batch({"country": pa.array(["Laos", None, "USA"]).cast(kind), "text": pa.nulls(3)})
    view = regions._view(batch, ALL, {}, Path("file"))
    assert [decided for decided, _ in kept(view)] == [True, False, False]


def test_lists_of_countries_are_several_countries(tmp_path: Path) -> None:
    values = [["Laos", "USA"], ["USA"], [], None, [None]]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        file = written(tmp_path, pa.table({"country": pa.array(values, kind), "n": range(5)}))
        assert [(row["n"], row["reason"]) for row in found(file)] == [(0, "country LAO|USA")]


def test_text_that_is_no_utf8_does_no_harm(tmp_path: Path) -> None:
    bad = ["Hanoi \ud800", "\udfff", "Laos"]
    broken = pa.array([text.encode("utf-8", "surrogatepass") for text in bad], pa.binary())
    data = pa.StringArray.from_buffers(3, broken.buffers()[1], broken.buffers()[2])
    file = written(tmp_path, pa.table({"text": data, "country": data, "language": data}))
    reasons = [reason for batch in filter_region(file, "sea") for reason in batch.column("reason").to_pylist()]
    assert reasons == ["names Hanoi (VNM)", "country LAO"]
    (tmp_path / "rows.jsonl").write_text('{"text": "Hanoi \\ud800"}\n{"text": "\\ud800"}\n')
    assert len(found(tmp_path / "rows.jsonl")) == 1


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        ({"country": ["a"]}, {"evidence": ("contry",)}, "evidence is of country, language, text, image, not contry"),
        ({"country": [1, 2]}, {}, "column 'country' is int64, expected text"),
        ({"text": [{"a": 1}]}, {}, "column 'text' is struct<a: int64>, expected text"),
        ({"messages": [1]}, {}, "column 'messages' is int64, expected list"),
        ({"caption": ["a"]}, {}, "no column country or language or text or messages; the file has: caption"),
        ({"caption": ["a"]}, {"columns": {"text": "captoin"}}, "no column 'captoin'.*did you mean 'caption'"),
        ({"caption": ["a"]}, {"columns": {"txt": "caption"}}, "no field 'txt'; did you mean 'text'"),
    ],
    ids=["evidence", "number", "struct", "messages", "none", "misspelt", "no field"],
)
def test_a_column_without_sense_is_one_clear_error(
    tmp_path: Path, table: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        found(written(tmp_path, table), **arguments)


def test_files_that_are_missing_or_damaged_and_unknown_regions_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file there"):
        found(tmp_path / "missing.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(InputError, match="not a readable parquet file"):
        found(tmp_path / "bad.parquet")
    twice = pa.Table.from_arrays([pa.array(["LAO"])] * 2, names=["country", "country"])
    with pytest.raises(InputError, match="several columns have one name: country, country"):
        found(written(tmp_path, twice))
    with pytest.raises(ConfigError, match="atlantis"):
        found(tmp_path / "bad.parquet", "atlantis")


def test_many_row_groups_and_batches_agree_with_a_plain_loop(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 5, 3 * regions.ROWS // 2)
    spelt = ["Laos", "THA", "Germany", "Atlantis", None]
    table = pa.table({"country": pa.array([spelt[i] for i in drawn], pa.string()), "n": range(len(drawn))})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=10_000)
    assert [row["n"] for row in found(tmp_path / "rows.parquet")] == np.flatnonzero(drawn < 2).tolist()


MANY = 60  # rows; of fewer a dictionary takes more bytes than their texts


@given(
    st.lists(
        st.sampled_from(["Laos", "viet nam", "USA|THA", "Congo, Dem. Rep.", "JP", "Atlantis", "", None]), max_size=6
    ),
    st.integers(1, 2 * MANY),
    st.sampled_from([("country",), ("country", "text"), ("text", "country")]),
)
def test_row_groups_change_nothing(countries: list[str | None], size: int, evidence: Any) -> None:
    countries = [country for country in countries for _ in range(MANY)]
    texts = [("in Hanoi", "in Rome", "hello", None)[i % 4] for i in range(len(countries))]
    columns = {"country": pa.array(countries, pa.string()), "text": pa.array(texts, pa.string())}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        pq.write_table(pa.table({**columns, "n": range(len(countries))}), file, row_group_size=size)
        expected = [i for i, (good, _) in enumerate(kept(rows(country=countries, text=texts), evidence)) if good]
        assert [row["n"] for row in found(file, evidence=evidence)] == expected


def test_row_groups_of_other_countries_are_not_read(tmp_path: Path) -> None:
    table = pa.table({"country": ["USA"] * 1000 + ["Laos"] * 1000, "text": [f"number {i}" for i in range(2000)]})
    file = tmp_path / "rows.parquet"
    pq.write_table(table, file, row_group_size=1000, use_dictionary=["country"], compression="none")
    column = pq.read_metadata(file).row_group(0).column(1)
    data = bytearray(file.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 20] = b"\xff" * 20
    file.write_bytes(data)
    assert len(found(file)) == 1000
    with pytest.raises(InputError, match="not a readable parquet file"):
        found(file, evidence=("text",))


@pytest.mark.parametrize("group", [1000, 80_000], ids=["small row groups", "one row group"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, group: int) -> None:
    schema = pa.schema([("country", pa.string()), ("noise", pa.binary(1000))])
    with pq.ParquetWriter(tmp_path / "rows.parquet", schema) as writer:
        for i in range(80_000 // group):
            noise = np.random.default_rng(i).bytes(1000 * group)
            values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(1000), group, [None, pa.py_buffer(noise)])
            writer.write_table(pa.table([["Laos"] * group, values], schema=schema))
    del noise, values
    before, most, count = pa.total_allocated_bytes(), 0, 0
    for batch in filter_region(tmp_path / "rows.parquet", "sea"):
        count += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
        del batch
    assert count == 80_000
    assert most < 65_000_000 < (tmp_path / "rows.parquet").stat().st_size
