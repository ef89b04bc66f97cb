"""Questions: what is asked of whom, with which options."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ggez_hub.errors import InputError
from ggez_hub.pocket import atlas, render
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.schema import Benchmark
from ggez_hub.scoring.questions import Question, questions

SEA = load_region("sea")
# Name: category, country, grey level of its pictures.
NAMES = {
    "tea": ("drinks", "CHN", 0),
    "juice": ("drinks", "FRA", 40),
    "water": ("drinks", "THA", 50),
    "milk": ("drinks", "NLD", 60),
    "coffee": ("drinks", "VNM", 100),
    "cocoa": ("drinks", "GHA", 250),
    "flute": ("music", "IDN", 45),
    "drum": ("music", "GHA", 55),
    "gong": ("music", None, 200),
}


def png(grey: int, mark: int) -> bytes:
    image = Image.new("L", (12, 12), grey)
    image.putpixel((0, 0), mark)  # every picture is one of its own
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def rows(each: int = 3, ids: bool = True) -> list[dict[str, Any]]:
    """For every name, pictures in three parts: 0 decides, the others test."""
    return [
        {
            "image": {"bytes": png(grey, 30 * part), "path": None},
            "text": name,
            "category": category,
            "country": country,
            "part": part,
        }
        | ({"id": f"{name}-{part}"} if ids else {})
        for name, (category, country, grey) in NAMES.items()
        for part in range(each)
    ]


def benchmark(file: Path, data: Sequence[dict[str, Any]], **settings: Any) -> Benchmark:
    pq.write_table(pa.Table.from_pylist(list(data)), file)
    source = {"reader": "parquet", "path": str(file)} | settings.pop("source", {})
    whole = {"title": "Mine", "task": "top1", "test": {"part": [1, 2]}, "selection": {"part": [0]}} | settings
    return Benchmark.model_validate_json(json.dumps(whole | {"source": source}))


def right(question: Question) -> str:
    return question.options[question.place]


def label(question: Question) -> str:
    return question.id.partition("-")[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.parquet"


# ----------------------------------------------------------------------------------------------------------------- rows
@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("region", {"water", "coffee", "flute"}),
        ("others", {"tea", "juice", "milk", "cocoa", "drum", "gong"}),  # no country: not the region's
        ("all", set(NAMES)),
    ],
)
@pytest.mark.parametrize("task", ["top1", "choice"])
def test_rows_are_the_regions_or_the_others_or_all(file: Path, which: str, names: set[str], task: str) -> None:
    asked = questions(benchmark(file, rows(), rows=which, task=task), SEA)
    for split, count in (("test", 2), ("selection", 1)):
        assert sorted(right(q) for q in asked[split]) == sorted([*names] * count)
        assert all(right(q) == label(q) for q in asked[split])
    coffee = [q for q in asked["test"] if right(q) == "coffee"]
    assert {(q.country, q.category) for q in coffee} == ({("VNM", "drinks")} if "coffee" in names else set())


def test_selection_and_test_are_apart(file: Path) -> None:
    asked = questions(benchmark(file, rows()), SEA)
    assert {q.id for q in asked["selection"]} == {f"{name}-0" for name in NAMES}
    assert {q.id for q in asked["test"]} == {f"{name}-{part}" for name in NAMES for part in (1, 2)}


@pytest.mark.parametrize("ids", [True, False])
def test_a_question_that_decides_is_no_test_question_even_if_both_are_asked_for(file: Path, ids: bool) -> None:
    asked = questions(benchmark(file, rows(ids=ids), test={}), SEA)
    assert len(asked["selection"]) == len(NAMES)
    assert len(asked["test"]) == 2 * len(NAMES)
    assert not {q.picture for q in asked["selection"]} & {q.picture for q in asked["test"]}


def test_without_a_selection_all_are_test_questions(file: Path) -> None:
    asked = questions(benchmark(file, rows(), selection={}, test={}), SEA)
    assert set(asked) == {"test"}
    assert len(asked["test"]) == 3 * len(NAMES)


@pytest.mark.parametrize(
    "settings", [{"test": {"part": [9]}}, {"source": {"where": {"part": [9]}}}, {"test": {"part": [0]}}]
)
def test_no_test_question_left_is_an_error_that_says_what_decides(file: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="benchmark 'Mine' has no test question for region 'Southeast Asia'") as caught:
        questions(benchmark(file, rows(), **settings), SEA)
    assert "`rows`, `test`" in (caught.value.hint or "")


def test_no_row_of_the_region_is_an_error(file: Path) -> None:
    elsewhere = [row for row in rows() if row["country"] not in SEA.countries]
    with pytest.raises(InputError, match="no test question"):
        questions(benchmark(file, elsewhere, rows="region"), SEA)


def test_the_file_may_be_the_recipes(file: Path) -> None:
    mine = benchmark(file, rows(), source={"path": None})
    assert len(questions(mine, SEA, str(file))["test"]) == 2 * len(NAMES)
    with pytest.raises(InputError, match=r"needs a file or folder"):
        questions(mine, SEA)


def test_pictures_may_lie_beside_the_file(file: Path) -> None:
    data = rows()
    for row in data:
        (file.parent / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
        row["image"] = {"bytes": None, "path": f"{row['id']}.png"}
    asked = questions(benchmark(file, data, task="choice"), SEA)
    assert all(q.picture == (file.parent / f"{q.id}.png").read_bytes() for q in asked["test"])


def test_pictures_without_ids_are_told_apart_by_their_contents(file: Path) -> None:
    asked = questions(benchmark(file, rows(ids=False), test={}, selection={}), SEA)["test"]
    assert len({q.id for q in asked}) == len(asked)
    again = questions(benchmark(file, rows(ids=False)[::-1], test={}, selection={}, rows="region"), SEA)["test"]
    names = {q.picture: q.id for q in asked}
    assert all(names[q.picture] == q.id for q in again)


# -------------------------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize("which", ["region", "others", "all"])
def test_top1_offers_every_name_of_the_source(file: Path, which: str) -> None:
    for question in questions(benchmark(file, rows(), rows=which), SEA)["test"]:
        assert set(question.options) == set(NAMES)
        assert len(question.options) == len(NAMES)


def test_choice_offers_the_three_names_most_like_the_right_one(file: Path) -> None:
    asked = questions(benchmark(file, rows(), task="choice"), SEA)
    options = {right(q): set(q.options) for q in asked["test"]}
    assert options["water"] == {"water", "juice", "milk", "tea"}  # not flute and drum, which look more like it
    assert options["cocoa"] == {"cocoa", "coffee", "milk", "water"}
    assert options["tea"] == {"tea", "juice", "water", "milk"}
    assert options["flute"] in ({"flute", "drum", "gong", other} for other in ("water", "juice"))  # both 5 away
    assert all(len(q.options) == 4 and q.options[q.place] == label(q) for q in asked["test"] + asked["selection"])


def test_the_right_option_has_no_usual_place(file: Path) -> None:
    asked = questions(benchmark(file, rows(each=9), task="choice", test={}, selection={}), SEA)["test"]
    counts = np.bincount([q.place for q in asked], minlength=4)
    assert counts.min() > 0.1 * len(asked)


@pytest.mark.parametrize("each", [3, 12])
@pytest.mark.parametrize("ids", [True, False])
def test_options_do_not_depend_on_the_order_of_rows(file: Path, each: int, ids: bool) -> None:
    rng = np.random.default_rng(0)
    data = rows(each, ids)
    if each > 3:  # pictures of one name differ, so that it matters which of them are looked at
        for row in data:
            row["image"]["bytes"] = png(int(rng.integers(256)), row["part"])
    first = questions(benchmark(file, data, task="choice"), SEA)["test"]
    other = questions(benchmark(file, [data[i] for i in rng.permutation(len(data))], task="choice"), SEA)["test"]
    assert {(q.picture, q.options) for q in first} == {(q.picture, q.options) for q in other}


def test_options_are_the_same_whoever_asks(file: Path) -> None:
    """A region's questions are the same alone and among all."""
    alone = questions(benchmark(file, rows(), task="choice", rows="region"), SEA)["test"]
    among = questions(benchmark(file, rows(), task="choice", rows="all"), SEA)["test"]
    assert set(alone) < set(among)


