"""What takes the memory of a GPU in the training and in the sweep, and of the machine in the merge."""

import math
from collections.abc import Mapping

from ggez_hub.rehearsal.estimate import models
from ggez_hub.rehearsal.estimate.assumptions import hardware
from ggez_hub.rehearsal.estimate.counter import Cost
from ggez_hub.rehearsal.estimate.models import Model
from ggez_hub.rehearsal.estimate.results import Number, Way, value
from ggez_hub.rehearsal.estimate.work import Phase, micro
from ggez_hub.schema import Recipe

STATES = 2  # numbers that AdamW keeps for each parameter that trains


def training(phase: Phase, recipe: Recipe, encoding: Cost | None) -> dict[str, Number]:
    """What takes the memory of a GPU in the training."""
    made, cost = phase.made, phase.memory
    network = made.family.network(made.loaded, phase.loss)
    count = models.parameters(network, trained=True)
    frozen = sum(models.size(part, trained=False) for part in made.parts.values())
    held = "4 bytes, as all weights train" if recipe.train.method == "full" else f"{made.dtype.itemsize} bytes"
    whole = sum(models.parameters(part) for part in made.parts.values()) - count
    rows = f"{micro(recipe)} rows at once"
    how = "with gradient checkpointing" if recipe.train.gradient_checkpointing else "all kept for the backward pass"
    items = {
        "frozen weights": Number(
            frozen, "bytes", f"{whole:.3e} parameters x {held}" + ("; a VAE in float32" if encoding else "")
        ),
        "trained weights": Number(4 * count, "bytes", f"{count:.3e} parameters x 4 bytes"),
        "gradients": Number(4 * count, "bytes", f"{count:.3e} parameters x 4 bytes"),
        "AdamW": Number(4 * STATES * count, "bytes", f"{count:.3e} parameters x {STATES} states x 4 bytes"),
        "activations": Number(cost.saved, "bytes", f"counted: {rows}, {how}"),
    }
    copies = made.dtype.itemsize * count if made.dtype.itemsize < 4 else 0
    moments = {  # none of which is at the time of another
        "counted: logits, layers that are recomputed, gradients on their way": cost.peak,
        f"{count:.3e} weights in {made.dtype.itemsize} bytes, which autocast keeps": cost.saved + copies,
        f"{count:.3e} roots of AdamW's state in the update x 4 bytes, without activations": 4 * count,
        "counted: the VAE that encodes the pictures before the first step": encoding.peak if encoding else 0,
    }
    how, most = max(moments.items(), key=lambda item: item[1])
    items["work"] = Number(most - cost.saved, "bytes", f"for a moment beyond the activations: {how}")
    if recipe.train.method == "full" and frozen == 0:
        del items["frozen weights"]
    return _with_allowance(items)


def _with_allowance(items: dict[str, Number]) -> dict[str, Number]:
    """What the driver takes and what is lost between blocks, and the sum."""
    assumed, used = hardware().assumed, sum(value(number) for number in items.values())
    extra = assumed.context + assumed.fragmentation * used
    how = f"assumption: {assumed.context / 1e9:g} GB of the driver + {assumed.fragmentation:.0%} lost between blocks"
    items = items | {"allowance": Number(extra, "bytes", how)}
    return items | {"all": Number(used + extra, "bytes", "the sum")}


def sweeping(recipe: Recipe, made: Model, answering: Mapping[str, Cost]) -> dict[str, Number]:
    """What takes the memory of a GPU in the sweep."""
    weights = sum(models.size(part) for part in made.parts.values())
    how = f"counted: {weights / made.dtype.itemsize:.3e} numbers x {made.dtype.itemsize} bytes, the adapter in float32"
    items = {"weights": Number(weights, "bytes", how)}
    if recipe.train.method == "full":
        own = models.size(made.loaded.model)
        items["weights"] = Number(
            2 * weights + own, "bytes", f"2 models x {weights / 1e9:.2f} GB + a copy of the weights that change"
        )
    name, cost = max(answering.items(), key=lambda item: item[1].peak, default=("questions", Cost(0, 0, 0)))
    how = f"counted: {recipe.sweep.batch_size} rows (sweep.batch_size), at {name}"
    return _with_allowance(items | {"work": Number(cost.peak, "bytes", how)})


def merging(made: Model) -> dict[str, Number]:
    """What the merge takes of the machine's memory: it streams."""
    largest = max(p.numel() for p in made.loaded.model.parameters())
    how = f"the largest tensor, {largest:.3e} numbers, x 2 x 4 bytes: tensors stream from disk to disk"
    return {"all": Number(8 * largest, "bytes", how)}


def hint(recipe: Recipe, memory: Mapping[str, Mapping[str, Number]], ways: tuple[Way, ...]) -> str:
    """Which setting to change where no single GPU does."""
    largest = max(hardware().gpus, key=lambda gpu: gpu.memory)
    if ways:
        best = ways[0]
        return f"the training needs {best.gpus} {best.gpu}, sharded: accelerate launch with FSDP"
    sweep, train = memory["sweep"], memory["train"]
    room = largest.memory / (1 + hardware().assumed.fragmentation) - hardware().assumed.context
    if value(sweep["all"]) > largest.memory:
        rows = _rows_that_fit(recipe.sweep.batch_size, room - value(sweep["weights"]), value(sweep["work"]))
        if rows:
            return f"lower sweep.batch_size from {recipe.sweep.batch_size} to {rows} or less for a {largest.name}"
        return (
            f"its sweep holds {value(sweep['weights']) / 1e9:.0f} GB of weights: train.method=lora, or a smaller base"
        )
    needed = value(train["activations"]) + value(train["work"])
    rows = _rows_that_fit(micro(recipe), room - (value(train["all"]) - needed - value(train["allowance"])), needed)
    if not rows:  # where the rest alone is too much, it can still be shared
        rows = _rows_that_fit(micro(recipe), room / 2, needed)
    if rows and rows < micro(recipe):
        return f"lower train.micro_batch_size from {micro(recipe)} to {rows} or less for a {largest.name}"
    if not recipe.train.gradient_checkpointing:
        return "train.gradient_checkpointing=true"
    return "train.method=lora, a lower train.max_length, or a smaller base"


def _rows_that_fit(rows: int, room: float, needed: float) -> int:
    """About how many rows do, as what they need grows with them."""
    return max(0, math.floor(rows * room / needed)) if needed else rows
