"""Which rows are of a region, and what says so: their country, their language, their text, in the end their picture.

The first kind of evidence that says something decides. A country is in the region or out of it. A language is evidence
if most of its speakers live in the region (Thai for Southeast Asia, Chinese not), as is a locale of one of its
countries (zh-SG); of another language or locale nothing follows. A text is of the region if it names a place, people
or language of it, see ggez_hub.data.gazetteer; if all that it names is elsewhere, it is not. A row without evidence is
dropped.
"""

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import gazetteer, readers, tables
from ggez_hub.data.filters import Outcome, Rule
from ggez_hub.errors import InputError, did_you_mean
from ggez_hub.registry import load_region
from ggez_hub.schema import Evidence, Region

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

NOTHING = "no evidence"
UNDECIDED = "_undecided"  # a row of which nothing but its picture can say whether it is of the region
LONG = 12  # characters of codes that a reason can list
DIFFERENT = 1 << 16  # spellings that are remembered
CODED = 4  # bytes that a text takes in a parquet file, at most, if it is but a number
ROWS = 1 << 16  # read at once, at most
BYTES = 8_000_000  # the same, about; two such are in memory
BUFFER = 1 << 20  # bytes of a column that are read at once where row groups are large
GROUP = 8 * BYTES  # of a row group that is large
TEXTS = ("text", "messages")
KINDS = (".parquet",), (".csv", ".tsv", ".jsonl", ".json", ".arrow")  # of files; in a folder the first that is there
FIELDS = {"country": ("country",), "language": ("language",), "text": TEXTS, "image": ("image",)}

Decision = tuple[bool, str] | None  # in the region or not, and why; None = nothing follows
# Of every row which of the decisions it is, -1 = nothing follows; and the decisions.
Way = Callable[["pa.RecordBatch"], "tuple[np.ndarray, list[Decision]]"]


def filter_region(
    path: str | Path,
    region: Region | str,
    *,
    evidence: Sequence[Evidence] = ("country", "language", "text"),
    columns: Mapping[str, str] | None = None,
    image: Rule | None = None,
) -> "Iterator[pa.RecordBatch]":
    """Yields the rows of a file that are of a region, with all their columns and `reason`: what says so.

    No more than some thousand rows are in memory at once. Text that is no UTF-8 does no harm.

    Args:
        path: A parquet, CSV, TSV, JSONL, JSON or Arrow file, or a folder of parquet files, or of others if it has none.
        region: A region, or the name of one.
        evidence: The kinds of evidence, the first that says something decides.
        columns: Our field (country, language, text, messages, image): their column, where that is called otherwise.
        image: What judges pictures, for evidence image: ``similarity.by_image(embedder, region, least)``.

    Raises:
        InputError: No such file, one that cannot be read, a column that is not there or of a type without sense; no
            column for any of the evidence.
        ConfigError: No such region.
    """
    import pyarrow.compute as pc

    region = load_region(region) if isinstance(region, str) else region
    if not evidence or set(evidence) - FIELDS.keys():
        raise InputError(f"evidence is of {', '.join(FIELDS)}, not {', '.join(evidence) or 'none'}")
    if ("image" in evidence) != (image is not None):
        raise InputError("evidence image and the argument image go together", "image=similarity.by_image(...)")
    rule, judge = in_region(region, evidence), undecided(image) if image else None
    country = (columns or {}).get("country", "country") if list(evidence[:1]) == ["country"] else None
    likely = in_region(region, ("country", "image") if len(evidence) > 1 else ("country",))  # or of none that is known

    def may_hold(batch: "pa.RecordBatch") -> bool:
        view = _view(batch, ("country",), {"country": batch.schema.names[0]}, Path(path))
        return bool(likely(view).kept.true_count)

    for file in _files(Path(path)):
        for batch, schema in _batches(file, country, may_hold):
            view, kept, why = rule(_view(batch, evidence, columns or {}, file))
            batch, why = batch.filter(kept), why.filter(kept)
            if judge:
                _, kept, seen = judge(view.filter(kept))
                batch, why = batch.filter(kept), pc.coalesce(seen, why).filter(kept)
            if batch.num_rows:
                names = [name for name in schema.names if name != "reason"]
                batch = batch.cast(schema).select(names)
                yield batch.append_column("reason", why)


