"""Rules of the filter: which rows they keep, and why they drop the others."""

import io
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ggez_hub.data import filters, readers
from ggez_hub.errors import InputError


def batch(field: str, values: list[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{field: value} for value in values], readers.row_schema())


def reasons(rule: filters.Rule, rows: pa.RecordBatch) -> list[str | None]:
    """Why rows are dropped; None where one is kept. Nothing of the outcome may be missing."""
    outcome = rule(rows)
    assert outcome.batch.num_rows == len(outcome.kept) == len(outcome.why) == rows.num_rows
    assert outcome.kept.null_count == 0
    assert outcome.why.type == pa.string()
    told = zip(outcome.kept.to_pylist(), outcome.why.to_pylist(), strict=True)
    return [None if kept else why or "" for kept, why in told]


@pytest.mark.parametrize(
    ("rule", "field", "kept", "dropped"),
    [
        (filters.has_text(), "text", ["pho", " a ", "ก", "0"], ["", " ", "\n\t", "\u3000", None]),
        (filters.has_text(3, 5), "text", ["pho", "bánh", " rice "], ["a", " ab ", "noodle", None]),
        (filters.rewarded(3), "reward", [3.0, 3.5, 5.0, float("inf")], [2.9999, 0.0, -1.0, float("nan"), None]),
        (filters.rewarded(0), "reward", [0.0, 1.0], [-0.5, None]),
        (filters.rewarded(3.3), "reward", [3.3, 3.4], [3.2]),  # rewards are 32 bits, the limit is written in decimals
        (filters.safe("reward", 0.5), "reward", [0.0, 0.5, 1e-9], [0.51, 1.0, 87.0, -0.1, float("nan"), None]),
        (filters.licensed(["cc-by-4.0", "MIT"]), "license", ["CC BY 4.0", "mit"], ["cc-by-nc-4.0", "ours", "", None]),
    ],
    ids=["text", "length of text", "reward", "reward of zero", "reward in decimals", "unsafe", "license"],
)
def test_a_rule_keeps_what_it_says(rule: filters.Rule, field: str, kept: list[Any], dropped: list[Any]) -> None:
    assert rule(batch(field, [*kept, *dropped])).kept.to_pylist() == [True] * len(kept) + [False] * len(dropped)
    assert rule(batch(field, [])).kept.to_pylist() == []


@pytest.mark.parametrize(
    ("rule", "field", "value", "why"),
    [
        (filters.has_text(5), "text", "pho", "3 characters < 5"),
        (filters.has_text(1, 2), "text", "pho", "3 characters > 2"),
        (filters.rewarded(3), "reward", 2.5, "2.5 < 3"),
        (filters.rewarded(3), "reward", None, "no reward"),
        (filters.safe("reward", 0.5), "reward", 0.75, "0.75 > 0.5"),
        (filters.safe("reward", 0.5), "reward", 87.0, "87 is no score from 0 to 1"),
        (filters.safe("reward", 0.5), "reward", None, "no score"),
        (filters.licensed(["mit"]), "license", "CC BY 4.0", "license CC BY 4.0"),
        (filters.licensed(["mit"]), "license", None, "no license"),
    ],
)
def test_why_a_row_is_dropped(rule: filters.Rule, field: str, value: Any, why: str) -> None:
    assert reasons(rule, batch(field, [value])) == [why]


def test_a_conversation_stands_for_a_caption() -> None:
    rows = [{"text": text, "messages": [{"role": "user", "content": "Hello"}]} for text in (None, "", "a long caption")]
    assert reasons(filters.has_text(3, 8), pa.RecordBatch.from_pylist(rows, readers.row_schema())) == [None] * 3


