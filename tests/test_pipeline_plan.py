"""The plan: what would run, what is done, and why; it says so without doing anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from ggez_hub.cli import _guarded, cli
from ggez_hub.errors import HubError, InputError
from ggez_hub.pipeline import STAGES, plan, resolved
from ggez_hub.recipes import load_recipe
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import Run

RECIPE = """\
title: Tiny
family: embedding
region: sea
base: {random: {hidden: 16}}
data: {reader: pocket, options: {train: 1}, where: {country: [THA, VNM, JPN]}}
filter: {contamination: keep}  # nobody looks at all pictures of these benchmarks
train: {steps: 2, batch_size: 4}
sweep: {global: [pocket-global-choice], regional: [pocket-regional-choice]}
"""


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current directory with tiny.yaml, a random start."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(RECIPE)


def reasons(*overrides: str, until: str = "card") -> dict[str, str | None]:
    steps = plan(load_recipe("tiny.yaml", parse_overrides(overrides)), Run(Path("runs/tiny")), until)
    return {step.stage: step.reason for step in steps}


def pretend(stage: str, *overrides: str) -> None:
    """Marks a stage as done for the recipe as it is, without its work."""
    from ggez_hub.pipeline import stage_module

    run, loaded = Run(Path("runs/tiny")), load_recipe("tiny.yaml", parse_overrides(overrides))
    run.write(stage, stage_module(stage).inputs(loaded, run), lambda folder: outputs(stage, folder, loaded.seed))


def outputs(stage: str, folder: Path, seed: int) -> None:
    (folder / "results.json").write_text(json.dumps({"chosen": {"alpha": 0.25}, "stage": stage, "seed": seed}))


def test_before_anything_every_stage_would_run_in_order_and_nothing_is_written() -> None:
    before = sorted(Path().rglob("*"))
    assert reasons() == {
        "filter": "not done yet",
        "train": "after filter, if that changes",
        "sweep": "after train, if that changes",
        "merge": "after train, sweep, if that changes",
        "card": "after filter, train, sweep, merge, if that changes",
    }
    assert tuple(reasons()) == STAGES
    assert sorted(Path().rglob("*")) == before


def test_plan_ends_where_the_run_would() -> None:
    assert list(reasons(until="train")) == ["filter", "train"]
    with pytest.raises(InputError, match=r"unknown stage 'trian'; did you mean 'train'\?"):
        reasons(until="trian")


def test_filter_that_ran_is_done_until_something_that_it_reads_changes(capsys: pytest.CaptureFixture[str]) -> None:
    def ggez(*arguments: str) -> tuple[int, str, str]:
        code = _guarded(lambda: cli.main(arguments, standalone_mode=False))
        return code, *capsys.readouterr()

    code, out, err = ggez("filter", "tiny.yaml")
    assert code == 0
    assert "filter   not done yet" in err
    report = json.loads(Path("runs/tiny/filter/report.json").read_text())
    assert report["rows"] > report["kept"] > 0
    assert [line.split() for line in out.splitlines() if line.startswith("kept")] == [["kept", str(report["kept"])]]
    code, out, _ = ggez("plan", "tiny.yaml")
    assert code == 0
    assert out.splitlines()[:2] == ["filter   done", "train    run   not done yet"]
    made = Path("runs/tiny/filter/manifest.json").read_bytes()
    assert "filter   done already" in ggez("filter", "tiny.yaml")[2]
    assert Path("runs/tiny/filter/manifest.json").read_bytes() == made
    _, out, _ = ggez("plan", "tiny.yaml", "data.options.train=2", "--json")
    assert json.loads(out)["steps"][0] == {"stage": "filter", "reason": "changed data.options.train: 1 -> 2"}
    assert reasons("train.steps=3", "sweep.min_retention=null", "card.license=mit")["filter"] is None
    assert reasons("region=sa")["filter"].startswith("changed region: sea -> sa")
    Path("runs/tiny/filter/examples.parquet").unlink()
    assert reasons()["filter"] == "not done yet"


@pytest.mark.parametrize(
    ("override", "first", "reason"),
    [
        ("train.steps=3", "train", "changed train.steps: 2 -> 3"),
        ("train.lora.r=4", "train", "changed train.lora.r: 16 -> 4"),
        ("seed=1", "train", "changed seed: 0 -> 1"),
        ("sweep.min_retention=null", "sweep", "changed sweep.min_retention: 0.98 -> (absent)"),
        ("sweep.globalization=0.3", "sweep", "changed sweep.globalization: (absent) -> 0.3"),
        ("base.license=mit", "train", "changed base.license: (absent) -> mit"),
        ("card.license=mit", "card", "changed recipe.card.license: apache-2.0 -> mit"),
        ("filter.min_reward=3", "filter", "changed filter.min_reward: (absent) -> 3.0"),
    ],
)
def test_change_starts_at_the_first_stage_that_it_concerns(override: str, first: str, reason: str) -> None:
    for stage in STAGES:
        pretend(stage)
    assert set(reasons().values()) == {None}
    found = reasons(override)
    assert [found[stage] for stage in STAGES[: STAGES.index(first)]] == [None] * STAGES.index(first)
    assert found[first].startswith(reason)


def test_what_follows_waits_for_what_runs_again() -> None:
    for stage in STAGES:
        pretend(stage)
    found = reasons("train.steps=3")
    assert found["merge"] == "after train, sweep, if that changes"
    pretend("train", "train.steps=3", "seed=1")  # other outputs
    assert reasons("train.steps=3", "seed=1")["sweep"].startswith("changed seed: 0 -> 1, train: ")


def test_region_file_that_changes_is_noticed() -> None:
    Path("recipes/regions").mkdir(parents=True)
    region = Path("recipes/regions/atoll.yaml")
    region.write_text("title: Atoll\ncountries: [IDN]\nkof: {2020: 43}\n")
    pretend("filter", "region=atoll")
    assert reasons("region=atoll")["filter"] is None
    region.write_text("title: Atoll\ncountries: [IDN, VNM]\nkof: {2020: 43}\n")
    assert reasons("region=atoll")["filter"] == "changed countries: ['IDN'] -> ['IDN', 'VNM']"


def base(**keys: Any) -> str:
    return f"base={json.dumps(keys)}"


def test_base_that_is_not_there_is_said_before_any_work() -> None:
    with pytest.raises(InputError, match=r"\./nowhere: no such folder, and not a Hub id"):
        reasons_after_filter(base(id="./nowhere"))
    with pytest.raises(HubError, match="nobody/nothing"):
        reasons_after_filter(base(id="nobody/nothing"))
    with pytest.raises(
        InputError, match=r"output of recipe 'pocket-base-embedding'.*\n  hint: ggez run pocket-base-emb"
    ):
        reasons_after_filter(base(recipe="pocket-base-embedding"))


def reasons_after_filter(*overrides: str) -> dict[str, str | None]:
    pretend("filter")
    return reasons(*overrides)


def test_base_folder_whose_files_change_is_noticed() -> None:
    Path("base").mkdir()
    Path("base/model.safetensors").write_text("one")
    pretend("filter")
    pretend("train", base(id="base"))
    assert reasons(base(id="base"))["train"] is None
    Path("base/model.safetensors").write_text("two")
    assert reasons(base(id="base"))["train"].startswith("changed base_files: ")


def test_recipe_in_the_run_folder_says_everything_and_means_the_same() -> None:
    Path("tiny.yaml").write_text(RECIPE.replace("Tiny", "'1e5'"))
    loaded = load_recipe("tiny.yaml", parse_overrides(["train.learning_rate=1e-5", "sweep.min_retention=null"]))
    Path("again.yaml").write_text(resolved(loaded))
    assert load_recipe("again.yaml") == loaded
