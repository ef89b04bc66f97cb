"""Recipes and benchmarks, checked together with everything they name: what `ggez validate` and a run both call."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from ggez_hub import families, kof, metadata, registry
from ggez_hub.data import readers, rewards, translation
from ggez_hub.errors import ConfigError, InputError, did_you_mean
from ggez_hub.families.base import Family
from ggez_hub.registry import Key, Kind, Place
from ggez_hub.schema import Benchmark, Recipe, Reward, Translate
from ggez_hub.scoring.answers import PROTOCOLS
from ggez_hub.scoring.scorers import SCORERS

M = TypeVar("M", bound=BaseModel)


def load_benchmark(name: str, overrides: Mapping[str, Any] | None = None) -> Benchmark:
    """Loads a benchmark by name or path.

    Args:
        name: A name that ``ggez ls benchmarks`` lists, or the path of a YAML file.
        overrides: Values that win over the file, such as ``{"source.path": "questions.parquet"}``.

    Raises:
        ConfigError: Every problem in the file.
    """
    value, place = registry.parse_file(registry.find("benchmarks", name), overrides)
    benchmark = registry.check(Benchmark, value, place)
    problems = _misread(benchmark, place)
    try:
        _check_source(benchmark.source.model_dump(), ("source",), place)
    except ConfigError as err:
        problems.extend(err.problems)
    if problems:
        raise ConfigError(registry.by_line(problems))
    return benchmark


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None, extends: bool = True) -> Recipe:
    """Loads a recipe by name or path, with everything it names.

    Args:
        name: A name that ``ggez ls recipes`` lists, or the path of a YAML file.
        overrides: Values that win over the file, such as ``{"train.steps": 50}``.
        extends: Whether it may extend another recipe; not where it is a stranger's, who would choose what is read here.

    Raises:
        ConfigError: Every problem at once: in the recipe, and in the names it uses.
    """
    path = registry.find("recipes", name)
    value, place = registry.parse_file(path, overrides, extends)
    problems: list[str] = []

    def at(*key: str) -> Any:
        """The value of a key as it was given, for a mistake elsewhere should not hide an unknown name."""
        found = value
        for part in key:
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def part(model: type[M], *key: str) -> M | None:
        """A section, or None where it is not given or not right, of which the schema tells."""
        with contextlib.suppress(ConfigError):
            return registry.check(model, at(*key), place) if at(*key) is not None else None
        return None

    def problem(key: Key, text: str) -> None:
        problems.append(f"{place(key)}  {registry.dotted(key)}: {text}")

    def known(kind: Kind, key: Key, name: Any) -> bool:
        if not isinstance(name, str):
            return False  # the schema says so
        if name in registry.files(kind):
            return True
        problem(key, f"unknown {registry.one(kind)} {name!r}{did_you_mean(name, registry.files(kind))}")
        return False

    def collect(call: Callable[[], object]) -> None:
        try:
            call()
        except ConfigError as err:
            problems.extend(err.problems)
        except InputError as err:
            problem(("region",), f"{err.message}; {err.hint}")

    collect(lambda: registry.check(Recipe, value, place))
    if known("regions", ("region",), at("region")):
        collect(lambda: registry.load_region(at("region")))
        if at("sweep", "globalization") is None:
            collect(lambda: kof.lookup(at("region"), at("sweep", "year")))
    family = families.get(at("family")) if known("families", ("family",), at("family")) else None
    for key in (("train", "loss"), ("train", "pretrain", "loss")):
        if family and isinstance(loss := at(*key), str) and loss not in family.LOSSES:
            problem(key, f"unknown loss {loss!r}{did_you_mean(loss, family.LOSSES)}")
    if family and "drawing" in family.TASKS and at("train", "augment") is True:
        problem(("train", "augment"), f"family {at('family')!r} encodes every picture once, so none can change")
    several = at("data", "sources") if isinstance(at("data", "sources"), dict) else None
    corpora: list[tuple[str, ...]] = [("data", "sources", name) for name in several] if several else [("data",)]
    told: dict[Any, str] = {("card", "license"): "license"} | {(*corpus, "languages"): "language" for corpus in corpora}
    for where, name in told.items():
        if at(*where) is not None:  # what the card would be refused for
            for _, found, expected in metadata.CHECKS[name](registry.dotted(where), at(*where)):
                problem(where, f"found {found!r}, expected {expected}")
    if at("card", "license") == "other" and not at("card", "license_name"):
        problem(("card", "license"), "other needs a card.license_name")
    if at("train", "freeze") and at("train", "method") != "full":
        problem(("train", "freeze"), "a LoRA trains none of the model's own weights; it goes with method: full")
    known("recipes", ("base", "recipe"), at("base", "recipe"))

    def asked(key: Key, name: str) -> None:
        """Loads a benchmark, and checks that this family can answer it on this side."""
        benchmark = load_benchmark(name)
        if family and not can_answer(family, benchmark):
            how = (
                benchmark.task if benchmark.answer == "option" else f"{benchmark.task}, answered by {benchmark.answer}"
            )
            problem(key, f"{name!r} is of task {how}, which family {at('family')!r} cannot do")
        if benchmark.scorer != "accuracy":
            problem(key, f"{name!r} is scored by {benchmark.scorer!r}, which `ggez score` does and a run does not")
        source = benchmark.source
        if several and readers.needs_path(source.reader) and not (source.path or source.id):
            why = f"{name!r} is read from data.path, which a recipe of several sources does not have"
            problem(key, f"{why}; give a copy of it a source.path")
        if benchmark.measure == "distance" and "beside" not in key:
            problem(key, f"{name!r} measures a distance, which is no quality; name it under sweep.beside")

    sides = {
        side: at("sweep", side) if isinstance(at("sweep", side), list) else []
        for side in ("global", "regional", "beside")
    }
    for side, names in sides.items():
        for i, benchmark in enumerate(names):
            if known("benchmarks", ("sweep", side, i), benchmark):
                collect(lambda key=("sweep", side, i), benchmark=benchmark: asked(key, benchmark))  # type: ignore[misc]
    for benchmark in sides["global"]:
        if benchmark in sides["regional"]:
            problem(("sweep",), f"{benchmark!r} stands on both sides; give each side its own")
    for corpus in corpora:
        if isinstance(at(*corpus, "reader"), str):
            collect(lambda corpus=corpus: _check_source(at(*corpus), corpus, place))  # type: ignore[misc]
    mixes = at("mixes")
    for mix, taken in mixes.items() if isinstance(mixes, dict) else ():
        for name in taken if isinstance(taken, dict) else ():
            if name not in (sources := several or ["data"]):
                problem(("mixes", mix, name), f"unknown source {name!r}{did_you_mean(name, sources)}")
    if reward := part(Reward, "filter", "reward"):
        try:
            rewards.check(reward, place(("filter", "reward")))
        except ConfigError as err:
            problems.extend(f"{line}; {err.hint}" if err.hint else line for line in err.problems)
    if (translate := part(Translate, "translate")) and isinstance(at("region"), str):
        with contextlib.suppress(ConfigError):  # of the region, said above
            region = registry.load_region(at("region"))
            for where, text in translation.problems(translate, region):
                problem(where, text)
    if problems:
        raise ConfigError(registry.by_line(problems))
    return registry.check(Recipe, value, place)


def can_answer(family: Family, benchmark: Benchmark) -> bool:
    """Whether a family can be asked a benchmark: for more than the likeliest option only where it writes."""
    return benchmark.task in family.TASKS and (benchmark.answer == "option" or family.WRITES)


def _misread(benchmark: Benchmark, place: Place) -> list[str]:
    """What is wrong with how the answers to a benchmark are read and scored, each at its line."""
    known: dict[str, Mapping[str, Any]] = {"answer": PROTOCOLS, "scorer": SCORERS}
    problems = [
        f"{place((key,))}  {key}: unknown {key} {name!r}{did_you_mean(name, names)}"
        for key, names in known.items()
        if (name := getattr(benchmark, key)) not in names
    ]
    if not problems and benchmark.answer not in (fitting := SCORERS[benchmark.scorer].answers):
        how = f"{benchmark.scorer!r} does not score answers of {benchmark.answer!r}; it goes with answer: "
        problems.append(f"{place(('scorer',))}  scorer: {how}{' or '.join(fitting)}")
    return problems


def _check_source(source: Any, key: Key, place: Place) -> None:
    """Raises ConfigError with everything that the reader of a source does not take, each at its line."""
    problems: list[str] = []
    reader, options, columns = (source.get(name) for name in ("reader", "options", "columns"))
    readers.check(reader, {}, place((*key, "reader")))
    for name, value in options.items() if isinstance(options, Mapping) else ():
        try:
            readers.check(reader, {name: value}, place((*key, "options", name)))
        except ConfigError as err:
            problems.extend(err.problems)
    for name in columns if isinstance(columns, Mapping) else ():
        if name not in (known := readers.FIELDS + readers.FURTHER):
            near = did_you_mean(name, known)
            problems.append(f"{place((*key, 'columns', name))}  columns.{name}: unknown field{near}")
    if problems:
        raise ConfigError(problems)


def recipe_name(name: str) -> str:
    """The name of a recipe given by name or path: the file stem, which names the run folder."""
    return registry.find("recipes", name).stem


def validate_file(path: Path) -> None:
    """Checks one YAML file with the code that a run uses.

    Raises:
        ConfigError: Every problem in the file.
    """
    if not path.is_file():
        raise ConfigError([f"{path}: no YAML file in it" if path.is_dir() else f"{path}: no such file"])
    load(registry.kind_of(path), str(path))


def load(kind: Kind, name: str, overrides: Mapping[str, Any] | None = None) -> BaseModel:
    """Loads a recipe, region or benchmark. Raises ConfigError with every problem."""
    if kind == "recipes":
        return load_recipe(name, overrides)
    if kind == "benchmarks":
        return load_benchmark(name, overrides)
    if overrides:
        raise ConfigError([f"argument {next(iter(overrides))}: only recipes and benchmarks take overrides"])
    return registry.load_region(name)
