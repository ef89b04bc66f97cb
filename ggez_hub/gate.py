"""The gate before publishing: what has to hold of a complete run, and why it does not where it does not."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ggez_hub import families, hub
from ggez_hub.data import account
from ggez_hub.errors import InputError
from ggez_hub.families.base import Query
from ggez_hub.hub import publish
from ggez_hub.hub.licenses import conflicts
from ggez_hub.hub.publish import Change
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, read_json, versions, write_json
from ggez_hub.schema import Push, Recipe
from ggez_hub.scoring import measure
from ggez_hub.scoring.answers import answered, prediction
from ggez_hub.scoring.questions import Question, questions
from ggez_hub.stages import card

CHECKED = 16  # questions of each benchmark that the merged checkpoint is asked
SAME = 0.02  # a graded answer may differ by this much
MAX_OTHER = 0.02  # share of answers that may differ: rounding to the base's dtype turns near ties
MEASURED = "gate.json"


def reasons(recipe: Recipe, run: Run) -> list[str]:
    """Why a run should not be published; empty if it may be.

    Args:
        recipe: The recipe; its thresholds are ``push.min_gain`` and ``push.min_retention``.
        run: Its run folder, with every stage complete.

    Returns:
        One sentence for each condition that is not met.

    Raises:
        InputError: The base is a folder of this machine: a name that nobody else could use, and that nobody should see.
    """
    if recipe.base.random is None and not card.on_hub(recipe.base):
        raise InputError(f"the base {hub.base_name(recipe.base)} is a folder of this machine",
                         "base.id has to be a Hub id")  # fmt: skip
    measured = _measured(recipe, run)
    chosen = read_json(run.stage("sweep") / "results.json")["chosen"]
    clashes = [why for _, why in rights(recipe)]
    return [*figures(chosen, recipe.push), *_merged(measured["merged"]), *clashes, *_leaks(measured["leaks"])]


def notice(recipe: Recipe, run: Run, artefact: str, missed: list[str]) -> dict[str, str]:
    """The files of a repository that say why it should not have been published: name -> text."""
    facts = card.facts(recipe, run, artefact, missed)
    return {
        "README.md": card.card(recipe, run, artefact, missed),
        hub.FACTS: json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }


def figures(chosen: Mapping[str, Any], wanted: Push) -> list[str]:
    """What of the measured figures is below what publishing asks for.

    Args:
        chosen: ``chosen`` of results.json.
        wanted: The recipe's thresholds.

    Returns:
        One sentence for each.
    """
    gain, interval, retention = chosen["gain"], chosen["gain_ci95"], chosen["retention"]
    found = []
    if gain is None or gain < wanted.min_gain:
        found.append(f"gain {_percent(gain)} is below push.min_gain, {_percent(wanted.min_gain)}")
    if interval is None or interval[0] <= 0:
        shown = f"[{_percent(interval[0])}, {_percent(interval[1])}]" if interval else "not known"
        found.append(f"the interval of the gain is {shown}; it has to be above 0")
    if retention is None or retention < wanted.min_retention:
        found.append(f"retention {_percent(retention)} is below push.min_retention, {_percent(wanted.min_retention)} "
                     "(α is chosen on other questions: a higher sweep.min_retention leaves room)")  # fmt: skip
    return found


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.1f}%"


def rights(recipe: Recipe) -> list[tuple[str, str]]:
    """What stands against the declared license: the key of the recipe that states another one, and why."""
    given = [("base.license", recipe.base.license)] if recipe.base.random is None else []
    given += account.licenses(recipe)
    return [(key, why) for key, license_ in given for why in conflicts(key, license_, recipe.card.license)]


def keep_hand_written(changes: Sequence[Change]) -> None:
    """Raises InputError where a card on the Hub holds text written by hand that would be lost."""
    for change in changes:
        if "README.md" in change.changed:
            theirs, ours = (card.own_lines(text) for text in (publish.text(change, "README.md"), _readme(change)))
            if (theirs or "").strip() and theirs != ours:
                raise InputError(
                    f"{change.repo_id}: its card on the Hub holds text written by hand, and ours another or none",
                    "copy it between the same two lines of the card in the run folder, or remove it on the Hub",
                )


def _readme(change: Change) -> str:
    content = change.files["README.md"]
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- measured
def _measured(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What takes a model or all pictures to find out; kept in the run folder until something it depends on changes."""
    from tqdm import tqdm

    depends = {stage: run.outputs_hash(stage) for stage in ("filter", "sweep", "merge")} | {"versions": versions()}
    path = run.folder / MEASURED
    kept = read_json(path) if path.is_file() else None
    if isinstance(kept, dict) and kept.get("of") == depends and {"merged", "leaks"} <= kept.keys():
        return kept
    region, names = load_region(recipe.region), tqdm(recipe.sweep.benchmarks, desc="gate", unit=" benchmark")
    asked = {name: questions(load_benchmark(name), region, recipe.data.path)["test"] for name in names}
    found = {"of": depends, "merged": _answers_again(recipe, run, asked), "leaks": _shared_pictures(run, asked)}
    write_json(path, found)
    return found


