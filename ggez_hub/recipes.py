"""Recipes and benchmarks, checked together with everything they name: what `ggez validate` and a run both call."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ggez_hub import families, registry
from ggez_hub.data import readers
from ggez_hub.errors import ConfigError, did_you_mean
from ggez_hub.registry import Key, Kind, Place
from ggez_hub.schema import Benchmark, Recipe, Source


def load_benchmark(name: str) -> Benchmark:
    """Loads a benchmark by name or path. Raises ConfigError with every problem in the file."""
    path = registry.find("benchmarks", name)
    benchmark = registry.read(Benchmark, path)
    _check_source(benchmark.source, ("source",), registry.parse_file(path)[1])
    return benchmark


def load_recipe(name: str, overrides: Mapping[Key, Any] | None = None) -> Recipe:
    """Loads a recipe by name or path, with everything it names.

    Args:
        name: A name that ``ggez ls recipes`` lists, or the path of a YAML file.
        overrides: Values that win over the file, by key (see parse_overrides).

    Raises:
        ConfigError: Every problem at once: in the recipe, and in the names it uses.
    """
    path = registry.find("recipes", name)
    recipe = registry.read(Recipe, path, overrides)
    place = registry.parse_file(path, overrides)[1]
    problems: list[str] = []

    def problem(key: Key, text: str) -> None:
        problems.append(f"{place(key)}  {registry.dotted(key)}: {text}")

    def known(kind: Kind, key: Key, value: str) -> bool:
        if value in registry.files(kind):
            return True
        problem(key, f"unknown {registry.one(kind)} {value!r}{did_you_mean(value, registry.files(kind))}")
        return False

    def collect(call: Callable[[], object]) -> None:
        try:
            call()
        except ConfigError as err:
            problems.extend(err.problems)

    if known("regions", ("region",), recipe.region):
        collect(lambda: registry.load_region(recipe.region))
    if known("families", ("family",), recipe.family):
        losses, loss = families.get(recipe.family).LOSSES, recipe.train.loss
        if loss is not None and loss not in losses:
            problem(("train", "loss"), f"unknown loss {loss!r}{did_you_mean(loss, losses)}")
    if recipe.base.recipe:
        known("recipes", ("base", "recipe"), recipe.base.recipe)
    for side, names in (("global", recipe.sweep.global_), ("regional", recipe.sweep.regional)):
        for i, benchmark in enumerate(names):
            if known("benchmarks", ("sweep", side, i), benchmark):
                collect(lambda benchmark=benchmark: load_benchmark(benchmark))  # type: ignore[misc]
    for benchmark in set(recipe.sweep.global_) & set(recipe.sweep.regional):
        problem(("sweep",), f"{benchmark!r} stands on both sides; give each side its own")
    collect(lambda: _check_source(recipe.data, ("data",), place))
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return recipe


def _check_source(source: Source, key: Key, place: Place) -> None:
    """Raises ConfigError with everything that the reader does not take, each at its line."""
    readers.check(source.reader, {}, place((*key, "reader")))
    problems: list[str] = []
    for name, value in source.options.items():
        try:
            readers.check(source.reader, {name: value}, place((*key, "options", name)))
        except ConfigError as err:
            problems.extend(err.problems)
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


def load(kind: Kind, name: str, overrides: Mapping[Key, Any] | None = None) -> BaseModel:
    """Loads a recipe, region or benchmark. Raises ConfigError with every problem."""
    if kind == "recipes":
        return load_recipe(name, overrides)
    if overrides:
        raise ConfigError([f"argument {registry.dotted(next(iter(overrides)))}: only recipes take overrides"])
    return registry.load_region(name) if kind == "regions" else load_benchmark(name)
