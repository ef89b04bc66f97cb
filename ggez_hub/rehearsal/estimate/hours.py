"""How long a run takes on which machines, and what that costs."""

import math
from collections.abc import Mapping
from typing import Any

from ggez_hub.rehearsal.estimate import data, models
from ggez_hub.rehearsal.estimate.assumptions import GPU, hardware
from ggez_hub.rehearsal.estimate.counter import Cost
from ggez_hub.rehearsal.estimate.models import Model
from ggez_hub.rehearsal.estimate.results import Number, Way, value
from ggez_hub.rehearsal.estimate.work import Asked, Phase, micro
from ggez_hub.schema import Recipe

MOST = 16  # GPUs that one run is estimated for


SOME, NONE = Number(1000, "steps", ""), Number(None, "rows", "")


def ways(
    recipe: Recipe,
    phases: list[Phase],
    steps: Mapping[str, Number],
    rows: Mapping[str, Number],
    memory: Mapping[str, Mapping[str, Number]],
    network: Any,
    swept: Model,
    asked: list[Asked],
    encoding: Cost | None,
) -> tuple[Way, ...]:
    """Machines that the run fits on: one GPU, the smallest first, then several, the cheapest first."""
    found = []
    for gpu in hardware().gpus:
        if value(memory["sweep"]["all"]) > gpu.memory:
            continue
        count, needed = _sharded(memory["train"], network, gpu)
        if count is None:
            continue
        hours = {
            "filter": _filtering(recipe),
            "train": _train_hours(recipe, phases, steps, rows, gpu, count, encoding),
            "1,000 steps": _train_hours(recipe, phases[-1:], {"train": SOME}, {"all": NONE}, gpu, count, encoding),
            "sweep": _sweep_hours(recipe, swept, asked, gpu),
        }
        train, sweep = hours["train"].value, hours["sweep"].value
        cost = None if train is None or sweep is None else (count * train + sweep) * gpu.price
        how = f"({count} x training + sweep) hours x {gpu.price:g} USD (assumption)"
        found.append(Way(gpu.name, count, needed, hours, Number(cost, "USD", how)))
    return tuple(sorted(found, key=lambda way: (way.gpus > 1, value(way.cost) if way.gpus > 1 else 0, way.gpus)))


def _sharded(items: Mapping[str, Number], network: Any, gpu: GPU) -> tuple[int | None, Number]:
    """How many GPUs hold the training, and what each then does; None = no number does."""
    whole = items["all"]
    if value(whole) <= gpu.memory:
        return 1, whole
    shared = sum(value(n) for name, n in items.items() if name.endswith("weights") or name in ("gradients", "AdamW"))
    own = value(items["activations"]) + value(items["work"])
    gathered, assumed = models.gathered(network), hardware().assumed
    count = 2
    while count <= MOST:
        used = shared / count + own + gathered
        used += assumed.context + assumed.fragmentation * used
        if used <= gpu.memory:
            how = (
                f"{shared / 1e9:.1f} GB / {count} + {own / 1e9:.1f} GB of a part + {gathered / 1e9:.1f} GB gathered, "
                "and the allowance"
            )
            return count, Number(used, "bytes", how)
        count *= 2
    return None, whole


