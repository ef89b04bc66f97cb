"""Rules of the filter: each says row by row what is kept, and why. A new rule is one function here (paper, 4.1).

Rules that need more than a row's own fields have modules of their own: regions, rewards, similarity, contamination.
Which of them a recipe asks for, and in which order, stands in ggez_hub.stages.filter.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ggez_hub.data import conversations, duplicates, images, readers
from ggez_hub.errors import InputError
from ggez_hub.metadata import LICENSES

if TYPE_CHECKING:
    import pyarrow as pa


class Outcome(NamedTuple):
    """What a rule says of the rows of a batch.

    Attributes:
        batch: All the rows it was given, in order, perhaps with further or filled columns.
        kept: Of every row whether it is kept; no nulls.
        why: Of every row what decided, in a few words; null where the rule's name says it all.
    """

    batch: "pa.RecordBatch"
    kept: "pa.BooleanArray"
    why: "pa.StringArray"


Rule = Callable[["pa.RecordBatch"], Outcome]


def has_text(least: int = 1, most: int | None = None) -> Rule:
    """Keeps rows with a caption of so many characters, or with a conversation, which stands for one."""
    import pyarrow.compute as pc

    def rule(batch: "pa.RecordBatch") -> Outcome:
        letters = pc.utf8_length(pc.utf8_trim_whitespace(batch.column("text")))
        told = pc.is_valid(batch.column("messages"))
        why = _unless(pc.greater_equal(letters, least), letters, f" characters < {least}")
        if most is not None:
            why = pc.coalesce(why, _unless(pc.less_equal(letters, most), letters, f" characters > {most}"))
        kept = pc.or_(told, pc.and_(pc.is_valid(letters), pc.is_null(why)))
        return Outcome(batch, kept, _where(kept, why))

    return rule


def licensed(allowed: Iterable[str]) -> Rule:
    """Keeps rows whose license is one of these, however it is written; rows without one are dropped."""
    import pyarrow as pa

    known = {license_id(name) for name in allowed}

    def rule(batch: "pa.RecordBatch") -> Outcome:
        written = batch.column("license").dictionary_encode()
        names = written.dictionary.to_pylist()
        kept = pa.array([license_id(name) in known for name in names], pa.bool_()).take(written.indices)
        why = pa.array([f"license {name}" for name in names], pa.string()).take(written.indices).fill_null("no license")
        return Outcome(batch, kept.fill_null(False), why)

    return rule


_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"https?://(www\.)?", " "),
        (r"\.(org|html|txt|com|net|en)\b", " "),
        (r"creative ?commons|\bcc(?=by)", " cc "),
        (r"publicdomain/zero|\bcc ?zero\b|\bzero\b|\bcc-?0\b", " cc0 "),
        (r"non-?commercial", " nc "),
        (r"no-?deriv(ative)?s?(-?works)?", " nd "),
        (r"share-?alike", " sa "),
        (r"attribution", " by "),
        (r"\b(v|version )(?=\d)|(?<=gpl)v(?=\d)", " "),
        (
            r"\b(licen[sc]es?|the|opensource|spdx|deed|international|unported|generic|universal|software|legalcode)\b",
            " ",
        ),
    )
)
_CREATIVE_COMMONS = ("by", "nc", "nd", "sa")  # in the order of the ids: of `nd` and `sa` a license has one at most


def license_id(text: str) -> str:
    """The Hub's id of a license by the ways data write it: "CC BY-SA 4.0", its address, its name in words.

    What is no known license is given back in lower case. A Creative Commons license without its version stays one:
    "cc-by".
    """
    plain = " ".join(text.casefold().split())
    words = plain
    for pattern, replacement in _SPELLINGS:
        words = pattern.sub(replacement, words)
    parts = re.findall(r"\d+(?:\.\d+)*|[a-z+][a-z0-9+]*", words)
    version = next((part if "." in part else f"{part}.0" for part in parts if part[0].isdigit()), None)
    names = (plain, "-".join(parts), f"{'-'.join(parts)}.0")
    if known := next((name for name in names if name in LICENSES), None):
        return known
    if "cc0" in parts:
        return "cc0-1.0"
    further = [part for part in parts if len(part) > 2 and not part[0].isdigit()]  # two letters may be a country
    if "by" in parts and ("cc" in parts or not further):
        terms = [term for term in _CREATIVE_COMMONS if term in parts]
        return "-".join(("cc", *terms, *([version] if version else [])))
    return plain


def safe(column: str, most: float) -> Rule:
    """Keeps rows whose score, 0 (safe) to 1 (unsafe), is at most `most`; rows without one are dropped.

    The rule raises InputError where there is no such column, or where it holds no numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def rule(batch: "pa.RecordBatch") -> Outcome:
        values = readers.column(batch, column)
        if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_null(values.type)):
            raise InputError(f"column {column!r} is {values.type}, expected numbers from 0 to 1", "it is unsafe.column")
        scores = values.cast(pa.float64())
        score = pc.and_(pc.greater_equal(scores, 0.0), pc.less_equal(scores, 1.0))  # NaN is none
        why = pc.coalesce(
            _unless(score, scores, " is no score from 0 to 1"),
            _unless(pc.less_equal(scores, most), scores, f" > {most:g}"),
        )
        kept = pc.and_(pc.is_valid(scores), pc.is_null(why))
        return Outcome(batch, kept, _where(kept, pc.fill_null(why, "no score")))

    return rule


