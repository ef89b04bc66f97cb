"""Reviews recipes, regions and benchmarks that changed: validates each, rehearses recipes, writes a Markdown report.

A rehearsal is a shortened run in a temporary folder; it needs a base, data and questions that are in this repository.
What the files say is not trusted: in the report it neither breaks the table, nor links, nor mentions anybody.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggez_hub import hub, recipes, registry
from ggez_hub.data import readers, rewards
from ggez_hub.errors import ConfigError
from ggez_hub.runs import read_json
from ggez_hub.schema import Benchmark, Corpus, Recipe

REPOSITORY = Path(__file__).parents[1]
LIMIT = 600  # seconds of a rehearsal
MOST_STEPS, MOST_ROWS, MOST_PICTURES = 20, 16, 1  # of a rehearsal: of training, in a batch, of each concept
CELL, BLOCK = 200, 4000  # characters
REPORT = 30_000  # bytes that comment.yml takes of a report
HARMLESS = str.maketrans({"`": "'", "|": "¦", "\\": "/", "@": "@\N{ZERO WIDTH SPACE}"})
VALID = {True: "yes", False: "**no**", None: ""}
NOTE = "The figures of a shortened run mean nothing but that it runs."


@dataclass(frozen=True)
class Finding:
    """What is said about one file."""

    path: str
    what: str = ""  # its kind and title
    error: str = ""  # why it is not valid, or why its rehearsal failed
    valid: bool | None = True  # None = it was removed
    note: str = ""  # why it was not rehearsed, or who uses it
    seconds: float | None = None  # of the rehearsal
    results: dict[str, Any] | None = None


class RehearsalError(Exception):
    """A recipe does not run."""


# ------------------------------------------------------------------------------------------------------------ reviewing
def changed(base: str, repository: Path = REPOSITORY) -> list[Path]:
    """The YAML files of recipes/ that differ from where the branch left `base`, removed ones included."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD", "--", "recipes"]
    done = subprocess.run(command, cwd=repository, capture_output=True, check=True)
    names = [name.decode("utf-8", "replace") for name in done.stdout.split(b"\0") if name]
    return [repository / name for name in names if name.endswith((".yaml", ".yml"))]


def review(path: Path) -> Finding:
    """Validates one file, and rehearses it if it is a recipe whose parts are all here."""
    shown = path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name
    kind = registry.kind_of(path)
    users = f"used by: {', '.join(used_by(kind, path.stem)) or 'no recipe'}" if kind != "recipes" else ""
    if not path.is_file():
        return Finding(shown, registry.one(kind), valid=None, note=f"removed; {users}" if users else "removed")
    try:
        recipes.validate_file(path)
        loaded = recipes.load(kind, str(path))
    except ConfigError as err:
        return Finding(shown, registry.one(kind), str(err).replace(f"{REPOSITORY}/", ""), valid=False, note=users)
    what = f"{registry.one(kind)}: {loaded.title}"  # type: ignore[attr-defined]
    if not isinstance(loaded, Recipe):
        return Finding(shown, what, note=users)
    if elsewhere := ", ".join(missing(loaded)):
        return Finding(shown, what, note=f"validated, not rehearsed; not in this repository: {elsewhere}")
    try:
        seconds, results = rehearse(path, loaded)
    except RehearsalError as err:
        return Finding(shown, what, str(err))
    return Finding(shown, what, seconds=seconds, results=results)


def used_by(kind: registry.Kind, name: str) -> list[str]:
    """The recipes that name a region or benchmark."""
    found = []
    for recipe, path in registry.files("recipes").items():
        with contextlib.suppress(ConfigError):  # one that is not valid is told of elsewhere
            loaded = registry.read(Recipe, path)
            names = (loaded.region,) if kind == "regions" else loaded.sweep.benchmarks
            found += [recipe] if name in names else []
    return found


def missing(recipe: Recipe) -> Iterator[str]:
    """What a rehearsal would need from elsewhere."""
    base = recipe.base
    for model in filter(None, (base.id, *base.parts.values())):
        if not hub.is_shipped(model):
            yield f"its base {model}"
    if base.recipe:
        yield f"its base, the output of recipe {base.recipe}"
    for key, corpus in _corpora(recipe).items():
        if readers.needs_path(corpus.reader) and not _is_here(corpus.path):
            yield f"its data {corpus.path or corpus.id or f'(without {key}.path)'}"
    rules, translate = recipe.filter, recipe.translate
    if rules.reward and not rewards.MODELS[rules.reward.model].synthetic:
        yield f"its reward model {rules.reward.model}"
    for model in filter(None, (rules.embedding, rules.unsafe and rules.unsafe.id)):
        if not hub.is_shipped(model):
            yield f"its filter's model {model}"
    for translator in translate.translators.values() if translate else ():
        yield f"its translator {translator.id}"
    for name in recipe.sweep.benchmarks:
        benchmark = recipes.load_benchmark(name)
        source = benchmark.source
        if source.path and not _is_here(source.path):
            yield f"the questions of {name}"
        if benchmark.judge and not hub.is_shipped(benchmark.judge):
            yield f"the judge {benchmark.judge} of {name}"


def _corpora(recipe: Recipe) -> dict[str, Corpus]:
    """The sources of a recipe's data, by their keys in it."""
    prefix = "data.sources." if recipe.data.sources else ""
    return {f"{prefix}{name}": corpus for name, corpus in recipe.data.corpora.items()}


