"""Units of rows on their way through a job, and the files that those that are done are kept in until its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ggez_hub.runs import whole

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Unit(NamedTuple):
    """Some thousand rows, as bytes, so that any process or machine can take them.

    Attributes:
        number: Of the unit; no two of a job have the same.
        rows: An Arrow stream of rows that are kept so far, in the batches that they were read in; of none no bytes.
        decisions: An Arrow stream of one batch: what was said of every row of the unit.
    """

    number: int
    rows: bytes
    decisions: bytes


def packed(batches: "Sequence[pa.RecordBatch]") -> bytes:
    """Record batches of one schema as an Arrow stream; none as no bytes."""
    import pyarrow as pa

    if not batches:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return bytes(sink.getvalue())


def unpacked(stream: "bytes | pa.NativeFile") -> "list[pa.RecordBatch]":
    """The record batches of an Arrow stream. Of a file that is mapped into memory only what is used is read."""
    import pyarrow as pa

    return list(pa.ipc.open_stream(stream)) if stream else []


@dataclass(frozen=True)
class Parts:
    """Units that are done, two files each."""

    folder: Path

    def done(self) -> list[int]:
        """Their numbers, in order."""
        return sorted(int(path.stem) for path in self.folder.glob("*.decisions"))  # the file that is written last

    def count(self) -> int:
        """Of how many rows decisions were made."""
        return sum(self.decisions(number).num_rows for number in self.done())

    def keep(self, unit: Unit) -> None:
        """Writes a unit."""
        for kind, stream in (("rows", unit.rows), ("decisions", unit.decisions)):
            with whole(self.folder / f"{unit.number:08}.{kind}") as temporary:
                temporary.write_bytes(stream)

    def rows(self, number: int) -> "list[pa.RecordBatch]":
        """The kept rows of a unit, in the batches that they were read in; those that kept none are not among them."""
        return self._read(number, "rows")

    def decisions(self, number: int) -> "pa.RecordBatch":
        """What was said of every row of a unit."""
        return self._read(number, "decisions")[0]

    def _read(self, number: int, kind: str) -> "list[pa.RecordBatch]":
        import pyarrow as pa

        path = self.folder / f"{number:08}.{kind}"
        return unpacked(pa.memory_map(str(path))) if path.stat().st_size else []


def decided(decisions: "pa.RecordBatch", columns: "Mapping[str, np.ndarray]") -> "pa.RecordBatch":
    """Decisions with these texts in place of their own."""
    import pyarrow as pa

    for name, values in columns.items():
        place = decisions.schema.get_field_index(name)
        decisions = decisions.set_column(place, decisions.schema.field(place), pa.array(values, pa.string()))
    return decisions
