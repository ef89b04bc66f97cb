"""What a recipe's training and sweep have to compute, counted."""

from dataclasses import dataclass, replace

from ggez_hub.families.base import Family
from ggez_hub.recipes import load_benchmark
from ggez_hub.rehearsal.bases import Architecture
from ggez_hub.rehearsal.estimate import counting, data, models
from ggez_hub.rehearsal.estimate.assumptions import corpora
from ggez_hub.rehearsal.estimate.counter import Cost
from ggez_hub.rehearsal.estimate.counting import Shape
from ggez_hub.rehearsal.estimate.models import Model
from ggez_hub.rehearsal.estimate.results import Number
from ggez_hub.schema import Pretrain, Recipe, Train

OPTIONS = 4  # of a question, where it has some


@dataclass(frozen=True)
class Phase:
    """A part of the training, counted.

    Attributes:
        name: ``pretrain`` or ``train``.
        loss: What it learns by.
        settings: Its own.
        made: The model, whose sizes count.
        counted: What was counted in its place: see `models.shallow`.
        memory: Of a part, its rows as long as they get.
        usual: Of a part.
        rows: Of such a part.
    """

    name: str
    loss: str
    settings: Train | Pretrain
    made: Model
    counted: list[Model]
    memory: Cost
    usual: Cost
    rows: int


@dataclass(frozen=True)
class Asked:
    """A benchmark, and what a question of it takes.

    Attributes:
        name: Its name.
        questions: How many.
        flops: For one.
        tokens: That are written for one.
        pictures: That are decoded for one.
        how: In words.
    """

    name: str
    questions: Number
    flops: float
    tokens: int
    pictures: int
    how: str


def micro(recipe: Recipe) -> int:
    """Rows in memory at once."""
    return recipe.train.micro_batch_size or recipe.train.batch_size


def phases(recipe: Recipe, architecture: Architecture, longest: Shape, usual: Shape) -> list[Phase]:
    """The phases of the training, counted; the training proper is the last."""
    settings, size, left_out = recipe.train, micro(recipe), models.left_out(architecture)
    found: list[Phase] = []
    wanted: list[tuple[str, str | None, Train | Pretrain]] = [("train", settings.loss, settings)]
    if settings.pretrain:
        wanted.insert(0, ("pretrain", settings.pretrain.loss, settings.pretrain))
    for name, said, part in wanted:
        if found and "answers" in found[0].made.family.LOSSES:  # which takes just what a caption does
            found.append(
                replace(found[0], name=name, loss=said or next(iter(found[0].made.family.LOSSES)), settings=part)
            )
            continue
        several = models.shallow(architecture, recipe, said)
        made = models.model(architecture, recipe, said, runs=False) if left_out else several[0]
        loss = said or next(iter(made.family.LOSSES))
        whole = min(settings.batch_size, 2 * size) if _couples(made.family) else size  # further chunks do the same
        costs = {
            shape: counting.extended([counting.step(model, size, shape, loss, whole) for model in several], left_out)
            for shape in {longest, usual}
        }
        found.append(Phase(name, loss, part, made, several, costs[longest], costs[usual], whole))
    return found


def _couples(family: Family) -> bool:
    """Whether a loss looks at all rows of a step at once."""
    return "softmax" in family.LOSSES


def sweep(recipe: Recipe, architecture: Architecture, several: list[Model]) -> tuple[list[Asked], dict[str, Cost]]:
    """What the questions of each benchmark take, and the cost of the largest batch, by its passes.

    Args:
        recipe: The recipe.
        architecture: Of its base.
        several: What is counted in place of the model: see `models.shallow`.
    """
    from ggez_hub.scoring.questions import TOKENS

    made, left_out = several[0], models.left_out(architecture)
    size, found = recipe.sweep.batch_size, []
    counted: dict[int, dict[str, Cost]] = {}
    for name in recipe.sweep.benchmarks:
        benchmark = load_benchmark(name)
        tokens = 0 if benchmark.answer == "option" else TOKENS.get(benchmark.answer, 32)
        if tokens not in counted:
            shape = Shape(models.picture_tokens(architecture), corpora().question + tokens, 0)
            passes = [counting.answers(model, size, shape) for model in several]
            counted[tokens] = {key: counting.extended([one[key] for one in passes], left_out) for key in passes[0]}
        each = {key: cost.flops / size for key, cost in counted[tokens].items()}
        if made.loaded.pipeline:
            steps = _drawing_steps(architecture)
            flops = steps * each["step"] + each["decode"] * size / models.at_once(size, models.side(made))
            how = f"{steps} steps of the UNet, with and without the prompt, and the VAE"
        elif "pictures" in each:
            flops, how = each["pictures"] + OPTIONS * each["texts"], f"a picture and {OPTIONS} texts"
        elif tokens:
            flops, how = each["questions"], f"a picture, a question and {tokens} written tokens"
        else:
            flops, how = OPTIONS * each["questions"], f"a picture and a question, for each of {OPTIONS} options"
        drawn = 0 if made.loaded.pipeline else 1
        found.append(Asked(name, data.questions(recipe, benchmark), flops, tokens, drawn, how))
    most = max(counted.values(), key=lambda passes: max(cost.peak for cost in passes.values()), default={})
    return found, most


def _drawing_steps(architecture: Architecture) -> int:
    from ggez_hub.families.diffusion import STEPS, STEPS_KEY

    return int(architecture.config.get("scheduler", {}).get(STEPS_KEY, STEPS))
