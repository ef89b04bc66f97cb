"""Training in several processes: the same result as in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ggez_hub import families, load_recipe, registry, run
from ggez_hub.stages import train

FAMILIES = sorted(registry.files("families"))
RECIPE = """\
title: Shared
family: {family}
region: sea
base: {{id: base, license: mit}}
data: {{reader: {reader}, options: {{train: 1}}, where: {{category: [Food, Animals]}}, synthetic: true}}
train: {{steps: 4, batch_size: 8, micro_batch_size: 2, learning_rate: 1e-2, lora: {{r: 2}}}}
sweep: {{global: [{task}], regional: [{task}-2]}}
"""
BENCHMARK = """\
title: Any
synthetic: true
source: {{reader: {reader}, options: {{test: 1}}}}
task: {task}
"""
TASKS = {"drawing": "drawing\nprompt: '{label}'\njudge: ggez-hub/pocket-base-embedding"}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A recipe of a family on its tiny base, filtered."""
    family = families.get(request.param)
    family.write_tiny(tmp_path / "base", ["a picture that shows nasi lemak"])
    task = "question" if family.WRITES else family.TASKS[0]
    reader = "pocket_questions" if task == "question" else "pocket"
    (tmp_path / "recipes" / "benchmarks").mkdir(parents=True)
    for name in (task, f"{task}-2"):
        text = BENCHMARK.format(reader=reader, task=TASKS.get(task, task))
        (tmp_path / "recipes" / "benchmarks" / f"{name}.yaml").write_text(text)
    recipe = RECIPE.format(family=request.param, reader=reader, task=task)
    (tmp_path / "recipes" / "shared.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    for out in ("one", "two"):
        run("shared", out, until="filter")
    return tmp_path


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Starts ggez in two processes on the CPU, as a user would."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}  # also where a GPU is
    return subprocess.run([*command, "-m", "ggez_hub", *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("prepared", FAMILIES, indirect=True)
def test_two_processes_train_what_one_would(prepared: Path) -> None:
    finished = launch("train", "shared", "--out", "two")
    assert finished.returncode == 0, finished.stderr[-3000:]
    one = run("shared", "one", until="train").stage("train")
    two = prepared / "two" / "shared" / "train"
    expected, found = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    logs = [[json.loads(line)["loss"] for line in (folder / "log.jsonl").open()] for folder in (one, two)]
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)
    assert finished.stderr.count("Shared") == 1, "only the first process talks"


@pytest.mark.slow
@pytest.mark.parametrize("prepared", ["embedding"], indirect=True)
def test_other_stages_are_refused_in_several_processes(prepared: Path) -> None:
    finished = launch("run", "shared", "--out", "two")
    assert finished.returncode != 0
    assert "ggez run RECIPE --until" in finished.stderr


@pytest.mark.parametrize(
    "prepared",
    [pytest.param(family, marks=[pytest.mark.slow] * (family != "embedding")) for family in FAMILIES],
    indirect=True,
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_that_were_trained_in_shards_become_a_whole_model(prepared: Path, method: str) -> None:
    recipe = load_recipe("shared", {"train.method": method})
    family = families.get(recipe.family)
    loaded = family.load(prepared / "base")
    if method == "lora":
        train.add_lora(family, loaded, recipe)
    trained = {
        name: torch.randn_like(p) for name, p in loaded.model.named_parameters() if method == "full" or "lora_" in name
    }
    whole = train._whole(family, recipe, prepared / "base", trained).model.state_dict()
    base = family.load(prepared / "base").model.state_dict()
    assert trained
    for name, tensor in trained.items():
        torch.testing.assert_close(whole[name], tensor)
    untouched = [name for name in base if method == "lora" and name in whole]
    assert all(torch.equal(whole[name], base[name]) for name in untouched)
