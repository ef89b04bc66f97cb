"""Measuring a published model again: what holds, what does not, and what was edited."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ggez_hub import load_recipe
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.runs import Run
from ggez_hub.stages import push
from ggez_hub.verify import Checked, _asked, table, verify

BENCHMARKS = {"tiny-global", "tiny-regional", "tiny-choice"}


@pytest.fixture
def repositories(tiny_run: Run) -> tuple[Path, Path]:
    """The adapter and the merged checkpoint of a tiny recipe, in the layout of the Hub."""
    written = push.to_folder(load_recipe("tiny"), tiny_run, Path("hub"))
    return written[0][0], written[1][0]


def test_numbers_of_an_honest_adapter_hold_and_are_the_same(repositories: tuple[Path, Path]) -> None:
    checked = verify(str(repositories[0]), subset=None)
    assert {each.what for each in checked} == BENCHMARKS | {"gain", "retention"}
    assert {each.alpha for each in checked} >= {0.0, None}
    for each in checked:
        assert each.holds
        assert each.measured == pytest.approx(each.claimed, abs=1e-6), each.what
    shown = table(checked)
    assert "NOT" not in shown
    assert shown.count("holds") == len(checked)


def test_merged_checkpoint_is_measured_at_its_alpha_alone(repositories: tuple[Path, Path]) -> None:
    checked = verify(str(repositories[1]), subset=None)
    assert {each.what for each in checked} == BENCHMARKS
    assert len({each.alpha for each in checked}) == 1
    assert all(each.holds for each in checked)


def test_a_subset_asks_as_many_questions_and_always_the_same(repositories: tuple[Path, Path]) -> None:
    first, second = (verify(str(repositories[0]), subset=10) for _ in range(2))
    assert first == second
    assert {each.n for each in first if each.alpha is not None} == {10}


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def wrong(repository: Path) -> set[str]:
    return {each.what for each in verify(str(repository), subset=5) if each.holds is False}


def test_claims_that_are_too_good_do_not_hold(repositories: tuple[Path, Path]) -> None:
    def brag(results: Any) -> None:
        for point in results["points"]:
            point["benchmarks"]["tiny-global"] |= {"value": 0.97, "ci95": [0.95, 0.99]}
        results["chosen"] |= {"gain": 9.0, "gain_ci95": [8.5, 9.5]}

    edit_json(repositories[0] / "results.json", brag)
    found = {each.what for each in verify(str(repositories[0]), subset=None) if not each.holds}
    assert found >= {"tiny-global", "gain"}
    assert not found & {"tiny-regional", "tiny-choice", "retention"}


def test_wide_intervals_help_no_claim(repositories: tuple[Path, Path]) -> None:
    def brag(results: Any) -> None:
        for point in results["points"]:
            for measured in point["benchmarks"].values():
                measured |= {"value": 0.99, "ci95": [0.0, 1.0]}

    edit_json(repositories[0] / "results.json", brag)
    assert {each.what for each in verify(str(repositories[0]), subset=None) if each.holds is False} >= BENCHMARKS


@pytest.mark.parametrize("key", ["value", "alpha", "gain", "retention", "grp"])
def test_a_card_that_was_edited_does_not_hold(repositories: tuple[Path, Path], key: str) -> None:
    card = repositories[0] / "README.md"
    text, count = re.subn(rf"(\n +(?:- )?{key}: )[0-9.e-]+", r"\g<1>0.87654", card.read_text(), count=1)
    assert count
    card.write_text(text)
    assert any("in the card's metadata" in what for what in wrong(repositories[0]))


@pytest.mark.parametrize("artefact", [0, 1], ids=["adapter", "merged"])
@pytest.mark.parametrize("key", ["gain", "retention"])
def test_facts_that_were_edited_do_not_hold(repositories: tuple[Path, Path], artefact: int, key: str) -> None:
    edit_json(repositories[artefact] / "ggez.json", lambda facts: facts.update({key: 9.0}))
    assert f"{key} in ggez.json" in wrong(repositories[artefact])


@pytest.mark.parametrize("key", ["gain", "retention", "grp"])
def test_what_follows_from_other_numbers_is_not_taken_on_trust(repositories: tuple[Path, Path], key: str) -> None:
    edit_json(repositories[1] / "results.json", lambda results: results["chosen"].update({key: 0.91}))
    assert f"{key} in results.json" in wrong(repositories[1])


@pytest.mark.parametrize("key", ["global", "regional", "grp"])
def test_sides_are_the_means_of_their_benchmarks(repositories: tuple[Path, Path], key: str) -> None:
    edit_json(repositories[0] / "results.json", lambda results: results["points"][1].update({key: 0.91}))
    assert f"{key} in results.json" in wrong(repositories[0])


def test_the_region_is_the_same_everywhere(repositories: tuple[Path, Path]) -> None:
    edit_json(repositories[0] / "ggez.json", lambda facts: facts.update({"region": "ssa"}))
    with pytest.raises(InputError, match="the region is not the same everywhere"):
        verify(str(repositories[0]))


def test_benchmarks_that_are_not_known_here_are_named(repositories: tuple[Path, Path]) -> None:
    path = repositories[0] / "recipe.yaml"
    path.write_text(path.read_text().replace("tiny-global", "somebody-elses"))
    with pytest.raises(ConfigError, match="unknown benchmark 'somebody-elses'"):
        verify(str(repositories[0]))


def test_a_repository_does_not_choose_a_file_here_to_extend(repositories: tuple[Path, Path]) -> None:
    path = repositories[0] / "recipe.yaml"
    path.write_text(f"extends: {Path('recipes/tiny.yaml').absolute()}\n{path.read_text()}")
    with pytest.raises(ConfigError, match=r"recipe\.yaml:1  extends: unknown key"):
        verify(str(repositories[0]))


def test_a_benchmark_that_only_one_file_names_is_no_way_out(repositories: tuple[Path, Path]) -> None:
    path = repositories[0] / "recipe.yaml"
    path.write_text(path.read_text().replace("  - tiny-choice\n", ""))
    with pytest.raises(InputError, match=r"results\.json has not the benchmarks of recipe\.yaml"):
        verify(str(repositories[0]))


def test_questions_are_picked_by_their_ids_and_not_by_their_order(tiny_run: Run) -> None:
    recipe = load_recipe("tiny")
    every, some = (_asked(recipe, subset)["tiny-global"] for subset in (None, 10))
    assert some == every[:10]
    assert [question.id for question in every] != sorted(question.id for question in every)
    assert len({question.answer for question in some}) > 3, "not the first ones, which are all of one concept"


@pytest.mark.parametrize(
    ("claimed", "claimed_ci95", "measured", "ci95", "holds"),
    [
        (0.5, [0.4, 0.6], 0.7, [0.55, 0.8], True),
        (0.5, [0.4, 0.6], 0.7, [0.61, 0.8], False),
        (0.7, [0.65, 0.8], 0.5, [0.4, 0.6], False),
        (0.5, None, 0.5, None, True),
        (0.5, None, 0.6, None, False),
        (0.5, None, 0.6, [0.45, 0.7], True),
        (None, None, None, None, True),
        (None, None, 0.1, [0.0, 0.2], None),
        (0.1, [0.0, 0.2], None, None, None),
        (0.999, [0.4, 0.6], 0.5, [0.4, 0.6], False),
        (0.9, [0.0, 1.0], 0.5, [0.45, 0.55], False),
    ],
)
def test_numbers_hold_where_both_intervals_share_a_value(
    claimed: float | None,
    claimed_ci95: list[float] | None,
    measured: float | None,
    ci95: list[float] | None,
    holds: bool,
) -> None:
    assert Checked("x", 0.5, claimed, claimed_ci95, measured, ci95, 1000).holds is holds


def test_few_questions_that_are_all_right_contradict_nothing_near() -> None:
    assert Checked("x", 0.5, 0.995, [0.992, 0.998], 1.0, [1.0, 1.0], 200).holds
    assert not Checked("x", 0.5, 0.9, [0.88, 0.92], 1.0, [1.0, 1.0], 200).holds
