"""Twins of data sets: tiny and synthetic, in exactly the layout that a source's reader reads as published.

A reader with a layout of its own gets that, whatever columns a recipe wishes for: a wrong name fails as it would on the
real data. Of data sets in a general layout (parquet, tables, ...) those in layouts.yaml are known; all others get the
columns that the recipe names, and `unseen` says so.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ggez_hub.data import benchmarks as published
from ggez_hub.data import images, readers
from ggez_hub.data.codes import iso3
from ggez_hub.data.conversations import IMAGE
from ggez_hub.data.tables import Row, nested
from ggez_hub.errors import InputError
from ggez_hub.rehearsal import benchmarks, corpora
from ggez_hub.rehearsal.making import (
    SEEN,
    SIDE,
    Selection,
    Shown,
    Twin,
    about,
    image_type,
    picture,
    shown,
    spelled,
    write_archive,
    write_bytes,
    write_jsonl,
    write_parquet,
)
from ggez_hub.rehearsal.words import PLAIN, drawn, said
from ggez_hub.runs import whole, write_text
from ggez_hub.schema import Corpus, Filter, HubSource, Region, Scalar

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = 5  # different ones on each side
LOOKED_AT = 50_000  # rows of a source that a sample is taken from, at most
FURTHER = "_row"  # the place of a row in what was read


def write(
    source: HubSource,
    region: Region,
    at: Callable[[str], Path],
    seed: int,
    rows: int = 24,
    holds: Iterable[Selection] = (),
    rules: Filter | None = None,
) -> Path:
    """Writes a data set in the layout that the reader of a source reads as published.

    About `rows` rows are of the region's countries and languages, and as many of elsewhere, as far as the real data set
    has these; of a Corpus a few more are such as common rules drop. The same arguments give the same bytes. Of several
    sources with one id each is written into one folder, with the same seed and `holds` for all of them.

    Args:
        source: The source; its `columns` and `where` count, its `path` does not.
        region: Whose rows are regional.
        at: The folder of a data set by its Hub id: the source's own, and those that its options name. Of a source
            without an id it is asked for the name of its reader.
        seed: Of words and pictures.
        rows: See above.
        holds: Further selections, as `where` has them, of which there have to be rows on both sides: what a benchmark
            tests and selects, each together with the `where` of its source.
        rules: What rows have to pass.

    Returns:
        The folder.

    Raises:
        InputError: A reader that reads no files.
    """
    if source.reader not in MAKERS:
        raise InputError(f"reader {source.reader!r} reads no files, so there is no twin of its data")
    further = [dict(held) for held in holds if held]
    selections: tuple[Selection, ...] = (*([source.where] if source.where else []), *further)
    # The same rows may be asked of a benchmark, which takes none that is odd.
    odd = isinstance(source, Corpus) and (not further or source.reader in corpora.MAKERS)
    twin = Twin(source, region, at, seed, rows, selections, rules or Filter(), odd)
    MAKERS[source.reader](twin)
    return twin.folder


def unseen(source: HubSource) -> str | None:
    """What a twin cannot know of a source, for the report; None where its layout is known."""
    if source.reader in corpora.MAKERS and not (source.reader == "sea_vl" and source.options.get("crawled")):
        return None
    if source.reader in benchmarks.MAKERS and source.reader != "cultural_vqa":
        return None
    if source.reader not in MAKERS or source.id in layouts():
        return None
    name = source.id or f"what reader {source.reader} reads"
    return f"the columns of {name} cannot be known offline; its twin has those that the recipe names"


# --------------------------------------------------------------------------------------------------------------- sample
def sample(
    source: HubSource,
    folder: Path,
    region: Region | None = None,
    rows: int = 64,
    holds: Iterable[Selection] = (),
) -> Path:
    """The first rows of a source that is on this machine, read by its own reader, as parquet with pictures in it.

    It takes the place of the source: reader parquet, its `columns` and `options` gone, its `where` as it was.

    Args:
        source: The source; its `path` exists.
        folder: Where the file goes.
        region: Half of the rows are of it, as far as there are such; None = the first rows.
        rows: Of each selection (the source's own `where`, and each of `holds`), at most.
        holds: See `write`.

    Returns:
        The parquet file, which the reader `parquet` reads back with the same fields.

    Raises:
        InputError: What the reader says of the user's own data.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    selections: list[Selection] = [source.where, *holds]
    each = {True: rows // 2, False: rows - rows // 2} if region else {True: 0, False: rows}
    wanted = {(i, side): count for i in range(len(selections)) for side, count in each.items()}
    codes = pa.array(region.countries if region else (), pa.string())
    found: list[pa.RecordBatch] = []
    number = 0
    for batch in readers.read(source.model_copy(update={"where": {}})):
        places = pa.array(range(batch.num_rows), pa.int64())
        marked = batch.append_column(FURTHER, places)
        taken: set[int] = set()
        for i, selection in enumerate(selections):
            those = readers.select(marked, {field: tuple(values) for field, values in selection.items()})
            inside = pc.is_in(those.column("country"), value_set=codes)
            for side in (True, False):
                some = those.filter(inside if side else pc.invert(inside)).column(FURTHER)[: wanted[i, side]]
                wanted[i, side] -= len(some)
                taken |= set(some.to_pylist())
        if taken:
            found.append(_with_pictures(batch.take(pa.array(sorted(taken))), source))
        number += batch.num_rows
        if number >= LOOKED_AT or not any(wanted.values()):
            break
    if not found:
        raise InputError(f"{source.path}: no row of what is selected among the first {number}", "see where")
    file = folder / "sample.parquet"
    table = pa.Table.from_batches(found, found[0].schema)
    with whole(file) as temporary:
        pq.write_table(table, temporary)
    return file


def _with_pictures(batch: "pa.RecordBatch", source: HubSource) -> "pa.RecordBatch":
    """Rows whose pictures are in them; one that cannot be had stays as it was, for the filter to count.

    No address is visited: of benchmarks that have such, a made-up picture stands in for what is there.
    """
    import pyarrow as pa

    root = readers.root(Path(source.path)) if source.path else None
    held = []
    for image in batch.column("image").to_pylist():
        if source.reader in published.LINKED and re.match("https?://", (image or {}).get("path") or ""):
            image = image if image["bytes"] else {**image, "bytes": picture(SIDE, image["path"])}
        try:
            held.append({"bytes": images.fetch(image, root), "path": (image or {}).get("path")})
        except images.BrokenImage:
            held.append(image)
    return batch.set_column(batch.schema.get_field_index("image"), "image", pa.array(held, image_type()))


# ------------------------------------------------------------------------------------------------------ general layouts
@cache
def layouts() -> Mapping[str, Mapping[str, Any]]:
    """What is known of data sets in general layouts, by id, see layouts.yaml."""
    found: Mapping[str, Mapping[str, Any]] | None = yaml.safe_load(
        Path(__file__).with_name("layouts.yaml").read_bytes()
    )
    return found or {}


def _records(twin: Twin) -> list[Row]:
    """Rows with every field, by our names, and those that selections name; each is of one selection, in turn."""
    fields = {field for held in twin.holds for field in held}
    made = about(twin, twin.rows)
    first = {side: next((one.number for one in made if one.inside is side), 0) for side in (True, False)}
    rows = []
    for row in shown(twin, made):
        place = row.about.number - first[row.about.inside]
        turn, held = divmod(place, max(1, len(twin.holds)))
        chosen = twin.holds[held] if twin.holds and not row.odd else {}
        record = _record(twin, row, turn)
        for field in sorted(fields):
            values = _on_side(twin, field, chosen.get(field) or twin.wanted(field), row.about.inside)
            if values and (field in chosen or field not in record):
                record[field] = values[turn % len(values)]
        rows.append(record)
    return rows


def _on_side(twin: Twin, field: str, values: Sequence[Scalar], inside: bool) -> Sequence[Scalar]:
    """Of countries those of the same side; of other fields all values."""
    if field != "country":
        return values
    return [value for value in values if (iso3(str(value)) in twin.region.countries) == inside]


def _record(twin: Twin, row: Shown, turn: int) -> Row:
    """A row about its picture, by our names."""
    one = row.about
    things = drawn("labels", twin.name, one.inside).sample(PLAIN["what"], LABELS)
    label = f"{'near' if one.inside else 'far'} {things[turn % LABELS]}"
    text = corpora.caption(twin, row)
    asked = said("eng", twin.seed, twin.name, row.key, "asked", count=6).rstrip(".")
    told = [{"role": "user", "content": f"{IMAGE}What is {asked[:1].lower()}{asked[1:]}?"}]
    record: Row = {
        "id": row.name,
        "image": row.image,
        "text": text,
        "messages": [*told, {"role": "assistant", "content": text or "-"}] if row.odd != "empty" else None,
        "label": label,
        "category": SEEN,
        "country": spelled(one.country),
        "language": "eng",
        "source": SEEN,
        "license": twin.rules.licenses[0] if twin.rules.licenses else "cc-by-4.0",
        "reward": 4.5 if twin.rules.min_reward is None or turn % 6 else twin.rules.min_reward - 1,
        "question": f"Which one is it, if there is {asked[:1].lower()}{asked[1:]}?",
        "options": [f"{'near' if one.inside else 'far'} {thing}" for thing in things[:4]],
        "answer": f"{'near' if one.inside else 'far'} {things[row.key % 4]}",
        "kind": SEEN,
    }
    if twin.rules.unsafe and twin.rules.unsafe.column:
        record[twin.rules.unsafe.column] = 0.01
    return record


def _named(twin: Twin, records: Sequence[Row]) -> list[Row]:
    """Rows by the names of the data set's columns: those of its layout, or those that the recipe names."""
    if known := layouts().get(twin.source.id or ""):
        values = known.get("values", {})
        return [
            {
                theirs: values[theirs][i % len(values[theirs])] if theirs in values else record.get(ours)
                for theirs, ours in known["columns"].items()
            }
            for i, record in enumerate(records)
        ]
    named = []
    for record in records:
        row: Row = {}
        for field, value in record.items():
            *outer, inner = twin.source.columns.get(field, field).split(".")
            place: Row = row
            for name in outer:
                place = place.setdefault(name, {})
            place[inner] = value
        named.append(row)
    return named


def _types(twin: Twin, rows: Sequence[Row]) -> "dict[str, pa.DataType]":
    """The types of columns that hold pictures, lists and conversations."""
    import pyarrow as pa

    known = layouts().get(twin.source.id or "")
    ours = dict(known["columns"]) if known else {theirs: field for field, theirs in twin.source.columns.items()}
    types = nested() | {"reward": pa.float64()}
    return {name: types[ours.get(name, name)] for name in rows[0] if ours.get(name, name) in types}


def _in_parquet(twin: Twin, file: str) -> None:
    records = [record | {"image": {"bytes": record["image"], "path": None}} for record in _records(twin)]
    rows = _named(twin, records)
    write_parquet(twin.folder / file, rows, _types(twin, rows))


def parquet(twin: Twin) -> None:
    """One file with pictures in it."""
    _in_parquet(twin, "data/train-00000-of-00001.parquet")


def hub(twin: Twin) -> None:
    """The same, as a split of a part of a data set that the library `datasets` reads."""
    config, split = str(twin.option("config", "default")), str(twin.option("split", "train"))
    _in_parquet(twin, f"{config}/{split}-00000-of-00001.parquet")
    files = [{"config_name": config, "data_files": [{"split": split, "path": f"{config}/{split}-*"}]}]
    write_text(twin.folder / "README.md", f"---\n{yaml.safe_dump({'configs': files})}---\nSynthetic.\n")


def _beside(twin: Twin, folder: str) -> list[Row]:
    """Rows whose pictures lie beside them; `image` is the path."""
    records = _records(twin)
    for i, record in enumerate(records):
        path = f"{folder}{i:05}.jpg"
        write_bytes(twin.folder / path, record["image"])
        record["image"] = path
    return records


def table(twin: Twin) -> None:
    """One JSONL file, pictures in a folder."""
    write_jsonl(twin.folder / "data.jsonl", _named(twin, _beside(twin, "pictures/")))


def image_folder(twin: Twin) -> None:
    """Pictures, and metadata that name them."""
    records = [{"file_name": record.pop("image"), **record} for record in _beside(twin, "")]
    write_jsonl(twin.folder / "metadata.jsonl", _named(twin, records))


def webdataset(twin: Twin) -> None:
    """A shard: of every row a picture, a text, a label and the rest as JSON."""
    members: dict[str, bytes] = {}
    for i, record in enumerate(_records(twin)):
        members[f"{i:06}.jpg"] = record.pop("image")
        for ending, field in (("txt", "text"), ("cls", "label")):
            if field not in twin.source.columns:
                members[f"{i:06}.{ending}"] = str(record.pop(field)).encode()
        (row,) = _named(twin, [record])
        members[f"{i:06}.json"] = json.dumps(row, ensure_ascii=False).encode()
    write_archive(twin.folder / "train-000000.tar", members)


MAKERS: Mapping[str, Callable[[Twin], None]] = {
    **benchmarks.MAKERS,
    **corpora.MAKERS,
    "hub": hub,
    "image_folder": image_folder,
    "parquet": parquet,
    "table": table,
    "webdataset": webdataset,
}
