"""Duplicates: what is the same as an earlier kept row, exactly as comparing all with all finds it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from ggez_hub.data import duplicates

HASHES = st.integers(0, 2**64 - 1)
FLIPS = st.lists(st.integers(0, 63), max_size=9)


def all_with_all(same: np.ndarray) -> list[int]:
    """The rule in words: of every row the first kept one that it is the same as, or -1."""
    found: list[int] = []
    for i in range(len(same)):
        found.append(next((j for j in range(i) if found[j] < 0 and same[i, j]), -1))
    return found


@settings(max_examples=25)
@given(st.lists(HASHES, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0, 3), FLIPS)), st.integers(0, 16))
def test_same_pictures_are_those_that_comparing_all_with_all_finds(
    centres: list[int], rows: list[tuple[int, list[int]]], distance: int
) -> None:
    values = [centres[centre % len(centres)] for centre, _ in rows]
    for place, (_, flips) in enumerate(rows):
        for bit in flips:
            values[place] ^= 1 << bit
    hashes = np.array(values, np.uint64)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    assert duplicates.same_pictures(hashes, distance).tolist() == all_with_all(apart <= distance)


@pytest.mark.parametrize("distance", [0, 3, 8, 16])
def test_many_pictures_as_well(distance: int) -> None:
    rng = np.random.default_rng(distance)
    centres = rng.integers(0, 2**64, 40, np.uint64, endpoint=False)
    hashes = centres[rng.integers(0, 40, 600)]
    for _ in range(distance + 2):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, 600, np.uint64)) * rng.integers(0, 2, 600, np.uint64)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    found = duplicates.same_pictures(hashes, distance)
    assert found.tolist() == all_with_all(apart <= distance)
    assert (found >= 0).any()


def test_what_repeats_only_a_dropped_picture_is_kept() -> None:
    assert duplicates.same_pictures(np.array([0b0, 0b11, 0b1111, 0b0], np.uint64), 2).tolist() == [-1, 0, -1, 0]
    assert duplicates.same_pictures(np.array([], np.uint64), 2).tolist() == []


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(-3, 3)), max_size=60), st.floats(0.0, 1.0)
)
def test_same_embeddings_are_those_that_comparing_all_with_all_finds(
    rows: list[tuple[int, int, int]], most: float
) -> None:
    vectors = np.array(rows, np.float64).reshape(-1, 3) + np.array([0, 0, 0.5])  # none of length 0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    if np.isclose(cosines, most).any():  # as near as that, rounding decides
        return
    assert duplicates.same_embeddings(vectors, most).tolist() == all_with_all(cosines > most)


def test_embeddings_are_compared_across_blocks() -> None:
    vectors = np.random.default_rng(0).standard_normal((1500, 64)).astype(np.float32)
    vectors[1100:] = vectors[:400] + 0.01 * vectors[1100:]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = duplicates.same_embeddings(vectors, 0.95)
    assert found[:1100].tolist() == [-1] * 1100
    assert found[1100:].tolist() == list(range(400))


def test_the_first_of_rows_that_say_the_same_is_kept() -> None:
    assert duplicates.same_rows(np.array([7, 8, 7, 9, 8], np.uint64)).tolist() == [-1, -1, 0, -1, 1]
    assert duplicates.same_rows(np.array([], np.uint64)).tolist() == []


def test_what_a_row_says_is_its_text_its_conversation_and_its_question_of_its_picture() -> None:
    row = {"text": "a", "messages": [{"role": "user", "content": "b"}], "question": None, "options": None}
    others = [{"text": "b"}, {"messages": None}, {"question": "a"}, {"options": ["a"]}, {"answer": "a"}]
    assert duplicates.said(row, 1) == duplicates.said(row | {"id": "other", "country": "IDN"}, 1)
    told = [duplicates.said(each, 1) for each in (row, *(row | other for other in others))]
    assert len({*told, duplicates.said(row, 2)}) == 7


@given(st.lists(st.integers(0, 9)), st.integers(0, 3))
def test_rows_of_one_file_stand_or_fall_together(rows: list[int], distance: int) -> None:
    """Files are numbers here, and look alike where their difference is small."""
    files = np.array(rows, np.uint64)

    def same(firsts: np.ndarray) -> np.ndarray:
        values = files[firsts].astype(int)
        return np.array(all_with_all(abs(values[:, None] - values[None, :]) <= distance), np.int64)

    found = duplicates.same_files(files, same).tolist()
    kept: list[int] = []  # the first rows of files that are
    for i, file in enumerate(files.astype(int)):
        like = next((j for j in kept if file != files[j] and abs(file - int(files[j])) <= distance), -1)
        earlier = [found[j] for j in range(i) if files[j] == file]
        assert found[i] == (earlier[0] if earlier else like)
        if found[i] < 0 and not earlier:
            kept.append(i)


def test_copies_of_a_picture_have_nearly_its_hash_and_other_pictures_do_not() -> None:
    def picture(seed: int) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(coarse).resize((200, 160), Image.Resampling.BICUBIC)

    image, other = picture(0), picture(1)
    copies = [image.resize((90, 70)), ImageEnhance.Brightness(image).enhance(1.1), image.crop((3, 2, 197, 158))]
    near = [(duplicates.picture_hash(copy) ^ duplicates.picture_hash(image)).bit_count() for copy in copies]
    assert max(near) <= 8
    assert (duplicates.picture_hash(other) ^ duplicates.picture_hash(image)).bit_count() > 16
