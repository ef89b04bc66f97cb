"""Judging answers: right or wrong, a confidence, or unreadable."""

from typing import Any

import numpy as np
import pytest

from ggez_hub.families.base import Query
from ggez_hub.schema import Benchmark, Source
from ggez_hub.scoring.answers import answered, prediction, unparsed
from ggez_hub.scoring.questions import Question

NAMES = ("pho", "satay", "durian", "laksa")


def benchmark(**fields: Any) -> Benchmark:
    return Benchmark.model_validate({"title": "Any", "source": Source(reader="pocket"), "task": "top1"} | fields)


def asked(answer: str, options: tuple[str, ...] = NAMES) -> Question:
    return Question("q", Query(), options, answer, "VNM", "Food", "", b"")


def scores(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, np.float32) for row in rows]


DRAWING: dict[str, Any] = {"task": "drawing", "prompt": "{label}", "judge": "a/judge"}


# -------------------------------------------------------------------------------------------------------------- options
def test_the_likeliest_option_is_the_answer() -> None:
    questions = [asked("pho"), asked("laksa"), asked("satay")]
    found = answered(benchmark(), questions, scores([3, 1, 2, 0], [0, 0.5, 0.1, 0.2], [-9, -1, -2, -3]))
    assert found["value"].tolist() == [1, 0, 1]
    assert (found["value"].dtype, found["choice"].dtype) == (np.float32, np.int32)
    assert [prediction(question, found, i) for i, question in enumerate(questions)] == ["pho", "satay", "satay"]
    assert unparsed(found) == 0


def test_questions_may_have_unequal_numbers_of_options() -> None:
    questions = [asked("pho", ("satay", "pho")), asked("laksa"), asked("durian", ("durian",))]
    found = answered(benchmark(task="question"), questions, scores([0, 1], [0, 0, 0, -1], [5]))
    assert found["value"].tolist() == [1, 0, 1]
    assert [prediction(question, found, i) for i, question in enumerate(questions)] == ["pho", "pho", "durian"]


@pytest.mark.parametrize("answer", ["option", "letter", "open"])
def test_no_question_gives_no_answer(answer: str) -> None:
    found = answered(benchmark(answer=answer), [], [])
    assert found["value"].shape == found["choice"].shape == (0,)
    assert unparsed(found) == 0


# ------------------------------------------------------------------------------------------------------------- writing
def test_letters_that_cannot_be_read_count_as_wrong() -> None:
    texts = ["B", "C. durian", "A or B", "", "I do not know", "B"]
    questions = [asked("satay")] * 5 + [asked("pho")]
    found = answered(benchmark(answer="letter"), questions, [np.array(text) for text in texts])
    assert found["choice"].tolist() == [1, 2, -1, -1, -1, 1]
    assert found["value"].tolist() == [1, 0, 0, 0, 0, 0]
    assert found["text"].tolist() == texts
    assert unparsed(found) == 3
    assert [prediction(questions[i], found, i) for i in (0, 1, 2, 3)] == ["satay", "durian", "", ""]


def test_a_letter_is_judged_by_the_options_of_its_own_question() -> None:
    questions = [asked("pho", ("satay", "pho")), asked("laksa", ("laksa", "pho"))]
    found = answered(benchmark(answer="letter"), questions, [np.array("B"), np.array("C")])
    assert found["choice"].tolist() == [1, -1], "there is no third option"
    assert found["value"].tolist() == [1, 0]


def test_an_open_answer_matches_any_of_its_references() -> None:
    texts = ["  The Phở!", "noodle soup", "rice", " ", "phở noodle soup", ""]
    questions = [asked("phở|noodle soup", ())] * len(texts)
    found = answered(benchmark(task="question", answer="open"), questions, [np.array(text) for text in texts])
    assert found["value"].tolist() == [1, 1, 0, 0, 0, 0]
    assert unparsed(found) == 2, "nothing was written"
    assert prediction(questions[2], found, 2) == "rice"


def test_long_and_odd_texts_are_kept_whole() -> None:
    texts = ["x" * 5000, "ก็ได้ 好", "a\nb"]
    found = answered(benchmark(answer="open"), [asked("pho", ())] * 3, [np.array(text) for text in texts])
    assert found["text"].tolist() == texts


# ------------------------------------------------------------------------------------------------------------- drawings
def test_a_drawing_is_right_where_the_judge_names_it() -> None:
    questions = [asked("pho"), asked("satay")]
    found = answered(benchmark(**DRAWING), questions, scores([2, 1, 0, 0], [2, 1, 0, 0]))
    assert found["value"].tolist() == [1, 0]
    assert prediction(questions[1], found, 1) == "pho"


def test_confidence_is_the_share_of_the_right_label() -> None:
    given = scores([2, 1, 0, -1], [1000, -1000, 0, 999], [0, 0, 0, 0])
    questions = [asked("satay"), asked("laksa"), asked("durian")]
    found = answered(benchmark(**DRAWING, measure="confidence"), questions, given)
    e = np.e
    expected = [e / (e**2 + e + 1 + 1 / e), 1 / (1 + e), 0.25]
    np.testing.assert_allclose(found["value"], expected, rtol=1e-5)
    assert found["value"].dtype == np.float32
    assert found["choice"].tolist() == [0, 0, 0]


def test_a_distance_keeps_what_it_will_be_measured_from() -> None:
    given = scores([2, 1, 0, -1], [0, 1, 0, 0])
    found = answered(benchmark(**DRAWING, measure="distance"), [asked("pho"), asked("satay")], given)
    np.testing.assert_array_equal(found["features"], given)
    assert found["features"].dtype == np.float32
    assert found["choice"].tolist() == [0, 1]