def test_conversations_are_whole_or_say_what_is_wrong() -> None:
    turns = ["<image>What is this?", "pho"], ["What is this?"], ["", "pho"]
    told = [
        [{"role": ("user", "assistant")[i % 2], "content": words} for i, words in enumerate(said)] for said in turns
    ]
    assert reasons(filters.whole_conversation(), batch("messages", [*told, None, []])) == [
        None, "its last message is not by the assistant", "message 1 is empty", None, "it has no message",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("CC-BY-SA 4.0", "cc-by-sa-4.0"),
        ("CC BY SA 4", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-sa/4.0/", "cc-by-sa-4.0"),
        ("http://www.creativecommons.org/licenses/by-nc-nd/3.0/deed.en", "cc-by-nc-nd-3.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "cc-by-sa-4.0"),
        ("Creative Commons Attribution-NonCommercial-NoDerivs 2.0 Generic License", "cc-by-nc-nd-2.0"),
        ("Attribution-NonCommercial License", "cc-by-nc"),
        ("CC-BY-SA 3.0 de", "cc-by-sa-3.0"),
        ("CC-BY-3.0 br", "cc-by-3.0"),
        ("CC0", "cc0-1.0"),
        ("cc0-1.0", "cc0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "apache-2.0"),
        ("The MIT License", "mit"),
        ("https://opensource.org/licenses/MIT", "mit"),
        ("BSD 3-Clause License", "bsd-3-clause"),
        ("GPLv3", "gpl-3.0"),
        ("gpl-3.0", "gpl-3.0"),
        ("odc-by", "odc-by"),
        ("openrail++", "openrail++"),
        ("Public  Domain", "public domain"),
        ("All rights reserved by the Museum", "all rights reserved by the museum"),
        ("CC BY-SA 4.0, via Wikimedia Commons", "cc-by-sa-4.0"),
        ("", ""),
    ],
)
def test_a_license_is_known_however_it_is_written(written: str, meant: str) -> None:
    assert filters.license_id(written) == meant


def test_every_license_of_the_hub_is_itself() -> None:
    assert [name for name in filters.LICENSES if filters.license_id(name) != name] == []


def test_scores_have_to_be_numbers_in_a_column_that_is_there() -> None:
    with pytest.raises(InputError, match=r"column 'text' is string, expected numbers"):
        filters.safe("text", 0.5)(batch("text", ["0.1"]))
    with pytest.raises(InputError, match=r"no column 'nsfv'"):
        filters.safe("nsfv", 0.5)(batch("text", ["0.1"]))
    whole = pa.RecordBatch.from_pydict({"nsfw": pa.array([0, 1, None], pa.int8())})
    assert filters.safe("nsfw", 0.5)(whole).kept.to_pylist() == [True, False, False]


# ------------------------------------------------------------------------------------------------------------- pictures
def photo(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    """Something with large and small structure, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def looked_at(*pictures: bytes | None) -> filters.Outcome:
    return filters.pictures(None)(batch("image", [{"bytes": data, "path": None} for data in pictures]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_pictures_get_their_size_and_the_hash_that_the_library_gives_them(kind: str) -> None:
    image = photo(400, 300)
    outcome = looked_at(encoded(image, kind))
    (row,) = outcome.batch.select(["_width", "_height", "_hash"]).to_pylist()
    assert outcome.kept.to_pylist() == [True]
    assert (row["_width"], row["_height"]) == (400, 300)
    assert (int(str(imagehash.phash(image)), 16) ^ row["_hash"]).bit_count() <= 2, "whatever it is encoded as"


def test_a_picture_is_as_large_as_it_is_seen() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    turned = looked_at(encoded(photo(400, 300), "JPEG", exif=exif)).batch
    assert (turned["_width"].to_pylist(), turned["_height"].to_pylist()) == ([300], [400])
    upright = looked_at(encoded(photo(400, 300).transpose(Image.Transpose.ROTATE_270), "JPEG")).batch
    assert (turned["_hash"][0].as_py() ^ upright["_hash"][0].as_py()).bit_count() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_truncated_picture_is_broken(kind: str, share: float) -> None:
    whole = encoded(photo(320, 240), kind)
    outcome = looked_at(whole, whole[: int(len(whole) * share)], whole)
    assert outcome.kept.to_pylist() == [True, False, True]
    assert "cannot be decoded" in outcome.why[1].as_py()
    assert outcome.batch["_hash"].is_valid().to_pylist() == [True, False, True]
    assert outcome.batch["image"][1].as_py()["bytes"] == whole[: int(len(whole) * share)], "for whoever looks into it"


def test_what_is_no_picture_is_dropped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(photo()))
    images = [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "../b.png"}, {"bytes": b"<html>", "path": None}]
    outcome = filters.pictures(tmp_path)(batch("image", [*images, None]))
    assert outcome.kept.to_pylist() == [True, False, False, False]
    assert outcome.batch["image"][0].as_py() == {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}
    told = outcome.why.to_pylist()
    assert [told[0], "no such picture" in told[1], "not a picture" in told[2], told[3]] == [
        None, True, True, "no picture in the row",
    ]  # fmt: skip


def test_a_batch_without_rows_has_the_same_columns() -> None:
    assert looked_at().batch.schema == looked_at(encoded(photo())).batch.schema


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (filters.sized(100), [None, "80 pixels < 100", None, "", "1 pixels < 100"]),
        (filters.sized(None, 2), [None, None, "2.67 : 1 > 2 : 1", "", "900 : 1 > 2 : 1"]),
        (filters.sized(100, 1.5), [None, "80 pixels < 100", "2.67 : 1 > 1.5 : 1", "", "1 pixels < 100"]),
        (filters.sized(), [None, None, None, "", None]),
    ],
)
def test_pictures_too_small_or_too_long_are_dropped(rule: filters.Rule, why: list[str | None]) -> None:
    sizes = [(120, 100), (80, 81), (320, 120), None, (1, 900)]
    pictures = [encoded(Image.new("RGB", size)) if size else b"no picture" for size in sizes]
    assert reasons(rule, looked_at(*pictures).batch) == why
