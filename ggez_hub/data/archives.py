"""Tar archives read member by member as a stream: nothing is unpacked to disk, no name is trusted."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

from ggez_hub.data import tables
from ggez_hub.errors import InputError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_MEMBER = 256_000_000  # bytes of a member that is read
MAX_HEADER = 1_000_000  # bytes between two members: long names, times, owners
MAX_NAME = 1024  # characters
MAX_RATIO = 100  # times that an archive grows on the whole, from GROWN bytes on; pictures hardly do
GROWN = 64_000_000
BLOCK = 512  # bytes: members begin at multiples of it, and empty ones are the end


def members(path: Path, wanted: Callable[[str], bool] | None = None) -> Iterator[tuple[str, bytes]]:
    """The files in a tar archive (compressed by gzip or not) as (name, content), in their order.

    Names are relative, with ``/`` between and without ``./`` in front, their text as `tables.clean` makes it. Folders
    are passed over, and so is what a Mac adds (``._*``). Archives in archives stay bytes. An archive may end without
    its end mark, as one does whose writer was killed; one with others behind it is an error, as tar would pass them
    over in silence.

    Args:
        path: The archive.
        wanted: Of a name, whether its content is wanted; others are passed over. None = all.

    Raises:
        InputError: No archive, or one that is cut off or damaged; a name that leads out of it (absolute, or with
            ``..``), a link or a device; a wanted member of more than MAX_MEMBER bytes, or an archive that grows more
            than MAX_RATIO times. What stands before it has been given then.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source = _Counted(path, gzip.GzipFile(fileobj=file) if packed else file, file)
            with tarfile.open(fileobj=source, mode="r|", tarinfo=_Header) as archive:  # type: ignore[call-overload]
                while True:
                    source.allow(MAX_HEADER)
                    if (member := archive.next()) is None:
                        break
                    archive.members.clear()  # or it would keep all of them
                    name = _name(path, member)
                    if member.isdir():
                        continue
                    keep = not Path(name).name.startswith("._") and (wanted is None or wanted(name))
                    if keep and member.size > MAX_MEMBER:
                        raise InputError(f"{path}: {name} has {member.size} bytes, expected {MAX_MEMBER} at most")
                    source.allow(member.size + MAX_HEADER)
                    content = _content(archive, member, keep)
                    if keep:
                        yield name, content
                source.finish(archive.fileobj)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError) as err:
        said = err.strerror if isinstance(err, OSError) and err.strerror else str(err) or type(err).__name__
        raise InputError(f"{path}: not a readable tar archive: {said}", tables.WHOLE) from err


def _name(path: Path, member: tarfile.TarInfo) -> str:
    """The checked name of a member."""
    name = tables.clean(member.name).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    told = f"{path}: {name[:100]!r} in it"
    if re.match(r"/|[A-Za-z]:/", name) or ".." in parts:
        raise InputError(f"{told} leads out of the archive", "do not use it: such archives are made to do harm")
    if not (member.isdir() or parts) or len(name) > MAX_NAME:
        raise InputError(f"{told} has a name of {len(name)} characters, expected 1 to {MAX_NAME}")
    if not member.isdir() and (not member.isreg() or member.sparse is not None or member.size < 0):
        raise InputError(f"{told} is a link, a device or a file with holes", "pack plain files only")
    return "/".join(parts)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, keep: bool) -> bytes:
    """What is in a member; nothing of it is held unless it is to be kept."""
    with archive.extractfile(member) as file:  # type: ignore[union-attr]  # a plain file, as `_name` made sure
        if keep:
            return file.read()
        while file.read(BLOCK * BLOCK):
            pass
        return b""


class _Header(tarfile.TarInfo):
    """A header, damaged or in part an error. tarfile itself would take such a one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as err:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"it is damaged or cut off: {err}") from err


class _Counted:
    """What tarfile reads an archive from: refuses to read more than is allowed, or expected of a file of its size."""

    def __init__(self, path: Path, source: IO[bytes] | gzip.GzipFile, file: IO[bytes]) -> None:
        self.path, self.source, self.file = path, source, file
        self.count, self.allowed = 0, MAX_HEADER

    def allow(self, size: int) -> None:
        """Lets `size` bytes more be read."""
        self.allowed = self.count + size

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.count += len(data)
        if self.count > self.allowed:
            raise InputError(f"{self.path}: more than {MAX_HEADER} bytes between two members", tables.WHOLE)
        if self.count > max(GROWN, MAX_RATIO * self.file.tell()):
            raise InputError(f"{self.path}: grows more than {MAX_RATIO} times: a bomb", "do not use it")
        return data

    def finish(self, rest: IO[bytes]) -> None:
        """Reads what is behind the end mark, of which nothing may be anything: the checksum of gzip stands there."""
        data = b""
        while not any(data):
            self.allow(MAX_HEADER)
            if not (data := rest.read(tarfile.RECORDSIZE)):
                return
        raise InputError(
            f"{self.path}: it goes on behind its end mark, where other archives were added to it",
            "join the members instead: tar --ignore-zeros -xf, then pack them anew",
        )