def _is_here(path: str | None) -> bool:
    """Whether a path leads to something within the repository."""
    place = (REPOSITORY / (path or "..")).resolve()
    return place.is_relative_to(REPOSITORY.resolve()) and place.exists()


# ------------------------------------------------------------------------------------------------------------ rehearsal
def rehearse(path: Path, recipe: Recipe) -> tuple[float, dict[str, Any]]:
    """Runs a shortened recipe in a temporary folder; returns the seconds it took and its results.json.

    Raises:
        RehearsalError: It does not run, with what the run said last.
    """
    train = recipe.train
    short: dict[str, Any] = {
        "train.steps": min(train.steps, MOST_STEPS),
        "train.batch_size": min(train.batch_size, MOST_ROWS),
        "sweep.alphas": [0, 0.5, 1],
        "sweep.search": "grid",
        "sweep.resamples": 100,
    }
    if train.micro_batch_size:
        short["train.micro_batch_size"] = min(train.micro_batch_size, MOST_ROWS)
    if train.pretrain:
        short["train.pretrain.steps"] = min(train.pretrain.steps, MOST_STEPS)
    for key, corpus in _corpora(recipe).items():
        if corpus.path:
            short[f"{key}.path"] = str(REPOSITORY / corpus.path)
        short |= {f"{key}.options.{name}": value for name, value in _few(corpus.options).items()}
    with tempfile.TemporaryDirectory() as folder:
        for (
            name
        ) in recipe.sweep.benchmarks:  # a folder `recipes` in the current one wins: the same questions, but fewer
            benchmark = _shortened(recipes.load_benchmark(name))
            target = Path(folder, "recipes", "benchmarks", f"{name}.yaml")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(registry.to_yaml(benchmark.model_dump(mode="json")), encoding="utf-8")
        overrides = [f"{key}={json.dumps(value)}" for key, value in short.items()]
        command = [sys.executable, "-m", "ggez_hub", "run", str(path), *overrides, "--out", "runs"]
        started = time.monotonic()
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired as err:
            raise RehearsalError(f"the rehearsal took longer than {LIMIT} s") from err
        seconds = time.monotonic() - started
        if done.returncode:
            said = done.stderr.replace(f"{REPOSITORY}/", "").rpartition("error: ")[2] or "nothing was said"
            raise RehearsalError(f"the rehearsal ended with exit code {done.returncode}: {said.strip()}")
        results: dict[str, Any] = read_json(Path(folder, "runs", path.stem, "sweep", "results.json"))
    return seconds, results


def _few(options: dict[str, Any]) -> dict[str, int]:
    """Options of a reader that count pictures of each concept, with fewer of them."""
    counts = ("train", "selection", "test", "judge")
    return {name: min(value, MOST_PICTURES) for name, value in options.items() if name in counts}


def _shortened(benchmark: Benchmark) -> Benchmark:
    source = benchmark.source
    changes: dict[str, Any] = {"options": source.options | _few(source.options)}
    if source.path:
        changes["path"] = str(REPOSITORY / source.path)
    return benchmark.model_copy(update={"source": source.model_copy(update=changes)})


# --------------------------------------------------------------------------------------------------------------- report
def report(findings: Sequence[Finding]) -> str:
    """The findings as Markdown: a table, and below it every error in a code block."""
    if not findings:
        return "No recipe, region or benchmark changed.\n"
    lines = ["| file | what | valid | rehearsed | gain | retention |", "| --- | --- | --- | --- | --- | --- |"]
    for finding in findings:
        chosen = (finding.results or {}).get("chosen", {})
        rehearsed = cell(finding.note) if finding.note else ""
        if finding.seconds is not None:
            rehearsed = f"{finding.seconds:.0f} s"
        elif finding.error and finding.valid:
            rehearsed = "**failed**"
        cells = (cell(finding.path), cell(finding.what), VALID[finding.valid], rehearsed,
                 _number(chosen.get("gain")), _number(chosen.get("retention")))  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    if any(finding.results for finding in findings):
        lines += ["", NOTE]
    for finding in findings:
        if finding.error:
            lines += ["", f"{cell(finding.path)}:", "", block(finding.error)]
    text = "\n".join(lines) + "\n"
    return text if len(text.encode()) <= REPORT else f"{len(findings)} files changed; the report is too long to show.\n"


def cell(text: str) -> str:
    """Untrusted text for a cell of a table: as code, which links and mentions nothing, and that it cannot end."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    short = " ".join(plain.split())[:CELL].translate(HARMLESS)
    return f"`{short}`" if short else ""


def block(text: str) -> str:
    """Untrusted text as a code block that it cannot end."""
    kept = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text[:BLOCK])
    kept = kept.replace("@", HARMLESS[ord("@")])
    longest = max((len(run) for run in re.findall("`+", kept)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{kept}\n{fence}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report; 1 if a file is invalid or a rehearsal fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", metavar="COMMIT", help="review the files of recipes/ that changed since this commit")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the report; default: stdout")
    parser.add_argument("files", nargs="*", type=Path, help="instead of --base: the files to review")
    args = parser.parse_args(arguments)
    if bool(args.base) == bool(args.files):
        parser.error("expected either --base or files")
    if registry.data_root() != REPOSITORY:
        parser.error("another ggez_hub is installed than this one; first: pip install -e .")
    paths = [path.absolute() for path in args.files] or changed(args.base)
    findings = []
    for path in paths:
        print(f"{path.name} ...", file=sys.stderr)
        findings.append(review(path))
    text = report(findings)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return int(any(finding.error for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
