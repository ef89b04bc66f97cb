"""Questions about the drawings: three kinds, one right option among near ones, and conversations that teach it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ggez_hub.data import readers
from ggez_hub.data.conversations import IMAGE, LETTERS, letter_of, lettered, problem
from ggez_hub.errors import InputError
from ggez_hub.pocket import atlas, questions
from ggez_hub.schema import HubSource
from ggez_hub.scoring import groups
from ggez_hub.scoring.answers import PROTOCOLS


def read(reader: str = "pocket_questions", path: Path | None = None, **options: int | str) -> list[dict[str, Any]]:
    source = HubSource(reader=reader, path=str(path) if path else None, options=dict(options))
    return [row for batch in readers.read(source) for row in batch.to_pylist()]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return read(train=24, selection=2, test=4, held_back=1)


def form(row: dict[str, Any]) -> str:
    said = row["messages"][1]["content"]
    return "letter" if said in LETTERS else "yes or no" if said in ("yes", "no") else "open"


# ------------------------------------------------------------------------------------------------------------ questions
def test_the_pictures_are_those_of_pocket(rows: list[dict[str, Any]]) -> None:
    added = ("question", "options", "answer", "kind", "messages")
    plain = read("pocket", train=24, selection=2, test=4, held_back=1)
    assert [row | dict.fromkeys(added) | {"text": ""} for row in rows] == [row | {"text": ""} for row in plain]
    assert all(row["text"].startswith(row["label"]) for row in rows)  # captions tell more


def test_a_question_stays_the_same_when_more_are_asked_for(rows: list[dict[str, Any]]) -> None:
    more = {row["id"]: row for row in read(train=26, selection=3, test=5, held_back=2)}
    assert all(more[row["id"]] == row for row in rows)


def test_one_of_four_different_options_is_right(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert len(set(row["options"])) == len(row["options"]) == 4
        assert row["answer"] in row["options"]
        assert row["question"] not in (None, "")


def test_the_right_option_is_at_every_place_equally_often(rows: list[dict[str, Any]]) -> None:
    test = [row for row in rows if row["split"] == "test"]
    for core in (True, False):
        places = Counter(row["options"].index(row["answer"]) for row in test if row["core"] is core)
        assert len(places) == 4
        assert len(set(places.values())) == 1
    train = Counter((row["kind"], row["options"].index(row["answer"])) for row in rows if row["split"] == "train")
    assert len(train) == 12
    assert max(train.values()) - min(train.values()) < 40  # the one picture of each concept outside the core


def test_the_three_kinds_are_even_on_both_sides_of_a_benchmark(rows: list[dict[str, Any]]) -> None:
    for core in (True, False):
        kinds = Counter(row["kind"] for row in rows if row["split"] == "test" and row["core"] is core)
        assert set(kinds) == set(questions.KINDS)
        assert min(kinds.values()) > 0.27 * sum(kinds.values())


def test_wrong_options_are_near(rows: list[dict[str, Any]]) -> None:
    concepts = {concept.name: concept for concept in atlas.concepts()}
    names = [row for row in rows if row["kind"] == "recognition"]
    same = [sum(concepts[option].category == row["category"] for option in row["options"]) for row in names]
    assert sum(same) > 0.9 * 4 * len(names)
    vietnam = [row for row in rows if row["answer"] == "Vietnam"]
    sea = {"Brunei Darussalam", "Cambodia", "Indonesia", "Laos", "Malaysia", "Myanmar", "Philippines", "Singapore",
           "Thailand", "Timor-Leste", "Vietnam"}  # fmt: skip
    assert vietnam
    assert all(sea.issuperset(row["options"]) for row in vietnam)


def test_the_names_alone_do_not_tell_which_is_right(rows: list[dict[str, Any]]) -> None:
    core = {concept.name: concept.core for concept in atlas.concepts()}
    for row in rows:
        if row["answer"] == row["label"]:
            assert {core[option] for option in row["options"]} == {row["core"]}


def test_a_scene_tells_a_fact_of_what_is_shown(rows: list[dict[str, Any]]) -> None:
    facts = {concept.name: concept.facts for concept in atlas.concepts()}
    told: set[str] = set()
    for row in rows:
        found = [fact for fact in facts[row["label"]] if fact in row["question"]]
        assert len(found) == (row["kind"] == "scene")
        told.update(found)
    assert len(told) > 0.8 * sum(map(len, facts.values()))


def test_the_same_picture_is_not_always_asked_with_the_same_options(rows: list[dict[str, Any]]) -> None:
    asked = {tuple(sorted(row["options"])) for row in rows if row["label"] == "sushi" and row["kind"] == "recognition"}
    assert len(asked) > 3


def test_countries_have_their_usual_names() -> None:
    names = {questions._country(concept.country) for concept in atlas.concepts()}
    assert {"Iran", "Laos", "South Korea", "Tanzania", "Vietnam", "Bolivia"} <= names
    assert not any("," in name for name in names)


def test_every_scene_is_of_a_category_of_the_atlas() -> None:
    assert set(questions.SCENES) < set(atlas.CATEGORIES)


# -------------------------------------------------------------------------------------------------------- conversations
def test_every_conversation_is_whole_and_shows_the_picture(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert problem(row["messages"]) is None
        assert row["messages"][0]["content"].startswith(IMAGE)


def test_a_listed_conversation_asks_as_the_benchmark_does_and_names_the_right_letter(
    rows: list[dict[str, Any]],
) -> None:
    listed = [row for row in rows if form(row) == "letter"]
    for row in listed:
        user, assistant = (message["content"] for message in row["messages"])
        assert user == IMAGE + lettered(row["question"], row["options"])
        assert row["options"][letter_of(assistant, row["options"])] == row["answer"]


def test_an_open_conversation_answers_in_words(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if form(row) == "open":
            assert [message["content"] for message in row["messages"]] == [IMAGE + row["question"], row["answer"]]


def test_yes_and_no_are_true(rows: list[dict[str, Any]]) -> None:
    asked = [row for row in rows if form(row) == "yes or no"]
    for row in asked:
        user, assistant = (message["content"] for message in row["messages"])
        named = [option for option in row["options"] if user.endswith((f" {option}?", f": {option}?"))]
        assert (row["answer"] in named) == (assistant == "yes")
    shares = Counter(row["messages"][1]["content"] for row in asked)
    assert 0.4 < shares["yes"] / len(asked) < 0.6


def test_the_forms_are_mixed_as_meant_in_every_kind(rows: list[dict[str, Any]]) -> None:
    for kind in questions.KINDS:
        forms = Counter(form(row) for row in rows if row["kind"] == kind)
        shares = {name: count / forms.total() for name, count in forms.items()}
        assert shares == pytest.approx({"open": 0.45, "letter": 0.40, "yes or no": 0.15}, abs=0.05)


# ----------------------------------------------------------------------------------------------------- reasoned answers
@pytest.fixture(scope="module")
def reasoned() -> list[dict[str, Any]]:
    return read(train=3, selection=1, test=2, held_back=1, answers="reasoned")


def test_reasoned_answers_are_about_the_same_pictures_and_questions(reasoned: list[dict[str, Any]]) -> None:
    plain = read(train=3, selection=1, test=2, held_back=1)
    same = ("id", "image", "text", "label", "category", "country", "options", "answer", "split", "core", "source")
    assert [{field: row[field] for field in same} for row in reasoned] == [
        {field: row[field] for field in same} for row in plain
    ]
    for asked, row in zip(plain, reasoned, strict=True):
        assert row["question"].startswith(asked["question"])
        assert row["kind"] == questions.QUESTION_TYPES[asked["kind"]]


def test_a_reasoned_answer_tells_what_is_shown_and_ends_with_the_right_letter(reasoned: list[dict[str, Any]]) -> None:
    read_letter = PROTOCOLS["reasoned"].place
    assert read_letter
    for row in reasoned:
        user, assistant = (message["content"] for message in row["messages"])
        assert problem(row["messages"]) is None
        assert user == IMAGE + row["question"]
        assert assistant.startswith(f"{row['answer']}: the picture shows {row['label']}, {row['category']} of ")
        assert row["options"][read_letter(assistant, row["options"])] == row["answer"]
        assert assistant.endswith(f"({LETTERS[row['options'].index(row['answer'])]})")


def test_every_concept_is_on_a_continent(reasoned: list[dict[str, Any]]) -> None:
    continents = groups.of("continent")
    assert {row["continent"].casefold() for row in reasoned} == set(questions.CONTINENTS)
    assert all(continents[row["country"]] == row["continent"].casefold() for row in reasoned)


def test_a_file_in_our_cultureverse_format_gives_the_same_rows(reasoned: list[dict[str, Any]], tmp_path: Path) -> None:
    some = [
        row for row in reasoned if row["label"] in ("sushi", "satay", "Angkor Wat", "Borobudur", "Machu Picchu", "hula")
    ]
    assert {row["split"] for row in some} == {"train", "selection", "test"}
    records = [
        questions.record(row["label"], int(row["id"].rpartition("/")[2]), row["split"])
        | {"id": row["id"], "image": row["id"]}
        for row in some
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    added = ("messages", "text", "label", "source", "license", "core")  # what a benchmark has not
    asked, trained = read("cultureverse", path), read("cultureverse_train", path)
    for row, other in zip(some, asked, strict=True):
        assert {k: v for k, v in row.items() if k not in added} == {k: v for k, v in other.items() if k not in added}
    of_training = [row for row in some if row["split"] == "train"]
    fields = ("id", "image", "messages", "category", "country", "kind", "concept", "continent", "split")
    for row, other in zip(of_training, trained, strict=True):
        assert {field: row[field] for field in fields} == {field: other[field] for field in fields}


def test_answers_are_of_a_known_kind() -> None:
    with pytest.raises(InputError, match=r"options\.answers: 'long' is none of plain, reasoned"):
        read(train=1, answers="long")
