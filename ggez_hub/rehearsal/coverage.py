"""What a stage of a rehearsal has covered, and what is left to the real run, in words."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ggez_hub.method import choose_alpha
from ggez_hub.recipes import load_benchmark
from ggez_hub.rehearsal import checks
from ggez_hub.rehearsal.estimate import Estimate, Number, shown
from ggez_hub.rehearsal.report import NEEDS
from ggez_hub.runs import Run, read_json
from ggez_hub.schema import Recipe

STAGES = ("filter", "train", "sweep")  # whose hours are estimated


def covered(stage: str, recipe: Recipe, run: Run) -> str:
    """What a complete stage did."""
    words = {"filter": _filter, "train": _train, "sweep": _sweep, "merge": _merge, "card": _card}
    return words[stage](recipe, run)


def _filter(recipe: Recipe, run: Run) -> str:
    report = read_json(run.stage("filter") / "report.json")
    dropped = [f"{count} by {rule}" for rule, count in report["dropped"].items() if count]
    idle = [rule for rule, count in report["dropped"].items() if not count]
    sources = f" of {len(report['sources'])} sources" if len(report["sources"]) > 1 else ""
    translated = report["translation"] and f"; {report['translation']['rows']} translated"
    return (
        f"{report['rows']} rows{sources}, {report['kept']} kept; dropped: {', '.join(dropped) or 'none'}"
        f"{'; rules that dropped nothing: ' + ', '.join(idle) if idle else ''}{translated or ''}"
    )


def _train(recipe: Recipe, run: Run) -> str:
    log = [json.loads(line) for line in (run.stage("train") / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    phases = {phase: [entry["loss"] for entry in log if entry["phase"] == phase] for phase in ("pretrain", "train")}
    steps = [
        f"{len(losses)} step{'s' * (len(losses) > 1)} of {phase}, loss {losses[0]:.3f}"
        f"{f' to {losses[-1]:.3f}' * (len(losses) > 1)}"
        for phase, losses in phases.items()
        if losses
    ]
    settings = recipe.train
    how = f"a LoRA of rank {settings.lora.r}" if settings.method == "lora" else "all weights"
    micro = f" in parts of {settings.micro_batch_size}" if settings.micro_batch_size else ""
    return f"{how}, {settings.batch_size} rows a step{micro}: {'; '.join(steps)}"


def _sweep(recipe: Recipe, run: Run) -> str:
    results = read_json(run.stage("sweep") / "results.json")
    asked = {name: measured["n"] for name, measured in results["points"][0]["benchmarks"].items()}
    alphas = ", ".join(f"{point['alpha']:g}" for point in results["points"])
    return f"α {alphas}; test questions: {', '.join(f'{name} {count}' for name, count in asked.items())}"


def _merge(recipe: Recipe, run: Run) -> str:
    results = read_json(run.stage("sweep") / "results.json")
    ruled = choose_alpha(results["selection"], results["min_retention"])[0]["alpha"]
    alpha = results["chosen"]["alpha"]
    why = f", set for the rehearsal: the rule's {ruled:g} would merge nothing" if ruled != alpha else ""
    return f"the checkpoint at α = {alpha:g}{why}"


def _card(recipe: Recipe, run: Run) -> str:
    return f"of {', '.join(sorted(path.parent.name for path in run.stage('card').glob('*/README.md')))}"


def published(folders: Mapping[str, Path]) -> str:
    """What was published into folders."""
    counts = {name: sum(path.is_file() for path in folder.rglob("*")) for name, folder in folders.items()}
    return ", ".join(f"{folders[name]} ({count} files)" for name, count in counts.items())


def left(recipe: Recipe) -> Iterator[str]:
    """What no rehearsal can show of a recipe."""
    yield "quality: gain, retention and which α is chosen"
    yield "what downloads, memory and time take in truth: below is an estimate"
    if not all(corpus.synthetic for corpus in recipe.data.corpora.values()):
        yield "how many rows the real data leave after each rule, and what is wrong in single rows"
    if recipe.engine == "ray":
        yield "engine: ray; here the same functions ran in one process"
    yield "several GPUs or machines (accelerate), and computing on a GPU at all"


def needs(recipe: Recipe, found: Estimate) -> dict[str, str]:
    """What the real run needs, in short: on the smallest machine that does."""
    short = {"GPU memory": shown(found.peak), "disk": shown(found.disk["all"])}
    benchmarks = [load_benchmark(name).source for name in recipe.sweep.benchmarks]
    if all(checks.draws(source.reader) for source in (*recipe.data.corpora.values(), *benchmarks)):
        steps = sum(number.value or 0 for number in found.steps.values())
        short |= {"GPU memory": "no GPU needed", "on": "a CPU", "time": f"{steps:,.0f} steps, not estimated"}
    elif found.ways:
        way = found.ways[0]
        hours = [way.hours[stage] for stage in STAGES if way.hours[stage].value is not None]
        known = shown(Number(sum(number.value or 0 for number in hours), "hours", "")) if hours else "?"
        without = [stage for stage in STAGES if way.hours[stage].value is None]
        memory = way.memory if way.gpus > 1 else found.peak  # of each
        short |= {"GPU memory": shown(memory), "on": f"{way.gpus} x {way.gpu}",
                  "time": known + (f" without {' and '.join(without)}" if hours and without else "")}  # fmt: skip
    return {name: short.get(name, "?") for name in NEEDS}
