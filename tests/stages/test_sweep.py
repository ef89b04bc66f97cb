"""The sweep: results in the promised shape, from answers that can be traced."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ggez_hub import describe, grp, run
from ggez_hub.errors import InputError
from ggez_hub.recipes import load_benchmark, load_recipe
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import Run, read_json
from ggez_hub.scoring import items, predictions, score, statistics
from ggez_hub.stages.sweep import _labelled


def swept(*overrides: str) -> Run:
    return run("tiny", "runs", parse_overrides(overrides), until="sweep")


def files(folder: Path) -> dict[str, bytes]:
    """What the sweep wrote, but for the manifest, which tells the time."""
    return {p.name: p.read_bytes() for p in (folder / "sweep").iterdir() if p.name != "manifest.json"}


def kept(folder: Path) -> dict[Path, int]:
    """Files of kept answers, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in (folder / ".answers").rglob("*.*")}


def test_results_have_the_promised_shape(project: Path) -> None:
    results = read_json(swept().stage("sweep") / "results.json")
    assert (results["recipe"], results["region"]) == ("tiny", "sea")
    assert "search" not in results
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


def test_alphas_beat_each_other_as_often_as_in_the_resampled_answers(project: Path) -> None:
    folder = swept("sweep.globalization=0.3", "sweep.alphas=[0, 0.2, 0.6, 1]").stage("sweep")
    results = read_json(folder / "results.json")
    alphas = [point["alpha"] for point in results["points"]]
    rows = [row for row in pq.read_table(folder / "predictions.parquet").to_pylist() if row["split"] == "test"]

    def spread(names: list[str], seed: int) -> np.ndarray:
        """Replicates of a side: [resamples, alphas]."""
        side = []
        for name in names:
            at = [[row for row in rows if (row["benchmark"], row["alpha"]) == (name, alpha)] for alpha in alphas]
            values = np.array([[row["value"] for row in part] for part in at])
            side.append(statistics.Answers(name, [row["id"] for row in at[0]], values))
        return statistics.resample(side, 200, seed).mean(axis=0)

    seed = load_recipe("tiny").seed
    both = spread(["tiny-global"], seed), spread(["tiny-regional", "tiny-choice"], seed + 1)
    found = np.array(results["beats"])
    assert found.shape == (4, 4)
    np.testing.assert_allclose(found + found.T, 1)
    expected = 0.3 * both[0] + 0.7 * both[1]
    for i in range(4):
        for j in range(4):
            ahead = np.round(expected[:, i] - expected[:, j], 12)
            assert found[i, j] == pytest.approx(np.mean(ahead > 0) + np.mean(ahead == 0) / 2, abs=1e-9)
    assert (found != 0.5).any()


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


@pytest.mark.slow
def test_groups_that_count_alike_do_so_in_a_sweep_too(project: Path) -> None:
    file = project / "recipes" / "benchmarks" / "tiny-global.yaml"
    file.write_text(file.read_text() + "average: [category, label]\ncluster: category\nkey: [id, language]\n")
    folder = swept("sweep.alphas=[0, 1]").stage("sweep")
    rows = pq.read_table(folder / "predictions.parquet").to_pandas().query("split == 'test'")
    assert set(rows[rows.benchmark == "tiny-global"].language) == {"en"}
    assert rows[rows.benchmark == "tiny-choice"].language.isna().all()
    for point in read_json(folder / "results.json")["points"]:
        own = rows[(rows.benchmark == "tiny-global") & (rows.alpha == point["alpha"])]
        means = own.groupby(["category", "answer"]).value.mean().groupby("category").mean()
        assert len(means) == 2
        found = point["benchmarks"]["tiny-global"]
        assert point["global"] == pytest.approx(found["value"]) == pytest.approx(means.mean())
        # Two clusters: a resample has one of them, the other, or both.
        assert found["ci95"] == pytest.approx([means.min(), means.max()])
        loaded = load_benchmark("tiny-global")
        answers = predictions.read([folder / "predictions.parquet"], loaded.key, "tiny-global")
        document = score.score("tiny-global", loaded, items.load(loaded), answers)
        again = document["models"][f"alpha={point['alpha']:g}"]
        assert (again["value"], again["n"]) == (pytest.approx(found["value"]), found["n"])


def test_field_to_average_over_that_is_not_there_is_named(project: Path) -> None:
    file = project / "recipes" / "benchmarks" / "tiny-global.yaml"
    file.write_text(file.read_text() + "average: [categorie]\n")
    with pytest.raises(InputError, match=r"no column 'categorie'.*did you mean 'category'"):
        swept()


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


# --------------------------------------------------------------------------------------------------------------- refine
REFINE = ("sweep.search=refine", "sweep.resolution=0.05")


@pytest.mark.slow
def test_refine_measures_further_alphas_and_says_how_many_it_saved(project: Path) -> None:
    results = read_json(swept(*REFINE).stage("sweep") / "results.json")
    alphas = [point["alpha"] for point in results["points"]]
    assert alphas == sorted(alphas) == [point["alpha"] for point in results["selection"]]
    assert {0.0, 0.5, 1.0} < set(alphas) <= {round(k * 0.05, 2) for k in range(21)}
    saved = {"method": "refine", "resolution": 0.05, "evaluations": len(alphas), "grid_evaluations": 21}
    assert results["search"].items() >= saved.items()
    assert results["search"]["rounds"] >= 1
    line = f"refine: {len(alphas)} evaluations instead of 21 at resolution 0.05"
    assert line in describe.results_table(results).splitlines()


