"""train: supervised fine-tuning of an adapter, or of the whole model, on the filtered rows (paper, sections 4.2, 5.2).

One loop for all families, through accelerate: one process or several. Every step draws its rows and its random numbers
from (seed, step) alone, so a killed run that goes on from a checkpoint ends in the same bytes as one that was never
disturbed, and several processes compute what one would.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device, families, hub
from ggez_hub.errors import InputError
from ggez_hub.families.base import Family, Loaded, Row
from ggez_hub.runs import Run, write_json, write_text
from ggez_hub.schema import Recipe, Train

if TYPE_CHECKING:
    import numpy as np
    import torch

NEEDS = ("filter",)
RESUMABLE = True
MAX_GRAD_NORM = 1.0
CHECKPOINT = "checkpoint.safetensors"
EXAMPLES = "examples.parquet"  # of the filter: a file, or a folder of shards
ROWS = "rows"
TRAINED_BASE = "base.trained"  # until the checkpoint says that it is


@dataclass
class Progress:
    """What the stage writes down, also in its checkpoints."""

    log: list[dict[str, Any]] = field(default_factory=list)  # an entry per step
    report: dict[str, dict[str, Any]] = field(default_factory=dict)  # by phase

    def steps(self, phase: str) -> int:
        """How many steps of a phase are done."""
        return sum(entry["phase"] == phase for entry in self.log)

    def is_done(self, phase: str, steps: int | None) -> bool:
        """Whether a phase is at its end, of so many steps; None = as many as its epochs turned out to be."""
        return self.steps(phase) == (steps or self.report.get(phase, {}).get("steps"))


@dataclass(frozen=True)
class Phase:
    """A part of the training that has an optimiser of its own."""

    name: str
    loss: str
    steps: int  # 0 = not known before its rows are counted
    epochs: float | None
    learning_rate: float
    warmup: int

    def over(self, rows: int, batch: int) -> "Phase":
        """The phase over so many rows in batches of so many, with its number of steps."""
        # In decimals, as the recipe has them: 1.1 epochs of 100 rows are 110 rows, and not a little more.
        steps = self.steps or math.ceil(Fraction(repr(self.epochs)) * rows / batch)
        return replace(self, steps=steps, warmup=min(self.warmup, steps) if self.name == "pretrain" else self.warmup)


def phases(family: Family, settings: Train) -> list[Phase]:
    """The phases of a training, in their order."""
    loss = settings.loss or next(iter(family.LOSSES))
    found = [Phase("train", loss, settings.steps or 0, settings.epochs, settings.learning_rate, settings.warmup)]
    if before := settings.pretrain:
        rate = before.learning_rate or settings.learning_rate
        found.insert(0, Phase("pretrain", before.loss, before.steps or 0, before.epochs, rate, settings.warmup))
    return found


def inputs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the stage depends on."""
    made = recipe.section("family", "base", "train", "seed") | {"filter": run.outputs_hash("filter", EXAMPLES)}
    return made | hub.base_files(recipe.base, run)


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes adapter/ (or model/, for full training), log.jsonl and report.json; for a random start also base/."""
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    family, settings, full = families.get(recipe.family), recipe.train, recipe.train.method == "full"
    dtype = _dtype(settings, device.best())
    # A whole model has weights that a loss does not reach.
    accelerator = Accelerator(
        cpu=device.on_cpu(), kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=full)]
    )
    accelerator.wait_for_everyone()  # the folder is made by the first process
    done = _progress(folder / CHECKPOINT)
    with accelerator.main_process_first():
        examples = _examples(run.stage("filter") / EXAMPLES, folder)
        base = _base(family, recipe, run, folder, examples, done)
    sharded = _sharded(accelerator)
    loaded = family.load(base, torch.device("cpu") if sharded else accelerator.device, torch.float32 if full else dtype)
    if not full:
        add_lora(family, loaded, recipe)
    trained: dict[str, torch.Tensor] = {}
    for phase in phases(family, settings):
        if done.is_done(phase.name, phase.steps):
            continue
        if settings.gradient_checkpointing:
            checkpoint_activations(family.network(loaded, phase.loss))
        with accelerator.main_process_first(), device.enough_memory("train.micro_batch_size", _micro(settings)):
            rows, counts = family.prepare(
                loaded, _eligible(examples, family, phase), phase.loss, _micro(settings), settings.max_length
            )
        if not len(rows):
            raise InputError(f"train.{phase.name}: no row is left to train on", "raise train.max_length")
        phase = phase.over(len(rows), settings.batch_size)
        passes = round(phase.steps * settings.batch_size / len(rows), 3)
        length = {"rows": len(rows), "steps": phase.steps, "epochs": passes}
        done.report[phase.name] = {"loss": phase.loss} | length | counts
        trained = _train(accelerator, family, loaded, recipe, phase, rows, folder, done)
        if phase.name == "pretrain" and accelerator.is_main_process:
            _hand_over(family, loaded, recipe, phase, folder, done)
    if accelerator.is_main_process:
        if sharded:
            loaded = _whole(family, recipe, base, trained)
        _export(family, loaded, recipe, run, folder)
        write_text(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in done.log))
        write_json(folder / "report.json", done.report)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        shutil.rmtree(folder / ROWS)
    accelerator.wait_for_everyone()


def _examples(path: Path, folder: Path) -> Any:
    """The rows, mapped into memory from an uncompressed copy that lives beside the checkpoint until the end."""
    import datasets

    datasets.disable_progress_bars()
    shards = [str(shard) for shard in sorted(path.glob("*.parquet"))] or str(path)
    return datasets.Dataset.from_parquet(shards, cache_dir=str(folder / ROWS))


def _base(family: Family, recipe: Recipe, run: Run, folder: Path, examples: Any, done: Progress) -> Path:
    """The folder of the base; a random start is made in this stage's own."""
    if recipe.base.random is None:
        return hub.base_folder(recipe.base, run)
    base = folder / "base"
    before = recipe.train.pretrain
    if (folder / TRAINED_BASE).is_dir() and before and done.is_done("pretrain", before.steps):
        _swap(folder)  # a run was killed between the two
    if not base.is_dir():
        shutil.rmtree(folder / "base.partial", ignore_errors=True)
        columns = ("text", "label", "question", "answer")
        texts = {text for name in columns for text in examples.unique(name) if text}
        options = {text for row in examples["options"] for text in row or ()}
        parts = {part: hub.fetch(name) for part, name in recipe.base.parts.items()}
        family.write_tiny(folder / "base.partial", sorted(texts | options), recipe.seed, parts, **recipe.base.random)
        (folder / "base.partial").rename(base)
    return base


