"""Front matter: what goes in comes out, nothing invalid passes, and no stranger's YAML does harm."""

import contextlib
import copy
import math
from pathlib import Path
from typing import Any

import pycountry
import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from ggez_hub import metadata
from ggez_hub.errors import InputError
from ggez_hub.schema import Recipe
from ggez_hub.stages.card import front_matter

CARDS = sorted((Path(__file__).parents[1] / "cards" / "pocket").glob("*/*.md"))
TRAPS = ["no", "yes", "null", "true", "1e5", "1.5", "0x1f", "2023-01-01", "12", "on", "12-30"]  # words to people
names = st.sampled_from(TRAPS) | st.from_regex(metadata.NAME, fullmatch=True)
lines = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))).filter(str.strip)
languages = st.sampled_from(["no", "en", "fil", "yue", *[x.alpha_3 for x in pycountry.languages]])
fractions = st.floats(0, 1)
numbers = st.floats(0, 1e6)


def judged(gain: float | None, low: float, high: float) -> dict[str, Any]:
    found = {"gain": gain, "retention": gain}
    intervals = {f"{key}_ci95": None if gain is None else sorted((low, high)) for key in found}
    return {"alpha": 0.5, "grp": 0.7, **found, **intervals}


@st.composite
def front(draw: st.DrawFn) -> Any:
    """The front matter of any card that the card stage could write, as it goes in."""
    artefact = draw(st.sampled_from(["adapter", "merged"]))
    benchmarks = draw(st.dictionaries(names, fractions, min_size=1, max_size=3))
    recipe = Recipe.model_validate(
        {
            "title": draw(lines),
            "family": draw(st.sampled_from(["embedding", "vlm", "diffusion"])),
            "region": draw(names),
            "base": {"id": draw(st.sampled_from(["google/siglip2-base-patch16-224", "a/b", "base", "/home/me/base"]))},
            "data": {"reader": "pocket", "languages": tuple(draw(st.lists(languages, min_size=1, max_size=5)))},
            "sweep": {"global": tuple(benchmarks), "regional": tuple(benchmarks)},
            "card": {"license": draw(st.sampled_from(sorted(metadata.LICENSES - {"other"}))), "title": draw(lines)},
        }
    )
    measured = {name: {"value": value, "metric": "accuracy"} for name, value in benchmarks.items()}
    results = {
        "chosen": judged(draw(st.none() | numbers), draw(numbers), draw(numbers)),
        "points": [{"alpha": 0.5, "benchmarks": measured}],
        "synthetic": draw(st.booleans()),
    }
    return front_matter(recipe, draw(names), artefact, results)


def card_of(data: Any) -> str:
    block = yaml.safe_dump(data, allow_unicode=True) if isinstance(data, dict) else data.to_yaml()
    return f"---\n{block}\n---\n\n# Body\n"


# ----------------------------------------------------------------------------------------------- what goes in comes out
@given(front())
def test_whatever_a_card_says_comes_out_unchanged_and_is_valid(data: Any) -> None:
    text = card_of(data)
    assert metadata.problems(text) == []
    assert ModelCard(text).data.to_dict() == data.to_dict() == metadata.read(text)


@given(lines, st.lists(lines, max_size=5), names)
def test_any_title_and_tag_survives(title: str, tags: list[str], region: str) -> None:
    valid = {"license": "other", "license_name": title, "tags": [*tags, f"ggez-region:{region}"], "language": ["no"]}
    assert metadata.problems(card_of(valid)) == []
    assert metadata.read(card_of(valid)) == valid


