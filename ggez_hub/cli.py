"""The command line. Data goes to stdout, talk and progress to stderr; an error is one message and an exit code."""

import errno
import json
import math
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from ggez_hub import device, recipes, registry
from ggez_hub.errors import ConfigError, GateError, GgezError, InputError
from ggez_hub.runs import flat

RECIPE = click.argument("recipe")
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
OUT = click.option("--out", default="runs", show_default=True, metavar="DIR", help="Folder that holds the run folders.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
PREDICTIONS = click.option(
    "--predictions", "files", multiple=True, required=True, metavar="FILE", help="JSONL, CSV, parquet; may be repeated."
)
ALLOW_MISSING = click.option("--allow-missing", is_flag=True, help="Score what is there where answers are missing.")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRONG_PLACE = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)


def say(text: str = "") -> None:
    """Talk, on stderr; of several processes the first one's."""
    if device.is_first():
        click.echo(text, err=True)


def complain(text: str) -> None:
    """An error, on stderr: each process says its own, since the first may be stopped before it does."""
    click.echo(text, err=True)


def put(text: str) -> None:
    """Data, on stdout. A reader that has gone, as in ``ggez show NAME | head``, is no error and stops no work."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends


def put_json(value: Any) -> None:
    """One JSON document on stdout, with full precision."""
    put(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ggez_hub", message="ggez_hub %(version)s")
def cli() -> None:
    """Regional adapters for vision-language models, from one YAML file to a published model.

    \b
    Start here:
      ggez demo                             a whole recipe, offline, in about two minutes
      ggez ls                               the recipes there are
      ggez cp pocket-sea-embedding my.yaml  one to make your own
    """  # noqa: D301


# ------------------------------------------------------------------------------------------------------ finding recipes
@cli.command("ls", epilog="Example: ggez ls regions --json")
@click.argument("kind", type=click.Choice(registry.KINDS), default="recipes")
@JSON
def ls(kind: registry.Kind, as_json: bool) -> None:
    """List recipes, regions, benchmarks or families."""
    from ggez_hub import describe

    rows = describe.listing(kind)
    if as_json:
        put_json({kind: rows})
        return
    for row in rows:
        put(f"{row['name']:28} {row['title']}")
    if kind == "recipes":
        say("\nnext: ggez show NAME, ggez run NAME")


@cli.command(epilog="Example: ggez show pocket-sea-embedding train.steps=50")
@click.argument("name")
@OVERRIDES
@JSON
def show(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every value of a recipe, region, benchmark or family, and where it came from."""
    from ggez_hub import describe

    rows = describe.values(name, overrides)
    if as_json:
        put_json({"name": name, "values": {key: {"value": value, "source": source} for key, value, source in rows}})
        return
    for key, value, source in rows:
        put(f"{key:32} {json.dumps(value, ensure_ascii=False)!s:48} {source}")


@cli.command(epilog="Example: ggez cp pocket-sea-embedding my-region.yaml")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
def cp(name: str, path: Path) -> None:
    """Copy a recipe, region or benchmark, to edit it."""
    kind: registry.Kind = next((kind for kind in registry.KINDS[:3] if name in registry.files(kind)), "recipes")
    source = registry.find(kind, name)
    target = path / source.name if path.is_dir() else path
    if target.suffix not in (".yaml", ".yml"):
        raise InputError(f"{target}: expected a name that ends in .yaml", f"ggez cp {name} {target}.yaml")
    if target.exists():
        raise InputError(f"{target}: exists already", "give another name, or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    say(f"{target} written\nnext: edit it, then ggez validate {target}")
    if kind == "regions":
        say(f"      with other countries remove kof and kof_countries, which are those of {name}")


@cli.command(epilog="Example: ggez new sea --family embedding")
@click.argument("region")
@click.option("--family", required=True, help="Kind of model: ggez ls families.")
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="File; default: REGION-FAMILY.yaml.")
def new(region: str, family: str, out: Path | None) -> None:
    """Write a recipe for a region: it runs on the pocket world at once, and says what to change next."""
    from ggez_hub import scaffold

    path = scaffold.new(region, family, out)
    put(str(path))
    given = shlex.quote(str(path))
    say(f"""next: ggez validate {given}
      ggez run {given}  # as it stands on drawn pictures (synthetic), in minutes
      ggez card {given} --preview
      ggez push {given} --to hf  # says what it would publish; edit the recipe first""")