def add_lora(family: Family, loaded: Loaded, recipe: Recipe) -> None:
    """Puts a fresh LoRA on the model."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    lora = recipe.train.lora
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=family.lora_targets(),
        task_type=family.TASK_TYPE,
    )
    try:
        loaded.model = get_peft_model(loaded.model, config)
    except ValueError as err:
        raise InputError(f"{loaded.folder}: no layer for a LoRA of family {recipe.family!r}: {err}") from err


def _eligible(examples: Any, family: Family, phase: Phase) -> Any:
    """The rows that have what the loss learns from."""
    field = family.LOSSES[phase.loss]
    missing = examples.data.column(field).null_count if field in examples.column_names else len(examples)
    if missing == len(examples):
        raise InputError(
            f"train.{phase.name}: loss {phase.loss!r} learns from {field!r}, which no row has",
            "choose another train.loss, or name the column with data.columns",
        )
    return examples.filter(lambda value: value is not None, input_columns=[field]) if missing else examples


def _micro(settings: Train) -> int:
    return settings.micro_batch_size or settings.batch_size


def checkpoint_activations(network: Any) -> None:
    """Recomputes activations in the backward pass; each library names it differently."""
    if hasattr(network, "gradient_checkpointing_enable"):
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif hasattr(network, "set_grad_checkpointing"):  # open_clip
        network.set_grad_checkpointing()
    else:
        network.enable_gradient_checkpointing()


# ------------------------------------------------------------------------------------------------------------- the loop
def _train(
    accelerator: Any,
    family: Family,
    loaded: Loaded,
    recipe: Recipe,
    phase: Phase,
    rows: Any,
    folder: Path,
    done: Progress,
) -> "dict[str, torch.Tensor]":
    """Trains a phase to its end; returns what was trained, by name, whole on the first process."""
    import torch
    from tqdm import tqdm

    settings = recipe.train
    network = family.network(loaded, phase.loss)
    if settings.method == "full":
        if network is not loaded.model and recipe.base.random is None:
            raise InputError(
                f"train.{phase.name}: loss {phase.loss!r} trains what stays as it is in a base that is given"
            )
        network.requires_grad_(True)
        _freeze(network, phase, settings)
    names = {f"network.{name}": name for name, p in network.named_parameters() if p.requires_grad}
    if not names:
        raise InputError(f"train.{phase.name}: loss {phase.loss!r} trains what takes no LoRA", "use train.method=full")
    module = _parts(network, accelerator.device, _dtype(settings, accelerator.device))
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=phase.learning_rate, weight_decay=settings.weight_decay
    )
    module, optimizer = accelerator.prepare(module, optimizer)
    parameters = {name: p for name, p in accelerator.unwrap_model(module).network.named_parameters() if p.requires_grad}
    first = done.steps(phase.name)
    if not _sharded(accelerator):
        _restore(folder / CHECKPOINT, parameters, optimizer.optimizer.state)
    network.train()
    share = (accelerator.process_index, accelerator.num_processes)
    with (
        tqdm(total=phase.steps, initial=first, desc=phase.name, unit=" steps", disable=bool(share[0])) as progress,
        device.enough_memory("train.micro_batch_size", _micro(settings)),
    ):
        for step in range(first, phase.steps):
            rng = _generator(recipe.seed, step, phase)
            batch = _batch(rows, _indices(len(rows), settings.batch_size, step, recipe.seed), settings, rng)
            rate = _rate(phase, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            parts = family.losses(loaded, batch, _micro(settings), phase.loss, share)
            accelerator.gradient_accumulation_steps, accelerator.step = len(parts), 0
            total = torch.zeros((), device=accelerator.device)
            for part in parts:
                with accelerator.accumulate(module):
                    loss = module(part)
                    # accelerate takes means over parts and processes; these are terms of one sum.
                    accelerator.backward(loss * (len(parts) * share[1]))
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(module.parameters(), MAX_GRAD_NORM)
                    optimizer.step()
                    optimizer.zero_grad()
                total += loss.detach()
            value = float(accelerator.reduce(total, "sum"))
            done.log.append({"phase": phase.name, "step": step, "loss": value, "learning_rate": rate})
            progress.set_postfix(loss=f"{value:.3f}", refresh=False)
            progress.update()
            due = (step + 1) % settings.checkpoint_steps == 0 and step + 1 < phase.steps
            if due and accelerator.is_main_process and not _sharded(accelerator):
                _save(folder / CHECKPOINT, parameters, optimizer.optimizer.state, done)
    state = accelerator.get_state_dict(module) if _sharded(accelerator) else {}
    network.eval()
    if settings.method == "full":
        network.requires_grad_(False)
    return {name: state[whole] for whole, name in names.items() if whole in state}


def _freeze(network: Any, phase: Phase, settings: Train) -> None:
    """Keeps the parts that train.freeze names as they are."""
    names = dict(network.named_parameters())
    for start in settings.freeze:
        chosen = [name for name in names if name.startswith(start)]
        if not chosen and phase.name == "train":
            known = sorted({".".join(name.split(".")[:2]) for name in names})
            raise InputError(f"train.freeze: no parameter's name begins with {start!r}", f"such as {', '.join(known)}")
        for name in chosen:
            names[name].requires_grad_(False)


def _dtype(settings: Train, where: "torch.device") -> "torch.dtype":
    """What is computed in."""
    import torch

    found: torch.dtype = getattr(torch, settings.dtype) if settings.dtype else device.dtype(where)
    return found


def _parts(network: Any, where: "torch.device", precision: "torch.dtype") -> Any:
    """A module whose forward pass computes a part of the loss: what several processes keep in step."""
    import torch

    class Parts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, part: Callable[[], torch.Tensor]) -> torch.Tensor:
            with torch.autocast(where.type, precision, enabled=precision != torch.float32):
                return part().float()

    return Parts()


def _sharded(accelerator: Any) -> bool:
    """Whether no process holds a whole model."""
    return accelerator.distributed_type.value in ("FSDP", "DEEPSPEED")


# --------------------------------------------------------------------------------------------------------------- a step
def _generator(seed: int, step: int, phase: Phase) -> "np.random.Generator":
    """Random numbers of one step; torch's own are set to match."""
    import numpy as np
    import torch

    rng = np.random.default_rng([seed, step] if phase.name == "train" else [seed, step, 2])
    torch.manual_seed(int(rng.integers(2**62)))
    return rng


