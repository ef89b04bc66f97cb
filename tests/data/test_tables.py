"""Tables as rows and batches: every kind of file, bad rows and bad text, and nothing read before it is wanted."""

import csv
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ggez_hub.data import tables
from ggez_hub.errors import InputError

ROWS = [{"id": "1", "text": "rendang", "language": "nan"}, {"id": "2", "text": 'a "b", c\nd\té', "language": "th"}]
IMAGE = {"bytes": b"x", "path": None}


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    held = io.StringIO()
    writer = csv.DictWriter(held, rows[0] if rows else ["id"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return held.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    held = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), held)
    return held.getvalue()


def as_arrow(rows: list[dict[str, Any]]) -> bytes:
    held, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(held, table.schema) as writer:
        writer.write_table(table)
    return held.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    ".csv": as_csv,
    ".tsv": lambda rows: as_csv(rows, "\t"),
    ".jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".parquet": as_parquet,
    ".arrow": as_arrow,
}
TEXTS = (".csv", ".tsv", ".jsonl", ".json")


def written(folder: Path, ending: str, content: bytes | list[dict[str, Any]]) -> Path:
    path = folder / f"rows{ending}"
    path.write_bytes(content if isinstance(content, bytes) else WRITERS[ending](content))
    return path


def records(path: Path, *wanted: str, strict: bool = True) -> list[dict[str, Any]]:
    return [record for _, record in tables.records(path, wanted, strict=strict)]


def batched(rows: list[dict[str, Any]], *numbers: str, strict: bool = False) -> list[dict[str, Any]]:
    found = tables.batches(((f"row {i}", row) for i, row in enumerate(rows)), numbers, strict=strict)
    return [row for batch in found for row in batch.to_pylist()]


# ---------------------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("ending", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str, strict: bool) -> None:
    path = written(tmp_path, ending, ROWS)
    assert records(path, "id", "text", strict=strict) == ROWS
    assert [where for where, _ in tables.records(path)] == [f"{path}, row 1", f"{path}, row 2"]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_without_a_row_is_refused(tmp_path: Path, ending: str, strict: bool) -> None:
    with pytest.raises(InputError, match=r"rows\.\w+: no row in it"):
        records(written(tmp_path, ending, []), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_column_that_is_not_there_is_named(tmp_path: Path, ending: str, strict: bool) -> None:
    with pytest.raises(InputError, match="row 1: no column 'txt'; did you mean 'text'") as caught:
        records(written(tmp_path, ending, ROWS), "id", "txt", strict=strict)
    assert caught.value.hint == "it has: id, text, language"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, ending: str, strict: bool) -> None:
    path = written(tmp_path, ending, b"\x1f\x8b\xff\xfe\x00PK" * 50)
    with pytest.raises(InputError) as caught:
        records(path, "id", strict=strict)
    assert caught.value.message.startswith(str(path))