@pytest.mark.parametrize("path", CARDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_cards_are_valid(path: Path) -> None:
    assert metadata.problems(path.read_text()) == []


# ---------------------------------------------------------------------------------------------- nothing invalid passes
wrong = st.one_of(st.none(), st.integers(), st.just({"a": 1}), st.just(["\x07"]), st.just(""), st.booleans())
endless = st.sampled_from([math.nan, math.inf, -math.inf, "0.9", None, True, [0.9]])
RESULT = ("model-index", 0, "results", 0)
BAD: dict[tuple[str | int, ...], Any] = {
    ("license",): wrong | st.sampled_from(["aapche-2.0", "Apache-2.0", "MIT", ["mit"]]),
    ("language",): wrong | st.sampled_from(["klingon", "EN", "en-US", "xxx", ["en", "qq"], [False]]),
    ("library_name",): wrong,
    ("pipeline_tag",): wrong | st.just("image-understanding"),
    ("tags",): wrong | st.sampled_from([["a\nb"], ["a", 1], "ggez", [f"tag-{i}" for i in range(101)]]),
    ("base_model",): wrong | st.sampled_from(["base", "/home/me/base", "a/b/c", "../b", "a--b/c", "a/b.git", "a/b\n"]),
    ("base_model_relation",): wrong | st.just("cousin"),
    ("model-index",): wrong,
    ("model-index", 0, "name"): wrong,
    ("model-index", 0, "results"): wrong,
    (*RESULT, "task"): wrong,
    (*RESULT, "task", "type"): wrong,
    (*RESULT, "dataset", "type"): wrong,
    (*RESULT, "dataset", "name"): wrong,
    (*RESULT, "metrics"): wrong,
    (*RESULT, "metrics", 0, "type"): wrong,
    (*RESULT, "metrics", 0, "value"): endless,
    ("ggez",): wrong,
    ("ggez", "artefact"): wrong | st.just("model"),
    ("ggez", "family"): wrong | st.just("Siglip!"),
    ("ggez", "region"): wrong | st.just("South East"),
    ("ggez", "alpha"): endless | st.floats(max_value=-1e-6) | st.floats(min_value=1.001),
    ("ggez", "gain"): endless | st.floats(max_value=-1.001),
    ("ggez", "gain_ci95"): endless | st.sampled_from([[0.2, 0.1], [0.1], [0.1, 0.2, 0.3], [0.1, math.nan], "0 to 1"]),
    ("ggez", "retention"): endless | st.floats(max_value=-1e-6),
    ("ggez", "retention_ci95"): endless | st.just([math.nan, 1.0]),
    ("ggez", "grp"): endless | st.just(70.0),
    ("ggez", "synthetic"): st.sampled_from([0, 1, "yes", None, []]),
    ("ggez", "gian"): st.just(0.3),
}
VALID: dict[str, Any] = {
    "license": "mit", "language": ["en", "no"], "library_name": "peft", "pipeline_tag": "image-text-to-text",
    "tags": ["ggez"], "base_model": "google/gemma-3-4b-it", "base_model_relation": "adapter",
    "model-index": [{"name": "x", "results": [{
        "task": {"type": "image-text-to-text"}, "dataset": {"type": "quiz", "name": "Quiz"},
        "metrics": [{"type": "accuracy", "value": 0.5}],
    }]}],
    "ggez": {"artefact": "adapter", "family": "vlm", "region": "sea", "alpha": 0.5, "gain": 0.2,
             "gain_ci95": [0.1, 0.3], "retention": 0.99, "retention_ci95": [0.98, 1.0], "grp": 0.7, "synthetic": False},
}  # fmt: skip


@settings(max_examples=25)
@given(st.data())
@pytest.mark.parametrize("path", BAD, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_value_is_named(path: tuple[str | int, ...], data: st.DataObject) -> None:
    assert metadata.problems(card_of(VALID)) == []
    changed = copy.deepcopy(VALID)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = data.draw(BAD[path])
    name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")
    found = metadata.problems(card_of(changed))
    assert found
    assert all(line.startswith(name) and ": found " in line and ", expected " in line for line in found), found


@pytest.mark.parametrize(
    ("key", "expected"),
    [("artefact", "ggez.artefact: found nothing"), ("alpha", "ggez.alpha: found nothing"), ("gain", None)],
)
def test_only_what_can_be_unknown_may_be_absent(key: str, expected: str | None) -> None:
    changed = copy.deepcopy(VALID)
    del changed["ggez"][key]
    assert [line.startswith(expected or "") for line in metadata.problems(card_of(changed))] == (
        [True] * bool(expected)
    )


def test_other_license_needs_a_name() -> None:
    (line,) = metadata.problems(card_of({"license": "other"}))
    assert line.startswith("license_name: found nothing")
    assert metadata.problems(card_of({"license": "other", "license_name": "gemma-terms"})) == []


# ------------------------------------------------------------------------------------------------------ strangers' YAML
@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("a: &x [1]\nb: *x", "anchor, alias or tag"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchor, alias or tag"),
        ("a: !!python/object/apply:os.system [id]", "anchor, alias or tag"),
        ("a: !!bool maybe", "anchor, alias or tag"),
        ("license: mit\nlicense: gpl", "line 3: key 'license' given twice"),
        ("license: [", "line 3"),
        ("[" * 100_000, "more than 20 levels"),
        ("a: 0x" + "f" * 9000, "digits"),
        ("a: 2024-13-45", "month"),
        ("? [a]\n: b", "front matter"),
        ("1: b", "a mapping whose keys are text"),
        ("- a", "a mapping whose keys are text"),
        ("", "a mapping whose keys are text"),
        ("a: " + "x" * 2**20, "at most 1048576"),
    ],
)
def test_yaml_that_no_card_needs_is_refused(block: str, message: str) -> None:
    text = f"---\n{block}\n---\n"
    with pytest.raises(InputError, match=message):
        metadata.read(text)
    assert len(metadata.problems(text)) == 1


def test_a_card_without_front_matter_says_so() -> None:
    for text in ("", "# Title\n", "---\nlicense: mit\n", "text\n---\nlicense: mit\n---\n"):
        with pytest.raises(InputError, match="found none"):
            metadata.read(text)


def test_body_and_line_ends_do_not_matter() -> None:
    assert metadata.read("---\r\nlicense: mit\r\n---\r\n---\na: &x 1\n---\n") == {"license": "mit"}
    assert metadata.split("---\nlicense: mit\n---\n\n# Title\n---\n") == ("license: mit\n", "\n# Title\n---\n")


@given(st.text() | st.text(st.sampled_from("-:[]{}?&*!|>'\"#%@`, \n\t09xabe.=<~")))
def test_any_text_is_read_or_refused_in_words(block: str) -> None:
    for text in (block, f"---\n{block}\n---\n"):
        with contextlib.suppress(InputError):  # and nothing else
            assert all(isinstance(key, str) for key in metadata.read(text))
        assert all(": found " in line or line.startswith("front matter") for line in metadata.problems(text))
