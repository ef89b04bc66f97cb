"""Pictures against what countries look like, and their embeddings: which are kept, why, and by which model."""

import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from ggez_hub import families
from ggez_hub.data import readers, regions, similarity
from ggez_hub.errors import InputError
from ggez_hub.families import embedding, open_clip, vlm
from ggez_hub.registry import load_region
from ggez_hub.schema import Region

SEA = load_region("sea")


def picture(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "png")
    return buffer.getvalue()


THAI, PERUVIAN, CHART, BETWEEN = (picture(c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 200, 0)))
BLACK = picture((0, 0, 0))


class Colors:
    """An embedding model that sees Thailand in red, Peru in green, and what is of no country in blue."""

    def __init__(self) -> None:
        self.seen = 0

    def pictures(self, pictures: Sequence[bytes]) -> np.ndarray:
        from ggez_hub.data.images import opened

        self.seen += len(pictures)
        found = [np.array([*opened(data).getpixel((0, 0)), 0], np.float32) for data in pictures]  # type: ignore[misc]
        with np.errstate(invalid="ignore"):  # of black it makes no numbers
            return np.array([x / np.linalg.norm(x) for x in found], np.float32).reshape(-1, 4)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), 4), np.float32)
        for row, text in zip(found, texts, strict=True):
            row[0 if "Thai" in text else 1 if "Peru" in text else 2 if text in similarity.NOWHERE else 3] = 1
        return found


def rows(*pictures: bytes | None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"image": None if data is None else {"bytes": data, "path": None}} for data in pictures], readers.row_schema()
    )


def test_pictures_like_the_region_are_kept_and_each_says_what_it_is_like() -> None:
    batch, kept, why = similarity.by_image(Colors(), SEA, 0.1)(
        rows(THAI, PERUVIAN, CHART, BETWEEN, None, b"broken", BLACK)
    )
    assert kept.to_pylist() == [True, False, False, True, False, False, False]
    assert why.to_pylist() == [
        "like Thailand: +1.000 >= 0.1",
        "like Peru: -1.000 < 0.1",
        f"like {similarity.NOWHERE[0]}: -1.000 < 0.1",
        "like Thailand: +0.170 >= 0.1",
        *[similarity.NO_PICTURE] * 3,
    ]
    assert batch.column(similarity.COLUMN).null_count == 3


def test_the_limit_is_how_far_the_region_is_ahead() -> None:
    at = {least: similarity.by_image(Colors(), SEA, least)(rows(BETWEEN)).kept[0].as_py() for least in (0.1, 0.2)}
    assert at == {0.1: True, 0.2: False}
    peru = Region(title="Peru", countries=("PER",))
    assert not similarity.by_image(Colors(), peru, 0)(rows(BETWEEN)).kept[0].as_py()
    assert similarity.by_image(Colors(), peru, -0.2)(rows(BETWEEN)).kept[0].as_py()


def test_like_the_world_is_whatever_is_like_a_country_rather_than_nothing() -> None:
    found = similarity.by_image(Colors(), load_region("world"), 0)(rows(THAI, PERUVIAN, CHART))
    assert found.kept.to_pylist() == [True, True, False]


def test_a_picture_is_embedded_once_for_both_rules() -> None:
    embed = Colors()
    batch = similarity.by_image(embed, SEA, 0.1)(rows(THAI, None, PERUVIAN)).batch
    seen = embed.seen
    again = similarity.embedded(embed)(batch)
    assert again.batch.equals(batch)
    assert again.kept.to_pylist() == [True] * 3
    assert embed.seen == seen


def test_rows_whose_picture_decided_nothing_are_embedded_later() -> None:
    embed = Colors()
    batch = rows(THAI, PERUVIAN, THAI, b"broken").append_column(regions.UNDECIDED, pa.array([False, True, True, True]))
    found = regions.undecided(similarity.by_image(embed, SEA, 0))(batch)
    assert found.kept.to_pylist() == [True, False, True, False]
    whole = similarity.embedded(embed)(found.batch).batch.column(similarity.COLUMN)
    assert np.allclose(similarity.vectors(whole)[:3], [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]])
    assert whole.is_null().to_pylist() == [False, False, False, True]