def in_region(region: Region, evidence: Sequence[Evidence] = ("country",)) -> Rule:
    """Keeps rows of a region: x with region(x) = r.

    With evidence image, rows of which nothing else says anything are kept, too, and marked in the column `_undecided`:
    wrap the rule that judges pictures in `undecided`.

    Args:
        region: The region.
        evidence: The kinds of evidence, the first that says something decides.
    """
    ways = [(list(FIELDS[kind]), WAYS[kind](region)) for kind in evidence if kind != "image"]

    def rule(batch: "pa.RecordBatch") -> Outcome:
        import numpy as np
        import pyarrow as pa

        place, made = np.full(batch.num_rows, -1, np.int32), list[Decision]()
        for fields, way in ways:
            left = np.flatnonzero(place < 0)
            if len(left) == len(place):
                place, made = way(batch)
            elif len(left):  # without a copy of the pictures
                found, decisions = way(batch.select(sorted({*fields, *TEXTS})).take(pa.array(left)))
                place[left] = np.where(found < 0, -1, found + len(made))
                made = made + decisions
        # The last one, which -1 means as well, is for rows of which nothing is known.
        kept = np.array([*(bool(found and found[0]) for found in made), "image" in evidence])[place]
        why = pa.array([*(found and found[1] for found in made), None if "image" in evidence else NOTHING], pa.string())
        if "image" in evidence:
            batch = batch.append_column(UNDECIDED, pa.array(place < 0))
        return Outcome(batch, pa.array(kept), why.take(pa.array(np.where(place < 0, len(made), place))))

    return rule


def undecided(rule: Rule) -> Rule:
    """A rule that judges only rows marked `_undecided`, and keeps all others."""

    def judge(batch: "pa.RecordBatch") -> Outcome:
        if UNDECIDED not in batch.schema.names:
            return rule(batch)
        marked = batch.column(UNDECIDED)
        found = rule(batch.filter(marked))
        for field in found.batch.schema:
            if field.name not in batch.schema.names:
                batch = batch.append_column(field, _scattered(marked, found.batch.column(field.name)))
        return Outcome(batch, _scattered(marked, found.kept).fill_null(True), _scattered(marked, found.why))

    return judge


# ---------------------------------------------------------------------------------------------------- kinds of evidence
def _by_country(region: Region) -> Way:
    @lru_cache(DIFFERENT)
    def decide(value: str) -> Decision:
        known = countries_of(value)
        return (any(code in region.countries for code in known), f"country {'|'.join(known)}") if known else None

    return lambda batch: _decided(batch.column("country"), decide)


def _by_language(region: Region) -> Way:
    at_home = _languages_of(region)

    @lru_cache(DIFFERENT)
    def decide(value: str) -> Decision:
        if _territory(value) in region.countries:
            return True, f"locale {value}"
        code = _language(value)
        return (True, f"language {code}") if code in at_home else None

    def way(batch: "pa.RecordBatch") -> "tuple[np.ndarray, list[Decision]]":
        import numpy as np

        found, decisions = _decided(batch.column("language"), decide)
        # Where no language is known the script may say it.
        known, _ = _decided(batch.column("language"), lambda value: (True, "") if _language(value) else None)
        silent = np.flatnonzero((found < 0) & (known < 0))
        for row, code in zip(silent, gazetteer.written_in(_texts(batch.take(silent))), strict=True):
            if code in at_home:
                found[row] = len(decisions)
                decisions.append((True, f"script of {code}"))
        return found, decisions

    return way


def _by_text(region: Region) -> Way:
    import numpy as np

    members = set(region.countries)

    @cache
    def inside() -> "np.ndarray":  # once there is a text to search: names take a while to load
        codes = [set(place.split("|")) for place in gazetteer.gazetteer().places]
        # Of a language of several countries, some of them in the region, nothing follows.
        return np.array([1 if place <= members else -1 if place & members else 0 for place in codes], np.int8)

    def way(batch: "pa.RecordBatch") -> "tuple[np.ndarray, list[Decision]]":
        mentions = gazetteer.find(_texts(batch))
        found = np.full(batch.num_rows, -1)
        decisions: list[Decision] = []
        for row, place, here, name in zip(
            mentions.rows.tolist(),
            mentions.place.tolist(),
            inside()[mentions.place].tolist(),
            mentions.names,
            strict=True,
        ):
            before = found[row] >= 0 and decisions[found[row]]
            if here >= 0 and (not before or here > before[0]):
                where = gazetteer.gazetteer().places[place]
                found[row] = len(decisions)
                decisions.append((bool(here), f"names {name}" + (f" ({where})" if len(where) < LONG else "")))
        return found, decisions

    return way


WAYS: dict[str, Callable[[Region], Way]] = {"country": _by_country, "language": _by_language, "text": _by_text}


