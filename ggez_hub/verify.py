"""Measuring a published model again: do the numbers on its card hold?"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggez_hub import hub, method
from ggez_hub.data import readers
from ggez_hub.errors import InputError
from ggez_hub.families.base import Query
from ggez_hub.hub import search
from ggez_hub.model import RegionalModel
from ggez_hub.recipes import load_benchmark, load_recipe
from ggez_hub.registry import load_region
from ggez_hub.schema import Facts, Recipe, Results
from ggez_hub.scoring import measure, statistics
from ggez_hub.scoring.answers import answered
from ggez_hub.scoring.questions import Question, questions
from ggez_hub.scoring.statistics import Answers
from ggez_hub.stages.card import PARITY

SUBSET = 200  # questions of each benchmark, unless another number is asked for
RESAMPLES = 2000  # bootstrap; not the repository's own number, which anyone may set
BATCH = 64
NEAR = 1e-9
ROUNDED = 1e-4  # what cards round to
VERDICTS = {True: "holds", False: "DOES NOT HOLD", None: "not measured"}
Interval = Sequence[float] | None


@dataclass(frozen=True)
class Checked:
    """A number of a card, and what it was found to be.

    Attributes:
        what: The number.
        alpha: Where it was measured; None of gain and retention, which compare two.
        claimed: On the card.
        claimed_ci95: Its interval in results.json.
        measured: Now.
        ci95: The interval of that.
        n: Questions asked now; 0 where it was not measured; None of a number that contradicts others of its repository.
    """

    what: str
    alpha: float | None
    claimed: float | None
    claimed_ci95: Interval
    measured: float | None
    ci95: Interval
    n: int | None

    @property
    def holds(self) -> bool | None:
        """Whether chance alone may have made the difference; None where nothing was measured.

        Both sides have the width of their 95% intervals, but nobody's claim gets a wider one than fewer questions
        have now, and a claim lies within its own. The bootstrap of questions that were all answered alike has no
        width: it is three questions at least (the rule of three: what n questions do not show may be 3 in n).
        """
        if self.n is None:
            return False
        if self.claimed is None or self.measured is None or not self.n:
            return True if self.claimed == self.measured else None
        claimed, found = self.claimed_ci95 or [self.claimed] * 2, self.ci95 or [self.measured] * 2
        width = max((found[1] - found[0]) / 2, 3 / self.n)
        reach = width + min((claimed[1] - claimed[0]) / 2, width)
        inside = claimed[0] - NEAR <= self.claimed <= claimed[1] + NEAR
        return inside and abs(self.claimed - self.measured) <= reach + NEAR


def verify(name: str, revision: str | None = None, subset: int | None = SUBSET) -> list[Checked]:
    """Measures a published model again on the benchmarks that its card names.

    Args:
        name: A Hub id, or a folder in the layout of a published repository.
        revision: Commit, tag or branch.
        subset: Questions of each benchmark, picked by a hash of their ids; None = all.

    Returns:
        Every number of the card: the benchmarks at α = 0 and at the recommended α, gain and retention; of a merged
        checkpoint the benchmarks at its α. Then whatever contradicts other numbers of the repository.

    Raises:
        InputError: Not a model that ggez_hub published, or its benchmarks are not known here.
        HubError: The Hub refused or cannot be reached.
    """
    with hub.naming(name):
        folder, facts, results = search.described(name, revision)
        recipe = load_recipe(str(folder / "recipe.yaml"), extends=False)
        alphas = (facts.alpha,) if facts.artefact == "merged" else tuple(dict.fromkeys((0.0, facts.alpha)))
        _check(recipe, facts, results)
        points = {point.alpha: point for point in results.points}
        model = RegionalModel.from_pretrained(name, revision=hub.commit_of(folder))
        sides = _answers(model, recipe, _asked(recipe, subset), alphas)
        replicates = {
            side: statistics.resample(part, RESAMPLES, recipe.seed + i) for i, (side, part) in enumerate(sides.items())
        }
        measured = {
            (answers.benchmark, alpha): (
                float(statistics.quality([answers])[i]),
                statistics.interval(replicates[side][j, :, i]),
                answers.values.shape[1],
            )
            for side, part in sides.items()
            for j, answers in enumerate(part)
            for i, alpha in enumerate(alphas)
        }
        found = [
            Checked(benchmark, alpha, claim.value, claim.ci95, *measured.get((benchmark, alpha), (None, None, 0)))
            for alpha in alphas
            for benchmark, claim in points[alpha].benchmarks.items()
        ]
        if len(alphas) == 2:
            found += _changes(results, sides, replicates)
        return found + _contradictions(recipe, facts, results, model.card)


def _check(recipe: Recipe, facts: Facts, results: Results) -> None:
    """Raises InputError where the files of a repository are not about the same thing."""
    regions = {"ggez.json": facts.region, "recipe.yaml": recipe.region, "results.json": results.region}
    if len(set(regions.values())) > 1:
        raise InputError(f"the region is not the same everywhere: {regions}", "ask its publisher")
    points = {point.alpha: point for point in results.points}
    names = set(recipe.sweep.benchmarks)
    for alpha in (0.0, facts.alpha, results.chosen.alpha):
        if alpha not in points or points[alpha].benchmarks.keys() != names:
            raise InputError(
                f"results.json has not the benchmarks of recipe.yaml at α = {alpha:g}: {', '.join(sorted(names))}",
                "ask its publisher",
            )


def _asked(recipe: Recipe, subset: int | None) -> dict[str, list[Question]]:
    """Some test questions of each benchmark, always the same ones; but for distances, which take all drawings."""
    from tqdm import tqdm

    region = load_region(recipe.region)
    asked = {}
    for name in tqdm(recipe.sweep.benchmarks, desc="questions", unit=" benchmark"):
        benchmark = load_benchmark(name)
        if benchmark.measure == "distance":
            continue
        if readers.needs_path(benchmark.source.reader) and not benchmark.source.path:
            _check_below(recipe.data.path)
        try:
            every = questions(benchmark, region, recipe.data.path)["test"]
        except InputError as err:
            hint = f"put its data where recipe.yaml says, data.path: {recipe.data.path}, seen from here"
            raise InputError(f"benchmark {name}: {err.message}", hint if recipe.data.path else err.hint) from err
        asked[name] = sorted(every, key=lambda question: hashlib.sha256(question.id.encode()).digest())[:subset]
    return asked


def _check_below(path: str | None) -> None:
    """Refuses a file that a stranger's recipe names anywhere on this machine."""
    if path and (Path(path).is_absolute() or ".." in Path(path).parts):
        raise InputError(f"recipe.yaml: data.path: {path} is outside the current folder", "ask its publisher")


