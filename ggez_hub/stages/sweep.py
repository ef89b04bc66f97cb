"""sweep: measures every alpha on both sides, and chooses one (paper, section 4.2)."""

import functools
import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ggez_hub import device, families, hub, kof, method
from ggez_hub.data import readers
from ggez_hub.families.base import Loaded, Query
from ggez_hub.merging import live
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, fingerprint, versions, write_json
from ggez_hub.schema import Benchmark, Recipe, Sweep
from ggez_hub.scoring import distance, measure, samples, search, statistics
from ggez_hub.scoring.answers import Answered, answered, prediction, unparsed
from ggez_hub.scoring.questions import Question, questions
from ggez_hub.scoring.statistics import Answers

if TYPE_CHECKING:
    import numpy as np

NEEDS = ("train",)
RESUMABLE = False
Side = list[Answers]


def inputs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the stage depends on."""
    benchmarks = _benchmarks(recipe)
    made = recipe.section("family", "region", "sweep", "seed") | {
        "globalization": _globalization(recipe),
        "countries": list(load_region(recipe.region).countries),
        "benchmarks": {name: b.model_dump(mode="json") for name, b in benchmarks.items()},
        "files": {name: readers.fingerprint(b.source, recipe.data.path) for name, b in benchmarks.items()},
        "judges": _judges(recipe),
        "train": run.outputs_hash("train"),
    }
    return made | hub.base_files(recipe.base, run)


def _benchmarks(recipe: Recipe) -> dict[str, Benchmark]:
    """The benchmarks of a recipe."""
    return {name: load_benchmark(name) for name in recipe.sweep.benchmarks}


def _judges(recipe: Recipe) -> dict[str, str]:
    """A hash of each judge."""
    judges = {(b.judge, b.judge_revision) for b in _benchmarks(recipe).values() if b.judge}
    return {"@".join(filter(None, judge)): fingerprint(hub.fetch(*judge)) for judge in judges}


def _globalization(recipe: Recipe) -> dict[str, Any]:
    if recipe.sweep.globalization is not None:
        return {"value": recipe.sweep.globalization, "source": "given in the recipe", "year": None}
    found = kof.lookup(recipe.region, recipe.sweep.year)
    return {"value": found.value, "source": found.source, "year": found.year}


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes results.json, predictions.parquet, parity.png and samples.png."""
    from tqdm import tqdm

    region = load_region(recipe.region)
    asked = {
        name: questions(benchmark, region, recipe.data.path)
        for name, benchmark in tqdm(_benchmarks(recipe).items(), desc="questions", unit=" benchmark")
    }
    model = functools.cache(lambda: _load(recipe, run))  # where nothing is left to ask, nothing is loaded
    measured, rounds = _measure(recipe, asked, _asker(recipe, run, asked, model))
    results = _results(recipe, run.folder.name, measured, asked, rounds)
    write_json(folder / "results.json", results)
    _write_predictions(folder / "predictions.parquet", asked, measured)
    plot(results, folder / "parity.png")
    _write_samples(folder / "samples.png", recipe, results, asked, measured, model)


Asked = dict[str, dict[str, list[Question]]]  # benchmark: split: questions
Found = dict[tuple[str, str], Answered]  # by benchmark and split
Measured = dict[float, Found]  # by alpha, rising
Model = Callable[[], tuple[Loaded, Callable[[float], None]]]


# ----------------------------------------------------------------------------------------------------------- measuring
def _measure(recipe: Recipe, asked: Asked, ask: Callable[[float], Found]) -> tuple[Measured, int]:
    """Measures the alphas of the recipe, then those that `refine` asks for; returns also how often it asked."""
    from tqdm import tqdm

    measured: Measured = {}
    wanted, rounds = list(recipe.sweep.alphas), 0
    with tqdm(total=len(wanted), desc="sweep", unit=" alpha") as progress:
        while True:
            for alpha in wanted:
                measured[alpha] = ask(alpha)
                progress.update()
            measured = dict(sorted(measured.items()))
            wanted = _refined(recipe, asked, measured) if recipe.sweep.search == "refine" else []
            if not wanted:
                return measured, rounds
            rounds += 1
            progress.total += len(wanted)
            progress.set_description(f"sweep, refining at {', '.join(f'{alpha:g}' for alpha in wanted)}")


