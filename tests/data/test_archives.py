"""Tar archives: what is in them comes out member by member; what would do harm, or is cut off, is one clear error."""

import contextlib
import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ggez_hub.data import archives
from ggez_hub.errors import InputError

PICTURE = bytes(range(256)) * 20
TWO = (("a.jpg", PICTURE), ("b/c.txt", b"rendang"))


def packed(*files: tuple[str, bytes], layout: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    """A tar archive; `fields` are set in every header."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=layout) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def read(path: Path, content: bytes, wanted: Callable[[str], bool] | None = None) -> list[tuple[str, bytes]]:
    path.write_bytes(content)
    return list(archives.members(path, wanted))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard.tar"


def refused(path: Path, content: bytes, wanted: Callable[[str], bool] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, content, wanted)
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value


# ----------------------------------------------------------------------------------------------------------- what is in
@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_files_come_in_their_order(path: Path, layout: int, compress: Callable[[bytes], bytes]) -> None:
    assert read(path, compress(packed(*TWO, layout=layout))) == list(TWO)


def test_the_first_file_is_there_before_the_archive_is_read_to_its_end(path: Path) -> None:
    whole = packed(*TWO, *((f"{i}.jpg", PICTURE) for i in range(200)))
    path.write_bytes(whole[: len(whole) // 2])
    found = archives.members(path)
    assert next(found) == TWO[0]
    with pytest.raises(InputError, match="unexpected end of data"):
        list(found)


def test_memory_does_not_grow_with_the_archive(path: Path) -> None:
    path.write_bytes(packed(*((f"{i}.jpg", b"x" * 1000) for i in range(2000))))
    tracemalloc.start()
    try:
        count = sum(1 for _ in archives.members(path))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2000
    assert most < 300_000


def test_what_is_not_wanted_is_passed_over(path: Path) -> None:
    asked = []
    found = read(path, packed(*TWO), lambda name: bool(asked.append(name)) or name.endswith(".txt"))  # type: ignore[func-returns-value]
    assert found == [TWO[1]]
    assert asked == ["a.jpg", "b/c.txt"]


def test_folders_and_what_a_mac_adds_are_no_files(path: Path) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name in (".", "./b", "./b/._c.txt", "./b/c.txt"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.REGTYPE if name.endswith(".txt") else tarfile.DIRTYPE
            archive.addfile(member, io.BytesIO())
    assert read(path, held.getvalue()) == [("b/c.txt", b"")]


@pytest.mark.parametrize("length", [99, 101, 155, 300, 1000])
@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read(path: Path, length: int, layout: int) -> None:
    name = f"ไทย/{'a' * length}"[:length]
    assert read(path, packed((name, b"x"), layout=layout)) == [(name, b"x")]


def test_an_archive_in_an_archive_stays_bytes(path: Path) -> None:
    inner = gzip.compress(packed(*TWO))
    assert read(path, packed(("inner.tar.gz", inner))) == [("inner.tar.gz", inner)]


# ---------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "..", "a/..", "C:\\a.jpg", "c:/a.jpg", "..\\a.jpg", "\\a", "/", "//a"],
)
def test_a_name_that_leads_out_of_the_archive_is_refused(path: Path, name: str) -> None:
    assert "leads out of the archive" in refused(path, packed(TWO[0], (name, b"x"))).message


def test_names_that_only_look_like_it_are_fine(path: Path) -> None:
    names = ["..a.jpg", "a..b/c...jpg", "a:b.jpg", "...", "~/a"]
    assert [name for name, _ in read(path, packed(*((name, b"x") for name in names)))] == names


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"],
    ids=["symlink", "hard link", "character device", "block device", "pipe", "unknown"],
)
def test_links_and_devices_are_refused(path: Path, kind: bytes) -> None:
    error = refused(path, packed(("a.jpg", b""), type=kind, linkname="/etc/passwd"))
    assert "'a.jpg' in it is a link, a device or a file with holes" in error.message


def test_bad_text_in_names_is_cleaned(path: Path) -> None:
    names = ["a\x01b", b"\xff.jpg".decode("utf-8", "surrogateescape"), "c\nd"]
    found = read(path, packed(*((name, b"x") for name in names), layout=tarfile.GNU_FORMAT))
    assert [name for name, _ in found] == ["ab", "\ufffd.jpg", "c\nd"]


NAMES = st.lists(st.sampled_from(["a", "..", ".", "", "~", "C:", "b.jpg", "\x07", "\udcff", "é"]), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES.map("/".join) | NAMES.map("\\".join) | st.text(max_size=20), st.sampled_from([0, 1, 2]))
@example("\x01../a", 0)  # what is taken out makes no way out
@example(".\x01./a", 0)
def test_no_name_that_is_given_leads_anywhere_else(path: Path, name: str, layout: int) -> None:
    try:
        content = packed((name, b"x"), layout=layout)
    except (ValueError, UnicodeError):  # too long, or with a NUL: no archive has it
        return
    root = path.parent / "root"
    with contextlib.suppress(InputError):
        for found, _ in read(path, content):
            assert found.encode()
            assert ".." not in found.split("/")
            assert root in (root / found).resolve().parents


# --------------------------------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.3, 0.5, 0.6])
def test_an_archive_that_is_cut_off_is_named(path: Path, compress: Callable[[bytes], bytes], share: float) -> None:
    content = compress(packed(*TWO))
    error = refused(path, content[: int(share * len(content))])
    assert "not a readable tar archive" in error.message
    assert "download" in (error.hint or "")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("zeros", [0, 512])
def test_an_archive_whose_writer_was_killed_before_its_end_mark_is_read(
    path: Path, zeros: int, compress: Callable[[bytes], bytes]
) -> None:
    first = 512 + len(PICTURE)  # a multiple of 512
    assert read(path, compress(packed(*TWO)[:first] + bytes(zeros))) == [TWO[0]]
    assert "cut off" in refused(path, compress(packed(*TWO)[: first + 100])).message


def test_archives_behind_each_other_are_not_passed_over_in_silence(path: Path) -> None:
    error = refused(path, packed(TWO[0]) + packed(TWO[1]))
    assert "goes on behind its end mark" in error.message
    assert "--ignore-zeros" in (error.hint or "")


def test_compressed_bytes_without_their_checksum_are_named(path: Path) -> None:
    content = gzip.compress(packed(*TWO))
    refused(path, content[:-1])
    assert "CRC" in refused(path, content[:-8] + bytes(4) + content[-4:]).message


def test_a_damaged_header_is_no_end(path: Path) -> None:
    content = bytearray(packed(*TWO))
    content[512 + len(PICTURE)] ^= 1
    assert "it is damaged" in refused(path, bytes(content)).message
    last = bytearray(packed(TWO[0], ("empty", b"")))
    last[512 + len(PICTURE)] ^= 1  # nothing but the end mark stands behind it
    assert "it is damaged" in refused(path, bytes(last)).message


def test_what_is_no_archive_is_named(path: Path, tmp_path: Path) -> None:
    for content in (b"a line of text\n" * 100, b"\x1f\x8b" + bytes(100), b"PK\x03\x04" + bytes(2000)):
        refused(path, content)
    with pytest.raises(InputError, match="No such file"):
        list(archives.members(tmp_path / "none.tar"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 10239), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 10240),
)
def test_damage_of_any_kind_is_an_error_or_harmless(
    path: Path, compress: bool, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(packed(*TWO, layout=tarfile.GNU_FORMAT))
    content = bytearray(gzip.compress(content)) if compress else content
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(InputError):
        assert len(read(path, bytes(content[:length] if length % 3 else content))) == 2


# ---------------------------------------------------------------------------------------------------------------- bombs
def test_a_member_that_is_too_large_is_refused_before_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER", len(PICTURE) - 1)
    assert "a.jpg has 5120 bytes, expected 5119 at most" in refused(path, packed(*TWO)).message
    assert read(path, packed(*TWO), lambda name: name.endswith(".txt")) == [TWO[1]]


@pytest.mark.parametrize("wanted", [None, lambda name: False], ids=["wanted", "passed over"])
def test_a_claimed_size_beyond_the_file_is_told_at_once(path: Path, wanted: Callable[[str], bool] | None) -> None:
    member = tarfile.TarInfo("a.jpg")
    member.size = 2**62
    refused(path, member.tobuf(tarfile.GNU_FORMAT) + bytes(10240), wanted)


@pytest.mark.parametrize("wanted", [None, lambda name: False], ids=["wanted", "passed over"])
def test_an_archive_that_grows_beyond_measure_is_a_bomb(
    path: Path, wanted: Callable[[str], bool] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gzip.compress(packed(*((f"{i}.jpg", bytes(100_000)) for i in range(10))))
    assert len(read(path, content, wanted)) == (0 if wanted else 10)  # a small one does no harm
    monkeypatch.setattr(archives, "GROWN", 500_000)
    assert "grows more than 100 times: a bomb" in refused(path, content, wanted).message


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_hold_no_bombs(path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.size = kind, 2_000_000_000
    content = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(3_000_000))
    assert "more than 1000000 bytes between two members" in refused(path, content).message


def test_headers_that_follow_each_other_without_end_are_refused(path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    refused(path, (member.tobuf(tarfile.GNU_FORMAT) + b"a" + bytes(511)) * 900)