def whole_conversation() -> Rule:
    """Keeps rows whose conversation, if they have one, is whole."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def rule(batch: "pa.RecordBatch") -> Outcome:
        told = batch.column("messages")
        if told.null_count == batch.num_rows:
            why = pa.nulls(batch.num_rows, pa.string())
        else:
            found = (None if messages is None else conversations.problem(messages) for messages in told.to_pylist())
            why = pa.array(found, pa.string())
        return Outcome(batch, pc.is_null(why), why)

    return rule


def rewarded(least: float) -> Rule:
    """Keeps rows whose `reward` is at least this; rows without one are dropped (section 5.1)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    limit = pa.scalar(least, pa.float32())  # as rewards are kept, or 3.3 would be less than 3.3

    def rule(batch: "pa.RecordBatch") -> Outcome:
        rewards = batch.column("reward")
        kept = pc.fill_null(pc.greater_equal(rewards, limit), False)
        why = pc.fill_null(_unless(kept, rewards, f" < {least:g}"), "no reward")
        return Outcome(batch, kept, _where(kept, why))

    return rule


def pictures(root: Path | None, download: bool = False) -> Rule:
    """Keeps rows whose picture can be had and decoded; every picture is decoded once.

    Fills in the bytes of `image`, and adds `_width` and `_height` (int32, as seen) and, for ggez_hub.data.duplicates,
    `_hash`, `_digest` and `_said` (uint64), which are null where the picture is broken. The pictures of a batch have to
    fit one array: less than 2 GiB.

    Args:
        root: The folder that paths are relative to.
        download: Whether a path may be an http(s) address.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    added = {"_width": pa.int32(), "_height": pa.int32()} | dict.fromkeys(("_hash", "_digest", "_said"), pa.uint64())

    def rule(batch: "pa.RecordBatch") -> Outcome:
        found: list[tuple[Any, ...]] = []  # bytes, what is wrong, and what is added
        for row in batch.select(["image", *duplicates.SAYS]).to_pylist():
            try:
                data = images.fetch(row["image"], root, download)
                small, width, height = images.glance(data)
            except images.BrokenImage as err:
                found.append((None, err.message, *[None] * len(added)))
            else:
                digest = duplicates.digest(data)
                hashes = (duplicates.picture_hash(small), digest, duplicates.said(row, digest))
                found.append((data, None, width, height, *hashes))
        types = (pa.binary(), pa.string(), *added.values())
        columns = zip(*found, strict=True) if found else ((),) * len(types)
        data, why, *values = (pa.array(c, t) for c, t in zip(columns, types, strict=True))
        place, image = batch.schema.get_field_index("image"), batch.column("image")
        data = pc.coalesce(data, image.field("bytes"))  # broken ones stay as they were
        filled = pa.StructArray.from_arrays([data, image.field("path")], fields=list(image.type))
        batch = batch.set_column(place, "image", filled)
        for name, value in zip(added, values, strict=True):
            batch = batch.append_column(name, value)
        return Outcome(batch, pc.is_null(why), why)

    return rule


def sized(least_side: int | None = None, most_aspect: float | None = None) -> Rule:
    """Keeps rows whose picture has a shorter side of so many pixels, and a longer one of at most so many times that.

    Needs what `pictures` adds.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def rule(batch: "pa.RecordBatch") -> Outcome:
        width, height = batch.column("_width"), batch.column("_height")
        shorter = pc.min_element_wise(width, height)
        aspect = pc.divide(pc.max_element_wise(width, height).cast(pa.float64()), shorter)
        why = pa.nulls(batch.num_rows, pa.string())
        if least_side is not None:
            why = _unless(pc.greater_equal(shorter, least_side), shorter, f" pixels < {least_side}")
        if most_aspect is not None:
            shown = pc.round(aspect, 2)
            why = pc.coalesce(why, _unless(pc.less_equal(aspect, most_aspect), shown, f" : 1 > {most_aspect:g} : 1"))
        kept = pc.and_(pc.is_valid(shorter), pc.is_null(why))
        return Outcome(batch, kept, _where(kept, why))

    return rule


def _unless(good: "pa.BooleanArray", values: "pa.Array", words: str) -> "pa.StringArray":
    """Each value with words behind it where it is not good; null elsewhere, and where there is no value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    told = pc.binary_join_element_wise(values.cast(pa.string()), words, "")
    return pc.if_else(pc.fill_null(good, False), pa.scalar(None, pa.string()), told)


def _where(kept: "pa.BooleanArray", why: "pa.StringArray") -> "pa.StringArray":
    """Why rows are dropped; null where they are kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(kept, pa.scalar(None, pa.string()), why)
