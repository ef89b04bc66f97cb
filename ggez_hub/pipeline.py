"""The order of the stages: what would run and why, and running it."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from ggez_hub import device, recipes
from ggez_hub.errors import InputError, did_you_mean
from ggez_hub.registry import to_yaml
from ggez_hub.runs import Run, write_text
from ggez_hub.schema import Recipe

SHARED = "train"  # the stage that several processes may do together
STAGES = ("filter", "train", "sweep", "merge", "card")  # push follows, when someone says where to


class Stage(Protocol):
    """What every module of ggez_hub.stages has."""

    NEEDS: tuple[str, ...]  # stages whose output it reads
    RESUMABLE: bool

    def inputs(self, recipe: Recipe, run: Run) -> dict[str, Any]:
        """All that decides the output, as plain data; the stage runs again when it changes."""

    def run(self, recipe: Recipe, run: Run, folder: Path) -> None:
        """Does the work and writes its output into `folder`."""


@dataclass(frozen=True)
class Step:
    """A stage in a plan."""

    stage: str
    reason: str | None  # why it would run; None = it is done


def stage_module(name: str) -> Stage:
    """The module of a stage."""
    return cast(Stage, importlib.import_module(f"ggez_hub.stages.{name}"))


def plan(recipe: Recipe, run: Run, until: str = STAGES[-1]) -> list[Step]:
    """What would run, and why.

    Raises:
        InputError: Unknown stage, or something that the stages need is missing.
    """
    if until not in STAGES:
        raise InputError(f"unknown stage {until!r}{did_you_mean(until, STAGES)}")
    steps: list[Step] = []
    running: set[str] = set()
    for name in STAGES[: STAGES.index(until) + 1]:
        stage = stage_module(name)
        if waiting := [need for need in stage.NEEDS if need in running]:
            reason: str | None = f"after {', '.join(waiting)}, if that changes"
        else:
            reason = run.stale(name, stage.inputs(recipe, run))
        if reason:
            running.add(name)
        steps.append(Step(name, reason))
    return steps


def execute(recipe: Recipe, run: Run, until: str = STAGES[-1]) -> Iterator[Step]:
    """Runs what is not done yet. Yields every stage before it runs, with its reason, or with None if it is skipped.

    Raises:
        InputError: Something that the stages need is missing, or several processes would do what one has to.
    """
    steps = plan(recipe, run, until)  # what cannot work is said before anything runs
    if device.processes() > 1:
        yield from _shared(recipe, run, steps)
        return
    with run.locked():
        write_text(run.folder / "recipe.yaml", resolved(recipe))
        for name in STAGES[: STAGES.index(until) + 1]:
            stage = stage_module(name)
            inputs = stage.inputs(recipe, run)
            reason = run.stale(name, inputs)
            yield Step(name, reason)
            if reason:
                run.write(name, inputs, lambda folder, stage=stage: stage.run(recipe, run, folder), stage.RESUMABLE)  # type: ignore[misc]


def _shared(recipe: Recipe, run: Run, steps: list[Step]) -> Iterator[Step]:
    """The part of one of several processes: they train together, and the first one writes."""
    if alone := [step.stage for step in steps if step.reason and step.stage != SHARED]:
        raise InputError(
            f"{device.processes()} processes share the stage {SHARED} alone; not done yet: {', '.join(alone)}",
            f"do these in one process: ggez run RECIPE --until {alone[0]}; then launch ggez train",
        )
    for step in steps:
        yield step
        if step.reason:
            stage = stage_module(step.stage)
            work = partial(stage.run, recipe, run)
            if device.is_first():
                with run.locked():
                    write_text(run.folder / "recipe.yaml", resolved(recipe))
                    run.write(step.stage, stage.inputs(recipe, run), work, stage.RESUMABLE)
            else:
                work(run.hidden(step.stage))


def resolved(recipe: Recipe) -> str:
    """A recipe with every default filled in, as YAML."""
    return to_yaml(recipe.model_dump(mode="json", by_alias=True))


def run(
    name: str, out: str | Path = "runs", overrides: Mapping[str, Any] | None = None, until: str = STAGES[-1]
) -> Run:
    """Runs a recipe; what is done and unchanged is skipped, a killed run goes on where it stopped.

    Args:
        name: Name or path of a recipe.
        out: The folder that holds the run folders.
        overrides: Values that win over the file, such as ``{"train.steps": 50}``.
        until: The last stage to run.

    Returns:
        The run folder.

    Raises:
        InputError: The recipe, its data or its base cannot be used.
    """
    recipe = recipes.load_recipe(name, overrides)
    folder = Run(Path(out) / recipes.recipe_name(name))
    for _ in execute(recipe, folder, until):
        pass
    return folder
