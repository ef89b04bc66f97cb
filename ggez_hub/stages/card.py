"""card: the model cards of the adapter and of the merged checkpoint, from what the run folder holds alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ggez_hub import families, hub
from ggez_hub.families.base import DEFAULT_PROMPT
from ggez_hub.registry import data_root, load_region, to_yaml
from ggez_hub.runs import Run, file_hash, read_json, write_json, write_text
from ggez_hub.schema import Recipe

NEEDS = ("filter", "train", "sweep", "merge")
RESUMABLE = False
TEMPLATE = "model.md.j2"

INTENDED = (
    "For research on, and applications in, the region's culture, with a person who knows the region in the loop. "
    "Not for judging people, identities or the worth of a tradition."
)
LIMITS = (
    "Measured on the benchmarks above and on nothing else. Countries, languages and communities with few rows are "
    "served worse; between α = 0 and 1 the model trades global against regional quality."
)
CAUTIONS = (
    "Names, borders and origins of cultural things are often shared or contested between countries; a label here is "
    "the data's, not a ruling. Sacred objects and rites deserve more care than a caption gives them."
)


def inputs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the stage depends on."""
    return {
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "name": run.folder.name,
        "template": file_hash(data_root() / "cards" / TEMPLATE),
        "stages": {stage: run.outputs_hash(stage) for stage in NEEDS},
    }


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes {adapter,merged}/README.md, ggez.json and recipe.yaml; full training makes no adapter."""
    for artefact in hub.artefacts(recipe):
        write_text(folder / artefact / "README.md", card(recipe, run, artefact))
        write_json(folder / artefact / hub.FACTS, facts(recipe, run, artefact))
        write_text(folder / artefact / "recipe.yaml", to_yaml(_public(recipe)))


def _public(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it is published: the data's file without the folder it had on this machine."""
    plain = recipe.model_dump(mode="json", by_alias=True)
    if recipe.data.path:
        plain["data"]["path"] = Path(recipe.data.path).name
    return plain


def facts(recipe: Recipe, run: Run, artefact: str) -> dict[str, Any]:
    """The contents of ggez.json: what from_pretrained has to know."""
    results = read_json(run.stage("sweep") / "results.json")
    chosen = results["chosen"]
    return {
        "schema": hub.SCHEMA,
        "artefact": artefact,
        "recipe": run.folder.name,
        "family": recipe.family,
        "region": recipe.region,
        "alpha": chosen["alpha"],
        "gain": chosen["gain"],
        "retention": chosen["retention"],
        "base": {"id": hub.base_name(recipe.base), "revision": recipe.base.revision},
        "synthetic": results["synthetic"] or recipe.data.synthetic,
    }


# ------------------------------------------------------------------------------------------------------------- the card
def card(recipe: Recipe, run: Run, artefact: str) -> str:
    """A model card: metadata, then the rendered template."""
    results = read_json(run.stage("sweep") / "results.json")
    metadata = _metadata(recipe, run.folder.name, artefact, results)
    return f"---\n{metadata.to_yaml()}\n---\n\n{_body(recipe, run, artefact, results)}"


def _metadata(recipe: Recipe, name: str, artefact: str, results: Mapping[str, Any]) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    family = families.get(recipe.family)
    chosen = next(p for p in results["points"] if p["alpha"] == results["chosen"]["alpha"])
    synthetic = results["synthetic"] or recipe.data.synthetic
    evaluations = [
        EvalResult(
            task_type=family.PIPELINE_TAG,
            dataset_type=benchmark,
            dataset_name=benchmark + (" (synthetic)" if results["synthetic"] else ""),
            metric_type=metric.replace(" ", "_"),
            metric_name=f"{metric} at α = {chosen['alpha']:g}",
            metric_value=round(measured["value"], 4),
        )
        for benchmark, measured in chosen["benchmarks"].items()
        for metric in [measured["metric"]]
    ]
    relation: dict[str, Any] = {}
    if recipe.base.random is None:
        relation = {
            "base_model": hub.base_name(recipe.base),
            "base_model_relation": "adapter" if artefact == "adapter" else "merge",
        }
    return ModelCardData(
        language=list(recipe.data.languages),
        license=recipe.card.license,
        library_name=family.ADAPTER_LIBRARY_NAME if artefact == "adapter" else family.LIBRARY_NAME,
        pipeline_tag=family.PIPELINE_TAG,
        tags=[
            "ggez",
            f"ggez-region:{recipe.region}",
            "regional-adaptation",
            "arxiv:2604.11490",
            *family.TAGS,
            *(["synthetic"] if synthetic else []),
            *(["lora"] if artefact == "adapter" else []),
        ],
        model_name=hub.repo_id(recipe, name, artefact).partition("/")[2],
        eval_results=evaluations,
        **relation,
    )


