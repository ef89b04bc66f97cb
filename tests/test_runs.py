"""The run folder: complete or absent, and honest about why something runs again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ggez_hub.errors import InputError
from ggez_hub.runs import Run, fingerprint, read_json, write_json, write_text


def writes(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "out.txt").write_text(text)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "mine")


def test_stage_is_done_for_the_same_inputs_only(run: Run) -> None:
    inputs = {"train": {"steps": 5}, "data": "a" * 64}
    assert run.stale("train", inputs) == "not done yet"
    run.write("train", inputs, writes("x"))
    assert run.stale("train", inputs) is None
    assert run.stale("train", inputs | {"train": {"steps": 6}}) == "changed train.steps: 5 -> 6"
    assert "more: (absent) -> 1" in (run.stale("train", inputs | {"more": 1}) or "")


def test_lists_and_tuples_are_the_same_inputs(run: Run) -> None:
    run.write("sweep", {"alphas": (0.0, 1.0)}, writes("x"))
    assert run.stale("sweep", {"alphas": [0.0, 1.0]}) is None


@pytest.mark.parametrize("damage", ["removed", "truncated"])
def test_damaged_output_counts_as_not_done(run: Run, damage: str) -> None:
    run.write("train", {}, writes("x" * 100))
    output = run.stage("train") / "out.txt"
    output.unlink() if damage == "removed" else output.write_text("x")
    assert run.stale("train", {}) == "not done yet"
    assert run.outputs_hash("train") is None


def test_failed_stage_leaves_the_earlier_output_and_nothing_else(run: Run) -> None:
    run.write("train", {"v": 1}, writes("first"))

    def fails(folder: Path) -> None:
        (folder / "out.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.write("train", {"v": 2}, fails)
    assert [p.name for p in run.folder.iterdir()] == ["train"]
    assert (run.stage("train") / "out.txt").read_text() == "first"


def test_resumable_stage_finds_its_half_done_work_for_the_same_inputs_only(run: Run) -> None:
    found: list[bool] = []

    def dies(folder: Path) -> None:
        found.append((folder / "half").exists())
        (folder / "half").write_text("")
        raise RuntimeError

    for inputs in ({"v": 1}, {"v": 1}, {"v": 2}):
        with pytest.raises(RuntimeError):
            run.write("train", inputs, dies, resumable=True)
    assert found == [False, True, False]


def test_manifest_tells_hashes_versions_and_time(run: Run) -> None:
    run.write("train", {"seed": 1}, writes("x"))
    manifest = json.loads((run.stage("train") / "manifest.json").read_text())
    assert manifest["outputs"]["out.txt"]["size"] == 1
    assert len(manifest["outputs"]["out.txt"]["sha256"]) == 64
    assert {"torch", "transformers", "ggez_hub", "python"} <= manifest["versions"].keys()
    assert manifest["seconds"] >= 0


def test_second_process_is_kept_out(run: Run) -> None:
    with run.locked(), pytest.raises(InputError, match="another ggez"), Run(run.folder).locked():
        pass


def test_files_are_written_completely_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.json"
    write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(target, {"a": float("nan")})
    assert read_json(target) == {"a": 1}
    assert [p.name for p in target.parent.iterdir()] == ["file.json"]


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "results.json", '{"a": ')
    with pytest.raises(InputError, match=r"results\.json"):
        read_json(tmp_path / "results.json")


def test_fingerprint_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = fingerprint(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = fingerprint(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, fingerprint(tmp_path)}) == 3