@cli.command(epilog="Example: ggez validate my-region.yaml")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
def validate(paths: tuple[Path, ...]) -> None:
    """Check YAML files (all in a folder; all shipped ones, if none is given) with the code that a run uses."""
    files = [path for kind in registry.KINDS[:3] for path in registry.files(kind).values()]
    if paths:
        inside = {p: sorted(f for f in p.rglob("*") if f.suffix in (".yaml", ".yml")) for p in paths if p.is_dir()}
        files = [file for path in paths for file in inside.get(path) or [path]]
    problems: list[str] = []
    for path in files:
        try:
            recipes.validate_file(path)
        except ConfigError as err:
            problems += err.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    say(f"{len(files)} file{'s are' if len(files) > 1 else ' is'} valid")


@cli.command(epilog="Example: ggez pin my-region.yaml --check")
@click.argument("names", nargs=-1, metavar="[NAME_OR_PATH]...")
@click.option("--check", "checking", is_flag=True, help="Write nothing; hold pins, licenses and gating against it.")
def pin(names: tuple[str, ...], checking: bool) -> None:
    """Write the Hub's newest commit of all that recipes and benchmarks name into their YAML files.

    Without names: into those of the folder `recipes`, here or of the checkout.
    """
    from ggez_hub import pins

    paths = pins.files(names, write=not checking)
    if not checking:
        for pinned in pins.pin(paths):
            put(str(pinned))
        return
    found = pins.check(paths)
    wrong = [each for each in found if each.ok is False or (each.what == "pin" and each.hint)]
    for each in found:
        if each not in wrong:
            put(f"{each.key} {each.id}: {each.what}: {each.said}" if each.ok else each.said)
    if wrong:
        hint = "ggez pin writes commits that are missing or have gone; a license or gated is yours to change"
        raise ConfigError([f"{each.said}; {each.hint}" for each in wrong], hint)


# -------------------------------------------------------------------------------------------------------------- running
@cli.command(epilog="Example: ggez plan pocket-sea-embedding train.steps=50")
@RECIPE
@OVERRIDES
@OUT
@JSON
def plan(recipe: str, overrides: tuple[str, ...], out: str, as_json: bool) -> None:
    """Say what would run, what is already done, and why."""
    from ggez_hub import pipeline

    loaded, run = _open(recipe, overrides, out)
    steps = pipeline.plan(loaded, run)
    if as_json:
        put_json({"recipe": run.folder.name, "steps": [{"stage": s.stage, "reason": s.reason} for s in steps]})
        return
    for step in steps:
        put(f"{step.stage:8} {'run   ' + step.reason if step.reason else 'done'}")


@cli.command("run", epilog="Example: ggez run pocket-sea-embedding train.steps=50 --out runs")
@RECIPE
@OVERRIDES
@OUT
@click.option("--until", metavar="STAGE", default="card", show_default=True, help="The last stage to run.")
def run_(recipe: str, overrides: tuple[str, ...], out: str, until: str) -> None:
    """Run a recipe; what is done and unchanged is skipped."""
    _run(recipe, overrides, out, until)
    say(f"next: {shlex.join(['ggez', 'push', recipe, *overrides, '--to', 'hf', '--out', out])}")


def _stage_command(stage: str, text: str) -> None:
    @cli.command(stage, help=text, epilog=f"Example: ggez {stage} pocket-sea-embedding")
    @RECIPE
    @OVERRIDES
    @OUT
    def command(recipe: str, overrides: tuple[str, ...], out: str) -> None:
        _run_stage(stage, recipe, overrides, out)


def _run_stage(stage: str, recipe: str, overrides: Sequence[str], out: str) -> Any:
    """Runs one stage, if what it needs is there."""
    from ggez_hub import pipeline

    loaded, run = _open(recipe, overrides, out)
    earlier = [s.stage for s in pipeline.plan(loaded, run, stage) if s.reason and s.stage != stage]
    if earlier:
        raise InputError(f"{stage} needs {', '.join(earlier)} first", f"ggez run {recipe} --until {stage} --out {out}")
    return _run(recipe, overrides, out, stage)


_stage_command("filter", "Filter the corpus to the region.")
_stage_command("train", "Train the adapter.")
_stage_command("sweep", "Measure every alpha and choose one.")
_stage_command("merge", "Write the merged checkpoint.")


@cli.command(epilog="Example: ggez card pocket-sea-embedding --preview")
@RECIPE
@OVERRIDES
@OUT
@click.option("--preview", is_flag=True, help="Show each card as an HTML page, as the Hub would; prints where.")
def card(recipe: str, overrides: tuple[str, ...], out: str, preview: bool) -> None:
    """Write the model cards; hand-written text stays."""
    run = _run_stage("card", recipe, overrides, out)
    if preview:
        from ggez_hub.preview import render
        from ggez_hub.runs import write_text

        images = {path.name: path for path in run.stage("sweep").glob("*.png")}
        for readme in sorted(run.stage("card").glob("*/README.md")):
            page = run.folder / "preview" / f"{readme.parent.name}.html"
            write_text(page, render(readme.read_text(encoding="utf-8"), images))
            put(str(page))