def _answers_again(recipe: Recipe, run: Run, asked: Mapping[str, list[Question]]) -> dict[str, dict[str, int]]:
    """How many answers of the merged checkpoint are others than those of the sweep at its alpha, by benchmark."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    family, size = families.get(recipe.family), recipe.sweep.batch_size
    loaded = family.load(run.stage("merge") / "model")
    alpha = read_json(run.stage("sweep") / "results.json")["chosen"]["alpha"]
    benchmarks = {name: load_benchmark(name) for name in asked}
    benchmarks = {name: benchmark for name, benchmark in benchmarks.items() if benchmark.measure != "distance"}
    places = {name: range(0, len(asked[name]), -(-len(asked[name]) // CHECKED)) for name in benchmarks}
    parts = {name: [asked[name][i] for i in places[name]] for name in benchmarks}

    def predict(queries: list[Query]) -> list[Any]:
        return [answer[0] for answer in family.predict(loaded, queries, size)]

    given = measure.given(parts, benchmarks, predict, size)
    kept = pq.read_table(
        run.stage("sweep") / "predictions.parquet", filters=(pc.field("split") == "test") & (pc.field("alpha") == alpha)
    )
    result = {}
    for name, part in parts.items():
        answers = answered(benchmarks[name], part, given[name])
        before = kept.filter(pc.field("benchmark") == name).to_pylist()  # in the order of the questions
        other = sum(
            prediction(question, answers, i) != before[place]["prediction"]
            or abs(float(answers["value"][i]) - before[place]["value"]) > SAME
            for i, (place, question) in enumerate(zip(places[name], part, strict=True))
        )
        result[name] = {"asked": len(part), "other": other}
    return result


def _merged(found: Mapping[str, Mapping[str, int]]) -> list[str]:
    asked, other = (sum(part[key] for part in found.values()) for key in ("asked", "other"))
    if other <= MAX_OTHER * asked:
        return []
    return [f"the merged checkpoint gives other answers than the sweep at its α to {other} of {asked} questions"]


def _shared_pictures(run: Run, asked: Mapping[str, list[Question]]) -> dict[str, list[str]]:
    """Test questions whose picture is, byte for byte, one of the training rows', by benchmark."""
    from pyarrow import dataset

    rows = dataset.dataset(run.stage("filter") / "examples.parquet", format="parquet")  # a file, or a folder of parts
    trained = {
        hashlib.sha256(image["bytes"]).digest()
        for batch in rows.to_batches(columns=["image"], batch_size=256, batch_readahead=1, fragment_readahead=1)
        for image in batch.column("image").to_pylist()
    }
    found = {
        name: [question.id for question in part if hashlib.sha256(question.picture).digest() in trained]
        for name, part in asked.items()
    }
    return {name: ids for name, ids in found.items() if ids}


def _leaks(found: Mapping[str, list[str]]) -> list[str]:
    return [
        f"{len(ids)} test questions of {name} show a picture of the training rows, {ids[0]!r} for one"
        for name, ids in found.items()
    ]