def _refined(recipe: Recipe, asked: Asked, measured: Measured) -> list[float]:
    """The alphas to measure next."""
    answers = _answers(recipe, asked, measured)
    side = answers.get("selection", answers["test"])
    globalization = _globalization(recipe)["value"]
    points = _points(measured, side, globalization)
    replicates = _grp(_replicates(recipe, side), globalization)
    sweep = recipe.sweep
    return search.next_alphas(points, replicates, sweep.alphas, sweep.min_retention, sweep.resolution)


def _asker(recipe: Recipe, run: Run, asked: Asked, model: Model) -> Callable[[float], Found]:
    """A function that answers all questions at an alpha; the model is asked only what it was never asked before."""
    folder = _kept_folder(recipe, run)
    benchmarks = _benchmarks(recipe)
    parts = {(name, split): part for name, splits in asked.items() for split, part in splits.items()}
    hashes = {(name, split): _hash(benchmarks[name], part) for (name, split), part in parts.items()}
    family, size = families.get(recipe.family), recipe.sweep.batch_size

    def ask(alpha: float) -> Found:
        files = {part: folder / f"{_sha256(f'{hashes[part]} {alpha}'.encode())}.npz" for part in parts}
        kept = {part: _kept(file, len(parts[part])) for part, file in files.items()}
        found = {part: answers for part, answers in kept.items() if answers is not None}
        missing = [part for part in parts if part not in found]
        if missing:
            loaded, dial = model()
            dial(alpha)
            with device.enough_memory("sweep.batch_size", size):
                given = measure.given(
                    {part: parts[part] for part in missing},
                    {part: benchmarks[part[0]] for part in missing},
                    lambda queries: [answer[0] for answer in family.predict(loaded, queries, size)],
                    size,
                )
        for part in missing:
            found[part] = answered(benchmarks[part[0]], parts[part], given[part])
            _keep(files[part], found[part])
        return found

    return ask


def _load(recipe: Recipe, run: Run) -> tuple[Loaded, Callable[[float], None]]:
    """The base with the regional weights on it, and what sets alpha."""
    family = families.get(recipe.family)
    loaded = family.load(hub.base_folder(recipe.base, run))
    if recipe.train.method == "lora":
        loaded.model, dial = live.attach_adapter(loaded.model, run.stage("train") / "adapter")
    else:
        dial = live.between(loaded.model, family.load(run.stage("train") / "model").model)
    return loaded, dial


# --------------------------------------------------------------------------------------------------------- kept answers
def _kept_folder(recipe: Recipe, run: Run) -> Path:
    """Where the answers of this very model are kept, one file per benchmark and alpha; those of others are removed."""
    parts = recipe.section("family") | {
        "train": run.outputs_hash("train"),
        "judges": _judges(recipe),
        "versions": versions(),
        "batch_size": recipe.sweep.batch_size,  # it can change the last digit of a score
    }
    name = _sha256(json.dumps(parts | hub.base_files(recipe.base, run), sort_keys=True).encode())
    folder = run.folder / ".answers" / name
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
    return folder


def _hash(benchmark: Benchmark, asked: Sequence[Question]) -> str:
    """A hash of all that the answers and their judgement depend on, in their order."""
    pin = filter(None, (benchmark.judge_revision,))
    parts = [repr((benchmark.task, benchmark.answer, benchmark.judge, *pin, benchmark.measure)).encode()]
    for question in asked:
        query = question.query
        words: Any = (query.options, query.prompt, query.template, query.seed, query.max_new_tokens)
        words += (question.options, question.answer)
        parts.append(question.picture + repr(words).encode())
    return _sha256(b"".join(hashlib.sha256(part).digest() for part in parts))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _kept(path: Path, count: int) -> Answered | None:
    """Kept answers, or None if there are none or the file is damaged."""
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return found if "value" in found and all(len(array) == count for array in found.values()) else None


