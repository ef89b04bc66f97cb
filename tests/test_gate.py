"""The gate before publishing: each condition holds a run back, with a reason that says what to mend."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ggez_hub import gate, load_recipe, run
from ggez_hub.errors import InputError
from ggez_hub.hub.licenses import conflicts
from ggez_hub.runs import Run
from ggez_hub.schema import Recipe

GOOD = {"gain": 0.2, "gain_ci95": [0.1, 0.3], "retention": 0.99, "retention_ci95": [0.97, 1.0]}


PUBLIC = {"base.id": "ggez-hub/pocket-base-embedding", "data.license": "cc-by-4.0"}


@pytest.fixture
def done(tiny_run: Run) -> tuple[Recipe, Run]:
    """A complete run with figures to be proud of (made up), and a base that everybody has."""
    figures(tiny_run)
    return load_recipe("tiny", PUBLIC), tiny_run


def figures(made: Run, **other: Any) -> None:
    """Writes what the sweep is to have found."""
    path = made.stage("sweep") / "results.json"
    results = json.loads(path.read_text())
    results["chosen"] |= GOOD | other
    path.write_text(json.dumps(results))


def test_good_run_may_be_published(done: tuple[Recipe, Run]) -> None:
    assert gate.reasons(*done) == []


def test_a_base_that_nobody_else_has_is_refused(done: tuple[Recipe, Run]) -> None:
    with pytest.raises(InputError, match="is a folder of this machine"):
        gate.reasons(load_recipe("tiny"), done[1])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"gain": 0.04}, "gain 4.0% is below push.min_gain, 5.0%"),
        ({"gain": None}, "gain not known is below push.min_gain, 5.0%"),
        ({"gain_ci95": [0.0, 0.4]}, "the interval of the gain is [0.0%, 40.0%]; it has to be above 0"),
        ({"gain_ci95": None}, "the interval of the gain is not known; it has to be above 0"),
        (
            {"retention": 0.979},
            "retention 97.9% is below push.min_retention, 98.0% "
            "(α is chosen on other questions: a higher sweep.min_retention leaves room)",
        ),
    ],
)
def test_figures_have_thresholds(done: tuple[Recipe, Run], other: dict[str, Any], reason: str) -> None:
    figures(done[1], **other)
    assert gate.reasons(*done) == [reason]


def test_thresholds_are_those_of_the_recipe(done: tuple[Recipe, Run]) -> None:
    figures(done[1], gain=0.04, retention=0.9)
    lower = load_recipe("tiny", PUBLIC | {"push.min_gain": 0.01, "push.min_retention": 0.85})
    assert gate.reasons(lower, done[1]) == []


def test_merged_checkpoint_has_to_answer_as_the_sweep_found(done: tuple[Recipe, Run]) -> None:
    path = done[1].stage("merge") / "model" / "model.safetensors"
    weights = {name: torch.randn_like(tensor) for name, tensor in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    (reason,) = gate.reasons(*done)
    assert reason.startswith("the merged checkpoint gives other answers than the sweep at its α to ")


def test_training_pictures_among_the_test_questions_are_found(project: Path) -> None:
    path = project / "recipes" / "benchmarks" / "tiny-choice.yaml"
    text = path.read_text().replace("selection: 1, test: 2", "selection: 1, train: 1").replace("[test]", "[train]")
    path.write_text(text)
    made = run("tiny", overrides={"train.steps": 2, "filter.contamination": "keep"})
    figures(made)
    (reason,) = gate.reasons(load_recipe("tiny", PUBLIC), made)
    assert "test questions of tiny-choice show a picture of the training rows" in reason


def test_what_takes_a_model_is_measured_once(done: tuple[Recipe, Run]) -> None:
    gate.reasons(*done)
    path = done[1].folder / "gate.json"
    kept = json.loads(path.read_text())
    assert kept["merged"]["tiny-global"]["asked"] > 0
    path.write_text(json.dumps(kept | {"leaks": {"tiny-global": ["a mark"]}}))
    assert "'a mark'" in gate.reasons(*done)[0], "what is kept is used"
    path.write_text(json.dumps(kept | {"of": {}, "leaks": {"tiny-global": ["a mark"]}}))
    assert gate.reasons(*done) == [], "but not for another run"


@pytest.mark.parametrize("text", ["[]", "{}", '{"of": null}'])
def test_what_another_version_kept_is_measured_anew(done: tuple[Recipe, Run], text: str) -> None:
    (done[1].folder / "gate.json").write_text(text)
    assert gate.reasons(*done) == []


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"base.license": "gemma"}, "base.license gemma goes on"),
        ({"data.license": "cc-by-nc-4.0"}, "data.license cc-by-nc-4.0 forbids commercial use"),
    ],
)
def test_licenses_of_base_and_data_are_both_looked_at(
    done: tuple[Recipe, Run], overrides: dict[str, Any], reason: str
) -> None:
    (found,) = gate.reasons(load_recipe("tiny", PUBLIC | overrides), done[1])
    assert found.startswith(reason)


# ------------------------------------------------------------------------------------------------------------- licenses
@pytest.mark.parametrize(
    ("given", "declared"),
    [
        ("apache-2.0", "mit"),
        ("MIT", "apache-2.0"),
        ("cc-by-4.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("gemma", "gemma"),
        ("gemma", "other"),
    ],
)
def test_licenses_that_go_together(given: str, declared: str) -> None:
    assert conflicts("base.license", given, declared) == []


@pytest.mark.parametrize(
    ("given", "declared", "word"),
    [
        (None, "mit", "not stated"),
        ("", "mit", "not stated"),
        ("cc-by-nc-4.0", "apache-2.0", "commercial"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0 as well"),
        ("cc-by-sa-4.0", "apache-2.0", "cc-by-sa-4.0 as well"),
        ("cc-by-nd-4.0", "mit", "changed versions"),
        ("cc-by-nc-nd-4.0", "cc-by-nc-nd-4.0", "changed versions"),
        ("gemma", "apache-2.0", "gemma as well"),
        ("gpl-3.0", "mit", "gpl-3.0 as well"),
        ("some licence of ours", "mit", "as well"),
    ],
)
def test_licenses_that_do_not(given: str | None, declared: str, word: str) -> None:
    (reason,) = conflicts("data.license", given, declared)
    assert reason.startswith("data.license ")
    assert word in reason