def _body(recipe: Recipe, run: Run, artefact: str, results: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    name, region = run.folder.name, load_region(recipe.region)
    report = read_json(run.stage("filter") / "report.json")
    after, points = report["countries"]["after"], results["points"]
    at = {point["alpha"]: point for point in points}
    trained = run.manifest("train") or {}
    environment = Environment(
        loader=FileSystemLoader(data_root() / "cards"), undefined=StrictUndefined, autoescape=False
    )  # Markdown, not HTML
    environment.globals |= {
        "number": _number,
        "percent": _percent,
        "between": _between,
        "value": _value,
        "side": _side,
        "asides": _asides,
    }
    return environment.get_template(TEMPLATE).render(
        artefact=artefact,
        title=recipe.card.title or recipe.title,
        recipe_name=name,
        region=region,
        synthetic=results["synthetic"] or recipe.data.synthetic,
        base={
            "name": hub.base_name(recipe.base),
            "revision": recipe.base.revision,
            "license": recipe.base.license,
            "random": recipe.base.random is not None,
        },
        snippets=_snippets(recipe, name, artefact),
        plain_library=_plain_library(recipe, artefact),
        points=points,
        zero=at[0],
        one=at[1],
        at_chosen=at[results["chosen"]["alpha"]],
        chosen=results["chosen"],
        grp_best=results["grp_best"],
        min_retention=results["min_retention"],
        selected_apart=results["selection_apart"],
        globalization=results["globalization"],
        benchmarks=list(points[0]["benchmarks"]),
        resamples=recipe.sweep.resamples,
        data=recipe.data.model_dump() | {"source": _source(recipe)},
        marks=_marks(results),
        notes=recipe.notes,
        report=report,
        countries=", ".join(f"{country} {count}" for country, count in after.items()),
        missing=", ".join(c for c in region.countries if c not in after) if recipe.filter.region else "",
        training=_training(recipe, run, trained),
        intended_use=recipe.card.intended_use or INTENDED,
        limits=recipe.card.limits or LIMITS,
        cautions=recipe.card.cautions or CAUTIONS,
        hashes={
            "examples": _hashes(run, "filter", ".parquet"),
            "weights": _hashes(run, "train" if artefact == "adapter" else "merge", ".safetensors"),
        },
        seed=recipe.seed,
        versions=", ".join(f"{library} {number}" for library, number in trained["versions"].items()),
    )


def _hashes(run: Run, stage: str, ending: str) -> str:
    """SHA-256 of a stage's files of a kind, as its manifest has them."""
    outputs = (run.manifest(stage) or {"outputs": {}})["outputs"]
    return ", ".join(f"`{output['sha256']}`" for name, output in outputs.items() if name.endswith(ending))


def _training(recipe: Recipe, run: Run, manifest: Mapping[str, Any]) -> str:
    train = recipe.train
    log = [json.loads(line) for line in (run.stage("train") / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if entry["phase"] == "train"]
    lora = f"A LoRA of rank {train.lora.r} (lora_alpha {train.lora.lora_alpha})"
    before = ""
    if train.pretrain:
        before = f" after {train.pretrain.steps} steps with the loss {train.pretrain.loss!r}"
    left_out = [
        f" {count} {what}."
        for phase in read_json(run.stage("train") / "report.json").values()
        for what, count in phase.items()
        if what not in ("loss", "rows")
    ]
    return (
        f"{lora if train.method == 'lora' else 'All weights'}, AdamW, {train.steps} steps of {train.batch_size} rows"
        f"{before}, learning rate {train.learning_rate:g} falling linearly to zero after {train.warmup} steps of "
        f"warm-up, weight decay {train.weight_decay:g}. Loss from {losses[0]:.3f} to {losses[-1]:.3f}."
        f"{''.join(left_out)} "
        f"{manifest['seconds']:.0f} seconds on {manifest['hardware']}; energy was not measured."
    )


def _plain_library(recipe: Recipe, artefact: str) -> str:
    family = families.get(recipe.family)
    names = (family.ADAPTER_LIBRARY_NAME, family.LIBRARY_NAME) if artefact == "adapter" else (family.LIBRARY_NAME,)
    return " and ".join(dict.fromkeys(names))


def _source(recipe: Recipe) -> str:
    data = recipe.data
    name = data.title or (Path(data.path).name if data.path else data.reader)
    return f"{name} (synthetic)" if data.synthetic else name


def _marks(results: Mapping[str, Any]) -> dict[float, str]:
    """What is said of each alpha in the table."""
    chosen, best = results["chosen"]["alpha"], results["grp_best"]["alpha"]
    marks = {point["alpha"]: "" for point in results["points"]}
    marks[best] = "highest GRP"
    marks[chosen] = f"**chosen**, {marks[chosen]}" if marks[chosen] else "**chosen**"
    return marks


def _snippets(recipe: Recipe, name: str, artefact: str) -> dict[str, str]:
    """Code that runs as it stands where the repository can be found under its id."""
    loading = f'model = RegionalModel.from_pretrained("{hub.repo_id(recipe, name, artefact)}")\n'
    tasks = families.get(recipe.family).TASKS
    if "drawing" in tasks:
        ours = (
            f"from PIL import Image\n\nfrom ggez_hub import RegionalModel\n\n{loading}"
            'pixels = model.predict([{"prompt": "a temple", "seed": 7}])[0]  # uint8 [height, width, 3]\n'
            'Image.fromarray(pixels).save("temple.png")\n'
        )
    else:
        prompt = f'"prompt": "{DEFAULT_PROMPT}", ' if "question" in tasks else ""
        ours = (
            f"from PIL import Image\n\nfrom ggez_hub import RegionalModel\n\n{loading}"
            'picture = Image.new("RGB", (224, 224), "white")  # yours\n'
            f'query = {{"image": picture, {prompt}"options": ["a temple", "a market"]}}\n'
            "scores = model.predict([query])\n"
        )
    if artefact == "adapter":
        ours += "model.alpha = 1.0  # all the way to the region, in place\n"
        ours += "with model.at(0.0):  # the global base, for a moment\n    ..."
    else:
        ours = ours.rstrip("\n") if "drawing" in tasks else ours + "print(scores)"
    repo, base = hub.repo_id(recipe, name, artefact), recipe.base
    plain = families.get(recipe.family).usage(repo, hub.base_name(base), base.revision)
    return {"ours": ours, "plain": plain[artefact]}


# -------------------------------------------------------------------------------------------------- numbers in the card
def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _between(interval: Sequence[float] | None, show: Any = _number) -> str:
    return f"[{show(interval[0])}, {show(interval[1])}]" if interval else "[no interval]"


def _value(measured: Mapping[str, Any]) -> str:
    return f"{_number(measured['value'])} {_between(measured['ci95'])}"


def _asides(measured: Mapping[str, Any]) -> str:
    """What a reader has to know of a benchmark that does not count right answers."""
    if measured["metric"] == "accuracy":
        return ""
    return f"; {measured['metric']}{', lower is better' if 'discrepancy' in measured['metric'] else ''}"


def _side(point: Mapping[str, Any], side: str) -> str:
    return f"**{_number(point[side])}** {_between(point[f'{side}_ci95'])}"
