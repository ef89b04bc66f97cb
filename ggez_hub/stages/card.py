"""card: the model cards of the adapter and of the merged checkpoint, from what the run folder holds alone."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import families, hub, metadata
from ggez_hub.data import account
from ggez_hub.errors import InputError
from ggez_hub.families.base import DEFAULT_PROMPT
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import card_template, data_root, load_region, to_yaml
from ggez_hub.runs import MANIFEST, Run, file_hash, read_json, write_json, write_text
from ggez_hub.schema import Base, Recipe, Region, Registered
from ggez_hub.scoring import groups

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

NEEDS = ("filter", "train", "sweep", "merge")
RESUMABLE = False
TEMPLATE = "model.md.j2"
ARTEFACTS = ("adapter", "merged")
PARITY = "global-regional-parity"  # what stands for a data set where a card gives GRP, gain and retention
EVALUATIONS = ".eval_results"  # folder of a repository that the Hub takes results on registered benchmarks from
ENDPOINT = "http://localhost:8000/v1"  # stands for the address of a server, which is nobody else's
BEGIN = "<!-- hand-written: text between these two lines is yours; everything else is generated anew -->"
END = "<!-- /hand-written -->"
MEND = {  # key of the front matter: of the recipe
    "license": "card.license",
    "license_name": "card.license",
    "language": "data.languages",
    "base_model": "base.id",
    "tags": "region",
    "model-index": "sweep",
    "ggez": "sweep",
}

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
        "registered": {name: place.model_dump() for name, place in _registered(recipe).items()},
        "hand_written": {
            artefact: hashlib.sha256(text.encode()).hexdigest()
            for artefact in ARTEFACTS
            if (text := hand_written(run, artefact))
        },
    }


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes for each artefact README.md, ggez.json, recipe.yaml and .eval_results; full training makes no adapter.

    Raises:
        InputError: The Hub would refuse a card, or text that someone wrote into one would be lost.
    """
    for artefact in ARTEFACTS:
        if artefact not in hub.artefacts(recipe) and hand_written(run, artefact):
            raise InputError(
                f"{_present(run, artefact)}: holds text written by hand, but full training makes no such card",
                "keep the text elsewhere, then delete this file",
            )
    for artefact in hub.artefacts(recipe):
        write_text(folder / artefact / "README.md", card(recipe, run, artefact))
        write_json(folder / artefact / hub.FACTS, facts(recipe, run, artefact))
        write_text(folder / artefact / "recipe.yaml", to_yaml(_public(recipe)))
        for name, entries in _evaluations(recipe, run).items():
            write_text(folder / artefact / EVALUATIONS / f"{name}.yaml", to_yaml(entries))