def _keep(path: Path, answers: Answered) -> None:
    import numpy as np

    temporary = path.with_suffix(".partial")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **answers)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------------------------- results
def _answers(recipe: Recipe, asked: Asked, measured: Measured) -> dict[str, dict[str, Side]]:
    """How good the answers are: split, side, one entry per benchmark."""

    def answers(name: str, split: str) -> Answers:
        values = [at_alpha[name, split]["value"] for at_alpha in measured.values()]
        return measure.answers(name, asked[name][split], values)

    sides = {"global": recipe.sweep.global_, "regional": recipe.sweep.regional}
    return {
        split: {side: [answers(name, split) for name in names] for side, names in sides.items()}
        for split in ("selection", "test")
        if all(split in asked[name] for names in sides.values() for name in names)
    }


def _replicates(recipe: Recipe, answers: Mapping[str, Side]) -> dict[str, "np.ndarray"]:
    """Bootstrap replicates of each side: [benchmarks, resamples, alphas]."""
    return {
        side: statistics.resample(part, recipe.sweep.resamples, recipe.seed + i)
        for i, (side, part) in enumerate(answers.items())
    }


def _grp(replicates: Mapping[str, "np.ndarray"], globalization: float) -> "np.ndarray":
    """GRP in the bootstrap resamples of both sides: [resamples, alphas]."""
    sides: dict[str, Any] = {side: part.mean(axis=0) for side, part in replicates.items()}
    return cast("np.ndarray", method.grp(sides["global"], sides["regional"], globalization))


def _results(recipe: Recipe, name: str, measured: Measured, asked: Asked, rounds: int) -> dict[str, Any]:
    """The contents of results.json.

    Its `beats` has a row and a column per point, in their order: how sure it is, 0..1, that the alpha of the row has a
    higher GRP than that of the column, by paired bootstrap of the test questions; null as in `statistics.beats`.
    """
    sweep = recipe.sweep
    globalization = _globalization(recipe)
    answers = _answers(recipe, asked, measured)
    test = answers["test"]
    replicates = _replicates(recipe, test)
    points, selection = (
        _points(measured, side, globalization["value"]) for side in (test, answers.get("selection", test))
    )
    chosen, best = method.choose_alpha(selection, sweep.min_retention)
    beside = [(name, *_beside(recipe, name, asked, measured)) for name in sweep.beside]
    for i, (point, found) in enumerate(zip(points, measured.values(), strict=True)):
        point["benchmarks"] = {
            part.benchmark: {
                "value": float(statistics.quality([part])[i]),
                "ci95": statistics.interval(replicates[side][j, :, i]),
                "n": part.values.shape[1],
                "metric": _metric(part.benchmark),
                "by": _by(asked[part.benchmark]["test"], part.values[i]),
            }
            | ({"unparsed": unparsed(found[part.benchmark, "test"])} if "text" in found[part.benchmark, "test"] else {})
            for side in test
            for j, part in enumerate(test[side])
        } | {
            name: {"value": float(values[i]), "ci95": statistics.interval(spread[:, i]), "n": len(asked[name]["test"])}
            | {"metric": _metric(name), "by": {}}
            for name, values, spread in beside
        }
        point["global_ci95"], point["regional_ci95"] = (
            statistics.interval(replicates[side].mean(axis=0)[:, i]) for side in ("global", "regional")
        )
    return {
        "recipe": name,
        "region": recipe.region,
        "globalization": globalization,
        "points": points,
        "selection": selection,
        "beats": statistics.beats(_grp(replicates, globalization["value"])),
        "grp_best": _judged(points, best["alpha"], replicates),
        "chosen": _judged(points, chosen["alpha"], replicates),
        "min_retention": sweep.min_retention,
        "selection_apart": "selection" in answers,
        "synthetic": all(load_benchmark(benchmark).synthetic for benchmark in asked),
    } | ({"search": _search(sweep, len(measured), rounds)} if sweep.search == "refine" else {})