@cli.command(epilog="Example: ggez push pocket-sea-embedding --to hf --namespace me --yes")
@RECIPE
@OVERRIDES
@click.option("--to", "target", required=True, metavar="hf|PATH", help="The Hub, or a folder in the same layout.")
@click.option("--namespace", metavar="NS", help="Whose repositories (you, an organisation); default: the recipe's.")
@click.option("--yes", is_flag=True, help="Do it; without it the Hub is read and the plan is shown.")
@click.option("--private", is_flag=True, help="Create repositories that only their owners see.")
@click.option("--pr", is_flag=True, help="Open pull requests instead of changing the repositories.")
@click.option("--tag", metavar="NAME", help="Tag what is published.")
@click.option("--below-gate", is_flag=True, help="Publish what misses the gate, with a notice on its card.")
@OUT
def push(
    recipe: str, overrides: tuple[str, ...], target: str, namespace: str | None, out: str, **hub_only: Any
) -> None:
    """Publish the adapter and the merged checkpoint."""
    from ggez_hub import pipeline
    from ggez_hub.stages import push as stage

    only_hub = [f"--{key.replace('_', '-')}" for key, value in hub_only.items() if value and key != "yes"]
    if target != "hf" and only_hub:
        raise InputError(f"{only_hub[0]} goes with --to hf", f"ggez push {recipe} --to hf")
    if namespace is not None:
        overrides = (*overrides, f"push.namespace={json.dumps(namespace)}")
    loaded, run = _open(recipe, overrides, out)
    if waiting := [step.stage for step in pipeline.plan(loaded, run) if step.reason and step.stage != "card"]:
        raise InputError(
            f"{run.folder}: not done yet: {', '.join(waiting)}",
            shlex.join(["ggez", "run", recipe, *overrides, "--out", out]),
        )
    list(pipeline.execute(loaded, run))  # the card, if it named another namespace
    with run.locked():
        if target == "hf":
            _push_to_hub(loaded, run, **hub_only)
            return
        for repository, written in stage.to_folder(loaded, run, Path(target)):
            say("written" if written else "unchanged")
            put(str(repository))


def _push_to_hub(recipe: Any, run: Any, yes: bool, private: bool, pr: bool, tag: str | None, below_gate: bool) -> None:
    from ggez_hub import describe, gate, hub
    from ggez_hub.hub import publish
    from ggez_hub.stages import push as stage

    if pr and (private or tag):
        raise InputError("--pr changes no repository, so neither --private nor --tag goes with it")
    say("the gate: the merged checkpoint answers some questions once more")
    missed = gate.reasons(recipe, run)
    if missed and not below_gate:
        raise GateError(
            "the publishing gate is not met:\n" + "\n".join(f"  - {reason}" for reason in missed),
            "mend what it names, or publish with a notice on the card: --below-gate",
        )
    notices = {artefact: gate.notice(recipe, run, artefact, missed) for artefact in hub.artefacts(recipe) if missed}
    changes = stage.changes(recipe, run, private, notices)
    gate.keep_hand_written(changes)
    title = recipe.card.title or recipe.title
    put(describe.push_plan(changes, None if pr else title, tag))
    if not yes:
        publish.check(changes, pr, tag)  # what would stop it is part of the plan
        say("nothing has been touched; to publish this, add --yes")
        return
    for url in publish.publish(changes, f"{run.folder.name}, by ggez_hub", pr, tag):
        put(url)
    if not pr:
        repo_ids = [change.repo_id for change in changes]
        put(publish.collect(title, repo_ids, any(change.private for change in changes)))
        say(f"next: ggez verify {repo_ids[0]}")