def _answers(
    model: RegionalModel, recipe: Recipe, asked: dict[str, list[Question]], alphas: Sequence[float]
) -> dict[str, list[Answers]]:
    """How good the answers are, by side."""
    from tqdm import tqdm

    benchmarks = {name: load_benchmark(name) for name in asked}
    values: dict[str, list[Any]] = {name: [] for name in asked}
    for alpha in tqdm(alphas, desc="verify", unit=" alpha"):

        def predict(queries: list[Query], alpha: float = alpha) -> list[Any]:
            return [answer[0] for answer in model.predict(queries, [alpha], BATCH)]

        given = measure.given(asked, benchmarks, predict, BATCH)
        for name, part in asked.items():
            values[name].append(answered(benchmarks[name], part, given[name])["value"])
    sweep = recipe.sweep
    sides = {"global": sweep.global_, "regional": sweep.regional, "beside": sweep.beside}
    found = {
        side: [measure.answers(name, asked[name], values[name]) for name in names if name in asked]
        for side, names in sides.items()
    }
    return {side: part for side, part in found.items() if part}


def _changes(results: Results, sides: dict[str, list[Answers]], replicates: Any) -> list[Checked]:
    """Gain and retention."""
    both = {side: sides[side] for side in ("global", "regional")}
    qualities = {side: tuple(statistics.quality(part)) for side, part in both.items()}
    found = statistics.change(qualities, {side: replicates[side].mean(axis=0) for side in both})
    n = sum(answers.values.shape[1] for part in both.values() for answers in part)
    claims = results.chosen.model_dump()
    return [
        Checked(key, None, claims[key], claims[f"{key}_ci95"], found[key], found[f"{key}_ci95"], n)
        for key in ("gain", "retention")
    ]


