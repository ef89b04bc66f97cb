import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ggez_hub import families
from ggez_hub.data import rewards, translation
from ggez_hub.data.texts import other_language
from ggez_hub.endpoint import Ask
from ggez_hub.endpoint import Endpoint as Client
from ggez_hub.registry import load_region
from ggez_hub.rehearsal.making import picture
from ggez_hub.rehearsal.standin import FEW, Endpoint, translated
from ggez_hub.rehearsal.words import said, words
from ggez_hub.schema import Reward, Translate, Translator

REGION = load_region("sea")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


def rows(count: int, conversations: bool = False) -> pa.RecordBatch:
    talk = [
        {"role": "user", "content": "<image>Which is shown, of 12?\nA. A red drum\nB. A long, dark <b>flute</b>"},
        {"role": "assistant", "content": "The answer is B. It has been played since 1920 in {place}."},
    ]
    return pa.RecordBatch.from_pydict(
        {
            "id": [str(i) for i in range(count)],
            "image": pa.array([{"bytes": picture(32, i), "path": None} for i in range(count)], IMAGE),
            "text": [None if conversations else said("eng", i, count=9, place="IDN") for i in range(count)],
            "messages": pa.array([talk if conversations else None] * count, MESSAGES),
            "language": ["eng"] * count,
            "license": ["mit"] * count,
        }
    )


@pytest.mark.parametrize(("model", "conversations"), [
    ("unified-reward", False), ("unified-reward-2", True),
    pytest.param("unified-reward", True, marks=pytest.mark.slow),
    pytest.param("unified-reward-2", False, marks=pytest.mark.slow),
])  # fmt: skip
def test_of_the_rewards_it_gives_some_are_below_three_and_most_above(
    server: Endpoint, model: str, conversations: bool
) -> None:
    score = rewards.scorer(Reward(model=model, endpoint=server.url), families)
    batch = rows(40, conversations)
    outcome = rewards.scored(score, 3)(batch)
    values = outcome.batch["reward"].to_pylist()
    assert None not in values, outcome.why.to_pylist()
    assert 1 <= outcome.kept.false_count < 20
    assert all(1 <= value <= 5 for value in values)
    assert rewards.scored(score, 3)(batch).batch["reward"].to_pylist() == values


@pytest.mark.slow
def test_translations_into_every_language_of_a_region_pass_all_checks_and_come_back(
    server: Endpoint, tmp_path: Path
) -> None:
    settings = Translate(
        translators={"chat": Translator(id="any", endpoint=server.url)},
        default="chat",
        copies=14,
        min_back=0.9,
    )
    for batch in (rows(2), rows(1, conversations=True)):
        found = translation.translated(batch, settings, REGION, tmp_path / "kept.sqlite")
        assert not found.problems
        assert sorted(set(found.batch["language"].to_pylist())) == sorted(REGION.languages)
        assert found.batch.num_rows == 14 * batch.num_rows
        said_anew = found.batch["text"].to_pylist() + [json.dumps(m) for m in found.batch["messages"].to_pylist()]
        assert not set(said_anew[: batch.num_rows]) & set(batch["text"].to_pylist()) - {None}


def test_what_has_to_stay_in_a_translation_stays(server: Endpoint, tmp_path: Path) -> None:
    settings = Translate(translators={"chat": Translator(id="any", endpoint=server.url)}, default="chat")
    region = load_region("na").model_copy(update={"languages": ("fra",)})
    found = translation.translated(rows(1, True), settings, region, tmp_path / "kept.sqlite")
    asked, told = (message["content"] for message in found.batch["messages"][0].as_py())
    assert asked.startswith("<image>")
    assert "12" in asked
    assert "<b>" in asked
    assert "\nA. " in asked
    assert "1920" in told
    assert "{place}" in told
    assert "B" in told.split(".")[0]


def test_it_serves_any_model_and_lists_those_that_it_was_asked_for(server: Endpoint) -> None:
    (answer,) = Client(server.url, "org/whatever").ask([Ask("Which letter?")])
    assert answer == ("A", "")
    listed = json.load(urllib.request.urlopen(f"{server.url}/models"))
    assert "org/whatever" in [model["id"] for model in listed["data"]]


@pytest.mark.parametrize(
    "language", ["ind", "min", "tet", "tha", "khm", "mya", "tam", "zho", "ben", "amh", "tzm", "fra"]
)
def test_words_of_a_language_are_in_its_script_and_not_english(language: str) -> None:
    found = words(language)
    assert len(found) >= 40
    assert not other_language(translated("A small wooden drum that is played at weddings", language), language, FEW)
    assert words(language) == found
