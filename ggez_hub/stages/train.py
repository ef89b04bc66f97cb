"""train: supervised fine-tuning of an adapter, or of the whole model, on the filtered rows (paper, sections 4.2, 5.2).

One loop for all families. Every step draws its rows and its random numbers from (seed, step) alone, so a killed run
that goes on from a checkpoint ends in the same bytes as one that was never disturbed.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import families, hub
from ggez_hub.errors import InputError
from ggez_hub.families.base import Family, Loaded, Row
from ggez_hub.runs import Run, write_text
from ggez_hub.schema import Recipe, Train

if TYPE_CHECKING:
    import numpy as np
    import torch

NEEDS = ("filter",)
RESUMABLE = True
MAX_GRAD_NORM = 1.0
CHECKPOINT = "checkpoint.safetensors"
ROWS = "rows"


def inputs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the stage depends on."""
    made = recipe.section("family", "base", "train", "seed") | {"filter": run.outputs_hash("filter")}
    return made | hub.base_files(recipe.base, run)


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes adapter/ (or model/, for full training) and log.jsonl; for a random start also base/."""
    import torch
    from tqdm import tqdm

    family = families.get(recipe.family)
    examples = _examples(run.stage("filter") / "examples.parquet", folder)
    if recipe.base.random is not None and not (folder / "base" / "config.json").is_file():
        texts = sorted({text for name in ("text", "label") for text in examples[name]})
        family.write_tiny(folder / "base", texts, recipe.seed, **recipe.base.random)
    loaded = family.load(folder / "base" if recipe.base.random is not None else hub.base_folder(recipe.base, run))
    parameters = _prepare(family, loaded, recipe)
    settings = recipe.train
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    log = _restore(folder / CHECKPOINT, parameters, optimizer)
    first = len(log)
    loaded.model.train()
    with tqdm(total=settings.steps, initial=first, desc="train", unit=" steps") as progress:
        for step in range(first, settings.steps):
            rng = _generator(recipe.seed, step)
            rows = _batch(examples, _indices(len(examples), settings.batch_size, step, recipe.seed), settings, rng)
            loss = _step(family, loaded, rows, optimizer, parameters, settings, step)
            log.append({"step": step, "loss": loss, "learning_rate": _rate(settings, step)})
            progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
            progress.update()
            if (step + 1) % settings.checkpoint_steps == 0 and step + 1 < settings.steps:
                _save(folder / CHECKPOINT, parameters, optimizer, log)
    _export(loaded, recipe, folder)
    write_text(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in log))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(folder / ROWS)


def _examples(path: Path, folder: Path) -> Any:
    """The rows, mapped into memory from an uncompressed copy that lives beside the checkpoint until the end."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_parquet(str(path), cache_dir=str(folder / ROWS))


def _prepare(family: Family, loaded: Loaded, recipe: Recipe) -> "dict[str, torch.nn.Parameter]":
    """Makes the model trainable: a fresh LoRA, or all of it. Returns the parameters that train, by name."""
    import torch

    torch.manual_seed(recipe.seed)
    if recipe.train.method == "lora":
        from peft import LoraConfig, get_peft_model

        lora = recipe.train.lora
        config = LoraConfig(
            r=lora.r, lora_alpha=lora.lora_alpha, lora_dropout=lora.lora_dropout, target_modules=family.lora_targets()
        )
        try:
            loaded.model = get_peft_model(loaded.model, config)
        except ValueError as err:
            raise InputError(f"{loaded.folder}: no layer for a LoRA of family {recipe.family!r}: {err}") from err
    else:
        loaded.model.requires_grad_(True)
    return {name: p for name, p in loaded.model.named_parameters() if p.requires_grad}


# --------------------------------------------------------------------------------------------------------------- a step
def _generator(seed: int, step: int) -> "np.random.Generator":
    """Random numbers of one step; torch's own are set to match."""
    import numpy as np
    import torch

    rng = np.random.default_rng([seed, step])
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

    rows: list[Row] = examples.select(indices).to_list()
    for row in rows:
        image = decode(row["image"]["bytes"])
        row["image"] = jitter(image, rng) if settings.augment else image
    return rows


def _step(
    family: Family,
    loaded: Loaded,
    rows: list[Row],
    optimizer: "torch.optim.Optimizer",
    parameters: "dict[str, torch.nn.Parameter]",
    settings: Train,
    step: int,
) -> float:
    """One optimiser step; returns the mean loss."""
    import torch

    total = 0.0
    for term in family.losses(loaded, rows, settings.micro_batch_size or settings.batch_size, settings.loss):
        term.backward()  # type: ignore[no-untyped-call]
        total += float(term.detach())
    torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_GRAD_NORM)
    for group in optimizer.param_groups:
        group["lr"] = _rate(settings, step)
    optimizer.step()
    optimizer.zero_grad()
    return total


def _rate(settings: Train, step: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    return settings.learning_rate * (settings.steps - step) / (settings.steps - settings.warmup)


# ---------------------------------------------------------------------------------------------------------- checkpoints
def _state(
    parameters: "dict[str, torch.nn.Parameter]", optimizer: "torch.optim.Optimizer"
) -> "Iterator[tuple[str, torch.Tensor]]":
    for name, parameter in parameters.items():
        yield name, parameter.data
        for key, value in optimizer.state[parameter].items():
            yield f"{name}#{key}", value


def _save(path: Path, parameters: Any, optimizer: Any, log: list[dict[str, float]]) -> None:
    from safetensors.torch import save_file

    temporary = path.with_suffix(".partial")
    tensors = {name: tensor.contiguous() for name, tensor in _state(parameters, optimizer)}
    try:
        save_file(tensors, temporary, metadata={"log": json.dumps(log)})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _restore(path: Path, parameters: Any, optimizer: Any) -> list[dict[str, float]]:
    """Fills parameters and optimiser from a checkpoint, if there is one; returns the log so far."""
    import torch
    from safetensors import safe_open

    if not path.is_file():
        return []
    with safe_open(path, framework="pt") as file, torch.no_grad():
        names = set(file.keys())
        for name, parameter in parameters.items():
            parameter.copy_(file.get_tensor(name))
            keys = [key.partition("#")[2] for key in names if key.startswith(f"{name}#")]
            optimizer.state[parameter] = {key: file.get_tensor(f"{name}#{key}").clone() for key in keys}
        log: list[dict[str, float]] = json.loads(file.metadata()["log"])
        return log


def _export(loaded: Loaded, recipe: Recipe, folder: Path) -> None:
    """Writes the trained adapter in PEFT's format, or the whole model."""
    if recipe.train.method == "full":
        loaded.model.save_pretrained(folder / "model")
        loaded.processor.save_pretrained(folder / "model")
        return
    config = loaded.model.peft_config["default"]
    config.base_model_name_or_path = hub.base_name(recipe.base)  # PEFT would write the path on this machine
    config.revision = recipe.base.revision
    loaded.model.save_pretrained(folder / "adapter", save_embedding_layers=False)  # else PEFT asks the Hub for the base
    (folder / "adapter" / "README.md").unlink(missing_ok=True)  # PEFT's own; ours comes from the card stage