def _contradictions(recipe: Recipe, facts: Facts, results: Results, card: Any) -> list[Checked]:
    """Where a number is not what others of the same repository make it: any of its files can have been edited."""
    chosen, points = results.chosen, {point.alpha: point for point in results.points}
    zero, at = points[0.0], points[chosen.alpha]
    sweep, weight = recipe.sweep, results.globalization.value
    said: list[tuple[str, float | None, Any, float | None]] = []  # what, alpha, as it is given, as it has to be
    for point in results.points:
        if point.benchmarks.keys() >= {*sweep.global_, *sweep.regional}:
            for side, names in (("global", sweep.global_), ("regional", sweep.regional)):
                mean = sum(point.benchmarks[name].value for name in names) / len(names)
                said.append((f"{side} in results.json", point.alpha, point.model_dump(by_alias=True)[side], mean))
        parity = method.grp(point.global_, point.regional, weight)
        said.append(("grp in results.json", point.alpha, point.grp, parity))
    said += [
        ("gain in results.json", None, chosen.gain, method.gain(at.regional, zero.regional)),
        ("retention in results.json", None, chosen.retention, method.retention(at.global_, zero.global_)),
        ("grp in results.json", None, chosen.grp, at.grp),
    ]
    truth = chosen.model_dump()
    of_facts = facts.model_dump(include={"alpha", "gain", "retention"}, exclude_none=True)
    said += [(f"{key} in ggez.json", None, value, truth[key]) for key, value in of_facts.items()]
    own = card.data.get("ggez")
    for key, value in own.items() if isinstance(own, Mapping) else ():
        pairs = zip(value, truth[key] or (), strict=False) if isinstance(value, list) and key in truth else ()
        said += [(f"{key} in the card's metadata", None, *pair) for pair in pairs]
        if key in truth and not isinstance(value, list):
            said.append((f"{key} in the card's metadata", None, value, truth[key]))
    for result in card.data.eval_results or ():
        of = truth if result.dataset_type == PARITY else {result.metric_type: None}
        if result.dataset_type in at.benchmarks:
            of = {result.metric_type: at.benchmarks[result.dataset_type].value}
        what = f"{result.dataset_type} in the card's metadata"
        said.append((what, chosen.alpha, result.metric_value, of.get(result.metric_type)))
    return [
        Checked(what, alpha, value if _is_number(value) else None, None, expected, None, None)
        for what, alpha, value, expected in said
        if not _same(value, expected)
    ]


def _same(value: Any, expected: float | None) -> bool:
    """Whether a number is this one, rounded maybe."""
    return value is expected is None or (_is_number(value) and expected is not None and abs(value - expected) < ROUNDED)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def table(checked: Sequence[Checked]) -> str:
    """The numbers and the verdict on each, for people."""
    width = max(len(each.what) for each in checked)
    lines = [f"{'':{width}} {'α':>5}  {'on the card':26} {'measured now':26} {'n':>5}"]
    for each in checked:
        alpha = "" if each.alpha is None else f"{each.alpha:g}"
        lines.append(
            f"{each.what:{width}} {alpha:>5}  {_shown(each.claimed, each.claimed_ci95):26} "
            f"{_shown(each.measured, each.ci95):26} {each.n or '':>5}  {VERDICTS[each.holds]}"
        )
    return "\n".join(lines)


def _shown(value: float | None, interval: Interval) -> str:
    return "–" if value is None else f"{value:.3f} {statistics.shown(interval)}".rstrip()