@cli.command(epilog="Example: ggez demo --out runs")
@click.option("--family", default="embedding", show_default=True, help="Which pocket recipe, or all.")
@OUT
def demo(family: str, out: str) -> None:
    """Run a pocket recipe end to end, offline: filter, train, sweep, merge, card, push into a folder."""
    from ggez_hub.errors import did_you_mean
    from ggez_hub.stages import push as stage

    prefix = "pocket-sea-"
    recipes_of = {name.removeprefix(prefix): name for name in registry.files("recipes") if name.startswith(prefix)}
    shown = {name.replace("-", "_"): recipe for name, recipe in recipes_of.items()}
    if family not in (*shown, "all"):
        raise InputError(f"no pocket recipe of family {family!r}{did_you_mean(family, (*shown, 'all'))}")
    for name in shown.values() if family == "all" else (shown[family],):
        run = _run(name, (), out, "card")
        loaded = recipes.load_recipe(name)
        adapter, *_ = [folder for folder, _ in stage.to_folder(loaded, run, Path(out) / "hub")]
        say(f"""
load it:    from ggez_hub import RegionalModel
            model = RegionalModel.from_pretrained("{adapter}")
            model.alpha = 1.0     # 0 = the global base, 1 = the region
card:       {adapter / "README.md"}
plot:       {adapter / "parity.png"}
all repositories: {Path(out) / "hub"}""")


@cli.command(epilog="Example: ggez rehearse omniglot-sea --out rehearsals")
@click.argument("arguments", nargs=-1, metavar="[RECIPE]... [KEY=VALUE]...")
@click.option(
    "--out", default="rehearsals", show_default=True, metavar="DIR", help="Folder that holds the rehearsals' folders."
)
@click.option("--all", "every", is_flag=True, help="All recipes there are, as many at a time as there are cores.")
@JSON
def rehearse(arguments: tuple[str, ...], out: str, every: bool, as_json: bool) -> None:
    """Run recipes on tiny twins of their base and data, offline, and estimate what the real run takes."""
    from ggez_hub import rehearsal
    from ggez_hub.rehearsal import report

    overrides = [given for given in arguments if "=" in given and not Path(given).is_file()]
    names = [given for given in arguments if given not in overrides]
    if bool(names) == every:
        raise InputError("expected recipes, or --all", "ggez rehearse --all")
    names = list(dict.fromkeys(names)) or list(registry.files("recipes"))
    for name in names:
        registry.find("recipes", name)  # an unknown one is told before any of them runs
    say(f"{len(names)} recipes" if every else ", ".join(names))
    found: list[report.Report] = []
    for each in rehearsal.rehearsals(names, out, registry.parse_overrides(overrides)):
        found.append(each)
        if len(names) > 1:
            say(f"{len(found)}/{len(names)} {each.recipe}: {each.outcome}")
    found.sort(key=lambda each: each.recipe)
    if as_json:
        put_json({"rehearsals": [each.as_json() for each in found]} if len(names) > 1 else found[0].as_json())
    elif len(names) > 1:
        put(report.table(found))
    elif found[0].ok:
        put(found[0].markdown())
    if failed := [each for each in found if not each.ok]:
        problems = [str(problem) if len(names) == 1 or problem.place.rpartition(":")[0] else f"{each.recipe}: {problem}"
                    for each in failed for problem in each.problems]  # fmt: skip
        if len(names) == 1:
            raise ConfigError(problems, f"{Path(out) / failed[0].recipe / 'report.md'} has all of it")
        raise ConfigError(problems, f"{len(failed)} of {len(found)} recipes; {out}/RECIPE/report.md has all of it")
    say(f"{Path(out) / 'RECIPE' if len(names) > 1 else Path(out) / found[0].recipe} has all of it")


@cli.command(epilog="Example: ggez ablate pocket-mixes-embedding --out runs")
@RECIPE
@OVERRIDES
@click.option("--by", metavar="FIELD", help="Compare by continent, category, kind ... what each mix was trained on.")
@OUT
@JSON
def ablate(recipe: str, overrides: tuple[str, ...], by: str | None, out: str, as_json: bool) -> None:
    """Run a recipe with each of its data mixes, and compare them by country: the paper's figure 3.

    With --by as a generalisation matrix: what each mix was trained on against groups of the questions.
    """
    from ggez_hub import ablate as ablation
    from ggez_hub import generalisation, pipeline

    mixes = ablation.mixed(recipe, out, registry.parse_overrides(overrides))
    if by:
        generalisation.check(mixes, by)
    for mix, (loaded, run) in mixes.items():
        say(f"mix {mix}: {run.folder}")
        for step in pipeline.execute(loaded, run, ablation.LAST):
            say(f"{step.stage:8} {step.reason or 'done already'}")
    name = recipes.recipe_name(recipe)
    found = generalisation.matrix(name, mixes, by) if by else ablation.compare(name, mixes)
    shown = generalisation if by else ablation
    if as_json:
        put_json(found)
    else:
        put(shown.text(found))
    for path in shown.write(found, Path(out) / f"{name}.ablation"):
        say(f"{path} written")