def test_alphas_of_three_digits_are_told_apart_in_the_table() -> None:
    points = [{"alpha": alpha, "global": 0.9, "regional": 0.4, "grp": 0.6} for alpha in (0.0, 0.121, 0.124, 1.0)]
    judged = points[0] | {"gain": 0.0, "gain_ci95": None, "retention": 1.0, "retention_ci95": None}
    table = describe.results_table({"points": points, "chosen": judged, "grp_best": judged, "synthetic": False})
    assert [line.split()[0] for line in table.splitlines()[1:5]] == ["0.00", "0.121", "0.124", "1.00"]


def test_labels_of_many_alphas_keep_their_distance_in_the_plot() -> None:
    points = [{"alpha": k / 100, "global": 0.9 - k / 1000, "regional": 0.5 + k / 500} for k in range(101)]
    shown = sorted(point["alpha"] for point in _labelled(points, chosen=0.42))
    assert {0.0, 0.42, 1.0} <= set(shown)
    assert 20 < len(shown) < 30
    assert min(b - a for a, b in pairwise(shown)) > 0.03


@pytest.mark.parametrize("wrong", ["sweep.resolution=0", "sweep.resolution=0.6", "sweep.search=random"])
def test_search_that_makes_no_sense_is_refused_by_name(project: Path, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong.partition("=")[0].replace(".", r"\.")):
        swept(wrong)


# --------------------------------------------------------------------------------------------------------- kept answers
def test_no_alpha_is_asked_twice_when_settings_of_the_sweep_change(project: Path) -> None:
    folder = swept().folder
    first = kept(folder)
    assert len(first) == 3 * 3 * 2  # alphas, benchmarks, splits
    results = read_json(swept(*REFINE, "sweep.min_retention=0.5").stage("sweep") / "results.json")
    second = kept(folder)
    assert len(second) == 3 * 2 * results["search"]["evaluations"]
    assert first.items() < second.items()


@pytest.mark.slow
def test_nothing_is_loaded_where_nothing_is_left_to_ask(project: Path) -> None:
    folder = swept().folder
    weights = folder / "train" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert read_json(swept("sweep.min_retention=0.5").stage("sweep") / "results.json")["min_retention"] == 0.5
    with pytest.raises(InputError, match="adapter"):
        swept("sweep.alphas=[0.25]")


@pytest.mark.slow
def test_results_from_kept_answers_are_the_same_bytes(project: Path) -> None:
    folder = swept(*REFINE).folder
    fresh = files(folder)
    assert fresh.keys() == {"results.json", "predictions.parquet", "parity.png", "samples.png"}
    swept("sweep.alphas=[0.9]")
    asked = kept(folder)
    swept(*REFINE)
    assert files(folder) == fresh
    assert kept(folder) == asked


def test_sweep_that_was_cut_short_goes_on_and_ends_in_the_same_bytes(project: Path) -> None:
    folder = swept(*REFINE).folder
    whole, asked = files(folder), kept(folder)
    halfway = sorted(asked.values())[len(asked) // 2]
    blocked, *lost = [path for path, written in asked.items() if written >= halfway]
    for path in (blocked, *lost):
        path.unlink()
    (folder / "sweep" / "manifest.json").unlink()
    blocked.mkdir()  # no answers can be kept here: the sweep ends in the middle
    with pytest.raises(OSError, match=blocked.name):
        swept(*REFINE)
    assert not (folder / ".sweep").exists()
    blocked.rmdir()
    before = kept(folder)
    assert swept(*REFINE).manifest("sweep")
    assert files(folder) == whole
    assert before.items() < kept(folder).items()


@pytest.mark.slow
def test_damaged_answers_are_asked_again(project: Path) -> None:
    folder = swept().folder
    whole = files(folder)
    good = {path: path.read_bytes() for path in sorted(kept(folder))}
    damages = (b"", b"\x93NUMPY", b"no answers", min(good.values(), key=len)[:-1])
    for path, damage in zip(good, damages, strict=False):
        path.write_bytes(damage)
    (folder / "sweep" / "manifest.json").unlink()
    swept()
    assert {path: path.read_bytes() for path in sorted(kept(folder))} == good
    assert files(folder) == whole


@pytest.mark.slow
def test_answers_of_another_adapter_are_neither_used_nor_kept(project: Path) -> None:
    folder = swept().folder
    before = kept(folder)
    swept("seed=1")
    after = kept(folder)
    assert len(after) == len(before)
    assert not after.keys() & before.keys()


@pytest.mark.slow
def test_answers_belong_to_their_questions_whatever_the_benchmark_is_called(project: Path) -> None:
    folder = swept().folder
    before = kept(folder)
    benchmark = project / "recipes" / "benchmarks" / "tiny-choice.yaml"
    benchmark.write_text(benchmark.read_text().replace("task: choice", "task: top1"))  # what tiny-regional asks
    for point in read_json(swept().stage("sweep") / "results.json")["points"]:
        assert point["benchmarks"]["tiny-choice"]["value"] == point["benchmarks"]["tiny-regional"]["value"]
    assert kept(folder) == before
