"""sweep: measures every alpha on both sides, and chooses one (paper, section 4.2)."""

import functools
import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ggez_hub import families, hub, kof, method
from ggez_hub.data import readers
from ggez_hub.families.base import Loaded, Query
from ggez_hub.merging import live
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, versions, write_json
from ggez_hub.schema import Recipe, Sweep
from ggez_hub.scoring import search, statistics
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
    asked = {
        name: questions(load_benchmark(name), region, recipe.data.path)
        for name in tqdm([*recipe.sweep.global_, *recipe.sweep.regional], desc="questions", unit=" benchmark")
    }
    measured, rounds = _measure(recipe, asked, _asker(recipe, run, asked))
    results = _results(recipe, run.folder.name, measured, asked, rounds)
    write_json(folder / "results.json", results)
    _write_predictions(folder / "predictions.parquet", asked, measured)
    plot(results, folder / "parity.png")


Asked = dict[str, dict[str, list[Question]]]  # benchmark: split: questions
Chosen = dict[tuple[str, str], "np.ndarray"]  # (benchmark, split): place of the option chosen, int32 [questions]
Measured = dict[float, Chosen]  # by alpha, rising


# ----------------------------------------------------------------------------------------------------------- measuring
def _measure(recipe: Recipe, asked: Asked, ask: Callable[[float], Chosen]) -> tuple[Measured, int]:
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
    global_, regional = (part.mean(axis=0) for part in _replicates(recipe, side).values())
    replicates: Any = method.grp(global_, regional, globalization)
    sweep = recipe.sweep
    return search.next_alphas(points, replicates, sweep.alphas, sweep.min_retention, sweep.resolution)


def _asker(recipe: Recipe, run: Run, asked: Asked) -> Callable[[float], Chosen]:
    """A function that answers all questions at an alpha; the model is asked only what it was never asked before."""
    import numpy as np

    folder = _kept_folder(recipe, run)
    family = families.get(recipe.family)
    model = functools.cache(lambda: _load(recipe, run))  # where nothing is left to ask, nothing is loaded
    queries = {
        (name, split): [Query(question.image, question.options) for question in part]
        for name, splits in asked.items()
        for split, part in splits.items()
    }
    hashes = {part: _hash(queries[part]) for part in queries}

    def ask(alpha: float) -> Chosen:
        files = {part: folder / f"{_sha256(f'{hashes[part]} {alpha}'.encode())}.npy" for part in queries}
        found = {part: _kept(file, len(queries[part])) for part, file in files.items()}
        chosen = {part: answers for part, answers in found.items() if answers is not None}
        if missing := [part for part in queries if part not in chosen]:
            loaded, dial = model()
            dial(alpha)
            scores = family.predict(loaded, [q for part in missing for q in queries[part]], recipe.sweep.batch_size)
            best = np.array([scored.argmax() for scored in scores], np.int32)
            borders = np.cumsum([len(queries[part]) for part in missing])[:-1]
            for part, answers in zip(missing, np.split(best, borders), strict=True):
                _keep(files[part], answers)
                chosen[part] = answers
        return chosen

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


def _hash(queries: Sequence[Query]) -> str:
    """A hash of pictures and options, in their order."""
    parts = (cast(bytes, query.image) + repr(query.options).encode() for query in queries)
    return _sha256(b"".join(hashlib.sha256(part).digest() for part in parts))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _kept(path: Path, count: int) -> "np.ndarray | None":
    """Kept answers, or None if there are none or the file is damaged."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (count,) and found.dtype == np.int32 else None


def _keep(path: Path, answers: "np.ndarray") -> None:
    import numpy as np

    temporary = path.with_suffix(".partial")
    try:
        with temporary.open("wb") as file:
            np.save(file, answers, allow_pickle=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------------------------- results
def _answers(recipe: Recipe, asked: Asked, measured: Measured) -> dict[str, dict[str, Side]]:
    """Which questions were answered right: split, side, one entry per benchmark."""
    import numpy as np

    def answers(name: str, split: str) -> Answers:
        part = asked[name][split]
        chosen = np.stack([at_alpha[name, split] for at_alpha in measured.values()])
        # Every benchmark numbers its own rows, but questions of one picture have one id, which makes them one cluster.
        return Answers(name, [q.id for q in part], chosen == np.array([q.answer for q in part]))

    sides = {"global": recipe.sweep.global_, "regional": recipe.sweep.regional}
    return {
        split: {side: [answers(name, split) for name in names] for side, names in sides.items()}
        for split in ("selection", "test")
        if all(split in asked[name] for name in asked)
    }


def _replicates(recipe: Recipe, answers: Mapping[str, Side]) -> dict[str, "np.ndarray"]:
    """Bootstrap replicates of each side: [benchmarks, resamples, alphas]."""
    return {
        side: statistics.resample(part, recipe.sweep.resamples, recipe.seed + i)
        for i, (side, part) in enumerate(answers.items())
    }


def _results(recipe: Recipe, name: str, measured: Measured, asked: Asked, rounds: int) -> dict[str, Any]:
    """The contents of results.json."""
    sweep = recipe.sweep
    globalization = _globalization(recipe)
    answers = _answers(recipe, asked, measured)
    test = answers["test"]
    replicates = _replicates(recipe, test)
    points, selection = (
        _points(measured, side, globalization["value"]) for side in (test, answers.get("selection", test))
    )
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
    } | ({"search": _search(sweep, len(measured), rounds)} if sweep.search == "refine" else {})


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


def _write_predictions(path: Path, asked: Asked, measured: Measured) -> None:
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
        for alpha, chosen in measured.items()
        for question, choice in zip(part, chosen[name, split], strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


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