def test_a_broken_picture_is_an_error_and_not_a_silent_gap(file: Path) -> None:
    data = rows()
    data[4]["image"] = {"bytes": b"no picture", "path": None}
    with pytest.raises(InputError, match="cannot be decoded"):
        questions(benchmark(file, data, task="choice"), SEA)


# --------------------------------------------------------------------------------------------------------- pocket world
@pytest.fixture(scope="module")
def pocket() -> list[Question]:
    mine = load_benchmark("pocket-regional-choice")
    source = mine.source.model_copy(update={"options": {"test": 3}})
    return questions(mine.model_copy(update={"source": source}), SEA)["test"]


def test_pocket_options_are_of_the_same_category_where_there_are_enough(pocket: list[Question]) -> None:
    category = {concept.name: concept.category for concept in atlas.concepts()}
    for question in pocket:
        assert len(set(question.options)) == 4
        same = [option for option in question.options if category[option] == question.category]
        assert len(same) == 4  # every category has at least four concepts


def test_near_options_look_more_like_the_right_one_than_random_ones(pocket: list[Question]) -> None:
    """In the pixels of the bare drawings: than all names, and than those of the same category."""
    concepts = atlas.concepts()
    place = {concept.name: i for i, concept in enumerate(concepts)}
    looks = np.stack([np.asarray(render.draw_plain(concept.drawing, 24), float).ravel() for concept in concepts])
    near, random, category = [], [], []
    for question in pocket:
        distance = np.linalg.norm(looks - looks[place[right(question)]], axis=1)
        others = [concept for concept in concepts if concept.name != right(question)]
        near.append(np.mean([distance[place[o]] for o in question.options if o != right(question)]))
        random.append(np.mean([distance[place[o.name]] for o in others]))
        category.append(np.mean([distance[place[o.name]] for o in others if o.category == question.category]))
    assert np.mean(near) < 0.97 * np.mean(random)
    assert np.mean(near) < 0.97 * np.mean(category)
