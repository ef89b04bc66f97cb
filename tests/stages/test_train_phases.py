"""Training in phases, and what families other than embeddings ask of it."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_hook

from ggez_hub import families, run
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import file_hash, read_json

RECIPE = """\
title: Phases
family: {family}
region: sea
base: {{id: base}}
data: {{reader: {reader}, options: {{train: 1}}, where: {{category: [Food, Music]}}, synthetic: true}}
train: {{steps: 6, batch_size: 4, learning_rate: 1e-2, checkpoint_steps: 3, lora: {{r: 2}}}}
sweep: {{global: [one], regional: [two]}}
"""
BENCHMARKS = {
    "embedding": "source: {reader: pocket, options: {test: 1}}\ntask: top1",
    "open_clip": "source: {reader: pocket, options: {test: 1}}\ntask: top1",
    "diffusion": "source: {reader: pocket, options: {test: 1}}\ntask: drawing\nprompt: 'a {label}'\n"
    "judge: ggez-hub/pocket-base-embedding",
    "vlm": "source: {reader: pocket_questions, options: {test: 1}}\ntask: question",
}
RANDOM = "base={random: {image: 16, length: 8, vocabulary: 520}}"
RECONSTRUCT = "train.pretrain={loss: reconstruct, steps: 5, learning_rate: 5e-3}"
DIFFUSION = ("train.method=full", RANDOM, RECONSTRUCT)
CAPTIONS = "train.pretrain={loss: caption, steps: 4}"
ADAPTER = "adapter/adapter_model.safetensors"
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base of every family."""
    folder = tmp_path_factory.mktemp("bases")
    for name in BENCHMARKS:
        families.get(name).write_tiny(folder / name, ["a picture that shows nasi lemak", "pho", "satay"])
    return folder


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bases: Path) -> Callable[[str], Train]:
    """Makes a current directory with a recipe of a family; gives a function that trains it and returns its folder."""

    def make(family: str) -> Train:
        (tmp_path / "recipes" / "benchmarks").mkdir(parents=True)
        reader = "pocket_questions" if family == "vlm" else "pocket"
        (tmp_path / "recipes" / "phases.yaml").write_text(RECIPE.format(family=family, reader=reader))
        for name in ("one", "two"):
            (tmp_path / "recipes" / "benchmarks" / f"{name}.yaml").write_text(
                f"title: Any\nsynthetic: true\n{BENCHMARKS[family]}\n"
            )
        (tmp_path / "base").symlink_to(bases / family)
        monkeypatch.chdir(tmp_path)
        return lambda *overrides, out="runs": run("phases", out, parse_overrides(overrides), until="train").stage(
            "train"
        )

    return make


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return load_file(folder / part / "diffusion_pytorch_model.safetensors")