def _public(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it is published: files and models without the folders they had on this machine, and no servers."""
    plain = recipe.model_dump(mode="json", by_alias=True)
    for corpus in (plain["data"].get("sources") or {"data": plain["data"]}).values():
        corpus["path"] = Path(corpus["path"]).name if corpus["path"] else None
    rules, translate = plain["filter"], plain["translate"] or {"translators": {}}
    rules["embedding"] = rules["embedding"] and account.named(rules["embedding"])
    for model in filter(None, (rules["reward"], rules["unsafe"], *translate["translators"].values())):
        model["id"] = model["id"] and account.named(model["id"])
        if model.get("endpoint"):
            model["endpoint"] = ENDPOINT
    return plain


def facts(recipe: Recipe, run: Run, artefact: str, gate: Sequence[str] = ()) -> dict[str, Any]:
    """The contents of ggez.json: what from_pretrained has to know.

    Args:
        recipe: The recipe.
        run: Its run folder.
        artefact: ``adapter`` or ``merged``.
        gate: Reasons why it should not be published, where it is all the same.
    """
    results = read_json(run.stage("sweep") / "results.json")
    chosen = results["chosen"]
    made = {
        "schema": hub.SCHEMA,
        "artefact": artefact,
        "recipe": run.folder.name,
        "family": recipe.family,
        "region": recipe.region,
        "alpha": chosen["alpha"],
        "gain": chosen["gain"],
        "retention": chosen["retention"],
        "base": {"id": hub.base_name(recipe.base), "revision": hub.base_revision(recipe.base, run)},
        "synthetic": results["synthetic"] or _has_synthetic(recipe),
    }
    return made | ({"gate": list(gate)} if gate else {})


def _has_synthetic(recipe: Recipe) -> bool:
    return any(corpus.synthetic for corpus in recipe.data.corpora.values())


def _registered(recipe: Recipe) -> dict[str, Registered]:
    """Benchmarks of a recipe that the Hub has registered."""
    known = {name: load_benchmark(name).registered for name in recipe.sweep.benchmarks}
    return {name: place for name, place in known.items() if place}


def _evaluations(recipe: Recipe, run: Run) -> dict[str, list[dict[str, Any]]]:
    """What the Hub's leaderboards are told, by benchmark. Without a date: the Hub takes that of the commit."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    results = read_json(run.stage("sweep") / "results.json")
    chosen = _at_chosen(results)
    return {
        name: eval_result_entries_to_yaml(
            [
                EvalResultEntry(
                    dataset_id=place.dataset,
                    task_id=place.task,
                    dataset_revision=place.revision,
                    value=chosen["benchmarks"][name]["value"],
                    notes=f"{chosen['benchmarks'][name]['metric']} at α = {chosen['alpha']:g}",
                )
            ]
        )
        for name, place in _registered(recipe).items()
    }


def _at_chosen(results: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured at the chosen alpha."""
    found: dict[str, Any] = next(p for p in results["points"] if p["alpha"] == results["chosen"]["alpha"])
    return found


# ----------------------------------------------------------------------------------------------- text written by hand
def hand_written(run: Run, artefact: str) -> str:
    """What someone wrote into the card that is there: the lines between BEGIN and END.

    Raises:
        InputError: One of these lines is missing or there twice, so that it cannot be told what is whose.
    """
    path = _present(run, artefact)
    if not path.is_file():
        return ""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: cannot be read: {err}", "save it as UTF-8") from err
    found = own_lines(text)
    if found is not None:
        return found
    manifest = path.parents[1] / MANIFEST
    outputs = read_json(manifest)["outputs"] if manifest.is_file() else {}
    if not _marks_in(text) and outputs.get(f"{artefact}/README.md", {}).get("sha256") == file_hash(path):
        return ""  # as an earlier version of this package wrote it
    raise InputError(
        f"{path}: expected once each, in this order, the lines\n  {BEGIN}\n  {END}",
        "put them around the text that is yours; or delete the file, and it is written anew without any",
    )


def _present(run: Run, artefact: str) -> Path:
    """The card that is there. A run that was killed as it put a new one in place left the one before aside."""
    folders = (run.stage("card"), run.folder / ".card.old")
    paths = [folder / artefact / "README.md" for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def _marks_in(text: str) -> list[tuple[int, str]]:
    """The lines that say where hand-written text begins and ends, with their numbers."""
    pattern = re.compile(r"\s*<!--\s*(/?)hand-written\b.*-->\s*")
    return [
        (i, "end" if m[1] else "begin") for i, line in enumerate(text.split("\n")) if (m := pattern.fullmatch(line))
    ]


def own_lines(text: str) -> str | None:
    """The hand-written lines of a card, or None if it cannot be told which they are."""
    lines = _marks_in(text)
    if [what for _, what in lines] != ["begin", "end"]:
        return None
    (first, _), (last, _) = lines
    return "".join(f"{line}\n" for line in text.split("\n")[first + 1 : last])


# ------------------------------------------------------------------------------------------------------------- the card
def card(recipe: Recipe, run: Run, artefact: str, gate: Sequence[str] = ()) -> str:
    """A model card: metadata, then the rendered template, with the text that was written into it by hand.

    Args:
        recipe: The recipe.
        run: Its run folder, with every stage before this one complete.
        artefact: ``adapter`` or ``merged``.
        gate: Reasons why it should not be published, where it is all the same; the card opens with them.

    Raises:
        InputError: The Hub would refuse the card, or text written by hand would be lost.
    """
    results = read_json(run.stage("sweep") / "results.json")
    kept = hand_written(run, artefact)
    data = front_matter(recipe, run.folder.name, artefact, results, bool(gate))
    text = f"---\n{data.to_yaml()}\n---\n\n{_body(recipe, run, artefact, results, gate, kept)}"
    if found := metadata.problems(text):
        keys = (MEND.get(re.split(r"[.\[:]", line)[0], "family") for line in found)
        raise InputError(
            "\n".join(f"card of the {artefact}: {line}" for line in found),
            f"mend {', '.join(dict.fromkeys(keys))} in the recipe",
        )
    if own_lines(text) != kept:
        raise InputError(f"the recipe's texts hold a line that is the card's own: {BEGIN} or {END}", "remove it there")
    return text


def front_matter(
    recipe: Recipe, name: str, artefact: str, results: Mapping[str, Any], below_gate: bool = False
) -> "ModelCardData":
    """The metadata of a card.

    Args:
        recipe: The recipe.
        name: Its name.
        artefact: ``adapter`` or ``merged``.
        results: The contents of results.json.
        below_gate: Whether it is published though it should not be.
    """
    from huggingface_hub import EvalResult, ModelCardData

    family = families.get(recipe.family)
    chosen, judged = _at_chosen(results), results["chosen"]
    synthetic = results["synthetic"] or _has_synthetic(recipe)
    mark = " (synthetic)" if results["synthetic"] else ""
    evaluations = [
        EvalResult(
            task_type=family.PIPELINE_TAG,
            dataset_type=benchmark,
            dataset_name=benchmark + mark,
            metric_type=metric.replace(" ", "_"),
            metric_name=f"{metric} at α = {chosen['alpha']:g}",
            metric_value=round(measured["value"], 4),
        )
        for benchmark, measured in chosen["benchmarks"].items()
        for metric in [measured["metric"]]
    ]
    evaluations += [
        EvalResult(
            task_type=family.PIPELINE_TAG,
            dataset_type=PARITY,
            dataset_name=f"global-regional parity, {recipe.region}{mark}",
            metric_type=metric,
            metric_name=f"{what} at α = {chosen['alpha']:g}",
            metric_value=round(judged[metric], 4),
        )
        for metric, what in (
            ("grp", "global-regional parity"),
            ("gain", "gain in the region"),
            ("retention", "retention of global quality"),
        )
        if judged[metric] is not None
    ]
    relation: dict[str, Any] = {}
    if on_hub(recipe.base):
        relation = {
            "base_model": hub.base_name(recipe.base),
            "base_model_relation": "adapter" if artefact == "adapter" else "merge",
        }
    licenses = sorted({license_ for _, license_ in account.licenses(recipe) if license_})
    measured = ("alpha", "gain", "gain_ci95", "retention", "retention_ci95", "grp")
    own = {
        "artefact": artefact,
        "family": recipe.family,
        "region": recipe.region,
        **{key: judged[key] for key in measured if judged[key] is not None},
        "synthetic": synthetic,
        **({"data_licenses": licenses} if recipe.data.sources or recipe.translate else {}),
        **({"below_gate": True} if below_gate else {}),
    }
    return ModelCardData(
        language=account.languages(recipe),
        license=recipe.card.license,
        license_name=recipe.card.license_name,
        library_name=family.ADAPTER_LIBRARY_NAME if artefact == "adapter" else family.LIBRARY_NAME,
        pipeline_tag=family.PIPELINE_TAG,
        tags=[
            "ggez",
            f"ggez-region:{recipe.region}",
            f"ggez-family:{recipe.family}",
            "regional-adaptation",
            "arxiv:2604.11490",
            *family.TAGS,
            *(["synthetic"] if synthetic else []),
            *(["lora"] if artefact == "adapter" else []),
        ],
        model_name=hub.repo_id(recipe, name, artefact).partition("/")[2],
        eval_results=evaluations,
        ggez=own,
        **relation,
    )


def on_hub(base: Base) -> bool:
    """Whether a base has a name that means the same to everyone; a folder of this machine has none."""
    name = hub.base_name(base)
    local = base.id is not None and not hub.is_shipped(name) and Path(name).is_dir()
    return base.random is None and metadata.is_hub_id(name) and not local


def _body(
    recipe: Recipe, run: Run, artefact: str, results: Mapping[str, Any], gate: Sequence[str], hand_written: str
) -> str:
    name, region = run.folder.name, load_region(recipe.region)
    report = read_json(run.stage("filter") / "report.json")
    after, points = report["countries"]["after"], results["points"]
    at = {point["alpha"]: point for point in points}
    trained = run.manifest("train") or {}
    template = card_template(
        TEMPLATE, number=_number, percent=_percent, between=_between, value=_value, side=_side, asides=_asides
    )
    return template.render(
        artefact=artefact,
        gate=[" ".join(reason.split()) for reason in gate],
        begin=BEGIN,
        hand_written=hand_written,
        end=END,
        title=recipe.card.title or recipe.title,
        recipe_name=name,
        region=region,
        synthetic=results["synthetic"] or account.is_synthetic(recipe),
        drawn=[name for name, corpus in recipe.data.sources.items() if corpus.synthetic],
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
        data={
            "source": account.title(recipe),
            "license": recipe.data.license,
            "languages": account.languages(recipe, region),
            "sources": account.sources(recipe, report),
            "rules": account.rules(recipe.filter),
            "translation": account.translation(recipe, region),
        },
        marks=_marks(results),
        above=_above(results),
        notes=recipe.notes,
        report=report,
        countries=", ".join(f"{country} {count}" for country, count in after.items()),
        uncovered=_uncovered(run, region, after),
        training=_training(recipe, run, trained),
        intended_use=recipe.card.intended_use or INTENDED,
        limits=recipe.card.limits or LIMITS,
        cautions=recipe.card.cautions or CAUTIONS,
        hashes={
            "examples": _hashes(run, "filter", r"examples\.parquet(/.*)?"),
            "weights": _hashes(run, "train" if artefact == "adapter" else "merge", r".*\.safetensors"),
        },
        seed=recipe.seed,
        versions=", ".join(f"{library} {number}" for library, number in trained["versions"].items()),
    )


def _uncovered(run: Run, region: Region, kept: Mapping[str, int]) -> dict[str, list[str]]:
    """The countries of the region, in words, without a training row, without a test question, or with neither.

    Args:
        run: The run folder, with the predictions of the sweep.
        region: The region.
        kept: How many rows were kept, by country.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    asked = pq.read_table(
        run.stage("sweep") / "predictions.parquet", columns=["country"], filters=pc.field("split") == "test"
    )
    learned, measured = (
        {code for codes in found for code in (codes or "").split("|")}
        for found in (kept, asked["country"].unique().to_pylist())
    )
    if not learned & set(region.countries):  # of no row it is known where it is from
        learned |= set(region.countries)
    lacks = {(False, False): "neither", (False, True): "row", (True, False): "question"}
    found: dict[str, list[str]] = {what: [] for what in lacks.values()}
    for code in region.countries:
        if what := lacks.get((code in learned, code in measured)):
            found[what].append(groups.country(code) or code)
    return found


def _hashes(run: Run, stage: str, names: str) -> str:
    """SHA-256 of a stage's files of such names, as its manifest has them."""
    outputs = (run.manifest(stage) or {"outputs": {}})["outputs"]
    return ", ".join(f"`{output['sha256']}`" for name, output in outputs.items() if re.fullmatch(names, name))


def _training(recipe: Recipe, run: Run, manifest: Mapping[str, Any]) -> str:
    train = recipe.train
    log = [json.loads(line) for line in (run.stage("train") / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if entry["phase"] == "train"]
    lora = f"A LoRA of rank {train.lora.r} (lora_alpha {train.lora.lora_alpha})"
    before = ""
    if train.pretrain:
        before = f" after {train.pretrain.length} with the loss {train.pretrain.loss!r}"
    report = read_json(run.stage("train") / "report.json")
    taken = f" ({report['train']['steps']} steps)" if train.epochs else ""
    left_out = [
        f" {count} {what}."
        for phase in report.values()
        for what, count in phase.items()
        if what not in ("loss", "rows", "steps", "epochs")
    ]
    return (
        f"{lora if train.method == 'lora' else 'All weights'}, AdamW, {train.length} rows{taken}"
        f"{before}, learning rate {train.learning_rate:g} falling linearly to zero after {train.warmup} steps of "
        f"warm-up, weight decay {train.weight_decay:g}. Loss from {losses[0]:.3f} to {losses[-1]:.3f}."
        f"{''.join(left_out)} "
        f"{manifest['seconds']:.0f} seconds on {manifest['hardware']}; energy was not measured."
    )


def _plain_library(recipe: Recipe, artefact: str) -> str:
    family = families.get(recipe.family)
    names = (family.ADAPTER_LIBRARY_NAME, family.LIBRARY_NAME) if artefact == "adapter" else (family.LIBRARY_NAME,)
    return " and ".join(dict.fromkeys(names))


def _above(results: Mapping[str, Any]) -> dict[float, str]:
    """How sure it is that each alpha has a higher GRP than the chosen one."""
    alphas = [point["alpha"] for point in results["points"]]
    chosen = alphas.index(results["chosen"]["alpha"])
    shares = [row[chosen] for row in results["beats"] or ()] or [None] * len(alphas)
    return {
        alpha: "" if share is None or i == chosen else f"{share:.1%}"
        for i, (alpha, share) in enumerate(zip(alphas, shares, strict=True))
    }


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
    family = families.get(recipe.family)
    if "drawing" in family.TASKS:
        ours = (
            f"from PIL import Image\n\nfrom ggez_hub import RegionalModel\n\n{loading}"
            'pixels = model.predict([{"prompt": "a temple", "seed": 7}])[0]  # uint8 [height, width, 3]\n'
            'Image.fromarray(pixels).save("temple.png")\n'
        )
    else:
        prompt = f'"prompt": "{DEFAULT_PROMPT}", ' if family.WRITES else ""
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
        ours = ours.rstrip("\n") if "drawing" in family.TASKS else ours + "print(scores)"
    repo, base = hub.repo_id(recipe, name, artefact), recipe.base
    plain = family.usage(repo, hub.base_name(base), base.revision)
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
