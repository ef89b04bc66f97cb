"""Drawing: the same everywhere, different by seed, true to the documented shapes."""

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ggez_hub.pocket.render import LIMIT, check_shape, draw_concept, draw_plain

DRAWING = [
    ["ellipse", "#2e7d32", 50, 55, 46, 36],
    ["line", "navy", 4, 5, 5, 95, 95],
    ["pie", "red", 50, 50, 20, 20, 0, 90],
]
RED, WHITE = (255, 0, 0), (255, 255, 255)


# ----------------------------------------------------------------------------------------------------------------- seed
def test_the_same_name_and_seed_give_the_same_picture() -> None:
    assert draw_concept("pho", DRAWING, 5).tobytes() == draw_concept("pho", DRAWING, 5).tobytes()


def test_another_process_draws_the_same_bytes() -> None:
    code = (
        "import hashlib; from ggez_hub.pocket.render import draw_concept;"
        f"print(hashlib.sha256(draw_concept('phở', {DRAWING!r}, 5).tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "123"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == hashlib.sha256(draw_concept("phở", DRAWING, 5).tobytes()).hexdigest()


def test_every_seed_and_every_name_has_a_picture_of_its_own() -> None:
    pictures = {draw_concept("pho", DRAWING, seed).tobytes() for seed in (*range(50), 1_000_000, 2_000_000)}
    assert len(pictures) == 52
    assert draw_concept("laksa", DRAWING, 0).tobytes() not in pictures


@pytest.mark.parametrize("size", [16, 48, 97])
def test_pictures_have_the_asked_size(size: int) -> None:
    for image in (draw_concept("pho", DRAWING, 0, size), draw_plain(DRAWING, size)):
        assert (image.mode, image.size) == ("RGB", (size, size))


def test_the_concept_is_visible_behind_the_nuisance() -> None:
    """A big shape changes the middle of the picture, whatever the seed."""
    shape = [["rect", "black", 10, 10, 90, 90]]
    for seed in range(20):
        drawn, empty = (np.asarray(draw_concept("x", d, seed), float) for d in (shape, []))
        assert drawn[20:28, 20:28].mean() < min(40, empty[20:28, 20:28].mean())


# --------------------------------------------------------------------------------------------------------------- shapes
SHAPES = {
    "ellipse": (["ellipse", "red", 50, 40, 30, 10], [(50, 40), (25, 40), (50, 47)], [(50, 60), (25, 47), (85, 40)]),
    "rect": (["rect", "red", 20, 30, 60, 40], [(22, 32), (58, 38)], [(18, 35), (62, 35), (40, 42), (40, 28)]),
    "polygon": (["polygon", "red", 10, 10, 90, 10, 10, 90], [(12, 12), (40, 40)], [(60, 60), (90, 90)]),
    "pie": (["pie", "red", 50, 50, 40, 40, 0, 90], [(60, 60), (85, 52)], [(40, 60), (60, 40), (85, 85)]),
    "line": (["line", "red", 6, 10, 50, 90, 50, 90, 90], [(50, 51), (90, 70)], [(50, 56), (50, 44), (50, 80)]),
    "arc": (["arc", "red", 6, 50, 50, 40, 40, 180, 270], [(22, 22), (48, 10)], [(50, 50), (78, 78), (50, 90)]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_drawn_where_its_numbers_say(name: str) -> None:
    shape, inside, outside = SHAPES[name]
    assert check_shape(shape) is None
    image = draw_plain([shape], 100)
    assert [image.getpixel(point) for point in inside] == [RED] * len(inside)
    assert [image.getpixel(point) for point in outside] == [WHITE] * len(outside)


@pytest.mark.parametrize("name", SHAPES)
def test_every_kind_of_shape_shows_in_a_concepts_pictures(name: str) -> None:
    for seed in range(5):
        drawn, empty = (np.asarray(draw_concept("x", d, seed), int) for d in ([SHAPES[name][0]], []))
        assert (np.abs(drawn - empty).max(axis=2) > 20).mean() > 0.01


def test_later_shapes_lie_on_top() -> None:
    image = draw_plain([["rect", "red", 0, 0, 100, 100], ["rect", "#0000ff", 0, 0, 50, 100]], 20)
    assert (image.getpixel((4, 10)), image.getpixel((15, 10))) == ((0, 0, 255), RED)


# --------------------------------------------------------------------------------------------------------------- checks
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([], "expected [ellipse|rect|polygon|pie|line|arc, colour, numbers...], got []"),
        (["circle", "red", 1, 2, 3], "expected [ellipse|"),
        ([["rect"], "red"], "expected [ellipse|"),
        (["rect", "reddish", 1, 2, 3, 4], "'reddish' is not a colour"),
        (["rect", 1, 2, 3, 4], "1 is not a colour"),
        (["rect", None, 1, 2, 3, 4], "None is not a colour"),
        (["rect", ["red"], 1, 2, 3, 4], "['red'] is not a colour"),
        (["rect", "#12345", 1, 2, 3, 4], "'#12345' is not a colour"),
        (["rect", "red", 1, 2, 3, "4"], "rect: everything after the colour is a number"),
        (["rect", "red", 1, 2, 3, float("nan")], "rect: everything after the colour is a number"),
        (["rect", "red", 1, 2, 3, float("-inf")], "rect: everything after the colour is a number"),
        (["pie", "red", 1, 2, 3, 3, 0, 10**400], "pie: everything after the colour is a number"),
        (["rect", "red", 1, 2, 3], "rect: expected 4 numbers after the colour, got 3"),
        (["ellipse", "red", 1, 2, 3, 4, 5], "ellipse: expected 4 numbers after the colour, got 5"),
        (["pie", "red", 1, 2, 3, 4], "pie: expected 6 numbers after the colour, got 4"),
        (["arc", "red", 1, 2, 3, 4, 5, 6], "arc: expected 7 numbers after the colour, got 6"),
        (["polygon", "red", 1, 2, 3, 4], "polygon: expected at least three x, y pairs"),
        (["polygon", "red", 1, 2, 3, 4, 5, 6, 7], "polygon: expected at least three x, y pairs"),
        (["line", "red", 1, 2, 3], "line: expected a width and at least two x, y pairs"),
        (["line", "red", 1, 2, 3, 4, 5, 6], "line: expected a width and at least two x, y pairs"),
    ],
)
def test_what_is_wrong_with_a_shape_is_said(shape: list[Any], message: str) -> None:
    assert message in (check_shape(shape) or "")


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text())
KINDS = st.sampled_from(list(SHAPES))
COLOURS = st.sampled_from(["red", "#12aB3c", "#abc"])
NUMBERS = st.lists(st.integers(-LIMIT, LIMIT) | st.floats(-LIMIT, LIMIT), max_size=9)


@given(st.lists(ANYTHING) | st.tuples(KINDS | ANYTHING, COLOURS | ANYTHING, ANYTHING).map(list))
def test_any_list_is_a_shape_or_gets_a_message(shape: list[Any]) -> None:
    problem = check_shape(shape)
    assert problem is None or (isinstance(problem, str) and problem)


@given(KINDS, COLOURS, NUMBERS)
def test_whatever_passes_the_check_can_be_drawn(kind: str, colour: str, numbers: list[float]) -> None:
    shape = [kind, colour, *numbers]
    if check_shape(shape) is None:
        assert isinstance(draw_plain([shape], 8), Image.Image)
        assert isinstance(draw_concept("x", [shape], 0, 8), Image.Image)
