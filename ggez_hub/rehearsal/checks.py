"""What can be told of a recipe before anything of it runs, each thing at its line; and where an error belongs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import gate, hub, recipes, registry
from ggez_hub.data import folders, readers, rewards
from ggez_hub.errors import ConfigError, GgezError
from ggez_hub.metadata import is_hub_id
from ggez_hub.registry import Key, Place
from ggez_hub.rehearsal.report import Problem
from ggez_hub.schema import HubSource, Recipe

if TYPE_CHECKING:
    from ggez_hub.rehearsal.estimate import Estimate

UNSTATED = "is not stated"  # as hub.licenses says it
MOST_ROWS, MOST_DRAWINGS = 2**16, 2**12  # in memory at once, which no GPU holds; more would take long to be counted
COMMIT = re.compile("[0-9a-f]{40}")
CACHED = re.compile(r"\S*(?:datasets|models)--(\S+?)/snapshots/[0-9a-f]{40}")


def opened(name: str, overrides: Mapping[str, Any]) -> tuple[Recipe, Place]:
    """A recipe, and what names the place of each of its keys.

    Raises:
        ConfigError: Every problem that `ggez validate` finds.
    """
    recipe = recipes.load_recipe(name, overrides)
    return recipe, registry.parse_file(registry.find("recipes", name), overrides, extends=True)[1]


def invalid(err: ConfigError) -> list[Problem]:
    """The problems of a recipe that is not valid."""
    found = []
    for line in err.problems:
        place, _, text = line.partition("  ")
        file = place.rpartition(":")[0]
        hint = err.hint or (f"mend it there; ggez validate {file} tells at once" if file else "")
        found.append(Problem(place, text, hint) if text else Problem("", line, err.hint or ""))
    return found


# ------------------------------------------------------------------------------------------------------- without models
def offline(recipe: Recipe, place: Place) -> Iterator[Problem]:
    """What stands against a recipe that is valid: licenses that do not go together, a batch that is never full."""
    for key, why in gate.rights(recipe):
        if not why.endswith(UNSTATED):
            yield at(place, key, why, "mend the license where it is wrong, take others, or give card.license another")
    part = "micro_batch_size" if recipe.train.micro_batch_size else "batch_size"
    most = MOST_DRAWINGS if recipe.family == "diffusion" else MOST_ROWS
    if (rows := recipe.train.micro_batch_size or recipe.train.batch_size) > most:
        text = f"{rows} rows in memory at once, which no GPU holds"
        yield at(place, f"train.{part}", text, "train.micro_batch_size=8, and more where the estimate leaves room")
    caps = [corpus.cap for corpus in recipe.data.corpora.values()]
    if recipe.translate is None and all(caps) and recipe.train.batch_size > (most := sum(filter(None, caps))):
        text = f"{recipe.train.batch_size} rows in a batch, but the caps leave {most} at most"
        yield at(place, "train.batch_size", text, f"train.batch_size={most} or less, or raise the cap")


def at(place: Place, key: str, text: str, hint: str) -> Problem:
    """A problem of a key, which the text names if it does not yet."""
    return Problem(place(tuple(key.split("."))), text if key in text else f"{key}: {text}", hint)


def fits(recipe: Recipe, place: Place, estimate: "Estimate") -> Iterator[Problem]:
    """A batch that no GPU holds, nor any number of them."""
    if not estimate.possible:
        part = "micro_batch_size" if recipe.train.micro_batch_size else "batch_size"
        key = f"train.{part}" if estimate.peak_stage == "train" else "sweep.batch_size"
        needed = f"{(estimate.peak.value or 0) / 1e9:,.0f} GB of a GPU"
        text = f"{needed} in {estimate.peak_stage}, which no number of GPUs gives: {estimate.peak.how}"
        yield at(place, key, text, estimate.hint or "")


def readable(recipe: Recipe, place: Place, here: bool = False) -> Iterator[Problem]:
    """What keeps the first rows of the data from being read: a column that is not there, a `where` that does not fit.

    Args:
        recipe: The recipe, with data that can be reached.
        place: Of the keys of the recipe as it was written.
        here: Only of data that are on this machine.
    """
    for key, corpus in sources(recipe).items():
        if here and not (corpus.path and Path(corpus.path).exists()):
            continue
        try:
            next(readers.read(corpus, section=key), None)
        except GgezError as err:
            yield located(err, recipe, place, key)


def draws(reader: str) -> bool:
    """Whether a reader draws its rows, from no file and nothing on the Hub."""
    return not readers.needs_path(reader) and reader not in folders.READERS


def sources(recipe: Recipe) -> dict[str, HubSource]:
    """The sources of a recipe's data, by their keys in it."""
    prefix = "data.sources." if recipe.data.sources else ""
    return {f"{prefix}{name}": corpus for name, corpus in recipe.data.corpora.items()}


