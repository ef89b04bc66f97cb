"""Readers of corpora in general layouts: tables, a folder of pictures, tar shards, any data set on the Hub.

Each is a corpus reader (see ggez_hub.data.readers); what is called otherwise in the data, `columns` of the source name.
A row without an `id` gets one that says where it stands: file and row (the first is 1), shard and key, split and row.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ggez_hub import hub as client
from ggez_hub.data import archives, images, tables
from ggez_hub.data.tables import Row
from ggez_hub.errors import GgezError, HubError, InputError
from ggez_hub.hub import datasets

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".csv", ".tsv", ".jsonl", ".json")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
PATTERNS: dict[str, tuple[str, ...]] = {  # what is fetched of a data set on the Hub; of `hub` nothing, it is streamed
    "parquet": tuple(f"*{suffix}" for suffix in (".parquet", *PICTURES)),
    "table": tuple(f"*{suffix}" for suffix in (*TABLES, *PICTURES)),
    "image_folder": tuple(f"*{suffix}" for suffix in (*METADATA, *PICTURES)),
    "webdataset": tuple(f"*{suffix}" for suffix in archives.SUFFIXES),
}


def table(path: str) -> Iterator["pa.RecordBatch"]:
    """Tables of texts and numbers; their pictures are files, named by their paths from the folder that is read.

    Args:
        path: A CSV, TSV, JSONL or JSON file (a list of objects), or a folder of them.

    Raises:
        InputError: None there, or a file that cannot be read.
    """
    rows = ((where, row) for where, row, _ in _listed(path, tables.files(path, TABLES)))
    yield from tables.batches(rows, strict=False)


def image_folder(path: str) -> Iterator["pa.RecordBatch"]:
    """A folder of pictures with metadata, in the layout of `datasets`; pictures that these do not name are no rows.

    Args:
        path: A folder with metadata.csv, metadata.jsonl or metadata.parquet, or with folders that have these. Their
            column file_name is the path of a picture from there; further columns say what is known of it.

    Raises:
        InputError: No metadata, or such without file_name.
    """
    found = [file for file in tables.files(path, METADATA) if file.name in METADATA]

    def rows() -> Iterator[tuple[str, Row]]:
        for where, row, file in _listed(path, found, ("file_name",)):
            folder = PurePosixPath(_called(path, file)).parent
            yield where, row | {"image": str(folder / row["file_name"]) if isinstance(row["file_name"], str) else None}

    yield from tables.batches(rows(), strict=False)


def _listed(path: str, files: Sequence[Path], wanted: Sequence[str] = ()) -> Iterator[tuple[str, Row, Path]]:
    """The rows of tables below a path, each with an id: where it stands, what it says, its file."""
    for file in files:
        for number, (where, record) in enumerate(tables.records(file, wanted, strict=False), 1):
            known = record.get("id")
            yield where, record | {"id": f"{_called(path, file)}/{number}" if known is None else known}, file


def _called(path: str, file: Path) -> str:
    """What a file is called below the path that is read."""
    return file.name if file == Path(path) else file.relative_to(path).as_posix()


def webdataset(path: str, *, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """Tar shards as WebDataset has them: files that follow each other and are called alike, up to the dot, are a row.

    Of a row ``.jpg``, ``.png`` or ``.webp`` is the image, ``.txt`` the text and ``.cls`` the label; what a ``.json``
    says are further fields, also `id` and any of a row's that no file of its own gives.

    Args:
        path: A shard (.tar, .tar.gz, .tgz), or a folder of them.
        pictures: Whether to read the pictures.

    Raises:
        InputError: None there, or a shard that cannot be read; see ggez_hub.data.archives.
    """
    endings = (".txt", ".cls", ".json", *(PICTURES if pictures else ()))

    def rows() -> Iterator[tuple[str, Row]]:
        for shard in tables.files(path, archives.SUFFIXES):
            members = archives.members(shard, lambda name: name.lower().endswith(endings))
            for key, parts in groupby(members, lambda member: _key(member[0])):
                yield f"{shard}, {key}", {"id": f"{_called(path, shard)}/{key}"} | _sample(parts)

    yield from tables.batches(rows(), strict=False)


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _sample(parts: Iterable[tuple[str, bytes]]) -> Row:
    """What the files of a row say."""
    said: Row = {}
    found: Row = {}
    for name, data in parts:
        ending = PurePosixPath(name).suffix.lower()
        if ending in PICTURES:
            found.setdefault("image", {"bytes": data, "path": name})
        elif ending == ".json":
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(data.decode("utf-8", "replace"))
                said |= record if isinstance(record, dict) else {}
        else:
            found["text" if ending == ".txt" else "label"] = data.decode("utf-8", "replace").strip()
    return {name: value for name, value in said.items() if name != "id" or value is not None} | found


# -------------------------------------------------------------------------------------------------------------- the Hub
def hub(
    name: str,
    revision: str | None = None,
    *,
    config: str | None = None,
    split: str = "train",
    pictures: bool = True,
) -> Iterator["pa.RecordBatch"]:
    """Any data set that the library `datasets` reads without running its code, streamed: nothing is downloaded first.

    Args:
        name: A Hub id, or a folder in a layout that `datasets` knows.
        revision: Commit, tag or branch on the Hub; resolved to a commit before anything is read.
        config: The part of the data set; None = its only one, or the one that it calls the default.
        split: Which of its splits.
        pictures: Whether to read columns of pictures.

    Raises:
        InputError: No such data set, part or split; one that needs its own code; files that cannot be read.
        HubError: The Hub refused or cannot be reached.
    """
    import pyarrow as pa

    number = 0
    try:
        commit = None if Path(name).is_dir() else datasets.resolve(name, revision)
        with client.talking(name):
            for batch in _streamed(name, commit, config, split, pictures):
                if "id" not in batch.schema.names:
                    ids = [f"{split}/{i}" for i in range(number + 1, number + batch.num_rows + 1)]
                    batch = batch.append_column("id", pa.array(ids, pa.string()))
                number += batch.num_rows
                yield batch
    except HubError as err:
        raise HubError(err.message, f"{err.hint}; a copy on this machine goes as path=FOLDER") from err
    except GgezError:
        raise
    except client.UNREADABLE as err:
        hint = "its parquet copy, if it has one: revision=refs/convert/parquet" if "script" in str(err) else None
        raise InputError(f"{name}: cannot be read: {err}", hint) from err


def _streamed(
    name: str, commit: str | None, config: str | None, split: str, pictures: bool
) -> Iterator["pa.RecordBatch"]:
    """The rows of a data set, its pictures as they are stored."""
    from datasets import Image, load_dataset

    stream = load_dataset(name, config, split=split, revision=commit, streaming=True)
    features = stream.features or {}  # of CSV files none are known; nor have they pictures
    stream = stream.decode(False) if features else stream
    pictured = [
        column
        for column, kind in features.items()
        if isinstance(kind, Image) or (isinstance(kind, dict) and "bytes" in kind)
    ]
    if pictured and not pictures:
        stream = stream.remove_columns(pictured)
    size = tables.PICTURES if pictured and pictures else tables.ROWS
    for found in stream.with_format("arrow").iter(batch_size=size):
        for batch in found.to_batches():
            for column in pictured if pictures else ():
                place = batch.schema.get_field_index(column)
                batch = batch.set_column(place, column, _held(batch.column(place), name, commit))
            yield batch


def _held(pictures: "pa.Array", name: str, commit: str | None) -> "pa.Array":
    """Pictures with their bytes, also where the data set has them as files of its own; paths to others stay paths."""
    import pyarrow as pa
    from datasets.utils.file_utils import xopen

    rows = pictures.to_pylist()
    for row in rows:
        if row and not row["bytes"] and (path := row.get("path")) and _is_own(path, name, commit):
            with contextlib.suppress(FileNotFoundError), xopen(path, "rb") as file:
                row["bytes"], row["path"] = file.read(images.MAX_BYTES), PurePosixPath(path).name
    return pa.array(rows, pictures.type)


def _is_own(path: str, name: str, commit: str | None) -> bool:
    """Whether a path, or the archive that it is in, leads to a file of the data set; strangers may write any."""
    *inner, outer = path.split("::")
    if not all(part.startswith(("zip://", "tar://")) for part in inner):
        return False
    if commit is None:
        return client.holds(Path(name), Path(outer))
    return outer.startswith(f"hf://datasets/{name}@{commit}/")


READERS: dict[str, Callable[..., Iterator["pa.RecordBatch"]]] = {
    "hub": hub,
    "image_folder": image_folder,
    "table": table,
    "webdataset": webdataset,
}
