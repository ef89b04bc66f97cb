"""Conversations: options in letters and back, answers that match, and what is said of a broken conversation."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub.data.conversations import IMAGE, LETTERS, letter_of, lettered, matches, normalised, problem
from ggez_hub.errors import InputError

NAMES = ("pho", "sushi", "a drawing of tango", "Svan tower")
OPTIONS = st.lists(st.text(string.ascii_lowercase + " ", min_size=3, max_size=12), min_size=2, max_size=6, unique=True)
WAYS = (
    "{}", "({})", "{}.", "{})", "{}:", " {}\n", "**{}**", "[{}]", "Answer: {}", "The answer is {}.", "answer: ({})",
    "The correct option is {}.", "The answer is ({}).", "It has a roof of thatch.\n{}", "It is round, so ({})",
)  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- letters
def test_options_stand_in_lines_and_the_last_line_asks_for_the_letter() -> None:
    assert lettered("What is this?", ["pho", "sushi"]) == "What is this?\nA. pho\nB. sushi\nAnswer with the letter."


def test_more_options_than_letters_are_refused() -> None:
    assert lettered("?", ["x"] * 26).count("\n") == 27
    with pytest.raises(InputError, match="27 options"):
        lettered("?", ["x"] * 27)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize("place", range(4))
def test_a_letter_is_read_however_it_is_written(way: str, case: Any, place: int) -> None:
    assert letter_of(way.format(case(LETTERS[place])), NAMES) == place


@given(OPTIONS, st.data())
def test_a_letter_with_the_words_of_its_option_is_read(options: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(options) - 1))
    line = lettered("?", options).splitlines()[1 + place]
    assert letter_of(line, options) in (place, -1)  # -1: another option with the same words
    plain = [normalised(option) for option in options]
    if plain.count(plain[place]) == 1 and plain[place]:
        assert letter_of(line, options) == place


@given(OPTIONS, st.data())
def test_two_letters_are_no_answer(options: list[str], data: st.DataObject) -> None:
    first, second = data.draw(st.lists(st.sampled_from(LETTERS[: len(options)]), min_size=2, max_size=2, unique=True))
    for way in ("{}, {}", "{} or {}", "({}) ({})", "{} {}", "{}. {}.", "{}/{}", "{}\n{}", "Answer: {}. Answer: {}"):
        said = way.format(first, second)
        if normalised(said) not in map(normalised, options):  # the very words of an option are no two letters
            assert letter_of(said, options) == -1


@given(st.text(max_size=60), OPTIONS)
def test_any_text_is_read_as_a_place_or_as_none(text: str, options: list[str]) -> None:
    assert -1 <= letter_of(text, options) < len(options)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", -1),
        ("pho", 0),  # the words of an option
        ("The Sushi.", 1),
        ("B sushi", 1),
        ("B. pho", -1),  # the letter of one, the words of another
        ("E", -1),  # only four are asked
        ("(F)", -1),
        ("A dog runs", -1),  # an article
        ("a temple", -1),
        ("the answer is a bird", -1),
        ("I do not know", -1),
        ("It is not (B)", -1),
        ("(B) is wrong", -1),
        ("A and B", -1),
        ("ABCD", -1),
        ("A B", -1),
        ("It has much vitamin C.", -1),
        ("B. I think so.", 1),
        ("C. a drawing of tango", 2),
        ("Ⓑ", 1),  # Unicode's compatible forms
        ("（Ｄ）", 3),
        ("C, because it is a dance", 2),
        ("(A) pho, (B) sushi", -1),
    ],
)
def test_what_is_read_of_an_answer(text: str, place: int) -> None:
    assert letter_of(text, NAMES) == place


def test_words_that_two_options_share_name_neither() -> None:
    assert letter_of("pho", ["pho", "Pho"]) == -1


def test_the_letter_counts_where_options_are_letters() -> None:
    assert letter_of("A", ["B", "A"]) == 0


# --------------------------------------------------------------------------------------------------------- open answers
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Pho.", "pho"),
        ("  the Great   Wall!", "great wall"),
        ("jack-o'-lantern", "Jack O Lantern"),
        ("taovala", "ta'ovala"),
        ("ｐｈｏ", "pho"),
        ("cafe\u0301", "caf\u00e9"),
        ("noodles", "pho|noodles"),
        ("A", "a"),
        ("STRASSE", "straße"),
    ],
)
def test_what_counts_as_the_same(text: str, answer: str) -> None:
    assert matches(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("pho", "phở"), ("pho", "sushi"), ("", ""), ("...", "!"), ("pho sushi", "pho|sushi"), ("", "a|")],
)
def test_what_does_not(text: str, answer: str) -> None:
    assert not matches(text, answer)


@given(st.text(max_size=30))
def test_a_normalised_text_stays_as_it_is(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(st.lists(st.text(max_size=12).filter(lambda text: "|" not in text), min_size=1, max_size=4))
def test_every_reference_matches_itself(references: list[str]) -> None:
    for reference in references:
        assert matches(reference.upper().lower() + " ", "|".join([*references, reference.upper().lower()])) == bool(
            normalised(reference.upper().lower())
        )


# -------------------------------------------------------------------------------------------------------- conversations
def said(*turns: str) -> list[dict[str, str]]:
    """Messages written as "user: ..."."""
    return [{"role": role, "content": content} for role, _, content in (turn.partition(": ") for turn in turns)]


TURNS = st.text(min_size=1, max_size=8).filter(lambda text: bool(text.strip()))


@given(st.lists(st.tuples(TURNS, TURNS), min_size=1, max_size=3), st.booleans(), st.data())
def test_a_whole_conversation_has_no_problem(pairs: list[tuple[str, str]], system: bool, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(pairs) - 1))
    pairs[place] = (IMAGE + pairs[place][0], pairs[place][1])
    turns = [f"{role}: {text}" for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    assert problem(said(*(["system: Be brief."] if system else []), *turns)) is None
    assert problem(said(*turns[:-1])) is not None
    assert problem(said(*turns[1:])) is not None


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "it has no message"),
        (said("system: be brief"), "its last message is not by the assistant"),
        (said("user: x"), "its last message is not by the assistant"),
        (said("assistant: x"), "message 1 is by 'assistant', expected 'user'"),
        (said("system: s", "assistant: x", "user: y"), "message 2 is by 'assistant', expected 'user'"),
        (said("user: x", "user: y"), "message 2 is by 'user', expected 'assistant'"),
        (said("user: x", "system: y"), "message 2 is by 'system', expected 'assistant'"),
        (said("human: x", "assistant: y"), "message 1 is by 'human', expected 'user'"),
        (said("user: x", "assistant:  "), "message 2 is empty"),
        ([{"role": "user", "content": None}, {"role": "assistant", "content": "x"}], "message 1 is empty"),
        (said("user: <image><image>x", "assistant: y"), "it has <image> more than once"),
        (said("user: <image>x", "assistant: y", "user: <image>", "assistant: z"), "it has <image> more than once"),
        (said("user: x", "assistant: <image>y"), "<image> stands in a message that is not the user's"),
        (said("system: <image>", "user: x", "assistant: y"), "<image> stands in a message that is not the user's"),
    ],
)
def test_a_broken_conversation_is_told_what_is_wrong(messages: list[dict[str, Any]], message: str) -> None:
    assert problem(messages) == message