def _open(recipe: str, overrides: Sequence[str], out: str) -> tuple[Any, Any]:
    from ggez_hub.runs import Run

    loaded = recipes.load_recipe(recipe, registry.parse_overrides(overrides))
    return loaded, Run(Path(out) / recipes.recipe_name(recipe))


def _run(recipe: str, overrides: Sequence[str], out: str, until: str) -> Any:
    """Runs a recipe with talk around it; prints the table of results if the sweep is part of it."""
    from ggez_hub import describe, pipeline

    loaded, run = _open(recipe, overrides, out)
    say(loaded.title)
    for step in pipeline.execute(loaded, run, until):
        say(f"{step.stage:8} {step.reason or 'done already'}")
    if until == "filter":
        put(describe.filter_table(json.loads((run.stage("filter") / "report.json").read_text(encoding="utf-8"))))
    results = run.stage("sweep") / "results.json"
    if until in ("sweep", "merge", "card") and results.is_file():
        put(describe.results_table(json.loads(results.read_text(encoding="utf-8"))))
    return run


# -------------------------------------------------------------------------------------------------------------- weights
@cli.command("merge-checkpoints", epilog="Example: ggez merge-checkpoints BASE REGIONAL --alpha 0.5 --out merged")
@click.argument("base")
@click.argument("regional", nargs=-1, required=True)
@click.option("--alpha", "alphas", type=float, multiple=True, required=True, help="0..1; one for each REGIONAL.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
def merge_checkpoints(base: str, regional: tuple[str, ...], alphas: tuple[float, ...], out: Path) -> None:
    """Merge a base with a regional checkpoint, or with one or more adapters (folders or Hub ids)."""
    from ggez_hub import hub
    from ggez_hub.merging import checkpoints

    if len(alphas) != len(regional):
        raise InputError(f"{len(regional)} to merge, but {len(alphas)} times --alpha", "give one --alpha for each")
    folders = [hub.fetch(name) for name in regional]
    if len(set(folders)) < len(folders):
        raise InputError("one adapter is given twice")
    written = checkpoints.merge(hub.fetch(base), dict(zip(folders, alphas, strict=True)), out)
    say(f"{written.tensors} tensors, {written.changed} of them merged, {written.bytes / 1e6:,.1f} MB")
    if written.converted:
        say(f"{written.converted} tensors of another dtype were rounded to that of the base")
    if written.left_out:
        say(f"left out, as they hold the same once more: {', '.join(written.left_out)}")
    put(str(out))


@cli.command(epilog="Example: ggez extract BASE REGIONAL --rank 64 --out adapter")
@click.argument("base")
@click.argument("regional")
@click.option("--rank", type=int, help="Of every layer.")
@click.option("--energy", type=float, help="Instead: for every layer the smallest rank that keeps this share, 0..1.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@JSON
def extract(base: str, regional: str, rank: int | None, energy: float | None, out: Path, as_json: bool) -> None:
    """Make a LoRA from the difference of two checkpoints (folders or Hub ids), and say what it keeps of it."""
    from dataclasses import asdict

    from ggez_hub.merging import extract as extraction

    found = extraction.extract(base, regional, out, rank, energy)
    if found.guessed:
        say("no installed library knows this model: names and kinds of layers are guessed from its files")
    if as_json:
        put_json(asdict(found))
    else:
        put(extraction.table(found))
    say(f"{out} written; it names {found.base} as its base")


# -------------------------------------------------------------------------------------------------------------- numbers
@cli.command(epilog="Example: ggez grp --global 63.5 --regional 56.3 --region sea")
@click.option("--global", "global_", type=float, required=True, help="Global quality.")
@click.option("--regional", type=float, required=True, help="Regional quality, on the same scale.")
@click.option("--region", help="Region whose globalization factor weighs them.")
@click.option("--year", type=int, help="Year of the KOF value; default: the newest.")
@click.option("--globalization", type=float, help="Give the factor itself, 0..1.")
@JSON
def grp(
    global_: float, regional: float, region: str | None, year: int | None, globalization: float | None, as_json: bool
) -> None:
    """Compute the global-regional parity of two qualities."""
    from ggez_hub import kof, method

    if (region is None) == (globalization is None):
        raise InputError("expected either --region or --globalization")
    if year is not None and region is None:
        raise InputError("--year needs --region")
    for option, quality in (("--global", global_), ("--regional", regional)):
        if not math.isfinite(quality):
            raise InputError(f"{option}: expected a number, got {quality}")
    source = "given"
    if region is not None:
        found = kof.lookup(region, year)
        globalization, source = found.value, f"{found.source}, {found.year}"
    assert globalization is not None  # noqa: S101 -- for the type checker; ruled out above
    value = method.grp(global_, regional, globalization)
    if as_json:
        put_json({"grp": value, "globalization": globalization, "source": source})
    else:
        put(f"{value:.4g}")
        say(f"globalization {globalization:g} ({source})")


@cli.command("reproduce-paper", epilog="Example: ggez reproduce-paper --out reproduced")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Also write figure 4 and reproduced.json.")
@JSON
def reproduce_paper(out: Path | None, as_json: bool) -> None:
    """Recompute the paper's printed numbers from its printed scores: what reproduces, and with which globalization."""
    from ggez_hub import reproduce

    found = reproduce.recompute()
    if as_json:
        put_json(found)
    else:
        put(reproduce.text(found))
    if out is not None:
        for path in reproduce.write(found, out):
            say(f"{path} written")


@cli.group("kof")
def kof_() -> None:
    """The KOF index behind the globalization factor."""


@kof_.command("import", epilog="Example: ggez kof import KOFGI_2025_public.xlsx")
@click.argument("file", type=click.Path(path_type=Path))
def kof_import(file: Path) -> None:
    """Use an official KOF file (xlsx or csv) instead of the printed table."""
    from ggez_hub import kof

    found = kof.import_file(file)
    for warning in found.warnings:
        say(f"warning: {warning}")
    say(f"{found.countries} countries, {found.first_year} to {found.last_year}, from {found.name}")
    say("it wins over the printed table from now on")


@cli.command(epilog="Example: ggez score worldcuisines source.path=FOLDER --predictions answers.csv --region sea")
@click.argument("benchmark")
@OVERRIDES
@PREDICTIONS
@click.option("--region", help="Whose questions are regional; default: sea, if there are such.")
@click.option("--against", metavar="MODEL", help="The model in the predictions that the others are compared to.")
@ALLOW_MISSING
@JSON
def score(
    benchmark: str,
    overrides: tuple[str, ...],
    files: tuple[str, ...],
    region: str | None,
    against: str | None,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Score answers made elsewhere: by region, country, language and kind of question, with intervals."""
    from ggez_hub.scoring import score as scoring

    name, loaded, questions, answers = _answers(benchmark, overrides, files, region)
    found = scoring.score(name, loaded, questions, answers, region, against=against, allow_missing=allow_missing)
    if as_json:
        put_json(found)
    else:
        put(scoring.table(found))
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    if loaded.synthetic:
        say("Synthetic pictures: the numbers say that the method works here, nothing about the world.")


def _answers(benchmark: str, overrides: Sequence[str], files: Sequence[str], region: str | None) -> tuple[Any, ...]:
    """The name of a benchmark, itself, its questions, and the answers in prediction files."""
    from ggez_hub.scoring import items, predictions

    loaded = recipes.load_benchmark(benchmark, registry.parse_overrides(overrides))
    name = registry.find("benchmarks", benchmark).stem
    questions = items.load(loaded, region=registry.load_region(region) if region else None)
    return name, loaded, questions, predictions.read(files, loaded.key, name)


@cli.command(epilog="Example: ggez disparity worldcuisines source.path=FOLDER --predictions answers.csv --out report")
@click.argument("benchmark")
@OVERRIDES
@PREDICTIONS
@click.option("--region", help="Of a benchmark that asks about one, or all others; default: sea.")
@ALLOW_MISSING
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@JSON
def disparity(
    benchmark: str,
    overrides: tuple[str, ...],
    files: tuple[str, ...],
    region: str | None,
    allow_missing: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Report how unequally models answer about continents, regions, countries and categories, with a heat map."""
    from ggez_hub.scoring import disparity as reporting
    from ggez_hub.scoring import score as scoring

    name, loaded, questions, answers = _answers(benchmark, overrides, files, region)
    found = reporting.report(name, loaded, scoring.judge(loaded, questions, answers, allow_missing))
    written = reporting.write(found, out)
    if as_json:
        put_json(found)
    else:
        put(reporting.table(found))
    for path in written:
        say(f"{path} written")


@cli.command(epilog="Example: ggez predict pocket-core-top1 --model runs/my-recipe --out a.jsonl")
@click.argument("benchmark")
@OVERRIDES
@click.option("--model", required=True, metavar="REF|NAME", help="Hub id or folder; of an endpoint its name.")
@click.option("--alpha", type=click.FloatRange(0, 1), help="Of a published adapter; default: as its card recommends.")
@click.option("--endpoint", metavar="URL", help="Ask a server, such as http://localhost:8000/v1; key: OPENAI_API_KEY.")
@click.option("--region", metavar="REGION", help="Of a benchmark that asks about one, or all others; default: sea.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N questions.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Answers, .jsonl.")
def predict(
    benchmark: str,
    overrides: tuple[str, ...],
    model: str,
    alpha: float | None,
    endpoint: str | None,
    region: str | None,
    limit: int | None,
    out: Path,
) -> None:
    """Ask a model the questions of a benchmark; `ggez score` reads the answers."""
    from ggez_hub import predict as predicting
    from ggez_hub.endpoint import Endpoint

    asked = recipes.load_benchmark(benchmark, registry.parse_overrides(overrides))
    if endpoint is not None:
        server = Endpoint(endpoint, model)
        asking: Any = server
        facts: dict[str, Any] = {"name": model, "endpoint": server.url}
        if asked.answer == "option":
            say("an endpoint gives no likelihoods of options: they are asked for by letter")
    else:
        asking, facts = predicting.load(model)
    count = predicting.write(out, benchmark, asked, asking, facts, alpha, region, limit)
    say(f"{count} questions asked" if count else "done already")
    put(str(out))
    scoring = [*(("--region", region) if region else ()), *(("--allow-missing",) if limit else ())]
    say(f"next: {shlex.join(['ggez', 'score', benchmark, *overrides, '--predictions', str(out), *scoring])}")


@cli.command("ratings", epilog="Example: ggez ratings ratings --items items --rewards rewards.csv")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--items", multiple=True, type=click.Path(path_type=Path), metavar="DIR", help="The items that were rated."
)
@click.option(
    "--rewards", type=click.Path(path_type=Path), metavar="FILE", help="Automatic rewards of the same pictures."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random pairs and resamples.")
@JSON
def ratings_(path: Path, items: tuple[Path, ...], rewards: Path | None, seed: int, as_json: bool) -> None:
    """Analyse people's ratings: means, differences, agreement, careless raters, and rewards against people.

    PATH is the folder that the annotate page writes, or one file: CSV, JSONL or parquet.
    """
    from ggez_hub.scoring import rating_report

    found = rating_report.analyse(path, items, rewards, seed)
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    if as_json:
        put_json(found)
    else:
        put(rating_report.text(found))


# -------------------------------------------------------------------------------------------------------------- the Hub
@cli.group("hub")
def hub_() -> None:
    """Models that others have published."""


@hub_.command("ls", epilog="Example: ggez hub ls --region sea --family vlm")
@click.option("--region", help="Of this region alone.")
@click.option("--family", help="Of this family alone.")
@click.option("--base", metavar="ID", help="Made from this base.")
@JSON
def hub_ls(region: str | None, family: str | None, base: str | None, as_json: bool) -> None:
    """List published adapters and merged checkpoints, newest first, with alpha, gain and retention."""
    from ggez_hub import describe
    from ggez_hub.hub import search

    rows = search.published(region, family, base)
    if as_json:
        put_json({"models": rows})
    elif rows:
        put(describe.published_table(rows))
        say("\nnext: ggez hub show ID, ggez verify ID")
    else:
        say("nothing is published that fits")


@hub_.command("show", epilog="Example: ggez hub show ggez-hub/pocket-sea-embedding-lora")
@click.argument("repo_id", metavar="ID")
@click.option("--revision", help="Commit, tag or branch.")
@JSON
def hub_show(repo_id: str, revision: str | None, as_json: bool) -> None:
    """Show what a published model says of itself, without its weights."""
    from ggez_hub import describe, hub
    from ggez_hub.hub import search

    folder, facts, results = search.described(repo_id, revision)
    found = {"id": repo_id, "commit": hub.commit_of(folder)} | facts.model_dump(mode="json", by_alias=True)
    measured = results.model_dump(mode="json", by_alias=True)
    if as_json:
        put_json(found | {"results": measured})
        return
    for key, value in flat(found).items():
        put(f"{key:16} {value if isinstance(value, str) else json.dumps(value)}")
    put("\n" + describe.results_table(measured | {"synthetic": facts.synthetic}))
    say(f"\nload it:    from ggez_hub import RegionalModel\n            RegionalModel.from_pretrained({repo_id!r})")


@cli.command(epilog="Example: ggez verify ggez-hub/pocket-sea-embedding-lora")
@click.argument("repo_id", metavar="ID")
@click.option("--revision", help="Commit, tag or branch.")
@click.option("--questions", type=click.IntRange(min=2), default=200, show_default=True, help="Of each benchmark.")
@click.option("--all", "whole", is_flag=True, help="Ask all questions.")
@JSON
def verify(repo_id: str, revision: str | None, questions: int, whole: bool, as_json: bool) -> None:
    """Measure a published model again: do the numbers on its card hold within their intervals?"""
    from dataclasses import asdict

    from ggez_hub import verify as measuring

    say("all questions" if whole else f"{questions} questions of each benchmark at most; --all asks all")
    checked = measuring.verify(repo_id, revision, None if whole else questions)
    if as_json:
        put_json({"id": repo_id, "numbers": [asdict(each) | {"holds": each.holds} for each in checked]})
    else:
        put(measuring.table(checked))
    if wrong := [each.what for each in checked if not each.holds]:
        raise GateError(
            f"{repo_id}: {len(wrong)} of {len(checked)} numbers do not hold: {', '.join(dict.fromkeys(wrong))}"
        )
    say(f"{repo_id}: all {len(checked)} numbers hold within their intervals")


# --------------------------------------------------------------------------------------------------------------- Spaces
@cli.command(epilog="Example: ggez space playground --launch")
@click.argument("name")
@click.option("--launch", is_flag=True, help="Open it here; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where.")
@click.option("--push", "to_hub", is_flag=True, help="Publish it as a Hugging Face Space; --yes does it.")
@click.option("--yes", is_flag=True, help="With --push: do it; without it the plan is shown.")
@click.option("--repo", "repos", multiple=True, metavar="ID_OR_PATH", help="What it shows; may be given several times.")
@click.option("--namespace", metavar="NS", help="With --push: whose Space (you, an organisation); default: yours.")
def space(name: str, launch: bool, to_hub: bool, yes: bool, repos: tuple[str, ...], namespace: str | None) -> None:
    """Open a Gradio app (playground, parity or annotate), or publish it."""
    from ggez_hub import spaces

    if launch == to_hub:
        raise InputError("expected either --launch or --push", f"ggez space {name} --launch")
    if launch:
        spaces.launch(name, repos=repos, ready=put)
        return
    _push_space(name, repos, namespace, yes)


def _push_space(name: str, repos: Sequence[str], namespace: str | None, yes: bool) -> None:
    from ggez_hub import describe
    from ggez_hub.hub import publish
    from ggez_hub.spaces import push as publishing

    change = publishing.change(name, repos, namespace)
    put(describe.push_plan([change], None, None))
    if not yes:
        publish.check([change])
        say("nothing has been touched; to publish this, add --yes")
        return
    for url in publish.publish([change], f"{name}, by ggez_hub"):
        say(url)
    address = publishing.address(change.repo_id)
    put(address)
    say(f"next: {address}?logs=build shows how it is built\n      {publishing.NEXT[name]}")


# --------------------------------------------------------------------------------------------------------------- ending
def main() -> NoReturn:
    """Runs the command line and turns every outcome into an exit code."""
    code = _guarded(lambda: cli.main(standalone_mode=False))
    if code:
        # Not sys.exit: writers of other libraries that an error left half-way abort the process as they are torn down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit()


def _guarded(call: Callable[[], Any]) -> int:
    """0 ok, 2 the user's input, 3 a missing dependency, 4 the Hub or network, 5 a gate not met, 1 a bug."""
    _quiet_libraries()
    try:
        call()
    except GgezError as err:
        complain(f"error: {err}")
        return err.exit_code
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("\nstopped; the same command goes on from here")
        return 130
    except Exception as err:  # noqa: BLE001 -- told apart here, once: a full disk, a wrong place to write, or a bug
        if _disk_full(err):
            complain("error: the disk is full; nothing half-written is left")
            complain("  hint: free some space; the same command goes on from here")
            return 2
        if isinstance(err, WRONG_PLACE) and err.filename is not None:
            complain(f"error: {err.filename}: {err.strerror}\n  hint: give another file or folder")
            return 2
        import traceback

        traceback.print_exc()
        complain("error: this is a bug in ggez_hub; please report it with the lines above")
        return 1
    return 0


def _quiet_libraries() -> None:
    """Keeps the talk of other libraries out of ours, unless their own settings ask for it."""
    for name, value in (("TRANSFORMERS_VERBOSITY", "error"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(transformers|peft|torch)\.")


def _disk_full(err: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that the disk is full. Some libraries tell it in words only."""
    while err is not None:
        if isinstance(err, OSError) and err.errno in FULL_DISK:
            return True
        said = str(err)  # by safetensors, Arrow and numpy
        if any(f"os error {code}" in said or f"errno {code}" in said for code in FULL_DISK):
            return True
        if re.fullmatch(r"\d+ requested and \d+ written", said):
            return True
        err = err.__cause__ or err.__context__
    return False
