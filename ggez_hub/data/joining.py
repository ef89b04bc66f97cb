"""Pictures in archives beside the records that name them (CulturalGround, MAmmoTH-VL).

A picture that lies unpacked below the folder of a corpus is a reference, as anywhere. Where there are ``*.tar.gz``
instead, the records that wait for a picture go to a temporary database on disk, by the name of the file. Each archive
is then read twice from its first member to its last, as a compressed one has no other order: once to see which members
fit which records, once to give the rows whose picture comes by. Nothing is unpacked, and memory does not grow with the
corpus. So rows come in the order of the archives; those whose picture was in none come last. The database is smaller
than the records, and lies in the folder for temporary files (``TMPDIR``).

A wrong picture is worse than none, so none is guessed. A member is the picture of a record if it would lie at the
record's path once its archive is unpacked, beside itself or in a folder of its name; folders may stand before either,
but not before the bare name of a file, unless the archive is called after a country. Whole parts are compared. A member
that fits several paths equally well is nobody's; of several that fit one path the nearest is its picture, and where
these are as near and differ it has none.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from pathlib import Path

from ggez_hub.data import archives
from ggez_hub.data.codes import iso3
from ggez_hub.data.tables import Row
from ggez_hub.errors import InputError

Placed = tuple[str, Row]  # where it stands, and what it says


@lru_cache(4096)
def called(name: str) -> str | None:
    """The country that a file or folder is called after, or None: "south_korea", but not "id" or "images"."""
    spelled = name.replace("_", " ").casefold()
    return spelled if len(spelled) > 3 and iso3(spelled) else None


def root_of(path: str) -> Path:
    """The folder of a corpus that is given as that, or as a file in it."""
    return Path(path) if Path(path).is_dir() else Path(path).parent


def stem(shard: Path) -> str:
    """What an archive is called, without its endings."""
    return shard.name.removesuffix(".gz").removesuffix(".tar")


def among(name: str, wanted: str | None) -> bool:
    """Whether a name is one of those that an option lists, with "|" between and ``*`` for anything."""
    return wanted is None or any(fnmatchcase(name, pattern.strip()) for pattern in wanted.split("|"))


def shards(root: Path, wanted: str | None) -> list[Path]:
    """The archives in a folder and below that an option asks for."""
    found = [
        shard
        for shard in sorted(root.rglob("*.tar.gz"))
        if not any(part.startswith(".") for part in shard.relative_to(root).parts) and among(stem(shard), wanted)
    ]
    if wanted and not found and any(root.rglob("*.tar.gz")):
        there = ", ".join(sorted(stem(shard) for shard in root.rglob("*.tar.gz"))[:10])
        raise InputError(f"{root}: no archive is called {wanted}", f"there are: {there}")
    return found


def joined(rows: Iterable[Placed], root: Path, shards: Sequence[Path]) -> Iterator[Placed]:
    """Rows with their pictures: a path below `root`, bytes from an archive, or as they were.

    Args:
        rows: With `image`, `media`, and `_folders`: below which a path may be meant.
        root: The folder.
        shards: Its archives.
    """
    with database("waiting (key TEXT, row BLOB)", "fits (key TEXT, off INT, shard INT, name TEXT, hash BLOB)") as held:
        for where, row in rows:
            folders, image = row.pop("_folders"), row["image"]
            if image and not image["bytes"]:
                places = [folder + image["path"] for folder in folders]
                if found := next((place for place in places if os.path.isfile(f"{root}/{place}")), None):
                    image["path"] = found
                elif shards:
                    packed = zlib.compress(json.dumps((where, row)).encode(), 1)
                    held.execute("INSERT INTO waiting VALUES (?, ?)", (_key(image["path"]), packed))
                    continue
            yield where, row
        if held.execute("SELECT 1 FROM waiting LIMIT 1").fetchone() is None:
            return
        held.execute("CREATE INDEX keys ON waiting (key)")
        for number, shard in enumerate(shards):
            fitting = partial(_fitting, held, str(shard.parent.relative_to(root)), stem(shard))
            for name, data, key in _wanted(shard, fitting):
                off = abs(key.count("/") - name.count("/"))
                fits = (key, off, number, name, hashlib.sha256(data).digest())
                held.execute("INSERT INTO fits VALUES (?, ?, ?, ?, ?)", fits)
        held.execute("CREATE INDEX offs ON fits (key, off)")
        held.execute(
            "CREATE TABLE right AS SELECT key, shard, name, MIN(rowid) FROM fits AS one"
            " WHERE off = (SELECT MIN(off) FROM fits WHERE key = one.key) GROUP BY key HAVING COUNT(DISTINCT hash) = 1"
        )
        held.execute("CREATE INDEX names ON right (shard, name)")
        for (number,) in held.execute("SELECT DISTINCT shard FROM right ORDER BY shard").fetchall():
            for _, data, key in _wanted(shards[number], partial(_right, held, number)):
                for (packed,) in held.execute("SELECT row FROM waiting WHERE key = ?", (key,)):
                    where, row = json.loads(zlib.decompress(packed))
                    yield where, row | {"image": {"bytes": data, "path": row["image"]["path"]}}
                held.execute("DELETE FROM waiting WHERE key = ?", (key,))
        for (packed,) in held.execute("SELECT row FROM waiting ORDER BY rowid"):
            where, row = json.loads(zlib.decompress(packed))
            yield where, row | {"media": "missing"}


def _key(path: str) -> str:
    """A path from its end, so that paths that end alike stand together; in one spelling of accents and slashes."""
    parts = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    return "/".join(part for part in reversed(parts) if part not in ("", "."))


def _wanted(shard: Path, key_of: Callable[[str], str | None]) -> Iterator[tuple[str, bytes, str]]:
    """The members of an archive that have a key, with it."""
    for name, data in archives.members(shard, lambda name: key_of(name) is not None):
        if key := key_of(name):
            yield name, data, key


def _right(held: sqlite3.Connection, number: int, name: str) -> str | None:
    """The key of the path that a member is the picture of, once all are known that fit; or None."""
    found = held.execute("SELECT key FROM right WHERE shard = ? AND name = ?", (number, name)).fetchone()
    return found and str(found[0])


def _fitting(held: sqlite3.Connection, folder: str, stem: str, name: str) -> str | None:
    """The key of the one path that a member fits best, or None: of the longest, if there is one such.

    Args:
        held: The database.
        folder: Where the archive lies.
        stem: What it is called.
        name: The member's.
    """
    whole = _key(name if name.startswith(f"{stem}/") else f"{stem}/{name}").split("/")
    least = 1 if "/" not in name or called(stem) else 2
    ends = {
        "/".join(parts[:length])
        for parts in (whole, _key(f"{folder}/{name}").split("/"))
        for length in range(least, len(parts) + 1)
    }
    found = [end for end in ends if held.execute("SELECT 1 FROM waiting WHERE key = ? LIMIT 1", (end,)).fetchone()]
    most, key = max((end.count("/") for end in found), default=0), "/".join(whole)
    query = "SELECT DISTINCT key FROM waiting WHERE key > ? AND key < ? LIMIT 2"
    longer = [path for (path,) in held.execute(query, (f"{key}/", f"{key}0"))]  # "0" comes after "/"
    best = [end for end in found if (end == key if longer else end.count("/") == most)] + longer
    return best[0] if len(best) == 1 else None


@contextlib.contextmanager
def database(*tables: str) -> Iterator[sqlite3.Connection]:
    """A database with tables, in the folder for temporary files; it is gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="ggez-hub-") as folder:
        try:
            with contextlib.closing(sqlite3.connect(Path(folder) / "rows.sqlite", isolation_level=None)) as opened:
                opened.execute("PRAGMA journal_mode = OFF")
                opened.execute("PRAGMA synchronous = OFF")
                for table in tables:
                    opened.execute(f"CREATE TABLE {table}")
                opened.execute("BEGIN")  # one transaction, which nobody ends: nothing of it is to be kept
                yield opened
        except sqlite3.OperationalError as err:
            raise InputError(f"{folder}: {err}", "TMPDIR=FOLDER names a place with room for the records") from err