def _metric(benchmark: str) -> str:
    """What a benchmark's value is."""
    names = {"top1": "accuracy", "confidence": "confidence", "distance": "squared maximum mean discrepancy"}
    return names[load_benchmark(benchmark).measure]


def _beside(recipe: Recipe, name: str, asked: Asked, measured: Measured) -> "tuple[np.ndarray, np.ndarray]":
    """What is measured beside the qualities: its value at every alpha, and replicates [resamples, alphas]."""
    import numpy as np

    part, found = asked[name]["test"], [at_alpha[name, "test"] for at_alpha in measured.values()]
    benchmark = load_benchmark(name)
    if benchmark.measure != "distance":
        answers = [measure.answers(name, part, [answers["value"] for answers in found])]
        return statistics.quality(answers), statistics.resample(answers, recipe.sweep.resamples, recipe.seed + 2)[0]
    judge = measure.judge(benchmark.judge or "", benchmark.judge_revision)
    looks = [Query(question.picture, question.options) for question in part]
    real = np.stack([scores[0] for scores in families.get("embedding").predict(judge, looks, recipe.sweep.batch_size)])
    weights = statistics.draws([question.cluster for question in part], recipe.sweep.resamples, recipe.seed + 2)
    values = [distance.distance(real, answers["features"]) for answers in found]
    return np.array(values), np.stack([distance.replicates(real, a["features"], weights) for a in found], axis=1)


def _search(sweep: Sweep, evaluations: int, rounds: int) -> dict[str, Any]:
    """What refining took, beside a grid of the same step."""
    return {
        "method": sweep.search,
        "resolution": sweep.resolution,
        "evaluations": evaluations,  # those kept from earlier sweeps count as well
        "grid_evaluations": search.grid_size(sweep.resolution),
        "rounds": rounds,
    }


def _points(alphas: Iterable[float], side: dict[str, Side], globalization: float) -> list[dict[str, Any]]:
    global_, regional = statistics.quality(side["global"]), statistics.quality(side["regional"])
    return [
        {"alpha": alpha, "global": float(g), "regional": float(r), "grp": method.grp(float(g), float(r), globalization)}
        for alpha, g, r in zip(alphas, global_, regional, strict=True)
    ]


def _judged(points: list[dict[str, Any]], alpha: float, replicates: dict[str, "np.ndarray"]) -> dict[str, Any]:
    """An alpha against alpha = 0."""
    at = [point["alpha"] for point in points].index(alpha)
    sides = {side: part.mean(axis=0)[:, [0, at]] for side, part in replicates.items()}
    qualities = {side: (points[0][side], points[at][side]) for side in sides}
    return {key: points[at][key] for key in ("alpha", "global", "regional", "grp")} | statistics.change(
        qualities, sides
    )