def _decided(values: "pa.Array", decide: Callable[[str], Decision]) -> "tuple[np.ndarray, list[Decision]]":
    """Decisions of a column; every different value is decided once."""
    import numpy as np

    encoded = values if hasattr(values, "dictionary") else values.dictionary_encode()
    decisions = [decide(value) if value else None for value in _strings(encoded.dictionary)]
    place = [-1 if decision is None else i for i, decision in enumerate(decisions)]
    return np.array([*place, -1], np.int32)[encoded.indices.fill_null(-1).to_numpy()], decisions


def countries_of(value: str | None) -> list[str]:
    """ISO3 codes of the countries in a value of the field `country`, in any usual spelling; of the known ones."""
    return list(dict.fromkeys(code for name in _names(value) if (code := _code(name))))


def _names(value: str | None) -> list[str]:
    """Countries in a value: one; several with "|" between, or with commas or "and" if it is none as it stands."""
    if not value or _code(value):
        return [value] if value else []
    return [part.strip() for part in re.split(r"\|" if "|" in value else "[,;/&]| and ", value) if part.strip()]


def _code(name: str) -> str | None:
    return readers.iso3(name) or gazetteer.country(name) or readers.iso3(gazetteer.fold(name))


@lru_cache(DIFFERENT)
def _language(value: str) -> str | None:
    """The ISO 639-3 code of a language however it is given: ``th``, ``Thai``, ``Thai (tha)``, ``tha_Thai``."""
    outside, _, inside = value.partition("(")
    found = (readers.iso639(name) for name in (value, outside, inside.rstrip(") ")) if name.strip())
    return next(filter(None, found), None)


def _territory(locale: str) -> str | None:
    """The country of a locale such as ``zh-SG`` or ``zh_Hant_TW``, or None."""
    language, *parts = re.split("[-_]", locale.strip())
    found = [code for part in parts if len(part) == 2 and (code := gazetteer.codes().get(part.upper()))]
    return found[0] if found and len(language) in (2, 3) else None


def _languages_of(region: Region) -> set[str]:
    """Languages, in ISO 639-3, most of whose speakers live in a region."""
    everywhere: dict[str, float] = defaultdict(float)
    here: dict[str, float] = defaultdict(float)
    for language, people in gazetteer.speakers().items():
        if code := readers.iso639(language):
            everywhere[code] += sum(people.values())
            here[code] += sum(people.get(country, 0) for country in region.countries)
    return {code for code, count in here.items() if count > everywhere[code] / 2}


def _texts(batch: "pa.RecordBatch") -> list[str | None]:
    """What is written in each row: its text, and what its conversation says."""
    import pyarrow.compute as pc

    texts = _strings(batch.column("text"))
    messages = batch.column("messages")
    if messages.null_count < len(messages):
        rows = pc.list_parent_indices(messages).to_pylist()
        for row, said in zip(rows, _strings(pc.list_flatten(messages).field("content")), strict=True):
            texts[row] = f"{texts[row] or ''} | {said or ''}"
    return texts


def _strings(values: "pa.Array") -> list[Any]:
    """The values; what is no UTF-8 in them is replaced."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        return _strings(values.dictionary_decode())
    try:
        found: list[Any] = values.to_pylist()
    except UnicodeDecodeError:
        found = [data and data.decode("utf-8", "replace") for data in values.cast(pa.binary()).to_pylist()]
    return found


def _scattered(marked: "pa.BooleanArray", values: "pa.Array") -> "pa.Array":
    """Values of the marked rows, and null in all others."""
    import numpy as np
    import pyarrow as pa

    places = np.cumsum(np.asarray(marked)) - 1
    return values.take(pa.array(places, mask=~np.asarray(marked)))


# ---------------------------------------------------------------------------------------------------------------- files
def _files(path: Path) -> list[Path]:
    if path.is_dir():
        with contextlib.suppress(InputError):
            return tables.files(str(path), KINDS[0])
    return tables.files(str(path), [end for kind in KINDS for end in kind])


def _batches(
    file: Path, first: str | None = None, may_hold: Callable[["pa.RecordBatch"], bool] | None = None
) -> "Iterator[tuple[pa.RecordBatch, pa.Schema]]":
    """Batches of a file, and the types that its columns have there: texts that repeat may come as dictionaries.

    Args:
        file: Of any of KINDS.
        first: A column; of a parquet file with few different values in it only row groups are read that may hold rows.
        may_hold: Whether some rows with nothing but that column may hold any that are wanted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix != ".parquet":
        for batch in tables.batches(tables.records(file, strict=False), strict=False):
            yield batch, batch.schema
        return
    try:
        with pq.ParquetFile(file) as reader:
            schema, metadata = reader.schema_arrow, reader.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        width = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
        rows = max(1, min(ROWS, int(BYTES / max(1, width))))
        coded, wanted = _repeating(metadata), list(range(len(groups)))
        # Read ahead, the whole file would be in memory, and with large row groups a whole one.
        buffer = BUFFER if any(group.total_byte_size > GROUP for group in groups) else 0
        with pq.ParquetFile(
            file, metadata=metadata, read_dictionary=coded, pre_buffer=False, buffer_size=buffer
        ) as reader:
            if first in coded and may_hold:
                few = (reader.iter_batches(ROWS, row_groups=[i], columns=[first]) for i in wanted)
                wanted = [i for i, parts in zip(wanted, few, strict=True) if any(map(may_hold, parts))]
            for batch in _ahead(reader.iter_batches(rows, row_groups=wanted)):
                yield batch, schema
    except (pa.ArrowException, OSError) as err:  # OSError: damaged pages behind a sound end of the file
        raise InputError(f"{file}: not a readable parquet file: {err}", tables.WHOLE) from err


