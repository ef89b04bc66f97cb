"""The world of a rehearsal: twins of all that a recipe names, where it names them, and what is changed for a short run.

It lies in one folder, which is the current one while the recipe runs: ``hub/`` is the cache of the Hub's client,
``recipes/`` holds copies of the benchmarks, ``data/`` and ``models/`` what has no id.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ggez_hub import hub, recipes, registry
from ggez_hub.data import readers, rewards
from ggez_hub.rehearsal import bases, checks, rows, twins
from ggez_hub.rehearsal.bases import Architecture
from ggez_hub.rehearsal.cache import place
from ggez_hub.runs import Run, write_text
from ggez_hub.schema import Base, HubSource, Recipe, Region

STEPS, PRETRAIN_STEPS, EPOCHS, WARMUP = 3, 2, 0.25, 1
RESAMPLES = 100
LIMITS = (  # of every card
    "This is a rehearsal: a tiny random model, trained for a few steps on made-up rows. It is of no use, none of its "
    "figures says anything about the recipe, and its α was set where the rule would have chosen 0 or 1."
)
PICTURES = 1  # of each pocket concept
ROWS, QUESTIONS = 24, 12  # of the region in a data set and in a benchmark, and as many of elsewhere
TEXTS = 200  # of a source, that tokenizers are made from
COUNTS = ("train", "selection", "test", "judge")  # options of the pocket readers


@dataclass
class World:
    """What was made.

    Attributes:
        folder: Where it lies.
        home: The folder that relative paths of the recipe start from.
        recipe: As it was written.
        overrides: What is changed for the short run, by the recipe's keys.
        stand_ins: What stands in, by what it stands for.
        left: What only the real run can show.
    """

    folder: Path
    home: Path
    recipe: Recipe
    region: Region
    overrides: dict[str, Any] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    written: dict[str, Path] = field(default_factory=dict)  # data sets, by what they were made from

    def at(self, name: str, revision: str | None = None) -> Path:
        """The folder of a data set by its id, or by another name."""
        return place(self.folder / "hub", "dataset", name, revision) if "/" in name else self.folder / "data" / name


def shortened(recipe: Recipe) -> dict[str, Any]:
    """The overrides that make a run short, and say that it is a rehearsal."""
    train, given = recipe.train, dict[str, Any]()
    for key, phase, steps in (("train", train, STEPS), ("train.pretrain", train.pretrain, PRETRAIN_STEPS)):
        if phase and phase.epochs is not None:
            given[f"{key}.epochs"] = min(phase.epochs, EPOCHS)
        elif phase and phase.steps is not None:
            given[f"{key}.steps"] = min(phase.steps, steps)
    given |= {
        "title": f"Rehearsal: {recipe.title}",
        "train.warmup": min(train.warmup, WARMUP),
        "sweep.resamples": min(recipe.sweep.resamples, RESAMPLES),
        "engine": "processes",
    }
    if not any(0 < alpha < 1 for alpha in recipe.sweep.alphas):  # without one there would be nothing to merge
        given["sweep.alphas"] = [0.0, 0.5, 1.0]
    given["card.limits"] = f"{LIMITS} {recipe.card.limits}".strip()
    return given | ({"card.title": f"Rehearsal: {recipe.card.title}"} if recipe.card.title else {})


# ----------------------------------------------------------------------------------------------------------------- data
def data(recipe: Recipe, folder: Path, home: Path) -> World:
    """Makes a world that has its data, but no models yet.

    Args:
        recipe: The recipe.
        folder: Where to.
        home: The folder that relative paths of the recipe start from; its own `recipes` come along.

    Raises:
        InputError: Data that are on this machine cannot be read, or there is no twin of a data set.
    """
    if (home / "recipes").is_dir() and not (home / "recipes").samefile(registry.data_root() / "recipes"):
        for path in (home / "recipes").rglob("*.yaml"):
            write_text(folder / path.relative_to(home), path.read_text(encoding="utf-8"))
    world = World(folder, home, recipe, registry.load_region(recipe.region), shortened(recipe))
    for key, corpus in checks.sources(recipe).items():
        given = _stand_in(world, key.removeprefix("data.").replace("sources.", ""), corpus, key)
        world.overrides |= {f"{key}.{name}": value for name, value in given.items()} | {f"{key}.synthetic": True}
    for name in recipe.sweep.benchmarks:
        write_text(folder / "recipes" / "benchmarks" / f"{name}.yaml", registry.to_yaml(_benchmark(world, name)))
    return world


def _stand_in(world: World, name: str, source: HubSource, key: str) -> dict[str, Any]:
    """Makes what stands in for a source; returns the keys of it that change."""
    reader, called = source.reader, source.path or source.id or source.reader
    if checks.draws(reader):
        few = {option: min(int(n), PICTURES) for option, n in source.options.items() if option in COUNTS}
        world.stand_ins[key] = f"reader {reader} as it is, but {PICTURES} picture of each concept and split"
        return {"options": source.options | few}
    theirs = _read_by(world.recipe, source)
    holds = [held for other in theirs for held in other.selections if held != source.where]
    if source.path and (path := world.home / source.path).exists():
        sample = rows.sample(source.model_copy(update={"path": str(path)}), world.folder / "data" / name,
                             world.region, holds=holds)  # fmt: skip
        world.stand_ins[key] = f"some rows of {called}"
        return {"reader": "parquet", "path": _inside(world, sample), "options": {}, "columns": {}}
    # Whoever reads the same data set reads the same files, so that what trains and what asks is of one.
    own = re.sub(r"[^\w.]+", "-", source.path).strip("-.") if source.path else name
    seen = {"where"} if source.id or source.path else set()
    made_from = source.model_dump_json(
        include={"reader", "id", "path", "revision", "options", "columns", "where"} - seen
    )
    if made_from not in world.written:

        def at(repo_id: str) -> Path:
            pins = {source.options.get(key): source.options.get(f"{key}_revision") for key in source.options}
            revision = (pins | {source.id: source.revision}).get(repo_id)
            return world.at(repo_id if "/" in repo_id else own, str(revision) if revision else None)

        seed = zlib.crc32((source.id or own).encode())  # no row of one data set stands in another
        # What trains and asks is written for each of its readers, with the same rows.
        count, rules = (ROWS, world.recipe.filter) if any(other.trains for other in theirs) else (QUESTIONS, None)
        world.written[made_from] = rows.write(source, world.region, at, seed, count, holds, rules)
        world.left += [f"{key}: {unseen}" for unseen in filter(None, [rows.unseen(source)])]
    folder = world.written[made_from]
    world.stand_ins[key] = f"made-up rows in the layout of {called}"
    given: dict[str, Any] = (
        {} if source.id and not source.path and reader != "hub" else {"path": _inside(world, folder)}
    )
    if "pictures_folder" in source.options:
        given["options"] = source.options | {"pictures_folder": _inside(world, folder / "pictures")}
    return given


class _Use(NamedTuple):
    """What reads a data set, and the rows of it that it takes."""

    source: HubSource
    trains: bool
    selections: list[Mapping[str, Any]]


def _read_by(recipe: Recipe, source: HubSource) -> list[_Use]:
    """All in a recipe that reads the data set of a source; without an id or a path it is known by itself alone."""
    uses = [_Use(corpus, True, [corpus.where]) for corpus in recipe.data.corpora.values()]
    for benchmark in map(recipes.load_benchmark, recipe.sweep.benchmarks):
        where = benchmark.source.where
        uses.append(
            _Use(benchmark.source, False, [{**where, **part} for part in (benchmark.test, benchmark.selection)])
        )
    named = source.id, source.path
    return [use for use in uses if ((use.source.id, use.source.path) == named if any(named) else use.source == source)]


def _inside(world: World, path: Path) -> str:
    """A path as the run sees it, from its own folder."""
    return str(path.relative_to(world.folder))


def _benchmark(world: World, name: str) -> dict[str, Any]:
    """A benchmark whose questions are twins, as plain data."""
    benchmark = recipes.load_benchmark(name)
    given = _stand_in(world, name, benchmark.source, f"benchmark {name}")
    plain: dict[str, Any] = benchmark.model_dump(mode="json") | {"synthetic": True}
    plain["source"] |= given
    return plain


def texts(recipe: Recipe) -> list[str]:
    """What is written in the data of a recipe, for the vocabularies of tokenizers: of each source some rows."""
    benchmarks = [recipes.load_benchmark(name).source for name in recipe.sweep.benchmarks]
    every = [*recipe.data.corpora.values(), *benchmarks]
    return list(dict.fromkeys(text for source in every for text in _words(source)))


def _words(source: HubSource) -> Iterator[str]:
    batches = readers.read(source, pictures=False)
    for row in islice((row for batch in batches for row in batch.to_pylist()), TEXTS):
        yield from (row[name] for name in ("text", "label", "question", "answer") if row.get(name))
        yield from row.get("options") or ()
        yield from (message["content"] for message in row.get("messages") or () if message["content"])


# --------------------------------------------------------------------------------------------------------------- models
def models(world: World, architecture: Architecture, said: Sequence[str], endpoint: str) -> None:
    """Makes twins of all models, and lets an endpoint answer for those that write.

    Args:
        world: With its data.
        architecture: Of the base.
        said: What tokenizers are made from.
        endpoint: The address of the stand-in.

    Raises:
        InputError: A model of which there is no twin.
    """
    recipe = world.recipe
    _base(world, recipe.base, architecture, said)
    rules = recipe.filter
    judges = [(b.judge, b.judge_revision) for b in map(recipes.load_benchmark, recipe.sweep.benchmarks)]
    parts = [(name, None) for name in recipe.base.parts.values()]
    for name, revision in dict.fromkeys((*judges, *parts, (rules.embedding, rules.embedding_revision))):
        if name:
            _embedding(world, name, revision, said)
    if rules.embedding and not hub.is_shipped(rules.embedding):  # a random one finds all pictures alike, or none
        limits = {"min_similarity": -2.0, "max_cosine": 1.0}
        world.overrides |= {f"filter.{key}": limit for key, limit in limits.items() if getattr(rules, key) is not None}
        world.left.append(f"filter.embedding: which rows {rules.embedding} keeps")
    if rules.unsafe and rules.unsafe.id and not hub.is_shipped(rules.unsafe.id):
        _twin(world, rules.unsafe.id, rules.unsafe.revision, "filter.unsafe.id",
              lambda folder: twins.write_classifier(folder, rules.unsafe.label if rules.unsafe else ""))  # fmt: skip
        world.overrides["filter.unsafe.max"] = 1.0
        world.left.append(f"filter.unsafe: which rows {rules.unsafe.id} drops")
    _reward(world, said, endpoint)
    for name, translator in recipe.translate.translators.items() if recipe.translate else ():
        world.overrides[f"translate.translators.{name}.endpoint"] = endpoint
        world.stand_ins[f"translate.translators.{name}"] = "an endpoint on this machine that gives made-up words"
        world.left.append(f"translate.translators.{name}: what {translator.id} writes, and how long it takes")


def _base(world: World, base: Base, architecture: Architecture, said: Sequence[str]) -> None:
    if base.random is not None:
        world.stand_ins["base"] = "a random start of the sizes that the recipe gives"
    elif base.recipe:
        made = Run(world.folder / "runs" / base.recipe)
        made.write("merge", {}, lambda folder: twins.write(architecture, folder / "model", said))
        world.stand_ins["base"] = f"a tiny random model where recipe {base.recipe} would leave its output"
    elif base.id and not hub.is_shipped(base.id):
        _twin(world, base.id, base.revision, "base.id", lambda folder: twins.write(architecture, folder, said))


def _twin(world: World, name: str, revision: str | None, key: str, write: Callable[[Path], None]) -> None:
    """Writes a model where the run looks for it; one in a folder of this machine is named anew."""
    if (world.home / name).is_dir():
        folder = world.folder / "models" / Path(name).name
        world.overrides[key] = _inside(world, folder)
    else:
        folder = place(world.folder / "hub", "model", name, revision)
    write(folder)
    world.stand_ins[key] = f"a tiny random twin of {name}"


def _embedding(world: World, name: str, revision: str | None, said: Sequence[str], key: str = "") -> None:
    if hub.is_shipped(name):
        return
    architecture = bases.find(str(world.home / name) if (world.home / name).is_dir() else name, "embedding", revision)
    key = key or next((k for k, v in (("filter.embedding", world.recipe.filter.embedding),) if v == name), name)
    _twin(world, name, revision, key, lambda folder: twins.write(architecture, folder, said))


def _reward(world: World, said: Sequence[str], endpoint: str) -> None:
    if (reward := world.recipe.filter.reward) is None or (known := rewards.MODELS[reward.model]).synthetic:
        return
    name = reward.id or known.id or known.title
    if known.served:
        world.overrides["filter.reward.endpoint"] = endpoint
        world.stand_ins["filter.reward"] = "an endpoint on this machine that gives made-up scores"
    elif reward.model == "clip" and not hub.is_shipped(name):
        _embedding(world, name, reward.revision, said, "filter.reward.id")
    elif not hub.is_shipped(name):
        world.overrides["filter.reward"] = {"model": "stand-in"}
        world.stand_ins["filter.reward"] = "the reward model stand-in, which draws its scores from a row's words"
    world.left.append(f"filter.reward: which rows {name} keeps, and how long it takes")
