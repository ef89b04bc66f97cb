"""What the real run of a recipe needs: memory, disk, hours and money, each with the arithmetic that gives it.

Parameters, memory and arithmetic are counted on the real classes. What cannot be counted is assumed, and stands in
hardware.yaml and corpora.yaml: speeds and prices of GPUs, lengths of texts, sizes of data sets.
"""

from typing import Any

from ggez_hub.rehearsal.bases import Architecture
from ggez_hub.rehearsal.estimate import counting, data, disk, hours, memory, models, work
from ggez_hub.rehearsal.estimate.assumptions import hardware
from ggez_hub.rehearsal.estimate.results import Estimate, Number, Way, shown, text, value
from ggez_hub.schema import Recipe

__all__ = ["Estimate", "Number", "Way", "estimate", "shown", "text"]


def estimate(recipe: Recipe, architecture: Architecture) -> Estimate:
    """What the real run of a recipe needs.

    Args:
        recipe: The recipe.
        architecture: Of its base, see `bases.of`.
    """
    longest, usual, lengths = data.lengths(recipe, architecture)
    rows = data.rows(recipe)
    phases = work.phases(recipe, architecture, longest, usual)
    main = phases[-1].made
    same = recipe.train.method == "lora" and recipe.train.dtype is None  # in the sweep as in the training
    answering = phases[-1].counted if same else models.shallow(architecture, recipe, trains=False)
    swept = main if same else models.model(architecture, recipe, trains=False, runs=False)
    asked, batch = work.sweep(recipe, architecture, answering)
    steps = {}
    for phase in phases:
        learned = data.eligible(recipe, rows, main.family.LOSSES[phase.loss])
        steps[phase.name] = data.steps(phase.settings, learned, recipe.train.batch_size)
    encoding = counting.encoding(answering[0], work.micro(recipe)) if main.loaded.pipeline else None
    needed = {
        "train": max((memory.training(phase, recipe, encoding) for phase in phases), key=lambda n: value(n["all"])),
        "sweep": memory.sweeping(recipe, swept, batch),
        "merge": memory.merging(main),
    }
    stage = max(("train", "sweep"), key=lambda name: value(needed[name]["all"]))
    peak = needed[stage]["all"]
    network = main.family.network(main.loaded, phases[-1].loss)
    trained = _trained(recipe, network)
    ways = hours.ways(recipe, phases, steps, rows, needed, network, swept, asked, encoding)
    fits = tuple(gpu.name for gpu in hardware().gpus if gpu.memory >= value(peak))
    missing = [
        f"rows of {name}: {n.how}" for name, n in rows.items() if n.value is None and (name != "all" or len(rows) == 1)
    ]
    missing += [f"questions of {one.name}: {one.questions.how}" for one in asked if one.questions.value is None]
    return Estimate(
        base=architecture.id,
        parameters={
            name: Number(models.base_parameters(part), "parameters", f"counted on {type(_inner(part)).__name__}")
            for name, part in main.parts.items()
        },
        trained=trained,
        lengths=lengths,
        rows=rows,
        questions={one.name: one.questions for one in asked},
        steps=steps,
        memory=needed,
        peak=peak,
        peak_stage=stage,
        fits=fits,
        possible=bool(ways),
        hint=None if fits else memory.hint(recipe, needed, ways),
        disk=disk.needed(recipe, architecture, main, int(value(trained)), rows, missing),
        ways=ways,
        missing=tuple(missing) + hours.not_counted(recipe),
    )


def _inner(network: Any) -> Any:
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def _trained(recipe: Recipe, network: Any) -> Number:
    count = models.parameters(network, trained=True)
    how = "all but train.freeze" if recipe.train.freeze else "all of the network"
    if recipe.train.method == "lora":
        how = f"LoRA of rank {recipe.train.lora.r}, put on the layers by PEFT and counted"
    return Number(count, "parameters", how)