def test_embeddings_come_out_of_the_column_as_they_went_in() -> None:
    column = similarity.embedded(Colors())(rows(None, THAI, b"", CHART)).batch.column(similarity.COLUMN)
    found = similarity.vectors(column)
    assert found.dtype == np.float32
    assert np.isnan(found[[0, 2]]).all()
    assert np.array_equal(found[[1, 3]], [[1, 0, 0, 0], [0, 0, 1, 0]])
    assert np.array_equal(similarity.vectors(pa.chunked_array([column[:2], column[2:]])), found, equal_nan=True)
    assert similarity.vectors(pa.nulls(2, column.type), 4).shape == (2, 4)


@pytest.mark.parametrize("given", [(), (None,), (b"broken", None)])
def test_batches_without_a_single_picture_pass_through(given: tuple[bytes | None, ...]) -> None:
    for rule in (similarity.by_image(Colors(), SEA, 0), similarity.embedded(Colors())):
        batch, kept, why = rule(rows(*given))
        assert len(kept) == len(why) == batch.num_rows == len(given)
        assert batch.schema.field(similarity.COLUMN).type == pa.list_(pa.float32())


def test_every_region_has_countries_that_can_be_named() -> None:
    known = similarity._prompts()
    names = [name for name, _ in known.values()]
    assert len(known) > 240
    assert len(set(names)) == len(names)
    assert {known[code][0] for code in SEA.countries} >= {"Laos", "Myanmar", "Brunei", "Vietnam", "Timor-Leste"}
    assert "Burmese food" in known["MMR"][1]
    assert all(not re.search(r"[{}()]|None", text) for _, prompts in known.values() for text in prompts)
    with pytest.raises(InputError, match="none of XXX is a country"):
        similarity.by_image(Colors(), Region(title="Nowhere", countries=("XXX",)), 0)


# -------------------------------------------------------------------------------------------------------- real models
@pytest.mark.parametrize(
    "write",
    [embedding.write_tiny, pytest.param(open_clip.write_tiny, marks=pytest.mark.slow)],
    ids=["transformers", "open_clip"],
)
def test_a_loaded_model_embeds_pictures_and_texts(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path, ("a street in Thailand", "Peruvian food"))
    embed = families.embedder(str(tmp_path))
    pictures, texts = embed.pictures([THAI, PERUVIAN] * 40), embed.texts(["a street in Thailand", "Peruvian food"])
    assert pictures.shape == (80, texts.shape[1])
    assert pictures.dtype == texts.dtype == np.float32
    for found in (pictures, texts):
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.allclose(pictures[:2], pictures[-2:], atol=1e-5), "whatever else stands in the batch"
    assert not np.allclose(texts[0], texts[1], atol=1e-3)
    assert len(embed.pictures([])) == 0
    buffer, sizes = io.BytesIO(), []
    Image.new("RGB", (8000, 2000), (255, 0, 0)).save(buffer, "png")
    assert np.allclose(embed.pictures([buffer.getvalue()]), pictures[0], atol=1e-5)
    seen = (lambda loaded, part: sizes.extend(x.size for x in part) or torch.ones(len(part), 2), embed.encoders[1])  # type: ignore[attr-defined,func-returns-value]
    dataclasses.replace(embed, encoders=seen).pictures([buffer.getvalue(), THAI])  # type: ignore[type-var]
    assert sizes == [(1024, 256), (8, 8)], "large ones are not held as they are"
    column = similarity.embedded(embed)(rows(THAI, b"broken", PERUVIAN)).batch.column(similarity.COLUMN)
    assert np.allclose(similarity.vectors(column)[[0, 2]], pictures[:2], atol=1e-5)
    assert column.is_null().to_pylist() == [False, True, False]


def test_a_folder_without_an_embedding_model_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded as an embedding model"):
        families.embedder(str(tmp_path))
    vlm.write_tiny(tmp_path, ("a boat",))
    with pytest.raises(InputError, match="does not embed"):
        families.embedder(str(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        families.embedder("no folder of mine")
