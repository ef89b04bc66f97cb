"""What the filter writes: the rows that train, and the decisions on all that were read."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import report
from ggez_hub.data.choosing import Verdict
from ggez_hub.data.parts import Parts, decided
from ggez_hub.errors import InputError
from ggez_hub.runs import whole, write_json
from ggez_hub.schema import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 2**29  # bytes; more examples are a folder of such
DECISIONS = ("source", "row", "id", "country", "language", "kept", "rule", "why", "into")


def write_decisions(recipe: Recipe, parts: Parts, verdict: Verdict, folder: Path) -> dict[str, Any]:
    """Writes decisions.parquet and report.json, and returns the report."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def written() -> Iterator[pa.RecordBatch]:
        writer = None
        with whole(folder / "decisions.parquet") as path:
            try:
                for number in parts.done():
                    batch = final(parts, verdict, number)
                    plain = batch.append_column("kept", pc.is_null(batch["rule"])).select(DECISIONS)
                    writer = writer or pq.ParquetWriter(path, plain.schema, compression="zstd")
                    writer.write_batch(plain)
                    yield batch
            finally:
                if writer:
                    writer.close()

    found = report.report(recipe, written(), verdict.problems)
    write_json(folder / "report.json", found)
    return found


def final(parts: Parts, verdict: Verdict, number: int) -> "pa.RecordBatch":
    """The decisions on the rows of a part, those of choosing among them."""
    import numpy as np
    import pyarrow as pa

    decisions = parts.decisions(number)
    alive = np.flatnonzero(decisions["rule"].is_null())
    mine = slice(verdict.first[number], verdict.first[number] + len(alive))
    columns = {name: np.array(decisions[name].to_pylist(), object) for name in ("rule", "why")}
    columns["into"] = np.full(len(decisions), None, object)
    kept = verdict.rule[mine] == None  # noqa: E711 -- row by row
    for name, values in columns.items():
        new = getattr(verdict, name)[mine]
        values[alive] = np.where(kept & (new == None), values[alive], new)  # noqa: E711 -- row by row
    return decided(decisions.append_column("into", pa.nulls(len(decisions), pa.string())), columns)


def write_examples(parts: Parts, verdict: Verdict, folder: Path, translated: Parts | None = None) -> None:
    """Writes examples.parquet: a file, or a folder of shards part-00000.parquet and so on.

    Every batch that was read is a row group, and a shard begins with one.

    Args:
        parts: What was examined.
        verdict: What of it trains.
        folder: Where to write.
        translated: Those parts of it that were translated.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, shards = _schema(parts), folder / "examples.partial"
    for old in (shards, folder / "examples.parquet"):
        shutil.rmtree(old, ignore_errors=True)
        if old.is_file():
            old.unlink()
    shards.mkdir()
    writer, count = None, 0
    try:
        for batch in _trained(parts, verdict, translated):
            if writer is None:
                file = (shards / f"part-{count:05}.parquet").open("wb")
                writer, count = pq.ParquetWriter(file, schema), count + 1
            columns = (
                batch[field.name].cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(len(batch), field.type)
                for field in schema
            )
            writer.write_batch(pa.RecordBatch.from_arrays(list(columns), schema=schema))
            if file.tell() > SHARD:
                writer.close()
                file.close()
                writer = None
    finally:
        if writer:
            writer.close()
            file.close()
    if count > 1:
        shards.rename(folder / "examples.parquet")
    else:
        (shards / "part-00000.parquet").rename(folder / "examples.parquet")
        shards.rmdir()


def _schema(parts: Parts) -> "pa.Schema":
    """The columns of all parts: those of every row, then the further ones of each source."""
    import pyarrow as pa

    schema = pa.schema([])
    for number in parts.done():
        for field in (field for batch in parts.rows(number)[:1] for field in batch.schema if field.name[0] != "_"):
            try:
                schema = pa.unify_schemas([schema, pa.schema([field])], promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
                raise InputError(
                    f"column {field.name!r}: {schema.field(field.name).type} in some files, {field.type} in others",
                    "make it the same in all, or remove it",
                ) from err
    return schema


def _trained(parts: Parts, verdict: Verdict, translated: Parts | None) -> "Iterator[pa.RecordBatch]":
    """The rows that train, batch by batch."""
    done = set(translated.done()) if translated else ()
    for number in parts.done():
        yield from translated.rows(number) if translated and number in done else left(parts, verdict, number)


def left(parts: Parts, verdict: Verdict, number: int) -> "Iterator[pa.RecordBatch]":
    """The rows of a part that nothing has dropped, without the columns that only rules look at."""
    import pyarrow as pa

    first = verdict.first[number]
    for batch in parts.rows(number):
        mine = slice(first, first := first + batch.num_rows)
        if verdict.reward is not None:
            place = batch.schema.get_field_index("reward")
            values = pa.array(verdict.reward[mine], pa.float32())
            batch = batch.set_column(place, batch.schema.field(place), values)
        batch = batch.filter(pa.array(verdict.rule[mine] == None))  # noqa: E711 -- row by row
        if batch.num_rows:
            yield batch.select([name for name in batch.schema.names if not name.startswith("_")])