def _ahead(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """The same batches: the next one is decoded while one is judged."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            yield batch


def _repeating(metadata: "pq.FileMetaData") -> list[str]:
    """Columns of a parquet file whose texts take so few bytes that they have to be numbers of a dictionary."""
    first = metadata.row_group(0) if metadata.num_row_groups else None
    columns = [first.column(i) for i in range(first.num_columns)] if first else []
    texts = [column for column in columns if column.physical_type == "BYTE_ARRAY" and "." not in column.path_in_schema]
    return [column.path_in_schema for column in texts if column.total_uncompressed_size < CODED * column.num_values]


def _view(batch: "pa.RecordBatch", evidence: Sequence[str], columns: Mapping[str, str], file: Path) -> "pa.RecordBatch":
    """The columns that evidence is in, by our names, in the types of a row; null where the file has none such."""
    import pyarrow as pa

    if len(set(batch.schema.names)) < batch.num_columns:
        raise InputError(f"{file}: several columns have one name: {', '.join(batch.schema.names)}")
    known = {field: columns.get(field, field) for kind in FIELDS.values() for field in kind}
    for field, theirs in columns.items():
        if field not in known:
            raise InputError(f"columns: no field {field!r}{did_you_mean(field, known)}")
        if theirs not in batch.schema.names:
            raise InputError(
                f"{file}: no column {theirs!r} (wanted as {field!r}){did_you_mean(theirs, batch.schema.names)}"
            )
    if not any(known[field] in batch.schema.names for kind in evidence for field in FIELDS[kind]):
        wanted = " or ".join(known[field] for kind in evidence for field in FIELDS[kind])
        raise InputError(
            f"{file}: no column {wanted}; the file has: {', '.join(batch.schema.names)}",
            "name theirs: columns={'text': 'caption'}",
        )
    types, there = readers.row_schema(), batch.schema.names
    asked = {field for kind in evidence for field in FIELDS[kind]}
    if "language" in evidence:  # the script may tell it
        asked |= set(TEXTS)
    arrays = {
        field: _typed(batch.column(theirs), types.field(field).type, theirs, file)
        if field in asked and theirs in there
        else pa.nulls(batch.num_rows, types.field(field).type)
        for field, theirs in known.items()
    }
    return pa.RecordBatch.from_pydict(arrays)


def _typed(values: "pa.Array", kind: "pa.DataType", name: str, file: Path) -> "pa.Array":
    """A column in the type that it has in a row, or as a dictionary of that."""
    import pyarrow as pa
    import pyarrow.compute as pc

    given, text = values.type, pa.types.is_string(kind)
    if pa.types.is_dictionary(given) and pa.types.is_string(given.value_type) and text:
        return values
    if pa.types.is_dictionary(given):
        return _typed(values.dictionary_decode(), kind, name, file)
    if given == kind or pa.types.is_null(given) or (text and _is_text(given)):
        return values.cast(kind)
    if text and (pa.types.is_list(given) or pa.types.is_large_list(given)) and _is_text(given.value_type):
        return pc.binary_join(values.cast(pa.list_(pa.string())), "|")
    if not text and not pa.types.is_primitive(given):
        with contextlib.suppress(pa.ArrowException):
            return tables.cast(values, kind, False)
    raise InputError(f"{file}: column {name!r} is {given}, expected {'text' if text else kind}")


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