def test_files_are_found_by_how_their_names_end_and_hidden_ones_are_none(tmp_path: Path) -> None:
    for name in ("b/2.tar.gz", "1.tar", ".cache/3.tar", "4.json.gz", ".5.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = tables.files(str(tmp_path), (".tar", ".tar.gz"))
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["1.tar", "b/2.tar.gz"]
    assert tables.files(str(tmp_path / "1.tar"), (".tar",)) == [tmp_path / "1.tar"]
    with pytest.raises(InputError, match=r"no \*\.csv or \*\.tsv file there"):
        tables.files(str(tmp_path), (".csv", ".tsv"))
    with pytest.raises(InputError, match=r"expected a \*\.csv file"):
        tables.files(str(tmp_path / "1.tar"), (".csv",))


# ------------------------------------------------------------------------------------------------------------- bad rows
BAD = {  # the second of three rows cannot be read
    ".csv": b"id,text\n1,a\n2,b,c\n3,d\n",
    ".tsv": b"id\ttext\n1\ta\n2\n3\td\n",
    ".jsonl": b'{"id": "1", "text": "a"}\n{"id": 2, "te\n{"id": "3", "text": "d"}\n',
    ".json": b'[{"id": "1", "text": "a"}, ["b"], {"id": "3", "text": "d"}]',
}


@pytest.mark.parametrize("ending", BAD)
def test_a_row_that_cannot_be_read_is_an_error_of_a_benchmark(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match="row 2"):
        records(written(tmp_path, ending, BAD[ending]))


@pytest.mark.parametrize("ending", BAD)
def test_a_row_that_cannot_be_read_is_an_empty_row_of_a_corpus(tmp_path: Path, ending: str) -> None:
    found = records(written(tmp_path, ending, BAD[ending]), "id", "text", strict=False)
    assert found == [{"id": "1", "text": "a"}, {"id": None, "text": None}, {"id": "3", "text": "d"}]


@pytest.mark.parametrize("line", ['"a"b', "[" * 100_000, "9" * 5000, "NULL", "[1]", '"'])
def test_rows_of_any_nonsense_are_empty_rows_of_a_corpus(tmp_path: Path, line: str) -> None:
    text = json.dumps({"id": "1"})
    path = written(tmp_path, ".jsonl", f"{line}\n{text}\n{line}\n{text}\n".encode())
    assert records(path, "id", strict=False) == [{"id": None}, {"id": "1"}] * 2


def test_what_a_row_of_a_corpus_does_not_say_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, ".jsonl", b'{"id": "1", "text": "a"}\n{"id": "2"}\n')
    assert records(path, "text", strict=False)[1] == {"id": "2", "text": None}
    path = written(tmp_path, ".csv", b"id,text\n1,\n")
    assert records(path, strict=False) == [{"id": "1", "text": None}]
    assert records(path) == [{"id": "1", "text": ""}]


def test_an_error_in_the_first_line_of_a_csv_is_none_of_a_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable CSV file"):
        records(written(tmp_path, ".csv", b'"id"x,text\n1,a\n'), strict=False)


def test_a_json_of_a_corpus_may_have_one_object_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, ".json", WRITERS[".jsonl"](ROWS))
    assert records(path, strict=False) == ROWS
    with pytest.raises(InputError, match="not a readable JSON file: expected a list"):
        records(path)


@pytest.mark.parametrize("ending", TEXTS)
def test_a_line_without_end_is_not_read_into_memory(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_ROW", 1000)
    monkeypatch.setattr(tables, "CHUNK", 100)
    path = written(tmp_path, ending, [{"id": "1", "text": "a"}, {"id": "2", "text": "a" * 2000}])
    with pytest.raises(InputError, match=r"row 2|line 3|line 2"):
        records(path, strict=False)


# ------------------------------------------------------------------------------------------------------------ streaming


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json"])
def test_rows_come_before_the_file_is_read_to_its_end(tmp_path: Path, ending: str) -> None:
    rows = [{"id": str(i), "text": "a" * 1000} for i in range(4000)]
    whole = WRITERS[ending](rows)
    path = written(tmp_path, ending, whole[: len(whole) // 2] + b'\n"\x00{[garbage')
    found = tables.records(path)
    assert next(found)[1] == rows[0]
    assert next(found)[1] == rows[1]
    with pytest.raises(InputError, match=str(path)):
        list(found)


@pytest.mark.parametrize("ending", TEXTS)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK", 2**14)
    path = written(tmp_path, ending, [{"id": str(i), "text": "a" * 500} for i in range(4000)])
    tracemalloc.start()
    try:
        count = sum(1 for _ in tables.records(path, strict=False))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4000
    assert path.stat().st_size > 2_000_000
    assert most < 500_000


def test_batches_come_as_their_rows_do() -> None:
    read = []

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for i in range(10 * tables.ROWS):
            read.append(i)
            yield "here", {"id": i}

    found = tables.batches(rows(), strict=False)
    assert next(found).num_rows == tables.ROWS == len(read)


def test_batches_are_cut_where_their_pictures_grow_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BYTES", 10)
    rows = [("here", {"image": {"bytes": b"1234", "path": None}})] * 7
    assert [batch.num_rows for batch in tables.batches(rows, strict=False)] == [3, 3, 1]


# ----------------------------------------------------------------------------------------------------------------- JSON
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON, max_size=6), st.sampled_from([None, 0, 3]), st.integers(1, 40), st.booleans())
@example([1234567, 12, 3], None, 2, True)  # numbers that go on behind what was read
@example([0.5, 1e300, -2], None, 1, True)
@example(["\ud800", "\ud83d\ude00", "\udfff"], None, 3, True)
def test_the_elements_of_a_list_are_what_json_says(
    values: list[Any], indent: int | None, chunk: int, plain: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK", chunk)
        assert list(tables._elements(io.StringIO(text, newline=""))) == json.loads(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON, max_size=4), st.integers(1, 40), st.data())
def test_a_list_that_is_cut_off_or_goes_on_is_an_error(values: list[Any], chunk: int, data: st.DataObject) -> None:
    text = json.dumps(values)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK", chunk)
        for wrong in (text[:cut], text + "]", text + " 5", f"{text[:-1]},]" if values else "[,]"):
            with pytest.raises(ValueError, match=r".+"):
                list(tables._elements(io.StringIO(wrong, newline="")))


def test_brackets_without_end_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, ".json", b"[" * 1_000_000)
    with pytest.raises(InputError, match="not a readable JSON file"):
        records(path, strict=False)