def _train_hours(
    recipe: Recipe,
    phases: list[Phase],
    steps: Mapping[str, Number],
    rows: Mapping[str, Number],
    gpu: GPU,
    count: int,
    encoding: Cost | None,
) -> Number:
    """Of all phases, and of what is computed before them."""
    utilisation = _utilisation(phases[-1].made, gpu)
    speed = gpu.tflops * 1e12 * utilisation * (count * hardware().assumed.sharded if count > 1 else 1)
    batch, seconds, told = recipe.train.batch_size, 0.0, []
    for phase in phases:
        number = steps[phase.name].value
        if number is None:
            return Number(None, "hours", f"{phase.name}: {steps[phase.name].how}")
        flops = phase.usual.flops * batch / phase.rows
        seconds += number * flops / speed
        told.append(f"{number:,.0f} steps x {flops:.2e} operations")
        if encoding is None:
            seconds += number * batch / count * hardware().assumed.decode
    kind = f"{gpu.tflops:g}e12 x {utilisation:g}" + (
        f" x {count} x {hardware().assumed.sharded:g}" if count > 1 else ""
    )
    how = f"({' + '.join(told)}) / ({kind})"
    if encoding is None:
        how += f" + {batch} pictures a step x {hardware().assumed.decode:g} s" + (f" / {count}" if count > 1 else "")
    elif rows["all"].value is not None:
        pictures = min(micro(recipe), models.at_once(micro(recipe), models.side(phases[-1].made)))
        seconds += rows["all"].value * encoding.flops / pictures / speed
        how += f" + {rows['all'].value:,.0f} pictures x {encoding.flops / pictures:.2e} operations of the VAE"
    return Number(seconds / 3600, "hours", how)


def _utilisation(made: Model, gpu: GPU) -> float:
    return gpu.utilisation * (hardware().assumed.unet if made.loaded.pipeline else 1)


def _sweep_hours(recipe: Recipe, made: Model, asked: list[Asked], gpu: GPU) -> Number:
    """Of all questions at all alphas; what is written is held up by reading the weights."""
    utilisation = _utilisation(made, gpu)
    speed, alphas = gpu.tflops * 1e12 * utilisation, len(recipe.sweep.alphas)
    weights = models.size(made.loaded.model)
    seconds, told = 0.0, []
    for one in asked:
        asked_for = one.questions.value
        if asked_for is None:
            continue
        batches = math.ceil(asked_for / recipe.sweep.batch_size)
        reading = one.tokens * batches * weights / (gpu.bandwidth * 1e9)
        seconds += asked_for * one.flops / speed + reading
        seconds += asked_for * one.pictures * hardware().assumed.decode
        told.append(
            f"{asked_for:,.0f} x {one.flops:.2e} operations ({one.name}: {one.how})"
            + (f" + {one.tokens} tokens x {batches} batches x {weights / 1e9:.1f} GB of weights" if one.tokens else "")
        )
    if not told:
        return Number(None, "hours", "of no benchmark the number of questions is known")
    how = f"{alphas} alphas x ({'; '.join(told)}), at {gpu.tflops:g}e12 x {utilisation:g}"
    return Number(alphas * seconds / 3600, "hours", how)


def _filtering(recipe: Recipe) -> Number:
    """Of the filter, on one core, and of the models among its rules."""
    assumed, filter_ = hardware().assumed, recipe.filter
    read = [data.rows_of(source).value for source in recipe.data.corpora.values()]
    if None in read:
        return Number(None, "hours", "rows that it reads: not known")
    count = sum(rows or 0 for rows in read)
    rates = {"read and checked on one core": assumed.filter}
    if filter_.embedding:
        rates["embedded"] = assumed.image_embedding
    if filter_.reward and not filter_.reward.endpoint:
        rates["judged"] = assumed.reward
    hours = sum(count / rate for rate in rates.values()) / 3600
    told = " + ".join(f"{count:,.0f} / {rate:g} a second ({name})" for name, rate in rates.items())
    return Number(hours, "hours", f"{told}, assumptions; at most, as rules before drop rows")


def not_counted(recipe: Recipe) -> tuple[str, ...]:
    """What takes time and is in no number."""
    found = []
    if recipe.filter.reward and recipe.filter.reward.endpoint:
        found.append("hours of the reward model behind filter.reward.endpoint")
    if recipe.translate:
        rate = hardware().assumed.translation
        found.append(f"hours of the translation; assumption for one in this process: {rate:g} texts a second")
    if recipe.sweep.search == "refine":
        found.append("alphas that sweep.search: refine adds")
    return tuple(found)