def _by(asked: Sequence[Question], values: "np.ndarray") -> dict[str, dict[str, dict[str, float]]]:
    """The mean by country, by category and, where questions are of several kinds, by kind."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for field in ("country", "category", "kind"):
        groups: dict[str, list[float]] = defaultdict(list)
        for question, value in zip(asked, values, strict=True):
            groups[getattr(question, field)].append(float(value))
        result[field] = {name: {"value": sum(g) / len(g), "n": len(g)} for name, g in sorted(groups.items()) if name}
    return {field: groups for field, groups in result.items() if groups}


def _write_predictions(path: Path, asked: Asked, measured: Measured) -> None:
    """Every answer to every question, so that every number can be traced."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = {name: load_benchmark(name).key for name in asked}
    further = {field: None for key in keys.values() for field in key if field != "id"}
    rows = [
        {
            "benchmark": name,
            "split": split,
            "alpha": alpha,
            "id": question.id,
            "country": question.country,
            "category": question.category,
            "kind": question.kind,
            "answer": question.answer,
            "prediction": prediction(question, found[name, split], i),
            "value": float(found[name, split]["value"][i]),
        }
        | further
        | dict(zip(keys[name], question.key, strict=True))
        for name, splits in asked.items()
        for split, part in splits.items()
        for alpha, found in measured.items()
        for i, question in enumerate(part)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _write_samples(
    path: Path, recipe: Recipe, results: Mapping[str, Any], asked: Asked, measured: Measured, model: Model
) -> None:
    """A few questions with their answers at alpha = 0, the chosen one and 1; or the same drawings at every alpha."""
    sides = (recipe.sweep.regional, recipe.sweep.global_)
    chosen = samples.choose([asked[names[0]]["test"] for names in sides])
    title = f"{results['recipe']}{' (synthetic data)' if results['synthetic'] else ''}"
    if load_benchmark(sides[0][0]).task != "drawing":
        shown = [
            (question, {alpha: prediction(question, measured[alpha][names[0], "test"], i) for alpha in
             sorted({0.0, results["chosen"]["alpha"], 1.0})})
            for names, places in zip(sides, chosen, strict=True)
            for i in places
            for question in [asked[names[0]]["test"][i]]
        ]  # fmt: skip
        samples.answers_sheet(shown, title, path)
        return
    picked = [asked[names[0]]["test"][i] for names, places in zip(sides, chosen, strict=True) for i in places]
    family, (loaded, dial) = families.get(recipe.family), model()
    drawn = {}
    for alpha in measured:
        dial(alpha)
        with device.enough_memory("sweep.batch_size", recipe.sweep.batch_size):
            found = family.predict(loaded, [question.query for question in picked], recipe.sweep.batch_size)
        drawn[alpha] = [pictures[0] for pictures in found]
    samples.drawings_sheet([question.answer for question in picked], drawn, results["chosen"]["alpha"], title, path)


def _labelled(points: list[dict[str, Any]], chosen: float) -> list[dict[str, Any]]:
    """The points whose alphas find room in the plot: the ends and the choice, then the others from the left."""
    spans = {key: max(p[key] for p in points) - min(p[key] for p in points) or 1.0 for key in ("global", "regional")}
    shown: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: p["alpha"] not in (0, chosen, 1)):
        distances = (sum(((point[key] - other[key]) / span) ** 2 for key, span in spans.items()) for other in shown)
        if all(distance > 0.045**2 for distance in distances):
            shown.append(point)
    return shown


def plot(results: dict[str, Any], path: Path) -> None:
    """Draws qualities over alpha, and regional against global quality."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points, chosen = results["points"], results["chosen"]
    alphas = [p["alpha"] for p in points]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for key, colour in (("global", "#1565c0"), ("regional", "#c62828")):
        left.plot(alphas, [p[key] for p in points], "o-", color=colour, label=key)
        if all(p[f"{key}_ci95"] for p in points):
            bands = zip(*(p[f"{key}_ci95"] for p in points), strict=True)
            left.fill_between(alphas, *bands, color=colour, alpha=0.15, linewidth=0)
    left.plot(alphas, [p["grp"] for p in points], "--", color="#555555", label="GRP")
    left.axvline(chosen["alpha"], color="#2e7d32", label=f"chosen α = {chosen['alpha']:g}")
    left.set(xlabel="regional α (0 = global base, 1 = region)", ylabel="quality", ylim=(0, 1))
    left.legend()
    right.plot([p["global"] for p in points], [p["regional"] for p in points], "o-", color="#6a1b9a")
    for p in _labelled(points, chosen["alpha"]):
        right.annotate(f"{p['alpha']:g}", (p["global"], p["regional"]), textcoords="offset points", xytext=(5, 5))
    right.plot(chosen["global"], chosen["regional"], "*", color="#2e7d32", markersize=16, label="chosen")
    if results["min_retention"] is not None:
        floor = results["min_retention"] * points[0]["global"]
        right.axvline(floor, color="#999999", linestyle=":", label=f"{results['min_retention']:.0%} of global quality")
    right.set(xlabel="global quality", ylabel="regional quality")
    right.legend()
    mark = " (synthetic data)" if results["synthetic"] else ""
    figure.suptitle(f"{results['recipe']}{mark}")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