def outcome(folder: Path) -> dict[str, str]:
    """What a stage wrote, but for the manifest, which has the time in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def killed_at(phase: str, step: int, *overrides: str) -> Path:
    """Trains in a process of its own, kills it as soon as it shows that step, and returns what it leaves."""
    command = [sys.executable, "-m", "ggez_hub", "run", "phases", "--until", "train", "--out", "killed", *overrides]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TQDM_MININTERVAL": "0"})
    assert process.stderr
    seen, line = "", ""
    while character := process.stderr.read(1):
        seen += character
        line = "" if character in "\r\n" else line + character
        if line.startswith(f"{phase}:") and f" {step}/" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert f" {step}/" in line, seen
    assert not Path("killed/phases/train").exists(), "a killed stage must not look complete"
    return Path("killed/phases/.train")


def stopped(monkeypatch: pytest.MonkeyPatch, place: int, work: Callable[[], object]) -> None:
    """Does the work and stops it as it is about to write its checkpoint of that number."""
    written = safetensors.torch.save_file
    seen: list[Any] = []

    def interrupted(tensors: Any, filename: Any, **metadata: Any) -> None:
        seen.extend([filename] if "checkpoint" in Path(filename).name else [])
        if len(seen) == place:
            raise KeyboardInterrupt
        written(tensors, filename, **metadata)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work()


# ---------------------------------------------------------------------------------------- a base that learns in phases
def test_what_a_random_start_learns_first_is_part_of_its_base(prepared: Callable[[str], Train]) -> None:
    train = prepared("diffusion")
    folder, plain = train(*DIFFUSION), train(*DIFFUSION[:2], out="plain")
    assert {p.name for p in folder.iterdir()} == {"base", "model", "log.jsonl", "report.json", "manifest.json"}
    vae = weights(folder, "base/vae")
    assert same(vae, weights(folder, "model/vae")), "the second phase leaves the VAE alone"
    untrained = weights(plain, "base/vae")
    assert not any(torch.equal(vae[name], untrained[name]) for name in vae if name.endswith("conv.weight"))
    assert same(weights(folder, "base/unet"), weights(plain, "base/unet")), "the first phase leaves the UNet alone"
    assert not same(weights(folder, "base/unet"), weights(folder, "model/unet"))
    log = logged(folder)
    assert [(entry["phase"], entry["step"]) for entry in log] == [
        *(("pretrain", step) for step in range(5)),
        *(("train", step) for step in range(6)),
    ]
    assert (log[0]["learning_rate"], log[5]["learning_rate"]) == (5e-3, 1e-2)
    assert all(entry["loss"] > 0 for entry in log)
    report = read_json(folder / "report.json")
    assert {name: part["loss"] for name, part in report.items()} == {"pretrain": "reconstruct", "train": "denoise"}
    assert (
        report["pretrain"]["rows"]
        == report["train"]["rows"]
        == read_json(folder.parent / "filter" / "report.json")["kept"]
    )
    assert read_json(plain / "report.json").keys() == {"train"}


def test_both_phases_learn(prepared: Callable[[str], Train]) -> None:
    log = logged(
        prepared("diffusion")(
            *DIFFUSION[:2], "train.pretrain={loss: reconstruct, steps: 30, learning_rate: 1e-2}", "train.steps=30"
        )
    )
    for part in (log[:30], log[30:]):
        first, last = (sum(entry["loss"] for entry in ten) for ten in (part[:10], part[-10:]))
        assert last < 0.95 * first


def test_same_seed_gives_the_same_bytes_in_both_phases(prepared: Callable[[str], Train]) -> None:
    train = prepared("diffusion")
    once, twice, other = train(*DIFFUSION), train(*DIFFUSION, out="b"), train(*DIFFUSION, "seed=1", out="c")
    assert outcome(once) == outcome(twice)
    assert not same(weights(once, "base/vae"), weights(other, "base/vae"))


@pytest.mark.slow
def test_a_run_killed_in_either_phase_ends_in_the_same_bytes(prepared: Callable[[str], Train]) -> None:
    train = prepared("diffusion")
    undisturbed = outcome(train(*DIFFUSION))
    hidden = killed_at("pretrain", 4, *DIFFUSION)
    assert (hidden / "checkpoint.safetensors").is_file(), "there is nothing to go on from"
    killed_at("train", 1, *DIFFUSION)
    assert outcome(train(*DIFFUSION, out="killed")) == undisturbed
    assert not hidden.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)],
    ids=["in the first", "between them", "in the second"],
)
def test_a_checkpoint_that_was_not_written_changes_nothing(
    prepared: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    train = prepared("diffusion")
    undisturbed = outcome(train(*DIFFUSION))
    stopped(monkeypatch, place, lambda: train(*DIFFUSION, out="stopped"))
    assert outcome(train(*DIFFUSION, out="stopped")) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("what", ["checkpoint", "base"])
def test_a_run_stopped_between_phases_of_few_steps_ends_in_the_same_bytes(
    prepared: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """No checkpoint of the first phase was due before it ended."""
    train = prepared("diffusion")
    overrides = (*DIFFUSION, "train.checkpoint_steps=100")
    undisturbed = outcome(train(*overrides))
    if what == "checkpoint":
        stopped(monkeypatch, 1, lambda: train(*overrides, out="stopped"))
    else:  # as what was learned is about to take the place of the random start
        rename = Path.rename
        seen: list[str] = []

        def interrupted(self: Path, target: Path) -> Path:
            seen.append(target.name)
            if seen.count("base") == 2:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(*overrides, out="stopped")
    assert outcome(train(*overrides, out="stopped")) == undisturbed


# ------------------------------------------------------------------------------------------- an adapter in two phases
def test_an_adapter_learns_captions_before_conversations(prepared: Callable[[str], Train]) -> None:
    train = prepared("vlm")
    folder, plain = train(CAPTIONS), train(out="plain")
    assert {p.name for p in folder.iterdir()} == {"adapter", "log.jsonl", "report.json", "manifest.json"}
    assert [entry["phase"] for entry in logged(folder)] == ["pretrain"] * 4 + ["train"] * 6
    report = read_json(folder / "report.json")
    assert {name: part["loss"] for name, part in report.items()} == {"pretrain": "caption", "train": "answers"}
    first, second = load_file(folder / ADAPTER), load_file(plain / ADAPTER)
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name], second[name]) for name in first), "both phases train all of it"
    assert outcome(train(CAPTIONS, out="again")) == outcome(folder)


@pytest.mark.parametrize(
    "place",
    [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)],
    ids=["in the first", "between them", "in the second"],
)
def test_an_adapter_stopped_in_either_phase_ends_in_the_same_bytes(
    prepared: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    train = prepared("vlm")
    undisturbed = outcome(train(CAPTIONS))
    stopped(monkeypatch, place, lambda: train(CAPTIONS, out="stopped"))
    assert outcome(train(CAPTIONS, out="stopped")) == undisturbed


# ------------------------------------------------------------------------------------------------- rows that can train
def corpus(drop: Callable[[int], bool]) -> str:
    """A corpus like that of the recipe, where some rows have no conversation; as an override."""
    run("phases", "source", until="filter")
    table = pq.read_table("source/phases/filter/examples.parquet")
    rows = [row | ({"messages": None} if drop(i) else {}) for i, row in enumerate(table.to_pylist())]
    pq.write_table(table.from_pylist(rows, schema=table.schema), "corpus.parquet")
    return "data={reader: parquet, path: corpus.parquet}"


def test_rows_without_a_conversation_are_left_out_of_it(prepared: Callable[[str], Train]) -> None:
    train = prepared("vlm")
    folder = train(corpus(lambda i: i % 3 == 0), CAPTIONS, "train.steps=1")
    report = read_json(folder / "report.json")
    rows = read_json(folder.parent / "filter" / "report.json")["kept"]
    assert report["pretrain"]["rows"] == rows
    assert report["train"]["rows"] == rows - -(-rows // 3)


def test_epochs_are_the_steps_that_the_rows_of_each_phase_take(
    prepared: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = prepared("vlm")
    data = (corpus(lambda i: i % 3 == 0), "filter.contamination=keep")
    epochs = (*data, "train.epochs=5.5", "train.pretrain={loss: caption, epochs: 3.3}")
    folder = train(*epochs)
    report = read_json(folder / "report.json")
    rows = {phase: part["rows"] for phase, part in report.items()}
    assert rows["train"] < rows["pretrain"]
    steps = {"pretrain": math.ceil(rows["pretrain"] * 33 / 40), "train": math.ceil(rows["train"] * 55 / 40)}
    assert {phase: part["steps"] for phase, part in report.items()} == steps
    assert {phase: part["epochs"] for phase, part in report.items()} == {
        phase: round(number * 4 / rows[phase], 3) for phase, number in steps.items()
    }
    phases = [entry["phase"] for entry in logged(folder)]
    assert phases == ["pretrain"] * steps["pretrain"] + ["train"] * steps["train"]
    as_steps = (f"train.steps={steps['train']}", f"train.pretrain={{loss: caption, steps: {steps['pretrain']}}}")
    assert outcome(train(*data, *as_steps, out="steps")) == outcome(folder)
    for _ in ("between the phases, after a checkpoint of the first", "in the second, after that of the first's end"):
        stopped(monkeypatch, 2, lambda: train(*epochs, out="stopped"))
    assert outcome(train(*epochs, out="stopped")) == outcome(folder)


def test_a_corpus_without_conversations_names_the_columns(prepared: Callable[[str], Train]) -> None:
    train = prepared("vlm")
    without = corpus(lambda i: True)
    with pytest.raises(InputError, match=r"train: loss 'answers' learns from 'messages'") as caught:
        train(without)
    assert "data.columns" in (caught.value.hint or "")
    assert train(without, "train.loss=caption").is_dir()


# ------------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.loss=reconstruct"], "takes no LoRA"),
        (["train.pretrain={loss: reconstruct, steps: 2}"], "takes no LoRA"),
        (["train.loss=reconstruct", "train.method=full"], "stays as it is in a base that is given"),
        ([*DIFFUSION[:1], RECONSTRUCT], "stays as it is in a base that is given"),
    ],
    ids=["reconstruct, LoRA", "reconstruct first, LoRA", "reconstruct, full", "reconstruct first, full"],
)
def test_what_cannot_be_trained_is_refused(
    prepared: Callable[[str], Train], overrides: list[str], message: str
) -> None:
    train = prepared("diffusion")
    with pytest.raises(InputError, match=message):
        train(*overrides)
    assert not Path("runs/phases/train").exists()


def test_pictures_that_are_encoded_once_cannot_be_augmented(prepared: Callable[[str], Train]) -> None:
    train = prepared("diffusion")
    with pytest.raises(ConfigError, match=r"train\.augment: .*encodes every picture once"):
        train(*DIFFUSION, "train.augment=true")


# ------------------------------------------------------------------------------------------------ memory and precision
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.slow] * (name != "embedding")) for name in BENCHMARKS]
)
def test_gradient_checkpointing_computes_again_what_it_forgot(prepared: Callable[[str], Train], family: str) -> None:
    train = prepared(family)
    calls: list[int] = []
    hook = register_module_forward_hook(lambda module, *_: calls.append(len(getattr(module, "lora_A", ())) > 0))
    try:
        plain, once = train(), sum(calls)
        saving, both = train("train.gradient_checkpointing=true", out="saving"), sum(calls)
    finally:
        hook.remove()
    assert both - once > 1.5 * once > 0, "most layers with an adapter run once more in the backward pass"
    ours, theirs = load_file(plain / ADAPTER), load_file(saving / ADAPTER)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("family", BENCHMARKS)
def test_bfloat16_trains_to_something_near(prepared: Callable[[str], Train], family: str) -> None:
    train = prepared(family)
    fine, coarse = train("train.dtype=float32"), train("train.dtype=bfloat16", out="coarse")
    ours, theirs = load_file(fine / ADAPTER), load_file(coarse / ADAPTER)
    assert {tensor.dtype for tensor in theirs.values()} == {torch.float32}, "what trains stays precise"
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    losses = [entry["loss"] for entry in logged(fine)], [entry["loss"] for entry in logged(coarse)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_a_whole_model_is_kept_in_float32_where_bfloat16_computes(prepared: Callable[[str], Train]) -> None:
    train = prepared("embedding")
    fine, coarse = (train("train.method=full", f"train.dtype={x}", out=x) for x in ("float32", "bfloat16"))
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (fine, coarse))
    assert {tensor.dtype for tensor in theirs.values()} == {torch.float32}
    assert not same(ours, theirs)
    losses = [entry["loss"] for entry in logged(fine)], [entry["loss"] for entry in logged(coarse)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)


# -------------------------------------------------------------------------------------------------------------- frozen
def test_frozen_parts_stay_as_they_are(prepared: Callable[[str], Train]) -> None:
    folder = prepared("vlm")("train.method=full", "train.freeze=[model.vision_tower]")
    base, trained = (load_file(path / "model.safetensors") for path in (Path("base"), folder / "model"))
    tower = [name for name in base if name.startswith("vision_tower.")]
    assert tower
    assert all(torch.equal(trained[name], base[name]) for name in tower)
    assert any(not torch.equal(trained[name], base[name]) for name in base.keys() - set(tower))


def test_freezing_what_is_not_there_is_refused_with_what_there_is(prepared: Callable[[str], Train]) -> None:
    train = prepared("vlm")
    with pytest.raises(InputError, match=r"'vision' *") as caught:
        train("train.method=full", "train.freeze=[vision]")
    assert "model.vision_tower" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match=r"train\.freeze"):
        train("train.freeze=[model.vision_tower]")