def test_an_error_in_a_list_names_its_row(tmp_path: Path) -> None:
    path = written(tmp_path, ".json", b'[{"id": 1}, {"id": nul}]')
    with pytest.raises(InputError, match=r"row 2: Expecting value"):
        records(path)


# ------------------------------------------------------------------------------------------------------------ bad text
BAD_TEXT = "a\x00b\x1b[31m\u0085c\ud800d\n\te"
CLEANED = "ab[31mc\ufffdd\n\te"


def test_bad_text_is_cleaned() -> None:
    assert tables.clean(BAD_TEXT) == CLEANED
    assert tables.clean("ไทย 😀 \u200b\r\n") == "ไทย 😀 \u200b\r\n"


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_half_surrogates_of_a_corpus_become_signs_for_what_is_lost(tmp_path: Path, ending: str) -> None:
    row = {"id": BAD_TEXT, "messages": [{"from": "human", "value": BAD_TEXT}, {"from": "gpt", "value": "b"}]}
    more = {"image": BAD_TEXT, "tags": [BAD_TEXT], "note": {"x": BAD_TEXT}, BAD_TEXT: 1}
    found = batched(records(written(tmp_path, ending, [row | more]), strict=False))[0]
    assert found["id"] == CLEANED
    assert found["messages"][0]["content"] == CLEANED
    assert found["image"]["path"] == CLEANED
    assert found["tags"] == [CLEANED]
    assert found[CLEANED] == 1


@pytest.mark.parametrize("ending", TEXTS)
def test_bytes_that_are_no_text_are_replaced_in_a_corpus(tmp_path: Path, ending: str) -> None:
    content = WRITERS[ending]([{"id": "1", "text": "aXb"}]).replace(b"X", b"\xff")
    path = written(tmp_path, ending, content)
    assert records(path, strict=False) == [{"id": "1", "text": "a\ufffdb"}]
    with pytest.raises(InputError, match="utf-8"):
        records(path)


def unsound(*texts: bytes) -> pa.Array:
    """Texts that are no UTF-8, as careless writers leave them in parquet files."""
    ends = [0]
    for text in texts:
        ends.append(ends[-1] + len(text))
    offsets = pa.array(ends, pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), len(texts), [None, offsets, pa.py_buffer(b"".join(texts))])


