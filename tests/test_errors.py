"""Errors: what the exit code is, and what the message offers."""

import pytest

from ggez_hub.errors import (
    ConfigError,
    DependencyError,
    GateError,
    GgezError,
    HubError,
    InputError,
    did_you_mean,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [(GgezError, 1), (InputError, 2), (ConfigError, 2), (DependencyError, 3), (HubError, 4), (GateError, 5)],
)
def test_every_kind_of_error_has_the_exit_code_that_scripts_rely_on(error: type[GgezError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, GgezError)


def test_hint_follows_the_message() -> None:
    assert str(InputError("no such thing", "ggez ls")) == "no such thing\n  hint: ggez ls"
    assert str(InputError("no such thing")) == "no such thing"


def test_all_problems_of_files_are_in_one_error() -> None:
    error = ConfigError(["a.yaml:1  one", "b.yaml:2  two"], "ggez validate")
    assert str(error) == "a.yaml:1  one\nb.yaml:2  two\n  hint: ggez validate"
    assert error.problems == ("a.yaml:1  one", "b.yaml:2  two")


def test_nearest_word_is_offered() -> None:
    assert did_you_mean("embeding", ["vlm", "embedding", "bedding"]) == "; did you mean 'embedding'?"


def test_what_is_near_nothing_gets_the_known_words_in_order() -> None:
    assert did_you_mean("xyz", ["vlm", "embedding"]) == "; known: embedding, vlm"
    assert did_you_mean("xyz", []) == ""


def test_many_known_words_are_cut_short() -> None:
    shown = did_you_mean("xyz", (f"word{i:03}" for i in range(100)))
    assert shown.startswith("; known: word000, word001")
    assert shown.endswith(", ...")
    assert len(shown) < 250
