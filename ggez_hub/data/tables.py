r"""Tables of any kind as rows and as Arrow batches, streamed: no file is ever whole in memory.

Bad text is decided on here, once: bytes that are no UTF-8 and half surrogates (``"\ud800"`` in JSON) become U+FFFD;
control characters, but for tabs and line ends, are taken out. `batches` and `cleaned` do this to corpora. Benchmarks
are read strictly: there a text that is no Unicode is an error that names its row, and nothing is changed.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ggez_hub.data.conversations import IMAGE
from ggez_hub.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1024  # of a batch
BYTES = 64_000_000  # of pictures in a batch: more than 2 GiB of these do not fit one array
PICTURES = 128  # rows of a parquet file with pictures that are read at once, whatever their size
MAX_ROW = 2**26  # characters of a row in a text file
CHUNK = 2**20  # characters that are read at once
TEXTS = ("id", "text", "label", "category", "country", "language", "source", "license", "question", "answer", "kind")
WHOLE = "check that the download is complete"
ROLES = {name: name for name in ("system", "user", "assistant")} | {"human": "user", "gpt": "assistant"}  # LLaVA's
_HALF = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BAD = re.compile(f"{_HALF.pattern}|{_CONTROL.pattern}")
_ENCODE = json.JSONEncoder(ensure_ascii=False, default=str).encode
_CONTROL_BYTES = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]"  # the same in UTF-8
BEHIND = frozenset(",] \t\r\n")  # a value in a list
_SPACE = re.compile(r"[ \t\r\n]*")

Row = dict[str, Any]


# ---------------------------------------------------------------------------------------------------------------- files
def files(path: str, suffixes: Sequence[str]) -> list[Path]:
    """A file, or all files of these kinds in a folder and below, sorted; hidden ones are none.

    Args:
        path: A file or folder.
        suffixes: How their names end: ``.csv``, ``.tar.gz``.

    Raises:
        InputError: None there.
    """
    root, ends = Path(path), tuple(suffixes)
    found = sorted(file for file in root.rglob("*") if file.name.endswith(ends)) if root.is_dir() else [root]
    found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    kinds = " or ".join(f"*{suffix}" for suffix in suffixes)
    if not found or not found[0].is_file():
        raise InputError(f"{path}: no {kinds} file there", "give its place, such as source.path=FOLDER")
    if not found[0].name.endswith(ends):
        raise InputError(f"{path}: expected a {kinds} file")
    return found


def records(
    file: Path, wanted: Sequence[str] = (), pictures: bool = True, *, strict: bool = True
) -> Iterator[tuple[str, Row]]:
    """The rows of a file as (file and row number, record), one after the other.

    Args:
        file: CSV, TSV, JSON (a list), JSONL, parquet or Arrow, told by its name.
        wanted: Columns that have to be there.
        pictures: Whether to read columns of pictures, where the kind of file allows to leave them.
        strict: Whether a row that cannot be read, or lacks a wanted column, is an error. If not (corpora), what is
            missing is None, in a row that cannot be read all of it, so that such rows are dropped and counted like
            others without text; the first row that can be read has to have the columns all the same. Also, an empty
            cell of a CSV is then None, and a .json may hold one object a line.

    Raises:
        InputError: A file that cannot be read or has no row, a column that is not there.
    """
    reading = _READING[file.suffix]
    number, first = 0, True
    for number, record in enumerate(reading(file, pictures, strict), 1):
        where = f"{file}, row {number}"
        for name in wanted:
            if name not in record and (strict or (first and record)):
                hint = f"it has: {', '.join(map(str, record))}"
                raise InputError(f"{where}: no column {name!r}{did_you_mean(name, list(record))}", hint)
        first = first and not record
        yield where, record if strict else dict.fromkeys(wanted) | record
    if not number:
        raise InputError(f"{file}: no row in it", WHOLE)
    if first and not strict:
        raise InputError(f"{file}: not one of its {number} rows can be read", WHOLE)


def _lines(file: Path, strict: bool) -> Iterator[str]:
    """The lines of a text file, with their ends."""
    with file.open(encoding="utf-8-sig", errors="strict" if strict else "replace", newline="") as text:
        for number, line in enumerate(iter(lambda: text.readline(MAX_ROW), ""), 1):
            if len(line) == MAX_ROW:
                raise InputError(f"{file}, line {number}: it has more than {MAX_ROW} characters")
            yield line


def _csv(file: Path, pictures: bool, strict: bool) -> Iterator[Row]:
    number = 0
    try:
        # Every value is a text: the language nan is one.
        rows = csv.DictReader(_lines(file, strict), strict=True, delimiter="\t" if file.suffix == ".tsv" else ",")
        while rows.fieldnames is not None:  # an error in the first line is none of a row
            number += 1
            try:
                record = next(rows)
                if None in record or None in record.values():
                    raise csv.Error(f"row {number} has more or fewer values than the first line has names")
            except StopIteration:
                return
            except csv.Error:
                if strict:
                    raise
                record = {}
            yield record if strict else {name: value or None for name, value in record.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise InputError(f"{file}: not a readable CSV file: {err}") from err


def _jsonl(file: Path, pictures: bool, strict: bool) -> Iterator[Row]:
    try:
        for number, line in enumerate((line for line in _lines(file, strict) if line.strip()), 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as err:
                if strict:
                    raise InputError(f"{file}, row {number}: not JSON: {err}", "it has one JSON object a line") from err
                record = {}
            yield _object(record, f"{file}, row {number}", strict)
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{file}: not a readable JSONL file: {err}", "it has one JSON object a line") from err


def _json(file: Path, pictures: bool, strict: bool) -> Iterator[Row]:
    try:
        with file.open(encoding="utf-8-sig", errors="strict" if strict else "replace") as text:
            if not strict and text.read(CHUNK).lstrip()[:1] == "{":
                yield from _jsonl(file, pictures, strict)
                return
            text.seek(0)
            for number, record in enumerate(_elements(text), 1):
                yield _object(record, f"{file}, row {number}", strict)
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{file}: not a readable JSON file: {err}") from err


def _elements(text: TextIO) -> Iterator[Any]:
    """The values in a JSON list, each read when it is asked for. Raises ValueError for what is none.

    ijson, which does this too, takes a half surrogate for an error or "?", and all memory for nested brackets.
    """
    decode = json.JSONDecoder().raw_decode
    held, at, number = text.read(CHUNK), 0, 0

    def token() -> str:
        """The next character that is no space; "" at the end."""
        nonlocal held, at
        while (at := _SPACE.match(held, at).end()) == len(held) and held:  # type: ignore[union-attr]
            held, at = text.read(CHUNK), 0
        return held[at : at + 1]

    if token() != "[":
        raise ValueError("expected a list")
    at += 1
    closed = token() == "]"
    while not closed:
        number += 1
        token()
        while True:
            try:
                value, end = decode(held, at)
                # Else a number may go on in what was not read yet.
                wrong = None if held[end : end + 1] in BEHIND else "no comma and no end of the list behind it"
            except ValueError as err:  # perhaps it goes on there
                wrong = getattr(err, "msg", str(err))
            if wrong is None:
                break
            more = text.read(max(CHUNK, len(held) - at)) if len(held) - at < MAX_ROW else ""
            if not more:
                raise ValueError(f"row {number}: {wrong}")
            held, at = held[at:] + more, 0
        at = end
        yield value
        following = token()
        if following not in (",", "]"):
            raise ValueError(f"row {number}: no comma and no end of the list behind it")
        closed = following == "]"
        at += not closed
    at += 1
    if token():
        raise ValueError("it goes on behind its list")


def _object(record: Any, where: str, strict: bool) -> Row:
    if isinstance(record, dict):
        return record
    if strict:
        raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
    return {}


def _parquet(file: Path, pictures: bool, strict: bool) -> Iterator[Row]:
    yield from _of_batches(file, "parquet", parquet_batches(file, pictures), strict)


def parquet_batches(file: Path, pictures: bool) -> Iterator["pa.RecordBatch"]:
    """The batches of a parquet file; without `pictures` no column that holds such is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, pre_buffer=False) as reader:  # or memory grows with the file
        pictured = {
            field.name
            for field in reader.schema_arrow
            if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        }
        names = [name for name in reader.schema_arrow.names if pictures or name not in pictured]
        yield from reader.iter_batches(PICTURES if pictures and pictured else ROWS, columns=names)