def test_texts_in_parquet_are_cleaned_wherever_they_stand(tmp_path: Path) -> None:
    texts = unsound(b"a\xffb", b"fine", b"c\x00")
    clean = ["a\ufffdb", "fine", "c"]
    listed = pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), texts)
    columns = {
        "plain": texts,
        "coded": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), texts),
        "nested": pa.StructArray.from_arrays([texts, pa.array([b"\xff", None, b"\x00"])], ["path", "bytes"]),
        "numbers": pa.array([1, None, 3]),
    }
    batch = tables.cleaned(pa.RecordBatch.from_pydict(columns))
    assert batch.column("plain").to_pylist() == clean
    assert batch.column("coded").to_pylist() == clean
    assert batch.column("nested").to_pylist() == [
        {"path": text, "bytes": data} for text, data in zip(clean, [b"\xff", None, b"\x00"], strict=True)
    ]
    assert batch.column("numbers").to_pylist() == [1, None, 3]
    found = tables.cleaned(pa.RecordBatch.from_pydict({"listed": listed}))
    assert found.column(0).to_pylist() == [clean[:1], clean[1:]]
    sliced = tables.cleaned(pa.RecordBatch.from_pydict({"listed": listed}).slice(1))
    assert sliced.column(0).to_pylist() == [clean[1:]]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"plain": texts}), path)
    assert [row["plain"] for row in records(path, strict=False)] == clean


def test_good_text_is_left_as_it_is_without_a_copy() -> None:
    batch = pa.RecordBatch.from_pydict({"a": ["ไทย 😀", None, "x\n\t"], "b": [["é"], None, []]})
    found = tables.cleaned(batch)
    assert found.equals(batch)
    assert found.column(0).buffers()[2].address == batch.column(0).buffers()[2].address


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=[])), max_size=5))
@example(["\x7f", "\x80", "\x9f", "\xa0", "\r\n", "\x0b"])
def test_a_batch_is_cleaned_as_each_text_is(texts: list[str | None]) -> None:
    whole = [text and text.encode("utf-8", "replace").decode() for text in texts]  # as Arrow can have them
    batch = tables.cleaned(pa.RecordBatch.from_pydict({"a": pa.array(whole, pa.string())}))
    assert batch.column(0).to_pylist() == [text and tables.clean(text) for text in whole]


# -------------------------------------------------------------------------------------------------------------- batches
def test_a_strict_batch_names_the_row_of_a_wrong_value() -> None:
    assert batched([{"id": "1", "row": 5}], "row", strict=True) == [{"text": None, "id": "1", "row": 5}]
    for wrong in ({"id": 5}, {"id": "\ud800"}, {"id": "2", "row": "x"}):
        with pytest.raises(InputError, match=r"row 1: (id|row) is "):
            batched([{"id": "1", "row": 1}, {"row": 1} | wrong], "row", strict=True)


def test_further_fields_of_a_corpus_have_the_types_of_its_first_rows() -> None:
    rows = [
        {"int": 1, "float": 1, "bool": True, "list": ["a"], "any": {"x": 1}, "none": None, "photo": IMAGE, "mixed": 1},
        {"int": 2, "float": 0.5, "bool": None, "list": [], "any": [1], "none": None, "photo": None, "mixed": "b"},
    ]
    batch = next(tables.batches((("here", row) for row in rows), strict=False))
    types = {field.name: str(field.type) for field in batch.schema}
    assert types == {
        "int": "int64", "float": "double", "bool": "bool", "list": "list<item: string>", "any": "string",
        "none": "string", "photo": "struct<bytes: binary, path: string>", "mixed": "string",
    }  # fmt: skip
    assert [row["any"] for row in batch.to_pylist()] == ['{"x": 1}', "[1]"]
    assert [row["mixed"] for row in batch.to_pylist()] == ["1", "b"]


def test_conversations_in_a_further_field_stay_what_they_are_and_lists_of_anything_else_are_told_in_json() -> None:
    turns = [{"from": "human", "value": "<image>Which dish?"}, {"from": "gpt", "value": "Pho\x00."}]
    rows = [{"conversations": turns, "boxes": [{"x": 1}]}, {"conversations": None, "boxes": []}]
    (found,) = tables.batches([(str(i), row) for i, row in enumerate(rows)], strict=False)
    told = [{"role": "user", "content": "<image>Which dish?"}, {"role": "assistant", "content": "Pho."}]
    assert found["conversations"].to_pylist() == [told, None]
    assert found["boxes"].to_pylist() == ['[{"x": 1}]', "[]"]


