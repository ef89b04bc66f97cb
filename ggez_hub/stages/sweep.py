"""sweep: measures every alpha on both sides, and chooses one (paper, section 4.2)."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import families, hub, kof, method
from ggez_hub.data import readers
from ggez_hub.families.base import Query
from ggez_hub.merging import live
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, write_json
from ggez_hub.schema import Recipe
from ggez_hub.scoring import statistics
from ggez_hub.scoring.questions import Question, questions
from ggez_hub.scoring.statistics import Answers

if TYPE_CHECKING:
    import numpy as np

NEEDS = ("train",)
RESUMABLE = False
Side = list[Answers]


def inputs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the stage depends on."""
    names = (*recipe.sweep.global_, *recipe.sweep.regional)
    benchmarks = {name: load_benchmark(name) for name in names}
    made = recipe.section("family", "region", "sweep", "seed") | {
        "globalization": _globalization(recipe),
        "countries": list(load_region(recipe.region).countries),
        "benchmarks": {name: b.model_dump(mode="json") for name, b in benchmarks.items()},
        "files": {name: readers.fingerprint(b.source, recipe.data.path) for name, b in benchmarks.items()},
        "train": run.outputs_hash("train"),
    }
    return made | hub.base_files(recipe.base, run)


def _globalization(recipe: Recipe) -> dict[str, Any]:
    if recipe.sweep.globalization is not None:
        return {"value": recipe.sweep.globalization, "source": "given in the recipe", "year": None}
    found = kof.lookup(recipe.region, recipe.sweep.year)
    return {"value": found.value, "source": found.source, "year": found.year}


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes results.json, predictions.parquet and parity.png."""
    from tqdm import tqdm

    region = load_region(recipe.region)
    sides = {"global": recipe.sweep.global_, "regional": recipe.sweep.regional}
    asked = {
        name: questions(load_benchmark(name), region, recipe.data.path)
        for name in tqdm([*sides["global"], *sides["regional"]], desc="questions", unit=" benchmark")
    }
    predictions = _predict(recipe, run, asked)
    answers = {
        split: {side: [_answers(name, asked[name][split], predictions[name][split]) for name in names]
                for side, names in sides.items()}
        for split in ("selection", "test")
        if all(split in asked[name] for name in asked)
    }  # fmt: skip
    results = _results(recipe, run.folder.name, answers, asked)
    write_json(folder / "results.json", results)
    _write_predictions(folder / "predictions.parquet", recipe, asked, predictions)
    plot(results, folder / "parity.png")


Asked = dict[str, dict[str, list[Question]]]  # benchmark: split: questions
Predicted = dict[str, dict[str, "np.ndarray"]]  # benchmark: split: int [alphas, questions]


def _predict(recipe: Recipe, run: Run, asked: Asked) -> Predicted:
    """The option chosen for every question at every alpha."""
    import numpy as np
    from tqdm import tqdm

    family = families.get(recipe.family)
    loaded = family.load(hub.base_folder(recipe.base, run))
    if recipe.train.method == "lora":
        dial = live.attach_adapter(loaded, run.stage("train") / "adapter")
    else:
        dial = live.between(loaded, family.load(run.stage("train") / "model").model)
    parts = [(name, split, part) for name, splits in asked.items() for split, part in splits.items()]
    queries = [Query(question.image, question.options) for _, _, part in parts for question in part]
    chosen = []
    for alpha in tqdm(recipe.sweep.alphas, desc="sweep", unit=" alpha"):
        dial(alpha)
        chosen.append([int(scores.argmax()) for scores in family.predict(loaded, queries, recipe.sweep.batch_size)])
    borders = np.cumsum([len(part) for _, _, part in parts])[:-1]
    result: Predicted = defaultdict(dict)
    for (name, split, _), block in zip(parts, np.split(np.array(chosen), borders, axis=1), strict=True):
        result[name][split] = block
    return result


def _answers(name: str, asked: Sequence[Question], predicted: "np.ndarray") -> Answers:
    import numpy as np

    # Every benchmark numbers its own rows, but questions of one picture have one id, which makes them one cluster.
    return Answers(name, [q.id for q in asked], predicted == np.array([q.answer for q in asked]))


def _results(recipe: Recipe, name: str, answers: dict[str, dict[str, Side]], asked: Asked) -> dict[str, Any]:
    """The contents of results.json."""
    sweep = recipe.sweep
    globalization = _globalization(recipe)
    test = answers["test"]
    replicates = {
        side: statistics.resample(test[side], sweep.resamples, recipe.seed + i) for i, side in enumerate(test)
    }
    points = _points(recipe, test, globalization["value"])
    selection = _points(recipe, answers.get("selection", test), globalization["value"])
    chosen, best = method.choose_alpha(selection, sweep.min_retention)
    for i, point in enumerate(points):
        point["benchmarks"] = {
            part.benchmark: {
                "value": float(part.correct[i].mean()),
                "ci95": statistics.interval(replicates[side][j, :, i]),
                "n": part.correct.shape[1],
                "by": _by(asked[part.benchmark]["test"], part.correct[i]),
            }
            for side in test
            for j, part in enumerate(test[side])
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
        "grp_best": _judged(points, best["alpha"], replicates),
        "chosen": _judged(points, chosen["alpha"], replicates),
        "min_retention": sweep.min_retention,
        "selection_apart": "selection" in answers,
        "synthetic": all(load_benchmark(benchmark).synthetic for benchmark in asked),
    }


def _points(recipe: Recipe, side: dict[str, Side], globalization: float) -> list[dict[str, Any]]:
    global_, regional = statistics.quality(side["global"]), statistics.quality(side["regional"])
    return [
        {"alpha": alpha, "global": float(g), "regional": float(r), "grp": method.grp(float(g), float(r), globalization)}
        for alpha, g, r in zip(recipe.sweep.alphas, global_, regional, strict=True)
    ]


def _judged(points: list[dict[str, Any]], alpha: float, replicates: dict[str, "np.ndarray"]) -> dict[str, Any]:
    """Gain and retention of an alpha against alpha = 0, with paired intervals."""
    import numpy as np

    at = [point["alpha"] for point in points].index(alpha)
    zero, point = points[0], points[at]
    global_, regional = (replicates[side].mean(axis=0) for side in ("global", "regional"))  # [resamples, alphas]
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = regional[:, at] / regional[:, 0] - 1
        retentions = global_[:, at] / global_[:, 0]
    return {
        "alpha": alpha,
        "global": point["global"],
        "regional": point["regional"],
        "grp": point["grp"],
        "gain": method.gain(point["regional"], zero["regional"]),
        "gain_ci95": statistics.interval(gains),
        "retention": method.retention(point["global"], zero["global"]),
        "retention_ci95": statistics.interval(retentions),
    }


def _by(asked: Sequence[Question], correct: "np.ndarray") -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy by country and by category."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for field in ("country", "category"):
        groups: dict[str, list[bool]] = defaultdict(list)
        for question, right in zip(asked, correct, strict=True):
            groups[getattr(question, field)].append(bool(right))
        result[field] = {name: {"value": sum(g) / len(g), "n": len(g)} for name, g in sorted(groups.items()) if name}
    return result


def _write_predictions(path: Path, recipe: Recipe, asked: Asked, predicted: Predicted) -> None:
    """Every answer to every question, so that every number can be traced."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "benchmark": name,
            "split": split,
            "alpha": alpha,
            "id": question.id,
            "country": question.country,
            "category": question.category,
            "answer": question.options[question.answer],
            "prediction": question.options[choice],
        }
        for name, splits in asked.items()
        for split, part in splits.items()
        for alpha, choices in zip(recipe.sweep.alphas, predicted[name][split], strict=True)
        for question, choice in zip(part, choices, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


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
    for p in points:
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
