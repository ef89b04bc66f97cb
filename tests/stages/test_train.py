"""Training: what it writes, and that interruptions leave no trace in it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ggez_hub import families, recipes, run, schema
from ggez_hub.errors import InputError
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import Run, file_hash
from ggez_hub.stages import train as stage

ADAPTER = "tiny/train/adapter/adapter_model.safetensors"


def train(*overrides: str, out: str = "runs") -> Run:
    return run("tiny", out, parse_overrides(overrides), until="train")


def test_adapter_is_in_peft_format_and_names_its_base(project: Path) -> None:
    folder = train().stage("train") / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 2, "base")
    assert {p.name for p in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert {p.name for p in folder.parent.iterdir()} == {"adapter", "log.jsonl", "report.json", "manifest.json"}
    tensors = load_file(folder / "adapter_model.safetensors")
    assert all(tensor.abs().sum() > 0 for tensor in tensors.values()), "an adapter tensor was never trained"


def test_loss_falls_and_is_logged_for_every_step(project: Path) -> None:
    log = [json.loads(line) for line in (train("train.steps=40").stage("train") / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(40))
    first, last = (sum(entry["loss"] for entry in part) for part in (log[:10], log[-10:]))
    assert last < first
    assert log[-1]["learning_rate"] < log[0]["learning_rate"]


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_and_another_seed_others(project: Path) -> None:
    once, twice, other = train(out="a"), train(out="b"), train("seed=1", out="c")
    assert file_hash(once.out / ADAPTER) == file_hash(twice.out / ADAPTER) != file_hash(other.out / ADAPTER)


def test_micro_batches_change_memory_not_the_result(project: Path) -> None:
    whole, parts = train("train.lora.lora_dropout=0", out="a"), train("train.micro_batch_size=3", out="b")
    ours, theirs = load_file(whole.out / ADAPTER), load_file(parts.out / ADAPTER)
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("change", ["train.augment=true", "train.weight_decay=0.5", "train.loss=sigmoid"])
def test_settings_have_an_effect(project: Path, change: str) -> None:
    assert file_hash(train(out="a").out / ADAPTER) != file_hash(train(change, out="b").out / ADAPTER)


@pytest.mark.parametrize(
    ("epochs", "rows", "steps"),
    [(1, 64, 8), (1, 65, 9), (0.001, 5, 1), (2.5, 10, 4), (1.1, 80, 11), (3, 1, 1)],
)
def test_epochs_take_as_many_steps_as_cover_them(epochs: float, rows: int, steps: int) -> None:
    (phase,) = stage.phases(families.get("embedding"), schema.Train(epochs=float(epochs), warmup=3))
    assert (phase.over(rows, 8).steps, phase.over(rows, 8).warmup) == (steps, 3)


def killed_at(step: int) -> None:
    """Runs training in a process of its own and kills it as soon as it shows that step."""
    command = [sys.executable, "-m", "ggez_hub", "run", "tiny", "--until", "train", "--out", "killed"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TQDM_MININTERVAL": "0"})
    assert process.stderr
    seen = ""
    while (character := process.stderr.read(1)) and f" {step}/12 [" not in seen:
        seen += character
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert f" {step}/12 [" in seen, seen


@pytest.mark.slow
def test_killed_runs_go_on_and_end_in_the_same_bytes(project: Path) -> None:
    undisturbed = file_hash(train().out / ADAPTER)
    for step in (3, 9):  # before the first checkpoint, and after the second
        killed_at(step)
        assert not (project / "killed" / "tiny" / "train").exists(), "a killed stage must not look complete"
    hidden = project / "killed" / "tiny" / ".train"
    assert (hidden / "checkpoint.safetensors").is_file(), "there is nothing to go on from"
    assert file_hash(train(out="killed").out / ADAPTER) == undisturbed
    assert not hidden.exists()


@pytest.mark.slow
def test_checkpoint_of_other_settings_is_not_used(project: Path) -> None:
    killed_at(6)
    assert file_hash(train("seed=1", out="killed").out / ADAPTER) == file_hash(train("seed=1").out / ADAPTER)


def test_full_training_from_random_weights_writes_base_and_model(project: Path) -> None:
    folder = train("train.method=full", "base={random: {hidden: 16, text_hidden: 16, image: 16}}").stage("train")
    base, model = (load_file(folder / name / "model.safetensors") for name in ("base", "model"))
    assert base.keys() == model.keys()
    assert any(not torch.equal(base[name], model[name]) for name in base)


def test_base_without_layers_for_a_lora_is_refused(project: Path) -> None:
    (project / "base").unlink()
    (project / "base").mkdir()
    (project / "base" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="base"):
        train()


def test_base_made_by_another_recipe_must_exist(project: Path) -> None:
    recipe = recipes.load_recipe("tiny", parse_overrides(["base={recipe: omniglot-base}"]))
    assert recipe.base.recipe == "omniglot-base"
    with pytest.raises(InputError, match="ggez run omniglot-base"):
        train("base={recipe: omniglot-base}")


def test_random_start_needs_no_sizes(project: Path) -> None:
    assert (train("train.method=full", "base={random: {}}", "train.steps=1").stage("train") / "model").is_dir()
