"""The sweep: results in the promised shape, from answers that can be traced."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ggez_hub import grp, run
from ggez_hub.errors import InputError
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import Run, read_json


def swept(*overrides: str) -> Run:
    return run("tiny", "runs", parse_overrides(overrides), until="sweep")


def test_results_have_the_promised_shape(project: Path) -> None:
    results = read_json(swept().stage("sweep") / "results.json")
    assert (results["recipe"], results["region"]) == ("tiny", "sea")
    assert results["globalization"]["value"] == pytest.approx(0.434)
    assert [point["alpha"] for point in results["points"]] == [0.0, 0.5, 1.0]
    for point in results["points"]:
        assert point["grp"] == pytest.approx(grp(point["global"], point["regional"], 0.434))
        assert point["global"] == pytest.approx(point["benchmarks"]["tiny-global"]["value"])
        regional = [point["benchmarks"][name]["value"] for name in ("tiny-regional", "tiny-choice")]
        assert point["regional"] == pytest.approx(sum(regional) / 2)
        for measured in point["benchmarks"].values():
            low, high = measured["ci95"]
            assert 0 <= low <= measured["value"] <= high <= 1
            assert measured["n"] == sum(group["n"] for group in measured["by"]["country"].values())
    assert {point["alpha"] for point in results["selection"]} == {0.0, 0.5, 1.0}
    for judged in (results["chosen"], results["grp_best"]):
        assert judged.keys() >= {"alpha", "gain", "gain_ci95", "retention", "retention_ci95", "grp"}


def test_every_value_can_be_traced_to_answers(project: Path) -> None:
    folder = swept().stage("sweep")
    answers = pq.read_table(folder / "predictions.parquet").to_pylist()
    for point in read_json(folder / "results.json")["points"]:
        for name, measured in point["benchmarks"].items():
            right = [
                row["answer"] == row["prediction"]
                for row in answers
                if (row["benchmark"], row["split"], row["alpha"]) == (name, "test", point["alpha"])
            ]
            assert len(right) == measured["n"]
            assert sum(right) / len(right) == pytest.approx(measured["value"])


def test_selection_and_test_questions_are_apart(project: Path) -> None:
    answers = pq.read_table(swept().stage("sweep") / "predictions.parquet").to_pylist()
    selection, test = ({row["id"] for row in answers if row["split"] == split} for split in ("selection", "test"))
    assert selection
    assert test
    assert not selection & test


def test_alpha_zero_and_one_are_always_measured(project: Path) -> None:
    results = read_json(swept("sweep.alphas=[0.3]").stage("sweep") / "results.json")
    assert [point["alpha"] for point in results["points"]] == [0.0, 0.3, 1.0]


def test_globalization_can_be_given(project: Path) -> None:
    results = read_json(swept("sweep.globalization=1").stage("sweep") / "results.json")
    assert results["globalization"] == {"value": 1.0, "source": "given in the recipe", "year": None}
    assert all(point["grp"] == point["global"] for point in results["points"])


def test_region_without_questions_is_refused_by_name(project: Path) -> None:
    text = (project / "recipes" / "benchmarks" / "tiny-global.yaml").read_text()
    (project / "recipes" / "benchmarks" / "tiny-global.yaml").write_text(text.replace("[test]", "[exam]"))
    with pytest.raises(InputError, match=r"Tiny others top1.*no test question"):
        swept()


def test_alphas_outside_the_range_are_refused(project: Path) -> None:
    with pytest.raises(InputError, match=r"argument sweep\.alphas.*less than or equal to 1"):
        swept("sweep.alphas=[0, 1.5]")