def test_later_batches_keep_the_types_and_misfits_are_null() -> None:
    rows = [{"id": "a", "score": 0.5, "n": 1}] * tables.ROWS
    rows += [{"id": 7, "score": "much", "n": 2**70, "new": 1}, {"id": None, "score": "1.5", "n": True}]
    found = list(tables.batches((("here", row) for row in rows), strict=False))
    assert found[0].schema == found[1].schema
    assert found[1].to_pylist() == [{"id": "7", "score": None, "n": None}, {"id": None, "score": 1.5, "n": None}]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("text", 5, "5"),
        ("text", ["a"], None),
        ("text", b"a", None),
        ("reward", "3.5", 3.5),
        ("reward", "good", None),
        ("reward", float("nan"), None),
        ("reward", 10**400, None),
        ("reward", True, 1.0),
        ("options", ["a", "b"], ["a", "b"]),
        ("options", ["a", 1], None),
        ("options", "a", None),
        ("image", "a.jpg", {"bytes": None, "path": "a.jpg"}),
        ("image", b"x", {"bytes": b"x", "path": None}),
        ("image", {"bytes": b"x"}, {"bytes": b"x", "path": None}),
        ("image", {"bytes": 5, "path": ["x"]}, None),
        ("image", "", None),
        ("image", 5, None),
        ("messages", "hello", None),
    ],
)
def test_a_value_fits_the_field_of_a_row_or_is_null(field: str, value: Any, expected: Any) -> None:
    assert batched([{field: value, "id": "1"}]) == [{field: expected, "id": "1"}]


@settings(max_examples=30)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["id", "image", "messages", "reward", "x", "\ud800"]), JSON | st.binary()),
        max_size=5,
    )
)
def test_no_row_of_a_corpus_is_an_error(rows: list[dict[str, Any]]) -> None:
    assert len(batched(rows)) == len(rows)


# -------------------------------------------------------------------------------------------------------- conversations
@pytest.mark.parametrize(
    "turns",
    [
        [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Rendang"}],
        [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "Rendang"}],
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Rendang"}]},
        ],
    ],
    ids=["LLaVA", "messages", "parts"],
)
def test_conversations_of_all_layouts_are_the_same(turns: list[dict[str, Any]]) -> None:
    expected = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "Rendang"}]
    assert tables.conversation(turns) == tables.conversation(json.dumps(turns)) == expected


@pytest.mark.parametrize(
    "value",
    [
        None, 5, "", "[", "hello", [], [5], "[" * 100_000, [{"from": "no", "value": "x"}], [{"from": [], "value": "x"}],
        [{"from": "gpt", "value": 5}], [{"from": "gpt"}], [{"role": "user", "content": None}], {"from": "gpt"},
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_none(value: Any) -> None:
    assert tables.conversation(value) is None


# ------------------------------------------------------------------------------------------------------------ columns
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def test_columns_of_other_layouts_become_pictures_and_messages() -> None:
    kinds = tables.nested()
    for strict in (True, False):
        assert tables.cast(pa.array(["a.jpg", None]), kinds["image"], strict).to_pylist() == [
            {"bytes": None, "path": "a.jpg"},
            None,
        ]
        turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
        expected = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        for column in (pa.array([turns, None]), pa.array([json.dumps(turns), "no"])):
            assert tables.cast(column, kinds["messages"], strict).to_pylist() == [expected, None]
        told = pa.array([expected], MESSAGES)
        assert tables.cast(told, kinds["messages"], strict).to_pylist() == [expected]


def test_a_value_that_does_not_fit_a_column_is_an_error_or_null() -> None:
    rewards = pa.array(["3.5", "good", None])
    with pytest.raises(pa.ArrowInvalid):
        tables.cast(rewards, pa.float32(), True)
    assert tables.cast(rewards, pa.float32(), False).to_pylist() == [3.5, None, None]


def test_a_column_of_a_wrong_type_is_an_error_all_the_same() -> None:
    for column, kind in ((pa.array([["a"], ["b"]]), pa.string()), (pa.array([1, 2]), tables.nested()["messages"])):
        with pytest.raises(pa.ArrowInvalid):
            tables.cast(column, kind, False)
