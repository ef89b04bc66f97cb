"""Contact sheets: which questions they show, and that they are written whatever the texts are."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ggez_hub.families.base import Query
from ggez_hub.scoring.questions import Question
from ggez_hub.scoring.samples import SHOWN, answers_sheet, choose, drawings_sheet

ODD = {
    "mathematics": "$x_1$",
    "broken mathematics": r"$\frac{$ and $x__$",
    "one sign": "costs $5_a^b",
    "two prices": "$5 or $6_",
    "long": "a very long name " * 40,
    "one long word": "x" * 400,
    "scripts": "ผัดไทย 米粉湯 கறி",
    "marks": "a\tb\nc\\d %s {label} <b>",
    "nothing": "",
}


def question(answer: str, prompt: str | None = "What does the picture show?") -> Question:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), "orange").save(buffer, "PNG")
    picture = buffer.getvalue()
    return Question("q", Query(picture, (), prompt), (answer, "another"), answer, "VNM", "Food", "", picture)


def drawings(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8))


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


# ------------------------------------------------------------------------------------------------------------- choosing
@given(st.integers(0, 400), st.integers(0, 400))
def test_places_are_distinct_in_range_and_as_many_as_wanted(regional: int, others: int) -> None:
    counts = (regional, others)
    found = choose([[question_without_picture] * count for count in counts])
    for places, count, wanted in zip(found, counts, SHOWN, strict=True):
        assert len(places) == min(count, wanted)
        assert places == sorted(set(places))
        assert all(0 <= place < count for place in places)


question_without_picture = Question("q", Query(), (), "a", "", "", "", b"")


@given(st.integers(20, 400))
def test_places_are_spread_over_all_questions(count: int) -> None:
    for places in choose([[question_without_picture] * count] * 2):
        edges = [0, *places, count - 1]
        widest = count / len(places)
        assert max(b - a for a, b in itertools.pairwise(edges)) <= widest + 1
        assert places[0] > 0
        assert places[-1] < count - 1


# ------------------------------------------------------------------------------------------------------------- answers
def test_a_sheet_of_answers_is_a_picture_and_repeats(tmp_path: Path) -> None:
    answers = {0.0: "another", 0.5: "pho", 1.0: ""}
    shown = [(question("pho"), answers), (question("pho", None), answers), (question("satay"), answers)]
    for name, part in (("a.png", shown), ("b.png", shown), ("one.png", shown[:1]), ("none.png", [])):
        if part:
            answers_sheet(part, "Pocket, alpha from 0 to 1", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert size(tmp_path / "a.png")[1] > size(tmp_path / "one.png")[1], "a row of two questions each"
    assert size(tmp_path / "a.png")[0] == 1100


def test_right_and_wrong_answers_look_different(tmp_path: Path) -> None:
    for name, answer in (("right", "pho"), ("wrong", "hop"), ("unreadable", "")):
        answers_sheet([(question("pho"), {0.0: answer})], "", tmp_path / f"{name}.png")
    pixels = {p.stem: np.asarray(Image.open(p).convert("RGB")).astype(int) for p in tmp_path.glob("*.png")}
    greener = {name: ((part[..., 1] - part[..., 0]) > 40).sum() for name, part in pixels.items()}
    redder = {name: ((part[..., 0] - part[..., 1] > 100) & (part[..., 2] > 20)).sum() for name, part in pixels.items()}
    assert greener["right"] > 50 > greener["wrong"] == greener["unreadable"] == 0
    assert min(redder["wrong"], redder["unreadable"]) > 50 > redder["right"]


def test_an_open_answer_is_as_right_as_it_was_scored(tmp_path: Path) -> None:
    for name, answer in (("exactly", "pho"), ("nearly", "The Pho.")):
        answers_sheet([(replace(question("pho"), options=()), {0.0: answer})], "", tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        assert ((pixels[..., 1] - pixels[..., 0]) > 40).sum() > 50, name


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_answers_in_any_words_are_written(tmp_path: Path, text: str) -> None:
    for place, name in enumerate(("answer", "prompt", "title")):
        words = ["pho"] * 3
        words[place] = text
        path = tmp_path / f"{name}.png"
        answers_sheet([(question(words[0], words[1]), {0.0: words[0], 1.0: "x"})], words[2], path)
        assert min(size(path)) > 50


# ------------------------------------------------------------------------------------------------------------- drawings
def test_a_sheet_of_drawings_is_a_picture_and_repeats(tmp_path: Path) -> None:
    drawn = {alpha: drawings(3, i) for i, alpha in enumerate((0.0, 0.25, 1.0))}
    for name in ("a.png", "b.png"):
        drawings_sheet(["a drawing of pho", "satay", "durian"], drawn, 0.25, "Pocket", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    drawings_sheet(["satay"], {0.0: drawings(1)}, 0.0, "Pocket", tmp_path / "one.png")
    assert all(a > b for a, b in zip(size(tmp_path / "a.png"), size(tmp_path / "one.png"), strict=True))


def test_the_chosen_alpha_is_marked(tmp_path: Path) -> None:
    drawn = {0.0: [np.zeros((8, 8, 3), np.uint8)], 1.0: [np.zeros((8, 8, 3), np.uint8)]}
    for chosen in (0.0, 1.0, 0.5):
        drawings_sheet(["satay"], drawn, chosen, "", tmp_path / f"{chosen}.png")
    green = []
    for chosen in (0.0, 1.0, 0.5):
        pixels = np.asarray(Image.open(tmp_path / f"{chosen}.png").convert("RGB")).astype(int)
        green.append(np.nonzero((pixels[..., 1] - pixels[..., 0]) > 40)[1])
    assert green[0].size > 20
    assert green[0].mean() < green[1].mean(), "above its own column"
    assert not green[2].size


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_drawings_of_anything_are_written(tmp_path: Path, text: str) -> None:
    drawings_sheet([text, "satay"], {0.0: drawings(2), 1.0: drawings(2, 1)}, 1.0, text, tmp_path / "a.png")
    assert min(size(tmp_path / "a.png")) > 50
