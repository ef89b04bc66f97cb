"""Rehearsals from the command line: what they leave, what they say, and what they leave alone."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ggez_hub import registry, rehearsal
from ggez_hub.data import images, readers
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import parse_yaml
from ggez_hub.rehearsal import checks, coverage, world
from ggez_hub.rehearsal.estimate import Number
from ggez_hub.rehearsal.report import NOTICE, Problem, Report, from_json, table
from ggez_hub.runs import read_json, write_json
from ggez_hub.scoring.questions import questions

Ggez = Callable[..., tuple[int, str, str]]


def change(old: str, new: str) -> None:
    path = Path("recipes/tiny.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ------------------------------------------------------------------------------------------------------------- a whole
def test_a_recipe_is_rehearsed_from_its_data_to_what_libraries_load(ggez: Ggez, project: Path) -> None:
    write_json(project / "rehearsals" / "tiny" / "report.json", {"notice": NOTICE, "of": "long ago"})
    change("alphas: [0, 0.5, 1]", "alphas: [0, 0.3, 1]")
    code, out, said = ggez("rehearse", "tiny", "train.batch_size=6")
    assert code == 0, said
    folder = project / "rehearsals" / "tiny"
    report = read_json(folder / "report.json")
    assert report["ok"]
    assert not report["problems"]
    assert out.strip() == (folder / "report.md").read_text().strip()
    assert "It runs from end to end" in out

    resolved, _ = parse_yaml((folder / "runs" / "tiny" / "recipe.yaml").read_text(), "recipe.yaml")
    assert resolved["title"] == "Rehearsal: Tiny"
    assert resolved["train"]["batch_size"] == 6, "as it was given"
    assert resolved["train"]["lora"] == {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0}, "as it is written"
    assert resolved["train"]["steps"] == 3
    assert resolved["base"]["id"] == "models/base", "a twin of the folder"
    results = read_json(folder / "runs" / "tiny" / "sweep" / "results.json")
    assert [point["alpha"] for point in results["points"]] == [0, 0.3, 1]
    assert results["synthetic"]
    assert results["chosen"]["alpha"] == 0.3, "at 0 or 1 nothing would be merged"
    assert "checkpoint at α = 0.3" in report["covered"]["merge"]
    assert "merged at alpha 0.3" in report["covered"]["loaded by ggez_hub"]
    for name in ("tiny", "tiny-lora"):
        card = (folder / "published" / "ggez-hub" / name / "README.md").read_text()
        assert "Rehearsal: Tiny" in card
        assert "synthetic" in card
        assert "This is a rehearsal: a tiny random model, trained for a few steps on made-up rows." in card

    assert {"filter", "train", "sweep", "merge", "card", "push"} <= report["covered"].keys()
    assert {"loaded by ggez_hub", "loaded by peft", "loaded by transformers"} <= report["covered"].keys()
    assert "tiny-regional" in report["covered"]["sweep"]
    assert report["stand_ins"]["base.id"] == "a tiny random twin of base"
    assert "data.license is not stated" in " ".join(report["notes"])
    assert report["needs"].keys() == {"GPU memory", "on", "time", "disk"}
    assert any("parameters x 4 bytes" in line for line in report["arithmetic"])
    assert [path.name for path in (project / "rehearsals").iterdir()] == ["tiny"], "and nothing hidden"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["omniglot-sea", "pocket-mixes-embedding", "sea-siglip2-base"])
def test_recipes_that_need_something_from_elsewhere_run_as_they_are_written(ggez: Ggez, name: str) -> None:
    code, out, said = ggez("rehearse", name)
    assert code == 0, said
    assert "loaded by peft" in out
    assert name != "sea-siglip2-base" or "nothing was held against the Hub" in out


@pytest.mark.slow
def test_several_end_in_a_table_and_one_that_fails_is_told(ggez: Ggez, project: Path) -> None:
    (project / "recipes" / "other.yaml").write_text("extends: tiny\ndata: {where: {category: [Cars]}}\n")
    code, out, said = ggez("rehearse", "tiny", "other")
    assert code == 2
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["recipe", "rehearsal"],
        ["other", "fails"],
        ["tiny", "runs"],
    ]
    assert "recipes/other.yaml:2" in said
    assert "1 of 2 recipes" in said
    assert read_json(project / "rehearsals" / "other" / "report.json")["stage"] == "filter"


@pytest.mark.slow
def test_one_that_takes_too_long_is_ended_and_says_how_far_it_came(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "LIMIT", 1)
    report = rehearsal.rehearse("tiny", project / "out", {"train.steps": 100_000})
    assert not report.ok
    (problem,) = report.problems
    assert problem.text.endswith(": it took longer than 1 s")
    assert problem.text.partition(":")[0] in ("data", "estimate", "twins", "filter", "train")
    assert read_json(project / "out" / "tiny" / "report.json")["problems"]


# ------------------------------------------------------------------------------------------------------- before it runs
def test_mistakes_are_told_at_once_with_their_lines(ggez: Ggez, project: Path) -> None:
    change("steps: 12", "stpes: 12")
    change("license: mit", "license: cc-by-nc-4.0")
    code, _, said = ggez("rehearse", "tiny")
    assert code == 2
    assert "recipes/tiny.yaml:6  train.stpes: unknown key; did you mean 'steps'?" in said
    change("stpes: 12", "steps: 12")
    code, _, said = ggez("rehearse", "tiny")
    assert code == 2
    assert "recipes/tiny.yaml:4  base.license cc-by-nc-4.0 forbids commercial use" in said
    assert "hint: mend the license" in said
    report = read_json(project / "rehearsals" / "tiny" / "report.json")
    assert report["problems"][0]["place"] == "recipes/tiny.yaml:4"
    assert not report["covered"]


def test_a_folder_that_is_no_rehearsal_is_left_as_it_is(ggez: Ggez, project: Path) -> None:
    (project / "rehearsals" / "tiny").mkdir(parents=True)
    (project / "rehearsals" / "tiny" / "thesis.txt").write_text("the only copy")
    code, _, said = ggez("rehearse", "tiny")
    assert code == 2
    assert "holds something else than a rehearsal" in said
    assert (project / "rehearsals" / "tiny" / "thesis.txt").read_text() == "the only copy"


def test_nothing_is_removed_that_no_rehearsal_has_written(ggez: Ggez, project: Path) -> None:
    change("steps: 12", "stpes: 12")
    Path("recipes/tiny.yaml").rename("recipes/git.yaml")
    (project / ".git").mkdir()
    (project / ".git" / "HEAD").write_text("ref")
    code, _, said = ggez("rehearse", "git", "--out", ".")
    assert (code, "unknown key" in said) == (2, True)
    assert (project / ".git" / "HEAD").read_text() == "ref"
    for name in ("git", ".git.rehearsal"):
        kept = project / f"kept{name}"
        kept.mkdir()
        write_json(kept / "report.json", {"notice": NOTICE})
        (project / "out").mkdir(exist_ok=True)
        (project / "out" / name).symlink_to(kept)
        code, _, said = ggez("rehearse", "git", "--out", "out")
        assert (code, "it is left as it is" in said) == (2, True)
        assert (kept / "report.json").is_file()
        (project / "out" / name).unlink()


def test_a_folder_that_cannot_be_made_is_told(ggez: Ggez, project: Path) -> None:
    (project / "file").write_text("")
    code, _, said = ggez("rehearse", "tiny", "--out", "file")
    assert code == 2
    assert "cannot be written" in said
    assert "--out" in said


def test_two_recipes_of_one_name_are_refused(ggez: Ggez, project: Path) -> None:
    code, _, said = ggez("rehearse", "recipes/tiny.yaml", "tiny")
    assert code == 2
    assert "two recipes of the name 'tiny'" in said


@pytest.mark.parametrize("arguments", [(), ("tiny", "--all"), ("train.steps=5",)])
def test_either_recipes_or_all(ggez: Ggez, project: Path, arguments: tuple[str, ...]) -> None:
    code, _, said = ggez("rehearse", *arguments)
    assert code == 2
    assert "expected recipes, or --all" in said


def test_an_unknown_recipe_is_told_with_the_nearest_name(ggez: Ggez, project: Path) -> None:
    code, _, said = ggez("rehearse", "tinny")
    assert code == 2
    assert "unknown recipe 'tinny'; did you mean 'tiny'?" in said
    assert "report.md" not in said, "there is none"
    code, out, said = ggez("rehearse", "tiny", "train.steps")
    assert (code, out) == (2, ""), "nothing runs before"
    assert "unknown recipe 'train.steps'" in said


def test_of_several_recipes_each_problem_says_whose_it_is(ggez: Ggez, project: Path) -> None:
    (project / "recipes" / "other.yaml").write_text("extends: tiny\n")
    code, _, said = ggez("rehearse", "tiny", "other", "train.batch_size=abc")
    assert code == 2
    for name in ("tiny", "other"):
        assert f"{name}: argument train.batch_size  train.batch_size: Input should be a valid integer" in said
        assert (project / "rehearsals" / name / "report.md").is_file()


def test_a_batch_that_is_never_full_or_that_nothing_holds_is_told_at_its_line(project: Path) -> None:
    change("steps: 12, batch_size: 8", "steps: 12, batch_size: 2000000")
    change("synthetic: true", "synthetic: true, cap: 10, license: mit")
    recipe, place = checks.opened("tiny", {})
    held, full = checks.offline(recipe, place)
    assert (held.place, full.place) == ("recipes/tiny.yaml:6", "recipes/tiny.yaml:6")
    assert held.text == "train.batch_size: 2000000 rows in memory at once, which no GPU holds"
    assert full.text == "train.batch_size: 2000000 rows in a batch, but the caps leave 10 at most"
    peak = Number(9e12, "bytes", "rows x bytes")
    estimate: Any = SimpleNamespace(possible=False, peak_stage="sweep", peak=peak, hint="sweep.batch_size=16")
    (problem,) = checks.fits(recipe, place, estimate)
    assert problem.place == "recipes/tiny.yaml:7"
    assert problem.text.startswith("sweep.batch_size: 9,000 GB of a GPU in sweep")
    assert problem.hint == "sweep.batch_size=16"


# ---------------------------------------------------------------------------------------------------------------- world
SHARED = """\
title: Shared
family: vlm
region: sea
base: {id: org/base, license: mit}
data: {reader: parquet, id: org/data, where: {split: [train]}, license: mit}
filter: {min_side: 400}
sweep: {global: [asked], regional: [drawn]}
"""
ASKED = """\
title: Asked
source: {reader: parquet, id: org/data, columns: {category: name}}
task: question
rows: others
test: {split: [test]}
selection: {split: [held]}
"""
DRAWN = """\
title: Drawn
source: {reader: dpg, options: {pictures_folder: mine}}
task: question
answer: "yes"
key: [id, proposition_id, tile]
"""


def test_a_data_set_of_several_readers_has_what_each_selects_and_rules_keep(project: Path) -> None:
    for name, text in (("shared", SHARED), ("benchmarks/asked", ASKED), ("benchmarks/drawn", DRAWN)):
        (project / "recipes" / f"{name}.yaml").write_text(text)
    recipe, _ = checks.opened("shared", {})
    made = world.data(recipe, project / "made", project)
    assert "org/data cannot be known offline" in " ".join(made.left)
    with contextlib.chdir(project / "made"):
        asked = load_benchmark("asked")
        for where in (recipe.data.where, asked.test, asked.selection):
            source = asked.source.model_copy(
                update={"path": str(made.written[next(iter(made.written))]), "where": where}
            )
            rows = [row for batch in readers.read(source) for row in batch.to_pylist()]
            assert len(rows) >= 12, where
            assert min(min(images.decode(row["image"]["bytes"]).size) for row in rows) >= 400
        drawn = load_benchmark("drawn")
        assert questions(drawn, registry.load_region("sea"))["test"], "of the pictures that stand in"


def test_needs_are_those_of_the_whole_run_and_say_what_is_not_in_them(project: Path) -> None:
    recipe, _ = checks.opened("tiny", {})
    hours = {name: Number(value, "hours", "") for name, value in
             {"filter": None, "train": 2.0, "1,000 steps": 50.0, "sweep": 1.5}.items()}  # fmt: skip
    found: Any = SimpleNamespace(
        peak=Number(5e9, "bytes", ""), disk={"all": Number(2e9, "bytes", "")}, steps={"train": Number(12, "steps", "")},
        ways=[SimpleNamespace(gpus=1, gpu="L4", hours=hours)],
    )  # fmt: skip
    assert coverage.needs(recipe, found)["GPU memory"] == "no GPU needed", "of rows that are drawn"
    recipe = checks.opened("sea-siglip2-base", {})[0]
    assert coverage.needs(recipe, found)["time"] == "3.5 h without filter"


# ------------------------------------------------------------------------------------------------------------- an error
@pytest.mark.parametrize(
    ("message", "hint", "line"),
    [
        ("pocket: no column 'x' (wanted as 'text')", "set data.columns.text= to the right one", 5),
        ("5 rows do not fit into the memory", "lower train.micro_batch_size", 6),
        ("benchmark 'Tiny region top1' has no test question for region 'Southeast Asia'", "its rows decide", 10),
        ("the disk is full", "", None),
    ],
)
def test_an_error_of_the_run_is_told_at_the_line_it_speaks_of(
    project: Path, message: str, hint: str, line: int | None
) -> None:
    recipe, place = checks.opened("tiny", {})
    problem = checks.located(InputError(message, hint), recipe, place)
    assert problem.place == (f"recipes/tiny.yaml:{line}" if line else "")
    assert (problem.text, problem.hint) == (message, hint)


def test_a_twin_is_told_by_the_name_of_what_it_stands_for(project: Path) -> None:
    recipe, place = checks.opened("tiny", {})
    err = InputError(f"/tmp/x/hub/datasets--org--some-data/snapshots/{'0' * 40}/a.parquet: no column 'x'")
    assert checks.located(err, recipe, place).text == "org/some-data/a.parquet: no column 'x'"


def test_problems_of_a_file_keep_their_places() -> None:
    err = ConfigError(["a.yaml:3  train.x: unknown key", "argument y: expected"], "look there")
    assert checks.invalid(err) == [
        Problem("a.yaml:3", "train.x: unknown key", "look there"), Problem("", "argument y: expected", "look there")
    ]  # fmt: skip


def test_reports_are_read_as_they_were_written_and_make_a_table() -> None:
    report = Report("a", "A", "train", {"filter": "x"}, problems=[Problem("a.yaml:1", "b", "c")], needs={"time": "2"})
    report.seconds = {"checks": 1.4, "filter": 2.2}
    again = from_json(json.loads(json.dumps(report.as_json())))
    assert again == report
    assert not again.ok
    head, row = table([again]).splitlines()
    assert head.split() == ["recipe", "rehearsal", "seconds", "GPU", "memory", "on", "time", "disk"]
    assert row.split() == ["a", "fails", "4", "?", "?", "2", "?"]