def _indices(rows: int, batch: int, step: int, seed: int) -> "np.ndarray":
    """Rows of a step, int [batch]: epochs are permutations, and batches run across their borders."""
    import numpy as np

    place = np.arange(step * batch, (step + 1) * batch)
    epochs = {
        epoch: np.random.default_rng([seed, epoch, 1]).permutation(rows)
        for epoch in sorted({int(p) for p in place // rows})
    }
    return np.array([epochs[int(p) // rows][p % rows] for p in place])


def _batch(examples: Any, indices: "np.ndarray", settings: Train, rng: "np.random.Generator") -> list[Row]:
    from ggez_hub.data.images import decode, jitter

    columns = examples[indices]
    rows: list[Row] = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        if "image" in row:
            image = decode(row["image"]["bytes"])
            row["image"] = jitter(image, rng) if settings.augment else image
    return rows


def _rate(phase: Phase, step: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    if step < phase.warmup:
        return phase.learning_rate * (step + 1) / phase.warmup
    return phase.learning_rate * (phase.steps - step) / (phase.steps - phase.warmup)


# ---------------------------------------------------------------------------------------------------------- checkpoints
def _hand_over(family: Family, loaded: Loaded, recipe: Recipe, phase: Phase, folder: Path, done: Progress) -> None:
    """Keeps what a phase has learned for the next one, and for a run that goes on after it."""
    if recipe.base.random is None:
        network = family.network(loaded, phase.loss)
        trained = recipe.train.method == "full"
        parameters = {name: p for name, p in network.named_parameters() if trained or "lora_" in name}
        _save(folder / CHECKPOINT, parameters, {}, done)
        return
    # What a random start has learned beforehand is part of the base.
    shutil.rmtree(folder / TRAINED_BASE, ignore_errors=True)
    family.save(loaded, folder / TRAINED_BASE)
    _save(folder / CHECKPOINT, {}, {}, done)
    _swap(folder)


def _swap(folder: Path) -> None:
    """Puts the trained base in the place of the random one."""
    shutil.rmtree(folder / "base", ignore_errors=True)
    (folder / TRAINED_BASE).rename(folder / "base")


def _save(path: Path, parameters: "Mapping[str, torch.Tensor]", state: Mapping[Any, Any], done: Progress) -> None:
    from safetensors.torch import save_file

    temporary = path.with_suffix(".partial")
    tensors = {name: parameter.data.contiguous() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{name}#{key}": value.contiguous() for key, value in state.get(parameter, {}).items()}
    try:
        save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(done))})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _progress(path: Path) -> Progress:
    """What a checkpoint has behind it."""
    from safetensors import safe_open

    if not path.is_file():
        return Progress()
    with safe_open(path, framework="pt") as file:
        return Progress(**json.loads(file.metadata()["progress"]))


def _restore(path: Path, parameters: "Mapping[str, torch.Tensor]", state: MutableMapping[Any, Any]) -> None:
    """Fills parameters and the optimiser's state from a checkpoint, where it has them."""
    import torch
    from safetensors import safe_open

    if not path.is_file():
        return
    with safe_open(path, framework="pt") as file, torch.no_grad():
        names = set(file.keys())
        for name, parameter in parameters.items():
            if name in names:
                parameter.copy_(file.get_tensor(name))
            keys = [key.partition("#")[2] for key in names if key.startswith(f"{name}#")]
            if keys:
                state[parameter] = {key: file.get_tensor(f"{name}#{key}").clone() for key in keys}


def _whole(family: Family, recipe: Recipe, base: Path, trained: "Mapping[str, torch.Tensor]") -> Loaded:
    """A model on the CPU with the weights that were trained in shards."""
    import torch

    loaded = family.load(base, torch.device("cpu"), torch.float32 if recipe.train.method == "full" else None)
    if recipe.train.method == "lora":
        add_lora(family, loaded, recipe)
    loaded.model.load_state_dict(trained, strict=False)
    return loaded


def _export(family: Family, loaded: Loaded, recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes the trained adapter, or the whole model."""
    if recipe.train.method == "full":
        family.save(loaded, folder / "model")
        return
    config = loaded.model.peft_config["default"]
    config.base_model_name_or_path = hub.base_name(recipe.base)  # PEFT would write the path on this machine
    config.revision = hub.base_revision(recipe.base, run)
    family.save_adapter(loaded, folder / "adapter")