def _arrow(file: Path, pictures: bool, strict: bool) -> Iterator[Row]:
    import pyarrow as pa

    def found() -> Iterator["pa.RecordBatch"]:
        with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:  # as `datasets` writes it
            yield from reader

    yield from _of_batches(file, "Arrow", found(), strict)


def _of_batches(file: Path, kind: str, found: Iterable["pa.RecordBatch"], strict: bool) -> Iterator[Row]:
    import pyarrow as pa

    try:
        for batch in found:
            yield from (batch if strict else cleaned(batch)).to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as err:  # the last two: of impossible dates
        raise InputError(f"{file}: not a readable {kind} file: {err}", WHOLE) from err


_READING: dict[str, Callable[[Path, bool, bool], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}


# -------------------------------------------------------------------------------------------------------------- batches
@cache
def nested() -> "dict[str, pa.DataType]":
    """The Arrow types of those fields of a row that are no texts."""
    import pyarrow as pa

    return {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        "options": pa.list_(pa.string()),
        "reward": pa.float32(),
    }


def batches(
    rows: Iterable[tuple[str, Row]], numbers: Sequence[str] = (), *, strict: bool = True
) -> Iterator["pa.RecordBatch"]:
    """Rows as Arrow batches of ROWS rows at most, with about BYTES of pictures at most.

    Strictly, all rows have the same fields, and a value that is not of its field's type is an error that names its row:
    all are texts but those of `nested` and the `numbers`. Otherwise (corpora) only fields of a row have their types;
    further ones get theirs from the first batch (texts, numbers, truth values, lists of texts, pictures, conversations;
    anything else as JSON text), and those that first come later are left out. A value that does not fit is null; an
    `image` may be its path, and `messages` anything that `conversation` reads.

    Args:
        rows: Where each stands, and what it says.
        numbers: Strictly: fields that are whole numbers.
        strict: See above.

    Raises:
        InputError: Strictly: a value that is not of its field's type.
    """
    import pyarrow as pa

    fields: dict[str, str] = {}  # as they are written: as they are called
    schema: pa.Schema | None = None
    for held in _portions(rows):
        if strict:
            kinds = nested() | dict.fromkeys(numbers, pa.int64())
            names = dict.fromkeys(("text", *held[0][1]))
            yield batch(held, pa.schema([(name, kinds.get(name, pa.string())) for name in names]))
        else:
            found = [row for _, row in held]
            fields = fields or {clean(str(name)): name for row in found for name in row} or {"text": "text"}
            schema = schema or pa.schema([(name, _kind(name, found, fields[name])) for name in fields])
            columns = [
                pa.array(map(_fit(kind, name in TEXTS), [row.get(fields[name]) for row in found]), kind)
                for name, kind in zip(schema.names, schema.types, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _portions(rows: Iterable[tuple[str, Row]]) -> Iterator[list[tuple[str, Row]]]:
    held: list[tuple[str, Row]] = []
    size = 0
    for where, row in rows:
        held.append((where, row))
        image = row.get("image")
        data = image.get("bytes") if isinstance(image, Mapping) else None
        size += len(data) if isinstance(data, bytes) else 0
        if len(held) == ROWS or size >= BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def batch(rows: Sequence[tuple[str, Row]], schema: "pa.Schema") -> "pa.RecordBatch":
    """Rows, each with where it stands, as a batch.

    Raises:
        InputError: A value that is not of its field's type.
    """
    import pyarrow as pa

    try:
        return pa.RecordBatch.from_pylist([row for _, row in rows], schema)
    except (pa.ArrowException, UnicodeEncodeError):  # it names no row
        for where, row in rows:
            for field in schema:
                try:
                    pa.array([row.get(field.name)], field.type)
                except (pa.ArrowException, UnicodeEncodeError) as err:
                    raise InputError(
                        f"{where}: {field.name} is {row[field.name]!r:.80}, expected {field.type}"
                    ) from err
        raise


def _kind(name: str, rows: Sequence[Row], written: str) -> "pa.DataType":
    """The type of a field of a corpus: its own, or that of its values in the first rows."""
    import pyarrow as pa

    if known := (nested() | dict.fromkeys(TEXTS, pa.string())).get(name):
        return known
    values = [row[written] for row in rows if row.get(written) is not None]
    if not values:
        return pa.string()
    if all(isinstance(value, bool) for value in values):
        return pa.bool_()
    for kind, types in ((pa.int64(), int), (pa.float64(), int | float)):
        if all(isinstance(value, types) and not isinstance(value, bool) for value in values):
            return kind
    if all(isinstance(value, list) and all(isinstance(part, str) for part in value) for value in values):
        return pa.list_(pa.string())
    if all(isinstance(value, Mapping) and "bytes" in value for value in values):
        return nested()["image"]
    if all(isinstance(value, list) and conversation(value) for value in values):
        return nested()["messages"]
    return pa.string()


def cast(values: "pa.Array", kind: "pa.DataType", strict: bool) -> "pa.Array":
    """A column as another type. Pictures may be their paths, messages anything that `conversation` reads.

    Args:
        values: The column.
        kind: The type of a field of a row.
        strict: Whether other values that are not of that type are an error; else (corpora) they are null.

    Raises:
        pyarrow.ArrowException: Strictly: a value that is not of that type. Else: none is, nor could be.
    """
    import pyarrow as pa

    types = nested()
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not (kind == types["messages"] and not _is_spoken(values.type)) and not (kind == types["image"] and text):
        try:
            return values.cast(kind)
        except pa.ArrowException:
            if strict:
                raise
    found = pa.array(map(_fit(kind, True), values.to_pylist()), kind)
    if not text and found.null_count == len(found) > values.null_count:
        raise pa.ArrowInvalid(f"no value of {values.type} is {kind}")
    return found


def _is_spoken(kind: "pa.DataType") -> bool:
    """Whether a column's values are lists of {role, content}; Arrow would cast any other struct to one of nulls."""
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {field.name: field.type for field in kind.value_type}
    return fields.keys() >= {"role", "content"} and not pa.types.is_nested(fields["content"])


def _fit(kind: "pa.DataType", plain: bool) -> Callable[[Any], Any]:
    """What makes a value fit a column, or None of it; a text that is not `plain` may tell of anything, in JSON."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        return _plain if plain else _told
    if pa.types.is_boolean(kind):
        return lambda value: value if isinstance(value, bool) else None
    if pa.types.is_integer(kind):
        return lambda value: value if type(value) is int and -(2**63) <= value < 2**63 else None
    if pa.types.is_floating(kind):
        return _number
    return {"messages": conversation, "image": _picture}.get(
        next((name for name, known in nested().items() if known == kind), ""), _listed
    )


def _plain(value: Any) -> str | None:
    return None if value is None or isinstance(value, list | Mapping | bytes) else clean(str(value))


def _told(value: Any) -> str | None:
    return clean(_ENCODE(value)) if isinstance(value, list | Mapping) else _plain(value)


def _number(value: Any) -> float | None:
    try:
        return number if math.isfinite(number := float(value)) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _listed(value: Any) -> list[str] | None:
    fine = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return [clean(part) for part in value] if fine else None


def _picture(value: Any) -> Row | None:
    """A picture's {bytes, path} from that, from its bytes or from its path."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    path = value.get("path") if isinstance(value, Mapping) else value
    held = {
        "bytes": data if isinstance(data, bytes) else None,
        "path": clean(path) if isinstance(path, str) else None,
    }
    return held if any(held.values()) else None


def conversation(value: Any) -> list[dict[str, str]] | None:
    """A conversation as `messages`: role (system, user, assistant) and content; None where it is none.

    Args:
        value: A list of {role, content}, whose content may be a list of parts (texts and pictures); or of {from, value}
            with human and gpt, as LLaVA has them; or the JSON text of one of these.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        return None
    found = []
    for turn in value:
        role = turn.get("role") or turn.get("from")
        said = turn["content"] if turn.get("content") is not None else turn.get("value")
        if isinstance(said, list) and all(isinstance(part, Mapping) for part in said):
            said = "".join(IMAGE if part.get("type") == "image" else str(part.get("text") or "") for part in said)
        if not isinstance(role, str) or role not in ROLES or not isinstance(said, str):
            return None
        found.append({"role": ROLES[role], "content": clean(said)})
    return found or None


# ---------------------------------------------------------------------------------------------------------------- texts
def clean(text: str) -> str:
    """A text without half surrogates and control characters, see above."""
    # All but the last two are quick, and what most texts need.
    if text.replace("\n", " ").isprintable() or not _BAD.search(text):
        return text
    return _CONTROL.sub("", _HALF.sub("\ufffd", text))


def cleaned(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """A batch whose texts, also those in lists and structs, are as `clean` makes them, and valid UTF-8."""
    import pyarrow as pa

    columns = []
    for values in batch.columns:
        if any(map(_is_bad, _texts(values))):
            if pa.types.is_dictionary(values.type):
                values = values.dictionary_decode()
            kind = values.type
            values = pa.array([_washed(value, kind) for value in values.cast(_in_bytes(kind)).to_pylist()], kind)
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _texts(values: "pa.Array") -> "Iterator[pa.Array]":
    """The columns of texts in a column."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind):
        yield from _texts(values.dictionary)
    elif pa.types.is_struct(kind):
        for part in values.flatten():
            yield from _texts(part)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(values.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield values


def _is_bad(texts: "pa.Array") -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return bool(pc.any(pc.match_substring_regex(texts.cast(_in_bytes(texts.type)), _CONTROL_BYTES)).as_py())


def _in_bytes(kind: "pa.DataType") -> "pa.DataType":
    """A type with bytes for texts."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _in_bytes(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_in_bytes(kind.value_type))
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, kind)


def _washed(value: Any, kind: "pa.DataType") -> Any:
    """A value of `_in_bytes` as one of its own type."""
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: _washed(value[field.name], field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_washed(part, kind.value_type) for part in value]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return clean(value.decode("utf-8", "replace"))
    return value