# ----------------------------------------------------------------------------------------------------------- to be told
def told(recipe: Recipe) -> Iterator[str]:
    """What is no mistake, but has to be known before the real run: access that has to be asked for, and no pin."""
    for _, why in gate.rights(recipe):
        if why.endswith(UNSTATED):
            yield f"{why}; the gate lets nothing be published before it is"
    gated, newest = dict[str, list[str]](), dict[str, list[str]]()  # keys by id
    for key, name, revision, is_gated in named(recipe):
        if is_gated:
            gated.setdefault(name, []).append(key)
        if not COMMIT.fullmatch(revision or ""):
            newest.setdefault(name, []).append(key)
    for name, keys in gated.items():
        yield f"{', '.join(keys)}: {name} is gated; accept its terms on the Hub, then `hf auth login`"
    for name, keys in newest.items():
        yield f"{', '.join(keys)}: {name} is not pinned; the run takes the newest and records which: ggez pin"
    for name in recipe.mixes:
        yield f"mixes.{name}: not rehearsed, only the recipe itself"


def named(recipe: Recipe) -> Iterator[tuple[str, str, str | None, bool]]:
    """What a recipe takes from the Hub: its key, its id, its revision, whether access has to be asked for."""
    base, rules = recipe.base, recipe.filter
    found: list[tuple[str, str | None, str | None, bool]] = [("base", base.id, base.revision, base.gated)]
    for key, source in sources(recipe).items():
        found += [] if source.path else [(key, source.id, source.revision, source.gated)]
    for name in recipe.sweep.benchmarks:
        source = recipes.load_benchmark(name).source
        found += [] if source.path else [(f"benchmark {name}", source.id, source.revision, source.gated)]
    if rules.unsafe:
        found.append(("filter.unsafe", rules.unsafe.id, rules.unsafe.revision, False))
    if (reward := rules.reward) and not reward.endpoint:
        found.append(("filter.reward", reward.id or rewards.MODELS[reward.model].id, reward.revision, False))
    for name, translator in recipe.translate.translators.items() if recipe.translate else ():
        if not translator.endpoint:
            found.append((f"translate.translators.{name}", translator.id, translator.revision, False))
    for key, given, revision, gated in found:
        if given and is_hub_id(given) and not hub.is_shipped(given) and not Path(given).is_dir():
            yield key, given, revision, gated


# ------------------------------------------------------------------------------------------------------------- an error
def located(err: GgezError, recipe: Recipe, place: Place, key: str = "") -> Problem:
    """An error of the run, at the line of the recipe that it speaks of, as far as that can be known.

    Args:
        err: The error.
        recipe: The recipe.
        place: Of its keys.
        key: What the error is about if it names nothing itself.
    """
    said = f"{err.message} {err.hint or ''}"
    text = err.message if not isinstance(err, ConfigError) or "  " not in err.message else err.message.split("  ", 1)[1]
    text = CACHED.sub(lambda found: found[1].replace("--", "/"), text)  # a data set as the recipe calls it
    return Problem(_place(said, recipe, place, key), text, err.hint or "")


def _place(said: str, recipe: Recipe, place: Place, key: str) -> str:
    """The place of the first key of the recipe that is named in words, or of the benchmark that is."""
    known = "|".join(field.alias or name for name, field in Recipe.model_fields.items())
    plain: Any = recipe.model_dump(mode="json", by_alias=True)
    for found in re.finditer(rf"\b(?:{known})(?:\.[\w-]+)+", said):
        parts: Key = tuple(found[0].split("."))
        if parts[1] in plain.get(parts[0], ()) or parts[0] in ("data", "sweep", "train", "filter"):
            return place(parts)
    sides: Mapping[str, Any] = plain["sweep"]
    for side in ("global", "regional", "beside"):
        for i, name in enumerate(sides[side]):
            if name in said or recipes.load_benchmark(name).title in said:
                return place(("sweep", side, i))
    return place(tuple(key.split("."))) if key else ""
